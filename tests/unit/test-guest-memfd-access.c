/*
 * An access that has begun does not meet a private page
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Devices look whether a page is shared, and then read or write it, in one
 * RCU read-side critical section and with no lock.
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
#define SECRET      0x5ec2e7

/* Who looks before it goes there; false if it may not. */
static bool look(Rig *rig, uint64_t page, uint64_t *size)
{
    return guest_memfd_block_access(rig->blocks[0], page * PAGE, size);
}

static Rig *start(void)
{
    Rig *rig = rig_new(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);

    rig->threads = true;
    rig->engine.retry_timeout_ms = 0;
    rig_map(rig, 0, rig_block(rig, "a", PAGES), 0, PAGES);
    return rig;
}

/* --- one access -------------------------------------------------------- */

/* A device of its own thread, which does what the test says. */
typedef struct Device {
    Rig *rig;
    uint64_t page;
    uint64_t pages;
    bool in_section;
    bool allowed;
    uint64_t size;
    QemuSemaphore begun;
    QemuSemaphore end;
    QemuThread thread;
} Device;

static void *device_main(void *opaque)
{
    Device *device = opaque;

    rcu_register_thread();
    device->size = device->pages * PAGE;
    rcu_read_lock();
    device->allowed = look(device->rig, device->page, &device->size);
    if (!device->in_section) {
        rcu_read_unlock();
    }
    qemu_sem_post(&device->begun);
    qemu_sem_wait(&device->end);
    if (device->in_section) {
        rcu_read_unlock();
    }
    rcu_unregister_thread();
    return NULL;
}

static void begin(Device *device)
{
    qemu_sem_init(&device->begun, 0);
    qemu_sem_init(&device->end, 0);
    qemu_thread_create(&device->thread, "device", device_main, device,
                       QEMU_THREAD_JOINABLE);
    qemu_sem_wait(&device->begun);
}

static void end(Device *device)
{
    qemu_sem_post(&device->end);
    qemu_thread_join(&device->thread);
    qemu_sem_destroy(&device->begun);
    qemu_sem_destroy(&device->end);
}

static void test_busy(void)
{
    Rig *rig = start();
    Device device = { .rig = rig, .page = 4, .pages = 2, .in_section = true };

    begin(&device);
    g_assert_true(device.allowed);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, PAGES), ==, -EAGAIN);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 5, 1), ==, -EAGAIN);
    rig_expect_state(rig->blocks[0], "S16");

    /* The neighbours are free. */
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 4), ==, 0);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 6, 10), ==, 0);
    rig_expect_state(rig->blocks[0], "P4 S2 P10");

    /* So are the pages, when the access or its thread has ended. */
    end(&device);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 2), ==, 0);
    rig_free(rig);
}

static void test_over(void)
{
    Rig *rig = start();
    Device device = { .rig = rig, .page = 4, .pages = 2 };

    begin(&device);
    g_assert_true(device.allowed);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, PAGES), ==, 0);
    end(&device);
    rig_free(rig);
}

/* Only as far as it is shared, and no further. */
static void test_cut(void)
{
    Rig *rig = start();
    Device device = { .rig = rig, .page = 2, .pages = 8, .in_section = true };

    rig_prepare_private(rig, 4, 2);
    begin(&device);
    g_assert_true(device.allowed);
    g_assert_cmpuint(device.size, ==, 2 * PAGE);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 6, 4), ==, 0);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 3, 1), ==, -EAGAIN);
    end(&device);
    rig_free(rig);
}

/* Who was turned away is in nobody's way. */
static void test_private(void)
{
    Rig *rig = start();
    Device device = { .rig = rig, .page = 4, .pages = 1, .in_section = true };

    rig_prepare_private(rig, 4, 1);
    begin(&device);
    g_assert_false(device.allowed);
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 4, 1), ==, 0);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 1), ==, 0);
    end(&device);
    rig_free(rig);
}

/* So many at once that the memory of threads that ended is given back. */
#define LIBRARY_THREADS 16

typedef struct Library {
    Rig *rig;
    pthread_barrier_t all_here;
} Library;

static void *library_main(void *opaque)
{
    Library *library = opaque;
    uint64_t size = PAGE;

    rcu_register_thread();
    rcu_read_lock();
    g_assert_true(look(library->rig, 4, &size));
    rcu_read_unlock();
    rcu_unregister_thread();
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

/* A thread that converts is not in the middle of an access of its own. */
static void test_own(void)
{
    Rig *rig = start();
    uint64_t size = PAGE;

    rcu_read_lock();
    g_assert_true(look(rig, 4, &size));
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 1), ==, 0);
    rcu_read_unlock();
    rig_free(rig);
}

/* --- many at once ------------------------------------------------------ */

static bool stop;
static uint64_t written, turned_away;

static void write_page(Rig *rig, uint64_t page)
{
    uint32_t *word = (uint32_t *)(rig->blocks[0]->host + page * PAGE);
    uint64_t size = sizeof(*word);

    RCU_READ_LOCK_GUARD();
    if (!look(rig, page, &size)) {
        qatomic_inc(&turned_away);
        return;
    }
    if (page & 1) {
        g_thread_yield();
    }
    qatomic_set(word, qatomic_read(word) + 1);
    qatomic_inc(&written);
}

static void *writer_main(void *opaque)
{
    Rig *rig = opaque;
    uint64_t page = 0;

    rcu_register_thread();
    while (!qatomic_read(&stop)) {
        page = (page + 7) % PAGES;
        write_page(rig, page);
    }
    rcu_unregister_thread();
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

/* Either the page is private or a device writes to it, never both. */
static void test_race(void)
{
    Rig *rig = start();
    const int64_t end_us = g_get_monotonic_time() + RUN_US;
    QemuThread devices[DEVICES];
    uint64_t done = 0, refused = 0, page;
    unsigned i;

    for (i = 0; i < DEVICES; i++) {
        qemu_thread_create(&devices[i], "device", writer_main, rig,
                           QEMU_THREAD_JOINABLE);
    }
    for (page = 0; g_get_monotonic_time() < end_us;
         page = (page + 1) % PAGES) {
        int ret = rig_convert(rig, TO_PRIVATE, page, 1);

        if (ret) {
            g_assert_cmpint(ret, ==, -EAGAIN);
            refused++;
            continue;
        }
        use_in_private(rig, page);
        g_assert_cmpint(rig_convert(rig, TO_SHARED, page, 1), ==, 0);
        done++;
    }
    qatomic_set(&stop, true);
    for (i = 0; i < DEVICES; i++) {
        qemu_thread_join(&devices[i]);
    }
    g_test_message("%" PRIu64 " conversions, %" PRIu64 " refused, %" PRIu64
                   " writes, %" PRIu64 " turned away", done, refused,
                   written, turned_away);
    g_assert_cmpuint(done, >, 0);
    g_assert_cmpuint(written, >, 0);
    g_assert_cmpuint(turned_away, >, 0);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/guest-memfd/access/busy", test_busy);
    g_test_add_func("/guest-memfd/access/over", test_over);
    g_test_add_func("/guest-memfd/access/cut", test_cut);
    g_test_add_func("/guest-memfd/access/private", test_private);
    g_test_add_func("/guest-memfd/access/library", test_library);
    g_test_add_func("/guest-memfd/access/own", test_own);
    g_test_add_func("/guest-memfd/access/race", test_race);

    return g_test_run();
}
