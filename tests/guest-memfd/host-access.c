/*
 * QEMU's threads touch the guest's memory, private or not, all the time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * To be preloaded into a QEMU that converts guest_memfd in place.  It
 * intercepts the conversions, and accesses the pages of the last ones:
 * before and after each ppoll() and KVM_RUN, so in the main thread, in I/O
 * threads and in vCPUs, with their signal masks, and in a thread of its own.
 *
 * There are two kinds of accesses.  The first ones race the conversions:
 * atomic ones that write but change nothing, because the guest may have the
 * page at the same time.  The others keep conversions out for a moment, and
 * write to pages that are private for sure: their bytes must not reach the
 * guest, and they must not read the guest's.
 *
 * HOST_ACCESS=control lets the first access to a private page end QEMU, as
 * it would without a handler.  With HOST_ACCESS=poison nothing is touched,
 * but a page that the guest does not use gets a memory error.
 */

#include "qemu/osdep.h"
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "accel/kvm/kvm-guest-memfd-abi.h"
#include "qemu/atomic.h"

#define PAGE            4096
#define BLOCKS_MAX      4
#define PAGES_MAX       (512 * 1024 * 1024 / PAGE)
#define RANGES          8       /* that are touched: the last ones */
#define PERIOD_MS       5       /* of threads that wait for something */
#define WRITTEN         0x6162636465666768ULL
/* Not used by the guest, and never converted. */
#define POISONED        (20 * 1024 * 1024)
#define INJECT          "/sys/kernel/debug/hwpoison/corrupt-pfn"

typedef struct Block {
    int fd;
    uint64_t size;
    uint8_t *host;              /* NULL: not mapped yet */
    bool private[PAGES_MAX];    /* for sure */
} Block;

typedef struct Range {
    Block *block;
    uint64_t first;
    uint64_t pages;
} Range;

typedef enum Who { MAIN, IOTHREAD, VCPU, OWN, WHO__MAX } Who;

typedef struct Count {
    uint64_t racing;            /* accesses to pages of any state */
    uint64_t private;           /* accesses to private pages */
    uint64_t sigbus;
    uint64_t bad;               /* saw something that was not nothing */
} Count;

static enum { TOUCH, CONTROL, POISON } mode;

/* Held while a conversion or an access to a private page is under way. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Block blocks[BLOCKS_MAX];
static unsigned blocks_used;
static Range ranges[RANGES];
static unsigned ranges_used;

static Count counts[WHO__MAX];
static __thread Who who = OWN;
static struct sigaction handler;

static int real_ioctl(int fd, unsigned long request, void *arg)
{
    return syscall(SYS_ioctl, fd, request, arg);
}

/* --- accesses ---------------------------------------------------------- */

static uint64_t random_below(uint64_t n)
{
    static __thread uint64_t state;

    state = state * 6364136223846793005ULL + ((uintptr_t)&state | 1);
    return (state >> 33) % n;
}

static void access_any(uint64_t *page)
{
    __atomic_fetch_or(page, 0, __ATOMIC_SEQ_CST);
    qatomic_inc(&counts[who].racing);
}

/* With the lock. */
static void access_private(uint64_t *page)
{
    uint64_t untouched = __atomic_fetch_or(page, 0, __ATOMIC_SEQ_CST);
    uint64_t before = __atomic_exchange_n(page + 1, WRITTEN, __ATOMIC_SEQ_CST);
    uint64_t after = __atomic_load_n(page + 1, __ATOMIC_SEQ_CST);

    qatomic_inc(&counts[who].private);
    if (untouched || (before && before != WRITTEN) || after != WRITTEN) {
        qatomic_inc(&counts[who].bad);
    }
}

static void touch(Who as)
{
    unsigned used = qatomic_load_acquire(&ranges_used);
    Range r;
    uint64_t page;

    who = as;
    if (mode == POISON || !used || pthread_mutex_trylock(&lock)) {
        return;
    }
    r = ranges[random_below(MIN(used, RANGES))];
    /* Neighbours, too. */
    page = MIN(r.first + random_below(r.pages + 1), r.block->size / PAGE - 1);
    if (r.block->private[page]) {
        access_private((uint64_t *)(r.block->host + page * PAGE));
    }
    pthread_mutex_unlock(&lock);
    access_any((uint64_t *)(r.block->host + page * PAGE));
}

static void *own_thread(void *opaque)
{
    while (true) {
        touch(OWN);
        usleep(1000);
    }
    return NULL;
}

/* --- what passes ------------------------------------------------------- */

static Block *find_block(int fd)
{
    unsigned i;

    for (i = 0; i < blocks_used; i++) {
        if (blocks[i].fd == fd) {
            return &blocks[i];
        }
    }
    return NULL;
}

static void created(int fd, const struct kvm_create_guest_memfd *create)
{
    Block *block = find_block(fd);

    /* Others are what QEMU probes with; their numbers are used again. */
    if (fd < 0 || create->size <= PAGE || create->size / PAGE > PAGES_MAX) {
        return;
    }
    if (!block) {
        g_assert(blocks_used < BLOCKS_MAX);
        block = &blocks[blocks_used++];
    }
    *block = (Block) { .fd = fd, .size = create->size };
}

static void remember(Block *block, uint64_t first, uint64_t pages)
{
    ranges[ranges_used % RANGES] = (Range) { block, first, pages };
    qatomic_store_release(&ranges_used, ranges_used + 1);
}

/* After a write: an error of a page without bytes is not reported. */
static uint64_t page_frame(uint64_t *page)
{
    int fd = open("/proc/self/pagemap", O_RDONLY);
    uint64_t entry = 0;

    *page = WRITTEN;
    g_assert(pread(fd, &entry, 8, (uintptr_t)page / PAGE * 8) == 8);
    close(fd);
    return entry & ((1ULL << 55) - 1);
}

