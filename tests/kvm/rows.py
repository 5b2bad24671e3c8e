# SPDX-License-Identifier: GPL-2.0-or-later
"""What is tried on real KVM, and what must come of it."""

import asyncio
import re

import writers
from l1 import RIG, Inner, behaviour
from machine import parse_line

PROVIDERS = {'content-modes': 'kvm-content-modes',
             'in-place': 'kvm-in-place',
             'two-backings': 'kvm-two-backings'}

# The flags that each kernel offers; nothing else may be sent.
OFFERED_FLAGS = {'content-modes': 3, 'in-place': 0, 'two-backings': 0}

TRACE = ('-trace', 'kvm_guest_memfd_set_attributes')
AO_ERROR = re.compile(r'Guest MCE Memory Error .* GUEST addr 0x1400000 '
                      r'of type BUS_MCEERR_AO injected')
BAD_PAGE = 0x1400000            # as in tests/guest-memfd/host-access.c
PRELOAD = 'LD_PRELOAD=/lib/host-access.so '
with open(f'{RIG}/reports', encoding='ascii') as file:
    REPORTS = file.read().strip()
FLAGS = re.compile(r'flags (0x[0-9a-f]+) ret (-?\d+)')


def total(info, *path):
    """A statistic of the two backends, added up."""
    result = 0
    for backend in info['backends']:
        value = backend['stats']
        for name in path:
            value = value[name]
        result += value
    return result


def adds_up(info):
    for backend in info['backends']:
        stats = backend['stats']
        for name in ('origins', 'directions', 'modes', 'realisations'):
            if sum(stats[name].values()) != stats['requests']:
                return False
        if (backend['private-bytes'] + backend['shared-bytes'] !=
                backend['size']):
            return False
    return True


def not_by_faults(info):
    """
    An access of this guest does not say whether it is private: a fault
    that contradicts what is recorded is never its wish.
    """
    return total(info, 'origins', 'memory-fault') == 0


def vm_statistics(reply):
    """What query-stats says of conversions; one answer for a VM."""
    answer, = reply
    return {s['name']: s['value'] for s in answer['stats']
            if s['name'].startswith('gmem_')}


def vm_totals(info):
    """The same numbers, from query-guest-memfd."""
    return {
        'gmem_requests': total(info, 'requests'),
        'gmem_to_shared': total(info, 'directions', 'to-shared'),
        'gmem_to_private_bytes': total(info, 'converted-bytes', 'to-private'),
        'gmem_mode_zero': total(info, 'modes', 'zero'),
        'gmem_realised_kernel': total(info, 'realisations', 'kernel'),
        'gmem_refused': total(info, 'realisations', 'refused'),
        'gmem_rejected': sum(r['count'] for r in info['rejected']),
        'gmem_unconverted_faults': info['unconverted-faults'],
        'gmem_time_ns': total(info, 'time-ns'),
        'gmem_private_bytes': sum(b['private-bytes']
                                  for b in info['backends'])}


def flags_check(setting, trace):
    """No flag was sent that the kernel did not offer."""
    sent, bad = 0, []
    for line in trace:
        found = FLAGS.search(line)
        flags = int(found[1], 0)
        sent += 1
        if flags & ~OFFERED_FLAGS[behaviour(setting)]:
            bad.append(line)
    want = setting != 'two-backings'
    return bool(sent) == want and not bad, f'{sent} ioctls, {bad[:3]}'


def bytes_result(tap, inner, done, text):
    """The guest's own verdict, once QEMU has ended."""
    bad = [r['line'] for r in inner.records if r['kind'] == 'fail']
    tap.result(done['mismatches'] == '0' and inner.status == 1, text,
               '\n'.join(bad[:20] or [str(inner.status)]))


