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
import time

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
SETTINGS = ('two-backings+fixed',)


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument('settings', nargs='*', metavar='SETTING',
                        help=' or '.join(SETTINGS))
    parser.add_argument('--only', metavar='ROW', default='',
                        help='rows whose names contain this')
    parser.add_argument('--qemu', default=f'{ROOT}/build/qemu/'
                                          'qemu-system-x86_64')
    return parser.parse_args()


def rows_of(setting):
    todo = []
    for platform in PLATFORMS:
        if l1.behaviour(setting) == 'two-backings':
            todo.append(functools.partial(rows.compare_row,
                                          platform=platform))
        todo.append(functools.partial(rows.measurement_row,
                                      platform=platform))
        todo += [functools.partial(rows.cases_row, platform=platform,
                                   vcpus=vcpus, backends=backends)
                 for vcpus, backends in ((1, 1), (4, 2))]
        todo += [functools.partial(row, platform=platform)
                 for row in (bad.passing_row, bad.errors_row, bad.images_row,
                             bad.memory_row, bad.plug_row)]
    return todo + [rows.vector_row]


def name_of(row):
    return getattr(row, 'func', row).__name__


async def run_setting(arguments, tap, setting):
    kernel = f'{ROOT}/build/kernel'
    async with l1.L1(arguments.qemu, f'{kernel}/bzImage',
                     f'{kernel}/rig.gz', setting) as machine:
        for row in rows_of(setting) + [log_row]:
            if arguments.only in name_of(row):
                start = time.monotonic()
                await row(machine, tap, setting)
                tap.say(f'{name_of(row)}: '
                        f'{time.monotonic() - start:.1f} s')


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
