/*
 * The world changes while a conversion of guest memory is under way
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A request is scanned before it takes locks, so each piece of memory is
 * looked up twice; what happens between the two lookups is played here by
 * a hook of the rig.  Another hook runs while the engine sleeps.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "system/guest-memfd-internal.h"
#include "guest-memfd-rig.h"

#define MODE_DEFAULT    GUEST_MEMFD_CONTENT_MODE_DEFAULT
#define MODE_ZERO       GUEST_MEMFD_CONTENT_MODE_ZERO
#define MODE_PRESERVE   GUEST_MEMFD_CONTENT_MODE_PRESERVE
#define REFUSED         GUEST_MEMFD_REALISATION_REFUSED

/* Run @change once, before the second lookup. */
static void (*change)(Rig *rig);

static void second_lookup(Rig *rig)
{
    if (rig->lookups == 2) {
        change(rig);
    }
}

static void between_lookups(Rig *rig, void (*fn)(Rig *rig))
{
    g_string_truncate(rig->log, 0);
    rig->lookups = 0;
    change = fn;
    rig->on_lookup = second_lookup;
}

static Rig *private_block(void)
{
    Rig *rig = rig_new_simple(16);

    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 16), ==, 0);
    return rig;
}

/* --- policy ------------------------------------------------------------ */

static void set_default(Rig *rig)
{
    qatomic_set(&rig->engine.content_policy,
                GUEST_MEMFD_CONTENT_POLICY_DEFAULT);
}

/* A guest must not get "zero" for pages that were not cleared. */
static void test_policy(void)
{
    Rig *rig = private_block();
    GuestMemfdResult outcome;

    between_lookups(rig, set_default);
    g_assert_cmpint(rig_ask(rig, TO_SHARED, UNSPECIFIED, 0, 4, &outcome), ==,
                    0);
    rig_expect_log(rig, "convert a 0+4 to-shared default [P]\n");
    g_assert_true(outcome.decided);
    g_assert_cmpint(outcome.decision.mode, ==, MODE_DEFAULT);
    g_assert_cmpuint(rig->blocks[0]->stats.counters.modes[MODE_ZERO], ==, 0);
    rig_free(rig);
}

static void set_preserve(Rig *rig)
{
    qatomic_set(&rig->blocks[0]->content_policy,
                GUEST_MEMFD_CONTENT_POLICY_PRESERVE);
}

/* A refusal is reported and counted at any time. */
static void test_policy_refuses(void)
{
    Rig *rig = private_block();
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdResult outcome;

    rig->engine.provider->offer.how[TO_SHARED][MODE_PRESERVE] = REFUSED;
    between_lookups(rig, set_preserve);
    g_assert_cmpint(rig_ask(rig, TO_SHARED, UNSPECIFIED, 0, 4, &outcome), ==,
                    -EOPNOTSUPP);
    rig_expect_log(rig, "");
    g_assert_cmpint(outcome.decision.realisation, ==, REFUSED);
    g_assert_cmpint(outcome.decision.mode, ==, MODE_PRESERVE);
    g_assert_cmpuint(block->stats.counters.realisations[REFUSED], ==, 1);
    g_assert_cmpuint(block->stats.counters.failures[
                         guest_memfd_errno_bucket(-EOPNOTSUPP)], ==, 1);
    g_assert_cmpuint(rig->engine.rejected[
                         guest_memfd_errno_bucket(-EOPNOTSUPP)], ==, 0);

    /* The callback may be NULL. */
    block->content_policy = GUEST_MEMFD_CONTENT_POLICY_AUTO;
    between_lookups(rig, set_preserve);
    g_assert_cmpint(rig_ask(rig, TO_SHARED, UNSPECIFIED, 0, 4, NULL), ==,
                    -EOPNOTSUPP);
    g_assert_cmpuint(block->stats.counters.realisations[REFUSED], ==, 2);
    rig_expect_state(block, "P16");
    rig_free(rig);
}

