#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains of examples/libvirt under TCG, from their start to their end: prints TAP."""

import contextlib
import os
import re
import sys
from pathlib import Path

import libvirt
from crosscheck import guest_checks, node_checks, offer_check
from host import (EXAMPLES, Daemon, Domain, is_running, virsh, wait_for)
from tapout import TapOut

MANAGER = '/objects/gmm0'
# The memory in use.
MEMORY = {'plain': ['ram0'], 'numa': ['ram-node0', 'ram-node1']}
IN_FILE = 'keeps guest RAM in a file, which cannot be converted in place'
HUGE = 'uses huge pages, which cannot be converted in place'
# Elements of <memoryBacking>, and whether the backend it becomes is a file.
BACKINGS = (
    ("<source type='anonymous'/>", False),
    ("<allocation mode='immediate'/>", False),
    ("<nosharepages/>", False),
    ("<source type='memfd'/>", False),
    ("<source type='memfd'/><access mode='shared'/>", False),
    ("<source type='file'/>", True),
    ("<access mode='shared'/>", True),
)


def example(name):
    return (EXAMPLES / f'{name}.xml').read_text()


def raises(function, *arguments, **named):
    try:
        function(*arguments, **named)
    except (RuntimeError, libvirt.libvirtError) as error:
        return str(error)
    return ''


class Checks:
    """One domain's life."""

    def __init__(self, tap, daemon, name):
        self.tap, self.daemon, self.name = tap, daemon, name
        self.domain = Domain(daemon, example(name))

    def result(self, good, text, detail=''):
        self.tap.result(good, f'{self.name}: {text}', str(detail))

    def policy(self, name):
        return self.domain.virsh_qmp('qom-get', path=MANAGER, property=name)

    def backends(self, info):
        named = {backend['name']: backend for backend in info['backends']}
        return [named[name] for name in MEMORY[self.name]]

    def start(self):
        virsh('start', self.domain.name, '--paused')
        info = self.domain.virsh_qmp('query-guest-memfd')
        self.result(info['manager'] == MANAGER and
                    info['provider'] == 'emulated',
                    'starts, and virsh reads query-guest-memfd', info)
        self.result(self.policy('content-mode') == 'auto',
                    'virsh reads the policy')
        if 'LIBVIRT_SANDBOX' in os.environ:
            status = Path(f'/proc/{self.domain.qemu_pid()}/status').read_text()
            self.result('\nSeccomp:\t2\n' in status,
                        'its system calls are filtered', status)
        error = raises(self.domain.virsh_qmp, 'qom-set', path=MANAGER,
                       property='content-mode', value='nonsense')
        self.result('nonsense' in error and
                    self.policy('content-mode') == 'auto',
                    'a policy that does not exist changes nothing', error)

    def convert(self):
        virsh('resume', self.domain.name)
        log = self.domain.listen()
        for text, good, detail in guest_checks(log):
            self.result(good, text, detail)
        info = self.domain.qmp('query-guest-memfd')
        text, good, detail = offer_check(log.fwcfg, info['modes'])
        self.result(good, text, detail)
        backends = self.backends(info)
        self.result(len(log.stats) == len(backends),
                    f'the guest sees {len(backends)} backends', log.stats)
        for number, pair in enumerate(zip(log.stats, backends)):
            for text, good, detail in node_checks(number, *pair):
                self.result(good, f'libvirt-python: {text}', detail)
        others = [b for b in info['backends'] if b not in backends]
        self.result(not any(b['stats']['requests'] for b in others),
                    'no conversion of other memory', others)

    def domstats(self):
        text = virsh('domstats', '--vm', self.domain.name)
        self.result(self.domain.name in text and 'vm.' not in text,
                    'virsh domstats --vm works (TCG has no such statistics)',
                    text)
        records = self.daemon.connection.getAllDomainStats(
            libvirt.VIR_DOMAIN_STATS_VM | libvirt.VIR_DOMAIN_STATS_STATE)
        self.result([(d.name(), s['state.state']) for d, s in records] ==
                    [(self.domain.name, libvirt.VIR_DOMAIN_RUNNING)],
                    'libvirt-python getAllDomainStats works', records)

    def change_policy(self):
        """The guest runs again, and other bytes come out."""
        for name, value in (('content-mode', 'preserve'),
                            ('on-unsupported', 'downgrade'),
                            ('retry-timeout-ms', 250)):
            self.domain.qmp('qom-set', path=MANAGER, property=name,
                            value=value)
            self.result(self.policy(name) == value, f'{name} is now {value}')
        error = raises(self.domain.qmp, 'qom-set', path=MANAGER,
                       property='in-place', value='off')
        self.result('guest memory exists' in error,
                    'in-place cannot be changed any more', error)

        before = self.modes()
        virsh('reset', self.domain.name)
        log = self.domain.listen()
        now = self.modes()
        self.result(now['default'] == before['default'] and
                    now['preserve'] - before['preserve'] >
                    2 * before['preserve'],
                    'conversions follow the new policy', (before, now))
        self.result(log.mismatches > 0, 'the guest that expects zeros '
                    'finds the bytes preserved', log.done)

    def modes(self):
        total = {'default': 0, 'zero': 0, 'preserve': 0}
        for backend in self.backends(self.domain.qmp('query-guest-memfd')):
            for mode, count in backend['stats']['modes'].items():
                total[mode] += count
        return total

    def destroy(self):
        pid = self.domain.qemu_pid()
        self.result(pid and is_running(pid), 'QEMU is running', pid)
        virsh('destroy', self.domain.name)
        wait_for('QEMU', lambda: not is_running(pid), 10)
        self.result(virsh('domstate', self.domain.name) == 'shut off',
                    'virsh destroy ends it')
        log = self.domain.qemu_log()
        self.result('tainted: custom-argv' in log and 'error' not in log,
                    'the log holds the taint custom-argv, and no error', log)
        self.domain.remove()

    def all(self):
        try:
            self.start()
            self.convert()
            self.domstats()
            self.change_policy()
            self.destroy()
        except (RuntimeError, OSError, libvirt.libvirtError) as error:
            self.result(False, 'lives to its end', error)


