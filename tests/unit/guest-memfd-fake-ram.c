/*
 * A fake of the rest of QEMU, for a RAM block
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/translation-block.h"
#include "hw/boards.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/module.h"
#include "system/address-spaces.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-limits.h"
#include "system/guest-memfd-ram.h"
#include "system/hostmem.h"
#include "system/guest-memfd-internal.h"
#include "system/runstate.h"
#include "system/tcg.h"
#include "guest-memfd-fake-ram.h"

FakeRam fake_ram;
bool tcg_allowed;

static MachineState machine;

MachineState *current_machine = &machine;

/* As QEMU's own, but not abstract. */
static const TypeInfo fake_cgs_info = {
    .name = TYPE_CONFIDENTIAL_GUEST_SUPPORT,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(ConfidentialGuestSupport),
    .class_size = sizeof(ConfidentialGuestSupportClass),
};

GuestMemfdEngine *guest_memfd_engine(void)
{
    if (!machine.cgs) {
        machine.cgs = CONFIDENTIAL_GUEST_SUPPORT(
            object_new(TYPE_CONFIDENTIAL_GUEST_SUPPORT));
    }
    CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(machine.cgs)->memory_starts_shared =
        fake_ram.starts_shared;
    return &fake_ram.rig->engine;
}

GuestMemfdEngine *guest_memfd_engine_for_ram(Error **errp)
{
    if (fake_ram.no_engine) {
        error_setg(errp, "no provider");
        return NULL;
    }
    return &fake_ram.rig->engine;
}

bool guest_memfd_allows(GuestMemfdFeature feature, Error **errp)
{
    g_assert_not_reached();
}

bool runstate_check(RunState state)
{
    return false;
}

static const TypeInfo fake_backend_info = {
    .name = TYPE_MEMORY_BACKEND,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(Object),
};

static void fake_backend_register_types(void)
{
    type_register_static(&fake_backend_info);
    type_register_static(&fake_cgs_info);
}

type_init(fake_backend_register_types)

Object *memory_region_owner(MemoryRegion *mr)
{
    static Object *backend;

    if (!backend) {
        backend = object_new(TYPE_MEMORY_BACKEND);
    }
    return fake_ram.waits ? backend : NULL;
}

const char *memory_region_name(const MemoryRegion *mr)
{
    return "ram0";
}

MemoryRegion *get_system_memory(void)
{
    return NULL;
}

/* The rig's map, which counts references. */
MemoryRegionSection memory_region_find(MemoryRegion *mr, hwaddr addr,
                                       uint64_t size)
{
    RigPiece *p = &fake_ram.rig->map[0];

    if (!fake_ram.rig->pieces || addr >= p->gpa + p->size ||
        addr + size <= p->gpa) {
        return (MemoryRegionSection) { };
    }
    memory_region_ref(&p->mr);
    return (MemoryRegionSection) {
        .mr = &p->mr,
        .offset_within_region = addr - p->gpa,
        .offset_within_address_space = addr,
        .size = int128_make64(MIN(size, p->gpa + p->size - addr)),
    };
}

void guest_memfd_make_convertible(MemoryRegion *mr)
{
    fake_ram.convertible = mr;
}

int ram_block_coordinated_discard_require(bool state)
{
    if (state && fake_ram.discard_error) {
        return fake_ram.discard_error;
    }
    fake_ram.discards_required += state ? 1 : -1;
    return 0;
}

RamBlockAttributes *ram_block_attributes_create(RAMBlock *rb)
{
    RamBlockAttributes *attributes;

    if (fake_ram.no_attributes) {
        return NULL;
    }
    attributes = g_new0(RamBlockAttributes, 1);
    attributes->bitmap_size = FAKE_RAM_PAGES;
    attributes->bitmap = bitmap_new(FAKE_RAM_PAGES);
    QLIST_INIT(&attributes->rdl_list);
    return attributes;
}

void ram_block_attributes_destroy(RamBlockAttributes *attributes)
{
    g_free(attributes->bitmap);
    g_free(attributes);
}

void tb_invalidate_phys_range(CPUState *cpu, tb_page_addr_t start,
                              tb_page_addr_t last)
{
    fake_ram.invalidated[0] = start;
    fake_ram.invalidated[1] = last;
}
