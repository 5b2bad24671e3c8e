/*
 * The engine's own state: policy, blocks and what it rejected
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "guest-memfd-internal.h"

void guest_memfd_engine_init(GuestMemfdEngine *engine)
{
    QLIST_INIT(&engine->blocks);
    engine->slice_bytes = GUEST_MEMFD_SLICE_BYTES;
    qemu_mutex_init(&engine->span_lock);
    qemu_mutex_init(&engine->rejected_lock);
}

void guest_memfd_engine_destroy(GuestMemfdEngine *engine)
{
    assert(QLIST_EMPTY(&engine->blocks));
    qemu_mutex_destroy(&engine->span_lock);
    qemu_mutex_destroy(&engine->rejected_lock);
}

GuestMemfdDecision guest_memfd_engine_decide(const GuestMemfdEngine *engine,
                                             const GuestMemfdBlock *block,
                                             const GuestMemfdRequest *req)
{
    const GuestMemfdQuestion question = {
        .direction = req->direction,
        .intent = req->intent,
        .origin = req->origin,
        .phase = qatomic_read(&engine->phase),
        .block_policy = block ? qatomic_read(&block->content_policy) :
                                GUEST_MEMFD_CONTENT_POLICY_AUTO,
        .manager_policy = qatomic_read(&engine->content_policy),
        .on_unsupported = qatomic_read(&engine->on_unsupported),
    };

    return guest_memfd_decide(&question, &engine->provider->offer);
}

bool guest_memfd_engine_is_interrupted(GuestMemfdEngine *engine,
                                       GuestMemfdOrigin origin)
{
    switch (engine->interrupted ? engine->interrupted(engine) :
            GUEST_MEMFD_INTERRUPT_NONE) {
    case GUEST_MEMFD_INTERRUPT_NONE:
        return false;
    case GUEST_MEMFD_INTERRUPT_RESET:
        return origin != GUEST_MEMFD_ORIGIN_RESET;
    default:
        return true;
    }
}

static bool has_pages(const GuestMemfdBlock *block, bool shared,
                      uint64_t offset, uint64_t size)
{
    uint64_t run_size;

    return guest_memfd_block_next_run(block, shared, &offset, offset + size,
                                      size, &run_size);
}

static bool is_guest_memory(const GuestMemfdSection *s, hwaddr gpa)
{
    return s->gpa == gpa && s->block &&
           QEMU_IS_ALIGNED(s->offset | s->size, guest_memfd_page_size());
}

/* Adds what is in @s to what was found before it. */
static GuestMemfdRecord record_section(const GuestMemfdSection *s,
                                       GuestMemfdRecord before,
                                       uint64_t *generation)
{
    GuestMemfdBlock *block = s->block;
    bool shared, private;

    QEMU_LOCK_GUARD(&block->lock);
    shared = has_pages(block, true, s->offset, s->size);
    private = has_pages(block, false, s->offset, s->size);
    *generation += block->generation;
    if ((shared && private) ||
        (shared && before == GUEST_MEMFD_RECORD_PRIVATE) ||
        (private && before == GUEST_MEMFD_RECORD_SHARED)) {
        return GUEST_MEMFD_RECORD_MIXED;
    }
    return before != GUEST_MEMFD_RECORD_NONE ? before :
           shared ? GUEST_MEMFD_RECORD_SHARED : GUEST_MEMFD_RECORD_PRIVATE;
}

GuestMemfdRecord guest_memfd_engine_record(GuestMemfdEngine *engine,
                                           hwaddr gpa, uint64_t size,
                                           uint64_t *generation)
{
    GuestMemfdRecord record = GUEST_MEMFD_RECORD_NONE;
    const hwaddr end = gpa + size;
    GuestMemfdSection s;

    *generation = 0;
    if (end < gpa || !QEMU_IS_ALIGNED(gpa | size, guest_memfd_page_size())) {
        return GUEST_MEMFD_RECORD_NONE;
    }
    while (gpa < end) {
        bool found = engine->find_section(engine, gpa, end - gpa, &s);
        bool ours = found && is_guest_memory(&s, gpa);

        if (ours) {
            record = record_section(&s, record, generation);
            gpa += s.size;
        }
        if (found && s.mr) {
            memory_region_unref(s.mr);
        }
        if (!ours) {
            return GUEST_MEMFD_RECORD_NONE;
        }
    }
    return record;
}

void guest_memfd_count_rejected(GuestMemfdEngine *engine, int ret)
{
    qemu_mutex_lock(&engine->rejected_lock);
    engine->rejected[guest_memfd_errno_bucket(ret)]++;
    qemu_mutex_unlock(&engine->rejected_lock);
}

void guest_memfd_engine_totals(GuestMemfdEngine *engine,
                               GuestMemfdTotals *totals)
{
    GuestMemfdBlock *block;

    *totals = (GuestMemfdTotals) { .counters = engine->retired };
    QLIST_FOREACH(block, &engine->blocks, next) {
        uint64_t private, shared, setup;

        guest_memfd_block_count_bytes(block, &private, &shared, &setup);
        totals->shared_bytes += shared;
        totals->private_bytes += private;
        WITH_QEMU_LOCK_GUARD(&block->stats.lock) {
            guest_memfd_counters_add(&totals->counters,
                                     &block->stats.counters);
        }
    }
    totals->failures = guest_memfd_all_failures(totals->counters.failures);
    WITH_QEMU_LOCK_GUARD(&engine->rejected_lock) {
        totals->rejected = guest_memfd_all_failures(engine->rejected);
    }
    totals->unconverted_faults = stat64_get(&engine->unconverted_faults);
}
