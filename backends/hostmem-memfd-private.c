/*
 * QEMU host memory backend for memory that is converted in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The memory itself comes from the provider of the guest_memfd manager.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/module.h"
#include "qom/object_interfaces.h"
#include "system/guest-memfd-ram.h"
#include "system/hostmem.h"
#include "system/ramblock.h"

OBJECT_DECLARE_SIMPLE_TYPE(HostMemoryBackendMemfdPrivate,
                           MEMORY_BACKEND_MEMFD_PRIVATE)

struct HostMemoryBackendMemfdPrivate {
    HostMemoryBackend parent_obj;

    GuestMemfdContentPolicy content_mode;
    OnOffAuto huge_pages;
};

bool guest_memfd_wants_huge_pages(const RAMBlock *rb)
{
    Object *owner = rb && rb->mr ? memory_region_owner(rb->mr) : NULL;

    return !object_dynamic_cast(owner, TYPE_MEMORY_BACKEND_MEMFD_PRIVATE) ||
           MEMORY_BACKEND_MEMFD_PRIVATE(owner)->huge_pages != ON_OFF_AUTO_OFF;
}

static bool check_huge_pages(Error **errp)
{
    ERRP_GUARD();
    GuestMemfdEngine *engine = guest_memfd_engine_for_ram(errp);

    if (!engine) {
        return false;
    }
    if (!engine->provider || !engine->provider->huge_pages) {
        error_setg(errp, "'huge-pages=on' is not supported by %s: %s",
                   TYPE_MEMORY_BACKEND_MEMFD_PRIVATE,
                   engine->provider && engine->provider->in_place ?
                   "this provider does not offer them" :
                   "memory is not converted in place");
        error_append_hint(errp, "Use huge-pages=auto, or -accel kvm on a "
                          "kernel that offers them (parameter "
                          "kvm.gmem_huge_pages).\n");
        return false;
    }
    return true;
}

static bool memfd_private_check(HostMemoryBackend *backend, Error **errp)
{
    ERRP_GUARD();
    const char *type = TYPE_MEMORY_BACKEND_MEMFD_PRIVATE;

    if (!backend->size ||
        !QEMU_IS_ALIGNED(backend->size, qemu_real_host_page_size())) {
        error_setg(errp, "property 'size' of %s doesn't take value '%" PRIu64
                   "': it must be a multiple of %zu", type, backend->size,
                   (size_t)qemu_real_host_page_size());
        return false;
    }
    if (!backend->share) {
        error_setg(errp, "'share=off' is not supported by %s: guest and "
                   "devices use the same copy", type);
        error_append_hint(errp, "Use share=on.\n");
        return false;
    }
    if (!backend->guest_memfd) {
        error_setg(errp, "%s needs a confidential guest", type);
        error_append_hint(errp, "Add -machine "
                          "confidential-guest-support=..., for example of "
                          "-object sw-protected-guest.\n");
        return false;
    }
    return MEMORY_BACKEND_MEMFD_PRIVATE(backend)->huge_pages !=
           ON_OFF_AUTO_ON || check_huge_pages(errp);
}

static bool memfd_private_alloc(HostMemoryBackend *backend, Error **errp)
{
    HostMemoryBackendMemfdPrivate *m = MEMORY_BACKEND_MEMFD_PRIVATE(backend);
    g_autofree char *name = host_memory_backend_get_name(backend);
    uint32_t ram_flags = RAM_PRIVATE | RAM_GUEST_MEMFD;

    if (!memfd_private_check(backend, errp)) {
        return false;
    }
    /* RAM_PRIVATE: no anonymous memory; the provider's is shared. */
    ram_flags |= backend->reserve ? 0 : RAM_NORESERVE;
    backend->aligned = true;
    if (!memory_region_init_ram_flags_nomigrate(&backend->mr,
                                                OBJECT(backend), name,
                                                backend->size, ram_flags,
                                                errp)) {
        return false;
    }
    guest_memfd_ram_block_set_policy(backend->mr.ram_block, m->content_mode);
    return true;
}

static int memfd_private_get_content_mode(Object *obj, Error **errp)
{
    return MEMORY_BACKEND_MEMFD_PRIVATE(obj)->content_mode;
}

