/*
 * Host accesses to memory that the host may not touch
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A file that is cut short plays the guest_memfd: what is behind its end
 * is private, and an access to it is a SIGBUS.
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "accel/kvm/kvm-guest-memfd-sigbus.h"
#include "block/aio.h"
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qemu/cutils.h"
#include "qemu/madvise.h"
#include "qemu/main-loop.h"
#include "qemu/memfd.h"
#include "qemu/thread.h"

#define PAGE        qemu_real_host_page_size()
#define PAGES       4
#define LAST        (PAGES - 1)
/* More than are remapped one by one. */
#define MANY        4096
#define RUN_US      300000
/* With two mappings for each there are more than a process may have. */
#define CONVERSIONS 40000

typedef struct Memory {
    int fd;
    uint8_t *host;
    uint64_t size;
} Memory;

static void set_shared(Memory *m, uint64_t pages)
{
    g_assert_cmpint(ftruncate(m->fd, pages * PAGE), ==, 0);
}

static Memory start_dumped(uint64_t pages, bool dump)
{
    Memory m = { .size = pages * PAGE };

    m.fd = qemu_memfd_create("sigbus", m.size, false, 0, 0, &error_abort);
    /* As guest_memfd_block_map() and ram_block_add() do. */
    m.host = mmap(NULL, m.size, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_NORESERVE, m.fd, 0);
    g_assert(m.host != MAP_FAILED);
    qemu_madvise(m.host, m.size, QEMU_MADV_HUGEPAGE);
    qemu_madvise(m.host, m.size, QEMU_MADV_DONTFORK);
    if (!dump) {
        qemu_madvise(m.host, m.size, QEMU_MADV_DONTDUMP);
    }
    g_assert_true(kvm_guest_memfd_guard(m.fd, m.host, m.size, dump,
                                        &error_abort));
    return m;
}

static Memory start(uint64_t pages)
{
    return start_dumped(pages, true);
}

static void end(Memory *m)
{
    kvm_guest_memfd_unguard(m->host);
    munmap(m->host, m->size);
    close(m->fd);
}

/* Volatile: each access is to take place, and what it reads can change. */
static volatile uint8_t *page_at(Memory *m, uint64_t page)
{
    return m->host + page * PAGE;
}

static uint8_t in_file(Memory *m, uint64_t page)
{
    uint8_t byte;

    g_assert_cmpint(pread(m->fd, &byte, 1, page * PAGE), ==, 1);
    return byte;
}

/* The access is discarded, and the page is the guest's again afterwards. */
static void test_fault(void)
{
    Memory m = start(PAGES);

    *page_at(&m, 0) = 1;
    set_shared(&m, 2);
    g_assert_cmphex(*page_at(&m, LAST), ==, 0);
    *page_at(&m, LAST) = 0x55;
    g_assert_cmphex(*page_at(&m, LAST), ==, 0x55);

    set_shared(&m, PAGES);
    g_assert_cmpint(kvm_guest_memfd_remap(m.host + LAST * PAGE, PAGE), ==, 0);
    g_assert_cmphex(*page_at(&m, LAST), ==, 0);
    *page_at(&m, LAST) = 0x66;
    g_assert_cmphex(in_file(&m, LAST), ==, 0x66);
    g_assert_cmphex(*page_at(&m, 0), ==, 1);
    end(&m);
}

/* A page that cannot be remapped fails the conversion. */
static void test_remap_fails(void)
{
    Memory m = start(PAGES);
    int copy = dup(m.fd);

    set_shared(&m, 2);
    *page_at(&m, LAST) = 0x55;
    set_shared(&m, PAGES);
    close(m.fd);
    g_assert_cmpint(kvm_guest_memfd_remap(m.host + LAST * PAGE, PAGE), ==,
                    -EBADF);
    g_assert_cmpint(dup2(copy, m.fd), ==, m.fd);
    close(copy);
    g_assert_cmpint(kvm_guest_memfd_remap(m.host + LAST * PAGE, PAGE), ==, 0);
    g_assert_cmphex(*page_at(&m, LAST), ==, 0);
    end(&m);
}

