/*
 * Conversions of guest memory that can neither be done nor undone at once
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The lines of the log are explained in guest-memfd-rig.h.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "system/guest-memfd-internal.h"
#include "guest-memfd-rig.h"

#define MODE_PRESERVE   GUEST_MEMFD_CONTENT_MODE_PRESERVE
#define KERNEL          GUEST_MEMFD_REALISATION_KERNEL
#define REFUSED         GUEST_MEMFD_REALISATION_REFUSED
/* How often the engine tries to send a range back that is busy. */
#define WAY_BACK_TRIES  100

/*
 * --- no way back: private, so that no device accesses the pages
 * ------------
 */

static void test_run_stuck_to_private(void)
{
    Rig *rig = rig_one_block();

    rig->convert_fault = (RigFault) { .count = 2, .error = -EIO,
                                      .progress = 1 };
    rig_expect_failure(rig, TO_PRIVATE, 4, 4, -EIO,
                       "discard L0 4+4 [P]\n"
                       "convert a 4+4 to-private default [P]\n"
                       "convert a 4+4 to-shared preserve [P]\n"
                       "broken a 4+4 [P]\n");
    rig_expect_state(rig->blocks[0], "S4 P4 S8");
    g_assert_cmpuint(rig->broken, ==, 1);
    rig_free(rig);
}

static void test_run_stuck_to_shared(void)
{
    Rig *rig = rig_one_block();

    rig_prepare_private(rig, 4, 4);
    rig->convert_fault = (RigFault) { .count = 2, .error = -EIO,
                                      .progress = 1 };
    rig_expect_failure(rig, TO_SHARED, 4, 4, -EIO,
                       "discard a 4+4 [P]\n"
                       "convert a 4+4 to-shared preserve [P]\n"
                       "convert a 4+4 to-private preserve [P]\n"
                       "broken a 4+4 [P]\n");
    rig_expect_state(rig->blocks[0], "S4 P4 S8");
    rig_free(rig);
}

static void test_rollback_stuck_to_private(void)
{
    Rig *rig = rig_two_blocks();

    rig_prepare_private(rig, 20, 1);
    rig->convert_fault = (RigFault) { .after = 1, .count = 3, .error = -EIO };
    rig_expect_failure(rig, TO_PRIVATE, 14, 4, -EIO,
                       "discard L0 14+2 [P]\n"
                       "convert a 14+2 to-private preserve [P]\n"
                       "discard L1 0+2 [P]\n"
                       "convert b 0+2 to-private preserve [P]\n"
                       "convert b 0+2 to-shared preserve [P]\n"
                       "broken b 0+2 [P]\n"
                       "convert a 14+2 to-shared preserve [P]\n"
                       "broken a 14+2 [P]\n");
    rig_expect_state(rig->blocks[0], "S14 P2");
    rig_expect_state(rig->blocks[1], "P2 S2 P1 S11");
    g_assert_cmpuint(rig->broken, ==, 2);
    rig_free(rig);
}

static void test_rollback_stuck_to_shared(void)
{
    Rig *rig = rig_two_blocks();

    rig_prepare_private(rig, 14, 4);
    rig->listeners[1].agrees = 0;
    rig->convert_fault = (RigFault) { .after = 2, .count = 2,
                                      .error = -ENOMEM };
    rig_expect_failure(rig, TO_SHARED, 14, 4, -EIO,
                       "discard a 14+2 [P]\n"
                       "convert a 14+2 to-shared preserve [P]\n"
                       "discard b 0+2 [P]\n"
                       "convert b 0+2 to-shared preserve [P]\n"
                       "populate L1 0+2 [P]\n"
                       "convert b 0+2 to-private preserve [P]\n"
                       "broken b 0+2 [P]\n"
                       "convert a 14+2 to-private preserve [P]\n"
                       "broken a 14+2 [P]\n");
    rig_expect_state(rig->blocks[0], "S14 P2");
    rig_expect_state(rig->blocks[1], "P2 S14");
    g_assert_cmpuint(rig->broken, ==, 2);
    rig_free(rig);
}

