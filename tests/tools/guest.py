# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that converts its memory for as long as it is watched."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / 'build/src/python'), str(ROOT / 'tests/lib')]

# pylint: disable=wrong-import-position
import machine

QEMU = ROOT / 'build/qemu/qemu-system-x86_64'
PAYLOAD = ROOT / 'build/guest/payload.elf'
VCPUS = 2
FAR = 3600              # seconds: the guest does not end by itself
EAGAIN = 11


def build():
    subprocess.run(['make', '-s', '-C', ROOT / 'tests/guest',
                    f'OUT={PAYLOAD.parent}'], check=True,
                   stdin=subprocess.DEVNULL, stdout=sys.stderr)


class Guest(machine.Machine):
    """The machine of the demonstration, with a monitor for tools."""

    def __init__(self, monitor, cases=f'cases=race seconds={FAR}'):
        super().__init__(str(QEMU), str(PAYLOAD),
                         f'via=testdev expect=emulated vcpus={VCPUS} '
                         f'{cases}', VCPUS)
        self.argv += ['-qmp', f'unix:{monitor},server=on,wait=off']

    async def until_busy(self):
        """It takes a moment until the guest's program runs."""
        for _ in range(100):
            info = await self.execute('query-guest-memfd')
            if all(b['stats']['requests'] for b in info['backends']
                   if b['name'].startswith('ram')):
                return
            await asyncio.sleep(0.1)
        raise machine.Failure('the guest converts nothing')

    async def fail_some(self, count):
        """The next @count conversions find a page in use, and go on."""
        for name, value in (('fault-errno', EAGAIN),
                            ('fault-count', count)):
            await self.execute('qom-set', {'path': machine.PROVIDER,
                                           'property': name,
                                           'value': value})


async def main():
    """Run one until standard input ends; for a look by hand."""
    async with Guest(sys.argv[1]) as guest:
        await guest.resume()
        print(guest.process.pid, flush=True)
        await asyncio.get_running_loop().run_in_executor(
            None, sys.stdin.read)


if __name__ == '__main__':
    os.chdir(ROOT)
    build()
    asyncio.run(main())
