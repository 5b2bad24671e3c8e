# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host counts while a guest converts, read while the VM is paused."""

import asyncio
import re
import sys

import rig
from l1 import Inner

PAUSE = ('-device', 'pvpanic', '-action', 'panic=pause', '-no-shutdown',
         '-chardev', 'serial,id=qmp,path=/dev/ttyS1',
         '-mon', 'chardev=qmp,mode=control')
TRACE = '/tmp/trace'
IOCTLS = ('kvm_vm_ioctl', 'kvm_vcpu_ioctl', 'kvm_device_ioctl')
COUNTERS = ('exits', 'pf_fixed', 'remote_tlb_flush_requests',
            'allocations', 'ioctls')
# The first one is a warm-up.
ROUNDS = 2


async def show(machine):
    """See show-counters."""
    await machine.type(f'echo @@counters $(/show-counters {TRACE})')
    rest = await machine.until_word('@@counters')
    return {name: int(value)
            for name, value in re.findall(r'(\w+)=(\d+)', rest)}


class Paused(Inner):
    """A guest with pause=on; it stops before and after each phase."""

    def __init__(self, machine, words, vcpus=1, trace=True):
        super().__init__(machine, 1, vcpus, '')
        extra = list(PAUSE)
        for event in IOCTLS if trace else ():
            extra += ['-trace', event]
        self.command = f'rm -f {TRACE}; : >{TRACE}; ' + machine.guest(
            f'cases=bench pause=on {words}', vcpus=vcpus,
            extra=[*extra, '-D', TRACE]) + ' &'

    def with_sampler(self, command):
        """In the background: the shell is asked for counters."""
        return command

    async def read(self):
        return await show(self.l1)

    async def rounds(self):
        """What is counted at each pause, for each round."""
        for _ in range(ROUNDS):
            counted = []
            for _ in range(2 * (1 + len(rig.PHASES))):
                while (await self.execute('query-status'))['running']:
                    await asyncio.sleep(0.05)
                counted.append(await self.read())
                await self.execute('cont')
            yield counted
        await self.until('bench')

    async def end(self):
        await self.execute('quit')
        await self.l1.type('wait; echo "@@exit"')
        await self.l1.until_word('@@exit')


def differences(counted):
    """Between two pauses each; the first two are apart for nothing."""
    pairs = [{name: after[name] - before[name] for name in COUNTERS}
             for before, after in zip(counted[::2], counted[1::2])]
    return {phase: {name: value - pairs[0][name]
                    for name, value in pair.items()}
            for phase, pair in zip(rig.PHASES, pairs[1:])}


async def one_size(setting, kib, vcpus):
    """What each phase of the last round adds to the counters."""
    async with rig.Machine(setting) as machine:
        guest = Paused(machine, f'only={kib} count={kib} rounds=1', vcpus)
        async with guest:
            async for counted in guest.rounds():
                phases = differences(counted)
            await guest.end()
    return {'setting': setting, 'kib': kib, 'vcpus': vcpus, **phases}


async def count(setting):
    rows = []
    for kib, vcpus in ((4, 1), (2048, 1), (2048, 4), (65536, 4)):
        rows.append(await one_size(setting, kib, vcpus))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


async def used(machine, kib):
    """The most memory that a guest which uses so much of it takes."""
    before = (await show(machine))['free']
    least = before
    guest = Paused(machine, f'only={kib} count={kib} rounds=1', trace=False)
    async with guest:
        async for counted in guest.rounds():
            least = min(least, *(now['free'] for now in counted))
        await guest.end()
    return before - least


async def memory(setting, kib=524288):
    """
    The host's peak for memory that is used on both sides, in units of it:
    compared with the same guest that uses next to none.
    """
    async with rig.Machine(setting) as machine:
        little = await used(machine, 4)
        much = await used(machine, kib)
    row = {'setting': setting, 'kib': kib,
           'peak': round((much - little) / kib, 3)}
    print(row, file=sys.stderr, flush=True)
    return [row]