/* One run is lost, the rest is rolled back all the same. */
static void test_rollback_stuck_in_part(void)
{
    Rig *rig = rig_two_blocks();

    rig_prepare_private(rig, 14, 4);
    rig->convert_fault = (RigFault) { .after = 1, .count = 2,
                                      .error = -ENOMEM };
    rig_expect_failure(rig, TO_SHARED, 14, 4, -EIO,
                       "discard a 14+2 [P]\n"
                       "convert a 14+2 to-shared preserve [P]\n"
                       "discard b 0+2 [P]\n"
                       "convert b 0+2 to-shared preserve [P]\n"
                       "convert b 0+2 to-private preserve [P]\n"
                       "broken b 0+2 [P]\n"
                       "convert a 14+2 to-private preserve [P]\n");
    rig_expect_state(rig->blocks[0], "S14 P2");
    rig_expect_state(rig->blocks[1], "P2 S14");
    g_assert_cmpuint(rig->broken, ==, 1);
    rig_free(rig);
}

/* --- a way back that is not as good as it was -------------------------- */

/* A rollback that is interrupted is retried. */
static void test_interrupted_way_back(void)
{
    Rig *rig = rig_one_block();

    rig->convert_fault = (RigFault) { .count = 2, .error = -EINTR };
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 4), ==, 0);
    rig_expect_log(rig,
                   "discard L0 4+4 [P]\n"
                   "convert a 4+4 to-private default [P]\n"
                   "convert a 4+4 to-shared preserve [P]\n"
                   "convert a 4+4 to-shared preserve [P]\n"
                   "populate L0 4+4 [S]\n"
                   "discard L0 4+4 [P]\n"
                   "convert a 4+4 to-private default [P]\n");
    g_assert_cmpuint(rig->broken, ==, 0);
    g_assert_cmpuint(rig->sleeps, ==, 1);
    g_assert_cmpuint(rig->blocks[0]->stats.counters.retries, ==, 1);
    rig_expect_state(rig->blocks[0], "S4 P4 S8");
    rig_free(rig);
}

/*
 * The last try of a rollback is as good as the first one, and comes after
 * pauses: a busy page needs time to be released.
 */
static void busy_way_back(GuestMemfdDirection direction, int error)
{
    Rig *rig = rig_one_block();
    GuestMemfdBlock *block = rig->blocks[0];

    rig_prepare_private(rig, 8, 8);
    rig->calls = 0;
    rig->convert_fault = (RigFault) { .count = WAY_BACK_TRIES,
                                      .error = error, .progress = 1 };
    g_assert_cmpint(rig_convert(rig, direction, 4, 8), ==, 0);
    /* There, all tries of the way back, and there again; two discards. */
    g_assert_cmpuint(rig->calls, ==, 1 + WAY_BACK_TRIES + 1 +
                     2 * (direction == TO_SHARED));
    g_assert_cmpuint(rig->pauses, ==, WAY_BACK_TRIES - 1);
    g_assert_cmpuint(rig->broken, ==, 0);
    g_assert_cmpuint(rig->sleeps, ==, 1);
    g_assert_cmpuint(block->stats.counters.retries, ==, 1);
    rig_expect_state(block, direction == TO_PRIVATE ? "S4 P12" : "S12 P4");
    rig_free(rig);
}

static void test_busy_way_back(void)
{
    busy_way_back(TO_PRIVATE, -EAGAIN);
    busy_way_back(TO_PRIVATE, -EINTR);
    busy_way_back(TO_SHARED, -EAGAIN);
    busy_way_back(TO_SHARED, -EINTR);
}

/*
 * Pages recorded as private for want of their real state are no success, but
 * another try would count them as converted.
 */
