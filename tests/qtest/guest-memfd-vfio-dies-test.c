/*
 * qtest: the server of an assigned device is killed while memory is converted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The server is a process that kills itself when it is asked to map, or to
 * unmap, a certain page, or in its answer to that, or stops in the answer, or
 * takes no more messages: in the middle of a conversion.  Or it does so when
 * the guest reads from the device.  Without a server nothing is left that uses
 * memory, so that all requests succeed, at once.
 */

#include "qemu/osdep.h"
#include <sys/prctl.h>
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
#define BAR             0
#define BAR_ADDR        0xe0000000

/* As a guest's ACPI code does it: a bus is selected, a slot ejected. */
#define PCIHP_EJECT     (0xcc0 + 0x08)
#define PCIHP_BUS       (0xcc0 + 0x10)

/* --- the server -------------------------------------------------------- */

typedef struct Server {
    char *dir;
    char *path;
    pid_t pid;
    bool in_map;                /* or in unmap */
    bool in_read;               /* or in a read of the device's BAR */
    int how;                    /* as of a callback; 0: before the answer */
    bool converting;            /* all memory was mapped before */
} Server;

static int die_at(const Server *s, uint64_t iova, uint64_t size)
{
    if (FATAL - iova >= size) {
        return 0;
    }
    if (!s->how) {
        raise(SIGKILL);
    }
    return s->how;
}

static int server_read(void *opaque, uint32_t region, uint64_t offset)
{
    const Server *s = opaque;

    return s->in_read && region == BAR ? s->how : 0;
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
    return s->in_map || s->in_read ? 0 : die_at(s, iova, size);
}

static void server_start(Server *s)
{
    int listener;

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
            .read = server_read,
            .opaque = s,
        };

        /* A test that fails leaves nothing behind. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(vfio_user_serve(listener, &callbacks));
    }
    close(listener);
}

/* It has been killed, and has not ended in any other way. */
static void server_join(Server *s)
{
    int status;

    if (s->how && s->how != VFIO_USER_DIE) {
        kill(s->pid, SIGKILL);
    }
    g_assert_cmpint(waitpid(s->pid, &status, 0), ==, s->pid);
    g_assert_true(WIFSIGNALED(status));
    g_assert_cmpint(WTERMSIG(status), ==, SIGKILL);
    unlink(s->path);
    g_assert_cmpint(rmdir(s->dir), ==, 0);
    g_free(s->path);
    g_free(s->dir);
}

/* --- the machine ------------------------------------------------------- */

static QTestState *start(const Server *s, const char *options,
                         const char *log)
{
    return qtest_initf(GM_MACHINE GM_TESTDEV "-m 16M "
        "-object guest-memfd-manager,id=gmm0,retry-timeout-ms=0 "
        "-object memory-backend-memfd-private,id=ram0,size=16M "
        "-machine memory-backend=ram0 -device pcie-root-port,id=rp0,addr=5 "
        "-device '{\"driver\":\"vfio-user-pci\",\"id\":\"dev0\","
        "\"bus\":\"rp0\",%s\"socket\":{\"type\":\"unix\","
        "\"path\":\"%s\"}}' 2>%s", options, s->path, log);
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
static void check_log(const Server *s, const char *log)
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
    g_assert_cmpint(!!strstr(text, "timed out"), ==,
                    s->how == VFIO_USER_STALL);
    g_assert_null(strstr(text, "can still access"));
    g_assert_null(strstr(text, "cannot use"));
}

static void check_running(QTestState *qts)
{
    g_autoptr(QDict) answer = qtest_qmp(qts, "{ 'execute': 'query-status' }");

    g_assert_true(qdict_get_bool(qdict_get_qdict(answer, "return"),
                                 "running"));
}

/* --- the device as the guest sees it ------------------------------------ */

static void write_config(QTestState *qts, unsigned bus, unsigned slot,
                         unsigned offset, uint32_t value)
{
    qtest_outl(qts, 0xcf8, 1u << 31 | bus << 16 | slot << 11 | offset);
    qtest_outl(qts, 0xcfc, value);
}

static uint32_t read_config(QTestState *qts, unsigned bus, unsigned slot,
                            unsigned offset)
{
    qtest_outl(qts, 0xcf8, 1u << 31 | bus << 16 | slot << 11 | offset);
    return qtest_inl(qts, 0xcfc);
}

