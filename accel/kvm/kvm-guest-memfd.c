/*
 * KVM as a provider of guest memory conversions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "system/guest-memfd-ram.h"
#include "system/kvm.h"

#define TYPE_GUEST_MEMFD_PROVIDER_KVM "guest-memfd-provider-kvm"

GuestMemfdProvider *kvm_guest_memfd_provider_new(OnOffAuto in_place,
                                                 Error **errp)
{
    GuestMemfdProvider *provider;

    if (in_place == ON_OFF_AUTO_ON) {
        error_setg(errp, "guest-memfd-manager: in-place=on, but this KVM "
                   "cannot convert memory in place");
        error_append_hint(errp, "Use in-place=auto.\n");
        return NULL;
    }
    provider = GUEST_MEMFD_PROVIDER(object_new(TYPE_GUEST_MEMFD_PROVIDER_KVM));
    provider->type = GUEST_MEMFD_PROVIDER_TYPE_KVM_TWO_BACKINGS;
    provider->reason = g_strdup("KVM does not convert in place");
    return provider;
}

static const TypeInfo kvm_guest_memfd_info = {
    .name = TYPE_GUEST_MEMFD_PROVIDER_KVM,
    .parent = TYPE_GUEST_MEMFD_PROVIDER,
};

static void kvm_guest_memfd_register_types(void)
{
    type_register_static(&kvm_guest_memfd_info);
}

type_init(kvm_guest_memfd_register_types)
