/*
 * Requests to convert guest memory that are too large for one slice
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The lines of the log are explained in guest-memfd-rig.h.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/main-loop.h"
#include "system/guest-memfd-internal.h"
#include "guest-memfd-rig.h"

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* One block of that many pages with a listener, in slices of four pages. */
static Rig *sliced(unsigned long pages)
{
    Rig *rig = rig_new_simple(pages);

    rig_listen(rig, rig->blocks[0], 0, pages);
    rig->engine.slice_bytes = 4 * page_size();
    return rig;
}

static uint64_t failures(const GuestMemfdBlock *block, int error)
{
    return block->stats.counters.failures[guest_memfd_errno_bucket(error)];
}

/* --- where slices end -------------------------------------------------- */

static void test_one_slice(void)
{
    Rig *rig = sliced(16);

    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 2, 4), ==, 0);
    rig_expect_log(rig, "discard L0 2+4 [P]\n"
                        "convert a 2+4 to-private default [P]\n");
    g_assert_cmpuint(rig->slices, ==, 0);
    rig_free(rig);
}

/* A slice is published before the next one begins. */
static void test_long_run(void)
{
    Rig *rig = sliced(16);

    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 1, 9), ==, 0);
    g_assert_cmpuint(rig->slices, ==, 2);
    g_string_truncate(rig->log, 0);
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 16), ==, 0);
    rig_expect_log(rig, "discard a 1+4 [P]\n"
                        "convert a 1+4 to-shared preserve [P]\n"
                        "populate L0 1+4 [P]\n"
                        "discard a 5+4 [P]\n"
                        "convert a 5+4 to-shared preserve [P]\n"
                        "populate L0 5+4 [P]\n"
                        "discard a 9+1 [P]\n"
                        "convert a 9+1 to-shared preserve [P]\n"
                        "populate L0 9+1 [P]\n");
    rig_expect_state(rig->blocks[0], "S16");
    g_assert_cmpuint(rig->blocks[0]->stats.counters.requests, ==, 2);
    g_assert_cmphex(rig->blocks[0]->stats.counters.converted_bytes[TO_SHARED],
                    ==, 9 * page_size());
    g_assert_cmphex(rig->blocks[0]->stats.counters.already_right_bytes, ==,
                    7 * page_size());
    rig_free(rig);
}

/* Several runs are one slice, all or nothing, while it has room for them. */
static void test_short_runs(void)
{
    Rig *rig = sliced(16);
    unsigned page;

    for (page = 0; page < 12; page += 2) {
        rig_prepare_private(rig, page, 1);
    }
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 16), ==, 0);
    g_assert_cmpuint(rig->slices, ==, 1);
    rig_expect_state(rig->blocks[0], "S16");
    rig_free(rig);
}

/* A run costs something, however short: a slice has no more than 512. */
static void test_many_runs(void)
{
    enum { RUNS = 3 * GUEST_MEMFD_SLICE_RUNS };
    Rig *rig = rig_new_simple(2 * RUNS);
    unsigned page;

    for (page = 1; page < 2 * RUNS; page += 2) {
        rig_prepare_private(rig, page, 1);
    }
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 2 * RUNS), ==, 0);
    g_assert_cmpuint(rig->slices, ==, 2);
    rig_free(rig);
}

/* So does a look at pages that are right already. */
static void test_nothing_to_do(void)
{
    Rig *rig = rig_new_simple(3 * 2048);

    rig->engine.slice_bytes = page_size();
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 3 * 2048), ==, 0);
    g_assert_cmpuint(rig->slices, ==, 2);
    g_assert_cmphex(rig->blocks[0]->stats.counters.already_right_bytes, ==,
                    3 * 2048 * page_size());
    rig_free(rig);
}

/* Huge pages of the guest stay whole where a slice ends. */
static void test_alignment(void)
{
    const unsigned huge = 2 * MiB / page_size();
    Rig *rig = rig_new_simple(4 * huge);

    rig->engine.slice_bytes = 2 * huge * page_size();
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 1, 4 * huge - 1), ==, 0);
    {
        g_autofree char *log = g_strdup_printf(
            "convert a 1+%u to-private preserve [P]\n"
            "convert a %u+%u to-private preserve [P]\n",
            2 * huge - 1, 2 * huge, 2 * huge);

        rig_expect_log(rig, log);
    }
    rig_free(rig);
}

/* A slice may span blocks, and a request that does counts once in each. */
static void test_two_blocks(void)
{
    Rig *rig = rig_two_blocks();

    rig->engine.slice_bytes = 4 * page_size();
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 10, 12), ==, 0);
    g_assert_cmpuint(rig->slices, ==, 2);
    rig_expect_state(rig->blocks[0], "S10 P6");
    rig_expect_state(rig->blocks[1], "P6 S10");
    g_assert_cmpuint(rig->blocks[0]->stats.counters.requests, ==, 1);
    g_assert_cmpuint(rig->blocks[1]->stats.counters.requests, ==, 1);
    g_assert_cmphex(rig->blocks[1]->stats.counters.converted_bytes[TO_PRIVATE],
                    ==, 6 * page_size());
    rig_free(rig);
}

