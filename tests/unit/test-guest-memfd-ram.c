/*
 * Conversion of guest memory: the RAM block's side
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Cases that qtests cannot have: blocks with two backings, memory that
 * cannot be had, and calls that QEMU makes with assigned devices only.
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "hw/core/cpu.h"
#include "qapi/error.h"
#include "qapi/error-internal.h"
#include "qemu/mmap-alloc.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "system/guest-memfd-internal.h"
#include "system/guest-memfd-ram.h"
#include "system/tcg.h"
#include "guest-memfd-fake-ram.h"

#define PAGES   FAKE_RAM_PAGES

static MemoryRegion ram;
static RAMBlock block;

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* --- blocks ------------------------------------------------------------- */

static void start(const char *provider)
{
    fake_ram = (FakeRam) { .rig = rig_new(provider), .starts_shared = true };
    ram = (MemoryRegion) { };
    block = (RAMBlock) {
        .mr = &ram,
        .offset = 16 * page_size(),
        .used_length = PAGES * page_size(),
        .max_length = PAGES * page_size(),
        .page_size = page_size(),
        .guest_memfd = -1,
    };
}

static void end(void)
{
    if (block.gmem) {
        guest_memfd_ram_block_cleanup(&block);
    }
    if (block.guest_memfd >= 0) {
        qemu_ram_munmap(block.guest_memfd, block.host, block.max_length);
        close(block.guest_memfd);
    }
    if (block.attributes) {
        g_free(block.attributes->bitmap);
        g_free(block.attributes);
    }
    rig_free(fake_ram.rig);
}

