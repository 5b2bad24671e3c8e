# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host does with a guest, or may not."""

import asyncio
import os

from guest import DISKS, MIB
from machine import Failure
from scenario import busy, disks, idle
from vmcore import Vmcore


async def stop(run, rounds=10):
    """The machine stands still for a moment, in the middle of I/O."""
    async with run.guest() as guest:
        await busy(guest)
        for _ in range(rounds):
            await guest.execute('stop')
            one = await guest.memory()
            await asyncio.sleep(0.1)
            run.good(await guest.memory() == one,
                     'conversions while it is stopped')
            await guest.execute('cont')
            await asyncio.sleep(0.1)
        await idle(run, guest)
        await disks(run, guest)


async def refused(run, guest, command, arguments, word):
    try:
        await guest.execute(command, arguments)
        run.good(False, f'{command} was accepted')
    except Failure as failure:
        text = str(failure).splitlines()[0]
        run.good(word in text, f'{command}: {text}')


async def snapshot(run):
    """Both are refused, and the guest goes on.  nvme refuses by itself."""
    async with run.guest(disks={'vda': DISKS['vda']}) as guest:
        await busy(guest, 'vda')
        said = await guest.hmp('savevm one')
        run.good('guest' in said, f'savevm: {said}')
        await refused(run, guest, 'migrate',
                      {'uri': f'file:{guest.directory}/state'}, 'guest')
        await idle(run, guest)
        await disks(run, guest, ['vda'])


async def remote(path, *packets):
    """What QEMU's gdb stub answers."""
    reader, writer = await asyncio.open_unix_connection(path)
    answers = []
    for packet in packets:
        total = sum(packet.encode()) % 256
        writer.write(f'${packet}#{total:02x}'.encode())
        await reader.readuntil(b'$')
        answers.append((await reader.readuntil(b'#'))[:-1].decode())
        await reader.readexactly(2)
        writer.write(b'+')
    writer.write(b'$D#44')
    await reader.readuntil(b'#')
    writer.close()
    return answers


async def debuggers(run):
    """The host cannot read private memory, and says so."""
    path = os.path.join(run.directory, 'gdb')
    async with run.guest(extra=[
            '-gdb', f'unix:{path},server=on,wait=off']) as guest:
        address = 512 * MIB             # nothing but private there
        said = await guest.hmp(f'xp /8xb {address}')
        run.good('annot' in said, f'xp: {said}')
        await refused(run, guest, 'pmemsave', {
            'val': address, 'size': 4096,
            'filename': os.path.join(run.directory, 'page')}, 'private')
        symbol = (await guest.run("grep ' T _stext$' /proc/kallsyms"))[-1]
        registers, code = await remote(
            path, 'g', f'm{symbol.split()[0]},10')
        run.good(len(registers) > 256, f'registers: {registers}')
        run.good(code.startswith('E'), f'code of the kernel: {code}')
        await guest.execute('cont')
        await disks(run, guest)


async def kernel_debugging(run):
    """With debug=on, gdb sees the kernel; devices do not."""
    path = os.path.join(run.directory, 'gdb')
    async with run.guest(guest_options=',debug=on', extra=[
            '-gdb', f'unix:{path},server=on,wait=off']) as guest:
        symbol = (await guest.run("grep ' T _stext$' /proc/kallsyms"))[-1]
        [code] = await remote(path, f'm{symbol.split()[0]},10')
        await guest.execute('cont')
        run.good(len(code) == 32 and code.strip('0'), f'code: {code}')
        said = await guest.hmp(f'x /4xb 0x{symbol.split()[0]}')
        run.good(said.split()[1:] == [f'0x{code[i:i + 2]}' for i in
                                      range(0, 8, 2)], f'x: {said}, {code}')
        await disks(run, guest)


async def dump(run):
    """dump-guest-memory has the shared pages only."""
    marker = os.urandom(16)
    async with run.guest() as guest:
        await guest.run(f'echo {marker.hex()} > /tmp/secret')
        await disks(run, guest)
        path = os.path.join(guest.directory, 'dump')
        await refused(run, guest, 'dump-guest-memory', {
            'paging': True, 'protocol': f'file:{path}'}, 'private')
        await guest.execute('dump-guest-memory', {
            'paging': False, 'protocol': f'file:{path}'})
        with open(path, 'rb') as file:
            data = file.read()
        run.say(f'{len(data) // MIB} MiB')
        run.good(marker.hex().encode() not in data,
                 'the secret is in the dump')
        memory = await guest.memory()
        run.good(len(data) < memory['shared'] + 16 * MIB,
                 f"{len(data)} bytes, of {memory['shared']} shared")
        await disks(run, guest)


async def dump_whole(run):
    """With debug=on a dump is whole: a tool finds the kernel's log in it."""
    marker = os.urandom(16).hex()
    async with run.guest(guest_options=',debug=on', memory='512M',
                         extra=['-device', 'vmcoreinfo']) as guest:
        await guest.run(f'echo {marker} > /dev/kmsg')
        path = os.path.join(run.directory, 'dump')
        await guest.execute('dump-guest-memory', {
            'paging': False, 'protocol': f'file:{path}', 'detach': True})
        await guest.event('DUMP_COMPLETED', limit=300)
        lines = list(Vmcore(path).log())
        run.say(f'{os.path.getsize(path) // MIB} MiB, {len(lines)} lines of '
                'the log')
        run.good(marker in lines, 'the marker is not in the log')
        await disks(run, guest)


# An error that was found when nobody used the memory, as KVM's QEMU reports
# it: bits VAL, UC, EN, MISCV, ADDRV and S; MCIP and RIPV; a physical address.
FOUND = '0xbd000000000000c0 0x5 {:#x} 0x8c'
INTEL = 'max,vendor=GenuineIntel,family=6,model=143,stepping=8'


async def memory_error(run):
    """
    A process that has the private page gets SIGBUS; Linux does without the
    shared one.
    """
    async with run.guest(cpu=INTEL) as guest:
        number = await guest.start('hold 60')
        page = (await guest.until('hold gpa='))[-1]
        await guest.hmp('mce -b 0 9 ' + FOUND.format(
            int(page.partition('gpa=')[2], 16)))
        status, lines = await guest.ended(number)
        run.good(status == 0 and 'hold bad=0 code=4' in lines[-1], str(lines))
        lines = await guest.run("dmesg | sed -n 's/.*software IO TLB: mapped "
                                r"\[mem 0x[0-9a-f]*-0x\([0-9a-f]*\)\].*/\1/p'")
        end = int(lines[-1], 16) + 1
        await guest.hmp('mce -b 0 9 ' + FOUND.format(end - 4096))
        found = f'Memory failure: {(end >> 12) - 1:#x}: '
        lines = await guest.run(
            f"until dmesg | grep -q '{found}'; do usleep 100000; done; "
            f"dmesg | sed -n 's/.*{found}//p'")
        run.say(f'of the shared one Linux says: {lines[-1]}')
        await disks(run, guest)


async def balloon(run):
    """
    Linux's driver does not take the device, so there is no free page
    reporting; nothing else suffers.
    """
    async with run.guest(extra=['-device',
                                'virtio-balloon-pci,free-page-reporting=on']) \
            as guest:
        lines = await guest.run('ls /sys/bus/virtio/drivers/virtio_balloon '
                                '| grep -c ^virtio; :')
        run.good(lines[-1] == '0', f'the driver has {lines} devices')
        await guest.execute('balloon', {'value': 512 * MIB})
        total = await guest.run('grep MemTotal /proc/meminfo')
        run.good(int(total[-1].split()[1]) > 800 * 1024, str(total))
        await disks(run, guest)
