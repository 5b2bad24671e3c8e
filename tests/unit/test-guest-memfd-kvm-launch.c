/*
 * The launch of a confidential guest in place, on a fake KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The kernel offers to preserve bytes until the platform has ended the
 * launch, and the platform takes private pages only.
 */

#include "qemu/osdep.h"
#include "hw/boards.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "system/guest-memfd-internal.h"
#include "system/guest-memfd-launch.h"
#include "guest-memfd-fake-vm.h"

#define WRITTEN GUEST_MEMFD_CONTENTS_WRITTEN
#define ZEROS   GUEST_MEMFD_CONTENTS_ZERO
#define TYPE    3               /* of pages, for the platform */

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* --- the platform -------------------------------------------------------- */

static int launch_error;        /* of the next part */

static int launch_memory(ConfidentialGuestSupport *cgs, hwaddr gpa,
                         uint64_t size, uint32_t type, Error **errp)
{
    const unsigned first = gpa / page_size(), pages = size / page_size();
    const int error = launch_error;
    unsigned page;

    g_assert_true(cgs == current_machine->cgs);
    g_assert_cmpuint(type, ==, TYPE);
    for (page = first; page < first + pages; page++) {
        g_assert_true(vm_is_private(page));
    }
    fake_note(NULL, "launch %u+%u", first, pages);
    launch_error = 0;
    if (error) {
        error_setg_errno(errp, -error, "the platform refuses");
    }
    return error;
}

static Rig *vm_in_setup(uint64_t to_shared, uint64_t to_private)
{
    fake_in_place(to_shared, to_private);
    vm_guest_says(false);
    vm_guest_class()->launch_memory = launch_memory;
    g_assert_true(vm_init(false));
    vm_guest_class()->memory_starts_shared = false;
    launch_error = 0;
    bql_lock();
    return vm_new(ON_OFF_AUTO_AUTO);
}

static void end(Rig *rig)
{
    bql_unlock();
    vm_free(rig);
}

static int populate(unsigned first, unsigned pages,
                    GuestMemfdContents contents, const void *source,
                    Error **errp)
{
    return guest_memfd_populate(first * page_size(), pages * page_size(),
                                source, contents, TYPE, errp);
}

static void expect_populated(unsigned first, unsigned pages,
                             const void *source)
{
    g_assert_cmpint(populate(first, pages, source ? WRITTEN : ZEROS, source,
                             &error_abort), ==, 0);
}

/* --- from setup to the running guest -------------------------------------- */

/* As SNP does it: no preserving once the launch has ended. */
static void test_content_modes(void)
{
    g_autofree uint8_t *source = g_malloc(page_size());
    Rig *rig = vm_in_setup(FLAG_ZERO, FLAG_PRESERVE);

    memset(source, 0x5a, page_size());
    expect_populated(1, 1, source);
    expect_populated(4, 2, NULL);
    fake_expect_log("a: to-private 1+1 preserve\nv: launch 1+1\n"
                    "a: to-private 4+2 preserve\nv: launch 4+2\n");
    g_assert_true(vm_reads(1, 0x5a5a5a5a5a5a5a5aULL));

    g_assert_cmpint(guest_memfd_seal(&error_abort), ==, 0);
    fake_expect_log("b: to-private 0+8 default\n"
                    "a: to-private 0+8 preserve\n");
    fake.modes[TO_PRIVATE] = 0;
    guest_memfd_finish();
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_RUNNING);
    vm_check(rig);

    g_assert_cmpuint(vm_ask(1, 1, 0), ==, 0);
    g_assert_cmpuint(vm_ask(1, 1, GUEST_MEMFD_ATTR_PRIVATE), ==, 0);
    g_assert_cmpuint(vm_ask(1, 1, GUEST_MEMFD_ATTR_PRIVATE |
                                  GUEST_MEMFD_ATTR_PRESERVE), ==, EINVAL);
    fake_expect_log("a: to-shared 1+1 zero\na: remap 1+1\n"
                    "a: to-private 1+1 default\n");
    end(rig);
}

