/*
 * KVM as a provider of guest memory conversions: two backings
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Private pages are in a guest_memfd, shared ones in ordinary memory, and
 * attributes of guest-physical addresses choose.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/madvise.h"
#include "qemu/module.h"
#include "qemu/rcu.h"
#include "system/accel-blocker.h"
#include "system/address-spaces.h"
#include "system/guest-memfd-ram.h"
#include "system/kvm.h"
#include "system/kvm-guest-memfd.h"
#include "system/ramblock.h"
#include "kvm-guest-memfd-backings.h"
#include "kvm-guest-memfd-kernel.h"

#define TYPE_GUEST_MEMFD_PROVIDER_KVM "guest-memfd-provider-kvm"

typedef struct AttributeChange {
    RAMBlock *rb;
    uint64_t offset;
    uint64_t size;
    bool private;
    int ret;
} AttributeChange;

/*
 * KVM's listener may set the attributes of all that is in a memslot, as
 * they are recorded, between a conversion and its record.  It then waits
 * for the lock of the block, and must not keep conversions that hold it
 * from their ioctls.
 */
static void two_backings_begin(GuestMemfdProvider *provider)
{
    accel_ioctl_begin();
}

static void two_backings_end(GuestMemfdProvider *provider)
{
    accel_ioctl_end();
}

static int set_attributes(hwaddr gpa, uint64_t size, bool private)
{
    return private ? kvm_set_memory_attributes_private(gpa, size) :
                     kvm_set_memory_attributes_shared(gpa, size);
}

/* Attributes belong to addresses: find all where the memory is mapped. */
static bool set_range_attributes(Int128 start, Int128 len,
                                 const MemoryRegion *mr, hwaddr mr_offset,
                                 void *opaque)
{
    AttributeChange *change = opaque;
    uint64_t from = MAX(change->offset, mr_offset);
    uint64_t to = MIN(change->offset + change->size,
                      mr_offset + int128_get64(len));
    hwaddr gpa = int128_get64(start) + from - mr_offset;

    if (mr->ram_block != change->rb || from >= to) {
        return false;
    }
    change->ret = set_attributes(gpa, to - from, change->private);
    return change->ret;
}

static bool has_huge_pages(const RAMBlock *rb)
{
    return rb->page_size != qemu_real_host_page_size();
}

/*
 * Huge pages stay allocated.  One that is not there, and cannot be had (an
 * empty pool, reserve=off), has nothing to clear, and to touch it would be a
 * SIGBUS: the kernel is asked for it first, and says EFAULT.
 */
static int clear_huge_pages(GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size)
{
    const size_t huge = block->ram_block->page_size;
    const uint64_t end = offset + size;

    while (offset < end) {
        uint8_t *host = block->host + offset;
        size_t part = MIN(huge - offset % huge, end - offset);

        if (!qemu_madvise(host, part, QEMU_MADV_POPULATE_WRITE)) {
            memset(host, 0, part);
        } else if (errno != EFAULT) {
            return -errno;
        }
        offset += part;
    }
    return 0;
}

/* --- what of the shared copy is there ------------------------------------ */

/* Documentation/admin-guide/mm/pagemap.rst of Linux */
#define PAGEMAP_PRESENT     BIT_ULL(63)
#define PAGEMAP_SWAPPED     BIT_ULL(62)
#define PAGEMAP_WINDOW      512
/* To look at more pages takes longer than to discard what is not there. */
#define LOOK_PAGES_MAX      128

/*
 * SharedCopy: what is known of the memory of a span
 *
 * @end: of the span.
 * @known, @known_end: what has been looked at.  In a file it is a hole; of
 *     other memory @pages has the entries of the page map.
 */
typedef struct SharedCopy {
    const RAMBlock *rb;
    uint64_t end;
    uint64_t known, known_end;
    uint64_t pages[PAGEMAP_WINDOW];
} SharedCopy;

/* Of this process, for as long as it runs; fails if it changed its user. */
static int pagemap_fd(void)
{
    static gsize opened;

    if (g_once_init_enter(&opened)) {
        int fd = qemu_open_old("/proc/self/pagemap", O_RDONLY);

        /* Not 0. */
        g_once_init_leave(&opened, fd + 2);
    }
    return (int)opened - 2;
}

static bool is_known(const SharedCopy *copy, uint64_t offset, uint64_t size)
{
    return offset >= copy->known && offset + size <= copy->known_end;
}

