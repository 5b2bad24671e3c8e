/*
 * Conversions of guest memory that succeed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The lines of the log are explained in guest-memfd-rig.h.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "guest-memfd-rig.h"

#define MODE_DEFAULT    GUEST_MEMFD_CONTENT_MODE_DEFAULT
#define MODE_ZERO       GUEST_MEMFD_CONTENT_MODE_ZERO
#define MODE_PRESERVE   GUEST_MEMFD_CONTENT_MODE_PRESERVE
#define KERNEL          GUEST_MEMFD_REALISATION_KERNEL
#define EMULATED        GUEST_MEMFD_REALISATION_EMULATED

/* Make pages private, and forget about it. */
static void prepare_private(Rig *rig, uint64_t gpa, uint64_t pages)
{
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, gpa, pages), ==, 0);
    g_string_truncate(rig->log, 0);
    rig->calls = 0;
    rig->lookups = 0;
}

static void expect_ok(Rig *rig, GuestMemfdDirection direction, uint64_t gpa,
                      uint64_t pages, const char *log)
{
    g_assert_cmpint(rig_convert(rig, direction, gpa, pages), ==, 0);
    rig_expect_log(rig, log);
}

/* --- order ------------------------------------------------------------- */

static void test_order_to_private(void)
{
    Rig *rig = rig_new_simple(64);

    rig_listen(rig, rig->blocks[0], 0, 64);
    rig_listen(rig, rig->blocks[0], 0, 64);
    expect_ok(rig, TO_PRIVATE, 3, 2,
              "discard L0 3+2 [P]\n"
              "discard L1 3+2 [P]\n"
              "convert a 3+2 to-private default [P]\n");
    rig_expect_state(rig->blocks[0], "S3 P2 S59");
    rig_free(rig);
}

static void test_order_to_shared(void)
{
    Rig *rig = rig_new_simple(64);

    rig_listen(rig, rig->blocks[0], 0, 64);
    rig_listen(rig, rig->blocks[0], 0, 64);
    prepare_private(rig, 3, 4);
    expect_ok(rig, TO_SHARED, 3, 2,
              "discard a 3+2 [P]\n"
              "convert a 3+2 to-shared preserve [P]\n"
              "populate L0 3+2 [P]\n"
              "populate L1 3+2 [P]\n");
    rig_expect_state(rig->blocks[0], "S5 P2 S57");
    rig_free(rig);
}

/* Nothing is published before all of the request is converted. */
static void test_order_of_runs(void)
{
    Rig *rig = rig_new_simple(64);

    rig_listen(rig, rig->blocks[0], 0, 64);
    prepare_private(rig, 1, 2);
    prepare_private(rig, 62, 2);
    expect_ok(rig, TO_SHARED, 0, 64,
              "discard a 1+2 [P]\n"
              "convert a 1+2 to-shared preserve [P]\n"
              "discard a 62+2 [P]\n"
              "convert a 62+2 to-shared preserve [P]\n"
              "populate L0 1+2 [P]\n"
              "populate L0 62+2 [P]\n");
    rig_expect_state(rig->blocks[0], "S64");
    rig_free(rig);
}

static void nothing_recorded(Rig *rig)
{
    rig_expect_state(rig->blocks[0], "S1 P2 S3 P2 S55 P1");
}

static void test_all_converted_first(void)
{
    Rig *rig = rig_new_simple(64);

    prepare_private(rig, 1, 2);
    prepare_private(rig, 6, 2);
    prepare_private(rig, 63, 1);
    rig->on_discard = nothing_recorded;
    expect_ok(rig, TO_SHARED, 0, 64,
              "discard a 1+2 [P]\n"
              "convert a 1+2 to-shared preserve [P]\n"
              "discard a 6+2 [P]\n"
              "convert a 6+2 to-shared preserve [P]\n"
              "discard a 63+1 [P]\n"
              "convert a 63+1 to-shared preserve [P]\n");
    rig_expect_state(rig->blocks[0], "S64");
    rig_free(rig);
}

/* QEMU throws bytes away only where the kernel makes no zeros. */
static void test_zero_by_kernel(void)
{
    Rig *rig = rig_new_simple(8);

    rig->engine.provider->offer.how[TO_SHARED][MODE_ZERO] =
        GUEST_MEMFD_REALISATION_KERNEL;
    prepare_private(rig, 0, 8);
    expect_ok(rig, TO_SHARED, 0, 8, "convert a 0+8 to-shared zero [P]\n");
    rig_free(rig);
}

