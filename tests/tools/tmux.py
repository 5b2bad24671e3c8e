# SPDX-License-Identifier: GPL-2.0-or-later
"""A real terminal: tmux, of a server of our own."""

import os
import subprocess
import tempfile
import time

PATIENCE = 15


class Tmux:
    """Use it with 'with': the server does not outlive the block."""

    def __init__(self, width=80, height=24):
        self.size = ['-x', str(width), '-y', str(height)]
        self.directory = tempfile.TemporaryDirectory(prefix='gmem-tmux-')
        self.socket = os.path.join(self.directory.name, 'socket')

    def command(self, *words, check=True):
        return subprocess.run(
            ['tmux', '-f', '/dev/null', '-S', self.socket, *words],
            check=check, capture_output=True, text=True,
            stdin=subprocess.DEVNULL).stdout

    def __enter__(self):
        # A shell without settings: what it shows is what was typed.
        self.command('new-session', '-d', *self.size,
                     'exec env -u NO_COLOR PS1="$ " bash --norc --noprofile')
        return self

    def __exit__(self, *_):
        self.command('kill-server', check=False)
        self.directory.cleanup()

    def type(self, line):
        self.command('send-keys', '-l', line)
        self.command('send-keys', 'Enter')

    def key(self, name):
        self.command('send-keys', name)

    def resize(self, width, height):
        self.command('resize-window', '-x', str(width), '-y', str(height))

    def ask(self, name):
        return self.command('display-message', '-p', f'#{{{name}}}').strip()

    def lines(self, colours=False):
        text = self.command('capture-pane', '-p', *['-e'] * colours)
        return text.rstrip('\n').split('\n')

    def text(self):
        return '\n'.join(self.lines())

    def until(self, condition, patience=PATIENCE):
        """The screen once it is as wanted, or in the end as it is."""
        deadline = time.monotonic() + patience
        while True:
            text = self.text()
            if condition(text) or time.monotonic() > deadline:
                return text
            time.sleep(0.1)
