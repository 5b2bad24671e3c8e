/*
 * A fake of system/physmem.c, for accesses of guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "system/memory.h"
#include "guest-memfd-fake-memory.h"
#include "../../system/memory-internal.h"

void invalidate_and_set_dirty(MemoryRegion *mr, hwaddr addr, hwaddr length)
{
    fake_memory_dirty(mr, addr, length);
}

MemTxResult flatview_access_step(MemTxAttrs attrs, void *buf, hwaddr len,
                                 hwaddr mr_addr, hwaddr *l, MemoryRegion *mr,
                                 bool is_write)
{
    fake_memory_register(mr, mr_addr, buf, *l, is_write);
    return MEMTX_OK;
}
