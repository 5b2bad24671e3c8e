/*
 * Requests of virtio drivers with buffers in private guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_VIRTIO_GUEST_MEMFD_H
#define HW_VIRTIO_VIRTIO_GUEST_MEMFD_H

#include "hw/virtio/virtio.h"

/*
 * virtio_fail_private: complete a request that has a private buffer
 *
 * The buffers of @elem that could not be mapped have no iov_base.  If there
 * is one, the device's VirtioDeviceClass::fail_request says so in the
 * buffers that are shared, @elem is pushed, the driver notified, @elem freed,
 * and true returned.  A request without a status is pushed with length 0; one
 * whose status cannot be written breaks the device, as a bogus descriptor
 * does.  Called by virtqueue_pop().
 */
bool virtio_fail_private(VirtIODevice *vdev, VirtQueue *vq,
                         VirtQueueElement *elem);

#endif /* HW_VIRTIO_VIRTIO_GUEST_MEMFD_H */
