/*
 * Conversions of guest memory as query-stats shows them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "system/guest-memfd-internal.h"
#include "system/guest-memfd-ram.h"
#include "system/kvm-guest-memfd.h"
#include "guest-memfd-rig.h"

/* Of the fake machine, which has no manager. */
static GuestMemfdEngine *engine;

GuestMemfdEngine *guest_memfd_engine(void)
{
    return engine;
}

static StatsList *values(strList *names)
{
    return kvm_guest_memfd_add_stats(STATS_TARGET_VM, names, NULL);
}

static StatsSchemaValueList *schema(void)
{
    return kvm_guest_memfd_add_schema(STATS_TARGET_VM, NULL);
}

static const StatsValue *find(const StatsList *list, const char *name)
{
    for (; list; list = list->next) {
        if (g_str_equal(list->value->name, name)) {
            return list->value->value;
        }
    }
    g_error("there is no %s", name);
}

static uint64_t scalar(const StatsList *list, const char *name)
{
    const StatsValue *value = find(list, name);

    g_assert_cmpint(value->type, ==, QTYPE_QNUM);
    return value->u.scalar;
}

/* Two blocks, with requests that succeed, fail, and reach no block. */
static Rig *busy_machine(void)
{
    Rig *rig = rig_two_blocks();

    engine = &rig->engine;
    rig_convert(rig, TO_PRIVATE, 0, 32);                /* both blocks */
    rig_ask(rig, TO_SHARED, ZERO, 0, 4, NULL);
    rig_ask(rig, TO_SHARED, PRESERVE, 16, 3, NULL);
    rig_ask(rig, TO_PRIVATE, ZERO, 0, 1, NULL);         /* refused */
    rig_convert(rig, TO_PRIVATE, 100, 1);               /* rejected */
    rig_convert(rig, TO_SHARED, 20, 0);                 /* rejected */
    stat64_add(&rig->engine.unconverted_faults, 3);
    rig->convert_fault = (RigFault) { .count = 1, .error = -EINTR };
    rig_convert(rig, TO_SHARED, 31, 1);                 /* retried */
    rig->convert_fault = (RigFault) { .count = 1, .error = -EIO };
    rig_convert(rig, TO_SHARED, 30, 1);                 /* fails */
    return rig;
}

static void stop(Rig *rig)
{
    engine = NULL;
    rig_free(rig);
}

/* --- values ------------------------------------------------------------ */

static void test_values(void)
{
    const size_t page = qemu_real_host_page_size();
    Rig *rig = busy_machine();
    g_autoptr(StatsList) list = values(NULL);
    const struct { const char *name; uint64_t value; } expected[] = {
        { "gmem_requests", 7 },
        { "gmem_to_shared", 4 },
        { "gmem_to_private", 3 },
        { "gmem_to_shared_bytes", 8 * page },
        { "gmem_to_private_bytes", 32 * page },
        { "gmem_already_right_bytes", 0 },
        { "gmem_mode_default", 2 },
        { "gmem_mode_zero", 4 },
        { "gmem_mode_preserve", 1 },
        { "gmem_realised_kernel", 3 },
        { "gmem_realised_emulated", 3 },
        { "gmem_refused", 1 },
        { "gmem_downgrades", 0 },
        { "gmem_retries", 1 },
        { "gmem_rollbacks", 0 },
        { "gmem_failures", 2 },
        { "gmem_rejected", 2 },
        { "gmem_unconverted_faults", 3 },
        { "gmem_private_bytes", 24 * page },
        { "gmem_shared_bytes", 8 * page },
    };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(expected); i++) {
        g_test_message("%s", expected[i].name);
        g_assert_cmpuint(scalar(list, expected[i].name), ==,
                         expected[i].value);
    }
    stop(rig);
}

/* Every number that the blocks have is in the sum, once. */
static void test_sum(void)
{
    const unsigned n = sizeof(GuestMemfdCounters) / sizeof(uint64_t);
    GuestMemfdCounters a, b;
    uint64_t *to = (uint64_t *)&a, *from = (uint64_t *)&b;
    unsigned i;

    for (i = 0; i < n; i++) {
        to[i] = i;
        from[i] = 1000 + i;
    }
    guest_memfd_counters_add(&a, &b);
    for (i = 0; i < n; i++) {
        g_assert_cmpuint(to[i], ==, &to[i] == &a.time_max_ns ? 1000 + i :
                                                               1000 + 2 * i);
    }
    b.time_max_ns = 1;
    guest_memfd_counters_add(&a, &b);
    g_assert_cmpuint(a.time_max_ns, >, 1);
}

