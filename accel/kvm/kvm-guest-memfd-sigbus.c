/*
 * Host accesses to private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU checks the state of a page before an access, and conversions wait for
 * accesses in flight.  Code that keeps a pointer without a mapping can access
 * a private page, which is a SIGBUS, with which a guest could end QEMU.  So
 * an anonymous page is mapped where the access faulted: reads return zeros,
 * writes are discarded, and the guest's memory does not change.  When the
 * page becomes shared, the guest's memory is mapped again.
 *
 * The handler takes no lock, so the page may be shared again by the time it
 * is replaced.  The handler stores the address after it replaced the page,
 * and then checks whether the page is shared.  A conversion first makes the
 * page shared, and then looks for faulted pages.  So one of them remaps it.
 *
 * A thread that blocks the signal is killed by it.  QEMU's main thread does,
 * since it gets memory errors from a file descriptor.  Here it does not, and
 * the handler passes them on; see install().
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qemu/atomic.h"
#include "qemu/event_notifier.h"
#include "qemu/madvise.h"
#include "qemu/main-loop.h"
#include "kvm-guest-memfd-sigbus.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* Read by a signal handler: a plain table, no list and no lock. */
#define GUARDS_MAX 256

/*
 * A replaced page can cost two of the 65530 mappings of a process.  A guest
 * must not use up the mappings: when the table is full all pages are
 * remapped, and accesses to those that are private fault again.
 */
#define FAULTED_MAX 1024

typedef struct Guard {
    uintptr_t host;         /* 0: free; written last */
    uint64_t size;
    int fd;
    bool dump;
} Guard;

static Guard guards[GUARDS_MAX];
/*
 * Pages that were replaced and not remapped; 0: free.  A page is in the
 * table once for each thread that replaced it.  The bits below a page's
 * address hold a number that tells two entries of one page apart.
 */
static uintptr_t faulted[FAULTED_MAX];
static uint32_t faulted_used;      /* or more */
static uintptr_t faulted_number;
static struct sigaction previous;
static pthread_t main_thread;
static EventNotifier memory_error;
static uintptr_t bad_address;   /* of the last one: others are found later */

static Guard *find_guard(uintptr_t address)
{
    int i;

    for (i = 0; i < GUARDS_MAX; i++) {
        uintptr_t host = qatomic_load_acquire(&guards[i].host);

        if (host && address >= host && address - host < guards[i].size) {
            return &guards[i];
        }
    }
    return NULL;
}

/*
 * With the flags that its neighbours have, so that the kernel joins them to
 * one mapping again: see guest_memfd_block_map() and ram_block_add().
 */
static bool remap_page(const Guard *guard, uintptr_t at)
{
    const size_t page = qemu_real_host_page_size();
    void *host = (void *)at, *mapped;
    int fd;

    do {
        fd = qatomic_read(&guard->fd);
        mapped = mmap(host, page, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd,
                      at - guard->host);
        /* All of a new file may have been mapped, and the old one closed. */
    } while (fd != qatomic_read(&guard->fd));
    if (mapped == MAP_FAILED) {
        return false;
    }
    qemu_madvise(host, page, QEMU_MADV_HUGEPAGE);
    qemu_madvise(host, page, QEMU_MADV_DONTFORK);
    if (!guard->dump) {
        qemu_madvise(host, page, QEMU_MADV_DONTDUMP);
    }
    return true;
}

/* Fails with EFAULT, and not with a signal, if the page is private. */
static bool is_shared(const Guard *guard, uintptr_t at, size_t page)
{
    void *probe = mmap(NULL, page, PROT_READ, MAP_SHARED,
                       qatomic_read(&guard->fd), at - guard->host);
    bool shared;

    if (probe == MAP_FAILED) {
        return false;
    }
    shared = !madvise(probe, page, MADV_POPULATE_READ);
    munmap(probe, page);
    return shared;
}

static uintptr_t page_of(uintptr_t fault)
{
    return fault & -qemu_real_host_page_size();
}

/* Returns the index of @at in the table, or -1 if that is full. */
static int remember(uintptr_t at, uintptr_t *entry)
{
    uintptr_t number = qatomic_fetch_inc(&faulted_number);
    uintptr_t fault = at | (number & ~-qemu_real_host_page_size());
    int i;

    *entry = fault;
    qatomic_inc(&faulted_used);
    for (i = 0; i < FAULTED_MAX; i++) {
        if (!qatomic_read(&faulted[i]) &&
            !qatomic_cmpxchg(&faulted[i], 0, fault)) {
            return i;
        }
    }
    qatomic_dec(&faulted_used);
    return -1;
}

/* @fault: the value that was read; a new one stays. */
static void forget(int i, uintptr_t fault)
{
    if (qatomic_cmpxchg(&faulted[i], fault, 0) == fault) {
        qatomic_dec(&faulted_used);
    }
}

