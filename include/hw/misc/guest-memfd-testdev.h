/*
 * Registers of guest-memfd-testdev: a guest's and a test's way to
 * convert memory without a confidential-computing platform
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Plain numbers only: bare-metal guests and qtests include this file.
 *
 * All registers are 64 bits wide, little endian and naturally aligned;
 * other accesses are bus errors.  A write to COMMAND runs the command to
 * completion before the write returns; STATUS then holds 0 or a negative
 * Linux errno value.  With more than one vCPU the guest serialises its
 * use of the device.
 */

#ifndef HW_MISC_GUEST_MEMFD_TESTDEV_H
#define HW_MISC_GUEST_MEMFD_TESTDEV_H

#include "system/guest-memfd-guest.h"

#define GMTD_BASE               0xfed60000  /* guest-physical, default */
#define GMTD_SIZE               0x1000

#define GMTD_REG_ID             0x00        /* RO: GMTD_ID */
#define GMTD_REG_GPA            0x08        /* RW: start of the range */
#define GMTD_REG_SIZE           0x10        /* RW: bytes */
#define GMTD_REG_ATTRIBUTES     0x18        /* RW: GMTD_ATTR_*, for CONVERT */
#define GMTD_REG_COMMAND        0x20        /* WO: GMTD_CMD_* */
#define GMTD_REG_STATUS         0x28        /* RO: 0 or -errno */
#define GMTD_REG_OUTCOME        0x30        /* RO: decision of CONVERT */
#define GMTD_REG_CHANGED        0x38        /* RO: bytes CONVERT changed */
#define GMTD_REG_DATA           0x40        /* RW: for READ and WRITE */
#define GMTD_REG_DST            0x48        /* RW: destination of COPY */
#define GMTD_REG_DONE           0x50        /* RO: bytes COPY moved */

#define GMTD_ID                 0x31304454454d4721ULL

/*
 * CONVERT: convert [GPA, GPA + SIZE) as ATTRIBUTES says.
 * READ, WRITE: one DMA access of SIZE (1..8) bytes at GPA, from or to
 *   DATA; -EFAULT when the bus reports an error (a private page).
 * COPY: DMA from [GPA, GPA + SIZE) to DST, at most GMTD_COPY_MAX bytes;
 *   -EFAULT at the first page that cannot be accessed, DONE says how far
 *   it got.
 * PIN: hold a reference to the page at GPA, as a device does that is busy
 *   with it.  KVM cannot make such a page private (-EAGAIN).  -EBUSY if a
 *   page is pinned already, -EFAULT for a private page.
 * UNPIN: drop the reference.
 * MAP: keep a pointer to the 8 bytes at GPA, as a device model does while
 *   its request is under way.  The page cannot become private (-EAGAIN).
 *   -EBUSY if there is a pointer already, -EFAULT for a private page, and
 *   where the 8 bytes are not all in one piece of memory.
 * UNMAP: drop the pointer.
 * TOUCH: read DATA through the last pointer, even after UNMAP, as only a
 *   bug does.  Where the host is kept off private memory (KVM in place) a
 *   page that became private reads zeros.  -EINVAL without MAP, -EFAULT if
 *   the memory was unplugged since.
 */
#define GMTD_CMD_CONVERT        1
#define GMTD_CMD_READ           2
#define GMTD_CMD_WRITE          3
#define GMTD_CMD_COPY           4
#define GMTD_CMD_PIN            5
#define GMTD_CMD_UNPIN          6
#define GMTD_CMD_MAP            7
#define GMTD_CMD_TOUCH          8
#define GMTD_CMD_UNMAP          9

#define GMTD_COPY_MAX           0x200000    /* 2 MiB */

/* Same bits as the attributes argument of KVM_HC_MAP_GPA_RANGE. */
#define GMTD_ATTR_PRIVATE       GUEST_MEMFD_ATTR_PRIVATE
#define GMTD_ATTR_ZERO          GUEST_MEMFD_ATTR_ZERO
#define GMTD_ATTR_PRESERVE      GUEST_MEMFD_ATTR_PRESERVE

/*
 * OUTCOME: content mode in bits 0-7 (0 default, 1 zero, 2 preserve),
 * realisation in bits 8-15 (0 kernel, 1 emulated, 2 refused), bit 16 set
 * when the realisation is valid, that is when the request got as far as
 * the policy.
 */
#define GMTD_OUTCOME_MODE(o)    ((unsigned)((o) & 0xff))
#define GMTD_OUTCOME_HOW(o)     ((unsigned)(((o) >> 8) & 0xff))
#define GMTD_OUTCOME_VALID      (1ULL << 16)

#endif /* HW_MISC_GUEST_MEMFD_TESTDEV_H */
