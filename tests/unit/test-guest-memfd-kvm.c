/*
 * KVM as a provider of guest memory conversions, on a fake KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * accel/kvm/kvm-guest-memfd.c as it is.  "make check-kvm" runs it on a
 * real KVM; here the kernel can be of any kind, and fail where it likes.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/error-internal.h"
#include "system/guest-memfd-launch.h"
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

/* --- what is offered ---------------------------------------------------- */

/* "DZP DP": by default, zero, preserve, to shared; the same to private. */
static void expect_offer(const Rig *rig, const char *letters)
{
    const GuestMemfdOffer *offer = &rig->engine.provider->offer;
    g_autoptr(GString) offered = g_string_new(NULL);
    int direction, mode;

    for (direction = 0; direction < GUEST_MEMFD_DIRECTION__MAX; direction++) {
        for (mode = 0; mode < GUEST_MEMFD_CONTENT_MODE__MAX; mode++) {
            g_string_append_c(offered, offer->how[direction][mode] == KERNEL ?
                                    "DZP"[mode] : '-');
            g_assert(offer->how[direction][mode] == KERNEL ||
                     offer->how[direction][mode] == REFUSED);
        }
    }
    g_assert_cmpstr(offered->str, ==, letters);
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
        /* Bytes stay until the launch where KVM does not scramble them. */
        g_assert_cmpint(rig->engine.provider->offer.preserve_until_final,
                        ==, !cases[i].to_shared);
        vm_free(rig);
    }
}

static void test_two_backings_offer(void)
{
    Rig *rig = vm_new_two_backings();

    expect_offer(rig, "DZ-D--");
    g_assert_true(rig->engine.provider->offer.preserve_until_final);
    g_assert_null(class_of(rig)->block_alloc);
    g_assert_null(class_of(rig)->phase_changed);
    vm_free(rig);
}

/* --- huge pages --------------------------------------------------------- */

/* They are asked for where the kernel and the backend both want them. */
static void test_huge_pages(void)
{
    unsigned bits;

    for (bits = 0; bits < 4; bits++) {
        const bool offered = bits & 1, wanted = bits & 2;
        Rig *rig;

        fake_in_place(BOTH, FLAG_PRESERVE);
        fake.file_flags |= offered ? KVM_GUEST_MEMFD_ALLOW_HUGEPAGE : 0;
        fake.small_pages = !wanted;
        g_assert_true(vm_init(true));
        rig = vm_new(ON_OFF_AUTO_AUTO);
        g_assert_cmpint(rig->engine.provider->huge_pages, ==, offered);
        g_assert_cmpint(rig->blocks[0]->huge_pages, ==, offered && wanted);
        g_assert_cmpint(!!(fake.memory_flags & KVM_GUEST_MEMFD_ALLOW_HUGEPAGE),
                        ==, offered && wanted);
        vm_free(rig);
    }
}

static void test_huge_pages_two_backings(void)
{
    Rig *rig;

    fake_in_place(0, 0);
    fake_two_backings();
    fake.file_flags |= KVM_GUEST_MEMFD_ALLOW_HUGEPAGE;
    g_assert_false(vm_init(true));
    rig = vm_new(ON_OFF_AUTO_AUTO);
    g_assert_false(rig->engine.provider->huge_pages);
    g_assert_false(rig->blocks[0]->huge_pages);
    vm_free(rig);
}

/* --- what is sent ------------------------------------------------------- */

static void test_flags(void)
{
    Rig *rig = vm_new_in_place(BOTH, FLAG_PRESERVE);

    rig->engine.phase = GUEST_MEMFD_PHASE_RUNNING;
    g_assert_cmpuint(vm_ask(2, 3, PRIVATE), ==, 0);
    fake_expect_log("a: to-private 2+3 default\n");
    g_assert_cmpuint(vm_ask(2, 3, 0), ==, 0);
    fake_expect_log("a: to-shared 2+3 zero\na: remap 2+3\n");
    g_assert_cmpuint(vm_ask(8, 1, PRIVATE | KEPT), ==, 0);
    fake_expect_log("b: to-private 0+1 preserve\n");
    g_assert_cmpuint(vm_ask(8, 1, KEPT), ==, 0);
    fake_expect_log("b: to-shared 0+1 preserve\nb: remap 0+1\n");
    vm_check(rig);
    vm_free(rig);
}

