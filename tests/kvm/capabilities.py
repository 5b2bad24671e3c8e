# SPDX-License-Identifier: GPL-2.0-or-later
"""Which provider comes of what a KVM claims, and of what it can do."""

import re

import refusals
from l1 import behaviour
from rows import PROVIDERS

# By which number KVM offers in-place conversion where all the rows run: one
# that is likely, and one that no list has.  two-backings has a number that was
# proposed once, and is something else.  content-modes has the rig's own.
PARAMETERS = {
    'in-place': ('kvm.rig_in_place_cap=252',),
    'in-place-only': ('kvm.rig_in_place_cap=300',),
    'two-backings': ('kvm.rig_other_cap=250',),
}

# These are only started: a number of another architecture, while the likely one
# is something else.
MORE = (
    ('in-place', ('kvm.rig_in_place_cap=250',
                  'kvm.rig_other_cap=252', 'kvm.rig_other_value=1')),
    ('content-modes', ('kvm.rig_in_place_cap=252',)),
)

ASK = ('{"execute":"qmp_capabilities"}{"execute":"query-guest-memfd"}'
       '{"execute":"quit"}')


async def number_row(l1, tap, setting, parameters):
    """The provider is what the setting has, whatever the numbers are."""
    provider = PROVIDERS[behaviour(setting)]
    status, said = await refusals.start(
        l1, '-machine q35,smm=off -m 64M -S', ASK)
    found = re.search(r'"provider": "([^"]*)"', said)
    reason = re.search(r'"provider-reason": "([^"]*)"', said)
    tap.result(status == 0 and bool(found and reason) and
               found[1] == provider,
               f'{setting}, {" ".join(parameters)}: {provider}: '
               f'{reason and reason[1]}', f'exit status {status}: {said}')