static void test_modes(void)
{
    Rig *rig = rig_new_simple(8);
    GuestMemfdResult outcome;

    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, PRESERVE, 0, 8, &outcome), ==,
                    0);
    g_assert_cmpint(outcome.decision.mode, ==, MODE_PRESERVE);
    g_assert_cmpint(rig_ask(rig, TO_SHARED, PRESERVE, 0, 4, &outcome), ==, 0);
    g_assert_cmpint(outcome.decision.mode, ==, MODE_PRESERVE);
    rig->engine.content_policy = GUEST_MEMFD_CONTENT_POLICY_DEFAULT;
    g_assert_cmpint(rig_ask(rig, TO_SHARED, UNSPECIFIED, 4, 2, &outcome), ==,
                    0);
    g_assert_cmpint(outcome.decision.mode, ==, MODE_DEFAULT);
    g_assert_cmpint(rig_ask(rig, TO_SHARED, ZERO, 6, 2, &outcome), ==, 0);
    g_assert_cmpint(outcome.decision.mode, ==, MODE_ZERO);
    rig_expect_log(rig,
                   "convert a 0+8 to-private preserve [P]\n"
                   "convert a 0+4 to-shared preserve [P]\n"
                   "convert a 4+2 to-shared default [P]\n"
                   "discard a 6+2 [P]\n"
                   "convert a 6+2 to-shared preserve [P]\n");
    rig_free(rig);
}

static void test_outcome(void)
{
    const size_t page = qemu_real_host_page_size();
    Rig *rig = rig_new_simple(8);
    GuestMemfdResult outcome;

    prepare_private(rig, 2, 1);
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, ZERO, 0, 4, &outcome), ==,
                    -EINVAL);
    g_assert_true(outcome.decided);
    g_assert_cmpint(outcome.decision.realisation, ==,
                    GUEST_MEMFD_REALISATION_REFUSED);
    g_assert_cmphex(outcome.changed_bytes, ==, 0);

    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, PRESERVE, 0, 4, &outcome), ==,
                    0);
    g_assert_true(outcome.decided);
    g_assert_cmpint(outcome.decision.realisation, ==,
                    GUEST_MEMFD_REALISATION_KERNEL);
    g_assert_cmphex(outcome.changed_bytes, ==, 3 * page);

    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, PRESERVE, 8, 1, &outcome), ==,
                    -EINVAL);
    g_assert_false(outcome.decided);
    g_assert_cmphex(outcome.changed_bytes, ==, 0);
    rig_free(rig);
}

/* --- what the provider is asked for ------------------------------------ */

/* All pages can be converted; @preserve is for that direction only. */
static Rig *kernel_that(GuestMemfdRealisation preserve,
                        GuestMemfdDirection direction)
{
    Rig *rig = rig_new(TYPE_RIG_PROVIDER);
    GuestMemfdOffer *offer = &rig->engine.provider->offer;

    offer->how[TO_SHARED][MODE_ZERO] = KERNEL;
    offer->how[direction][MODE_PRESERVE] = preserve;
    rig->all_private = direction == TO_SHARED;
    rig_map(rig, 0, rig_block(rig, "a", 16), 0, 16);
    return rig;
}

/* The decided @mode is kept in this way, whatever the provider is asked. */
static void expect_mode(Rig *rig, GuestMemfdDirection direction,
                        GuestMemfdContentMode mode,
                        GuestMemfdRealisation how, const char *log)
{
    const GuestMemfdIntent intent = mode == MODE_ZERO ? ZERO : UNSPECIFIED;
    const GuestMemfdCounters *counters = &rig->blocks[0]->stats.counters;
    const uint64_t modes = counters->modes[mode];
    const uint64_t realisations = counters->realisations[how];
    GuestMemfdResult outcome;

    rig->engine.content_policy = GUEST_MEMFD_CONTENT_POLICY_DEFAULT;
    g_assert_cmpint(rig_ask(rig, direction, intent, 0, 16, &outcome), ==, 0);
    rig_expect_log(rig, log);
    g_assert_cmpuint(counters->modes[mode], ==, modes + 1);
    g_assert_cmpuint(counters->realisations[how], ==, realisations + 1);
    g_assert_cmpint(outcome.decision.mode, ==, mode);
    g_assert_cmpint(outcome.decision.realisation, ==, how);
}

