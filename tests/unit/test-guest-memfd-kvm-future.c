/*
 * Kernels to come, on a fake of KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Behaviour that the kernel's documentation leaves open for later, and
 * behaviour that contradicts it.  QEMU's record is the kernel's, a request is
 * all or nothing, and the guest gets 0, EAGAIN or EINVAL.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "guest-memfd-fake-vm.h"

#define PRIVATE     GUEST_MEMFD_ATTR_PRIVATE
#define SECRET      0x5ec2e7ULL

/* Linux 7.4, but for what the test adds. */
static Rig *new_launched(void)
{
    Rig *rig = vm_new_in_place(0, 0);

    rig->engine.phase = GUEST_MEMFD_PHASE_RUNNING;
    rig->engine.retry_timeout_ms = 0;
    return rig;
}

static uint64_t ask(uint64_t gpa, uint64_t pages, GuestMemfdDirection to)
{
    fake.calls = 0;
    return vm_ask(gpa, pages, to == TO_PRIVATE ? PRIVATE : 0);
}

/* --- partial conversion -------------------------------------------------- */

/* However little it converts at a time, it gets there. */
static void test_steps(void)
{
    static const GuestMemfdDirection directions[] = { TO_PRIVATE, TO_SHARED };
    Rig *rig = new_launched();
    unsigned step, d, first;

    for (step = 1; step <= FAKE_PAGES; step++) {
        fake.step = step;
        for (first = 0; first < 3; first++) {
            for (d = 0; d < 2; d++) {
                /* Both blocks, not from the first page on. */
                g_assert_cmpuint(ask(first, 12, directions[d]), ==, 0);
                vm_check(rig);
                g_assert_cmpint(vm_is_private(first), ==, !d);
                g_assert_cmpint(vm_is_private(first + 11), ==, !d);
                g_assert_false(vm_is_private(first + 12));
            }
        }
    }
    g_assert_cmpuint(rig->sleeps, ==, 0);
    vm_free(rig);
}

/* The mark is where it stopped, and there it stays: a page is in use. */
static void test_stopped_on_the_way(void)
{
    Rig *rig = new_launched();
    unsigned progress;

    for (progress = 0; progress < 6; progress++) {
        vm_set_page(rig, 0, true, SECRET);
        fake.faults[0] = (FakeFault) {
            .count = 2, .error = -EAGAIN, .progress = progress,
            .at = progress,
        };
        g_assert_cmpuint(ask(0, 6, TO_PRIVATE), ==, EAGAIN);
        rig_expect_state(rig->blocks[0], "S8");
        g_assert_true(vm_reads(0, SECRET));
        vm_check(rig);
    }
    vm_free(rig);
}

/* It was free again when QEMU went on. */
static void test_goes_on(void)
{
    Rig *rig = new_launched();

    fake.faults[0] = (FakeFault) {
        .count = 1, .error = -EAGAIN, .progress = 3, .at = 3,
    };
    g_assert_cmpuint(ask(0, 6, TO_PRIVATE), ==, 0);
    rig_expect_state(rig->blocks[0], "P6 S2");
    g_assert_cmpuint(fake.calls, ==, 2);
    vm_check(rig);
    vm_free(rig);
}

/* --- error_offset -------------------------------------------------------- */

static void test_nonsense(void)
{
    const uint64_t page = qemu_real_host_page_size();
    const uint64_t offsets[] = {
        0, 1, page, page + 1, 5 * page - 1, 6 * page, 7 * page, 8 * page,
        1ULL << 63, -page, UINT64_MAX,
    };
    static const int errors[] = { EAGAIN, ENOMEM, EOPNOTSUPP, EINVAL, EIO };
    Rig *rig = new_launched();
    unsigned o, e;

    for (o = 0; o < ARRAY_SIZE(offsets); o++) {
        for (e = 0; e < ARRAY_SIZE(errors); e++) {
            fake.error_offset = &offsets[o];
            fake.faults[0] = (FakeFault) {
                .count = 1, .error = -errors[e], .progress = o % 3,
            };
            /* Only a page further on in the range is a mark. */
            if (errors[e] == EAGAIN && offsets[o] == page) {
                g_assert_cmpuint(ask(0, 6, TO_PRIVATE), ==, 0);
                g_assert_cmpuint(ask(0, 6, TO_SHARED), ==, 0);
                continue;
            }
            g_assert_cmpuint(ask(0, 6, TO_PRIVATE), ==,
                             errors[e] == EAGAIN || errors[e] == ENOMEM ?
                             EAGAIN : EINVAL);
            rig_expect_state(rig->blocks[0], "S8");
            vm_check(rig);
        }
    }
    vm_free(rig);
}

