/*
 * What a guest gets from KVM's provider, on a KVM made of paper
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

    rig->engine.launched = true;
    return rig;
}

static Rig *new_launched_two_backings(void)
{
    Rig *rig = vm_new_two_backings();

    rig->engine.launched = true;
    return rig;
}

/* --- answers ------------------------------------------------------------ */

/* KVM passes these on for every kind of VM, and no others. */
static void test_answers(void)
{
    static const struct { int error, answer; } cases[] = {
        { EAGAIN, EAGAIN }, { EINTR, EAGAIN }, { ENOMEM, EAGAIN },
        { EINVAL, EINVAL }, { EFAULT, EINVAL }, { EOPNOTSUPP, EINVAL },
        { EIO, EINVAL }, { ENOTTY, EINVAL },
    };
    Rig *rig = new_launched();
    unsigned i;

    rig->engine.retry_timeout_ms = 0;
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        fake.calls = 0;
        fake.faults[0] = (FakeFault) { .count = 1, .error = -cases[i].error };
        g_assert_cmpuint(vm_ask(0, 8, PRIVATE), ==, cases[i].answer);
        rig_expect_state(rig->blocks[0], "S8");
        vm_check(rig);
    }
    vm_free(rig);
}

/* What no kernel has to be asked about. */
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
    g_assert_cmpuint(kvm_guest_memfd_map_gpa_range(0, top, PRIVATE), ==,
                     EINVAL);
    g_assert_cmpuint(kvm_guest_memfd_map_gpa_range(0, top + 1, PRIVATE), ==,
                     EINVAL);
    g_assert_cmpuint(kvm_guest_memfd_map_gpa_range(0, UINT64_MAX, PRIVATE),
                     ==, EINVAL);
    g_assert_cmpuint(kvm_guest_memfd_map_gpa_range(0, top + 2, PRIVATE), ==,
                     EINVAL);
    fake_expect_log("");
    g_assert_cmpuint(fake.calls, ==, 0);
    vm_check(rig);
    vm_free(rig);
}

static void test_busy_page(void)
{
    Rig *rig = new_launched();
    uint64_t error_offset = 0;

    /*
     * Patience: the page is free at the third try.  In between the range is
     * sent back and healed.
     */
    fake.faults[0] = (FakeFault) { .count = 1, .error = -EAGAIN, .at = 2 };
    fake.faults[1] = (FakeFault) { .after = 3, .count = 1, .error = -EAGAIN };
    g_assert_cmpuint(vm_ask(0, 4, PRIVATE), ==, 0);
    g_assert_cmpuint(rig->sleeps, ==, 2);
    rig_expect_state(rig->blocks[0], "P4 S4");
    vm_check(rig);

    /* Whose page it is can be traced. */
    fake.calls = 0;
    g_assert_cmpint(GUEST_MEMFD_PROVIDER_GET_CLASS(rig->engine.provider)->
                    convert(rig->engine.provider, rig->blocks[0],
                            4 * page_size(), 4 * page_size(), TO_PRIVATE,
                            GUEST_MEMFD_CONTENT_MODE_DEFAULT, &error_offset),
                    ==, -EAGAIN);
    g_assert_cmphex(error_offset, ==, 6 * page_size());
    vm_free(rig);
}

/* Where KVM does not say which page it was, nothing is made up. */
static void test_error_offset(void)
{
    static const struct { int error; bool tells; } cases[] = {
        { EAGAIN, true }, { ENOMEM, true }, { EOPNOTSUPP, true },
        { EINTR }, { EINVAL }, { EFAULT }, { EIO }, { ENOTTY },
    };
    Rig *rig = new_launched();
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t error_offset = 0x1234;

        fake.calls = 0;
        fake.faults[0] = (FakeFault) {
            .count = 1, .error = -cases[i].error, .at = 1,
        };
        g_assert_cmpint(GUEST_MEMFD_PROVIDER_GET_CLASS(rig->engine.provider)->
                        convert(rig->engine.provider, rig->blocks[1],
                                2 * page_size(), 2 * page_size(), TO_PRIVATE,
                                GUEST_MEMFD_CONTENT_MODE_DEFAULT,
                                &error_offset), ==, -cases[i].error);
        g_assert_cmphex(error_offset, ==,
                        cases[i].tells ? 3 * page_size() : 0x1234);
    }
    vm_free(rig);
}

