/*
 * qtest: guest memory conversions that fail and go back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-util.h"

/* A range that ends in the second cell. */
#define SPAN        (GM_CELL - 2 * GM_PAGE)
#define SPAN_SIZE   (4 * GM_PAGE)

static const uint64_t directions[] = { 0, GMTD_ATTR_PRIVATE };

/* --- one error --------------------------------------------------------- */

static void check_error(QTestState *qts, int error, const char *name,
                        uint64_t direction)
{
    uint64_t before = gm_failures(qts, "ram0", name);
    uint64_t requests;
    GmResult r;

    gm_fill(qts, GM_GPA, 2 * GM_PAGE);
    gm_leave(qts, direction, GM_GPA, 2 * GM_PAGE);
    requests = gm_stat(qts, "ram0", "stats.requests");
    gm_fault(qts, error, 0, 1, 0);

    r = gm_convert(qts, GM_GPA, 2 * GM_PAGE, direction | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, -error);
    g_assert_cmpuint(r.changed, ==, 0);
    g_assert_cmpint(gm_is_private(qts, GM_GPA), ==, !direction);
    g_assert_cmpuint(gm_failures(qts, "ram0", name), ==, before + 1);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.requests"), ==,
                     requests + 1);

    gm_go_to(qts, 0, GM_GPA, 2 * GM_PAGE);
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
        { EBUSY, "EBUSY" }, { EPERM, "other" }, { ENOSPC, "ENOSPC" },
    };
    QTestState *qts = gm_start_poisoned(gm_start);
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
    QTestState *qts = gm_start_poisoned(gm_start);

    gm_set_timeout(qts, 0);
    check_error(qts, EAGAIN, "EAGAIN", directions[0]);
    check_error(qts, EAGAIN, "EAGAIN", directions[1]);
    check_error(qts, EINTR, "EINTR", directions[0]);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.retries"), ==, 0);
    gm_quit(qts);
}

/* --- a part of the range was converted --------------------------------- */

