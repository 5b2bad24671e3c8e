/*
 * qtest: monitors, debuggers and displays do not get at private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/socket.h>
#include <sys/un.h>
#include "guest-memfd-util.h"
#include "libqos/fw_cfg.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/qemu_fw_cfg.h"

/* The page at GM_GPA is private, its neighbours are shared. */
#define AFTER       (GM_GPA + GM_PAGE)
#define ELSEWHERE   (GM_GPA + 16 * GM_PAGE)
#define FW_CFG_DMA  0x514

static QTestState *start(const char *args)
{
    QTestState *qts = qtest_initf("%s %s", GM_ONE_BACKEND, args);

    gm_fill(qts, GM_GPA, 2 * GM_PAGE);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    return qts;
}

/* The private page was neither read nor written. */
static void end(QTestState *qts)
{
    gm_to_shared(qts, GM_GPA, GM_PAGE);
    gm_assert_filled(qts, GM_GPA, 2 * GM_PAGE);
    gm_quit(qts);
}

/* --- monitor ----------------------------------------------------------- */

/*
 * A range that begins in shared memory and goes on to the private page: the
 * error names it, and the file that was there is.
 */
static void check_save(const char *command, const char *text)
{
    QTestState *qts = start("");
    g_autofree char *path = NULL;
    g_autofree char *bytes = NULL;
    int fd = g_file_open_tmp("guest-memfd-XXXXXX", &path, NULL);
    size_t size;

    g_assert(fd >= 0);
    g_assert_cmpint(write(fd, "old", 3), ==, 3);
    close(fd);
    gm_assert_error(qts, text, "{ 'execute': %s, 'arguments': { 'val': %"
                    PRIu64 ", 'size': 8192, 'filename': %s } }",
                    command, GM_GPA - 4096, path);
    g_assert_true(g_file_get_contents(path, &bytes, &size, NULL));
    g_assert_cmpstr(bytes, ==, "old");

    qtest_qmp_assert_success(qts, "{ 'execute': %s, 'arguments': { 'val': %"
                             PRIu64 ", 'size': 4096, 'filename': %s } }",
                             command, AFTER, path);
    g_clear_pointer(&bytes, g_free);
    g_assert_true(g_file_get_contents(path, &bytes, &size, NULL));
    g_assert_cmpuint(size, ==, 4096);
    g_assert_cmphex((uint8_t)bytes[0], ==, qtest_readb(qts, AFTER));
    unlink(path);
    end(qts);
}

static void test_pmemsave(void)
{
    check_save("pmemsave", "cannot read [0xfff000, +0x2000): it is private "
               "guest memory; dump-guest-memory leaves such pages out");
}

static void test_memsave(void)
{
    check_save("memsave", "Invalid addr 0x0000000000fff000/size 8192");
}

static void set_debug(QTestState *qts, bool debug)
{
    qtest_qmp_assert_success(qts, "{'execute': 'qom-set', 'arguments': "
                             "{'path': '/objects/cgs0', 'property': 'debug', "
                             "'value': %i}}", debug);
}

static bool can_examine(QTestState *qts, const char *command)
{
    g_autofree char *out = qtest_hmp(qts, "%s /4xb 0x%" PRIx64, command,
                                     GM_GPA);

    return !strstr(out, "Cannot access memory") && strstr(out, "0x");
}

/* The user lets those see who debug the guest's kernel, and nobody else. */
static void test_debug(void)
{
    QTestState *qts = start("");

    set_debug(qts, true);
    g_assert_true(can_examine(qts, "x"));
    g_assert_true(can_examine(qts, "xp"));
    g_assert_cmphex(qtest_readl(qts, GM_GPA), ==, 0);
    set_debug(qts, false);
    g_assert_false(can_examine(qts, "x"));
    g_assert_false(can_examine(qts, "xp"));
    end(qts);
}

static void test_examine(void)
{
    static const char *commands[] = { "x", "xp" };
    QTestState *qts = start("");
    int i;

    for (i = 0; i < ARRAY_SIZE(commands); i++) {
        g_autofree char *out = qtest_hmp(qts, "%s /4xb 0x%" PRIx64,
                                         commands[i], GM_GPA);
        g_autofree char *next = qtest_hmp(qts, "%s /4xb 0x%" PRIx64,
                                          commands[i], AFTER);

        g_assert_nonnull(strstr(out, "Cannot access memory"));
        g_assert_null(strstr(next, "Cannot access memory"));
    }
    end(qts);
}

