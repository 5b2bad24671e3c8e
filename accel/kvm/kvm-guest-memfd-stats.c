/*
 * Statistics of guest memory conversions among those of KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * They are part of provider "kvm", target "vm": libvirt drops all of a
 * VM's statistics when a second provider answers for that target, and the
 * monitor's "info stats" takes the first list that it finds, in order.
 * Names must be unlike any of the kernel's, for the same reason.
 */

#include "qemu/osdep.h"
#include "system/guest-memfd-ram.h"
#include "system/kvm-guest-memfd.h"
#include "system/stats.h"

typedef struct StatDescription {
    const char *name;
    StatsType type;
    StatsUnit unit;                 /* STATS_UNIT__MAX: a number */
    int exponent;                   /* of 10 */
    size_t offset;                  /* in GuestMemfdTotals */
} StatDescription;

#define STAT(name, type, unit, exponent, field) \
    { "gmem_" name, STATS_TYPE_##type, STATS_UNIT_##unit, exponent, \
      offsetof(GuestMemfdTotals, field) }
#define COUNT(name, field) STAT(name, CUMULATIVE, _MAX, 0, field)
#define BYTES(name, type, field) STAT(name, type, BYTES, 0, field)
#define NS(name, type, field) STAT(name, type, SECONDS, -9, counters.field)

#define DIRECTION(field, x) counters.field[GUEST_MEMFD_DIRECTION_##x]
#define MODE(x) counters.modes[GUEST_MEMFD_CONTENT_MODE_##x]
#define REALISATION(x) counters.realisations[GUEST_MEMFD_REALISATION_##x]

static const StatDescription descriptions[] = {
    COUNT("requests", counters.requests),
    COUNT("to_shared", DIRECTION(directions, TO_SHARED)),
    COUNT("to_private", DIRECTION(directions, TO_PRIVATE)),
    BYTES("to_shared_bytes", CUMULATIVE,
          DIRECTION(converted_bytes, TO_SHARED)),
    BYTES("to_private_bytes", CUMULATIVE,
          DIRECTION(converted_bytes, TO_PRIVATE)),
    BYTES("already_right_bytes", CUMULATIVE, counters.already_right_bytes),
    COUNT("mode_default", MODE(DEFAULT)),
    COUNT("mode_zero", MODE(ZERO)),
    COUNT("mode_preserve", MODE(PRESERVE)),
    COUNT("realised_kernel", REALISATION(KERNEL)),
    COUNT("realised_emulated", REALISATION(EMULATED)),
    COUNT("refused", REALISATION(REFUSED)),
    COUNT("downgrades", counters.downgrades),
    COUNT("retries", counters.retries),
    COUNT("rollbacks", counters.rollbacks),
    COUNT("failures", failures),
    COUNT("rejected", rejected),
    COUNT("unconverted_faults", unconverted_faults),
    NS("time_ns", CUMULATIVE, time_ns),
    NS("time_max_ns", PEAK, time_max_ns),
    NS("time_hist_ns", LOG2_HISTOGRAM, time_histogram),
    BYTES("private_bytes", INSTANT, private_bytes),
    BYTES("shared_bytes", INSTANT, shared_bytes),
};

static StatsValue *value_new(const StatDescription *d,
                             const GuestMemfdTotals *totals)
{
    const uint64_t *from = (const void *)totals + d->offset;
    StatsValue *value = g_new0(StatsValue, 1);
    unsigned i = GUEST_MEMFD_TIME_BUCKETS;

    if (d->type != STATS_TYPE_LOG2_HISTOGRAM) {
        value->type = QTYPE_QNUM;
        value->u.scalar = *from;
        return value;
    }
    value->type = QTYPE_QLIST;
    while (i--) {
        QAPI_LIST_PREPEND(value->u.list, from[i]);
    }
    return value;
}

/* The engine; NULL if it has no statistics. */
static GuestMemfdEngine *engine_of(StatsTarget target)
{
    GuestMemfdEngine *engine = guest_memfd_engine();

    return target == STATS_TARGET_VM && engine && engine->provider ?
           engine : NULL;
}

StatsList *kvm_guest_memfd_add_stats(StatsTarget target, strList *names,
                                     StatsList *list)
{
    GuestMemfdEngine *engine = engine_of(target);
    unsigned i = ARRAY_SIZE(descriptions);
    GuestMemfdTotals totals;

    if (!engine) {
        return list;
    }
    guest_memfd_engine_totals(engine, &totals);
    while (i--) {
        const StatDescription *d = &descriptions[i];

        if (apply_str_list_filter(d->name, names)) {
            Stats *stats = g_new0(Stats, 1);

            stats->name = g_strdup(d->name);
            stats->value = value_new(d, &totals);
            QAPI_LIST_PREPEND(list, stats);
        }
    }
    return list;
}

StatsSchemaValueList *
kvm_guest_memfd_add_schema(StatsTarget target, StatsSchemaValueList *list)
{
    unsigned i = ARRAY_SIZE(descriptions);

    if (!engine_of(target)) {
        return list;
    }
    while (i--) {
        const StatDescription *d = &descriptions[i];
        StatsSchemaValue *value = g_new0(StatsSchemaValue, 1);

        value->name = g_strdup(d->name);
        value->type = d->type;
        value->has_unit = d->unit != STATS_UNIT__MAX;
        value->unit = value->has_unit ? d->unit : 0;
        value->exponent = d->exponent;
        value->has_base = d->exponent;
        value->base = d->exponent ? 10 : 0;
        QAPI_LIST_PREPEND(list, value);
    }
    return list;
}