static void stuck_is_no_success(GuestMemfdDirection direction, int error)
{
    Rig *rig = rig_one_block();
    GuestMemfdBlock *block = rig->blocks[0];

    rig_prepare_private(rig, 8, 8);
    rig->calls = 0;
    rig->convert_fault = (RigFault) { .count = 1 + WAY_BACK_TRIES,
                                      .error = error, .progress = 1 };
    g_assert_cmpint(rig_convert(rig, direction, 4, 8), ==, -EIO);
    g_assert_cmpuint(rig->calls, ==, 1 + WAY_BACK_TRIES +
                     (direction == TO_SHARED));
    g_assert_cmpuint(rig->broken, ==, 1);
    g_assert_cmpuint(rig->sleeps, ==, 0);
    g_assert_cmpuint(block->stats.counters.failures[
                         guest_memfd_errno_bucket(-EIO)], ==, 1);
    rig_expect_state(block, direction == TO_PRIVATE ? "S4 P12" : "S8 P8");
    rig_free(rig);
}

static void test_stuck_is_no_success(void)
{
    stuck_is_no_success(TO_PRIVATE, -EAGAIN);
    stuck_is_no_success(TO_PRIVATE, -EINTR);
    stuck_is_no_success(TO_SHARED, -EAGAIN);
    stuck_is_no_success(TO_SHARED, -EINTR);
}

/* The same where it is the rollback that gets stuck. */
static void test_stuck_rollback_is_no_success(void)
{
    Rig *rig = rig_one_block();

    rig_prepare_private(rig, 4, 4);
    rig->calls = 0;
    rig->listeners[0].agrees = 0;
    rig->listeners[0].error = -EAGAIN;
    rig->convert_fault = (RigFault) { .after = 1, .count = WAY_BACK_TRIES,
                                      .error = -EAGAIN };
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 4, 4), ==, -EIO);
    /* There, zeroing, and all tries of the way back. */
    g_assert_cmpuint(rig->calls, ==, 2 + WAY_BACK_TRIES);
    g_assert_cmpuint(rig->broken, ==, 1);
    g_assert_cmpuint(rig->sleeps, ==, 0);
    rig_expect_state(rig->blocks[0], "S4 P4 S8");
    rig_free(rig);
}

/* The second run, 9-11, is busy once; there is no lossless way back. */
static int ask_lossy(Rig *rig, GuestMemfdIntent intent)
{
    rig->engine.provider->offer.how[TO_SHARED][MODE_PRESERVE] = REFUSED;
    rig_prepare_private(rig, 8, 1);
    rig->convert_fault = (RigFault) { .after = 1, .count = 1,
                                      .error = -EAGAIN };
    return rig_ask(rig, TO_PRIVATE, intent, 4, 8, NULL);
}

/*
 * The first run is rolled back because the second one is busy.  If converting
 * back promises nothing, another try has no bytes to preserve.
 */
static void test_preserve_after_lossy_way_back(void)
{
    Rig *rig = rig_one_block();
    GuestMemfdBlock *block = rig->blocks[0];

    g_assert_cmpint(ask_lossy(rig, PRESERVE), ==, -EIO);
    rig_expect_log(rig,
                   "discard L0 4+4 [P]\n"
                   "convert a 4+4 to-private preserve [P]\n"
                   "discard L0 9+3 [P]\n"
                   "convert a 9+3 to-private preserve [P]\n"
                   "convert a 9+3 to-shared default [P]\n"
                   "populate L0 9+3 [S]\n"
                   "convert a 4+4 to-shared default [P]\n"
                   "populate L0 4+4 [S]\n");
    g_assert_cmpuint(rig->sleeps, ==, 0);
    g_assert_cmpuint(rig->broken, ==, 0);
    g_assert_cmpuint(block->stats.counters.failures[
                         guest_memfd_errno_bucket(-EIO)], ==, 1);
    rig_expect_state(block, "S8 P1 S7");
    rig_free(rig);
}

