/*
 * virtio devices whose rings or buffers are in private guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A ring cannot become private while its device runs; where it is private
 * already, the device needs a reset.  A request with a private buffer fails,
 * and the next one works.
 */

#include "qemu/osdep.h"
#include "guest-memfd-queue.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qobject/qlist.h"
#include "standard-headers/linux/virtio_balloon.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"
#include "standard-headers/linux/virtio_scsi.h"

/* After the queue, each with neighbours of its own. */
#define HEADER      (GM_GPA + 2 * GM_PAGE)
#define STATUS      (GM_GPA + 4 * GM_PAGE)
#define BUFFER      (GM_GPA + 6 * GM_PAGE)
#define OTHER       (GM_GPA + 10 * GM_PAGE)
#define RING        (GM_GPA + 12 * GM_PAGE)

#define DISK        "-blockdev driver=null-co,read-zeroes=on,size=1048576," \
                    "node-name=d0 "
/* Followed by further options. */
#define FILE_DISK   "-blockdev driver=file,filename=%s,node-name=d0"
#define BLK         "-device virtio-blk-pci,id=blk0,drive=d0,addr=1," \
                    "event_idx=off"
#define IOTHREAD    "-object iothread,id=io0 "
#define RNG         "-object rng-builtin,id=rng0 " \
                    "-device virtio-rng-pci,rng=rng0,addr=1"

static int64_t to_private(QTestState *qts, uint64_t gpa, uint64_t size)
{
    return gm_convert(qts, gpa, size, GMTD_ATTR_PRIVATE).status;
}

static uint8_t get_status(GmQueue *q)
{
    return q->dev->vdev.bus->get_status(&q->dev->vdev);
}

