/*
 * qtest: only the guest can access private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-queue.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "standard-headers/linux/qemu_fw_cfg.h"

#define RNG         "-object rng-builtin,id=rng0 " \
                    "-device virtio-rng-pci,rng=rng0,addr=1"

/* The page at GM_GPA is private, its neighbours are shared. */
#define BEFORE      (GM_GPA - GM_PAGE)
#define AFTER       (GM_GPA + GM_PAGE)
#define ELSEWHERE   (GM_GPA + 16 * GM_PAGE)
/* A pattern that only the private page has. */
#define SECRET      "The quick brown fox jumps over the lazy dog."

static QTestState *start(const char *args)
{
    QTestState *qts = qtest_initf("%s %s", GM_ONE_BACKEND, args);

    gm_fill(qts, BEFORE, 3 * GM_PAGE);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    return qts;
}

/* The private page was neither read nor written. */
static void end(QTestState *qts)
{
    gm_to_shared(qts, GM_GPA, GM_PAGE);
    gm_assert_filled(qts, BEFORE, 3 * GM_PAGE);
    gm_quit(qts);
}

/* --- the test device --------------------------------------------------- */

static void check_refused(QTestState *qts, uint64_t gpa, uint64_t size)
{
    uint64_t secret = 0x5ec2e7, data;

    qtest_writeq(qts, GMTD_BASE + GMTD_REG_DATA, secret);
    g_assert_cmpint(gm_read(qts, gpa, size, &data), ==, -EFAULT);
    /* Not even a part of it was read. */
    g_assert_cmphex(data, ==, secret);
    g_assert_cmpint(gm_write(qts, gpa, size, -1), ==, -EFAULT);
}

static void test_dma(void)
{
    QTestState *qts = start("");
    uint64_t size;

    for (size = 1; size <= 8; size++) {
        check_refused(qts, GM_GPA, size);
        check_refused(qts, GM_GPA + 0x800, size);
        check_refused(qts, AFTER - size, size);
    }
    end(qts);
}

/* The byte before the private page may be accessed, and the one after. */
static void test_dma_edges(void)
{
    QTestState *qts = start("");
    uint64_t data;

    g_assert_cmpint(gm_read(qts, GM_GPA - 8, 8, &data), ==, 0);
    g_assert_cmpint(gm_write(qts, GM_GPA - 8, 8, data), ==, 0);
    g_assert_cmpint(gm_read(qts, AFTER, 8, &data), ==, 0);
    g_assert_cmpint(gm_write(qts, AFTER, 8, data), ==, 0);

    /* Half of the access is in the private page. */
    g_assert_cmpint(gm_read(qts, GM_GPA - 4, 8, &data), ==, -EFAULT);
    g_assert_cmpint(gm_read(qts, AFTER - 4, 8, &data), ==, -EFAULT);
    g_assert_cmpint(gm_write(qts, GM_GPA - 1, 2, 0), ==, -EFAULT);
    g_assert_cmpint(gm_write(qts, AFTER - 1, 2, 0), ==, -EFAULT);
    gm_fill(qts, BEFORE, GM_PAGE);
    gm_fill(qts, AFTER, GM_PAGE);
    end(qts);
}

static void test_copy(void)
{
    QTestState *qts = start("");
    uint64_t done;

    gm_fill(qts, ELSEWHERE, 3 * GM_PAGE);
    g_assert_cmpint(gm_copy(qts, GM_GPA, ELSEWHERE, GM_PAGE, &done), ==,
                    -EFAULT);
    g_assert_cmpuint(done, ==, 0);
    g_assert_cmpint(gm_copy(qts, ELSEWHERE, GM_GPA, GM_PAGE, &done), ==,
                    -EFAULT);
    g_assert_cmpuint(done, ==, 0);
    gm_assert_filled(qts, ELSEWHERE, 3 * GM_PAGE);

    /* Into the private page, and out of it. */
    g_assert_cmpint(gm_copy(qts, ELSEWHERE, GM_GPA - 0x4000, 0x8000, &done),
                    ==, -EFAULT);
    g_assert_cmpuint(done, ==, 0x4000);
    g_assert_cmpint(gm_copy(qts, BEFORE, ELSEWHERE, 3 * GM_PAGE, &done), ==,
                    -EFAULT);
    g_assert_cmpuint(done, ==, GM_PAGE);
    gm_assert_filled(qts, ELSEWHERE + GM_PAGE, 2 * GM_PAGE);

    g_assert_cmpint(gm_copy(qts, AFTER, ELSEWHERE, GM_PAGE, &done), ==, 0);
    g_assert_cmpuint(done, ==, GM_PAGE);
    gm_fill(qts, BEFORE, GM_PAGE);
    end(qts);
}

