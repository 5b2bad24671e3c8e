/*
 * The conversion engine: from a request to runs of pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A request is scanned first, so that whatever can be refused is refused
 * before anything changes.  Then it is carried out in slices, so that others
 * get in between; all but huge requests are one slice.  A slice is all or
 * nothing: the blocks that it touches are locked, one by one, and stay
 * locked until it has succeeded or all of it has been rolled back.  Only a
 * request that holds span_lock waits for a block while it holds another, so
 * two requests cannot wait for each other.
 *
 * A page that is still in use makes the provider say -EAGAIN.  The slice is
 * rolled back before the engine sleeps, so that nobody sees it half done,
 * and other pages can be converted meanwhile.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "guest-memfd-conversion.h"

/* --- what is counted and told at the end -------------------------------- */

/* The decision that was made last is the one that counts. */
void guest_memfd_tally(GuestMemfdConversion *c, GuestMemfdBlock *block,
                       MemoryRegion *mr, const GuestMemfdDecision *decision)
{
    GuestMemfdTally *t;

    for (t = c->tallies; t; t = t->next) {
        if (t->block == block) {
            t->decision = *decision;
            return;
        }
    }
    t = c->n_tallies < ARRAY_SIZE(c->own_tallies) ?
        &c->own_tallies[c->n_tallies] : g_new0(GuestMemfdTally, 1);
    c->n_tallies++;
    if (mr) {
        memory_region_ref(mr);
    }
    t->block = block;
    t->mr = mr;
    t->decision = *decision;
    t->next = c->tallies;
    c->tallies = t;
}

/* The request has ended: count it, once in each block that it reached. */
static void settle(GuestMemfdConversion *c, int ret)
{
    GuestMemfdResult *result = c->result;

    result->ns = get_clock() - result->start_ns;
    result->counted = c->tallies;
    while (c->tallies) {
        GuestMemfdTally *t = c->tallies;

        c->tallies = t->next;
        guest_memfd_count_request(t, c->req, ret, result->ns,
                                  result->retries);
        if (t->mr) {
            memory_region_unref(t->mr);
        }
        if (--c->n_tallies >= ARRAY_SIZE(c->own_tallies)) {
            g_free(t);
        }
    }
}

void guest_memfd_note_failure(GuestMemfdConversion *c, GuestMemfdBlock *block,
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

/* --- sections ---------------------------------------------------------- */

/* Refused by policy before anything was locked. */
int guest_memfd_refuse_request(GuestMemfdConversion *c,
                               const GuestMemfdSection *s,
                               const GuestMemfdDecision *decision)
{
    guest_memfd_note_failure(c, s->block, s->mr, s->offset);
    guest_memfd_tally(c, s->block, s->mr, decision);
    return decision->error;
}

/*
 * Holes, MMIO, ROM, the memory of devices: all of it is shared, and guests
 * share it in passing (firmware does so with the whole 32-bit PCI hole), but
 * none can become private.
 */
int guest_memfd_check_foreign(const GuestMemfdConversion *c, uint64_t size)
{
    if (!size || c->req->direction == GUEST_MEMFD_DIRECTION_TO_SHARED) {
        return 0;
    }
    return -EINVAL;
}

static int scan_section(GuestMemfdConversion *c, const GuestMemfdSection *s,
                        unsigned *blocks)
{
    GuestMemfdDecision decision;

    if (!s->block) {
        return guest_memfd_check_foreign(c, s->size);
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
        return guest_memfd_refuse_request(c, s, &decision);
    }
    if (c->only != s->block) {
        c->only = s->block;
        (*blocks)++;
    }
    /* A first look, without the lock: the slice looks again. */
    c->needs_bql |= guest_memfd_has_listeners(s->block) && !bql_locked();
    return 0;
}

int guest_memfd_for_each_section(GuestMemfdConversion *c,
                                 GuestMemfdSectionFn *fn, unsigned *blocks)
{
    GuestMemfdEngine *engine = c->engine;
    hwaddr gpa = c->pos, end = guest_memfd_request_end(c);
    GuestMemfdSection s;
    int ret;

    if (c->given) {
        s = *c->given;
        s.offset += gpa - s.gpa;
        s.size -= gpa - s.gpa;
        s.gpa = gpa;
        return fn(c, &s, blocks);
    }
    while (gpa < end) {
        if (!engine->find_section(engine, gpa, end - gpa, &s)) {
            return guest_memfd_check_foreign(c, end - gpa);
        }
        ret = guest_memfd_check_foreign(c, s.gpa - gpa);
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

bool guest_memfd_is_interrupted(const GuestMemfdConversion *c)
{
    switch (c->engine->interrupted ? c->engine->interrupted(c->engine) :
            GUEST_MEMFD_INTERRUPT_NONE) {
    case GUEST_MEMFD_INTERRUPT_NONE:
        return false;
    case GUEST_MEMFD_INTERRUPT_RESET:
        return c->req->origin != GUEST_MEMFD_ORIGIN_RESET;
    default:
        return true;
    }
}

static int try_once(GuestMemfdConversion *c, bool *again)
{
    unsigned blocks = 0;
    int ret;

    *again = false;
    c->only = NULL;
    ret = guest_memfd_for_each_section(c, scan_section, &blocks);
    if (ret) {
        return ret;
    }
    if (c->needs_bql) {
        *again = true;
        return -EAGAIN;
    }
    return blocks ? guest_memfd_slice_convert(c, blocks > 1, again) : 0;
}

/* Never sleep with the BQL: the page's user may need it to let go. */
static void back_off(GuestMemfdConversion *c)
{
    bool locked = bql_locked();

    if (locked) {
        bql_unlock();
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

/* Patience is for a page that is in use, not for a request that is large. */
static void start_waiting(GuestMemfdConversion *c)
{
    const int64_t ms = qatomic_read(&c->engine->retry_timeout_ms);

    c->deadline_ns = get_clock() + ms * SCALE_MS;
}

int guest_memfd_carry_out(GuestMemfdEngine *engine,
                          const GuestMemfdRequest *req,
                          const GuestMemfdSection *given,
                          GuestMemfdResult *result)
{
    GuestMemfdConversion c = {
        .engine = engine,
        .req = req,
        .given = given,
        .result = result,
        .pos = req->gpa,
    };
    bool again = true, take_bql = false;
    int ret = 0;

    start_waiting(&c);
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
        } else if (again && ret) {
            back_off(&c);
        } else if (again) {
            let_others_in(&c);
            start_waiting(&c);
        }
    }
    settle(&c, ret);
    return ret;
}