static void test_convert_block(void)
{
    Rig *rig = sliced(16);
    GuestMemfdRequest req = rig_request(TO_PRIVATE, UNSPECIFIED, 2, 12);

    req.block = rig->blocks[0];
    g_assert_cmpint(guest_memfd_engine_convert(&rig->engine, &req, NULL), ==,
                    0);
    g_assert_cmpuint(rig->slices, ==, 2);
    rig_expect_state(rig->blocks[0], "S2 P12 S2");
    rig_free(rig);
}

/* --- between slices ---------------------------------------------------- */

/* The rig looks at the locks of blocks itself. */
static void nothing_half_done(Rig *rig)
{
    g_autofree char *state = rig_state(rig->blocks[0]);
    const char *states[] = { "P4 S12", "P8 S8", "P12 S4" };

    g_assert_cmpstr(state, ==, states[rig->slices - 1]);
    g_assert_cmpuint(bitmap_count_one(rig->listeners[0].mapped, 16), ==,
                     16 - 4 * rig->slices);
    g_assert_false(bql_locked());
}

/* No lock is held, also if the caller has the BQL. */
static void test_let_others_in(void)
{
    Rig *rig = sliced(16);

    rig->on_slice = nothing_half_done;
    bql_lock();
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 16), ==, 0);
    bql_unlock();
    g_assert_cmpuint(rig->slices, ==, 3);
    rig_free(rig);
}

static void convert_the_last_pages(Rig *rig)
{
    rig->on_slice = NULL;
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 14, 2), ==, 0);
}

/* Another thread converted a part of it meanwhile, which is right as well. */
static void test_others_convert(void)
{
    Rig *rig = sliced(16);
    GuestMemfdResult outcome;

    rig->on_slice = convert_the_last_pages;
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, UNSPECIFIED, 0, 16, &outcome),
                    ==, 0);
    g_assert_cmphex(outcome.changed_bytes, ==, 14 * page_size());
    rig_expect_state(rig->blocks[0], "P16");
    rig_free(rig);
}

static void unplug(Rig *rig)
{
    rig->pieces--;
}

/* Memory that left the map is a hole: to-private fails. */
static void test_map_changes(void)
{
    Rig *rig = rig_two_blocks();
    GuestMemfdResult outcome;

    rig->engine.slice_bytes = 16 * page_size();
    rig->on_slice = unplug;
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, UNSPECIFIED, 0, 32, &outcome),
                    ==, -EINVAL);
    g_assert_cmphex(outcome.changed_bytes, ==, 16 * page_size());
    rig_expect_state(rig->blocks[0], "P16");
    rig_expect_state(rig->blocks[1], "S16");
    rig_free(rig);
}

/* --- failures ---------------------------------------------------------- */

/* The slice that failed is rolled back, those before it stay. */
static void test_prefix_stays(void)
{
    Rig *rig = sliced(16);
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdResult outcome;

    rig->convert_fault = (RigFault) { .after = 2, .count = 1,
                                      .error = -ENOMEM, .progress = 2 };
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, UNSPECIFIED, 0, 16, &outcome),
                    ==, -ENOMEM);
    g_assert_cmphex(outcome.changed_bytes, ==, 8 * page_size());
    rig_expect_state(block, "P8 S8");
    g_assert_cmphex(block->stats.counters.converted_bytes[TO_PRIVATE], ==,
                    8 * page_size());
    g_assert_cmphex(block->stats.counters.already_right_bytes, ==, 0);
    g_assert_cmpuint(block->stats.counters.requests, ==, 1);
    g_assert_cmpuint(failures(block, -ENOMEM), ==, 1);

    /* To repeat it is right. */
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, UNSPECIFIED, 0, 16, &outcome),
                    ==, 0);
    g_assert_cmphex(outcome.changed_bytes, ==, 8 * page_size());
    g_assert_cmphex(block->stats.counters.already_right_bytes, ==,
                    8 * page_size());
    rig_expect_state(block, "P16");
    rig_free(rig);
}

/*
 * The timeout is for each slice, and converted slices are not converted
 * again.
 */
