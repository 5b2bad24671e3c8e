/*
 * Memory faults of guests whose memory is converted: the exits of KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/boards.h"
#include "qemu/error-report.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-ram.h"
#include "system/kvm.h"
#include "system/kvm-guest-memfd.h"
#include "kvm-guest-memfd-backings.h"
#include "kvm-guest-memfd-fault.h"
#include "kvm-guest-memfd-kernel.h"
#include "trace.h"
#include <linux/kvm.h>

/* From so many repeats on, the vCPU sleeps in between. */
#define PATIENT_REPEATS     10
#define SLEEP_US            1000

/* A vCPU has a thread of its own. */
typedef struct LastFault {
    hwaddr gpa;
    uint64_t size;
    uint64_t generation;
    unsigned repeats;
    bool valid;
} LastFault;

static __thread LastFault last_fault;

static void compare_with_last(KvmGuestMemfdFault *fault, hwaddr gpa,
                              uint64_t size, uint64_t generation)
{
    LastFault *last = &last_fault;

    fault->again = last->valid && last->gpa == gpa && last->size == size;
    if (fault->again && last->generation == generation) {
        fault->repeats = ++last->repeats;
        return;
    }
    *last = (LastFault) {
        .gpa = gpa,
        .size = size,
        .generation = generation,
        .valid = true,
    };
}

static KvmGuestMemfdFaultAction convert(hwaddr gpa, uint64_t size,
                                        bool private, int *error)
{
    KvmGuestMemfdFaultAction action;

    *error = kvm_guest_memfd_convert(gpa, size, private);
    action = kvm_guest_memfd_fault_converted(*error);
    if (*error && action != KVM_GUEST_MEMFD_FAULT_STOP) {
        warn_report_once("guest memory [0x%" HWADDR_PRIx ", +0x%" PRIx64
                         "), touched as %s, cannot be converted: %s", gpa,
                         size, private ? "private" : "shared",
                         strerror(-*error));
    }
    return action;
}

/* QEMU's caller stops the VM, and shows the registers of this vCPU. */
static int stop(hwaddr gpa, uint64_t size, bool private, int error)
{
    error_report("guest memory [0x%" HWADDR_PRIx ", +0x%" PRIx64 "), touched "
                 "as %s, and the vCPU cannot go on: %s", gpa, size,
                 private ? "private" : "shared", error ? strerror(-error) :
                 "KVM reports the same fault again and again");
    /* After "cont" it may try again. */
    last_fault.valid = false;
    return -1;
}

static int act(CPUState *cpu, hwaddr gpa, uint64_t size, bool private,
               const KvmGuestMemfdFault *fault)
{
    KvmGuestMemfdFaultAction action = kvm_guest_memfd_fault_action(fault);
    int error = fault->record == GUEST_MEMFD_RECORD_NONE ? -EINVAL : 0;

    trace_kvm_guest_memfd_fault(gpa, size, private, fault->record,
                                fault->guest_says, fault->again,
                                fault->repeats, action);
    if (fault->repeats > PATIENT_REPEATS) {
        g_usleep(SLEEP_US);
    }
    if (action == KVM_GUEST_MEMFD_FAULT_CONVERT) {
        action = convert(gpa, size, private, &error);
    } else if (action != KVM_GUEST_MEMFD_FAULT_STOP) {
        stat64_add(&guest_memfd_engine()->unconverted_faults, 1);
    }
    if (action == KVM_GUEST_MEMFD_FAULT_PREFAULT) {
        /* KVM maps it also where it has kept an entry that there is none. */
        kvm_guest_memfd_prefault(cpu, gpa, size);
    }
    return action == KVM_GUEST_MEMFD_FAULT_STOP ?
           stop(gpa, size, private, error) : 0;
}

int kvm_guest_memfd_memory_fault(CPUState *cpu, hwaddr gpa, uint64_t size,
                                 bool private)
{
    KvmGuestMemfdFault fault = { .private = private };
    ConfidentialGuestSupport *cgs = current_machine->cgs;
    uint64_t generation;

    if (!guest_memfd_has_provider()) {
        return kvm_convert_memory(gpa, size, private);
    }
    fault.guest_says =
        !CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(cgs)->access_by_attributes;
    fault.record = guest_memfd_engine_record(guest_memfd_engine(), gpa, size,
                                             &generation);
    generation += kvm_guest_memfd_slots_added();
    compare_with_last(&fault, gpa, size, generation);
    return act(cpu, gpa, size, private, &fault);
}
