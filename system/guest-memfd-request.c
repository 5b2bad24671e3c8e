/*
 * A request to convert guest memory, from its first to its last trace event
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "guest-memfd-internal.h"
#include "trace.h"

static bool is_well_formed(const GuestMemfdRequest *req)
{
    return req->size && req->gpa + req->size > req->gpa &&
           QEMU_IS_ALIGNED(req->gpa | req->size, guest_memfd_page_size());
}

/* bpftrace sees no more than the first six. */
static void trace_end(const GuestMemfdRequest *req,
                      const GuestMemfdResult *result, int ret)
{
    const GuestMemfdDecision *decision = &result->outcome.decision;

    trace_guest_memfd_convert_end(req->gpa, req->size,
        GuestMemfdDirection_str(req->direction),
        GuestMemfdContentMode_str(decision->mode),
        ret ? guest_memfd_errno_name(guest_memfd_errno_place(ret)) : "ok",
        result->ns, GuestMemfdRealisation_str(decision->realisation),
        result->outcome.changed_bytes, result->retries, ret);
}

static void tell_failure(GuestMemfdEngine *engine,
                         const GuestMemfdRequest *req, bool in_block,
                         const GuestMemfdResult *result, int ret)
{
    const GuestMemfdFailure failure = {
        .req = req,
        .in_block = in_block,
        .block = result->failed,
        .offset = result->failed_offset,
        .outcome = &result->outcome,
        .retries = result->retries,
        .error = ret,
    };

    if (engine->failed) {
        engine->failed(engine, &failure);
    }
    if (result->failed_mr) {
        memory_region_unref(result->failed_mr);
    }
}

/* @ret: 0, or why there is nothing to carry out. */
static int run(GuestMemfdEngine *engine, const GuestMemfdRequest *req,
               const GuestMemfdSection *given, int ret,
               GuestMemfdOutcome *outcome)
{
    GuestMemfdResult result = { .start_ns = get_clock() };

    trace_guest_memfd_convert_begin(req->gpa, req->size,
        GuestMemfdDirection_str(req->direction),
        GuestMemfdOrigin_str(req->origin), req->intent);
    if (!ret && !is_well_formed(req)) {
        ret = -EINVAL;
    }
    if (!ret) {
        ret = guest_memfd_carry_out(engine, req, given, &result);
    }
    if (ret && !result.counted) {
        guest_memfd_count_rejected(engine, ret);
    }
    trace_end(req, &result, ret);
    if (ret) {
        tell_failure(engine, req, given, &result, ret);
    }

    if (outcome) {
        *outcome = result.outcome;
    }
    return ret;
}

int guest_memfd_engine_convert(GuestMemfdEngine *engine,
                               const GuestMemfdRequest *req,
                               GuestMemfdOutcome *outcome)
{
    return run(engine, req, NULL, 0, outcome);
}

int guest_memfd_engine_request(GuestMemfdEngine *engine, hwaddr gpa,
                               uint64_t size, uint64_t attributes,
                               GuestMemfdOrigin origin,
                               GuestMemfdOutcome *outcome)
{
    GuestMemfdRequest req;
    int ret = guest_memfd_request_decode(&req, gpa, size, attributes, origin);

    return run(engine, &req, NULL, ret, outcome);
}

int guest_memfd_engine_convert_block(GuestMemfdEngine *engine,
                                     GuestMemfdBlock *block,
                                     const GuestMemfdRequest *req,
                                     GuestMemfdOutcome *outcome)
{
    const GuestMemfdSection section = {
        .gpa = req->gpa,
        .size = req->size,
        .block = block,
        .offset = req->gpa,
    };

    assert(req->gpa < block->size && req->size <= block->size - req->gpa);
    return run(engine, req, &section, 0, outcome);
}
