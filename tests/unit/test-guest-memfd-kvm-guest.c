/*
 * Answers of KVM's provider to a guest, on a fake KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/units.h"
#include "guest-memfd-fake-vm.h"

#define PRIVATE     GUEST_MEMFD_ATTR_PRIVATE
#define KEPT        GUEST_MEMFD_ATTR_PRESERVE
#define BOTH        (FLAG_ZERO | FLAG_PRESERVE)

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

static Rig *new_launched(void)
{
    Rig *rig = vm_new_in_place(BOTH, FLAG_PRESERVE);

    rig->engine.phase = GUEST_MEMFD_PHASE_RUNNING;
    return rig;
}

/* --- answers ------------------------------------------------------------ */

static uint64_t expected_answer(int error)
{
    const bool again = error == EAGAIN || error == EINTR ||
                       error == ENOMEM || error == ENOSPC;

    return !error ? 0 : again ? EAGAIN : EINVAL;
}

/*
 * KVM passes 0, EAGAIN and EINVAL on for every kind of VM, and no other
 * numbers, with any error of the kernel, also an unknown one.
 */
static void test_answers(void)
{
    Rig *rig = new_launched();
    int error;

    rig->engine.retry_timeout_ms = 0;
    for (error = 0; error < 4096; error++) {
        fake.calls = 0;
        fake.faults[0] = (FakeFault) { .count = error != 0, .error = -error };
        g_assert_cmpuint(vm_ask(0, 8, error ? PRIVATE : 0), ==,
                         expected_answer(error));
        rig_expect_state(rig->blocks[0], "S8");
        vm_check(rig);
        g_string_truncate(fake.log, 0);
    }
    vm_free(rig);
}

/* Requests that reach no kernel. */
static void test_refused(void)
{
    const uint64_t top = UINT64_MAX / (4 * KiB);
    Rig *rig = new_launched();

    g_assert_cmpuint(vm_ask(0, 0, PRIVATE), ==, EINVAL);
    g_assert_cmpuint(vm_ask(15, 2, PRIVATE), ==, EINVAL);
    g_assert_cmpuint(vm_ask(0, 1, 1 << 7), ==, EINVAL);
    g_assert_cmpuint(vm_ask(0, 1, PRIVATE | GUEST_MEMFD_ATTR_ZERO), ==,
                     EINVAL);
    g_assert_cmpuint(vm_ask(0, 1, KEPT | GUEST_MEMFD_ATTR_ZERO), ==, EINVAL);
    /* Sizes that have no number of bytes; the last would be one page. */
    g_assert_cmpuint(guest_memfd_map_gpa_range(0, top, PRIVATE), ==,
                     EINVAL);
    g_assert_cmpuint(guest_memfd_map_gpa_range(0, top + 1, PRIVATE), ==,
                     EINVAL);
    g_assert_cmpuint(guest_memfd_map_gpa_range(0, UINT64_MAX, PRIVATE),
                     ==, EINVAL);
    g_assert_cmpuint(guest_memfd_map_gpa_range(0, top + 2, PRIVATE), ==,
                     EINVAL);
    fake_expect_log("");
    g_assert_cmpuint(fake.calls, ==, 0);
    vm_check(rig);
    vm_free(rig);
}

static void test_busy_page(void)
{
    Rig *rig = new_launched();

    /*
     * The page is free at the third try.  In between the range is converted
     * back and remapped.
     */
    fake.faults[0] = (FakeFault) { .count = 2, .error = -EAGAIN, .at = 2 };
    fake.faults[1] = (FakeFault) { .after = 4, .count = 1, .error = -EAGAIN };
    g_assert_cmpuint(vm_ask(0, 4, PRIVATE), ==, 0);
    g_assert_cmpuint(rig->sleeps, ==, 2);
    rig_expect_state(rig->blocks[0], "P4 S4");
    vm_check(rig);
    vm_free(rig);
}

/* Converts, past the engine, which never shows it, pages 4 to 7. */
static uint64_t error_offset_of(Rig *rig, const FakeFault *fault)
{
    GuestMemfdProvider *provider = rig->engine.provider;
    uint64_t error_offset = 0x1234;
    int ret;

    fake.calls = 0;
    fake.faults[0] = *fault;
    ret = GUEST_MEMFD_PROVIDER_GET_CLASS(provider)->convert(
              provider, rig->blocks[0], 4 * page_size(), 4 * page_size(),
              TO_PRIVATE, GUEST_MEMFD_CONTENT_MODE_DEFAULT, &error_offset);
    g_assert_cmpint(ret, ==, fault->error);
    return error_offset;
}

/* Where KVM does not say which page it was, nothing is made up. */
static void test_error_offset(void)
{
    static const int tell[] = { EAGAIN, ENOMEM, EOPNOTSUPP };
    static const int do_not[] = { EINTR, EINVAL, EFAULT, EIO, ENOTTY };
    FakeFault fault = { .count = 2, .at = 2 };
    Rig *rig = new_launched();
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(tell); i++) {
        fault.error = -tell[i];
        g_assert_cmphex(error_offset_of(rig, &fault), ==, 6 * page_size());
    }
    for (i = 0; i < ARRAY_SIZE(do_not); i++) {
        fault.error = -do_not[i];
        g_assert_cmphex(error_offset_of(rig, &fault), ==, 0x1234);
    }
    vm_free(rig);
}

/* --- the launch --------------------------------------------------------- */

