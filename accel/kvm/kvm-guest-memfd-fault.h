/*
 * Memory faults of guests whose memory is converted: the decision
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_KVM_GUEST_MEMFD_FAULT_H
#define ACCEL_KVM_KVM_GUEST_MEMFD_FAULT_H

#include "system/guest-memfd.h"

/*
 * A vCPU that faults on the same page so often, while nothing that could
 * explain it has changed, will not get any further.
 */
#define KVM_GUEST_MEMFD_FAULT_REPEATS   1000

typedef enum KvmGuestMemfdFaultAction {
    KVM_GUEST_MEMFD_FAULT_REENTER,
    KVM_GUEST_MEMFD_FAULT_CONVERT,
    KVM_GUEST_MEMFD_FAULT_PREFAULT,     /* and re-enter */
    KVM_GUEST_MEMFD_FAULT_STOP,
    KVM_GUEST_MEMFD_FAULT_ACTION__MAX,
} KvmGuestMemfdFaultAction;

/*
 * @record: what QEMU has recorded of the memory, with its lock held.
 * @private: the access that KVM could not complete was a private one.
 * @guest_says: the access itself says so, and not KVM's attributes.
 * @again: the last fault of this vCPU was there, too.
 * @repeats: how often in a row it was, while neither the state of that
 *     memory nor a memslot has changed.
 */
typedef struct KvmGuestMemfdFault {
    GuestMemfdRecord record;
    bool private;
    bool guest_says;
    bool again;
    unsigned repeats;
} KvmGuestMemfdFault;

/* Pure: depends on nothing but its argument. */
KvmGuestMemfdFaultAction
kvm_guest_memfd_fault_action(const KvmGuestMemfdFault *fault);

/*
 * The next step after a conversion that was the guest's request and ended
 * with @error, a negative errno value or 0: re-enter or stop.
 */
KvmGuestMemfdFaultAction kvm_guest_memfd_fault_converted(int error);

#endif /* ACCEL_KVM_KVM_GUEST_MEMFD_FAULT_H */
