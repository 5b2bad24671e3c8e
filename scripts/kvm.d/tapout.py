# SPDX-License-Identifier: GPL-2.0-or-later
"""TAP for the parts of the KVM rig."""


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

    def end(self):
        print(f'1..{self.number}', flush=True)
        return 1 if self.failed else 0
