#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""launch_code.py lines|mutations [NAME...]: sev.c and tdx.c under launches.

lines: which of the lines that patches/ add to them are reached; fails if one
is not, but for those in tests/kvm/launch-unreached, which has the reasons.
mutations: QEMUs that are broken as tests/mutation/launch/NAME.mutation says,
in the form of tests/mutation/devices; fails if one launches as it should.
Prints TAP.  make check-kvm must have been run: it builds what this needs.
"""

import asyncio
import base64
import gzip
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / path) for path in
                ('build/src/python', 'tests/lib', 'tests/kvm')]

# pylint: disable=wrong-import-position
import confidential as c
import confidential_bad as bad
import l1
from tapout import TapOut

SRC, QEMU, KERNEL = (ROOT / 'build' / name for name in
                     ('src', 'qemu', 'kernel'))
OUT = ROOT / 'build/launch-code'
FILES = ('target/i386/sev.c', 'target/i386/kvm/tdx.c')
SETTINGS = ('in-place+fixed', 'two-backings+fixed')
COUNTERS = '/tmp/gcov'
BATCH = 5
LOOK = ('{"execute":"qmp_capabilities"}{"execute":"cont"}'
        '{"execute":"query-guest-memfd"}{"execute":"quit"}')
QUESTIONS = ('{"execute":"qmp_capabilities"}{"execute":"query-sev"}'
             '{"execute":"query-sev-capabilities"}'
             '{"execute":"sev-inject-launch-secret","arguments":'
             '{"packet-header":"AA==","secret":"AA==","gpa":4096}}'
             '{"execute":"cont"}{"execute":"quit"}')


# --- programs ---------------------------------------------------------------

def commands():
    """How the files are compiled, and QEMU is linked."""
    database = json.loads((QEMU / 'compile_commands.json').read_text())
    found = {entry['file'].removeprefix('../src/'): entry
             for entry in database}
    text = subprocess.run(['ninja', '-C', QEMU, '-t', 'compdb', '-x',
                           'c_LINKER', 'c_LINKER_RSP'], check=True,
                          capture_output=True, text=True).stdout
    link = next(entry for entry in json.loads(text)
                if entry['output'] == 'qemu-system-x86_64')
    return {file: found[file] for file in FILES}, shlex.split(link['command'])


def run(words):
    done = subprocess.run(words, cwd=QEMU, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:])


def build(name, sources, flags=()):
    """QEMU with these sources in place of its own, {file: path}."""
    entries, link = commands()
    for file, path in sources.items():
        target = OUT / f'{name}-{Path(file).name}.o'
        words = shlex.split(entries[file]['command'])
        words[words.index('-o') + 1] = str(target)
        words[words.index('-c') + 1] = str(path)
        if '-MF' in words:
            words[words.index('-MF') + 1] = f'{target}.d'
        words += ['-iquote', str((SRC / file).parent), *flags]
        run(words)
        link[link.index(entries[file]['output'])] = str(target)
    link[link.index('-o') + 1] = str(OUT / name)
    run([*link, *flags, '-fuse-ld=gold', '-Wl,--strip-all'])


def initramfs(names):
    """The rig's, and more programs in its /bin."""
    root = OUT / 'root'
    shutil.rmtree(root, ignore_errors=True)
    (root / 'bin').mkdir(parents=True)
    for name in names:
        shutil.copy(OUT / name, root / 'bin')
    archive = subprocess.run(
        'find . | sort | cpio --quiet -o -H newc | gzip -1', cwd=root,
        shell=True, check=True, stdout=subprocess.PIPE).stdout
    (OUT / 'rig.gz').write_bytes((KERNEL / 'rig.gz').read_bytes() + archive)


def machine(setting):
    return l1.L1(str(QEMU / 'qemu-system-x86_64'), f'{KERNEL}/bzImage',
                 str(OUT / 'rig.gz'), setting)


# --- a launch as it should be ----------------------------------------------

def bad_end(status, said, calls):
    """Why a launch is not as it should be, or nothing."""
    wrong = c.unlawful(calls)
    if wrong or status:
        return f'status {status}, {(wrong or bad.messages(said))[:1]}'
    if not bad.final(calls):
        return 'the launch is not final'
    return sealed_late(calls)


def sealed_late(calls):
    """
    Memory that became private after the launch, and not for the guest; QEMU
    probes KVM again with a page.
    """
    ended = False
    for line in calls:
        if line.startswith('EXIT_HYPERCALL'):
            break
        if ended and 'SET_MEMORY_ATTRIBUTES' in line and \
                'attributes=8' in line and 'size=0x1000 ' not in line:
            return f'after the end of the launch: {line}'
        ended = ended or bad.final([line])
    return ''


