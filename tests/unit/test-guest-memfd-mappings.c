/*
 * Guest memory that is mapped does not become private
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "system/guest-memfd-internal.h"
#include "guest-memfd-rig.h"

#define PAGE        qemu_real_host_page_size()
#define PAGES       16
#define USERS       4
#define RUN_US      300000

static bool map(Rig *rig, uint64_t page, uint64_t pages)
{
    return guest_memfd_mapping_add(rig->blocks[0], page * PAGE, pages * PAGE);
}

static void map_pages(Rig *rig, uint64_t page, uint64_t pages)
{
    g_assert_true(map(rig, page, pages));
}

static bool unmap(Rig *rig, uint64_t page, uint64_t pages)
{
    return guest_memfd_mapping_remove(rig->blocks[0], page * PAGE,
                                      pages * PAGE);
}

static void unmap_pages(Rig *rig, uint64_t page, uint64_t pages)
{
    g_assert_true(unmap(rig, page, pages));
}

static Rig *start(void)
{
    Rig *rig = rig_new_simple(PAGES);

    rig->engine.retry_timeout_ms = 0;
    return rig;
}

static void expect_busy(Rig *rig, uint64_t page, uint64_t pages)
{
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, page, pages), ==, -EAGAIN);
    /* No provider was called. */
    rig_expect_log(rig, "");
    rig_check(rig);
}

static void test_busy(void)
{
    Rig *rig = start();

    map_pages(rig, 4, 2);
    expect_busy(rig, 0, PAGES);
    expect_busy(rig, 4, 1);
    expect_busy(rig, 5, 1);
    rig_expect_state(rig->blocks[0], "S16");

    /* The neighbours are free. */
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 4), ==, 0);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 6, 10), ==, 0);
    rig_expect_state(rig->blocks[0], "P4 S2 P10");

    unmap_pages(rig, 4, 2);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 2), ==, 0);
    rig_expect_state(rig->blocks[0], "P16");
    rig_free(rig);
}

/* A byte is enough. */
static void test_byte(void)
{
    Rig *rig = start();
    GuestMemfdBlock *block = rig->blocks[0];

    g_assert_true(guest_memfd_mapping_add(block, 5 * PAGE - 1, 1));
    expect_busy(rig, 4, 1);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 3, 1), ==, 0);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 5, 1), ==, 0);
    g_assert_true(guest_memfd_mapping_remove(block, 5 * PAGE - 1, 1));
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 1), ==, 0);
    rig_free(rig);
}

/* All of it or nothing. */
static void test_private(void)
{
    Rig *rig = start();

    rig_prepare_private(rig, 4, 2);
    g_assert_false(map(rig, 4, 2));
    g_assert_false(map(rig, 5, 1));
    g_assert_false(map(rig, 2, 8));
    g_assert_false(map(rig, 5, 2));
    map_pages(rig, 2, 2);
    map_pages(rig, 6, 2);
    g_assert_cmpint(rig_convert(rig, TO_SHARED, 4, 2), ==, 0);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 2), ==, 0);
    unmap_pages(rig, 2, 2);
    unmap_pages(rig, 6, 2);
    /* Nothing is left of those that were refused. */
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, PAGES), ==, 0);
    rig_free(rig);
}

/* Each mapping counts, and each is removed by its own call. */
static void test_several(void)
{
    Rig *rig = start();

    map_pages(rig, 2, 1);
    map_pages(rig, 2, 4);
    map_pages(rig, 2, 1);
    unmap_pages(rig, 2, 4);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 3, 3), ==, 0);
    rig_expect_log(rig, "convert a 3+3 to-private default [P]\n");
    expect_busy(rig, 2, 1);
    unmap_pages(rig, 2, 1);
    expect_busy(rig, 2, 1);
    unmap_pages(rig, 2, 1);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 2, 1), ==, 0);
    rig_free(rig);
}

/* An unmap that fits no mapping changes none. */
static void test_mismatch(void)
{
    Rig *rig = start();

    map_pages(rig, 2, 4);
    map_pages(rig, 3, 1);
    g_assert_false(unmap(rig, 2, 1));
    g_assert_false(unmap(rig, 2, 5));
    g_assert_false(unmap(rig, 3, 2));
    g_assert_false(unmap(rig, 4, 1));
    unmap_pages(rig, 2, 4);
    g_assert_false(unmap(rig, 2, 4));
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 2, 1), ==, 0);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 4, 2), ==, 0);
    rig_expect_log(rig, "convert a 2+1 to-private default [P]\n"
                        "convert a 4+2 to-private default [P]\n");
    expect_busy(rig, 3, 1);
    unmap_pages(rig, 3, 1);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 3, 1), ==, 0);
    rig_free(rig);
}