static void test_device(void)
{
    QTestState *qts = gm_start();
    uint64_t data;

    g_assert_cmphex(qtest_readq(qts, GMTD_BASE + GMTD_REG_ID), ==, GMTD_ID);
    g_assert_cmpint(gm_read(qts, GM_GPA, 0, &data), ==, -EINVAL);
    g_assert_cmpint(gm_read(qts, GM_GPA, 9, &data), ==, -EINVAL);
    g_assert_cmpint(gm_write(qts, GM_GPA, 0, 0), ==, -EINVAL);
    g_assert_cmpint(gm_write(qts, GM_GPA, 9, 0), ==, -EINVAL);
    g_assert_cmpint(gm_copy(qts, GM_GPA, GM_GPA, GMTD_COPY_MAX + 1, &data),
                    ==, -EINVAL);
    qtest_writeq(qts, GMTD_BASE + GMTD_REG_COMMAND, 99);
    g_assert_cmpint(qtest_readq(qts, GMTD_BASE + GMTD_REG_STATUS), ==,
                    -EINVAL);

    g_assert_cmpint(gm_write(qts, GM_GPA, 8, 0x0102030405060708), ==, 0);
    g_assert_cmpint(gm_read(qts, GM_GPA, 3, &data), ==, 0);
    g_assert_cmphex(data, ==, 0x060708);
    gm_quit(qts);
}

/* One page at a time, and only one that devices may touch. */
static void test_pin(void)
{
    QTestState *qts = start("");

    g_assert_cmpint(gm_pin(qts, AFTER), ==, 0);
    g_assert_cmpint(gm_pin(qts, AFTER), ==, -EBUSY);
    g_assert_cmpint(gm_pin(qts, BEFORE), ==, -EBUSY);
    g_assert_cmpint(gm_pin(qts, GM_GPA), ==, -EBUSY);
    g_assert_cmpint(gm_unpin(qts), ==, 0);
    g_assert_cmpint(gm_unpin(qts), ==, 0);

    /* Nothing is held after a failure. */
    g_assert_cmpint(gm_pin(qts, GM_GPA), ==, -EFAULT);
    g_assert_cmpint(gm_pin(qts, AFTER - 8), ==, -EFAULT);
    g_assert_cmpint(gm_pin(qts, 2 * GiB), ==, -EFAULT);
    g_assert_cmpint(gm_pin(qts, BEFORE), ==, 0);
    g_assert_cmpint(gm_unpin(qts), ==, 0);
    end(qts);
}

