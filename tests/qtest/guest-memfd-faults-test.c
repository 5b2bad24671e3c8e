/*
 * qtest: guest memory conversions that fail, are tried again and go back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-util.h"

/* Far more than any test needs. */
#define FOREVER     1000000
/* A range that ends in the second cell. */
#define SPAN        (GM_CELL - 2 * GM_PAGE)
#define SPAN_SIZE   (4 * GM_PAGE)

static const uint64_t directions[] = { 0, GMTD_ATTR_PRIVATE };

/* Whatever goes back without its bytes comes back as poison. */
static QTestState *start(QTestState *machine(void))
{
    QTestState *qts = machine();

    qtest_qom_set_bool(qts, GM_PROVIDER, "poison", true);
    return qts;
}

static void go_to(QTestState *qts, uint64_t direction, uint64_t gpa,
                  uint64_t size)
{
    if (direction) {
        gm_to_private(qts, gpa, size);
    } else {
        gm_to_shared(qts, gpa, size);
    }
}

static void leave(QTestState *qts, uint64_t direction, uint64_t gpa,
                  uint64_t size)
{
    go_to(qts, direction ^ GMTD_ATTR_PRIVATE, gpa, size);
}

static void set_timeout(QTestState *qts, uint32_t ms)
{
    gm_set_int(qts, GM_MANAGER, "retry-timeout-ms", ms);
}

/* --- one error --------------------------------------------------------- */

static void check_error(QTestState *qts, int error, const char *name,
                        uint64_t direction)
{
    uint64_t before = gm_failures(qts, "ram0", name);
    uint64_t requests;
    GmResult r;

    gm_fill(qts, GM_GPA, 2 * GM_PAGE);
    leave(qts, direction, GM_GPA, 2 * GM_PAGE);
    requests = gm_stat(qts, "ram0", "stats.requests");
    gm_fault(qts, error, 0, 1, 0);

    r = gm_convert(qts, GM_GPA, 2 * GM_PAGE, direction | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, -error);
    g_assert_cmpuint(r.changed, ==, 0);
    g_assert_cmpint(gm_is_private(qts, GM_GPA), ==, !direction);
    g_assert_cmpuint(gm_failures(qts, "ram0", name), ==, before + 1);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.requests"), ==,
                     requests + 1);

    go_to(qts, 0, GM_GPA, 2 * GM_PAGE);
    gm_assert_filled(qts, GM_GPA, 2 * GM_PAGE);
}

static void test_errors(void)
{
    static const struct {
        int error;
        const char *name;
    } errors[] = {
        { EINVAL, "EINVAL" }, { EOPNOTSUPP, "EOPNOTSUPP" },
        { ENOMEM, "ENOMEM" }, { EFAULT, "EFAULT" }, { EIO, "EIO" },
        { EBUSY, "EBUSY" }, { EPERM, "other" }, { ENOSPC, "other" },
    };
    QTestState *qts = start(gm_start);
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(errors); i++) {
        check_error(qts, errors[i].error, errors[i].name, directions[0]);
        check_error(qts, errors[i].error, errors[i].name, directions[1]);
    }
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.retries"), ==, 0);
    g_assert_cmpuint(gm_rejected(qts, "EINVAL"), ==, 0);
    gm_quit(qts);
}

/* With no time to try again, a busy page is an error like any other. */
static void test_no_time(void)
{
    QTestState *qts = start(gm_start);

    set_timeout(qts, 0);
    check_error(qts, EAGAIN, "EAGAIN", directions[0]);
    check_error(qts, EAGAIN, "EAGAIN", directions[1]);
    check_error(qts, EINTR, "EINTR", directions[0]);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.retries"), ==, 0);
    gm_quit(qts);
}

/* --- a part of the range was converted --------------------------------- */

