/*
 * Conversions of guest memory that fail, and how they are undone
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The lines of the log are explained in guest-memfd-rig.h.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "system/guest-memfd-internal.h"
#include "guest-memfd-rig.h"

#define MODE_PRESERVE   GUEST_MEMFD_CONTENT_MODE_PRESERVE
#define REFUSED         GUEST_MEMFD_REALISATION_REFUSED

static uint64_t failures(const GuestMemfdBlock *block, int error)
{
    return block->stats.counters.failures[guest_memfd_errno_bucket(error)];
}

/* --- pages in use ------------------------------------------------------ */

static void busy_for_a_while(int error)
{
    Rig *rig = rig_one_block();
    GuestMemfdBlock *block = rig->blocks[0];

    rig->convert_fault = (RigFault) { .count = 1, .error = error };
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 2, 3), ==, 0);
    rig_expect_log(rig,
                   "discard L0 2+3 [P]\n"
                   "convert a 2+3 to-private default [P]\n"
                   "convert a 2+3 to-shared preserve [P]\n"
                   "populate L0 2+3 [S]\n"
                   "discard L0 2+3 [P]\n"
                   "convert a 2+3 to-private default [P]\n");
    g_assert_cmpuint(rig->sleeps, ==, 1);
    g_assert_cmpuint(block->stats.counters.retries, ==, 1);
    g_assert_cmpuint(block->stats.counters.requests, ==, 1);
    g_assert_cmpuint(failures(block, error), ==, 0);
    rig_free(rig);
}

static void test_eagain(void)
{
    busy_for_a_while(-EAGAIN);
}

static void test_eintr(void)
{
    busy_for_a_while(-EINTR);
}

/* Other errors are final. */
static void test_no_retry(void)
{
    Rig *rig = rig_one_block();

    rig->convert_fault = (RigFault) { .count = 1, .error = -EFAULT };
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 1), ==, -EFAULT);
    g_assert_cmpuint(rig->sleeps, ==, 0);
    g_assert_cmpuint(failures(rig->blocks[0], -EFAULT), ==, 1);
    rig_free(rig);
}

static void set_fault_again(Rig *rig)
{
    rig->convert_fault = (RigFault) { .count = 1, .error = -EAGAIN };
}

static void test_give_up(void)
{
    Rig *rig = rig_one_block();
    GuestMemfdBlock *block = rig->blocks[0];
    int64_t start = g_get_monotonic_time();

    rig->engine.retry_timeout_ms = 20;
    rig->on_sleep = set_fault_again;
    set_fault_again(rig);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 4), ==, -EAGAIN);
    g_assert_cmpint(g_get_monotonic_time() - start, >=, 20 * 1000);
    rig_expect_state(block, "S16");
    g_assert_cmpuint(rig->sleeps, >, 0);
    g_assert_cmpuint(block->stats.counters.retries, ==, rig->sleeps);
    g_assert_cmpuint(failures(block, -EAGAIN), ==, 1);
    g_assert_cmpuint(block->stats.counters.requests, ==, 1);
    rig_free(rig);
}

static void test_no_timeout(void)
{
    Rig *rig = rig_one_block();

    rig->engine.retry_timeout_ms = 0;
    set_fault_again(rig);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 4), ==, -EAGAIN);
    g_assert_cmpuint(rig->sleeps, ==, 0);
    rig_free(rig);
}

static void nothing_half_done(Rig *rig)
{
    rig_check(rig);
    rig_expect_state(rig->blocks[0], "S16");
}

/* While the engine sleeps, everything is as before. */
static void test_sleep(void)
{
    Rig *rig = rig_two_blocks();

    rig_prepare_private(rig, 16, 1);
    rig->on_sleep = nothing_half_done;
    rig->convert_fault = (RigFault) { .after = 1, .count = 1,
                                      .error = -EAGAIN, .progress = 2 };
    bql_lock();
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 12, 8), ==, 0);
    bql_unlock();
    g_assert_cmpuint(rig->sleeps, ==, 1);
    rig_expect_state(rig->blocks[0], "S12 P4");
    rig_expect_state(rig->blocks[1], "P4 S12");
    rig_free(rig);
}

/* --- one run ----------------------------------------------------------- */

static void test_to_private_fails(void)
{
    Rig *rig = rig_one_block();

    rig->convert_fault = (RigFault) { .count = 1, .error = -ENOMEM,
                                      .progress = 2 };
    rig_expect_failure(rig, TO_PRIVATE, 4, 4, -ENOMEM,
                       "discard L0 4+4 [P]\n"
                       "convert a 4+4 to-private default [P]\n"
                       "convert a 4+4 to-shared preserve [P]\n"
                       "populate L0 4+4 [S]\n");
    rig_expect_state(rig->blocks[0], "S16");
    rig_free(rig);
}