/* Pages of tmpfs that are in swap are data, too. */
static bool file_has_data(SharedCopy *copy, uint64_t offset, uint64_t size)
{
    const RAMBlock *rb = copy->rb;
    off_t data;

    if (!is_known(copy, offset, size)) {
        data = lseek(rb->fd, rb->fd_offset + offset, SEEK_DATA);
        if (data < 0 && errno != ENXIO) {
            return true;
        }
        copy->known = offset;
        copy->known_end = data < 0 ? copy->end : data - rb->fd_offset;
    }
    return !is_known(copy, offset, size);
}

static bool look_up_pages(SharedCopy *copy, uint64_t offset)
{
    const size_t page = qemu_real_host_page_size();
    const size_t n = MIN((copy->end - offset) / page, PAGEMAP_WINDOW);
    const off_t first = (uintptr_t)(copy->rb->host + offset) / page;
    const ssize_t bytes = n * sizeof(*copy->pages);

    if (pread(pagemap_fd(), copy->pages, bytes,
              first * sizeof(*copy->pages)) != bytes) {
        return false;
    }
    copy->known = offset;
    copy->known_end = offset + n * page;
    return true;
}

/*
 * mincore() would not do: what is in swap is not in core.  A page without an
 * entry has never been written to since it was discarded.
 */
static bool memory_has_pages(SharedCopy *copy, uint64_t offset, uint64_t size)
{
    const size_t page = qemu_real_host_page_size();
    const uint64_t *entry;
    uint64_t any = 0;
    size_t i;

    if (!is_known(copy, offset, size) && !look_up_pages(copy, offset)) {
        return true;
    }
    entry = copy->pages + (offset - copy->known) / page;
    for (i = 0; i < size / page; i++) {
        any |= entry[i];
    }
    return any & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED);
}

/*
 * Nobody can look at all memory: a private mapping of a file shows the file
 * where it has no page, and shared memory without a descriptor may have pages
 * that are not mapped.  What the user names may be anything: a device has no
 * holes to ask for, and a server of files does not know what is in memory only.
 */
static bool can_look(const RAMBlock *rb, uint64_t size)
{
    const bool shared = rb->flags & RAM_SHARED;

    return size <= LOOK_PAGES_MAX * qemu_real_host_page_size() &&
           shared == (rb->fd >= 0) && !(rb->flags & RAM_NAMED_FILE);
}

static bool may_have_bytes(SharedCopy *copy, uint64_t offset, uint64_t size)
{
    return copy->rb->fd >= 0 ? file_has_data(copy, offset, size) :
                               memory_has_pages(copy, offset, size);
}

/*
 * Memory that is there stays so, as a part of it may be in a huge page, which
 * would be split.  A bad page is thrown away.
 */
static int clear_small_pages(SharedCopy *copy, RAMBlock *rb, uint64_t offset,
                             uint64_t size)
{
    uint8_t *host = rb->host + offset;

    if (can_look(rb, size)) {
        if (!may_have_bytes(copy, offset, size)) {
            return 0;
        }
        if (!qemu_madvise(host, size, QEMU_MADV_POPULATE_WRITE)) {
            memset(host, 0, size);
            return 0;
        }
    }
    return ram_block_discard_range(rb, offset, size);
}

/*
 * It was thrown away when the page became private, so that there is nothing
 * to clear; but a device may have written to it since.
 */
static int clear_shared_copy(GuestMemfdBlock *block, uint64_t offset,
                             uint64_t size)
{
    RAMBlock *rb = block->ram_block;
    const bool huge = has_huge_pages(rb);
    const uint64_t end = offset + size;
    SharedCopy copy;
    int ret = 0;

    copy.rb = rb;
    copy.end = end;
    copy.known = copy.known_end = 0;
    while (!ret && guest_memfd_block_next_changed(block, end, &offset, &size)) {
        ret = huge ? clear_huge_pages(block, offset, size) :
                     clear_small_pages(&copy, rb, offset, size);
        offset += size;
    }
    return ret;
}

/* --- conversions ---------------------------------------------------------- */

/*
 * Where some page of a huge one is not thrown away with it, the shared copy
 * stays in small pages.  That costs more than to set and map all 512 again.
 */
#define SPAN_GAP_PAGES  512

/*
 * Throw away the copy that is not used any more, also of pages that were in
 * this state before.
 */
static int discard_other_copy(RAMBlock *rb, uint64_t offset, uint64_t size,
                              bool private)
{
    if (!private) {
        return ram_block_discard_guest_memfd_range(rb, offset, size);
    }
    if (has_huge_pages(rb)) {
        /* They were allocated in advance, to stay. */
        return 0;
    }
    return ram_block_discard_range(rb, offset, size);
}

