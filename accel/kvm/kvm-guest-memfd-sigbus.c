/*
 * Host accesses to private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU looks up the state of a page before it touches it, but a guest can
 * convert the page in between, and some code keeps pointers.  The kernel
 * answers with SIGBUS, with which a guest could end QEMU at will.  So the
 * page that was hit gets an empty page of QEMU's own in its place: the
 * access reads zeros, or writes into the void, and the guest's memory is
 * not involved.  When the page becomes shared again its memory comes back.
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qemu/atomic.h"
#include "qemu/madvise.h"
#include "kvm-guest-memfd-sigbus.h"

/* Read by a signal handler: a plain table, no list and no lock. */
#define GUARDS_MAX 256

static struct {
    uintptr_t host;         /* 0: free; written last */
    uint64_t size;
} guards[GUARDS_MAX];

static uint64_t hits;
static struct sigaction previous;

static bool is_guarded(uintptr_t address)
{
    int i;

    for (i = 0; i < GUARDS_MAX; i++) {
        uintptr_t host = qatomic_load_acquire(&guards[i].host);

        if (host && address >= host && address - host < guards[i].size) {
            return true;
        }
    }
    return false;
}

/* Async-signal-safe: system calls and atomics. */
static bool replace_page(uintptr_t address)
{
    const size_t page = qemu_real_host_page_size();
    void *at = (void *)(address & ~(page - 1));

    if (mmap(at, page, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
        return false;
    }
    qatomic_inc(&hits);
    return true;
}

static void sigbus(int number, siginfo_t *info, void *context)
{
    int saved_errno = errno;

    if (info->si_code == BUS_ADRERR && is_guarded((uintptr_t)info->si_addr) &&
        replace_page((uintptr_t)info->si_addr)) {
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

static void install(void)
{
    struct sigaction action = {
        .sa_sigaction = sigbus,
        .sa_flags = SA_SIGINFO | SA_NODEFER,
    };

    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous);
}

bool kvm_guest_memfd_guard(void *host, uint64_t size, Error **errp)
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
            qatomic_store_release(&guards[i].host, (uintptr_t)host);
            return true;
        }
    }
    error_setg(errp, "too many blocks of guest_memfd memory, at most %d can "
               "be converted in place", GUARDS_MAX);
    return false;
}

void kvm_guest_memfd_unguard(void *host)
{
    int i;

    for (i = 0; i < GUARDS_MAX; i++) {
        if (guards[i].host == (uintptr_t)host) {
            qatomic_store_release(&guards[i].host, 0);
        }
    }
}

void kvm_guest_memfd_heal(int fd, void *host, uint64_t offset, uint64_t size)
{
    /* One hit ever, and all that becomes shared is mapped anew: rare. */
    if (likely(!qatomic_read(&hits))) {
        return;
    }
    if (mmap(host, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
             offset) == MAP_FAILED) {
        /* The old mapping is still there, and harmless. */
        return;
    }
    qemu_madvise(host, size, QEMU_MADV_DONTFORK);
}
