# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that starts, and uses its devices."""

import asyncio
import os
import sys

import checks
from checks import VSOCK, VSOCK_PORT
from guest import DISKS, MIB
from machine import PROVIDER
from scenario import (BIND_AGAIN, FIND_DRIVERS, SLIRP, add_mem, busy, disks,
                      idle, is_private, Skip)

# Sends back what comes by vsock.
ECHO = '''
import socket, sys
server = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
server.bind((socket.VMADDR_CID_ANY, int(sys.argv[1])))
server.listen()
while True:
    peer, _ = server.accept()
    while data := peer.recv(65536):
        peer.sendall(data)
'''


async def boot(run, vcpus):
    """All that is emulated here, at once."""
    async with run.guest(vcpus=vcpus, extra=[
            *SLIRP, '-netdev', 'user,id=net1',
            '-device', 'e1000e,netdev=net1,romfile=',
            '-device', 'virtio-rng-pci']) as guest:
        memory = await is_private(run, guest)
        run.say(f"{memory['private'] // MIB} MiB private")
        await disks(run, guest)
        for name in DISKS:
            await checks.disk_image(guest, run.sums, name, 8)
        for name in ('eth0', 'eth1'):
            await checks.network(guest, run.sums, name, 2)
        await checks.memory(guest, run.sums, 256)
        lines = await guest.run('cat /sys/class/misc/hw_random/rng_current; '
                                'head -c 64 /dev/hwrng | wc -c')
        run.good(lines[-1] == '64', f'virtio-rng: {lines}')
        await counted(run, guest)


async def counted(run, guest):
    """Guest and QEMU have counted the same requests."""
    counts = await guest.counts()
    asked = counts['to_private'][0] + counts['to_shared'][0] + \
        counts['retries'][0]
    info = await guest.execute('query-guest-memfd')
    heard = sum(backend['stats']['origins']['hypercall']
                for backend in info['backends'])
    run.good(asked == heard, f'the guest asked {asked} times, QEMU {heard}')
    run.good(counts['failures'][0] == 0, f'failures: {counts}')


async def poison(run):
    """No byte is there that nobody promised."""
    async with run.guest(boot=False, extra=['-S', *SLIRP]) as guest:
        await guest.execute('qom-set', {'path': PROVIDER,
                                        'property': 'poison', 'value': True})
        await guest.execute('cont')
        await guest.ready()
        await is_private(run, guest)
        await disks(run, guest)
        await checks.network(guest, run.sums, mib=2)


async def iothreads(run):
    """A disk whose requests are served by threads of their own."""
    disks_here = {**DISKS, 'vda': [
        '-device', '{"driver": "virtio-blk-pci", "drive": "vda", '
        '"num-queues": 4, "iothread-vq-mapping": '
        '[{"iothread": "thread0"}, {"iothread": "thread1"}]}']}
    async with run.guest(vcpus=4, disks=disks_here, extra=[
            '-object', 'iothread,id=thread0',
            '-object', 'iothread,id=thread1']) as guest:
        await disks(run, guest, mib=16)


E1000 = ['-netdev', 'user,id=net1', '-device', 'e1000,netdev=net1,romfile=']
LOAD_AGAIN = 'insmod /lib/e1000.ko || echo failed; rmmod e1000 || echo failed; '


async def module(run, rounds=10):
    """A driver is loaded, its network card used, and unloaded, 10 times."""
    async with run.guest(extra=E1000) as guest:
        before = await guest.memory()
        for _ in range(rounds):
            await guest.run('insmod /lib/e1000.ko')
            await checks.network(guest, run.sums, mib=1)
            await guest.run('rmmod e1000')
        after = await guest.memory()
        count = after['requests'] - before['requests']
        run.say(f'{count} conversions in {rounds} rounds')
        run.good(count >= 2 * rounds, f'only {count} conversions')
        run.good(after['private'] > before['private'] - 16 * MIB,
                 f"{before['private']} private bytes, now {after['private']}")


async def stress(run):
    """Memory and nvme are busy while drivers are bound and loaded again."""
    seconds = run.options['seconds']
    async with run.guest(vcpus=4, extra=[
            *SLIRP, *E1000, '-device', 'virtio-rng-pci']) as guest:
        await busy(guest)
        await guest.run(f'(mem 128 {seconds} & mem 96 {seconds} & wait) '
                        '> /tmp/mem.log 2>&1 & echo $! > /tmp/mem.pid')
        lines = await guest.run(
            FIND_DRIVERS + 'c=0; while kill -0 $(cat /tmp/mem.pid) '
            f'2>/dev/null; do {BIND_AGAIN} {LOAD_AGAIN} c=$((c + 1)); '
            'done; echo $c', seconds + 300)
        run.say(f'{lines[-1]} rounds in {seconds} s')
        run.good(len(lines) == 1, str(lines[:5]))
        await idle(run, guest)
        await add_mem(run, await guest.run('cat /tmp/mem.log'), 2)
        await disks(run, guest)