/* --- gdb --------------------------------------------------------------- */

static void send_packet(int fd, const char *body)
{
    g_autofree char *packet = NULL;
    uint8_t sum = 0;
    const char *c;

    for (c = body; *c; c++) {
        sum += *c;
    }
    packet = g_strdup_printf("$%s#%02x", body, sum);
    g_assert_cmpint(write(fd, packet, strlen(packet)), ==, strlen(packet));
}

/* The payload between "$" and "#". */
static char *receive_packet(int fd)
{
    GString *body = g_string_new(NULL);
    char c, sum[2];

    do {
        g_assert_cmpint(read(fd, &c, 1), ==, 1);
    } while (c != '$');
    while (read(fd, &c, 1) == 1 && c != '#') {
        g_string_append_c(body, c);
    }
    g_assert_cmpint(read(fd, sum, 2), ==, 2);
    g_assert_cmpint(write(fd, "+", 1), ==, 1);
    return g_string_free(body, false);
}

static G_GNUC_PRINTF(2, 3) char *ask(int fd, const char *fmt, ...)
{
    g_autofree char *body = NULL;
    va_list ap;

    va_start(ap, fmt);
    body = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    send_packet(fd, body);
    return receive_packet(fd);
}

static int connect_to(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    g_assert(fd >= 0);
    g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
    g_assert(!connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
    return fd;
}

static void check_gdb(int fd)
{
    g_autofree char *read = ask(fd, "m%" PRIx64 ",4", GM_GPA);
    g_autofree char *written = ask(fd, "M%" PRIx64 ",4:ffffffff", GM_GPA);
    g_autofree char *across = ask(fd, "m%" PRIx64 ",8", AFTER - 4);
    g_autofree char *shared = ask(fd, "m%" PRIx64 ",4", AFTER);
    g_autofree char *same = ask(fd, "M%" PRIx64 ",4:%s", AFTER, shared);

    g_assert_cmpstr(read, ==, "E14");
    g_assert_cmpstr(written, ==, "E14");
    g_assert_cmpstr(across, ==, "E14");
    g_assert_cmpint(strlen(shared), ==, 8);
    g_assert_cmpstr(same, ==, "OK");
}

/* By either kind of address; physical ones are left switched on. */
static void check_gdb_sees(int fd)
{
    g_autofree char *before = ask(fd, "m%" PRIx64 ",4", GM_GPA);
    g_autofree char *written = ask(fd, "M%" PRIx64 ",4:12345678", GM_GPA);
    g_autofree char *mode = ask(fd, "Qqemu.PhyMemMode:1");
    g_autofree char *read = ask(fd, "m%" PRIx64 ",4", GM_GPA);
    g_autofree char *back = ask(fd, "M%" PRIx64 ",4:%s", GM_GPA, before);

    g_assert_cmpint(strlen(before), ==, 8);
    g_assert_cmpstr(written, ==, "OK");
    g_assert_cmpstr(mode, ==, "OK");
    g_assert_cmpstr(read, ==, "12345678");
    g_assert_cmpstr(back, ==, "OK");
}

static void check_gdb_physical(int fd)
{
    g_autofree char *read = ask(fd, "m%" PRIx64 ",4", GM_GPA);

    g_assert_cmpstr(read, ==, "E14");
}

static void test_gdb(void)
{
    g_autofree char *dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *path = g_strdup_printf("%s/s", dir);
    g_autofree char *args = NULL;
    QTestState *qts;
    int fd;

    if (!qtest_has_accel("tcg")) {
        g_test_skip("there is no gdb stub without TCG");
        return;
    }
    args = g_strdup_printf("-accel tcg -S -gdb unix:%s,server=on,wait=off",
                           path);
    qts = start(args);
    fd = connect_to(path);
    check_gdb(fd);
    set_debug(qts, true);
    check_gdb_sees(fd);
    set_debug(qts, false);
    check_gdb_physical(fd);
    close(fd);
    end(qts);
    rmdir(dir);
}

/* --- a display in guest memory ----------------------------------------- */

typedef struct QEMU_PACKED RamfbConfig {
    uint64_t addr;
    uint32_t fourcc;
    uint32_t flags;
    uint32_t width;
    uint32_t height;
    uint32_t stride;
} RamfbConfig;

static uint16_t find_key(QTestState *qts, const char *name)
{
    QFWCFG *fw_cfg = pc_fw_cfg_init(qts);
    struct fw_cfg_file file = { };
    uint32_t count;
    uint16_t key = 0;

    qfw_cfg_get(fw_cfg, FW_CFG_FILE_DIR, &count, sizeof(count));
    for (count = be32_to_cpu(count); count && !key; count--) {
        qfw_cfg_read_data(fw_cfg, &file, sizeof(file));
        if (g_str_equal(file.name, name)) {
            key = be16_to_cpu(file.select);
        }
    }
    pc_fw_cfg_uninit(fw_cfg);
    g_assert_cmpint(key, !=, 0);
    return key;
}

static void show(QTestState *qts, uint64_t gpa, uint32_t side)
{
    const RamfbConfig config = {
        .addr = cpu_to_be64(gpa),
        .fourcc = cpu_to_be32(0x34325258),      /* XR24 */
        .width = cpu_to_be32(side),
        .height = cpu_to_be32(side),
    };
    const struct fw_cfg_dma_access access = {
        .control = cpu_to_be32(find_key(qts, "etc/ramfb") << 16 |
                               FW_CFG_DMA_CTL_SELECT | FW_CFG_DMA_CTL_WRITE),
        .length = cpu_to_be32(sizeof(config)),
        .address = cpu_to_be64(ELSEWHERE + 256),
    };

    qtest_memwrite(qts, ELSEWHERE, &access, sizeof(access));
    qtest_memwrite(qts, ELSEWHERE + 256, &config, sizeof(config));
    qtest_outl(qts, FW_CFG_DMA, bswap32((uint64_t)ELSEWHERE >> 32));
    qtest_outl(qts, FW_CFG_DMA + 4, bswap32(ELSEWHERE));
    g_assert_cmphex(qtest_readl(qts, ELSEWHERE), ==, 0);
}

static void test_screendump(void)
{
    QTestState *qts = start("-device ramfb -display none");
    int i;

    /* Not even a picture that fits in a bounce buffer, time and again. */
    for (i = 0; i < 3; i++) {
        show(qts, GM_GPA, 32);
        g_assert_cmphex(gm_first_pixel(qts), ==, 0);
    }
    show(qts, GM_GPA, 64);

    /* Pages on display stay shared. */
    qtest_writel(qts, AFTER, 0x123456);
    show(qts, AFTER, 64);
    g_assert_cmphex(gm_first_pixel(qts), ==, 0x123456);
    gm_set_timeout(qts, 0);
    g_assert_cmpint(gm_convert(qts, AFTER, GM_PAGE,
                               GMTD_ATTR_PRIVATE).status, ==, -EAGAIN);
    show(qts, AFTER + 2 * GM_PAGE, 64);
    gm_first_pixel(qts);
    gm_to_private(qts, AFTER, GM_PAGE);
    gm_to_shared(qts, AFTER, GM_PAGE);
    gm_fill(qts, AFTER, GM_PAGE);
    end(qts);
}

/* Memory that was shown before a reset is the next kernel's. */
static void test_shown_before_reset(void)
{
    QTestState *qts = qtest_init(GM_ONE_BACKEND "-device ramfb -display none");

    gm_set_timeout(qts, 0);
    show(qts, AFTER, 64);
    gm_first_pixel(qts);
    g_assert_cmpint(gm_convert(qts, AFTER, GM_PAGE,
                               GMTD_ATTR_PRIVATE).status, ==, -EAGAIN);
    qtest_system_reset(qts);
    g_assert_cmpint(gm_convert(qts, AFTER, GM_PAGE,
                               GMTD_ATTR_PRIVATE).status, ==, 0);
    gm_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/monitor/pmemsave", test_pmemsave);
    qtest_add_func("/guest-memfd/monitor/memsave", test_memsave);
    qtest_add_func("/guest-memfd/monitor/examine", test_examine);
    qtest_add_func("/guest-memfd/monitor/gdb", test_gdb);
    qtest_add_func("/guest-memfd/monitor/debug", test_debug);
    qtest_add_func("/guest-memfd/monitor/screendump", test_screendump);
    qtest_add_func("/guest-memfd/monitor/shown-before-reset",
                   test_shown_before_reset);

    return g_test_run();
}
