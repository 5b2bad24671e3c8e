/*
 * A fake of system/physmem.c, for accesses of guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_UNIT_GUEST_MEMFD_FAKE_MEMORY_H
#define TESTS_UNIT_GUEST_MEMFD_FAKE_MEMORY_H

#include "system/memory.h"

/* The test's own: QEMU wrote to RAM, or accesses a register. */
void fake_memory_dirty(MemoryRegion *mr, hwaddr addr, hwaddr length);
void fake_memory_register(MemoryRegion *mr, hwaddr addr, void *buf,
                          hwaddr len, bool is_write);

#endif /* TESTS_UNIT_GUEST_MEMFD_FAKE_MEMORY_H */