/* As firmware does it: buses, the root port's window, the BAR, memory. */
static void map_bar(QTestState *qts)
{
    write_config(qts, 0, 5, 0x18, 0x00010100);
    write_config(qts, 0, 5, 0x20, BAR_ADDR >> 16 | BAR_ADDR);
    write_config(qts, 0, 5, 0x04, 6);
    write_config(qts, 1, 0, 0x10, BAR_ADDR);
    write_config(qts, 1, 0, 0x04, 6);
}

/* A device that is gone reads as all ones, and writes have no effect. */
static void use_device_that_is_gone(QTestState *qts)
{
    unsigned i;

    for (i = 0; i < REQUESTS; i++) {
        g_assert_cmphex(qtest_readl(qts, BAR_ADDR), ==, UINT32_MAX);
        qtest_writel(qts, BAR_ADDR, i);
        g_assert_cmphex(read_config(qts, 1, 0, 0x40), ==, UINT32_MAX);
        write_config(qts, 1, 0, 0x40, i);
    }
}

/* --- the tests ---------------------------------------------------------- */

static void test_gone(Server *s, const char *options)
{
    g_autofree char *log = g_strdup_printf("%s/gmem-dies-XXXXXX",
                                           g_get_tmp_dir());
    int fd = g_mkstemp(log);
    QTestState *qts;
    unsigned i;

    g_assert_cmpint(fd, >=, 0);
    server_start(s);
    qts = start(s, options, log);
    map_bar(qts);
    if (s->in_map || s->in_read) {
        check_request(qts, true);
    }
    if (s->in_read) {
        g_assert_cmphex(qtest_readl(qts, BAR_ADDR), ==,
                        s->how == VFIO_USER_DEAF ? 0 : UINT32_MAX);
        /* A posted write: nobody waits for it. */
        qtest_writel(qts, BAR_ADDR, 0);
    } else {
        g_assert_cmphex(qtest_readl(qts, BAR_ADDR), ==, 0);
        check_request(qts, !s->in_map);
    }
    use_device_that_is_gone(qts);
    for (i = 0; i < REQUESTS; i++) {
        check_request(qts, (!s->in_map && !s->in_read) ^ !(i & 1));
    }
    server_join(s);
    check_running(qts);

    unplug(qts);
    check_request(qts, true);
    check_request(qts, false);
    gm_quit(qts);
    check_log(s, log);
    unlink(log);
    close(fd);
}

static void test_killed(const void *opaque)
{
    Server server = {
        .in_map = g_str_has_prefix(opaque, "map"),
        .how = g_str_has_suffix(opaque, "answer") ? VFIO_USER_DIE : 0,
    };

    test_gone(&server, "");
}

/* It stops in the middle of an answer, and QEMU waits no longer than this. */
static void test_stalls(const void *opaque)
{
    Server server = {
        .in_map = g_str_has_prefix(opaque, "map"),
        .in_read = g_str_has_prefix(opaque, "read"),
        .how = VFIO_USER_STALL,
    };

    test_gone(&server, "\"x-msg-timeout\":1000,");
}

/* The data of an answer to no request are not taken for messages. */
static void test_late(void)
{
    Server server = { .in_read = true, .how = VFIO_USER_LATE };

    test_gone(&server, "");
}

/*
 * QEMU cannot send any more, and does not know yet that the server is gone: a
 * message that nobody waits for is freed while it is sent.
 */
static void test_deaf(const void *opaque)
{
    Server server = {
        .in_map = g_str_has_prefix(opaque, "map"),
        .in_read = g_str_has_prefix(opaque, "read"),
        .how = VFIO_USER_DEAF,
    };

    test_gone(&server, g_str_has_suffix(opaque, "queued") ?
              "\"x-send-queued\":true," : "");
}

/* Rather than nothing. */
static void test_none(void)
{
    g_test_skip("this QEMU has no vfio-user-pci");
}

static void add(const char *name, GTestDataFunc test)
{
    g_autofree char *path = g_strdup_printf("/guest-memfd/vfio-dies/%s", name);

    qtest_add_data_func(path, name, test);
}

int main(int argc, char **argv)
{
    static const char *const stalls[] = {
        "map-stalls", "unmap-stalls", "read-stalls",
    };
    static const char *const deaf[] = {
        "map-deaf", "unmap-deaf", "read-deaf", "map-deaf-queued",
        "unmap-deaf-queued", "read-deaf-queued",
    };
    unsigned i;

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
    for (i = 0; i < ARRAY_SIZE(stalls); i++) {
        add(stalls[i], test_stalls);
    }
    qtest_add_func("/guest-memfd/vfio-dies/read-late", test_late);
    for (i = 0; i < ARRAY_SIZE(deaf); i++) {
        add(deaf[i], test_deaf);
    }

    return g_test_run();
}