/* Counters are in groups: what is looked at first, and what then. */
static void test_groups(void)
{
    static const unsigned mapped[] = { 0, 511, 512, 1023, 1024, 1500 };
    Rig *rig = rig_new_simple(1501);
    unsigned i;

    rig->engine.retry_timeout_ms = 0;
    for (i = 0; i < ARRAY_SIZE(mapped); i++) {
        map_pages(rig, mapped[i], 1);
        g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 1501), ==, -EAGAIN);
        unmap_pages(rig, mapped[i], 1);
    }
    /* From the middle of a group without mappings. */
    map_pages(rig, 520, 1);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 300, 1000), ==, -EAGAIN);
    unmap_pages(rig, 520, 1);
    map_pages(rig, 500, 600);
    for (i = 499; i <= 1100; i++) {
        g_assert_cmpint(rig_convert(rig, TO_PRIVATE, i, 1), ==,
                        i == 499 || i == 1100 ? 0 : -EAGAIN);
    }
    unmap_pages(rig, 500, 600);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, 1501), ==, 0);
    rig_free(rig);
}

static void remove_in_sleep(Rig *rig)
{
    if (rig->sleeps == 3) {
        unmap_pages(rig, 4, 1);
    }
}

/* The conversion waits for a mapping that is removed in time. */
static void test_waits(void)
{
    Rig *rig = start();

    rig->engine.retry_timeout_ms = 10000;
    rig->on_sleep = remove_in_sleep;
    map_pages(rig, 4, 1);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, PAGES), ==, 0);
    g_assert_cmpuint(rig->sleeps, ==, 3);
    rig_expect_log(rig, "convert a 0+16 to-private default [P]\n");
    g_assert_cmpuint(rig->blocks[0]->stats.counters.retries, ==, 3);
    rig_free(rig);
}

/* Runs of the same request that were converted before go back. */
static void test_rolled_back(void)
{
    Rig *rig = start();

    rig_prepare_private(rig, 4, 1);
    map_pages(rig, 8, 1);
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 0, PAGES), ==, -EAGAIN);
    rig_expect_state(rig->blocks[0], "S4 P1 S11");
    rig_expect_log(rig, "convert a 0+4 to-private preserve [P]\n"
                        "convert a 0+4 to-shared preserve [P]\n");
    unmap_pages(rig, 8, 1);
    rig_free(rig);
}

/* --- which user ---------------------------------------------------------- */

static void expect_user(Rig *rig, uint64_t page, GuestMemfdPageUser kind,
                        const char *device)
{
    const GuestMemfdBusy *busy = &rig->blocks[0]->stats.busy;

    g_assert_true(busy->any);
    g_assert_cmpuint(busy->offset, ==, page * PAGE);
    g_assert_cmpint(busy->user.kind, ==, kind);
    g_assert_cmpstr(busy->user.device, ==, device);
}

static void expect_count(Rig *rig, uint64_t mappings, uint64_t bytes)
{
    uint64_t counted[2];

    guest_memfd_mappings_count(rig->blocks[0], &counted[0], &counted[1]);
    g_assert_cmpuint(counted[0], ==, mappings);
    g_assert_cmpuint(counted[1], ==, bytes);
}

static void test_user(void)
{
    const GuestMemfdUser ring = { GUEST_MEMFD_PAGE_USER_RING, "disk" };
    const GuestMemfdUser buffer = { GUEST_MEMFD_PAGE_USER_MAPPING, "net" };
    Rig *rig = start();
    GuestMemfdBlock *block = rig->blocks[0];

    g_assert_false(block->stats.busy.any);
    g_assert_null(guest_memfd_busy_page_new(&block->stats.busy));
    expect_count(rig, 0, 0);
    g_assert_true(guest_memfd_mapping_add_for(block, 4 * PAGE + 8, PAGE, ring));
    g_assert_true(guest_memfd_mapping_add_for(block, 7 * PAGE, 100, buffer));
    g_assert_true(guest_memfd_mapping_add_for(block, 7 * PAGE, 100, buffer));
    expect_count(rig, 3, PAGE + 200);
    expect_busy(rig, 5, 1);
    expect_user(rig, 5, GUEST_MEMFD_PAGE_USER_RING, "disk");
    expect_busy(rig, 6, 4);
    expect_user(rig, 7, GUEST_MEMFD_PAGE_USER_MAPPING, "net");
    g_assert_true(guest_memfd_mapping_remove(block, 4 * PAGE + 8, PAGE));
    g_assert_true(guest_memfd_mapping_remove(block, 7 * PAGE, 100));
    g_assert_true(guest_memfd_mapping_remove(block, 7 * PAGE, 100));
    g_assert_false(guest_memfd_mapping_remove(block, 7 * PAGE, 100));
    expect_count(rig, 0, 0);

    /* Nothing of QEMU's is in the way any more. */
    rig->convert_fault = (RigFault) { .count = 1, .error = -EAGAIN };
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 2, 2), ==, -EAGAIN);
    expect_user(rig, 2, GUEST_MEMFD_PAGE_USER_KERNEL, NULL);
    rig_free(rig);
}

