/*
 * Statistics of conversions of guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-types-guest-memfd.h"
#include "qemu/timer.h"
#include "system/guest-memfd-internal.h"
#include "guest-memfd-rig.h"

#define MODE_PRESERVE   GUEST_MEMFD_CONTENT_MODE_PRESERVE
#define REFUSED         GUEST_MEMFD_REALISATION_REFUSED
#define CONVERSIONS     10000

/* --- counters ---------------------------------------------------------- */

static uint64_t sum(const uint64_t *counts, unsigned n)
{
    uint64_t total = 0;

    while (n--) {
        total += counts[n];
    }
    return total;
}

static GuestMemfdStats *stats(const Rig *rig)
{
    return guest_memfd_stats_new(&rig->blocks[0]->stats.counters);
}

/* Every request counts once under each heading. */
static void expect_sums(const Rig *rig, uint64_t requests)
{
    const GuestMemfdCounters *c = &rig->blocks[0]->stats.counters;

    g_assert_cmpuint(c->requests, ==, requests);
    g_assert_cmpuint(sum(c->origins, ARRAY_SIZE(c->origins)), ==, requests);
    g_assert_cmpuint(sum(c->directions, ARRAY_SIZE(c->directions)), ==,
                     requests);
    g_assert_cmpuint(sum(c->modes, ARRAY_SIZE(c->modes)), ==, requests);
    g_assert_cmpuint(sum(c->realisations, ARRAY_SIZE(c->realisations)), ==,
                     requests);
}

static void test_kinds(void)
{
    Rig *rig = rig_new_simple(16);
    GuestMemfdStats *s;

    rig_ask(rig, TO_PRIVATE, UNSPECIFIED, 0, 16, NULL);     /* default */
    rig_ask(rig, TO_SHARED, UNSPECIFIED, 0, 1, NULL);       /* zero */
    rig_ask(rig, TO_SHARED, ZERO, 1, 1, NULL);
    rig_ask(rig, TO_SHARED, PRESERVE, 2, 1, NULL);
    rig_ask(rig, TO_PRIVATE, ZERO, 0, 1, NULL);             /* refused */
    rig_ask(rig, TO_PRIVATE, PRESERVE, 0, 1, NULL);
    expect_sums(rig, 6);

    s = stats(rig);
    g_assert_cmpuint(s->requests, ==, 6);
    g_assert_cmpuint(s->directions->to_private, ==, 3);
    g_assert_cmpuint(s->directions->to_shared, ==, 3);
    g_assert_cmpuint(s->modes->q_default, ==, 1);
    g_assert_cmpuint(s->modes->zero, ==, 3);
    g_assert_cmpuint(s->modes->preserve, ==, 2);
    g_assert_cmpuint(s->realisations->kernel, ==, 3);
    g_assert_cmpuint(s->realisations->emulated, ==, 2);
    g_assert_cmpuint(s->realisations->refused, ==, 1);
    qapi_free_GuestMemfdStats(s);
    rig_free(rig);
}

static void test_origins(void)
{
    Rig *rig = rig_new_simple(16);
    GuestMemfdRequest req = rig_request(TO_PRIVATE, UNSPECIFIED, 0, 1);
    GuestMemfdStats *s;
    unsigned n, total = 0;

    /* Once by the first origin, twice by the second, and so on. */
    for (req.origin = 0; req.origin < GUEST_MEMFD_ORIGIN__MAX; req.origin++) {
        for (n = 0; n <= req.origin; n++) {
            guest_memfd_engine_convert(&rig->engine, &req, NULL);
            total++;
        }
    }
    expect_sums(rig, total);
    s = stats(rig);
    g_assert_cmpuint(s->origins->hypercall, ==, 1);
    g_assert_cmpuint(s->origins->memory_fault, ==, 2);
    g_assert_cmpuint(s->origins->launch, ==, 3);
    g_assert_cmpuint(s->origins->reset, ==, 4);
    g_assert_cmpuint(s->origins->device, ==, 5);
    qapi_free_GuestMemfdStats(s);
    rig_free(rig);
}

