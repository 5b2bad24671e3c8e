/*
 * Converting runs of pages, and rolling back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The order keeps devices and QEMU off private pages:
 *
 *   to private: the state is recorded, so that no access begins any more;
 *               the span fails with -EAGAIN while a page is mapped, waits for
 *               short accesses, listeners unmap, and the provider converts;
 *               if a listener cannot unmap, nothing is converted
 *   to shared: if zeros are promised and the kernel makes none, the bytes
 *               are discarded while the pages are private; the provider
 *               converts all runs of the slice, the listeners map them, and
 *               only then the state is recorded, and the pages may be
 *               accessed
 *
 * Most of this is paid per call of the provider, so runs that are close to
 * each other are one span, if the provider takes such: the pages between them,
 * which are in the wanted state already, keep it and their bytes.  All that may
 * lose bytes (discarding, rolling back) is done for each run.
 *
 * Only listeners and the kernel can have accessed a page that is rolled back
 * to private, so no mapping or access can be in the way then.
 *
 * After a failed conversion the state of the pages is unknown (a kernel
 * may convert part of a range), so all its runs are converted back, which
 * does nothing where nothing had changed.  The provider preserves the bytes
 * then, if it can.
 *
 * All functions are called with the block's lock held, and with the BQL if
 * the block has listeners.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "guest-memfd-internal.h"
#include "trace.h"

#define CONVERT_BACK_TRIES 100
#define BACKOFF_MIN_US  10
#define BACKOFF_MAX_US  1000

unsigned guest_memfd_backoff_us(unsigned n)
{
    return MIN(BACKOFF_MIN_US << MIN(n, 10), BACKOFF_MAX_US);
}

static GuestMemfdDirection opposite(GuestMemfdDirection direction)
{
    return direction == GUEST_MEMFD_DIRECTION_TO_SHARED ?
           GUEST_MEMFD_DIRECTION_TO_PRIVATE :
           GUEST_MEMFD_DIRECTION_TO_SHARED;
}

/* Before a page is shared: at no moment it is so with bytes of before. */
static bool must_discard(const GuestMemfdBlock *block,
                         GuestMemfdDirection direction)
{
    const GuestMemfdDecision *decision = &block->scratch.decision;

    return direction == GUEST_MEMFD_DIRECTION_TO_SHARED &&
           decision->mode == GUEST_MEMFD_CONTENT_MODE_ZERO &&
           decision->realisation == GUEST_MEMFD_REALISATION_EMULATED;
}

static int discard_bytes(GuestMemfdBlock *block, uint64_t offset,
                         uint64_t size)
{
    GuestMemfdProvider *provider = block->engine->provider;
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_GET_CLASS(provider);
    const uint64_t end = offset + size;
    int ret = 0;

    while (!ret && guest_memfd_block_next_changed(block, end, &offset, &size)) {
        ret = pc->discard(provider, block, offset, size);
        offset += size;
    }
    return ret;
}

static int ask_provider(GuestMemfdBlock *block, uint64_t offset,
                        uint64_t size, GuestMemfdDirection direction,
                        GuestMemfdContentMode mode, uint64_t *error_offset)
{
    GuestMemfdProvider *provider = block->engine->provider;
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_GET_CLASS(provider);
    int ret = 0;

    if (must_discard(block, direction)) {
        ret = discard_bytes(block, offset, size);
    }
    return ret ?: pc->convert(provider, block, offset, size, direction, mode,
                              error_offset);
}

static GuestMemfdUser provider_user(const GuestMemfdProvider *provider)
{
    return (GuestMemfdUser) {
        .kind = provider->type == GUEST_MEMFD_PROVIDER_TYPE_EMULATED ?
                GUEST_MEMFD_PAGE_USER_FAULT_INJECTION :
                GUEST_MEMFD_PAGE_USER_KERNEL,
    };
}

static int provider_convert(GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size, GuestMemfdDirection direction,
                            GuestMemfdContentMode mode)
{
    bool timed = trace_event_get_state_backends(TRACE_GUEST_MEMFD_PROVIDER_END);
    int64_t start = timed ? get_clock() : 0;
    uint64_t error_offset = offset;
    int ret;

    trace_guest_memfd_provider_begin(block->name, offset, size,
                                     GuestMemfdDirection_str(direction),
                                     GuestMemfdContentMode_str(mode));
    ret = ask_provider(block, offset, size, direction, mode, &error_offset);
    if (timed) {
        trace_guest_memfd_provider_end(block->name, offset, size, error_offset,
                                       get_clock() - start, ret);
    }
    if (ret == -EAGAIN) {
        guest_memfd_note_busy(&block->stats, error_offset,
                              provider_user(block->engine->provider));
    }
    return ret;
}

