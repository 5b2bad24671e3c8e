/*
 * QMP and HMP queries of guest memory conversions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-guest-memfd.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "guest-memfd-internal.h"
#include "guest-memfd-manager.h"

static GuestMemfdOfferedModeList *offered_list(const GuestMemfdEngine *engine,
                                               GuestMemfdDirection direction)
{
    GuestMemfdOfferedModeList *list = NULL, **tail = &list;
    int mode;

    for (mode = 0; mode < GUEST_MEMFD_CONTENT_MODE__MAX; mode++) {
        GuestMemfdRealisation how = guest_memfd_offered(engine, direction,
                                                        mode);

        if (how != GUEST_MEMFD_REALISATION_REFUSED) {
            GuestMemfdOfferedMode *m = g_new0(GuestMemfdOfferedMode, 1);

            m->mode = mode;
            m->realisation = how;
            QAPI_LIST_APPEND(tail, m);
        }
    }
    return list;
}

static GuestMemfdOfferedModes *offered_modes(const GuestMemfdEngine *engine)
{
    GuestMemfdOfferedModes *modes = g_new0(GuestMemfdOfferedModes, 1);

    modes->to_shared = offered_list(engine, GUEST_MEMFD_DIRECTION_TO_SHARED);
    modes->to_private = offered_list(engine,
                                     GUEST_MEMFD_DIRECTION_TO_PRIVATE);
    return modes;
}

static void fill_users(GuestMemfdBackendInfo *info, GuestMemfdBlock *block)
{
    guest_memfd_mappings_count(block, &info->mappings, &info->mapped_bytes);
    info->assigned_bytes = guest_memfd_has_listeners(block) ?
                           info->shared_bytes : 0;
    QEMU_LOCK_GUARD(&block->stats.lock);
    info->last_busy = guest_memfd_busy_page_new(&block->stats.busy);
}

static GuestMemfdBackendInfo *backend_info(GuestMemfdBlock *block)
{
    GuestMemfdBackendInfo *info = g_new0(GuestMemfdBackendInfo, 1);

    info->name = g_strdup(block->name);
    info->size = block->size;
    info->content_mode = qatomic_read(&block->content_policy);
    info->huge_pages = block->huge_pages;
    guest_memfd_block_count_bytes(block, &info->private_bytes,
                                  &info->shared_bytes, &info->setup_bytes);
    WITH_QEMU_LOCK_GUARD(&block->stats.lock) {
        info->stats = guest_memfd_stats_new(&block->stats.counters);
    }
    fill_users(info, block);
    return info;
}

static void fill_engine(GuestMemfdInfo *info, GuestMemfdEngine *engine)
{
    GuestMemfdBlock *block;

    info->has_content_mode = true;
    info->content_mode = qatomic_read(&engine->content_policy);
    info->has_on_unsupported = true;
    info->on_unsupported = qatomic_read(&engine->on_unsupported);
    info->has_retry_timeout_ms = true;
    info->retry_timeout_ms = qatomic_read(&engine->retry_timeout_ms);
    info->has_launched = true;
    info->launched = qatomic_read(&engine->phase) ==
                     GUEST_MEMFD_PHASE_RUNNING;
    info->has_phase = true;
    info->phase = qatomic_read(&engine->phase);
    WITH_QEMU_LOCK_GUARD(&engine->rejected_lock) {
        info->rejected = guest_memfd_failure_list(engine->rejected);
    }

    info->unconverted_faults = stat64_get(&engine->unconverted_faults);
    if (engine->provider) {
        info->has_provider = true;
        info->provider = engine->provider->type;
        info->modes = offered_modes(engine);
    }
    QLIST_FOREACH(block, &engine->blocks, next) {
        QAPI_LIST_PREPEND(info->backends, backend_info(block));
    }
}

GuestMemfdInfo *qmp_query_guest_memfd(Error **errp)
{
    GuestMemfdManager *manager = guest_memfd_manager();
    GuestMemfdInfo *info = g_new0(GuestMemfdInfo, 1);

    info->provider_reason = g_strdup(
        guest_memfd_provider_reason(guest_memfd_engine()));
    if (manager) {
        info->manager = object_get_canonical_path(OBJECT(manager));
        info->has_in_place = true;
        info->in_place = manager->in_place;
        fill_engine(info, guest_memfd_engine());
    }
    return info;
}

static void print_failures(Monitor *mon, const char *what,
                           const GuestMemfdFailureCountList *list)
{
    for (; list; list = list->next) {
        monitor_printf(mon, "  %s %s: %" PRIu64 "\n", what,
                       list->value->error, list->value->count);
    }
}

static void print_users(Monitor *mon, const GuestMemfdBackendInfo *b)
{
    const GuestMemfdBusyPage *busy = b->last_busy;

    monitor_printf(mon, "  mapped: %" PRIu64 " bytes by %" PRIu64
                   " mappings, for assigned devices %" PRIu64 "\n",
                   b->mapped_bytes, b->mappings, b->assigned_bytes);
    if (busy) {
        monitor_printf(mon, "  last busy: 0x%" PRIx64 ", %s%s%s, %" PRIu64
                       " ms ago\n", busy->offset,
                       GuestMemfdPageUser_str(busy->user),
                       busy->device ? " of " : "", busy->device ?: "",
                       busy->age_ms);
    }
}

static void print_backend(Monitor *mon, const GuestMemfdBackendInfo *b)
{
    const GuestMemfdStats *s = b->stats;
    g_autofree char *private_size = size_to_str(b->private_bytes);
    g_autofree char *shared_size = size_to_str(b->shared_bytes);
    g_autofree char *setup_size = size_to_str(b->setup_bytes);

    monitor_printf(mon, "%s: private %s, shared %s, setup %s, content-mode "
                   "%s%s\n", b->name, private_size, shared_size, setup_size,
                   GuestMemfdContentPolicy_str(b->content_mode),
                   b->huge_pages ? ", huge pages" : "");
    monitor_printf(mon, "  requests: %" PRIu64 " (to-shared %" PRIu64
                   ", to-private %" PRIu64 ")\n", s->requests,
                   s->directions->to_shared, s->directions->to_private);
    monitor_printf(mon, "  modes: default %" PRIu64 ", zero %" PRIu64
                   ", preserve %" PRIu64 "\n", s->modes->q_default,
                   s->modes->zero, s->modes->preserve);
    monitor_printf(mon, "  realised by: kernel %" PRIu64 ", emulated %" PRIu64
                   ", refused %" PRIu64 "\n", s->realisations->kernel,
                   s->realisations->emulated, s->realisations->refused);
    monitor_printf(mon, "  bytes: to-shared %" PRIu64 ", to-private %" PRIu64
                   ", already right %" PRIu64 "\n",
                   s->converted_bytes->to_shared,
                   s->converted_bytes->to_private, s->already_right_bytes);
    monitor_printf(mon, "  retries: %" PRIu64 ", rollbacks: %" PRIu64
                   ", downgrades: %" PRIu64 "\n", s->retries, s->rollbacks,
                   s->downgrades);
    monitor_printf(mon, "  time: %" PRIu64 " ns, longest %" PRIu64 " ns\n",
                   s->time_ns, s->time_max_ns);
    print_users(mon, b);
    print_failures(mon, "failed", s->failures);
}

static void hmp_info_guest_memfd(Monitor *mon, const QDict *qdict)
{
    GuestMemfdInfo *info = qmp_query_guest_memfd(&error_abort);
    g_autofree char *modes = NULL;
    GuestMemfdBackendInfoList *b;

    monitor_printf(mon, "provider: %s (%s)\n", info->has_provider ?
                   GuestMemfdProviderType_str(info->provider) : "none",
                   info->provider_reason);
    if (info->manager) {
        modes = guest_memfd_offer_to_string(guest_memfd_engine());
        monitor_printf(mon, "policy: content-mode %s, on-unsupported %s, "
                       "retry-timeout-ms %" PRIu32 "\n",
                       GuestMemfdContentPolicy_str(info->content_mode),
                       GuestMemfdUnsupportedAction_str(info->on_unsupported),
                       info->retry_timeout_ms);
        monitor_printf(mon, "phase: %s\n", GuestMemfdPhase_str(info->phase));
        monitor_printf(mon, "modes: %s\n", modes);
        print_failures(mon, "rejected", info->rejected);
        if (info->unconverted_faults) {
            monitor_printf(mon, "  faults without a conversion: %" PRIu64
                           "\n", info->unconverted_faults);
        }
    }
    for (b = info->backends; b; b = b->next) {
        print_backend(mon, b->value);
    }
    qapi_free_GuestMemfdInfo(info);
}

static void guest_memfd_register_hmp(void)
{
    monitor_register_hmp("guest-memfd", true, hmp_info_guest_memfd);
}

type_init(guest_memfd_register_hmp)
