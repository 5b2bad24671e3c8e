/*
 * Notifying listeners of conversions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The only file that uses the listener list of RamBlockAttributes.
 * ram_block_attributes_state_change() cannot be used: it changes the
 * bitmap before it notifies, in both directions, and scans the whole
 * block to classify a range.
 *
 * All functions are called with the BQL, which protects the list, and
 * with the block's lock held.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "system/ramblock.h"
#include "guest-memfd-internal.h"

bool guest_memfd_has_listeners(const GuestMemfdBlock *block)
{
    return !guest_memfd_block_in_setup(block) &&
           !QLIST_EMPTY(&block->attributes->rdl_list);
}

/*
 * Call @notify_part for the listener's part of the range, if it has any of it.
 * Listeners do not see memory in setup.
 */
static int notify(const GuestMemfdBlock *block, RamDiscardListener *rdl,
                  NotifyRamPopulate notify_part, uint64_t offset,
                  uint64_t size)
{
    MemoryRegionSection section = *rdl->section;

    if (guest_memfd_block_in_setup(block) ||
        !memory_region_section_intersect_range(&section, offset, size)) {
        return 0;
    }
    return notify_part(rdl, &section);
}

/*
 * Stops before @end; NULL is the end of the list.  A device that goes on using
 * the pages must not find them private: the VM cannot go on.
 */
static void notify_discard_until(GuestMemfdBlock *block, uint64_t offset,
                                 uint64_t size, const RamDiscardListener *end)
{
    RamDiscardListener *rdl;

    QLIST_FOREACH(rdl, &block->attributes->rdl_list, next) {
        int ret;

        if (rdl == end) {
            return;
        }
        ret = notify(block, rdl, rdl->notify_discard, offset, size);
        if (ret) {
            block->engine->broken(block, offset, size, ret);
        }
    }
}

static void notify_again_until(GuestMemfdBlock *block, uint64_t offset,
                               uint64_t size, const RamDiscardListener *end)
{
    RamDiscardListener *rdl;

    QLIST_FOREACH(rdl, &block->attributes->rdl_list, next) {
        int ret;

        if (rdl == end) {
            return;
        }
        ret = notify(block, rdl, rdl->notify_populate, offset, size);
        if (ret && ret != -EEXIST) {
            warn_report_once("guest memory '%s': a device cannot use "
                             "[0x%" PRIx64 ", +0x%" PRIx64 ") any more: %s",
                             block->name, offset, size, strerror(-ret));
        }
    }
}

void guest_memfd_notify_again(GuestMemfdBlock *block, uint64_t offset,
                              uint64_t size)
{
    notify_again_until(block, offset, size, NULL);
}

void guest_memfd_notify_withdrawn(GuestMemfdBlock *block, uint64_t offset,
                                  uint64_t size)
{
    notify_discard_until(block, offset, size, NULL);
}

int guest_memfd_notify_discard(GuestMemfdBlock *block, uint64_t offset,
                               uint64_t size)
{
    RamDiscardListener *rdl;
    int ret;

    QLIST_FOREACH(rdl, &block->attributes->rdl_list, next) {
        ret = notify(block, rdl, rdl->notify_discard, offset, size);
        if (ret) {
            notify_again_until(block, offset, size, QLIST_NEXT(rdl, next));
            /* A device that holds on to it is like one that has it mapped. */
            return ret == -EBUSY ? -EAGAIN : ret;
        }
    }
    return 0;
}

int guest_memfd_notify_populate(GuestMemfdBlock *block, uint64_t offset,
                                uint64_t size)
{
    RamDiscardListener *rdl;
    int ret;

    QLIST_FOREACH(rdl, &block->attributes->rdl_list, next) {
        ret = notify(block, rdl, rdl->notify_populate, offset, size);
        if (ret) {
            notify_discard_until(block, offset, size, rdl);
            return ret;
        }
    }
    return 0;
}
