# SPDX-License-Identifier: GPL-2.0-or-later
"""
Memory that is plugged in and refused: what is left behind.

Nothing in the rig forbids discards while there is guest_memfd memory, nor
says how often they are required.  So QEMU's own counters are changed and
read where they are, in its memory.
"""

import re
import subprocess

import inner as i
from verdict import judge

DISABLED = 'ram_block_discard_disabled_cnt'
REQUIRED = 'ram_block_coordinated_discard_required_cnt'


class Plugged(i.Qemu):
    """QEMU in the background of the shell, and a guest that never runs."""

    def __init__(self, l1, qemu):
        self.name = qemu.rpartition('/')[2]
        self.symbols = i.FILES[qemu]
        super().__init__(l1, [
            qemu, '-accel', 'kvm', '-S', '-L', '/firmware', '-m', '64M',
            '-machine', 'q35,confidential-guest-support=cgs0',
            '-object', 'sw-protected-guest,id=cgs0'])

    def with_sampler(self, command):
        return f'{command} &'

    async def end(self):
        await self.l1.type(f'kill -9 $(pidof {self.name}); wait; '
                           'echo "@@exit $?"')
        await self.l1.until_word('@@exit')

    def address(self, symbol):
        listing = subprocess.run(['nm', self.symbols], check=True,
                                 capture_output=True, text=True).stdout
        return next(int(line.split()[0], 16) for line in listing.splitlines()
                    if line.split()[-1] == symbol)

    def counter(self, symbol, dd):
        """A command that tells dd the address of the counter."""
        return (f'p=$(pidof {self.name}); '
                f'b=$(grep -m 1 /bin/{self.name} /proc/$p/maps | '
                'cut -d - -f 1); '
                f'o=$(( (0x$b + {self.address(symbol)}) / 4 )); ' + dd)

    async def read(self, symbol):
        lines = await self.shell(self.counter(
            symbol, 'dd if=/proc/$p/mem bs=4 skip=$o count=1 2>/dev/null | '
                    'hexdump -e \'"value %d\\n"\''))
        found = re.search(r'value (-?\d+)', '\n'.join(lines))
        if not found:
            raise self.l1.failure(f'{symbol} cannot be read')
        return int(found[1])

    async def write(self, symbol, value):
        await self.shell(self.counter(
            symbol, f"printf '\\00{value}\\0\\0\\0' | dd of=/proc/$p/mem bs=4 "
                    'seek=$o conv=notrunc 2>/dev/null'))
        if await self.read(symbol) != value:
            raise self.l1.failure(f'{symbol} cannot be written')

    async def limit_files(self, more=False):
        """No new file descriptor; @more: as many as one likes."""
        await self.shell(
            f'p=$(pidof {self.name}); n=0; '
            'while [ -e /proc/$p/fd/$n ]; do n=$((n + 1)); done; '
            f'/prlimit --pid $p --nofile={1000 if more else "$n"}:')

    async def waits_for_lock(self):
        """Unlike a QEMU that is slow."""
        names = await self.shell(f'cat /proc/$(pidof {self.name})/wchan; '
                                 'echo')
        return 'futex' in ' '.join(names)

    async def plug(self, name):
        answer = await self.ask('object-add', {
            'qom-type': 'memory-backend-ram', 'id': name, 'size': 1 << 20})
        return 'no error' if answer == {} else answer


async def lock(l1, qemu):
    """A refusal, then memory that is in order."""
    async with Plugged(l1, qemu) as plugged:
        await plugged.write(DISABLED, 1)
        first = await plugged.plug('m0')
        await plugged.write(DISABLED, 0)
        second = await plugged.plug('m1')
        hangs = second == 'silence' and await plugged.waits_for_lock()
        await plugged.end()
    refused = 'discard currently blocked' in first
    return judge(refused and hangs, refused and second == 'no error',
                 f'"{first}"; then, memory that is in order: ' +
                 ('QEMU hangs, waiting for a lock' if hangs else second))


async def leak(l1, qemu):
    """A refusal, and who requires discards before and after."""
    async with Plugged(l1, qemu) as plugged:
        before = await plugged.read(REQUIRED)
        await plugged.limit_files()
        first = await plugged.plug('m0')
        await plugged.limit_files(more=True)
        after = await plugged.read(REQUIRED)
        second = await plugged.plug('m1')
        await plugged.end()
    refused = 'Too many open files' in first and second == 'no error'
    return judge(refused and after == before + 1,
                 refused and after == before,
                 f'"{first}"; then discards are required {after - before} '
                 'times more than before')