def memory_answer(said):
    """query-guest-memfd's, of the lines of QMP."""
    answers = [json.loads(line).get('return') for line in said
               if line.startswith('{')]
    return next(answer for answer in answers
                if answer and 'backends' in answer)


async def launch_wrong(machine_, platform, qemu):
    """The plain one: what is measured, and that the rest is private."""
    status, said, calls = await c.launch(machine_, platform, qemu=qemu,
                                         backends=2, commands=LOOK)
    why = bad_end(status, said, calls)
    if why:
        return why
    if c.measurement(calls) != c.expected_measurement(platform):
        return 'the measurement is not that of the image'
    info = memory_answer(said)
    if info['provider'] != 'kvm-in-place' or info['phase'] != 'running':
        return f'{info["provider"]}, phase {info["phase"]}'
    public = [b['name'] for b in info['backends']
              if b['private-bytes'] != b['size']]
    return f'not private: {public}' if public else ''


async def snp_wrong(machine_, qemu):
    status, said, calls = await c.launch(machine_, 'snp', qemu=qemu,
                                         **bad.HASHES)
    why = bad_end(status, said, calls)
    if why:
        return f'kernel hashes: {why}'
    status, said, calls = await c.launch(
        machine_, 'snp', 'SNP_LAUNCH_UPDATE:5:EIO:0x16', qemu=qemu)
    values = re.search(r'provided: eax:(\S+), .* expected: eax:(\S+),',
                     ' '.join(said))
    if status != 1 or not values or \
            int(values[1], 16) ^ int(values[2], 16) != 1:
        return f'the corrected CPUID: status {status}, {said}'
    return ''


async def tdx_wrong(machine_, qemu):
    for failure in bad.PASSING['tdx']:
        why = bad_end(*await c.launch(machine_, 'tdx', failure, qemu=qemu))
        if why:
            return f'{failure}: {why}'
    return ''


async def wrong(machine_, platform, qemu):
    more = snp_wrong if platform == 'snp' else tdx_wrong
    return await launch_wrong(machine_, platform, qemu) or \
        await more(machine_, qemu)


# --- mutations --------------------------------------------------------------

class Mutation:
    def __init__(self, path):
        self.name = path.stem
        lines = path.read_text().splitlines()
        self.what = lines[1].removeprefix('# ')
        self.file = next(line for line in lines if line in FILES)
        self.platform = 'snp' if 'sev' in self.file else 'tdx'
        self.hunks = []
        for line in lines[lines.index(self.file):]:
            if line == self.file:
                self.hunks.append(([], []))
            for side, mark in enumerate('-+'):
                if line[0] in ' ' + mark:
                    self.hunks[-1][side].append(line[1:])

    def apply(self):
        text = (SRC / self.file).read_text()
        for old, new in self.hunks:
            old, new = ('\n'.join(['', *lines, '']) for lines in (old, new))
            if text.count(old) != 1:
                raise RuntimeError(f'its lines are there {text.count(old)} '
                                   'times, not once')
            text = text.replace(old, new)
        path = OUT / f'{self.name}.c'
        path.write_text(text)
        return {self.file: path}


async def judge(tap, batch):
    """In a machine that has these few: the kernel unpacks them slowly."""
    initramfs([mutation.name for mutation in batch])
    async with machine(SETTINGS[0]) as one:
        for mutation in batch:
            why = await wrong(one, mutation.platform,
                              f'/bin/{mutation.name}')
            tap.result(bool(why), f'{mutation.name}: '
                       f'{"found: " + why[:150] if why else "SURVIVED"}',
                       mutation.what)


async def check_unmutated(tap):
    initramfs([])
    async with machine(SETTINGS[0]) as one:
        for platform in c.PLATFORMS:
            why = await wrong(one, platform, '/bin/qemu')
            tap.result(not why, f'{platform}: the unmutated QEMU launches',
                       why)


async def check_mutations(tap, wanted):
    mutations = [Mutation(path) for path in sorted(
        (ROOT / 'tests/mutation/launch').glob('*.mutation'))]
    mutations = [m for m in mutations if not wanted or m.name in wanted]
    built = []
    for mutation in mutations:
        try:
            build(mutation.name, mutation.apply())
            built.append(mutation)
        except RuntimeError as error:
            tap.result(False, f'{mutation.name}: STALE', str(error))
    await check_unmutated(tap)
    for first in range(0, len(built), BATCH):
        await judge(tap, built[first:first + BATCH])


# --- lines ------------------------------------------------------------------

