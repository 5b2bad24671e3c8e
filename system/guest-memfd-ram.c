/*
 * The memory of a RAM block that is converted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The hooks of system/physmem.c for memory that is created, discarded and
 * freed.  For accesses see guest-memfd-memory.c.
 */

#include "qemu/osdep.h"
#include "hw/boards.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/madvise.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-launch.h"
#include "system/guest-memfd-limits.h"
#include "system/guest-memfd-ram.h"
#include "system/hostmem.h"
#include "system/ramblock.h"
#include "system/runstate.h"
#include "guest-memfd-internal.h"

static bool starts_shared(void)
{
    ConfidentialGuestSupport *cgs = current_machine->cgs;

    return CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(cgs)->memory_starts_shared;
}

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
    guest_memfd_block_set_attributes(block, rb->attributes, starts_shared() ?
                                     GUEST_MEMFD_START_SHARED :
                                     GUEST_MEMFD_START_SETUP);
    return true;
}

/* The provider hears of it first: after that the address may be reused. */
static void free_unused(GuestMemfdBlock *block)
{
    GuestMemfdBlock memory = *block;

    guest_memfd_block_free(block);
    guest_memfd_block_unmap(&memory);
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

    free_unused(block);
    g_clear_pointer(&rb->attributes, ram_block_attributes_destroy);
    rb->host = before.host;
    rb->guest_memfd = before.guest_memfd;
    rb->flags = before.flags;
err_require:
    ram_block_coordinated_discard_require(false);
    return false;
}

/*
 * A backend is sealed when it becomes guest RAM.  Other memory would have to be
 * sealed here, with the lock of all RAM blocks, which cannot wait for a page.
 */
static bool has_missed_launch(const RAMBlock *rb, Error **errp)
{
    ERRP_GUARD();

    if (qatomic_read(&guest_memfd_engine()->phase) < GUEST_MEMFD_PHASE_FINAL ||
        starts_shared() ||
        object_dynamic_cast(memory_region_owner(rb->mr),
                            TYPE_MEMORY_BACKEND)) {
        return false;
    }
    error_setg(errp, "memory region '%s' cannot become guest memory: the "
               "launch of the guest has ended", memory_region_name(rb->mr));
    error_append_hint(errp, "Give its device on the command line, or plug in "
                      "a memory backend with a pc-dimm.\n");
    return true;
}

/* The use of a backend is not known yet: see guest-memfd-backend.c. */
static bool may_become_anything(const RAMBlock *rb)
{
    Object *owner = memory_region_owner(rb->mr);

    return object_dynamic_cast(owner, TYPE_MEMORY_BACKEND) &&
           !object_dynamic_cast(owner, TYPE_MEMORY_BACKEND_MEMFD_PRIVATE);
}

bool guest_memfd_ram_block_init(RAMBlock *rb, Error **errp)
{
    GuestMemfdEngine *engine;

    if (runstate_check(RUN_STATE_INMIGRATE) &&
        !guest_memfd_allows(GUEST_MEMFD_FEATURE_INCOMING, errp)) {
        return false;
    }
    engine = guest_memfd_engine_for_ram(errp);
    if (!engine) {
        return false;
    }
    if (!engine->provider || !engine->provider->in_place) {
        return true;
    }
    if (may_become_anything(rb)) {
        rb->flags &= ~RAM_GUEST_MEMFD;
        return true;
    }
    return !has_missed_launch(rb, errp) &&
           guest_memfd_ram_block_adopt(rb, errp);
}

bool guest_memfd_ram_block_start(RAMBlock *rb, Error **errp)
{
    GuestMemfdEngine *engine = guest_memfd_engine();
    GuestMemfdBlock *block;

    block = guest_memfd_block_new(engine, rb, memory_region_name(rb->mr),
                                  rb->max_length, errp);
    if (!block) {
        return false;
    }
    block->host = rb->host;
    block->fd = rb->guest_memfd;
    guest_memfd_block_set_attributes(block, rb->attributes, starts_shared() ?
                                     GUEST_MEMFD_START_SHARED :
                                     GUEST_MEMFD_START_PRIVATE);
    rb->gmem = block;
    return true;
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

bool guest_memfd_ram_block_in_place(RAMBlock *rb)
{
    return rb->gmem && rb->gmem->in_place;
}

/*
 * With the lock: a page that became private after the check would lose the
 * guest's bytes.
 */
int guest_memfd_ram_block_discard(RAMBlock *rb, uint64_t offset,
                                  uint64_t size)
{
    int ret;

    if (!size || offset > rb->max_length || size > rb->max_length - offset ||
        !QEMU_IS_ALIGNED(offset | size, rb->gmem->page_size)) {
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

static bool private_is_shown(void)
{
    return current_machine && current_machine->cgs &&
           current_machine->cgs->debug;
}

MemTxAttrs guest_memfd_debug_attrs(MemTxAttrs attrs)
{
    attrs.vcpu = private_is_shown();
    return attrs;
}

bool guest_memfd_dump_has_private(RAMBlock *rb)
{
    return rb->gmem && private_is_shown();
}

void guest_memfd_ram_block_set_policy(RAMBlock *rb,
                                      GuestMemfdContentPolicy policy)
{
    qatomic_set(&rb->gmem->content_policy, policy);
}