/* A mapping that begins far away, or among very many, has no name. */
static void test_user_unknown(void)
{
    const GuestMemfdUser user = { GUEST_MEMFD_PAGE_USER_RING, "disk" };
    const uint64_t group = 512, many = 3000;
    Rig *rig = rig_new_simple(4 * group);
    GuestMemfdBlock *block = rig->blocks[0];
    uint64_t i;

    rig->engine.retry_timeout_ms = 0;
    g_assert_true(guest_memfd_mapping_add_for(block, 0, 4 * group * PAGE,
                                              user));
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 2 * group - 1, 1), ==,
                    -EAGAIN);
    expect_user(rig, 2 * group - 1, GUEST_MEMFD_PAGE_USER_RING, "disk");
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, 3 * group, 1), ==, -EAGAIN);
    expect_user(rig, 3 * group, GUEST_MEMFD_PAGE_USER_MAPPING, NULL);
    for (i = 1; i <= many; i++) {
        g_assert_true(guest_memfd_mapping_add_for(block, 0, i, user));
    }
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, group - 1, 1), ==, -EAGAIN);
    for (i = 1; i <= many; i++) {
        g_assert_true(guest_memfd_mapping_remove(block, 0, i));
    }
    g_assert_true(guest_memfd_mapping_remove(block, 0, 4 * group * PAGE));
    rig_free(rig);
}

/* --- many at once ------------------------------------------------------ */

static int held[PAGES];
static bool stop;
static uint64_t successes;
static int (*real_convert)(GuestMemfdProvider *, GuestMemfdBlock *, uint64_t,
                           uint64_t, GuestMemfdDirection,
                           GuestMemfdContentMode, uint64_t *);

static int watched_convert(GuestMemfdProvider *provider,
                           GuestMemfdBlock *block, uint64_t offset,
                           uint64_t size, GuestMemfdDirection direction,
                           GuestMemfdContentMode mode, uint64_t *error_offset)
{
    uint64_t page;

    for (page = offset / PAGE; direction == TO_PRIVATE &&
         page < (offset + size) / PAGE; page++) {
        g_assert_cmpint(qatomic_read(&held[page]), ==, 0);
    }
    return real_convert(provider, block, offset, size, direction, mode,
                        error_offset);
}

static void *user_thread(void *opaque)
{
    Rig *rig = opaque;
    uint64_t page = 0;

    while (!qatomic_read(&stop)) {
        page = (page + 7) % PAGES;
        if (map(rig, page, 1)) {
            qatomic_inc(&held[page]);
            qatomic_inc(&successes);
            if (page & 1) {
                g_thread_yield();
            }
            qatomic_dec(&held[page]);
            unmap_pages(rig, page, 1);
        }
    }
    return NULL;
}

/* Either the page is private or it is mapped, never both. */
static void test_race(void)
{
    Rig *rig = rig_new(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    GuestMemfdProviderClass *pc =
        GUEST_MEMFD_PROVIDER_GET_CLASS(rig->engine.provider);
    const int64_t end = g_get_monotonic_time() + RUN_US;
    QemuThread users[USERS];
    uint64_t done[2] = { };
    unsigned i;

    rig->threads = true;
    rig->engine.retry_timeout_ms = 0;
    rig_map(rig, 0, rig_block(rig, "a", PAGES), 0, PAGES);
    real_convert = pc->convert;
    pc->convert = watched_convert;
    for (i = 0; i < USERS; i++) {
        qemu_thread_create(&users[i], "user", user_thread, rig,
                           QEMU_THREAD_JOINABLE);
    }
    /* On a busy machine the threads may not have met by then. */
    for (i = 0; g_get_monotonic_time() < end ||
         !done[0] || !done[1] || !qatomic_read(&successes); i++) {
        int ret = rig_convert(rig, i & 1 ? TO_SHARED : TO_PRIVATE,
                              i / 2 % PAGES, 1 + i % 3 % (PAGES -
                                                          i / 2 % PAGES));

        g_assert(!ret || (ret == -EAGAIN && !(i & 1)) || ret == -EINVAL);
        done[!!ret]++;
    }
    qatomic_set(&stop, true);
    for (i = 0; i < USERS; i++) {
        qemu_thread_join(&users[i]);
    }
    pc->convert = real_convert;
    g_test_message("%" PRIu64 " conversions, %" PRIu64 " refused, %" PRIu64
                   " uses", done[0], done[1], successes);
    g_assert_cmpuint(done[0], >, 0);
    g_assert_cmpuint(done[1], >, 0);
    g_assert_cmpuint(successes, >, 0);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/guest-memfd/mappings/busy", test_busy);
    g_test_add_func("/guest-memfd/mappings/byte", test_byte);
    g_test_add_func("/guest-memfd/mappings/private", test_private);
    g_test_add_func("/guest-memfd/mappings/several", test_several);
    g_test_add_func("/guest-memfd/mappings/mismatch", test_mismatch);
    g_test_add_func("/guest-memfd/mappings/groups", test_groups);
    g_test_add_func("/guest-memfd/mappings/waits", test_waits);
    g_test_add_func("/guest-memfd/mappings/rolled-back", test_rolled_back);
    g_test_add_func("/guest-memfd/mappings/user", test_user);
    g_test_add_func("/guest-memfd/mappings/user-unknown", test_user_unknown);
    g_test_add_func("/guest-memfd/mappings/race", test_race);

    return g_test_run();
}
