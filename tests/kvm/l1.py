# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that has KVM: the reference kernel under TCG, with a shell.

COM1 is its console, on which commands are typed and the inner guest
speaks; COM2 is the QMP monitor of the inner QEMU.
"""

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import tempfile

from qemu.qmp import QMPClient, QMPError

from machine import Failure, parse_line

BOOT_MAX = 120
SILENCE_MAX = 420       # nested guests are slow, but not that slow
QMP_MAX = 180           # memory that is plugged in is mapped, page by page
LINES_SHOWN = 60
LINE_MAX = 1 << 20

RIG = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))), 'kernel/rig')


def machine(*words):
    """What kernel/rig/machine says, line by line."""
    return subprocess.run([f'{RIG}/machine', *words], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.splitlines()


SETTINGS = machine('--settings')


def behaviour(setting):
    """What QEMU and a guest see of a setting."""
    name = setting.partition('+')[0]
    return name.removesuffix('-only')


class L1:
    """Use it with 'async with': the machine does not outlive the block."""

    def __init__(self, qemu, kernel, initrd, setting, parameters=(),
                 devices=()):
        self.directory = tempfile.mkdtemp(prefix='gmem-kvm-')
        self.socket = os.path.join(self.directory, 'qmp')
        self.argv = [qemu, *machine(setting, kernel, initrd, *parameters),
            '-run-with', 'exit-with-parent=on',
            *devices,
            '-chardev', 'stdio,id=com1,signal=off',
            '-serial', 'chardev:com1',
            '-chardev', f'socket,id=com2,path={self.socket},server=on,'
                        'wait=off', '-serial', 'chardev:com2']
        self.setting = setting
        self.process = None
        self.lines = []
        self.begin = 0          # of the lines since the last inner start

    async def __aenter__(self):
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.argv, stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, limit=LINE_MAX,
                stderr=asyncio.subprocess.STDOUT, start_new_session=True)
            await self.until('@@ready', BOOT_MAX)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_):
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def failure(self, what):
        """The last lines, and then what the guest found wrong before."""
        wrong = [line for line in self.lines[self.begin:]
                 if line.startswith('fail ')]
        if wrong:
            wrong = ['the guest reported:', *wrong[:LINES_SHOWN]]
        return Failure('\n'.join([what, *self.lines[-LINES_SHOWN:], *wrong]))

    async def type(self, command):
        self.process.stdin.write(command.encode() + b'\n')
        try:
            await self.process.stdin.drain()
        except OSError:
            raise await self.ended() from None

    async def ended(self):
        """The machine is gone: how did it end?"""
        status = await self.process.wait()
        return self.failure(f'the machine ended, exit status {status}')

    async def line(self, limit=SILENCE_MAX):
        """The next line of the console; silence is a hang."""
        try:
            raw = await asyncio.wait_for(self.process.stdout.readline(),
                                         limit)
        except asyncio.TimeoutError:
            await self.dump_tasks()
            raise self.failure('the machine is silent') from None
        if not raw:
            raise await self.ended()
        text = raw.decode('ascii', 'replace').strip()
        self.lines.append(text)
        return text

    async def dump_tasks(self):
        """Have the kernel tell what it is up to, for the failure's text."""
        await self.type('\x03echo l > /proc/sysrq-trigger')
        try:
            while True:
                raw = await asyncio.wait_for(self.process.stdout.readline(),
                                             10)
                if not raw:
                    break
                self.lines.append(raw.decode('ascii', 'replace').strip())
        except asyncio.TimeoutError:
            pass

    async def until(self, word, limit=SILENCE_MAX):
        while not (await self.line(limit)).endswith(word):
            pass

    async def until_word(self, word, limit=SILENCE_MAX):
        """The rest of the line that has this word."""
        while True:
            before, found, rest = (await self.line(limit)).partition(word)
            if found:
                return rest


