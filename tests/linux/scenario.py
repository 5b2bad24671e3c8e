# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user does with a guest, each on a machine of its own.

A scenario is a coroutine that gets a Run and says what it found with
run.good(); an error of another kind is a Failure.
"""

import contextlib

import checks
from guest import DISKS, MIB, Guest
from nested import NestedGuest

SLIRP = ['-netdev', 'user,id=net0',
         '-device', 'virtio-net-pci,netdev=net0,romfile=']
PRIVATE_MIN = 900 * MIB         # of 1 GiB


class Skip(Exception):
    """What the scenario needs is not there."""


class Run:
    """One scenario: how to get a guest, and what was found."""

    def __init__(self, files, name, options):
        self.files = files
        self.name = name
        self.options = options
        self.sums = checks.Sums()
        self.wrong = []
        self.said = []
        self.totals = {}
        self.directory = ''

    def guest(self, **options):
        return self.watch(Guest(*self.files, **options))

    def nested(self, setting, **options):
        """The same on the rig's KVM; the rig's kernel is the guest's."""
        return self.watch(NestedGuest(self.files, setting, self.files[1],
                                      self.options['rig'], **options))

    @contextlib.asynccontextmanager
    async def watch(self, guest):
        options = guest.options
        async with guest:
            yield guest
            self.good(not guest.trouble, 'the kernel complains: ' +
                      '; '.join(guest.trouble[:5]))
            if options.get('protected', True) and \
                    guest.process.returncode is None:
                await self.look_at_memory(guest)
        self.good(not self.sums.bad, f'{self.sums.bad} wrong bytes')

    async def look_at_memory(self, guest):
        memory = await guest.memory()
        self.good(not memory['failures'] or guest.options.get('may_fail'),
                  f"{memory['failures']} conversions failed")
        for name, value in memory.items():
            self.totals[name] = self.totals.get(name, 0) + value

    def good(self, condition, otherwise):
        if not condition:
            self.wrong.append(otherwise)

    def say(self, text):
        self.said.append(text)


async def disks(run, guest, names=tuple(DISKS), mib=4):
    for name in names:
        await checks.disk(guest, run.sums, name, mib)


async def is_private(run, guest, least=PRIVATE_MIN):
    memory = await guest.memory()
    run.good(memory['private'] >= least,
             f"only {memory['private'] // MIB} MiB are private")
    return memory


async def busy(guest, name='nvme0n1'):
    """Start I/O that goes on until idle() is called."""
    await guest.run('rm -f /tmp/stop; { (i=0; while [ ! -e /tmp/stop ]; do '
                    f'io /dev/{name} 0 4 $i direct; i=$((i + 1)); '
                    'done) > /tmp/io.log 2>&1 & }')


async def idle(run, guest):
    lines = await guest.run('touch /tmp/stop; wait; cat /tmp/io.log', 300)
    results = [checks.read_io([line]) for line in lines]
    run.good(all(results) and results, f'the I/O beside it: {lines[-3:]}')
    for result in filter(None, results):
        run.sums.add(result[1], result[2])


async def add_mem(run, lines, count):
    found = [checks.MEM.search(line) for line in lines]
    found = [match for match in found if match]
    run.good(len(found) == count, f'mem: {lines}')
    for match in found:
        run.sums.add(int(match[1]), int(match[2]))


FIND_DRIVERS = (
    'n=$(basename $(readlink -f /sys/class/net/eth0/device)); '
    'r=$(ls /sys/bus/virtio/drivers/virtio_rng | grep ^virtio | '
    'head -n 1); ')
BIND_AGAIN = (
    'for w in unbind bind; do '
    'echo $n > /sys/bus/virtio/drivers/virtio_net/$w || echo failed; '
    'echo $r > /sys/bus/virtio/drivers/virtio_rng/$w || echo failed; '
    'done; ')
