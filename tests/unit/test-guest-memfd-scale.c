/*
 * The cost of a conversion of guest memory, from 1 GiB to 64 GiB
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The engine, the emulated provider and QEMU's bitmaps are built so that
 * each basic block counts itself.  That number is the same in each run, on
 * any machine, however busy it is; of the kernel's work, the system calls
 * and the pages that they are about are counted.
 *
 * GMEM_TEST_RUNS chooses the largest number of runs of pages.
 */

#include "qemu/osdep.h"
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/units.h"
#include "system/guest-memfd-internal.h"
#include "../guest-memfd/test-number.h"
#include "guest-memfd-counted.h"
#include "guest-memfd-rig.h"

#define RUNS_DEFAULT    1000000
#define RUNS_FOR_UNIT   100000
#define FLAT            2           /* costs differ by no more than that */

typedef struct Cost {
    uint64_t blocks;                /* basic blocks that were run */
    uint64_t calls;                 /* of the system */
    uint64_t pages;                 /* that they were about */
} Cost;

static Cost cost;

void __sanitizer_cov_trace_pc(void)
{
    cost.blocks++;
}

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* --- the C library's are hidden by these -------------------------------- */

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    cost.calls++;
    cost.pages += size / page_size();
    return syscall(SYS_fallocate, fd, mode, offset, size);
}

int mincore(void *host, size_t size, unsigned char *present)
{
    cost.calls++;
    cost.pages += size / page_size();
    return syscall(SYS_mincore, host, size, present);
}

/* To find data passes holes in no time; to find a hole passes all data. */
off_t lseek(int fd, off_t offset, int whence)
{
    g_assert_cmpint(whence, ==, SEEK_DATA);
    cost.calls++;
    return syscall(SYS_lseek, fd, offset, whence);
}

/* --- a machine ----------------------------------------------------------- */

static Rig *machine(uint64_t bytes)
{
    const uint64_t pages = bytes / page_size();
    Rig *rig = rig_new(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);

    g_string_free(rig->log, true);
    rig->log = NULL;
    rig_map(rig, 0, rig_block(rig, "a", pages), 0, pages);
    return rig;
}

/* That many private runs of @length pages, evenly over the block. */
static void scatter(GuestMemfdBlock *block, uint64_t runs, uint64_t length)
{
    const uint64_t pages = block->size / page_size();
    const uint64_t distance = runs ? pages / runs : 0;
    uint64_t i;

    g_assert_cmpuint(runs, <=, pages / (length + 1));
    for (i = 0; i < runs; i++) {
        bitmap_clear(block->attributes->bitmap, i * distance, length);
        bitmap_set(block->provider_data, i * distance, length);
    }
    block->shared_pages -= runs * length;
}

/* To share them all, by one request over the whole block. */
static Cost share_all(Rig *rig, uint64_t runs, uint64_t length)
{
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdRequest req = rig_request(TO_SHARED, ZERO, 0,
                                        block->size / page_size());
    GuestMemfdResult outcome;

    scatter(block, runs, length);
    cost = (Cost) { };
    g_assert_cmpint(guest_memfd_engine_convert(&rig->engine, &req, &outcome),
                    ==, 0);
    g_assert_cmphex(outcome.changed_bytes, ==, runs * length * page_size());
    return cost;
}

static uint64_t resident_kib(void)
{
    g_autofree char *statm = NULL;
    uint64_t pages;

    g_assert_true(g_file_get_contents("/proc/self/statm", &statm, NULL,
                                      NULL));
    g_assert_cmpint(sscanf(statm, "%*u %" SCNu64, &pages), ==, 1);
    return pages * page_size() / KiB;
}

/* --- what must be flat --------------------------------------------------- */

/* Of a run, and of a look at all pages of a GiB; the first is measured. */
static double blocks_a_run, blocks_a_gib;

typedef struct Spread {
    double least, most;
} Spread;

