# SPDX-License-Identifier: GPL-2.0-or-later
"""The same guest on real KVM: inside the rig, which runs under TCG.

The console of the rig is that of the guest, once it runs; QEMU's monitor
is on the rig's second serial port.
"""

import asyncio
import gzip
import os
import shlex
import shutil
import subprocess
import tempfile

from qemu.qmp import QMPError

from checks import VSOCK_PORT
from guest import DISKS, Guest, guest_arguments
from l1 import machine
from machine import Failure

RIG_BOOT_MAX = 240
# Deadlines of the inner guest's TSC pass unnoticed on KVM under TCG: it sleeps
# until another interrupt comes.  The APIC's own counter does not do that.
CPU = 'max,tsc-deadline=off'
VSOCK_PROGRAM = os.path.join(os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))), 'build/linux/vsock')


def append_files(to, rig, files):
    """A copy of the rig's initramfs, with these files in /guest."""
    with tempfile.TemporaryDirectory(prefix='gmem-rig-') as root:
        os.mkdir(f'{root}/guest')
        for name, path in files.items():
            shutil.copy(path, f'{root}/guest/{name}')
        names = ['guest', *(f'guest/{name}' for name in files)]
        archive = subprocess.run(
            ['cpio', '--quiet', '-o', '-H', 'newc'], cwd=root, check=True,
            input='\n'.join(names).encode(), stdout=subprocess.PIPE).stdout
    shutil.copy(rig, to)
    with open(to, 'ab') as both:
        both.write(gzip.compress(archive, 1))


def check_setting(setting):
    """KVM under TCG skips an instruction by emulating it."""
    if not setting.startswith('content-modes') and '+fixed' not in setting:
        raise Failure(
            f'setting {setting}: this KVM cannot emulate an instruction '
            'that is in private memory, as that of Linux is; '
            f'use SETTING={setting}+fixed')


class NestedGuest(Guest):
    def __init__(self, files, setting, host, rig, **options):
        check_setting(setting)
        self.setting = setting
        self.host = host
        self.rig = rig
        options = {'vcpus': 1, 'memory': '320M', 'cpu': CPU,
                   'machine': 'q35,smm=off', 'disks': {
                       name: DISKS[name] for name in ('vda', 'nvme0n1')},
                   **options}
        super().__init__(*files, **options)

    def arguments(self):
        """The rig, with what its guest boots in its initramfs."""
        qemu, kernel, initrd = self.files
        both = os.path.join(self.directory, 'rig.gz')
        append_files(both, self.rig, {'kernel': kernel, 'initrd': initrd,
                                      'vsock': VSOCK_PROGRAM})
        return [qemu, *machine(self.setting, self.host, both),
                '-run-with', 'exit-with-parent=on',
                '-chardev', 'stdio,id=com1,signal=off',
                '-serial', 'chardev:com1', '-chardev',
                f'socket,id=com2,path={self.socket},server=on,wait=off',
                '-serial', 'chardev:com2']

    def command(self):
        return shlex.join([
            '/bin/qemu', '-accel', 'kvm', '-L', '/firmware',
            '-chardev', 'serial,id=com1,path=/dev/ttyS0',
            '-serial', 'chardev:com1',
            '-chardev', 'serial,id=qmp,path=/dev/ttyS1',
            '-mon', 'chardev=qmp,mode=control',
            *guest_arguments('/tmp', '/guest/kernel', '/guest/initrd',
                             self.options)])

    async def __aenter__(self):
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.argv, stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, limit=1 << 20,
                stderr=asyncio.subprocess.STDOUT, start_new_session=True)
            await self.ready(RIG_BOOT_MAX)
            await self.prepare()
            await self.start_inner()
            await self.ready(RIG_BOOT_MAX)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def prepare(self):
        for name in self.options['disks']:
            await self.run(f'truncate -s 64M /tmp/{name}')
        await self.type(f'/guest/vsock listen {VSOCK_PORT} &')

    async def start_inner(self):
        connect = asyncio.ensure_future(self.qmp.connect(self.socket))
        await asyncio.sleep(0.5)
        await self.type(f'{self.command()}; echo "@@exit $?"')
        try:
            await asyncio.wait_for(connect, 120)
        except (QMPError, OSError, asyncio.TimeoutError) as error:
            raise Failure(f'the inner QEMU: {error!r}\n' + '\n'.join(
                (await self.until('@@exit'))[-20:])) from error
