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
 * Callbacks for memory that the device may use, and no longer may.  They
 * return 0 or an errno value, which QEMU is answered, or a negative value: the
 * process kills itself in the middle of the answer.
 */
struct vfio_user_device {
    int (*map)(void *opaque, uint64_t iova, uint64_t size);
    int (*unmap)(void *opaque, uint64_t iova, uint64_t size);
    void *opaque;
};

/* Serves the next client of a socket until it leaves; -1 if none came. */
int vfio_user_serve(int listener, const struct vfio_user_device *device);

#endif /* TESTS_GUEST_MEMFD_VFIO_USER_H */