/* A request that preserves no bytes may be retried. */
static void test_default_after_lossy_way_back(void)
{
    Rig *rig = rig_one_block();

    g_assert_cmpint(ask_lossy(rig, UNSPECIFIED), ==, 0);
    g_assert_cmpuint(rig->sleeps, ==, 1);
    rig_expect_state(rig->blocks[0], "S4 P8 S4");
    rig_free(rig);
}

/*
 * --- the bytes of a run that is rolled back
 * ----------------------------------
 */

/* Is every byte of pages [first, end) of @block as it was written? */
static bool is_intact(const GuestMemfdBlock *block, unsigned first,
                      unsigned end)
{
    const size_t page = qemu_real_host_page_size();
    size_t i;

    for (i = first * page; i < end * page; i++) {
        if (block->host[i] != 0x5a) {
            return false;
        }
    }
    return true;
}

/* Page 4 is right already.  "Default" alone scrambles the bytes at once. */
static void bytes_after_failure(GuestMemfdDirection direction)
{
    Rig *rig = rig_new(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    Object *provider = OBJECT(rig->engine.provider);
    GuestMemfdOffer *offer = &rig->engine.provider->offer;
    GuestMemfdBlock *block;

    offer->how[TO_SHARED][MODE_PRESERVE] = KERNEL;
    offer->how[TO_PRIVATE][MODE_PRESERVE] = KERNEL;
    rig->engine.content_policy = GUEST_MEMFD_CONTENT_POLICY_DEFAULT;
    rig->all_private = direction == TO_SHARED;
    block = rig_block(rig, "a", 16);
    rig_map(rig, 0, block, 0, 16);
    memset(block->host, 0x5a, block->size);
    object_property_set_bool(provider, "poison", true, &error_abort);
    g_assert_cmpint(rig_convert(rig, direction, 4, 1), ==, 0);
    g_assert_false(is_intact(block, 4, 5));

    object_property_set_uint(provider, "fault-errno", EIO, &error_abort);
    object_property_set_uint(provider, "fault-after", 1, &error_abort);
    object_property_set_uint(provider, "fault-count", 1, &error_abort);
    object_property_set_uint(provider, "fault-progress",
                             2 * qemu_real_host_page_size(), &error_abort);
    g_assert_cmpint(rig_convert(rig, direction, 0, 16), ==, -EIO);
    rig_expect_state(block, direction == TO_SHARED ? "P4 S1 P11"
                                                   : "S4 P1 S11");
    g_assert_cmpuint(block->stats.counters.rollbacks, ==, 1);
    g_assert_true(is_intact(block, 0, 4));
    g_assert_true(is_intact(block, 5, 16));
    rig_free(rig);
}

static void test_bytes_to_private(void)
{
    bytes_after_failure(TO_PRIVATE);
}

static void test_bytes_to_shared(void)
{
    bytes_after_failure(TO_SHARED);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*fn)(void); } tests[] = {
        { "run-to-private", test_run_stuck_to_private },
        { "run-to-shared", test_run_stuck_to_shared },
        { "rollback-to-private", test_rollback_stuck_to_private },
        { "rollback-to-shared", test_rollback_stuck_to_shared },
        { "rollback-in-part", test_rollback_stuck_in_part },
        { "interrupted-way-back", test_interrupted_way_back },
        { "busy-way-back", test_busy_way_back },
        { "no-success", test_stuck_is_no_success },
        { "no-success-of-rollback", test_stuck_rollback_is_no_success },
        { "preserve-after-lossy-way-back",
          test_preserve_after_lossy_way_back },
        { "default-after-lossy-way-back",
          test_default_after_lossy_way_back },
        { "bytes-to-private", test_bytes_to_private },
        { "bytes-to-shared", test_bytes_to_shared },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/stuck/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].fn);
    }
    return g_test_run();
}