static bool only_grows(const char *name)
{
    return !g_str_equal(name, "gmem_private_bytes") &&
           !g_str_equal(name, "gmem_shared_bytes");
}

/* Memory that is unplugged takes nothing away from what was counted. */
static void test_unplugged(void)
{
    Rig *rig = rig_new_simple(16);
    GuestMemfdBlock *gone = rig_block(rig, "gone", 16);
    GuestMemfdTotals before, after;

    engine = &rig->engine;
    rig_map(rig, 16, gone, 0, 16);
    rig_convert(rig, TO_PRIVATE, 8, 16);
    guest_memfd_engine_totals(engine, &before);
    rig_unplug_last(rig);
    guest_memfd_engine_totals(engine, &after);
    g_assert_cmpuint(before.counters.requests, ==, 2);
    g_assert_cmpuint(before.counters.time_max_ns, >, 0);
    g_assert_cmpmem(&before.counters, sizeof(before.counters),
                    &after.counters, sizeof(after.counters));
    g_assert_cmpuint(after.shared_bytes + after.private_bytes, ==,
                     16 * qemu_real_host_page_size());
    stop(rig);
}

/* --- time -------------------------------------------------------------- */

static void test_histogram(void)
{
    static const struct { uint64_t ns; unsigned bucket; } times[] = {
        { 0, 0 }, { 1, 1 }, { 2, 2 }, { 3, 2 }, { 4, 3 }, { 1023, 10 },
        { 1024, 11 }, { (1ULL << 34) - 1, 34 }, { 1ULL << 34, 35 },
        { INT64_MAX, 35 },
    };
    Rig *rig = rig_new_simple(16);
    const GuestMemfdRequest req = rig_request(TO_SHARED, UNSPECIFIED, 0, 1);
    GuestMemfdCounters *c = &rig->blocks[0]->stats.counters;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(times); i++) {
        const GuestMemfdResult result = { .ns = times[i].ns };
        uint64_t before = c->time_histogram[times[i].bucket];

        guest_memfd_count_request(&rig->blocks[0]->stats, &req,
                                  &result.decision, &result);
        g_test_message("%" PRIu64 " ns", times[i].ns);
        g_assert_cmpuint(c->time_histogram[times[i].bucket], ==, before + 1);
    }
    rig_free(rig);
}

static void test_time(void)
{
    Rig *rig = busy_machine();
    g_autoptr(StatsList) list = values(NULL);
    const StatsValue *histogram = find(list, "gmem_time_hist_ns");
    const uint64List *bucket;
    uint64_t requests = 0, buckets = 0;

    g_assert_cmpint(histogram->type, ==, QTYPE_QLIST);
    for (bucket = histogram->u.list; bucket; bucket = bucket->next) {
        requests += bucket->value;
        buckets++;
    }
    g_assert_cmpuint(requests, ==, scalar(list, "gmem_requests"));
    g_assert_cmpuint(buckets, ==, GUEST_MEMFD_TIME_BUCKETS);
    g_assert_cmpuint(scalar(list, "gmem_time_max_ns"), >, 0);
    g_assert_cmpuint(scalar(list, "gmem_time_max_ns"), <=,
                     scalar(list, "gmem_time_ns"));
    stop(rig);
}

/* --- the schema -------------------------------------------------------- */

