# SPDX-License-Identifier: GPL-2.0-or-later
"""Does QEMU say the same as the guest?"""

import machine

HINTS = {1 << 8: 'zero', 1 << 9: 'preserve'}
NODES = 2


def flatten(stats, info):
    """A backend's numbers under the names that the guest uses."""
    return {
        'requests': stats['requests'],
        'to-shared': stats['directions']['to-shared'],
        'to-private': stats['directions']['to-private'],
        **stats['modes'],
        **stats['realisations'],
        'converted-to-shared': stats['converted-bytes']['to-shared'],
        'converted-to-private': stats['converted-bytes']['to-private'],
        'already-right': stats['already-right-bytes'],
        'failures': sum(f['count'] for f in stats['failures']),
        'private-bytes': info['private-bytes']}


def difference(theirs, ours):
    """Empty when both say the same."""
    return ', '.join(f'{name}: QEMU {theirs.get(name)}, guest {value}'
                     for name, value in ours.items()
                     if theirs.get(name) != value)


def node_checks(number, said, info):
    stats = info['stats']
    theirs = flatten(stats, info)
    ours = {name: int(value) for name, value in said.items()
            if name in theirs}
    wrong = difference(theirs, ours)
    yield (f'node {number}: {len(ours)} numbers are those of the guest',
           len(ours) == len(theirs) and not wrong, wrong)

    sums = {name: sum(stats[name].values())
            for name in ('origins', 'directions', 'modes', 'realisations')}
    yield (f'node {number}: requests add up by origin, direction, mode, '
           'realisation', set(sums.values()) == {stats['requests']},
           str(sums))
    yield (f'node {number}: all requests came through the device',
           stats['origins']['device'] == stats['requests'],
           str(stats['origins']))
    yield (f'node {number}: no retry, no rollback, no downgrade',
           not stats['retries'] + stats['rollbacks'] + stats['downgrades'],
           str(stats))
    yield (f'node {number}: private and shared bytes are all its memory',
           info['private-bytes'] + info['shared-bytes'] == info['size'],
           str(info['size']))


def offer_check(fwcfg, modes):
    """fw_cfg and QMP offer the same."""
    wrong = []
    for direction in ('to-shared', 'to-private'):
        bits = int(fwcfg[direction], 0)
        named = {name for bit, name in HINTS.items() if bits & bit}
        offered = {mode['mode'] for mode in modes[direction]} - {'default'}
        if named != offered:
            wrong.append(f'{direction}: fw_cfg {named}, QMP {offered}')
    return ('fw_cfg offers what QMP offers', not wrong, '; '.join(wrong))


def guest_checks(log):
    """The guest's own sums."""
    rows = log.cases
    yield ('every conversion is in the table',
           len(rows) == log.conversions, f'{len(rows)} rows')
    yield ('the guest found no mismatch', log.mismatches == 0,
           str(log.mismatches))
    yield ('every request that should fail failed',
           all(r['status'] == r['want'] for r in log.refusals) and
           bool(log.refusals), '')


def all_checks(log, info, qemu):
    nodes = [b for b in info['backends'] if 'ram' in b['name'] and
             b['size'] == 256 << 20]
    nodes.sort(key=lambda b: b['name'])
    others = [b for b in info['backends'] if b not in nodes]
    rejected = sum(f['count'] for f in info['rejected'])

    checks = list(guest_checks(log))
    checks.append(('the provider is the emulated one',
                   info.get('provider') == 'emulated',
                   str(info.get('provider'))))
    checks.append(offer_check(log.fwcfg, info['modes']))
    checks.append((f'{NODES} nodes', len(nodes) == len(log.stats) == NODES,
                   str([b['name'] for b in info['backends']])))
    for number, (said, backend) in enumerate(zip(log.stats, nodes)):
        checks += node_checks(number, said, backend)
    checks.append(('nothing happened to other memory',
                   not any(b['stats']['requests'] or b['private-bytes']
                           for b in others),
                   str([b['name'] for b in others])))
    checks.append(('requests that reached no memory are counted',
                   rejected == log.rejected,
                   f'QEMU {rejected}, guest {log.rejected}'))
    checks.append(('QEMU exited as the guest requested',
                   qemu.exit_status == machine.EXIT_GOOD,
                   str(qemu.exit_status)))
    checks.append(('QEMU had nothing to complain about', not qemu.stderr,
                   qemu.stderr))
    return checks
