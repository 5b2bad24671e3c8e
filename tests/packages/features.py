#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What one QEMU has that a user can name, and another has not.

features.py list QEMU...       print "KIND NAME" for all that a QEMU has, from its answers
features.py compare A B        what list A has and list B has not, but for packaging/left-out: TAP

A list is made inside a new Debian, so this needs nothing but Python.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Options that list what there is, one a line or in one line after ":".
HELP = {'network': '-netdev help', 'chardev': '-chardev help', 'display': '-display help',
        'audio': '-audiodev help', 'disk': '-drive format=help', 'tpm': '-tpmdev help',
        'accelerator': '-accel help'}
NAME = re.compile(r'[a-z][a-z0-9_-]*')


class Qemu:
    """One that runs without a machine."""

    def __init__(self, argv):
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen(
            [*argv, '-machine', 'none', '-nodefaults', '-display', 'none', '-qmp', 'stdio'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()
        self.ask('qmp_capabilities')

    def ask(self, command, **arguments):
        self.process.stdin.write(json.dumps({'execute': command, 'arguments': arguments}) + '\n')
        self.process.stdin.flush()
        while 'event' in (reply := json.loads(self.process.stdout.readline())):
            pass
        return reply.get('return')

    def end(self):
        self.ask('quit')
        self.process.wait()


def helped(argv, kind):
    """The names are what stands alone, or first, in a line after one with a colon."""
    done = subprocess.run([*argv, *HELP[kind].split()], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    for line in done.stdout.splitlines():
        head, colon, rest = line.partition(':')
        if colon and head.startswith('Supported formats'):
            yield from ((kind, name) for name in rest.split())
        elif not colon and NAME.fullmatch((line.split() or ['-'])[0]) and not line.startswith('Some'):
            yield kind, line.split()[0]
        elif not line.strip():
            break


def asynchronous(argv, path):
    """aio=native has no place in the schema."""
    for name in ('threads', 'native', 'io_uring'):
        qemu = Qemu(argv)
        reply = qemu.ask('blockdev-add', driver='file', filename=path, aio=name,
                         cache={'direct': True}, **{'node-name': 'd0'})
        qemu.end()
        if reply == {}:
            yield 'aio', name


def features(argv):
    qemu = Qemu(argv)
    found = set()
    for kind, root in (('device', 'device'), ('object', 'user-creatable'), ('cpu', 'x86_64-cpu')):
        found |= {(kind, entry['name']) for entry in qemu.ask('qom-list-types', implements=root, abstract=False)}
    found |= {('machine', machine['name']) for machine in qemu.ask('query-machines')}
    found |= {('option', entry['option']) for entry in qemu.ask('query-command-line-options')}
    qemu.end()
    for kind in HELP:
        found |= set(helped(argv, kind))
    with tempfile.NamedTemporaryFile(dir='.') as file:
        file.write(bytes(4096))
        file.flush()
        found |= set(asynchronous(argv, file.name))
    return found


def read(path):
    return {tuple(line.split(' ', 1)) for line in Path(path).read_text(encoding='utf-8').splitlines()}


def reasons():
    path = Path(__file__).resolve().parents[2] / 'packaging/left-out'
    for line in path.read_text(encoding='utf-8').splitlines():
        if line and not line.startswith('#'):
            pattern, reason = line.split('\t')
            yield re.compile(pattern), reason


def compare(theirs, ours):
    rules, used = list(reasons()), set()
    number = 0
    missing = {}
    for kind, name in sorted(read(theirs) - read(ours)):
        rule = next((rule for rule in rules if rule[0].fullmatch(f'{kind} {name}')), None)
        used.add(rule)
        missing.setdefault(kind, []).append((name, rule))
    for kind in sorted({kind for kind, _ in read(theirs)}):
        number += 1
        bad = [name for name, rule in missing.get(kind, []) if not rule]
        print(f'{"not ok" if bad else "ok"} {number} - {kind}: what Debian has is there, or packaging/left-out says why not')
        for name in bad:
            print(f'# {kind} {name}')
    for rule in rules:
        number += 1
        print(f'{"ok" if rule in used else "not ok"} {number} - left out: {rule[0].pattern}: {rule[1]}')
    print(f'1..{number}')


if __name__ == '__main__':
    if sys.argv[1] == 'list':
        for pair in sorted(features(sys.argv[2:])):
            print(*pair)
    else:
        compare(*sys.argv[2:])