static void check_progress(uint64_t direction, uint64_t progress)
{
    QTestState *qts = start(gm_start);
    GmResult r;

    gm_fill(qts, GM_GPA, 4 * GM_PAGE);
    leave(qts, direction, GM_GPA, 4 * GM_PAGE);
    gm_fault(qts, EIO, 0, 1, progress);
    r = gm_convert(qts, GM_GPA, 4 * GM_PAGE, direction | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, -EIO);
    g_assert_cmpuint(r.changed, ==, 0);
    g_assert_cmpint(gm_is_private(qts, GM_GPA), ==, !direction);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==,
                     direction ? 0 : 4 * GM_PAGE);
    /* The failed operation was undone: two of them. */
    g_assert_cmpuint(gm_get_int(qts, GM_PROVIDER, "operations"), ==,
                     direction ? 2 : 3);

    go_to(qts, 0, GM_GPA, 4 * GM_PAGE);
    gm_assert_filled(qts, GM_GPA, 4 * GM_PAGE);
    gm_quit(qts);
}

static void test_progress(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(directions); i++) {
        check_progress(directions[i], GM_PAGE);
        check_progress(directions[i], 4 * GM_PAGE);
    }
}

/* The provider converted, and could not clear: the bytes stay private. */
static void test_zero_fails(void)
{
    QTestState *qts = start(gm_start);
    GmResult r;

    gm_fill(qts, GM_GPA, 2 * GM_PAGE);
    gm_to_private(qts, GM_GPA, 2 * GM_PAGE);
    gm_fault(qts, EIO, 1, 1, 0);
    r = gm_convert(qts, GM_GPA, 2 * GM_PAGE, GMTD_ATTR_ZERO);
    g_assert_cmpint(r.status, ==, -EIO);
    g_assert_true(gm_is_private(qts, GM_GPA));
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 2 * GM_PAGE);
    gm_to_shared(qts, GM_GPA, 2 * GM_PAGE);
    gm_assert_filled(qts, GM_GPA, 2 * GM_PAGE);
    gm_quit(qts);
}

/* --- going back -------------------------------------------------------- */

static void assert_went_back(QTestState *qts, uint64_t direction,
                             const GmResult *r)
{
    uint64_t private = direction ? 0 : SPAN_SIZE / 2;

    g_assert_cmpint(r->status, ==, -EIO);
    g_assert_cmpuint(r->changed, ==, 0);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, private);
    g_assert_cmpuint(gm_private_bytes(qts, "ram1"), ==, private);
    g_assert_cmpint(gm_is_private(qts, SPAN), ==, !direction);
    g_assert_cmpint(gm_is_private(qts, GM_CELL), ==, !direction);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.rollbacks"), ==, 1);
    /* Nothing of it had been converted. */
    g_assert_cmpuint(gm_stat(qts, "ram1", "stats.rollbacks"), ==, 0);
    g_assert_cmpuint(gm_failures(qts, "ram0", "EIO"), ==, 1);
    g_assert_cmpuint(gm_failures(qts, "ram1", "EIO"), ==, 1);
}

/* The second backend fails, so the first one goes back. */
static void check_rollback(uint64_t direction)
{
    QTestState *qts = start(gm_start_cells);
    GmResult r;

    gm_fill(qts, SPAN, SPAN_SIZE);
    leave(qts, direction, SPAN, SPAN_SIZE);
    gm_fault(qts, EIO, 1, 1, 0);
    r = gm_convert(qts, SPAN, SPAN_SIZE, direction | GMTD_ATTR_PRESERVE);
    assert_went_back(qts, direction, &r);

    go_to(qts, 0, SPAN, SPAN_SIZE);
    gm_assert_filled(qts, SPAN, SPAN_SIZE);

    /* Nothing of it is left over: the next request can fail, too. */
    leave(qts, direction, SPAN, GM_PAGE);
    leave(qts, direction, GM_CELL, GM_PAGE);
    gm_fault(qts, EIO, 1, 1, 0);
    r = gm_convert(qts, SPAN, SPAN_SIZE, direction | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, -EIO);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==,
                     direction ? 0 : GM_PAGE);
    gm_quit(qts);
}

static void test_rollback_to_private(void)
{
    check_rollback(GMTD_ATTR_PRIVATE);
}

static void test_rollback_to_shared(void)
{
    check_rollback(0);
}

/*
 * Something fails before the last page was cleared.  The guest is told that
 * nothing happened, so its secrets must be there.
 */
