/*
 * Threads of QEMU that read or write shared guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A device looks whether memory is shared, and then reads or writes it; it
 * does both in one RCU read-side critical section, and takes no lock.  So
 * that the memory does not become private in between, the thread first
 * writes down where it is about to go.  A conversion records pages as
 * private, and then reads what the threads wrote.  There is a full barrier
 * between the two on both sides: one of them sees the other.
 *
 * Nobody tells when the access is over; the end of the critical section,
 * and the next access of the thread, do.  A section that has begun since
 * is taken for that of the access: the conversion is then tried again.
 *
 * Who keeps a pointer for longer is a user: see guest_memfd_block_use().
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/queue.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "guest-memfd-internal.h"

/* Of one thread, and written by it; read by all, so all is atomic. */
typedef struct Access {
    uintptr_t first;            /* in the host's memory */
    uintptr_t last;             /* 0: nowhere */
    const struct rcu_reader_data *reader;
    QLIST_ENTRY(Access) next;   /* accesses_lock */
} Access;

static QemuMutex accesses_lock;
static QLIST_HEAD(, Access) accesses = QLIST_HEAD_INITIALIZER(accesses);

static void __attribute__((__constructor__)) init_lock(void)
{
    qemu_mutex_init(&accesses_lock);
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
        access->reader = get_ptr_rcu_reader();
        g_private_set(&own_access, access);

        QEMU_LOCK_GUARD(&accesses_lock);
        QLIST_INSERT_HEAD(&accesses, access, next);
    }
    return access;
}

bool guest_memfd_block_access(const GuestMemfdBlock *block, uint64_t offset,
                              uint64_t *size)
{
    const uintptr_t first = (uintptr_t)block->host + offset;
    Access *access = get_own_access();
    bool shared;

    qatomic_set(&access->first, first);
    qatomic_set(&access->last, first + *size - 1);
    smp_mb();       /* pairs with guest_memfd_block_accessed() */

    shared = guest_memfd_block_clamp(block, offset, size);
    qatomic_set(&access->last, shared ? first + *size - 1 : 0);
    return shared;
}

bool guest_memfd_block_accessed(const GuestMemfdBlock *block, uint64_t offset,
                                uint64_t size, uint64_t *busy)
{
    const uintptr_t host = (uintptr_t)block->host;
    const uintptr_t first = host + offset, last = first + size - 1;
    const struct rcu_reader_data *own = get_ptr_rcu_reader();
    const Access *access;

    smp_mb();       /* pairs with guest_memfd_block_access() */
    QEMU_LOCK_GUARD(&accesses_lock);
    QLIST_FOREACH(access, &accesses, next) {
        uintptr_t from = MAX(qatomic_read(&access->first), first);

        if (from <= MIN(qatomic_read(&access->last), last) &&
            access->reader != own &&
            qatomic_load_acquire(&access->reader->ctr)) {
            *busy = from - host;
            return true;
        }
    }
    return false;
}
