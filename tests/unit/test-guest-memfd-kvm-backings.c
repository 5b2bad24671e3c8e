/*
 * KVM's provider with two backings, on a fake KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qemu/cutils.h"
#include "qemu/memfd.h"
#include "qemu/units.h"
#include "guest-memfd-fake-vm.h"

#define PRIVATE     GUEST_MEMFD_ATTR_PRIVATE
#define KEPT        GUEST_MEMFD_ATTR_PRESERVE

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

static Rig *new_launched(void)
{
    Rig *rig = vm_new_two_backings();

    rig->engine.phase = GUEST_MEMFD_PHASE_RUNNING;
    return rig;
}

/* --- copies ------------------------------------------------------------- */

/* KVM's state first, then the copy that is not used any more. */
static void test_two_backings(void)
{
    Rig *rig = new_launched();

    vm_set_page(rig, 1, true, 42);
    g_assert_cmpuint(vm_ask(1, 2, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 1+2\na: discard shared 1+2\n");
    g_assert_true(vm_reads(1, 0));
    vm_words(1)[0] = 43;
    g_assert_cmpuint(vm_ask(1, 2, 0), ==, 0);
    fake_expect_log("a: discard shared 1+2\nv: to-shared 1+2\n"
                    "a: discard private 1+2\n");
    g_assert_true(vm_reads(1, 0));
    g_assert_cmpuint(vm_ask(7, 2, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 7+1\na: discard shared 7+1\n"
                    "v: to-private 8+1\nb: discard shared 0+1\n");
    vm_check(rig);
    /* There is nothing that could be kept. */
    g_assert_cmpuint(vm_ask(7, 2, KEPT), ==, EINVAL);
    fake_expect_log("");
    vm_check(rig);
    vm_free(rig);
}

/* One call for pages 1 to 3; the bytes of the one in between stay. */
static void test_span(void)
{
    Rig *rig = new_launched();

    vm_set_page(rig, 2, true, 42);
    g_assert_cmpuint(vm_ask(1, 1, PRIVATE), ==, 0);
    g_assert_cmpuint(vm_ask(3, 1, PRIVATE), ==, 0);
    g_string_truncate(fake.log, 0);
    g_assert_cmpuint(vm_ask(0, 8, 0), ==, 0);
    fake_expect_log("a: discard shared 1+1\na: discard shared 3+1\n"
                    "v: to-shared 0+4\na: discard private 0+4\n");
    g_assert_true(vm_reads(2, 42));

    vm_set_page(rig, 2, false, 43);
    g_string_truncate(fake.log, 0);
    g_assert_cmpuint(vm_ask(0, 8, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 0+8\na: discard shared 0+8\n");
    g_assert_true(vm_reads(2, 43));
    vm_check(rig);
    vm_free(rig);
}

static uint8_t *shared_copy(unsigned page)
{
    return fake.memories[0].shared_copy + page * page_size();
}

/* A device has always been able to write to the copy of a private page. */
static void test_zero(void)
{
    Rig *rig = new_launched();

    g_assert_cmpuint(vm_ask(1, 2, PRIVATE), ==, 0);
    memset(shared_copy(1), 0x5a, page_size());
    g_assert_cmpuint(vm_ask(1, 1, GUEST_MEMFD_ATTR_ZERO), ==, 0);
    g_assert_true(vm_reads(1, 0));

    /* It can be had as it is, and then nothing is done for zero. */
    memset(shared_copy(2), 0x5a, page_size());
    rig->engine.content_policy = GUEST_MEMFD_CONTENT_POLICY_DEFAULT;
    g_string_truncate(fake.log, 0);
    g_assert_cmpuint(vm_ask(2, 1, 0), ==, 0);
    fake_expect_log("v: to-shared 2+1\na: discard private 2+1\n");
    vm_check(rig);
    vm_free(rig);
}

static bool is_there(unsigned page)
{
    unsigned char in_core;

    g_assert_cmpint(mincore(shared_copy(page), page_size(), &in_core), ==, 0);
    return in_core & 1;
}

/* Two runs; a device has written to the copy of the @written page. */
static void expect_cleared(unsigned written)
{
    g_assert_cmpuint(vm_ask(1, 1, PRIVATE), ==, 0);
    g_assert_cmpuint(vm_ask(3, 1, PRIVATE), ==, 0);
    if (written) {
        *shared_copy(written) = 0x5a;
    }
    g_string_truncate(fake.log, 0);
    g_assert_cmpuint(vm_ask(0, 8, 0), ==, 0);
    fake_expect_log("v: to-shared 0+4\na: discard private 0+4\n");
    g_assert_cmpint(is_there(1), ==, written == 1);
    g_assert_cmpint(is_there(3), ==, written == 3);
    g_assert_true(vm_reads(1, 0));
    g_assert_true(vm_reads(2, 42));
    g_assert_true(vm_reads(3, 0));
}

/* Pages that are absent stay so, and the others are cleared. */
static void test_absent(void)
{
    Rig *rig = new_launched();

    fake.memories[0].rb.flags = 0;
    fake.really_discards = true;
    vm_set_page(rig, 2, true, 42);
    expect_cleared(0);
    expect_cleared(1);
    expect_cleared(3);
    /* It may have been written to the disk: it is there, too. */
    g_assert_cmpuint(vm_ask(1, 1, PRIVATE), ==, 0);
    *shared_copy(1) = 0x5a;
    g_assert_cmpint(madvise(shared_copy(1), page_size(), MADV_PAGEOUT), ==, 0);
    g_assert_cmpuint(vm_ask(1, 1, 0), ==, 0);
    g_assert_true(vm_reads(1, 0));
    vm_check(rig);
    vm_free(rig);
}

/* Give the memory of the first block, from the second page of a file on. */
static int share_file(Rig *rig)
{
    const size_t size = FAKE_PAGES * page_size();
    FakeMemory *m = &fake.memories[0];
    int fd = qemu_memfd_create("shared", size + page_size(), false, 0, 0,
                               &error_abort);

    g_assert(mmap(m->shared_copy, size, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_FIXED, fd, page_size()) == m->shared_copy);
    m->rb.fd = fd;
    m->rb.fd_offset = page_size();
    m->rb.flags = RAM_SHARED;
    fake.really_discards = true;
    return fd;
}

/* Another process may have written to it: no page of it is mapped here. */
static void test_absent_file(void)
{
    Rig *rig = new_launched();
    const uint64_t word = 0x5a;
    int fd = share_file(rig);

    vm_set_page(rig, 2, true, 42);
    expect_cleared(0);
    expect_cleared(1);
    expect_cleared(3);
    g_assert_cmpuint(vm_ask(1, 1, PRIVATE), ==, 0);
    g_assert_cmpint(pwrite(fd, &word, sizeof(word), 2 * page_size()), ==,
                    sizeof(word));
    g_assert_cmpuint(vm_ask(1, 1, 0), ==, 0);
    g_assert_true(vm_reads(1, 0));
    vm_check(rig);
    vm_free(rig);
    close(fd);
}

/* Nobody can say what is there. */
static void test_absent_unknown(void)
{
    Rig *rig = new_launched();
    const char *said = "a: discard shared 1+1\nv: to-shared 1+1\n"
                       "a: discard private 1+1\n";
    int fd = share_file(rig), pipes[2];

    /* A private mapping of a file. */
    fake.memories[0].rb.flags = 0;
    g_assert_cmpuint(vm_ask(1, 1, PRIVATE), ==, 0);
    g_string_truncate(fake.log, 0);
    g_assert_cmpuint(vm_ask(1, 1, 0), ==, 0);
    fake_expect_log(said);

    /* Shared memory without a file. */
    fake.memories[0].rb.flags = RAM_SHARED;
    fake.memories[0].rb.fd = -1;
    g_assert_cmpuint(vm_ask(1, 1, PRIVATE), ==, 0);
    g_string_truncate(fake.log, 0);
    g_assert_cmpuint(vm_ask(1, 1, 0), ==, 0);
    fake_expect_log(said);

    /* A file that cannot be asked. */
    g_assert_cmpint(pipe(pipes), ==, 0);
    fake.really_discards = false;
    fake.memories[0].rb.fd = pipes[0];
    fake.memories[0].rb.flags = RAM_SHARED;
    g_assert_cmpuint(vm_ask(1, 1, PRIVATE), ==, 0);
    *shared_copy(1) = 0x5a;
    g_assert_cmpuint(vm_ask(1, 1, 0), ==, 0);
    g_assert_true(vm_reads(1, 0));
    close(pipes[0]);
    close(pipes[1]);
    close(fd);
    vm_check(rig);
    vm_free(rig);
}

/* The end of this device is always at 0: the memory seems to be a hole. */
static void test_absent_device(void)
{
    Rig *rig = new_launched();
    RAMBlock *rb = &fake.memories[0].rb;

    rb->fd = open("/dev/zero", O_RDWR);
    g_assert_cmpint(rb->fd, >=, 0);
    rb->fd_offset = page_size();
    rb->flags = RAM_SHARED | RAM_NAMED_FILE;
    g_assert_cmpuint(vm_ask(1, 1, PRIVATE), ==, 0);
    *shared_copy(1) = 0x5a;
    g_assert_cmpuint(vm_ask(1, 1, 0), ==, 0);
    g_assert_true(vm_reads(1, 0));
    close(rb->fd);
    vm_check(rig);
    vm_free(rig);
}

/* Huge pages were allocated in advance, and stay: they are cleared. */
static void test_huge_pages(void)
{
    Rig *rig = new_launched();

    fake.memories[0].rb.page_size = 2 * MiB;
    vm_set_page(rig, 7, true, 42);
    g_assert_cmpuint(vm_ask(0, 8, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 0+8\n");
    g_assert_cmphex(*shared_copy(7), ==, 42);
    g_assert_cmpuint(vm_ask(0, 8, 0), ==, 0);
    fake_expect_log("v: to-shared 0+8\na: discard private 0+8\n");
    g_assert_true(vm_reads(7, 0));
    vm_check(rig);
    vm_free(rig);
}

/*
 * Memory that cannot be had is not touched, which would be SIGBUS: it reads
 * zero when there is some.  Here the second half of a file is missing.
 */
static void test_huge_pages_absent(void)
{
    Rig *rig = new_launched();
    GuestMemfdBlock *block = rig->blocks[0];
    uint8_t *host = block->host;
    const size_t half = FAKE_PAGES / 2 * page_size();
    int fd = qemu_memfd_create("empty-pool", half, false, 0, 0, &error_abort);
    uint8_t *pool = mmap(NULL, 2 * half, PROT_READ | PROT_WRITE, MAP_SHARED,
                         fd, 0);

    g_assert(pool != MAP_FAILED);
    g_assert_cmpuint(vm_ask(0, FAKE_PAGES, PRIVATE), ==, 0);
    fake.memories[0].rb.page_size = 2 * page_size();
    memset(pool, 0x5a, half);
    block->host = pool;
    g_assert_cmpuint(vm_ask(0, FAKE_PAGES, 0), ==, 0);
    g_assert_true(buffer_is_zero(pool, half));
    block->host = host;

    /* Any other error fails: the contents are unknown. */
    g_assert_cmpuint(vm_ask(0, 1, PRIVATE), ==, 0);
    munmap(pool, 2 * half);
    block->host = pool;
    g_assert_cmpuint(vm_ask(0, 1, 0), ==, EAGAIN);
    block->host = host;
    close(fd);
    vm_free(rig);
}

/* Attributes belong to addresses: all that show the memory change. */
static void test_mapped_twice(void)
{
    Rig *rig = new_launched();

    /* Pages 2 to 5 of the first block, once more. */
    rig_map(rig, 100, rig->blocks[0], 2, 4);
    rig->map[2].mr.ram_block = &fake.memories[0].rb;
    g_assert_cmpuint(vm_ask(0, 4, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 0+4\nv: to-private 100+2\n"
                    "a: discard shared 0+4\n");
    g_assert_cmpuint(vm_ask(102, 2, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 4+2\nv: to-private 102+2\n"
                    "a: discard shared 4+2\n");
    /* Pages that are not shown there. */
    g_assert_cmpuint(vm_ask(6, 2, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 6+2\na: discard shared 6+2\n");

    /* The second address fails: the first is rolled back. */
    fake.calls = 0;
    fake.faults[0] = (FakeFault) { .after = 2, .count = 1, .error = -EIO };
    g_assert_cmpuint(vm_ask(2, 1, 0), ==, EINVAL);
    fake_expect_log("a: discard shared 2+1\n"
                    "v: to-shared 2+1\nv: to-shared 100+1\n"
                    "v: to-private 2+1\nv: to-private 100+1\n"
                    "a: discard shared 2+1\n");
    vm_check(rig);

    /* The first fails: the second is not even tried. */
    fake.calls = 0;
    fake.faults[0] = (FakeFault) { .after = 1, .count = 1, .error = -EIO };
    g_assert_cmpuint(vm_ask(2, 1, 0), ==, EINVAL);
    fake_expect_log("a: discard shared 2+1\nv: to-shared 2+1\n"
                    "v: to-private 2+1\nv: to-private 100+1\n"
                    "a: discard shared 2+1\n");
    vm_check(rig);

    /* Pages that cannot be cleared are not shared. */
    fake.calls = 0;
    fake.faults[0] = (FakeFault) { .count = 1, .error = -EIO };
    g_assert_cmpuint(vm_ask(2, 1, 0), ==, EINVAL);
    fake_expect_log("a: discard shared 2+1\n"
                    "v: to-private 2+1\nv: to-private 100+1\n"
                    "a: discard shared 2+1\n");
    vm_check(rig);
    vm_free(rig);
}

/* Memory that is not mapped, as at a reset, has its other copy only. */
static void test_not_mapped(void)
{
    Rig *rig = new_launched();
    GuestMemfdRequest req = rig_request(TO_PRIVATE, UNSPECIFIED, 0, 8);

    rig->pieces = 0;
    req.block = rig->blocks[0];
    g_assert_cmpint(guest_memfd_engine_convert(&rig->engine, &req, NULL), ==,
                    0);
    fake_expect_log("a: discard shared 0+8\n");
    rig_expect_state(rig->blocks[0], "P8");
    vm_free(rig);
}

/* --- memslots ----------------------------------------------------------- */

static int slot_added(Rig *rig, hwaddr gpa, uint64_t first, uint64_t pages)
{
    return kvm_guest_memfd_slot_added(&rig->map[0].mr, gpa * page_size(),
                                      first * page_size(),
                                      pages * page_size());
}

/* The attributes of a new slot are set run by run. */
static void test_slot_added(void)
{
    Rig *rig = new_launched();

    g_assert_cmpuint(vm_ask(1, 2, PRIVATE), ==, 0);
    g_assert_cmpuint(vm_ask(7, 1, PRIVATE), ==, 0);
    rig_expect_state(rig->blocks[0], "S1 P2 S4 P1");
    g_string_truncate(fake.log, 0);

    g_assert_cmpint(slot_added(rig, 100, 0, 8), ==, 0);
    fake_expect_log("v: to-shared 100+1\nv: to-private 101+2\n"
                    "v: to-shared 103+4\nv: to-private 107+1\n");
    g_assert_cmpint(slot_added(rig, 50, 2, 3), ==, 0);
    fake_expect_log("v: to-private 50+1\nv: to-shared 51+2\n");
    g_assert_cmpint(slot_added(rig, 50, 4, 0), ==, 0);
    fake_expect_log("");
    vm_check(rig);
    vm_free(rig);
}

static void test_slot_added_fails(void)
{
    Rig *rig = new_launched();
    unsigned n;

    g_assert_cmpuint(vm_ask(1, 2, PRIVATE), ==, 0);
    for (n = 0; n < 3; n++) {
        fake.calls = 0;
        fake.faults[0] = (FakeFault) {
            .after = n, .count = 1, .error = -ENOMEM,
        };
        g_assert_cmpint(slot_added(rig, 100, 0, 8), ==, -ENOMEM);
        g_assert_cmpuint(fake.calls, ==, n + 1);
    }
    vm_check(rig);
    vm_free(rig);
}

/* --- memslots and conversions at once ----------------------------------- */

static struct {
    Rig *rig;
    QemuThread thread;
    bool started;
    bool over;
} listener;

static void sleep_ms(unsigned ms)
{
    const struct timespec ts = { .tv_nsec = ms * 1000000L };

    nanosleep(&ts, NULL);
}

static void *listener_main(void *opaque)
{
    g_assert_cmpint(slot_added(listener.rig, 0, 0, FAKE_PAGES), ==, 0);
    qatomic_set(&listener.over, true);
    return NULL;
}

/* The conversion is between its ioctl and its record. */
static void start_listener(hwaddr gpa, uint64_t size, bool private)
{
    if (listener.started) {
        return;
    }
    listener.started = true;
    qemu_thread_create(&listener.thread, "listener", listener_main, NULL,
                       QEMU_THREAD_JOINABLE);
    sleep_ms(50);
    g_assert_false(qatomic_read(&listener.over));
}

/* Else KVM would have the state of before, and QEMU that of after. */
static void test_slot_waits(void)
{
    Rig *rig = new_launched();

    g_assert_cmpuint(vm_ask(1, 2, PRIVATE), ==, 0);
    listener.rig = rig;
    fake.on_attributes = start_listener;
    g_assert_cmpuint(vm_ask(1, 2, 0), ==, 0);
    qemu_thread_join(&listener.thread);
    g_assert_true(listener.over);
    vm_check(rig);
    vm_free(rig);
}

/* In place the state is the memory's, wherever it is mapped. */
static void test_slot_added_in_place(void)
{
    Rig *rig = vm_new_in_place(0, 0);
    RAMBlock rb = { .attributes = rig->blocks[0]->attributes };

    rig->map[0].mr.ram_block = &rb;
    g_assert_cmpint(slot_added(rig, 0, 0, 8), ==, 0);
    fake_expect_log("");
    g_assert_cmpuint(fake.calls, ==, 0);
    vm_free(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*test)(void); } tests[] = {
        { "copies", test_two_backings },
        { "span", test_span },
        { "zero", test_zero },
        { "absent", test_absent },
        { "absent-file", test_absent_file },
        { "absent-unknown", test_absent_unknown },
        { "absent-device", test_absent_device },
        { "huge-pages", test_huge_pages },
        { "huge-pages-absent", test_huge_pages_absent },
        { "mapped-twice", test_mapped_twice },
        { "not-mapped", test_not_mapped },
        { "slot/runs", test_slot_added },
        { "slot/fails", test_slot_added_fails },
        { "slot/waits", test_slot_waits },
        { "slot/in-place", test_slot_added_in_place },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/kvm-backings/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].test);
    }
    return g_test_run();
}
