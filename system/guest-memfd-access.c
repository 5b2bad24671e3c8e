/*
 * Short accesses: QEMU copies to or from shared guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A thread publishes the range that it is about to copy, reads the record of
 * states, copies, and clears the range.  A conversion records pages as
 * private and then waits until no thread copies there.  A full barrier
 * between the two steps on both sides makes sure that one of them finds the
 * other.  A copy takes no lock and never blocks, so the wait is short, and it
 * is no reason for a conversion to fail.
 *
 * Pointers that are kept longer are mappings.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/lockable.h"
#include "qemu/processor.h"
#include "qemu/queue.h"
#include "qemu/thread.h"
#include "system/ramblock.h"
#include "guest-memfd-internal.h"

#define SPINS 1000

/* Of one thread, and written by it; read by all, so all is atomic. */
typedef struct Access {
    uintptr_t first;            /* in the host's memory */
    uintptr_t last;             /* 0: none */
    unsigned ended;             /* so many accesses */
    QLIST_ENTRY(Access) next;   /* accesses_lock */
} Access;

static QemuMutex accesses_lock;
static QLIST_HEAD(, Access) accesses = QLIST_HEAD_INITIALIZER(accesses);

/* To call getpagesize() and divide would take longer than to look. */
static unsigned page_bits;

static void __attribute__((__constructor__)) init(void)
{
    qemu_mutex_init(&accesses_lock);
    page_bits = ctz64(guest_memfd_page_size());
}

static void free_access(void *opaque)
{
    Access *access = opaque;

    WITH_QEMU_LOCK_GUARD(&accesses_lock) {
        QLIST_REMOVE(access, next);
    }
    g_free(access);
}

/* GLib's, as the thread may be a library's, and ends without a notice. */
static GPrivate own_access = G_PRIVATE_INIT(free_access);

static Access *get_own_access(void)
{
    Access *access = g_private_get(&own_access);

    if (unlikely(!access)) {
        access = g_new0(Access, 1);
        g_private_set(&own_access, access);

        QEMU_LOCK_GUARD(&accesses_lock);
        QLIST_INSERT_HEAD(&accesses, access, next);
    }
    return access;
}

bool guest_memfd_block_is_shared(const GuestMemfdBlock *block,
                                 uint64_t offset, uint64_t size)
{
    const unsigned long *bitmap = qatomic_read(&block->record);
    const unsigned long first = offset >> page_bits;
    const unsigned long end = ((offset + size - 1) >> page_bits) + 1;
    bool shared = end - first == 1 ?
                  test_bit(first, bitmap) :
                  find_next_zero_bit(bitmap, end, first) >= end;

    smp_rmb();      /* pairs with guest_memfd_run_publish() */
    return shared;
}

static void publish(Access *access, uintptr_t first, uintptr_t last)
{
    assert(!access->last);
    qatomic_set(&access->first, first);
    qatomic_store_release(&access->last, last);
    smp_mb();                   /* pairs with guest_memfd_block_wait() */
}

static void clear(Access *access)
{
    qatomic_store_release(&access->last, 0);
    qatomic_store_release(&access->ended, access->ended + 1);
}

void guest_memfd_access_begin(void)
{
    publish(get_own_access(), 0, UINTPTR_MAX);
}

void guest_memfd_access_end(void)
{
    clear(get_own_access());
}

/* One load and one store: the guest may use the same word meanwhile. */
static void copy(const GuestMemfdBlock *block, uint64_t offset, void *buf,
                 uint64_t size, bool is_write)
{
    void *host = block->host + offset;
    void *to = is_write ? host : buf;
    const void *from = is_write ? buf : host;

    switch (size) {
    case 1:
        stb_p(to, ldub_p(from));
        break;
    case 2:
        stw_he_p(to, lduw_he_p(from));
        break;
    case 4:
        stl_he_p(to, ldl_he_p(from));
        break;
    case 8:
        stq_he_p(to, ldq_he_p(from));
        break;
    default:
        memmove(to, from, size);
    }
}

bool guest_memfd_block_copy(GuestMemfdBlock *block, uint64_t offset,
                            void *buf, uint64_t size, bool is_write)
{
    const uintptr_t first = (uintptr_t)block->host + offset;
    Access *access = get_own_access();
    bool shared;

    publish(access, first, first + size - 1);
    shared = guest_memfd_block_is_shared(block, offset, size);
    if (likely(shared)) {
        copy(block, offset, buf, size, is_write);
    }
    clear(access);
    if (likely(shared)) {
        return true;
    }

    /* A request that fails may have recorded the pages for a moment. */
    QEMU_LOCK_GUARD(&block->lock);
    shared = guest_memfd_block_is_shared(block, offset, size);
    if (shared) {
        copy(block, offset, buf, size, is_write);
    }
    return shared;
}

static bool is_in(const Access *access, uintptr_t first, uintptr_t last)
{
    const uintptr_t to = qatomic_load_acquire(&access->last);

    return to && to >= first && qatomic_read(&access->first) <= last;
}

/* An access that begins after this call reads the new record. */
static void wait_for(const Access *access, uintptr_t first, uintptr_t last)
{
    const unsigned ended = qatomic_load_acquire(&access->ended);
    unsigned spins = 0;

    while (is_in(access, first, last) &&
           qatomic_load_acquire(&access->ended) == ended) {
        if (++spins % SPINS) {
            cpu_relax();
        } else {
            g_thread_yield();
        }
    }
}

void guest_memfd_block_wait(const GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size)
{
    const uintptr_t first = (uintptr_t)block->host + offset;
    const uintptr_t last = first + size - 1;
    const Access *access;

    smp_mb();                   /* pairs with publish() */
    QEMU_LOCK_GUARD(&accesses_lock);
    QLIST_FOREACH(access, &accesses, next) {
        wait_for(access, first, last);
    }
}