static int launch(uint64_t gpa, uint64_t pages, bool to_private)
{
    return kvm_guest_memfd_convert(gpa * page_size(), pages * page_size(),
                                   to_private);
}

static void test_launch_fails(void)
{
    Rig *rig = vm_new_in_place(BOTH, FLAG_PRESERVE);

    fake.faults[0] = (FakeFault) { .count = 1, .error = -ENOMEM };
    g_assert_cmpint(launch(0, 1, true), ==, -ENOMEM);
    g_assert_cmpint(launch(100, 1, true), ==, -EINVAL);
    vm_check(rig);
    vm_free(rig);
}

/* Memory that the launch populates is preserved. */
static void test_launch_preserves(void)
{
    Rig *rig = vm_new_in_place(FLAG_ZERO, FLAG_PRESERVE);

    g_assert_cmpint(launch(0, 1, true), ==, 0);
    fake_expect_log("a: to-private 0+1 preserve\n");
    vm_free(rig);

    /* A kernel without content modes keeps them anyway: no flag is sent. */
    rig = vm_new_in_place(0, 0);
    vm_set_page(rig, 0, true, 42);
    g_assert_cmpint(launch(0, 1, true), ==, 0);
    fake_expect_log("a: to-private 0+1 default\n");
    g_assert_true(vm_reads(0, 42));
    vm_free(rig);
}

/* --- zeros -------------------------------------------------------------- */

static void expect_present(const FakeMemory *m, const char *pages)
{
    unsigned page;

    for (page = 0; page < FAKE_PAGES; page++) {
        g_assert_cmpint(fake_is_present(m, page), ==, pages[page] == 'x');
    }
}

static void write_to(Rig *rig, unsigned page)
{
    vm_set_page(rig, page, true, 0x5ec2e7);
}

/*
 * The bytes go while the pages are private; KVM is asked after that, so that
 * no shared page is ever other than zero.
 */
static void test_zero(void)
{
    Rig *rig = vm_new_in_place(0, 0);
    FakeMemory *m = vm_memory(0);
    unsigned page;

    rig->engine.phase = GUEST_MEMFD_PHASE_RUNNING;
    write_to(rig, 2);
    write_to(rig, 4);
    write_to(rig, 7);
    expect_present(m, "..x.x..x");
    g_assert_cmpuint(vm_ask(0, 7, PRIVATE), ==, 0);
    g_assert_cmpuint(vm_ask(0, 7, 0), ==, 0);
    fake_expect_log("a: to-private 0+7 default\n"
                    "a: discard 0+7\n"
                    "a: to-shared 0+7 default\na: remap 0+7\n");
    expect_present(m, ".......x");
    for (page = 0; page < 7; page++) {
        g_assert_true(vm_reads(page, 0));
    }
    /* Not asked for. */
    g_assert_true(vm_reads(7, 0x5ec2e7));
    vm_free(rig);
}

/* A page that cannot be discarded is not shared. */
static void test_zero_fails(void)
{
    Rig *rig = vm_new_in_place(0, 0);

    rig->engine.phase = GUEST_MEMFD_PHASE_RUNNING;
    write_to(rig, 2);
    g_assert_cmpuint(vm_ask(0, 4, PRIVATE), ==, 0);
    fake.discard_error = EIO;
    g_assert_cmpuint(vm_ask(0, 4, 0), ==, EINVAL);
    vm_check(rig);
    g_assert_true(fake_is_private(vm_memory(0), 2));
    g_assert_true(vm_reads(2, 0x5ec2e7));
    vm_free(rig);
}

/* --- memory that cannot be had ------------------------------------------ */

static void expect_no_block(Rig *rig, const char *text)
{
    Error *err = NULL;

    g_assert_null(guest_memfd_block_new(&rig->engine, NULL, "c",
                                        FAKE_PAGES * page_size(), &err));
    g_assert_true(g_str_has_prefix(error_get_pretty(err), text));
    error_free(err);
    g_assert_cmpint(fcntl(fake.memories[0].fd, F_GETFD), ==, -1);
}

static Rig *new_empty(void)
{
    Rig *rig;

    fake_in_place(0, 0);
    g_assert_true(vm_init(false));
    rig = rig_new(TYPE_RIG_PROVIDER);
    object_unref(OBJECT(rig->engine.provider));
    rig->engine.provider = kvm_guest_memfd_provider_new(ON_OFF_AUTO_ON,
                                                        &error_abort);
    fake.memories[0].fd = -1;
    return rig;
}

/* Nothing is left: no block, no file, no mapping. */
static void test_no_memory(void)
{
    Rig *rig = new_empty();

    fake.create_error = -EMFILE;
    expect_no_block(rig, "no guest_memfd");
    fake.create_error = 0;
    fake.cannot_map = true;
    expect_no_block(rig, "cannot map guest memory 'c'");
    vm_free(rig);

    rig = new_empty();
    fake.cannot_guard = true;
    expect_no_block(rig, "too many blocks");
    g_assert_true(QLIST_EMPTY(&rig->engine.blocks));
    vm_free(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*test)(void); } tests[] = {
        { "answers", test_answers },
        { "refused", test_refused },
        { "busy-page", test_busy_page },
        { "error-offset", test_error_offset },
        { "launch/fails", test_launch_fails },
        { "launch/preserves", test_launch_preserves },
        { "zero/order", test_zero },
        { "zero/fails", test_zero_fails },
        { "no-memory", test_no_memory },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/kvm-guest/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].test);
    }
    return g_test_run();
}
