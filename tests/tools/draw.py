# SPDX-License-Identifier: GPL-2.0-or-later
"""
Pictures for the manual: gmem-top as a terminal shows it, and the panels of
the Grafana dashboard, drawn from what Prometheus answers to their questions.
The latter is not Grafana: Debian has none.
"""

import asyncio
import contextlib
import html
import io
import math
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.terminal_theme import MONOKAI

import dashboard
import programs
from guest import Guest
from prometheus import Prometheus
from tmux import Tmux

# pylint: disable=wrong-import-position
matplotlib.use('svg')
from matplotlib import pyplot, ticker

LICENCE = '<!--\nSPDX-License-Identifier: GPL-2.0-or-later\n-->\n'
CELL_WIDTH, CELL_HEIGHT, FONT_SIZE, MARGIN = 8, 17, 13, 8
SECONDS = 100
STEP = 2
INTERVAL = '6s'
COLUMNS = 2
ROOM = 1.4              # above the data, for the legend
TERMINAL = 80, 24
FOREGROUND, BACKGROUND = MONOKAI.foreground_color.hex, '#1c1c1c'
CONSOLE = Console()
TIMESERIES = 'timeseries'
SCALES = {'bytes': (1024, ('', 'K', 'M', 'G')), 's': (1, ('',))}


def save(path, text):
    head, _, rest = text.partition('<svg')
    lines = [line.rstrip() for line in
             f'{head}{LICENCE}<svg{rest}'.strip().splitlines()]
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    print(f'{path.name}: {path.stat().st_size // 1024} KiB')


# --- gmem-top --------------------------------------------------------------

def word_element(line, found, y):
    """Words stand where they should, whatever the font's width."""
    style = line.get_style_at_offset(CONSOLE, found.start())
    colour, ground = (
        c.get_truecolor(MONOKAI).hex if c and not c.is_default else default
        for c, default in ((style.color, FOREGROUND), (style.bgcolor, None)))
    if style.reverse:
        colour, ground = BACKGROUND, colour
    x = MARGIN + found.start() * CELL_WIDTH
    width = len(found[0]) * CELL_WIDTH
    if ground:
        yield (f'<rect x="{x}" y="{y - FONT_SIZE}" width="{width}" '
               f'height="{CELL_HEIGHT}" fill="{ground}"/>')
    yield (f'<text x="{x}" y="{y}" textLength="{width}" fill="{colour}"' +
           ' font-weight="bold"' * bool(style.bold) +
           ' opacity="0.6"' * bool(style.dim) +
           f'>{html.escape(found[0])}</text>')


def draw_terminal(lines, path):
    width = TERMINAL[0] * CELL_WIDTH + 2 * MARGIN
    height = TERMINAL[1] * CELL_HEIGHT + 2 * MARGIN
    elements = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
        f'height="{height}" font-family="DejaVu Sans Mono, monospace" '
        f'font-size="{FONT_SIZE}">',
        f'<rect width="100%" height="100%" fill="{BACKGROUND}"/>']
    # Colours go on from line to line.
    for i, line in enumerate(AnsiDecoder().decode('\n'.join(lines))):
        y = MARGIN + i * CELL_HEIGHT + FONT_SIZE
        for found in re.finditer(r'#+|=+|[^\s#=]+', line.plain):
            elements += word_element(line, found, y)
    save(path, '\n'.join([*elements, '</svg>']))


async def terminal_picture(socket, path):
    with Tmux(*TERMINAL) as terminal:
        terminal.type(f'cd {os.path.dirname(socket)}')
        terminal.type(f'{programs.TOP} --qmp {os.path.basename(socket)}')
        await asyncio.sleep(6)
        draw_terminal(terminal.lines(colours=True), path)


# --- the dashboard ---------------------------------------------------------

def label_of(legend, metric):
    return re.sub(r'\{\{(\w+)\}\}', lambda m: metric.get(m[1], ''),
                  legend).strip()


def short(unit):
    step, units = SCALES.get(unit, (1000, ('', 'k', 'M', 'G')))

    def text(value, _=None):
        if unit == 's':
            return f'{value * 1e6:g} us' if value < 1e-3 else \
                f'{value * 1e3:g} ms'
        i = 0
        while abs(value) >= step and i < len(units) - 1:
            value /= step
            i += 1
        return f'{value:g}{units[i]}'
    return text


