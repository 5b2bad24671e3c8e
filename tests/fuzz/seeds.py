# SPDX-License-Identifier: GPL-2.0-or-later
"""Inputs of guest-memfd-devices-fuzz that make each device do something, in the words of its operations.

From these the fuzzer starts.  All rings and buffers are in shared pages, away from private ones: what is at a border is
what the fuzzer makes of them.
"""

import struct

(IN, OUT, READ, WRITE, PCI_READ, PCI_WRITE, DISABLE_PCI, PATTERN, CLEAR_PATTERNS, CLOCK_STEP, ADDRESS, OUT_ADDRESS, FILL,
 POINTER, POINTER_PATTERN, PACKET, FLIP) = range(17)
SEPARATOR = b'FUZZ'

# As in the fuzz target; even pages are shared.
WINDOW, PAGE = 4 << 20, 4096
SIZES = {1: 0, 2: 1, 4: 2, 8: 3}
PACKET_BYTES = b'\xff' * 6 + b'\xa7' * 250


def gpa(page, offset=0):
    return WINDOW + page * PAGE + offset


class Seed:
    def __init__(self):
        self.ops = []

    def op(self, number, data=b''):
        self.ops.append(bytes([number]) + data)
        return self

    def write(self, region, offset, value, size=4):
        return self.op(WRITE, struct.pack('<BBxxIQ', SIZES[size], region, offset, value))

    def read(self, region, offset, size=4):
        return self.op(READ, struct.pack('<BBxxI', SIZES[size], region, offset))

    def address(self, region, offset, page, size=4):
        return self.op(ADDRESS, struct.pack('<BBIBxx', size == 8, region, offset, page))

    def fill(self, page, within, data):
        return self.op(FILL, struct.pack('<Bh', page, within) + data)

    def pointer(self, page, within, to_page):
        return self.op(POINTER, struct.pack('<BhBxx', page, within, to_page))

    def flip(self, page, count=1):
        return self.op(FLIP, bytes([page, count - 1]))

    def steps(self, count=1):
        for _ in range(count):
            self.op(CLOCK_STEP)
        return self

    def bytes(self):
        return SEPARATOR.join(self.ops)


# --- virtio: the regions are MSI-X table and PBA, common, ISR, device, notify

COMMON, NOTIFY = 2, 5
DESC, AVAIL, USED, FIRST = 0, 2, 4, 6


def virtio(queue, chain, features=0, packet=False, turns=2):
    """CHAIN: bytes or a length, and whether the device writes there.  Each buffer has a page of its own."""
    seed = Seed()
    common = lambda offset, value, size: seed.write(COMMON, offset, value, size)
    common(0x14, 0, 1)
    common(0x14, 3, 1)
    common(0x08, 0, 4)
    common(0x0c, features, 4)
    common(0x08, 1, 4)
    common(0x0c, 3, 4)
    common(0x14, 0xb, 1)
    common(0x16, queue, 2)
    common(0x18, 8, 2)
    seed.address(COMMON, 0x20, DESC)
    seed.address(COMMON, 0x28, AVAIL)
    seed.address(COMMON, 0x30, USED)
    common(0x1c, 1, 2)
    common(0x14, 0xf, 1)
    for number, (what, written) in enumerate(chain):
        size = what if isinstance(what, int) else len(what)
        more = number < len(chain) - 1
        seed.fill(DESC, 16 * number, struct.pack('<QIHH', gpa(FIRST + 2 * number), size, more | 2 * written, number + 1))
        seed.pointer(DESC, 16 * number, FIRST + 2 * number)
        if not isinstance(what, int):
            seed.fill(FIRST + 2 * number, 0, what)
    for turn in range(1, turns + 1):
        seed.fill(AVAIL, 0, struct.pack('<HHHH', 0, turn, 0, 0))
        seed.write(NOTIFY, 4 * queue, queue, 2)
        if packet:
            seed.op(PACKET, PACKET_BYTES)
        seed.steps()
        if turn == 1:
            seed.flip(FIRST + 2 * len(chain))
    return seed


def virtio_blk():
    for kind in 0, 1, 4, 8:
        header = struct.pack('<IIQ', kind, 0, 0)
        data = (2048, 1) if kind in (0, 8) else (b'\xa7' * 512, 0)
        yield virtio(0, [(header, 0), data, (1, 1)])
    # All of it in an indirect table.
    table = b''.join(struct.pack('<QIHH', gpa(page), size, flags, number + 1)
                     for number, (page, size, flags) in enumerate(((8, 16, 1), (10, 512, 3), (12, 1, 2))))
    seed = virtio(0, [(table, 0)], features=1 << 28, turns=1)
    seed.fill(DESC, 12, struct.pack('<H', 4)).fill(AVAIL, 2, struct.pack('<H', 2)).write(NOTIFY, 0, 0, 2)
    yield seed


