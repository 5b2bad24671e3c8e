# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine: QEMU under TCG, its serial port, and its QMP socket."""

import asyncio
import contextlib
import os
import shlex
import shutil
import tempfile

from qemu.qmp import QMPClient, QMPError

SILENCE_MAX = 60        # seconds without a line: the guest hangs
START_MAX = 30
END_MAX = 20
EXIT_GOOD = 1           # isa-debug-exit: (0 << 1) | 1
LINES_SHOWN = 20

PROVIDER = '/objects/gmm0/emulated'
LAST_WORDS = ('done', 'trap', 'usage')


class Failure(Exception):
    """Something other than a mismatch went wrong."""


def parse_line(line):
    """'case gpa=0x1 dir=to-private' -> {'kind': 'case', 'gpa': ...}"""
    words = line.split()
    record = {'kind': words[0] if words else '', 'line': line}
    for word in words[1:]:
        name, equals, value = word.partition('=')
        if equals:
            record[name] = value
    return record


class Monitored:
    """A QEMU that connects to us: qmp, process and failure() are the user's."""

    start_max = START_MAX
    answer_max = END_MAX

    async def accept(self):
        """Wait for QEMU; False if it ended, or takes too long."""
        accept = asyncio.ensure_future(self.qmp.accept())
        ended = asyncio.ensure_future(self.process.wait())
        done, _ = await asyncio.wait({accept, ended}, timeout=self.start_max,
                                     return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if accept not in done:
            accept.cancel()
            await asyncio.gather(accept, return_exceptions=True)
            return False
        # QEMU may end after it has connected, with a message on stderr.
        try:
            await accept
        except QMPError:
            return False
        return True

    async def disconnect(self):
        with contextlib.suppress(QMPError, EOFError, OSError,
                                 asyncio.TimeoutError):
            await asyncio.wait_for(self.qmp.disconnect(), self.answer_max)

    async def execute(self, command, arguments=None):
        try:
            return await asyncio.wait_for(
                self.qmp.execute(command, arguments), self.answer_max)
        except (QMPError, EOFError, OSError, asyncio.TimeoutError) as error:
            raise self.failure(f'QMP {command}: {error!r}') from error

    async def hmp(self, line):
        return await self.execute('human-monitor-command',
                                  {'command-line': line})


class Machine(Monitored):
    """Use it with 'async with': QEMU does not outlive the block."""

    def __init__(self, qemu, payload, cmdline, vcpus):
        self.directory = tempfile.mkdtemp(prefix='gmem-demo-')
        self.socket = os.path.join(self.directory, 'qmp')
        self.stderr_path = os.path.join(self.directory, 'stderr')
        self.argv = self._arguments(qemu, payload, cmdline, vcpus)
        self.qmp = QMPClient('demo')
        self.connected = False
        self.process = None
        self.exit_status = None
        self.stderr = ''
        self.lines = []

    def _arguments(self, qemu, payload, cmdline, vcpus):
        backends = []
        for node in (0, 1):
            backends += [
                '-object',
                f'memory-backend-memfd-private,id=ram{node},size=256M',
                '-numa', f'node,nodeid={node},memdev=ram{node}']
        return [
            qemu, '-accel', 'tcg', '-m', '512M', '-smp', str(vcpus),
            '-machine', 'q35,smm=off,confidential-guest-support=cgs0',
            '-object', 'sw-protected-guest,id=cgs0',
            '-object', 'guest-memfd-manager,id=gmm0', *backends,
            '-device', 'guest-memfd-testdev',
            '-device', 'isa-debug-exit,iobase=0xf4,iosize=4',
            '-nodefaults', '-display', 'none', '-no-reboot', '-S',
            '-no-shutdown', '-run-with', 'exit-with-parent=on',
            '-chardev', 'stdio,id=com1,signal=off',
            '-serial', 'chardev:com1', '-qmp', f'unix:{self.socket}',
            '-kernel', payload, '-append', cmdline]

    def command_line(self):
        return shlex.join(self.argv)

    async def __aenter__(self):
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _start(self):
        if not os.access(self.argv[0], os.X_OK):
            raise Failure(f'{self.argv[0]} is not there: run "make build"')
        await self.qmp.start_server(self.socket)
        with open(self.stderr_path, 'wb') as stderr:
            self.process = await asyncio.create_subprocess_exec(
                *self.argv, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=stderr,
                start_new_session=True)
        if not await self.accept():
            raise self.failure('QEMU did not start')
        self.connected = True

    async def __aexit__(self, *_):
        try:
            if self.connected:
                await self.disconnect()
            if self.process and self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            self._read_stderr()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _read_stderr(self):
        try:
            with open(self.stderr_path, encoding='utf-8',
                      errors='replace') as stderr:
                self.stderr = stderr.read().strip()
        except OSError:
            pass

    def failure(self, what):
        """What went wrong, and the last that was heard."""
        self._read_stderr()
        text = [what, *self.lines[-LINES_SHOWN:]]
        if self.stderr:
            text += ['QEMU said:', self.stderr]
        return Failure('\n'.join(text + ['QEMU was:', self.command_line()]))

    async def poison(self):
        """Memory converted without a promise loses its bytes for sure."""
        await self.execute('qom-set', {'path': PROVIDER,
                                       'property': 'poison', 'value': True})

    async def resume(self):
        await self.execute('cont')

    async def records(self):
        """The guest's lines, one by one, until it has no more to say."""
        while True:
            try:
                raw = await asyncio.wait_for(self.process.stdout.readline(),
                                             SILENCE_MAX)
            except asyncio.TimeoutError:
                registers = await self.hmp('info registers')
                raise self.failure('the guest hangs\n' + registers) from None
            if not raw:
                raise self.failure('QEMU ended before the guest was done')
            line = raw.decode('ascii', 'replace').strip()
            self.lines.append(line)
            record = parse_line(line)
            yield record
            if record['kind'] in LAST_WORDS:
                break
        if record['kind'] != 'done':
            raise self.failure('the guest stopped')

    async def finish(self):
        """Ask what QEMU counted, then let it exit as the guest requested."""
        deadline = asyncio.get_running_loop().time() + END_MAX
        while (await self.execute('query-status'))['status'] != 'shutdown':
            if asyncio.get_running_loop().time() > deadline:
                raise self.failure('the guest did not shut down')
            await asyncio.sleep(0.02)
        info = await self.execute('query-guest-memfd')
        await self.execute('quit')
        try:
            self.exit_status = await asyncio.wait_for(self.process.wait(),
                                                      END_MAX)
        except asyncio.TimeoutError:
            raise self.failure('QEMU did not exit') from None
        return info
