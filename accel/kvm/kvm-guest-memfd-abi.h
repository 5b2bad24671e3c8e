/*
 * KVM's in-place conversion of guest_memfd: what QEMU's copy of the kernel's
 * headers does not have yet
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The ioctl and its struct are those of "guest_memfd: In-place conversion
 * support" from RFC v5 to v8, and of Linux 7.4.  The content modes are RFC
 * v5's; in Linux 7.4 flags must be 0.  See kernel/README.md for the
 * reference kernel.
 */

#ifndef ACCEL_KVM_KVM_GUEST_MEMFD_ABI_H
#define ACCEL_KVM_KVM_GUEST_MEMFD_ABI_H

#include <linux/kvm.h>

/* In a file, not in guest-physical memory: offset is in the guest_memfd. */
struct kvm_guest_memfd_attributes {
    uint64_t offset;
    uint64_t size;
    uint64_t attributes;        /* replaces all: 0 is shared */
    uint64_t flags;             /* content mode */
    uint64_t error_offset;      /* out: the page that failed */
    uint64_t reserved[11];
};
QEMU_BUILD_BUG_ON(sizeof(struct kvm_guest_memfd_attributes) != 128);

#define KVM_GUEST_MEMFD_SET_ATTRIBUTES \
    _IOWR(KVMIO, 0xd2, struct kvm_guest_memfd_attributes)

#define KVM_GUEST_MEMFD_FLAG_ZERO       (1ULL << 0)
#define KVM_GUEST_MEMFD_FLAG_PRESERVE   (1ULL << 1)

/*
 * Numbers of capabilities that kernels have used, newest first.  They moved
 * between revisions, other capabilities took some of them, and released
 * kernels have others: a number proves nothing, nor does its absence.  4096
 * and 4097 are the reference kernel's.
 */
#define KVM_GUEST_MEMFD_ATTRIBUTES_CAPS { 4096, 250, 249, 248, 246 }
#define KVM_GUEST_MEMFD_FLAGS_CAPS      { 4097 }

/*
 * Of KVM_CREATE_GUEST_MEMFD, and of KVM_CAP_GUEST_MEMFD_FLAGS: huge pages where
 * possible.  The reference kernel's.
 */
#define KVM_GUEST_MEMFD_ALLOW_HUGEPAGE  (1ULL << 30)

#endif /* ACCEL_KVM_KVM_GUEST_MEMFD_ABI_H */