static void test_to_shared_fails(void)
{
    Rig *rig = rig_one_block();

    rig_prepare_private(rig, 0, 16);
    rig->convert_fault = (RigFault) { .count = 1, .error = -ENOMEM,
                                      .progress = 3 };
    rig_expect_failure(rig, TO_SHARED, 4, 4, -ENOMEM,
                       "discard a 4+4 [P]\n"
                       "convert a 4+4 to-shared preserve [P]\n"
                       "convert a 4+4 to-private preserve [P]\n");
    rig_expect_state(rig->blocks[0], "P16");
    rig_free(rig);
}

/* The way back keeps the bytes only where the provider can. */
static void test_way_back_mode(void)
{
    Rig *rig = rig_one_block();

    rig->engine.provider->offer.how[TO_PRIVATE][MODE_PRESERVE] = REFUSED;
    rig_prepare_private(rig, 0, 16);
    rig->convert_fault = (RigFault) { .count = 1, .error = -EIO };
    rig_expect_failure(rig, TO_SHARED, 4, 4, -EIO,
                       "discard a 4+4 [P]\n"
                       "convert a 4+4 to-shared preserve [P]\n"
                       "convert a 4+4 to-private default [P]\n");
    rig_free(rig);
}

/* No byte is discarded of a run after the one that failed. */
static void test_discard_no_more(void)
{
    Rig *rig = rig_one_block();

    rig_prepare_private(rig, 0, 2);
    rig_prepare_private(rig, 4, 2);
    rig_prepare_private(rig, 8, 2);
    rig->convert_fault = (RigFault) { .after = 1, .count = 1, .error = -EIO,
                                      .progress = 2 };
    rig_expect_failure(rig, TO_SHARED, 0, 16, -EIO,
                       "discard a 0+2 [P]\n"
                       "convert a 0+2 to-shared preserve [P]\n"
                       "discard a 4+2 [P]\n"
                       "convert a 4+2 to-shared preserve [P]\n"
                       "convert a 4+2 to-private preserve [P]\n"
                       "convert a 0+2 to-private preserve [P]\n");
    rig_expect_state(rig->blocks[0], "P2 S2 P2 S2 P2 S6");
    rig_free(rig);
}

/* Without zeros nothing may be shared. */
static void test_discard_fails(void)
{
    Rig *rig = rig_one_block();

    rig_prepare_private(rig, 4, 4);
    rig->discard_fault = (RigFault) { .count = 1, .error = -EIO };
    rig_expect_failure(rig, TO_SHARED, 0, 16, -EIO,
                       "discard a 4+4 [P]\n"
                       "convert a 4+4 to-private preserve [P]\n");
    rig_expect_state(rig->blocks[0], "S4 P4 S8");
    rig_free(rig);
}

/* The listeners before it get a discard, those after it nothing. */
static void test_listener_refuses(void)
{
    Rig *rig = rig_one_block();
    RigListener *second = rig_listen(rig, rig->blocks[0], 0, 16);

    rig_listen(rig, rig->blocks[0], 0, 16);
    rig_prepare_private(rig, 0, 16);
    second->agrees = 0;
    second->error = -ENOSPC;
    rig_expect_failure(rig, TO_SHARED, 4, 4, -ENOSPC,
                       "discard a 4+4 [P]\n"
                       "convert a 4+4 to-shared preserve [P]\n"
                       "populate L0 4+4 [P]\n"
                       "populate L1 4+4 [P]\n"
                       "discard L0 4+4 [P]\n"
                       "convert a 4+4 to-private preserve [P]\n");
    rig_expect_state(rig->blocks[0], "P16");
    g_assert_cmpuint(failures(rig->blocks[0], -ENOSPC), ==, 1);
    g_assert_cmpstr(guest_memfd_errno_name(guest_memfd_errno_bucket(-ENOSPC)),
                    ==, "ENOSPC");
    rig_free(rig);
}

/* A device goes on using pages that are private again. */
static void test_withdrawal_fails(void)
{
    Rig *rig = rig_one_block();
    RigListener *second = rig_listen(rig, rig->blocks[0], 0, 16);

    rig_prepare_private(rig, 0, 16);
    second->agrees = 0;
    rig->listeners[0].gives_up = 0;
    rig_expect_failure(rig, TO_SHARED, 4, 4, -ENOSPC,
                       "discard a 4+4 [P]\n"
                       "convert a 4+4 to-shared preserve [P]\n"
                       "populate L0 4+4 [P]\n"
                       "populate L1 4+4 [P]\n"
                       "discard L0 4+4 [P]\n"
                       "broken a 4+4 [P]\n"
                       "convert a 4+4 to-private preserve [P]\n");
    g_assert_cmpuint(rig->broken, ==, 1);
    rig_free(rig);
}