static void test_one_run(void)
{
    Rig *rig = kernel_that(KERNEL, TO_PRIVATE);

    expect_mode(rig, TO_PRIVATE, MODE_DEFAULT, KERNEL,
                "convert a 0+16 to-private default [P]\n");
    expect_mode(rig, TO_SHARED, MODE_DEFAULT, KERNEL,
                "convert a 0+16 to-shared default [P]\n");
    prepare_private(rig, 0, 16);
    expect_mode(rig, TO_SHARED, MODE_ZERO, KERNEL,
                "convert a 0+16 to-shared zero [P]\n");
    rig_free(rig);
}

/* Pages 4-7 are right already, so the request is of two runs. */
static void check_two_runs(GuestMemfdRealisation preserve,
                           GuestMemfdDirection direction,
                           GuestMemfdContentMode mode,
                           GuestMemfdRealisation how, const char *log)
{
    Rig *rig = kernel_that(preserve, direction);

    g_assert_cmpint(rig_convert(rig, direction, 4, 4), ==, 0);
    g_string_truncate(rig->log, 0);
    expect_mode(rig, direction, mode, how, log);
    rig_expect_state(rig->blocks[0], direction == TO_SHARED ? "S16" : "P16");
    rig_free(rig);
}

static void test_two_runs(void)
{
    check_two_runs(KERNEL, TO_PRIVATE, MODE_DEFAULT, KERNEL,
                   "convert a 0+4 to-private preserve [P]\n"
                   "convert a 8+8 to-private preserve [P]\n");
    check_two_runs(KERNEL, TO_SHARED, MODE_DEFAULT, KERNEL,
                   "convert a 0+4 to-shared preserve [P]\n"
                   "convert a 8+8 to-shared preserve [P]\n");
}

/* Zeros of a kernel are as good as discarded bytes, and cost less. */
static void test_two_runs_zero(void)
{
    check_two_runs(KERNEL, TO_SHARED, MODE_ZERO, KERNEL,
                   "convert a 0+4 to-shared zero [P]\n"
                   "convert a 8+8 to-shared zero [P]\n");
}

/* Only a kernel preserves bytes while it converts. */
static void check_no_preserve(GuestMemfdRealisation preserve)
{
    check_two_runs(preserve, TO_PRIVATE, MODE_DEFAULT, KERNEL,
                   "convert a 0+4 to-private default [P]\n"
                   "convert a 8+8 to-private default [P]\n");
    check_two_runs(preserve, TO_SHARED, MODE_DEFAULT, KERNEL,
                   "convert a 0+4 to-shared default [P]\n"
                   "convert a 8+8 to-shared default [P]\n");
    check_two_runs(preserve, TO_SHARED, MODE_ZERO, KERNEL,
                   "convert a 0+4 to-shared zero [P]\n"
                   "convert a 8+8 to-shared zero [P]\n");
}

static void test_preserve_emulated(void)
{
    check_no_preserve(EMULATED);
}

static void test_preserve_refused(void)
{
    check_no_preserve(GUEST_MEMFD_REALISATION_REFUSED);
}

/* --- runs -------------------------------------------------------------- */

static void test_already_right(void)
{
    Rig *rig = rig_new_simple(64);

    rig_listen(rig, rig->blocks[0], 0, 64);
    expect_ok(rig, TO_SHARED, 0, 64, "");
    prepare_private(rig, 0, 64);
    expect_ok(rig, TO_PRIVATE, 1, 62, "");
    rig_expect_state(rig->blocks[0], "P64");
    rig_free(rig);
}

static void test_mixed(void)
{
    Rig *rig = rig_new_simple(130);

    prepare_private(rig, 1, 1);
    prepare_private(rig, 60, 10);
    prepare_private(rig, 129, 1);
    expect_ok(rig, TO_PRIVATE, 0, 130,
              "convert a 0+1 to-private preserve [P]\n"
              "convert a 2+58 to-private preserve [P]\n"
              "convert a 70+59 to-private preserve [P]\n");
    rig_expect_state(rig->blocks[0], "P130");
    rig_free(rig);
}