/* The emulated provider does not know which pages are mapped. */
static void test_pin_converts(void)
{
    QTestState *qts = start("");

    g_assert_cmpint(gm_pin(qts, AFTER), ==, 0);
    gm_to_private(qts, AFTER, GM_PAGE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.retries"), ==, 0);
    g_assert_cmpint(gm_unpin(qts), ==, 0);
    g_assert_cmpint(gm_pin(qts, AFTER), ==, -EFAULT);
    gm_to_shared(qts, AFTER, GM_PAGE);
    end(qts);
}

/* --- other ways in ----------------------------------------------------- */

static void test_qtest(void)
{
    QTestState *qts = start("");
    uint8_t bytes[64];
    unsigned i;

    qtest_memset(qts, GM_GPA, 0xff, GM_PAGE);
    qtest_writeq(qts, GM_GPA + 8, UINT64_MAX);
    qtest_memread(qts, GM_GPA, bytes, sizeof(bytes));
    for (i = 0; i < sizeof(bytes); i++) {
        g_assert_cmphex(bytes[i], ==, 0);
    }
    end(qts);
}

/* A device of a real machine: fw_cfg reads a file into memory. */
static void test_fw_cfg_dma(void)
{
    QTestState *qts = start("");
    const uint64_t control = ELSEWHERE;
    const struct fw_cfg_dma_access access = {
        .control = cpu_to_be32(FW_CFG_SIGNATURE << 16 |
                               FW_CFG_DMA_CTL_SELECT | FW_CFG_DMA_CTL_READ),
        .length = cpu_to_be32(4),
        .address = cpu_to_be64(GM_GPA),
    };

    qtest_memwrite(qts, control, &access, sizeof(access));
    qtest_outl(qts, 0x514, bswap32(control >> 32));
    qtest_outl(qts, 0x518, bswap32(control));
    g_assert_cmphex(bswap32(qtest_readl(qts, control)), ==,
                    FW_CFG_DMA_CTL_ERROR);
    end(qts);
}

/* Data that the ROM code and a device load at each reset. */
static void check_loaded(const char *machine)
{
    const uint64_t by_device = GM_GPA + 4096, bytes = 0x1122334455667788;
    g_autofree char *path = NULL;
    g_autofree char *args = NULL;
    int fd = g_file_open_tmp("guest-memfd-XXXXXX", &path, NULL);
    char blob[sizeof(SECRET)];
    QTestState *qts;

    g_assert_cmpint(write(fd, SECRET, sizeof(SECRET)), ==, sizeof(SECRET));
    close(fd);
    args = g_strdup_printf("-device loader,file=%s,force-raw=on,addr=0x%"
                           PRIx64 " -device loader,addr=0x%" PRIx64
                           ",data=0x%" PRIx64 ",data-len=8", path,
                           (uint64_t)GM_GPA, by_device, bytes);
    qts = qtest_initf("%s %s", machine, args);
    unlink(path);

    gm_to_private(qts, GM_GPA, GM_PAGE);
    qtest_system_reset(qts);
    g_assert_false(gm_is_private(qts, GM_GPA));
    qtest_memread(qts, GM_GPA, blob, sizeof(blob));
    g_assert_cmpmem(blob, sizeof(blob), SECRET, sizeof(SECRET));
    g_assert_cmphex(qtest_readq(qts, by_device), ==, bytes);
    gm_quit(qts);
}

/* All is shared before, whether the manager came early or by itself. */
static void test_loaded(void)
{
    check_loaded(GM_ONE_BACKEND);
    check_loaded(GM_MACHINE GM_TESTDEV GM_RAM GM_RAM0);
}

static void put_secret(QTestState *qts)
{
    gm_to_shared(qts, GM_GPA, GM_PAGE);
    qtest_memwrite(qts, GM_GPA, SECRET, sizeof(SECRET));
    gm_to_private(qts, GM_GPA, GM_PAGE);
}

static bool file_has_secret(const char *path)
{
    g_autofree char *bytes = NULL;
    size_t size;

    g_assert_true(g_file_get_contents(path, &bytes, &size, NULL));
    return memmem(bytes, size, SECRET, sizeof(SECRET));
}

/* The monitor, and a dump of the machine's memory, which debug=on completes. */
static void check_file(bool private, bool debug)
{
    QTestState *qts = gm_start();
    g_autofree char *path = NULL;
    g_autofree char *dump = NULL;
    int fd = g_file_open_tmp("guest-memfd-XXXXXX", &path, NULL);

    g_assert(fd >= 0);
    close(fd);
    put_secret(qts);
    if (!private) {
        gm_to_shared(qts, GM_GPA, GM_PAGE);
    }
    qtest_qmp_assert_success(qts, "{ 'execute': 'qom-set', 'arguments': { "
                             "'path': '/objects/cgs0', 'property': 'debug', "
                             "'value': %i } }", debug);

    /* It may well refuse. */
    qobject_unref(qtest_qmp(qts, "{ 'execute': 'pmemsave', 'arguments': "
                            "{ 'val': %" PRIu64 ", 'size': 4096, "
                            "'filename': %s } }", GM_GPA, path));
    g_assert_cmpint(file_has_secret(path), ==, !private);

    dump = g_strdup_printf("file:%s", path);
    qtest_qmp_assert_success(qts, "{ 'execute': 'dump-guest-memory', "
                             "'arguments': { 'paging': false, "
                             "'protocol': %s } }", dump);
    g_assert_cmpint(file_has_secret(path), ==, !private || debug);
    unlink(path);
    gm_quit(qts);
}

static void test_dump(void)
{
    check_file(false, false);
    check_file(true, false);
    check_file(true, true);
}

static void test_monitor(void)
{
    QTestState *qts = gm_start();
    g_autofree char *out = NULL;

    put_secret(qts);
    out = qtest_hmp(qts, "xp /8xb 0x%" PRIx64, (uint64_t)GM_GPA);
    /* "The" */
    g_assert_null(strstr(out, "0x54 0x68 0x65"));
    g_clear_pointer(&out, g_free);

    gm_to_shared(qts, GM_GPA, GM_PAGE);
    out = qtest_hmp(qts, "xp /8xb 0x%" PRIx64, (uint64_t)GM_GPA);
    g_assert_nonnull(strstr(out, "0x54 0x68 0x65"));
    gm_quit(qts);
}

/* --- a virtqueue, which its device keeps mapped ------------------------ */

/* RCU forgets where the queue was before there was an IOMMU. */
static void to_private_in_time(QTestState *qts)
{
    const int64_t end = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;
    int64_t status;

    while ((status = gm_convert(qts, GM_GPA, GM_PAGE,
                                GMTD_ATTR_PRIVATE).status) == -EAGAIN) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
    g_assert_cmpint(status, ==, 0);
}

/*
 * The queue after the device had time to use it.  Behind an
 * IOMMU the queue is not mapped, so it can become private.
 */
static uint16_t kick(GmQueue *q, bool private)
{
    QTestState *qts = q->qts;
    unsigned i;

    qvirtqueue_add(qts, q->vq, AFTER, 16, true, false);
    qtest_writew(qts, q->vq->avail + 2, 1);
    if (private) {
        to_private_in_time(qts);
    }
    q->dev->vdev.bus->virtqueue_kick(&q->dev->vdev, q->vq);
    for (i = 0; i < 20; i++) {
        qtest_clock_step(qts, SCALE_MS);
    }
    gm_to_shared(qts, GM_GPA, GM_PAGE);
    return qtest_readw(qts, q->vq->used + 2);
}

static void test_virtqueue_shared(void)
{
    GmQueue q = { };

    gm_queue_start(&q, RNG, 0);
    g_assert_cmpuint(kick(&q, false), ==, 1);
    gm_queue_end(&q);
}

static void test_virtqueue_private(void)
{
    GmQueue q = { };

    gm_queue_start(&q, RNG, 0);
    gm_set_timeout(q.qts, 0);
    g_assert_cmpint(gm_convert(q.qts, GM_GPA, GM_PAGE,
                               GMTD_ATTR_PRIVATE).status, ==, -EAGAIN);
    g_assert_cmpuint(kick(&q, false), ==, 1);
    gm_queue_end(&q);
}

static uint16_t kick_behind_iommu(bool private)
{
    GmQueue q = { };
    uint16_t used;

    gm_queue_start(&q, "-device intel-iommu,aw-bits=39 " RNG
                   ",iommu_platform=on", 0);
    gm_enable_iommu(q.qts, QPCI_DEVFN(1, 0));
    gm_set_timeout(q.qts, 0);
    used = kick(&q, private);
    gm_queue_end(&q);
    return used;
}

static void test_virtqueue_iommu(void)
{
    g_assert_cmpuint(kick_behind_iommu(false), ==, 1);
    g_assert_cmpuint(kick_behind_iommu(true), ==, 0);
}

/* --- an IDE disk, which has its memory mapped by dma-helpers ------------- */

#define IDE         "-device piix3-ide,id=p0,addr=2 -blockdev driver=null-co," \
                    "read-zeroes=on,size=1048576,node-name=d0 " \
                    "-device ide-hd,drive=d0,bus=p0.0"
#define IDE_READ    0xc8
#define IDE_WRITE   0xca
#define IDE_ERROR   0x01

/* Two buffers of a page each, the second of which may be private. */
static uint8_t ide_dma(QTestState *qts, QPCIDevice *dev, QPCIBar bar,
                       uint8_t command)
{
    const int64_t end = g_get_monotonic_time() + 10 * G_USEC_PER_SEC;
    const uint32_t list[] = {
        cpu_to_le32(BEFORE), cpu_to_le32(4096),
        cpu_to_le32(GM_GPA), cpu_to_le32(4096 | 1u << 31),
    };

    qtest_memwrite(qts, AFTER, list, sizeof(list));
    qpci_io_writeb(dev, bar, 0, 0);
    qpci_io_writeb(dev, bar, 2, 6);
    qpci_io_writel(dev, bar, 4, AFTER);
    qtest_outb(qts, 0x1f2, 16);
    qtest_outb(qts, 0x1f3, 0);
    qtest_outb(qts, 0x1f4, 0);
    qtest_outb(qts, 0x1f5, 0);
    qtest_outb(qts, 0x1f6, 0xe0);
    qtest_outb(qts, 0x1f7, command);
    qpci_io_writeb(dev, bar, 0, command == IDE_READ ? 9 : 1);
    while (qpci_io_readb(dev, bar, 2) & 1 || qtest_inb(qts, 0x1f7) & 0x80) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        qtest_clock_step(qts, SCALE_MS);
    }
    return qtest_inb(qts, 0x1f7);
}

