# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices of L0 that are assigned to the inner guest, behind L0's VT-d."""

import asyncio
import json
import os
import re
import tempfile

import refusals
from l1 import Inner, QMP_MAX
from qemu.qmp.qmp_client import ExecuteError

NVME, EDU = '0000:00:06.0', '0000:00:05.0'
BACK_ENDS = ('type1', 'iommufd')
# A kernel that cannot unmap a part of a mapping.
MORE = (('in-place', 'iommufd+no-split'),)
IDS = 'vfio-pci.ids=1234:11e8,1b36:0010'
IOMMUFD = '-object iommufd,id=iommufd0'
PRELOAD = 'LD_PRELOAD=/lib/iommu-calls.so '

# Of a guest with 512 MiB, 4 KiB each, and KVM's memslots.
MAPPINGS = 131072
MEMSLOTS = 32764
DIMM = 64                                   # MiB
LIMIT = MAPPINGS + MEMSLOTS + DIMM * 256
# The same without memslots, and half of what another dimm takes.
OTHER_DIMM = 32
FEW = MAPPINGS + DIMM * 256 + OTHER_DIMM // 2 * 256
EXHAUST = ('in-place', 'type1')
ROUNDS_NO_PARTS, ROUNDS_EXHAUST = 2, 3
# The disk is not for the driver that the kernel has of it.
NO_DRIVER = 'initcall_blacklist=nvme_init'
PARAMETERS = (IDS, NO_DRIVER, f'vfio_iommu_type1.dma_entry_limit={LIMIT}')

MEMORY = 512 << 20
DISK = 64 << 20
FIGURES = ('maps', 'unmaps', 'us', 'failed', 'mappings', 'free', 'locked',
           'pinned')

# Where huge pages are on, what a device pins keeps its neighbours shared.
SETTINGS = ('content-modes', 'in-place', 'two-backings')


def missing(config):
    """Why this kernel has no assigned devices, or None."""
    with open(config, encoding='ascii') as file:
        if 'CONFIG_IOMMUFD=y' in file.read():
            return None
    return ('the cached subset of Linux has neither drivers/iommu nor '
            'drivers/vfio')


def cases(settings):
    """Settings and back ends, each of which has a machine of its own."""
    return [(setting, back_end) for setting in settings
            if setting in SETTINGS for back_end in BACK_ENDS] + [
                case for case in MORE if case[0] in settings]


class Disk:
    """A file full of zeros, and L0's devices."""

    def __enter__(self):
        fd, self.path = tempfile.mkstemp(prefix='gmem-disk-')
        os.truncate(fd, DISK)
        os.close(fd)
        return self

    def __exit__(self, *_):
        os.unlink(self.path)

    def arguments(self):
        return ['-drive', f'if=none,id=disk,format=raw,file={self.path}',
                '-device', 'edu,addr=5,dma_mask=0xffffffffff',
                '-device', 'nvme,addr=6,serial=gmem,drive=disk']


def device(back_end, host, **more):
    """The arguments of device_add."""
    result = {'driver': 'vfio-pci', 'host': host, **more}
    if back_end == 'iommufd':
        result['iommufd'] = 'iommufd0'
    return result


def options(back_end):
    """QEMU's, for one back end; the disk is there from the start."""
    result = ['-m', '512M,slots=3,maxmem=1G',
              '-global', 'ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off',
              '-device', 'pcie-root-port,id=port0,chassis=1,slot=1']
    if back_end == 'iommufd':
        result += IOMMUFD.split()
    words = device(back_end, NVME)
    driver = words.pop('driver')
    return result + ['-device', ','.join(
        [driver, *(f'{key}={value}' for key, value in words.items())])]


def figures(inner):
    """What iommu-calls.so has counted, by name; the first of each."""
    result = {}
    for record in inner.records:
        if record['kind'] == 'iommu':
            result.setdefault(record['name'], {
                name: int(record[name]) for name in FIGURES})
    return result


async def plug_memory(inner, number, mib):
    """Returns the text of device_add's error."""
    await inner.execute('object-add', {
        'qom-type': 'memory-backend-memfd-private', 'id': f'ram-dimm{number}',
        'size': mib << 20})
    try:
        await asyncio.wait_for(inner.qmp.execute('device_add', {
            'driver': 'pc-dimm', 'id': f'dimm{number}',
            'memdev': f'ram-dimm{number}'}), QMP_MAX)
    except ExecuteError as error:
        return str(error)
    return ''


async def must_plug_memory(inner, number, mib):
    text = await plug_memory(inner, number, mib)
    if text:
        raise inner.l1.failure(f'device_add pc-dimm: {text}')


async def exhaust(inner, tap, name):
    """Most mappings are in use, so that neither memory fits, nor sharing."""
    await inner.until('assigned-exhaust')
    await must_plug_memory(inner, 1, OTHER_DIMM)
    await inner.until('assigned-exhausted')
    text = await plug_memory(inner, 2, 2 * OTHER_DIMM)
    tap.result('No space left on device' in text,
               f'{name}: memory for which the kernel has no mappings is not '
               f'plugged in: {text}')