static void test_schema(void)
{
    Rig *rig = busy_machine();
    g_autoptr(StatsSchemaValueList) list = schema();
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    const StatsSchemaValueList *s;

    for (s = list; s; s = s->next) {
        const StatsSchemaValue *v = s->value;
        bool bytes = g_str_has_suffix(v->name, "_bytes");
        bool ns = g_str_has_suffix(v->name, "_ns");

        g_test_message("%s", v->name);
        g_assert_true(g_str_has_prefix(v->name, "gmem_"));
        /* libvirt keeps no schema that has a name twice. */
        g_assert_true(g_hash_table_add(names, v->name));
        g_assert_cmpint(v->has_unit, ==, bytes || ns);
        g_assert_cmpint(v->unit, ==, ns ? STATS_UNIT_SECONDS :
                                          STATS_UNIT_BYTES);
        g_assert_cmpint(v->has_base, ==, ns);
        g_assert_cmpint(v->base, ==, ns ? 10 : 0);
        g_assert_cmpint(v->exponent, ==, ns ? -9 : 0);
        g_assert_cmpint(v->type == STATS_TYPE_INSTANT, ==,
                        !only_grows(v->name));
        g_assert_cmpint(v->type == STATS_TYPE_PEAK, ==,
                        g_str_equal(v->name, "gmem_time_max_ns"));
        g_assert_cmpint(v->type == STATS_TYPE_LOG2_HISTOGRAM, ==,
                        g_str_equal(v->name, "gmem_time_hist_ns"));
    }
    stop(rig);
}

/* As "info stats" looks them up: values are in order. */
static void expect_in_order(const StatsList *list,
                            const StatsSchemaValueList *s)
{
    for (; list; list = list->next) {
        while (s && !g_str_equal(s->value->name, list->value->name)) {
            s = s->next;
        }
        g_assert_nonnull(s);
    }
}

static unsigned length(const StatsList *list)
{
    return list ? 1 + length(list->next) : 0;
}

static void test_names(void)
{
    Rig *rig = busy_machine();
    strList third = { .value = (char *)"gmem_requests" };
    strList second = { .next = &third, .value = (char *)"nx_lpage_splits" };
    strList names = { .next = &second, .value = (char *)"gmem_time_ns" };
    g_autoptr(StatsSchemaValueList) all = schema();
    g_autoptr(StatsList) every = values(NULL), some = values(&names);

    expect_in_order(every, all);
    g_assert_cmpuint(length(every), ==, 23);
    expect_in_order(some, all);
    g_assert_cmpuint(length(some), ==, 2);
    g_assert_cmpuint(scalar(some, "gmem_requests"), ==, 7);
    names = second;
    second.next = NULL;
    names.next = NULL;
    g_assert_null(values(&names));
    stop(rig);
}

/* KVM's own statistics stay in their position. */
static void test_others(void)
{
    Rig *rig = busy_machine();
    Stats stats = { };
    StatsList list = { .value = &stats };
    StatsSchemaValue value = { };
    StatsSchemaValueList values = { .value = &value };
    StatsSchemaValueList *s;
    StatsList *l;

    l = kvm_guest_memfd_add_stats(STATS_TARGET_VM, NULL, &list);
    while (l->next) {
        StatsList *next = l->next;

        l->next = NULL;
        qapi_free_StatsList(l);
        l = next;
    }
    g_assert_true(l == &list);
    s = kvm_guest_memfd_add_schema(STATS_TARGET_VM, &values);
    while (s->next) {
        StatsSchemaValueList *next = s->next;

        s->next = NULL;
        qapi_free_StatsSchemaValueList(s);
        s = next;
    }
    g_assert_true(s == &values);
    stop(rig);
}

static void expect_nothing(StatsTarget target)
{
    StatsList list = { };
    StatsSchemaValueList values = { };

    g_assert_true(kvm_guest_memfd_add_stats(target, NULL, &list) == &list);
    g_assert_true(kvm_guest_memfd_add_schema(target, &values) == &values);
}

static void test_nothing(void)
{
    Rig *rig = busy_machine();
    GuestMemfdProvider *provider = engine->provider;

    expect_nothing(STATS_TARGET_VCPU);
    engine->provider = NULL;
    expect_nothing(STATS_TARGET_VM);
    engine->provider = provider;
    engine = NULL;
    expect_nothing(STATS_TARGET_VM);
    stop(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/guest-memfd/query-stats/values", test_values);
    g_test_add_func("/guest-memfd/query-stats/sum", test_sum);
    g_test_add_func("/guest-memfd/query-stats/unplugged", test_unplugged);
    g_test_add_func("/guest-memfd/query-stats/histogram", test_histogram);
    g_test_add_func("/guest-memfd/query-stats/time", test_time);
    g_test_add_func("/guest-memfd/query-stats/schema", test_schema);
    g_test_add_func("/guest-memfd/query-stats/names", test_names);
    g_test_add_func("/guest-memfd/query-stats/others", test_others);
    g_test_add_func("/guest-memfd/query-stats/nothing", test_nothing);

    return g_test_run();
}