static void test_ide(void)
{
    QTestState *qts = qtest_initf("%s %s", GM_ONE_BACKEND, IDE);
    QPCIBus *bus = qpci_new_pc(qts, NULL);
    QPCIDevice *dev = qpci_device_find(bus, QPCI_DEVFN(2, 0));
    QPCIBar bar;

    qpci_device_enable(dev);
    bar = qpci_iomap(dev, 4, NULL);
    gm_fill(qts, GM_GPA, GM_PAGE);
    gm_fill(qts, BEFORE, GM_PAGE);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    g_assert_cmphex(ide_dma(qts, dev, bar, IDE_READ) & IDE_ERROR, !=, 0);
    g_assert_cmphex(ide_dma(qts, dev, bar, IDE_WRITE) & IDE_ERROR, !=, 0);
    gm_assert_filled(qts, BEFORE, GM_PAGE);

    gm_to_shared(qts, GM_GPA, GM_PAGE);
    gm_assert_filled(qts, GM_GPA, GM_PAGE);
    g_assert_cmphex(ide_dma(qts, dev, bar, IDE_READ) & IDE_ERROR, ==, 0);
    gm_assert_bytes(qts, GM_GPA, 4096, 0);
    g_free(dev);
    qpci_free_pc(bus);
    gm_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/access/dma", test_dma);
    qtest_add_func("/guest-memfd/access/dma-edges", test_dma_edges);
    qtest_add_func("/guest-memfd/access/copy", test_copy);
    qtest_add_func("/guest-memfd/access/device", test_device);
    qtest_add_func("/guest-memfd/access/pin", test_pin);
    qtest_add_func("/guest-memfd/access/pin-converts", test_pin_converts);
    qtest_add_func("/guest-memfd/access/qtest", test_qtest);
    qtest_add_func("/guest-memfd/access/fw-cfg-dma", test_fw_cfg_dma);
    qtest_add_func("/guest-memfd/access/loaded", test_loaded);
    qtest_add_func("/guest-memfd/access/monitor", test_monitor);
    qtest_add_func("/guest-memfd/access/dump", test_dump);
    qtest_add_func("/guest-memfd/access/ide", test_ide);
    qtest_add_func("/guest-memfd/access/virtqueue-shared",
                   test_virtqueue_shared);
    qtest_add_func("/guest-memfd/access/virtqueue-private",
                   test_virtqueue_private);
    qtest_add_func("/guest-memfd/access/virtqueue-iommu",
                   test_virtqueue_iommu);

    return g_test_run();
}