static unsigned count_mappings(const Memory *m)
{
    g_autofree char *maps = NULL;
    g_auto(GStrv) lines = NULL;
    const char *end;
    unsigned n = 0;
    int i;

    g_assert_true(g_file_get_contents("/proc/self/maps", &maps, NULL, NULL));
    lines = g_strsplit(maps, "\n", -1);
    for (i = 0; lines[i]; i++) {
        uint64_t at = 0;

        /* Only the last line, which is empty, is no address. */
        qemu_strtou64(lines[i], &end, 16, &at);
        n += at >= (uintptr_t)m->host && at < (uintptr_t)m->host + m->size;
    }
    return n;
}

/* Faulted pages that stay private do not use up QEMU's mappings. */
static void test_many_faults(void)
{
    Memory m = start(MANY);
    unsigned mappings = 0, most = 0;
    int i;

    set_shared(&m, 1);
    for (i = 1; i < MANY; i += 2) {
        *page_at(&m, i) = i;
        if (i % 256 == 1) {
            mappings = count_mappings(&m);
            most = MAX(most, mappings);
        }
    }
    g_test_message("%u mappings at most, %u at the end", most, mappings);
    g_assert_cmpuint(most, >, 256);
    g_assert_cmpuint(most, <=, 2 * 1024 + 1);

    set_shared(&m, MANY);
    g_assert_cmpint(kvm_guest_memfd_remap(m.host, m.size), ==, 0);
    for (i = 1; i < MANY; i += 2) {
        g_assert_cmphex(*page_at(&m, i), ==, 0);
    }
    g_assert_cmpuint(count_mappings(&m), ==, 1);
    end(&m);
}

/* A page that cannot be remapped now is remapped later. */
static void test_many_faults_fail(void)
{
    Memory m = start(MANY);
    int copy = dup(m.fd);
    int i;

    set_shared(&m, 1);
    for (i = 1; i < MANY / 4; i += 2) {
        *page_at(&m, i) = i;
    }
    set_shared(&m, MANY);
    close(m.fd);
    g_assert_cmpint(kvm_guest_memfd_remap(m.host, m.size), ==, -EBADF);
    g_assert_cmpint(dup2(copy, m.fd), ==, m.fd);
    close(copy);
    g_assert_cmpint(kvm_guest_memfd_remap(m.host, m.size), ==, 0);
    g_assert_cmpuint(count_mappings(&m), ==, 1);
    end(&m);
}

/*
 * A guest that once had a page repaired converts others, far from each
 * other, as often as it likes: QEMU has as many mappings as before.
 */
static void check_merged(bool dump)
{
    Memory m = start_dumped(CONVERSIONS * 2, dump);
    int i;

    set_shared(&m, 1);
    *page_at(&m, LAST) = 1;
    set_shared(&m, CONVERSIONS * 2);
    g_assert_cmpint(kvm_guest_memfd_remap(m.host + LAST * PAGE, PAGE), ==, 0);
    for (i = 0; i < CONVERSIONS; i++) {
        g_assert_cmpint(kvm_guest_memfd_remap(m.host + 2 * i * PAGE, PAGE),
                        ==, 0);
    }
    g_assert_cmpuint(count_mappings(&m), ==, 1);
    end(&m);
}

static void test_merged(void)
{
    check_merged(true);
    check_merged(false);
}

/* The same while an access faults on a page that stays private. */
static void test_merged_with_fault(void)
{
    Memory m = start(CONVERSIONS);
    int i;

    set_shared(&m, CONVERSIONS - 1);
    *page_at(&m, CONVERSIONS - 1) = 1;
    for (i = 0; i < CONVERSIONS / 2 - 1; i++) {
        g_assert_cmpint(kvm_guest_memfd_remap(m.host + 2 * i * PAGE, PAGE),
                        ==, 0);
    }
    g_assert_cmpuint(count_mappings(&m), ==, 2);
    end(&m);
}