/* Pages that cannot be unmapped are not converted; others map them again. */
static void unmapping_fails(int error)
{
    Rig *rig = rig_one_block();
    RigListener *second = rig_listen(rig, rig->blocks[0], 0, 16);

    rig_listen(rig, rig->blocks[0], 0, 16);
    second->gives_up = 0;
    second->error = error;
    rig_expect_failure(rig, TO_PRIVATE, 2, 3, error,
                       "discard L0 2+3 [P]\n"
                       "discard L1 2+3 [P]\n"
                       "populate L0 2+3 [P]\n"
                       "populate L1 2+3 [P]\n");
    rig_expect_state(rig->blocks[0], "S16");
    g_assert_cmpuint(failures(rig->blocks[0], error), ==, 1);
    /* The next request finds all as it was. */
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 2, 3), ==, 0);
    rig_expect_state(rig->blocks[0], "S2 P3 S11");
    rig_free(rig);
}

static void test_unmapping_fails(void)
{
    unmapping_fails(-ENOMEM);
    unmapping_fails(-EINVAL);
}

/* Listeners get a discard for the runs that they had populated. */
static void test_listener_refuses_later(void)
{
    Rig *rig = rig_one_block();

    rig_prepare_private(rig, 0, 2);
    rig_prepare_private(rig, 4, 2);
    rig_prepare_private(rig, 8, 2);
    rig->listeners[0].agrees = 1;
    rig_expect_failure(rig, TO_SHARED, 0, 16, -ENOSPC,
                       "discard a 0+2 [P]\n"
                       "convert a 0+2 to-shared preserve [P]\n"
                       "discard a 4+2 [P]\n"
                       "convert a 4+2 to-shared preserve [P]\n"
                       "discard a 8+2 [P]\n"
                       "convert a 8+2 to-shared preserve [P]\n"
                       "populate L0 0+2 [P]\n"
                       "populate L0 4+2 [P]\n"
                       "discard L0 0+2 [P]\n"
                       "convert a 0+2 to-private preserve [P]\n"
                       "convert a 4+2 to-private preserve [P]\n"
                       "convert a 8+2 to-private preserve [P]\n");
    rig_expect_state(rig->blocks[0], "P2 S2 P2 S2 P2 S6");
    g_assert_cmpuint(rig->blocks[0]->stats.counters.rollbacks, ==, 1);
    rig_free(rig);
}

/* --- several runs and blocks ------------------------------------------- */

static void test_rollback_to_private(void)
{
    Rig *rig = rig_two_blocks();

    rig_prepare_private(rig, 13, 1);
    rig->convert_fault = (RigFault) { .after = 2, .count = 1,
                                      .error = -ENOMEM };
    rig_expect_failure(rig, TO_PRIVATE, 12, 8, -ENOMEM,
                       "discard L0 12+1 [P]\n"
                       "convert a 12+1 to-private preserve [P]\n"
                       "discard L0 14+2 [P]\n"
                       "convert a 14+2 to-private preserve [P]\n"
                       "discard L1 0+4 [P]\n"
                       "convert b 0+4 to-private preserve [P]\n"
                       "convert b 0+4 to-shared preserve [P]\n"
                       "populate L1 0+4 [S]\n"
                       "convert a 12+1 to-shared preserve [P]\n"
                       "populate L0 12+1 [S]\n"
                       "convert a 14+2 to-shared preserve [P]\n"
                       "populate L0 14+2 [S]\n");
    rig_expect_state(rig->blocks[0], "S13 P1 S2");
    rig_expect_state(rig->blocks[1], "S16");
    g_assert_cmpuint(rig->blocks[0]->stats.counters.rollbacks, ==, 1);
    g_assert_cmpuint(rig->blocks[1]->stats.counters.rollbacks, ==, 0);
    g_assert_cmpuint(failures(rig->blocks[0], -ENOMEM), ==, 1);
    g_assert_cmpuint(failures(rig->blocks[1], -ENOMEM), ==, 1);
    rig_free(rig);
}

/* The second block fails: no page of the first one was published. */
static void test_rollback_to_shared(void)
{
    Rig *rig = rig_two_blocks();

    rig_prepare_private(rig, 12, 8);
    rig->convert_fault = (RigFault) { .after = 1, .count = 1,
                                      .error = -ENOMEM };
    rig_expect_failure(rig, TO_SHARED, 12, 8, -ENOMEM,
                       "discard a 12+4 [P]\n"
                       "convert a 12+4 to-shared preserve [P]\n"
                       "discard b 0+4 [P]\n"
                       "convert b 0+4 to-shared preserve [P]\n"
                       "convert b 0+4 to-private preserve [P]\n"
                       "convert a 12+4 to-private preserve [P]\n");
    rig_expect_state(rig->blocks[0], "S12 P4");
    rig_expect_state(rig->blocks[1], "P4 S12");
    rig_free(rig);
}

