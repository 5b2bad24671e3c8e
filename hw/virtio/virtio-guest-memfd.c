/*
 * Requests of virtio drivers with buffers in private guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A device cannot touch such a buffer.  The request fails, and the device
 * goes on with the next one.
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

bool virtio_fail_private(VirtIODevice *vdev, VirtQueue *vq,
                         VirtQueueElement *elem)
{
    VirtioDeviceClass *k = VIRTIO_DEVICE_GET_CLASS(vdev);
    unsigned len = 0;

    if (!guest_memfd_is_in_place() ||
        (!has_hole(elem->out_sg, elem->out_num) &&
         !has_hole(elem->in_sg, elem->in_num))) {
        return false;
    }
    trace_virtio_fail_private(vdev, vq, elem);
    if (k->fail_request) {
        len = k->fail_request(vdev, vq, elem);
    }
    virtqueue_push(vq, elem, len);
    virtio_notify(vdev, vq);
    g_free(elem);
    return true;
}