/* --- memory faults ------------------------------------------------------ */

static GuestMemfdOrigin fault_origin;

static void note_origin(GuestMemfdEngine *engine, const GuestMemfdFailure *f)
{
    fault_origin = f->req->origin;
}

static int fault(uint64_t gpa, uint64_t pages, bool to_private)
{
    return kvm_guest_memfd_convert(gpa * page_size(), pages * page_size(),
                                   to_private);
}

static void test_fault(void)
{
    Rig *rig = new_launched();

    g_assert_cmpint(fault(4, 8, true), ==, 0);
    rig_expect_state(rig->blocks[0], "S4 P4");
    rig_expect_state(rig->blocks[1], "P4 S4");
    vm_check(rig);
    /* Another vCPU may have had the same fault. */
    fake_expect_log("a: sweep\na: to-private 4+4 preserve\n"
                    "b: sweep\nb: to-private 0+4 preserve\n");
    g_assert_cmpint(fault(4, 8, true), ==, 0);
    fake_expect_log("");
    g_assert_cmpint(fault(4, 4, false), ==, 0);
    fake_expect_log("a: sweep\na: to-shared 4+4 zero\na: heal 4+4\n");
    vm_check(rig);
    vm_free(rig);
}

/*
 * A guest that runs can hang itself only: it faults again.  A launch that
 * fails must be told.
 */
static void test_fault_fails(void)
{
    Rig *rig = new_launched();
    bool launched;
    int i;

    rig->engine.failed = note_origin;
    rig->engine.retry_timeout_ms = 0;
    for (i = 0; i < 2; i++) {
        launched = i;
        rig->engine.launched = launched;
        fake.calls = 0;
        fake.faults[0] = (FakeFault) { .count = 1, .error = -EAGAIN };
        g_assert_cmpint(fault(0, 1, true), ==, launched ? 0 : -EAGAIN);
        g_assert_cmpint(fault_origin, ==,
                        launched ? GUEST_MEMFD_ORIGIN_MEMORY_FAULT :
                                   GUEST_MEMFD_ORIGIN_LAUNCH);
        g_assert_cmpint(fault(100, 1, true), ==, launched ? 0 : -EINVAL);
        rig_expect_state(rig->blocks[0], "S8");
        vm_check(rig);
    }
    vm_free(rig);
}

