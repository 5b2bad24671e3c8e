/*
 * A copy to or from guest memory does not access a private page
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Devices copy without a lock, as long as they find no private page.
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/rcu.h"
#include "system/guest-memfd-internal.h"
#include "guest-memfd-rig.h"

#define PAGE        qemu_real_host_page_size()
#define PAGES       16
#define DEVICES     4
#define RUN_US      300000
#define WHILE_US    50000
#define SECRET      0x5ec2e7

static bool is_filled(const uint8_t *buf, uint64_t size, uint8_t byte)
{
    while (size && buf[size - 1] == byte) {
        size--;
    }
    return !size;
}

static bool copy_bytes(Rig *rig, uint64_t offset, void *buf, uint64_t size,
                       bool is_write)
{
    return guest_memfd_block_copy(rig->blocks[0], offset, buf, size, is_write);
}

static Rig *start(void)
{
    Rig *rig = rig_new(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);

    rig->threads = true;
    rig->engine.retry_timeout_ms = 0;
    rig_map(rig, 0, rig_block(rig, "a", PAGES), 0, PAGES);
    return rig;
}

/* Calls of the emulated provider go through a test first. */
static int (*real_convert)(GuestMemfdProvider *, GuestMemfdBlock *, uint64_t,
                           uint64_t, GuestMemfdDirection,
                           GuestMemfdContentMode, uint64_t *);
static int (*on_convert)(Rig *rig);
static Rig *watched;

static int watched_convert(GuestMemfdProvider *provider,
                           GuestMemfdBlock *block, uint64_t offset,
                           uint64_t size, GuestMemfdDirection direction,
                           GuestMemfdContentMode mode, uint64_t *error_offset)
{
    int ret = on_convert(watched);

    return ret ?: real_convert(provider, block, offset, size, direction, mode,
                               error_offset);
}

static void watch(Rig *rig, int (*fn)(Rig *rig))
{
    GuestMemfdProviderClass *pc =
        GUEST_MEMFD_PROVIDER_GET_CLASS(rig->engine.provider);

    watched = rig;
    on_convert = fn;
    real_convert = pc->convert;
    pc->convert = watched_convert;
}

static void unwatch(Rig *rig)
{
    GUEST_MEMFD_PROVIDER_GET_CLASS(rig->engine.provider)->convert =
        real_convert;
}

/* --- all or nothing ----------------------------------------------------- */

static const struct {
    const char *name;
    uint64_t offset_pages;
    int offset;
    uint64_t size_pages;
    unsigned size;
    bool ok;
} ranges[] = {
    { "before", 3, 0, 1, 0, true },
    { "last byte before", 4, -1, 0, 1, true },
    { "over the border", 4, -1, 0, 2, false },
    { "first byte", 4, 0, 0, 1, false },
    { "last byte", 6, -1, 0, 1, false },
    { "over the end", 6, -1, 0, 2, false },
    { "first byte after", 6, 0, 0, 1, true },
    { "around", 0, 0, PAGES, 0, false },
    { "far after", 15, 0, 1, 0, true },
};

static void test_whole(void)
{
    Rig *rig = start();
    g_autofree uint8_t *buf = g_malloc(PAGES * PAGE);
    g_autofree uint8_t *before = g_malloc(PAGES * PAGE);
    uint8_t *host = rig->blocks[0]->host;
    unsigned i;

    memset(host, 0x5a, PAGES * PAGE);
    rig_prepare_private(rig, 4, 2);
    memcpy(before, host, PAGES * PAGE);
    for (i = 0; i < ARRAY_SIZE(ranges); i++) {
        uint64_t offset = ranges[i].offset_pages * PAGE + ranges[i].offset;
        uint64_t size = ranges[i].size_pages * PAGE + ranges[i].size;

        g_test_message("%s", ranges[i].name);
        memset(buf, 0xa5, size);
        g_assert_true(copy_bytes(rig, offset, buf, size, false) ==
                      ranges[i].ok);
        if (!ranges[i].ok) {
            g_assert_true(is_filled(buf, size, 0xa5));
        }
        memset(buf, 0x77, size);
        g_assert_true(copy_bytes(rig, offset, buf, size, true) ==
                      ranges[i].ok);
        if (ranges[i].ok) {
            memset(before + offset, 0x77, size);
        }
        g_assert_cmpmem(host, PAGES * PAGE, before, PAGES * PAGE);
    }
    rig_free(rig);
}