/* Whose page it is depends on the address alone. */
static void test_two_blocks(void)
{
    Memory a = start(PAGES), b = start(PAGES);

    set_shared(&a, 1);
    set_shared(&b, 1);
    *page_at(&a, LAST) = 1;
    *page_at(&b, LAST) = 2;
    set_shared(&a, PAGES);
    set_shared(&b, PAGES);
    g_assert_cmpint(kvm_guest_memfd_remap(b.host + LAST * PAGE, PAGE), ==, 0);
    g_assert_cmphex(*page_at(&a, LAST), ==, 1);
    *page_at(&b, LAST) = 3;
    g_assert_cmphex(in_file(&b, LAST), ==, 3);
    g_assert_cmphex(in_file(&a, LAST), ==, 0);
    end(&a);
    g_assert_cmpint(kvm_guest_memfd_remap(b.host, b.size), ==, 0);
    end(&b);
}

static void test_too_many(void)
{
    uint8_t *host = (uint8_t *)(uintptr_t)PAGE;
    Error *err = NULL;
    unsigned n = 0, i;

    while (kvm_guest_memfd_guard(-1, host + n * PAGE, PAGE, true, &err)) {
        n++;
    }
    g_assert_cmpuint(n, ==, 256);
    g_assert_cmpstr(error_get_pretty(err), ==, "too many blocks of "
                    "guest_memfd memory, at most 256 can be converted in "
                    "place");
    error_free(err);

    /* A free entry can be used again. */
    kvm_guest_memfd_unguard(host + 100 * PAGE);
    g_assert_true(kvm_guest_memfd_guard(-1, host + n * PAGE, PAGE, true,
                                        &error_abort));
    for (i = 0; i <= n; i++) {
        kvm_guest_memfd_unguard(host + i * PAGE);
    }
}

/* --- a fault while the page becomes shared ----------------------------- */

static bool stop;

static void *toucher(void *opaque)
{
    Memory *m = opaque;

    while (!qatomic_read(&stop)) {
        (void)*page_at(m, LAST);
    }
    return NULL;
}

static void test_race(void)
{
    Memory m = start(PAGES);
    const int64_t until = g_get_monotonic_time() + RUN_US;
    QemuThread threads[2];
    uint32_t rounds = 0;
    int i;

    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        qemu_thread_create(&threads[i], "toucher", toucher, &m,
                           QEMU_THREAD_JOINABLE);
    }
    do {
        uint8_t byte = ++rounds;
        int64_t late = g_get_monotonic_time() + 5 * G_USEC_PER_SEC;

        set_shared(&m, 2);
        if (rounds & 1) {
            g_thread_yield();
        }
        set_shared(&m, PAGES);
        g_assert_cmpint(kvm_guest_memfd_remap(m.host + LAST * PAGE, PAGE), ==,
                        0);
        /* A handler may still be under way, but not for long. */
        do {
            *page_at(&m, LAST) = byte;
            g_assert_cmpint(g_get_monotonic_time(), <, late);
        } while (in_file(&m, LAST) != byte);
    } while (g_get_monotonic_time() < until);

    qatomic_set(&stop, true);
    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        qemu_thread_join(&threads[i]);
    }
    g_test_message("%u rounds", rounds);
    end(&m);
}

/* --- not ours ---------------------------------------------------------- */

/* The end of QEMU, as without this file. */
static void test_elsewhere(void)
{
    Memory m = start(PAGES);
    int status;
    pid_t pid;

    kvm_guest_memfd_unguard(m.host);
    set_shared(&m, 2);
    madvise(m.host, m.size, MADV_DOFORK);
    pid = fork();
    if (!pid) {
        /* It may report what it dies of. */
        close(STDERR_FILENO);
        *page_at(&m, LAST) = 1;
        _exit(0);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    /* Sanitizers bring a handler that exits. */
    g_assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGBUS :
                                        WEXITSTATUS(status) != 0);
    end(&m);
}

/* As if the kernel had found a page that is broken. */
static void send_sigbus(int code, void *address)
{
    siginfo_t info = { .si_signo = SIGBUS, .si_code = code };

    info.si_addr = address;
    g_assert_cmpint(syscall(SYS_rt_tgsigqueueinfo, getpid(),
                            syscall(SYS_gettid), SIGBUS, &info), ==, 0);
}

static void *send_from_thread(void *opaque)
{
    send_sigbus(BUS_MCEERR_AO, NULL);
    return NULL;
}

