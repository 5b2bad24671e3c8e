/*
 * QEMU software-protected guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A confidential guest without any hardware behind it, to develop and
 * test guests and VMMs.  It protects nothing from a hostile host.  With
 * KVM it is a KVM_X86_SW_PROTECTED_VM; with TCG and qtest the guest_memfd
 * manager emulates the conversions.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "qom/object_interfaces.h"
#include "system/kvm.h"
#include "confidential-guest.h"
#include "sw-protected-guest.h"
#ifdef CONFIG_KVM
#include <linux/kvm.h>
#include "standard-headers/asm-x86/kvm_para.h"
#include <linux/kvm_para.h>
#include "hw/i386/x86.h"
#include "kvm/kvm_i386.h"
#endif

OBJECT_DECLARE_SIMPLE_TYPE(SwProtectedGuest, SW_PROTECTED_GUEST)

struct SwProtectedGuest {
    X86ConfidentialGuest parent_obj;
};

static void refuse_debug(Error **errp)
{
    ERRP_GUARD();

    error_setg(errp, "sw-protected-guest does not support debug=on with KVM, "
               "which keeps private memory from QEMU");
    error_append_hint(errp, "Use -accel tcg, or debug=off.\n");
}

#ifdef CONFIG_KVM
/* Negative if this KVM has none; another accelerator is tried then. */
static int sw_protected_guest_kvm_type(X86ConfidentialGuest *cg)
{
    int types = kvm_check_extension(KVM_STATE(current_accel()),
                                    KVM_CAP_VM_TYPES);

    if (!(types & (1 << KVM_X86_SW_PROTECTED_VM))) {
        error_report("sw-protected-guest: this KVM has no software-protected "
                     "VMs");
        error_printf("Use a kernel built with CONFIG_KVM_SW_PROTECTED_VM, or "
                     "-accel tcg.\n");
        return -1;
    }
    return KVM_X86_SW_PROTECTED_VM;
}

/* SMRAM would map the same guest_memfd memory twice. */
static bool sw_protected_guest_disable_smm(Error **errp)
{
    ERRP_GUARD();
    Object *machine = object_dynamic_cast(qdev_get_machine(),
                                          TYPE_X86_MACHINE);

    if (!machine) {             /* -machine none */
        return true;
    }
    if (X86_MACHINE(machine)->smm == ON_OFF_AUTO_ON) {
        error_setg(errp, "sw-protected-guest does not support smm=on with "
                   "KVM");
        error_append_hint(errp, "Use -machine smm=off.\n");
        return false;
    }
    X86_MACHINE(machine)->smm = ON_OFF_AUTO_OFF;
    return true;
}

static int sw_protected_guest_kvm_init(ConfidentialGuestSupport *cgs,
                                       Error **errp)
{
    if (cgs->debug) {
        refuse_debug(errp);
        return -EINVAL;
    }
    if (!kvm_enable_hypercall(BIT_ULL(KVM_HC_MAP_GPA_RANGE))) {
        error_setg(errp, "sw-protected-guest: KVM does not pass on the "
                   "guest's conversion requests (KVM_HC_MAP_GPA_RANGE)");
        return -EOPNOTSUPP;
    }
    /* Last: SMM is a problem with KVM only. */
    return sw_protected_guest_disable_smm(errp) ? 0 : -EINVAL;
}

/* KVM leaves the bit to QEMU, which serves the hypercall. */
static uint32_t
sw_protected_guest_adjust_cpuid_features(X86ConfidentialGuest *cg,
                                         uint32_t feature, uint32_t index,
                                         int reg, uint32_t value)
{
    return feature == KVM_CPUID_FEATURES && reg == R_EAX ?
           value | (1u << KVM_FEATURE_HC_MAP_GPA_RANGE) : value;
}

static void sw_protected_guest_cpu_instance_init(X86ConfidentialGuest *cg,
                                                 CPUState *cpu)
{
    if (kvm_enabled()) {
        X86_CPU(cpu)->env.features[FEAT_KVM] |=
            1u << KVM_FEATURE_HC_MAP_GPA_RANGE;
    }
}
#endif

static bool sw_protected_guest_get_debug(Object *obj, Error **errp)
{
    return CONFIDENTIAL_GUEST_SUPPORT(obj)->debug;
}

static void sw_protected_guest_set_debug(Object *obj, bool value, Error **errp)
{
    if (value && kvm_enabled()) {
        refuse_debug(errp);
        return;
    }
    CONFIDENTIAL_GUEST_SUPPORT(obj)->debug = value;
}

static void sw_protected_guest_init(Object *obj)
{
    ConfidentialGuestSupport *cgs = CONFIDENTIAL_GUEST_SUPPORT(obj);

    cgs->require_guest_memfd = true;
    /* Nothing has to happen before the guest may run. */
    cgs->ready = true;
}

static void sw_protected_guest_class_init(ObjectClass *oc, const void *data)
{
    ConfidentialGuestSupportClass *cgsc = CONFIDENTIAL_GUEST_SUPPORT_CLASS(oc);

    cgsc->access_by_attributes = true;
    cgsc->converts_in_place = true;
    cgsc->has_ordinary_firmware = true;
    cgsc->memory_starts_shared = true;
    cgsc->reset_shares_memory = true;
    object_class_property_add_bool(oc, "debug", sw_protected_guest_get_debug,
                                   sw_protected_guest_set_debug);
    object_class_property_set_description(oc, "debug",
        "Let gdb, the monitor and dumps see private memory (TCG only)");
#ifdef CONFIG_KVM
    X86_CONFIDENTIAL_GUEST_CLASS(oc)->kvm_type = sw_protected_guest_kvm_type;
    X86_CONFIDENTIAL_GUEST_CLASS(oc)->adjust_cpuid_features =
        sw_protected_guest_adjust_cpuid_features;
    X86_CONFIDENTIAL_GUEST_CLASS(oc)->cpu_instance_init =
        sw_protected_guest_cpu_instance_init;
    CONFIDENTIAL_GUEST_SUPPORT_CLASS(oc)->kvm_init =
        sw_protected_guest_kvm_init;
#endif
}

static const TypeInfo sw_protected_guest_info = {
    .name = TYPE_SW_PROTECTED_GUEST,
    .parent = TYPE_X86_CONFIDENTIAL_GUEST,
    .instance_size = sizeof(SwProtectedGuest),
    .instance_init = sw_protected_guest_init,
    .class_init = sw_protected_guest_class_init,
    .interfaces = (const InterfaceInfo[]) {
        { TYPE_USER_CREATABLE },
        { }
    }
};

static void sw_protected_guest_register_types(void)
{
    type_register_static(&sw_protected_guest_info);
}

type_init(sw_protected_guest_register_types)
