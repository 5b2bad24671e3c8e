/*
 * Accesses to guest memory that is converted in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The one rule of access: an access is decided once, for its whole range,
 * before the first byte is copied.  Memory that can be private is not
 * accessed directly (see memory_access_is_direct()), so that all accesses of
 * devices and of QEMU itself are made here.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "system/address-spaces.h"
#include "system/guest-memfd-memory.h"
#include "system/guest-memfd-refused.h"
#include "system/memory.h"
#include "system/ramblock.h"
#include "guest-memfd-internal.h"
#include "memory-internal.h"

/* Requests that fail in the way of one access, before it fails. */
#define TRIES   100

/* --- one memory region ------------------------------------------------- */

static void *host_of(MemoryRegion *mr, hwaddr addr)
{
    return qemu_map_ram_ptr(mr->ram_block, addr);
}

static bool copy_as_vcpu(MemoryRegion *mr, hwaddr addr, void *buf,
                         hwaddr size, bool is_write)
{
    void *host = host_of(mr, addr);

    memcpy(is_write ? host : buf, is_write ? buf : host, size);
    return true;
}

static void note_written(MemoryRegion *mr, hwaddr addr, hwaddr size)
{
    guest_memfd_block_note_written(mr->ram_block->gmem, addr, size);
    invalidate_and_set_dirty(mr, addr, size);
}

static MemTxResult copy(MemoryRegion *mr, hwaddr addr, void *buf, hwaddr size,
                        bool is_write, MemTxAttrs attrs)
{
    const RAMBlock *rb = mr->ram_block;
    bool done;

    if (addr > rb->used_length || size > rb->used_length - addr) {
        done = false;
    } else if (attrs.vcpu) {
        done = copy_as_vcpu(mr, addr, buf, size, is_write);
    } else {
        done = guest_memfd_block_copy(rb->gmem, addr, buf, size, is_write);
    }
    if (!done) {
        guest_memfd_count_refused();
        memset(buf, 0, is_write ? 0 : size);
        return MEMTX_ACCESS_ERROR;
    }
    if (is_write) {
        note_written(mr, addr, size);
    }
    return MEMTX_OK;
}

static MemTxResult convertible_read(void *opaque, hwaddr addr, uint64_t *data,
                                    unsigned size, MemTxAttrs attrs)
{
    uint64_t buf = 0;
    MemTxResult result = copy(opaque, addr, &buf, size, false, attrs);

    *data = ldn_he_p(&buf, size);
    return result;
}

static MemTxResult convertible_write(void *opaque, hwaddr addr, uint64_t data,
                                     unsigned size, MemTxAttrs attrs)
{
    uint64_t buf;

    stn_he_p(&buf, size, data);
    return copy(opaque, addr, &buf, size, true, attrs);
}

static bool convertible_accepts(void *opaque, hwaddr addr, unsigned size,
                                bool is_write, MemTxAttrs attrs)
{
    return guest_memfd_is_mappable(opaque, is_write, attrs);
}

static const MemoryRegionOps convertible_ops = {
    .read_with_attrs = convertible_read,
    .write_with_attrs = convertible_write,
    .endianness = HOST_BIG_ENDIAN ? DEVICE_BIG_ENDIAN : DEVICE_LITTLE_ENDIAN,
    .valid = {
        .min_access_size = 1,
        .max_access_size = 8,
        .unaligned = true,
        .accepts = convertible_accepts,
    },
    .impl = {
        .min_access_size = 1,
        .max_access_size = 8,
        .unaligned = true,
    },
};

bool guest_memfd_any_convertible;

void guest_memfd_make_convertible(MemoryRegion *mr)
{
    guest_memfd_any_convertible = true;
    mr->convertible = true;
    mr->ops = &convertible_ops;
    mr->opaque = mr;
}

/* --- mappings ---------------------------------------------------------- */

/* Names of address spaces are interned. */
bool guest_memfd_map(MemoryRegion *mr, hwaddr addr, hwaddr len,
                     const AddressSpace *as, bool is_ring)
{
    const GuestMemfdUser user = {
        .kind = is_ring ? GUEST_MEMFD_PAGE_USER_RING :
                          GUEST_MEMFD_PAGE_USER_MAPPING,
        .device = as->name,
    };

    return guest_memfd_mapping_add_for(mr->ram_block->gmem, addr, len, user);
}

void guest_memfd_unmap(MemoryRegion *mr, hwaddr addr, hwaddr len)
{
    guest_memfd_mapping_remove(mr->ram_block->gmem, addr, len);
}

/* --- accesses of several parts ----------------------------------------- */

/* At once, so that neither memory nor the wait of a conversion grows. */
#define PIECE_PARTS 32
#define PIECE_BYTES ((hwaddr)MiB)

