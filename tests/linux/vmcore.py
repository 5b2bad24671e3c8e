# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's log in a dump, found as tools for dumps do, by VMCOREINFO.

The dump is ELF by physical address, as dump-guest-memory writes it without
paging; the kernel's addresses go through its own page tables, and the log is
the ring of records that Linux has had since 5.10.
"""

import mmap
import struct

NOTE, LOAD = 4, 1
PRESENT, LARGE = 1, 1 << 7
FRAME = (1 << 52) - (1 << 12)
KERNEL_MAP = 0xffffffff80000000
NO_DATA = 1             # lpos of a record that has no text


class Vmcore:
    def __init__(self, path):
        with open(path, 'rb') as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        offset, = struct.unpack_from('<Q', self.data, 32)
        size, count = struct.unpack_from('<HH', self.data, 54)
        self.parts, self.info = [], {}
        for at in range(offset, offset + size * count, size):
            kind, _, start, _, address, length = struct.unpack_from(
                '<IIQQQQ', self.data, at)
            if kind == LOAD:
                self.parts.append((address, length, start))
            elif kind == NOTE:
                self.notes(start, length)

    def notes(self, at, length):
        end = at + length
        while at < end:
            name, size, _ = struct.unpack_from('<III', self.data, at)
            text = at + 12 + (name + 3) // 4 * 4
            if self.data[at + 12:at + 12 + name].rstrip(b'\0') == \
                    b'VMCOREINFO':
                for line in self.data[text:text + size].splitlines():
                    key, _, value = line.decode().partition('=')
                    self.info[key] = value
            at = text + (size + 3) // 4 * 4

    def symbol(self, name):
        return int(self.info[f'SYMBOL({name})'], 16)

    def offset(self, name):
        return int(self.info[f'OFFSET({name})'])

    def size(self, name):
        return int(self.info[f'SIZE({name})'])

    def physical(self, address, size):
        for start, length, offset in self.parts:
            if start <= address and address + size <= start + length:
                at = offset + address - start
                return self.data[at:at + size]
        raise ValueError(f'{address:#x} is not in the dump')

    def translate(self, address):
        """Walk the kernel's page tables."""
        five = int(self.info.get('NUMBER(pgtable_l5_enabled)', 0))
        table = self.symbol('swapper_pg_dir') - KERNEL_MAP + \
            int(self.info['NUMBER(phys_base)'])
        for level in range(4 if five else 3, -1, -1):
            shift = 12 + 9 * level
            entry, = struct.unpack('<Q', self.physical(
                table + (address >> shift) % 512 * 8, 8))
            if not entry & PRESENT:
                raise ValueError(f'{address:#x} is not mapped')
            table = entry & FRAME
            if not level or entry & LARGE:
                inside = (1 << shift) - 1
                return table & ~inside | address & inside
        raise ValueError('no such level')

    def read(self, address, size):
        result = b''
        while len(result) < size:
            at = address + len(result)
            part = min(size - len(result), 4096 - at % 4096)
            result += self.physical(self.translate(at), part)
        return result

    def word(self, address, code='<Q'):
        return struct.unpack(code, self.read(address,
                                             struct.calcsize(code)))[0]

    # --- the log ---------------------------------------------------------

    def log(self):
        ring = self.word(self.symbol('prb'))
        descs = ring + self.offset('printk_ringbuffer.desc_ring')
        text = ring + self.offset('printk_ringbuffer.text_data_ring')
        head, tail = (self.word(
            descs + self.offset(f'prb_desc_ring.{name}_id')
            + self.offset('atomic_long_t.counter'))
                      for name in ('head', 'tail'))
        count = 1 << self.word(
            descs + self.offset('prb_desc_ring.count_bits'), '<I')
        size = 1 << self.word(
            text + self.offset('prb_data_ring.size_bits'), '<I')
        addresses = [self.word(descs + self.offset(f'prb_desc_ring.{name}'))
                  for name in ('descs', 'infos')]
        addresses.append(self.word(text + self.offset('prb_data_ring.data')))
        number = tail
        while True:
            line = self.record(number % count, size, *addresses)
            if line is not None:
                yield line
            if number == head:
                return
            number = (number + 1) % (1 << 62)

    def record(self, index, size, descs, infos, data):
        place = descs + index * self.size('prb_desc') + \
            self.offset('prb_desc.text_blk_lpos')
        begin, end = (self.word(place + self.offset(
            f'prb_data_blk_lpos.{name}')) for name in ('begin', 'next'))
        if begin & NO_DATA:
            return None
        length = self.word(infos + index * self.size('printk_info') +
                           self.offset('printk_info.text_len'), '<H')
        # A record that would not fit before the end is at the start.
        start = 0 if begin // size != end // size and end % size else \
            begin % size
        return self.read(data + start + 8, length).decode('utf-8', 'replace')
