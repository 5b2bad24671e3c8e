/*
 * Registers of guest-memfd-accessdev: each function by which QEMU accesses
 * guest memory, one access at a time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For tests only.  All registers are 64 bits wide, little endian and
 * naturally aligned.  A write to RUN fills the device's buffer with the
 * byte FILL, makes one access with the function FUNCTION between
 * [GPA, GPA + SIZE) and the start of the buffer, and returns when it is
 * over.  RUN is GMAD_HERE, which is the thread that writes the register,
 * with the BQL; or GMAD_IOTHREAD, the thread of the property "iothread",
 * without the BQL, which the thread that waits for it keeps.
 *
 * STATUS is 0 or a negative Linux errno value: -EFAULT if the function
 * reports an error or gives less than SIZE, -EINVAL for a size that it does
 * not have, a function that there is not, or no I/O thread; -ETIMEDOUT if
 * the I/O thread is not done after GMAD_TIMEOUT_MS, since it waits for the
 * BQL; -EBUSY until it is.
 */

#ifndef HW_MISC_GUEST_MEMFD_ACCESSDEV_H
#define HW_MISC_GUEST_MEMFD_ACCESSDEV_H

#define GMAD_BASE               0xfed80000  /* guest-physical, default */
#define GMAD_SIZE               0x8000

#define GMAD_REG_FUNCTION       0x00        /* RW: GMAD_* */
#define GMAD_REG_GPA            0x08        /* RW */
#define GMAD_REG_SIZE           0x10        /* RW: 1 to GMAD_BUFFER_SIZE */
#define GMAD_REG_FILL           0x18        /* RW: bits 0 to 7 */
#define GMAD_REG_RUN            0x20        /* WO */
#define GMAD_REG_STATUS         0x28        /* RO */
#define GMAD_BUFFER             0x4000      /* RO: the device's buffer */
#define GMAD_BUFFER_SIZE        0x4000

#define GMAD_HERE               0
#define GMAD_IOTHREAD           1

#define GMAD_TIMEOUT_MS         10000

/*
 * Functions.  Those of one thing in both directions read memory if their
 * number is even, and write it if it is odd.
 *
 * CACHE_*: through a cache of just [GPA, GPA + SIZE), made and destroyed by
 *   the same command; or through the one that KEEP made, which must hold
 *   all of it (-EINVAL).
 * KEEP: make a cache for writing and keep it until DROP.  -EBUSY if there
 *   is one.
 * VALID_*: address_space_access_valid(); false is -EFAULT.
 */
enum {
    GMAD_RW_READ,               /* address_space_rw() */
    GMAD_RW_WRITE,
    GMAD_READ,                  /* address_space_read() and _write() */
    GMAD_WRITE,
    GMAD_LD_LE,                 /* address_space_ld*_le(): 1, 2, 4, 8 bytes */
    GMAD_ST_LE,
    GMAD_LD_BE,
    GMAD_ST_BE,
    GMAD_LD,
    GMAD_ST,
    GMAD_DMA_READ,              /* dma_memory_read() and _write() */
    GMAD_DMA_WRITE,
    GMAD_SG_READ,               /* dma_buf_write() and _read() */
    GMAD_SG_WRITE,
    GMAD_MAP_READ,              /* address_space_map(), and _unmap() */
    GMAD_MAP_WRITE,
    GMAD_CACHE_READ,            /* address_space_read_cached() */
    GMAD_CACHE_WRITE,
    GMAD_CACHE_LD_LE,           /* address_space_ld*_le_cached() */
    GMAD_CACHE_ST_LE,
    GMAD_CACHE_LD_BE,
    GMAD_CACHE_ST_BE,
    GMAD_DEBUG_READ,            /* cpu_memory_rw_debug() */
    GMAD_DEBUG_WRITE,
    GMAD_VALID_READ,
    GMAD_VALID_WRITE,
    GMAD_IS_IO,                 /* address_space_is_io(): true is -EFAULT */
    GMAD_SET,                   /* address_space_set() */
    GMAD_DROP,
    GMAD_WRITE_ROM,             /* address_space_write_rom() */
    GMAD_KEEP,
    GMAD_ST_NOTDIRTY,           /* address_space_stl_notdirty(): 4 bytes */
    GMAD_FUNCTIONS
};

#endif /* HW_MISC_GUEST_MEMFD_ACCESSDEV_H */
