#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The lines of virt-install in examples/libvirt/README.md: prints TAP."""

import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from arguments import KVM, TCG, imitate_kvm_host
from host import EXAMPLES, Daemon, Domain, run, virsh
from tapout import TapOut

IMAGES = Path('/var/lib/libvirt/images')


def lines():
    """The words of each line, by the name of its domain."""
    text = (EXAMPLES / 'README.md').read_text(encoding='utf-8')
    for block in re.findall(r'^    (virt-install .*\n(?:        .*\n)*)', text, re.M):
        words = shlex.split(block.replace('\\\n', ' '))
        yield words[words.index('--name') + 1], words


class Installed(Domain):
    """One that virt-install has made and started."""

    # pylint: disable=super-init-not-called
    def __init__(self, daemon, name):
        self.domain = daemon.connection.lookupByName(name)
        self.name = name
        self.serial = Path(f'/var/log/libvirt/qemu/{name}-serial.log')
        self.heard = 0


def check_runs(tap, daemon, name, words):
    status, output, error = run(*words)
    tap.result(status == 0, f'{name}: virt-install starts it', output + error)
    if status:
        return
    domain = Installed(daemon, name)
    log = domain.listen()
    info = domain.virsh_qmp('query-guest-memfd')
    done = sum(b['stats']['requests'] for b in info['backends'])
    tap.result(log.mismatches == 0 and done > 0,
               f'{name}: the guest made {done} requests, and found its bytes',
               str(log.done))
    domain.remove()


def check_arguments(tap, name, words):
    """Of a guest whose hardware is not there."""
    status, xml, error = run(*words, '--print-xml')
    tap.result(status == 0, f'{name}: virt-install makes a domain', error)
    if status:
        return
    with tempfile.NamedTemporaryFile('w', suffix='.xml') as file:
        file.write(xml)
        file.flush()
        argv = virsh('domxml-to-native', 'qemu-argv', file.name)
    wanted = {'gmem-sev-snp': '"qom-type":"sev-snp-guest"', 'gmem-tdx': 'tdx-guest,id=tdx0'}[name]
    tap.result(wanted in argv and 'guest-memfd-manager,id=gmm0' in argv and
               'confidential-guest-support=' in argv,
               f'{name}: its arguments have the guest and the manager', argv)


def main():
    tap = TapOut()
    if not shutil.which('virt-install'):
        print('1..0 # SKIP there is no virt-install: make check-libvirt-newest')
        return 0
    found = dict(lines())
    tap.result(set(found) == {f'gmem-{name}' for name in TCG + KVM},
               'there is a line for each domain', str(list(found)))
    with Daemon() as daemon:
        for name in TCG:
            check_runs(tap, daemon, f'gmem-{name}', found[f'gmem-{name}'])
    imitate_kvm_host()
    IMAGES.mkdir(parents=True, exist_ok=True)
    with Daemon():
        for name in KVM:
            (IMAGES / f'gmem-{name}.qcow2').touch()
            check_arguments(tap, f'gmem-{name}', found[f'gmem-{name}'])
    return tap.end()


if __name__ == '__main__':
    sys.exit(main())
