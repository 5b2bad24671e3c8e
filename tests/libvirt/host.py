# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt, its daemon and one domain, inside the private root of "enter"."""

import json
import os
import subprocess
import time
from pathlib import Path

import libvirt
import libvirt_qemu
from machine import LAST_WORDS, parse_line
from report import Log

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / 'examples/libvirt'
SERIAL = Path('/var/log/libvirt/qemu')
START_MAX = 30
GUEST_MAX = 120

# Errors come as exceptions; they need not be printed as well.
libvirt.registerErrorHandler(lambda *_: None, None)


def wait_for(what, question, seconds):
    """The first true answer."""
    end = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > end:
            raise TimeoutError(f'{what}: nothing in {seconds} s')
        time.sleep(0.1)
    return answer


def run(*command):
    """(exit status, standard output, standard error)"""
    done = subprocess.run(command, check=False, capture_output=True,
                          text=True, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def virsh(*command):
    """What virsh prints; raises with what it complains about."""
    status, output, error = run('virsh', *command)
    if status:
        raise RuntimeError(error.strip() or output.strip())
    return output.strip()


class Daemon:
    """libvirtd; domains do not outlive the block."""

    def __init__(self):
        self.log = ROOT / 'build/log/libvirtd.log'
        self.process = self.connection = None

    def _connect(self):
        if self.process.poll() is not None:
            raise RuntimeError('libvirtd ended:\n' + self.log.read_text())
        try:
            return libvirt.open('qemu:///system')
        except libvirt.libvirtError:
            return None

    def __enter__(self):
        with open(self.log, 'wb') as log:
            # pylint: disable=consider-using-with
            self.process = subprocess.Popen(
                ['libvirtd'], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log)
        self.connection = wait_for('libvirtd', self._connect, START_MAX)
        return self

    def __exit__(self, *_):
        if self.connection:
            for domain in self.connection.listAllDomains():
                if domain.isActive():
                    domain.destroy()
            self.connection.close()
        self.process.terminate()
        self.process.wait()


class Domain:
    """A domain of examples/libvirt, and what its guest says."""

    def __init__(self, daemon, xml):
        self.domain = daemon.connection.defineXML(xml)
        self.name = self.domain.name()
        self.serial = SERIAL / f'{self.name}-serial.log'
        self.heard = 0

    @staticmethod
    def _answer(text):
        reply = json.loads(text)
        if 'error' in reply:
            raise RuntimeError(reply['error']['desc'])
        return reply['return']

    def qmp(self, command, **arguments):
        """Through libvirt-python."""
        text = json.dumps({'execute': command, 'arguments': arguments})
        return self._answer(libvirt_qemu.qemuMonitorCommand(self.domain,
                                                            text, 0))

    def virsh_qmp(self, command, **arguments):
        """Through virsh."""
        text = json.dumps({'execute': command, 'arguments': arguments})
        return self._answer(virsh('qemu-monitor-command', self.name, text))

    def _said_all(self):
        """The guest's records since the last call, once it has ended."""
        text = self.serial.read_text('ascii', 'replace')
        lines = text[:text.rfind('\n') + 1].splitlines()
        records = [parse_line(line) for line in lines[self.heard:]]
        if not records or records[-1]['kind'] not in LAST_WORDS:
            return None
        self.heard = len(lines)
        return records

    def listen(self):
        log = Log()
        for record in wait_for('the guest', self._said_all, GUEST_MAX):
            log.add(record)
        return log

    def qemu_log(self):
        return (SERIAL / f'{self.name}.log').read_text()

    def qemu_pid(self):
        path = Path(f'/run/libvirt/qemu/{self.name}.pid')
        return int(path.read_text()) if path.exists() else 0

    def remove(self):
        if self.domain.isActive():
            self.domain.destroy()
        self.domain.undefine()


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