class Inner:
    """One run of the inner QEMU with the bare-metal guest."""

    def __init__(self, l1, backends, vcpus, guest, extra=(), memory='',
                 sample=None, environment=''):
        self.l1 = l1
        guest = f'expect={behaviour(l1.setting)} {guest}'
        self.qmp = QMPClient('inner')
        self.records = []
        self.trace = []
        self.status = None
        self.sample = sample
        self.command = environment + shlex.join(
            self.arguments(backends, vcpus, guest, extra, memory))

    @staticmethod
    def arguments(backends, vcpus, guest, extra, memory):
        size = 512 // backends
        nodes = []
        for node in range(backends):
            nodes += ['-object', 'memory-backend-memfd-private,'
                      f'id=ram{node},size={size}M{memory}',
                      '-numa', f'node,nodeid={node},memdev=ram{node}']
        return [
            '/bin/qemu', '-accel', 'kvm', '-L', '/firmware', '-m', '512M',
            '-smp', str(vcpus),
            '-machine', 'q35,smm=off,confidential-guest-support=cgs0',
            '-object', 'sw-protected-guest,id=cgs0',
            '-object', 'guest-memfd-manager,id=gmm0', *nodes,
            '-device', 'guest-memfd-testdev',
            '-device', 'isa-debug-exit,iobase=0xf4,iosize=4',
            '-nodefaults', '-display', 'none', '-no-reboot',
            '-no-shutdown',
            '-chardev', 'file,id=com1,path=/dev/ttyS0',
            '-serial', 'chardev:com1',
            '-chardev', 'serial,id=qmp,path=/dev/ttyS1',
            '-mon', 'chardev=qmp,mode=control',
            '-kernel', '/payload.elf',
            '-append', f'via=hypercall backends={backends} vcpus={vcpus} '
                       f'{guest}', *extra]

    def with_sampler(self, command):
        """Tell now and then how much memory is free, and where."""
        if not self.sample:
            return f'{command}; echo "@@exit $?"'
        files = ' '.join(f'{place}/meminfo' for place in self.sample)
        return ('(while sleep 1; do echo "@@free" '
                f'$(grep -h MemFree {files}); done) & s=$!; '
                f'{command}; r=$?; kill $s; wait $s; echo "@@exit $r"')

    async def free_kib(self, samples=2):
        """Free memory at each place, as it is some seconds from now."""
        for _ in range(samples):
            rest = await self.l1.until_word('@@free')
        return [int(number) for number in re.findall(r'(\d+) kB', rest)]

    async def __aenter__(self):
        self.l1.begin = len(self.l1.lines)
        connect = asyncio.ensure_future(self.qmp.connect(self.l1.socket))
        await asyncio.sleep(0.2)
        await self.l1.type(self.with_sampler(self.command))
        try:
            await asyncio.wait_for(connect, QMP_MAX)
        except (QMPError, OSError, asyncio.TimeoutError) as error:
            await self.l1.until_word('@@exit')
            raise self.l1.failure(f'inner QEMU: {error!r}') from error
        return self

    async def __aexit__(self, *_):
        try:
            await asyncio.wait_for(self.qmp.disconnect(), QMP_MAX)
        except (QMPError, EOFError, OSError, asyncio.TimeoutError):
            pass

    async def execute(self, command, arguments=None):
        try:
            return await asyncio.wait_for(
                self.qmp.execute(command, arguments), QMP_MAX)
        except (QMPError, EOFError, OSError, asyncio.TimeoutError) as error:
            raise self.l1.failure(f'QMP {command}: {error!r}') from error

    async def until(self, *kinds):
        """Read on until the guest says one of these."""
        while True:
            record = parse_line(await self.l1.line())
            if record['line'].startswith('kvm_guest_memfd_set_attributes'):
                self.trace.append(record['line'])
                continue
            self.records.append(record)
            if record['kind'] in kinds:
                return record
            if record['kind'] in ('trap', 'usage', '@@exit'):
                raise self.l1.failure('the guest stopped')

    async def finish(self):
        """Ask what QEMU counted, then end it."""
        info = await self.execute('query-guest-memfd')
        await self.execute('quit')
        self.status = int(await self.l1.until_word('@@exit'))
        return info


async def run_rows(rig, rows, tap, setting):
    """
    Rows are functions of a machine, and rig() makes one.  Machines are under
    each other on a busy host: a row may start over once, and shows why.
    """
    spoilt = None
    while rows:
        try:
            async with rig() as machine:
                while rows:
                    await rows[0](machine)
                    del rows[0]
        except Failure as failure:
            if spoilt is rows[0]:
                raise
            spoilt = rows[0]
            tap.say(f'{setting}: starting over after:')
            for line in str(failure).splitlines():
                tap.say('  ' + line)