def check_backings(tap, daemon, name):
    """Which of libvirt's own backends can be converted in place?"""
    plain = re.sub('<memoryBacking>.*</memoryBacking>', '', example(name),
                   flags=re.S)
    for inner, is_file in BACKINGS:
        if f'<memoryBacking>{inner}</memoryBacking>' in re.sub(r'\n\s*', '', example(name)):
            continue
        xml = plain.replace(
            '<vcpu>', f'<memoryBacking>{inner}</memoryBacking><vcpu>')
        domain = Domain(daemon, xml)
        error = raises(domain.domain.create)
        # Where the domain has memory of its own, libvirt's is not used.
        if not is_file or name == 'plain':
            tap.result(not error, f'{name} with {inner} starts', error)
        else:
            tap.result(IN_FILE in error, f'{name} with {inner} is refused '
                       'by name', error or 'it started')
        domain.remove()


@contextlib.contextmanager
def huge_pages(number):
    """Whether this machine has so many free huge pages of 2 MiB for a while."""
    pool = Path('/sys/kernel/mm/hugepages/hugepages-2048kB')
    try:
        before = int((pool / 'nr_hugepages').read_text())
        (pool / 'nr_hugepages').write_text(str(before + number))
    except OSError:
        yield False
        return
    try:
        yield Path('/dev/hugepages').is_mount() and \
            int((pool / 'free_hugepages').read_text()) >= number
    finally:
        (pool / 'nr_hugepages').write_text(str(before))


def check_huge_pages(tap, daemon):
    """Refused by name, with what is to be taken out of <memoryBacking>; the rest is what numa.xml has."""
    name, source = 'numa: <hugepages/>', "<source type='memfd'/>"
    small = example('numa').replace("'256'", "'32'").replace('>512<', '>64<')
    huge = "<hugepages><page size='2048' unit='KiB'/></hugepages>"
    domain = Domain(daemon, small.replace(source, huge + source))
    with huge_pages(2 * 16) as can:
        if not can:
            tap.skip(name, 'this machine has no huge pages to spare')
        else:
            error = raises(domain.domain.create)
            tap.result(HUGE in error and 'without hugetlb=on' in error,
                       f'{name} is refused by name', error or 'it started')
    domain.remove()
    domain = Domain(daemon, small)
    error = raises(domain.domain.create)
    tap.result(not error, f'{name} is taken out, as the message says, and the domain starts', error)
    domain.remove()


def main():
    tap = TapOut()
    with Daemon() as daemon:
        for name in MEMORY:
            Checks(tap, daemon, name).all()
        for name in MEMORY:
            check_backings(tap, daemon, name)
        check_huge_pages(tap, daemon)
    return tap.end()


if __name__ == '__main__':
    sys.exit(main())
