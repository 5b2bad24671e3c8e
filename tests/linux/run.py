#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""run.py [SCENARIO...]: scenarios of a Linux guest, under TCG.

Prints TAP, and adds what was found to build/linux/scenarios.json, for
tests/linux/table.  What it needs must be built: tests/linux/build does that,
and for scenarios on KVM tests/kvm/build.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])
sys.dont_write_bytecode = True
sys.path[:0] = [f'{ROOT}/build/src/python', f'{ROOT}/tests/lib',
                f'{ROOT}/tests/kvm']

# pylint: disable=wrong-import-position
from guest import MIB
from machine import Failure
from scenario import Run, Skip
from scenarios import QUICK, SCENARIOS
from tapout import TapOut


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument('scenarios', nargs='*', metavar='SCENARIO',
                        help='; '.join(SCENARIOS))
    parser.add_argument('--qemu', metavar='FILE',
                        default=f'{ROOT}/build/qemu/qemu-system-x86_64')
    parser.add_argument('--kernel', metavar='FILE',
                        default=f'{ROOT}/build/kernel/bzImage')
    parser.add_argument('--initrd', metavar='FILE',
                        default=f'{ROOT}/build/linux/guest.gz')
    parser.add_argument('--rig', metavar='FILE',
                        default=f'{ROOT}/build/kernel/rig.gz')
    parser.add_argument('--quick', action='store_true',
                        help='those that are tried with each change')
    parser.add_argument('--jobs', type=int, default=1, metavar='N')
    parser.add_argument('--rounds', type=int, default=30, metavar='N',
                        help='how often a disk is plugged and unplugged')
    parser.add_argument('--seconds', type=int, default=60, metavar='N',
                        help='how long the stress goes on')
    return parser.parse_args()


def keep(name, row):
    """Rows of earlier runs stay until their scenario runs again."""
    path = Path(ROOT, 'build/linux/scenarios.json')
    rows = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**rows, name: row}, indent=1) + '\n')


def summary(row):
    return (f"{row['seconds']} s, {row['conversions']} conversions, "
            f"{row['retries']} retries, {row['failures']} failed, "
            f"{row['checked']} MiB checked, {row['wrong']} bytes wrong"
            + ''.join(f'; {text}' for text in row['said']))


async def scenario(tap, run):
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='gmem-linux-') as directory:
        run.directory = directory
        try:
            await SCENARIOS[run.name](run)
        except Skip as reason:
            tap.skip(run.name, str(reason))
            return
        except Failure as failure:
            run.wrong.append(str(failure))
    row = {'seconds': round(time.monotonic() - start),
           'conversions': run.totals.get('requests', 0),
           'retries': run.totals.get('retries', 0),
           'failures': run.totals.get('failures', 0),
           'checked': run.sums.bytes // MIB, 'wrong': run.sums.bad,
           'said': run.said}
    tap.say(f'{run.name}: {summary(row)}')
    tap.result(not run.wrong, run.name, '\n'.join(run.wrong))
    if not run.wrong:
        keep(run.name, row)


async def main(arguments, tap):
    files = arguments.qemu, arguments.kernel, arguments.initrd
    slots = asyncio.Semaphore(arguments.jobs)
    every = QUICK if arguments.quick else SCENARIOS

    async def in_place(name):
        async with slots:
            await scenario(tap, Run(files, name, vars(arguments)))

    await asyncio.gather(*map(in_place, arguments.scenarios or every))


if __name__ == '__main__':
    the_tap = TapOut()
    sys.exit(the_tap.run(main(parse_arguments(), the_tap)))
