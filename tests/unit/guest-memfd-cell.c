/*
 * A conversion of guest memory in which chosen calls fail
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "guest-memfd-cell.h"

#define BLOCK_PAGES     CELL_BLOCK_PAGES
#define PAGES           CELL_PAGES
/* How often the engine tries to send a range back that is busy. */
#define WAY_BACK_TRIES  100
#define POISON          0xd5d5d5d5d5d5d5d5ULL

#define MODE_ZERO       GUEST_MEMFD_CONTENT_MODE_ZERO
#define MODE_PRESERVE   GUEST_MEMFD_CONTENT_MODE_PRESERVE
#define KERNEL          GUEST_MEMFD_REALISATION_KERNEL
#define REFUSED         GUEST_MEMFD_REALISATION_REFUSED

CellState the;
CellCounts cell_counts;

static RamDiscardListener witness[2];
static MemoryRegionSection witnessed;

void cell_describe(void)
{
    const Cell *c = &the.cell;
    unsigned i;

    g_test_message("%s intent %d policy %d pages %u+%u without %u, listener "
                   "%u agrees to %u then %d, no_retry %d",
                   GuestMemfdDirection_str(c->ask.direction), c->ask.intent,
                   c->ask.policy, c->shape.first, c->shape.pages,
                   c->shape.right, c->listener, c->agrees, c->refusal,
                   c->no_retry);
    for (i = 0; i < GUEST_MEMFD_DIRECTION__MAX; i++) {
        g_test_message("  %s: default %d zero %d preserve %d",
                       GuestMemfdDirection_str(i), c->offer.how[i][0],
                       c->offer.how[i][1], c->offer.how[i][2]);
    }
    for (i = 0; i < ARRAY_SIZE(c->faults); i++) {
        g_test_message("  call %u fails %u times with %d after %u pages",
                       c->faults[i].call, c->faults[i].count,
                       c->faults[i].error, c->faults[i].progress);
    }
}

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

bool cell_worth_another_try(int error)
{
    return !the.cell.no_retry && (error == -EAGAIN || error == -EINTR);
}

/* Bytes are lost on the way back from a failure. */
bool cell_is_lossy(void)
{
    return the.cell.offer.how[!the.cell.ask.direction][MODE_PRESERVE] ==
           REFUSED;
}

static GuestMemfdRealisation how(GuestMemfdContentMode mode)
{
    return the.cell.offer.how[the.cell.ask.direction][mode];
}

bool cell_changes(unsigned page)
{
    return page - the.cell.shape.first < the.cell.shape.pages &&
           page != the.cell.shape.right;
}

static bool starts_shared(unsigned page)
{
    return (the.cell.ask.direction == TO_SHARED) ==
           (page == the.cell.shape.right);
}

static GuestMemfdBlock *block_of(unsigned page)
{
    return the.rig->blocks[page / BLOCK_PAGES];
}

unsigned cell_page_of(const GuestMemfdBlock *block, uint64_t offset)
{
    return (block == the.rig->blocks[0] ? 0 : BLOCK_PAGES) +
           offset / page_size();
}

static bool is_recorded_shared(unsigned page)
{
    return test_bit(page % BLOCK_PAGES, block_of(page)->attributes->bitmap);
}

bool cell_is_shared(unsigned page)
{
    return !test_bit(page % BLOCK_PAGES, block_of(page)->provider_data);
}

/* --- contents ---------------------------------------------------------- */

uint64_t *cell_words(unsigned page)
{
    return (uint64_t *)(block_of(page)->host +
                        page % BLOCK_PAGES * page_size());
}

static uint64_t secret(unsigned page)
{
    return 0x5ec2e70000000000ULL + page;
}

static bool reads(unsigned page, uint64_t value)
{
    const uint64_t *w = cell_words(page);

    return w[0] == value && w[page_size() / sizeof(*w) - 1] == value;
}

static void write_secret(unsigned page)
{
    uint64_t *w = cell_words(page);

    w[0] = secret(page);
    w[page_size() / sizeof(*w) - 1] = secret(page);
}

/* At any time: no byte can be read before it may be. */
void cell_check_visible(void)
{
    unsigned page;

    for (page = 0; page < PAGES; page++) {
        if (!is_recorded_shared(page) || starts_shared(page)) {
            continue;
        }
        EXPECT(cell_is_shared(page));
        EXPECT(the.decision.mode != MODE_ZERO || reads(page, 0));
        EXPECT(the.decision.mode != MODE_PRESERVE || reads(page, secret(page)));
    }
}

static int witness_populate(RamDiscardListener *rdl, MemoryRegionSection *s)
{
    cell_check_visible();
    return 0;
}

static int witness_discard(RamDiscardListener *rdl, MemoryRegionSection *s)
{
    cell_check_visible();
    return 0;
}

