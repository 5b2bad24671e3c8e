# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that runs Linux with private memory, and the shell in it.

COM1 is the guest's console, on which commands are typed.
"""

import asyncio
import os
import re
import shutil
import tempfile

from qemu.qmp import EventListener, QMPClient

from machine import Failure, Monitored

MIB = 1 << 20
BOOT_MAX = 180
SILENCE_MAX = 120
QMP_MAX = 60
LINES_SHOWN = 40
LINE_MAX = 1 << 20
DISK_MIB = 64
# SeaBIOS without drivers of disks, of the same package: with those, 1.16.2 of
# Debian 12 waits 32 s for AHCI at each start, on QEMU as it is, too.
FIRMWARE = '/usr/share/seabios/bios-microvm.bin'

# Lines of the guest's kernel when something is wrong, whatever it is.
TROUBLE = re.compile(r'WARNING: |BUG: |Oops|Kernel panic|hung_task|'
                     r'rcu: INFO|swprot: .*cannot be made|'
                     r'I/O error|Call Trace')

DISKS = {
    'vda': ['-device', 'virtio-blk-pci,drive=vda'],
    'nvme0n1': ['-device', 'nvme,serial=gmem,drive=nvme0n1'],
    'sda': ['-device', 'ide-hd,drive=sda,bus=ide.0'],
}


def disk_arguments(directory, disks):
    """Each disk and its image, which is not made here."""
    for name, device in disks.items():
        path = os.path.join(directory, name)
        yield from ('-drive', f'if=none,id={name},file={path},format=raw')
        yield from device


def guest_arguments(directory, kernel, initrd, options):
    """QEMU's arguments, without accelerator, console and monitor."""
    option = options.get
    protected = [
        '-object', 'sw-protected-guest,id=cgs0'
        + option('guest_options', ''),
        '-object', 'guest-memfd-manager,id=gmm0',
        '-machine', 'confidential-guest-support=cgs0',
    ] if option('protected', True) else []
    return [
        '-machine', option('machine', 'q35'), *protected,
        '-cpu', option('cpu', 'max'),
        '-m', option('memory', '1G,slots=4,maxmem=4G'),
        '-smp', str(option('vcpus', 2)),
        '-nodefaults', '-no-user-config', '-display', 'none',
        *disk_arguments(directory, option('disks', DISKS)),
        *option('extra', []),
        '-kernel', kernel, '-initrd', initrd, '-append',
        f"console=ttyS0 loglevel=6 panic=-1 {option('cmdline', '')}"]


