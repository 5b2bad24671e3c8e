/*
 * Requests of virtio drivers with buffers in private guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A device cannot touch such a buffer.  The request fails, and the device
 * goes on with the next one; it needs a reset where the driver could take the
 * request for one that succeeded.
 */

#include "qemu/osdep.h"
#include "hw/virtio/virtio.h"
#include "hw/virtio/virtio-guest-memfd.h"
#include "system/guest-memfd-ram.h"
#include "trace.h"

static bool has_hole(const struct iovec *iov, unsigned n)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        if (!iov[i].iov_base) {
            return true;
        }
    }
    return false;
}

/*
 * A request with buffers in both directions has a status, which the driver
 * would take from what was there before.
 */
static bool report(VirtIODevice *vdev, VirtQueue *vq, VirtQueueElement *elem,
                   unsigned *len)
{
    VirtioDeviceClass *k = VIRTIO_DEVICE_GET_CLASS(vdev);
    const bool no_table = elem->in_num == 1 && !elem->out_num &&
                          !elem->in_sg[0].iov_base && !elem->in_sg[0].iov_len;

    if (no_table) {
        return false;
    }
    if (k->fail_request) {
        return k->fail_request(vdev, vq, elem, len);
    }
    return !elem->out_num || !elem->in_num;
}

bool virtio_fail_private(VirtIODevice *vdev, VirtQueue *vq,
                         VirtQueueElement *elem)
{
    unsigned len = 0;

    if (!guest_memfd_is_in_place() ||
        (!has_hole(elem->out_sg, elem->out_num) &&
         !has_hole(elem->in_sg, elem->in_num))) {
        return false;
    }
    trace_virtio_fail_private(vdev, vq, elem);
    if (report(vdev, vq, elem, &len)) {
        virtqueue_push(vq, elem, len);
        virtio_notify(vdev, vq);
    } else {
        virtqueue_detach_element(vq, elem, 0);
        virtio_error(vdev, "%s: a request in private memory cannot be failed",
                     vdev->name);
    }
    g_free(elem);
    return true;
}
