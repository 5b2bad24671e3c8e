/*
 * Converting one run of pages, and going back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The order keeps everybody off pages that are not theirs:
 *
 *   to private: users let go, the provider converts, the state is recorded
 *   to shared:  the provider converts, QEMU clears the pages if that is
 *               the promise, the state is recorded, users may come
 *
 * After a failed conversion the state of the pages is unknown (a kernel
 * may convert part of a range), so the whole run is sent back, which does
 * nothing where nothing had changed.  The bytes are kept on the way back
 * wherever the provider can.
 *
 * All functions are called with the block's lock held, and with the BQL if
 * the block has listeners.
 */

#include "qemu/osdep.h"
#include "guest-memfd-internal.h"
#include "trace.h"

static GuestMemfdDirection opposite(GuestMemfdDirection direction)
{
    return direction == GUEST_MEMFD_DIRECTION_TO_SHARED ?
           GUEST_MEMFD_DIRECTION_TO_PRIVATE :
           GUEST_MEMFD_DIRECTION_TO_SHARED;
}

static int provider_convert(GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size, GuestMemfdDirection direction,
                            GuestMemfdContentMode mode)
{
    GuestMemfdProvider *provider = block->engine->provider;
    uint64_t error_offset = offset;
    int ret;

    ret = GUEST_MEMFD_PROVIDER_GET_CLASS(provider)->convert(
              provider, block, offset, size, direction, mode, &error_offset);
    if (ret) {
        trace_guest_memfd_provider_failed(block->name, offset, size,
            GuestMemfdDirection_str(direction),
            GuestMemfdContentMode_str(mode), error_offset, ret);
    }
    return ret;
}

/* The way back should lose no bytes; it cannot be refused, though. */
static GuestMemfdContentMode way_back_mode(const GuestMemfdBlock *block,
                                           GuestMemfdDirection direction)
{
    const GuestMemfdOffer *offer = &block->engine->provider->offer;

    if (offer->how[direction][GUEST_MEMFD_CONTENT_MODE_PRESERVE] !=
        GUEST_MEMFD_REALISATION_REFUSED) {
        return GUEST_MEMFD_CONTENT_MODE_PRESERVE;
    }
    return GUEST_MEMFD_CONTENT_MODE_DEFAULT;
}

static int send_back(GuestMemfdBlock *block, uint64_t offset, uint64_t size,
                     GuestMemfdDirection direction)
{
    GuestMemfdDirection back = opposite(direction);
    int ret = provider_convert(block, offset, size, back,
                               way_back_mode(block, back));

    if (ret) {
        block->engine->broken(block, offset, size, ret);
    }
    return ret;
}

static int run_to_private(GuestMemfdBlock *block, uint64_t offset,
                          uint64_t size, GuestMemfdContentMode mode)
{
    const GuestMemfdDirection direction = GUEST_MEMFD_DIRECTION_TO_PRIVATE;
    int ret;

    guest_memfd_notify_discard(block, offset, size);
    ret = provider_convert(block, offset, size, direction, mode);
    if (!ret) {
        guest_memfd_block_record(block, offset, size, false);
        return 0;
    }
    if (send_back(block, offset, size, direction)) {
        /* Unknown state: private, so that no device touches the pages. */
        guest_memfd_block_record(block, offset, size, false);
    } else {
        guest_memfd_notify_populate(block, offset, size);
    }
    return ret;
}

static int run_to_shared(GuestMemfdBlock *block, uint64_t offset,
                         uint64_t size, const GuestMemfdDecision *decision)
{
    const GuestMemfdDirection direction = GUEST_MEMFD_DIRECTION_TO_SHARED;
    GuestMemfdProvider *provider = block->engine->provider;
    int ret;

    ret = provider_convert(block, offset, size, direction, decision->mode);
    if (!ret && decision->mode == GUEST_MEMFD_CONTENT_MODE_ZERO &&
        decision->realisation == GUEST_MEMFD_REALISATION_EMULATED) {
        ret = GUEST_MEMFD_PROVIDER_GET_CLASS(provider)->zero(provider, block,
                                                             offset, size);
    }
    if (ret) {
        send_back(block, offset, size, direction);
        return ret;
    }

    guest_memfd_block_record(block, offset, size, true);
    ret = guest_memfd_notify_populate(block, offset, size);
    if (ret) {
        send_back(block, offset, size, direction);
        guest_memfd_block_record(block, offset, size, false);
    }
    return ret;
}

int guest_memfd_run_convert(GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size, GuestMemfdDirection direction,
                            const GuestMemfdDecision *decision)
{
    int ret;

    if (direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE) {
        ret = run_to_private(block, offset, size, decision->mode);
    } else {
        ret = run_to_shared(block, offset, size, decision);
    }
    if (!ret) {
        guest_memfd_block_mark_changed(block, offset, size);
    }
    return ret;
}

static void rollback_run(GuestMemfdBlock *block, uint64_t offset,
                         uint64_t size, GuestMemfdDirection direction)
{
    trace_guest_memfd_rollback(block->name, offset, size,
                               GuestMemfdDirection_str(direction));
    if (direction == GUEST_MEMFD_DIRECTION_TO_SHARED) {
        guest_memfd_notify_discard(block, offset, size);
        send_back(block, offset, size, direction);
        guest_memfd_block_record(block, offset, size, false);
        return;
    }
    if (!send_back(block, offset, size, direction)) {
        guest_memfd_block_record(block, offset, size, true);
        guest_memfd_notify_populate(block, offset, size);
    }
}

void guest_memfd_run_rollback(GuestMemfdBlock *block,
                              GuestMemfdDirection direction)
{
    uint64_t offset = 0, size = 0;

    while (guest_memfd_block_next_changed(block, &offset, &size)) {
        rollback_run(block, offset, size, direction);
        offset += size;
    }
    block->counters.rollbacks++;
    guest_memfd_block_forget_changed(block);
}