async def matrix_row(l1, tap, setting, vcpus, backends, guest):
    """The bare-metal guest, all cases, every byte."""
    name = f'{setting}, {vcpus} vCPU, {backends} backend'
    extra = TRACE if (vcpus, backends) == (1, 1) else ()
    inner = Inner(l1, backends, vcpus, guest, extra)
    async with inner:
        done = await inner.until('done')
        reply = await inner.execute('query-stats', {'target': 'vm'})
        info = await inner.finish()
    requests = sum(int(r['requests']) for r in inner.records
                   if r['kind'] == 'stats')
    tap.say(f'{name}: {done["conversions"]} conversions, '
            f'{done["bytes"]} bytes checked')
    bytes_result(tap, inner, done, f'{name}: every byte is as promised')
    provider = PROVIDERS[behaviour(setting)]
    tap.result(info.get('provider') == provider and
               bool(info['provider-reason']),
               f'{name}: provider {provider}: '
               f'{info["provider-reason"]}', str(info.get('provider')))
    tap.result(adds_up(info) and total(info, 'requests') ==
               total(info, 'origins', 'hypercall') >= requests > 0,
               f'{name}: statistics add up to what the guest asked for',
               f'guest {requests}, QEMU {total(info, "requests")}')
    counted, want = vm_statistics(reply), vm_totals(info)
    tap.result(len(counted) == 23 and want.items() <= counted.items(),
               f'{name}: query-stats has them, too', f'{counted}\n{want}')
    if extra:
        good, detail = flags_check(setting, inner.trace)
        tap.result(good, f'{name}: no flag was sent that KVM does not '
                   'offer', detail)


async def huge_row(l1, tap, setting, guest):
    """Memory in huge pages: they are split, and no byte is lost."""
    inner = Inner(l1, 2, 2, guest, memory=',huge-pages=on')
    async with inner:
        await inner.until('fwcfg')
        await inner.execute('stop')
        answer, = await inner.execute('query-stats', {'target': 'vm'})
        await inner.execute('cont')
        done = await inner.until('done')
        info = await inner.finish()
    mapped = {s['name']: s['value'] for s in answer['stats']}.get('pages_2m')
    bytes_result(tap, inner, done,
                 f'{setting}: every byte is as promised in huge pages')
    tap.result(bool(mapped) and all(b['huge-pages'] for b in info['backends']),
               f'{setting}: QEMU asked for huge pages, and KVM maps {mapped}',
               str(info))


async def guest_row(l1, tap, setting, name, vcpus, guest, kind=None,
                    extra=()):
    """A run whose own verdict counts; returns what it said and QMP's."""
    inner = Inner(l1, 2, vcpus, guest, extra)
    async with inner:
        done = await inner.until('done')
        status = await inner.execute('query-status')
        info = await inner.finish()
    said = [r for r in inner.records if r['kind'] == (kind or name)]
    bad = [r['line'] for r in inner.records if r['kind'] == 'fail']
    tap.say(f'{setting}, {name}: ' +
            '; '.join(r['line'] for r in said + [done]))
    tap.result(done['mismatches'] == '0' and inner.status == 1 and
               bool(said) and status['status'] == 'shutdown',
               f'{setting}: {name}', '\n'.join(bad[:20]) or str(status))
    return said, info


async def malformed_row(l1, tap, setting, count):
    said, _ = await guest_row(l1, tap, setting, 'malformed', 1,
                              f'cases=malformed count={count}')
    good = bool(said) and int(said[-1]['count']) == count == \
        int(said[-1]['refused'])
    tap.result(good, f'{setting}: {count} malformed requests are refused',
               str(said))


async def host_access_row(l1, tap, setting, seconds=10):
    """
    QEMU's threads touch private pages while the guest converts: they see
    nothing, the guest sees nothing of it, and QEMU goes on.
    """
    start = len(l1.lines)
    inner = Inner(l1, 2, 4, f'cases=race seconds={seconds}',
                  ('-object', 'iothread,id=io0'), environment=PRELOAD)
    async with inner:
        done = await inner.until('done')
        await inner.finish()
    said = [parse_line(line) for line in l1.lines[start:]
            if line.startswith('host-access ')]
    tap.say(f'{setting}: {done["conversions"]} conversions; ' +
            '; '.join(r['line'] for r in said))
    bytes_result(tap, inner, done, f'{setting}: every byte is as promised '
                 'while QEMU touches private pages')
    tap.result(len(said) == 4 and
               all(int(r['private']) and int(r['sigbus']) and
                   r['bad'] == '0' for r in said),
               f'{setting}: each thread of QEMU reads zeros there, and what '
               'it writes is void', str(said))


