#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""confidential_run.py [SETTING...]: guests of SEV-SNP and TDX on real KVM.

Prints TAP.  The kernel, the initramfs and the guest must be built:
make check-kvm does that.
"""

import argparse
import asyncio
import functools
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.dont_write_bytecode = True
sys.path[:0] = [os.path.join(ROOT, 'build/src/python'),
                os.path.join(ROOT, 'tests/lib'),
                os.path.join(ROOT, 'tests/kvm')]

# pylint: disable=wrong-import-position
import confidential_bad as bad
import confidential_rows as rows
import l1
from confidential import PLATFORMS
from machine import Failure
from rows import log_row
from tapout import TapOut

# The guest's stack and page tables are private when it uses a device.
SETTINGS = ('two-backings+fixed', 'in-place+fixed', 'content-modes')


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument('settings', nargs='*', metavar='SETTING',
                        help=' or '.join(SETTINGS))
    parser.add_argument('--only', metavar='ROW', default='',
                        help='rows whose names contain this')
    parser.add_argument('--qemu', default=f'{ROOT}/build/qemu/'
                                          'qemu-system-x86_64')
    return parser.parse_args()


# Rows for both platforms, and one for each, so that all are within four minutes
# of two processors.
BOTH = {
    'two-backings': (rows.compare_row, rows.measurement_row, rows.cases_row,
                     bad.passing_row, bad.errors_row, bad.images_row,
                     bad.memory_row, bad.plug_row),
    'in-place': (rows.measurement_row, rows.cases_row, bad.passing_row,
                 bad.plug_row, bad.early_row),
    'content-modes': (rows.measurement_row,),
}
ONE = {
    ('two-backings', 'snp'): (),
    ('two-backings', 'tdx'): (rows.cost_row,),
    ('in-place', 'snp'): (rows.cost_row, bad.errors_row, bad.memory_row),
    ('in-place', 'tdx'): (bad.errors_row,),
    ('content-modes', 'snp'): (rows.cases_row,),
    ('content-modes', 'tdx'): (rows.cost_row,),
}


def rows_of(setting):
    behaviour = l1.behaviour(setting)
    return [functools.partial(row, platform=platform)
            for platform in PLATFORMS
            for row in BOTH[behaviour] + ONE[behaviour, platform]
            ] + [rows.vector_row]


def name_of(row):
    return getattr(row, 'func', row).__name__


async def run_setting(arguments, tap, setting):
    kernel = f'{ROOT}/build/kernel'
    todo = [functools.partial(row, tap=tap, setting=setting)
            for row in rows_of(setting) + [log_row]
            if arguments.only in name_of(row)]
    await l1.run_rows(lambda: l1.L1(arguments.qemu, f'{kernel}/bzImage',
                                    f'{kernel}/rig.gz', setting),
                      todo, tap, setting)


async def run(arguments, tap):
    jobs = asyncio.Semaphore(2)

    async def one(setting):
        async with jobs:
            try:
                await run_setting(arguments, tap, setting)
            except Failure as failure:
                tap.result(False, f'{setting}: runs to its end',
                           str(failure))

    await asyncio.gather(*map(one, arguments.settings or SETTINGS))


def main():
    arguments = parse_arguments()
    tap = TapOut()
    return tap.run(run(arguments, tap))


if __name__ == '__main__':
    sys.exit(main())
