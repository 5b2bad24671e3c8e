# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of SEV-SNP and TDX, on a stand-in for that hardware."""

import itertools
import os
import re
import shlex
import struct

from l1 import RIG, Inner

PLATFORMS = ('snp', 'tdx')
OBJECTS = {
    'snp': 'sev-snp-guest,id=cgs0,cbitpos=0,reduced-phys-bits=1,'
           'policy=0x30000',
    'tdx': 'tdx-guest,id=cgs0',
}
# Where the bare-metal guest asks for no content modes.
PLATFORM_CASES = 'cases=platform offer=off'
QUIT = '{"execute":"qmp_capabilities"}{"execute":"cont"}{"execute":"quit"}'

IMAGES = os.path.join(RIG, '../../build/guest')

# Each page that is measured: kind, address, and contents where they count.
SNP_SECTIONS = ((3, 0x800000), (3, 0x80a000), (5, 0x80d000), (6, 0x80e000),
                (3, 0x80f000), (3, 0x810000), (3, 0x811000))
CFV_SIZE = 0x1000
TDX_SECTIONS = ((0, 0xffff0000, b''), (0, 0x810000, b''),
                (1, 0x80b000, bytes(0x2000)), (0, 0x809000, b''))

numbers = itertools.count()


def backend_arguments(backends, size=512):
    """All memory, in one node of the guest or in more."""
    result = ['-m', f'{size}M']
    for node in range(backends):
        result += ['-object', f'memory-backend-memfd,id=ram{node},share=on,'
                              f'size={size // backends}M',
                   '-numa', f'node,nodeid={node},memdev=ram{node}']
    return result


def machine_arguments(platform, vcpus, firmware, properties=''):
    return ['-accel', 'kvm', '-cpu', 'host', '-L', '/firmware',
            '-smp', str(vcpus), '-nodefaults', '-display', 'none',
            '-machine', 'q35,confidential-guest-support=cgs0',
            '-object', OBJECTS[platform] + properties,
            '-bios', firmware or f'{platform}.bin',
            '-device', 'isa-debug-exit,iobase=0xf4,iosize=4']


def preload(log, fail=''):
    return (f'STANDIN_LOG={log} STANDIN_FAIL={fail} '
            'LD_PRELOAD=/lib/standin.so ')


class Guest(Inner):
    """One run of a guest that is launched by the stand-in."""

    def __init__(self, l1, platform, backends, vcpus, guest, qemu='/bin/qemu',
                 extra=(), firmware=None, properties='', sample=None):
        self.log = f'/tmp/standin-{next(numbers)}'
        self.platform = platform
        self.qemu = qemu
        self.firmware = firmware
        self.properties = properties
        super().__init__(l1, backends, vcpus, guest, extra, sample=sample,
                         environment=preload(self.log))

    def arguments(self, backends, vcpus, guest, extra, memory):
        return [self.qemu,
                *machine_arguments(self.platform, vcpus, self.firmware,
                                   self.properties),
                *backend_arguments(backends), '-no-reboot', '-no-shutdown',
                '-chardev', 'file,id=com1,path=/dev/ttyS0',
                '-serial', 'chardev:com1',
                '-chardev', 'serial,id=qmp,path=/dev/ttyS1',
                '-mon', 'chardev=qmp,mode=control',
                '-kernel', '/command.bin',
                '-append', f'via=hypercall platform={self.platform} '
                           f'backends={backends} vcpus={vcpus} {guest}',
                *extra]

    async def end(self):
        """Without a question to QEMU; returns the lines of the stand-in."""
        await self.execute('quit')
        self.status = int(await self.l1.until_word('@@exit'))
        return await read_log(self.l1, self.log, delete=True)

    async def end_unlawful(self):
        """The number of calls instead, and those that were unlawful."""
        await self.execute('quit')
        self.status = int(await self.l1.until_word('@@exit'))
        count = await read_log(self.l1, self.log, 'wc -l <')
        return int(count[0]), await read_log(self.l1, self.log,
                                             'grep -m 10 unlawful', True)


async def read_log(l1, name, command='cat', delete=False):
    await l1.type(f'{command} {name}; {f"rm -f {name};" if delete else ""} '
                  'echo "@@log"')
    lines = []
    while not (lines and lines[-1] == '@@log'):
        lines.append(await l1.line())
    return lines[:-1]


async def launch(l1, platform, fail='', firmware=None, backends=0,
                 qemu='/bin/qemu', properties='', extra=(), commands=QUIT):
    """
    A QEMU that is started and ends by itself: its exit status, what it
    says, and the lines of the stand-in.  It writes into a pipe: a terminal
    that the monitor has made non-blocking loses a message that another
    thread writes at the same time.
    """
    log = f'/tmp/standin-{next(numbers)}'
    memory = backend_arguments(backends) if backends else ['-m', '64M']
    words = [qemu, *machine_arguments(platform, 1, firmware, properties),
             *memory, '-S', '-qmp', 'stdio', *extra]
    await l1.type(f"{{ echo '{commands}' | {preload(log, fail)} timeout 120 "
                  f'{shlex.join(words)}; echo "@@exit $?"; }} 2>&1 | cat')
    lines = []
    while not (lines and '@@exit' in lines[-1]):
        lines.append(await l1.line())
    status = int(lines.pop().split()[-1])
    return status, lines, await read_log(l1, log, delete=True)


def launch_vector(calls):
    """Type, start and length of what was measured, in its order."""
    result = []
    for line in calls:
        found = re.match(r'SNP_LAUNCH_UPDATE gfn=(\S+) len=(\S+) type=(\S+) '
                         r'.* left=0x0 .* = 0$', line)
        if found:
            result.append((found[3], int(found[1], 0) << 12,
                           int(found[2], 0)))
        found = re.match(r'TDX_INIT_MEM_REGION gpa=(\S+) pages=(\S+) '
                         r'flags=(\d) .* left=0x0 .* = 0$', line)
        if found:
            result.append((int(found[3]), int(found[1], 0),
                           int(found[2], 0) << 12))
    return result


def measurement(calls):
    """That of the last page; None: there was none."""
    found = [word for line in calls
             for word in re.findall(r'measurement=(\S+)', line)]
    return found[-1] if found else None


def fnv(data, digest=0xcbf29ce484222325):
    for byte in data:
        digest = (digest ^ byte) * 0x100000001b3 % (1 << 64)
    return digest


def expected_measurement(platform):
    """As tests/kvm/standin/memory.c has it, but from the image."""
    with open(f'{IMAGES}/{platform}.bin', 'rb') as file:
        image = file.read()
    if platform == 'snp':
        pages = [(1, (1 << 32) - len(image), fnv(image))]
        pages += [(*section, 0) for section in SNP_SECTIONS]
    else:
        pages = [(1, (1 << 32) - len(image) + CFV_SIZE,
                  fnv(image[CFV_SIZE:]))]
        pages += [(kind, gpa, fnv(data) if kind else 0)
                  for kind, gpa, data in TDX_SECTIONS]
    digest = fnv(b'')
    for kind, gpa, contents in pages:
        digest = fnv(struct.pack('<QQQ', gpa, kind, contents), digest)
    return f'{digest:016x}'


def unlawful(calls):
    return [line for line in calls if line.startswith('unlawful')]
