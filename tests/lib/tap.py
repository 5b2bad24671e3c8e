# SPDX-License-Identifier: GPL-2.0-or-later
"""The view for a test harness: TAP, a line for each group of cases."""


class Tap:
    """One line per range, one per kind of refusal, one per check."""

    def __init__(self):
        self.number = 0
        self.failures = []

    def line(self, good, name, detail=''):
        self.number += 1
        print(f"{'ok' if good else 'not ok'} {self.number} - {name}",
              flush=True)
        if detail and not good:
            for text in detail.splitlines():
                print(f'# {text}', flush=True)

    def record(self, record):
        if record['kind'] in ('fail', 'trap', 'usage'):
            self.failures.append(record['line'])

    @staticmethod
    def groups(records, key):
        groups = {}
        for record in records:
            groups.setdefault(key(record), []).append(record)
        return groups.items()

    @staticmethod
    def bad(group):
        return sum(int(record['bad']) for record in group)

    def end(self, log, _info, checks):
        detail = '\n'.join(self.failures)
        for name, group in self.groups(
                log.cases, lambda r: f"{r['gpa']} {r['size']} {r['place']} "
                                     f"{r['align']}"):
            self.line(not self.bad(group),
                      f'{len(group)} conversions of {name}', detail)
        for name, group in self.groups(log.refusals, lambda r: r['name']):
            self.line(not self.bad(group), f'{name} changes nothing', detail)
        for name, good, text in checks:
            self.line(good, name, text)
        print(f'# {log.conversions} conversions, {log.bytes} bytes checked, '
              f'{log.mismatches} mismatches')
        print(f'1..{self.number}', flush=True)

    def failure(self, text):
        self.line(False, 'the guest runs to its end', text)
        print(f'1..{self.number}', flush=True)
