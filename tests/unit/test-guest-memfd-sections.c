/*
 * Conversions of guest memory that is in pieces, and of what is none
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The lines of the log are explained in guest-memfd-rig.h.
 */

#include "qemu/osdep.h"
#include "guest-memfd-rig.h"

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
              "convert a 12+4 to-private preserve [P]\n"
              "discard L0 0+4 [P]\n"
              "convert b 0+4 to-private preserve [P]\n");
    expect_ok(rig, TO_SHARED, 0, 32,
              "discard a 12+4 [P]\n"
              "convert a 12+4 to-shared preserve [P]\n"
              "discard b 0+4 [P]\n"
              "convert b 0+4 to-shared preserve [P]\n"
              "populate L0 0+4 [P]\n");
    rig_free(rig);
}

/* Each block has its own policy. */
static void test_two_policies(void)
{
    Rig *rig = two_blocks();

    prepare_private(rig, 0, 32);
    rig->blocks[1]->content_policy = GUEST_MEMFD_CONTENT_POLICY_DEFAULT;
    expect_ok(rig, TO_SHARED, 0, 32,
              "discard a 0+16 [P]\n"
              "convert a 0+16 to-shared preserve [P]\n"
              "convert b 0+16 to-shared preserve [P]\n");
    rig_free(rig);
}

/* One block in pieces, as around the PCI hole. */
static void test_pieces_of_a_block(void)
{
    Rig *rig = rig_new(TYPE_RIG_PROVIDER);
    GuestMemfdBlock *block = rig_block(rig, "a", 16);

    rig_map(rig, 12, block, 8, 8);
    rig_map(rig, 0, block, 0, 8);
    rig_map_other(rig, 8, 2);
    expect_ok(rig, TO_PRIVATE, 6, 2, "convert a 6+2 to-private default [P]\n");
    expect_ok(rig, TO_PRIVATE, 12, 2,
              "convert a 8+2 to-private default [P]\n");
    /* Over MMIO (8, 9) and a hole (10, 11); in the block, one run. */
    expect_ok(rig, TO_SHARED, 7, 6,
              "discard a 7+1 [P]\n"
              "convert a 7+1 to-shared preserve [P]\n"
              "discard a 8+1 [P]\n"
              "convert a 8+1 to-shared preserve [P]\n");
    rig_expect_state(block, "S6 P1 S2 P1 S6");
    rig_free(rig);
}

static void test_alias(void)
{
    const size_t page = qemu_real_host_page_size();
    Rig *rig = rig_new_simple(16);
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdResult outcome;

    rig_map(rig, 16, block, 8, 8);
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, UNSPECIFIED, 10, 8, &outcome),
                    ==, 0);
    rig_expect_log(rig,
                   "convert a 10+6 to-private preserve [P]\n"
                   "convert a 8+2 to-private preserve [P]\n");
    rig_check(rig);
    g_assert_cmpint(rig_ask(rig, TO_SHARED, PRESERVE, 8, 16, &outcome), ==,
                    0);
    rig_expect_log(rig, "convert a 8+8 to-shared preserve [P]\n");
    g_assert_cmphex(outcome.changed_bytes, ==, 8 * page);
    g_assert_cmphex(block->stats.counters.already_right_bytes, ==, 8 * page);
    rig_free(rig);
}

/* Pages that a request covers twice are converted and cleared once. */
static void test_alias_to_shared(void)
{
    Rig *rig = rig_new_simple(16);

    rig_map(rig, 16, rig->blocks[0], 4, 8);
    rig_listen(rig, rig->blocks[0], 0, 16);
    prepare_private(rig, 2, 4);
    prepare_private(rig, 8, 2);
    prepare_private(rig, 11, 1);
    /* 5-9, and from the alias 4-11. */
    expect_ok(rig, TO_SHARED, 5, 5,
              "discard a 5+1 [P]\n"
              "convert a 5+1 to-shared preserve [P]\n"
              "discard a 8+2 [P]\n"
              "convert a 8+2 to-shared preserve [P]\n"
              "populate L0 5+1 [P]\n"
              "populate L0 8+2 [P]\n");
    prepare_private(rig, 9, 4);
    expect_ok(rig, TO_SHARED, 10, 14,
              "discard a 10+3 [P]\n"
              "convert a 10+3 to-shared preserve [P]\n"
              "discard a 4+1 [P]\n"
              "convert a 4+1 to-shared preserve [P]\n"
              "discard a 9+1 [P]\n"
              "convert a 9+1 to-shared preserve [P]\n"
              "populate L0 4+1 [P]\n"
              "populate L0 9+4 [P]\n");
    rig_expect_state(rig->blocks[0], "S2 P2 S12");
    rig_free(rig);
}

/* ROM, a BAR, VGA memory: none is private, so there is nothing to do. */
static void test_holes_and_others(void)
{
    Rig *rig = rig_new(TYPE_RIG_PROVIDER);

    rig_map(rig, 4, rig_block(rig, "a", 4), 0, 4);
    rig_map_other(rig, 8, 2);
    rig_map_other(rig, 20, 2);

    expect_refused(rig, TO_PRIVATE, 3, 2, -EINVAL);
    expect_refused(rig, TO_PRIVATE, 7, 2, -EINVAL);
    expect_refused(rig, TO_PRIVATE, 8, 1, -EINVAL);
    expect_refused(rig, TO_PRIVATE, 0, 1, -EINVAL);
    expect_refused(rig, TO_PRIVATE, 20, 1, -EINVAL);
    rig_expect_state(rig->blocks[0], "S4");

    prepare_private(rig, 4, 4);
    expect_refused(rig, TO_PRIVATE, 0, 30, -EINVAL);
    expect_ok(rig, TO_SHARED, 20, 1, "");
    expect_ok(rig, TO_SHARED, 10, 3, "");
    expect_ok(rig, TO_SHARED, 8, 2, "");
    expect_ok(rig, TO_SHARED, 0, 30,
              "discard a 0+4 [P]\nconvert a 0+4 to-shared preserve [P]\n");
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

    /* Memory whose offset in the block is not aligned. */
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

    req.block = block;
    g_assert_cmpint(guest_memfd_engine_convert(&rig->engine, &req, NULL), ==,
                    0);
    rig_expect_log(rig, "convert a 4+12 to-private default [P]\n");
    g_assert_cmpuint(rig->lookups, ==, 0);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*fn)(void); } tests[] = {
        { "two-blocks", test_two_blocks },
        { "two-policies", test_two_policies },
        { "pieces-of-a-block", test_pieces_of_a_block },
        { "alias", test_alias },
        { "alias-to-shared", test_alias_to_shared },
        { "holes-and-others", test_holes_and_others },
        { "malformed", test_malformed },
        { "convert-block", test_convert_block },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/sections/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].fn);
    }
    return g_test_run();
}
