# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory, devices and rings that come and go."""

import checks
from guest import MIB
from machine import PROVIDER
from scenario import BIND_AGAIN, FIND_DRIVERS, SLIRP, busy, disks, idle

EAGAIN, ENOMEM, EIO = 11, 12, 5
# The guest asks 100 times, 10 ms apart: it is refused for a second.
ALMOST_PATIENCE = 98


async def memory_plug(run):
    """A backend of each kind: private when it is online."""
    async with run.guest(cmdline='memhp_default_state=offline') as guest:
        for number, kind in enumerate(('ram', 'memfd-private')):
            private = await checks.plug(guest, f'dimm{number}', kind=kind)
            run.good(private >= 250 * MIB,
                     f'{kind}: {private // MIB} MiB private')
        await checks.memory(guest, run.sums, 1100)
        await disks(run, guest)


async def memory_unplug(run):
    """Memory goes away and comes back."""
    async with run.guest() as guest:
        await guest.run('echo online_movable > /tmp/online')
        for _ in range(2):
            await checks.plug(guest, 'dimm0')
            await checks.memory(guest, run.sums, 300)
            await guest.execute('device_del', {'id': 'dimm0'})
            await guest.event('DEVICE_DELETED')
            await guest.execute('object-del', {'id': 'mem-dimm0'})
        await disks(run, guest)


async def device_plug(run):
    """A disk comes and goes while another one does I/O."""
    rounds = run.options['rounds']
    async with run.guest(extra=[
            '-device', 'pcie-root-port,id=port0,chassis=1', '-blockdev',
            'null-co,node-name=plugged,size=67108864,read-zeroes=on',
    ]) as guest:
        await busy(guest)
        before = await guest.memory()
        for _ in range(rounds):
            await guest.execute('device_add', {
                'driver': 'virtio-blk-pci', 'drive': 'plugged',
                'id': 'disk0', 'bus': 'port0'})
            # The node comes a moment before it can be opened.
            await guest.run('until dd if=/dev/vdb of=/dev/null count=0 '
                            '2>/dev/null; do usleep 20000; done; '
                            'dd if=/dev/vdb of=/dev/null bs=64k count=4 '
                            'iflag=direct')
            await guest.execute('device_del', {'id': 'disk0'})
            await guest.event('DEVICE_DELETED', 'disk0')
            await guest.run('while [ -b /dev/vdb ]; do usleep 20000; done')
        after = await guest.memory()
        run.say(f"{rounds} rounds, {after['requests'] - before['requests']} "
                'conversions')
        await idle(run, guest)


async def drivers(run, rounds=50):
    """Rings and pools are given up and allocated anew."""
    async with run.guest(extra=[
            *SLIRP, '-device', 'virtio-rng-pci']) as guest:
        before = await guest.memory()
        lines = await guest.run(
            f'{FIND_DRIVERS} for i in $(seq {rounds}); do {BIND_AGAIN} done',
            300)
        run.good(not lines, str(lines[:5]))
        after = await guest.memory()
        run.say(f"{after['requests'] - before['requests']} conversions in "
                f'{rounds} rounds')
        run.good(after['requests'] > before['requests'],
                 'nothing was converted')
        run.good(after['private'] > before['private'] - 16 * MIB,
                 f"{before['private']} private bytes, now {after['private']}")
        await disks(run, guest)
        await checks.network(guest, run.sums, mib=2)


async def faults(run):
    """Conversions fail for a second, and then they do not."""
    async with run.guest(may_fail=True, extra=[
            *SLIRP, '-device', 'virtio-rng-pci']) as guest:
        await busy(guest)
        # Each goes to the guest at once: its patience is what is tried.
        await guest.execute('qom-set', {
            'path': '/objects/gmm0', 'property': 'retry-timeout-ms',
            'value': 0})
        for errno, name in ((EAGAIN, 'EAGAIN'), (ENOMEM, 'ENOMEM')):
            await fault(guest, errno, ALMOST_PATIENCE)
            await guest.run(f'{FIND_DRIVERS} {BIND_AGAIN}')
            counts = await guest.counts()
            run.good(counts['failures'][0] == 0, f'{name}: {counts}')
            run.say(f"{name}: {counts['retries'][0]} repeated")
        await fault(guest, EIO, 1)      # the guest gets EINVAL
        await guest.run(f'{FIND_DRIVERS} {BIND_AGAIN}')
        counts = await guest.counts()
        run.good(counts['failures'][0] == 1, f'EIO: {counts}')
        await guest.run(f'{FIND_DRIVERS} {BIND_AGAIN}')
        guest.trouble.clear()           # what was asked for
        await idle(run, guest)
        await disks(run, guest)
        await checks.network(guest, run.sums, mib=2)


async def fault(guest, errno, count):
    for name, value in (('fault-after', 0), ('fault-count', count),
                        ('fault-errno', errno)):
        await guest.execute('qom-set', {'path': PROVIDER, 'property': name,
                                        'value': value})
