/*
 * The calls of KVM for in-place conversion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_KVM_GUEST_MEMFD_KERNEL_H
#define ACCEL_KVM_KVM_GUEST_MEMFD_KERNEL_H

#include "system/kvm.h"
#include "kvm-guest-memfd-probe.h"
#include "trace.h"

/* Returns 0 or a negative errno value. */
static inline int kvm_guest_memfd_set_attributes(
    int fd, struct kvm_guest_memfd_attributes *attributes)
{
    int ret = kvm_device_ioctl(fd, KVM_GUEST_MEMFD_SET_ATTRIBUTES,
                               attributes);

    trace_kvm_guest_memfd_set_attributes(fd, attributes->offset,
                                         attributes->size,
                                         attributes->attributes,
                                         attributes->flags, ret);
    return ret;
}

/*
 * Have KVM map [gpa, gpa + size), in bytes and page aligned, with as few ioctls
 * as it takes, up to the first page that cannot be.  In the thread of @cpu.
 */
bool kvm_guest_memfd_prefault(CPUState *cpu, hwaddr gpa, uint64_t size);

/* The KVM of this process's VM, to be probed by one thread at a time. */
KvmGuestMemfdKernel *kvm_guest_memfd_kernel(void);

#endif /* ACCEL_KVM_KVM_GUEST_MEMFD_KERNEL_H */
