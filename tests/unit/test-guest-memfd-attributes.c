/*
 * A listener of a RAM block's attributes that cannot take all of them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU's own system/ram-block-attributes.c, on a fake memory region.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/module.h"
#include "system/guest-memfd-ram.h"
#include "system/memory.h"
#include "system/ramblock.h"

#define PAGES   8

static MemoryRegion mr;
static RAMBlock block = { .mr = &mr };

/* The pages that the listener was notified of: a bit for each page. */
static unsigned populated;
static int room;

/* --- what QEMU is to the attributes ------------------------------------ */

int memory_region_set_ram_discard_manager(MemoryRegion *region,
                                          RamDiscardManager *rdm)
{
    region->rdm = rdm;
    return 0;
}

MemoryRegionSection *memory_region_section_new_copy(MemoryRegionSection *s)
{
    return g_memdup2(s, sizeof(*s));
}

void memory_region_section_free_copy(MemoryRegionSection *s)
{
    g_free(s);
}

const char *memory_region_name(const MemoryRegion *region)
{
    return "ram0";
}

uint64_t memory_region_size(MemoryRegion *region)
{
    return int128_get64(region->size);
}

void guest_memfd_ram_block_lock(RAMBlock *rb)
{
}

void guest_memfd_ram_block_unlock(RAMBlock *rb)
{
}

static const TypeInfo manager_info = {
    .name = TYPE_RAM_DISCARD_MANAGER,
    .parent = TYPE_INTERFACE,
    .class_size = sizeof(RamDiscardManagerClass),
};

static void manager_register_types(void)
{
    type_register_static(&manager_info);
}

type_init(manager_register_types)

/* --- the test ---------------------------------------------------------- */

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

static unsigned pages_of(const MemoryRegionSection *s)
{
    return MAKE_64BIT_MASK(s->offset_within_region / page_size(),
                           int128_get64(s->size) / page_size());
}

static int populate(RamDiscardListener *rdl, MemoryRegionSection *s)
{
    if (!room--) {
        return -ENOSPC;
    }
    populated |= pages_of(s);
    return 0;
}

static int discard(RamDiscardListener *rdl, MemoryRegionSection *s)
{
    populated &= ~pages_of(s);
    return 0;
}

static RamDiscardManagerClass *start(void)
{
    mr.size = int128_make64(PAGES * page_size());
    block.attributes = ram_block_attributes_create(&block);
    /* Two runs of shared pages. */
    bitmap_set(block.attributes->bitmap, 0, 2);
    bitmap_set(block.attributes->bitmap, 4, 2);
    populated = 0;
    return RAM_DISCARD_MANAGER_GET_CLASS(mr.rdm);
}

static MemoryRegionSection all(void)
{
    return (MemoryRegionSection) { .mr = &mr, .size = mr.size };
}

/* An assigned device, say, that has no room for the second run. */
static void test_no_room(void)
{
    RamDiscardManagerClass *rdmc = start();
    MemoryRegionSection section = all();
    RamDiscardListener listener;
    Error *err = NULL;

    ram_discard_listener_init(&listener, populate, discard, true);
    room = 1;
    g_assert_false(rdmc->register_listener(mr.rdm, &listener, &section,
                                           &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Failed to register RAM "
                    "discard listener for memory region 'ram0': No space "
                    "left on device");
    error_free(err);
    rdmc->unregister_listener(mr.rdm, &listener);
    g_assert_cmphex(populated, ==, 0);

    /* Later there is room. */
    room = 2;
    g_assert_true(rdmc->register_listener(mr.rdm, &listener, &section,
                                          &error_abort));
    g_assert_cmphex(populated, ==, 0x33);
    rdmc->unregister_listener(mr.rdm, &listener);
    ram_block_attributes_destroy(block.attributes);
}

/* More pages than 32 bits can count. */
static void test_huge_block(void)
{
    const uint64_t pages = (1ULL << 32) + 1;

    mr.size = int128_make64(pages * page_size());
    block.attributes = ram_block_attributes_create(&block);
    g_assert_cmpuint(block.attributes->bitmap_size, ==, pages);
    ram_block_attributes_destroy(block.attributes);
}

int main(int argc, char **argv)
{
    module_call_init(MODULE_INIT_QOM);
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/guest-memfd/attributes/no-room", test_no_room);
    g_test_add_func("/guest-memfd/attributes/huge-block", test_huge_block);

    return g_test_run();
}
