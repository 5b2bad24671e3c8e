# SPDX-License-Identifier: GPL-2.0-or-later
"""Where query-guest-memfd is asked: a QMP socket, or a libvirt domain."""

import asyncio
import errno
import json
import os
import re
import shutil

from . import qmp

COMMAND = 'query-guest-memfd'
TIMEOUT = 3.0
HOST_PORT = re.compile(r'(?:tcp:)?(?:\[([^]/]+)\]|([^/]*)):([^/:]*)')
PORT = re.compile('[0-9]{1,5}')
PORT_MAX = 65535
PATH_MAX = 107          # bytes of a Unix socket's path, without the NUL
TIMEOUT_MAX = 86400


class SourceError(Exception):
    """The VM did not answer; the text says why, and what helps."""


def check_path(text, path):
    """A socket's path, or ValueError."""
    if not path:
        raise ValueError(f'\'{text}\': the address is empty: give a path, or '
                         'HOST:PORT')
    if len(os.fsencode(path)) > PATH_MAX:
        raise ValueError(f'{path}: the path of a socket has at most '
                         f'{PATH_MAX} bytes: use a shorter one, or a link')
    return path


def parse_address(text, listen=False):
    """A path, or (host, port); port 0 is for listening.  ValueError."""
    if text.startswith('unix:'):
        return check_path(text, text[len('unix:'):].split(',')[0])
    found = HOST_PORT.fullmatch(text)
    if not found or os.path.exists(text):
        return check_path(text, text)
    port = int(found[3]) if PORT.fullmatch(found[3]) else -1
    lowest = 0 if listen else 1
    if not lowest <= port <= PORT_MAX:
        raise ValueError(f'{text}: port \'{found[3]}\': it is a number from '
                         f'{lowest} to {PORT_MAX}')
    return found[1] or found[2] or 'localhost', port


def explain_connect(address, error):
    """What an error of connect() means to somebody with a socket."""
    text = address if isinstance(address, str) else '%s:%d' % address
    number = getattr(error, 'errno', None)
    remedies = {
        errno.ENOENT: 'there is no such socket: start QEMU with '
                      '-qmp unix:PATH,server=on,wait=off',
        errno.ECONNREFUSED: 'nobody listens there: QEMU has ended, or this '
                            'is no socket',
        errno.EACCES: 'permission denied: run as the user who may use the '
                      'socket',
    }
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return (f'{text}: no answer: a QMP socket serves one client at a '
                'time, and another may hold it, or this is no QMP monitor')
    if isinstance(error, EOFError) or number == errno.ECONNRESET:
        return f'{text}: closed without an answer: no QMP monitor, or busy'
    if isinstance(error, UnicodeError):
        return f'{text}: this is no name of a host'
    if isinstance(error, OSError):
        return f'{text}: {remedies.get(number, error.strerror or error)}'
    return f'{text}: this is no QMP monitor'


def is_reply(reply):
    """Is this made as query-guest-memfd's answers are?"""
    if not isinstance(reply, dict):
        return False
    backends, modes = reply.get('backends'), reply.get('modes', {})
    return (isinstance(backends, list) and isinstance(modes, dict) and
            all(isinstance(b, dict) and isinstance(b.get('name'), str)
                for b in backends) and
            len({b['name'] for b in backends}) == len(backends) and
            all(isinstance(offered, list) and
                all(isinstance(mode, dict) for mode in offered)
                for offered in modes.values()))


def check_reply(where, reply):
    """A QEMU that went wrong must not take the view of others with it."""
    if not is_reply(reply):
        raise SourceError(f'{where}: {COMMAND} answered something strange')
    return reply


def explain_refusal(where, kind, text):
    if kind == 'CommandNotFound':
        return (f'{where}: this QEMU has no {COMMAND}: it is not built with '
                'guest_memfd conversion')
    return f'{where}: {COMMAND}: {text}'