/* As SNP does: what was possible before the launch is not any more. */
static void test_launched(void)
{
    Rig *rig = vm_new_in_place(FLAG_ZERO, FLAG_PRESERVE);

    expect_offer(rig, "DZ-D-P");
    fake.modes[TO_PRIVATE] = 0;
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_RUNNING);
    expect_offer(rig, "DZ-D--");

    g_assert_cmpuint(vm_ask(0, 1, PRIVATE | KEPT), ==, EINVAL);
    fake_expect_log("");
    g_assert_cmpuint(vm_ask(0, 1, PRIVATE), ==, 0);
    fake_expect_log("a: to-private 0+1 default\n");
    vm_check(rig);
    vm_free(rig);
}

/*
 * A page that is shared already, and has other bytes than those around it: one
 * call converts all, where KVM keeps them and the platform hides none.
 */
static void test_spans(void)
{
    static const struct {
        uint64_t to_shared, to_private;
        bool hides;
        const char *log;
    } cases[] = {
        { 0, 0, false, "a: discard 0+2\na: discard 3+1\n"
                       "a: to-shared 0+4 default\na: remap 0+4\n" },
        { 0, 0, true, "a: to-shared 0+2 default\na: remap 0+2\n"
                      "a: to-shared 3+1 default\na: remap 3+1\n" },
        /* A kernel may zero the page. */
        { BOTH, FLAG_PRESERVE, false,
          "a: to-shared 0+2 zero\na: remap 0+2\n"
          "a: to-shared 3+1 zero\na: remap 3+1\n" },
    };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        Rig *rig;

        vm_hides_private_bytes = cases[i].hides;
        rig = vm_new_in_place(cases[i].to_shared, cases[i].to_private);
        guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_RUNNING);
        g_assert_cmpuint(vm_ask(0, 2, PRIVATE), ==, 0);
        g_assert_cmpuint(vm_ask(3, 1, PRIVATE), ==, 0);
        vm_set_page(rig, 2, true, 42);
        g_string_truncate(fake.log, 0);
        g_assert_cmpuint(vm_ask(0, 4, 0), ==, 0);
        fake_expect_log(cases[i].log);
        g_assert_true(vm_reads(2, 42));
        vm_check(rig);
        vm_free(rig);
    }
    vm_hides_private_bytes = false;
}

/* To preserve is to keep all bytes of the range. */
static void test_spans_preserve(void)
{
    Rig *rig = vm_new_in_place(BOTH, FLAG_PRESERVE);

    rig->engine.content_policy = GUEST_MEMFD_CONTENT_POLICY_PRESERVE;
    g_assert_cmpuint(vm_ask(1, 1, PRIVATE), ==, 0);
    vm_set_page(rig, 1, false, 42);
    g_string_truncate(fake.log, 0);
    g_assert_cmpuint(vm_ask(0, 4, PRIVATE), ==, 0);
    fake_expect_log("a: to-private 0+4 preserve\n");
    g_assert_true(vm_reads(1, 42));
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
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_RUNNING);
    ret = class_of(rig)->convert(rig->engine.provider, rig->blocks[0], 0,
                                 page_size(), TO_PRIVATE, mode,
                                 &error_offset);
    g_assert_cmpint(ret, ==, 0);
    fake_expect_log("a: to-private 0+1 default\n");
    vm_free(rig);
}