async def talk(inner, back_end):
    """Do what the guest asks for, until it has been reset and is done."""
    await inner.execute('set-action', {'reboot': 'reset'})
    await inner.until('assigned-plug')
    await inner.execute('device_add', device(
        back_end, EDU, id='edu0', bus='port0'))
    await inner.until('assigned-memory')
    await must_plug_memory(inner, 0, DIMM)
    await inner.until('assigned-reset')
    await asyncio.sleep(1)
    await inner.execute('system_reset')
    await inner.l1.until_word('hello via')


def check_calls(tap, name, back_end, figures):
    """Nothing is mapped or unmapped that is not converted."""
    whole = back_end == 'iommufd'
    start, private, shared = (figures[key] for key in (
        'start', '2m-to-private', '2m-to-shared'))
    tap.result(start['mappings'] <= 10 if whole else
               start['mappings'] >= MAPPINGS,
               f'{name}: {start["mappings"]} mappings for 512 MiB')
    tap.result(start['maps'] <= (50 if whole else MAPPINGS + 2000),
               f'{name}: firmware does not map all memory again: '
               f'{start["maps"]} calls until the guest speaks')
    tap.result((private['maps'], private['unmaps']) == (0, 1) and
               (shared['maps'], shared['unmaps']) ==
               (1 if whole else 512, 0),
               f'{name}: 2 MiB: 1 call to unmap, {shared["maps"]} to map',
               f'{private} {shared}')
    alternate = figures['alternate-to-private']
    tap.result(not alternate['maps'],
               f'{name}: no neighbour is mapped again by '
               f'{alternate["unmaps"]} calls', str(alternate))


def check_pinned(tap, name, figures):
    """The kernel counts in locked, or in pinned, by back end."""
    pinned = [figures[key]['locked'] + figures[key]['pinned'] for key in (
        'start', '64m-to-private', '64m-to-shared')]
    tap.result(pinned[0] - pinned[1] == 64 << 10 and pinned[2] == pinned[0],
               f'{name}: shared memory is pinned and no other: '
               f'{pinned[0]} KiB, then {pinned[1]}, then {pinned[2]}')


def check_exhausted(tap, name, figures):
    """None of the calls that fail is made to."""
    full, end = figures['exhausted'], figures['exhaust-end']
    tap.result(not full['failed'] and full['mappings'] == end['mappings'] ==
               figures['dimm']['mappings'],
               f'{name}: nothing is left mapped by what the kernel has no '
               f'mappings for: {full["maps"]} calls, {full["mappings"]} '
               'mappings', f'{full} {end}')


def check_failures(tap, name, inner, said, calls):
    failed = [r for r in inner.records if r['kind'] == 'iommu' and
              r['name'] == 'failed']
    once = [line for line in said if 'vfio_container_dma_unmap() failed: ' in
            line and 'the device can still access the memory' in line]
    tap.result(len(failed) == calls and len(once) == 1 and
               all(r['failed'] == '1' for r in failed),
               f'{name}: {len(failed)} calls failed, and QEMU reports once '
               'that it cannot unmap', f'{failed}\n{once}')


async def assigned_row(l1, tap, setting, back_end, seconds):
    """All that happens to a guest with an assigned device, in one run."""
    kind, _, mode = back_end.partition('+')
    name = f'{setting}, {back_end}'
    start = len(l1.lines)
    rounds = ROUNDS_NO_PARTS if mode else 1
    if (setting, back_end) == EXHAUST:
        rounds, mode = ROUNDS_EXHAUST, 'more-room'
        await l1.type(f'echo {FEW} > {ENTRIES}')
    inner = Inner(l1, 1, 1, f'cases=assigned count=1000 seconds={seconds} '
                  f'rounds={rounds}', options(kind),
                  environment=PRELOAD + f'IOMMU_CALLS={mode} ')
    async with inner:
        await talk(inner, kind)
        if rounds == ROUNDS_EXHAUST:
            await exhaust(inner, tap, name)
        done = await inner.until('done')
        await inner.finish()
    bad = [line for line in l1.lines[start:] if 'fail what=' in line]
    for record in inner.records:
        if record['kind'] in ('iommu', 'assigned-time', 'assigned-alternate',
                              'assigned-storm-over'):
            tap.say(f'{name}: {record["line"]}')
    tap.result(done['mismatches'] == '0' and not bad and inner.status == 1,
               f'{name}: every byte is as promised, and private pages are '
               'out of reach', '\n'.join(bad[:20]) or str(inner.status))
    check_calls(tap, name, back_end, figures(inner))
    check_pinned(tap, name, figures(inner))
    if rounds == ROUNDS_EXHAUST:
        check_exhausted(tap, name, figures(inner))
    check_failures(tap, name, inner, l1.lines[start:],
                   18 if rounds == ROUNDS_NO_PARTS else 16)


