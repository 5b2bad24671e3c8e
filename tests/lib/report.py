# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest said, kept and shown as tables."""

import json
import os

SIZES = ((1 << 20, 'M'), (1 << 10, 'K'))
ERRORS = {0: 'ok', -11: 'EAGAIN', -14: 'EFAULT', -22: 'EINVAL',
          -95: 'EOPNOTSUPP'}
STARTS = {'one-page-right': 'one-right'}

CASE_FORMAT = ('{range:<16} {node:<3} {start:<9} {to:<7} {intent:<8} '
               '{mode:<8} {how:<8} {guest:<15} {device:<15} {verdict}')
CASE_HEADER = {
    'range': 'range', 'node': 'mem', 'start': 'start', 'to': 'to',
    'intent': 'intent', 'mode': 'mode', 'how': 'by',
    'guest': 'guest reads', 'device': 'device reads', 'verdict': ''}

REFUSAL_FORMAT = ('{name:<24} {range:<18} {bits:<23} {answer:<7} '
                  '{times:>5} {verdict}')
REFUSAL_HEADER = {
    'name': 'request', 'range': 'range', 'bits': 'attributes',
    'answer': 'answer', 'times': 'times', 'verdict': ''}

JSON_WIDTH = 90
KEYS = ('manager', 'provider', 'provider-reason', 'in-place', 'launched',
        'name', 'size', 'private-bytes', 'shared-bytes', 'content-mode',
        'on-unsupported', 'retry-timeout-ms', 'mode', 'requests', 'origins',
        'directions', 'modes', 'realisations', 'converted-bytes',
        'already-right-bytes', 'rejected', 'stats', 'backends')

ATTRIBUTES = ((1 << 4, 'private'), (1 << 8, 'zero'), (1 << 9, 'preserve'))


def show_size(size):
    if size >= 1 << 63:
        return f'2^64-{show_size((1 << 64) - size)}'
    for unit, name in SIZES:
        if size and size % unit == 0 and size < unit << 16:
            return f'{size // unit}{name}'
    return str(size)


def show_range(record):
    gpa = int(record['gpa'], 0)
    start = f'{gpa:#010x}' if gpa < 1 << 63 else show_size(gpa)
    return f"{start:<10} {show_size(int(record['size'], 0)):>5}"


def show_error(status):
    return ERRORS.get(status, str(status))


def show_attributes(attributes):
    names = [name for bit, name in ATTRIBUTES if attributes & bit]
    rest = attributes
    for bit, _ in ATTRIBUTES:
        rest &= ~bit
    if rest:
        names.append(f'bit {rest.bit_length() - 1}')
    return '+'.join(names) or 'shared'


class Log:
    """All that the guest said, by kind."""

    def __init__(self):
        self.hello = {}
        self.fwcfg = {}
        self.cases = []
        self.refusals = []
        self.stats = []
        self.rejected = 0
        self.failures = []
        self.done = {}

    def add(self, record):
        kind = record['kind']
        lists = {'case': self.cases, 'refusal': self.refusals,
                 'stats': self.stats, 'fail': self.failures}
        if kind in lists:
            lists[kind].append(record)
        elif kind in ('hello', 'fwcfg', 'done'):
            setattr(self, kind, record)
        elif kind == 'rejected':
            self.rejected = int(record['count'])

    @property
    def conversions(self):
        return int(self.done.get('conversions', 0))

    @property
    def bytes(self):
        return int(self.done.get('bytes', 0))

    @property
    def mismatches(self):
        return int(self.done.get('mismatches', -1))


def case_row(record):
    """One conversion, as the words of a table row."""
    status = int(record['status'])
    return {
        'range': show_range(record),
        'node': record['place'].replace('backend', '').replace('border',
                                                               '0+1'),
        'start': STARTS.get(record['start'], record['start']),
        'to': record['dir'].replace('to-', ''),
        'intent': record['intent'].replace('unspecified', '-'),
        'mode': record['mode'],
        'how': record['how'],
        'guest': f"{record['guest_before']}>{record['guest_after']}",
        'device': f"{record['device_before']}>{record['device_after']}",
        'verdict': 'ok' if record['bad'] == '0' else
                   f"{record['bad']} BAD, {show_error(status)}"}


def refusal_rows(records):
    """One row for each kind of request: it was made in several states."""
    rows = {}
    for record in records:
        rows.setdefault(record['name'], []).append(record)
    for name, group in rows.items():
        first = group[0]
        bad = sum(int(record['bad']) for record in group)
        answers = {int(record['status']) for record in group}
        yield {
            'name': name, 'range': show_range(first),
            'bits': show_attributes(int(first['attributes'], 0)),
            'answer': ' '.join(map(show_error, sorted(answers))),
            'times': len(group),
            'verdict': 'ok' if not bad else f'{bad} BAD'}


