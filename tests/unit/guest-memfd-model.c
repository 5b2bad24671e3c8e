/*
 * A naive model of guest memory conversion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "guest-memfd-model.h"

#define BLOCKS      MODEL_BLOCKS
#define MAX_PAGES   130

/* The contents of a page; unknown after "default". */
typedef struct Page {
    bool shared;
    bool known;
    uint64_t value;
} Page;

typedef struct Counts {
    uint64_t requests;
    uint64_t failures;
    uint64_t bytes[GUEST_MEMFD_DIRECTION__MAX];
    uint64_t already_right;
} Counts;

struct Model {
    Rig *rig;
    bool emulated;
    bool kept;                      /* bytes are, on the way there */
    Page pages[BLOCKS][MAX_PAGES];
    Counts counts[BLOCKS];
};

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* --- contents ---------------------------------------------------------- */

static uint64_t *host(const Model *m, int block, unsigned page)
{
    return (uint64_t *)(m->rig->blocks[block]->host + page * page_size());
}

static void check_contents(const Model *m, int block, unsigned page)
{
    const size_t words = page_size() / sizeof(uint64_t);
    const Page *p = &m->pages[block][page];
    const uint64_t *host_page;

    if (!m->emulated || !p->known) {
        return;
    }
    host_page = host(m, block, page);
    g_assert_cmphex(host_page[0], ==, p->value);
    g_assert_cmphex(host_page[p->value % words], ==, p->value);
    g_assert_cmphex(host_page[words - 1], ==, p->value);
}

static void write_pages(Model *m, const Step *s)
{
    const size_t words = page_size() / sizeof(uint64_t);
    unsigned gpa, i;

    for (gpa = s->gpa; gpa < s->gpa + MIN(s->pages, 4); gpa++) {
        const MemoryRange *range = model_find_range(gpa);
        unsigned page;

        if (!range || range->mmio) {
            continue;
        }
        page = gpa - range->gpa + range->first;
        m->pages[range->block][page].known = true;
        m->pages[range->block][page].value = s->value;
        for (i = 0; m->emulated && i < words; i++) {
            host(m, range->block, page)[i] = s->value;
        }
    }
}

/* --- pages without a way back ------------------------------------------ */

static bool way_back_is_lossy(const Model *m, const Step *s)
{
    return model_preserve(m->rig, !s->direction) ==
           GUEST_MEMFD_REALISATION_REFUSED;
}

/* A page without a way back ends private; then the provider is mended. */
static void broken(GuestMemfdBlock *block, uint64_t offset, uint64_t size,
                   int error)
{
    Rig *rig = container_of(block->engine, Rig, engine);
    unsigned long first = offset / page_size(), pages = size / page_size();

    bitmap_set(block->provider_data, first, pages);
    rig->broken++;
}

/* --- conversions ------------------------------------------------------- */

static GuestMemfdDecision decide(const Model *m, const Step *s, int block)
{
    const GuestMemfdEngine *engine = &m->rig->engine;
    const GuestMemfdQuestion question = {
        .direction = s->direction,
        .intent = s->intent,
        .origin = GUEST_MEMFD_ORIGIN_HYPERCALL,
        .phase = GUEST_MEMFD_PHASE_RUNNING,
        .block_policy = m->rig->blocks[block]->content_policy,
        .manager_policy = engine->content_policy,
        .on_unsupported = engine->on_unsupported,
    };

    return guest_memfd_decide(&question, &engine->provider->offer);
}

/* The expected refusal; @block counts it. */
static int refusal(const Model *m, const Step *s, int *block)
{
    unsigned gpa;

    for (gpa = s->gpa; gpa < s->gpa + s->pages; gpa++) {
        const MemoryRange *range = model_find_range(gpa);
        int error = 0;

        *block = -1;
        if (range && !range->mmio) {
            *block = range->block;
            error = decide(m, s, range->block).error;
        } else if (s->direction == TO_PRIVATE) {
            error = -EINVAL;
        }
        if (error) {
            return error;
        }
    }
    return 0;
}

static bool listener_refused(const Model *m)
{
    return m->rig->listeners[0].agrees < 0;
}

/* All pages of the request change, and lie in one piece. */
static bool is_one_run(const Model *m, const Step *s)
{
    const MemoryRange *range = model_only_range(s);
    unsigned gpa;

    for (gpa = s->gpa; range && gpa < s->gpa + s->pages; gpa++) {
        if (m->pages[range->block][gpa - range->gpa + range->first].shared ==
            (s->direction == TO_SHARED)) {
            return false;
        }
    }
    return range;
}

