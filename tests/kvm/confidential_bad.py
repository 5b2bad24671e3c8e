# SPDX-License-Identifier: GPL-2.0-or-later
"""Launches that fail: errors of KVM, bad firmware, odd memory."""

import errno
import os

from confidential import launch, unlawful

# Status of a QEMU that says why it ends, and does not crash.
REFUSED = 1

# Errors that each call can fail with, and how many such calls there are.
FAILURES = {
    'snp': (
        ('CREATE_VM', 1, ('ENOMEM',)),
        ('SEV_PLATFORM_STATUS', 1, ('EIO:0x10',)),
        ('SEV_INIT2', 1, ('EINVAL', 'EBUSY', 'EIO')),
        ('SNP_LAUNCH_START', 1, ('EINVAL', 'ENOTTY', 'EIO:0x7')),
        ('SNP_LAUNCH_UPDATE', 8, ('EIO:0x16',)),
        ('SNP_LAUNCH_UPDATE', 1, ('EINVAL', 'EFAULT', 'ENOMEM')),
        ('SNP_LAUNCH_FINISH', 1, ('EIO:0xb', 'EBUSY', 'EINVAL', 'ENOMEM')),
    ),
    'tdx': (
        ('CREATE_VM', 1, ('ENOMEM',)),
        ('TDX_CAPABILITIES', 1, ('EINVAL', 'EFAULT')),
        ('TDX_INIT_VM', 1, ('EINVAL', 'EIO', 'ENOMEM')),
        ('TDX_INIT_VCPU', 1, ('EINVAL', 'EIO')),
        ('TDX_INIT_MEM_REGION', 5, ('EIO',)),
        ('TDX_INIT_MEM_REGION', 1, ('EINVAL', 'EFAULT', 'EOPNOTSUPP')),
        ('TDX_FINALIZE_VM', 1, ('EINVAL', 'EIO')),
    ),
}

# Errors that a launch gets over.
PASSING = {
    'snp': (),
    'tdx': ('TDX_INIT_VM:1-3:EAGAIN', 'TDX_INIT_MEM_REGION:1:EINTR:progress',
            'TDX_INIT_MEM_REGION:3-4:EAGAIN:progress',
            'TDX_FINALIZE_VM:1-2:EBUSY'),
}

IMAGES = {
    'snp': ('no-table', 'no-metadata', 'long-metadata', 'overlapping',
            'outside', 'beyond-memory', 'unaligned', 'empty', 'short-cpuid',
            'short-hashes'),
    'tdx': ('no-table', 'no-metadata', 'long-metadata', 'overlapping',
            'outside', 'beyond-memory', 'unaligned', 'unknown-type',
            'no-hob'),
}


HASHES = {'properties': ',kernel-hashes=on',
          'extra': ('-kernel', '/command.bin', '-append', 'quiet')}


def messages(said):
    """What is not an answer or event of the monitor."""
    return [line for line in said if not line.startswith('{')]


# The entries of CPUID that the firmware would have.
LINES_MAX = {'SNP_LAUNCH_UPDATE:5:EIO:0x16': 3}
# Each message has these, beside the errno text.
NAMES = {
    'SNP_LAUNCH_START': ('LAUNCH_START', 'firmware error'),
    'SNP_LAUNCH_UPDATE': ('a page of type', ' at 0x', 'firmware error'),
    'SNP_LAUNCH_FINISH': ('LAUNCH_FINISH', 'firmware error'),
    'TDX_INIT_MEM_REGION': ('TDVF section', ' at 0x', 'page 0x'),
    'TDX_FINALIZE_VM': ('KVM_TDX_FINALIZE_VM',),
}


def too_many(failure, said):
    """QEMU adds to each error of KVM's start that it was one."""
    lines = [line for line in messages(said)
             if 'failed to initialize kvm' not in line]
    limit = max(LINES_MAX.get(failure, 1),
                LINES_MAX.get(failure.partition(':')[0], 1))
    return not 1 <= len(lines) <= limit


def unnamed(failure, said):
    """What the message about a step of the launch does not name."""
    call, _, error = failure.split(':')[:3]
    text = ' '.join(messages(said))
    names = NAMES.get(call, ())
    if names:
        names += (os.strerror(getattr(errno, error)),)
    return [name for name in names if name not in text]


def final(calls):
    return any(line in ('SNP_LAUNCH_FINISH = 0', 'TDX_FINALIZE_VM = 0')
               for line in calls)


