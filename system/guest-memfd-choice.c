/*
 * The choice of the provider of guest memory conversions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Made when the machine's first guest_memfd memory appears, and for good.
 */

#include "qemu/osdep.h"
#include "hw/boards.h"
#include "hw/qdev-core.h"
#include "migration/blocker.h"
#include "qapi/error.h"
#include "system/confidential-guest-support.h"
#include "system/qtest.h"
#include "system/tcg.h"
#include "guest-memfd-internal.h"
#include "guest-memfd-manager.h"
#include "trace.h"

/* --- sources ----------------------------------------------------------- */

static const GuestMemfdProviderSource *accelerator;

void guest_memfd_register_source(const GuestMemfdProviderSource *source)
{
    accelerator = source;
}

static GuestMemfdProvider *emulated_new(OnOffAuto in_place, Error **errp)
{
    ERRP_GUARD();

    if (in_place == ON_OFF_AUTO_OFF) {
        error_setg(errp, "guest-memfd-manager: in-place=off needs KVM");
        error_append_hint(errp, "Without KVM guest memory is always "
                          "converted in place: use in-place=auto.\n");
        return NULL;
    }
    return GUEST_MEMFD_PROVIDER(
        object_new(TYPE_GUEST_MEMFD_PROVIDER_EMULATED));
}

/*
 * Without an accelerator's provider the emulated one serves a guest that
 * needs nothing from the accelerator, which is one that is ready already.
 */
static const GuestMemfdProviderSource *find_source(void)
{
    static const GuestMemfdProviderSource emulated = {
        .in_place = true,
        .provider_new = emulated_new,
    };
    const ConfidentialGuestSupport *cgs = current_machine->cgs;

    if (accelerator && *accelerator->allowed) {
        return accelerator;
    }
    return (tcg_enabled() || qtest_enabled()) && cgs && cgs->ready ?
           &emulated : NULL;
}

bool guest_memfd_will_be_in_place(bool *can_be_off)
{
    const GuestMemfdManager *s = guest_memfd_manager();
    const GuestMemfdProvider *provider = s ? s->engine.provider : NULL;
    const GuestMemfdProviderSource *source;

    if (provider) {
        *can_be_off = provider->can_be_off;
        return provider->in_place;
    }
    if (!phase_check(PHASE_ACCEL_CREATED) ||
        !machine_require_guest_memfd(current_machine)) {
        return false;
    }
    source = find_source();
    *can_be_off = source && source->two_backings;
    return source && source->in_place &&
           (!s || s->in_place != ON_OFF_AUTO_OFF);
}

/* --- the choice -------------------------------------------------------- */

static const char *provider_child_name(GuestMemfdProvider *provider)
{
    return provider->type == GUEST_MEMFD_PROVIDER_TYPE_EMULATED ?
           "emulated" : "kvm";
}

static bool set_provider(GuestMemfdManager *s, GuestMemfdProvider *provider,
                         Error **errp)
{
    if (provider->in_place) {
        error_setg(&s->migration_blocker, "guest memory is converted in "
                   "place between private and shared, which cannot be "
                   "migrated");
        if (migrate_add_blocker(&s->migration_blocker, errp) < 0) {
            object_unref(OBJECT(provider));
            return false;
        }
    }
    object_property_add_child(OBJECT(s), provider_child_name(provider),
                              OBJECT(provider));
    object_unref(OBJECT(provider));
    /* Memory outlives the user's objects when QEMU exits. */
    object_ref(OBJECT(s));
    s->engine.provider = provider;
    trace_guest_memfd_provider(GuestMemfdProviderType_str(provider->type),
                               provider->reason);
    return true;
}

/* Guests differ in how often they retry after EAGAIN. */
static void set_patience(GuestMemfdManager *s)
{
    const uint32_t ms = current_machine->cgs->conversion_patience_ms;

    if (ms && !s->retry_timeout_set) {
        s->engine.retry_timeout_ms = ms;
    }
}

/* Not in /objects, where the user chooses the names. */
static bool create_default(Error **errp)
{
    return object_new_with_props(TYPE_GUEST_MEMFD_MANAGER,
                                 OBJECT(current_machine),
                                 TYPE_GUEST_MEMFD_MANAGER, errp, NULL);
}

GuestMemfdEngine *guest_memfd_engine_for_ram(Error **errp)
{
    const GuestMemfdProviderSource *source = find_source();
    GuestMemfdProvider *provider;
    GuestMemfdManager *s;

    if (!guest_memfd_manager() && !create_default(errp)) {
        return NULL;
    }
    s = guest_memfd_manager();
    if (!s->engine.provider && source) {
        provider = source->provider_new(s->in_place, errp);
        if (!provider || !set_provider(s, provider, errp)) {
            return NULL;
        }
        set_patience(s);
    }
    return &s->engine;
}
