#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""run.py [SETTING...]: our QEMU on real KVM, which runs under TCG.

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
import assigned
import capabilities
import l1
import qtests
import refusals
import rows
import writers
from machine import Failure
from tapout import TapOut


# Every case is checked; a line for each would take longer than the cases.
CASES = 'cases=quick probe=64 report=bad'
HUGE = 'content-modes+huge'


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument('settings', nargs='*', metavar='SETTING',
                        help=' or '.join(l1.SETTINGS))
    parser.add_argument('--race-seconds', type=int, default=60)
    parser.add_argument('--slots-seconds', type=int, default=15)
    parser.add_argument('--storm-seconds', type=int, default=5)
    parser.add_argument('--assigned', action='store_true',
                        help='only what has to do with assigned devices')
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--malformed', type=int, default=10000)
    parser.add_argument('--steps', type=int, default=1000)
    parser.add_argument('--qemu', default=f'{ROOT}/build/qemu/'
                                          'qemu-system-x86_64')
    return parser.parse_args()


def few_rows(arguments):
    """What shows that a setting is like another one."""
    return [functools.partial(rows.matrix_row, vcpus=4, backends=2,
                              guest=CASES),
            functools.partial(rows.model_row, count=arguments.steps // 4),
            rows.pin_row, rows.memory_row]


def huge_rows():
    """Huge pages change how memory is mapped, not what a guest sees."""
    return [functools.partial(rows.huge_row, guest=CASES), rows.pin_row]


def all_rows(arguments):
    matrix = [functools.partial(rows.matrix_row, vcpus=vcpus,
                                backends=backends, guest=CASES)
              for vcpus, backends in ((1, 1), (1, 2), (4, 1), (4, 2))]
    return matrix + [
        refusals.smm_row, refusals.no_machine_row,
        refusals.in_place_row, refusals.huge_pages_row,
        functools.partial(rows.malformed_row, count=arguments.malformed),
        functools.partial(rows.model_row, count=arguments.steps),
        functools.partial(rows.reset_row, count=300)]


def race_rows(arguments, setting):
    """
    Linux as released reports faults that race with conversions, and
    after memslots were made anew: it gets the time to do so.
    """
    released = setting in ('in-place', 'two-backings')
    race = functools.partial(rows.race_row, seconds=arguments.race_seconds)
    slots = functools.partial(
        rows.slots_row, seconds=arguments.race_seconds if released
        else arguments.slots_seconds)
    return [race, slots]


def rows_of(arguments, tap, setting):
    """What is tried in one setting, each a function of the machine."""
    if setting == 'in-place-only':
        todo = few_rows(arguments)
    elif setting.endswith('+huge'):
        todo = huge_rows()
    elif setting.endswith('+debug'):
        todo = all_rows(arguments)[3:4]
    else:
        todo = all_rows(arguments) + race_rows(arguments, setting)
        if setting == 'two-backings':
            todo.append(rows.memory_row)
        else:
            todo += [rows.numa_row, rows.pin_row, qtests.vhost_row,
                     rows.host_access_row, rows.memory_error_row]
            todo += [functools.partial(rows.writers_row, seed=seed)
                     for seed in writers.SEEDS]
        if setting == 'content-modes':
            todo.append(rows.host_access_control_row)
    if setting in capabilities.PARAMETERS:
        todo.insert(0, functools.partial(
            capabilities.number_row,
            parameters=capabilities.PARAMETERS[setting]))
    return [functools.partial(row, tap=tap, setting=setting)
            for row in todo + [rows.log_row]]


def rig(arguments, setting, parameters=()):
    """A machine that is not started yet."""
    return l1.L1(arguments.qemu, f'{ROOT}/build/kernel/bzImage',
                 f'{ROOT}/build/kernel/rig.gz', setting, parameters)


async def run_setting(arguments, tap, setting):
    parameters = capabilities.PARAMETERS.get(setting, ())
    await l1.run_rows(lambda: rig(arguments, setting, parameters),
                      rows_of(arguments, tap, setting), tap, setting)


async def run_number(arguments, tap, setting, parameters):
    async with rig(arguments, setting, parameters) as machine:
        await capabilities.number_row(machine, tap, setting, parameters)


async def run_assigned(arguments, tap, setting, back_end):
    """A machine with VT-d, and devices for the inner guest."""
    reason = assigned.missing(f'{ROOT}/build/kernel/obj/.config')
    if reason:
        tap.skip(f'{setting}, {back_end}: assigned devices', reason)
        return
    with assigned.Disk() as disk:
        async with l1.L1(arguments.qemu, f'{ROOT}/build/kernel/bzImage',
                         f'{ROOT}/build/kernel/rig.gz', f'{setting}+iommu',
                         assigned.PARAMETERS, disk.arguments()) as machine:
            await assigned.rows(machine, tap, setting, back_end,
                                arguments.storm_seconds)
            await rows.log_row(machine, tap, f'{setting}, {back_end}')


async def run(arguments, tap):
    """Two machines at a time: most of a run is one busy vCPU."""
    slots = asyncio.Semaphore(arguments.jobs)

    async def one(function, setting, *rest):
        async with slots:
            try:
                await function(arguments, tap, setting, *rest)
            except Failure as failure:
                tap.result(False, f'{setting}: runs to its end',
                           str(failure))

    # The one with few rows last, so that both machines end at about the
    # same time.
    settings = sorted(arguments.settings or [*l1.SETTINGS, HUGE],
                      key=lambda setting: setting == 'in-place-only')
    others = [] if arguments.assigned else [
        *(one(run_setting, setting) for setting in settings),
        *(one(run_number, *case) for case in capabilities.MORE
          if case[0] in settings)]
    await asyncio.gather(*others, *(
        one(run_assigned, setting, back_end)
        for setting, back_end in assigned.cases(settings)))


def main():
    arguments = parse_arguments()
    tap = TapOut()
    return tap.run(run(arguments, tap))


if __name__ == '__main__':
    sys.exit(main())
