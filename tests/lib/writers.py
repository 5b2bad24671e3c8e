# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU's writers may have changed; see tests/guest/writers.c."""

# Bytes by step and page.  Without a private page in the way both are
# written: the hypercall and a fixup in the ROM, and the vAPIC's page.
WANT = {
    'rom': {'rom2': 0, 'vapic': 0},
    'kpcr': {'rom2': 5, 'vapic': 0},
    'targets': {'rom2': 0, 'vapic': 0},
    'none': {'rom2': 3, 'vapic': 0},
}
SEEDS = (1, 2)


def verdict(records, seed):
    """Is it all, and what is not as it should be?"""
    steps = {r['step']: r for r in records if r['kind'] == 'writers'}
    wrong = [name for name in WANT if name not in steps]
    for name, record in steps.items():
        want = dict(WANT[name])
        if seed == 2 and name == 'targets':
            want['vapic'] = 1
        if any(int(record[page]) != bytes_ for page, bytes_ in want.items()):
            wrong.append(record['line'])
    return wrong + [r['line'] for r in records if r['kind'] == 'fail']
