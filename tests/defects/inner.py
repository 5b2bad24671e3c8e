# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU in the rig, ours or the unchanged one: the same options for both."""

import asyncio
import os
import shlex

from qemu.qmp import ExecuteError, QMPError

from l1 import Inner

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
OURS, STOCK = '/bin/qemu', '/bin/qemu-stock'
# Where they were built, with symbols.
FILES = {OURS: f'{ROOT}/build/qemu/qemu-system-x86_64',
         STOCK: f'{ROOT}/build/stock-fixture/qemu-system-x86_64'}
KILLED_AFTER = 300      # a QEMU that hangs does not end otherwise
HANG_MIN = 20           # others answer within a second or two
POLL = 0.5

SOCKET = '/tmp/device'
DEVICE = ('{"driver":"vfio-user-pci","socket":'
          f'{{"type":"unix","path":"{SOCKET}"}}}}')

SET_ATTRIBUTES = '0x4020aed2'       # KVM_SET_MEMORY_ATTRIBUTES
TRACED = f'kvm_hc_map|{SET_ATTRIBUTES}|dma_unmap'

MONITOR = ['-nodefaults', '-display', 'none',
           '-chardev', 'serial,id=qmp,path=/dev/ttyS1',
           '-mon', 'chardev=qmp,mode=control']


class Qemu(Inner):
    """Answers, errors and silence are all results here."""

    def __init__(self, l1, argv, before=''):
        super().__init__(l1, 1, 1, '')
        self.command = (f'{before}timeout -s KILL {KILLED_AFTER} ' +
                        shlex.join(argv + MONITOR))

    async def ask(self, command, arguments=None, limit=HANG_MIN):
        """The answer, or the error's text as 'error: ...', or 'silence'."""
        try:
            return await asyncio.wait_for(
                self.qmp.execute(command, arguments), limit)
        except ExecuteError as error:
            return f'error: {error}'
        except asyncio.TimeoutError:
            return 'silence'
        except (QMPError, EOFError, OSError) as error:
            raise self.l1.failure(f'QMP {command}: {error!r}') from error

    async def end(self):
        """Quit, and be sure that it is gone."""
        await self.ask('quit')
        await self.l1.until_word('@@exit', KILLED_AFTER + HANG_MIN)

    async def shell(self, command):
        """What a command in the rig prints."""
        await self.l1.type(f'{command}; echo @@end')
        lines = []
        while not (lines and lines[-1].endswith('@@end')):
            lines.append(await self.l1.line())
        return lines[:-1]


class Guest(Qemu):
    """The bare-metal guest with cases=defects."""

    def __init__(self, l1, qemu, defect, backends=1, size=512, device=False,
                 dimm=False):
        argv = [qemu, '-accel', 'kvm', '-L', '/firmware',
                '-bios', '/firmware.bin', '-m', f'{size}M',
                '-machine', 'q35,confidential-guest-support=cgs0',
                '-object', 'sw-protected-guest,id=cgs0',
                '-device', 'isa-debug-exit,iobase=0xf4,iosize=4',
                '-no-reboot', '-no-shutdown',
                '-chardev', 'file,id=com1,path=/dev/ttyS0',
                '-serial', 'chardev:com1', '-kernel', '/payload.elf',
                '-append', 'via=hypercall expect=two-backings cases=defects '
                           f'backends={backends} defect={defect}']
        for node in range(backends if backends > 1 else 0):
            argv += ['-object', f'memory-backend-ram,id=ram{node},'
                                f'size={size // backends}M',
                     '-numa', f'node,nodeid={node},memdev=ram{node}']
        if dimm:
            argv[argv.index('-m') + 1] += ',slots=1,maxmem=1G'
            argv += ['-object', 'memory-backend-ram,id=dimm,size=128M',
                     '-device', 'pc-dimm,memdev=dimm,addr=0x108000000']
        before = ''
        if device:
            argv += ['-device', DEVICE, '-D', '/tmp/trace']
            for event in ('kvm_vm_ioctl', 'kvm_hc_map_gpa_range',
                          'vfio_user_dma_unmap'):
                argv += ['-trace', event]
            before = f'/vfio-user-device {SOCKET} & sleep 1; '
        super().__init__(l1, argv, before)

    async def stopped(self):
        """The state of the VM, once it does not run any more."""
        while True:
            status = (await self.execute('query-status'))['status']
            if status != 'running':
                return status
            await asyncio.sleep(POLL)

    async def outcome(self):
        """What the guest said (None: nothing), and the VM's state."""
        await self.until('begin')
        said = asyncio.ensure_future(self.until('defect'))
        status = await self.stopped()
        done, _ = await asyncio.wait({said}, timeout=4 * POLL)
        if not done:
            said.cancel()
            await asyncio.gather(said, return_exceptions=True)
        return said.result() if done else None, status


async def guest(l1, qemu, defect, **options):
    """One run: what the guest said, the state, and QEMU's own words."""
    async with Guest(l1, qemu, defect, **options) as inner:
        said, status = await inner.outcome()
        await inner.end()
        words = [r['line'] for r in inner.records
                 if r['line'].startswith('qemu-')]
        trace = await inner.shell(f"grep -E '{TRACED}' /tmp/trace | tail -n 40"
                                  ) if options.get('device') else []
    return said, status, words, trace
