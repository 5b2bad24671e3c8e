# SPDX-License-Identifier: GPL-2.0-or-later
"""
What gmem-top shows, as lines of (text, style): no terminal is needed.

Styles: '' and 'head', 'dim', 'private', 'shared', 'warn'.
"""

import time
from dataclasses import dataclass

from . import figures
from .rates import mean_ns

TWO_COLUMNS = 76        # from this width on, tables stand in pairs
GAP = 4
NAME_MAX = 16
RECENT = 10             # seconds

DIRECTIONS = ('to-shared', 'to-private')
MODES = ('default', 'zero', 'preserve')
ORIGINS = ('hypercall', 'memory-fault', 'launch', 'reset', 'device')
REALISATIONS = ('kernel', 'emulated', 'refused')


@dataclass
class View:
    """@sample None: nothing is known yet.  @rates None: no interval yet."""
    vm: str
    sample: object = None
    rates: object = None
    problem: str = ''


def width_of(line):
    return sum(len(text) for text, _ in line)


def cut(line, width):
    """No more than @width columns; what does not fit ends with '>'."""
    if width_of(line) <= width:
        return line
    result, left = [], width - 1
    for text, style in line:
        result.append((text[:max(left, 0)], style))
        left -= len(text)
    return [*result, ('>', 'dim')]


def pad(line, width):
    return [*line, (' ' * max(width - width_of(line), 0), '')]


def short_name(name, width):
    """The end of a path says more than its start."""
    return name if len(name) <= width else '<' + name[1 - width:]


# --- the parts of the screen ----------------------------------------------

def head(view, width):
    """Which VM, and what converts its memory."""
    left = [('gmem-top ', 'head'), (view.vm, '')]
    if not view.sample:
        return [left]
    info = view.sample.info
    clock = time.strftime('%H:%M:%S', time.localtime(view.sample.wall))
    provider = info.get('provider', 'no provider')
    right = f'{provider}  {clock}'
    room = width - len(right) - len('gmem-top ') - 1
    left[1] = (short_name(view.vm, max(room, 8)), '')
    return [[*pad(left, width - len(right)), (right, '')]]


def wrap(words, width):
    """As many @words a line as fit, with commas between them."""
    lines = []
    for word in words:
        if lines and len(lines[-1]) + len(word) + 3 <= width:
            lines[-1] += f', {word}'
        else:
            lines.append(word)
    return ',\n'.join(lines).split('\n')


def policy(view, width):
    info = view.sample.info
    words = [('content-mode', 'policy'), ('on-unsupported', 'unsupported'),
             ('in-place', 'in-place'), ('phase', 'phase')]
    said = [f'{short} {info[name]}' for name, short in words if name in info]
    if 'retry-timeout-ms' in info:
        said.append(f'retry {info["retry-timeout-ms"]} ms')
    # A machine that runs has been launched.
    if 'launched' in info and info.get('phase') != 'running':
        said.append('launched' if info['launched'] else 'not launched')
    return [*([(text, 'dim')] for text in wrap(said, width)),
            [(info.get('provider-reason', ''), 'dim')]]


def bar(backend, width):
    full = figures.bar_cells(backend.private, backend.size, width)
    known = figures.bar_cells(backend.private + backend.shared,
                              backend.size, width)
    ready = figures.bar_cells(backend.size - backend.setup, backend.size,
                              width)
    # Neither yet: QEMU still writes to it.
    setup = width - max(known, ready)
    return [('[', ''), ('#' * full, 'private'),
            ('=' * (known - full), 'shared'),
            (' ' * (width - known - setup), ''), ('.' * setup, 'dim'),
            (']', '')]


def memory_line(backend, width):
    wide = width >= TWO_COLUMNS
    name = short_name(backend.name, NAME_MAX if wide else 6)
    numbers = (f' {figures.size(backend.private):>7}'
               f' {figures.size(backend.shared):>7}')
    if wide:
        numbers += (f' {figures.size(backend.size):>7}'
                    f' {figures.share(backend.private, backend.size):>5}')
    name = name.ljust(NAME_MAX if wide else 6) + ' '
    cells = max(width - len(name) - len(numbers) - 2, 4)
    return [(name, ''), *bar(backend, cells), (numbers, '')]


def memory(view, width):
    """Blocks of guest memory that can be converted, as bars."""
    numbers = f' {"private":>7} {"shared":>7}'
    if width >= TWO_COLUMNS:
        numbers += f' {"size":>7} {"priv":>5}'
    title = 'MEMORY'
    if width >= TWO_COLUMNS:
        title += '  # private  = shared'
    lines = [[*pad([(title, 'head')], width - len(numbers)),
              (numbers, 'head')]]
    if not view.sample.backends:
        lines.append([('no guest_memfd memory', 'dim')])
    return lines + [memory_line(b, width) for b in view.sample.backends]


def row(label, rate, total, width, style=''):
    numbers = f'{rate:>8} {total:>9}'
    label = label[:max(width - len(numbers) - 1, 0)]
    return [(label.ljust(width - len(numbers)) + numbers, style)]