def in_order(value):
    """QMP's dictionaries come in any order: put them in KEYS' order."""
    if isinstance(value, list):
        return [in_order(item) for item in value]
    if not isinstance(value, dict):
        return value
    keys = sorted(value, key=lambda key: (
        KEYS.index(key) if key in KEYS else len(KEYS), key))
    return {key: in_order(value[key]) for key in keys}


def without_idle(info):
    """Counters of memory that saw no request are all 0: leave them out."""
    return {**info, 'backends': [
        backend if backend['stats']['requests'] else
        {key: backend[key] for key in backend if key != 'stats'}
        for backend in info['backends']]}


def show_json(value, indent=0):
    """JSON, with everything that fits on one line on one line."""
    text = json.dumps(value)
    pad = ' ' * (indent + 2)
    if len(text) + indent <= JSON_WIDTH or not isinstance(value, (dict, list)):
        return text
    if isinstance(value, list):
        inner = [show_json(item, indent + 2) for item in value]
        brackets = '[]'
    else:
        inner = [f'{json.dumps(key)}: {show_json(item, indent + 2)}'
                 for key, item in value.items()]
        brackets = '{}'
    return (brackets[0] + '\n' + ',\n'.join(pad + item for item in inner) +
            '\n' + ' ' * indent + brackets[1])


class Tables:
    """The view for a person."""

    def __init__(self, out):
        self.out = out
        self.colour = out.isatty() and 'NO_COLOR' not in os.environ
        self.place = None

    def paint(self, text, code):
        return f'\033[{code}m{text}\033[0m' if self.colour else text

    def say(self, text=''):
        print(text, file=self.out, flush=True)

    def title(self, text):
        self.say()
        self.say(self.paint(text, 1))
        self.say()

    def row(self, form, row):
        text = form.format(**row).rstrip()
        if 'BAD' in row['verdict']:
            text = self.paint(text, 31)
        self.say(text)

    def record(self, record):
        kind = record['kind']
        if kind == 'hello':
            self.hello(record)
        elif kind == 'fwcfg':
            self.fwcfg(record)
        elif kind == 'case':
            self.case(record)
        elif kind in ('fail', 'trap', 'usage'):
            self.say(self.paint('  ' + record['line'], 31))

    def hello(self, record):
        self.say(self.paint('A guest converts its own memory', 1))
        self.say()
        self.say('512 MiB in two NUMA nodes (mem 0 and 1), all of it shared at '
                 'first; the border is at 0x10000000.')
        self.say(f"Conversions are asked for via {record['via']}; memory "
                 'without a promise is poisoned.')

    def fwcfg(self, record):
        self.say(f"fw_cfg offers, to shared: "
                 f"{show_attributes(int(record['to-shared'], 0))}; "
                 f"to private: "
                 f"{show_attributes(int(record['to-private'], 0))}.")
        self.title('Conversions')
        self.say('start: uniform = all pages in the other state; repeat = '
                 'none; one-right, alternate =\n'
                 'some pages are right already and keep their bytes.  '
                 'intent - = unspecified.')
        self.say()
        self.say(CASE_FORMAT.format(**CASE_HEADER).rstrip())

    def case(self, record):
        place = (record['gpa'], record['size'])
        if place != self.place:
            self.say()
            self.place = place
        self.row(CASE_FORMAT, case_row(record))

    def end(self, log, info, checks):
        self.title('Requests that change nothing')
        self.say('Each from shared and from private memory, in each node and '
                 'across the border.')
        self.say()
        self.say(REFUSAL_FORMAT.format(**REFUSAL_HEADER).rstrip())
        for row in refusal_rows(log.refusals):
            self.row(REFUSAL_FORMAT, row)

        self.title('query-guest-memfd')
        self.say(show_json(in_order(without_idle(info))))

        self.title('The guest and QEMU agree')
        for name, good, detail in checks:
            text = f"{'ok ' if good else 'BAD'} {name}"
            self.say(text if good else
                     self.paint(f'{text}: {detail}', 31))
        wrong = sum(not good for _, good, _ in checks)
        if wrong:
            self.say(self.paint(f'{wrong} checks failed', 31))
        self.say()
        self.say(f'demo: {log.conversions} conversions, {log.bytes} bytes '
                 f'checked, {log.mismatches} mismatches')

    def failure(self, text):
        self.say()
        self.say(self.paint('demo failed: ' + text, 31))