/* The kernel is asked to, so that a request of several runs can fail. */
static bool keeps_bytes(const Model *m, const Step *s)
{
    return !is_one_run(m, s) &&
           model_preserve(m->rig, s->direction) ==
           GUEST_MEMFD_REALISATION_KERNEL;
}

/*
 * The contents of a page that was or, if @failed, was to be converted.  The
 * bytes of a failed conversion are as before if they can be kept on the way
 * back, unless the mode was to lose them on the way there.
 */
static void convert_contents(Model *m, const Step *s, int block,
                             unsigned page, bool failed)
{
    const GuestMemfdContentMode mode = decide(m, s, block).mode;
    Page *p = &m->pages[block][page];

    if (failed && way_back_is_lossy(m, s)) {
        p->known = false;
    } else if (mode == GUEST_MEMFD_CONTENT_MODE_DEFAULT) {
        p->known &= failed && m->kept;
    } else if (mode == GUEST_MEMFD_CONTENT_MODE_ZERO && !failed) {
        *p = (Page) { p->shared, true, 0 };
    } else if (mode == GUEST_MEMFD_CONTENT_MODE_ZERO && m->emulated &&
               host(m, block, page)[0] == 0) {
        /* All that a failure may do: check_contents() looks at the rest. */
        p->value = 0;
    }
}

/* Returns the number of bytes that change. */
static uint64_t convert_model(Model *m, const Step *s, bool failed)
{
    const bool shared = s->direction == TO_SHARED;
    uint64_t changed = 0;
    bool touched[BLOCKS] = { };
    unsigned gpa, i;

    for (gpa = s->gpa; gpa < s->gpa + s->pages; gpa++) {
        const MemoryRange *range = model_find_range(gpa);
        Counts *counts;
        Page *p;

        if (!range || range->mmio) {
            continue;
        }
        p = &m->pages[range->block][gpa - range->gpa + range->first];
        counts = &m->counts[range->block];
        touched[range->block] = true;
        if (p->shared != shared) {
            convert_contents(m, s, range->block,
                             gpa - range->gpa + range->first, failed);
        }
        if (failed) {
            continue;
        }
        if (p->shared != shared) {
            p->shared = shared;
            counts->bytes[s->direction] += page_size();
            changed += page_size();
        } else {
            counts->already_right += page_size();
        }
    }
    for (i = 0; !failed && i < BLOCKS; i++) {
        m->counts[i].requests += touched[i];
    }
    return changed;
}

/* A failure counts once in each block that the request had reached. */
static void adopt_failure_counts(Model *m)
{
    unsigned i;

    for (i = 0; i < BLOCKS; i++) {
        uint64_t *actual = &m->rig->blocks[i]->stats.counters.requests;

        g_assert_cmpuint(*actual - m->counts[i].requests, <=, 1);
        m->counts[i].failures += *actual - m->counts[i].requests;
        m->counts[i].requests = *actual;
    }
}

/* The pages without a way back. */
static void adopt_broken(Model *m)
{
    unsigned i, page;

    for (i = 0; m->rig->broken && i < BLOCKS; i++) {
        for (page = 0; page < model_block_pages[i]; page++) {
            Page *p = &m->pages[i][page];

            if (p->shared && !test_bit(page,
                                       m->rig->blocks[i]->attributes->bitmap)) {
                p->shared = false;
                p->known = false;
            }
        }
    }
    m->rig->broken = 0;
}

static void check_blocks(const Model *m)
{
    unsigned i, page;

    for (i = 0; i < BLOCKS; i++) {
        const GuestMemfdBlock *block = m->rig->blocks[i];
        const GuestMemfdCounters *c = &block->stats.counters;
        const Counts *want = &m->counts[i];
        uint64_t failures = 0;

        for (page = 0; page < model_block_pages[i]; page++) {
            g_assert_cmpint(test_bit(page, block->attributes->bitmap), ==,
                            m->pages[i][page].shared);
        }
        for (page = 0; page < GUEST_MEMFD_ERRNO_BUCKETS; page++) {
            failures += c->failures[page];
        }
        g_assert_cmpuint(c->requests, ==, want->requests);
        g_assert_cmpuint(failures, ==, want->failures);
        g_assert_cmpuint(c->already_right_bytes, ==, want->already_right);
        g_assert_cmpmem(c->converted_bytes, sizeof(c->converted_bytes),
                        want->bytes, sizeof(want->bytes));
    }
    rig_check(m->rig);
}

static void check_touched(const Model *m, const Step *s)
{
    unsigned gpa;

    for (gpa = s->gpa; gpa < s->gpa + s->pages; gpa++) {
        const MemoryRange *range = model_find_range(gpa);

        if (range && !range->mmio) {
            check_contents(m, range->block, gpa - range->gpa + range->first);
        }
    }
}