/* The launch cannot be stopped any more; what cannot be shown is gone. */
static void test_launched_without_kvm(void)
{
    Rig *rig = vm_new_in_place(BOTH, FLAG_PRESERVE);

    fake.file_flags = 0;
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_RUNNING);
    expect_offer(rig, "D--D--");
    /* The guest's conversions go on, and QEMU clears what is to be zero. */
    g_assert_cmpuint(vm_ask(0, 1, PRIVATE), ==, 0);
    vm_words(0)[0] = 0x5ec2e7;
    g_assert_cmpuint(vm_ask(0, 1, 0), ==, 0);
    g_assert_true(vm_reads(0, 0));
    vm_check(rig);

    vm_free(rig);
}

/* A host that is short of descriptors withdraws nothing; the next phase asks */
static void test_launched_short(void)
{
    static const int errors[] = { -EMFILE, -ENFILE, -ENOMEM };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(errors); i++) {
        Rig *rig = vm_new_in_place(FLAG_ZERO, FLAG_PRESERVE);

        fake.create_error = errors[i];
        guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_FINAL);
        expect_offer(rig, "DZ-D-P");
        fake.create_error = 0;
        fake.modes[TO_PRIVATE] = 0;
        guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_RUNNING);
        expect_offer(rig, "DZ-D--");
        vm_free(rig);
    }
}

/* The guest did not ask for the mode, and does without it. */
static void test_launched_unsure(void)
{
    Rig *rig = vm_new_in_place(FLAG_ZERO, FLAG_PRESERVE);

    fake.create_error = -EMFILE;
    fake.modes[TO_PRIVATE] = 0;
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_RUNNING);
    expect_offer(rig, "DZ-D-P");
    g_assert_cmpuint(vm_ask(1, 1, PRIVATE), ==, 0);
    g_string_truncate(fake.log, 0);
    g_assert_cmpuint(vm_ask(0, 2, PRIVATE), ==, 0);
    fake_expect_log("a: to-private 0+1 preserve\n"
                    "a: to-shared 0+1 default\na: remap 0+1\n"
                    "a: to-private 0+1 default\n");
    expect_offer(rig, "DZ-D--");
    vm_check(rig);
    vm_free(rig);
}

/* Bytes that KVM cannot preserve any more are no reason to stop the VM. */
static void test_launched_unsure_back(void)
{
    Rig *rig = vm_new_in_place(FLAG_ZERO, FLAG_PRESERVE);

    fake.create_error = -EMFILE;
    fake.modes[TO_PRIVATE] = 0;
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_RUNNING);
    g_assert_cmpuint(vm_ask(0, 1, PRIVATE), ==, 0);
    g_string_truncate(fake.log, 0);
    fake.calls = 0;
    fake.faults[0] = (FakeFault) { .count = 1, .error = -EIO };
    g_assert_cmpuint(vm_ask(0, 1, 0), ==, EINVAL);
    g_assert_cmpuint(rig->broken, ==, 0);
    vm_check(rig);
    vm_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/guest-memfd/kvm/huge-pages", test_huge_pages);
    g_test_add_func("/guest-memfd/kvm/huge-pages-two-backings",
                    test_huge_pages_two_backings);
    g_test_add_func("/guest-memfd/kvm/offer", test_offer);
    g_test_add_func("/guest-memfd/kvm/offer/two-backings",
                    test_two_backings_offer);
    g_test_add_func("/guest-memfd/kvm/flags", test_flags);
    g_test_add_func("/guest-memfd/kvm/spans", test_spans);
    g_test_add_func("/guest-memfd/kvm/spans/preserve", test_spans_preserve);
    g_test_add_func("/guest-memfd/kvm/launched", test_launched);
    g_test_add_func("/guest-memfd/kvm/launched/meanwhile",
                    test_launched_meanwhile);
    g_test_add_func("/guest-memfd/kvm/launched/short", test_launched_short);
    g_test_add_func("/guest-memfd/kvm/launched/unsure", test_launched_unsure);
    g_test_add_func("/guest-memfd/kvm/launched/unsure-back",
                    test_launched_unsure_back);
    g_test_add_func("/guest-memfd/kvm/launched/without-kvm",
                    test_launched_without_kvm);

    return g_test_run();
}
