/*
 * qtest: disk requests that a guest cuts short, and what they hold
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-util.h"
#include "qemu/bswap.h"

#define CONFIG_ADDRESS  0xcf8
#define CONFIG_DATA     0xcfc
#define COMMAND         0x04

/* IDE: the function of the PIIX3, and where its registers come to be. */
#define PIIX_IDE        (1 << 3 | 1)
#define BMDMA_BAR       0x20
#define BMDMA           0xc000
#define CHANNEL(n)      ((n) ? 0x170 : 0x1f0)
#define READ_DMA        0xc8

/* AHCI: the function of the ICH9, and where its registers come to be. */
#define ICH9_AHCI       (31 << 3 | 2)
#define ABAR            0x24
#define HBA             0xe0000000
#define GHC             (HBA + 4)
#define GHC_RESET       (1u << 31 | 1)
#define GHC_ENABLE      (1u << 31)
#define PORT(n)         (HBA + 0x100 + 0x80 * (n))
#define PX_FB           0x08
#define PX_CMD          0x18
#define PX_SCTL         0x2c
#define PX_CI           0x38
#define CMD_FRE         0x10
#define CMD_START       0x11

/* No device is there: DMA to it takes bounce buffers. */
#define NO_RAM          0xd0000000
#define SECTOR          512
#define TABLE           (GM_GPA + 0x2000)
#define BUFFER          (GM_GPA + 8 * GM_PAGE)

#define DISK            "-blockdev null-co,node-name=d0,size=1048576," \
                        "read-zeroes=on "
#define AHCI            GM_ONE_BACKEND DISK "-device ide-hd,drive=d0,bus=ide.4"

static void set_config(QTestState *qts, unsigned devfn, unsigned reg,
                       uint32_t value)
{
    qtest_outl(qts, CONFIG_ADDRESS, 1u << 31 | devfn << 8 | reg);
    qtest_outl(qts, CONFIG_DATA, value);
}

/* --- IDE ---------------------------------------------------------------- */

static void read_ide(QTestState *qts, unsigned channel, uint64_t prd,
                     uint64_t buffer, unsigned sectors)
{
    const unsigned bm = BMDMA + 8 * channel, io = CHANNEL(channel);

    qtest_writel(qts, prd, buffer);
    qtest_writel(qts, prd + 4, 1u << 31 | sectors * SECTOR);
    qtest_outl(qts, bm + 4, prd);
    qtest_outb(qts, bm, 8);
    qtest_outb(qts, io + 6, 0xe0);
    qtest_outb(qts, io + 2, sectors);
    qtest_outb(qts, io + 3, 0);
    qtest_outb(qts, io + 4, 0);
    qtest_outb(qts, io + 5, 0);
    qtest_outb(qts, io + 7, READ_DMA);
    qtest_outb(qts, bm, 9);
}

/* The bounce buffer is another request's: nothing was submitted yet. */
static void test_ide_stop(void)
{
    QTestState *qts = qtest_init("-nodefaults -machine pc -m 64M "
        "-blockdev null-co,node-name=d0,size=1048576,read-zeroes=on,"
        "latency-ns=2000000000 "
        "-blockdev null-co,node-name=d1,size=1048576,read-zeroes=on "
        "-device ide-hd,drive=d0,bus=ide.0 "
        "-device ide-hd,drive=d1,bus=ide.1,rerror=stop");

    set_config(qts, PIIX_IDE, BMDMA_BAR, BMDMA | 1);
    set_config(qts, PIIX_IDE, COMMAND, 5);
    read_ide(qts, 0, GM_GPA, NO_RAM, 8);
    read_ide(qts, 1, GM_GPA + 0x100, NO_RAM + 0x2000, 1);
    qtest_outb(qts, BMDMA + 8, 8);
    gm_assert_running(qts);
    qtest_quit(qts);
}

/* --- AHCI --------------------------------------------------------------- */

static QTestState *start_ahci(const char *args)
{
    QTestState *qts = qtest_init(args);

    set_config(qts, ICH9_AHCI, ABAR, HBA);
    set_config(qts, ICH9_AHCI, COMMAND, 7);
    qtest_writel(qts, GHC, GHC_ENABLE);
    gm_set_timeout(qts, 0);
    return qts;
}

static void start_port(QTestState *qts, unsigned n, uint64_t list,
                       uint64_t fis, uint32_t cmd)
{
    qtest_writel(qts, PORT(n), list);
    qtest_writel(qts, PORT(n) + PX_FB, fis);
    qtest_writel(qts, PORT(n) + PX_CMD, cmd);
}

typedef struct Prd {
    uint64_t address;
    uint32_t reserved;
    uint32_t last;              /* the number of bytes less one */
} Prd;