async def host_access_control_row(l1, tap, setting):
    """The same accesses end a QEMU without a handler."""
    inner = Inner(l1, 2, 4, 'cases=race seconds=10',
                  environment='HOST_ACCESS=control ' + PRELOAD)
    async with inner:
        said = await inner.until('@@exit', 'done')
    tap.result(said['line'] == '@@exit 135',
               f'{setting}: without the handler it is SIGBUS that ends QEMU',
               said['line'])


async def memory_error_row(l1, tap, setting):
    """
    A page of shared memory goes bad: the guest gets an error, and after a reset
    there is another one in its place.
    """
    start = len(l1.lines)
    inner = Inner(l1, 2, 2, 'cases=race seconds=2',
                  ('-action', 'reboot=reset'),
                  environment='HOST_ACCESS=poison ' + PRELOAD)
    async with inner:
        poisoned = await inner.until('poisoned')
        done = [await inner.until('done')]
        reported = [line for line in l1.lines[start:] if AO_ERROR.search(line)]
        await inner.execute('system_reset')
        await inner.execute('cont')
        done.append(await inner.until('done'))
        await inner.execute('pmemsave', {'val': BAD_PAGE, 'size': 4096,
                                         'filename': '/tmp/page'})
        await inner.finish()
    tap.result(poisoned['ok'] == '1' and len(reported) == 1,
               f'{setting}: of a memory error QEMU tells, and the guest is '
               'reported', f'{poisoned}\n{reported}')
    tap.result(inner.status == 1 and
               all(record['mismatches'] == '0' for record in done),
               f'{setting}: after a reset the page is replaced, and all '
               'others are right', str(done))


async def writers_row(l1, tap, setting, seed):
    """kvmvapic and KVM's clock, with the VM stopped in between."""
    name = f'{setting}, writers {seed}'
    inner = Inner(l1, 2, 1, f'cases=writers seed={seed}')
    async with inner:
        await inner.until('writers-hold')
        await inner.execute('stop')
        await inner.execute('cont')
        clock = await inner.until('writers-clock')
        done = await inner.until('done')
        await inner.finish()
    wrong = writers.verdict(inner.records, seed)
    tap.result(not wrong and done['mismatches'] == '0' and
               inner.status == 1,
               f'{name}: kvmvapic writes to shared pages only',
               '\n'.join(wrong))
    tap.result(clock['shared'] != '0' and clock['private-bad'] == '0',
               f"{name}: so does KVM's clock, also after stop and cont",
               clock['line'])


async def model_row(l1, tap, setting, count, seed=1):
    """Random steps against the model inside the guest."""
    said, info = await guest_row(l1, tap, setting, 'model', 1,
                                 f'cases=model probe=4 seed={seed} '
                                 f'count={count}')
    tap.result(bool(said) and adds_up(info),
               f'{setting}: statistics add up after {count} steps of seed '
               f'{seed}', str(said))


async def race_row(l1, tap, setting, seconds):
    _, info = await guest_row(l1, tap, setting, 'race', 4,
                              f'cases=race seconds={seconds}')
    tap.result(adds_up(info) and not_by_faults(info),
               f'{setting}: statistics add up after the race, and none of '
               f'{info["unconverted-faults"]} faults converted anything',
               str(info))


async def stop_with_private_memory(inner):
    """However fast the guest is: it may have ended, but not before."""
    private = 0
    while not private:
        await inner.execute('cont')
        await asyncio.sleep(0.1)
        await inner.execute('stop')
        info = await inner.execute('query-guest-memfd')
        private = sum(b['private-bytes'] for b in info['backends'])


