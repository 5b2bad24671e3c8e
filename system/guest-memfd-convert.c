/*
 * The conversion engine: from a request to runs of pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A request is all or nothing.  It is scanned first, so that whatever can
 * be refused is refused before anything changes.  Then the blocks that it
 * touches are locked, one by one, and stay locked until the request has
 * succeeded or all of it has been rolled back.  Only a request that holds
 * span_lock waits for a block while it holds another, so two requests
 * cannot wait for each other.
 *
 * A page that is still in use makes the provider say -EAGAIN.  The request
 * is rolled back before the engine sleeps, so that nobody sees it half
 * done, and other pages can be converted meanwhile.
 *
 * Nothing is allocated on the way.
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "guest-memfd-internal.h"

#define BACKOFF_MIN_US  10
#define BACKOFF_MAX_US  1000

/* A request in progress. */
typedef struct Conversion {
    GuestMemfdEngine *engine;
    const GuestMemfdRequest *req;
    const GuestMemfdSection *given; /* instead of what is mapped at a GPA */
    GuestMemfdResult *result;
    int64_t deadline_ns;

    /* Of one try. */
    GuestMemfdBlock *held;
    GuestMemfdBlock *only;          /* NULL: the request spans blocks */
    GuestMemfdBlock *failing;
    uint64_t failing_offset;
    bool needs_bql;
} Conversion;

/* --- the blocks that a try holds --------------------------------------- */

static void hold(Conversion *c, GuestMemfdBlock *block, MemoryRegion *mr,
                 const GuestMemfdDecision *decision)
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

static bool is_held(const Conversion *c, const GuestMemfdBlock *block)
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
static void let_go(Conversion *c)
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

static void count(Conversion *c, GuestMemfdBlock *block, int ret)
{
    GuestMemfdResult *result = c->result;

    result->counted = true;
    result->ns = get_clock() - result->start_ns;
    block->counters.retries += result->retries;
    guest_memfd_count_request(block, c->req, ret, block->changed_bytes,
                              result->ns);
}

/* A reference keeps @block until the failure has been told. */
static void remember_failure(Conversion *c, GuestMemfdBlock *block,
                             MemoryRegion *mr, uint64_t offset)
{
    if (c->result->failed) {
        return;
    }
    if (mr) {
        memory_region_ref(mr);
    }
    c->result->failed = block;
    c->result->failed_mr = mr;
    c->result->failed_offset = offset;
}

/* Undo a failed try.  Returns @ret, or -EIO if that did not work. */
static int roll_back(Conversion *c, int ret)
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

/* End a try; @final says that the request ends with it. */
static void finish(Conversion *c, int ret, bool final)
{
    while (c->held) {
        GuestMemfdBlock *block = c->held;

        if (final) {
            c->result->outcome.changed_bytes += block->changed_bytes;
            count(c, block, ret);
        }
        guest_memfd_block_forget_changed(block);
        let_go(c);
    }
}

/* --- sections ---------------------------------------------------------- */

/* Refused by policy before anything was locked. */
static int refuse(Conversion *c, const GuestMemfdSection *s,
                  const GuestMemfdDecision *decision)
{
    GuestMemfdBlock *block = s->block;

    remember_failure(c, block, s->mr, s->offset);
    qemu_mutex_lock(&block->lock);
    block->decision = *decision;
    count(c, block, decision->error);
    qemu_mutex_unlock(&block->lock);
    return decision->error;
}

/*
 * What is not guest memory: to-shared may cover holes and MMIO, which
 * guests share in passing (firmware does so with the whole 32-bit PCI
 * hole); to-private may not, and other RAM can do neither.
 */
static int check_foreign(const Conversion *c, const GuestMemfdSection *s)
{
    if (c->req->direction == GUEST_MEMFD_DIRECTION_TO_SHARED && s->mmio) {
        return 0;
    }
    return -EINVAL;
}

static int check_hole(const Conversion *c, uint64_t size)
{
    if (!size || c->req->direction == GUEST_MEMFD_DIRECTION_TO_SHARED) {
        return 0;
    }
    return -EINVAL;
}

static int scan_section(Conversion *c, const GuestMemfdSection *s,
                        unsigned *blocks)
{
    GuestMemfdDecision decision;

    if (!s->block) {
        return check_foreign(c, s);
    }
    if (!QEMU_IS_ALIGNED(s->offset | s->size, guest_memfd_page_size())) {
        return -EINVAL;
    }

    decision = guest_memfd_engine_decide(c->engine, s->block, c->req);
    if (!c->result->outcome.decided || decision.error) {
        c->result->outcome.decided = true;
        c->result->outcome.decision = decision;
    }
    if (decision.error) {
        return refuse(c, s, &decision);
    }
    if (c->only != s->block) {
        c->only = s->block;
        (*blocks)++;
    }
    /* A first look, without the lock: find_or_hold() looks again. */
    c->needs_bql |= guest_memfd_has_listeners(s->block) && !bql_locked();
    return 0;
}

/* -EAGAIN: what the scan found is no longer true, start again. */
static int find_or_hold(Conversion *c, const GuestMemfdSection *s)
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
            return refuse(c, s, &decision);
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
 * A request of several runs can fail after the first was converted.  What
 * the kernel did to its bytes by then could not be undone, so it is asked
 * to preserve them, where it can: that keeps any promise but zero, and
 * zeroing is left to when nothing can fail any more.
 */