static void test_bytes(void)
{
    const size_t page = qemu_real_host_page_size();
    Rig *rig = rig_new_simple(16);
    GuestMemfdStats *s;

    rig_convert(rig, TO_PRIVATE, 0, 4);
    rig_convert(rig, TO_PRIVATE, 2, 6);         /* 4 new, 2 right already */
    rig_convert(rig, TO_SHARED, 7, 9);          /* 1 new, 8 right already */
    rig->convert_fault = (RigFault) { .count = 1, .error = -EIO };
    rig_convert(rig, TO_SHARED, 0, 16);         /* counts no bytes */
    expect_sums(rig, 4);

    s = stats(rig);
    g_assert_cmpuint(s->converted_bytes->to_private, ==, 8 * page);
    g_assert_cmpuint(s->converted_bytes->to_shared, ==, 1 * page);
    g_assert_cmpuint(s->already_right_bytes, ==, 10 * page);
    qapi_free_GuestMemfdStats(s);
    rig_free(rig);
}

static void test_downgrades(void)
{
    Rig *rig = rig_new_simple(16);

    rig->engine.provider->offer.how[TO_PRIVATE][MODE_PRESERVE] = REFUSED;
    rig->engine.content_policy = GUEST_MEMFD_CONTENT_POLICY_PRESERVE;
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 4), ==, -EOPNOTSUPP);
    g_assert_cmpuint(rig->blocks[0]->stats.counters.downgrades, ==, 0);
    rig->engine.on_unsupported = GUEST_MEMFD_UNSUPPORTED_ACTION_DOWNGRADE;
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 4), ==, 0);
    g_assert_cmpuint(rig->blocks[0]->stats.counters.downgrades, ==, 1);
    expect_sums(rig, 2);
    rig_free(rig);
}

static uint64_t listed(const GuestMemfdFailureCountList *list,
                       const char *error)
{
    for (; list; list = list->next) {
        if (g_str_equal(list->value->error, error)) {
            return list->value->count;
        }
    }
    return 0;
}

static void test_failures(void)
{
    static const struct { int error; const char *name; } errors[] = {
        { EAGAIN, "EAGAIN" }, { EINVAL, "EINVAL" },
        { EOPNOTSUPP, "EOPNOTSUPP" }, { ENOMEM, "ENOMEM" },
        { EINTR, "EINTR" }, { EFAULT, "EFAULT" }, { EIO, "EIO" },
        { EBUSY, "EBUSY" }, { ENOSPC, "ENOSPC" }, { EPERM, "other" },
    };
    Rig *rig = rig_new_simple(16);
    GuestMemfdStats *s;
    unsigned i, n;

    rig->engine.retry_timeout_ms = 0;
    for (i = 0; i < ARRAY_SIZE(errors); i++) {
        for (n = 0; n <= i; n++) {
            rig->convert_fault = (RigFault) { .count = 1,
                                              .error = -errors[i].error };
            g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 1), ==,
                            -errors[i].error);
        }
    }
    s = stats(rig);
    for (i = 0; i < ARRAY_SIZE(errors); i++) {
        g_assert_cmpuint(listed(s->failures, errors[i].name), ==, i + 1);
    }
    qapi_free_GuestMemfdStats(s);
    expect_sums(rig, 55);
    rig_free(rig);
}

static void test_retries_and_rollbacks(void)
{
    Rig *rig = rig_new_simple(16);
    GuestMemfdStats *s;

    rig_convert(rig, TO_PRIVATE, 4, 1);
    rig->convert_fault = (RigFault) { .after = 1, .count = 1,
                                      .error = -EINTR };
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 16), ==, 0);
    s = stats(rig);
    g_assert_cmpuint(s->retries, ==, 1);
    g_assert_cmpuint(s->rollbacks, ==, 1);
    g_assert_null(s->failures);
    qapi_free_GuestMemfdStats(s);
    rig_free(rig);
}

static void test_rejected(void)
{
    Rig *rig = rig_new_simple(16);

    rig_convert(rig, TO_PRIVATE, 16, 1);
    rig_convert(rig, TO_PRIVATE, 15, 2);
    g_assert_cmpuint(rig->engine.rejected[guest_memfd_errno_bucket(-EINVAL)],
                     ==, 2);
    g_assert_cmpuint(sum(rig->engine.rejected, GUEST_MEMFD_ERRNO_BUCKETS), ==,
                     2);
    expect_sums(rig, 0);
    rig_free(rig);
}