async def series_of(prometheus, panel, start, end):
    """(label, times, values) of all expressions of a panel."""
    for target in panel.targets:
        data = await prometheus.api('query_range', query=target.expression,
                                    start=start, end=end, step=STEP)
        for series in data['result']:
            points = [(float(t) - start, float(v)) for t, v
                      in series['values']]
            # Series without events would only fill the legend.
            if any(value > 0 for _, value in points):
                yield label_of(target.legend, series['metric']), points


def draw_panel(axes, panel, found):
    axes.set_title(panel.title, fontsize=9, loc='left')
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.set_xlim(0, SECONDS)
    if panel.stacked and found:
        times = sorted({t for _, points in found for t, _ in points})
        values = [[dict(points).get(t, 0) for t in times]
                  for _, points in found]
        axes.stackplot(times, values, labels=[f[0] for f in found],
                       alpha=0.6)
    else:
        for label, points in found:
            points = [p for p in points if not math.isnan(p[1])]
            axes.plot(*zip(*points), label=label, linewidth=1)
    if panel.log:
        axes.set_yscale('log')
    else:
        top = axes.get_ylim()[1] * ROOM
        axes.set_ylim(0, top)
        if panel.unit == 'bytes':
            axes.yaxis.set_major_locator(ticker.MultipleLocator(
                2 ** round(math.log2(top / 5))))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(short(panel.unit)))
    axes.legend(fontsize=6, loc='upper left', ncol=2)


async def dashboard_picture(prometheus, path):
    end = time.time()
    start = end - SECONDS
    found = [(panel, [s async for s in series_of(prometheus, panel, start,
                                                 end)])
             for panel in dashboard.panels(INTERVAL, f'{SECONDS}s')
             if panel.kind == TIMESERIES]
    rows = math.ceil(len(found) / COLUMNS)
    # Text stays text, and the same data gives the same file.
    with pyplot.rc_context({'svg.fonttype': 'none',
                            'svg.hashsalt': 'qemu-gmem',
                            'path.simplify_threshold': 1.0}):
        figure, grid = pyplot.subplots(rows, COLUMNS,
                                       figsize=(11, 2.3 * rows))
        for axes, (panel, series) in zip(grid.flat, found):
            draw_panel(axes, panel, series)
        for axes in list(grid.flat)[len(found):]:
            axes.axis('off')
        figure.tight_layout()
        out = io.StringIO()
        figure.savefig(out, format='svg', metadata={'Date': None})
    save(path, re.sub(r'(\d+\.\d)\d+', r'\1', out.getvalue()))


# --- the guests ------------------------------------------------------------

@contextlib.asynccontextmanager
async def exporter(*words):
    process = await programs.start(programs.EXPORTER, '--listen',
                                   '127.0.0.1:0', *words)
    try:
        url = (await process.stdout.readline()).decode()
        yield url.split('/')[2]
    finally:
        await programs.end(process, signal.SIGTERM)


async def record(directory, out):
    """One VM converts pages at random, the other all of its memory."""
    race, cycle = (os.path.join(directory, name)
                   for name in ('race', 'cycle'))
    async with Guest(race) as racer, \
            Guest(cycle, 'cases=cycle rounds=100000') as cycler, \
            exporter('--qmp', f'race={race}', '--qmp',
                     f'cycle={cycle}') as target, \
            Prometheus(target) as prometheus:
        await racer.resume()
        await cycler.resume()
        await racer.execute('qom-set', {'path': '/objects/gmm0',
                                        'property': 'retry-timeout-ms',
                                        'value': 10})
        await asyncio.sleep(SECONDS * 0.6)
        # Pages are in use for a while.
        await racer.fail_some(1000000)
        await asyncio.sleep(SECONDS * 0.1)
        await racer.fail_some(0)
        await terminal_picture(race, out / 'guest-memfd-top.svg')
        await asyncio.sleep(SECONDS * 0.3 - 6)
        await dashboard_picture(prometheus,
                                out / 'guest-memfd-dashboard.svg')


def main():
    with tempfile.TemporaryDirectory(prefix='gmem-draw-') as directory:
        asyncio.run(record(directory, Path(sys.argv[1])))


if __name__ == '__main__':
    main()
