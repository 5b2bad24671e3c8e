/*
 * The probe of KVM, on a fake KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The probing and the choice of a provider, for kernels that keep the
 * contract, claim what they do not do, or do what they do not claim.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/error-internal.h"
#include "guest-memfd-fake-vm.h"

#define BOTH        (FLAG_ZERO | FLAG_PRESERVE)

/* --- the choice --------------------------------------------------------- */

static void expect_error(OnOffAuto in_place, const char *text,
                         const char *remedy)
{
    Error *err = NULL;

    g_assert_null(kvm_guest_memfd_provider_new(in_place, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    g_assert_cmpstr(err->hint->str, ==, remedy);
    error_free(err);
}

#define NEEDS_KERNEL "Use in-place=auto, or a kernel that converts in place " \
                     "(parameter kvm.gmem_in_place_conversion).\n"
#define NEEDS_ATTRIBUTES "Use a kernel with memory attributes.\n"
#define CANNOT_KEEP "guest-memfd-manager: this KVM cannot keep private and " \
                    "shared memory apart: "

static void expect_provider(OnOffAuto in_place, GuestMemfdProviderType type,
                            const char *reason)
{
    GuestMemfdProvider *p = kvm_guest_memfd_provider_new(in_place,
                                                         &error_abort);

    g_assert_cmpint(p->type, ==, type);
    g_assert_cmpstr(p->reason, ==, reason);
    object_unref(OBJECT(p));
}

/* Comes first: nothing was probed in this process yet. */
static void test_not_asked(void)
{
    expect_error(ON_OFF_AUTO_ON, "guest-memfd-manager: in-place=on, but KVM "
                 "has not been probed", NEEDS_KERNEL);
    expect_error(ON_OFF_AUTO_AUTO, CANNOT_KEEP "KVM has not been probed",
                 NEEDS_ATTRIBUTES);
}

/* The remedy is printed also where the error ends QEMU. */
static void test_fatal(void)
{
    if (g_test_subprocess()) {
        kvm_guest_memfd_provider_new(ON_OFF_AUTO_ON, &error_fatal);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*in-place=on, but KVM has not been probed*"
                              "Use in-place=auto, or a kernel*");
}

static void break_nothing(void)
{
}

static void break_no_guest_memfd(void)
{
    fake.no_guest_memfd = true;
}

static void break_no_claims(void)
{
    fake.in_place_cap = fake.modes_cap = 0;
}

static void break_no_modes(void)
{
    fake.content_modes = false;
}

static void break_no_modes_unclaimed(void)
{
    fake.content_modes = false;
    fake.modes_cap = 0;
}

static void break_no_mode_taken(void)
{
    fake.modes[TO_SHARED] = fake.modes[TO_PRIVATE] = 0;
}

static void break_both_modes(void)
{
    fake.lie = LIE_TAKES_BOTH_MODES;
}

static void break_any_flag(void)
{
    fake.content_modes = false;
    fake.lie = LIE_TAKES_ANY_FLAG;
}

static void break_unknown_flag(void)
{
    fake.lie = LIE_TAKES_UNKNOWN_FLAG;
}

static void break_preserve(void)
{
    fake.lie = LIE_FORGETS;
}

static void break_zero(void)
{
    fake.lie = LIE_NOT_CLEARED;
}

static void break_no_init_shared(void)
{
    fake.file_flags = GUEST_MEMFD_FLAG_MMAP;
}

static void break_linux_7_3(void)
{
    fake_two_backings();
}

static void break_linux_7_3_collision(void)
{
    fake_two_backings();
    fake.in_place_cap = 250;
    fake.in_place_value = 1;
}

static void break_create(void)
{
    fake.create_error = -EPERM;
}

static void break_map(void)
{
    fake.cannot_map = true;
}

static void break_ioctl(void)
{
    fake.in_place = false;
}

static void break_ioctl_unclaimed(void)
{
    fake.in_place = false;
    fake.in_place_cap = 0;
}

static void break_vm_type(void)
{
    fake.no_private_memory = true;
}

static void break_one_way(void)
{
    fake.one_way = true;
}

static void break_accessible(void)
{
    fake.lie = LIE_ACCESSIBLE;
}

static void break_stays_private(void)
{
    fake.lie = LIE_STAYS_PRIVATE;
}

/* Why a kernel is not used in place, or not for all that it claims. */
static const struct {
    void (*break_it)(void);
    bool in_place, modes;
    const char *why;
} kernels[] = {
    { break_nothing, true, true,
      "KVM converts in place and takes content modes" },
    { break_no_claims, true, true,
      "KVM converts in place and takes content modes" },
    { break_no_modes, true, false,
      "KVM converts in place; the content modes that it claims do "
      "not work" },
    { break_no_modes_unclaimed, true, false,
      "KVM converts in place and promises no contents" },
    { break_no_mode_taken, true, false,
      "KVM converts in place and promises no contents" },
    { break_both_modes, true, false,
      "KVM converts in place; its content modes do not work" },
    { break_any_flag, true, false,
      "KVM converts in place; its content modes do not work" },
    { break_unknown_flag, true, false,
      "KVM converts in place; its content modes do not work" },
    { break_preserve, true, false,
      "KVM converts in place; its content modes do not work" },
    { break_zero, true, false,
      "KVM converts in place; its content modes do not work" },
    { break_no_guest_memfd, false, false,
      "KVM has no guest_memfd" },
    { break_no_init_shared, false, false,
      "KVM claims in-place conversion, but has no guest_memfd memory "
      "that starts shared" },
    { break_linux_7_3, false, false,
      "KVM does not offer in-place conversion" },
    { break_linux_7_3_collision, false, false,
      "KVM does not offer in-place conversion" },
    { break_create, false, false,
      "KVM cannot create guest_memfd memory that starts shared" },
    { break_map, false, false,
      "KVM cannot map guest_memfd memory that starts shared" },
    { break_ioctl, false, false,
      "KVM claims in-place conversion, but its ioctl does not work" },
    { break_ioctl_unclaimed, false, false,
      "KVM does not offer in-place conversion" },
    { break_vm_type, false, false,
      "KVM claims in-place conversion, but not for this VM" },
    { break_one_way, false, false,
      "KVM has in-place conversion, but cannot convert" },
    { break_accessible, false, false,
      "KVM has in-place conversion, but QEMU can access private "
      "memory" },
    { break_stays_private, false, false,
      "KVM has in-place conversion, but cannot convert" },
};

/* Only then in-place=off is a remedy. */
static void expect_can_be_off(bool can_be_off)
{
    GuestMemfdProvider *provider =
        kvm_guest_memfd_provider_new(ON_OFF_AUTO_AUTO, &error_abort);

    g_assert_cmpint(provider->can_be_off, ==, can_be_off);
    object_unref(OBJECT(provider));
}

static void expect_type(GuestMemfdProviderType type)
{
    GuestMemfdProvider *provider =
        kvm_guest_memfd_provider_new(ON_OFF_AUTO_AUTO, &error_abort);

    g_assert_cmpint(provider->type, ==, type);
    object_unref(OBJECT(provider));
}

static void test_in_place_kernel(unsigned k)
{
    const GuestMemfdProviderType type = kernels[k].modes ?
        GUEST_MEMFD_PROVIDER_TYPE_KVM_CONTENT_MODES :
        GUEST_MEMFD_PROVIDER_TYPE_KVM_IN_PLACE;

    g_assert_true(vm_init(false));
    expect_provider(ON_OFF_AUTO_AUTO, type, kernels[k].why);
    expect_provider(ON_OFF_AUTO_ON, type, kernels[k].why);
    expect_error(ON_OFF_AUTO_OFF, CANNOT_KEEP "it converts in place only",
                 "Use in-place=auto.\n");
    expect_can_be_off(false);
    g_assert_true(vm_init(true));
    expect_can_be_off(true);
    expect_provider(ON_OFF_AUTO_AUTO, type, kernels[k].why);
    expect_provider(ON_OFF_AUTO_OFF,
                    GUEST_MEMFD_PROVIDER_TYPE_KVM_TWO_BACKINGS,
                    "in-place=off");
}

static void test_other_kernel(unsigned k)
{
    g_autofree char *on = g_strconcat("guest-memfd-manager: in-place=on, but ",
                                      kernels[k].why, NULL);
    g_autofree char *cannot = g_strconcat(CANNOT_KEEP, kernels[k].why, NULL);

    g_assert_false(vm_init(false));
    expect_error(ON_OFF_AUTO_ON, on, NEEDS_KERNEL);
    expect_error(ON_OFF_AUTO_AUTO, cannot, NEEDS_ATTRIBUTES);
    expect_error(ON_OFF_AUTO_OFF, cannot, NEEDS_ATTRIBUTES);
    g_assert_false(vm_init(true));
    expect_error(ON_OFF_AUTO_ON, on, NEEDS_KERNEL);
    expect_provider(ON_OFF_AUTO_AUTO,
                    GUEST_MEMFD_PROVIDER_TYPE_KVM_TWO_BACKINGS,
                    kernels[k].why);
    expect_provider(ON_OFF_AUTO_OFF,
                    GUEST_MEMFD_PROVIDER_TYPE_KVM_TWO_BACKINGS,
                    kernels[k].why);
}

static void test_kernels(void)
{
    unsigned k;

    for (k = 0; k < ARRAY_SIZE(kernels); k++) {
        g_test_message("%s", kernels[k].why);
        fake_in_place(BOTH, FLAG_PRESERVE);
        kernels[k].break_it();
        if (kernels[k].in_place) {
            test_in_place_kernel(k);
        } else {
            test_other_kernel(k);
        }
        /* The scratch file is closed whatever came out. */
        g_assert_cmpint(fcntl(fake.scratch, F_GETFD), ==, -1);
        fake_end();
    }
}

/*
 * A host that is short of something at that moment says nothing of its KVM:
 * the choice, which is for good, is not made.
 */
static void test_short(void)
{
    static const int errors[] = { -EMFILE, -ENFILE, -ENOMEM };
    const char *not_known = "guest-memfd-manager: whether memory can be "
        "converted in place is not known: KVM cannot be asked now: too few "
        "file descriptors, or too little memory";
    const char *remedy = "Start QEMU again, with a higher limit of open files "
        "(ulimit -n) if that is used up, or use in-place=off.\n";
    const char *again = "Start QEMU again, with a higher limit of open files "
        "(ulimit -n) if that is used up.\n";
    unsigned i;

    for (i = 0; i < 2 * ARRAY_SIZE(errors); i++) {
        fake_in_place(BOTH, FLAG_PRESERVE);
        *(i & 1 ? &fake.create_error : &fake.scratch_error) = errors[i / 2];
        g_assert_false(vm_init(true));
        expect_error(ON_OFF_AUTO_AUTO, not_known, remedy);
        expect_error(ON_OFF_AUTO_ON, not_known, remedy);
        expect_provider(ON_OFF_AUTO_OFF,
                        GUEST_MEMFD_PROVIDER_TYPE_KVM_TWO_BACKINGS,
                        "KVM cannot be asked now: too few file descriptors, "
                        "or too little memory");
        /* A KVM that has no second backing cannot do without an answer. */
        g_assert_false(vm_init(false));
        expect_error(ON_OFF_AUTO_AUTO, not_known, again);
        g_assert_cmpint(fcntl(fake.scratch, F_GETFD), ==, -1);
        fake_end();
    }
}

/* The number is known, or not, or belongs to another capability. */
static void test_numbers(void)
{
    static const unsigned numbers[] = { 0, 246, 250, 252, 300, 4096 };
    static const int values[] = { -EINVAL, 0, 1, 3, 8, INT_MAX };
    unsigned n, v;

    for (n = 0; n < ARRAY_SIZE(numbers); n++) {
        for (v = 0; v < ARRAY_SIZE(values); v++) {
            fake_in_place(0, 0);
            fake.in_place_cap = numbers[n];
            fake.in_place_value = values[v];
            g_assert_true(vm_init(true));
            expect_provider(ON_OFF_AUTO_AUTO,
                            GUEST_MEMFD_PROVIDER_TYPE_KVM_IN_PLACE,
                            "KVM converts in place and promises no contents");
            fake_two_backings();
            fake.in_place_cap = numbers[n];
            g_assert_false(vm_init(true));
            expect_type(GUEST_MEMFD_PROVIDER_TYPE_KVM_TWO_BACKINGS);
            fake_end();
        }
    }
}

/* Flags of files that QEMU does not know are none of its business. */
static void test_unknown_file_flags(void)
{
    fake_in_place(0, 0);
    fake.file_flags |= 1 << 2 | 1 << 30;
    g_assert_true(vm_init(true));
    expect_type(GUEST_MEMFD_PROVIDER_TYPE_KVM_IN_PLACE);
    fake_end();
}

/* A page is busy for a while, e.g. in a batch of the LRU, or for good. */
static void test_busy(void)
{
    fake_in_place(BOTH, FLAG_PRESERVE);
    fake.scratch_busy = 3;
    g_assert_true(vm_init(true));
    expect_type(GUEST_MEMFD_PROVIDER_TYPE_KVM_CONTENT_MODES);
    fake_end();

    fake_in_place(BOTH, FLAG_PRESERVE);
    fake.scratch_busy = 1000;
    g_assert_false(vm_init(true));
    expect_type(GUEST_MEMFD_PROVIDER_TYPE_KVM_TWO_BACKINGS);
    fake_end();
}

/* Errors that no kernel of today returns. */
static void test_unknown_errors(void)
{
    static const int errors[] = { EPERM, EFAULT, EOVERFLOW, ECANCELED, 4095 };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(errors); i++) {
        fake_in_place(BOTH, FLAG_PRESERVE);
        fake.scratch_error = -errors[i];
        g_assert_false(vm_init(true));
        expect_provider(ON_OFF_AUTO_AUTO,
                        GUEST_MEMFD_PROVIDER_TYPE_KVM_TWO_BACKINGS,
                        "KVM has in-place conversion, but cannot convert");
        fake_end();
    }
}

static void test_launch_from_copy(void)
{
    fake_in_place(BOTH, FLAG_PRESERVE);
    g_assert_false(vm_init_launched_from_copy());
    expect_error(ON_OFF_AUTO_ON, "guest-memfd-manager: in-place=on, but this "
                 "guest's launch needs a second copy of its initial memory",
                 NEEDS_KERNEL);
    expect_provider(ON_OFF_AUTO_AUTO,
                    GUEST_MEMFD_PROVIDER_TYPE_KVM_TWO_BACKINGS,
                    "this guest's launch needs a second copy of its initial "
                    "memory");
    fake_end();
}

/* Other machines are none of our business, and cost no system call. */
static void test_no_guest_memfd(void)
{
    fake_in_place(BOTH, FLAG_PRESERVE);
    g_assert_false(vm_init_without_guest_memfd());
    g_assert_cmpint(fake.scratch, ==, -1);
    fake_end();
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*test)(void); } tests[] = {
        { "not-asked", test_not_asked },
        { "fatal", test_fatal },
        { "kernels", test_kernels },
        { "short", test_short },
        { "numbers", test_numbers },
        { "unknown-file-flags", test_unknown_file_flags },
        { "busy", test_busy },
        { "unknown-errors", test_unknown_errors },
        { "launch-from-copy", test_launch_from_copy },
        { "no-guest-memfd", test_no_guest_memfd },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/kvm-probe/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].test);
    }
    return g_test_run();
}