/* EBUSY is right: the page has an error, but stays in the file. */
static void poison_once(void)
{
    static bool done;

    if (!done && mode == POISON) {
        uint64_t frame = page_frame((void *)(blocks[0].host + POISONED));
        int fd = open(INJECT, O_WRONLY);
        int ret = dprintf(fd, "%" PRIu64 "\n", frame);

        dprintf(STDERR_FILENO, "poisoned ok=%d errno=%d\n",
                ret > 0 || errno == EBUSY, ret > 0 ? 0 : errno);
        close(fd);
        done = true;
    }
}

static int convert(int fd, struct kvm_guest_memfd_attributes *attributes)
{
    Block *block;
    uint64_t first = attributes->offset / PAGE;
    uint64_t pages = attributes->size / PAGE;
    int ret;

    pthread_mutex_lock(&lock);
    block = find_block(fd);
    if (!block || !block->host) {
        ret = real_ioctl(fd, KVM_GUEST_MEMFD_SET_ATTRIBUTES, attributes);
        pthread_mutex_unlock(&lock);
        return ret;
    }
    poison_once();
    memset(block->private + first, false, pages);
    remember(block, first, pages);
    ret = real_ioctl(fd, KVM_GUEST_MEMFD_SET_ATTRIBUTES, attributes);
    memset(block->private + first, !ret && attributes->attributes, pages);
    pthread_mutex_unlock(&lock);
    return ret;
}

/* --- instead of libc's ------------------------------------------------- */

#define PUBLIC __attribute__((visibility("default")))

PUBLIC int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;
    int ret;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);

    if (request == KVM_GUEST_MEMFD_SET_ATTRIBUTES) {
        return convert(fd, arg);
    }
    ret = real_ioctl(fd, request, arg);
    if (request == KVM_RUN) {
        int saved_errno = errno;

        touch(VCPU);
        errno = saved_errno;
    } else if (request == KVM_CREATE_GUEST_MEMFD) {
        created(ret, arg);
    }
    return ret;
}

/* The first mapping that may be written is the block's. */
PUBLIC void *mmap64(void *addr, size_t size, int prot, int flags, int fd,
                    off64_t offset)
{
    void *host = (void *)syscall(SYS_mmap, addr, size, prot, flags, fd,
                                 offset);
    Block *block = fd >= 0 && (prot & PROT_WRITE) ? find_block(fd) : NULL;

    if (block && !block->host && host != MAP_FAILED) {
        g_assert(!offset && size >= block->size);
        block->host = host;
    }
    return host;
}

static int wait_some(struct pollfd *fds, nfds_t nfds, int64_t ms,
                     const sigset_t *mask)
{
    struct timespec time = { .tv_nsec = ms * 1000000 };

    return syscall(SYS_ppoll, fds, nfds, &time, mask, _NSIG / 8);
}

/* In short pieces, with accesses in between. */
PUBLIC int ppoll(struct pollfd *fds, nfds_t nfds, const struct timespec *time,
                 const sigset_t *mask)
{
    Who as = gettid() == getpid() ? MAIN : IOTHREAD;
    int64_t left = time ? time->tv_sec * 1000 +
                          DIV_ROUND_UP(time->tv_nsec, 1000000) : INT64_MAX;
    int ret;

    touch(as);
    while (left > PERIOD_MS) {
        ret = wait_some(fds, nfds, PERIOD_MS, mask);
        if (ret) {
            return ret;
        }
        left -= PERIOD_MS;
        touch(as);
    }
    return wait_some(fds, nfds, left, mask);
}

static void count_sigbus(int number, siginfo_t *info, void *context)
{
    if (info->si_code == BUS_ADRERR) {
        qatomic_inc(&counts[who].sigbus);
    }
    handler.sa_sigaction(number, info, context);
}

PUBLIC int sigaction(int number, const struct sigaction *action,
                     struct sigaction *old)
{
    int (*real)(int, const struct sigaction *, struct sigaction *) =
        dlsym(RTLD_NEXT, "sigaction");
    struct sigaction previous = handler, counting;
    int ret;

    if (number != SIGBUS || !action || !(action->sa_flags & SA_SIGINFO)) {
        return real(number, action, old);
    }
    handler = *action;
    counting = *action;
    counting.sa_sigaction = count_sigbus;
    if (mode == CONTROL) {
        counting.sa_handler = SIG_DFL;
        counting.sa_flags = 0;
    }
    ret = real(number, &counting, old);
    if (old && old->sa_sigaction == count_sigbus) {
        *old = previous;
    }
    return ret;
}

/* --- begin and end ----------------------------------------------------- */

static void __attribute__((constructor)) begin(void)
{
    const char *name = getenv("HOST_ACCESS");
    pthread_t thread;

    mode = !name ? TOUCH : !strcmp(name, "control") ? CONTROL :
           POISON;
    if (mode == POISON) {
        return;
    }
    pthread_create(&thread, NULL, own_thread, NULL);
    pthread_detach(thread);
}

static void __attribute__((destructor)) end(void)
{
    static const char *const names[] = { "main", "iothread", "vcpu", "own" };
    unsigned i;

    for (i = 0; i < WHO__MAX && mode != POISON; i++) {
        const Count *c = &counts[i];

        dprintf(STDERR_FILENO, "host-access by=%s racing=%" PRIu64
                " private=%" PRIu64 " sigbus=%" PRIu64 " bad=%" PRIu64 "\n",
                names[i], c->racing, c->private, c->sigbus, c->bad);
    }
}