static void die(const char *word)
{
    /* A signal handler: no stdio. */
    if (write(STDERR_FILENO, word, strlen(word)) < 0) {
        _exit(2);
    }
    _exit(0);
}

static void old_handler(int number)
{
    die("old handler");
}

static void old_action(int number, siginfo_t *info, void *context)
{
    die("old action");
}

/* The previous handler is called, with the arguments that it expects. */
static void send_to_previous(const struct sigaction *previous, int code)
{
    QemuThread thread;
    Memory m;

    sigaction(SIGBUS, previous, NULL);
    m = start(PAGES);
    if (code == BUS_MCEERR_AO) {
        /* The main thread can do without the page. */
        send_sigbus(code, NULL);
        qemu_thread_create(&thread, "other", send_from_thread, NULL,
                           QEMU_THREAD_JOINABLE);
        qemu_thread_join(&thread);
    } else {
        send_sigbus(code, NULL);
    }
    end(&m);
    _exit(0);
}

static void expect_previous(const struct sigaction *previous, int code,
                            const char *word)
{
    if (g_test_subprocess()) {
        send_to_previous(previous, code);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    if (word) {
        g_test_trap_assert_passed();
        g_test_trap_assert_stderr(word);
    } else {
        g_test_trap_assert_failed();
    }
}

static void test_old_action(void)
{
    const struct sigaction action = {
        .sa_sigaction = old_action, .sa_flags = SA_SIGINFO,
    };

    expect_previous(&action, BUS_MCEERR_AR, "*old action*");
}

static void test_old_handler(void)
{
    const struct sigaction action = { .sa_handler = old_handler };

    expect_previous(&action, BUS_MCEERR_AO, "*old handler*");
}

static void test_old_default(void)
{
    const struct sigaction action = { .sa_handler = SIG_DFL };

    expect_previous(&action, BUS_ADRALN, NULL);
}

/* An access cannot go on, even if the signal was ignored. */
static void test_old_ignore(void)
{
    const struct sigaction action = { .sa_handler = SIG_IGN };

    expect_previous(&action, BUS_ADRERR, NULL);
}

static void *passed_address;

/* QEMU's own handler, which knows memory errors and nothing else. */
static void qemu_handler(int number, siginfo_t *info, void *context)
{
    if (info->si_code != BUS_MCEERR_AO) {
        signal(SIGBUS, SIG_DFL);
        raise(SIGBUS);
    }
    passed_address = info->si_addr;
}

/* Not in the signal handler, but in the main loop. */
static void test_memory_error(void)
{
    AioContext *ctx = iohandler_get_aio_context();
    Memory m = start(PAGES);

    *page_at(&m, LAST) = 1;
    send_sigbus(BUS_MCEERR_AO, m.host + LAST * PAGE + 8);
    g_assert_null(passed_address);
    while (aio_poll(ctx, false)) {
        /* until it is handled */
    }
    g_assert_true(passed_address == m.host + LAST * PAGE + 8);
    /* The other pages are still there. */
    g_assert_cmphex(*page_at(&m, LAST), ==, 1);

    send_sigbus(BUS_MCEERR_AO, &m);
    while (aio_poll(ctx, false)) {
        /* as above */
    }
    g_assert_true(passed_address == &m);
    end(&m);
}

/* Between the guard of the new file and its mapping an access survives. */
static void test_new_file(void)
{
    Memory m = start(PAGES);
    Memory new = { .fd = qemu_memfd_create("new", m.size, false, 0, 0,
                                           &error_abort) };
    const uint8_t byte = 0x5a;
    uint8_t kept = 0;

    g_assert_cmpint(pwrite(new.fd, &byte, 1, LAST * PAGE), ==, 1);
    set_shared(&m, 0);
    g_assert_cmphex(*page_at(&m, 0), ==, 0);
    g_assert_cmpint(kvm_guest_memfd_guard_file(m.host, new.fd), ==, m.fd);
    g_assert_cmphex(*page_at(&m, LAST), ==, byte);

    /* As guest_memfd_block_remap() does it. */
    g_assert(mmap(m.host, m.size, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_FIXED, new.fd, 0) == m.host);
    close(m.fd);
    m.fd = new.fd;
    *page_at(&m, 0) = byte;
    set_shared(&m, 0);
    g_assert_cmphex(*page_at(&m, 0), ==, 0);
    set_shared(&m, PAGES);
    g_assert_cmpint(kvm_guest_memfd_remap(m.host, m.size), ==, 0);
    *page_at(&m, 0) = byte;
    g_assert_cmpint(pread(m.fd, &kept, 1, 0), ==, 1);
    g_assert_cmphex(kept, ==, byte);
    end(&m);
}

/* --- a new file while a page of the old one is mapped ------------------- */

static struct {
    Memory *memory;
    int fd;
    bool closes;                /* the old file */
} overtaken;

static void *map(void *host, size_t size, int prot, int flags, int fd,
                 off_t offset)
{
    return (void *)syscall(SYS_mmap, host, size, prot, flags, fd, offset);
}

/* All of the new file is mapped before a page of the old one is. */
void *mmap(void *host, size_t size, int prot, int flags, int fd, off_t offset)
{
    Memory *m = overtaken.memory;

    if (m && (flags & MAP_FIXED) && fd == m->fd) {
        overtaken.memory = NULL;
        kvm_guest_memfd_guard_file(m->host, overtaken.fd);
        map(m->host, m->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
            overtaken.fd, 0);
        if (overtaken.closes) {
            close(m->fd);
        }
    }
    return map(host, size, prot, flags, fd, offset);
}

static void overtake(bool closes)
{
    Memory m = start(PAGES);
    const uint8_t byte = 0x5a;
    int fd = qemu_memfd_create("new", m.size, false, 0, 0, &error_abort);

    g_assert_cmpint(pwrite(fd, &byte, 1, LAST * PAGE), ==, 1);
    set_shared(&m, 2);
    g_assert_cmphex(*page_at(&m, LAST), ==, 0);
    set_shared(&m, PAGES);
    overtaken.fd = fd;
    overtaken.closes = closes;
    overtaken.memory = &m;
    g_assert_cmpint(kvm_guest_memfd_remap(m.host, m.size), ==, 0);
    g_assert_null(overtaken.memory);
    g_assert_cmphex(*page_at(&m, LAST), ==, byte);
    if (!closes) {
        close(m.fd);
    }
    m.fd = fd;
    end(&m);
}

static void test_overtaken(void)
{
    overtake(false);
    overtake(true);
}

int main(int argc, char **argv)
{
    const struct sigaction action = {
        .sa_sigaction = qemu_handler,
        .sa_flags = SA_SIGINFO,
    };
    sigset_t set;

    /* As QEMU does, for its main loop. */
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    sigaction(SIGBUS, &action, NULL);
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/guest-memfd/sigbus/fault", test_fault);
    g_test_add_func("/guest-memfd/sigbus/remap-fails", test_remap_fails);
    g_test_add_func("/guest-memfd/sigbus/many-faults", test_many_faults);
    g_test_add_func("/guest-memfd/sigbus/many-faults-fail",
                    test_many_faults_fail);
    g_test_add_func("/guest-memfd/sigbus/merged", test_merged);
    g_test_add_func("/guest-memfd/sigbus/merged-with-fault",
                    test_merged_with_fault);
    g_test_add_func("/guest-memfd/sigbus/two-blocks", test_two_blocks);
    g_test_add_func("/guest-memfd/sigbus/too-many", test_too_many);
    g_test_add_func("/guest-memfd/sigbus/race", test_race);
    g_test_add_func("/guest-memfd/sigbus/elsewhere", test_elsewhere);
    g_test_add_func("/guest-memfd/sigbus/old-action", test_old_action);
    g_test_add_func("/guest-memfd/sigbus/old-handler", test_old_handler);
    g_test_add_func("/guest-memfd/sigbus/old-default", test_old_default);
    g_test_add_func("/guest-memfd/sigbus/old-ignore", test_old_ignore);
    g_test_add_func("/guest-memfd/sigbus/memory-error", test_memory_error);
    g_test_add_func("/guest-memfd/sigbus/new-file", test_new_file);
    g_test_add_func("/guest-memfd/sigbus/overtaken", test_overtaken);

    return g_test_run();
}
