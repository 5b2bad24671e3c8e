/*
 * The offer of the provider, for people and monitors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-internal.h"

const char *guest_memfd_provider_reason(const GuestMemfdEngine *engine)
{
    if (!engine || !engine->provider) {
        return "no guest_memfd memory";
    }
    return engine->provider->reason;
}

GuestMemfdRealisation guest_memfd_offered(const GuestMemfdEngine *engine,
                                          GuestMemfdDirection direction,
                                          GuestMemfdContentMode mode)
{
    static const GuestMemfdIntent intents[GUEST_MEMFD_CONTENT_MODE__MAX] = {
        [GUEST_MEMFD_CONTENT_MODE_DEFAULT] = GUEST_MEMFD_INTENT_UNSPECIFIED,
        [GUEST_MEMFD_CONTENT_MODE_ZERO] = GUEST_MEMFD_INTENT_ZERO,
        [GUEST_MEMFD_CONTENT_MODE_PRESERVE] = GUEST_MEMFD_INTENT_PRESERVE,
    };
    const GuestMemfdQuestion question = {
        .direction = direction,
        .intent = intents[mode],
        .phase = qatomic_read(&engine->phase),
        .manager_policy = GUEST_MEMFD_CONTENT_POLICY_DEFAULT,
    };

    return guest_memfd_decide(&question, &engine->provider->offer).realisation;
}

static void append_modes(GString *out, const GuestMemfdEngine *engine,
                         GuestMemfdDirection direction)
{
    char separator = '=';
    int mode;

    g_string_append(out, GuestMemfdDirection_str(direction));
    for (mode = 0; mode < GUEST_MEMFD_CONTENT_MODE__MAX; mode++) {
        if (guest_memfd_offered(engine, direction, mode) !=
            GUEST_MEMFD_REALISATION_REFUSED) {
            g_string_append_printf(out, "%c%s", separator,
                                   GuestMemfdContentMode_str(mode));
            separator = ',';
        }
    }
}

char *guest_memfd_offer_to_string(const GuestMemfdEngine *engine)
{
    GString *out = g_string_new(NULL);

    if (engine->provider) {
        append_modes(out, engine, GUEST_MEMFD_DIRECTION_TO_SHARED);
        g_string_append_c(out, ' ');
        append_modes(out, engine, GUEST_MEMFD_DIRECTION_TO_PRIVATE);
    }
    return g_string_free(out, false);
}