static void test_first_listener_refuses(void)
{
    Rig *rig = rig_two_blocks();

    rig_prepare_private(rig, 12, 8);
    rig->listeners[1].agrees = 0;
    rig_expect_failure(rig, TO_SHARED, 12, 8, -ENOSPC,
                       "discard a 12+4 [P]\n"
                       "convert a 12+4 to-shared preserve [P]\n"
                       "discard b 0+4 [P]\n"
                       "convert b 0+4 to-shared preserve [P]\n"
                       "populate L1 0+4 [P]\n"
                       "convert b 0+4 to-private preserve [P]\n"
                       "convert a 12+4 to-private preserve [P]\n");
    rig_expect_state(rig->blocks[0], "S12 P4");
    rig_expect_state(rig->blocks[1], "P4 S12");
    rig_free(rig);
}

/* The block that was published before the refusal is taken back. */
static void test_last_listener_refuses(void)
{
    Rig *rig = rig_two_blocks();

    rig_prepare_private(rig, 12, 8);
    rig->listeners[0].agrees = 0;
    rig_expect_failure(rig, TO_SHARED, 12, 8, -ENOSPC,
                       "discard a 12+4 [P]\n"
                       "convert a 12+4 to-shared preserve [P]\n"
                       "discard b 0+4 [P]\n"
                       "convert b 0+4 to-shared preserve [P]\n"
                       "populate L1 0+4 [P]\n"
                       "populate L0 12+4 [P]\n"
                       "discard L1 0+4 [P]\n"
                       "convert b 0+4 to-private preserve [P]\n"
                       "convert a 12+4 to-private preserve [P]\n");
    rig_expect_state(rig->blocks[0], "S12 P4");
    rig_expect_state(rig->blocks[1], "P4 S12");
    g_assert_cmpuint(rig->blocks[0]->stats.counters.rollbacks, ==, 1);
    g_assert_cmpuint(rig->blocks[1]->stats.counters.rollbacks, ==, 1);

    /* Nothing of it is left: the next rollback notifies no listener. */
    rig->listeners[0].agrees = INT_MAX;
    rig->convert_fault = (RigFault) { .after = 1, .count = 1,
                                      .error = -ENOMEM };
    rig_expect_failure(rig, TO_SHARED, 12, 8, -ENOMEM,
                       "discard a 12+4 [P]\n"
                       "convert a 12+4 to-shared preserve [P]\n"
                       "discard b 0+4 [P]\n"
                       "convert b 0+4 to-shared preserve [P]\n"
                       "convert b 0+4 to-private preserve [P]\n"
                       "convert a 12+4 to-private preserve [P]\n");
    rig_free(rig);
}

/* A request does not roll back the changes of the last one. */
static void test_changed_is_forgotten(void)
{
    Rig *rig = rig_one_block();

    rig_prepare_private(rig, 0, 2);
    rig_prepare_private(rig, 6, 1);
    rig->convert_fault = (RigFault) { .count = 1, .error = -EIO };
    rig_expect_failure(rig, TO_PRIVATE, 4, 1, -EIO,
                       "discard L0 4+1 [P]\n"
                       "convert a 4+1 to-private default [P]\n"
                       "convert a 4+1 to-shared preserve [P]\n"
                       "populate L0 4+1 [S]\n");
    rig_expect_state(rig->blocks[0], "P2 S4 P1 S9");
    rig_free(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*fn)(void); } tests[] = {
        { "busy/eagain", test_eagain },
        { "busy/eintr", test_eintr },
        { "busy/other-errors-are-final", test_no_retry },
        { "busy/give-up", test_give_up },
        { "busy/no-timeout", test_no_timeout },
        { "busy/nothing-half-done-in-sleep", test_sleep },
        { "run/to-private", test_to_private_fails },
        { "run/to-shared", test_to_shared_fails },
        { "run/way-back-mode", test_way_back_mode },
        { "run/discard-no-more", test_discard_no_more },
        { "run/discard-fails", test_discard_fails },
        { "run/listener-refuses", test_listener_refuses },
        { "run/listener-refuses-later", test_listener_refuses_later },
        { "run/unmapping-fails", test_unmapping_fails },
        { "run/withdrawal-fails", test_withdrawal_fails },
        { "rollback/to-private", test_rollback_to_private },
        { "rollback/to-shared", test_rollback_to_shared },
        { "rollback/first-listener", test_first_listener_refuses },
        { "rollback/last-listener", test_last_listener_refuses },
        { "rollback/changed-is-forgotten", test_changed_is_forgotten },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/failures/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].fn);
    }
    return g_test_run();
}
