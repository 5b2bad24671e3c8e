/*
 * What a KVM offers for converting guest memory in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_KVM_GUEST_MEMFD_PROBE_H
#define ACCEL_KVM_KVM_GUEST_MEMFD_PROBE_H

#include "kvm-guest-memfd-abi.h"
#include "qapi/qapi-types-guest-memfd-common.h"

/* The kernel, or a test's idea of one.  Errors are negative errno values. */
typedef struct KvmGuestMemfdKernel {
    int (*check_extension)(struct KvmGuestMemfdKernel *kernel, unsigned cap);
    /* A guest_memfd of one page. */
    int (*create)(struct KvmGuestMemfdKernel *kernel, uint64_t flags);
    int (*set_attributes)(struct KvmGuestMemfdKernel *kernel, int fd,
                          struct kvm_guest_memfd_attributes *attributes);
    void (*close)(struct KvmGuestMemfdKernel *kernel, int fd);
} KvmGuestMemfdKernel;

/*
 * @in_place: the kernel converts in place.
 * @modes: the flags that it accepts, by direction.  Nothing else may be
 *     sent to it.
 * @why: for people; says what was missing, or did not match.
 */
typedef struct KvmGuestMemfdProbe {
    bool in_place;
    uint64_t modes[GUEST_MEMFD_DIRECTION__MAX];
    const char *why;
} KvmGuestMemfdProbe;

/*
 * kvm_guest_memfd_probe_kernel: ask for capabilities, and confirm them
 *
 * Claims that the ioctl does not confirm are not believed.
 */
KvmGuestMemfdProbe kvm_guest_memfd_probe_kernel(KvmGuestMemfdKernel *kernel);

#endif /* ACCEL_KVM_KVM_GUEST_MEMFD_PROBE_H */
