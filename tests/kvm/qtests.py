# SPDX-License-Identifier: GPL-2.0-or-later
"""qtests whose QEMU has a real KVM.  The guest's CPU halts at once."""

import re

QEMU = '/bin/qemu-system-x86_64'
ARGS = '-accel kvm -L /firmware -bios /halt.bin'
RESULT = re.compile(r'(not )?ok \d+ (\S+)(?: # SKIP (.*))?$')


async def run_qtest(l1, tap, setting, name):
    """Its results become ours; one at least is expected."""
    await l1.type(f"QTEST_QEMU_BINARY={QEMU} GMEM_TEST_ARGS='{ARGS}' "
                  f'timeout 300 /bin/{name} --tap -k 2>&1; echo "@@exit $?"')
    lines, results = [], 0
    while not (lines and '@@exit' in lines[-1]):
        lines.append(await l1.line())
        found = RESULT.match(lines[-1])
        if found:
            results += 1
            failed, path, reason = found.groups()
            if reason:
                tap.skip(f'{setting}: {path}', reason)
            else:
                tap.result(not failed, f'{setting}: {path}',
                           '\n'.join(lines))
    status = lines[-1].split()[-1]
    tap.result(status == '0' and results > 0, f'{setting}: {name} ends well',
               '\n'.join(lines[-40:]))


async def vhost_row(l1, tap, setting):
    await run_qtest(l1, tap, setting, 'guest-memfd-vhost-test')