/* A request that cannot be decoded reaches no block; @outcome may be NULL. */
static void test_undecodable(void)
{
    Rig *rig = rig_new_simple(16);
    GuestMemfdResult outcome = { .decided = true, .changed_bytes = 1 };

    g_assert_cmpint(guest_memfd_engine_request(&rig->engine, 0, 4096,
                        1 << 10, GUEST_MEMFD_ORIGIN_HYPERCALL, &outcome),
                    ==, -EINVAL);
    g_assert_false(outcome.decided);
    g_assert_cmphex(outcome.changed_bytes, ==, 0);
    g_assert_cmpint(guest_memfd_engine_request(&rig->engine, 0, 4096,
                        1 << 10, GUEST_MEMFD_ORIGIN_HYPERCALL, NULL),
                    ==, -EINVAL);
    g_assert_cmpuint(rig->engine.rejected[guest_memfd_errno_bucket(-EINVAL)],
                     ==, 2);
    expect_sums(rig, 0);
    rig_free(rig);
}

static void test_request(void)
{
    const size_t page = qemu_real_host_page_size();
    Rig *rig = rig_new_simple(16);

    g_assert_cmpint(guest_memfd_engine_request(&rig->engine, 2 * page, page,
                        GUEST_MEMFD_ATTR_PRIVATE | GUEST_MEMFD_ATTR_PRESERVE,
                        GUEST_MEMFD_ORIGIN_HYPERCALL, NULL), ==, 0);
    rig_expect_log(rig, "convert a 2+1 to-private preserve [P]\n");
    expect_sums(rig, 1);
    rig_free(rig);
}

static void test_time(void)
{
    Rig *rig = rig_new_simple(16);
    const GuestMemfdCounters *c = &rig->blocks[0]->stats.counters;
    int64_t start = get_clock();

    rig_convert(rig, TO_PRIVATE, 0, 16);
    g_assert_cmpuint(c->time_max_ns, ==, c->time_ns);
    rig_convert(rig, TO_SHARED, 0, 16);
    g_assert_cmpuint(c->time_ns, <=, get_clock() - start);
    g_assert_cmpuint(c->time_max_ns, <=, c->time_ns);
    g_assert_cmpuint(c->time_max_ns, >, 0);
    rig_free(rig);
}

/* --- memory ------------------------------------------------------------ */

/* glibc has it, and sanitizers have a malloc of their own. */
#if defined(CONFIG_MALLOC_TRIM) && !defined(CONFIG_TSAN) && \
    !defined(__SANITIZE_ADDRESS__)

/* These hide libc's: every allocation of this process is counted. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);

static unsigned long allocations;

void *malloc(size_t size)
{
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    allocations++;
    return __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    allocations++;
    return __libc_realloc(old, size);
}

static void one_of_each(Rig *rig)
{
    rig->convert_fault.count = 1;
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 8, 16), ==, -EIO);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 32), ==, 0);
    g_assert_cmpint(rig_ask(rig, TO_PRIVATE, ZERO, 0, 1, NULL), ==, -EINVAL);
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 3, 9), ==, 0);
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, 32), ==, 0);
}

static void test_no_allocation(void)
{
    Rig *rig = rig_new_simple(16);
    unsigned long before;
    unsigned i;

    rig_map(rig, 16, rig_block(rig, "b", 16), 0, 16);
    rig_listen(rig, rig->blocks[0], 0, 16);
    rig->convert_fault = (RigFault) { .error = -EIO };
    g_string_free(rig->log, true);
    rig->log = NULL;

    before = allocations;
    g_free(g_malloc(1));
    g_assert_cmpuint(allocations, ==, before + 1);
    one_of_each(rig);

    before = allocations;
    for (i = 0; i < CONVERSIONS / 5; i++) {
        one_of_each(rig);
    }
    g_assert_cmpuint(allocations, ==, before);
    rig_free(rig);
}
#else
static void test_no_allocation(void)
{
    g_test_skip("cannot count allocations");
}
#endif

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*fn)(void); } tests[] = {
        { "stats/kinds", test_kinds },
        { "stats/origins", test_origins },
        { "stats/bytes", test_bytes },
        { "stats/downgrades", test_downgrades },
        { "stats/failures", test_failures },
        { "stats/retries-and-rollbacks", test_retries_and_rollbacks },
        { "stats/rejected", test_rejected },
        { "stats/request", test_request },
        { "stats/time", test_time },
        { "memory/no-allocation", test_no_allocation },
        { "stats/undecodable", test_undecodable },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/", tests[i].path,
                                            NULL);

        g_test_add_func(path, tests[i].fn);
    }
    return g_test_run();
}