static void wait_needs_reset(GmQueue *q)
{
    const int64_t end = g_get_monotonic_time() + 10 * G_USEC_PER_SEC;

    while (!(get_status(q) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        qtest_clock_step(q->qts, SCALE_MS);
        g_usleep(1000);
    }
}

/* Also: the main loop answers. */
static void reset(GmQueue *q)
{
    qvirtio_reset(&q->dev->vdev);
    g_assert_cmphex(get_status(q), ==, 0);
    gm_assert_running(q->qts);
}

/* --- requests ----------------------------------------------------------- */

static uint32_t add_block(GmQueue *q, uint32_t type, uint64_t buffer,
                          uint32_t size)
{
    const struct virtio_blk_outhdr header = { .type = cpu_to_le32(type) };
    uint32_t head;

    qtest_memwrite(q->qts, HEADER, &header, sizeof(header));
    qtest_writeb(q->qts, STATUS, 0xff);
    head = qvirtqueue_add(q->qts, q->vq, HEADER, sizeof(header), false, true);
    qvirtqueue_add(q->qts, q->vq, buffer, size, type == VIRTIO_BLK_T_IN, true);
    qvirtqueue_add(q->qts, q->vq, STATUS, 1, true, false);
    return head;
}

static void kick(GmQueue *q, uint32_t head)
{
    qvirtqueue_kick(q->qts, &q->dev->vdev, q->vq, head);
}

/* The queue has used @index requests after this one. */
static uint8_t block(GmQueue *q, uint32_t type, uint64_t buffer,
                     uint32_t size, uint16_t index)
{
    kick(q, add_block(q, type, buffer, size));
    gm_queue_wait(q, index);
    return qtest_readb(q->qts, STATUS);
}

static uint64_t writes_done(GmQueue *q)
{
    g_autoptr(QDict) reply = qtest_qmp(q->qts,
                                       "{ 'execute': 'query-blockstats' }");
    QList *list = qdict_get_qlist(reply, "return");
    QDict *stats = qdict_get_qdict(qobject_to(QDict, qlist_peek(list)),
                                   "stats");

    return qdict_get_int(stats, "wr_operations");
}

/* --- rings -------------------------------------------------------------- */

/* All but the avail ring are where libqos put them. */
static void move_queue(GmQueue *q, uint64_t desc, uint64_t avail,
                       uint64_t used)
{
    QVirtioPCIDevice *dev = q->dev;

    q->vq->desc = desc;
    q->vq->avail = avail;
    q->vq->used = used;
    qvring_init(q->qts, &q->alloc, q->vq, desc);
    q->vq->avail = avail;
    q->vq->used = used;
    dev->vdev.bus->queue_select(&dev->vdev, q->vq->index);
    dev->vdev.bus->set_queue_address(&dev->vdev, q->vq);
    qpci_io_writew(dev->pdev, dev->bar, dev->common_cfg_offset +
                   offsetof(struct virtio_pci_common_cfg, queue_enable), 1);
}

static void end(GmQueue *q)
{
    q->vq->desc = GM_GPA;
    gm_queue_end(q);
}

/* Two of three rings are in the first page: the user of one is named. */
static void check_ring_named(QTestState *qts)
{
    g_autoptr(QDict) info = gm_query(qts);
    QDict *block = qobject_to(QDict, qlist_peek(qdict_get_qlist(info,
                                                                "backends")));
    QDict *busy = qdict_get_qdict(block, "last-busy");

    g_assert_cmpstr(qdict_get_str(busy, "user"), ==, "ring");
    g_assert_cmpstr(qdict_get_str(busy, "device"), ==, "virtio-blk-pci");
    g_assert_cmpint(qdict_get_int(busy, "offset"), ==, GM_GPA);
    g_assert_cmpint(qdict_get_int(block, "mappings"), ==, 3);
    g_assert_cmpint(qdict_get_int(block, "mapped-bytes"), >, 0);
    g_assert_cmpint(qdict_get_int(block, "assigned-bytes"), ==, 0);
}

static void test_ring_busy(const void *args)
{
    GmQueue q = { };

    gm_queue_start(&q, args, 0);
    gm_set_timeout(q.qts, 0);
    g_assert_cmpint(to_private(q.qts, GM_GPA, GM_PAGE), ==, -EAGAIN);
    check_ring_named(q.qts);
    g_assert_cmphex(block(&q, VIRTIO_BLK_T_OUT, BUFFER, 512, 1), ==,
                    VIRTIO_BLK_S_OK);
    g_assert_cmpint(to_private(q.qts, GM_GPA, GM_PAGE), ==, -EAGAIN);
    g_assert_cmpuint(writes_done(&q), ==, 1);

    /* The memory map changes: 0xc8000 becomes RAM, in the host bridge. */
    qtest_outl(q.qts, 0xcf8, 0x80000090);
    qtest_outb(q.qts, 0xcfe, 0x33);
    g_assert_cmpint(to_private(q.qts, GM_GPA, GM_PAGE), ==, -EAGAIN);
    reset(&q);
    g_assert_cmpint(to_private(q.qts, GM_GPA, GM_PAGE), ==, 0);
    gm_queue_end(&q);
}

/*
 * One ring lies across a border to a private page: the device neither reads
 * nor writes there, and the main loop does not wait for it.
 */
typedef struct Straddle {
    const char *args;
    int desc, avail, used;      /* from the border; 0: none near */
} Straddle;

static void test_straddle(const void *opaque)
{
    const Straddle *s = opaque;
    const uint64_t border = RING + GM_PAGE;
    GmQueue q = { };

    gm_queue_prepare(&q, s->args, 0, 0);
    gm_fill(q.qts, border, GM_PAGE);
    qtest_memset(q.qts, RING, 0, GM_PAGE);
    gm_to_private(q.qts, border, GM_PAGE);
    move_queue(&q, s->desc ? border + s->desc : RING,
               s->avail ? border + s->avail : RING + 8 * KiB,
               s->used ? border + s->used : RING + 16 * KiB);
    g_assert_cmphex(get_status(&q) & VIRTIO_CONFIG_S_NEEDS_RESET, !=, 0);
    /* A driver that does not look at this. */
    q.dev->vdev.bus->set_status(&q.dev->vdev, get_status(&q) |
                                VIRTIO_CONFIG_S_DRIVER_OK);
    q.dev->vdev.bus->virtqueue_kick(&q.dev->vdev, q.vq);
    reset(&q);

    gm_to_shared(q.qts, border, GM_PAGE);
    gm_assert_filled(q.qts, border, GM_PAGE);
    g_assert_cmpuint(writes_done(&q), ==, 0);
    end(&q);
}

/* --- rings behind an IOMMU ---------------------------------------------- */

static const struct { const char *name; uint64_t page; } iommu_rings[] = {
    { "desc", 0 }, { "avail", 1 }, { "used", 2 },
};

static void test_iommu(const void *opaque)
{
    const uint64_t page = *(const uint64_t *)opaque;
    GmQueue q = { };

    gm_queue_prepare(&q, "-device intel-iommu,aw-bits=39 " DISK BLK
                     ",iommu_platform=on", 0, 0);
    gm_enable_iommu(q.qts, QPCI_DEVFN(1, 0));
    move_queue(&q, RING, RING + GM_PAGE, RING + 2 * GM_PAGE);
    qvirtio_set_driver_ok(&q.dev->vdev);
    g_assert_cmphex(block(&q, VIRTIO_BLK_T_OUT, BUFFER, 512, 1), ==,
                    VIRTIO_BLK_S_OK);
    g_assert_cmpuint(writes_done(&q), ==, 1);

    add_block(&q, VIRTIO_BLK_T_OUT, BUFFER, 512);
    qtest_writew(q.qts, q.vq->avail + 4 + 2, 3);
    qtest_writew(q.qts, q.vq->avail + 2, 2);
    gm_fill(q.qts, OTHER, GM_PAGE);
    g_assert_cmpint(to_private(q.qts, RING + page * GM_PAGE, GM_PAGE), ==, 0);
    q.dev->vdev.bus->virtqueue_kick(&q.dev->vdev, q.vq);
    wait_needs_reset(&q);
    g_assert_cmpuint(writes_done(&q), <=, 2);
    gm_to_shared(q.qts, RING + page * GM_PAGE, GM_PAGE);
    g_assert_cmpuint(qtest_readw(q.qts, q.vq->used + 2), ==, 1);
    reset(&q);
    end(&q);
}

/* --- buffers ------------------------------------------------------------ */

static const struct { uint32_t size; uint64_t offset; } buffers[] = {
    { 512, 0 }, { 8192, 0 }, { 512, GM_PAGE - 256 }, { 65536, GM_PAGE - 512 },
};

static char *make_disk(void)
{
    g_autofree char *data = g_malloc(256 * KiB);
    char *name = NULL;
    int fd = g_file_open_tmp("guest-memfd-XXXXXX", &name, NULL);

    g_assert_cmpint(fd, >=, 0);
    memset(data, 0xdd, 256 * KiB);
    g_assert_cmpint(write(fd, data, 256 * KiB), ==, 256 * KiB);
    close(fd);
    return name;
}

static void check_disk(const char *name)
{
    g_autofree char *data = NULL;
    size_t size, i;

    g_assert_true(g_file_get_contents(name, &data, &size, NULL));
    for (i = 0; i < size; i++) {
        g_assert_cmphex((uint8_t)data[i], ==, 0xdd);
    }
}

static void check_sector(GmQueue *q)
{
    uint8_t data[512];
    unsigned i;

    qtest_memread(q->qts, OTHER, data, sizeof(data));
    for (i = 0; i < sizeof(data); i++) {
        g_assert_cmphex(data[i], ==, 0xdd);
    }
}

/* The page after the border at BUFFER + GM_PAGE is private. */
static void test_blk_buffer(const void *device)
{
    g_autofree char *disk = make_disk();
    g_autofree char *args = g_strdup_printf(FILE_DISK "%s", disk,
                                            (const char *)device);
    GmQueue q = { };
    uint16_t used = 0;
    unsigned i;

    gm_queue_start(&q, args, 0);
    gm_fill(q.qts, BUFFER, 4 * GM_PAGE);
    gm_to_private(q.qts, BUFFER + GM_PAGE, 2 * GM_PAGE);
    for (i = 0; i < ARRAY_SIZE(buffers); i++) {
        uint64_t gpa = BUFFER + buffers[i].offset;

        gpa += buffers[i].offset ? 0 : GM_PAGE;
        g_assert_cmphex(block(&q, VIRTIO_BLK_T_OUT, gpa, buffers[i].size,
                              ++used), ==, VIRTIO_BLK_S_IOERR);
        g_assert_cmphex(block(&q, VIRTIO_BLK_T_IN, gpa, buffers[i].size,
                              ++used), ==, VIRTIO_BLK_S_IOERR);
        qtest_memset(q.qts, OTHER, 0, 512);
        g_assert_cmphex(block(&q, VIRTIO_BLK_T_IN, OTHER, 512, ++used), ==,
                        VIRTIO_BLK_S_OK);
        check_sector(&q);
    }
    check_disk(disk);
    gm_to_shared(q.qts, BUFFER + GM_PAGE, 2 * GM_PAGE);
    gm_assert_filled(q.qts, BUFFER, 4 * GM_PAGE);
    g_assert_cmphex(get_status(&q) & VIRTIO_CONFIG_S_NEEDS_RESET, ==, 0);
    gm_queue_end(&q);
    unlink(disk);
}

/* False if this QEMU is built without it. */
static bool offers_aio(const char *aio)
{
    g_autofree char *disk = make_disk();
    QTestState *qts = qtest_init("-machine none");
    QDict *reply = qtest_qmp(qts, "{'execute': 'blockdev-add', 'arguments': {"
                             "'driver': 'file', 'filename': %s, 'node-name': "
                             "'d0', 'aio': %s, 'cache': {'direct': true}}}",
                             disk, aio);
    QDict *error = qdict_get_qdict(reply, "error");
    const bool offered = !error;

    if (error) {
        const char *text = qdict_get_str(error, "desc");

        g_assert(strstr(text, "not supported in this build") ||
                 strstr(text, "does not accept value"));
    }
    qobject_unref(reply);
    qtest_quit(qts);
    unlink(disk);
    return offered;
}

/* The kernel reads and writes the buffers itself. */
static void test_blk_buffer_aio(const void *aio)
{
    g_autofree char *device = g_strdup_printf(
        ",aio=%s,cache.direct=on " BLK, (const char *)aio);

    if (!offers_aio(aio)) {
        g_test_skip("this QEMU is built without it");
        return;
    }
    test_blk_buffer(device);
}

/* A private table of descriptors, and one with a private buffer. */
/* A request in a private buffer fails; one in a private table is unknown. */
static void test_indirect(void)
{
    GmQueue q = { };
    struct vring_desc table[2] = {
        { .addr = cpu_to_le64(OTHER), .len = cpu_to_le32(16),
          .flags = cpu_to_le16(VRING_DESC_F_WRITE | VRING_DESC_F_NEXT),
          .next = cpu_to_le16(1) },
        { .addr = cpu_to_le64(BUFFER), .len = cpu_to_le32(16),
          .flags = cpu_to_le16(VRING_DESC_F_WRITE) },
    };
    uint32_t head;

    gm_queue_start(&q, RNG, 1ULL << VIRTIO_RING_F_INDIRECT_DESC);
    gm_fill(q.qts, OTHER, GM_PAGE);
    for (head = 0; head < 2; head++) {
        qtest_memwrite(q.qts, HEADER, table, sizeof(table));
        qtest_writeq(q.qts, q.vq->desc + head * 16, HEADER);
        qtest_writel(q.qts, q.vq->desc + head * 16 + 8, sizeof(table));
        qtest_writew(q.qts, q.vq->desc + head * 16 + 12,
                     VRING_DESC_F_INDIRECT);
    }

    gm_to_private(q.qts, BUFFER, GM_PAGE);
    kick(&q, 0);
    gm_queue_wait(&q, 1);
    g_assert_cmpuint(qtest_readl(q.qts, q.vq->used + 4 + 4), ==, 0);
    gm_assert_filled(q.qts, OTHER, GM_PAGE);
    gm_to_shared(q.qts, BUFFER, GM_PAGE);

    gm_to_private(q.qts, HEADER, GM_PAGE);
    kick(&q, 1);
    wait_needs_reset(&q);
    g_assert_cmpuint(qtest_readw(q.qts, q.vq->used + 2), ==, 1);
    gm_assert_filled(q.qts, OTHER, GM_PAGE);
    gm_queue_end(&q);
}

/* A request with a private status could not be failed. */
static void test_blk_status(void)
{
    GmQueue q = { };
    uint32_t head;

    gm_queue_start(&q, DISK BLK, 0);
    head = add_block(&q, VIRTIO_BLK_T_OUT, BUFFER, 512);
    gm_to_private(q.qts, STATUS, GM_PAGE);
    kick(&q, head);
    wait_needs_reset(&q);
    g_assert_cmpuint(qtest_readw(q.qts, q.vq->used + 2), ==, 0);
    g_assert_cmpuint(writes_done(&q), ==, 0);
    gm_queue_end(&q);
}

static void test_scsi_buffer(void)
{
    const struct virtio_scsi_cmd_req req = {
        .lun = { 1, 0, 0x40 }, .cdb = { 0x12, 0, 0, 0, 36 },
    };
    GmQueue q = { };
    unsigned i;

    gm_queue_prepare(&q, DISK "-device virtio-scsi-pci,addr=1 "
                     "-device scsi-hd,drive=d0", 0, 2);
    qvirtio_set_driver_ok(&q.dev->vdev);
    gm_fill(q.qts, BUFFER, GM_PAGE);
    qtest_memwrite(q.qts, HEADER, &req, sizeof(req));
    for (i = 0; i < 2; i++) {
        uint32_t head;

        /* INQUIRY has data; the first time it is for a private page. */
        qtest_memset(q.qts, STATUS, 0xff, sizeof(struct virtio_scsi_cmd_resp));
        head = qvirtqueue_add(q.qts, q.vq, HEADER, sizeof(req), false, true);
        qvirtqueue_add(q.qts, q.vq, STATUS,
                       sizeof(struct virtio_scsi_cmd_resp), true, true);
        qvirtqueue_add(q.qts, q.vq, BUFFER, 36, true, false);
        if (!i) {
            gm_to_private(q.qts, BUFFER, GM_PAGE);
        }
        kick(&q, head);
        gm_queue_wait(&q, i + 1);
        g_assert_cmphex(qtest_readb(q.qts, STATUS +
                                    offsetof(struct virtio_scsi_cmd_resp,
                                             response)), ==,
                        i ? VIRTIO_SCSI_S_OK : VIRTIO_SCSI_S_FAILURE);
        if (!i) {
            gm_to_shared(q.qts, BUFFER, GM_PAGE);
            gm_assert_filled(q.qts, BUFFER, GM_PAGE);
        }
    }
    gm_queue_end(&q);
}

static void wait_used(QTestState *qts, QVirtQueue *vq, uint16_t index)
{
    const int64_t end = g_get_monotonic_time() + 10 * G_USEC_PER_SEC;

    while (qtest_readw(qts, vq->used + 2) != index) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

/* Free pages of a guest are usually private: nothing happens to them. */
static void test_reporting(void)
{
    GmQueue q = { };
    QGuestAllocator alloc;
    QVirtQueue *report;

    gm_queue_prepare(&q, "-device virtio-balloon-pci,addr=1,"
                     "free-page-reporting=on",
                     1ULL << VIRTIO_BALLOON_F_REPORTING, 1);
    /* Queues: inflate, deflate (q.vq), statistics, and reporting. */
    alloc_init(&alloc, ALLOC_NO_FLAGS, RING, RING + GM_PAGE, GM_PAGE);
    report = qvirtqueue_setup(&q.dev->vdev, &alloc, 3);
    qvirtio_set_driver_ok(&q.dev->vdev);
    gm_fill(q.qts, GM_CELL, 2 * MiB);
    gm_to_private(q.qts, GM_CELL, 2 * MiB);

    qvirtqueue_kick(q.qts, &q.dev->vdev, report,
                    qvirtqueue_add(q.qts, report, GM_CELL, 2 * MiB, true,
                                   false));
    wait_used(q.qts, report, 1);
    gm_to_shared(q.qts, GM_CELL, 2 * MiB);
    gm_assert_filled(q.qts, GM_CELL, 2 * MiB);

    /* Deflate a private page, too. */
    gm_to_private(q.qts, GM_CELL, GM_PAGE);
    qtest_writel(q.qts, HEADER, GM_CELL >> 12);
    kick(&q, qvirtqueue_add(q.qts, q.vq, HEADER, 4, false, false));
    gm_queue_wait(&q, 1);
    gm_to_shared(q.qts, GM_CELL, GM_PAGE);
    gm_assert_filled(q.qts, GM_CELL, 2 * MiB);

    /* Shared memory is freed by the next request. */
    qvirtqueue_kick(q.qts, &q.dev->vdev, report,
                    qvirtqueue_add(q.qts, report, GM_CELL, 2 * MiB, true,
                                   false));
    wait_used(q.qts, report, 2);
    gm_assert_bytes(q.qts, GM_CELL, 2 * MiB, 0);
    qvirtqueue_cleanup(q.dev->vdev.bus, report, &alloc);
    alloc_destroy(&alloc);
    gm_queue_end(&q);
}

/* A sound that nobody plays: the next driver's pages are its own. */
static void test_sound(void)
{
    GmQueue q = { };
    uint32_t head;

    gm_queue_prepare(&q, "-audiodev none,id=a0 "
                     "-device virtio-sound-pci,audiodev=a0,addr=1", 0, 2);
    qvirtio_set_driver_ok(&q.dev->vdev);
    gm_set_timeout(q.qts, 0);
    qtest_memset(q.qts, BUFFER, 0, GM_PAGE);
    head = qvirtqueue_add(q.qts, q.vq, BUFFER, 1024, false, true);
    qvirtqueue_add(q.qts, q.vq, STATUS, 8, true, false);
    kick(&q, head);
    gm_assert_running(q.qts);
    g_assert_cmpint(to_private(q.qts, BUFFER, GM_PAGE), ==, -EAGAIN);

    reset(&q);
    g_assert_cmpint(to_private(q.qts, BUFFER, GM_PAGE), ==, 0);
    gm_queue_end(&q);
}

int main(int argc, char **argv)
{
    static const Straddle straddles[] = {
        { DISK BLK, .desc = -40 },
        { DISK BLK, .avail = -4 },
        { DISK BLK, .used = -8 },
        { IOTHREAD DISK BLK ",iothread=io0", .desc = -40 },
        { IOTHREAD DISK BLK ",iothread=io0", .avail = -2 },
        { IOTHREAD DISK BLK ",iothread=io0", .used = -8 },
    };
    static const char *const straddle_names[] = {
        "desc", "avail", "used", "desc-iothread", "avail-iothread",
        "used-iothread",
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);

    qtest_add_data_func("/guest-memfd/virtio/ring-busy", DISK BLK,
                        test_ring_busy);
    qtest_add_data_func("/guest-memfd/virtio/ring-busy-iothread",
                        IOTHREAD DISK BLK ",iothread=io0", test_ring_busy);
    for (i = 0; i < ARRAY_SIZE(straddles); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/virtio/straddle-",
                                            straddle_names[i], NULL);

        qtest_add_data_func(path, &straddles[i], test_straddle);
    }
    for (i = 0; i < ARRAY_SIZE(iommu_rings); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/virtio/iommu-",
                                            iommu_rings[i].name, NULL);

        qtest_add_data_func(path, &iommu_rings[i].page, test_iommu);
    }
    qtest_add_data_func("/guest-memfd/virtio/blk-buffer", " " BLK,
                        test_blk_buffer);
    qtest_add_data_func("/guest-memfd/virtio/blk-buffer-iothread",
                        " " IOTHREAD BLK ",iothread=io0", test_blk_buffer);
    qtest_add_data_func("/guest-memfd/virtio/blk-buffer-native", "native",
                        test_blk_buffer_aio);
    qtest_add_data_func("/guest-memfd/virtio/blk-buffer-io_uring", "io_uring",
                        test_blk_buffer_aio);
    qtest_add_func("/guest-memfd/virtio/indirect", test_indirect);
    qtest_add_func("/guest-memfd/virtio/blk-status", test_blk_status);
    qtest_add_func("/guest-memfd/virtio/scsi-buffer", test_scsi_buffer);
    qtest_add_func("/guest-memfd/virtio/reporting", test_reporting);
    if (qtest_has_device("virtio-sound-pci")) {
        qtest_add_func("/guest-memfd/virtio/sound", test_sound);
    }

    return g_test_run();
}
