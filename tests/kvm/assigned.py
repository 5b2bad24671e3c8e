# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices of L0 that are assigned to the inner guest, behind L0's VT-d."""

import asyncio
import os
import re
import tempfile

from l1 import Inner

NVME, EDU = '0000:00:06.0', '0000:00:05.0'
BACK_ENDS = ('type1', 'iommufd')
IDS = 'vfio-pci.ids=1234:11e8,1b36:0010'
PRELOAD = 'LD_PRELOAD=/lib/iommu-calls.so '

# Of a guest with 512 MiB, 4 KiB each, and KVM's memslots.
MAPPINGS = 131072
MEMSLOTS = 32764
LIMIT = MAPPINGS + MEMSLOTS + 128 * 256     # and a dimm's
PARAMETERS = (IDS, f'vfio_iommu_type1.dma_entry_limit={LIMIT}')

DISK = 64 << 20
FIGURES = ('maps', 'unmaps', 'us', 'failed', 'mappings', 'free', 'locked')


def missing(config):
    """Why this kernel has no assigned devices, or None."""
    with open(config, encoding='ascii') as file:
        if 'CONFIG_IOMMUFD=y' in file.read():
            return None
    return ('the cached subset of Linux has neither drivers/iommu nor '
            'drivers/vfio')


class Disk:
    """A file full of zeros, and L0's devices."""

    def __enter__(self):
        fd, self.path = tempfile.mkstemp(prefix='gmem-disk-')
        os.truncate(fd, DISK)
        os.close(fd)
        return self

    def __exit__(self, *_):
        os.unlink(self.path)

    def arguments(self):
        return ['-drive', f'if=none,id=disk,format=raw,file={self.path}',
                '-device', 'edu,addr=5,dma_mask=0xffffffffff',
                '-device', 'nvme,addr=6,serial=gmem,drive=disk']


def device(back_end, host, **more):
    """The arguments of device_add."""
    result = {'driver': 'vfio-pci', 'host': host, **more}
    if back_end == 'iommufd':
        result['iommufd'] = 'iommufd0'
    return result


def options(back_end):
    """QEMU's, for one back end; the disk is there from the start."""
    result = ['-m', '512M,slots=1,maxmem=1G',
              '-global', 'ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off',
              '-device', 'pcie-root-port,id=port0,chassis=1,slot=1']
    if back_end == 'iommufd':
        result += ['-object', 'iommufd,id=iommufd0']
    words = device(back_end, NVME)
    driver = words.pop('driver')
    return result + ['-device', ','.join(
        [driver, *(f'{key}={value}' for key, value in words.items())])]


def figures(inner):
    """What iommu-calls.so has counted, by name; the first of each."""
    result = {}
    for record in inner.records:
        if record['kind'] == 'iommu':
            result.setdefault(record['name'], {
                name: int(record[name]) for name in FIGURES})
    return result


async def plug_memory(inner):
    await inner.execute('object-add', {
        'qom-type': 'memory-backend-memfd-private', 'id': 'dimm',
        'size': 128 << 20})
    await inner.execute('device_add', {
        'driver': 'pc-dimm', 'id': 'dimm0', 'memdev': 'dimm'})


async def talk(inner, back_end):
    """Do what the guest asks for, until it has been reset and is done."""
    await inner.execute('set-action', {'reboot': 'reset'})
    await inner.until('assigned-plug')
    await inner.execute('device_add', device(
        back_end, EDU, id='edu0', bus='port0'))
    await inner.until('assigned-memory')
    await plug_memory(inner)
    await inner.until('assigned-reset')
    await asyncio.sleep(1)
    await inner.execute('system_reset')
    await inner.l1.until_word('hello via')
    return await inner.until('done')


async def assigned_row(l1, tap, setting, back_end, count=1000, seconds=5):
    """All that happens to a guest with an assigned device, in one run."""
    name = f'{setting}, {back_end}'
    start = len(l1.lines)
    inner = Inner(l1, 1, 1, f'cases=assigned count={count} '
                  f'seconds={seconds}', options(back_end), environment=PRELOAD)
    async with inner:
        done = await talk(inner, back_end)
        await inner.finish()
    bad = [r['line'] for r in inner.records if r['kind'] == 'fail']
    for record in inner.records:
        if record['kind'].startswith(('assigned', 'iommu')):
            tap.say(f'{name}: {record["line"]}')
    tap.result(done['mismatches'] == '0' and not bad and inner.status == 1,
               f'{name}: every byte is as promised, and private pages are '
               'out of reach', '\n'.join(bad[:20]) or str(inner.status))
    said = [line for line in l1.lines[start:] if 'vfio' in line.lower() or
            'qemu' in line.lower()]
    tap.say(f'{name}: {said}')


async def faults_row(l1, tap, setting):
    """The IOMMU says of DMA that was turned away."""
    await l1.type('dmesg | grep -c "DMAR: .*fault addr"; echo @@faults')
    count = 0
    while not (line := await l1.line()).endswith('@@faults'):
        found = re.fullmatch(r'\d+', line)
        count = int(found[0]) if found else count
    tap.result(count > 0, f'{setting}: the IOMMU reports what it turned away',
               str(count))


async def rows(l1, tap, setting, back_end, seconds):
    await assigned_row(l1, tap, setting, back_end, seconds=seconds)
    await faults_row(l1, tap, setting)