static void add_to_spread(Spread *s, double value)
{
    s->least = s->least ? MIN(s->least, value) : value;
    s->most = MAX(s->most, value);
}

/* The expected cost: so much for each GiB, and so much for each run. */
static void measure(Rig *rig, uint64_t gigabytes, uint64_t runs, Spread *s)
{
    const Cost all = share_all(rig, runs, 1);
    const double expected = gigabytes * blocks_a_gib + runs * blocks_a_run;

    g_test_message("%" PRIu64 " GiB, %" PRIu64 " runs: %" PRIu64 " basic "
                   "blocks, %.2f of what is expected; %" PRIu64 " system "
                   "calls", gigabytes, runs, all.blocks,
                   all.blocks / expected, all.calls);
    g_assert_cmpuint(all.calls, ==, runs);
    g_assert_cmpuint(all.pages, ==, runs);
    add_to_spread(s, all.blocks / expected);
}

static void measure_once(void)
{
    Rig *rig = machine(1 * GiB);
    const Cost nothing = share_all(rig, 0, 1);
    const Cost many = share_all(rig, RUNS_FOR_UNIT, 1);

    blocks_a_gib = nothing.blocks;
    blocks_a_run = (double)(many.blocks - nothing.blocks) / RUNS_FOR_UNIT;
    g_test_message("%.0f basic blocks a GiB, %.0f a run", blocks_a_gib,
                   blocks_a_run);
    g_assert_cmpuint(nothing.calls, ==, 0);
    rig_free(rig);
}

static void test_runs(void)
{
    static const uint64_t sizes[] = { 1, 4, 16, 64 };
    const uint64_t most = test_number("GMEM_TEST_RUNS", RUNS_DEFAULT);
    Spread spread = { };
    unsigned i;

    measure_once();
    if (!blocks_a_gib) {
        g_test_skip("basic blocks do not count themselves in this build");
        return;
    }
    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        const uint64_t bytes = sizes[i] * GiB;
        Rig *rig = machine(bytes);
        uint64_t runs, before;

        for (runs = 1; runs <= MIN(most, bytes / page_size() / 2);
             runs *= 10) {
            measure(rig, sizes[i], runs, &spread);
        }
        /* Memory that was allocated once is not allocated again. */
        before = resident_kib();
        share_all(rig, runs / 10, 1);
        g_assert_cmpuint(resident_kib(), <=, before + 256);
        rig_free(rig);
    }
    g_test_message("%.2f to %.2f of what is expected", spread.least,
                   spread.most);
    g_assert_cmpfloat(spread.most, <=, FLAT * spread.least);
}

/* One request for all memory costs the same for each GiB of it. */
static void check_gibs(Rig *(*make)(uint64_t size),
                       GuestMemfdDirection direction, GuestMemfdIntent intent)
{
    static const uint64_t sizes[] = { 1, 4, 16, 64, 256 };
    Spread spread = { };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        Rig *rig = make(sizes[i] * GiB);
        const GuestMemfdRequest req = rig_request(direction, intent, 0,
            sizes[i] * GiB / page_size());

        cost = (Cost) { };
        g_assert_cmpint(guest_memfd_engine_convert(&rig->engine, &req, NULL),
                        ==, 0);
        add_to_spread(&spread, (double)cost.blocks / sizes[i]);
        rig_free(rig);
    }
    g_test_message("%.0f to %.0f basic blocks a GiB", spread.least,
                   spread.most);
    g_assert_cmpfloat(spread.most, <=, FLAT * spread.least);
}

static Rig *simple(uint64_t size)
{
    return rig_new_simple(size / page_size());
}

/* To look at pages that are right already costs the same everywhere. */
static void test_looking(void)
{
    check_gibs(simple, TO_SHARED, ZERO);
}

/* Each slice of one long run costs the same, however much comes after it. */
static void test_whole(void)
{
    check_gibs(machine, TO_PRIVATE, UNSPECIFIED);
}