static void test_retry(void)
{
    Rig *rig = sliced(16);

    rig->convert_fault = (RigFault) { .after = 2, .count = 1,
                                      .error = -EAGAIN };
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 12), ==, 0);
    rig_expect_log(rig, "discard L0 0+4 [P]\n"
                        "convert a 0+4 to-private preserve [P]\n"
                        "discard L0 4+4 [P]\n"
                        "convert a 4+4 to-private preserve [P]\n"
                        "discard L0 8+4 [P]\n"
                        "convert a 8+4 to-private preserve [P]\n"
                        "convert a 8+4 to-shared preserve [P]\n"
                        "populate L0 8+4 [S]\n"
                        "discard L0 8+4 [P]\n"
                        "convert a 8+4 to-private preserve [P]\n");
    g_assert_cmpuint(rig->sleeps, ==, 1);
    g_assert_cmpuint(rig->slices, ==, 2);
    rig_free(rig);
}

/* --- stop, reset, and the end of QEMU ---------------------------------- */

static void interrupt(Rig *rig)
{
    rig->interrupted = GUEST_MEMFD_INTERRUPT_RESET;
}

static void interrupt_wait(Rig *rig)
{
    rig->convert_fault.count = 1;
    rig->interrupted = GUEST_MEMFD_INTERRUPT_RESET;
}

/* A wait ends when the VM is to stop, before the timeout. */
static void test_interrupted_wait(void)
{
    Rig *rig = rig_new_simple(16);
    GuestMemfdBlock *block = rig->blocks[0];

    rig->engine.retry_timeout_ms = UINT32_MAX;
    rig->convert_fault = (RigFault) { .count = 1, .error = -EAGAIN };
    rig->on_sleep = interrupt_wait;
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 4), ==, -EAGAIN);
    g_assert_cmpuint(rig->sleeps, ==, 1);
    g_assert_cmpuint(failures(block, -EAGAIN), ==, 1);
    rig_expect_state(block, "S16");

    /* A request that does not have to wait succeeds. */
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 4), ==, 0);
    rig_free(rig);
}

static uint64_t reported_at;

static void note_failure(GuestMemfdEngine *engine,
                         const GuestMemfdRequest *req,
                         const GuestMemfdResult *result)
{
    g_assert_nonnull(result->block);
    reported_at = result->offset;
}

static void test_interrupted_slices(void)
{
    Rig *rig = sliced(16);
    GuestMemfdResult outcome;

    rig->engine.failed = note_failure;
    rig->on_slice = interrupt;
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, UNSPECIFIED, 0, 16, &outcome),
                    ==, -EAGAIN);
    g_assert_cmpuint(rig->slices, ==, 1);
    g_assert_cmphex(outcome.changed_bytes, ==, 8 * page_size());
    g_assert_cmphex(reported_at, ==, 8 * page_size());
    rig_expect_state(rig->blocks[0], "P8 S8");
    g_assert_cmpuint(failures(rig->blocks[0], -EAGAIN), ==, 1);

    rig->interrupted = GUEST_MEMFD_INTERRUPT_NONE;
    rig->on_slice = NULL;
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 16), ==, 0);
    rig_free(rig);
}

static int reset(Rig *rig, GuestMemfdInterrupt interrupt)
{
    GuestMemfdRequest req = rig_request(TO_SHARED, ZERO, 0, 16);

    req.block = rig->blocks[0];
    req.origin = GUEST_MEMFD_ORIGIN_RESET;
    rig->interrupted = interrupt;
    return guest_memfd_engine_convert(&rig->engine, &req, NULL);
}

/* The guest asks for one more reset while QEMU resets it. */
static void test_interrupted_reset(void)
{
    Rig *rig = sliced(16);

    rig_prepare_private(rig, 0, 16);
    g_assert_cmpint(reset(rig, GUEST_MEMFD_INTERRUPT_END), ==, -EAGAIN);
    rig_expect_state(rig->blocks[0], "S4 P12");

    rig->convert_fault = (RigFault) { .count = 1, .error = -EAGAIN };
    g_assert_cmpint(reset(rig, GUEST_MEMFD_INTERRUPT_RESET), ==, 0);
    g_assert_cmpuint(rig->sleeps, ==, 1);
    rig_expect_state(rig->blocks[0], "S16");
    rig_free(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*fn)(void); } tests[] = {
        { "end/one-slice", test_one_slice },
        { "end/long-run", test_long_run },
        { "end/short-runs", test_short_runs },
        { "end/many-runs", test_many_runs },
        { "end/nothing-to-do", test_nothing_to_do },
        { "end/alignment", test_alignment },
        { "end/two-blocks", test_two_blocks },
        { "end/convert-block", test_convert_block },
        { "between/let-others-in", test_let_others_in },
        { "between/others-convert", test_others_convert },
        { "between/map-changes", test_map_changes },
        { "failure/prefix-stays", test_prefix_stays },
        { "failure/retry", test_retry },
        { "interrupted/wait", test_interrupted_wait },
        { "interrupted/slices", test_interrupted_slices },
        { "interrupted/reset", test_interrupted_reset },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/slices/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].fn);
    }
    return g_test_run();
}
