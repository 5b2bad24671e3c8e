# SPDX-License-Identifier: GPL-2.0-or-later
"""The tools under test, as a user runs them."""

import asyncio
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / 'tests/lib'))
TOP = str(ROOT / 'contrib/gmem/gmem-top')
EXPORTER = str(ROOT / 'contrib/gmem/gmem-exporter')
TIME_MAX = 30
ENVIRONMENT = {**os.environ, 'PYTHONDONTWRITEBYTECODE': '1'}


class Done:
    """How a program ended, and what it said."""

    def __init__(self, status, out, err):
        self.status = status
        self.out = out.decode()
        self.err = err.decode()

    def __str__(self):
        return f'exit status {self.status}\n{self.out[-2000:]}{self.err}'

    def one_line(self):
        """An error for people: one line, no traceback."""
        return len(self.err.strip().splitlines()) == 1 and not self.out


def main_of(part, tap):
    """Run a part to its end; SIGTERM ends it as Ctrl-C does: tidily."""
    async def whole():
        task = asyncio.ensure_future(part(tap))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM,
                                                      task.cancel)
        await task
        return tap.end()

    # A background job of a shell ignores it, and what that starts does, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return asyncio.run(whole())
    except (KeyboardInterrupt, asyncio.CancelledError):
        print('Bail out! interrupted')
        return 130


async def start(*argv, **options):
    options.setdefault('env', ENVIRONMENT)
    return await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        **options)


async def end(process, number=None):
    """Its output, after a signal if there is a @number."""
    if number is not None:
        process.send_signal(number)
    try:
        out, err = await asyncio.wait_for(process.communicate(), TIME_MAX)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Done(process.returncode, out, err)


async def run(*argv, **options):
    return await end(await start(*argv, **options))
