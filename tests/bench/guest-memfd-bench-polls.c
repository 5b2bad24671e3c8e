/*
 * Conversions while a monitor asks for statistics
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each load runs with and without a monitor that calls query-guest-memfd and
 * query-stats, by turns; what is compared is CPU time of the threads that
 * convert, for each request.  Turns follow each other closely, so other work
 * on the machine changes both of a pair.
 */

#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-guest-memfd.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "system/guest-memfd-internal.h"
#include "system/guest-memfd-manager.h"
#include "system/kvm-guest-memfd.h"
#include "guest-memfd-bench-polls.h"
#include "guest-memfd-bench-vcpus.h"

#define PAIRS           21
#define POLLS_MAX       100000

/* --- what the queries ask ---------------------------------------------- */

static GuestMemfdEngine *engine;
static GuestMemfdManager manager;

GuestMemfdEngine *guest_memfd_engine(void)
{
    return engine;
}

GuestMemfdManager *guest_memfd_manager(void)
{
    return &manager;
}

/* The human monitor is not used here. */
void monitor_register_hmp(const char *name, bool info,
                          void (*cmd)(Monitor *mon, const QDict *qdict))
{
}

int monitor_printf(Monitor *mon, const char *fmt, ...)
{
    g_assert_not_reached();
}

/* --- the monitor ------------------------------------------------------- */

typedef struct Polls {
    unsigned n;
    int64_t ns[POLLS_MAX];
} Polls;

static Polls query, stats;
static unsigned poll_us;        /* 0: it does not ask */
static bool polling;

static void add(Polls *polls, int64_t ns)
{
    if (polls->n < POLLS_MAX) {
        polls->ns[polls->n++] = ns;
    }
}

static void ask(void)
{
    int64_t start = bench_thread_ns(), middle;

    bql_lock();
    qapi_free_GuestMemfdInfo(qmp_query_guest_memfd(&error_abort));
    middle = bench_thread_ns();
    qapi_free_StatsList(kvm_guest_memfd_add_stats(STATS_TARGET_VM, NULL,
                                                  NULL));
    bql_unlock();
    add(&query, middle - start);
    add(&stats, bench_thread_ns() - middle);
}

static void *monitor_run(void *opaque)
{
    while (qatomic_read(&polling)) {
        ask();
        g_usleep(poll_us);
    }
    return NULL;
}

/* --- loads ------------------------------------------------------------- */

typedef struct Load {
    const char *name;
    uint64_t block;
    uint64_t request;
    unsigned threads;           /* each has a range of its own */
    unsigned requests;          /* of each */
    unsigned poll_us;
} Load;

static const Load loads[] = {
    { "8 vCPUs, 2 MiB each, 10 Hz", 16 * MiB, 2 * MiB, 8, 100000, 100000 },
    { "8 vCPUs, 2 MiB each, 1 kHz", 16 * MiB, 2 * MiB, 8, 100000, 1000 },
    { "64 GiB, 10 Hz", 64 * GiB, 64 * GiB, 1, 200, 100000 },
    { "64 GiB, 1 kHz", 64 * GiB, 64 * GiB, 1, 200, 1000 },
};

/* CPU time of a request. */
static double run_load(const Load *load, Rig *rig, bool poll)
{
    QemuThread monitor;
    double ns;

    poll_us = load->poll_us;
    qatomic_set(&polling, poll);
    if (poll) {
        qemu_thread_create(&monitor, "monitor", monitor_run, NULL,
                           QEMU_THREAD_JOINABLE);
    }
    ns = bench_vcpus_convert(rig, load->threads, load->request,
                             load->requests);
    if (poll) {
        qatomic_set(&polling, false);
        qemu_thread_join(&monitor);
    }
    return ns;
}

/* --- the report -------------------------------------------------------- */

static int compare_double(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void print_polls(const char *name, Polls *polls)
{
    qsort(polls->ns, polls->n, sizeof(polls->ns[0]), bench_compare_ns);
    printf(", \"%s\": { \"polls\": %u, \"median\": %" PRId64
           ", \"p99\": %" PRId64 " }", name, polls->n,
           polls->ns[polls->n / 2], polls->ns[(uint64_t)polls->n * 99 / 100]);
}

static void measure_load(const Load *load)
{
    Rig *rig = bench_machine("guest-memfd-provider-bench", load->block);
    double without[PAIRS], more[PAIRS];
    unsigned i;

    engine = &rig->engine;
    query.n = stats.n = 0;
    for (i = 0; i < PAIRS; i++) {
        double with;

        /* Neither is always the first one. */
        with = i & 1 ? run_load(load, rig, true) : 0;
        without[i] = run_load(load, rig, false);
        with = i & 1 ? with : run_load(load, rig, true);
        more[i] = with - without[i];
    }
    qsort(without, PAIRS, sizeof(double), compare_double);
    qsort(more, PAIRS, sizeof(double), compare_double);
    printf("    { \"load\": \"%s\", \"request\": %.0f, \"more\": %.1f, "
           "\"quartiles\": [%.1f, %.1f]", load->name, without[PAIRS / 2],
           more[PAIRS / 2], more[PAIRS / 4], more[PAIRS * 3 / 4]);
    print_polls("query-guest-memfd", &query);
    print_polls("query-stats", &stats);
    printf(" }");
    engine = NULL;
    rig_free(rig);
}

void bench_polls(void)
{
    unsigned i;

    printf("  \"polled, CPU time\": [\n");
    for (i = 0; i < ARRAY_SIZE(loads); i++) {
        measure_load(&loads[i]);
        printf(i + 1 < ARRAY_SIZE(loads) ? ",\n" : "\n");
    }
    printf("  ]");
}