static void test_policy_in_sleep(void)
{
    Rig *rig = private_block();
    GuestMemfdResult outcome;

    rig->convert_fault = (RigFault) { .count = 1, .error = -EAGAIN };
    rig->on_sleep = set_default;
    g_string_truncate(rig->log, 0);
    g_assert_cmpint(rig_ask(rig, TO_SHARED, UNSPECIFIED, 0, 4, &outcome), ==,
                    0);
    rig_expect_log(rig,
                   "discard a 0+4 [P]\n"
                   "convert a 0+4 to-shared preserve [P]\n"
                   "convert a 0+4 to-private preserve [P]\n"
                   "convert a 0+4 to-shared default [P]\n");
    g_assert_cmpint(outcome.decision.mode, ==, MODE_DEFAULT);
    rig_free(rig);
}

/* A part of the request is refused: nothing of it is done. */
static void test_policy_of_second_block(void)
{
    Rig *rig = private_block();
    GuestMemfdBlock *b = rig_block(rig, "b", 16);
    GuestMemfdResult outcome;

    rig_map(rig, 16, b, 0, 16);
    g_string_truncate(rig->log, 0);
    rig->engine.provider->offer.how[TO_SHARED][MODE_PRESERVE] = REFUSED;
    b->content_policy = GUEST_MEMFD_CONTENT_POLICY_PRESERVE;
    g_assert_cmpint(rig_ask(rig, TO_SHARED, UNSPECIFIED, 0, 32, &outcome),
                    ==, -EOPNOTSUPP);
    rig_expect_log(rig, "");
    g_assert_cmpint(outcome.decision.realisation, ==, REFUSED);
    g_assert_cmpuint(b->stats.counters.realisations[REFUSED], ==, 1);
    rig_free(rig);
}

/* --- listeners --------------------------------------------------------- */

static void listen_to_all(Rig *rig)
{
    if (!rig->n_listeners) {
        rig_listen(rig, rig->blocks[0], 0, 16);
    }
}

/* The listener came with the BQL, which the request does not have. */
static void test_listener_comes(void)
{
    Rig *rig = private_block();

    between_lookups(rig, listen_to_all);
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 4), ==, 0);
    rig_expect_log(rig,
                   "discard a 0+4 [P]\n"
                   "convert a 0+4 to-shared preserve [P]\n"
                   "populate L0 0+4 [P]\n");
    g_assert_cmpuint(rig->sleeps, ==, 0);
    g_assert_cmpuint(rig->blocks[0]->stats.counters.requests, ==, 2);
    rig_free(rig);
}

static void test_listener_comes_in_sleep(void)
{
    Rig *rig = private_block();

    rig->convert_fault = (RigFault) { .count = 1, .error = -EAGAIN };
    rig->on_sleep = listen_to_all;
    g_string_truncate(rig->log, 0);
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 4), ==, 0);
    rig_expect_log(rig,
                   "discard a 0+4 [P]\n"
                   "convert a 0+4 to-shared preserve [P]\n"
                   "convert a 0+4 to-private preserve [P]\n"
                   "discard a 0+4 [P]\n"
                   "convert a 0+4 to-shared preserve [P]\n"
                   "populate L0 0+4 [P]\n");
    rig_free(rig);
}

/* --- the map ----------------------------------------------------------- */

static void map_b_instead(Rig *rig)
{
    rig->map[0].block = rig->blocks[1];
}

static void test_other_block(void)
{
    Rig *rig = private_block();

    rig_block(rig, "b", 16);
    between_lookups(rig, map_b_instead);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 4), ==, 0);
    rig_expect_log(rig, "convert b 0+4 to-private default [P]\n");
    rig_expect_state(rig->blocks[0], "P16");
    g_assert_cmpuint(rig->blocks[0]->stats.counters.requests, ==, 1);
    g_assert_cmpuint(rig->blocks[1]->stats.counters.requests, ==, 1);
    rig_free(rig);
}

static void map_b_beside(Rig *rig)
{
    rig_map(rig, 16, rig->blocks[1], 0, 16);
}

