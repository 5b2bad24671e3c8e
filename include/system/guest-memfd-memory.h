/*
 * Accesses to guest memory that is converted in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The hooks of system/physmem.c.
 */

#ifndef SYSTEM_GUEST_MEMFD_MEMORY_H
#define SYSTEM_GUEST_MEMFD_MEMORY_H

#include "system/memory.h"

/* Is there memory that can be private?  It stays so; set with the BQL. */
extern bool guest_memfd_any_convertible;

/* Make accesses to @mr go through guest-memfd-memory.c, from now on. */
void guest_memfd_make_convertible(MemoryRegion *mr);

/* Is it RAM for this access, though it is not accessed directly? */
static inline bool guest_memfd_is_mappable(MemoryRegion *mr, bool is_write,
                                           MemTxAttrs attrs)
{
    return mr->convertible && (!is_write || attrs.debug || !mr->readonly);
}

/*
 * guest_memfd_map: keep [addr, addr + len) of @mr, which is convertible,
 * shared for a pointer to it
 *
 * Until guest_memfd_unmap() with the same range; requests to make it private
 * fail with -EAGAIN meanwhile.  Returns false, with nothing done, if a page
 * is private.  Any thread, with or without the BQL.  @as: the pointer's user;
 * @is_ring: it is a cached translation, as a ring of virtio is.
 */
bool guest_memfd_map(MemoryRegion *mr, hwaddr addr, hwaddr len,
                     const AddressSpace *as, bool is_ring);
void guest_memfd_unmap(MemoryRegion *mr, hwaddr addr, hwaddr len);

/*
 * @GUEST_MEMFD_ACCESS_SET: fill memory with one byte
 * @GUEST_MEMFD_ACCESS_ROM: write to RAM and ROM, and leave registers alone
 */
typedef enum GuestMemfdAccessKind {
    GUEST_MEMFD_ACCESS_READ,
    GUEST_MEMFD_ACCESS_WRITE,
    GUEST_MEMFD_ACCESS_SET,
    GUEST_MEMFD_ACCESS_ROM,
} GuestMemfdAccessKind;

/* @translate is called with @opaque, and as flatview_translate() is. */
typedef struct GuestMemfdAccess {
    GuestMemfdAccessKind kind;
    MemTxAttrs attrs;
    uint8_t fill;
    MemoryRegion *(*translate)(void *opaque, hwaddr addr, hwaddr *xlat,
                               hwaddr *plen, bool is_write, MemTxAttrs attrs);
    void *opaque;
} GuestMemfdAccess;

GuestMemfdAccess guest_memfd_access_of(FlatView *fv, MemTxAttrs attrs,
                                       GuestMemfdAccessKind kind);

/*
 * guest_memfd_access: access [addr, addr + len), all of it or nothing
 *
 * If a page of it is private, nothing is read or written, @buf is filled with
 * zeros by a read, and MEMTX_ACCESS_ERROR is returned.  No page of it becomes
 * private before the end.  Registers in the middle are accessed in their
 * turn, and the memory that follows them is looked at once more; so is each
 * further MiB, or what follows 32 ranges of regions.  @len may be anything.
 *
 * Called in an RCU read-side critical section, without locks of blocks.
 */
MemTxResult guest_memfd_access(const GuestMemfdAccess *a, hwaddr addr,
                               void *buf, hwaddr len);
/* The same, when it is known that @l bytes are at @mr_addr of @mr. */
MemTxResult guest_memfd_access_part(const GuestMemfdAccess *a, hwaddr addr,
                                    void *buf, hwaddr len, hwaddr mr_addr,
                                    hwaddr l, MemoryRegion *mr);

/* address_space_set() and address_space_write_rom() in such a VM. */
MemTxResult guest_memfd_address_space_set(AddressSpace *as, hwaddr addr,
                                          uint8_t fill, hwaddr len,
                                          MemTxAttrs attrs);
MemTxResult guest_memfd_address_space_write_rom(AddressSpace *as, hwaddr addr,
                                                MemTxAttrs attrs,
                                                const void *buf, hwaddr len);

/* Must an access be made by guest_memfd_access()?  @l bytes are in @mr. */
static inline bool guest_memfd_decides(MemoryRegion *mr, bool is_write,
                                       MemTxAttrs attrs, hwaddr l, hwaddr len)
{
    return guest_memfd_is_mappable(mr, is_write, attrs) ||
           (unlikely(l < len) && guest_memfd_any_convertible);
}

/* Of a region that guest_memfd_is_mappable(); the answer may be outdated. */
bool guest_memfd_is_shared(MemoryRegion *mr, hwaddr addr, hwaddr len);

/*
 * guest_memfd_may_hide: is there memory at @addr that can be private?  Then
 * this is why it could not be mapped, and waiting does not help.
 */
bool guest_memfd_may_hide(AddressSpace *as, hwaddr addr, bool is_write);

/* Is there private memory in [addr, addr + len)?  Behind no IOMMU. */
bool guest_memfd_is_private(AddressSpace *as, hwaddr addr, hwaddr len);
/* The same for a monitor command, that cannot read it. */
bool guest_memfd_check_shared(hwaddr addr, hwaddr len, Error **errp);

/* fw_cfg's request of @size bytes at @addr failed; can it be answered? */
void guest_memfd_warn_fw_cfg(hwaddr addr, hwaddr size);

#endif /* SYSTEM_GUEST_MEMFD_MEMORY_H */