/* The last call was the last try of a way back, and this is its range. */
static void note_broken(GuestMemfdBlock *block, uint64_t offset,
                        uint64_t size, int error)
{
    unsigned page = cell_page_of(block, offset);
    const unsigned end = cell_page_of(block, offset + size);
    const bool busy = error == -EAGAIN || error == -EINTR;

    EXPECT(the.way_back.failed);
    EXPECT(offset == the.way_back.offset && size == the.way_back.size);
    EXPECT(the.way_back.tries == (busy ? WAY_BACK_TRIES : 1));
    for (; page < end; page++) {
        the.broken_pages |= 1 << page;
    }
    the.way_back.failed = false;
    the.way_back.tries = 0;
    cell_counts.broken++;
}

/* --- before ------------------------------------------------------------ */

static void note_refusal(void)
{
    unsigned i;

    for (i = 0; i < CELL_LISTENERS; i++) {
        if (the.rig->listeners[i].agrees < 0 && !the.refused) {
            the.refused = true;
            cell_counts.refusals++;
            if (the.cell.ask.direction == TO_SHARED && !the.fatal &&
                !cell_worth_another_try(the.cell.refusal)) {
                the.fatal = the.cell.refusal;
            }
        }
    }
}

/* Everything is as before, and a listener that refused agrees the next time. */
static void on_sleep(Rig *r)
{
    unsigned page, i;

    note_refusal();
    EXPECT(!the.fatal && !the.cell.no_retry && !the.way_back.failed);
    for (page = 0; page < PAGES; page++) {
        EXPECT(cell_is_shared(page) == starts_shared(page));
        EXPECT(is_recorded_shared(page) == starts_shared(page));
    }
    for (i = 0; i < CELL_LISTENERS; i++) {
        the.rig->listeners[i].agrees = INT_MAX;
    }
}

static void prepare_page(unsigned page)
{
    GuestMemfdBlock *block = block_of(page);
    const unsigned bit = page % BLOCK_PAGES;

    if (starts_shared(page)) {
        set_bit(bit, block->attributes->bitmap);
        clear_bit(bit, block->provider_data);
        block->shared_pages++;
    } else {
        clear_bit(bit, block->attributes->bitmap);
        set_bit(bit, block->provider_data);
    }
    write_secret(page);
}

static void prepare(void)
{
    unsigned page, i;

    for (i = 0; i < the.rig->n_blocks; i++) {
        the.rig->blocks[i]->shared_pages = 0;
        the.rig->blocks[i]->stats.counters = (GuestMemfdCounters) { };
    }
    for (page = 0; page < PAGES; page++) {
        prepare_page(page);
    }
    for (i = 0; i < CELL_LISTENERS; i++) {
        RigListener *l = &the.rig->listeners[i];

        bitmap_copy(l->mapped, l->block->attributes->bitmap, BLOCK_PAGES);
        l->agrees = i == the.cell.listener ? the.cell.agrees : INT_MAX;
        l->error = the.cell.refusal;
    }
    the.rig->engine.provider->offer = the.cell.offer;
    the.rig->engine.content_policy = the.cell.ask.policy;
    the.rig->engine.retry_timeout_ms = the.cell.no_retry ? 0 : UINT32_MAX;
    the.calls = the.touched = the.broken_pages = the.fatal = 0;
    the.refused = false;
    memset(&the.way_back, 0, sizeof(the.way_back));
}

/* --- after ------------------------------------------------------------- */

static uint64_t sum(const uint64_t *counts, unsigned n)
{
    uint64_t total = 0;

    while (n--) {
        total += counts[n];
    }
    return total;
}

static bool rolled_back(void)
{
    return the.rig->blocks[0]->stats.counters.rollbacks +
           the.rig->blocks[1]->stats.counters.rollbacks;
}

static int expected_result(void)
{
    if (the.decision.error) {
        return the.decision.error;
    }
    if (the.broken_pages) {
        return -EIO;
    }
    if (the.decision.mode == MODE_PRESERVE && cell_is_lossy() &&
        rolled_back()) {
        return -EIO;
    }
    return the.fatal;
}

/* The provider's state is QEMU's record; else it is private. */
static void check_state(unsigned page, bool failed)
{
    const bool shared = failed || !cell_changes(page) ? starts_shared(page)
                                                 : !starts_shared(page);

    if (the.broken_pages & 1 << page) {
        EXPECT(!is_recorded_shared(page));
    } else {
        EXPECT(is_recorded_shared(page) == shared);
        EXPECT(cell_is_shared(page) == shared);
    }
}

static bool is_one_run(void)
{
    const CellShape *s = &the.cell.shape;

    return s->right - s->first >= s->pages &&
           s->first / BLOCK_PAGES == (s->first + s->pages - 1) / BLOCK_PAGES;
}

/* The provider was asked for something that loses no byte. */
static bool kept_on_the_way(void)
{
    return the.decision.mode == MODE_PRESERVE ||
           (the.decision.mode != MODE_ZERO && !is_one_run() &&
            how(MODE_PRESERVE) == KERNEL);
}

