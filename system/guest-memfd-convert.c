/*
 * The conversion engine: a request, from its first to its last trace event
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A request is scanned first, so that a refusal changes nothing.  Then it is
 * converted in slices, so that other threads get the locks in between; all
 * but huge requests are one slice, which is all or nothing: see
 * guest-memfd-slice.c.
 *
 * The provider returns -EAGAIN for a page that is busy.  The slice is
 * rolled back before the engine sleeps, so that no thread finds it half
 * done, and other pages can be converted meanwhile.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "guest-memfd-conversion.h"
#include "trace.h"

#define LAUNCH_PATIENCE_MS      1000

/* --- the scan ---------------------------------------------------------- */

typedef struct Scan {
    GuestMemfdBlock *block;
    unsigned blocks;
    bool needs_bql;
} Scan;

static int scan_section(GuestMemfdConversion *c, const GuestMemfdSection *s,
                        Scan *scan)
{
    GuestMemfdDecision decision;

    if (!QEMU_IS_ALIGNED(s->offset | s->size, s->block->page_size)) {
        return -EINVAL;
    }

    decision = guest_memfd_engine_decide(c->engine, s->block, c->req);
    if (!c->result->decided || decision.error) {
        c->result->decided = true;
        c->result->decision = decision;
    }
    if (decision.error) {
        return guest_memfd_refuse_request(c, s, &decision);
    }
    if (scan->block != s->block) {
        scan->block = s->block;
        scan->blocks++;
    }
    /* Checked without the lock: the slice checks again. */
    scan->needs_bql |= guest_memfd_has_listeners(s->block) && !bql_locked();
    return 0;
}

static int scan_request(GuestMemfdConversion *c, Scan *scan)
{
    hwaddr gpa = c->pos;
    GuestMemfdSection s;
    int ret;

    while ((ret = guest_memfd_next_section(c, &gpa, &s)) > 0) {
        ret = scan_section(c, &s, scan);
        guest_memfd_section_put(&s);
        if (ret) {
            break;
        }
    }
    return ret;
}

/* --- tries ------------------------------------------------------------- */

static GuestMemfdTry try_once(GuestMemfdConversion *c)
{
    Scan scan = { };

    c->error = scan_request(c, &scan);
    if (c->error) {
        return GUEST_MEMFD_TRY_FAILED;
    }
    if (scan.needs_bql) {
        return GUEST_MEMFD_TRY_WITH_BQL;
    }
    if (!scan.blocks) {
        return GUEST_MEMFD_TRY_DONE;
    }
    return guest_memfd_slice_convert(c, scan.blocks > 1 ? NULL : scan.block);
}

static GuestMemfdTry try_with_bql(GuestMemfdConversion *c)
{
    GuestMemfdTry try;

    bql_lock();
    try = try_once(c);
    bql_unlock();
    return try;
}

/* Never sleep with the BQL: it may be needed to unmap the page. */
static void back_off(GuestMemfdConversion *c)
{
    bool locked = bql_locked();

    if (locked) {
        bql_unlock();
    }
    if (c->engine->serve) {
        c->engine->serve(c->engine);
    }
    g_usleep(guest_memfd_backoff_us(c->result->retries++));
    if (locked) {
        bql_lock();
    }
}

static void let_others_in(GuestMemfdConversion *c)
{
    bool locked = bql_locked();

    if (locked) {
        bql_unlock();
    }
    if (c->engine->between_slices) {
        c->engine->between_slices(c->engine);
    }
    if (locked) {
        bql_lock();
    }
}

/*
 * The timeout is for a busy page, not for a large request.  No guest can try
 * a part of the launch again, whatever the timeout of its requests is.
 */
static void start_waiting(GuestMemfdConversion *c)
{
    int64_t ms = qatomic_read(&c->engine->retry_timeout_ms);

    if (c->req->origin == GUEST_MEMFD_ORIGIN_LAUNCH) {
        ms = MAX(ms, LAUNCH_PATIENCE_MS);
    }
    c->deadline_ns = get_clock() + ms * SCALE_MS;
}

static void convert(GuestMemfdConversion *c)
{
    bool take_bql = false;

    start_waiting(c);
    for (;;) {
        switch (take_bql ? try_with_bql(c) : try_once(c)) {
        case GUEST_MEMFD_TRY_DONE:
        case GUEST_MEMFD_TRY_FAILED:
            return;
        case GUEST_MEMFD_TRY_SLICE:
            let_others_in(c);
            start_waiting(c);
            break;
        case GUEST_MEMFD_TRY_RETRY:
            back_off(c);
            break;
        case GUEST_MEMFD_TRY_WITH_BQL:
            take_bql = true;
            break;
        }
    }
}

