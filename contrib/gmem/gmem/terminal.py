# SPDX-License-Identifier: GPL-2.0-or-later
"""The live view: curses, with keys and samples in one event loop."""

import asyncio
import curses
import os
import signal
import sys

from . import screen

HELP = 'q quit  p pause  arrows scroll'
QUIT = {ord('q'), ord('Q')}
DOWN = {ord('j'), curses.KEY_DOWN}
UP = {ord('k'), curses.KEY_UP}


def styles(colour):
    """Attributes for the styles of screen.py."""
    found = {'': curses.A_NORMAL, 'head': curses.A_BOLD,
             'dim': curses.A_DIM, 'private': curses.A_BOLD,
             'shared': curses.A_NORMAL, 'warn': curses.A_REVERSE}
    if not colour or not curses.has_colors():
        return found
    curses.use_default_colors()
    for pair, (style, number) in enumerate(
            (('private', curses.COLOR_GREEN), ('shared', curses.COLOR_YELLOW),
             ('warn', curses.COLOR_RED), ('head', curses.COLOR_CYAN)), 1):
        curses.init_pair(pair, number, -1)
        found[style] = curses.color_pair(pair) | curses.A_BOLD
    return found


class Terminal:
    def __init__(self, window, sampler, interval, colour):
        self.window = window
        self.sampler = sampler
        self.interval = interval
        self.styles = styles(colour)
        self.first = 0
        self.paused = False
        self.over = asyncio.Event()

    def draw(self):
        height, width = self.window.getmaxyx()
        lines = screen.lines_of(self.sampler.view, width)
        shown, self.first = screen.window(lines, height - 1, self.first)
        self.window.erase()
        for y, line in enumerate(shown[:height - 1]):
            self._put(y, line)
        below = len(lines) > height - 1 + self.first
        text = HELP + ('  PAUSED' if self.paused else '')
        self._put(height - 1, screen.cut(
            [(text, 'dim'), ('  more below' if below else '', 'warn')],
            width - 1))
        self.window.refresh()

    def _put(self, y, line):
        x = 0
        for text, style in line:
            try:
                self.window.addstr(y, x, text, self.styles[style])
            except curses.error:
                # The last cell, or a window that just became smaller.
                pass
            x += len(text)

    def keys(self):
        """The terminal has input."""
        while True:
            key = self.window.getch()
            if key == -1:
                break
            self.key(key)
        self.draw()

    def key(self, key):
        if key in QUIT:
            self.over.set()
        elif key == ord('p'):
            self.paused = not self.paused
        elif key in DOWN:
            self.first += 1
        elif key in UP:
            self.first = max(self.first - 1, 0)

    def resize(self):
        try:
            size = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            self.over.set()
            return
        curses.resizeterm(max(size.lines, 1), max(size.columns, 1))
        self.window.clear()
        self.draw()

    async def run(self):
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), self.keys)
        loop.add_signal_handler(signal.SIGWINCH, self.resize)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.over.set)
        samples = asyncio.ensure_future(self.samples())
        over = asyncio.ensure_future(self.over.wait())
        await asyncio.wait({samples, over},
                           return_when=asyncio.FIRST_COMPLETED)
        loop.remove_reader(sys.stdin.fileno())
        samples.cancel()
        over.cancel()
        results = await asyncio.gather(samples, over,
                                       return_exceptions=True)
        await self.sampler.close()
        # A terminal without a second screen keeps what is on this one.
        self.window.erase()
        self.window.refresh()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def samples(self):
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self.draw()
            due = max(due + self.interval, loop.time())
            await asyncio.sleep(due - loop.time())
            if not self.paused:
                await self.sampler.sample()


def show(loop, sampler, interval, colour):
    """Until the user quits; the terminal is as before then."""
    def inside(window):
        try:
            curses.curs_set(0)
        except curses.error:
            pass
        window.nodelay(True)
        loop.run_until_complete(
            Terminal(window, sampler, interval, colour).run())

    curses.wrapper(inside)
