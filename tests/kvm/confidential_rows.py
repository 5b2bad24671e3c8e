# SPDX-License-Identifier: GPL-2.0-or-later
"""What is tried with guests of SEV-SNP and TDX."""

import rows
from confidential import (PLATFORM_CASES, Guest, expected_measurement,
                          launch, launch_vector, measurement, unlawful)
from l1 import behaviour

STOCK = '/bin/qemu-stock'

# Published for an image of 4 MiB with OVMF's metadata.
PUBLISHED = [
    ('NORMAL', 0xffc00000, 0x400000),
    ('ZERO', 0x800000, 0x9000), ('ZERO', 0x80a000, 0x3000),
    ('SECRETS', 0x80d000, 0x1000), ('CPUID', 0x80e000, 0x1000),
    ('ZERO', 0x80f000, 0x1000), ('NORMAL', 0x810000, 0x1000),
    ('ZERO', 0x811000, 0xf000)]
# Measured or not, as in the image.
SECTIONS = [(1, 0xffff1000, 0xf000), (0, 0xffff0000, 0x1000),
            (0, 0x810000, 0x10000), (1, 0x80b000, 0x2000),
            (0, 0x809000, 0x2000)]
# A try whether guest memory can be shared at first, which stock makes not.
PROBE = 'CREATE_GUEST_MEMFD size=0x1000 flags=0x3 ='


def no_unlawful_call(tap, name, count, bad):
    tap.result(count > 0 and not bad,
               f'{name}: none of {count} calls breaks a rule of KVM',
               '\n'.join(bad[:10]))


async def platform_run(l1, platform, vcpus, backends, qemu='/bin/qemu'):
    """
    Requests by hypercall and by access; the calls that were made.  None
    goes beyond a backend: the unchanged QEMU stops at such requests.
    """
    guest = Guest(l1, platform, backends, vcpus,
                  f'{PLATFORM_CASES} backends=1', qemu)
    async with guest:
        done = await guest.until('done')
        calls = await guest.end()
    return guest, done, calls


def first_difference(ours, stock):
    for number, (mine, theirs) in enumerate(zip(ours, stock)):
        if mine != theirs:
            return f'call {number}: {mine}\n  unchanged QEMU: {theirs}'
    return f'{len(ours)} calls, of the unchanged QEMU {len(stock)}'


async def compare_row(l1, tap, setting, platform):
    """With two backings, ours calls KVM as the unchanged QEMU does."""
    name = f'{setting}, {platform}'
    guest, done, ours = await platform_run(l1, platform, 1, 2)
    rows.bytes_result(tap, guest, done,
                      f'{name}: the launch left what it should, and bytes '
                      'stay where they are written')
    no_unlawful_call(tap, name, len(ours), unlawful(ours))
    guest, done, stock = await platform_run(l1, platform, 1, 2, STOCK)
    rows.bytes_result(tap, guest, done, f'{name}: so it is with the '
                      'unchanged QEMU')
    same = [line for line in ours if not line.startswith(PROBE)]
    tap.result(bool(stock) and same == stock,
               f'{name}: the same {len(stock)} calls as the unchanged QEMU',
               first_difference(same, stock))
    faults = [line for line in ours if line.startswith('EXIT_MEMORY_FAULT')]
    tap.result(len(faults) > 30, f'{name}: {len(faults)} faults were turned '
               'into conversions', str(len(faults)))


async def vector_row(l1, tap, setting):
    """Type by type what a published launch measured."""
    image = '/firmware/snp-4m.bin'
    await l1.type('(head -c 4128768 /dev/zero; cat /firmware/snp.bin) '
                  f'> {image}')
    status, said, calls = await launch(
        l1, 'snp', firmware='snp-4m.bin', properties=',kernel-hashes=on',
        extra=('-kernel', '/command.bin', '-append', 'quiet'))
    await l1.type(f'rm {image}')
    vector = launch_vector(calls)
    tap.result(status == 0 and vector == PUBLISHED,
               f'{setting}: {len(vector)} calls measure what a published '
               'launch of OVMF measured', f'{status} {said}\n{vector}')
    status, said, calls = await launch(l1, 'tdx')
    vector = launch_vector(calls)
    tap.result(status == 0 and vector == SECTIONS,
               f'{setting}: {len(vector)} calls add the sections of the '
               'TDVF image', f'{status} {said}\n{vector}')


async def cases_row(l1, tap, setting, platform):
    """The bare-metal guest, all cases, on one vCPU and on four at once."""
    name = f'{setting}, {platform}'
    # In place, the stand-in makes noise or zeros of all that is converted.
    poison = 'off' if behaviour(setting) == 'two-backings' else 'on'
    guest = Guest(l1, platform, 2, 4,
                  f'cases=quick probe=64 report=bad poison={poison}',
                  extra=('-device', 'guest-memfd-testdev'))
    async with guest:
        done = await guest.until('done')
        info = await guest.execute('query-guest-memfd')
        count, bad = await guest.end_unlawful()
    tap.say(f'{name}: {done["conversions"]} conversions, '
            f'{done["bytes"]} bytes checked')
    rows.bytes_result(tap, guest, done, f'{name}: every byte is as promised')
    provider = rows.PROVIDERS[behaviour(setting)]
    tap.result(info['provider'] == provider and rows.adds_up(info),
               f'{name}: provider {provider}, and statistics add up',
               f'{info}')
    no_unlawful_call(tap, name, count, bad)


async def cost_row(l1, tap, setting, platform):
    """The host's memory, when the guest has used all of its own."""
    guest = Guest(l1, platform, 2, 1, 'cases=cycle hold=8',
                  sample=['/proc'])
    async with guest:
        await guest.execute('stop')
        unused, = await guest.free_kib()
        await guest.execute('cont')
        said = await guest.until('cycle')
        await guest.until('cycle-done')
        used, = await guest.free_kib()
        await guest.until('done')
        count, bad = await guest.end_unlawful()
    tap.result(guest.status == 1, f'{setting}, {platform}: every byte of a '
               'guest that uses all of its memory', str(guest.status))
    rows.memory_result(tap, setting, int(said['bytes'], 0),
                       (unused - used) * 1024)
    no_unlawful_call(tap, f'{setting}, {platform}', count, bad)


async def measurement_row(l1, tap, setting, platform):
    """The same memory is measured, however it got there."""
    status, said, calls = await launch(l1, platform, backends=2)
    value, want = measurement(calls), expected_measurement(platform)
    tap.result(status == 0 and value == want and not unlawful(calls),
               f'{setting}, {platform}: what is measured is what the image '
               'says', f'{status} {said} {unlawful(calls)}\n'
               f'{value}, not {want}')