/* --- requests ---------------------------------------------------------- */

static bool is_well_formed(const GuestMemfdRequest *req)
{
    return req->size && req->gpa + req->size > req->gpa &&
           QEMU_IS_ALIGNED(req->gpa | req->size, guest_memfd_page_size());
}

/* bpftrace reads only the first six. */
static void trace_end(const GuestMemfdRequest *req,
                      const GuestMemfdResult *result)
{
    const GuestMemfdDecision *decision = &result->decision;
    const int error = result->error;

    trace_guest_memfd_convert_end(req->gpa, req->size,
        GuestMemfdDirection_str(req->direction),
        GuestMemfdContentMode_str(decision->mode),
        error ? guest_memfd_errno_name(guest_memfd_errno_bucket(error)) : "ok",
        result->ns, GuestMemfdRealisation_str(decision->realisation),
        result->changed_bytes, result->retries, error);
}

static void report_failure(GuestMemfdEngine *engine,
                           const GuestMemfdRequest *req,
                           GuestMemfdResult *result)
{
    if (engine->failed) {
        engine->failed(engine, req, result);
    }
    if (result->mr) {
        memory_region_unref(result->mr);
    }
    result->block = NULL;
    result->mr = NULL;
}

/*
 * The vCPU goes on when it has the answer, and each page that it accesses
 * then is a page fault if the page tables do not have it.
 */
static void prefault(GuestMemfdEngine *engine, const GuestMemfdRequest *req)
{
    GuestMemfdProvider *provider = engine->provider;
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_GET_CLASS(provider);

    if (pc->prefault && req->origin == GUEST_MEMFD_ORIGIN_HYPERCALL) {
        pc->prefault(provider, req->gpa, req->size);
    }
}

/* @error: 0, or why the request is malformed. */
static int process(GuestMemfdEngine *engine, const GuestMemfdRequest *req,
                   int error, GuestMemfdResult *result)
{
    const int64_t start_ns = get_clock();
    GuestMemfdConversion c = {
        .engine = engine,
        .req = req,
        .result = result,
        .pos = req->gpa,
        .error = error ?: is_well_formed(req) ? 0 : -EINVAL,
    };

    trace_guest_memfd_convert_begin(req->gpa, req->size,
        GuestMemfdDirection_str(req->direction),
        GuestMemfdOrigin_str(req->origin), req->intent);
    if (!c.error) {
        convert(&c);
        result->ns = get_clock() - start_ns;
    }
    result->error = c.error;
    guest_memfd_count_conversion(&c);
    trace_end(req, result);
    if (result->error) {
        report_failure(engine, req, result);
    } else {
        prefault(engine, req);
    }
    return result->error;
}

int guest_memfd_engine_convert(GuestMemfdEngine *engine,
                               const GuestMemfdRequest *req,
                               GuestMemfdResult *result)
{
    const GuestMemfdBlock *block = req->block;
    GuestMemfdResult own = { }, *r = result ?: &own;

    assert(!block || (req->gpa < block->size &&
                      req->size <= block->size - req->gpa));
    *r = own;
    return process(engine, req, 0, r);
}

int guest_memfd_engine_share_block(GuestMemfdEngine *engine,
                                   GuestMemfdBlock *block)
{
    const GuestMemfdRequest req = {
        .block = block,
        .size = block->size,
        .direction = GUEST_MEMFD_DIRECTION_TO_SHARED,
        .origin = GUEST_MEMFD_ORIGIN_RESET,
        .intent = GUEST_MEMFD_INTENT_ZERO,
    };

    if (guest_memfd_block_is_all_shared(block)) {
        return 0;
    }
    return guest_memfd_engine_convert(engine, &req, NULL);
}

int guest_memfd_engine_request(GuestMemfdEngine *engine, hwaddr gpa,
                               uint64_t size, uint64_t attributes,
                               GuestMemfdOrigin origin,
                               GuestMemfdResult *result)
{
    GuestMemfdResult own = { }, *r = result ?: &own;
    GuestMemfdRequest req;
    int error = guest_memfd_request_decode(&req, gpa, size, attributes,
                                           origin);

    *r = own;
    return process(engine, &req, error, r);
}
