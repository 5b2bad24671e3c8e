/*
 * Host accesses to private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_KVM_GUEST_MEMFD_SIGBUS_H
#define ACCEL_KVM_KVM_GUEST_MEMFD_SIGBUS_H

#include "qapi/error.h"

/*
 * Guard [host, host + size), which is all of @fd.  @dump: it is in core
 * dumps.  BQL held.
 */
bool kvm_guest_memfd_guard(int fd, void *host, uint64_t size, bool dump,
                           Error **errp);
void kvm_guest_memfd_unguard(void *host);

/*
 * kvm_guest_memfd_guard_file: @fd is about to be mapped at @host instead of
 * the file that is guarded, which is returned: no access is without a guard.
 * All of @fd is shared.  BQL held.
 */
int kvm_guest_memfd_guard_file(void *host, int fd);

/*
 * kvm_guest_memfd_remap: pages are shared again: map the memory of those that
 * an access faulted on while they were private.  Others do not change.
 *
 * [host, host + size) is in a guarded block.  Called before the pages can be
 * accessed; they must not be if it fails with a negative errno value.
 */
int kvm_guest_memfd_remap(void *host, uint64_t size);

#endif /* ACCEL_KVM_KVM_GUEST_MEMFD_SIGBUS_H */
