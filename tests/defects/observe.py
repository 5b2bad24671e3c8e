# SPDX-License-Identifier: GPL-2.0-or-later
"""
The defects: how each is provoked, and its result.

An observation is a function of the machine and of the QEMU, with the same
options whichever QEMU it is, and returns whether the defect showed (None:
neither that nor what is right), and the result.
"""

import itertools
import re

import inner as i
from hotplug import leak, lock
from verdict import judge

PRIVATE, UNMAPPED = 'KVM makes it private', 'the device is unmapped'


def quoted(words):
    """QEMU's first words, without its name."""
    text = words[0].partition(': ')[2] if words else ''
    return f', after "{text}"' if text else ''


async def stops(l1, qemu, name, good, text, **options):
    """A request that stops the VM, or that the guest gets an answer to."""
    said, status, words, _ = await i.guest(l1, qemu, name, **options)
    if not said:
        return judge(status == 'internal-error', False,
                     f'the VM stops with `{status}`{quoted(words)}')
    return judge(False, status == 'shutdown' and good(said),
                 text.format(**said))


async def two_regions(l1, qemu):
    return await stops(
        l1, qemu, 'two-regions',
        lambda s: s['to-private'] == s['to-shared'] == s['bad'] ==
        s['not-zero'] == '0',
        'both ways answer {to-private}; {bad} bytes written in between are '
        'wrong', backends=2)


async def bad_request(l1, qemu):
    return await stops(
        l1, qemu, 'bad-request', lambda s: s['to-private'] == '-22',
        'the guest is answered {to-private} (EINVAL) and goes on')


async def hole(l1, qemu):
    said, status, words, _ = await i.guest(l1, qemu, 'hole', dimm=True)
    if not said:
        return None, f'the VM stops with `{status}`{quoted(words)}'
    lost = int(said['others-lost'])
    answered = said['to-shared'] == said['not-zero'] == '0'
    return judge(answered and lost, answered and not lost,
                 f'answers {said["to-shared"]}; {lost} bytes of private '
                 'pages that were not in the request are lost')


async def slot(l1, qemu):
    said, status, words, _ = await i.guest(l1, qemu, 'slot')
    if not said:
        return None, f'the VM stops with `{status}`{quoted(words)}'
    before, after = int(said['bad-before']), int(said['bad-after'])
    return judge(not before and after, not before and not after,
                 f'{after} of 16384 bytes that the guest had written are '
                 'gone')


def order(trace):
    """What happened on the first request, in order; pieces are one step."""
    steps, requests = [], 0
    for line in trace:
        requests += 'kvm_hc_map_gpa_range' in line
        if requests != 1:
            continue
        if i.SET_ATTRIBUTES in line:
            steps.append(PRIVATE)
        elif re.search('dma_unmap +iova 0x60[01]000 size 0x[12]000 ', line):
            steps.append(UNMAPPED)
    return [step for step, _ in itertools.groupby(steps)]


async def notify(l1, qemu):
    said, status, words, trace = await i.guest(l1, qemu, 'notify', size=8,
                                               device=True)
    if not said or said['to-private'] != '0':
        return None, f'{said}, `{status}`{quoted(words)}'
    steps = order(trace)
    return judge(steps == [PRIVATE, UNMAPPED], steps == [UNMAPPED, PRIVATE],
                 ', then '.join(steps) or 'no trace')


# The event and the observation, which has the name of the defect.
DEFECTS = (
    ('a request in two memory regions', two_regions),
    ('a request that begins in a hole', hole),
    ('a memslot is made again for shared memory', slot),
    ('a request for what is no memory', bad_request),
    ('pages that an assigned device may use become private', notify),
    ('memory is refused because a device forbids discards', lock),
    ('memory is refused because no guest_memfd can be made', leak),
)
