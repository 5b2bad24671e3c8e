/*
 * Conversions of guest memory that succeed, or are refused untouched
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the log lines mean: guest-memfd-rig.h.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "guest-memfd-rig.h"

#define MODE_DEFAULT    GUEST_MEMFD_CONTENT_MODE_DEFAULT
#define MODE_ZERO       GUEST_MEMFD_CONTENT_MODE_ZERO
#define MODE_PRESERVE   GUEST_MEMFD_CONTENT_MODE_PRESERVE

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

static void expect_refused(Rig *rig, GuestMemfdDirection direction,
                           uint64_t gpa, uint64_t pages, int error)
{
    g_assert_cmpint(rig_convert(rig, direction, gpa, pages), ==, error);
    rig_expect_log(rig, "");
}

/* --- order ------------------------------------------------------------- */

static void test_order_to_private(void)
{
    Rig *rig = rig_new_simple(64);

    rig_listen(rig, rig->blocks[0], 0, 64);
    rig_listen(rig, rig->blocks[0], 0, 64);
    expect_ok(rig, TO_PRIVATE, 3, 2,
              "discard L0 3+2 [S]\n"
              "discard L1 3+2 [S]\n"
              "convert a 3+2 to-private default [S]\n");
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
              "convert a 3+2 to-shared zero [P]\n"
              "zero a 3+2 [P]\n"
              "populate L0 3+2 [S]\n"
              "populate L1 3+2 [S]\n");
    rig_expect_state(rig->blocks[0], "S5 P2 S57");
    rig_free(rig);
}

/* QEMU clears pages only where the kernel does not. */
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
    GuestMemfdOutcome outcome;

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
                   "convert a 0+8 to-private preserve [S]\n"
                   "convert a 0+4 to-shared preserve [P]\n"
                   "convert a 4+2 to-shared default [P]\n"
                   "convert a 6+2 to-shared zero [P]\n"
                   "zero a 6+2 [P]\n");
    rig_free(rig);
}

static void test_outcome(void)
{
    const size_t page = qemu_real_host_page_size();
    Rig *rig = rig_new_simple(8);
    GuestMemfdOutcome outcome;

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
              "convert a 0+1 to-private default [S]\n"
              "convert a 2+58 to-private default [S]\n"
              "convert a 70+59 to-private default [S]\n");
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
        "convert a %u+%u to-private default [S]\n", first, pages);
    g_autofree char *back = g_strdup_printf(
        "convert a %u+%u to-shared zero [P]\n"
        "zero a %u+%u [P]\n", first, pages, first, pages);

    expect_ok(rig, TO_PRIVATE, first, pages, there);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, first, pages), ==, 0);
    rig_expect_log(rig, "");
    rig_check(rig);
    /* What lies around the run is shared already. */
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

/* --- sections ---------------------------------------------------------- */

/* a at 0-15, b at 16-31. */
static Rig *two_blocks(void)
{
    Rig *rig = rig_new_simple(16);

    rig_map(rig, 16, rig_block(rig, "b", 16), 0, 16);
    return rig;
}

static void test_two_blocks(void)
{
    Rig *rig = two_blocks();

    rig_listen(rig, rig->blocks[1], 0, 16);
    expect_ok(rig, TO_PRIVATE, 12, 8,
              "convert a 12+4 to-private default [S]\n"
              "discard L0 0+4 [S]\n"
              "convert b 0+4 to-private default [S]\n");
    expect_ok(rig, TO_SHARED, 0, 32,
              "convert a 12+4 to-shared zero [P]\n"
              "zero a 12+4 [P]\n"
              "convert b 0+4 to-shared zero [P]\n"
              "zero b 0+4 [P]\n"
              "populate L0 0+4 [S]\n");
    rig_free(rig);
}

/* Each block has its own policy. */
static void test_two_policies(void)
{
    Rig *rig = two_blocks();

    prepare_private(rig, 0, 32);
    rig->blocks[1]->content_policy = GUEST_MEMFD_CONTENT_POLICY_DEFAULT;
    expect_ok(rig, TO_SHARED, 0, 32,
              "convert a 0+16 to-shared zero [P]\n"
              "zero a 0+16 [P]\n"
              "convert b 0+16 to-shared default [P]\n");
    rig_free(rig);
}

/* One block in pieces, as around the PCI hole. */
static void test_pieces_of_a_block(void)
{
    Rig *rig = rig_new(TYPE_RIG_PROVIDER);
    GuestMemfdBlock *block = rig_block(rig, "a", 16);

    rig_map(rig, 12, block, 8, 8);
    rig_map(rig, 0, block, 0, 8);
    rig_map_mmio(rig, 8, 2);
    expect_ok(rig, TO_PRIVATE, 6, 2, "convert a 6+2 to-private default [S]\n");
    expect_ok(rig, TO_PRIVATE, 12, 2,
              "convert a 8+2 to-private default [S]\n");
    /* Over MMIO (8, 9) and a hole (10, 11). */
    expect_ok(rig, TO_SHARED, 7, 6,
              "convert a 7+1 to-shared zero [P]\n"
              "zero a 7+1 [P]\n"
              "convert a 8+1 to-shared zero [P]\n"
              "zero a 8+1 [P]\n");
    rig_expect_state(block, "S6 P1 S2 P1 S6");
    rig_free(rig);
}

