/*
 * KVM as a provider of guest memory conversions: two backings
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_KVM_GUEST_MEMFD_BACKINGS_H
#define ACCEL_KVM_KVM_GUEST_MEMFD_BACKINGS_H

#include "system/guest-memfd.h"

/* @why: for people; says why it is not done in place. */
GuestMemfdProvider *kvm_guest_memfd_two_backings_new(const char *why);

/* Number of memslots with guest memory that KVM has got so far. */
uint64_t kvm_guest_memfd_slots_added(void);

#endif /* ACCEL_KVM_KVM_GUEST_MEMFD_BACKINGS_H */
