/*
 * A virtio device of a machine whose memory is converted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-queue.h"
#include "qemu/timer.h"
#include "standard-headers/linux/virtio_config.h"

void gm_queue_prepare(GmQueue *q, const char *args, uint64_t features,
                      unsigned index)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(1, 0) };
    QVirtioDevice *vdev;

    q->qts = qtest_initf("%s %s", GM_ONE_BACKEND, args);
    alloc_init(&q->alloc, ALLOC_NO_FLAGS, GM_GPA, GM_GPA + GM_PAGE, GM_PAGE);
    q->bus = qpci_new_pc(q->qts, &q->alloc);
    q->dev = virtio_pci_new(q->bus, &addr);
    vdev = &q->dev->vdev;

    qvirtio_pci_device_enable(q->dev);
    qvirtio_start_device(vdev);
    qvirtio_set_features(vdev, features | 1ULL << VIRTIO_F_VERSION_1 |
                         1ULL << VIRTIO_F_ACCESS_PLATFORM);
    q->vq = qvirtqueue_setup(vdev, &q->alloc, index);
    g_assert_cmphex(q->vq->desc, ==, GM_GPA);
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

void gm_queue_end(GmQueue *q)
{
    qvirtqueue_cleanup(q->dev->vdev.bus, q->vq, &q->alloc);
    qvirtio_pci_destructor(&q->dev->obj);
    g_free(q->dev);
    qpci_free_pc(q->bus);
    alloc_destroy(&q->alloc);
    gm_quit(q->qts);
}