def virtio_net():
    yield virtio(1, [(12, 0), (PACKET_BYTES, 0)])
    yield virtio(0, [(12, 1), (1514, 1)], packet=True)


def virtio_scsi():
    for cdb in b'\x12\0\0\0\x24', b'\x28' + bytes(7) + b'\x04\0', b'\xa0' + bytes(7) + b'\x01\0\0', b'\0':
        request = bytes([1, 0, 0x40]) + bytes(16) + cdb.ljust(32, b'\0')
        yield virtio(2, [(request, 0), (108, 1), (2048, 1)], turns=3)
    request = bytes([1, 0, 0x40]) + bytes(16) + (b'\x2a' + bytes(7) + b'\x01\0').ljust(32, b'\0')
    yield virtio(2, [(request, 0), (b'\xa7' * 512, 0), (108, 1)], turns=3)
    yield virtio(0, [(struct.pack('<II', 0, 2) + bytes([1, 0, 0x40]) + bytes(13), 0), (1, 1)])


def virtio_balloon():
    pages = struct.pack('<8I', *(gpa(16 + n) >> 12 for n in range(8)))
    yield virtio(0, [(pages, 0)])
    yield virtio(1, [(pages, 0)])
    yield virtio(2, [(struct.pack('<HQ', 0, 1), 0)], features=1 << 1)
    yield virtio(3, [(PAGE, 1), (PAGE, 1)], features=1 << 5)


# --- others: registers are the first region, but where it is said

def nvme():
    seed = Seed().write(0, 0x14, 0).write(0, 0x24, 0x003f003f)
    seed.address(0, 0x28, 0, size=8).address(0, 0x30, 2, size=8).write(0, 0x14, 0x00460001)
    commands = [(6, 4, 0, 1, 0), (6, 4, 6, 0, 0), (5, 8, 0, 0x3f0001, 1), (1, 10, 0, 0x3f0001, 0x10001), (2, 4, 0, 0xff0001, 0)]
    for number, (opcode, page, second, dw10, dw11) in enumerate(commands, 1):
        seed.fill(0, 64 * (number - 1), struct.pack('<BBHI16xQQIII12x', opcode, 0, number, opcode == 6, gpa(page),
                                                     gpa(second) if second else 0, dw10, dw11, 0))
        seed.pointer(0, 64 * (number - 1) + 24, page)
        seed.write(0, 0x1000, number).steps()
    for opcode in 2, 1, 2:
        number += 1
        # Four pages: the first in the command, the others in a list.
        seed.fill(14, 0, struct.pack('<4Q', gpa(16), gpa(18), gpa(20), gpa(22)))
        seed.fill(10, 64 * (number - len(commands) - 1),
                  struct.pack('<BBHI16xQQIII12x', opcode, 0, number, 1, gpa(12), gpa(14), 0, 0, 31))
        seed.write(0, 0x1008, number - len(commands)).steps(2)
    yield seed.write(0, 0x1004, number).write(0, 0x100c, 3)


def ahci():
    for command, flags in (0x25, 5), (0x35, 5 | 1 << 6), (0xec, 5), (0x60, 5):
        seed = Seed().write(0, 0x04, 1).write(0, 0x04, 1 << 31).write(0, 0x118, 0)
        seed.address(0, 0x100, 0).address(0, 0x108, 2).write(0, 0x130, 0xffffffff).write(0, 0x114, 0xffffffff)
        seed.write(0, 0x118, 0x10).write(0, 0x118, 0x11).steps()
        seed.fill(0, 0, struct.pack('<HHIQ', flags, 2, 0, gpa(4))).pointer(0, 8, 4)
        fis = bytes([0x27, 0x80, command, 8 if command == 0x60 else 0, 0, 0, 0, 0x40]) + bytes(4) + bytes([8])
        seed.fill(4, 0, fis)
        for number, page in enumerate((6, 8)):
            seed.fill(4, 0x80 + 16 * number, struct.pack('<QII', gpa(page), 0, 2047))
            seed.pointer(4, 0x80 + 16 * number, page)
        if command == 0x60:
            seed.write(0, 0x134, 1)
        yield seed.write(0, 0x138, 1).steps(2).flip(10).write(0, 0x138, 1).steps().write(0, 0x118, 0)


