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
/* A page of a span that is right already costs less than one that changes. */
#define GAPS_PER_BYTE   8
/* To skip a page that is right already is cheap, but not for nothing. */
#define SKIPS_PER_BYTE  2048

/* --- the blocks that a try holds --------------------------------------- */

static void hold(GuestMemfdConversion *c, GuestMemfdBlock *block,
                 MemoryRegion *mr, const GuestMemfdDecision *decision)
{
    GuestMemfdScratch *scratch = &block->scratch;

    qemu_mutex_lock(&block->lock);
    if (mr) {
        memory_region_ref(mr);
    }
    scratch->mr = mr;
    scratch->requested_bytes = 0;
    scratch->decision = *decision;
    scratch->next = c->held;
    c->held = block;
}

static bool is_held(const GuestMemfdConversion *c, const GuestMemfdBlock *block)
{
    const GuestMemfdBlock *held;

    for (held = c->held; held; held = held->scratch.next) {
        if (held == block) {
            return true;
        }
    }
    return false;
}

/* The reference may be the last one: @block is gone after this. */
static void release_block(GuestMemfdConversion *c)
{
    GuestMemfdBlock *block = c->held;
    MemoryRegion *mr = block->scratch.mr;

    c->held = block->scratch.next;
    block->scratch.next = NULL;
    block->scratch.mr = NULL;
    qemu_mutex_unlock(&block->lock);
    if (mr) {
        memory_region_unref(mr);
    }
}

/* Undo a failed try.  Returns false if that did not work. */
static bool roll_back(GuestMemfdConversion *c)
{
    GuestMemfdBlock *block;
    bool ok = true;

    for (block = c->held; block; block = block->scratch.next) {
        if (block->scratch.changed_bytes &&
            guest_memfd_run_rollback(block, c->req->direction)) {
            ok = false;
        }
    }
    return ok;
}

/* End a try; @done: its slice succeeded; @final: the request ends with it. */
static void finish(GuestMemfdConversion *c, bool done, bool final)
{
    while (c->held) {
        GuestMemfdBlock *block = c->held;
        const GuestMemfdScratch *scratch = &block->scratch;

        if (done || final) {
            guest_memfd_tally(c, block, scratch->mr, &scratch->decision);
        }
        if (done) {
            c->result->changed_bytes += scratch->changed_bytes;
            guest_memfd_count_bytes(&block->stats, c->req->direction,
                                    scratch->requested_bytes,
                                    scratch->changed_bytes);
        }
        guest_memfd_block_forget_changed(block);
        release_block(c);
    }
}

/* --- spans -------------------------------------------------------------- */

static GuestMemfdTry fail(GuestMemfdConversion *c, int error)
{
    c->error = error;
    return GUEST_MEMFD_TRY_FAILED;
}

/* -EAGAIN: the scan is out of date, start again. */
static GuestMemfdTry find_or_hold(GuestMemfdConversion *c,
                                  const GuestMemfdSection *s)
{
    GuestMemfdBlock *block = s->block;
    GuestMemfdDecision decision;

    if (!is_held(c, block)) {
        if (c->only && c->only != block) {
            return fail(c, -EAGAIN);
        }
        decision = guest_memfd_engine_decide(c->engine, block, c->req);
        if (!c->held || decision.error) {
            c->result->decision = decision;
        }
        if (decision.error) {
            return fail(c, guest_memfd_refuse_request(c, s, &decision));
        }
        hold(c, block, s->mr, &decision);
    }
    return guest_memfd_has_listeners(block) && !bql_locked() ?
           GUEST_MEMFD_TRY_WITH_BQL : GUEST_MEMFD_TRY_DONE;
}

/*
 * If the kernel is not asked for the promised bytes, it may change them and
 * then fail in a later run.  So it is asked to preserve them, if it can: the
 * bytes stay in a run that is rolled back, the zeros in one that was discarded,
 * and all in pages between the runs of a span.  @whole: all that is requested
 * changes.
 */
static GuestMemfdContentMode span_mode(const GuestMemfdConversion *c,
                                       const GuestMemfdBlock *block,
                                       bool whole)
{
    const GuestMemfdContentMode preserve = GUEST_MEMFD_CONTENT_MODE_PRESERVE;
    const GuestMemfdDecision *decision = &block->scratch.decision;
    const bool indifferent =
        decision->mode == GUEST_MEMFD_CONTENT_MODE_DEFAULT ?
        !whole :
        decision->realisation == GUEST_MEMFD_REALISATION_EMULATED;

    if (indifferent &&
        c->engine->provider->offer.how[c->req->direction][preserve] ==
        GUEST_MEMFD_REALISATION_KERNEL) {
        return preserve;
    }
    return decision->mode;
}

