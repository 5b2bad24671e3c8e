/*
 * The device's end of a vfio-user socket
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Plain C: programs that know nothing of QEMU include this file.
 */

#ifndef TESTS_GUEST_MEMFD_VFIO_USER_H
#define TESTS_GUEST_MEMFD_VFIO_USER_H

#include <stdint.h>

/*
 * Callbacks for memory that the device may use, and no longer may, and for
 * reads of its BAR and its configuration space.  They return 0 or an errno
 * value, which QEMU is answered, or one of these values.
 */
enum {
    VFIO_USER_DIE = -1,         /* the process kills itself in the answer */
    VFIO_USER_STALL = -2,       /* it stops in the middle of the answer */
    VFIO_USER_DEAF = -3,        /* it answers, and takes no more messages */
    VFIO_USER_LATE = -4,        /* it answers what nobody waits for */
};

struct vfio_user_device {
    int (*map)(void *opaque, uint64_t iova, uint64_t size);
    int (*unmap)(void *opaque, uint64_t iova, uint64_t size);
    int (*read)(void *opaque, uint32_t region, uint64_t offset);
    void *opaque;
};

/* Serves the next client of a socket until it leaves; -1 if none came. */
int vfio_user_serve(int listener, const struct vfio_user_device *device);

#endif /* TESTS_GUEST_MEMFD_VFIO_USER_H */