/* Linux 7.4: no flags, and the bytes stay until the launch has ended. */
static void test_without_modes(void)
{
    g_autofree uint8_t *source = g_malloc0(page_size());
    Rig *rig = vm_in_setup(0, 0);

    expect_populated(1, 1, source);
    g_assert_cmpint(guest_memfd_seal(&error_abort), ==, 0);
    guest_memfd_finish();
    g_assert_cmpint(rig->engine.phase, ==, GUEST_MEMFD_PHASE_FINAL);
    fake_expect_log("a: to-private 1+1 default\nv: launch 1+1\n"
                    "b: to-private 0+8 default\n"
                    "a: to-private 0+8 default\n");
    vm_check(rig);
    end(rig);
}

/* A kernel that may lose the bytes on the way cannot launch in place. */
static void test_cannot_populate(void)
{
    static const struct {
        uint64_t to_private;
        FakeLie lie;
        bool in_place;
    } cases[] = {
        { FLAG_PRESERVE, LIE_NONE, true },
        { FLAG_PRESERVE, LIE_FORGETS, false },
        { 0, LIE_NONE, false },
    };
    unsigned i;

    vm_guest_says(false);
    vm_guest_class()->launch_memory = launch_memory;
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        fake_in_place(FLAG_ZERO | FLAG_PRESERVE, cases[i].to_private);
        fake.lie = cases[i].lie;
        g_assert_cmpint(vm_init(true), ==, cases[i].in_place);
        fake_end();
    }
}

/* A platform that encrypts memory leaves nothing to clear. */
static void test_hidden_bytes(void)
{
    static const struct { bool hides; const char *log; } cases[] = {
        { false, "a: discard 1+1\na: to-shared 1+1 default\na: remap 1+1\n" },
        { true, "a: to-shared 1+1 default\na: remap 1+1\n" },
    };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        Rig *rig;

        vm_hides_private_bytes = cases[i].hides;
        rig = vm_in_setup(0, 0);
        g_assert_cmpint(guest_memfd_seal(&error_abort), ==, 0);
        guest_memfd_finish();
        g_string_truncate(fake.log, 0);
        g_assert_cmpuint(vm_ask(1, 1, 0), ==, 0);
        fake_expect_log(cases[i].log);
        end(rig);
    }
    vm_hides_private_bytes = false;
}

/* Guest-physical memory in two blocks is two units. */
static void test_two_blocks(void)
{
    g_autofree uint8_t *source = g_malloc(4 * page_size());
    Rig *rig = vm_in_setup(0, 0);
    unsigned i;

    for (i = 0; i < 4; i++) {
        memset(source + i * page_size(), i + 1, page_size());
    }
    expect_populated(6, 4, source);
    fake_expect_log("a: to-private 6+2 default\nv: launch 6+2\n"
                    "b: to-private 0+2 default\nv: launch 8+2\n");
    g_assert_true(vm_reads(6, 0x0101010101010101ULL));
    g_assert_true(vm_reads(9, 0x0404040404040404ULL));
    end(rig);
}

/* --- failures ------------------------------------------------------------ */

static void expect_error(int ret, int error, const char *text, Error **err)
{
    g_assert_cmpint(ret, ==, error);
    g_assert_cmpstr(error_get_pretty(*err), ==, text);
    g_clear_pointer(err, error_free);
}

static void test_no_memory(void)
{
    Rig *rig = vm_in_setup(0, 0);
    Error *err = NULL;

    expect_error(populate(VM_PAGES, 1, ZEROS, NULL, &err), -EINVAL,
                 "[0x10000, +0x1000) cannot be populated: no guest memory is "
                 "there", &err);
    expect_error(populate(0, 0, ZEROS, NULL, &err), -EINVAL,
                 "[0x0, +0x0) cannot be populated: no guest memory is there",
                 &err);
    expect_error(populate(VM_PAGES - 1, 2, ZEROS, NULL, &err), -EINVAL,
                 "[0x10000, +0x1000) cannot be populated: no guest memory is "
                 "there", &err);
    fake_expect_log("b: to-private 7+1 default\nv: launch 15+1\n");
    end(rig);
}

