/*
 * Guest memory that is converted in place: the RAM block's side
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The hooks of system/physmem.c and system/memory.c end here.
 */

#include "qemu/osdep.h"
#include "exec/target_page.h"
#include "exec/translation-block.h"
#include "hw/boards.h"
#include "hw/qdev-core.h"
#include "qapi/error.h"
#include "qapi/qapi-types-migration.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/madvise.h"
#include "system/address-spaces.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-ram.h"
#include "system/guest-memfd-refused.h"
#include "system/hostmem.h"
#include "system/ramblock.h"
#include "system/tcg.h"
#include "guest-memfd-internal.h"

static bool adopt(RAMBlock *rb, GuestMemfdBlock *block, Error **errp)
{
    rb->host = block->host;
    rb->guest_memfd = block->fd;
    rb->flags |= RAM_SHARED;
    rb->mr->align = QEMU_VMALLOC_ALIGN;

    rb->attributes = ram_block_attributes_create(rb);
    if (!rb->attributes) {
        error_setg(errp, "cannot track the state of memory region '%s': "
                   "another device manages its discards already",
                   memory_region_name(rb->mr));
        return false;
    }
    guest_memfd_block_set_attributes(block, rb->attributes, true);
    return true;
}

/* On failure the block is as it was. */
bool guest_memfd_ram_block_adopt(RAMBlock *rb, Error **errp)
{
    ERRP_GUARD();
    GuestMemfdEngine *engine = guest_memfd_engine();
    const RAMBlock before = *rb;
    GuestMemfdBlock *block;
    int ret;

    ret = ram_block_coordinated_discard_require(true);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot set up private guest memory: "
                         "discard currently blocked");
        error_append_hint(errp, "Are you using assigned devices?\n");
        return false;
    }
    block = guest_memfd_block_new(engine, rb, memory_region_name(rb->mr),
                                  rb->max_length, errp);
    if (!block) {
        goto err_require;
    }
    if (adopt(rb, block, errp)) {
        rb->gmem = block;
        guest_memfd_make_convertible(rb->mr);
        return true;
    }

    guest_memfd_block_unmap(block);
    guest_memfd_block_free(block);
    rb->host = before.host;
    rb->guest_memfd = before.guest_memfd;
    rb->flags = before.flags;
err_require:
    ram_block_coordinated_discard_require(false);
    return false;
}

/* A backend may still become anything: see guest-memfd-backend.c. */
static bool may_become_anything(const RAMBlock *rb)
{
    Object *owner = memory_region_owner(rb->mr);

    return object_dynamic_cast(owner, TYPE_MEMORY_BACKEND) &&
           !object_dynamic_cast(owner, TYPE_MEMORY_BACKEND_MEMFD_PRIVATE);
}

bool guest_memfd_ram_block_init(RAMBlock *rb, Error **errp)
{
    GuestMemfdEngine *engine = guest_memfd_engine_for_ram(errp);

    if (!engine) {
        return false;
    }
    if (!engine->provider ||
        !GUEST_MEMFD_PROVIDER_GET_CLASS(engine->provider)->block_alloc) {
        return true;
    }
    if (may_become_anything(rb)) {
        rb->flags &= ~RAM_GUEST_MEMFD;
        return true;
    }
    return guest_memfd_ram_block_adopt(rb, errp);
}

void guest_memfd_ram_block_start(RAMBlock *rb)
{
    GuestMemfdEngine *engine = guest_memfd_engine();
    GuestMemfdBlock *block;

    /* The block has its memory already: nothing can fail. */
    block = guest_memfd_block_new(engine, rb, memory_region_name(rb->mr),
                                  rb->max_length, &error_abort);
    block->host = rb->host;
    block->fd = rb->guest_memfd;
    guest_memfd_block_set_attributes(block, rb->attributes,
                                     current_machine->cgs->starts_shared);
    rb->gmem = block;
}

void guest_memfd_ram_block_cleanup(RAMBlock *rb)
{
    guest_memfd_block_free(rb->gmem);
    rb->gmem = NULL;
}

void guest_memfd_ram_block_lock(RAMBlock *rb)
{
    if (rb->gmem) {
        qemu_mutex_lock(&rb->gmem->lock);
    }
}

void guest_memfd_ram_block_unlock(RAMBlock *rb)
{
    if (rb->gmem) {
        qemu_mutex_unlock(&rb->gmem->lock);
    }
}

bool guest_memfd_ram_block_may_hide(RAMBlock *rb)
{
    return rb->gmem && guest_memfd_is_in_place();
}

/*
 * With the lock: a page that became private after the look at it would
 * lose the guest's bytes.
 */
