/*
 * Mappings: pointers to shared guest memory that outlive one access
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A mapping keeps its pages shared.  Each page has a counter, and so has
 * each group of pages, so that a conversion of much memory has little to
 * look at.  A group that a mapping covers is counted as a whole, so that a
 * large mapping has little to count.  A mapping is counted before the record
 * of states is read, and a conversion changes the record before it reads the
 * counters, with a full barrier in between on both sides, so that one of
 * them finds the other.
 *
 * Counters do not say which mapping they count.  So each mapping is also an
 * entry of a hash table by its offset and size, which the guest chooses, and
 * removing one that does not exist changes nothing: no other mapping loses
 * its pages.
 *
 * A group and the mappings that begin there are guarded by one of several
 * spinlocks, which is the only lock that a mapping takes, since atomic
 * operations are expensive in a request of a device.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/madvise.h"
#include "qemu/memalign.h"
#include "qemu/thread.h"
#include "guest-memfd-internal.h"
#include "trace.h"

#define GROUP_PAGES 512
#define SHARDS      64

#define MIN_BUCKETS 16

/* Buckets and mappings that are looked at to name a user, with a lock. */
#define SEARCH_MAX  1024

typedef struct Mapping {
    uint64_t offset;
    uint64_t size;
    uint64_t count;             /* so often mapped */
    GuestMemfdUser user;        /* the last of them */
    struct Mapping *next;
} Mapping;

/*
 * The table grows and never shrinks, and mappings are used again: a request
 * maps and unmaps a few buffers, and GHashTable would be resized each time.
 */
typedef struct Shard {
    QemuSpin lock;
    uint32_t n;
    uint32_t mask;              /* number of buckets, less 1 */
    unsigned long mapped;       /* sum of the counts; read by all */
    unsigned long bytes;        /* the same of their sizes */
    Mapping **buckets;
    Mapping *unused;
} QEMU_ALIGNED(64) Shard;

/* Of one group of pages. */
typedef struct Group {
    uint32_t some;              /* mappings of a part of it */
    uint32_t whole;             /* mappings of all of it */
} Group;

/* Counters are written with the shard's lock, and read by all. */
struct GuestMemfdMappings {
    uint32_t *pages;            /* most are never touched */
    Group *groups;
    size_t pages_bytes;
    Shard *shards;
};

/* To call getpagesize() and divide would take longer than to count. */
static unsigned page_bits;

static uint64_t page_of(uint64_t offset)
{
    return offset >> page_bits;
}

/* Odd and random: multiply-shift hashing, which is universal. */
static uint64_t offset_factor, size_factor;

static uint64_t random_factor(void)
{
    return (uint64_t)g_random_int() << 32 | g_random_int() | 1;
}

static void __attribute__((__constructor__)) init(void)
{
    page_bits = ctz64(guest_memfd_page_size());
    offset_factor = random_factor();
    size_factor = random_factor();
}

/* A guest cannot choose ranges that share a bucket. */
static Mapping **bucket_of(const Shard *shard, uint64_t offset, uint64_t size)
{
    const uint64_t hash = offset * offset_factor + size * size_factor;

    return &shard->buckets[hash >> 32 & shard->mask];
}

bool guest_memfd_mappings_init(GuestMemfdBlock *block, Error **errp)
{
    const uint64_t pages = page_of(block->size);
    const size_t bytes = ROUND_UP(pages * sizeof(uint32_t),
                                  qemu_real_host_page_size());
    void *counters = qemu_anon_ram_alloc(bytes, NULL, false, false);
    GuestMemfdMappings *m;
    unsigned i;

    if (!counters) {
        error_setg_errno(errp, errno, "cannot count mappings of guest memory "
                         "'%s'", block->name);
        return false;
    }
    m = g_new0(GuestMemfdMappings, 1);
    m->pages = counters;
    m->pages_bytes = bytes;
    /* A huge page of counters would be cleared for the first mapping. */
    qemu_madvise(m->pages, m->pages_bytes, QEMU_MADV_NOHUGEPAGE);
    m->groups = g_new0(Group, DIV_ROUND_UP(pages, GROUP_PAGES));
    m->shards = qemu_memalign(64, SHARDS * sizeof(m->shards[0]));
    memset(m->shards, 0, SHARDS * sizeof(m->shards[0]));
    for (i = 0; i < SHARDS; i++) {
        qemu_spin_init(&m->shards[i].lock);
        m->shards[i].mask = MIN_BUCKETS - 1;
        m->shards[i].buckets = g_new0(Mapping *, MIN_BUCKETS);
    }
    block->mappings = m;
    return true;
}

static void free_list(Mapping *mapping)
{
    while (mapping) {
        Mapping *next = mapping->next;

        g_free(mapping);
        mapping = next;
    }
}

static void free_shard(Shard *shard)
{
    uint64_t i;

    for (i = 0; i <= shard->mask; i++) {
        free_list(shard->buckets[i]);
    }
    free_list(shard->unused);
    g_free(shard->buckets);
}