class Guest(Monitored):
    """Use it with 'async with': QEMU does not outlive the block."""

    start_max = QMP_MAX
    answer_max = QMP_MAX

    def __init__(self, qemu, kernel, initrd, **options):
        self.files = (qemu, kernel, initrd)
        self.options = options
        self.directory = tempfile.mkdtemp(prefix='gmem-linux-')
        self.socket = os.path.join(self.directory, 'qmp')
        self.top = os.path.join(self.directory, 'top')
        self.qmp = QMPClient('linux')
        self.events = EventListener()
        self.qmp.register_listener(self.events)
        self.process = None
        self.lines = []
        self.trouble = []
        self.number = 0
        self.argv = self.arguments()

    def arguments(self):
        qemu, kernel, initrd = self.files
        for name in self.options.get('disks', DISKS):
            with open(os.path.join(self.directory, name), 'wb') as image:
                image.truncate(DISK_MIB * MIB)
        return [
            qemu, '-accel', self.options.get('accel', 'tcg'),
            *self.options.get('more', []),
            '-bios', FIRMWARE, '-run-with', 'exit-with-parent=on',
            '-chardev', 'stdio,id=com1,signal=off',
            '-serial', 'chardev:com1', '-qmp', f'unix:{self.socket}',
            '-qmp', f'unix:{self.top},server=on,wait=off',
            *guest_arguments(self.directory, kernel, initrd, self.options)]

    async def __aenter__(self):
        try:
            await self.qmp.start_server(self.socket)
            self.process = await asyncio.create_subprocess_exec(
                *self.argv, stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, limit=LINE_MAX,
                stderr=asyncio.subprocess.STDOUT, start_new_session=True)
            await self._connect()
            if self.options.get('boot', True):
                await self.ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _connect(self):
        if not await self.accept():
            self.lines += (await self.process.stdout.read()).decode(
                'utf-8', 'replace').splitlines()
            raise self.failure('QEMU did not start')

    async def __aexit__(self, *_):
        await self.disconnect()
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def failure(self, what):
        return Failure('\n'.join([what, *self.lines[-LINES_SHOWN:]]))

    # --- the console -----------------------------------------------------

    async def line(self, limit=SILENCE_MAX):
        """The next line of the console; silence is a hang."""
        try:
            raw = await asyncio.wait_for(self.process.stdout.readline(),
                                         limit)
        except asyncio.TimeoutError:
            where = [line for line in (await self.hmp(
                'info registers -a')).splitlines() if 'RIP=' in line]
            raise self.failure('\n'.join(
                ['the guest is silent', *where])) from None
        if not raw:
            raise self.failure('QEMU ended, exit status '
                               f'{await self.process.wait()}')
        text = raw.decode('utf-8', 'replace').strip()
        self.lines.append(text)
        if TROUBLE.search(text):
            self.trouble.append(text)
        return text

    async def until(self, word, limit=SILENCE_MAX):
        """The lines before the one that has this word, and that one."""
        lines = []
        while True:
            lines.append(await self.line(limit))
            if word in lines[-1]:
                return lines
            if '@@ready' in lines[-1]:
                raise self.failure('the shell, or Linux, has started again')

    async def ready(self, limit=BOOT_MAX):
        return await self.until('@@ready', limit)

    async def type(self, text):
        self.process.stdin.write(text.encode() + b'\n')
        await self.process.stdin.drain()

    async def start(self, command):
        """Type a command; ended() tells what became of it."""
        self.number += 1
        await self.type(f'{command.rstrip("; ")}; echo "@@{self.number} $?"')
        return self.number

    async def ended(self, number, limit=SILENCE_MAX):
        """Exit status and output of the command with this number."""
        lines = await self.until(f'@@{number} ', limit)
        last = lines.pop()
        before, _, status = last.rpartition(f'@@{number} ')
        lines += [before] if before else []
        kernel = re.compile(r'^\[ *[0-9]+\.[0-9]+\]')
        return int(status), [line for line in lines
                             if not kernel.match(line)]

    async def run(self, command, limit=SILENCE_MAX):
        """Output of a command that must succeed."""
        status, lines = await self.ended(await self.start(command), limit)
        if status:
            raise self.failure(f'{command}: exit status {status}')
        return lines

    async def counts(self):
        """What the guest counted: to_shared requests, pages, and so on."""
        counts = {}
        for line in await self.run('cat /sys/kernel/debug/x86/swprot'):
            name, *words = line.split()
            counts[name] = [int(word) for word in words if word.isdigit()]
        return counts

    # --- QEMU ------------------------------------------------------------

    async def event(self, name, device=None, limit=SILENCE_MAX):
        """Wait for an event of QEMU's that has not been waited for."""
        async def wait():
            while True:
                event = await self.events.get()
                if event['event'] == name and device in (
                        None, event.get('data', {}).get('device')):
                    return event
        try:
            return await asyncio.wait_for(wait(), limit)
        except asyncio.TimeoutError:
            raise self.failure(f'no event {name}') from None

    async def memory(self):
        """What QEMU counted over all of the guest's memory."""
        info = await self.execute('query-guest-memfd')
        sums = {'private': 0, 'shared': 0, 'requests': 0, 'failures': 0,
                'retries': 0}
        for backend in info['backends']:
            stats = backend['stats']
            sums['private'] += backend['private-bytes']
            sums['shared'] += backend['shared-bytes']
            sums['requests'] += stats['requests']
            sums['retries'] += stats['retries']
            sums['failures'] += sum(f['count'] for f in stats['failures'])
        return sums
