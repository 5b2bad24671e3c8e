/*
 * The offer of a KVM for converting guest memory in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_KVM_GUEST_MEMFD_PROBE_H
#define ACCEL_KVM_KVM_GUEST_MEMFD_PROBE_H

#include "kvm-guest-memfd-abi.h"
#include "qapi/qapi-types-guest-memfd-common.h"

/*
 * The kernel, or a test's fake of one.  Errors are negative errno values.
 *
 * @create: a guest_memfd of one page.
 * @map: map the whole file, for @read and @write, until @close.
 * @read, @write: copy one page out of, or into, the mapping.  -EFAULT where
 *     the memory cannot be accessed; never a signal.
 */
typedef struct KvmGuestMemfdKernel {
    int (*check_extension)(struct KvmGuestMemfdKernel *kernel, unsigned cap);
    int (*create)(struct KvmGuestMemfdKernel *kernel, uint64_t flags);
    int (*map)(struct KvmGuestMemfdKernel *kernel, int fd);
    int (*set_attributes)(struct KvmGuestMemfdKernel *kernel, int fd,
                          struct kvm_guest_memfd_attributes *attributes);
    int (*read)(struct KvmGuestMemfdKernel *kernel, void *page);
    int (*write)(struct KvmGuestMemfdKernel *kernel, const void *page);
    void (*close)(struct KvmGuestMemfdKernel *kernel, int fd);
} KvmGuestMemfdKernel;

/*
 * @in_place: the kernel converts in place.
 * @modes: the flags that it accepts, by direction.  Nothing else may be
 *     sent to it.
 * @huge_pages: a guest_memfd may ask for them.
 * @keeps_bytes: without flags, bytes were the same after both directions.
 * @unknown: the host was short of file descriptors or memory: nothing else is
 *     set, and KVM has to be asked again.
 * @why: for people; says what was missing, or did not match.
 */
typedef struct KvmGuestMemfdProbe {
    bool in_place;
    uint64_t modes[GUEST_MEMFD_DIRECTION__MAX];
    bool huge_pages;
    bool keeps_bytes;
    bool unknown;
    const char *why;
} KvmGuestMemfdProbe;

/*
 * kvm_guest_memfd_probe_kernel: convert a scratch page and read it
 *
 * The page decides, not the capabilities; they make @why say more.
 */
KvmGuestMemfdProbe kvm_guest_memfd_probe_kernel(KvmGuestMemfdKernel *kernel);

#endif /* ACCEL_KVM_KVM_GUEST_MEMFD_PROBE_H */