static void check_progress(uint64_t direction, uint64_t progress)
{
    QTestState *qts = gm_start_poisoned(gm_start);
    GmResult r;

    gm_fill(qts, GM_GPA, 4 * GM_PAGE);
    gm_leave(qts, direction, GM_GPA, 4 * GM_PAGE);
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

    gm_go_to(qts, 0, GM_GPA, 4 * GM_PAGE);
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

/* Clearing memory cannot fail, nor does it spend a fault. */
static void test_zero(void)
{
    QTestState *qts = gm_start_poisoned(gm_start);
    GmResult r;

    gm_fill(qts, GM_GPA, 2 * GM_PAGE);
    gm_to_private(qts, GM_GPA, 2 * GM_PAGE);
    gm_fault(qts, EIO, 1, 1, 0);
    r = gm_convert(qts, GM_GPA, 2 * GM_PAGE, GMTD_ATTR_ZERO);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(gm_get_int(qts, GM_PROVIDER, "fault-after"), ==, 0);
    g_assert_cmpuint(gm_faults_left(qts), ==, 1);
    gm_assert_bytes(qts, GM_GPA, 2 * GM_PAGE, 0);
    r = gm_convert(qts, GM_GPA, GM_PAGE, GMTD_ATTR_PRIVATE);
    g_assert_cmpint(r.status, ==, -EIO);
    g_assert_cmpuint(gm_faults_left(qts), ==, 0);
    gm_quit(qts);
}

/* To send back what did not change is no conversion: it cannot fail. */
static void check_no_change(uint64_t direction)
{
    QTestState *qts = gm_start_poisoned(gm_start);
    unsigned left;
    GmResult r;

    gm_fill(qts, GM_GPA, 2 * GM_PAGE);
    gm_leave(qts, direction, GM_GPA, 2 * GM_PAGE);
    gm_fault(qts, EIO, 0, 3, 0);
    for (left = 3; left--;) {
        r = gm_convert(qts, GM_GPA, 2 * GM_PAGE,
                       direction | GMTD_ATTR_PRESERVE);
        g_assert_cmpint(r.status, ==, -EIO);
        g_assert_cmpuint(gm_faults_left(qts), ==, left);
        g_assert_cmpint(gm_is_private(qts, GM_GPA), ==, !direction);
    }
    gm_assert_running(qts);
    gm_go_to(qts, direction, GM_GPA, 2 * GM_PAGE);
    gm_go_to(qts, 0, GM_GPA, 2 * GM_PAGE);
    gm_assert_filled(qts, GM_GPA, 2 * GM_PAGE);
    gm_quit(qts);
}

static void test_no_change(void)
{
    check_no_change(directions[0]);
    check_no_change(directions[1]);
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

/* The second backend fails, so the first one is rolled back. */
static void check_rollback(uint64_t direction)
{
    QTestState *qts = gm_start_poisoned(gm_start_cells);
    GmResult r;

    gm_fill(qts, SPAN, SPAN_SIZE);
    gm_leave(qts, direction, SPAN, SPAN_SIZE);
    gm_fault(qts, EIO, 1, 1, 0);
    r = gm_convert(qts, SPAN, SPAN_SIZE, direction | GMTD_ATTR_PRESERVE);
    assert_went_back(qts, direction, &r);

    gm_go_to(qts, 0, SPAN, SPAN_SIZE);
    gm_assert_filled(qts, SPAN, SPAN_SIZE);

    /* Nothing of it is left over: the next request can fail, too. */
    gm_leave(qts, direction, SPAN, GM_PAGE);
    gm_leave(qts, direction, GM_CELL, GM_PAGE);
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
 * The last of three runs fails, and a part of it was converted.  The guest is
 * answered that nothing happened, so its secrets must be there.
 */
static void test_rollback_zero(void)
{
    QTestState *qts = gm_start_poisoned(gm_start_cells);
    GmResult r;

    gm_fill(qts, SPAN - GM_PAGE, SPAN_SIZE + GM_PAGE);
    gm_to_private(qts, SPAN - GM_PAGE, GM_PAGE);
    gm_to_private(qts, SPAN + GM_PAGE, SPAN_SIZE - GM_PAGE);
    gm_fault(qts, EIO, 2, 1, GM_PAGE);
    /* The bytes are gone, and nothing but zeros has taken their place. */
    r = gm_convert(qts, SPAN - GM_PAGE, SPAN_SIZE + GM_PAGE, GMTD_ATTR_ZERO);
    g_assert_cmpint(r.status, ==, -EIO);
    g_assert_cmpuint(r.changed, ==, 0);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 2 * GM_PAGE);
    g_assert_cmpuint(gm_private_bytes(qts, "ram1"), ==, 2 * GM_PAGE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.rollbacks"), ==, 1);
    gm_to_shared(qts, SPAN - GM_PAGE, SPAN_SIZE + GM_PAGE);
    gm_assert_bytes(qts, SPAN - GM_PAGE, GM_PAGE, 0);
    gm_assert_filled(qts, SPAN, GM_PAGE);
    gm_assert_bytes(qts, SPAN + GM_PAGE, SPAN_SIZE - GM_PAGE, 0);
    gm_quit(qts);
}

static void test_rollback_runs(void)
{
    QTestState *qts = gm_start_poisoned(gm_start);
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

/* A request does not inherit the changes of the last one. */
static void test_changed_is_forgotten(void)
{
    QTestState *qts = gm_start_poisoned(gm_start);
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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/faults/errors", test_errors);
    qtest_add_func("/guest-memfd/faults/no-time", test_no_time);
    qtest_add_func("/guest-memfd/faults/progress", test_progress);
    qtest_add_func("/guest-memfd/faults/zero", test_zero);
    qtest_add_func("/guest-memfd/faults/no-change", test_no_change);
    qtest_add_func("/guest-memfd/faults/rollback-to-private",
                   test_rollback_to_private);
    qtest_add_func("/guest-memfd/faults/rollback-to-shared",
                   test_rollback_to_shared);
    qtest_add_func("/guest-memfd/faults/rollback-runs", test_rollback_runs);
    qtest_add_func("/guest-memfd/faults/changed-is-forgotten",
                   test_changed_is_forgotten);
    qtest_add_func("/guest-memfd/faults/rollback-zero", test_rollback_zero);

    return g_test_run();
}
