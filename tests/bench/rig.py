# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests on the KVM rig whose time is the number of instructions executed."""

import asyncio
import os
import shlex
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.dont_write_bytecode = True
sys.path[:0] = [os.path.join(ROOT, path) for path in
                ('build/src/python', 'tests/lib', 'tests/kvm')]

# pylint: disable=wrong-import-position
import l1
from machine import Failure, parse_line

QEMU = f'{ROOT}/build/qemu/qemu-system-x86_64'
KERNEL = f'{ROOT}/build/kernel/bzImage'
# The second has all of the first, and what tests/bench/build adds.
RIG = f'{ROOT}/build/kernel/rig.gz'
INITRD = f'{ROOT}/build/kernel/bench.gz'
OURS, STOCK = '/bin/qemu', '/bin/qemu-stock'

# The setting of the rig, QEMU, and the policy of the manager.
SETTINGS = {
    'stock': ('two-backings', STOCK, None),
    'two-backings': ('two-backings', OURS, 'auto'),
    'in-place': ('in-place', OURS, 'auto'),
    'zero': ('content-modes', OURS, 'zero'),
    'preserve': ('content-modes', OURS, 'preserve'),
    'default': ('content-modes', OURS, 'default'),
    'in-place+huge': ('in-place+huge', OURS, 'auto'),
    'zero+huge': ('content-modes+huge', OURS, 'zero'),
    'preserve+huge': ('content-modes+huge', OURS, 'preserve'),
}
PHASES = ('to-private', 'touch-private', 'to-shared', 'touch-shared')
# A debugging aid, memory that is always in the same place, and vCPUs of which
# none spins before it sleeps: the rig has one CPU.
PARAMETERS = ('kvm.gmem_scramble=0', 'nokaslr', 'norandmaps',
              'kvm.halt_poll_ns=0')
ICOUNT = ('-icount', 'shift=0,sleep=off')


# The last one counts, for QEMU and for the kernel.
extra_arguments = []
extra_parameters = []


def add_options(parser):
    parser.add_argument('--cpu', help='of the rig, e.g. max,-erms: clear_page '
                        'counts 512 then, and 4096 with ERMS')
    parser.add_argument('--huge-pages', action='store_true',
                        help='guest_memfd may have huge pages')


def use_options(arguments):
    if arguments.cpu:
        extra_arguments.extend(('-cpu', arguments.cpu))
    if arguments.huge_pages:
        extra_parameters.append('kvm.gmem_huge_pages=1')


SIZES = {4: '4 KiB', 64: '64 KiB', 2048: '2 MiB', 65536: '64 MiB',
         524288: '512 MiB'}


def row(setting, record):
    """Of one vCPU: without the cost of meeting the others, its share."""
    vcpus = int(record['vcpus'])
    nothing = int(record['nothing']) if vcpus > 1 else 0
    phases = {phase: (int(record[phase]) - nothing) // vcpus
              for phase in PHASES}
    return {'setting': setting, 'kib': int(record['kib']),
            'pattern': record['pattern'], 'vcpus': vcpus, **phases,
            'round-trip': sum(phases.values())}


def case_of(one):
    """What a row of any setting measures."""
    words = [SIZES[one['kib']]]
    if one['pattern'] != 'uniform':
        words.append(one['pattern'])
    if one['vcpus'] > 1:
        words.append(f'{one["vcpus"]} vCPUs')
    return ', '.join(words)


def name_of(one):
    return f'{one["setting"]}, {case_of(one)}'


class Machine(l1.L1):
    """A rig in which one instruction takes one nanosecond, on any host."""

    def __init__(self, name, initrd=INITRD):
        super().__init__(QEMU, KERNEL, initrd, SETTINGS[name][0],
                         (*PARAMETERS, *extra_parameters))
        self.choose(name)
        self.argv += [*ICOUNT, *extra_arguments, '-smp', '1', '-m', '5G']
        self.firmware = initrd == INITRD

    def choose(self, name):
        """Another setting of the same rig."""
        self.name = name
        _, self.inner, self.policy = SETTINGS[name]

    def guest(self, words, memory='1056M', vcpus=1, extra=()):
        """The command that runs the bare-metal guest."""
        argv = [self.inner, '-accel', 'kvm', '-L', '/firmware',
                '-m', memory, '-smp', str(vcpus),
                '-object', 'sw-protected-guest,id=cgs0', '-machine',
                'q35,smm=off,confidential-guest-support=cgs0',
                '-device', 'isa-debug-exit,iobase=0xf4,iosize=4',
                '-nodefaults', '-display', 'none', '-no-reboot',
                '-chardev', 'file,id=com1,path=/dev/ttyS0',
                '-serial', 'chardev:com1', '-kernel', '/payload.elf',
                '-append', f'via=hypercall backends=1 vcpus={vcpus} {words}']
        if self.firmware:
            # The unchanged QEMU does not get through SeaBIOS.
            argv += ['-bios', '/firmware.bin']
        if self.policy:
            argv += ['-object', 'guest-memfd-manager,id=gmm0,'
                                f'content-mode={self.policy}']
        return shlex.join([*argv, *extra])

    async def bench(self, words, vcpus=1):
        """A row for each size: ticks for each phase, and in all."""
        records = await self.run(self.guest(f'cases=bench {words}',
                                            vcpus=vcpus))
        return [row(self.name, record) for record in records
                if record['kind'] == 'bench']

    async def run(self, command):
        """What a command prints, as records."""
        await self.type(f'{command}; echo "@@exit $?"')
        records = []
        while True:
            line = await self.line()
            if line.startswith('@@exit'):
                break
            records.append(parse_line(line))
            if records[-1]['kind'] in ('trap', 'usage', 'fail'):
                raise self.failure('the guest failed')
        if line != '@@exit 1':
            raise self.failure(f'the guest failed: {line}')
        return records
