/*
 * The phases of guest memory, and what happens between them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The engine on the rig: sealing, a new VM, and pages that are larger.  The
 * lines of the log are explained in guest-memfd-rig.h.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "guest-memfd-launched.h"

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* --- sealing ------------------------------------------------------------- */

/* No contents are promised: a provider that cannot keep them does. */
static void test_seal(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdPart part = part_of(rig, 2, 3);

    expect_populated(rig, &part);
    rig->engine.provider->offer.how[TO_PRIVATE]
        [GUEST_MEMFD_CONTENT_MODE_PRESERVE] = GUEST_MEMFD_REALISATION_REFUSED;
    rig->engine.slice_bytes = page_size();
    g_string_truncate(rig->log, 0);
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &error_abort), ==,
                    0);
    rig_expect_log(rig, "convert a 0+2 to-private default [P]\n"
                        "convert a 5+11 to-private default [P]\n");
    g_assert_cmpuint(rig->slices, ==, 0);
    g_assert_false(guest_memfd_block_in_setup(block));
    expect_pages(rig, PAGES, 0, 0);

    /* Nothing more to do, and the listener sees the guest's requests. */
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &error_abort), ==,
                    0);
    rig_expect_log(rig, "");
    rig->engine.phase = GUEST_MEMFD_PHASE_RUNNING;
    rig->engine.slice_bytes = GUEST_MEMFD_SLICE_BYTES;
    g_assert_cmpint(rig_ask(rig, TO_SHARED, PRESERVE, 3, 2, NULL), ==, 0);
    rig_expect_log(rig, "convert a 3+2 to-shared preserve [P]\n"
                        "populate L0 3+2 [P]\n");
    expect_pages(rig, PAGES - 2, 2, 0);
    end_launched(rig);
}

/* All of it was populated: there is nothing to convert, but to publish. */
static void test_seal_populated(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdPart part = part_of(rig, 0, PAGES);

    expect_populated(rig, &part);
    g_string_truncate(rig->log, 0);
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &error_abort), ==,
                    0);
    rig_expect_log(rig, "");
    g_assert_false(guest_memfd_block_in_setup(rig->blocks[0]));
    end_launched(rig);
}

static void test_seal_fails(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    Error *err = NULL;

    rig->convert_fault = (RigFault) { 0, 1, -EINVAL, 3 };
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &err), ==, -EINVAL);
    g_assert_cmpstr(error_get_pretty(err), ==, "guest memory 'a' cannot be "
                    "made private for the launch: Invalid argument");
    error_free(err);
    g_assert_true(guest_memfd_block_in_setup(rig->blocks[0]));
    rig_expect_state(rig->blocks[0], "S16");
    end_launched(rig);
}

static void expect_blocks_stay(Rig *rig)
{
    g_assert_false(bql_locked());
    g_assert_cmpuint(get_ptr_rcu_reader()->depth, >, 0);
}

/* The thread that frees blocks which were unplugged may have the BQL then. */
static void test_seal_sleeps(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);

    rig->convert_fault = (RigFault) { 0, 1, -EAGAIN, 0 };
    rig->on_sleep = expect_blocks_stay;
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &error_abort), ==,
                    0);
    g_assert_cmpuint(rig->sleeps, ==, 1);
    g_assert_cmpuint(get_ptr_rcu_reader()->depth, ==, 0);
    expect_pages(rig, PAGES, 0, 0);
    end_launched(rig);
}

/* Blocks that start otherwise are left alone. */
static void test_seal_others(void)
{
    Rig *rig = rig_one_block();

    bql_lock();
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &error_abort), ==,
                    0);
    rig_expect_log(rig, "");
    rig_expect_state(rig->blocks[0], "S16");
    end_launched(rig);
}

static void test_run(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    Error *err = NULL;

    /* The guest cannot start. */
    rig->convert_fault = (RigFault) { 0, 1, -EINVAL, 3 };
    g_assert_cmpint(guest_memfd_engine_run(&rig->engine, &err), ==, -EINVAL);
    error_free(err);
    g_assert_cmpint(rig->engine.phase, ==, GUEST_MEMFD_PHASE_SETUP);

    rig->convert_fault = (RigFault) { };
    g_string_truncate(rig->log, 0);
    g_assert_cmpint(guest_memfd_engine_run(&rig->engine, &error_abort), ==,
                    0);
    rig_expect_log(rig, "convert a 0+16 to-private default [P]\n"
                        "phase running\n");
    end_launched(rig);
}

