/*
 * Conversions of runs of pages by one call of the provider
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The rig's provider asserts that what the engine marks in a span is what
 * differs from the wanted state.  The lines of the log are explained in
 * guest-memfd-rig.h.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "system/guest-memfd-internal.h"
#include "guest-memfd-rig.h"

/* Of pages that are right already, the provider has this many in a span. */
#define GAP 8

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* One block of 32 pages with a listener; the provider takes spans. */
static Rig *spanned(void)
{
    Rig *rig = rig_new_simple(32);

    rig_listen(rig, rig->blocks[0], 0, 32);
    guest_memfd_provider_set_spans(rig->engine.provider, GAP);
    return rig;
}

/* Pages 1 and 4 are private. */
static Rig *three_runs(void)
{
    Rig *rig = spanned();

    rig_prepare_private(rig, 1, 1);
    rig_prepare_private(rig, 4, 1);
    return rig;
}

static uint64_t failures(const Rig *rig, int error)
{
    return rig->blocks[0]->stats.counters.failures[
        guest_memfd_errno_bucket(error)];
}

/* --- one call ------------------------------------------------------------- */

/* Listeners hear of runs only, and the kernel is to keep the other bytes. */
static void test_to_private(void)
{
    Rig *rig = three_runs();

    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 6), ==, 0);
    rig_expect_log(rig, "discard L0 0+1 [P]\n"
                        "discard L0 2+2 [P]\n"
                        "discard L0 5+1 [P]\n"
                        "convert a 0+6 to-private preserve [P]\n");
    rig_expect_state(rig->blocks[0], "P6 S26");
    rig_free(rig);
}

/* Only bytes of pages that were private are thrown away. */
static void test_to_shared(void)
{
    Rig *rig = three_runs();

    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 6), ==, 0);
    rig_expect_log(rig, "discard a 1+1 [P]\n"
                        "discard a 4+1 [P]\n"
                        "convert a 0+5 to-shared preserve [M]\n"
                        "populate L0 1+1 [P]\n"
                        "populate L0 4+1 [P]\n");
    rig_expect_state(rig->blocks[0], "S32");
    g_assert_cmphex(rig->blocks[0]->stats.counters.converted_bytes[TO_SHARED],
                    ==, 2 * page_size());
    g_assert_cmphex(rig->blocks[0]->stats.counters.already_right_bytes, ==,
                    4 * page_size());
    rig_free(rig);
}

static void test_not_taken(void)
{
    Rig *rig = three_runs();

    guest_memfd_provider_set_spans(rig->engine.provider, 0);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 4), ==, 0);
    rig_expect_log(rig, "discard L0 0+1 [P]\n"
                        "convert a 0+1 to-private preserve [P]\n"
                        "discard L0 2+2 [P]\n"
                        "convert a 2+2 to-private preserve [P]\n");
    rig_free(rig);
}

static void test_gap(void)
{
    Rig *rig = spanned();

    rig_prepare_private(rig, 0, 1);
    rig_prepare_private(rig, 1 + GAP, 1);
    rig_prepare_private(rig, 3 + 2 * GAP, 1);
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 32), ==, 0);
    rig_expect_log(rig, "discard a 0+1 [P]\n"
                        "discard a 9+1 [P]\n"
                        "convert a 0+10 to-shared preserve [M]\n"
                        "discard a 19+1 [P]\n"
                        "convert a 19+1 to-shared preserve [P]\n"
                        "populate L0 0+1 [P]\n"
                        "populate L0 9+1 [P]\n"
                        "populate L0 19+1 [P]\n");
    rig_free(rig);
}

/* Pages to the boundaries of a huge page, which are right, are in it, too. */
static void test_huge_page(void)
{
    const unsigned huge = 2 * MiB / page_size();
    Rig *rig = rig_new_simple(2 * huge);
    GuestMemfdResult result = { };
    g_autofree char *asked = g_strdup_printf(
        "convert a %u+%u to-private preserve [P]\n", huge, huge);
    g_autofree char *mixed = g_strdup_printf(
        "convert a %u+%u to-private preserve [P]\n", huge + 2, huge - 3);

    guest_memfd_provider_set_spans(rig->engine.provider, GAP);
    rig_prepare_private(rig, huge - 1, 3);
    rig_prepare_private(rig, 2 * huge - 1, 1);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, huge, huge), ==, 0);
    rig_expect_log(rig, asked);

    /* Not those that the request does not have. */
    g_assert_cmpint(rig_convert(rig, TO_SHARED, huge + 2, huge - 3), ==, 0);
    g_string_truncate(rig->log, 0);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, huge + 1, huge - 2), ==, 0);
    rig_expect_log(rig, mixed);

    /* The one that fails is a page that changes. */
    g_assert_cmpint(rig_convert(rig, TO_SHARED, huge + 2, huge - 3), ==, 0);
    rig->engine.provider->offer.how[TO_SHARED]
        [GUEST_MEMFD_CONTENT_MODE_PRESERVE] = GUEST_MEMFD_REALISATION_REFUSED;
    rig->convert_fault = (RigFault) { .count = 1, .error = -EIO };
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, PRESERVE, huge, huge, &result),
                    ==, -EIO);
    g_assert_cmphex(result.offset, ==, (huge + 2) * page_size());
    rig_free(rig);
}

