/*
 * Host accesses to private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_KVM_GUEST_MEMFD_SIGBUS_H
#define ACCEL_KVM_KVM_GUEST_MEMFD_SIGBUS_H

#include "qapi/error.h"

/* Guard [host, host + size).  BQL held. */
bool kvm_guest_memfd_guard(void *host, uint64_t size, Error **errp);
void kvm_guest_memfd_unguard(void *host);

/*
 * kvm_guest_memfd_heal: pages are shared again: if an access hit one while
 * it was private, put the memory of @fd back in its place.
 *
 * @host is where @offset of @fd is mapped.  Called when the guest cannot
 * use the pages yet.
 */
void kvm_guest_memfd_heal(int fd, void *host, uint64_t offset, uint64_t size);

#endif /* ACCEL_KVM_KVM_GUEST_MEMFD_SIGBUS_H */