/* What the launch puts into private memory has to stay there. */
static void test_launch_preserves(void)
{
    Rig *rig = vm_new_in_place(FLAG_ZERO, FLAG_PRESERVE);

    g_assert_cmpint(fault(0, 1, true), ==, 0);
    fake_expect_log("a: sweep\na: to-private 0+1 preserve\n");
    vm_free(rig);

    /* A kernel without content modes keeps them anyway: no flag is sent. */
    rig = vm_new_in_place(0, 0);
    vm_set_page(rig, 0, true, 42);
    g_assert_cmpint(fault(0, 1, true), ==, 0);
    fake_expect_log("a: sweep\na: to-private 0+1 default\n");
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

/* Pages that do not exist read zero, and are not made for that. */
static void test_zero(void)
{
    Rig *rig = vm_new_in_place(0, 0);
    FakeMemory *m = vm_memory(0);
    unsigned page;

    rig->engine.launched = true;
    write_to(rig, 2);
    write_to(rig, 4);
    write_to(rig, 7);
    expect_present(m, "..x.x..x");
    g_assert_cmpuint(vm_ask(0, 7, PRIVATE), ==, 0);
    g_assert_cmpuint(vm_ask(0, 7, 0), ==, 0);
    fake_expect_log("a: sweep\na: to-private 0+7 default\n"
                    "a: sweep\na: to-shared 0+7 default\na: heal 0+7\n");
    expect_present(m, "..x.x..x");
    for (page = 0; page < 7; page++) {
        g_assert_true(vm_reads(page, 0));
    }
    /* Not asked for. */
    g_assert_true(vm_reads(7, 0x5ec2e7));
    vm_free(rig);
}

/* Who cannot tell what is present clears all of it. */
static void test_zero_all(void)
{
    Rig *rig = vm_new_in_place(0, 0);

    rig->engine.launched = true;
    write_to(rig, 2);
    g_assert_cmpuint(vm_ask(0, 4, PRIVATE), ==, 0);
    fake.cannot_tell_present = true;
    g_assert_cmpuint(vm_ask(0, 4, 0), ==, 0);
    expect_present(vm_memory(0), "xxxx....");
    g_assert_true(vm_reads(2, 0));
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

/* --- two backings ------------------------------------------------------- */

/* KVM's idea first, then the copy that nobody sees any more. */
static void test_two_backings(void)
{
    Rig *rig = new_launched_two_backings();

    vm_set_page(rig, 1, true, 42);
    g_assert_cmpuint(vm_ask(1, 2, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 1+2\na: discard shared 1+2\n");
    g_assert_true(vm_reads(1, 0));
    vm_words(1)[0] = 43;
    g_assert_cmpuint(vm_ask(1, 2, 0), ==, 0);
    fake_expect_log("v: to-shared 1+2\na: discard private 1+2\n");
    g_assert_true(vm_reads(1, 0));
    g_assert_cmpuint(vm_ask(7, 2, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 7+1\na: discard shared 7+1\n"
                    "v: to-private 8+1\nb: discard shared 0+1\n");
    vm_check(rig);
    /* There is nothing that could be kept. */
    g_assert_cmpuint(vm_ask(7, 2, KEPT), ==, EINVAL);
    fake_expect_log("");
    vm_check(rig);
    vm_free(rig);
}

/* Huge pages were allocated in advance, and stay. */
static void test_huge_pages(void)
{
    Rig *rig = new_launched_two_backings();

    fake.memories[0].rb.page_size = 2 * MiB;
    g_assert_cmpuint(vm_ask(0, 8, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 0+8\n");
    g_assert_cmpuint(vm_ask(0, 8, 0), ==, 0);
    fake_expect_log("v: to-shared 0+8\na: discard private 0+8\n");
    vm_check(rig);
    vm_free(rig);
}

/* Attributes belong to addresses: all that show the memory change. */
static void test_mapped_twice(void)
{
    Rig *rig = new_launched_two_backings();

    /* Pages 2 to 5 of the first block, once more. */
    rig_map(rig, 100, rig->blocks[0], 2, 4);
    rig->map[2].mr.ram_block = &fake.memories[0].rb;
    g_assert_cmpuint(vm_ask(0, 4, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 0+4\nv: to-private 100+2\n"
                    "a: discard shared 0+4\n");
    g_assert_cmpuint(vm_ask(102, 2, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 4+2\nv: to-private 102+2\n"
                    "a: discard shared 4+2\n");
    /* Pages that are not shown there. */
    g_assert_cmpuint(vm_ask(6, 2, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 6+2\na: discard shared 6+2\n");

    /* The second address fails: the first goes back. */
    fake.calls = 0;
    fake.faults[0] = (FakeFault) { .after = 1, .count = 1, .error = -EIO };
    g_assert_cmpuint(vm_ask(2, 1, 0), ==, EINVAL);
    fake_expect_log("v: to-shared 2+1\nv: to-shared 100+1\n"
                    "v: to-private 2+1\nv: to-private 100+1\n"
                    "a: discard shared 2+1\n");
    vm_check(rig);

    /* The first fails: the second is not even tried. */
    fake.calls = 0;
    fake.faults[0] = (FakeFault) { .count = 1, .error = -EIO };
    g_assert_cmpuint(vm_ask(2, 1, 0), ==, EINVAL);
    fake_expect_log("v: to-shared 2+1\n"
                    "v: to-private 2+1\nv: to-private 100+1\n"
                    "a: discard shared 2+1\n");
    vm_check(rig);
    vm_free(rig);
}

/* Memory that is mapped nowhere, as at a reset, has its other copy only. */
static void test_not_mapped(void)
{
    Rig *rig = new_launched_two_backings();
    const GuestMemfdRequest req = rig_request(TO_PRIVATE, UNSPECIFIED, 0, 8);

    rig->pieces = 0;
    g_assert_cmpint(guest_memfd_engine_convert_block(&rig->engine,
                                                     rig->blocks[0], &req,
                                                     NULL), ==, 0);
    fake_expect_log("a: discard shared 0+8\n");
    rig_expect_state(rig->blocks[0], "P8");
    vm_free(rig);
}

/* --- memslots ----------------------------------------------------------- */

static int slot_added(Rig *rig, hwaddr gpa, uint64_t first, uint64_t pages)
{
    return kvm_guest_memfd_slot_added(&rig->map[0].mr, gpa * page_size(),
                                      first * page_size(),
                                      pages * page_size());
}

/* A new slot is told run by run what its memory is. */
static void test_slot_added(void)
{
    Rig *rig = new_launched_two_backings();

    g_assert_cmpuint(vm_ask(1, 2, PRIVATE), ==, 0);
    g_assert_cmpuint(vm_ask(7, 1, PRIVATE), ==, 0);
    rig_expect_state(rig->blocks[0], "S1 P2 S4 P1");
    g_string_truncate(fake.log, 0);

    g_assert_cmpint(slot_added(rig, 100, 0, 8), ==, 0);
    fake_expect_log("v: to-shared 100+1\nv: to-private 101+2\n"
                    "v: to-shared 103+4\nv: to-private 107+1\n");
    g_assert_cmpint(slot_added(rig, 50, 2, 3), ==, 0);
    fake_expect_log("v: to-private 50+1\nv: to-shared 51+2\n");
    g_assert_cmpint(slot_added(rig, 50, 4, 0), ==, 0);
    fake_expect_log("");
    vm_check(rig);
    vm_free(rig);
}

static void test_slot_added_fails(void)
{
    Rig *rig = new_launched_two_backings();
    unsigned n;

    g_assert_cmpuint(vm_ask(1, 2, PRIVATE), ==, 0);
    for (n = 0; n < 3; n++) {
        fake.calls = 0;
        fake.faults[0] = (FakeFault) {
            .after = n, .count = 1, .error = -ENOMEM,
        };
        g_assert_cmpint(slot_added(rig, 100, 0, 8), ==, -ENOMEM);
        g_assert_cmpuint(fake.calls, ==, n + 1);
    }
    vm_check(rig);
    vm_free(rig);
}

/* In place the state is the memory's, wherever it is mapped. */
static void test_slot_added_in_place(void)
{
    Rig *rig = new_launched();
    RAMBlock rb = { .attributes = rig->blocks[0]->attributes };

    rig->map[0].mr.ram_block = &rb;
    g_assert_cmpint(slot_added(rig, 0, 0, 8), ==, 0);
    fake_expect_log("");
    g_assert_cmpuint(fake.calls, ==, 0);
    vm_free(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*test)(void); } tests[] = {
        { "answers", test_answers },
        { "refused", test_refused },
        { "busy-page", test_busy_page },
        { "error-offset", test_error_offset },
        { "fault/state", test_fault },
        { "fault/fails", test_fault_fails },
        { "fault/launch", test_launch_preserves },
        { "zero/present", test_zero },
        { "zero/all", test_zero_all },
        { "no-memory", test_no_memory },
        { "two-backings/copies", test_two_backings },
        { "two-backings/huge-pages", test_huge_pages },
        { "two-backings/mapped-twice", test_mapped_twice },
        { "two-backings/not-mapped", test_not_mapped },
        { "slot/runs", test_slot_added },
        { "slot/fails", test_slot_added_fails },
        { "slot/in-place", test_slot_added_in_place },
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
