#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""run.py [SCENARIO...]: scenarios of a Linux guest, under TCG.

Prints TAP.  What it needs must be built: tests/linux/build does that.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])
sys.dont_write_bytecode = True
sys.path[:0] = [f'{ROOT}/build/src/python', f'{ROOT}/tests/lib']

# pylint: disable=wrong-import-position
from guest import MIB
from machine import Failure
from scenario import Run
from scenarios import SCENARIOS
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
    return parser.parse_args()


async def scenario(tap, files, name):
    run = Run(files, name)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='gmem-linux-') as directory:
        run.directory = directory
        try:
            await SCENARIOS[name](run)
        except Failure as failure:
            run.wrong.append(str(failure))
    count = run.totals.get('requests', 0)
    tap.say(f'{name}: {time.monotonic() - start:.0f} s, {count} '
            f"conversions, {run.totals.get('retries', 0)} retries, "
            f"{run.totals.get('failures', 0)} failed, "
            f'{run.sums.bytes // MIB} MiB checked, {run.sums.bad} bytes wrong'
            + ''.join(f'; {text}' for text in run.said))
    tap.result(not run.wrong, name, '\n'.join(run.wrong))


async def main(arguments, tap):
    files = arguments.qemu, arguments.kernel, arguments.initrd
    for name in arguments.scenarios or SCENARIOS:
        await scenario(tap, files, name)


if __name__ == '__main__':
    the_tap = TapOut()
    sys.exit(the_tap.run(main(parse_arguments(), the_tap)))