static void test_alias(void)
{
    const size_t page = qemu_real_host_page_size();
    Rig *rig = rig_new_simple(16);
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdOutcome outcome;

    rig_map(rig, 16, block, 8, 8);
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, UNSPECIFIED, 10, 8, &outcome),
                    ==, 0);
    rig_expect_log(rig,
                   "convert a 10+6 to-private default [S]\n"
                   "convert a 8+2 to-private default [S]\n");
    rig_check(rig);
    g_assert_cmpint(rig_ask(rig, TO_SHARED, PRESERVE, 8, 16, &outcome), ==,
                    0);
    rig_expect_log(rig, "convert a 8+8 to-shared preserve [P]\n");
    g_assert_cmphex(outcome.changed_bytes, ==, 8 * page);
    g_assert_cmphex(block->counters.already_right_bytes, ==, 8 * page);
    rig_free(rig);
}

static void test_holes_and_mmio(void)
{
    Rig *rig = rig_new(TYPE_RIG_PROVIDER);

    rig_map(rig, 4, rig_block(rig, "a", 4), 0, 4);
    rig_map_mmio(rig, 8, 2);
    rig_map_other_ram(rig, 20, 2);

    expect_refused(rig, TO_PRIVATE, 3, 2, -EINVAL);
    expect_refused(rig, TO_PRIVATE, 7, 2, -EINVAL);
    expect_refused(rig, TO_PRIVATE, 8, 1, -EINVAL);
    expect_refused(rig, TO_PRIVATE, 0, 1, -EINVAL);
    expect_refused(rig, TO_PRIVATE, 20, 1, -EINVAL);
    expect_refused(rig, TO_SHARED, 20, 1, -EINVAL);
    rig_expect_state(rig->blocks[0], "S4");

    prepare_private(rig, 4, 4);
    expect_refused(rig, TO_SHARED, 4, 17, -EINVAL);
    expect_ok(rig, TO_SHARED, 10, 3, "");
    expect_ok(rig, TO_SHARED, 8, 2, "");
    expect_ok(rig, TO_SHARED, 0, 12,
              "convert a 0+4 to-shared zero [P]\nzero a 0+4 [P]\n");
    rig_free(rig);
}

static void test_malformed(void)
{
    const size_t page = qemu_real_host_page_size();
    const struct { uint64_t gpa, size; } wrong[] = {
        { 0, 0 }, { 1, page }, { page / 2, page }, { 0, page - 1 },
        { 0, page + 512 }, { -page, page }, { -page, 2 * page },
        { page, -page },
    };
    Rig *rig = rig_new_simple(16);
    GuestMemfdRequest req = rig_request(TO_SHARED, UNSPECIFIED, 0, 1);
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(wrong); i++) {
        req.gpa = wrong[i].gpa;
        req.size = wrong[i].size;
        g_assert_cmpint(guest_memfd_engine_convert(&rig->engine, &req, NULL),
                        ==, -EINVAL);
    }
    g_assert_cmpuint(rig->lookups, ==, 0);
    g_assert_cmpuint(rig->engine.rejected[1], ==, ARRAY_SIZE(wrong));

    /* Memory whose place in the block is no page. */
    rig->map[0].offset = 512;
    expect_refused(rig, TO_PRIVATE, 0, 1, -EINVAL);
    rig_free(rig);
}

/* A part of a block, wherever it is mapped. */
static void test_convert_block(void)
{
    Rig *rig = rig_new(TYPE_RIG_PROVIDER);
    GuestMemfdBlock *block = rig_block(rig, "a", 16);
    GuestMemfdRequest req = rig_request(TO_PRIVATE, UNSPECIFIED, 4, 12);

    g_assert_cmpint(guest_memfd_engine_convert_block(&rig->engine, block,
                                                     &req, NULL), ==, 0);
    rig_expect_log(rig, "convert a 4+12 to-private default [S]\n");
    g_assert_cmpuint(rig->lookups, ==, 0);
    rig_free(rig);
}

/* --- listeners and the BQL --------------------------------------------- */

static void test_listener_of_a_part(void)
{
    Rig *rig = rig_new_simple(64);

    rig_listen(rig, rig->blocks[0], 10, 10);
    rig_listen(rig, rig->blocks[0], 40, 10);
    expect_ok(rig, TO_PRIVATE, 0, 15,
              "discard L0 10+5 [S]\n"
              "convert a 0+15 to-private default [S]\n");
    expect_ok(rig, TO_PRIVATE, 20, 5,
              "convert a 20+5 to-private default [S]\n");
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
    g_assert_cmpuint(rig->blocks[0]->counters.retries, ==, 0);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*fn)(void); } tests[] = {
        { "order/to-private", test_order_to_private },
        { "order/to-shared", test_order_to_shared },
        { "order/zero-by-kernel", test_zero_by_kernel },
        { "order/modes", test_modes },
        { "outcome", test_outcome },
        { "runs/already-right", test_already_right },
        { "runs/mixed", test_mixed },
        { "runs/alternating", test_alternating },
        { "runs/word-borders", test_word_borders },
        { "sections/two-blocks", test_two_blocks },
        { "sections/two-policies", test_two_policies },
        { "sections/pieces-of-a-block", test_pieces_of_a_block },
        { "sections/alias", test_alias },
        { "sections/holes-and-mmio", test_holes_and_mmio },
        { "sections/malformed", test_malformed },
        { "sections/convert-block", test_convert_block },
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