/* Did bytes that were to be preserved go back a way that loses them? */
static bool lost_bytes(const Model *m, const Step *s,
                       const uint64_t rollbacks[BLOCKS])
{
    unsigned i;

    for (i = 0; i < BLOCKS; i++) {
        if (m->rig->blocks[i]->stats.counters.rollbacks > rollbacks[i] &&
            decide(m, s, i).mode == GUEST_MEMFD_CONTENT_MODE_PRESERVE &&
            way_back_is_lossy(m, s)) {
            return true;
        }
    }
    return false;
}

static void limit_listeners(Model *m, const Step *s)
{
    unsigned i;

    /* Listeners may object to new pages, but not to getting theirs back. */
    for (i = 0; i < m->rig->n_listeners; i++) {
        m->rig->listeners[i].agrees = INT_MAX;
    }
    if (s->direction == TO_SHARED && s->listener_agrees < 15) {
        m->rig->listeners[0].agrees = s->listener_agrees;
    }
}

/* Without a fault on the way there is exactly one right answer. */
static void convert(Model *m, const Step *s)
{
    const unsigned armed = model_armed_faults(m->rig);
    GuestMemfdResult outcome;
    uint64_t rollbacks[BLOCKS];
    int block, want = refusal(m, s, &block), ret;
    unsigned i;

    for (i = 0; i < BLOCKS; i++) {
        rollbacks[i] = m->rig->blocks[i]->stats.counters.rollbacks;
    }
    limit_listeners(m, s);
    model_set_progress(m->rig, s);
    m->kept = keeps_bytes(m, s);
    ret = rig_ask(m->rig, s->direction, s->intent, s->gpa, s->pages,
                  &outcome);
    if (m->rig->broken || lost_bytes(m, s, rollbacks)) {
        g_assert_cmpint(ret, ==, -EIO);
    }
    if (want) {
        g_assert_cmpint(ret, ==, want);
        if (block >= 0) {
            m->counts[block].requests++;
            m->counts[block].failures++;
        }
    } else if (ret) {
        g_assert(armed > model_armed_faults(m->rig) || listener_refused(m));
        convert_model(m, s, true);
        adopt_broken(m);
        adopt_failure_counts(m);
        g_assert_cmphex(outcome.changed_bytes, ==, 0);
    } else {
        g_assert_false(listener_refused(m));
        g_assert_cmphex(outcome.changed_bytes, ==,
                        convert_model(m, s, false));
    }
    check_touched(m, s);
    check_blocks(m);
}

/* --- the model --------------------------------------------------------- */

void model_step(Model *m, uint64_t seed, uint64_t n)
{
    const Step s = model_nth_step(seed, n);

    switch (s.kind) {
    case CONVERT:
        convert(m, &s);
        break;
    case WRITE:
        write_pages(m, &s);
        break;
    case POLICY:
        model_change_policy(m->rig, &s);
        break;
    case FAULT:
        model_arm_fault(m->rig, &s);
        break;
    }
}

void model_check_all(const Model *m)
{
    unsigned i, page;

    for (i = 0; i < BLOCKS; i++) {
        for (page = 0; page < model_block_pages[i]; page++) {
            check_contents(m, i, page);
        }
    }
    check_blocks(m);
}

Model *model_new(const char *provider_type)
{
    Model *m = g_new0(Model, 1);
    const MemoryRange *range;
    unsigned i, page;

    m->rig = rig_new(provider_type);
    m->emulated = g_str_equal(provider_type,
                              TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    m->rig->engine.broken = broken;
    g_string_free(m->rig->log, true);
    m->rig->log = NULL;
    for (i = 0; i < BLOCKS; i++) {
        const char name[] = { 'a' + i, 0 };

        rig_block(m->rig, name, model_block_pages[i]);
        for (page = 0; page < model_block_pages[i]; page++) {
            m->pages[i][page] = (Page) { .shared = true, .known = true };
        }
    }
    for (i = 0; (range = model_nth_range(i)); i++) {
        if (range->mmio) {
            rig_map_other(m->rig, range->gpa, range->pages);
        } else {
            rig_map(m->rig, range->gpa, m->rig->blocks[range->block],
                    range->first, range->pages);
        }
    }
    rig_listen(m->rig, m->rig->blocks[1], 10, 100);
    rig_listen(m->rig, m->rig->blocks[0], 0, 70);
    return m;
}

void model_free(Model *m)
{
    rig_free(m->rig);
    g_free(m);
}
