# SPDX-License-Identifier: GPL-2.0-or-later
"""Launches that fail: errors of KVM, bad firmware, odd memory."""

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
            'outside', 'beyond-memory', 'unaligned', 'empty'),
    'tdx': ('no-table', 'no-metadata', 'long-metadata', 'overlapping',
            'outside', 'beyond-memory', 'unaligned', 'unknown-type',
            'no-hob'),
}


def messages(said):
    """What is not an answer or event of the monitor."""
    return [line for line in said if not line.startswith('{')]


# QEMU's own: one for the call and one for the context, and the entries of
# CPUID that the firmware would have.
LINES_MAX = {'SNP_LAUNCH_START': 2, 'SNP_LAUNCH_UPDATE:5:EIO:0x16': 3}


def too_many(failure, said):
    """QEMU adds to each error of KVM's start that it was one."""
    lines = [line for line in messages(said)
             if 'failed to initialize kvm' not in line]
    limit = max(LINES_MAX.get(failure, 1),
                LINES_MAX.get(failure.partition(':')[0], 1))
    return not 1 <= len(lines) <= limit


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
                unlawful(calls) or
                any('KVM_RUN' in line for line in calls)):
            bad.append(f'{failure}: {status} {said} {unlawful(calls)}')
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
            l1, platform, firmware=f'{platform}-{image}.bin')
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
