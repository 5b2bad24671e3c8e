/*
 * The memory map, as the engine uses it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/translation-block.h"
#include "system/address-spaces.h"
#include "system/ramblock.h"
#include "system/tcg.h"
#include "guest-memfd-internal.h"

static bool find_section(GuestMemfdEngine *engine, hwaddr gpa, uint64_t size,
                         GuestMemfdSection *s)
{
    MemoryRegionSection mrs = memory_region_find(get_system_memory(), gpa,
                                                 size);

    if (!mrs.mr) {
        return false;
    }
    *s = (GuestMemfdSection) {
        .gpa = mrs.offset_within_address_space,
        .size = int128_get64(mrs.size),
        .mr = mrs.mr,
        .block = mrs.mr->ram_block ? mrs.mr->ram_block->gmem : NULL,
        .offset = mrs.offset_within_region,
    };
    return true;
}

/* TCG may hold translations of the old bytes. */
static void bytes_changed(GuestMemfdBlock *block, uint64_t offset,
                          uint64_t size)
{
    ram_addr_t start = block->ram_block->offset + offset;

    if (tcg_enabled()) {
        tb_invalidate_phys_range(NULL, start, start + size - 1);
    }
}

void guest_memfd_bind_map(GuestMemfdEngine *engine)
{
    engine->find_section = find_section;
    engine->bytes_changed = bytes_changed;
}