/* A contiguous part of one memory region. */
typedef struct Part {
    MemoryRegion *mr;
    hwaddr addr;
    hwaddr len;
} Part;

typedef struct Piece {
    Part parts[PIECE_PARTS];
    unsigned n;
    hwaddr len;
} Piece;

static bool is_write(const GuestMemfdAccess *a)
{
    return a->kind != GUEST_MEMFD_ACCESS_READ;
}

static bool is_memory(const GuestMemfdAccess *a, const Part *part)
{
    return memory_access_is_direct(part->mr, is_write(a), a->attrs) ||
           guest_memfd_is_mappable(part->mr, is_write(a), a->attrs);
}

static bool follows(const Part *part, const Part *last)
{
    return part->mr == last->mr && part->addr == last->addr + last->len;
}

/* The beginning of [addr, addr + len), which is not empty. */
static void translate(const GuestMemfdAccess *a, hwaddr addr, hwaddr len,
                      Piece *piece)
{
    Part part;

    len = MIN(len, PIECE_BYTES);
    for (piece->n = piece->len = 0; piece->len < len; piece->len += part.len) {
        part.len = len - piece->len;
        part.mr = a->translate(a->opaque, addr + piece->len, &part.addr,
                               &part.len, is_write(a), a->attrs);
        if (!is_memory(a, &part)) {
            part.len = memory_access_size(part.mr, part.len, part.addr);
        }
        if (piece->n && follows(&part, &piece->parts[piece->n - 1])) {
            piece->parts[piece->n - 1].len += part.len;
        } else if (piece->n < PIECE_PARTS) {
            piece->parts[piece->n++] = part;
        } else {
            return;
        }
    }
}

static bool is_private(const GuestMemfdAccess *a, const Part *part)
{
    return part->mr->convertible && !a->attrs.vcpu && is_memory(a, part) &&
           !guest_memfd_block_is_shared(part->mr->ram_block->gmem,
                                        part->addr, part->len);
}

static const Part *find_private(const GuestMemfdAccess *a, const Part *part,
                                const Part *end)
{
    while (part < end && !is_private(a, part)) {
        part++;
    }
    return part < end ? part : NULL;
}

/* NULL: the access has begun. */
static const Part *try_begin(const GuestMemfdAccess *a, const Part *part,
                             const Part *end)
{
    const Part *private;

    guest_memfd_access_begin();
    private = find_private(a, part, end);
    if (private) {
        guest_memfd_access_end();
    }
    return private;
}

/* True: all parts up to @end are shared until guest_memfd_access_end(). */
static bool begin(const GuestMemfdAccess *a, const Part *part,
                  const Part *end)
{
    const Part *private;
    unsigned i;

    for (i = 0; i < TRIES; i++) {
        private = try_begin(a, part, end);
        if (!private) {
            return true;
        }
        /* A request that fails may have recorded the pages for a moment. */
        QEMU_LOCK_GUARD(&private->mr->ram_block->gmem->lock);
        if (is_private(a, private)) {
            return false;
        }
        /* With the lock, so that only other blocks can be in the way. */
        if (!try_begin(a, part, end)) {
            return true;
        }
    }
    return false;
}

static void copy_part(const GuestMemfdAccess *a, const Part *part,
                      uint8_t *buf)
{
    void *host = host_of(part->mr, part->addr);

    if (a->kind == GUEST_MEMFD_ACCESS_READ) {
        memcpy(buf, host, part->len);
    } else if (a->kind == GUEST_MEMFD_ACCESS_SET) {
        memset(host, a->fill, part->len);
    } else {
        memmove(host, buf, part->len);
    }
}

/* Registers; there is no reason to keep conversions waiting for them. */
static MemTxResult access_registers(const GuestMemfdAccess *a,
                                    const Part *part, uint8_t *buf)
{
    const bool set = a->kind == GUEST_MEMFD_ACCESS_SET;
    MemTxResult result = MEMTX_OK;
    uint8_t fill[8];
    hwaddr done, l;

    if (a->kind == GUEST_MEMFD_ACCESS_ROM) {
        return MEMTX_OK;
    }
    memset(fill, a->fill, sizeof(fill));
    for (done = 0; done < part->len; done += l) {
        const hwaddr len = part->len - done, addr = part->addr + done;

        l = memory_access_size(part->mr, len, addr);
        result |= flatview_access_step(a->attrs, set ? fill : buf + done, len,
                                       addr, &l, part->mr, is_write(a));
    }
    return result;
}