void guest_memfd_mappings_destroy(GuestMemfdBlock *block)
{
    GuestMemfdMappings *m = block->mappings;
    unsigned i;

    for (i = 0; i < SHARDS; i++) {
        free_shard(&m->shards[i]);
    }
    qemu_anon_ram_free(m->pages, m->pages_bytes);
    qemu_vfree(m->shards);
    g_free(m->groups);
    g_free(m);
}

static Shard *shard_of(GuestMemfdMappings *m, uint64_t group)
{
    return &m->shards[group % SHARDS];
}

/* With the lock of the group's shard. */
static void count_in_group(GuestMemfdMappings *m, uint64_t group,
                           uint64_t first, uint64_t last, uint32_t by)
{
    const uint64_t start = group * GROUP_PAGES;
    const uint64_t end = start + GROUP_PAGES - 1;
    Group *g = &m->groups[group];
    uint64_t page = MAX(first, start);

    if (likely(first == last)) {
        qatomic_set(&g->some, g->some + by);
        qatomic_set(&m->pages[first], m->pages[first] + by);
        return;
    }
    if (first <= start && last >= end) {
        qatomic_set(&g->whole, g->whole + by);
        return;
    }
    last = MIN(last, end);
    qatomic_set(&g->some, g->some + by);
    for (; page <= last; page++) {
        qatomic_set(&m->pages[page], m->pages[page] + by);
    }
}

static void count_other_groups(GuestMemfdMappings *m, uint64_t first,
                               uint64_t last, uint32_t by)
{
    uint64_t group = first / GROUP_PAGES;

    while (++group <= last / GROUP_PAGES) {
        Shard *shard = shard_of(m, group);

        qemu_spin_lock(&shard->lock);
        count_in_group(m, group, first, last, by);
        qemu_spin_unlock(&shard->lock);
    }
}

/* Where the mapping is linked, or would be. */
static Mapping **find(const Shard *shard, uint64_t offset, uint64_t size)
{
    Mapping **link = bucket_of(shard, offset, size);

    while (*link && ((*link)->offset != offset || (*link)->size != size)) {
        link = &(*link)->next;
    }
    return link;
}

static void grow(Shard *shard)
{
    const uint32_t old_mask = shard->mask;
    Mapping **old = shard->buckets, *mapping;
    uint64_t i;

    shard->mask = old_mask * 2 + 1;
    shard->buckets = g_new0(Mapping *, shard->mask + 1ULL);
    for (i = 0; i <= old_mask; i++) {
        while ((mapping = old[i])) {
            Mapping **bucket = bucket_of(shard, mapping->offset,
                                         mapping->size);

            old[i] = mapping->next;
            mapping->next = *bucket;
            *bucket = mapping;
        }
    }
    g_free(old);
}

static void count_in_shard(Shard *shard, unsigned long size, unsigned long by)
{
    qatomic_set(&shard->mapped, shard->mapped + by);
    qatomic_set(&shard->bytes, shard->bytes + size * by);
}

static void add_mapping(Shard *shard, uint64_t offset, uint64_t size,
                        GuestMemfdUser user)
{
    Mapping **link = find(shard, offset, size), *mapping = *link;

    count_in_shard(shard, size, 1);
    if (mapping) {
        mapping->count++;
        mapping->user = user;
        return;
    }
    if (unlikely(shard->n > shard->mask)) {
        grow(shard);
        link = find(shard, offset, size);
    }
    mapping = shard->unused;
    if (likely(mapping)) {
        shard->unused = mapping->next;
    } else {
        mapping = g_new(Mapping, 1);
    }
    *mapping = (Mapping) {
        .offset = offset, .size = size, .count = 1, .user = user,
    };
    *link = mapping;
    shard->n++;
}

static bool remove_mapping(Shard *shard, uint64_t offset, uint64_t size)
{
    Mapping **link = find(shard, offset, size), *mapping = *link;

    if (unlikely(!mapping)) {
        return false;
    }
    count_in_shard(shard, size, -1);
    if (!--mapping->count) {
        *link = mapping->next;
        mapping->next = shard->unused;
        shard->unused = mapping;
        shard->n--;
    }
    return true;
}

static void enter(GuestMemfdMappings *m, uint64_t offset, uint64_t size,
                  GuestMemfdUser user)
{
    const uint64_t first = page_of(offset), last = page_of(offset + size - 1);
    Shard *shard = shard_of(m, first / GROUP_PAGES);

    qemu_spin_lock(&shard->lock);
    add_mapping(shard, offset, size, user);
    count_in_group(m, first / GROUP_PAGES, first, last, 1);
    qemu_spin_unlock(&shard->lock);
    if (unlikely(last / GROUP_PAGES > first / GROUP_PAGES)) {
        count_other_groups(m, first, last, 1);
    }
}

