/*
 * Base class of the providers of guest memory conversion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "system/guest-memfd.h"

void guest_memfd_provider_set_spans(GuestMemfdProvider *provider,
                                    unsigned pages)
{
    int direction, mode;

    for (direction = 0; direction < GUEST_MEMFD_DIRECTION__MAX; direction++) {
        for (mode = 0; mode < GUEST_MEMFD_CONTENT_MODE__MAX; mode++) {
            provider->spans[direction][mode] = pages;
        }
    }
}

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
