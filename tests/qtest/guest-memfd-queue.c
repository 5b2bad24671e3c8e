/*
 * A virtio device of a machine whose memory is converted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-queue.h"
#include "qemu/timer.h"
#include "standard-headers/linux/virtio_config.h"

static void prepare(GmQueue *q, uint64_t features, unsigned index)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(1, 0) };
    QVirtioDevice *vdev;

    alloc_init(&q->alloc, ALLOC_NO_FLAGS, GM_GPA, GM_GPA + GM_PAGE, GM_PAGE);
    q->bus = qpci_new_pc(q->qts, &q->alloc);
    q->dev = virtio_pci_new(q->bus, &addr);
    vdev = &q->dev->vdev;

    qvirtio_pci_device_enable(q->dev);
    qvirtio_start_device(vdev);
    qvirtio_set_features(vdev, features | 1ULL << VIRTIO_F_VERSION_1);
    q->vq = qvirtqueue_setup(vdev, &q->alloc, index);
    g_assert_cmphex(q->vq->desc, ==, GM_GPA);
}

void gm_queue_prepare(GmQueue *q, const char *args, uint64_t features,
                      unsigned index)
{
    q->qts = qtest_initf("%s %s", GM_ONE_BACKEND, args);
    prepare(q, features | 1ULL << VIRTIO_F_ACCESS_PLATFORM, index);
}

void gm_queue_start_plain(GmQueue *q, const char *args, uint64_t features)
{
    q->qts = qtest_initf("-nodefaults -machine q35 -m 64M %s", args);
    q->plain = true;
    prepare(q, features, 0);
    qvirtio_set_driver_ok(&q->dev->vdev);
}

void gm_queue_start(GmQueue *q, const char *args, uint64_t features)
{
    gm_queue_prepare(q, args, features, 0);
    qvirtio_set_driver_ok(&q->dev->vdev);
}

void gm_queue_wait(GmQueue *q, uint16_t index)
{
    const int64_t end = g_get_monotonic_time() + 10 * G_USEC_PER_SEC;

    while (qtest_readw(q->qts, q->vq->used + 2) != index) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        qtest_clock_step(q->qts, SCALE_MS);
        g_usleep(1000);
    }
}

/* Intel's IOMMU with 39 bits, and all below 1 GiB where it is anyway. */
void gm_enable_iommu(QTestState *qts, uint8_t devfn)
{
    const uint64_t registers = 0xfed90000, root = GM_CELL;
    const uint64_t context = root + 4 * KiB, table = context + 4 * KiB;

    qtest_memset(qts, root, 0, 3 * 4 * KiB);
    qtest_writeq(qts, root, context | 1);
    qtest_writeq(qts, context + devfn * 16, table | 1);
    qtest_writeq(qts, context + devfn * 16 + 8, 1 << 8 | 1);
    qtest_writeq(qts, table, 1 << 7 | 3);

    qtest_writeq(qts, registers + 0x20, root);
    qtest_writel(qts, registers + 0x18, 1u << 30);
    qtest_writel(qts, registers + 0x18, 1u << 31);
    g_assert_cmphex(qtest_readl(qts, registers + 0x1c), ==, 3u << 30);
}

void gm_queue_end(GmQueue *q)
{
    qvirtqueue_cleanup(q->dev->vdev.bus, q->vq, &q->alloc);
    qvirtio_pci_destructor(&q->dev->obj);
    g_free(q->dev);
    qpci_free_pc(q->bus);
    alloc_destroy(&q->alloc);
    if (q->plain) {
        qtest_quit(q->qts);
    } else {
        gm_quit(q->qts);
    }
}
