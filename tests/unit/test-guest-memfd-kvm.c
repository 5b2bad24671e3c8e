/*
 * KVM as a provider of guest memory conversions, on a KVM made of paper
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * accel/kvm/kvm-guest-memfd.c as it is.  "make check-kvm" runs it on a
 * real KVM; here the kernel can be of any kind, and fail where it likes.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/error-internal.h"
#include "guest-memfd-fake-vm.h"

#define PRIVATE     GUEST_MEMFD_ATTR_PRIVATE
#define KEPT        GUEST_MEMFD_ATTR_PRESERVE
#define KERNEL      GUEST_MEMFD_REALISATION_KERNEL
#define REFUSED     GUEST_MEMFD_REALISATION_REFUSED
#define BOTH        (FLAG_ZERO | FLAG_PRESERVE)

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

static GuestMemfdProviderClass *class_of(const Rig *rig)
{
    return GUEST_MEMFD_PROVIDER_GET_CLASS(rig->engine.provider);
}

/* --- what is chosen ----------------------------------------------------- */

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
                 "was not asked", NEEDS_KERNEL);
    expect_error(ON_OFF_AUTO_AUTO, CANNOT_KEEP "KVM was not asked",
                 NEEDS_ATTRIBUTES);
}

/* The remedy is seen also where the error ends QEMU. */
static void test_fatal(void)
{
    if (g_test_subprocess()) {
        kvm_guest_memfd_provider_new(ON_OFF_AUTO_ON, &error_fatal);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*in-place=on, but KVM was not asked*"
                              "Use in-place=auto, or a kernel*");
}

static void break_nothing(void)
{
}

static void break_no_guest_memfd(void)
{
    fake.no_guest_memfd = true;
}

static void break_no_claim(void)
{
    fake.claims_in_place = false;
}

static void break_no_init_shared(void)
{
    fake.file_flags = GUEST_MEMFD_FLAG_MMAP;
}

static void break_flags_cap(void)
{
    fake.file_flags = -EINVAL;
}

static void break_create(void)
{
    fake.create_error = -EMFILE;
}

static void break_ioctl(void)
{
    fake.in_place = false;
}

static void break_vm_type(void)
{
    fake.no_private_memory = true;
}

static void break_one_way(void)
{
    fake.one_way = true;
}

static void break_modes(void)
{
    fake.content_modes = false;
}

static void break_exclusion(void)
{
    fake.takes_both_modes = true;
}

/* Why a kernel is not used in place, or not for all that it claims. */
static const struct {
    void (*break_it)(void);
    bool in_place, modes;
    const char *why;
} kernels[] = {
    { break_nothing, true, true,
      "KVM converts in place and takes content modes" },
    { break_modes, true, false, "KVM converts in place; the content modes "
      "that it claims do not work" },
    { break_exclusion, true, false, "KVM converts in place; the content "
      "modes that it claims do not work" },
    { break_no_guest_memfd, false, false, "KVM has no guest_memfd" },
    { break_no_claim, false, false,
      "KVM does not offer in-place conversion" },
    { break_no_init_shared, false, false,
      "KVM cannot map guest_memfd memory that starts shared" },
    { break_flags_cap, false, false,
      "KVM cannot map guest_memfd memory that starts shared" },
    { break_create, false, false,
      "KVM cannot create guest_memfd memory that starts shared" },
    { break_ioctl, false, false,
      "KVM claims in-place conversion, but its ioctl does not work" },
    { break_vm_type, false, false,
      "KVM claims in-place conversion, but not for this VM" },
    { break_one_way, false, false,
      "KVM claims in-place conversion, but cannot convert" },
};

/* Only then in-place=off is a remedy. */
static void expect_can_be_off(bool can_be_off)
{
    GuestMemfdProvider *provider =
        kvm_guest_memfd_provider_new(ON_OFF_AUTO_AUTO, &error_abort);

    g_assert_cmpint(provider->can_be_off, ==, can_be_off);
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

/* --- what is offered ---------------------------------------------------- */

/* "DZP DP": by default, zero, preserve, to shared; the same to private. */
static void expect_offer(const Rig *rig, const char *letters)
{
    const GuestMemfdOffer *offer = &rig->engine.provider->offer;
    g_autoptr(GString) seen = g_string_new(NULL);
    int direction, mode;

    for (direction = 0; direction < GUEST_MEMFD_DIRECTION__MAX; direction++) {
        for (mode = 0; mode < GUEST_MEMFD_CONTENT_MODE__MAX; mode++) {
            g_string_append_c(seen, offer->how[direction][mode] == KERNEL ?
                                    "DZP"[mode] : '-');
            g_assert(offer->how[direction][mode] == KERNEL ||
                     offer->how[direction][mode] == REFUSED);
        }
    }
    g_assert_cmpstr(seen->str, ==, letters);
}

static void test_offer(void)
{
    static const struct {
        uint64_t to_shared, to_private;
        const char *offer;
    } cases[] = {
        { 0, 0, "D--D--" },
        { FLAG_ZERO, 0, "DZ-D--" },
        { FLAG_ZERO, FLAG_PRESERVE, "DZ-D-P" },
        { BOTH, FLAG_PRESERVE, "DZPD-P" },
        { FLAG_PRESERVE, FLAG_PRESERVE, "D-PD-P" },
    };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        Rig *rig = vm_new_in_place(cases[i].to_shared, cases[i].to_private);

        expect_offer(rig, cases[i].offer);
        /* Bytes stay until the launch where nobody scrambles them. */
        g_assert_cmpint(rig->engine.provider->offer.preserve_before_launch,
                        ==, !cases[i].to_shared);
        vm_free(rig);
    }
}