/* A backend that was added later is not the guest's yet: it stays as it is. */
static void test_run_again(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);

    rig->engine.phase = GUEST_MEMFD_PHASE_RUNNING;
    rig->convert_fault = (RigFault) { 0, 1, -EINVAL, 3 };
    g_assert_cmpint(guest_memfd_engine_run(&rig->engine, &error_abort), ==,
                    0);
    rig_expect_log(rig, "");
    g_assert_true(guest_memfd_block_in_setup(rig->blocks[0]));
    rig_expect_state(rig->blocks[0], "S16");
    /* It is plugged in. */
    rig->convert_fault = (RigFault) { };
    g_assert_true(guest_memfd_block_seal_late(rig->blocks[0], &error_abort));
    expect_pages(rig, PAGES, 0, 0);
    end_launched(rig);
}

/* --- phases -------------------------------------------------------------- */

static void test_phases(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);

    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_SETUP);
    rig_expect_log(rig, "");
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_FINAL);
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_POPULATE);
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_FINAL);
    rig_expect_log(rig, "phase final\n");
    g_assert_cmpint(rig->engine.phase, ==, GUEST_MEMFD_PHASE_FINAL);
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_RUNNING);
    rig_expect_log(rig, "phase running\n");
    end_launched(rig);
}

/* The emulated provider stops to preserve when the launch is final. */
static void test_emulated_phases(void)
{
    Rig *rig = in_setup(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    const GuestMemfdRealisation *how =
        rig->engine.provider->offer.how[TO_PRIVATE];
    int phase;

    object_property_set_bool(OBJECT(rig->engine.provider), "preserve-ends",
                             true, &error_abort);
    for (phase = 0; phase < GUEST_MEMFD_PHASE__MAX; phase++) {
        guest_memfd_phase_begin(&rig->engine, phase);
        g_assert_cmpint(how[GUEST_MEMFD_CONTENT_MODE_PRESERVE], ==,
                        phase < GUEST_MEMFD_PHASE_FINAL ?
                        GUEST_MEMFD_REALISATION_EMULATED :
                        GUEST_MEMFD_REALISATION_REFUSED);
    }
    end_launched(rig);
}

/* --- a new VM ------------------------------------------------------------ */

static void test_rebind(void)
{
    Rig *rig = in_setup(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    GuestMemfdBlock *block = rig->blocks[0];
    GuestMemfdPart part = part_of(rig, 2, 3);
    uint8_t *host = block->host;
    uint64_t generation;

    memset(host, 0x5e, PAGES * page_size());
    expect_populated(rig, &part);
    g_assert_cmpint(guest_memfd_engine_seal(&rig->engine, &error_abort), ==,
                    0);
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_RUNNING);
    g_assert_cmpint(rig_ask(rig, TO_SHARED, PRESERVE, 3, 4, NULL), ==, 0);
    generation = block->generation;

    g_assert_cmpint(guest_memfd_engine_rebind(&rig->engine, &error_abort), ==,
                    0);
    rig_check(rig);
    rig_expect_state(block, "S16");
    expect_pages(rig, 0, 0, PAGES);
    g_assert_cmpint(rig->engine.phase, ==, GUEST_MEMFD_PHASE_SETUP);
    g_assert_true(block->host == host);
    g_assert_true(buffer_is_zero(host, PAGES * page_size()));
    g_assert_cmpuint(block->generation, !=, generation);
    /* All writes were to the old VM's memory. */
    part.contents = GUEST_MEMFD_CONTENTS_WRITTEN;
    g_assert_cmpint(populate_part(rig, &part, NULL), ==, -ENODATA);
    part.contents = GUEST_MEMFD_CONTENTS_ZERO;
    expect_populated(rig, &part);
    end_launched(rig);
}

/* A guest that starts shared: its listeners get the new memory. */
static void test_rebind_shared(void)
{
    Rig *rig = rig_one_block();
    int ram_block;

    rig_prepare_private(rig, 4, 4);
    rig->blocks[0]->ram_block = (RAMBlock *)&ram_block;
    bql_lock();
    g_assert_cmpint(guest_memfd_engine_rebind(&rig->engine, &error_abort), ==,
                    0);
    rig_expect_log(rig, "discard L0 0+4 [P]\n"
                        "discard L0 8+8 [P]\n"
                        "rebind a 0+16 [P]\n"
                        "advise\n"
                        "populate L0 0+16 [S]\n"
                        "phase setup\n");
    end_launched(rig);
}

static void expect_rebind_error(Rig *rig, int error, const char *text)
{
    Error *err = NULL;

    g_assert_cmpint(guest_memfd_engine_rebind(&rig->engine, &err), ==, error);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
}

static void test_rebind_fails(void)
{
    Rig *rig = rig_one_block();
    GuestMemfdBlock *block = rig->blocks[0];

    bql_lock();
    g_assert_true(guest_memfd_mapping_add(block, 2 * page_size(), 1));
    expect_rebind_error(rig, -EBUSY, "guest memory 'a' cannot be given to a "
                        "new VM: a device uses offset 0x2000");
    rig_expect_log(rig, "");
    rig_check(rig);
    g_assert_true(guest_memfd_mapping_remove(block, 2 * page_size(), 1));

    rig->listeners[0].gives_up = 0;
    expect_rebind_error(rig, -ENOSPC, "guest memory 'a' cannot be given to a "
                        "new VM: a device cannot unmap it: No space left on "
                        "device");
    rig_expect_state(block, "S16");

    rig->listeners[0].agrees = 0;
    expect_rebind_error(rig, -ENOSPC, "a device cannot use guest memory 'a' "
                        "of the new VM: No space left on device");
    rig_expect_state(block, "P16");

    rig->rebind_fails = true;
    expect_rebind_error(rig, -EIO, "no memory");
    rig->broken = 1;            /* The provider has no such memory. */
    end_launched(rig);
}

static void test_rebind_two_backings(void)
{
    Rig *rig = rig_one_block();
    GuestMemfdProviderClass *pc =
        GUEST_MEMFD_PROVIDER_GET_CLASS(rig->engine.provider);
    typeof(pc->block_rebind) rebind = pc->block_rebind;

    bql_lock();
    pc->block_rebind = NULL;
    expect_rebind_error(rig, -EOPNOTSUPP, "guest memory cannot be given to a "
                        "new VM: it is not converted in place");
    pc->block_rebind = rebind;
    end_launched(rig);
}

/* --- pages that are larger ----------------------------------------------- */

static void test_page_size(void)
{
    Rig *rig = rig_new_simple(PAGES);
    GuestMemfdBlock *block = rig->blocks[0];

    block->page_size = 4 * page_size();
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 2), ==, -EINVAL);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 2, 4), ==, -EINVAL);
    rig_expect_log(rig, "");
    /* A slice has whole pages. */
    rig->engine.slice_bytes = 6 * page_size();
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 12), ==, 0);
    rig_expect_log(rig, "convert a 0+4 to-private preserve [P]\n"
                        "convert a 4+4 to-private preserve [P]\n"
                        "convert a 8+4 to-private preserve [P]\n");
    rig->engine.slice_bytes = page_size();
    g_assert_cmpint(rig_ask(rig, TO_SHARED, PRESERVE, 0, 4, NULL), ==, 0);
    rig_expect_log(rig, "convert a 0+4 to-shared preserve [P]\n");
    rig_free(rig);
}

static void test_page_size_populate(void)
{
    Rig *rig = in_setup(TYPE_RIG_PROVIDER);
    GuestMemfdPart part = part_of(rig, 2, 4);

    rig->blocks[0]->page_size = 4 * page_size();
    g_assert_cmpint(populate_part(rig, &part, NULL), ==, -EINVAL);
    part = part_of(rig, 4, 4);
    expect_populated(rig, &part);
    end_launched(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*test)(void); } tests[] = {
        { "seal", test_seal },
        { "seal/populated", test_seal_populated },
        { "seal/fails", test_seal_fails },
        { "seal/sleeps", test_seal_sleeps },
        { "seal/others", test_seal_others },
        { "run", test_run },
        { "run/again", test_run_again },
        { "phases", test_phases },
        { "phases/emulated", test_emulated_phases },
        { "rebind", test_rebind },
        { "rebind/shared", test_rebind_shared },
        { "rebind/fails", test_rebind_fails },
        { "rebind/two-backings", test_rebind_two_backings },
        { "page-size", test_page_size },
        { "page-size/populate", test_page_size_populate },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/phases/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].test);
    }
    return g_test_run();
}
