# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest on real KVM, in the rig, which runs under TCG."""

import checks
from guest import MIB
from scenario import disks, is_private

# Of 320 MiB.  Where the host does not preserve bytes, memory that is in use
# stays shared: kernel and initramfs.
PRIVATE_MIN = {'content-modes': 240, 'in-place+fixed': 200}


async def nested(run, setting):
    """Disks and vsock, whose other side is the rig's kernel."""
    async with run.nested(setting, extra=checks.VSOCK) as guest:
        memory = await is_private(run, guest, PRIVATE_MIN[setting] * MIB)
        run.say(f"{memory['private'] // MIB} MiB private")
        await disks(run, guest, guest.options['disks'], mib=1)
        await checks.vsock(guest, run.sums)
