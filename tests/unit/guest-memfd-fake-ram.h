/*
 * A fake of the rest of QEMU, for a RAM block
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_UNIT_GUEST_MEMFD_FAKE_RAM_H
#define TESTS_UNIT_GUEST_MEMFD_FAKE_RAM_H

#include "guest-memfd-rig.h"

#define FAKE_RAM_PAGES  4       /* of a block */

typedef struct FakeRam {
    Rig *rig;                   /* guest memory is its first piece */
    bool starts_shared;
    bool no_engine;
    int discard_error;
    bool no_attributes;
    bool waits;                 /* a backend that is not guest RAM yet */
    int discards_required;
    MemoryRegion *convertible;  /* since the block was set up */
    ram_addr_t invalidated[2];  /* translations: first, last byte */
} FakeRam;

extern FakeRam fake_ram;

#endif /* TESTS_UNIT_GUEST_MEMFD_FAKE_RAM_H */
