/*
 * KVM's choice of a provider of guest memory conversions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_KVM_GUEST_MEMFD_CHOICE_H
#define ACCEL_KVM_KVM_GUEST_MEMFD_CHOICE_H

#include "system/guest-memfd.h"

/*
 * kvm_guest_memfd_provider_new: what this KVM offers
 *
 * Returns NULL with @errp set if @in_place requires more.
 */
GuestMemfdProvider *kvm_guest_memfd_provider_new(OnOffAuto in_place,
                                                 Error **errp);

#endif /* ACCEL_KVM_KVM_GUEST_MEMFD_CHOICE_H */
