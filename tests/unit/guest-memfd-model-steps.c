/*
 * A naive model of guest memory conversion: the map, random steps, and
 * those that only prepare others
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "guest-memfd-model.h"

/* More faults in a row than tries of the engine to send pages back. */
#define STUCK   150

/* Where a guest page is; the last one shows pages of block 0 again. */
static const MemoryRange ranges[] = {
    { 0, 70, 0, 0 },
    { 80, 130, 1, 0 },
    { 210, 4, -1, 0, true },
    { 214, 64, 2, 0 },
    { 278, 10, 0, 60 },
};

const unsigned model_block_pages[MODEL_BLOCKS] = { 70, 130, 64 };

const MemoryRange *model_find_range(unsigned gpa)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(ranges); i++) {
        if (gpa >= ranges[i].gpa && gpa - ranges[i].gpa < ranges[i].pages) {
            return &ranges[i];
        }
    }
    return NULL;
}

const MemoryRange *model_nth_range(unsigned n)
{
    return n < ARRAY_SIZE(ranges) ? &ranges[n] : NULL;
}

const MemoryRange *model_only_range(const Step *s)
{
    const MemoryRange *range = model_find_range(s->gpa);

    return range && !range->mmio &&
           s->gpa + s->pages <= range->gpa + range->pages ? range : NULL;
}

/* --- steps ------------------------------------------------------------- */

#include "guest-memfd-steps.c.inc"

QEMU_BUILD_BUG_ON((int)STEP_TO_SHARED != TO_SHARED);
QEMU_BUILD_BUG_ON((int)STEP_TO_PRIVATE != TO_PRIVATE);
QEMU_BUILD_BUG_ON((int)STEP_DIRECTIONS != GUEST_MEMFD_DIRECTION__MAX);
QEMU_BUILD_BUG_ON((int)STEP_ZERO != ZERO);
QEMU_BUILD_BUG_ON((int)STEP_PRESERVE != PRESERVE);

char *model_describe_step(uint64_t seed, uint64_t n)
{
    static const char *const names[] = { "convert", "write", "policy",
                                         "fault" };
    Step s = model_nth_step(seed, n);

    return g_strdup_printf("%" PRIu64 ": %s %u+%u %s intent %d agrees %u "
                           "value 0x%" PRIx64, n, names[s.kind], s.gpa,
                           s.pages, GuestMemfdDirection_str(s.direction),
                           s.intent, s.listener_agrees, s.value);
}

/* --- policy and faults ------------------------------------------------- */

/* Both ways, one way or none: the way back may lose the bytes. */
static void offer_preserve(GuestMemfdOffer *offer, unsigned ways)
{
    static const GuestMemfdRealisation how[4] = {
        GUEST_MEMFD_REALISATION_REFUSED, GUEST_MEMFD_REALISATION_EMULATED,
        GUEST_MEMFD_REALISATION_KERNEL, GUEST_MEMFD_REALISATION_KERNEL,
    };
    unsigned d;

    for (d = 0; d < GUEST_MEMFD_DIRECTION__MAX; d++) {
        offer->how[d][GUEST_MEMFD_CONTENT_MODE_PRESERVE] = how[ways % 4];
        ways /= 4;
    }
}

GuestMemfdRealisation model_preserve(const Rig *rig,
                                     GuestMemfdDirection direction)
{
    return rig->engine.provider->offer.how[direction]
               [GUEST_MEMFD_CONTENT_MODE_PRESERVE];
}

void model_change_policy(Rig *rig, const Step *s)
{
    const unsigned policy = (s->value >> 4) % GUEST_MEMFD_CONTENT_POLICY__MAX;
    GuestMemfdEngine *engine = &rig->engine;

    switch (s->value % 4) {
    case 0:
        engine->content_policy = policy;
        break;
    case 1:
        rig->blocks[s->gpa % MODEL_BLOCKS]->content_policy = policy;
        break;
    case 2:
        engine->on_unsupported = policy % 2;
        offer_preserve(&engine->provider->offer, s->value >> 8);
        break;
    default:
        if (model_is_emulated(rig)) {
            object_property_set_bool(OBJECT(engine->provider), "poison",
                                     policy % 2, &error_abort);
        }
        break;
    }
}

bool model_is_emulated(const Rig *rig)
{
    return object_dynamic_cast(OBJECT(rig->engine.provider),
                               TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
}

void model_arm_fault(Rig *rig, const Step *s)
{
    static const int errors[] = { EAGAIN, EINTR, ENOMEM, EIO };
    const int error = errors[s->value % ARRAY_SIZE(errors)];
    const unsigned after = (s->value >> 8) % 8;
    const bool stuck = (s->value >> 16) % 16 == 0;
    const unsigned count = stuck ? STUCK : 1 + (s->value >> 12) % 3;
    Object *provider = OBJECT(rig->engine.provider);

    if (!model_is_emulated(rig)) {
        rig->convert_fault = (RigFault) { after, count, -error, 0 };
        return;
    }
    object_property_set_uint(provider, "fault-errno", error, &error_abort);
    object_property_set_uint(provider, "fault-after", after, &error_abort);
    object_property_set_uint(provider, "fault-count", count, &error_abort);
}

static int armed_error(const Rig *rig)
{
    if (!model_is_emulated(rig)) {
        return -rig->convert_fault.error;
    }
    return object_property_get_uint(OBJECT(rig->engine.provider),
                                    "fault-errno", &error_abort);
}

/*
 * A provider that asks for another try has changed no page, unless it can
 * preserve the bytes on the way back; and so on the way back itself.
 */
void model_set_progress(Rig *rig, const Step *s)
{
    const GuestMemfdRealisation refused = GUEST_MEMFD_REALISATION_REFUSED;
    const int error = armed_error(rig);
    unsigned progress = s->value % 16;

    if ((error == EAGAIN || error == EINTR) &&
        (model_preserve(rig, TO_SHARED) == refused ||
         model_preserve(rig, TO_PRIVATE) == refused)) {
        progress = 0;
    }
    if (!model_is_emulated(rig)) {
        rig->convert_fault.progress = progress;
        return;
    }
    object_property_set_uint(OBJECT(rig->engine.provider), "fault-progress",
                             progress * qemu_real_host_page_size(),
                             &error_abort);
}

unsigned model_armed_faults(const Rig *rig)
{
    if (!model_is_emulated(rig)) {
        return rig->convert_fault.count;
    }
    return object_property_get_uint(OBJECT(rig->engine.provider),
                                    "fault-count", &error_abort);
}