static void check_rollback_zero(uint32_t after)
{
    QTestState *qts = start(gm_start_cells);
    GmResult r;

    gm_fill(qts, SPAN, SPAN_SIZE);
    gm_to_private(qts, SPAN, SPAN_SIZE);
    gm_fault(qts, EIO, after, 1, 0);
    r = gm_convert(qts, SPAN, SPAN_SIZE, GMTD_ATTR_ZERO);
    g_assert_cmpint(r.status, ==, -EIO);
    g_assert_cmpuint(r.changed, ==, 0);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, SPAN_SIZE / 2);
    g_assert_cmpuint(gm_private_bytes(qts, "ram1"), ==, SPAN_SIZE / 2);
    gm_to_shared(qts, SPAN, SPAN_SIZE);
    gm_assert_filled(qts, SPAN, SPAN_SIZE);
    gm_quit(qts);
}

static void test_rollback_zero(void)
{
    check_rollback_zero(1);
    check_rollback_zero(2);
}

static void test_rollback_runs(void)
{
    QTestState *qts = start(gm_start);
    GmResult r;

    /* Pages 1 and 3 are right already, and must not go back. */
    gm_fill(qts, GM_GPA, 6 * GM_PAGE);
    gm_to_private(qts, GM_GPA + GM_PAGE, GM_PAGE);
    gm_to_private(qts, GM_GPA + 3 * GM_PAGE, GM_PAGE);
    gm_fault(qts, EIO, 2, 1, 0);
    r = gm_convert(qts, GM_GPA, 6 * GM_PAGE,
                   GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, -EIO);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 2 * GM_PAGE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.rollbacks"), ==, 1);
    g_assert_true(gm_is_private(qts, GM_GPA + GM_PAGE));
    g_assert_true(gm_is_private(qts, GM_GPA + 3 * GM_PAGE));
    gm_assert_filled(qts, GM_GPA, GM_PAGE);
    gm_assert_filled(qts, GM_GPA + 2 * GM_PAGE, GM_PAGE);
    gm_assert_filled(qts, GM_GPA + 4 * GM_PAGE, 2 * GM_PAGE);
    gm_to_shared(qts, GM_GPA, 6 * GM_PAGE);
    gm_assert_filled(qts, GM_GPA, 6 * GM_PAGE);
    gm_quit(qts);
}

/* What one request changed is no business of the next. */
static void test_changed_is_forgotten(void)
{
    QTestState *qts = start(gm_start);
    GmResult r;

    gm_fill(qts, GM_GPA, 8 * GM_PAGE);
    gm_to_private(qts, GM_GPA, 2 * GM_PAGE);
    gm_to_private(qts, GM_GPA + 6 * GM_PAGE, 2 * GM_PAGE);

    gm_fault(qts, EIO, 1, 1, 0);
    gm_to_private(qts, GM_GPA + 2 * GM_PAGE, GM_PAGE);
    r = gm_convert(qts, GM_GPA + 3 * GM_PAGE, 3 * GM_PAGE,
                   GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, -EIO);
    g_assert_cmpuint(r.changed, ==, 0);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 5 * GM_PAGE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.rollbacks"), ==, 0);
    gm_assert_filled(qts, GM_GPA + 3 * GM_PAGE, 3 * GM_PAGE);
    gm_quit(qts);
}

/* --- trying again ------------------------------------------------------ */

static void check_retry(int error, uint64_t direction, uint64_t progress)
{
    QTestState *qts = start(gm_start);
    GmResult r;

    set_timeout(qts, 10000);
    gm_fill(qts, GM_GPA, 2 * GM_PAGE);
    leave(qts, direction, GM_GPA, 2 * GM_PAGE);
    gm_fault(qts, error, 0, progress ? 1 : 5, progress);
    r = gm_convert(qts, GM_GPA, 2 * GM_PAGE, direction | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(r.changed, ==, 2 * GM_PAGE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.retries"), ==,
                     progress ? 1 : 5);
    /* A request counts once, however often it was tried. */
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.requests"), ==, 2);
    g_assert_cmpuint(gm_failures(qts, "ram0", "EAGAIN"), ==, 0);
    g_assert_cmpint(gm_is_private(qts, GM_GPA), ==, !!direction);
    go_to(qts, 0, GM_GPA, 2 * GM_PAGE);
    gm_assert_filled(qts, GM_GPA, 2 * GM_PAGE);
    gm_quit(qts);
}

static void test_retry(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(directions); i++) {
        check_retry(EAGAIN, directions[i], 0);
        check_retry(EINTR, directions[i], 0);
        check_retry(EAGAIN, directions[i], GM_PAGE);
    }
}

