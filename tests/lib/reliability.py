# SPDX-License-Identifier: GPL-2.0-or-later
"""What fuzz, sanitize, mutation and coverage share."""

import concurrent.futures
import fcntl
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / 'build'
QEMU = BUILD / 'qemu'
FIGURES = BUILD / 'reliability' / 'figures'
PACKAGES = ('clang-14', 'libclang-rt-14-dev', 'llvm-14')
TARGETS = ('engine', 'testdev', 'probe')
# Seconds after which a test hangs that takes less than a minute: the machine may be busy with other things.
LONG = 3600

# All files of the product.
OURS = tuple(sorted(str(path.relative_to(ROOT)) for directory in ('accel', 'backends', 'hw', 'system', 'target')
                    for path in (ROOT / directory).rglob('*.c')))

SANITIZERS = {
    'asan': '-O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer '
            '-D__SANITIZE_ADDRESS__',
    # Without inlining, a suppression can name the one function it is about.
    'tsan': '-O1 -fno-inline -fsanitize=thread',
}


class Tap:
    def __init__(self):
        self.number = self.failed = 0
        self.lock = threading.Lock()

    def result(self, good, text, why=''):
        with self.lock:
            self.number += 1
            self.failed += not good
            print(f'{"" if good else "not "}ok {self.number} - {text}', flush=True)
            for line in why.splitlines() if not good else ():
                print(f'#   {line}')

    def note(self, text):
        print(f'# {text}', flush=True)

    def done(self):
        print(f'1..{self.number}', flush=True)
        return 1 if self.failed else 0


def prepare(what):
    """Install what is needed, keep others out, and start new figures."""
    subprocess.run([ROOT / 'scripts' / 'install-packages', *PACKAGES], check=True, stdout=sys.stderr)
    if not (QEMU / 'libqemuutil.a').exists():
        sys.exit("error: there is no build/qemu\n  remedy: run make build")
    FIGURES.mkdir(parents=True, exist_ok=True)
    # Kept open until the program ends.
    lock = os.open(BUILD / 'reliability' / f'{what}.lock', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)


def figures(what):
    """Those of the last run, or None."""
    path = FIGURES / f'{what}.json'
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else None


def keep_figures(what, figures):
    (FIGURES / f'{what}.json').write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')


def programs(pattern):
    names = subprocess.run(['ninja', '-C', QEMU, '-t', 'targets', 'all'], check=True, capture_output=True,
                           text=True).stdout
    return sorted(set(re.findall(f'^({pattern}): ', names, re.M)))


def unit_tests():
    """All but the one whose code counts itself: it has instruments of its own."""
    return [name for name in programs(r'tests/unit/test-guest-memfd-[\w-]+') if not name.endswith('-scale')]


def qtests():
    return programs(r'tests/qtest/guest-memfd-[\w-]*test')


def fuzz_sources():
    return [f'tests/fuzz/guest-memfd-{name}-fuzz.c' for name in TARGETS]


def instrument(out, flags, names, tree=None):
    command = [ROOT / 'tests' / 'reliability' / 'instrument', out, '--flags', flags]
    command += ['--tree', tree] if tree else []
    build = subprocess.run([*command, *names], check=False, stderr=subprocess.PIPE, text=True)
    return build.stderr if build.returncode else ''


def run(command, seconds, **variables):
    """Run in build/qemu; returns the exit status (None: too slow) and the output."""
    environment = {**os.environ, **{k: str(v) for k, v in variables.items()}}
    environment['G_TEST_BUILDDIR'] = str(QEMU / 'tests' / 'unit')
    environment['G_TEST_SRCDIR'] = str(BUILD / 'src' / 'tests' / 'unit')
    with subprocess.Popen(command, cwd=QEMU, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors='replace', start_new_session=True) as process:
        try:
            output = process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            return None, process.communicate()[0]
    return process.returncode, output


def at_once(calls):
    """Functions with their arguments, as many at a time as there are processors; returns what they return."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [call.result() for call in [pool.submit(*call) for call in calls]]


def passed(output):
    return len(re.findall(r'^ok \d+', output, re.M))


def expand_corpus(name, directory):
    """The kept corpus holds an input a line, in hexadecimal digits; .seeds were written by hand."""
    directory.mkdir(parents=True, exist_ok=True)
    inputs = []
    for suffix in ('corpus', 'seeds'):
        path = ROOT / 'tests' / 'fuzz' / f'guest-memfd-{name}.{suffix}'
        if not path.exists():
            continue
        inputs += [line for line in path.read_text(encoding='utf-8').splitlines() if not line.startswith('#')]
    return write_inputs([bytes.fromhex(line) for line in inputs], directory)


def write_inputs(inputs, directory):
    for number, data in enumerate(inputs):
        (directory / f'kept-{number:04}').write_bytes(data)
    return len(inputs)


def keep_corpus(name, directory):
    path = ROOT / 'tests' / 'fuzz' / f'guest-memfd-{name}.corpus'
    inputs = sorted({f.read_bytes() for f in directory.iterdir()}, key=lambda data: (len(data), data))
    text = ''.join(f'{data.hex()}\n' for data in inputs if data)
    path.write_text('# SPDX-License-Identifier: GPL-2.0-or-later\n'
                    f'# Inputs of guest-memfd-{name}-fuzz, one a line; made by: tests/fuzz/check --keep\n{text}',
                    encoding='utf-8')
    return len(inputs)