/* As much of a run as the slice may still change, at least a page. */
static uint64_t cut_run(const GuestMemfdConversion *c, uint64_t page,
                        uint64_t offset, uint64_t size)
{
    const uint64_t align = MAX(SLICE_ALIGN, page);
    const uint64_t end = QEMU_ALIGN_DOWN(offset + c->left, align);

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

/* So do pages of a span that are right already, if they are many. */
static void spend_gap(GuestMemfdConversion *c, uint64_t page, uint64_t gap)
{
    c->left -= MIN(c->left, QEMU_ALIGN_DOWN(gap / GAPS_PER_BYTE, page));
}

/* May a span have the pages from @from to @to, which are right already? */
static bool may_have(const GuestMemfdConversion *c,
                     const GuestMemfdBlock *block, uint64_t from, uint64_t to)
{
    const GuestMemfdContentMode mode = span_mode(c, block, false);
    const uint64_t pages = c->engine->provider->spans[c->req->direction][mode];
    uint64_t size;

    return !c->by_run &&
           to - from <= pages * block->page_size &&
           /* A request can cover a block twice that is mapped twice. */
           !guest_memfd_block_next_changed(block, to, &from, &size);
}

/*
 * To the boundaries of huge pages, if the request covers them: their pages can
 * be thrown away, and mapped, as a whole.  The pages from @start on, and those
 * up to @end, are right already.
 */
static void widen_span(const GuestMemfdConversion *c,
                       const GuestMemfdBlock *block, uint64_t start,
                       uint64_t end, GuestMemfdSpan *span)
{
    const uint64_t first = QEMU_ALIGN_DOWN(span->offset, SLICE_ALIGN);
    const uint64_t last = ROUND_UP(span->end, SLICE_ALIGN);

    if (first >= start && may_have(c, block, first, span->offset)) {
        span->offset = first;
    }
    if (last <= end && may_have(c, block, span->end, last)) {
        span->end = last;
    }
}

static void add_run(GuestMemfdBlock *block, GuestMemfdSpan *span,
                    uint64_t offset, uint64_t size)
{
    if (!span->runs++) {
        span->offset = offset;
        span->failed_offset = offset;
    }
    span->end = offset + size;
    span->bytes += size;
    guest_memfd_block_mark_changed(block, offset, size);
}

/* Mark what the provider is to be asked for next; move @offset to its end. */
static bool next_span(GuestMemfdConversion *c, GuestMemfdBlock *block,
                      uint64_t *offset, uint64_t end, GuestMemfdSpan *span)
{
    const bool shared = c->req->direction == GUEST_MEMFD_DIRECTION_TO_SHARED;
    const uint64_t start = *offset;
    uint64_t run, size, gap;

    *span = (GuestMemfdSpan) { };
    while (c->left) {
        if (!guest_memfd_block_next_run(block, !shared, offset, end, c->left,
                                        &run)) {
            *offset = end;
            break;
        }
        if (span->runs && !may_have(c, block, span->end, *offset)) {
            break;
        }
        size = cut_run(c, block->page_size, *offset, run);
        gap = span->runs ? *offset - span->end : 0;
        add_run(block, span, *offset, size);
        spend(c, size < run ? c->left : size);
        spend_gap(c, block->page_size, gap);
        *offset += size;
    }
    if (span->runs) {
        gap = span->end - span->offset;
        widen_span(c, block, start, *offset, span);
        gap = span->end - span->offset - gap;
        spend_gap(c, block->page_size, gap);
    }
    return span->runs;
}

static int convert_span(const GuestMemfdConversion *c, GuestMemfdBlock *block,
                        GuestMemfdSpan *span)
{
    const bool whole = span->bytes == c->req->size;

    return guest_memfd_span_convert(block, span, c->req->direction,
                                    span_mode(c, block, whole));
}

/* The slice is done with the section up to @offset. */
static GuestMemfdTry end_section(GuestMemfdConversion *c,
                                 const GuestMemfdSection *s, uint64_t offset)
{
    const uint64_t done = offset - s->offset;

    s->block->scratch.requested_bytes += done;
    c->look_left -= done;
    if (c->left && c->look_left) {
        return GUEST_MEMFD_TRY_DONE;
    }
    c->slice_end = s->gpa + done;
    c->slice_end_offset = offset;
    return GUEST_MEMFD_TRY_SLICE;
}

static GuestMemfdTry convert_section(GuestMemfdConversion *c,
                                     const GuestMemfdSection *s)
{
    const uint64_t end = s->offset + MIN(s->size, c->look_left);
    GuestMemfdBlock *block = s->block;
    GuestMemfdTry try = find_or_hold(c, s);
    uint64_t offset = s->offset, left;
    GuestMemfdSpan span;
    int ret;

    if (try != GUEST_MEMFD_TRY_DONE) {
        return try;
    }
    while (left = c->left, next_span(c, block, &offset, end, &span)) {
        ret = convert_span(c, block, &span);
        if (ret && span.refused && span.bytes < span.end - span.offset) {
            /* A page that does not change may be in the way of the others. */
            c->by_run = true;
            c->left = left;
            offset = span.offset;
        } else if (ret) {
            c->failing = block;
            c->failing_offset = span.failed_offset;
            return fail(c, ret);
        }
    }
    return end_section(c, s, offset);
}

/* --- slices ------------------------------------------------------------- */

static bool worth_another_try(const GuestMemfdConversion *c)
{
    return (c->error == -EAGAIN || c->error == -EINTR) &&
           get_clock() < c->deadline_ns &&
           !guest_memfd_engine_is_interrupted(c->engine, c->req->origin);
}

/* All pages are converted: publish those that are shared now. */
static int publish(GuestMemfdConversion *c)
{
    GuestMemfdBlock *block;
    int ret;

    if (c->req->direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE) {
        return 0;
    }
    for (block = c->held; block; block = block->scratch.next) {
        ret = guest_memfd_run_populate(block);
        if (ret) {
            c->failing = block;
            c->failing_offset = block->scratch.changed_first *
                                guest_memfd_page_size();
            return ret;
        }
    }
    for (block = c->held; block; block = block->scratch.next) {
        guest_memfd_run_record(block);
    }
    return 0;
}

static GuestMemfdTry convert_sections(GuestMemfdConversion *c)
{
    GuestMemfdTry try = GUEST_MEMFD_TRY_DONE;
    hwaddr gpa = c->pos;
    GuestMemfdSection s;
    int ret = 0;

    while (try == GUEST_MEMFD_TRY_DONE &&
           (ret = guest_memfd_next_section(c, &gpa, &s)) > 0) {
        try = convert_section(c, &s);
        guest_memfd_section_put(&s);
    }
    return ret < 0 ? fail(c, ret) : try;
}

/* Returns TRY_FAILED if no other slice may follow now. */
static GuestMemfdTry end_slice(GuestMemfdConversion *c)
{
    c->pos = c->slice_end;
    if (c->pos == guest_memfd_request_end(c)) {
        return GUEST_MEMFD_TRY_DONE;
    }
    if (guest_memfd_engine_is_interrupted(c->engine, c->req->origin)) {
        c->failing = c->held;
        c->failing_offset = c->slice_end_offset;
        return fail(c, -EAGAIN);
    }
    return GUEST_MEMFD_TRY_SLICE;
}

static GuestMemfdTry undo_slice(GuestMemfdConversion *c, GuestMemfdTry try)
{
    if (!roll_back(c)) {
        return fail(c, -EIO);
    }
    return try == GUEST_MEMFD_TRY_FAILED && worth_another_try(c) ?
           GUEST_MEMFD_TRY_RETRY : try;
}

static bool is_converted(GuestMemfdTry try)
{
    return try == GUEST_MEMFD_TRY_DONE || try == GUEST_MEMFD_TRY_SLICE;
}

static GuestMemfdTry try_locked(GuestMemfdConversion *c)
{
    GuestMemfdTry try = convert_sections(c);
    int ret = is_converted(try) ? publish(c) : 0;
    bool done;

    if (ret) {
        try = fail(c, ret);
    }
    done = is_converted(try);
    try = done ? end_slice(c) : undo_slice(c, try);
    if (try == GUEST_MEMFD_TRY_FAILED && c->failing) {
        guest_memfd_note_failure(c, c->failing, c->failing->scratch.mr,
                                 c->failing_offset);
    }
    finish(c, done, try == GUEST_MEMFD_TRY_DONE ||
                    try == GUEST_MEMFD_TRY_FAILED);
    return try;
}

static GuestMemfdTry try_spanning(GuestMemfdConversion *c)
{
    QEMU_LOCK_GUARD(&c->engine->span_lock);
    return try_locked(c);
}

GuestMemfdTry guest_memfd_slice_convert(GuestMemfdConversion *c,
                                        GuestMemfdBlock *only)
{
    GuestMemfdProvider *provider = c->engine->provider;
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_GET_CLASS(provider);
    GuestMemfdTry try;

    c->only = only;
    c->failing = NULL;
    c->left = c->look_left = UINT64_MAX;
    if (c->req->origin != GUEST_MEMFD_ORIGIN_LAUNCH) {
        c->left = c->engine->slice_bytes;
        c->look_left = c->left * SKIPS_PER_BYTE;
    }
    c->slice_end = guest_memfd_request_end(c);
    if (pc->begin) {
        pc->begin(provider);
    }
    try = only ? try_locked(c) : try_spanning(c);
    if (pc->end) {
        pc->end(provider);
    }
    return try;
}