static void test_second_block_comes(void)
{
    Rig *rig = private_block();
    GuestMemfdBlock *b = rig_block(rig, "b", 16);

    between_lookups(rig, map_b_beside);
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 32), ==, 0);
    rig_expect_state(rig->blocks[0], "S16");
    g_assert_cmpuint(b->stats.counters.requests, ==, 1);
    rig_free(rig);
}

static void unmap(Rig *rig)
{
    rig->pieces--;
}

static void test_unplugged(void)
{
    Rig *rig = rig_new_simple(16);
    GuestMemfdBlock *b = rig_block(rig, "b", 16);

    rig_map(rig, 16, b, 0, 16);
    /* Lookups: a, b, then the second one of a. */
    rig->lookups = -1;
    change = unmap;
    rig->on_lookup = second_lookup;
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 32), ==, -EINVAL);
    rig_expect_log(rig,
                   "convert a 0+16 to-private preserve [P]\n"
                   "convert a 0+16 to-shared preserve [P]\n");
    rig_expect_state(rig->blocks[0], "S16");
    rig_free(rig);
}

/* --- another vCPU ------------------------------------------------------ */

static void convert_it_meanwhile(Rig *rig)
{
    rig->on_sleep = NULL;
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 4), ==, 0);
}

/* The second request finds the work done, and succeeds. */
static void test_already_done(void)
{
    Rig *rig = rig_new_simple(16);
    GuestMemfdResult outcome;

    rig->convert_fault = (RigFault) { .count = 1, .error = -EAGAIN };
    rig->on_sleep = convert_it_meanwhile;
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, UNSPECIFIED, 0, 4, &outcome),
                    ==, 0);
    g_assert_cmphex(outcome.changed_bytes, ==, 0);
    rig_expect_state(rig->blocks[0], "P4 S12");
    rig_free(rig);
}

static void launch(Rig *rig)
{
    qatomic_set(&rig->engine.phase, GUEST_MEMFD_PHASE_RUNNING);
}

/* Flags 0 keep the bytes only until the guest runs. */
static void test_launched(void)
{
    Rig *rig = rig_new_simple(16);
    GuestMemfdOffer *offer = &rig->engine.provider->offer;

    offer->how[TO_PRIVATE][MODE_PRESERVE] = REFUSED;
    offer->preserve_until_final = true;
    rig->engine.phase = GUEST_MEMFD_PHASE_SETUP;
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, PRESERVE, 0, 4, NULL), ==, 0);
    rig_expect_log(rig, "convert a 0+4 to-private preserve [P]\n");

    between_lookups(rig, launch);
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, PRESERVE, 4, 4, NULL), ==,
                    -EOPNOTSUPP);
    rig_expect_log(rig, "");
    rig_expect_state(rig->blocks[0], "P4 S12");
    rig_free(rig);
}

/* Some guests start with all memory private. */
static void test_starts_private(void)
{
    Rig *rig = rig_new(TYPE_RIG_PROVIDER);

    rig->all_private = true;
    rig_map(rig, 0, rig_block(rig, "a", 100), 0, 100);
    rig_expect_state(rig->blocks[0], "P100");
    g_assert_cmpuint(rig->blocks[0]->shared_pages, ==, 0);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 100), ==, 0);
    rig_expect_log(rig, "");
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 99, 1), ==, 0);
    rig_expect_state(rig->blocks[0], "P99 S1");
    rig_free(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*fn)(void); } tests[] = {
        { "policy/between-lookups", test_policy },
        { "policy/refuses-between-lookups", test_policy_refuses },
        { "policy/in-sleep", test_policy_in_sleep },
        { "policy/of-second-block", test_policy_of_second_block },
        { "listener/between-lookups", test_listener_comes },
        { "listener/in-sleep", test_listener_comes_in_sleep },
        { "map/other-block", test_other_block },
        { "map/second-block", test_second_block_comes },
        { "map/unplugged", test_unplugged },
        { "vcpu/already-done", test_already_done },
        { "vcpu/launched", test_launched },
        { "vcpu/starts-private", test_starts_private },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/changes/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].fn);
    }
    return g_test_run();
}