static void test_two_backings_offer(void)
{
    Rig *rig = vm_new_two_backings();

    expect_offer(rig, "DZ-D--");
    g_assert_true(rig->engine.provider->offer.preserve_before_launch);
    g_assert_null(class_of(rig)->block_alloc);
    g_assert_null(class_of(rig)->launched);
    vm_free(rig);
}

/* --- what is sent ------------------------------------------------------- */

static void test_flags(void)
{
    Rig *rig = vm_new_in_place(BOTH, FLAG_PRESERVE);

    rig->engine.launched = true;
    g_assert_cmpuint(vm_ask(2, 3, PRIVATE), ==, 0);
    fake_expect_log("a: sweep\na: to-private 2+3 default\n");
    g_assert_cmpuint(vm_ask(2, 3, 0), ==, 0);
    fake_expect_log("a: sweep\na: to-shared 2+3 zero\na: heal 2+3\n");
    g_assert_cmpuint(vm_ask(8, 1, PRIVATE | KEPT), ==, 0);
    fake_expect_log("b: sweep\nb: to-private 0+1 preserve\n");
    g_assert_cmpuint(vm_ask(8, 1, KEPT), ==, 0);
    fake_expect_log("b: sweep\nb: to-shared 0+1 preserve\nb: heal 0+1\n");
    vm_check(rig);
    vm_free(rig);
}

/* As SNP does: what was possible before the launch is not any more. */
static void test_launched(void)
{
    Rig *rig = vm_new_in_place(FLAG_ZERO, FLAG_PRESERVE);

    expect_offer(rig, "DZ-D-P");
    fake.modes[TO_PRIVATE] = 0;
    class_of(rig)->launched(rig->engine.provider);
    rig->engine.launched = true;
    expect_offer(rig, "DZ-D--");

    g_assert_cmpuint(vm_ask(0, 1, PRIVATE | KEPT), ==, EINVAL);
    fake_expect_log("");
    g_assert_cmpuint(vm_ask(0, 1, PRIVATE), ==, 0);
    fake_expect_log("a: sweep\na: to-private 0+1 default\n");
    vm_check(rig);
    vm_free(rig);
}

/* Nothing is sent that the last probing did not find. */
static void test_launched_meanwhile(void)
{
    const GuestMemfdContentMode mode = GUEST_MEMFD_CONTENT_MODE_PRESERVE;
    Rig *rig = vm_new_in_place(FLAG_ZERO, FLAG_PRESERVE);
    uint64_t error_offset;
    int ret;

    fake.modes[TO_PRIVATE] = 0;
    class_of(rig)->launched(rig->engine.provider);
    ret = class_of(rig)->convert(rig->engine.provider, rig->blocks[0], 0,
                                 page_size(), TO_PRIVATE, mode,
                                 &error_offset);
    g_assert_cmpint(ret, ==, 0);
    fake_expect_log("a: sweep\na: to-private 0+1 default\n");
    vm_free(rig);
}

/* The launch cannot be stopped any more: the offer stays as it was. */
static void test_launched_without_kvm(void)
{
    Rig *rig = vm_new_in_place(BOTH, FLAG_PRESERVE);

    fake.claims_in_place = false;
    class_of(rig)->launched(rig->engine.provider);
    expect_offer(rig, "DZPD-P");
    vm_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/guest-memfd/kvm/not-asked", test_not_asked);
    g_test_add_func("/guest-memfd/kvm/fatal", test_fatal);
    g_test_add_func("/guest-memfd/kvm/kernels", test_kernels);
    g_test_add_func("/guest-memfd/kvm/launch-from-copy",
                    test_launch_from_copy);
    g_test_add_func("/guest-memfd/kvm/no-guest-memfd", test_no_guest_memfd);
    g_test_add_func("/guest-memfd/kvm/offer", test_offer);
    g_test_add_func("/guest-memfd/kvm/offer/two-backings",
                    test_two_backings_offer);
    g_test_add_func("/guest-memfd/kvm/flags", test_flags);
    g_test_add_func("/guest-memfd/kvm/launched", test_launched);
    g_test_add_func("/guest-memfd/kvm/launched/meanwhile",
                    test_launched_meanwhile);
    g_test_add_func("/guest-memfd/kvm/launched/without-kvm",
                    test_launched_without_kvm);

    return g_test_run();
}
