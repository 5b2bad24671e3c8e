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
#ifdef CONFIG_KVM
#include <linux/kvm.h>
#endif

#define TYPE_SW_PROTECTED_GUEST "sw-protected-guest"
OBJECT_DECLARE_SIMPLE_TYPE(SwProtectedGuest, SW_PROTECTED_GUEST)

struct SwProtectedGuest {
    X86ConfidentialGuest parent_obj;
};

#ifdef CONFIG_KVM
static int sw_protected_guest_kvm_type(X86ConfidentialGuest *cg)
{
    int types = kvm_check_extension(kvm_state, KVM_CAP_VM_TYPES);

    if (!(types & (1 << KVM_X86_SW_PROTECTED_VM))) {
        error_report("sw-protected-guest: this KVM has no software-protected "
                     "VMs");
        error_printf("Use a kernel built with CONFIG_KVM_SW_PROTECTED_VM, or "
                     "-accel tcg.\n");
        exit(EXIT_FAILURE);
    }
    return KVM_X86_SW_PROTECTED_VM;
}
#endif

static void sw_protected_guest_init(Object *obj)
{
    ConfidentialGuestSupport *cgs = CONFIDENTIAL_GUEST_SUPPORT(obj);

    cgs->require_guest_memfd = true;
    /* Nothing has to happen before the guest may run. */
    cgs->ready = true;
}

static void sw_protected_guest_class_init(ObjectClass *oc, const void *data)
{
#ifdef CONFIG_KVM
    X86_CONFIDENTIAL_GUEST_CLASS(oc)->kvm_type = sw_protected_guest_kvm_type;
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