/* One sector, by port 4. */
static void read_ahci(QTestState *qts, const Prd *prds, unsigned count)
{
    static const uint8_t fis[16] = {
        0x27, 0x80, READ_DMA, [7] = 0x40, [12] = 1,
    };
    unsigned i;

    qtest_writel(qts, GM_GPA, 5 | count << 16);
    qtest_writel(qts, GM_GPA + 4, 0);
    qtest_writeq(qts, GM_GPA + 8, TABLE);
    qtest_memwrite(qts, TABLE, fis, sizeof(fis));
    for (i = 0; i < count; i++) {
        qtest_writeq(qts, TABLE + 0x80 + 16 * i, prds[i].address);
        qtest_writel(qts, TABLE + 0x8c + 16 * i, prds[i].last);
    }
    qtest_writel(qts, PORT(4) + PX_CI, 1);
}

/*
 * Bounce buffers are used up, and less than a sector is RAM: the request
 * waits, and a reset of the port ends it.
 */
static void test_ahci_no_sector(void)
{
    const Prd prds[] = {
        { BUFFER, 0, 99 },
        { NO_RAM + 0x2000, 0, SECTOR - 100 - 1 },
    };
    QTestState *qts = start_ahci(AHCI);
    unsigned n;

    for (n = 0; n < 4; n++) {
        start_port(qts, n, NO_RAM, NO_RAM + 0x1000,
                   n < 3 ? CMD_START : CMD_FRE);
    }
    start_port(qts, 4, GM_GPA, GM_GPA + 0x1000, CMD_START);
    read_ahci(qts, prds, ARRAY_SIZE(prds));
    gm_assert_running(qts);
    g_assert_cmphex(qtest_readl(qts, PORT(4) + PX_CI), ==, 1);
    qtest_writel(qts, PORT(4) + PX_SCTL, 1);
    qtest_writel(qts, PORT(4) + PX_SCTL, 0);
    gm_assert_running(qts);
    gm_quit(qts);
}

/* A private buffer is no error of the disk. */
static void check_error_policy(const char *policy)
{
    const Prd prd = { BUFFER, 0, SECTOR - 1 };
    g_autofree char *args = g_strdup_printf(AHCI ",rerror=%s,werror=%s",
                                            policy, policy);
    QTestState *qts = start_ahci(args);
    const int64_t end = g_get_monotonic_time() + 10 * G_USEC_PER_SEC;

    start_port(qts, 4, GM_GPA, GM_GPA + 0x1000, CMD_START);
    gm_to_private(qts, BUFFER, GM_PAGE);
    read_ahci(qts, &prd, 1);
    /* The status of the task file: an error. */
    while (!(qtest_readl(qts, PORT(4) + 0x20) & 1)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
    gm_assert_running(qts);
    gm_quit(qts);
}

static void test_error_stop(void)
{
    check_error_policy("stop");
}

static void test_error_ignore(void)
{
    check_error_policy("ignore");
}

static int64_t make_private(QTestState *qts)
{
    return gm_convert(qts, GM_GPA, GM_PAGE, GMTD_ATTR_PRIVATE).status ?:
           gm_convert(qts, BUFFER, GM_PAGE, GMTD_ATTR_PRIVATE).status;
}

/* The next kernel may make private what the last one gave to a port. */
static void test_ahci_reset(void)
{
    QTestState *qts = start_ahci(AHCI);

    start_port(qts, 4, GM_GPA, BUFFER, CMD_START);
    g_assert_cmpint(make_private(qts), ==, -EAGAIN);
    qtest_writel(qts, GHC, GHC_RESET);
    g_assert_cmpint(make_private(qts), ==, 0);
    gm_to_shared(qts, GM_GPA, GM_PAGE);
    gm_to_shared(qts, BUFFER, GM_PAGE);

    qtest_writel(qts, GHC, GHC_ENABLE);
    start_port(qts, 4, GM_GPA, BUFFER, CMD_START);
    g_assert_cmpint(make_private(qts), ==, -EAGAIN);
    qtest_system_reset(qts);
    g_assert_cmpint(make_private(qts), ==, 0);
    gm_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    if (qtest_has_machine("pc")) {
        qtest_add_func("/guest-memfd/storage/ide-stop", test_ide_stop);
    }
    qtest_add_func("/guest-memfd/storage/no-sector", test_ahci_no_sector);
    qtest_add_func("/guest-memfd/storage/error-stop", test_error_stop);
    qtest_add_func("/guest-memfd/storage/error-ignore", test_error_ignore);
    qtest_add_func("/guest-memfd/storage/reset", test_ahci_reset);

    return g_test_run();
}
