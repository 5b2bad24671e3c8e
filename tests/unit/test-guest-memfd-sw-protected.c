/*
 * A software-protected guest, on a fake KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/error-internal.h"
#include "qom/object.h"
#include "system/confidential-guest-support.h"
#include "guest-memfd-fake-x86.h"

/* Of the hypercall by which a guest asks for a conversion. */
#define MAP_GPA_RANGE   (1ULL << 12)
/* The one bit, and the type, of such VMs; only the object may name it. */
#define VM_TYPE         1

/* Registers of CPUID, as R_EAX and R_EDX of cpu.h. */
#define FAKE_EAX        0
#define FAKE_EDX        2

static Object *new_guest(OnOffAuto smm)
{
    fake_x86_start(smm);
    return object_new("sw-protected-guest");
}

static int init_guest(Object *guest, Error **errp)
{
    ConfidentialGuestSupport *cgs = CONFIDENTIAL_GUEST_SUPPORT(guest);

    return confidential_guest_kvm_init(cgs, errp);
}

/* There is nothing that would have to happen before it runs. */
static void test_ready(void)
{
    Object *guest = new_guest(ON_OFF_AUTO_AUTO);
    ConfidentialGuestSupport *cgs = CONFIDENTIAL_GUEST_SUPPORT(guest);
    const ConfidentialGuestSupportClass *cgsc =
        CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(cgs);

    g_assert_true(cgsc->converts_in_place);
    g_assert_true(cgsc->has_ordinary_firmware);
    g_assert_true(cgsc->memory_starts_shared);
    g_assert_true(cgsc->reset_shares_memory);
    g_assert_null(cgsc->launch_memory);
    g_assert_true(cgs->require_guest_memfd);
    g_assert_true(cgs->ready);
    object_unref(guest);
}

static void test_init(void)
{
    Object *guest = new_guest(ON_OFF_AUTO_AUTO);

    g_assert_cmpint(fake_x86_vm_type(guest), ==, VM_TYPE);
    g_assert_cmpint(init_guest(guest, &error_abort), ==, 0);
    g_assert_cmphex(fake_x86.hypercalls, ==, MAP_GPA_RANGE);
    /* SMRAM would be a second mapping of the same memory. */
    g_assert_cmpint(fake_x86_smm(), ==, ON_OFF_AUTO_OFF);
    object_unref(guest);
}

static void test_smm(void)
{
    Object *guest = new_guest(ON_OFF_AUTO_ON);
    Error *err = NULL;

    g_assert_cmpint(init_guest(guest, &err), ==, -EINVAL);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "sw-protected-guest does not support smm=on with KVM");
    g_assert_cmpstr(err->hint->str, ==, "Use -machine smm=off.\n");
    error_free(err);
    g_assert_cmpint(fake_x86_smm(), ==, ON_OFF_AUTO_ON);
    object_unref(guest);
}

static void expect_no_debug(Error *err)
{
    g_assert_nonnull(strstr(error_get_pretty(err), "sw-protected-guest does "
                            "not support debug=on with KVM"));
    g_assert_cmpstr(err->hint->str, ==, "Use -accel tcg, or debug=off.\n");
    error_free(err);
}

/* Neither in a VM that has KVM, nor before it is known that it has. */
static void test_debug(void)
{
    Object *guest = new_guest(ON_OFF_AUTO_AUTO);
    ConfidentialGuestSupport *cgs = CONFIDENTIAL_GUEST_SUPPORT(guest);
    Error *err = NULL;

    g_assert_false(object_property_set_bool(guest, "debug", true, &err));
    expect_no_debug(err);
    g_assert_false(cgs->debug);

    err = NULL;
    cgs->debug = true;
    g_assert_cmpint(init_guest(guest, &err), ==, -EINVAL);
    expect_no_debug(err);
    g_assert_cmphex(fake_x86.hypercalls, ==, 0);
    object_unref(guest);
}

/* -machine none has no SMM that could be in the way. */
static void test_no_machine(void)
{
    Object *guest = new_guest(ON_OFF_AUTO_ON);

    fake_x86.no_machine = true;
    g_assert_cmpint(init_guest(guest, &error_abort), ==, 0);
    object_unref(guest);
}

static void test_no_hypercall(void)
{
    Object *guest = new_guest(ON_OFF_AUTO_AUTO);
    Error *err = NULL;

    fake_x86.has_hypercall = false;
    g_assert_cmpint(init_guest(guest, &err), ==, -EOPNOTSUPP);
    g_assert_cmpint(fake_x86_smm(), ==, ON_OFF_AUTO_AUTO);
    g_assert_nonnull(strstr(error_get_pretty(err), "KVM does not pass on the "
                            "guest's conversion requests"));
    error_free(err);
    object_unref(guest);
}

/* KVM leaves the bit of the hypercall to QEMU. */
static void test_hypercall_in_cpuid(void)
{
    Object *guest = new_guest(ON_OFF_AUTO_AUTO);

    g_assert_cmphex(fake_x86_cpuid(guest, 0x40000001, FAKE_EAX, 0x21), ==,
                    0x10021);
    g_assert_cmphex(fake_x86_cpuid(guest, 0x40000001, FAKE_EDX, 0x21), ==,
                    0x21);
    g_assert_cmphex(fake_x86_cpuid(guest, 1, FAKE_EAX, 0x21), ==, 0x21);
    object_unref(guest);
}

/* It is for the caller to end QEMU, or to try another accelerator. */
static void test_no_vm_type(void)
{
    if (g_test_subprocess()) {
        Object *guest = new_guest(ON_OFF_AUTO_AUTO);

        fake_x86.vm_types = ~(uint64_t)(1 << VM_TYPE);
        g_assert_cmpint(fake_x86_vm_type(guest), <, 0);
        object_unref(guest);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("*this KVM has no software-protected VMs*"
                              "CONFIG_KVM_SW_PROTECTED_VM, or -accel tcg*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/guest-memfd/sw-protected/ready", test_ready);
    g_test_add_func("/guest-memfd/sw-protected/init", test_init);
    g_test_add_func("/guest-memfd/sw-protected/smm", test_smm);
    g_test_add_func("/guest-memfd/sw-protected/debug", test_debug);
    g_test_add_func("/guest-memfd/sw-protected/no-machine", test_no_machine);
    g_test_add_func("/guest-memfd/sw-protected/no-hypercall",
                    test_no_hypercall);
    g_test_add_func("/guest-memfd/sw-protected/hypercall-in-cpuid",
                    test_hypercall_in_cpuid);
    g_test_add_func("/guest-memfd/sw-protected/no-vm-type", test_no_vm_type);

    return g_test_run();
}