static bool leave(GuestMemfdMappings *m, uint64_t offset, uint64_t size)
{
    const uint64_t first = page_of(offset), last = page_of(offset + size - 1);
    Shard *shard = shard_of(m, first / GROUP_PAGES);
    bool found;

    qemu_spin_lock(&shard->lock);
    found = remove_mapping(shard, offset, size);
    if (likely(found)) {
        count_in_group(m, first / GROUP_PAGES, first, last, -1);
    }
    qemu_spin_unlock(&shard->lock);
    if (found && unlikely(last / GROUP_PAGES > first / GROUP_PAGES)) {
        count_other_groups(m, first, last, -1);
    }
    return found;
}

static bool try_enter(GuestMemfdBlock *block, uint64_t offset, uint64_t size,
                      GuestMemfdUser user)
{
    if (!guest_memfd_block_is_shared(block, offset, size)) {
        return false;
    }
    enter(block->mappings, offset, size, user);
    smp_mb();                   /* pairs with guest_memfd_block_is_mapped() */
    if (likely(guest_memfd_block_is_shared(block, offset, size))) {
        return true;
    }
    leave(block->mappings, offset, size);
    return false;
}

bool guest_memfd_mapping_add_for(GuestMemfdBlock *block, uint64_t offset,
                                 uint64_t size, GuestMemfdUser user)
{
    if (likely(try_enter(block, offset, size, user))) {
        return true;
    }
    /* A request that fails may have recorded the pages for a moment. */
    QEMU_LOCK_GUARD(&block->lock);
    return try_enter(block, offset, size, user);
}

bool guest_memfd_mapping_add(GuestMemfdBlock *block, uint64_t offset,
                             uint64_t size)
{
    return guest_memfd_mapping_add_for(block, offset, size, (GuestMemfdUser) {
        .kind = GUEST_MEMFD_PAGE_USER_MAPPING,
    });
}

bool guest_memfd_mapping_remove(GuestMemfdBlock *block, uint64_t offset,
                                uint64_t size)
{
    if (likely(leave(block->mappings, offset, size))) {
        return true;
    }
    trace_guest_memfd_not_mapped(block->name, offset, size);
    warn_report_once("guest memory '%s': [0x%" PRIx64 ", +0x%" PRIx64
                     ") is unmapped but was not mapped like this; what "
                     "was mapped stays shared", block->name, offset, size);
    return false;
}

bool guest_memfd_block_is_mapped(const GuestMemfdBlock *block,
                                 uint64_t offset, uint64_t size,
                                 uint64_t *busy)
{
    const GuestMemfdMappings *m = block->mappings;
    const uint64_t end = page_of(offset + size);
    uint64_t page = page_of(offset);

    smp_mb();                   /* pairs with try_enter() */
    while (page < end) {
        const Group *group = &m->groups[page / GROUP_PAGES];

        if (qatomic_read(&group->whole) ||
            (qatomic_read(&group->some) && qatomic_read(&m->pages[page]))) {
            *busy = page * guest_memfd_page_size();
            return true;
        }
        if (qatomic_read(&group->some)) {
            page++;
        } else {
            page = ROUND_UP(page + 1, GROUP_PAGES);
        }
    }
    return false;
}

/* With the lock of the shard. */
static const Mapping *find_over(const Shard *shard, uint64_t page)
{
    unsigned left = SEARCH_MAX;
    const Mapping *mapping;
    uint64_t i;

    for (i = 0; i <= shard->mask && left; i++, left--) {
        for (mapping = shard->buckets[i]; mapping && left;
             mapping = mapping->next, left--) {
            if (page_of(mapping->offset) <= page &&
                page_of(mapping->offset + mapping->size - 1) >= page) {
                return mapping;
            }
        }
    }
    return NULL;
}

GuestMemfdUser guest_memfd_mapping_user(const GuestMemfdBlock *block,
                                        uint64_t offset)
{
    const uint64_t group = page_of(offset) / GROUP_PAGES;
    GuestMemfdUser user = { .kind = GUEST_MEMFD_PAGE_USER_MAPPING };
    uint64_t first;

    /* Most mappings begin in the same group or in the one before. */
    for (first = group; first + 1 >= group && first <= group; first--) {
        Shard *shard = shard_of(block->mappings, first);
        const Mapping *mapping;

        qemu_spin_lock(&shard->lock);
        mapping = find_over(shard, page_of(offset));
        if (mapping) {
            user = mapping->user;
        }
        qemu_spin_unlock(&shard->lock);
        if (mapping) {
            break;
        }
    }
    return user;
}

void guest_memfd_mappings_count(const GuestMemfdBlock *block,
                                uint64_t *mappings, uint64_t *bytes)
{
    unsigned i;

    *mappings = *bytes = 0;
    for (i = 0; i < SHARDS; i++) {
        const Shard *shard = &block->mappings->shards[i];

        *mappings += qatomic_read(&shard->mapped);
        *bytes += qatomic_read(&shard->bytes);
    }
}