class Table:
    """Rows of a label, how fast it rises, and what it is now."""

    def __init__(self, view, width):
        self.width = width
        self.total = view.sample.counters()
        self.rates = view.rates.total if view.rates else {}
        self.lines = []

    def title(self, text):
        self.lines.append(row(text, '/s', 'total', self.width, 'head'))

    def add(self, label, path, rate=figures.rate, total=figures.count,
            warn=False):
        """A row for a counter, unless this QEMU does not have it."""
        if path not in self.total:
            return
        fast = self.rates.get(path)
        self.lines.append(row(label, rate(fast), total(self.total[path]),
                              self.width, 'warn' if warn and fast else ''))

    def family(self, name, order, warn=()):
        """All members of an object, first those of @order."""
        found = [path[1] for path in self.total
                 if path[0] == name and len(path) == 2]
        rest = sorted(set(found) - set(order))
        for member in (*order, *rest):
            self.add(f'  {member}', (name, member), warn=member in warn)


def conversions(view, width):
    table = Table(view, width)
    table.title('CONVERSIONS')
    table.add('all', ('requests',))
    table.family('directions', DIRECTIONS)
    for direction in DIRECTIONS:
        table.add(f'  bytes {direction[3:]}', ('converted-bytes', direction),
                  figures.size, figures.size)
    table.add('  already right', ('already-right-bytes',),
              figures.size, figures.size)
    return table.lines


def modes(view, width):
    table = Table(view, width)
    table.title('CONTENT MODE')
    table.family('modes', MODES)
    table.title('KEPT BY')
    table.family('realisations', REALISATIONS, warn=('refused',))
    return table.lines


def origins(view, width):
    table = Table(view, width)
    table.title('ORIGIN')
    table.family('origins', ORIGINS)
    return table.lines


def failure_rows(view, width):
    """Requests that failed, and those that reached no backend."""
    rates = view.rates
    found = [(path[1], number, rates.total.get(path) if rates else None)
             for path, number in view.sample.counters().items()
             if path[0] == 'failures']
    found += [(f'{path[1]} (rejected)', number,
               rates.rejected.get(path) if rates else None)
              for path, number in view.sample.rejected.items()]
    for name, number, fast in sorted(found, key=lambda f: f[:2]):
        if number:
            yield row(f'  {name}', figures.rate(fast), figures.count(number),
                      width, 'warn' if fast else '')


def trouble(view, width):
    table = Table(view, width)
    table.title('TROUBLE')
    for name in ('retries', 'rollbacks', 'downgrades'):
        table.add(f'  {name}', (name,), warn=True)
    failed = list(failure_rows(view, width))
    return table.lines + (failed or [row('  failures', '0', '0', width)])


def last_busy(view, width):
    """The page that was in use last: why the guest gets EAGAIN."""
    found = [(b.busy.age, b.name, b.busy) for b in view.sample.backends
             if b.busy]
    if not found:
        return []
    age, name, busy = min(found, key=lambda f: f[:2])
    style = 'warn' if age < RECENT else ''
    place = f'{short_name(name, NAME_MAX)}+{busy.offset:#x}'
    return [row('LAST BUSY PAGE', '', figures.age(age), width, 'head'),
            *([(f'  {text}'[:width], style)] for text in (place, busy.who()))]


def in_use(view, width):
    """Memory that cannot become private, or is pinned while it is shared."""
    known = [b for b in view.sample.backends if b.mapped is not None]
    if not known:
        return []
    lines = [row('IN USE', 'mapped', 'assigned', width, 'head')]
    for b in known:
        if b.mapped or b.assigned or len(known) == 1:
            lines.append(row(f'  {short_name(b.name, NAME_MAX)}',
                             figures.size(b.mapped), figures.size(b.assigned),
                             width))
    if len(lines) == 1:
        lines.append(row('  nothing', '0', '0', width))
    return lines + last_busy(view, width)


def latency(view, width):
    total = view.sample.counters()
    peak = total.get(('time-max-ns',))
    now = figures.time(mean_ns(view.rates))
    requests = total.get(('requests',))
    ever = (total.get(('time-ns',), 0) / requests) if requests else None
    return [row('TIME A REQUEST', 'now', 'ever', width, 'head'),
            row('  mean', now, figures.time(ever), width),
            row('  longest', '', figures.time(peak), width)]


# --- put together ----------------------------------------------------------

def pair(left, right, width):
    """Two tables side by side."""
    lines = []
    for i in range(max(len(left), len(right))):
        line = left[i] if i < len(left) else []
        line = pad(line, width + GAP)
        lines.append(line + (right[i] if i < len(right) else []))
    return lines


def body(view, width):
    if width < TWO_COLUMNS:
        tables = conversions, latency, trouble, in_use, modes, origins
        return [line for table in tables for line in table(view, width)]
    column = (width - GAP) // 2
    left = (conversions(view, column) + latency(view, column) +
            origins(view, column))
    right = (modes(view, column) + trouble(view, column) +
             in_use(view, column))
    return pair(left, right, column)


def lines_of(view, width):
    """All there is to show; the terminal shows as much as it can."""
    lines = head(view, width)
    if view.problem:
        lines.append([(view.problem, 'warn')])
    if view.sample:
        lines += policy(view, width) if width >= TWO_COLUMNS else []
        lines += memory(view, width) + body(view, width)
    return [cut(line, width) for line in lines]


def window(lines, height, first):
    """@height of @lines from @first on; the head stays."""
    first = max(0, min(first, len(lines) - height))
    return [*lines[:1], *lines[1 + first:height + first]], first


def text_of(lines):
    return '\n'.join(''.join(text for text, _ in line).rstrip()
                     for line in lines)
