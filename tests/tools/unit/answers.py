# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers of query-guest-memfd, to test with."""

import copy

STATS = {
    'requests': 100,
    'origins': {'hypercall': 90, 'memory-fault': 0, 'launch': 10,
                'reset': 0, 'device': 0},
    'directions': {'to-shared': 40, 'to-private': 60},
    'modes': {'default': 60, 'zero': 30, 'preserve': 10},
    'realisations': {'kernel': 80, 'emulated': 15, 'refused': 5},
    'converted-bytes': {'to-shared': 4096000, 'to-private': 8192000},
    'already-right-bytes': 4096, 'downgrades': 0, 'retries': 7,
    'rollbacks': 1, 'failures': [{'error': 'EAGAIN', 'count': 2},
                                 {'error': 'EINVAL', 'count': 5}],
    'time-ns': 1000000, 'time-max-ns': 50000}

INFO = {
    'manager': '/objects/gmm0', 'in-place': 'auto', 'content-mode': 'auto',
    'on-unsupported': 'refuse', 'retry-timeout-ms': 100,
    'provider': 'kvm-content-modes', 'provider-reason': 'all there',
    'launched': True,
    'modes': {'to-shared': [{'mode': 'zero', 'realisation': 'kernel'}],
              'to-private': []},
    'rejected': [{'error': 'EINVAL', 'count': 3}], 'backends': []}

# Without guest_memfd memory, as the schema's example has it.
EMPTY = {'provider-reason': 'no guest_memfd memory', 'rejected': [],
         'backends': []}


def backend(name='ram0', private=1 << 30, size=4 << 30, **changed):
    stats = copy.deepcopy(STATS)
    stats.update(changed)
    return {'name': name, 'size': size, 'private-bytes': private,
            'shared-bytes': size - private, 'content-mode': 'auto',
            'stats': stats}


def used_backend(name='ram0', **changed):
    """One with devices, of which one had a page when it was to go."""
    said = {'mappings': 3, 'mapped-bytes': 12288, 'assigned-bytes': 1 << 30,
            'last-busy': {'offset': 0x4000, 'user': 'ring',
                          'device': 'virtio-blk-pci', 'age-ms': 3400}}
    return {**backend(name), **said, **changed}


def info(*backends, **changed):
    return {**copy.deepcopy(INFO), 'backends': list(backends), **changed}
