/*
 * Statistics of guest memory conversions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "guest-memfd-internal.h"

static const struct {
    int error;
    const char *name;
} errno_buckets[GUEST_MEMFD_ERRNO_BUCKETS] = {
    { EAGAIN, "EAGAIN" },
    { EINVAL, "EINVAL" },
    { EOPNOTSUPP, "EOPNOTSUPP" },
    { ENOMEM, "ENOMEM" },
    { EINTR, "EINTR" },
    { EFAULT, "EFAULT" },
    { EIO, "EIO" },
    { EBUSY, "EBUSY" },
    { ENOSPC, "ENOSPC" },
    { 0, "other" },
};

unsigned guest_memfd_errno_bucket(int error)
{
    unsigned i;

    for (i = 0; i < GUEST_MEMFD_ERRNO_BUCKETS - 1; i++) {
        if (errno_buckets[i].error == -error) {
            break;
        }
    }
    return i;
}

const char *guest_memfd_errno_name(unsigned bucket)
{
    return errno_buckets[bucket].name;
}

static unsigned time_bucket(uint64_t ns)
{
    return MIN(64 - clz64(ns), GUEST_MEMFD_TIME_BUCKETS - 1);
}

void guest_memfd_count_bytes(GuestMemfdBlockStats *stats,
                             GuestMemfdDirection direction,
                             uint64_t requested, uint64_t changed)
{
    QEMU_LOCK_GUARD(&stats->lock);
    stats->counters.converted_bytes[direction] += changed;
    stats->counters.already_right_bytes += requested - changed;
}

void guest_memfd_count_request(GuestMemfdBlockStats *stats,
                               const GuestMemfdRequest *req,
                               const GuestMemfdDecision *decision,
                               const GuestMemfdResult *result)
{
    GuestMemfdCounters *counters = &stats->counters;
    const int64_t ns = result->ns;

    QEMU_LOCK_GUARD(&stats->lock);
    counters->requests++;
    counters->retries += result->retries;
    counters->origins[req->origin]++;
    counters->directions[req->direction]++;
    counters->modes[decision->mode]++;
    counters->realisations[decision->realisation]++;
    counters->downgrades += decision->downgraded;
    counters->time_ns += ns;
    counters->time_max_ns = MAX(counters->time_max_ns, ns);
    counters->time_histogram[time_bucket(ns)]++;

    if (result->error) {
        counters->failures[guest_memfd_errno_bucket(result->error)]++;
    }
}

void guest_memfd_counters_add(GuestMemfdCounters *sum,
                              const GuestMemfdCounters *more)
{
    const uint64_t max = MAX(sum->time_max_ns, more->time_max_ns);
    const uint64_t *from = (const uint64_t *)more;
    uint64_t *to = (uint64_t *)sum;
    unsigned i;

    for (i = 0; i < sizeof(*sum) / sizeof(*to); i++) {
        to[i] += from[i];
    }
    sum->time_max_ns = max;
}

void guest_memfd_note_busy(GuestMemfdBlockStats *stats, uint64_t offset,
                           GuestMemfdUser user)
{
    QEMU_LOCK_GUARD(&stats->lock);
    stats->busy = (GuestMemfdBusy) {
        .any = true, .offset = offset, .user = user, .ns = get_clock(),
    };
}

GuestMemfdBusyPage *guest_memfd_busy_page_new(const GuestMemfdBusy *busy)
{
    GuestMemfdBusyPage *page;

    if (!busy->any) {
        return NULL;
    }
    page = g_new0(GuestMemfdBusyPage, 1);
    page->offset = busy->offset;
    page->user = busy->user.kind;
    page->device = g_strdup(busy->user.device);
    page->age_ms = (get_clock() - busy->ns) / SCALE_MS;
    return page;
}

uint64_t guest_memfd_all_failures(
    const uint64_t counts[GUEST_MEMFD_ERRNO_BUCKETS])
{
    uint64_t all = 0;
    unsigned i;

    for (i = 0; i < GUEST_MEMFD_ERRNO_BUCKETS; i++) {
        all += counts[i];
    }
    return all;
}

GuestMemfdFailureCountList *
guest_memfd_failure_list(const uint64_t counts[GUEST_MEMFD_ERRNO_BUCKETS])
{
    GuestMemfdFailureCountList *list = NULL, **tail = &list;
    unsigned i;

    for (i = 0; i < GUEST_MEMFD_ERRNO_BUCKETS; i++) {
        if (counts[i]) {
            GuestMemfdFailureCount *failure = g_new0(GuestMemfdFailureCount,
                                                     1);

            failure->error = g_strdup(guest_memfd_errno_name(i));
            failure->count = counts[i];
            QAPI_LIST_APPEND(tail, failure);
        }
    }
    return list;
}

static GuestMemfdDirectionCounts *
direction_counts(const uint64_t counts[GUEST_MEMFD_DIRECTION__MAX])
{
    GuestMemfdDirectionCounts *d = g_new0(GuestMemfdDirectionCounts, 1);

    d->to_shared = counts[GUEST_MEMFD_DIRECTION_TO_SHARED];
    d->to_private = counts[GUEST_MEMFD_DIRECTION_TO_PRIVATE];
    return d;
}

static GuestMemfdOriginCounts *
origin_counts(const uint64_t counts[GUEST_MEMFD_ORIGIN__MAX])
{
    GuestMemfdOriginCounts *o = g_new0(GuestMemfdOriginCounts, 1);

    o->hypercall = counts[GUEST_MEMFD_ORIGIN_HYPERCALL];
    o->memory_fault = counts[GUEST_MEMFD_ORIGIN_MEMORY_FAULT];
    o->launch = counts[GUEST_MEMFD_ORIGIN_LAUNCH];
    o->reset = counts[GUEST_MEMFD_ORIGIN_RESET];
    o->device = counts[GUEST_MEMFD_ORIGIN_DEVICE];
    return o;
}

static uint64List *
time_histogram(const uint64_t counts[GUEST_MEMFD_TIME_BUCKETS])
{
    uint64List *list = NULL;
    unsigned i = GUEST_MEMFD_TIME_BUCKETS;

    while (i--) {
        QAPI_LIST_PREPEND(list, counts[i]);
    }
    return list;
}

GuestMemfdStats *guest_memfd_stats_new(const GuestMemfdCounters *counters)
{
    GuestMemfdStats *stats = g_new0(GuestMemfdStats, 1);
    const uint64_t *modes = counters->modes;
    const uint64_t *how = counters->realisations;

    stats->requests = counters->requests;
    stats->origins = origin_counts(counters->origins);
    stats->directions = direction_counts(counters->directions);
    stats->modes = g_new0(GuestMemfdModeCounts, 1);
    stats->modes->q_default = modes[GUEST_MEMFD_CONTENT_MODE_DEFAULT];
    stats->modes->zero = modes[GUEST_MEMFD_CONTENT_MODE_ZERO];
    stats->modes->preserve = modes[GUEST_MEMFD_CONTENT_MODE_PRESERVE];
    stats->realisations = g_new0(GuestMemfdRealisationCounts, 1);
    stats->realisations->kernel = how[GUEST_MEMFD_REALISATION_KERNEL];
    stats->realisations->emulated = how[GUEST_MEMFD_REALISATION_EMULATED];
    stats->realisations->refused = how[GUEST_MEMFD_REALISATION_REFUSED];
    stats->converted_bytes = direction_counts(counters->converted_bytes);
    stats->already_right_bytes = counters->already_right_bytes;
    stats->downgrades = counters->downgrades;
    stats->retries = counters->retries;
    stats->rollbacks = counters->rollbacks;
    stats->failures = guest_memfd_failure_list(counters->failures);
    stats->time_ns = counters->time_ns;
    stats->time_max_ns = counters->time_max_ns;
    stats->time_histogram_ns = time_histogram(counters->time_histogram);
    return stats;
}