static void start_in_place(void)
{
    start(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    g_assert_true(guest_memfd_ram_block_init(&block, &error_abort));
}

static int convert(GuestMemfdDirection direction, unsigned first,
                   unsigned pages)
{
    GuestMemfdRequest req = rig_request(direction, UNSPECIFIED, first, pages);

    req.block = block.gmem;
    return guest_memfd_engine_convert(&fake_ram.rig->engine, &req, NULL);
}

static void test_init(void)
{
    start_in_place();
    g_assert_nonnull(block.gmem);
    g_assert_true(block.host == block.gmem->host);
    g_assert_cmpint(block.guest_memfd, ==, block.gmem->fd);
    g_assert_true(block.flags & RAM_SHARED);
    g_assert_cmpstr(block.gmem->name, ==, "ram0");
    rig_expect_state(block.gmem, "S4");
    g_assert_cmpint(fake_ram.discards_required, ==, 1);
    end();
}

/* Left to ram_block_add(): no provider, or one that needs two backings. */
static void test_not_ours(void)
{
    GuestMemfdProvider *provider;

    start(TYPE_RIG_PROVIDER);
    provider = fake_ram.rig->engine.provider;
    fake_ram.rig->engine.provider = NULL;
    g_assert_true(guest_memfd_ram_block_init(&block, &error_abort));
    fake_ram.rig->engine.provider = provider;
    provider->in_place = false;
    g_assert_true(guest_memfd_ram_block_init(&block, &error_abort));
    g_assert_null(block.gmem);
    g_assert_cmpint(fake_ram.discards_required, ==, 0);
    end();
}

static void expect_refused(const char *text, const char *remedy)
{
    Error *err = NULL;

    g_assert_false(guest_memfd_ram_block_init(&block, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    if (remedy) {
        g_assert_cmpstr(err->hint->str, ==, remedy);
    }
    error_free(err);
    g_assert_null(block.gmem);
    g_assert_cmpint(block.guest_memfd, ==, -1);
    g_assert_cmpint(fake_ram.discards_required, ==, 0);
    g_assert_true(QLIST_EMPTY(&fake_ram.rig->engine.blocks));
}

static void (*emulated_free)(GuestMemfdProvider *provider,
                             GuestMemfdBlock *block);
static unsigned freed_mapped;

static void free_mapped(GuestMemfdProvider *provider, GuestMemfdBlock *block)
{
    unsigned char present;

    freed_mapped += !mincore(block->host, qemu_real_host_page_size(),
                             &present);
    emulated_free(provider, block);
}

/* A provider may guard the addresses, which are somebody else's then. */
static void test_freed_mapped(void)
{
    GuestMemfdProviderClass *pc;

    start(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    pc = GUEST_MEMFD_PROVIDER_GET_CLASS(fake_ram.rig->engine.provider);
    emulated_free = pc->block_free;
    pc->block_free = free_mapped;
    fake_ram.no_attributes = true;
    g_assert_false(guest_memfd_ram_block_init(&block, NULL));
    fake_ram.no_attributes = false;
    pc->block_free = emulated_free;
    g_assert_cmpuint(freed_mapped, ==, 1);
    end();
}

/* Nothing is left of a block that could not be made. */
static void test_refused(void)
{
    start(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    fake_ram.no_engine = true;
    expect_refused("no provider", NULL);
    fake_ram.no_engine = false;

    fake_ram.discard_error = -EBUSY;
    expect_refused("cannot set up private guest memory: discard currently "
                   "blocked: Device or resource busy",
                   "Are you using assigned devices?\n");
    fake_ram.discard_error = 0;

    fake_ram.no_attributes = true;
    expect_refused("cannot track the state of memory region 'ram0': another "
                   "device manages its discards already", NULL);
    g_assert_null(block.host);
    fake_ram.no_attributes = false;

    /* A size that no file can have. */
    block.max_length = 1ULL << 63;
    g_assert_false(guest_memfd_ram_block_init(&block, NULL));
    g_assert_cmpint(fake_ram.discards_required, ==, 0);
    end();
}

/* Its use is not known yet: it keeps its memory. */
static void test_backend_waits(void)
{
    uint8_t memory;

    start(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    block.host = &memory;
    block.flags |= RAM_GUEST_MEMFD;
    fake_ram.waits = true;
    g_assert_true(guest_memfd_ram_block_init(&block, &error_abort));
    g_assert_true(block.host == &memory);
    g_assert_null(block.gmem);
    g_assert_false(block.flags & (RAM_GUEST_MEMFD | RAM_SHARED));
    g_assert_cmpint(fake_ram.discards_required, ==, 0);
    end();
}

/* Backends that cannot be exchanged do not change. */
static void test_backend_kept(void)
{
    uint8_t memory;

    start(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    block.host = &memory;
    fake_ram.no_attributes = true;
    expect_refused("cannot track the state of memory region 'ram0': another "
                   "device manages its discards already", NULL);
    g_assert_true(block.host == &memory);
    g_assert_false(block.flags & RAM_SHARED);
    fake_ram.no_attributes = false;
    end();
}

/* Both copies are there already; how the guest starts is the machine's. */
static void test_two_backings(void)
{
    int shared;

    for (shared = 0; shared < 2; shared++) {
        start(TYPE_RIG_PROVIDER);
        fake_ram.rig->engine.provider->in_place = false;
        fake_ram.starts_shared = shared;
        block.attributes = ram_block_attributes_create(&block);
        guest_memfd_ram_block_start(&block, &error_abort);
        rig_expect_state(block.gmem, shared ? "S4" : "P4");
        g_assert_false(guest_memfd_ram_block_in_place(&block));
        end();
    }
}

/* --- memory of a guest that is launched ----------------------------------- */

static void start_launched(GuestMemfdPhase phase)
{
    start(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    fake_ram.starts_shared = false;
    fake_ram.rig->engine.phase = phase;
}

/* It waits for the launch. */
static void test_launched(void)
{
    int phase;

    for (phase = 0; phase < GUEST_MEMFD_PHASE_FINAL; phase++) {
        start_launched(phase);
        g_assert_true(guest_memfd_ram_block_init(&block, &error_abort));
        g_assert_true(guest_memfd_block_in_setup(block.gmem));
        rig_expect_state(block.gmem, "S4");
        end();
    }
}

/* It has missed the launch.  A busy page cannot be waited for here. */
static void test_late(void)
{
    int phase;

    for (phase = GUEST_MEMFD_PHASE_FINAL; phase < GUEST_MEMFD_PHASE__MAX;
         phase++) {
        start_launched(phase);
        object_property_set_uint(OBJECT(fake_ram.rig->engine.provider),
                                 "fault-errno", EAGAIN, &error_abort);
        object_property_set_uint(OBJECT(fake_ram.rig->engine.provider),
                                 "fault-count", 1, &error_abort);
        expect_refused("memory region 'ram0' cannot become guest memory: the "
                       "launch of the guest has ended",
                       "Give its device on the command line, or plug in a "
                       "memory backend with a pc-dimm.\n");
        g_assert_cmpuint(fake_ram.rig->sleeps, ==, 0);
        g_assert_null(block.attributes);
        end();
    }
}

/* A backend is sealed when it is plugged in; others start shared. */
static void test_late_others(void)
{
    start_launched(GUEST_MEMFD_PHASE_RUNNING);
    fake_ram.waits = true;
    g_assert_true(guest_memfd_ram_block_adopt(&block, &error_abort));
    g_assert_true(guest_memfd_block_in_setup(block.gmem));
    end();

    start_launched(GUEST_MEMFD_PHASE_RUNNING);
    fake_ram.starts_shared = true;
    g_assert_true(guest_memfd_ram_block_init(&block, &error_abort));
    rig_expect_state(block.gmem, "S4");
    end();
}

/* --- queries of a block ---------------------------------------- */

static bool is_locked(void)
{
    if (qemu_mutex_trylock(&block.gmem->lock)) {
        return true;
    }
    qemu_mutex_unlock(&block.gmem->lock);
    return false;
}

static void test_lock(void)
{
    RAMBlock other = { };

    start_in_place();
    guest_memfd_ram_block_lock(&block);
    g_assert_true(is_locked());
    guest_memfd_ram_block_unlock(&block);
    g_assert_false(is_locked());
    guest_memfd_ram_block_lock(&other);
    guest_memfd_ram_block_unlock(&other);
    end();
}

/* Accesses are not direct from now on, and only where there is one copy. */
static void test_convertible(void)
{
    start_in_place();
    g_assert_true(fake_ram.convertible == block.mr);
    g_assert_true(guest_memfd_ram_block_in_place(&block));
    block.gmem->in_place = false;
    g_assert_false(guest_memfd_ram_block_in_place(&block));
    end();
}

static int discard(uint64_t first, uint64_t pages)
{
    return guest_memfd_ram_block_discard(&block, first * page_size(),
                                         pages * page_size());
}

static void test_discard(void)
{
    start_in_place();
    memset(block.host, 0x55, block.max_length);
    g_assert_cmpint(discard(0, 0), ==, -EINVAL);
    g_assert_cmpint(discard(PAGES + 1, 1), ==, -EINVAL);
    g_assert_cmpint(discard(PAGES - 1, 2), ==, -EINVAL);
    g_assert_cmpint(guest_memfd_ram_block_discard(&block, 1, page_size()), ==,
                    -EINVAL);
    g_assert_cmpint(guest_memfd_ram_block_discard(&block, 0, 1), ==, -EINVAL);

    g_assert_cmpint(convert(TO_PRIVATE, 1, 1), ==, 0);
    g_assert_cmpint(discard(1, 1), ==, -EPERM);
    g_assert_cmpint(discard(0, 2), ==, -EPERM);
    g_assert_cmphex(block.host[0], ==, 0x55);
    g_assert_cmphex(block.host[page_size()], ==, 0x55);
    g_assert_cmpint(discard(2, 2), ==, 0);
    g_assert_cmphex(block.host[2 * page_size()], ==, 0);
    end();
}

static void test_discard_fails(void)
{
    int fd;

    start_in_place();
    fd = block.gmem->fd;
    block.gmem->fd = -1;
    g_assert_cmpint(discard(0, 1), ==, -EBADF);
    block.gmem->fd = fd;
    end();
}

/* --- callbacks of the engine -------------------------------------------- */

static void map(bool as_ram)
{
    RigPiece *p;

    guest_memfd_bind_map(&fake_ram.rig->engine);
    rig_map(fake_ram.rig, 8, NULL, 0, PAGES);
    p = &fake_ram.rig->map[0];
    p->mr.ram = as_ram;
    p->mr.ram_block = as_ram ? &block : NULL;
}

static void expect_found(bool block_too)
{
    GuestMemfdSection s;

    g_assert_true(fake_ram.rig->engine.find_section(&fake_ram.rig->engine,
                                                    9 * page_size(),
                                                    8 * page_size(), &s));
    g_assert_true(s.block == (block_too ? block.gmem : NULL));
    g_assert_cmphex(s.gpa, ==, 9 * page_size());
    g_assert_cmphex(s.offset, ==, page_size());
    g_assert_cmphex(s.size, ==, 3 * page_size());
    memory_region_unref(s.mr);
}

static void test_find(void)
{
    GuestMemfdSection s;

    start_in_place();
    map(true);
    g_assert_false(fake_ram.rig->engine.find_section(&fake_ram.rig->engine, 0,
                                                     page_size(), &s));
    expect_found(true);

    /* Other RAM of the machine, ROM, and what is neither. */
    fake_ram.rig->map[0].mr.ram_block = NULL;
    expect_found(false);
    end();
}

/* TCG may hold translations of the old bytes. */
static void test_bytes_changed(void)
{
    start_in_place();
    map(true);
    fake_ram.rig->engine.bytes_changed(block.gmem, page_size(), page_size());
    g_assert_cmphex(fake_ram.invalidated[1], ==, 0);
    tcg_allowed = true;
    fake_ram.rig->engine.bytes_changed(block.gmem, page_size(), page_size());
    tcg_allowed = false;
    g_assert_cmphex(fake_ram.invalidated[0], ==, 17 * page_size());
    g_assert_cmphex(fake_ram.invalidated[1], ==, 18 * page_size() - 1);
    end();
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*test)(void); } tests[] = {
        { "init", test_init },
        { "not-ours", test_not_ours },
        { "refused", test_refused },
        { "freed-mapped", test_freed_mapped },
        { "backend-waits", test_backend_waits },
        { "backend-kept", test_backend_kept },
        { "two-backings", test_two_backings },
        { "launched", test_launched },
        { "late", test_late },
        { "late/others", test_late_others },
        { "lock", test_lock },
        { "convertible", test_convertible },
        { "discard", test_discard },
        { "discard-fails", test_discard_fails },
        { "find", test_find },
        { "bytes-changed", test_bytes_changed },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/ram/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].test);
    }
    return g_test_run();
}