async def queues(run, count=16):
    """One queue and one interrupt of each disk for every vCPU."""
    disks_here = {
        'vda': ['-device', f'virtio-blk-pci,drive=vda,num-queues={count}'],
        'nvme0n1': ['-device', 'nvme,serial=gmem,drive=nvme0n1,'
                    f'max_ioqpairs={count},msix_qsize={count + 1}']}
    async with run.guest(vcpus=count, disks=disks_here) as guest:
        for name in disks_here:
            lines = await guest.run(f'ls /sys/block/{name}/mq | wc -l')
            run.good(lines[-1] == str(count), f'{name}: {lines} queues')
        lines = await guest.run(' '.join([
            *(f'(taskset {1 << cpu:x} io /dev/{name} {cpu * 2} 2 {cpu} '
              'direct) &' for cpu in range(count) for name in disks_here),
            'wait']), 300)
        results = [checks.read_io([line]) for line in lines]
        results = [result for result in results if result]
        run.good(len(results) == 2 * count, f'{lines[-3:]}')
        for result in results:
            run.sums.add(result[1], result[2])


async def channels(run, mib=1):
    """A serial port of virtio, and a folder of the host's."""
    folder = os.path.join(run.directory, 'folder')
    os.mkdir(folder)
    port = os.path.join(run.directory, 'port')
    async with run.guest(extra=[
            '-device', 'virtio-serial-pci',
            '-chardev', f'file,id=port,path={port}',
            '-device', 'virtserialport,chardev=port,name=gmem',
            '-virtfs', f'local,path={folder},mount_tag=folder,'
            'security_model=none']) as guest:
        lines = await guest.run(
            f'head -c {mib * MIB} /dev/urandom > /tmp/f; cat /tmp/f > '
            '$(ls /dev/vport*p1); mkdir /mnt/f; mount -t 9p -o trans=virtio,'
            'version=9p2000.L folder /mnt/f; cp /tmp/f /mnt/f/new; '
            'cat /mnt/f/new | sha256sum; sha256sum < /tmp/f')
        sums = [line.split()[0] for line in lines]
        for path in (port, os.path.join(folder, 'new')):
            sums.append(checks.sha256_of_file(path, mib * MIB))
        same = len(set(sums)) == 1
        run.good(same, f'sums: {sums}')
        run.sums.add(3 * mib * MIB, 0 if same else mib * MIB)


async def vsock(run):
    """Bytes go to the host by vsock and come back."""
    if not os.path.exists('/dev/vhost-vsock'):
        raise Skip('no /dev/vhost-vsock; vhost-user-vsock is refused, as all '
                   'of vhost-user is: the nested scenarios try it')
    async with run.guest(extra=VSOCK) as guest:
        server = await asyncio.create_subprocess_exec(
            sys.executable, '-c', ECHO, VSOCK_PORT)
        try:
            await checks.vsock(guest, run.sums)
        finally:
            server.kill()
            await server.wait()


async def pixels(guest, color):
    """How many pixels of the screen have this color, and how many not."""
    path = os.path.join(guest.directory, 'screen')
    await guest.execute('screendump', {'filename': path})
    with open(path, 'rb') as file:
        data = file.read()
    width, height = (int(word) for word in data.split(maxsplit=3)[1:3])
    body = data[-width * height * 3:]
    same = sum(body[i:i + 3] == color for i in range(0, len(body), 3))
    return same, width * height - same


async def vga(run):
    """The text of the console is on the screen."""
    async with run.guest(extra=['-device', 'VGA'],
                         cmdline='console=tty0 console=ttyS0') as guest:
        before, _ = await pixels(guest, bytes(3))
        await guest.run(r"printf '\033[2J' > /dev/tty0")
        cleared, _ = await pixels(guest, bytes(3))
        await guest.run('seq 1000 > /dev/tty0')
        black, other = await pixels(guest, bytes(3))
        run.say(f'{other} of {black + other} pixels are text')
        run.good(before < cleared > black and other > 1000,
                 f'black pixels: {before}, {cleared}, {black}')
        await disks(run, guest)


async def gpu(run):
    """What the guest paints is on the host's screen."""
    async with run.guest(extra=['-device', 'virtio-gpu-pci,xres=640,'
                                'yres=480']) as guest:
        lines = await guest.run('cat /sys/class/graphics/fb0/virtual_size '
                                '/sys/class/graphics/fb0/stride')
        width, height = (int(word) for word in lines[0].split(','))
        await guest.run(f"head -c {height * int(lines[1])} /dev/zero | "
                        r"tr '\0' '\377' > /dev/fb0; sleep 1")
        white, other = await pixels(guest, b'\xff' * 3)
        run.say(f'{width}x{height}, {white} pixels are white')
        run.good(white > other * 50, f'{white} white pixels, {other} others')
        await disks(run, guest)
