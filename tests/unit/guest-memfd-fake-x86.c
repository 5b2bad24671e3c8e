/*
 * A fake of KVM and an x86 machine, for sw-protected-guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/accel.h"
#include "qemu/module.h"
#include "hw/i386/x86.h"
#include "hw/qdev-core.h"
#include "system/kvm.h"
#include "system/system.h"
#include "target/i386/confidential-guest.h"
#include "target/i386/kvm/kvm_i386.h"
#include "guest-memfd-fake-x86.h"

FakeX86 fake_x86;
bool kvm_allowed = true;
MachineState *current_machine;

static X86MachineState machine;

AccelState *current_accel(void)
{
    return NULL;
}

int kvm_check_extension(KVMState *s, unsigned extension)
{
    g_assert_cmpuint(extension, ==, KVM_CAP_VM_TYPES);
    return fake_x86.vm_types;
}

bool kvm_enable_hypercall(uint64_t enable_mask)
{
    fake_x86.hypercalls |= enable_mask;
    return fake_x86.has_hypercall;
}

Object *qdev_get_machine(void)
{
    return fake_x86.no_machine ? object_get_root() : OBJECT(&machine);
}

/* Only guests with an ID, which user_creatable_complete() makes, need them. */
void qemu_add_machine_init_done_notifier(Notifier *notify)
{
    g_assert_not_reached();
}

void qemu_remove_machine_init_done_notifier(Notifier *notify)
{
    g_assert_not_reached();
}

void fake_x86_start(OnOffAuto smm)
{
    fake_x86 = (FakeX86) { .vm_types = -1, .has_hypercall = true };
    module_call_init(MODULE_INIT_QOM);
    object_initialize(&machine, sizeof(machine), TYPE_X86_MACHINE);
    machine.smm = smm;
}

OnOffAuto fake_x86_smm(void)
{
    return machine.smm;
}

int fake_x86_vm_type(Object *cgs)
{
    X86ConfidentialGuestClass *cc = X86_CONFIDENTIAL_GUEST_GET_CLASS(cgs);

    return cc->kvm_type(X86_CONFIDENTIAL_GUEST(cgs));
}

uint32_t fake_x86_cpuid(Object *cgs, uint32_t leaf, int reg, uint32_t value)
{
    return x86_confidential_guest_adjust_cpuid_features(
        X86_CONFIDENTIAL_GUEST(cgs), leaf, 0, reg, value);
}

/* The machine without what a machine is. */
static const TypeInfo fake_machine_info = {
    .name = TYPE_X86_MACHINE,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(X86MachineState),
    .class_size = sizeof(X86MachineClass),
};

static void fake_machine_register_types(void)
{
    type_register_static(&fake_machine_info);
}

type_init(fake_machine_register_types)