/* --- one access --------------------------------------------------------- */

/* A device of its own thread. */
typedef struct Device {
    Rig *rig;
    uint64_t page;
    bool allowed;
    bool over;
    QemuSemaphore begun;
    QemuSemaphore end;
    QemuThread thread;
} Device;

static Device device;

static void begin(Rig *rig, void *(*fn)(void *))
{
    device = (Device) { .rig = rig, .page = 4 };
    qemu_sem_init(&device.begun, 0);
    qemu_sem_init(&device.end, 0);
    qemu_thread_create(&device.thread, "device", fn, &device,
                       QEMU_THREAD_JOINABLE);
    qemu_sem_wait(&device.begun);
}

static void end(void)
{
    qemu_sem_post(&device.end);
    qemu_thread_join(&device.thread);
    qemu_sem_destroy(&device.begun);
    qemu_sem_destroy(&device.end);
}

static void *slow_main(void *opaque)
{
    guest_memfd_access_begin();
    qemu_sem_post(&device.begun);
    g_usleep(WHILE_US);
    qatomic_set(&device.over, true);
    guest_memfd_access_end();
    qemu_sem_wait(&device.end);
    return NULL;
}

static int expect_over(Rig *rig)
{
    g_assert_true(qatomic_read(&device.over));
    return 0;
}

/* A copy that has begun is waited for; it is no reason to fail. */
static void test_waits(void)
{
    Rig *rig = start();

    watch(rig, expect_over);
    begin(rig, slow_main);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 1), ==, 0);
    g_assert_cmpuint(rig->blocks[0]->stats.counters.retries, ==, 0);
    end();
    unwatch(rig);
    rig_free(rig);
}

/* An access is over when it is over, in whatever section its thread stays. */
static void *stays_main(void *opaque)
{
    uint32_t word;

    rcu_register_thread();
    rcu_read_lock();
    device.allowed = copy_bytes(device.rig, 4 * PAGE, &word, sizeof(word),
                                false);
    qemu_sem_post(&device.begun);
    qemu_sem_wait(&device.end);
    rcu_read_unlock();
    rcu_unregister_thread();
    return NULL;
}

static void test_over(void)
{
    Rig *rig = start();

    begin(rig, stays_main);
    g_assert_true(device.allowed);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, PAGES), ==, 0);
    end();

    begin(rig, stays_main);
    g_assert_false(device.allowed);
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 0, PAGES), ==, 0);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, PAGES), ==, 0);
    end();
    rig_free(rig);
}

/* --- a request that fails ----------------------------------------------- */

static void *copies_main(void *opaque)
{
    uint32_t word = SECRET;

    qemu_sem_post(&device.begun);
    device.allowed = copy_bytes(device.rig, 4 * PAGE, &word, sizeof(word),
                                true);
    return NULL;
}

static void *maps_main(void *opaque)
{
    qemu_sem_post(&device.begun);
    device.allowed = guest_memfd_mapping_add(device.rig->blocks[0], 4 * PAGE,
                                             PAGE);
    return NULL;
}

static void *(*late_main)(void *);

/* The pages are recorded as private by now, and will not stay so. */
static int fail_meanwhile(Rig *rig)
{
    on_convert = expect_over;
    device.over = true;
    begin(rig, late_main);
    device.over = true;
    g_usleep(WHILE_US);
    return -EAGAIN;
}

static Rig *fail_with(void *(*fn)(void *))
{
    Rig *rig = start();

    late_main = fn;
    watch(rig, fail_meanwhile);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 1), ==, -EAGAIN);
    end();
    unwatch(rig);
    g_assert_true(device.allowed);
    return rig;
}

/* "Nothing was changed" includes what a device wrote meanwhile. */
static void test_failed_copy(void)
{
    Rig *rig = fail_with(copies_main);

    g_assert_cmphex(*(uint32_t *)(rig->blocks[0]->host + 4 * PAGE), ==,
                    SECRET);
    rig_free(rig);
}

