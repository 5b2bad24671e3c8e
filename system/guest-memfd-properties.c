/*
 * The guest_memfd manager's properties
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Policy can be changed while the guest runs, so it is read without a lock.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "guest-memfd-internal.h"
#include "guest-memfd-manager.h"

#define RETRY_TIMEOUT_MS_MAX        10000

static int get_in_place(Object *obj, Error **errp)
{
    return GUEST_MEMFD_MANAGER(obj)->in_place;
}

static void set_in_place(Object *obj, int value, Error **errp)
{
    ERRP_GUARD();
    GuestMemfdManager *s = GUEST_MEMFD_MANAGER(obj);

    if (s->engine.provider) {
        error_setg(errp, "cannot change property 'in-place' of %s to '%s': "
                   "guest memory exists", object_get_typename(obj),
                   OnOffAuto_str(value));
        error_append_hint(errp, "Set it on the command line.\n");
        return;
    }
    s->in_place = value;
}

static int get_content_mode(Object *obj, Error **errp)
{
    return qatomic_read(&GUEST_MEMFD_MANAGER(obj)->engine.content_policy);
}

static void set_content_mode(Object *obj, int value, Error **errp)
{
    qatomic_set(&GUEST_MEMFD_MANAGER(obj)->engine.content_policy, value);
}

static int get_on_unsupported(Object *obj, Error **errp)
{
    return qatomic_read(&GUEST_MEMFD_MANAGER(obj)->engine.on_unsupported);
}

static void set_on_unsupported(Object *obj, int value, Error **errp)
{
    qatomic_set(&GUEST_MEMFD_MANAGER(obj)->engine.on_unsupported, value);
}

static void get_retry_timeout(Object *obj, Visitor *v, const char *name,
                              void *opaque, Error **errp)
{
    GuestMemfdManager *s = GUEST_MEMFD_MANAGER(obj);
    uint32_t value = qatomic_read(&s->engine.retry_timeout_ms);

    visit_type_uint32(v, name, &value, errp);
}

static void set_retry_timeout(Object *obj, Visitor *v, const char *name,
                              void *opaque, Error **errp)
{
    GuestMemfdManager *s = GUEST_MEMFD_MANAGER(obj);
    uint32_t value;

    if (!visit_type_uint32(v, name, &value, errp)) {
        return;
    }
    if (value > RETRY_TIMEOUT_MS_MAX) {
        error_setg(errp, "property '%s' of %s doesn't take value '%" PRIu32
                   "': it is 0 to %d milliseconds", name,
                   object_get_typename(obj), value, RETRY_TIMEOUT_MS_MAX);
        return;
    }
    s->retry_timeout_set = true;
    qatomic_set(&s->engine.retry_timeout_ms, value);
}

static char *get_provider(Object *obj, Error **errp)
{
    GuestMemfdProvider *p = GUEST_MEMFD_MANAGER(obj)->engine.provider;

    return g_strdup(p ? GuestMemfdProviderType_str(p->type) : "none");
}

static char *get_provider_reason(Object *obj, Error **errp)
{
    return g_strdup(guest_memfd_provider_reason(
        &GUEST_MEMFD_MANAGER(obj)->engine));
}

static char *get_effective_modes(Object *obj, Error **errp)
{
    GuestMemfdManager *s = GUEST_MEMFD_MANAGER(obj);

    return guest_memfd_offer_to_string(&s->engine);
}

static void add_enum(ObjectClass *oc, const char *name, const char *type,
                     const QEnumLookup *lookup, int (*get)(Object *, Error **),
                     void (*set)(Object *, int, Error **),
                     const char *description)
{
    object_class_property_add_enum(oc, name, type, lookup, get, set);
    object_class_property_set_description(oc, name, description);
}

static void add_readonly_str(ObjectClass *oc, const char *name,
                             char *(*get)(Object *, Error **),
                             const char *description)
{
    object_class_property_add_str(oc, name, get, NULL);
    object_class_property_set_description(oc, name, description);
}

void guest_memfd_manager_add_properties(ObjectClass *oc)
{
    add_enum(oc, "in-place", "OnOffAuto", &OnOffAuto_lookup,
             get_in_place, set_in_place,
             "Convert guest memory in place (on/off/auto)");
    add_enum(oc, "content-mode", "GuestMemfdContentPolicy",
             &GuestMemfdContentPolicy_lookup,
             get_content_mode, set_content_mode,
             "Contents of converted memory where the guest does not say "
             "(auto/default/zero/preserve)");
    add_enum(oc, "on-unsupported", "GuestMemfdUnsupportedAction",
             &GuestMemfdUnsupportedAction_lookup,
             get_on_unsupported, set_on_unsupported,
             "When content-mode cannot be kept (refuse/downgrade)");
    object_class_property_add(oc, "retry-timeout-ms", "uint32",
                              get_retry_timeout, set_retry_timeout,
                              NULL, NULL);
    object_class_property_set_description(oc, "retry-timeout-ms",
        "How long a page in use is retried, in ms (0..10000)");
    add_readonly_str(oc, "provider", get_provider,
                     "What changes the state of pages");
    add_readonly_str(oc, "provider-reason", get_provider_reason,
                     "Why this provider was chosen");
    add_readonly_str(oc, "effective-content-modes", get_effective_modes,
                     "Content modes on offer, in each direction");
}