/* A span has no page that the same request has changed before. */
static void test_mapped_twice(void)
{
    Rig *rig = spanned();

    rig_map(rig, 64, rig->blocks[0], 4, 2);
    rig_map(rig, 66, rig->blocks[0], 0, 12);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 64, 14), ==, 0);
    rig_expect_log(rig, "discard L0 4+2 [P]\n"
                        "convert a 4+2 to-private preserve [P]\n"
                        "discard L0 0+4 [P]\n"
                        "convert a 0+4 to-private preserve [P]\n"
                        "discard L0 6+6 [P]\n"
                        "convert a 6+6 to-private preserve [P]\n");
    rig_expect_state(rig->blocks[0], "P12 S20");
    rig_free(rig);
}

/* A slice has room for so many pages, in as many runs as it likes. */
static void test_slices(void)
{
    Rig *rig = three_runs();

    rig->engine.slice_bytes = 4 * page_size();
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 12), ==, 0);
    rig_expect_log(rig, "discard L0 0+1 [P]\n"
                        "discard L0 2+2 [P]\n"
                        "discard L0 5+1 [P]\n"
                        "convert a 0+6 to-private preserve [P]\n"
                        "discard L0 6+4 [P]\n"
                        "convert a 6+4 to-private preserve [P]\n"
                        "discard L0 10+2 [P]\n"
                        "convert a 10+2 to-private preserve [P]\n");
    g_assert_cmpuint(rig->slices, ==, 2);
    rig_free(rig);
}

/* So do those that are right already: an eighth of them counts. */
static void test_slices_of_gaps(void)
{
    Rig *rig = rig_new_simple(52);
    unsigned page;

    guest_memfd_provider_set_spans(rig->engine.provider, 2 * GAP);
    rig->engine.slice_bytes = 4 * page_size();
    for (page = 0; page < 52; page += 2 * GAP + 1) {
        rig_prepare_private(rig, page, 1);
    }
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 52), ==, 0);
    rig_expect_log(rig, "discard a 0+1 [P]\n"
                        "discard a 17+1 [P]\n"
                        "convert a 0+18 to-shared preserve [M]\n"
                        "discard a 34+1 [P]\n"
                        "discard a 51+1 [P]\n"
                        "convert a 34+18 to-shared preserve [M]\n");
    g_assert_cmpuint(rig->slices, ==, 1);
    rig_free(rig);
}

/* Also those up to the boundaries of a huge page. */
static void test_slices_of_huge_pages(void)
{
    const unsigned huge = 2 * MiB / page_size();
    Rig *rig = rig_new_simple(3 * huge);

    guest_memfd_provider_set_spans(rig->engine.provider, huge);
    rig->engine.slice_bytes = huge / GAP * page_size();
    rig_prepare_private(rig, 2, 1);
    rig_prepare_private(rig, 2 * huge + 2, 1);
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 3 * huge), ==, 0);
    g_assert_cmpuint(rig->slices, ==, 1);
    rig_free(rig);
}

/* --- failures ------------------------------------------------------------- */

/* Nothing is asked for while a page of the last run is in use. */
static void test_mapped(void)
{
    Rig *rig = three_runs();
    GuestMemfdBlock *block = rig->blocks[0];
    const uint64_t at = 5 * page_size();

    rig->engine.retry_timeout_ms = 0;
    g_assert_true(guest_memfd_mapping_add(block, at, 8));
    rig_expect_failure(rig, TO_PRIVATE, 0, 6, -EAGAIN, "");
    g_assert_cmphex(block->stats.busy.offset, ==, at);
    rig_expect_state(block, "S1 P1 S2 P1 S27");
    g_assert_true(guest_memfd_mapping_remove(block, at, 8));
    rig_free(rig);
}

