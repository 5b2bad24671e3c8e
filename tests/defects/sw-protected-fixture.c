/*
 * A software-protected guest for the unchanged QEMU, to show its defects
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Only what a test needs to get a KVM_X86_SW_PROTECTED_VM to run: all
 * conversions, the first to shared included, are done by QEMU's own
 * kvm_convert_memory().
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "hw/i386/x86.h"
#include "qom/object_interfaces.h"
#include "system/address-spaces.h"
#include "system/kvm.h"
#include "system/memory.h"
#include "system/runstate.h"
#include "confidential-guest.h"
#include "kvm/kvm_i386.h"
#include <linux/kvm.h>
#include "standard-headers/asm-x86/kvm_para.h"
#include <linux/kvm_para.h>

#define TYPE_SW_PROTECTED_GUEST "sw-protected-guest"
OBJECT_DECLARE_SIMPLE_TYPE(SwProtectedGuest, SW_PROTECTED_GUEST)

struct SwProtectedGuest {
    X86ConfidentialGuest parent_obj;
    VMChangeStateEntry *first_run;
};

static bool share_range(Int128 start, Int128 len, const MemoryRegion *mr,
                        hwaddr offset_in_region, void *opaque)
{
    if (memory_region_has_guest_memfd((MemoryRegion *)mr) &&
        kvm_convert_memory(int128_get64(start), int128_get64(len), false)) {
        exit(EXIT_FAILURE);
    }
    return false;
}

/* The guest, as QEMU has loaded it, is in the shared half of its memory. */
static void share_all(void *opaque, bool running, RunState state)
{
    SwProtectedGuest *guest = opaque;

    if (running) {
        RCU_READ_LOCK_GUARD();
        flatview_for_each_range(address_space_to_flatview(
                                    &address_space_memory),
                                share_range, NULL);
        qemu_del_vm_change_state_handler(guest->first_run);
    }
}

static int sw_protected_kvm_type(X86ConfidentialGuest *cg)
{
    return KVM_X86_SW_PROTECTED_VM;
}

static int sw_protected_kvm_init(ConfidentialGuestSupport *cgs, Error **errp)
{
    Object *x86 = object_dynamic_cast(qdev_get_machine(), TYPE_X86_MACHINE);

    if (x86) {
        X86_MACHINE(x86)->smm = ON_OFF_AUTO_OFF;
        SW_PROTECTED_GUEST(cgs)->first_run =
            qemu_add_vm_change_state_handler(share_all, cgs);
    }
    if (!kvm_enable_hypercall(BIT_ULL(KVM_HC_MAP_GPA_RANGE))) {
        error_setg(errp, "KVM does not pass on KVM_HC_MAP_GPA_RANGE");
        return -EOPNOTSUPP;
    }
    return 0;
}

static void sw_protected_init(Object *obj)
{
    CONFIDENTIAL_GUEST_SUPPORT(obj)->require_guest_memfd = true;
    CONFIDENTIAL_GUEST_SUPPORT(obj)->ready = true;
}

static void sw_protected_class_init(ObjectClass *oc, const void *data)
{
    X86_CONFIDENTIAL_GUEST_CLASS(oc)->kvm_type = sw_protected_kvm_type;
    CONFIDENTIAL_GUEST_SUPPORT_CLASS(oc)->kvm_init = sw_protected_kvm_init;
}

static const TypeInfo sw_protected_info = {
    .name = TYPE_SW_PROTECTED_GUEST,
    .parent = TYPE_X86_CONFIDENTIAL_GUEST,
    .instance_size = sizeof(SwProtectedGuest),
    .instance_init = sw_protected_init,
    .class_init = sw_protected_class_init,
    .interfaces = (const InterfaceInfo[]) {
        { TYPE_USER_CREATABLE },
        { }
    }
};

static void sw_protected_register_types(void)
{
    type_register_static(&sw_protected_info);
}

type_init(sw_protected_register_types)
