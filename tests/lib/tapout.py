# SPDX-License-Identifier: GPL-2.0-or-later
"""TAP for parts of the checks that are written in Python."""

import asyncio
import signal


class TapOut:
    def __init__(self):
        self.number = 0
        self.failed = 0

    @staticmethod
    def say(text):
        print(f'# {text}', flush=True)

    def result(self, good, name, detail=''):
        self.number += 1
        self.failed += not good
        print(f"{'ok' if good else 'not ok'} {self.number} - {name}",
              flush=True)
        if not good:
            for line in detail.splitlines():
                self.say(line)

    def skip(self, name, reason):
        self.number += 1
        print(f'ok {self.number} - {name} # SKIP {reason}', flush=True)

    def end(self):
        print(f'1..{self.number}', flush=True)
        return 1 if self.failed else 0

    def run(self, work):
        """Run a coroutine to the exit status; a signal ends it and its own."""
        loop = asyncio.new_event_loop()
        task = loop.create_task(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            print('Bail out! interrupted')
            return 130
        return self.end()
