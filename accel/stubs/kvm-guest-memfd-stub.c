/*
 * No KVM to provide guest memory conversions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "system/guest-memfd-ram.h"

GuestMemfdProvider *kvm_guest_memfd_provider_new(OnOffAuto in_place,
                                                 Error **errp)
{
    g_assert_not_reached();
}