/* Those runs that a listener unmapped before are its own again. */
static void test_listener_keeps(void)
{
    Rig *rig = three_runs();

    rig->listeners[0].gives_up = 1;
    rig->listeners[0].stuck = true;
    rig->listeners[0].error = -EIO;
    rig_expect_failure(rig, TO_PRIVATE, 0, 6, -EIO,
                       "discard L0 0+1 [P]\n"
                       "discard L0 2+2 [P]\n"
                       "populate L0 2+2 [P]\n"
                       "populate L0 0+1 [P]\n");
    rig_expect_state(rig->blocks[0], "S1 P1 S2 P1 S27");
    rig_free(rig);
}

/* A page in between was in the way: the runs are converted one by one. */
static void test_by_run(void)
{
    Rig *rig = three_runs();

    rig->convert_fault = (RigFault) { .count = 1, .error = -EIO,
                                      .progress = 3 };
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 6), ==, 0);
    rig_expect_log(rig, "discard a 1+1 [P]\n"
                        "discard a 4+1 [P]\n"
                        "convert a 0+5 to-shared preserve [M]\n"
                        "convert a 1+1 to-private preserve [P]\n"
                        "convert a 4+1 to-private preserve [P]\n"
                        "discard a 1+1 [P]\n"
                        "convert a 1+1 to-shared preserve [P]\n"
                        "discard a 4+1 [P]\n"
                        "convert a 4+1 to-shared preserve [P]\n"
                        "populate L0 1+1 [P]\n"
                        "populate L0 4+1 [P]\n");
    g_assert_cmpuint(rig->sleeps, ==, 0);
    rig_expect_state(rig->blocks[0], "S32");
    rig_free(rig);
}

/* A later run fails: of the span only the runs go back. */
static void test_rolled_back(void)
{
    Rig *rig = three_runs();

    rig_map(rig, 64, rig->blocks[0], 0, 6);
    rig_map(rig, 70, rig->blocks[0], 20, 1);
    rig->convert_fault = (RigFault) { .after = 1, .count = 1, .error = -EIO };
    rig_expect_failure(rig, TO_PRIVATE, 64, 7, -EIO,
                       "discard L0 0+1 [P]\n"
                       "discard L0 2+2 [P]\n"
                       "discard L0 5+1 [P]\n"
                       "convert a 0+6 to-private preserve [P]\n"
                       "discard L0 20+1 [P]\n"
                       "convert a 20+1 to-private preserve [P]\n"
                       "convert a 20+1 to-shared preserve [P]\n"
                       "populate L0 20+1 [S]\n"
                       "convert a 0+1 to-shared preserve [P]\n"
                       "populate L0 0+1 [S]\n"
                       "convert a 2+2 to-shared preserve [P]\n"
                       "populate L0 2+2 [S]\n"
                       "convert a 5+1 to-shared preserve [P]\n"
                       "populate L0 5+1 [S]\n");
    g_assert_cmpuint(failures(rig, -EIO), ==, 1);
    rig_expect_state(rig->blocks[0], "S1 P1 S2 P1 S27");
    rig_free(rig);
}

/* Bytes that were to be preserved may be gone: that is no success. */
static void test_lossy(void)
{
    Rig *rig = three_runs();
    GuestMemfdOffer *offer = &rig->engine.provider->offer;

    offer->how[TO_SHARED][GUEST_MEMFD_CONTENT_MODE_PRESERVE] =
        GUEST_MEMFD_REALISATION_REFUSED;
    rig->convert_fault = (RigFault) { .count = 1, .error = -EIO };
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, PRESERVE, 0, 6, NULL), ==, -EIO);
    rig_expect_state(rig->blocks[0], "S1 P1 S2 P1 S27");
    rig_free(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*fn)(void); } tests[] = {
        { "one-call/to-private", test_to_private },
        { "one-call/to-shared", test_to_shared },
        { "one-call/not-taken", test_not_taken },
        { "one-call/gap", test_gap },
        { "one-call/huge-page", test_huge_page },
        { "one-call/mapped-twice", test_mapped_twice },
        { "one-call/slices", test_slices },
        { "one-call/slices-of-gaps", test_slices_of_gaps },
        { "one-call/slices-of-huge-pages", test_slices_of_huge_pages },
        { "failure/mapped", test_mapped },
        { "failure/listener-keeps", test_listener_keeps },
        { "failure/by-run", test_by_run },
        { "failure/rolled-back", test_rolled_back },
        { "failure/lossy", test_lossy },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/spans/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].fn);
    }
    return g_test_run();
}
