/*
 * One slice of a request to convert guest memory, all or nothing
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The blocks that a slice touches are locked, one by one, and stay locked
 * until it has succeeded or all of it has been rolled back.  Only a request
 * that holds span_lock waits for a block while it holds another, so two
 * requests cannot wait for each other.
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "guest-memfd-conversion.h"

/* Where a slice ends, a huge page of the guest's should not be split. */
#define SLICE_ALIGN     (2 * MiB)
/* To skip a page that is right already is cheap, but not for nothing. */
#define SKIPS_PER_BYTE  2048

/* No error: there is more of the request after this slice. */
#define SLICE_FULL      1

/* --- the blocks that a try holds --------------------------------------- */

static void hold(GuestMemfdConversion *c, GuestMemfdBlock *block,
                 MemoryRegion *mr, const GuestMemfdDecision *decision)
{
    qemu_mutex_lock(&block->lock);
    if (mr) {
        memory_region_ref(mr);
    }
    block->held_mr = mr;
    block->asked_bytes = 0;
    block->decision = *decision;
    block->next_held = c->held;
    c->held = block;
}

static bool is_held(const GuestMemfdConversion *c, const GuestMemfdBlock *block)
{
    const GuestMemfdBlock *held;

    for (held = c->held; held; held = held->next_held) {
        if (held == block) {
            return true;
        }
    }
    return false;
}

/* The reference may be the last one: @block is gone after this. */
static void let_go(GuestMemfdConversion *c)
{
    GuestMemfdBlock *block = c->held;
    MemoryRegion *mr = block->held_mr;

    c->held = block->next_held;
    block->next_held = NULL;
    block->held_mr = NULL;
    qemu_mutex_unlock(&block->lock);
    if (mr) {
        memory_region_unref(mr);
    }
}

/* Undo a failed try.  Returns @ret, or -EIO if that did not work. */
static int roll_back(GuestMemfdConversion *c, int ret)
{
    GuestMemfdBlock *block;

    for (block = c->held; block; block = block->next_held) {
        if (block->changed_bytes &&
            guest_memfd_run_rollback(block, c->req->direction)) {
            ret = -EIO;
        }
    }
    return ret;
}

/* End a try; @done: its slice succeeded; @final: the request ends with it. */
static void finish(GuestMemfdConversion *c, bool done, bool final)
{
    while (c->held) {
        GuestMemfdBlock *block = c->held;

        if (done || final) {
            guest_memfd_tally(c, block, block->held_mr, &block->decision);
        }
        if (done) {
            c->result->outcome.changed_bytes += block->changed_bytes;
            guest_memfd_count_bytes(block, c->req->direction);
        }
        guest_memfd_block_forget_changed(block);
        let_go(c);
    }
}

/* --- runs --------------------------------------------------------------- */

/* -EAGAIN: what the scan found is no longer true, start again. */
static int find_or_hold(GuestMemfdConversion *c, const GuestMemfdSection *s)
{
    GuestMemfdBlock *block = s->block;
    GuestMemfdDecision decision;

    if (!is_held(c, block)) {
        if (c->only && c->only != block) {
            return -EAGAIN;
        }
        decision = guest_memfd_engine_decide(c->engine, block, c->req);
        if (!c->held || decision.error) {
            c->result->outcome.decision = decision;
        }
        if (decision.error) {
            return guest_memfd_refuse_request(c, s, &decision);
        }
        hold(c, block, s->mr, &decision);
    }
    if (guest_memfd_has_listeners(block) && !bql_locked()) {
        c->needs_bql = true;
        return -EAGAIN;
    }
    return 0;
}

/*
 * Where the kernel is not asked to keep or to make the bytes that were
 * promised, it may do with them what it likes, and may fail in a later run:
 * so it is asked to preserve them, where it can.  That leaves the bytes as
 * they are in a run that goes back, and zeros where they were discarded.
 */
static GuestMemfdContentMode run_mode(const GuestMemfdConversion *c,
                                      const GuestMemfdBlock *block,
                                      uint64_t size)
{
    const GuestMemfdContentMode preserve = GUEST_MEMFD_CONTENT_MODE_PRESERVE;
    const GuestMemfdDecision *decision = &block->decision;
    const bool indifferent =
        decision->mode == GUEST_MEMFD_CONTENT_MODE_DEFAULT ?
        size != c->req->size :
        decision->realisation == GUEST_MEMFD_REALISATION_EMULATED;

    if (indifferent &&
        c->engine->provider->offer.how[c->req->direction][preserve] ==
        GUEST_MEMFD_REALISATION_KERNEL) {
        return preserve;
    }
    return decision->mode;
}

/* As much of a run as the slice may still change, at least a page. */
static uint64_t cut_run(const GuestMemfdConversion *c, uint64_t offset,
                        uint64_t size)
{
    const uint64_t page = guest_memfd_page_size();
    const uint64_t end = QEMU_ALIGN_DOWN(offset + c->left, SLICE_ALIGN);

    if (size <= c->left) {
        return size;
    }
    return end > offset ? end - offset :
                          MAX(QEMU_ALIGN_DOWN(c->left, page), page);
}