/* A page in use in the second backend: the first one goes back, too. */
static void test_retry_span(void)
{
    QTestState *qts = start(gm_start_cells);
    GmResult r;

    gm_fill(qts, SPAN, SPAN_SIZE);
    gm_fault(qts, EAGAIN, 1, 1, 0);
    r = gm_convert(qts, SPAN, SPAN_SIZE,
                   GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(r.changed, ==, SPAN_SIZE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.rollbacks"), ==, 1);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.requests"), ==, 1);
    g_assert_cmpuint(gm_stat(qts, "ram1", "stats.requests"), ==, 1);
    gm_to_shared(qts, SPAN, SPAN_SIZE);
    gm_assert_filled(qts, SPAN, SPAN_SIZE);
    gm_quit(qts);
}

/* Busy for ever: the answer comes when the time is over, not before. */
static void test_busy_for_ever(void)
{
    QTestState *qts = start(gm_start);
    int64_t start;
    uint64_t ns;
    GmResult r;

    gm_fill(qts, GM_GPA, GM_PAGE);
    set_timeout(qts, 20);
    gm_fault(qts, EAGAIN, 0, FOREVER, 0);
    start = g_get_monotonic_time();
    r = gm_convert(qts, GM_GPA, GM_PAGE,
                   GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(g_get_monotonic_time() - start, <, 5 * G_USEC_PER_SEC);
    g_assert_cmpint(r.status, ==, -EAGAIN);
    g_assert_false(gm_is_private(qts, GM_GPA));

    ns = gm_stat(qts, "ram0", "stats.time-ns");
    g_assert_cmpuint(ns, >=, 20000000);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.time-max-ns"), ==, ns);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.retries"), >, 1);
    /* It backs off: 20 ms are no more than this many naps of 10 us. */
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.retries"), <, 200);
    g_assert_cmpuint(gm_failures(qts, "ram0", "EAGAIN"), ==, 1);

    gm_fault(qts, 0, 0, 0, 0);
    gm_assert_filled(qts, GM_GPA, GM_PAGE);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    gm_quit(qts);
}

/* --- the end of all ways ----------------------------------------------- */

/* Neither forth nor back: no device may touch the page, and the VM stops. */
static void test_broken(void)
{
    QTestState *qts = start(gm_start);
    GmResult r;

    gm_fill(qts, GM_GPA, 2 * GM_PAGE);
    gm_fault(qts, EIO, 0, 2, GM_PAGE);
    r = gm_convert(qts, GM_GPA, 2 * GM_PAGE,
                   GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, -EIO);
    qtest_qmp_eventwait(qts, "STOP");
    g_assert_true(gm_is_private(qts, GM_GPA));
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 2 * GM_PAGE);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/faults/errors", test_errors);
    qtest_add_func("/guest-memfd/faults/no-time", test_no_time);
    qtest_add_func("/guest-memfd/faults/progress", test_progress);
    qtest_add_func("/guest-memfd/faults/zero-fails", test_zero_fails);
    qtest_add_func("/guest-memfd/faults/rollback-to-private",
                   test_rollback_to_private);
    qtest_add_func("/guest-memfd/faults/rollback-to-shared",
                   test_rollback_to_shared);
    qtest_add_func("/guest-memfd/faults/rollback-runs", test_rollback_runs);
    qtest_add_func("/guest-memfd/faults/changed-is-forgotten",
                   test_changed_is_forgotten);
    qtest_add_func("/guest-memfd/faults/retry", test_retry);
    qtest_add_func("/guest-memfd/faults/retry-span", test_retry_span);
    qtest_add_func("/guest-memfd/faults/busy-for-ever", test_busy_for_ever);
    qtest_add_func("/guest-memfd/faults/broken", test_broken);
    qtest_add_func("/guest-memfd/faults/rollback-zero", test_rollback_zero);

    return g_test_run();
}