/* From @part to the next register.  @buf is moved on. */
static bool copy_memory(const GuestMemfdAccess *a, const Part **part,
                        const Part *end, uint8_t **buf)
{
    const Part *first = *part, *p;

    if (!begin(a, first, end)) {
        return false;
    }
    for (p = first; p < end && is_memory(a, p); p++) {
        copy_part(a, p, *buf);
        *buf += a->kind == GUEST_MEMFD_ACCESS_SET ? 0 : p->len;
    }
    guest_memfd_access_end();

    *part = p;
    while (is_write(a) && p-- > first) {
        if (p->mr->convertible) {
            note_written(p->mr, p->addr, p->len);
        } else {
            invalidate_and_set_dirty(p->mr, p->addr, p->len);
        }
    }
    return true;
}

/* Nothing is copied from @pos on. */
static MemTxResult refuse(const GuestMemfdAccess *a, uint8_t *pos,
                          uint8_t *buf, hwaddr len)
{
    guest_memfd_count_refused();
    if (a->kind == GUEST_MEMFD_ACCESS_READ) {
        memset(pos, 0, buf + len - pos);
    }
    return MEMTX_ACCESS_ERROR;
}

static bool may_begin(const GuestMemfdAccess *a, const Piece *piece)
{
    if (!begin(a, piece->parts, piece->parts + piece->n)) {
        return false;
    }
    guest_memfd_access_end();
    return true;
}

/* False: a page is private, and nothing is copied from *pos on. */
static bool access_piece(const GuestMemfdAccess *a, const Piece *piece,
                         uint8_t **pos, MemTxResult *result)
{
    const Part *part = piece->parts, *end = part + piece->n;

    while (part < end) {
        if (is_memory(a, part)) {
            if (!copy_memory(a, &part, end, pos)) {
                return false;
            }
        } else {
            *result |= access_registers(a, part, *pos);
            *pos += a->kind == GUEST_MEMFD_ACCESS_SET ? 0 : part->len;
            part++;
        }
    }
    return true;
}

/* @piece is the last one that was looked at. */
static bool may_access(const GuestMemfdAccess *a, hwaddr addr, hwaddr len,
                       Piece *piece)
{
    for (; len; addr += piece->len, len -= piece->len) {
        translate(a, addr, len, piece);
        if (!may_begin(a, piece)) {
            return false;
        }
    }
    return true;
}

MemTxResult guest_memfd_access(const GuestMemfdAccess *a, hwaddr addr,
                               void *buf, hwaddr len)
{
    MemTxResult result = MEMTX_OK;
    uint8_t *pos = buf;
    hwaddr done;
    Piece piece;
    bool short_one;

    if (!may_access(a, addr, len, &piece)) {
        return refuse(a, buf, buf, len);
    }
    short_one = piece.len == len;
    for (done = 0; done < len; done += piece.len) {
        if (!short_one) {
            translate(a, addr + done, len - done, &piece);
        }
        if (!access_piece(a, &piece, &pos, &result)) {
            return result | refuse(a, pos, buf, len);
        }
    }
    return result;
}

MemTxResult guest_memfd_access_part(const GuestMemfdAccess *a, hwaddr addr,
                                    void *buf, hwaddr len, hwaddr mr_addr,
                                    hwaddr l, MemoryRegion *mr)
{
    if (l == len) {
        return copy(mr, mr_addr, buf, len, is_write(a), a->attrs);
    }
    return guest_memfd_access(a, addr, buf, len);
}

static MemoryRegion *translate_flatview(void *opaque, hwaddr addr,
                                        hwaddr *xlat, hwaddr *plen,
                                        bool is_write, MemTxAttrs attrs)
{
    return flatview_translate(opaque, addr, xlat, plen, is_write, attrs);
}

GuestMemfdAccess guest_memfd_access_of(FlatView *fv, MemTxAttrs attrs,
                                       GuestMemfdAccessKind kind)
{
    return (GuestMemfdAccess) {
        .kind = kind,
        .attrs = attrs,
        .translate = translate_flatview,
        .opaque = fv,
    };
}

MemTxResult guest_memfd_address_space_set(AddressSpace *as, hwaddr addr,
                                          uint8_t fill, hwaddr len,
                                          MemTxAttrs attrs)
{
    GuestMemfdAccess a;

    RCU_READ_LOCK_GUARD();
    a = guest_memfd_access_of(address_space_to_flatview(as), attrs,
                              GUEST_MEMFD_ACCESS_SET);
    a.fill = fill;
    return len ? guest_memfd_access(&a, addr, NULL, len) : MEMTX_OK;
}

MemTxResult guest_memfd_address_space_write_rom(AddressSpace *as, hwaddr addr,
                                                MemTxAttrs attrs,
                                                const void *buf, hwaddr len)
{
    GuestMemfdAccess a;

    attrs.debug = true;         /* it may write to ROM */
    RCU_READ_LOCK_GUARD();
    a = guest_memfd_access_of(address_space_to_flatview(as), attrs,
                              GUEST_MEMFD_ACCESS_ROM);
    return len ? guest_memfd_access(&a, addr, (void *)buf, len) : MEMTX_OK;
}