/* A mark that never ends: each page of the range once, and no more. */
static void test_endless(void)
{
    const uint64_t mark = 5 * qemu_real_host_page_size();
    Rig *rig = new_launched();

    fake.error_offset = &mark;
    fake.faults[0] = (FakeFault) { .count = 2, .error = -EAGAIN };
    g_assert_cmpuint(ask(0, 8, TO_PRIVATE), ==, EAGAIN);
    rig_expect_state(rig->blocks[0], "S8");
    vm_check(rig);
    vm_free(rig);
}

/* --- errors that the documentation does not name -------------------------- */

static void test_to_shared_busy(void)
{
    Rig *rig = new_launched();

    g_assert_cmpuint(ask(0, 12, TO_PRIVATE), ==, 0);
    vm_words(2)[0] = SECRET;
    fake.faults[0] = (FakeFault) { .count = 1, .error = -EAGAIN, .at = 4 };
    g_assert_cmpuint(ask(0, 4, TO_SHARED), ==, EAGAIN);
    rig_expect_state(rig->blocks[0], "P8");
    vm_check(rig);
    /* With patience it is only a matter of time. */
    rig->engine.retry_timeout_ms = UINT32_MAX;
    g_assert_cmpuint(ask(0, 4, TO_SHARED), ==, 0);
    rig_expect_state(rig->blocks[0], "S4 P4");
    g_assert_true(vm_reads(2, 0));
    vm_check(rig);
    vm_free(rig);
}

static void test_unknown_errors(void)
{
    static const GuestMemfdDirection directions[] = { TO_PRIVATE, TO_SHARED };
    Rig *rig = new_launched();
    unsigned d, progress;
    int error;

    for (error = 1; error < 4096; error++) {
        for (d = 0; d < 2; d++) {
            const char *before = d ? "P8" : "S8";
            uint64_t answer;

            if (d) {
                g_assert_cmpuint(ask(0, 8, TO_PRIVATE), ==, 0);
            }
            for (progress = 0; progress < 3; progress++) {
                fake.faults[0] = (FakeFault) {
                    .count = 1, .error = -error, .progress = progress,
                };
                answer = ask(1, 6, directions[d]);
                g_assert_cmpuint(answer, ==, error == EAGAIN ||
                                 error == EINTR || error == ENOMEM ||
                                 error == ENOSPC ? EAGAIN : EINVAL);
                rig_expect_state(rig->blocks[0], before);
                vm_check(rig);
            }
            fake.faults[0] = (FakeFault) { };
            g_assert_cmpuint(ask(0, 8, TO_SHARED), ==, 0);
        }
        g_string_truncate(fake.log, 0);
        g_string_truncate(rig->log, 0);
    }
    vm_free(rig);
}

/* The ioctl is gone: no page's state is known, so the VM is stopped. */
static void test_ioctl_gone(void)
{
    Rig *rig = new_launched();

    fake.in_place = false;
    g_assert_cmpuint(ask(0, 1, TO_PRIVATE), ==, EINVAL);
    g_assert_cmpuint(rig->broken, ==, 1);
    /* Pages of unknown state are recorded as private. */
    rig_expect_state(rig->blocks[0], "P1 S7");
    vm_free(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*test)(void); } tests[] = {
        { "partial/steps", test_steps },
        { "partial/stopped", test_stopped_on_the_way },
        { "partial/goes-on", test_goes_on },
        { "error-offset/nonsense", test_nonsense },
        { "error-offset/endless", test_endless },
        { "errors/to-shared-busy", test_to_shared_busy },
        { "errors/unknown", test_unknown_errors },
        { "errors/ioctl-gone", test_ioctl_gone },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/kvm-future/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].test);
    }
    return g_test_run();
}