/* No page gets the bytes of another one. */
static void check_contents(unsigned page, bool failed)
{
    const bool lost = failed && (cell_is_lossy() || !kept_on_the_way());

    if (!(the.touched & 1 << page)) {
        EXPECT(reads(page, secret(page)));
    } else if (!failed && the.decision.mode == MODE_ZERO) {
        EXPECT(reads(page, 0));
    } else if (lost ||
               the.decision.mode == GUEST_MEMFD_CONTENT_MODE_DEFAULT) {
        EXPECT(reads(page, 0) || reads(page, POISON) ||
               reads(page, secret(page)));
        EXPECT(!failed || lost || reads(page, secret(page)));
        /* The promise: zeros, and never anything else. */
        EXPECT(!lost || the.decision.mode != MODE_ZERO || cell_is_lossy() ||
               reads(page, 0) || reads(page, secret(page)));
    } else {
        EXPECT(reads(page, secret(page)));
    }
}

static void check_listeners(void)
{
    unsigned i, bit;

    for (i = 0; i < CELL_LISTENERS; i++) {
        const RigListener *l = &the.rig->listeners[i];

        for (bit = 0; bit < BLOCK_PAGES; bit++) {
            bool shared = test_bit(bit, l->block->attributes->bitmap);
            bool mapped = test_bit(bit, l->mapped);

            /* A listener that refused to get pages back has none. */
            EXPECT(mapped == shared ||
                   (!mapped && the.refused &&
                    the.cell.ask.direction == TO_PRIVATE));
        }
    }
}

static void check_counters(const GuestMemfdResult *outcome, int ret)
{
    uint64_t failures = 0, bytes = 0;
    unsigned i;

    for (i = 0; i < the.rig->n_blocks; i++) {
        const GuestMemfdCounters *c = &the.rig->blocks[i]->stats.counters;

        failures += sum(c->failures, ARRAY_SIZE(c->failures));
        bytes += sum(c->converted_bytes, ARRAY_SIZE(c->converted_bytes));
        EXPECT(the.rig->blocks[i]->shared_pages ==
               bitmap_count_one(the.rig->blocks[i]->attributes->bitmap,
                                BLOCK_PAGES));
    }
    EXPECT(!failures == !ret);
    EXPECT(bytes == outcome->changed_bytes);
    EXPECT(!bytes == !!ret);
}

static void check(const GuestMemfdResult *outcome, int ret)
{
    unsigned page;

    note_refusal();
    EXPECT(!the.way_back.failed);
    EXPECT(ret == expected_result());
    for (page = 0; page < PAGES; page++) {
        check_state(page, ret);
        check_contents(page, ret);
    }
    check_listeners();
    check_counters(outcome, ret);
    cell_check_visible();
}

/* --- a cell ------------------------------------------------------------ */

void cell_start(void)
{
    unsigned i;

    the.rig = rig_new(TYPE_CELL_PROVIDER);
    the.rig->engine.broken = note_broken;
    the.rig->on_sleep = on_sleep;
    object_property_set_bool(OBJECT(the.rig->engine.provider), "poison", true,
                             &error_abort);
    rig_map(the.rig, 0, rig_block(the.rig, "a", BLOCK_PAGES), 0, BLOCK_PAGES);
    rig_map(the.rig, BLOCK_PAGES, rig_block(the.rig, "b", BLOCK_PAGES), 0,
            BLOCK_PAGES);
    for (i = 0; i < CELL_LISTENERS; i++) {
        rig_listen(the.rig, the.rig->blocks[i / 2], 0, BLOCK_PAGES);
    }
    witnessed.size = int128_make64(BLOCK_PAGES * page_size());
    for (i = 0; i < ARRAY_SIZE(witness); i++) {
        ram_discard_listener_init(&witness[i], witness_populate,
                                  witness_discard, true);
        witness[i].section = &witnessed;
        QLIST_INSERT_HEAD(&the.rig->blocks[i]->attributes->rdl_list,
                          &witness[i], next);
    }
    g_string_free(the.rig->log, true);
    the.rig->log = NULL;
}

unsigned cell_run(const Cell *cell)
{
    GuestMemfdResult outcome;
    GuestMemfdRequest req;
    int ret;

    the.cell = *cell;
    prepare();
    req = rig_request(cell->ask.direction, cell->ask.intent,
                      cell->shape.first, cell->shape.pages);
    the.decision = guest_memfd_engine_decide(&the.rig->engine,
                                             the.rig->blocks[0], &req);
    ret = guest_memfd_engine_convert(&the.rig->engine, &req, &outcome);
    check(&outcome, ret);
    cell_counts.cells++;
    return the.calls;
}

unsigned cell_asked(unsigned listener)
{
    return INT_MAX - the.rig->listeners[listener].agrees;
}

void cell_end(void)
{
    the.cell.listener = CELL_LISTENERS;
    prepare();
    rig_free(the.rig);
}
