/*
 * A virtio device of a machine whose memory is converted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_GUEST_MEMFD_QUEUE_H
#define TESTS_QTEST_GUEST_MEMFD_QUEUE_H

#include "guest-memfd-util.h"
#include "libqos/libqos-malloc.h"
#include "libqos/pci-pc.h"
#include "libqos/virtio.h"
#include "libqos/virtio-pci.h"

/* The queue is all of the page at GM_GPA. */
typedef struct GmQueue {
    QTestState *qts;
    QGuestAllocator alloc;
    QPCIBus *bus;
    QVirtioPCIDevice *dev;
    QVirtQueue *vq;
    bool plain;                 /* no memory is converted */
} GmQueue;

/* @args hold a device with addr=1; @features are those beyond virtio 1. */
/* All but the last step: the device does not use the queue yet. */
void gm_queue_prepare(GmQueue *q, const char *args, uint64_t features,
                      unsigned index);
void gm_queue_start(GmQueue *q, const char *args, uint64_t features);
/* The same without a confidential guest. */
void gm_queue_start_plain(GmQueue *q, const char *args, uint64_t features);
/* Until the device has used so many requests. */
void gm_queue_wait(GmQueue *q, uint16_t index);
/* Intel's IOMMU, which translates what @devfn reaches to itself. */
void gm_enable_iommu(QTestState *qts, uint8_t devfn);
void gm_queue_end(GmQueue *q);

#endif /* TESTS_QTEST_GUEST_MEMFD_QUEUE_H */