/* Remap the faulted pages in [host, host + size): 0 or -errno. */
static int remap_faulted(uintptr_t host, uint64_t size)
{
    int i;

    for (i = 0; i < FAULTED_MAX; i++) {
        uintptr_t fault = qatomic_read(&faulted[i]), at = page_of(fault);
        Guard *guard = fault ? find_guard(at) : NULL;

        if (!guard || at < host || at - host >= size) {
            continue;
        }
        if (!remap_page(guard, at)) {
            return -errno;
        }
        forget(i, fault);
    }
    return 0;
}

/* Async-signal-safe: system calls and atomics. */
static bool replace_page(Guard *guard, uintptr_t address)
{
    const size_t page = qemu_real_host_page_size();
    uintptr_t at = page_of(address), fault;
    int i;

    if (mmap((void *)at, page, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
        return false;
    }
    while ((i = remember(at, &fault)) < 0) {
        if (remap_faulted(0, UINT64_MAX)) {
            return false;
        }
    }
    if (!is_shared(guard, at, page)) {
        return true;
    }
    if (!remap_page(guard, at)) {
        return false;
    }
    forget(i, fault);
    return true;
}

static void sigbus(int number, siginfo_t *info, void *context)
{
    const uintptr_t address = (uintptr_t)info->si_addr;
    Guard *guard = info->si_code == BUS_ADRERR ? find_guard(address) : NULL;
    int saved_errno = errno;

    if (guard && replace_page(guard, address)) {
        errno = saved_errno;
        return;
    }
    if (info->si_code == BUS_MCEERR_AO &&
        pthread_equal(pthread_self(), main_thread)) {
        /* The main thread may be anywhere: its loop passes it on. */
        qatomic_set(&bad_address, address);
        event_notifier_set(&memory_error);
        errno = saved_errno;
        return;
    }
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(number, info, context);
    } else if (previous.sa_handler != SIG_DFL &&
               previous.sa_handler != SIG_IGN) {
        previous.sa_handler(number);
    } else {
        signal(SIGBUS, SIG_DFL);
        raise(SIGBUS);
    }
    errno = saved_errno;
}

/* As QEMU handles the file descriptor. */
static void handle_memory_error(EventNotifier *notifier)
{
    siginfo_t info = {
        .si_signo = SIGBUS,
        .si_code = BUS_MCEERR_AO,
    };

    if (!event_notifier_test_and_clear(notifier) ||
        !(previous.sa_flags & SA_SIGINFO)) {
        return;
    }
    info.si_addr = (void *)qatomic_read(&bad_address);
    previous.sa_sigaction(SIGBUS, &info, NULL);
}

/* Called by the main thread. */
static void install(void)
{
    struct sigaction action = {
        .sa_sigaction = sigbus,
        .sa_flags = SA_SIGINFO | SA_NODEFER,
    };

    sigemptyset(&action.sa_mask);
    main_thread = pthread_self();
    if (!event_notifier_init(&memory_error, false)) {
        event_notifier_set_handler(&memory_error, handle_memory_error);
    }
    sigaction(SIGBUS, &action, &previous);
    sigaddset(&action.sa_mask, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &action.sa_mask, NULL);
}

bool kvm_guest_memfd_guard(int fd, void *host, uint64_t size, bool dump,
                           Error **errp)
{
    static bool installed;
    int i;

    if (!installed) {
        install();
        installed = true;
    }
    for (i = 0; i < GUARDS_MAX; i++) {
        if (!guards[i].host) {
            guards[i].size = size;
            guards[i].fd = fd;
            guards[i].dump = dump;
            qatomic_store_release(&guards[i].host, (uintptr_t)host);
            return true;
        }
    }
    error_setg(errp, "too many blocks of guest_memfd memory, at most %d can "
               "be converted in place", GUARDS_MAX);
    return false;
}

static void forget_faulted(uintptr_t host, uint64_t size)
{
    int i;

    for (i = 0; i < FAULTED_MAX; i++) {
        uintptr_t fault = qatomic_read(&faulted[i]), at = page_of(fault);

        if (fault && at >= host && at - host < size) {
            forget(i, fault);
        }
    }
}

void kvm_guest_memfd_unguard(void *host)
{
    int i;

    for (i = 0; i < GUARDS_MAX; i++) {
        if (guards[i].host == (uintptr_t)host) {
            qatomic_store_release(&guards[i].host, 0);
            forget_faulted((uintptr_t)host, guards[i].size);
        }
    }
}

/*
 * An access that faults before all of @fd is mapped gets its page of @fd, which
 * that mapping replaces.  A handler that has begun with the old file may map a
 * page of it later, and then maps that of @fd instead: see remap_page().
 */
int kvm_guest_memfd_guard_file(void *host, int fd)
{
    Guard *guard = find_guard((uintptr_t)host);
    int old = guard->fd;

    qatomic_set(&guard->fd, fd);
    return old;
}

int kvm_guest_memfd_remap(void *host, uint64_t size)
{
    /* The pages were made shared before: see the top of this file. */
    smp_mb();
    if (likely(!qatomic_read(&faulted_used))) {
        return 0;
    }
    return remap_faulted((uintptr_t)host, size);
}
