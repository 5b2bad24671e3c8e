#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt makes of our QEMU and of examples/libvirt: prints TAP.

With GMEM_WRITE_ARGS set the lists of arguments are written, not compared.
"""

import difflib
import os
import re
import shlex
import shutil
import sys

from host import EXAMPLES, ROOT, Daemon, run, virsh
from tapout import TapOut

EMULATOR = '/usr/local/bin/qemu-gmem-system-x86_64'
HOSTS_OWN = '/usr/local/bin/qemu-system-x86_64'
PINNED = '11.3'
TCG, KVM = ('plain', 'numa'), ('sev-snp', 'tdx')


def arguments_of(path):
    """An option a line, without the environment and the random UUID."""
    words = shlex.split(virsh('domxml-to-native', 'qemu-argv', str(path)))
    words = words[words.index(EMULATOR):]
    words[words.index('-uuid') + 1] = 'UUID'
    lines = [[words[0]]]
    for word in words[1:]:
        if word.startswith('-'):
            lines.append([])
        lines[-1].append(word)
    return ' \\\n'.join(shlex.join(line) for line in lines) + '\n'


def check_example(tap, name):
    path, golden = EXAMPLES / f'{name}.xml', EXAMPLES / f'{name}.args'
    status, _, error = run('virt-xml-validate', str(path), 'domain')
    tap.result(status == 0, f'{name}.xml follows the schema', error)
    got = arguments_of(path)
    if os.environ.get('GMEM_WRITE_ARGS'):
        golden.write_text(got)
    diff = difflib.unified_diff(golden.read_text().splitlines(),
                                got.splitlines(), golden.name, 'libvirt',
                                lineterm='')
    detail = '\n'.join(diff)
    tap.result(not detail, f'{name}.xml becomes the arguments in {name}.args',
               detail)


def check_probing(tap, virttype):
    text = virsh('domcapabilities', '--emulatorbin', EMULATOR, '--virttype',
                 virttype, '--machine', 'q35')
    tap.result(f'<domain>{virttype}</domain>' in text and '<machine>pc-q35-10.2</machine>' in text,
               f'libvirt probes our QEMU for type {virttype}', text)
    return text


def imitate_kvm_host():
    """For the types of guest that libvirt refuses without KVM."""
    os.rename(EMULATOR, EMULATOR + '.real')
    # virt-install asks the QEMU that libvirt finds by its name, too.
    os.symlink(EMULATOR + '.real', HOSTS_OWN + '.real')
    for path in (EMULATOR, HOSTS_OWN):
        shutil.copy(ROOT / 'tests/libvirt/fake-kvm-host', path)
    os.mknod('/dev/kvm')
    os.chmod('/dev/kvm', 0o666)


def main():
    tap = TapOut()
    with Daemon() as daemon:
        version = virsh('--version')
        found = re.match(r'\d+\.\d+', version)[0]
        newest = 'LIBVIRT_ROOT' in os.environ
        tap.result(found != PINNED if newest else found == PINNED, f'libvirt {found}', version)
        check_probing(tap, 'qemu')
        log = daemon.log.read_text()
        tap.result('virQEMUCaps' not in log and 'qemuMonitor' not in log,
                   'probing leaves no complaint in the log', log)
        for name in TCG:
            check_example(tap, name)
    imitate_kvm_host()
    with Daemon():
        text = check_probing(tap, 'kvm')
        tap.result('<value>sev-snp</value>' in text and
                   ('tdx' in text) == newest,
                   'this libvirt knows sev-snp, and tdx if it is the newest',
                   text)
        for name in KVM:
            check_example(tap, name)
    return tap.end()


if __name__ == '__main__':
    sys.exit(main())