/* Converting back should lose no bytes, and cannot be refused. */
static GuestMemfdContentMode convert_back_mode(const GuestMemfdBlock *block,
                                               GuestMemfdDirection direction)
{
    const GuestMemfdOffer *offer = &block->engine->provider->offer;

    if (offer->how[direction][GUEST_MEMFD_CONTENT_MODE_PRESERVE] !=
        GUEST_MEMFD_REALISATION_REFUSED) {
        return GUEST_MEMFD_CONTENT_MODE_PRESERVE;
    }
    return GUEST_MEMFD_CONTENT_MODE_DEFAULT;
}

/* This must not fail: retry for 0.1 s, with locks held. */
static int convert_back(GuestMemfdBlock *block, uint64_t offset, uint64_t size,
                        GuestMemfdDirection direction)
{
    GuestMemfdDirection back = opposite(direction);
    unsigned tries = 0;
    int ret;

    for (;;) {
        /* The provider may have withdrawn the mode. */
        ret = provider_convert(block, offset, size, back,
                               convert_back_mode(block, back));
        if ((ret != -EINTR && ret != -EAGAIN) ||
            ++tries == CONVERT_BACK_TRIES) {
            break;
        }
        g_usleep(guest_memfd_backoff_us(tries - 1));
    }

    if (ret) {
        block->engine->broken(block, offset, size, ret);
        return -EIO;
    }
    return 0;
}

/* --- spans -------------------------------------------------------------- */

static bool next_run(const GuestMemfdBlock *block, const GuestMemfdSpan *span,
                     uint64_t *offset, uint64_t *size)
{
    return guest_memfd_block_next_changed(block, span->end, offset, size);
}

static void record_span(GuestMemfdBlock *block, const GuestMemfdSpan *span,
                        bool shared)
{
    uint64_t offset = span->offset, size;

    while (next_run(block, span, &offset, &size)) {
        guest_memfd_block_record(block, offset, size, shared);
        offset += size;
    }
}

static void note_failed_run(const GuestMemfdBlock *block, GuestMemfdSpan *span,
                            uint64_t page)
{
    uint64_t offset = span->offset, size;

    while (next_run(block, span, &offset, &size) && offset <= page) {
        span->failed_offset = offset;
        offset += size;
    }
}

/*
 * A mapping is like a reference that the kernel counts: try again.  The pages
 * between the runs are private, and have none.
 */
static int check_mappings(GuestMemfdBlock *block, GuestMemfdSpan *span)
{
    const uint64_t size = span->end - span->offset;
    uint64_t busy;

    if (!guest_memfd_block_is_mapped(block, span->offset, size, &busy)) {
        return 0;
    }
    trace_guest_memfd_in_use(block->name, span->offset, size, busy);
    guest_memfd_note_busy(&block->stats, busy,
                          guest_memfd_mapping_user(block, busy));
    note_failed_run(block, span, busy);
    return -EAGAIN;
}

/* A device that keeps memory is in the way like any user of the kernel's. */
static int notify_discard(GuestMemfdBlock *block, uint64_t offset,
                          uint64_t size)
{
    int ret = guest_memfd_notify_discard(block, offset, size);

    if (ret == -EAGAIN) {
        guest_memfd_note_busy(&block->stats, offset, (GuestMemfdUser) {
            .kind = GUEST_MEMFD_PAGE_USER_KERNEL,
        });
    }
    return ret;
}

static void notify_again_until(GuestMemfdBlock *block, uint64_t offset,
                               uint64_t end)
{
    uint64_t size;

    while (guest_memfd_block_next_changed(block, end, &offset, &size)) {
        guest_memfd_notify_again(block, offset, size);
        offset += size;
    }
}

/* On failure the listeners have mapped all runs again. */
static int unmap_span(GuestMemfdBlock *block, GuestMemfdSpan *span)
{
    uint64_t offset = span->offset, size;
    int ret;

    if (!guest_memfd_has_listeners(block)) {
        return 0;
    }
    while (next_run(block, span, &offset, &size)) {
        ret = notify_discard(block, offset, size);
        if (ret) {
            span->failed_offset = offset;
            notify_again_until(block, span->offset, offset);
            return ret;
        }
        offset += size;
    }
    return 0;
}