static GuestMemfdContentMode run_mode(Conversion *c, GuestMemfdBlock *block,
                                      uint64_t size)
{
    const GuestMemfdContentMode preserve = GUEST_MEMFD_CONTENT_MODE_PRESERVE;
    const GuestMemfdOffer *offer = &c->engine->provider->offer;

    if (size == c->req->size || offer->how[c->req->direction][preserve] !=
        GUEST_MEMFD_REALISATION_KERNEL) {
        return block->decision.mode;
    }
    if (block->decision.mode == GUEST_MEMFD_CONTENT_MODE_ZERO) {
        block->decision.realisation = GUEST_MEMFD_REALISATION_EMULATED;
        if (!block->next_held) {
            /* The first block: the one that the outcome is about. */
            c->result->outcome.decision = block->decision;
        }
    }
    return preserve;
}

static int convert_section(Conversion *c, const GuestMemfdSection *s,
                           unsigned *blocks)
{
    const bool shared = c->req->direction == GUEST_MEMFD_DIRECTION_TO_SHARED;
    GuestMemfdBlock *block = s->block;
    uint64_t offset = s->offset, end = s->offset + s->size, size;
    int ret;

    if (!block) {
        return check_foreign(c, s);
    }
    ret = find_or_hold(c, s);
    if (ret) {
        return ret;
    }

    block->asked_bytes += s->size;
    while (guest_memfd_block_next_run(block, !shared, &offset, end, &size)) {
        ret = guest_memfd_run_convert(block, offset, size, c->req->direction,
                                      run_mode(c, block, size));
        if (ret) {
            c->failing = block;
            c->failing_offset = offset;
            return ret;
        }
        offset += size;
    }
    return 0;
}

typedef int SectionFn(Conversion *c, const GuestMemfdSection *s,
                      unsigned *blocks);

static int for_each_section(Conversion *c, SectionFn *fn, unsigned *blocks)
{
    GuestMemfdEngine *engine = c->engine;
    hwaddr gpa = c->req->gpa, end = gpa + c->req->size;
    GuestMemfdSection s;
    int ret;

    if (c->given) {
        return fn(c, c->given, blocks);
    }
    while (gpa < end) {
        if (!engine->find_section(engine, gpa, end - gpa, &s)) {
            return check_hole(c, end - gpa);
        }
        ret = check_hole(c, s.gpa - gpa);
        if (!ret) {
            ret = fn(c, &s, blocks);
        }
        if (s.mr) {
            memory_region_unref(s.mr);
        }
        if (ret) {
            return ret;
        }
        gpa = s.gpa + s.size;
    }
    return 0;
}

/* --- requests ---------------------------------------------------------- */

static bool worth_another_try(const Conversion *c, int ret)
{
    return (ret == -EAGAIN || ret == -EINTR) && get_clock() < c->deadline_ns;
}

/* All pages are converted: those that are shared now may be used. */
static int publish(Conversion *c)
{
    GuestMemfdBlock *block = c->held;
    int ret = 0;

    if (c->req->direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE) {
        return 0;
    }
    for (; block && !ret; block = block->next_held) {
        c->failing = block;
        c->failing_offset = block->changed_first * guest_memfd_page_size();
        ret = guest_memfd_run_publish(block, &block->decision);
    }
    return ret;
}

static int try_locked(Conversion *c, bool *again)
{
    unsigned blocks = 0;
    int ret;

    c->failing = NULL;
    ret = for_each_section(c, convert_section, &blocks) ?: publish(c);
    if (ret) {
        ret = roll_back(c, ret);
    }
    *again = ret == -EAGAIN && c->needs_bql;
    *again |= worth_another_try(c, ret);
    if (ret && !*again && c->failing) {
        remember_failure(c, c->failing, c->failing->held_mr,
                         c->failing_offset);
    }
    finish(c, ret, !*again);
    return ret;
}

static int try_spanning(Conversion *c, bool *again)
{
    QEMU_LOCK_GUARD(&c->engine->span_lock);
    c->only = NULL;
    return try_locked(c, again);
}

static int try_begun(Conversion *c, bool spans, bool *again)
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

static int try_once(Conversion *c, bool *again)
{
    unsigned blocks = 0;
    int ret;

    *again = false;
    c->only = NULL;
    ret = for_each_section(c, scan_section, &blocks);
    if (ret) {
        return ret;
    }
    if (c->needs_bql) {
        *again = true;
        return -EAGAIN;
    }
    return blocks ? try_begun(c, blocks > 1, again) : 0;
}

/* Never sleep with the BQL: the page's user may need it to let go. */
static void back_off(Conversion *c)
{
    unsigned us = BACKOFF_MIN_US << MIN(c->result->retries, 10);
    bool locked = bql_locked();

    c->result->retries++;
    if (locked) {
        bql_unlock();
    }
    g_usleep(MIN(us, BACKOFF_MAX_US));
    if (locked) {
        bql_lock();
    }
}

int guest_memfd_carry_out(GuestMemfdEngine *engine,
                          const GuestMemfdRequest *req,
                          const GuestMemfdSection *given,
                          GuestMemfdResult *result)
{
    const int64_t timeout_ms = qatomic_read(&engine->retry_timeout_ms);
    Conversion c = {
        .engine = engine,
        .req = req,
        .given = given,
        .result = result,
        .deadline_ns = result->start_ns + SCALE_MS * timeout_ms,
    };
    bool again = true, take_bql = false;
    int ret = 0;

    while (again) {
        if (take_bql) {
            bql_lock();
        }
        c.needs_bql = false;
        ret = try_once(&c, &again);
        if (take_bql) {
            bql_unlock();
        }
        if (c.needs_bql) {
            take_bql = true;
        } else if (again) {
            back_off(&c);
        }
    }
    return ret;
}