async def reset_row(l1, tap, setting, count, seed=2):
    """In the middle of it all the machine is reset, and starts over."""
    inner = Inner(l1, 2, 1, 'cases=model probe=4 '
                            f'seed={seed} count={count}')
    async with inner:
        await inner.execute('set-action', {'reboot': 'reset'})
        await inner.until('fwcfg')
        await stop_with_private_memory(inner)
        await inner.execute('system_reset')
        await inner.execute('cont')
        # The reset may cut a line short.
        await l1.until_word('hello via')
        done = await inner.until('done')
        info = await inner.finish()
    bytes_result(tap, inner, done,
                 f'{setting}: every byte is as promised after a reset')
    tap.result(adds_up(info) and total(info, 'origins', 'reset') > 0,
               f'{setting}: a reset made memory shared again', str(info))


async def slots_row(l1, tap, setting, seconds):
    """
    Memslots are made anew while other vCPUs convert what is in them.  q35 has
    a memslot that ends where firmware changes the memory.
    """
    said, info = await guest_row(l1, tap, setting, 'slots', 4,
                                 f'cases=slots seconds={seconds}', 'race',
                                 ('-machine', 'pc'))
    tap.result(bool(said) and int(said[-1]['slots']) > 0 and adds_up(info) and
               not_by_faults(info),
               f'{setting}: statistics add up after memslots were made anew, '
               f'and none of {info["unconverted-faults"]} faults converted '
               'anything', f'{said} {info}')


async def pin_row(l1, tap, setting):
    huge = 'on' if '+huge' in setting else 'off'
    said, info = await guest_row(l1, tap, setting, 'pin', 2,
                                 f'cases=pin huge={huge}')
    last = said[-1] if said else {}
    limit = info['retry-timeout-ms'] * 1000
    tap.result(last.get('status') == '-11' and
               total(info, 'retries') > 0 and
               int(last.get('us', 0)) < 20 * limit,
               f'{setting}: a pinned page answers EAGAIN in time, and '
               'retries are counted',
               f'{last} retries {total(info, "retries")}')


async def cycle(l1, where, memory=''):
    """
    Have the guest convert and use all of its memory; returns its size and
    what that cost, in bytes, at each place where memory is free.
    """
    inner = Inner(l1, 2, 1, 'cases=cycle hold=8',
                  memory=memory, sample=where)
    async with inner:
        await inner.execute('stop')
        unused = await inner.free_kib()
        await inner.execute('cont')
        said = await inner.until('cycle')
        await inner.until('cycle-done')
        used = await inner.free_kib()
        await inner.until('done')
        await inner.finish()
    return (int(said['bytes'], 0),
            *((before - after) * 1024
              for before, after in zip(unused, used)))


def memory_result(tap, setting, size, cost):
    """What the host spends when the guest has used all of its memory."""
    limit = 1.1 if behaviour(setting) != 'two-backings' else 2.1
    tap.result(0.9 < cost / size < limit,
               f'{setting}: {size >> 20} MiB of guest memory, converted both '
               f'ways and used, cost {cost / size:.2f} times as much of the '
               "host's", f'{cost} of {size}')


async def memory_row(l1, tap, setting):
    memory_result(tap, setting, *await cycle(l1, ['/proc']))


async def numa_row(l1, tap, setting):
    """The NUMA policy of the backend is that of private memory, too."""
    size, cost, there = await cycle(
        l1, ['/proc', '/sys/devices/system/node/node1'],
        ',host-nodes=1,policy=bind')
    memory_result(tap, setting, size, cost)
    tap.result(0.9 < there / size < 1.08,
               f'{setting}: memory bound to host node 1 is there: '
               f'{there / size:.2f} of it', f'{there} of {size}')


async def log_row(l1, tap, setting):
    """What the kernel found to be wrong with itself."""
    await l1.type(f"dmesg | grep -E '{REPORTS}'; echo @@log")
    found = []
    while not (found and '@@log' in found[-1]):
        found.append(await l1.line())
    tap.result(len(found) == 1, f"{setting}: the kernel's log has no report",
               '\n'.join(found))