MACHINE = ('-machine q35,smm=off -m 512M,slots=1,maxmem=1G -S '
           '-device pcie-root-port,id=port0,chassis=1,slot=1')
DEVICE = f'-device vfio-pci,host={NVME}'
CAPABILITIES = '{"execute":"qmp_capabilities"}'
END = '{"execute":"query-status"}{"execute":"quit"}'
ADD_MEMORY = ('{"execute":"object-add","arguments":{"qom-type":'
              '"memory-backend-memfd-private","id":"dimm","size":67108864}}'
              '{"execute":"device_add","arguments":{"driver":"pc-dimm",'
              '"id":"dimm0","memdev":"dimm"}}')


def add_device(back_end='type1'):
    arguments = device(back_end, EDU, bus='port0')
    return json.dumps({'execute': 'device_add', 'arguments': arguments})


TOO_MANY = 'the IOMMU has room for '
ENTRIES = '/sys/module/vfio_iommu_type1/parameters/dma_entry_limit'


async def with_limit(l1, limit, device, commands):
    await l1.type(f'echo {limit} > {ENTRIES}')
    return await refusals.start(l1, f'{MACHINE} {device}',
                                CAPABILITIES + commands + END)


async def limit_row(l1, tap, setting):
    """Mappings run out: before the start, and in a VM that runs."""
    status, said = await with_limit(l1, 65535, DEVICE, '')
    remedy = re.search(r'dma_entry_limit=(\d+)', said)
    tap.result(status == 1 and TOO_MANY in said and bool(remedy) and
               'iommufd' in said,
               f'{setting}, type1: too few mappings are refused before the '
               f'start: {remedy and remedy[0]}', said)
    status, said = await with_limit(l1, 65535, '', add_device())
    tap.result(status == 0 and TOO_MANY in said and '"prelaunch"' in said,
               f'{setting}, type1: device_add, too, and the VM lives', said)
    status, said = await with_limit(l1, MAPPINGS + MEMSLOTS, DEVICE, ADD_MEMORY)
    tap.result(status == 0 and TOO_MANY in said and '"prelaunch"' in said,
               f'{setting}, type1: memory that needs more is not plugged in, '
               'and the VM lives', said)
    status, said = await with_limit(l1, remedy and remedy[1], DEVICE,
                                    ADD_MEMORY)
    tap.result(status == 0 and '"error"' not in said,
               f'{setting}, type1: with the remedy both are', said)


async def lock_row(l1, tap, setting, back_end):
    """RLIMIT_MEMLOCK is a part of the guest's memory."""
    status, said = await refusals.start(
        l1, f'{MACHINE} {IOMMUFD if back_end == "iommufd" else ""}',
        CAPABILITIES + add_device(back_end) + END,
        f'ulimit -l 65536; {PRELOAD}IOMMU_CALLS=limited')
    tap.result(status == 0 and 'Cannot allocate memory' in said and
               '"prelaunch"' in said,
               f'{setting}, {back_end}: device_add fails where RLIMIT_MEMLOCK '
               'is less than what is shared, and the VM lives', said)


async def faults_row(l1, tap, setting):
    """The IOMMU says of DMA that was turned away."""
    await l1.type('dmesg | grep -c "DMAR: .*fault addr"; echo @@faults')
    count = 0
    while not (line := await l1.line()).endswith('@@faults'):
        found = re.fullmatch(r'\d+', line)
        count = int(found[0]) if found else count
    tap.result(count > 0, f'{setting}: the IOMMU reports what it turned away',
               str(count))


async def free_bytes(l1):
    await l1.type('echo "@@free" $(grep MemFree /proc/meminfo)')
    return int((await l1.until_word('@@free')).split()[1]) * 1024


async def memory_row(l1, tap, setting):
    """
    What the host spends, QEMU and mappings among it, on a guest that has
    used all of its memory in both states.
    """
    before = await free_bytes(l1)
    inner = Inner(l1, 1, 1, 'cases=cycle hold=8', options('iommufd'),
                  sample=['/proc'])
    async with inner:
        await inner.until('cycle-done')
        free, = await inner.free_kib()
        await inner.until('done')
        await inner.finish()
    cost = (before - free * 1024) / MEMORY
    tap.result(0.9 < cost < 1.2,
               f'{setting}, iommufd: with an assigned device, 512 MiB that '
               f'were used in both states cost {cost:.2f} times as much')


async def rows(l1, tap, setting, back_end, seconds):
    if (setting, back_end) == ('in-place', 'type1'):
        await limit_row(l1, tap, setting)
    if (setting, back_end) == ('in-place', 'iommufd'):
        await memory_row(l1, tap, setting)
    if setting == 'in-place' and back_end in BACK_ENDS:
        await lock_row(l1, tap, setting, back_end)
    await assigned_row(l1, tap, setting, back_end, seconds)
    await faults_row(l1, tap, f'{setting}, {back_end}')