static void test_alternating(void)
{
    Rig *rig = rig_new_simple(256);
    unsigned page;

    for (page = 0; page < 256; page += 2) {
        prepare_private(rig, page, 1);
    }
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 256), ==, 0);
    g_assert_cmpuint(rig->calls, ==, 128);
    rig_expect_state(rig->blocks[0], "P256");
    rig_free(rig);
}

/* Converts only [first, first + pages): as one run, and nothing beside it. */
static void check_one_run(Rig *rig, unsigned first, unsigned pages)
{
    g_autofree char *there = g_strdup_printf(
        "convert a %u+%u to-private default [P]\n", first, pages);
    g_autofree char *back = g_strdup_printf(
        "discard a %u+%u [P]\n"
        "convert a %u+%u to-shared preserve [P]\n", first, pages, first,
        pages);

    expect_ok(rig, TO_PRIVATE, first, pages, there);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, first, pages), ==, 0);
    rig_expect_log(rig, "");
    rig_check(rig);
    /* The pages around the run are shared already. */
    expect_ok(rig, TO_SHARED, 0, 200, back);
    rig_expect_state(rig->blocks[0], "S200");
}

/* The bitmap's words end at pages 63, 127 and 191; the block at 199. */
static void test_word_borders(void)
{
    static const unsigned edges[] = {
        0, 1, 31, 32, 62, 63, 64, 65, 66, 126, 127, 128, 129,
        191, 192, 193, 198, 199, 200,
    };
    Rig *rig = rig_new_simple(200);
    unsigned i, j;

    for (i = 0; i < ARRAY_SIZE(edges); i++) {
        for (j = i + 1; j < ARRAY_SIZE(edges); j++) {
            check_one_run(rig, edges[i], edges[j] - edges[i]);
        }
    }
    rig_free(rig);
}

/* --- listeners and the BQL --------------------------------------------- */

static void test_listener_of_a_part(void)
{
    Rig *rig = rig_new_simple(64);

    rig_listen(rig, rig->blocks[0], 10, 10);
    rig_listen(rig, rig->blocks[0], 40, 10);
    expect_ok(rig, TO_PRIVATE, 0, 15,
              "discard L0 10+5 [P]\n"
              "convert a 0+15 to-private default [P]\n");
    expect_ok(rig, TO_PRIVATE, 20, 5,
              "convert a 20+5 to-private default [P]\n");
    rig_free(rig);
}

static void forbid_bql(Rig *rig)
{
    g_assert_false(bql_locked());
}

static void require_bql(Rig *rig)
{
    g_assert_true(bql_locked());
}

/* The listeners of the rig assert the BQL; without them it is not taken. */
static void test_bql(void)
{
    Rig *rig = rig_new_simple(64);

    rig->on_lookup = forbid_bql;
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 8), ==, 0);

    bql_lock();
    rig->on_lookup = require_bql;
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 16), ==, 0);
    rig_listen(rig, rig->blocks[0], 0, 64);
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 4), ==, 0);
    bql_unlock();

    rig->on_lookup = NULL;
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 64), ==, 0);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 64), ==, 0);
    g_assert_cmpuint(rig->sleeps, ==, 0);
    g_assert_cmpuint(rig->blocks[0]->stats.counters.retries, ==, 0);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*fn)(void); } tests[] = {
        { "order/to-private", test_order_to_private },
        { "order/to-shared", test_order_to_shared },
        { "order/of-runs", test_order_of_runs },
        { "order/all-converted-first", test_all_converted_first },
        { "order/zero-by-kernel", test_zero_by_kernel },
        { "order/modes", test_modes },
        { "outcome", test_outcome },
        { "asked/one-run", test_one_run },
        { "asked/two-runs", test_two_runs },
        { "asked/two-runs-zero", test_two_runs_zero },
        { "asked/preserve-emulated", test_preserve_emulated },
        { "asked/preserve-refused", test_preserve_refused },
        { "runs/already-right", test_already_right },
        { "runs/mixed", test_mixed },
        { "runs/alternating", test_alternating },
        { "runs/word-borders", test_word_borders },
        { "listeners/of-a-part", test_listener_of_a_part },
        { "listeners/bql", test_bql },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/convert/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].fn);
    }
    return g_test_run();
}