def injections(platform):
    for call, last, errors in FAILURES[platform]:
        for number in range(1, last + 1):
            for error in errors:
                yield f'{call}:{number}:{error}'
    if platform == 'tdx':
        yield 'TDX_FINALIZE_VM:1-1000000:EBUSY'


async def errors_row(l1, tap, setting, platform):
    """Each call of the launch, each error, each time that it is made."""
    bad, count = [], 0
    for failure in injections(platform):
        # TDX asks for capabilities until there is room for the answer.
        status, said, calls = await launch(
            l1, platform, failure.replace('CAPABILITIES:1:',
                                          'CAPABILITIES:1-9:'))
        count += 1
        if (status != REFUSED or too_many(failure, said) or
                unnamed(failure, said) or unlawful(calls) or
                any('KVM_RUN' in line for line in calls)):
            bad.append(f'{failure}: {status} {said} {unlawful(calls)} '
                       f'without {unnamed(failure, said)}')
    tap.result(not bad, f'{setting}, {platform}: {count} errors of KVM end '
               'QEMU with status 1 and one message, before the guest runs',
               '\n'.join(bad))


async def passing_row(l1, tap, setting, platform):
    for failure in PASSING[platform]:
        status, said, calls = await launch(l1, platform, failure)
        tap.result(status == 0 and not unlawful(calls) and final(calls),
                   f'{setting}, {platform}: {failure}: the launch succeeds',
                   f'{status} {said} {calls}')


async def images_row(l1, tap, setting, platform):
    bad = []
    for image in IMAGES[platform]:
        status, said, calls = await launch(
            l1, platform, firmware=f'{platform}-{image}.bin',
            **(HASHES if image == 'short-hashes' else {}))
        if status != REFUSED or not messages(said):
            bad.append(f'{image}: {status} {said} {calls[-5:]}')
    tap.result(not bad, f'{setting}, {platform}: {len(IMAGES[platform])} bad '
               'firmware images are refused with a message',
               '\n'.join(bad))


async def memory_row(l1, tap, setting, platform):
    """
    Odd sizes, the last one with memory above 4 GiB; the sections of the images
    end at 0x820000.
    """
    for size, want in (('1M', REFUSED), ('2097156K', 0), ('2820M', 0)):
        status, said, calls = await launch(l1, platform,
                                           extra=('-m', size))
        tap.result(status == want and (want == 0 or bool(messages(said))),
                   f'{setting}, {platform}: {size} of memory '
                   f'{"starts" if want == 0 else "is refused"}',
                   f'{status} {said} {calls[-5:]}')


PLUG = ('{"execute":"qmp_capabilities"}{"execute":"cont"}'
        '{"execute":"object-add","arguments":{"qom-type":'
        '"memory-backend-memfd","id":"more","size":134217728}}'
        '{"execute":"device_add","arguments":{"driver":"pc-dimm",'
        '"id":"dimm","memdev":"more"}}{"execute":"quit"}')


async def plug_row(l1, tap, setting, platform):
    """Memory that is plugged later is private at first."""
    status, said, calls = await launch(
        l1, platform, commands=PLUG, extra=('-m', '64M,slots=1,maxmem=1G'))
    private = [line for line in calls if 'size=0x8000000' in line and
               'SET_MEMORY_ATTRIBUTES' in line and 'attributes=8' in line]
    tap.result(status == 0 and len(private) == 1 and final(calls) and
               not unlawful(calls),
               f'{setting}, {platform}: memory that is plugged is private',
               f'{status} {said} {calls[-8:]}')


def hmp(line):
    return ('{"execute":"human-monitor-command","arguments":'
            f'{{"command-line":"{line}"}}}}')


EARLY = ''.join(['{"execute":"qmp_capabilities"}', hmp('info registers'),
                 hmp('x /4xb 0'), hmp('xp /4xb 0xfffffff0'),
                 '{"execute":"inject-nmi"}',
                 '{"execute":"cont"}{"execute":"quit"}'])


async def early_row(l1, tap, setting, platform):
    """What makes a vCPU work or reads memory is asked before the launch."""
    status, said, calls = await launch(l1, platform, commands=EARLY)
    ends = [number for number, line in enumerate(calls)
            if line in ('SNP_LAUNCH_FINISH = 0', 'TDX_FINALIZE_VM = 0')]
    runs = [number for number, line in enumerate(calls)
            if line.startswith('KVM_RUN')]
    tap.result(status == 0 and len(ends) == 1 and not unlawful(calls) and
               all(number > ends[0] for number in runs),
               f'{setting}, {platform}: no vCPU touches memory before the '
               'launch is final', f'{status} {said}\n{unlawful(calls)} '
               f'{ends} {runs}')