/* Shared, read, private, and launched: the order in which KVM corrects. */
static void test_refused(void)
{
    Rig *rig = vm_in_setup(0, 0);
    MemoryRegion *mr = &rig->map[0].mr;
    RAMBlock rb = { .gmem = rig->blocks[0] };
    Error *err = NULL;

    mr->ram_block = &rb;
    vm_words(2)[0] = 0x1234;
    guest_memfd_note_written(rig->blocks[0]->host + 2 * page_size(), 8);
    launch_error = -EIO;
    expect_error(populate(2, 1, WRITTEN, NULL, &err), -EIO,
                 "the platform refuses: Input/output error", &err);
    g_assert_cmphex(*(uint64_t *)(rig->blocks[0]->host + 2 * page_size()), ==,
                    0x1234);
    guest_memfd_note_written(rig->blocks[0]->host + 2 * page_size(), 8);
    g_assert_cmpint(populate(2, 1, WRITTEN, NULL, &error_abort), ==, 0);
    fake_expect_log("a: to-private 2+1 default\nv: launch 2+1\n"
                    "a: to-shared 2+1 default\na: remap 2+1\n"
                    "a: to-private 2+1 default\nv: launch 2+1\n");
    end(rig);
}

/* Memory without a block is nothing to note. */
static void test_note_nothing(void)
{
    Rig *rig = vm_in_setup(0, 0);
    RAMBlock rb = { };

    guest_memfd_note_written(rig->blocks[0]->host, 1);
    rig->map[0].mr.ram_block = &rb;
    guest_memfd_note_written(rig->blocks[0]->host, 1);
    guest_memfd_note_written(&rb, 1);
    g_assert_cmpint(populate(0, 1, WRITTEN, NULL, NULL), ==, -ENODATA);
    end(rig);
}

/* --- a new VM ------------------------------------------------------------ */

static void test_rebind(void)
{
    Rig *rig = vm_in_setup(FLAG_ZERO, FLAG_PRESERVE);
    g_autofree uint8_t *source = g_malloc(page_size());
    int fd = rig->blocks[0]->fd;
    unsigned page;

    memset(source, 0x5a, page_size());
    expect_populated(1, 1, source);
    g_assert_cmpint(guest_memfd_seal(&error_abort), ==, 0);
    fake.modes[TO_PRIVATE] = 0;
    guest_memfd_finish();

    /* The new VM's kernel offers everything again. */
    fake_new_vm();
    fake.modes[TO_PRIVATE] = FLAG_PRESERVE;
    g_assert_cmpint(guest_memfd_engine_rebind(&rig->engine, &error_abort), ==,
                    0);
    g_assert_cmpint(fcntl(fd, F_GETFD), ==, -1);
    vm_check(rig);
    for (page = 0; page < VM_PAGES; page++) {
        g_assert_true(vm_reads(page, 0));
        g_assert_true(vm_is_recorded_shared(rig, page));
    }
    fake_expect_log("a: to-private 1+1 preserve\nv: launch 1+1\n"
                    "b: to-private 0+8 default\n"
                    "a: to-private 0+8 preserve\n");
    expect_populated(1, 1, source);
    fake_expect_log("a: to-private 1+1 preserve\nv: launch 1+1\n");
    end(rig);
}

static void test_rebind_fails(void)
{
    Rig *rig = vm_in_setup(0, 0);
    Error *err = NULL;

    fake_new_vm();
    fake.create_error = -ENOMEM;
    expect_error(guest_memfd_engine_rebind(&rig->engine, &err), -EIO,
                 "no guest_memfd: Cannot allocate memory", &err);
    fake.create_error = 0;
    rig->broken = 1;
    end(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*test)(void); } tests[] = {
        { "content-modes", test_content_modes },
        { "without-modes", test_without_modes },
        { "cannot-populate", test_cannot_populate },
        { "hidden-bytes", test_hidden_bytes },
        { "two-blocks", test_two_blocks },
        { "no-memory", test_no_memory },
        { "refused", test_refused },
        { "note-nothing", test_note_nothing },
        { "rebind", test_rebind },
        { "rebind/fails", test_rebind_fails },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/kvm-launch/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].test);
    }
    return g_test_run();
}