int guest_memfd_ram_block_discard(RAMBlock *rb, uint64_t offset,
                                  uint64_t size)
{
    int ret;

    if (!size || offset > rb->max_length || size > rb->max_length - offset ||
        !QEMU_IS_ALIGNED(offset | size, guest_memfd_page_size())) {
        return -EINVAL;
    }
    QEMU_LOCK_GUARD(&rb->gmem->lock);
    if (!guest_memfd_block_is_shared(rb->gmem, offset, size)) {
        warn_report_once("guest memory '%s': [0x%" PRIx64 ", +0x%" PRIx64
                         ") is not discarded: pages of it are private, and "
                         "exist only once", rb->gmem->name, offset, size);
        return -EPERM;
    }
    ret = guest_memfd_block_punch_hole(rb->gmem, offset, size);
    if (ret) {
        return ret;
    }
    /* The page table can have a mark of a bad page that is gone now. */
    qemu_madvise(rb->host + offset, size, QEMU_MADV_DONTNEED);
    return 0;
}

void guest_memfd_warn_fw_cfg(hwaddr addr, hwaddr size)
{
    if (guest_memfd_is_private(&address_space_memory, addr, size)) {
        warn_report_once("guest memory [0x%" HWADDR_PRIx ", +0x%" HWADDR_PRIx
                         "): fw_cfg cannot answer a request in private "
                         "memory; the guest may wait for ever", addr, size);
    }
}

void guest_memfd_ram_block_set_policy(RAMBlock *rb,
                                      GuestMemfdContentPolicy policy)
{
    qatomic_set(&rb->gmem->content_policy, policy);
}

/* --- what cannot work in place ----------------------------------------- */

#define START_ANEW  "Shut the guest down and start it anew"

static const struct {
    const char *feature;
    const char *why;
    const char *remedy;
} limits[] = {
    { "vhost-user", "another process would touch private pages",
      "Use a device of QEMU's own, for example virtio-blk-pci, or "
      "virtio-net-pci with -netdev tap, or virtio-9p-pci instead of "
      "virtiofs" },
    { "virtio-mem", "it would discard private pages",
      "Add memory with pc-dimm and memory-backend-memfd-private" },
    { "-incoming", "there is no migration of private pages",
      "Start the guest without -incoming" },
    { "postcopy-ram", "there is no migration of private pages", START_ANEW },
    { "x-colo", "there is no migration of private pages", START_ANEW },
    { "background-snapshot", "private pages cannot be saved", START_ANEW },
    { "a snapshot of the VM", "private pages cannot be saved and loaded",
      "Take snapshots of disks only, with blockdev-snapshot" },
    { "calc-dirty-rate", "private pages cannot be read",
      "Count conversions with query-guest-memfd instead" },
    { "set-vcpu-dirty-limit", "private pages are written unseen",
      "Limit the guest's CPU time instead, for example with cgroups" },
    { "dirty page logging", "private pages are written unseen",
      "Count conversions with query-guest-memfd instead" },
};

const char *guest_memfd_or_not_in_place(const GuestMemfdProvider *provider)
{
    return provider->can_be_off ?
           ", or set in-place=off on guest-memfd-manager" : "";
}

void guest_memfd_refuse(const GuestMemfdProvider *provider,
                        const char *feature, Error **errp)
{
    ERRP_GUARD();
    int i = 0;

    while (strcmp(limits[i].feature, feature)) {
        i++;
        assert(i < ARRAY_SIZE(limits));
    }
    error_setg(errp, "%s does not work with guest memory that is converted "
               "in place: %s", feature, limits[i].why);
    error_append_hint(errp, "%s%s.\n", limits[i].remedy,
                      guest_memfd_or_not_in_place(provider));
}

/* Network backends come before there is memory. */
static bool will_be_in_place(void)
{
    if (phase_check(PHASE_ACCEL_CREATED) && !guest_memfd_is_in_place() &&
        machine_require_guest_memfd(current_machine)) {
        /* An error will be met again, when there is memory. */
        guest_memfd_engine_for_ram(NULL);
    }
    return guest_memfd_is_in_place();
}

bool guest_memfd_allows(const char *feature, Error **errp)
{
    if (!will_be_in_place()) {
        return true;
    }
    guest_memfd_refuse(guest_memfd_engine()->provider, feature, errp);
    return false;
}

bool guest_memfd_allows_capabilities(const bool *capabilities, Error **errp)
{
    static const MigrationCapability refused[] = {
        MIGRATION_CAPABILITY_POSTCOPY_RAM,
        MIGRATION_CAPABILITY_X_COLO,
        MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT,
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(refused); i++) {
        if (capabilities[refused[i]] &&
            !guest_memfd_allows(MigrationCapability_str(refused[i]), errp)) {
            return false;
        }
    }
    return true;
}

/* --- what the engine asks ---------------------------------------------- */

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

/* TCG may hold translations of what was there before. */
static void bytes_changed(GuestMemfdBlock *block, uint64_t offset,
                          uint64_t size)
{
    ram_addr_t start = block->ram_block->offset + offset;

    if (tcg_enabled()) {
        tb_invalidate_phys_range(NULL, start, start + size - 1);
    }
}

void guest_memfd_ram_bind(GuestMemfdEngine *engine)
{
    engine->find_section = find_section;
    engine->bytes_changed = bytes_changed;
}