def added_lines(file):
    """{number: text} of the lines that patches add."""
    text = subprocess.run(['git', '-C', SRC, 'diff', '-U0', 'base', 'HEAD',
                           '--', file], check=True, capture_output=True,
                          text=True).stdout
    found, number = {}, 0
    for line in text.splitlines():
        hunk = re.match(r'@@ -\S+ \+(\d+)', line)
        if hunk:
            number = int(hunk[1])
        elif line.startswith('+') and not line.startswith('+++'):
            found[number] = line[1:]
            number += 1
    return found


async def fetch_counters(one, file):
    name = f'lines-{Path(file).name}.gcda'
    await one.type(f'f=$(find {COUNTERS} -name "{name}"); '
                   '[ -z "$f" ] || gzip -c $f | base64; echo "@@end"')
    lines = []
    while not (lines and lines[-1] == '@@end'):
        lines.append(await one.line())
    return gzip.decompress(base64.b64decode(''.join(lines[:-1])))


def count_lines(file):
    """{number: how often}, of lines with code."""
    name = f'lines-{Path(file).name}'
    text = subprocess.run(['gcov', '--json-format', '--stdout', '-o', OUT,
                           str(OUT / f'{name}.gcda')], check=True,
                          capture_output=True, text=True, cwd=QEMU).stdout
    counts = {}
    for line in text.splitlines():
        for entry in json.loads(line)['files']:
            if entry['file'].endswith(file):
                for at in entry['lines']:
                    number = at['line_number']
                    counts[number] = counts.get(number, 0) + at['count']
    return counts


class Quiet(TapOut):
    """Rows whose verdicts do not count here."""

    def result(self, good, name, detail=''):
        self.number += 1


MORE = {
    'snp': (bad.HASHES, {'fail': 'SNP_LAUNCH_UPDATE:1-2000:EAGAIN'},
            {'fail': 'SNP_LAUNCH_UPDATE:5:EIO:0x16'},
            {'fail': 'EXIT_HYPERCALL:1:EINVAL'}),
    'tdx': ({'fail': 'TDX_INIT_MEM_REGION:1:EIO'},),
}


def last_private(calls):
    """The number of the call that made the first page of a launch private."""
    number = 0
    for line in calls:
        if line.startswith('SNP_LAUNCH_UPDATE'):
            break
        number += ('SET_MEMORY_ATTRIBUTES ' in line and
                   'attributes=8' in line)
    return number


async def exercise(one, platform, setting):
    """The rows of make check-kvm that launch, without their verdicts."""
    if setting == SETTINGS[0]:
        for row in (bad.errors_row, bad.passing_row, bad.images_row,
                    bad.early_row):
            await row(one, Quiet(), setting, platform)
    _, _, calls = await c.launch(one, platform, backends=2,
                                 commands=QUESTIONS)
    first = last_private(calls)
    await c.launch(one, platform, f'SET_MEMORY_ATTRIBUTES:{first}:EIO',
                   backends=2)
    for arguments in MORE[platform]:
        await c.launch(one, platform, **arguments)


def unreached_by_reason():
    lines = (ROOT / 'tests/kvm/launch-unreached').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def report(tap, file, counts):
    allowed = unreached_by_reason()
    added = {number: text for number, text in added_lines(file).items()
             if number in counts}
    missed = {number: text for number, text in added.items()
              if not counts[number]}
    known = {number for number, text in missed.items()
             if text.strip() in allowed}
    left = [f'{number}: {missed[number]}' for number in missed
            if number not in known]
    tap.result(added and not left,
               f'{file}: {len(added) - len(missed)} of {len(added)} lines '
               f'that patches add are reached, {len(known)} cannot be',
               '\n'.join(left))


async def check_lines(tap, _):
    build('lines', {file: SRC / file for file in FILES},
          ('--coverage', '-O0', '-U_FORTIFY_SOURCE'))
    shutil.copy(OUT / 'lines', OUT / 'qemu')
    initramfs(['qemu'])
    totals = {file: {} for file in FILES}
    for setting in SETTINGS:
        async with machine(setting) as one:
            await one.type(f'export GCOV_PREFIX={COUNTERS}')
            for platform in c.PLATFORMS:
                await exercise(one, platform, setting)
            for file in FILES:
                (OUT / f'lines-{Path(file).name}.gcda').write_bytes(
                    await fetch_counters(one, file))
        for file in FILES:
            for number, count in count_lines(file).items():
                total = totals[file]
                total[number] = total.get(number, 0) + count
    for file in FILES:
        report(tap, file, totals[file])


def main():
    what = {'lines': check_lines, 'mutations': check_mutations}
    if len(sys.argv) < 2 or sys.argv[1] not in what:
        sys.exit(__doc__)
    OUT.mkdir(parents=True, exist_ok=True)
    tap = TapOut()
    return tap.run(what[sys.argv[1]](tap, sys.argv[2:]))


if __name__ == '__main__':
    sys.exit(main())