class QmpSource:
    """One QMP monitor; connects when it is read, and again when lost."""

    def __init__(self, address, timeout=TIMEOUT):
        self.address = parse_address(address)
        self.name = address
        self.timeout = timeout
        self.module = qmp.load()
        self.client = None

    async def read(self):
        """What query-guest-memfd says now."""
        try:
            if self.client is None:
                await self._connect()
            return check_reply(self.name, await self._execute())
        except BaseException:
            await self.close()
            raise

    async def _connect(self):
        client = self.module.QMPClient('gmem')
        self.client = client
        try:
            await asyncio.wait_for(client.connect(self.address),
                                   self.timeout)
        except self.module.ConnectError as error:
            text = explain_connect(self.address, error.exc)
            raise SourceError(text) from error
        except asyncio.TimeoutError as error:
            text = explain_connect(self.address, error)
            raise SourceError(text) from error

    async def _execute(self):
        try:
            reply = await asyncio.wait_for(self.client.execute(COMMAND),
                                           self.timeout)
        except self.module.ExecuteError as error:
            raise SourceError(explain_refusal(
                self.name, error.error_class, error)) from error
        except asyncio.TimeoutError as error:
            raise SourceError(f'{self.name}: QEMU does not answer') from error
        except (self.module.QMPError, EOFError, OSError) as error:
            raise SourceError(f'{self.name}: the connection is lost: QEMU '
                              'has ended') from error
        # Nobody reads events here: they must not pile up.
        self.client.events.clear()
        return reply

    async def close(self):
        client, self.client = self.client, None
        if client is None:
            return
        try:
            await asyncio.wait_for(client.disconnect(), self.timeout)
        except (self.module.QMPError, EOFError, OSError,
                asyncio.TimeoutError):
            pass


class LibvirtSource:
    """A domain: libvirt holds its monitor, and passes the command on."""

    def __init__(self, domain, uri=None, timeout=TIMEOUT):
        self.name = domain
        self.timeout = timeout
        connect = ['--connect', uri] if uri else []
        self.argv = ['virsh', '--quiet', *connect, 'qemu-monitor-command',
                     '--', domain, json.dumps({'execute': COMMAND})]

    async def read(self):
        if not shutil.which(self.argv[0]):
            raise SourceError('there is no virsh: install libvirt-clients')
        process = await asyncio.create_subprocess_exec(
            *self.argv, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        try:
            out, err = await asyncio.wait_for(process.communicate(),
                                              self.timeout)
        except asyncio.TimeoutError as error:
            raise SourceError(f'{self.name}: libvirt does not '
                              'answer') from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return self._judge(process.returncode, out, err)

    def _judge(self, status, out, err):
        if status:
            text = ' '.join(err.decode(errors='replace').split())
            raise SourceError(f'{self.name}: {text or "virsh failed"}')
        try:
            reply = json.loads(out)
            if 'error' in reply:
                error = reply['error']
                raise SourceError(explain_refusal(
                    self.name, error.get('class'), error.get('desc')))
            return check_reply(self.name, reply.get('return'))
        except (ValueError, AttributeError, TypeError) as error:
            raise SourceError(f'{self.name}: virsh answered something '
                              'strange') from error

    async def close(self):
        pass


def split_name(text):
    """NAME=ADDRESS, where NAME may be left out."""
    name, equals, address = text.partition('=')
    if equals and name and address and not re.search('[/:]', name):
        return name, address
    return text, text


def add_options(parser, several):
    """--qmp, --libvirt and what belongs to them."""
    action = 'append' if several else 'store'
    name = '[NAME=]' if several else ''
    parser.add_argument('--qmp', action=action, metavar=f'{name}ADDRESS',
                        help='a QMP socket: its path, or HOST:PORT')
    parser.add_argument('--libvirt', action=action,
                        metavar=f'{name}DOMAIN',
                        help='a domain of libvirt, through virsh')
    parser.add_argument('--connect', metavar='URI',
                        help="libvirt's URI (default: virsh's own)")
    parser.add_argument('--timeout', type=float, default=TIMEOUT,
                        metavar='SECONDS',
                        help='how long QEMU may take to answer '
                             f'(default: {TIMEOUT:g})')


def from_options(arguments):
    """The sources asked for, by name; ValueError names what is wrong."""
    def listed(value):
        return value if isinstance(value, list) else \
            [] if value is None else [value]

    named = [(*split_name(text), False) for text in listed(arguments.qmp)]
    named += [(*split_name(text), True)
              for text in listed(arguments.libvirt)]
    if not named:
        raise ValueError('say which VM: --qmp ADDRESS or --libvirt DOMAIN')
    if not 0 < arguments.timeout <= TIMEOUT_MAX:
        raise ValueError(f'--timeout {arguments.timeout:g}: more than 0, at '
                         f'most {TIMEOUT_MAX}')
    sources = {}
    for name, address, libvirt in named:
        if name in sources:
            raise ValueError(f'two VMs have the name {name}')
        sources[name] = (
            LibvirtSource(address, arguments.connect, arguments.timeout)
            if libvirt else QmpSource(address, arguments.timeout))
    return sources
