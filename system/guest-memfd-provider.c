/*
 * Base class of the providers of guest memory conversion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "system/guest-memfd.h"

static void provider_init(Object *obj)
{
    GUEST_MEMFD_PROVIDER(obj)->in_place =
        GUEST_MEMFD_PROVIDER_GET_CLASS(obj)->block_alloc;
}

static void provider_finalize(Object *obj)
{
    g_free(GUEST_MEMFD_PROVIDER(obj)->reason);
}

static const TypeInfo provider_info = {
    .name = TYPE_GUEST_MEMFD_PROVIDER,
    .parent = TYPE_OBJECT,
    .abstract = true,
    .instance_size = sizeof(GuestMemfdProvider),
    .instance_init = provider_init,
    .instance_finalize = provider_finalize,
    .class_size = sizeof(GuestMemfdProviderClass),
};

static void provider_register_types(void)
{
    type_register_static(&provider_info);
}

type_init(provider_register_types)
