/*
 * qtest: guest memory conversions that are tried again, and their end
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

/* --- trying again ------------------------------------------------------ */

static void check_retry(int error, uint64_t direction, uint64_t progress)
{
    QTestState *qts = gm_start_poisoned(gm_start);
    GmResult r;

    gm_set_timeout(qts, 10000);
    gm_fill(qts, GM_GPA, 2 * GM_PAGE);
    gm_leave(qts, direction, GM_GPA, 2 * GM_PAGE);
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
    gm_go_to(qts, 0, GM_GPA, 2 * GM_PAGE);
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

/* A way back that is interrupted, too, is as good as any other. */
static void check_retry_way_back(int error, uint64_t direction)
{
    QTestState *qts = gm_start_poisoned(gm_start);
    GmResult r;

    gm_set_timeout(qts, 10000);
    gm_fill(qts, GM_GPA, 2 * GM_PAGE);
    gm_leave(qts, direction, GM_GPA, 2 * GM_PAGE);
    /* There, back, and there again. */
    gm_fault(qts, error, 0, 3, GM_PAGE);
    r = gm_convert(qts, GM_GPA, 2 * GM_PAGE, direction | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(r.changed, ==, 2 * GM_PAGE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.retries"), ==, 2);
    g_assert_cmpuint(gm_faults_left(qts), ==, 0);

    /* With no time left the way back is tried all the same. */
    gm_leave(qts, direction, GM_GPA, 2 * GM_PAGE);
    gm_set_timeout(qts, 0);
    gm_fault(qts, error, 0, 2, GM_PAGE);
    r = gm_convert(qts, GM_GPA, 2 * GM_PAGE, direction | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, -error);
    g_assert_cmpint(gm_is_private(qts, GM_GPA), ==, !direction);
    gm_assert_running(qts);
    gm_go_to(qts, 0, GM_GPA, 2 * GM_PAGE);
    gm_assert_filled(qts, GM_GPA, 2 * GM_PAGE);
    gm_quit(qts);
}

static void test_retry_way_back(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(directions); i++) {
        check_retry_way_back(EAGAIN, directions[i]);
        check_retry_way_back(EINTR, directions[i]);
    }
}

/* A page in use in the second backend: the first one is rolled back, too. */
static void test_retry_span(void)
{
    QTestState *qts = gm_start_poisoned(gm_start_cells);
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
    QTestState *qts = gm_start_poisoned(gm_start);
    int64_t start;
    uint64_t ns;
    GmResult r;

    gm_fill(qts, GM_GPA, GM_PAGE);
    gm_set_timeout(qts, 20);
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

/* The process that asks ends before the answer. */
static pid_t convert_in_child(QTestState *qts)
{
    pid_t pid = fork();

    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);

        dup2(null, STDERR_FILENO);
        dup2(null, STDOUT_FILENO);
        gm_convert(qts, GM_GPA, GM_PAGE, GMTD_ATTR_PRIVATE);
        _exit(EXIT_SUCCESS);
    }
    return pid;
}

static char *wait_for(const char *log, const char *word)
{
    for (;;) {
        g_autofree char *lines = NULL;

        g_assert_true(g_file_get_contents(log, &lines, NULL, NULL));
        if (strstr(lines, word)) {
            return g_strdup(strstr(lines, word));
        }
        g_usleep(1000);
    }
}

/*
 * QEMU is to end: no request waits any more.  The trace has the number of
 * retries, which would be thousands if the request had used all of its time.
 */
static void test_killed(void)
{
    g_autofree char *log = g_strdup_printf("%s/gmem-killed-XXXXXX",
                                           g_get_tmp_dir());
    int fd = g_mkstemp(log);
    g_autofree char *options = g_strdup_printf(GM_ONE_BACKEND
        "-trace guest_memfd_convert_begin -trace guest_memfd_convert_end "
        "-D %s", log);
    QTestState *qts = qtest_init(options);
    g_autofree char *begin = NULL, *end = NULL;
    pid_t child;

    g_assert_cmpint(fd, >=, 0);
    gm_set_timeout(qts, 10000);
    g_assert_cmpint(gm_map(qts, GM_GPA), ==, 0);
    child = convert_in_child(qts);
    begin = wait_for(log, "guest_memfd_convert_begin");
    kill(qtest_pid(qts), SIGTERM);
    qtest_wait_qemu(qts);
    g_assert_cmpint(waitpid(child, NULL, 0), ==, child);

    end = wait_for(log, " retries ");
    g_assert_cmpint(atoi(end + strlen(" retries ")), <, 5000);
    qtest_quit(qts);
    unlink(log);
    close(fd);
}

/* --- the end of all ways ----------------------------------------------- */

/*
 * Neither forth nor back: no device may access the page, and the VM stops.
 * The guest gets an error.
 */
static void check_broken(int error, uint64_t direction)
{
    QTestState *qts = gm_start_poisoned(gm_start);
    GmResult r;

    gm_fill(qts, GM_GPA, 2 * GM_PAGE);
    gm_leave(qts, direction, GM_GPA, 2 * GM_PAGE);
    gm_fault(qts, error, 0, 2, GM_PAGE);
    r = gm_convert(qts, GM_GPA, 2 * GM_PAGE, direction | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, -EIO);
    g_assert_cmpuint(r.changed, ==, 0);
    qtest_qmp_eventwait(qts, "STOP");
    g_assert_true(gm_is_private(qts, GM_GPA));
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 2 * GM_PAGE);
    g_assert_cmpuint(gm_failures(qts, "ram0", "EIO"), ==, 1);
    qtest_quit(qts);
}

static void test_broken(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(directions); i++) {
        check_broken(EIO, directions[i]);
        check_broken(ENOMEM, directions[i]);
    }
}

/* The pages that are not lost are rolled back all the same. */
static void test_broken_span(void)
{
    QTestState *qts = gm_start_poisoned(gm_start_cells);
    GmResult r;

    gm_fill(qts, SPAN, SPAN_SIZE);
    gm_fault(qts, ENOMEM, 1, 2, GM_PAGE);
    r = gm_convert(qts, SPAN, SPAN_SIZE,
                   GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, -EIO);
    qtest_qmp_eventwait(qts, "STOP");
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 0);
    g_assert_cmpuint(gm_private_bytes(qts, "ram1"), ==, SPAN_SIZE / 2);
    gm_assert_filled(qts, SPAN, SPAN_SIZE / 2);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/retry/busy", test_retry);
    qtest_add_func("/guest-memfd/retry/way-back", test_retry_way_back);
    qtest_add_func("/guest-memfd/retry/span", test_retry_span);
    qtest_add_func("/guest-memfd/retry/busy-for-ever", test_busy_for_ever);
    qtest_add_func("/guest-memfd/retry/killed", test_killed);
    qtest_add_func("/guest-memfd/retry/broken", test_broken);
    qtest_add_func("/guest-memfd/retry/broken-span", test_broken_span);

    return g_test_run();
}