static void memfd_private_set_content_mode(Object *obj, int value,
                                           Error **errp)
{
    HostMemoryBackendMemfdPrivate *m = MEMORY_BACKEND_MEMFD_PRIVATE(obj);
    MemoryRegion *mr = host_memory_backend_get_memory(MEMORY_BACKEND(obj));

    if (mr) {
        guest_memfd_ram_block_set_policy(mr->ram_block, value);
    }
    m->content_mode = value;
}

static int memfd_private_get_huge_pages(Object *obj, Error **errp)
{
    return MEMORY_BACKEND_MEMFD_PRIVATE(obj)->huge_pages;
}

static void memfd_private_set_huge_pages(Object *obj, int value, Error **errp)
{
    ERRP_GUARD();

    if (host_memory_backend_mr_inited(MEMORY_BACKEND(obj))) {
        error_setg(errp, "property 'huge-pages' of %s cannot be changed any "
                   "more", object_get_typename(obj));
        error_append_hint(errp, "Set it when the object is created.\n");
        return;
    }
    MEMORY_BACKEND_MEMFD_PRIVATE(obj)->huge_pages = value;
}

static bool memfd_private_get_hugetlb(Object *obj, Error **errp)
{
    return false;
}

static void memfd_private_set_hugetlb(Object *obj, bool value, Error **errp)
{
    ERRP_GUARD();

    if (value) {
        error_setg(errp, "'hugetlb=on' is not supported by %s: memory is "
                   "converted in units of %zu bytes",
                   object_get_typename(obj),
                   (size_t)qemu_real_host_page_size());
        error_append_hint(errp, "Use hugetlb=off.\n");
    }
}

/*
 * A type of this name existed before, outside of QEMU: its shared memory was a
 * copy of its own, which these properties described.
 */
static void memfd_private_former(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    ERRP_GUARD();

    error_setg(errp, "'%s' is not supported by %s any more: private and "
               "shared memory are one copy", name, object_get_typename(obj));
    error_append_hint(errp, "%s", (const char *)opaque);
}

static void memfd_private_init(Object *obj)
{
    MEMORY_BACKEND(obj)->share = true;
}

static void memfd_private_class_init(ObjectClass *oc, const void *data)
{
    MEMORY_BACKEND_CLASS(oc)->alloc = memfd_private_alloc;

    object_class_property_add_enum(oc, "content-mode",
                                   "GuestMemfdContentPolicy",
                                   &GuestMemfdContentPolicy_lookup,
                                   memfd_private_get_content_mode,
                                   memfd_private_set_content_mode);
    object_class_property_set_description(oc, "content-mode",
        "Contents of converted memory where the guest does not say; auto "
        "leaves it to guest-memfd-manager (auto/default/zero/preserve)");
    object_class_property_add_enum(oc, "huge-pages", "OnOffAuto",
                                   &OnOffAuto_lookup,
                                   memfd_private_get_huge_pages,
                                   memfd_private_set_huge_pages);
    object_class_property_set_description(oc, "huge-pages",
        "Use transparent huge pages; auto: where the kernel offers them");
    object_class_property_add_bool(oc, "hugetlb", memfd_private_get_hugetlb,
                                   memfd_private_set_hugetlb);
    object_class_property_set_description(oc, "hugetlb",
        "Use huge pages of hugetlbfs (not supported: off)");
    object_class_property_add(oc, "hugetlbsize", "size", NULL,
                              memfd_private_former, NULL,
                              (void *)"Leave it out, and hugetlb=on: there "
                              "are no huge pages.\n");
    object_class_property_add(oc, "path", "string", NULL,
                              memfd_private_former, NULL,
                              (void *)"Leave it out: there is no file behind "
                              "the memory.\n");
    object_class_property_add(oc, "shmemdev", "string", NULL,
                              memfd_private_former, NULL,
                              (void *)"Leave it out, and the backend that it "
                              "names.\n");
}

static const TypeInfo memfd_private_info = {
    .name = TYPE_MEMORY_BACKEND_MEMFD_PRIVATE,
    .parent = TYPE_MEMORY_BACKEND,
    .instance_init = memfd_private_init,
    .class_init = memfd_private_class_init,
    .instance_size = sizeof(HostMemoryBackendMemfdPrivate),
};

static void memfd_private_register_types(void)
{
    type_register_static(&memfd_private_info);
}

type_init(memfd_private_register_types)
