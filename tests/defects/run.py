#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""run.py [--write] [NAME...]: defects of the unchanged QEMU, and ours.

Runs both in the KVM rig and prints TAP.  A test passes only if the
unchanged QEMU shows the defect and ours does not.  With --write the table
goes to docs/devel/reliability.md, too.  tests/defects/check builds all it
needs.
"""

import argparse
import asyncio
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.dont_write_bytecode = True
sys.path[:0] = [os.path.join(ROOT, path) for path in
                ('build/src/python', 'tests/lib', 'tests/kvm',
                 'tests/defects')]

# pylint: disable=wrong-import-position
import inner
import observe
from l1 import L1
from machine import Failure
from tapout import TapOut

QEMUS = {'10.2.2': inner.STOCK, 'ours': inner.OURS}
PAGE = os.path.join(ROOT, 'docs/devel/reliability.md')
BEGIN, END = '<!-- defects -->\n', '<!-- end of defects -->\n'


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument('names', nargs='*', metavar='NAME',
                        help=', '.join(run.__name__ for _, run in
                                       observe.DEFECTS))
    parser.add_argument('--write', action='store_true')
    parser.add_argument('--qemu', default=f'{ROOT}/build/qemu/'
                                          'qemu-system-x86_64')
    arguments = parser.parse_args()
    known = [run.__name__ for _, run in observe.DEFECTS]
    for name in arguments.names:
        if name not in known:
            parser.error(f'no defect {name}: {", ".join(known)}')
    if arguments.write and arguments.names:
        parser.error('--write needs all defects')
    return arguments


async def run_in_rig(machine, tap, who, todo, results):
    """What is done is taken off the list."""
    async with machine:
        while todo:
            run = todo[0][1]
            results[run] = await run(machine, QEMUS[who])
            tap.say(f'{who}: {run.__name__}: {results[run][1]}')
            del todo[0]


async def run_one(arguments, tap, defects, who):
    """All defects on one QEMU; one that spoils the rig is tried again."""
    results, todo, spoilt = {}, list(defects), None
    while todo:
        machine = L1(
            arguments.qemu, f'{ROOT}/build/kernel/bzImage',
            f'{ROOT}/build/kernel/defects.gz', 'two-backings')
        try:
            await run_in_rig(machine, tap, who, todo, results)
        except (Failure, OSError) as failure:
            if spoilt == todo[0]:
                results[todo[0][1]] = None, str(failure)
                del todo[0]
                continue
            spoilt = todo[0]
            tap.say(f'{who}: starting over after:')
            for line in str(failure).splitlines():
                tap.say('  ' + line)
    return results


async def run_all(arguments, tap, defects):
    """Both at a time: most of a run is one busy vCPU."""
    results = await asyncio.gather(*(
        run_one(arguments, tap, defects, who) for who in QEMUS))
    return dict(zip(QEMUS, results))


def judge(tap, defects, results):
    for name, run in defects:
        stock, ours = (results[who][run] for who in QEMUS)
        tap.result(stock[0] is True and ours[0] is False,
                   f'{name}: wrong in 10.2.2, right in ours',
                   f'10.2.2: {stock[1]}\nours: {ours[1]}')


def table(defects, results):
    lines = ['| defect | 10.2.2 | ours |\n', '|---|---|---|\n']
    for name, run in defects:
        texts = ' | '.join(results[who][run][1].replace('|', r'\|')
                           for who in QEMUS)
        lines.append(f'| {name} | {texts} |\n')
    return ''.join(lines)


def write(text):
    with open(PAGE, encoding='utf-8') as page:
        before, rest = page.read().split(BEGIN)
    with open(PAGE, 'w', encoding='utf-8') as page:
        page.write(before + BEGIN + text + END + rest.split(END)[1])


async def run_and_judge(arguments, tap):
    defects = [defect for defect in observe.DEFECTS
               if defect[1].__name__ in
               (arguments.names or [defect[1].__name__])]
    results = await run_all(arguments, tap, defects)
    judge(tap, defects, results)
    if arguments.write and not tap.failed:
        write(table(defects, results))


def main():
    arguments = parse_arguments()
    tap = TapOut()
    return tap.run(run_and_judge(arguments, tap))


if __name__ == '__main__':
    sys.exit(main())
