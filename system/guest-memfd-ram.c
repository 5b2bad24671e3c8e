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
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "system/address-spaces.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-ram.h"
#include "system/kvm.h"
#include "system/ramblock.h"
#include "system/tcg.h"
#include "guest-memfd-internal.h"

/* A backend that brings its own memory cannot be converted in place. */
static bool check_own_memory(const RAMBlock *rb, Error **errp)
{
    const char *name = memory_region_name(rb->mr);

    if (!rb->host) {
        return true;
    }
    if (rb->page_size > guest_memfd_page_size()) {
        error_setg(errp, "memory backend '%s' uses huge pages, which cannot "
                   "be converted in place", name);
    } else {
        error_setg(errp, "memory backend '%s' brings its own memory, which "
                   "cannot be converted in place", name);
    }
    error_append_hint(errp, "Use memory-backend-memfd-private or "
                      "memory-backend-ram%s.\n", kvm_enabled() ?
                      ", or set in-place=off on guest-memfd-manager" : "");
    return false;
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
    guest_memfd_block_set_attributes(block, rb->attributes, true);
    return true;
}

bool guest_memfd_ram_block_init(RAMBlock *rb, Error **errp)
{
    GuestMemfdEngine *engine = guest_memfd_engine_for_ram(errp);
    GuestMemfdBlock *block;
    int ret;

    if (!engine) {
        return false;
    }
    if (!engine->provider ||
        !GUEST_MEMFD_PROVIDER_GET_CLASS(engine->provider)->block_alloc) {
        return true;
    }
    if (!check_own_memory(rb, errp)) {
        return false;
    }

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
        return true;
    }

    guest_memfd_block_unmap(block);
    guest_memfd_block_free(block);
    rb->host = NULL;
    rb->guest_memfd = -1;
err_require:
    ram_block_coordinated_discard_require(false);
    return false;
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

bool guest_memfd_ram_block_may_discard(RAMBlock *rb, uint64_t offset,
                                       uint64_t size)
{
    const size_t page = guest_memfd_page_size();
    const unsigned long end = DIV_ROUND_UP(offset + size, page);

    if (!guest_memfd_is_in_place()) {
        return true;
    }
    return find_next_zero_bit(rb->attributes->bitmap, end, offset / page)
           >= end;
}

bool guest_memfd_ram_block_may_hide(RAMBlock *rb)
{
    return rb->gmem && guest_memfd_is_in_place();
}

bool guest_memfd_ram_block_clamp(RAMBlock *rb, uint64_t offset, hwaddr *len)
{
    const size_t page = guest_memfd_page_size();
    const unsigned long first = offset / page;
    const uint64_t size = MIN(*len, rb->used_length - offset);
    const unsigned long end = DIV_ROUND_UP(offset + size, page);
    unsigned long private;

    if (!guest_memfd_is_in_place()) {
        return true;
    }
    private = find_next_zero_bit(rb->attributes->bitmap, end, first);
    smp_rmb();      /* pairs with guest_memfd_run_publish() */
    if (private == first) {
        return false;
    }
    if (private < end) {
        *len = MIN(*len, private * page - offset);
    }
    return true;
}

void guest_memfd_ram_block_set_policy(RAMBlock *rb,
                                      GuestMemfdContentPolicy policy)
{
    qatomic_set(&rb->gmem->content_policy, policy);
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
        .mmio = !memory_region_is_ram(mrs.mr) &&
                !memory_region_is_rom(mrs.mr) &&
                !memory_region_is_romd(mrs.mr),
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
