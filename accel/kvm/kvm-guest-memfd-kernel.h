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

/* The KVM of this process's VM, to be probed by one thread at a time. */
KvmGuestMemfdKernel *kvm_guest_memfd_kernel(void);

#endif /* ACCEL_KVM_KVM_GUEST_MEMFD_KERNEL_H */
