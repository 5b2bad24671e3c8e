# SPDX-License-Identifier: GPL-2.0-or-later
"""What answers on a socket, when it is not the QEMU that one hoped for."""

import asyncio
import contextlib
import json

GREETING = {'QMP': {'version': {'qemu': {'major': 10, 'minor': 2, 'micro': 2},
                                'package': ''}, 'capabilities': []}}
NO_COMMAND = {'class': 'CommandNotFound', 'desc': 'The command '
              'query-guest-memfd has not been found'}


async def silent(reader, _):
    """A monitor that another client holds looks like this."""
    await reader.read()


async def web_server(_, writer):
    writer.write(b'HTTP/1.1 400 Bad Request\r\n\r\n')
    await writer.drain()


async def hangs_up(*_):
    pass


def qmp(answer):
    """A monitor that gives @answer to all but qmp_capabilities."""
    async def serve(reader, writer):
        def send(message):
            writer.write(json.dumps(message).encode() + b'\r\n')

        send(GREETING)
        while text := (await reader.read(65536)).decode():
            # A client sends one command, without an end of line, and waits.
            command = json.loads(text)
            send({'return': {}} if command['execute'] == 'qmp_capabilities'
                 else {**answer, 'id': command['id']})
            await writer.drain()
    return serve


STOCK = qmp({'error': NO_COMMAND})
STRANGE = qmp({'return': [1, 2, 3]})


@contextlib.asynccontextmanager
async def listen(path, serve):
    async def handle(reader, writer):
        with contextlib.suppress(OSError, ValueError):
            await serve(reader, writer)
        writer.close()

    async with await asyncio.start_unix_server(handle, path):
        yield path
