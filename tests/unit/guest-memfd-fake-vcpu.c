/*
 * A vCPU of the VM on the fake of KVM, and what kind of guest it runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/boards.h"
#include "qemu/module.h"
#include "system/confidential-guest-support.h"
#include "system/kvm.h"
#include "guest-memfd-fake-vm.h"

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* --- the guest ------------------------------------------------------------ */

#define TYPE_FAKE_SW_PROTECTED "fake-sw-protected-guest"

static MachineState machine;
MachineState *current_machine = &machine;

void vm_guest_says(bool guest_says)
{
    module_call_init(MODULE_INIT_QOM);
    object_unref(OBJECT(machine.cgs));
    machine.cgs = CONFIDENTIAL_GUEST_SUPPORT(
        object_new(guest_says ? TYPE_CONFIDENTIAL_GUEST_SUPPORT :
                                TYPE_FAKE_SW_PROTECTED));
}

ConfidentialGuestSupportClass *vm_guest_class(void)
{
    return CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(machine.cgs);
}

static void sw_protected_class_init(ObjectClass *oc, const void *data)
{
    CONFIDENTIAL_GUEST_SUPPORT_CLASS(oc)->access_by_attributes = true;
}

/* As QEMU's own, but not abstract: an access says whether it is private. */
static const TypeInfo confidential_guest_types[] = {
    {
        .name = TYPE_CONFIDENTIAL_GUEST_SUPPORT,
        .parent = TYPE_OBJECT,
        .instance_size = sizeof(ConfidentialGuestSupport),
        .class_size = sizeof(ConfidentialGuestSupportClass),
    }, {
        .name = TYPE_FAKE_SW_PROTECTED,
        .parent = TYPE_CONFIDENTIAL_GUEST_SUPPORT,
        .class_init = sw_protected_class_init,
    }
};

DEFINE_TYPES(confidential_guest_types)

/* --- the vCPU ------------------------------------------------------------ */

bool kvm_pre_fault_memory_supported;
unsigned vcpu_prefaults_at_most;
int vcpu_prefault_error;
__thread CPUState *current_cpu;

int kvm_vcpu_ioctl(CPUState *cpu, unsigned long type, ...)
{
    const unsigned step = vcpu_prefaults_at_most ?: UINT_MAX;
    struct kvm_pre_fault_memory *mem;
    uint64_t done;
    va_list ap;

    va_start(ap, type);
    mem = va_arg(ap, struct kvm_pre_fault_memory *);
    va_end(ap);
    g_assert_cmphex(type, ==, KVM_PRE_FAULT_MEMORY);
    /* In its own thread, with nothing held that a conversion needs. */
    g_assert_true(cpu == current_cpu);
    g_assert_false(bql_locked());
    fake_note(NULL, "prefault %u+%u", (unsigned)(mem->gpa / page_size()),
              (unsigned)(mem->size / page_size()));
    if (vcpu_prefault_error) {
        return vcpu_prefault_error;
    }
    done = MIN(mem->size, step * (uint64_t)page_size());
    mem->gpa += done;
    mem->size -= done;
    return 0;
}

/* QEMU's own code, for memory that is not ours to convert. */
int kvm_convert_memory(hwaddr start, hwaddr size, bool to_private)
{
    fake_note(NULL, "upstream");
    return -EINVAL;
}

int vm_fault(uint64_t gpa, uint64_t pages, bool private)
{
    return kvm_guest_memfd_memory_fault(NULL, gpa * page_size(),
                                        pages * page_size(), private);
}

