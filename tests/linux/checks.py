# SPDX-License-Identifier: GPL-2.0-or-later
"""What is tried in a guest: each returns how many bytes it checked."""

import asyncio
import contextlib
import hashlib
import http.server
import os
import re
import threading

from guest import MIB

IO = re.compile(r'io (\S+) bytes=(\d+) bad=(\d+) ms=(\d+)')
MEM = re.compile(r'mem bytes=(\d+) bad=(\d+)')
VSOCK_PORT = '1234'
VSOCK = ['-device', 'vhost-vsock-pci,guest-cid=3']


class Mismatch(Exception):
    """Bytes are not those that were written."""


class Sums:
    """Bytes checked, and bytes that were wrong."""

    def __init__(self):
        self.bytes = 0
        self.bad = 0

    def add(self, count, bad):
        self.bytes += count
        self.bad += bad


def sha256_of_file(path, size):
    digest = hashlib.sha256()
    with open(path, 'rb') as image:
        digest.update(image.read(size))
    return digest.hexdigest()


def read_io(lines):
    """The last 'io ...' line: device, bytes, bad bytes, milliseconds."""
    for line in reversed(lines):
        match = IO.search(line)
        if match:
            return match[1], int(match[2]), int(match[3]), int(match[4])
    return None


async def disk(guest, sums, name, mib=16, seed=1):
    """Write and read, through the page cache and past it."""
    rates = []
    for first, mode in ((0, ''), (mib, 'direct')):
        status, lines = await guest.ended(await guest.start(
            f'io /dev/{name} {first} {mib} {seed} {mode}'))
        result = read_io(lines)
        if not result or status not in (0, 1):
            raise guest.failure(f'io on {name} failed')
        sums.add(result[1], result[2])
        rates.append(2 * mib * 1000 // max(result[3], 1))
    return rates


async def disk_image(guest, sums, name, mib=32):
    """The image on the host holds what the guest reads from its disk."""
    lines = await guest.run(f'dd if=/dev/{name} bs=1M count={mib} '
                            '2>/dev/null | sha256sum')
    path = os.path.join(guest.directory, name)
    same = lines[-1].split()[0] == sha256_of_file(path, mib * MIB)
    sums.add(mib * MIB, 0 if same else mib * MIB)


@contextlib.contextmanager
def served_file(directory, mib):
    """A file of random bytes, served to the guest by HTTP."""
    path = os.path.join(directory, 'file')
    with open(path, 'wb') as served:
        served.write(os.urandom(mib * MIB))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=directory)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, sha256_of_file(path, mib * MIB)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def network(guest, sums, name='eth0', mib=8, pings=3):
    """Ping the gateway of -netdev user, and download from the host."""
    await guest.run(f'ip addr add 10.0.2.15/24 dev {name}; '
                    f'ip link set {name} up; until [ "$(cat /sys/class/net/'
                    f'{name}/carrier)" = 1 ]; do usleep 10000; done')
    await guest.run(f'ping -c {pings} -i 0.2 -W 5 10.0.2.2 >/dev/null')
    with served_file(guest.directory, mib) as (port, digest):
        lines = await guest.run('wget -q -O - http://10.0.2.2:'
                                f'{port}/file | sha256sum')
    same = lines[-1].split()[0] == digest
    sums.add(mib * MIB, 0 if same else mib * MIB)
    await guest.run(f'ip addr flush dev {name}; ip link set {name} down')


async def vsock(guest, sums, mib=1):
    """The host sends back what the guest sends."""
    lines = await guest.run(f'vsock 2 {VSOCK_PORT} {mib * MIB}')
    match = re.search(r'vsock bytes=(\d+) bad=(\d+)', lines[-1])
    sums.add(int(match[1]), int(match[2]))


async def memory(guest, sums, mib, seconds=0):
    lines = await guest.run(f'mem {mib} {seconds}', limit=seconds + 300)
    match = MEM.search(lines[-1])
    sums.add(int(match[1]), int(match[2]))


async def plug(guest, name, mib=256, kind='ram'):
    """Plug memory and wait until it is online; returns its state in QEMU."""
    before = int((await guest.run('grep MemTotal /proc/meminfo'))[-1]
                 .split()[1])
    await guest.execute('object-add', {'qom-type': f'memory-backend-{kind}',
                                       'id': f'mem-{name}',
                                       'size': mib * MIB})
    await guest.execute('device_add', {'driver': 'pc-dimm', 'id': name,
                                       'memdev': f'mem-{name}'})
    for _ in range(100):
        now = int((await guest.run('grep MemTotal /proc/meminfo'))[-1]
                  .split()[1])
        if now - before >= mib * 1024 * 95 // 100:
            break
        await asyncio.sleep(0.1)
    else:
        raise guest.failure(f'{name}: memory does not go online')
    info = await guest.execute('query-guest-memfd')
    return [backend['private-bytes'] for backend in info['backends']
            if f'mem-{name}' in backend['name']][0]


async def reboot(guest):
    await guest.type('reboot -f')
    await guest.ready()
