/*
 * qtest: the server of an assigned device is killed while memory is converted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The server is a process that kills itself when it is asked to map, or to
 * unmap, a certain page, or in its answer to that: it does so in the middle of
 * a conversion.  Without a server nothing is left that uses memory, so that all
 * requests succeed, at once.
 */

#include "qemu/osdep.h"
#include <sys/wait.h>
#include "guest-memfd-util.h"
#include "qapi/error.h"
#include "qemu/sockets.h"
#include "../guest-memfd/vfio-user.h"

#define PAGE            4096
#define AREA            (8 * MiB)
#define SIZE            (16 * PAGE)
#define FATAL           (AREA + SIZE / 2)
#define REQUESTS        100
#define LINES_MAX       5

/* As a guest's ACPI code does it: a bus is selected, a slot ejected. */
#define PCIHP_EJECT     (0xcc0 + 0x08)
#define PCIHP_BUS       (0xcc0 + 0x10)

/* --- the server -------------------------------------------------------- */

typedef struct Server {
    char *dir;
    char *path;
    pid_t pid;
    bool in_map;                /* or in unmap */
    bool in_answer;             /* or before it */
    bool converting;            /* all memory was mapped before */
} Server;

static int die_at(const Server *s, uint64_t iova, uint64_t size)
{
    if (FATAL - iova >= size) {
        return 0;
    }
    if (!s->in_answer) {
        raise(SIGKILL);
    }
    return -1;
}

static int server_map(void *opaque, uint64_t iova, uint64_t size)
{
    const Server *s = opaque;

    return s->in_map && s->converting ? die_at(s, iova, size) : 0;
}

static int server_unmap(void *opaque, uint64_t iova, uint64_t size)
{
    Server *s = opaque;

    s->converting |= iova == AREA;
    return s->in_map ? 0 : die_at(s, iova, size);
}

static void server_start(Server *s, bool in_map, bool in_answer)
{
    int listener;

    *s = (Server) { .in_map = in_map, .in_answer = in_answer };
    s->dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_assert_nonnull(s->dir);
    s->path = g_build_filename(s->dir, "device", NULL);
    listener = unix_listen(s->path, &error_abort);
    s->pid = fork();
    g_assert_cmpint(s->pid, >=, 0);
    if (!s->pid) {
        const struct vfio_user_device callbacks = {
            .map = server_map,
            .unmap = server_unmap,
            .opaque = s,
        };

        _exit(vfio_user_serve(listener, &callbacks));
    }
    close(listener);
}

/* It has been killed, and has not ended in any other way. */
static void server_join(Server *s)
{
    int status;

    g_assert_cmpint(waitpid(s->pid, &status, 0), ==, s->pid);
    g_assert_true(WIFSIGNALED(status));
    g_assert_cmpint(WTERMSIG(status), ==, SIGKILL);
    unlink(s->path);
    g_assert_cmpint(rmdir(s->dir), ==, 0);
    g_free(s->path);
    g_free(s->dir);
}

/* --- the machine ------------------------------------------------------- */

static QTestState *start(const Server *s, const char *log)
{
    return qtest_initf(GM_MACHINE GM_TESTDEV "-m 16M "
        "-object guest-memfd-manager,id=gmm0,retry-timeout-ms=0 "
        "-object memory-backend-memfd-private,id=ram0,size=16M "
        "-machine memory-backend=ram0 -device pcie-root-port,id=rp0 "
        "-device '{\"driver\":\"vfio-user-pci\",\"id\":\"dev0\","
        "\"bus\":\"rp0\",\"socket\":{\"type\":\"unix\","
        "\"path\":\"%s\"}}' 2>%s", s->path, log);
}

static void unplug(QTestState *qts)
{
    uint64_t bus = gm_get_int(qts, "/machine/peripheral/rp0/rp0",
                              "acpi-pcihp-bsel");

    qtest_qmp_device_del_send(qts, "dev0");
    qtest_outl(qts, PCIHP_BUS, bus);
    qtest_outl(qts, PCIHP_EJECT, 1);
    qtest_qmp_eventwait(qts, "DEVICE_DELETED");
}

static int64_t convert(QTestState *qts, uint64_t attributes)
{
    return gm_convert(qts, AREA, SIZE, attributes).status;
}

static unsigned private_pages(QTestState *qts)
{
    unsigned n = 0, i;

    for (i = 0; i < SIZE / PAGE; i++) {
        n += gm_is_private(qts, AREA + i * PAGE);
    }
    return n;
}

static void check_request(QTestState *qts, bool private)
{
    g_assert_cmpint(convert(qts, private ? GMTD_ATTR_PRIVATE :
                                           GMTD_ATTR_ZERO), ==, 0);
    g_assert_cmpuint(private_pages(qts), ==, private ? SIZE / PAGE : 0);
}

/* No line of QEMU's log may repeat with each request. */
static void check_log(const char *log)
{
    g_autofree char *text = NULL;
    unsigned n = 0;
    char *at;

    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    for (at = text; *at; at++) {
        n += *at == '\n';
    }
    g_test_message("%s", text);
    g_assert_cmpuint(n, <=, LINES_MAX);
    g_assert_null(strstr(text, "timed out"));
    g_assert_null(strstr(text, "can still access"));
    g_assert_null(strstr(text, "cannot use"));
}

static void check_running(QTestState *qts)
{
    g_autoptr(QDict) answer = qtest_qmp(qts, "{ 'execute': 'query-status' }");

    g_assert_true(qdict_get_bool(qdict_get_qdict(answer, "return"),
                                 "running"));
}

static void test_killed(const void *opaque)
{
    const bool in_map = g_str_has_prefix(opaque, "map");
    const bool in_answer = g_str_has_suffix(opaque, "answer");
    g_autofree char *log = g_strdup_printf("%s/gmem-dies-XXXXXX",
                                           g_get_tmp_dir());
    int fd = g_mkstemp(log);
    QTestState *qts;
    Server server;
    unsigned i;

    g_assert_cmpint(fd, >=, 0);
    server_start(&server, in_map, in_answer);
    qts = start(&server, log);
    if (in_map) {
        check_request(qts, true);
    }
    check_request(qts, !in_map);
    server_join(&server);
    for (i = 0; i < REQUESTS; i++) {
        check_request(qts, !in_map ^ !(i & 1));
    }
    check_running(qts);

    unplug(qts);
    check_request(qts, true);
    check_request(qts, false);
    gm_quit(qts);
    check_log(log);
    unlink(log);
    close(fd);
}

/* Rather than nothing. */
static void test_none(void)
{
    g_test_skip("this QEMU has no vfio-user-pci");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    if (!qtest_has_device("vfio-user-pci")) {
        qtest_add_func("/guest-memfd/vfio-dies/none", test_none);
        return g_test_run();
    }
    qtest_add_data_func("/guest-memfd/vfio-dies/map", "map", test_killed);
    qtest_add_data_func("/guest-memfd/vfio-dies/unmap", "unmap", test_killed);
    qtest_add_data_func("/guest-memfd/vfio-dies/map-answer", "map-answer",
                        test_killed);
    qtest_add_data_func("/guest-memfd/vfio-dies/unmap-answer", "unmap-answer",
                        test_killed);

    return g_test_run();
}