/* Nor does the length of a run matter, but for its slices. */
static void test_lengths(void)
{
    enum { RUNS = 16 };
    static const uint64_t lengths[] = { 1, 16, 256, 4096 };
    Rig *rig = machine(4 * GiB);
    Spread spread = { };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(lengths); i++) {
        const Cost nothing = share_all(rig, 0, 1);
        const Cost all = share_all(rig, RUNS, lengths[i]);

        g_test_message("runs of %" PRIu64 " pages: %" PRIu64 " basic blocks",
                       lengths[i], (all.blocks - nothing.blocks) / RUNS);
        g_assert_cmpuint(all.calls, ==, RUNS);
        add_to_spread(&spread, all.blocks - nothing.blocks);
    }
    /* A word of each bitmap for 64 pages is all that grows. */
    g_assert_cmpfloat(spread.most, <=, spread.least +
                      RUNS * 4096 / 64 * 20);
    rig_free(rig);
}

static void write_all(GuestMemfdBlock *block)
{
    memset(block->host, 0x5a, block->size);
}

/*
 * A touched block, with poison: no page is looked at but those that change.
 * The walk to the next hole made this quadratic.
 */
static void test_touched(void)
{
    enum { RUNS = 100 };
    Rig *rig = machine(16 * MiB);
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdRequest req = rig_request(TO_SHARED, UNSPECIFIED, 0,
                                        block->size / page_size());

    object_property_set_bool(OBJECT(rig->engine.provider), "poison", true,
                             &error_abort);
    rig->engine.content_policy = GUEST_MEMFD_CONTENT_POLICY_DEFAULT;
    write_all(block);
    scatter(block, RUNS, 1);
    cost = (Cost) { };
    g_assert_cmpint(guest_memfd_engine_convert(&rig->engine, &req, NULL), ==,
                    0);
    g_assert_cmpuint(cost.calls, ==, 2 * RUNS);
    g_assert_cmpuint(cost.pages, ==, RUNS);
    rig_free(rig);
}

/* A large mapping counts its groups of pages, not its pages. */
static void test_large_mapping(void)
{
    Rig *rig = rig_new_simple(4 * GiB / page_size());
    GuestMemfdBlock *block = rig->blocks[0];

    cost = (Cost) { };
    g_assert_true(guest_memfd_mapping_add(block, 1, block->size - 2));
    g_assert_true(guest_memfd_mapping_remove(block, 1, block->size - 2));
    g_test_message("%" PRIu64 " basic blocks", cost.blocks);
    g_assert_cmpuint(cost.blocks, <=, block->size / page_size() / 4);
    rig_free(rig);
}

/* So many mappings of ranges that a guest chooses cost the same each. */
static void test_many_mappings(void)
{
    enum { N = 16384 };
    Rig *rig = rig_new_simple(512);
    GuestMemfdBlock *block = rig->blocks[0];
    unsigned i;

    cost = (Cost) { };
    for (i = 1; i <= N; i++) {
        g_assert_true(guest_memfd_mapping_add(block, 0, i));
    }
    for (i = 1; i <= N; i++) {
        g_assert_true(guest_memfd_mapping_remove(block, 0, i));
    }
    g_test_message("%" PRIu64 " basic blocks for a mapping", cost.blocks / N);
    g_assert_cmpuint(cost.blocks, <=, 200 * N);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guest-memfd/scale/runs", test_runs);
    g_test_add_func("/guest-memfd/scale/looking", test_looking);
    g_test_add_func("/guest-memfd/scale/whole", test_whole);
    g_test_add_func("/guest-memfd/scale/lengths", test_lengths);
    g_test_add_func("/guest-memfd/scale/touched", test_touched);
    g_test_add_func("/guest-memfd/scale/large-mapping", test_large_mapping);
    g_test_add_func("/guest-memfd/scale/many-mappings", test_many_mappings);
    return g_test_run();
}