static int two_backings_convert(GuestMemfdProvider *provider,
                                GuestMemfdBlock *block, uint64_t offset,
                                uint64_t size, GuestMemfdDirection direction,
                                GuestMemfdContentMode mode,
                                uint64_t *error_offset)
{
    RAMBlock *rb = block->ram_block;
    AttributeChange change = {
        .rb = rb,
        .offset = offset,
        .size = size,
        .private = direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE,
    };

    if (!change.private && mode == GUEST_MEMFD_CONTENT_MODE_ZERO) {
        change.ret = clear_shared_copy(block, offset, size);
        if (change.ret) {
            return change.ret;
        }
    }
    WITH_RCU_READ_LOCK_GUARD() {
        flatview_for_each_range(address_space_to_flatview(
                                    &address_space_memory),
                                set_range_attributes, &change);
    }
    return change.ret ?: discard_other_copy(rb, offset, size, change.private);
}

/* As QEMU does without this provider, whatever the size. */
static void two_backings_prefault(GuestMemfdProvider *provider, hwaddr gpa,
                                  uint64_t size)
{
    kvm_guest_memfd_prefault(current_cpu, gpa, size);
}

static void two_backings_class_init(ObjectClass *oc, const void *data)
{
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_CLASS(oc);

    pc->begin = two_backings_begin;
    pc->end = two_backings_end;
    pc->convert = two_backings_convert;
    pc->prefault = two_backings_prefault;
}

GuestMemfdProvider *kvm_guest_memfd_two_backings_new(const char *why)
{
    Object *obj = object_new(TYPE_GUEST_MEMFD_PROVIDER_KVM);
    GuestMemfdProvider *provider = GUEST_MEMFD_PROVIDER(obj);
    GuestMemfdOffer *offer = &provider->offer;
    int direction;

    provider->type = GUEST_MEMFD_PROVIDER_TYPE_KVM_TWO_BACKINGS;
    provider->reason = g_strdup(why);
    for (direction = 0; direction < GUEST_MEMFD_DIRECTION__MAX; direction++) {
        offer->how[direction][GUEST_MEMFD_CONTENT_MODE_DEFAULT] =
            GUEST_MEMFD_REALISATION_KERNEL;
        offer->how[direction][GUEST_MEMFD_CONTENT_MODE_ZERO] =
            GUEST_MEMFD_REALISATION_REFUSED;
        offer->how[direction][GUEST_MEMFD_CONTENT_MODE_PRESERVE] =
            GUEST_MEMFD_REALISATION_REFUSED;
    }
    /* The launch copies what it populates. */
    offer->preserve_until_final = true;
    offer->how[GUEST_MEMFD_DIRECTION_TO_SHARED]
              [GUEST_MEMFD_CONTENT_MODE_ZERO] = GUEST_MEMFD_REALISATION_KERNEL;
    /* KVM loses no bytes of pages that are right; the copies are ours. */
    guest_memfd_provider_set_spans(provider, SPAN_GAP_PAGES);
    return provider;
}

static const TypeInfo kvm_guest_memfd_backings_types[] = {
    {
        .name = TYPE_GUEST_MEMFD_PROVIDER_KVM,
        .parent = TYPE_GUEST_MEMFD_PROVIDER,
        .class_init = two_backings_class_init,
    }
};

DEFINE_TYPES(kvm_guest_memfd_backings_types)

/* --- memslots ------------------------------------------------------------ */

static uint64_t slots_added;

uint64_t kvm_guest_memfd_slots_added(void)
{
    return qatomic_read(&slots_added);
}

/* @offset and @size are those of the memory that is at @gpa now. */
static int set_recorded_attributes(const RAMBlock *rb, hwaddr gpa,
                                   uint64_t offset, uint64_t size)
{
    const size_t page = qemu_real_host_page_size();
    const unsigned long *shared = rb->attributes->bitmap;
    unsigned long first = offset / page, end = (offset + size) / page;

    while (first < end) {
        bool is_shared = test_bit(first, shared);
        unsigned long next = is_shared ?
                             find_next_zero_bit(shared, end, first) :
                             find_next_bit(shared, end, first);
        int ret = set_attributes(gpa + first * page - offset,
                                 (next - first) * page, !is_shared);

        if (ret) {
            return ret;
        }
        first = next;
    }
    return 0;
}

int kvm_guest_memfd_slot_added(MemoryRegion *mr, hwaddr gpa, uint64_t offset,
                               uint64_t size)
{
    int ret;

    qatomic_inc(&slots_added);
    if (guest_memfd_ram_block_in_place(mr->ram_block)) {
        return 0;
    }
    guest_memfd_ram_block_lock(mr->ram_block);
    ret = set_recorded_attributes(mr->ram_block, gpa, offset, size);
    guest_memfd_ram_block_unlock(mr->ram_block);
    return ret;
}