/* A run costs something, however short it is. */
static void spend(GuestMemfdConversion *c, uint64_t size)
{
    const uint64_t least = c->engine->slice_bytes / GUEST_MEMFD_SLICE_RUNS;

    c->left -= MIN(c->left, MAX(size, least));
}

/* The slice is done with the section up to @offset. */
static int end_section(GuestMemfdConversion *c, const GuestMemfdSection *s,
                       uint64_t offset)
{
    const uint64_t done = offset - s->offset;

    s->block->asked_bytes += done;
    c->look_left -= done;
    if (c->left && c->look_left) {
        return 0;
    }
    c->slice_end = s->gpa + done;
    c->slice_end_offset = offset;
    return SLICE_FULL;
}

static int convert_section(GuestMemfdConversion *c, const GuestMemfdSection *s,
                           unsigned *blocks)
{
    const bool shared = c->req->direction == GUEST_MEMFD_DIRECTION_TO_SHARED;
    GuestMemfdBlock *block = s->block;
    uint64_t offset = s->offset, size, run;
    const uint64_t end = offset + MIN(s->size, c->look_left);
    int ret;

    if (!block) {
        return guest_memfd_check_foreign(c, s->size);
    }
    ret = find_or_hold(c, s);
    if (ret) {
        return ret;
    }

    while (c->left &&
           guest_memfd_block_next_run(block, !shared, &offset, end, &run)) {
        size = cut_run(c, offset, run);
        ret = guest_memfd_run_convert(block, offset, size, c->req->direction,
                                      run_mode(c, block, size));
        if (ret) {
            c->failing = block;
            c->failing_offset = offset;
            return ret;
        }
        offset += size;
        spend(c, size < run ? c->left : size);
    }
    return end_section(c, s, c->left ? end : offset);
}

/* --- slices ------------------------------------------------------------- */

static bool worth_another_try(const GuestMemfdConversion *c, int ret)
{
    return (ret == -EAGAIN || ret == -EINTR) &&
           get_clock() < c->deadline_ns && !guest_memfd_is_interrupted(c);
}

/* All pages are converted: those that are shared now may be used. */
static int publish(GuestMemfdConversion *c)
{
    GuestMemfdBlock *block;
    int ret;

    if (c->req->direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE) {
        return 0;
    }
    for (block = c->held; block; block = block->next_held) {
        ret = guest_memfd_run_populate(block);
        if (ret) {
            c->failing = block;
            c->failing_offset = block->changed_first *
                                guest_memfd_page_size();
            return ret;
        }
    }
    for (block = c->held; block; block = block->next_held) {
        guest_memfd_run_record(block);
    }
    return 0;
}

static int convert_slice(GuestMemfdConversion *c)
{
    unsigned blocks = 0;
    int ret;

    c->failing = NULL;
    c->left = c->engine->slice_bytes;
    c->look_left = c->left * SKIPS_PER_BYTE;
    c->slice_end = guest_memfd_request_end(c);
    ret = guest_memfd_for_each_section(c, convert_section, &blocks);
    return ret < 0 ? ret : publish(c);
}

/* Returns -EAGAIN if no other slice may follow now. */
static int end_slice(GuestMemfdConversion *c, bool *again)
{
    c->pos = c->slice_end;
    *again = c->pos < guest_memfd_request_end(c);
    if (*again && guest_memfd_is_interrupted(c)) {
        *again = false;
        c->failing = c->held;
        c->failing_offset = c->slice_end_offset;
        return -EAGAIN;
    }
    return 0;
}

static int try_locked(GuestMemfdConversion *c, bool *again)
{
    int ret = convert_slice(c);
    const bool done = !ret;

    if (done) {
        ret = end_slice(c, again);
    } else {
        ret = roll_back(c, ret);
        *again = (ret == -EAGAIN && c->needs_bql) ||
                 worth_another_try(c, ret);
    }
    if (ret && !*again && c->failing) {
        guest_memfd_note_failure(c, c->failing, c->failing->held_mr,
                         c->failing_offset);
    }
    finish(c, done, !*again);
    return ret;
}

static int try_spanning(GuestMemfdConversion *c, bool *again)
{
    QEMU_LOCK_GUARD(&c->engine->span_lock);
    c->only = NULL;
    return try_locked(c, again);
}

int guest_memfd_slice_convert(GuestMemfdConversion *c, bool spans,
                              bool *again)
{
    GuestMemfdProvider *provider = c->engine->provider;
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_GET_CLASS(provider);
    int ret;

    if (pc->begin) {
        pc->begin(provider);
    }
    ret = spans ? try_spanning(c, again) : try_locked(c, again);
    if (pc->end) {
        pc->end(provider);
    }
    return ret;
}
