#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt_run.py INITRAMFS: libvirt starts guests of SEV-SNP and TDX in the rig.

libvirtd, QEMU and KVM are in the rig; the stand-in for the hardware is
preloaded into libvirtd, which asks KVM for types of VMs, and passes it on to
QEMU.  INITRAMFS: of tests/kvm/libvirt-initramfs.  Prints TAP.
libvirt_run.py --domain snp|tdx: print that of examples/libvirt, with the
rig's firmware and the bare-metal guest.
"""

import asyncio
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / path) for path in
                ('build/src/python', 'tests/lib', 'tests/kvm')]

# pylint: disable=wrong-import-position
import l1
from machine import parse_line
from tapout import TapOut

SETTING = 'in-place+fixed'
EXAMPLES = {'snp': 'sev-snp', 'tdx': 'tdx'}
GUEST = ('via=hypercall platform={0} backends=1 vcpus=2 expect=in-place '
         'cases=platform offer=off')
# libvirt asks QEMU for its capabilities: minutes, on a busy machine.
PROBE_MAX = 600
# Its cases, in the rig, under TCG.
GUEST_MAX = 300
# As a newer libvirt than that of the example writes it.
NATIVE_TDX = (
    (r"\s*<qemu:arg value='-object'/>\s*<qemu:arg value='tdx-guest.*?/>", ''),
    (r"\s*<qemu:arg value='-machine'/>\s*<qemu:arg value='conf.*?/>", ''),
    (r"(\s*<qemu:commandline>)", r"<launchSecurity type='tdx'/>\1"))


def domain(platform):
    """The example, of which the host's own is replaced."""
    text = (ROOT / f'examples/libvirt/{EXAMPLES[platform]}.xml').read_text()
    changes = [
        (r"<memory unit='GiB'>4<", "<memory unit='MiB'>512<"),
        (r'<vcpu>4<', '<vcpu>2<'),
        (r'(<loader.*>)/usr/share/.*?(</loader>)',
         rf'\1/firmware/{platform}.bin\2<kernel>/command.bin</kernel>'
         f'<cmdline>{GUEST.format(platform)}</cmdline>'),
        (r'/usr/.*/qemu-gmem-system-x86_64', '/bin/qemu'),
        (r'(?s)<disk .*?</disk>', ''),
        (r"<serial type='pty'/>", "<serial type='file'><source path='/tmp/"
         f"{platform}.serial'/></serial>"),
        (r'</qemu:commandline>', r"<qemu:arg value='-L'/>"
         r"<qemu:arg value='/firmware'/><qemu:env name='STANDIN_LOG' "
         rf"value='/tmp/{platform}.calls'/></qemu:commandline>")]
    if platform == 'tdx':
        changes += NATIVE_TDX
    else:
        # That of the rig's processor.
        changes.append((r'<cbitpos>51<', '<cbitpos>0<'))
    for pattern, new in changes:
        text, count = re.subn(pattern, new, text)
        assert count == 1, (platform, pattern)
    return text


class Shell:
    """Commands in the rig."""

    def __init__(self, machine):
        self.machine = machine

    async def run(self, command, limit=l1.SILENCE_MAX):
        """Exit status and what it says."""
        await self.machine.type(f'{{ {command}; }} 2>&1; echo "@@st $?"')
        lines = []
        while not (lines and lines[-1].startswith('@@st ')):
            lines.append(await self.machine.line(limit))
        return int(lines.pop().split()[1]), '\n'.join(lines)


async def guest_end(shell, platform):
    """What the guest says at its end, and whether all bytes were right."""
    for _ in range(GUEST_MAX):
        _, said = await shell.run(f'cat /tmp/{platform}.serial; sleep 1')
        records = [parse_line(line) for line in said.splitlines() if line]
        for record in records:
            if record['kind'] == 'done':
                return record, said
    return None, said


async def check_domain(shell, tap, platform):
    status, said = await shell.run(f'virsh define /domains/{platform}.xml',
                                   PROBE_MAX)
    tap.result(status == 0, f'{platform}: libvirt knows the domain', said)
    name = f'gmem-{EXAMPLES[platform]}'
    status, said = await shell.run(f'virsh start {name}')
    _, log = await shell.run(f'tail -n 5 /var/log/libvirt/qemu/{name}.log')
    tap.result(status == 0, f'{platform}: virsh start: it starts',
               f'{said}\n{log}')
    if status:
        return
    done, said = await guest_end(shell, platform)
    tap.result(done and done['mismatches'] == '0',
               f'{platform}: the guest finds its bytes', said)
    await check_statistics(shell, tap, platform, name)
    _, bad = await shell.run(f'grep -m 5 unlawful /tmp/{platform}.calls')
    _, count = await shell.run(f'grep -c . /tmp/{platform}.calls')
    tap.result(not bad and int(count) > 0, f'{platform}: none of {count} '
               'calls breaks a rule of KVM', bad)
    status, said = await shell.run(f'virsh destroy {name}')
    tap.result(status == 0, f'{platform}: virsh destroy ends it', said)


async def check_statistics(shell, tap, platform, name):
    _, said = await shell.run(f'virsh domstats --vm {name}')
    found = dict(re.findall(r'vm\.(gmem_\w+)\.\w+=(\d+)', said))
    _, answer = await shell.run(f"virsh qemu-monitor-command {name} "
                                "'{\"execute\":\"query-guest-memfd\"}'")
    info = json.loads(answer)['return']
    requests = sum(b['stats']['requests'] for b in info['backends'])
    tap.result(int(found.get('gmem_requests', 0)) == requests > 0,
               f'{platform}: virsh domstats has {len(found)} gmem_*, with '
               f'gmem_requests={found.get("gmem_requests")} as '
               'query-guest-memfd', said)
    tap.result(info['provider'] == 'kvm-in-place' and
               info['phase'] == 'running',
               f'{platform}: provider {info["provider"]}', answer)


async def run(tap, initrd):
    kernel = f'{ROOT}/build/kernel/bzImage'
    async with l1.L1(f'{ROOT}/build/qemu/qemu-system-x86_64', kernel, initrd,
                     SETTING) as machine:
        shell = Shell(machine)
        # One emulator is to be asked.
        await shell.run('rm -f /bin/qemu-system-x86_64; ip link set lo up; '
                        'LD_PRELOAD=/lib/standin.so libvirtd -d')
        await shell.run('until [ -S /run/libvirt/libvirt-sock ]; do '
                        'sleep 1; done')
        _, version = await shell.run('virsh --version')
        tap.say(f'libvirt {version}')
        for platform in EXAMPLES:
            await check_domain(shell, tap, platform)


def main():
    if sys.argv[1:2] == ['--domain']:
        print(domain(sys.argv[2]))
        return 0
    tap = TapOut()
    return tap.run(run(tap, sys.argv[1]))


if __name__ == '__main__':
    sys.exit(main())
