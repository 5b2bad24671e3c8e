# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that starts again, or sleeps."""

import os

import checks
from guest import MIB
from scenario import disks, is_private


async def reboot(run):
    """Three times: memory is private again."""
    async with run.guest() as guest:
        await disks(run, guest)
        for _ in range(3):
            await checks.reboot(guest)
            await is_private(run, guest)
            await disks(run, guest)


async def system_reset(run):
    """Three times, while it does I/O: memory is private again."""
    async with run.guest() as guest:
        for _ in range(3):
            await guest.type('while io /dev/vda 0 4 1; do :; done')
            await guest.until('io /dev/vda bytes=')
            await guest.execute('system_reset')
            await guest.ready()
            await is_private(run, guest)
        await disks(run, guest)


async def suspend(run):
    """
    S3 and back: private memory is what it was.  Once: the second time Linux
    wakes up at once, without protection, too.
    """
    async with run.guest() as guest:
        await guest.run('head -c 16777216 /dev/urandom > /tmp/kept')
        before = await guest.run('sha256sum /tmp/kept')
        private = (await guest.memory())['private']
        number = await guest.start('echo mem > /sys/power/state')
        await guest.event('SUSPEND')
        await guest.execute('system_wakeup')
        await guest.ended(number)
        run.good(await guest.run('sha256sum /tmp/kept') == before,
                 'memory is not what it was')
        run.sums.add(16 * MIB, 0)
        now = (await guest.memory())['private']
        run.good(now == private, f'private bytes: {private}, now {now}')
        await disks(run, guest)


def shared_folder(run):
    """The kernel and its initramfs, for the guest to start."""
    folder = os.path.dirname(run.files[1])
    other = os.path.dirname(run.files[2])
    return ['-virtfs', f'local,path={folder},mount_tag=kernel,'
            'security_model=none,readonly=on',
            '-virtfs', f'local,path={other},mount_tag=initrd,'
            'security_model=none,readonly=on']


async def kexec_command(run, guest, cmdline, when=''):
    await guest.run('mkdir -p /mnt/k /mnt/i; '
                    'mount -t 9p -o trans=virtio,version=9p2000.L kernel '
                    '/mnt/k; mount -t 9p -o trans=virtio,version=9p2000.L '
                    'initrd /mnt/i')
    kernel, initrd = (os.path.basename(path) for path in run.files[1:])
    return (f"kexec /mnt/k/{kernel} /mnt/i/{initrd} "
            f"'console=ttyS0 loglevel=6 panic=-1 {cmdline}' {when}")


async def kexec(run):
    """Twice: the next kernel finds shared what it must, and goes on."""
    async with run.guest(extra=shared_folder(run)) as guest:
        await disks(run, guest)
        for number in range(2):
            await guest.type(await kexec_command(run, guest,
                                                 f'again={number}'))
            await guest.ready()
            line = await guest.run('cat /proc/cmdline')
            run.good(f'again={number}' in line[-1], str(line))
            await is_private(run, guest)
            await disks(run, guest)


async def crash(run):
    """The kernel crashes; another one finds its log in the vmcore."""
    marker = os.urandom(16).hex()
    async with run.guest(extra=shared_folder(run),
                         cmdline='crashkernel=192M') as guest:
        await disks(run, guest)
        await guest.run(await kexec_command(
            run, guest, 'crashed=yes nr_cpus=1 reset_devices', 'panic'))
        await guest.run(f'echo {marker} > /dev/kmsg')
        await guest.type('echo c > /proc/sysrq-trigger')
        await guest.ready()
        guest.trouble.clear()           # the crash that was asked for
        line = await guest.run('cat /proc/cmdline')
        run.good('crashed=yes' in line[-1], str(line))
        lines = await guest.run('stat -c %s /proc/vmcore; strings -n 32 '
                                f'/proc/vmcore | grep -c {marker}', 300)
        run.say(f'vmcore of {int(lines[0]) // MIB} MiB')
        run.good(int(lines[1]) > 0, 'the old log is not in the vmcore')
        await disks(run, guest)