def e1000e():
    for sends in True, False:
        seed = Seed().write(0, 0x00, 1 << 26).write(0, 0x00, 1 << 6)
        ring = 0x3800 if sends else 0x2800
        seed.address(0, ring, 0).write(0, ring + 8, 256).write(0, 0x400, 2)
        for number in range(8):
            options = struct.pack('<HBBI', 256, 0, 1 | 2 | 8, 0) if sends else bytes(8)
            seed.fill(0, 16 * number, struct.pack('<Q', gpa(2)) + options).pointer(0, 16 * number, 2 + 2 * (number % 3))
        seed.write(0, 0x100, 0x801a)
        for tail in 2, 4, 7:
            seed.write(0, ring + 0x18, tail)
            if not sends:
                seed.op(PACKET, PACKET_BYTES)
            seed.steps().flip(10)
        yield seed
    # Extended descriptors, a context first, with segmentation.
    seed = Seed().write(0, 0x00, 1 << 6).address(0, 0x3800, 0).write(0, 0x3808, 256).write(0, 0x400, 2)
    seed.fill(0, 0, bytes.fromhex('0e1400002210360000000020') + struct.pack('<BBH', 0, 54, 200))
    seed.fill(0, 16, struct.pack('<QII', gpa(2), 512 | 0x2d000000 | 1 << 20, 0x300))
    yield seed.pointer(0, 16, 2).write(0, 0x3818, 2).steps()


def edu():
    seed = Seed()
    for source, target, command in ((0, None, 1), (None, 2, 3), (None, 4, 3)):
        for register, page in ((0x80, source), (0x88, target)):
            if page is None:
                seed.write(0, register, 0x40000, 8)
            else:
                seed.address(0, register, page, size=8)
        seed.write(0, 0x90, 2048, 8).write(0, 0x98, command, 8).steps(2)
    yield seed


def xhci():
    """Capability registers, operational ones, ports, runtime ones, doorbells: regions of their own, in that order."""
    cap, oper, runtime, doorbell = 0, 1, 10, 11
    seed = Seed().read(cap, 0).write(oper, 0, 2).write(oper, 0x38, 8)
    seed.address(oper, 0x30, 0).address(oper, 0x18, 2)
    seed.fill(4, 0, struct.pack('<QII', gpa(6), 64, 0)).pointer(4, 0, 6)
    seed.write(runtime, 0x28, 1).address(runtime, 0x38, 6).address(runtime, 0x30, 4).write(oper, 0, 1)
    seed.fill(2, 0, struct.pack('<QII', 0, 0, 23 << 10 | 1) + struct.pack('<QII', 0, 0, 9 << 10 | 1) +
              struct.pack('<QII', gpa(10), 0, 1 << 24 | 11 << 10 | 1))
    seed.fill(0, 0, struct.pack('<QQ', 0, gpa(8)))
    seed.fill(10, 0, struct.pack('<II', 0, 3)).fill(10, 32, struct.pack('<II', 1 << 27, 1 << 16))
    seed.fill(10, 64, struct.pack('<IIQ', 0, 4 << 3 | 64 << 16, gpa(12) | 1))
    seed.write(doorbell, 0, 0).steps(2)
    seed.fill(12, 0, struct.pack('<QII', 0x01000680 << 0 | 18 << 48, 8, 2 << 10 | 1 << 6 | 3 << 16 | 1))
    seed.fill(12, 16, struct.pack('<QII', gpa(14), 18, 3 << 10 | 1 << 16 | 1))
    seed.fill(12, 32, struct.pack('<QII', 0, 0, 4 << 10 | 1 << 5 | 1))
    yield seed.write(doorbell, 4, 1).steps(4)


def sdhci():
    start = Seed().write(0, 0x2f, 1, 1).write(0, 0x2c, 1, 2).write(0, 0x2c, 5, 2).write(0, 0x29, 0xf, 1)
    start.write(0, 0x34, 0xffffffff).write(0, 0x38, 0xffffffff)

    def command(seed, number, argument, flags, mode=0):
        seed.write(0, 0x08, argument)
        return seed.write(0, 0x0c, mode | (number << 8 | flags) << 16)

    for dma, reads in ((0, True), (2, True), (0, False), (2, False)):
        seed = Seed()
        seed.ops = list(start.ops)
        for number, argument, flags in ((0, 0, 0), (8, 0x1aa, 0x1a), (55, 0, 0x1a), (41, 0x40ff8000, 2), (2, 0, 9),
                                        (3, 0, 0x1a), (7, 0x45670000, 0x1b)):
            command(seed, number, argument, flags)
        seed.write(0, 0x28, dma << 3, 1)
        seed.address(0, 0x00 if dma == 0 else 0x58, 0)
        seed.fill(0, 0, struct.pack('<HHIHHI', 0x21, 256, gpa(4), 0x23, 256, gpa(6)) if dma else b'\xa7' * 64)
        seed.write(0, 0x04, 0x7000 | 512 | 1 << 16)
        command(seed, 17 if reads else 24, 0, 0x3a, 1 | (1 << 4 if reads else 0))
        yield seed.steps(2)


SEEDS = {
    'virtio-blk': virtio_blk, 'virtio-net': virtio_net, 'virtio-scsi': virtio_scsi, 'virtio-balloon': virtio_balloon,
    'nvme': nvme, 'ahci': ahci, 'e1000e': e1000e, 'xhci': xhci, 'edu': edu, 'sdhci': sdhci,
}


def seeds(device):
    return [seed.bytes() for seed in SEEDS[device]()]
