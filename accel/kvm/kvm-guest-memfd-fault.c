/*
 * Memory faults of guests whose memory is converted: the decision
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * KVM_EXIT_MEMORY_FAULT says that an access was private and the memory is
 * shared, or the other way round.  Where the access itself says what it is
 * (the C-bit of SEV-SNP, the shared bit of TDX), the guest asks for a
 * conversion.  Otherwise KVM took it from its own attributes, and such an
 * exit means that they have changed meanwhile, or that a memslot came back;
 * then the record is right, and the vCPU only has to try again.
 */

#include "qemu/osdep.h"
#include "system/guest-memfd-ram.h"
#include "kvm-guest-memfd-fault.h"

#define REENTER     KVM_GUEST_MEMFD_FAULT_REENTER
#define CONVERT     KVM_GUEST_MEMFD_FAULT_CONVERT
#define PREFAULT    KVM_GUEST_MEMFD_FAULT_PREFAULT
#define STOP        KVM_GUEST_MEMFD_FAULT_STOP

#define NONE        GUEST_MEMFD_RECORD_NONE
#define SHARED      GUEST_MEMFD_RECORD_SHARED
#define PRIVATE     GUEST_MEMFD_RECORD_PRIVATE
#define MIXED       GUEST_MEMFD_RECORD_MIXED

/* The last row of docs/devel's table, a repeat too often, is not here. */
static const struct {
    KvmGuestMemfdFaultAction first, again;
} actions[2][GUEST_MEMFD_RECORD__MAX][2] = {
    /* The access cannot say it; [private] is what KVM took it for. */
    [false] = {
        [NONE] =    { { REENTER, PREFAULT }, { REENTER, PREFAULT } },
        [SHARED] =  { { REENTER, PREFAULT }, { REENTER, PREFAULT } },
        [PRIVATE] = { { REENTER, PREFAULT }, { REENTER, PREFAULT } },
        [MIXED] =   { { REENTER, PREFAULT }, { REENTER, PREFAULT } },
    },
    /* The guest says it; right already: another vCPU was faster. */
    [true] = {
        [NONE] =    { { REENTER, PREFAULT }, { STOP, STOP } },
        [SHARED] =  { { REENTER, PREFAULT }, { CONVERT, CONVERT } },
        [PRIVATE] = { { CONVERT, CONVERT },  { REENTER, PREFAULT } },
        [MIXED] =   { { CONVERT, CONVERT },  { CONVERT, CONVERT } },
    },
};

KvmGuestMemfdFaultAction
kvm_guest_memfd_fault_action(const KvmGuestMemfdFault *fault)
{
    if (fault->repeats >= KVM_GUEST_MEMFD_FAULT_REPEATS) {
        return STOP;
    }
    return fault->again ?
        actions[fault->guest_says][fault->record][fault->private].again :
        actions[fault->guest_says][fault->record][fault->private].first;
}

KvmGuestMemfdFaultAction kvm_guest_memfd_fault_converted(int error)
{
    return !error || guest_memfd_answer(error) == EAGAIN ? REENTER : STOP;
}