static void test_failed_map(void)
{
    Rig *rig = fail_with(maps_main);

    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 1), ==, -EAGAIN);
    g_assert_true(guest_memfd_mapping_remove(rig->blocks[0], 4 * PAGE, PAGE));
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 1), ==, 0);
    rig_free(rig);
}

/* So many at once that the memory of ended threads is freed. */
#define LIBRARY_THREADS 16

typedef struct Library {
    Rig *rig;
    pthread_barrier_t all_here;
} Library;

static void *library_main(void *opaque)
{
    Library *library = opaque;
    uint32_t word;

    g_assert_true(copy_bytes(library->rig, 4 * PAGE, &word, sizeof(word),
                             false));
    pthread_barrier_wait(&library->all_here);
    return NULL;
}

/* Not every thread was made by QEMU, but each is forgotten. */
static void test_library(void)
{
    Library library = { .rig = start() };
    pthread_t threads[LIBRARY_THREADS];
    unsigned i;

    pthread_barrier_init(&library.all_here, NULL, LIBRARY_THREADS);
    for (i = 0; i < LIBRARY_THREADS; i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, library_main,
                                       &library), ==, 0);
    }
    for (i = 0; i < LIBRARY_THREADS; i++) {
        g_assert_cmpint(pthread_join(threads[i], NULL), ==, 0);
    }
    pthread_barrier_destroy(&library.all_here);
    g_assert_cmpint(rig_convert(library.rig, TO_PRIVATE, 4, 1), ==, 0);
    rig_free(library.rig);
}

/* --- many at once ------------------------------------------------------ */

static bool stop;
static uint64_t written, turned_away;

static void write_page(Rig *rig, uint64_t page)
{
    uint32_t words[64] = { page };

    qatomic_inc(copy_bytes(rig, page * PAGE, words, sizeof(words), true) ?
                &written : &turned_away);
}

static void *writer_main(void *opaque)
{
    Rig *rig = opaque;
    uint64_t page = 0;

    while (!qatomic_read(&stop)) {
        page = (page + 7) % PAGES;
        write_page(rig, page);
    }
    return NULL;
}

/* The guest has the page for itself: what it puts there, stays. */
static void use_in_private(Rig *rig, uint64_t page)
{
    uint32_t *word = (uint32_t *)(rig->blocks[0]->host + page * PAGE);
    unsigned i;

    qatomic_set(word, SECRET);
    for (i = 0; i < 3; i++) {
        g_thread_yield();
        g_assert_cmphex(qatomic_read(word), ==, SECRET);
    }
}

/*
 * Either the page is private or a device writes to it, never both; and no
 * conversion fails because of it.
 */
static void test_race(void)
{
    Rig *rig = start();
    const int64_t end_us = g_get_monotonic_time() + RUN_US;
    QemuThread devices[DEVICES];
    uint64_t done = 0, page;
    unsigned i;

    for (i = 0; i < DEVICES; i++) {
        qemu_thread_create(&devices[i], "device", writer_main, rig,
                           QEMU_THREAD_JOINABLE);
    }
    for (page = 0; g_get_monotonic_time() < end_us;
         page = (page + 1) % PAGES) {
        g_assert_cmpint(rig_convert(rig, TO_PRIVATE, page, 1), ==, 0);
        use_in_private(rig, page);
        g_assert_cmpint(rig_convert(rig, TO_SHARED, page, 1), ==, 0);
        done++;
    }
    qatomic_set(&stop, true);
    for (i = 0; i < DEVICES; i++) {
        qemu_thread_join(&devices[i]);
    }
    g_test_message("%" PRIu64 " conversions, %" PRIu64 " writes, %" PRIu64
                   " turned away", done, written, turned_away);
    g_assert_cmpuint(done, >, 0);
    g_assert_cmpuint(written, >, 0);
    g_assert_cmpuint(turned_away, >, 0);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/guest-memfd/access/whole", test_whole);
    g_test_add_func("/guest-memfd/access/waits", test_waits);
    g_test_add_func("/guest-memfd/access/over", test_over);
    g_test_add_func("/guest-memfd/access/failed-copy", test_failed_copy);
    g_test_add_func("/guest-memfd/access/failed-map", test_failed_map);
    g_test_add_func("/guest-memfd/access/library", test_library);
    g_test_add_func("/guest-memfd/access/race", test_race);

    return g_test_run();
}