static int roll_back_run(GuestMemfdBlock *block, uint64_t offset,
                         uint64_t size, GuestMemfdDirection direction)
{
    /* Unknown state: recorded as private, so no device accesses the pages. */
    if (convert_back(block, offset, size, direction)) {
        return -EIO;
    }
    if (direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE) {
        guest_memfd_block_record(block, offset, size, true);
        guest_memfd_notify_again(block, offset, size);
    }
    return 0;
}

/* Not if pages changed whose bytes were to be preserved, but cannot be. */
static bool is_as_before(const GuestMemfdBlock *block,
                         GuestMemfdDirection direction, int error)
{
    const GuestMemfdContentMode preserve = GUEST_MEMFD_CONTENT_MODE_PRESERVE;

    return error == -EAGAIN || error == -EINTR ||
           block->scratch.decision.mode != preserve ||
           convert_back_mode(block, opposite(direction)) == preserve;
}

static int ask_for_span(GuestMemfdBlock *block, GuestMemfdSpan *span,
                        GuestMemfdDirection direction,
                        GuestMemfdContentMode mode)
{
    uint64_t offset = span->offset, size = span->end - offset;
    int ret = provider_convert(block, offset, size, direction, mode);
    bool broken = false;

    if (!ret) {
        return 0;
    }
    while (next_run(block, span, &offset, &size)) {
        broken |= roll_back_run(block, offset, size, direction) < 0;
        offset += size;
    }
    span->refused = !broken && is_as_before(block, direction, ret);
    return broken ? -EIO : ret;
}

static int close_span(GuestMemfdBlock *block, GuestMemfdSpan *span)
{
    int ret;

    record_span(block, span, false);
    ret = check_mappings(block, span);
    if (!ret) {
        guest_memfd_block_wait(block, span->offset, span->end - span->offset);
        ret = unmap_span(block, span);
    }
    if (ret) {
        record_span(block, span, true);
    }
    return ret;
}

int guest_memfd_span_convert(GuestMemfdBlock *block, GuestMemfdSpan *span,
                             GuestMemfdDirection direction,
                             GuestMemfdContentMode mode)
{
    int ret = 0;

    span->refused = false;
    if (direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE) {
        ret = close_span(block, span);
    }
    ret = ret ?: ask_for_span(block, span, direction, mode);
    if (!ret) {
        block->generation++;
    } else {
        guest_memfd_block_unmark_changed(block, span->offset, span->end,
                                         span->bytes);
    }
    return ret;
}

/* --- all runs of a try -------------------------------------------------- */

/* The listeners know of the runs before @end. */
static void unpopulate(GuestMemfdBlock *block, uint64_t end)
{
    uint64_t offset = 0, size = 0;

    while (guest_memfd_block_next_changed(block, end, &offset, &size)) {
        guest_memfd_notify_withdrawn(block, offset, size);
        offset += size;
    }
}

int guest_memfd_run_populate(GuestMemfdBlock *block)
{
    uint64_t offset = 0, size = 0;

    /* Without listeners there is no need to look for the runs. */
    while (guest_memfd_has_listeners(block) &&
           guest_memfd_block_next_changed(block, block->size, &offset,
                                          &size)) {
        int ret = guest_memfd_notify_populate(block, offset, size);

        if (ret) {
            unpopulate(block, offset);
            return ret;
        }
        offset += size;
    }
    block->scratch.populated = true;
    return 0;
}

void guest_memfd_run_record(GuestMemfdBlock *block)
{
    uint64_t offset = 0, size = 0;

    smp_wmb();      /* pairs with guest_memfd_block_is_shared() */
    while (guest_memfd_block_next_changed(block, block->size, &offset, &size)) {
        guest_memfd_block_record(block, offset, size, true);
        offset += size;
    }
}

int guest_memfd_run_rollback(GuestMemfdBlock *block,
                             GuestMemfdDirection direction)
{
    const GuestMemfdContentMode preserve = GUEST_MEMFD_CONTENT_MODE_PRESERVE;
    uint64_t offset = 0, size = 0;
    int ret = 0;

    if (block->scratch.populated) {
        unpopulate(block, block->size);
    }
    while (guest_memfd_block_next_changed(block, block->size, &offset, &size)) {
        trace_guest_memfd_rollback(block->name, offset, size,
                                   GuestMemfdDirection_str(direction));
        ret = roll_back_run(block, offset, size, direction) ?: ret;
        offset += size;
    }
    if (block->scratch.decision.mode == preserve &&
        convert_back_mode(block, opposite(direction)) != preserve) {
        ret = -EIO;
    }
    WITH_QEMU_LOCK_GUARD(&block->stats.lock) {
        block->stats.counters.rollbacks++;
    }
    guest_memfd_block_forget_changed(block);
    return ret;
}
