/*
 * An access succeeds or fails as a whole
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The address space: block a, other RAM, a register of 8 bytes, and block
 * b, which a device finds page by page, as behind an IOMMU.  Far away are
 * unassigned memory and, behind it, the pages of b over and over.
 */

#include "qemu/osdep.h"
#include <malloc.h>
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "system/address-spaces.h"
#include "system/guest-memfd-internal.h"
#include "system/guest-memfd-memory.h"
#include "system/guest-memfd-refused.h"
#include "guest-memfd-fake-memory.h"
#include "guest-memfd-rig.h"

#define PAGE        ((hwaddr)qemu_real_host_page_size())
#define PAGES       4

#define AT_RAM      (PAGES * PAGE)
#define AT_REGISTER (AT_RAM + PAGE)
#define AT_B        (AT_REGISTER + 8)
#define END         (AT_B + PAGES * PAGE)

#define AT_NOTHING  (1ULL << 40)
#define NOTHING     (16 * MiB)
#define AT_B_AGAIN  (AT_NOTHING + NOTHING)

static Rig *rig;
static RAMBlock blocks[3];          /* a, b, other RAM */
static MemoryRegion mrs[5];         /* the same, the register, nothing */
static uint8_t *ram;
static uint8_t reg[8];
static unsigned register_accesses, refused;
static size_t allocated, allocated_max;
static GString *dirty;

/* --- the rest of QEMU --------------------------------------------------- */

AddressSpace address_space_memory;

void guest_memfd_count_refused(void)
{
    refused++;
}

void *qemu_map_ram_ptr(RAMBlock *rb, ram_addr_t addr)
{
    return rb->host + addr;
}

bool memory_region_is_ram_device(MemoryRegion *mr)
{
    return false;
}

void fake_memory_dirty(MemoryRegion *mr, hwaddr addr, hwaddr length)
{
    g_string_append_printf(dirty, " %td:%" PRIx64 "+%" PRIx64, mr - mrs,
                           addr, length);
}

int memory_access_size(MemoryRegion *mr, unsigned l, hwaddr addr)
{
    return mr == &mrs[4] ? MIN(l, 4) : MIN(l, 8 - addr);
}

static size_t heap(void)
{
    const struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

void fake_memory_register(MemoryRegion *mr, hwaddr addr, void *buf,
                          hwaddr len, bool is_write)
{
    register_accesses++;
    if (mr == &mrs[4]) {
        g_assert_cmphex(len, ==, 4);
        allocated_max = MAX(allocated_max, heap());
        return;
    }
    g_assert_true(mr == &mrs[3]);
    memcpy(is_write ? reg + addr : buf, is_write ? buf : reg + addr, len);
}

static MemoryRegion *in(MemoryRegion *mr, hwaddr addr, hwaddr size,
                        hwaddr *xlat, hwaddr *plen)
{
    *xlat = addr;
    *plen = MIN(*plen, size - addr);
    return mr;
}

MemoryRegion *flatview_translate(FlatView *fv, hwaddr addr, hwaddr *xlat,
                                 hwaddr *plen, bool is_write, MemTxAttrs attrs)
{
    if (addr >= AT_NOTHING && addr < AT_B_AGAIN) {
        *xlat = addr;
        return &mrs[4];
    }
    if (addr >= AT_B_AGAIN) {
        addr = AT_B + (addr - AT_B_AGAIN) % (PAGES * PAGE);
    }
    g_assert_cmphex(addr, <, END);
    if (addr < AT_RAM) {
        return in(&mrs[0], addr, AT_RAM, xlat, plen);
    }
    if (addr < AT_REGISTER) {
        return in(&mrs[2], addr - AT_RAM, PAGE, xlat, plen);
    }
    if (addr < AT_B) {
        *xlat = addr - AT_REGISTER;
        return &mrs[3];
    }
    /* A page in each, the last first. */
    addr -= AT_B;
    *xlat = (PAGES - 1 - addr / PAGE) * PAGE + addr % PAGE;
    *plen = MIN(*plen, PAGE - addr % PAGE);
    return &mrs[1];
}

MemoryRegionSection memory_region_find(MemoryRegion *mr, hwaddr addr,
                                       uint64_t size)
{
    MemoryRegionSection s = { .offset_within_address_space = addr };
    hwaddr len = size;

    if (addr >= AT_RAM) {
        return s;
    }
    s.mr = in(&mrs[0], addr, AT_RAM, &s.offset_within_region, &len);
    s.size = int128_make64(len);
    rig->map[0].mr = mrs[0];
    s.mr = &rig->map[0].mr;
    memory_region_ref(s.mr);
    return s;
}

/* --- the machine -------------------------------------------------------- */

static void start_as(GuestMemfdStart state)
{
    unsigned i;

    rig = rig_new(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    rig->start = state;
    rig->threads = true;
    rig->engine.retry_timeout_ms = 0;
    ram = g_malloc(PAGE);
    memset(ram, 0x33, PAGE);
    memset(reg, 0x44, sizeof(reg));
    memset(mrs, 0, sizeof(mrs));
    dirty = g_string_new(NULL);
    register_accesses = 0;
    refused = 0;
    for (i = 0; i < 2; i++) {
        GuestMemfdBlock *block = rig_block(rig, i ? "b" : "a", PAGES);

        rig_map(rig, i * PAGES, block, 0, PAGES);
        blocks[i] = (RAMBlock) {
            .gmem = block, .host = block->host,
            .used_length = block->size, .max_length = block->size,
        };
        memset(block->host, 0x11 * (i + 1), block->size);
    }
    blocks[2] = (RAMBlock) { .host = ram, .used_length = PAGE };
    for (i = 0; i < 3; i++) {
        mrs[i].ram = true;
        mrs[i].ram_block = &blocks[i];
    }
    guest_memfd_make_convertible(&mrs[0]);
    guest_memfd_make_convertible(&mrs[1]);
}

static void start(void)
{
    start_as(GUEST_MEMFD_START_SHARED);
}

static void end(void)
{
    g_string_free(dirty, true);
    g_free(ram);
    rig_free(rig);
}

static GuestMemfdAccess access_of(GuestMemfdAccessKind kind)
{
    return guest_memfd_access_of(NULL, MEMTXATTRS_UNSPECIFIED, kind);
}

/* Page @page of a (0) or b (1). */
static void convert(unsigned block, unsigned page, GuestMemfdDirection to)
{
    g_assert_cmpint(rig_convert(rig, to, block * PAGES + page, 1), ==, 0);
}

/* --- tests -------------------------------------------------------------- */

/* Private pages: one case after the other. */
static const struct { unsigned block, page; } cases[] = {
    { 0, 0 }, { 0, 1 }, { 0, 3 }, { 1, 3 }, { 1, 0 },
};

static void test_all_or_nothing(void)
{
    g_autofree uint8_t *buf = g_malloc(END);
    const GuestMemfdAccess set = {
        .kind = GUEST_MEMFD_ACCESS_SET, .fill = 0x99,
        .translate = access_of(GUEST_MEMFD_ACCESS_SET).translate,
    };
    const GuestMemfdAccess reads = access_of(GUEST_MEMFD_ACCESS_READ);
    const GuestMemfdAccess writes = access_of(GUEST_MEMFD_ACCESS_WRITE);
    const GuestMemfdAccess rom = access_of(GUEST_MEMFD_ACCESS_ROM);
    unsigned i;
    hwaddr j;

    start();
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        convert(cases[i].block, cases[i].page, TO_PRIVATE);
        memset(buf, 0xee, END);
        g_assert_cmphex(guest_memfd_access(&reads, 0, buf, END), ==,
                        MEMTX_ACCESS_ERROR);
        for (j = 0; j < END; j++) {
            g_assert_cmphex(buf[j], ==, 0);
        }
        memset(buf, 0x77, END);
        g_assert_cmphex(guest_memfd_access(&writes, 0, buf, END), ==,
                        MEMTX_ACCESS_ERROR);
        g_assert_cmphex(guest_memfd_access(&rom, 0, buf, END), ==,
                        MEMTX_ACCESS_ERROR);
        g_assert_cmphex(guest_memfd_access(&set, 0, NULL, END), ==,
                        MEMTX_ACCESS_ERROR);
        convert(cases[i].block, cases[i].page, TO_SHARED);
    }
    g_assert_cmpuint(register_accesses, ==, 0);
    g_assert_cmpuint(refused, ==, 4 * ARRAY_SIZE(cases));
    g_assert_cmpstr(dirty->str, ==, "");
    g_assert_cmphex(ram[0], ==, 0x33);
    g_assert_cmphex(reg[0], ==, 0x44);
    end();
}

static void test_parts(void)
{
    g_autofree uint8_t *buf = g_malloc(END);
    const GuestMemfdAccess reads = access_of(GUEST_MEMFD_ACCESS_READ);
    const GuestMemfdAccess writes = access_of(GUEST_MEMFD_ACCESS_WRITE);
    hwaddr i;

    start();
    for (i = 0; i < END; i++) {
        buf[i] = i / PAGE + 1;
    }
    g_assert_cmphex(guest_memfd_access(&writes, 0, buf, END), ==, MEMTX_OK);
    g_assert_cmpuint(register_accesses, ==, 1);
    g_assert_cmphex(blocks[0].host[PAGE], ==, 2);
    g_assert_cmphex(ram[0], ==, PAGES + 1);
    /* The last page of b is the first of it that the device finds. */
    g_assert_cmphex(blocks[1].host[3 * PAGE + PAGE - 9], ==, PAGES + 2);
    g_assert_cmphex(blocks[1].host[3 * PAGE + PAGE - 8], ==, PAGES + 3);

    memset(buf, 0, END);
    g_assert_cmphex(guest_memfd_access(&reads, 0, buf, END), ==, MEMTX_OK);
    for (i = 0; i < END; i++) {
        g_assert_cmphex(buf[i], ==, i / PAGE + 1);
    }
    g_assert_cmpuint(register_accesses, ==, 2);
    /* No conversion waits for this thread. */
    convert(0, 0, TO_PRIVATE);
    end();
}

/* Whatever there is of it, an access takes no memory. */
static void test_bounded(void)
{
    const GuestMemfdAccess writes = access_of(GUEST_MEMFD_ACCESS_WRITE);
    const hwaddr len = NOTHING + PAGE;
    GuestMemfdAccess set = access_of(GUEST_MEMFD_ACCESS_SET);
    g_autofree uint8_t *buf = g_malloc0(len);

    start();
    set.fill = 0x99;
    /* The page behind it decides. */
    convert(1, 3, TO_PRIVATE);
    g_assert_cmphex(guest_memfd_access(&set, AT_NOTHING, NULL, len), ==,
                    MEMTX_ACCESS_ERROR);
    g_assert_cmphex(guest_memfd_access(&writes, AT_NOTHING, buf, len), ==,
                    MEMTX_ACCESS_ERROR);
    g_assert_cmpuint(register_accesses, ==, 0);
    convert(1, 3, TO_SHARED);

    allocated = allocated_max = heap();
    g_assert_cmphex(guest_memfd_access(&set, AT_NOTHING, NULL, len), ==,
                    MEMTX_OK);
    g_assert_cmpuint(register_accesses, ==, NOTHING / 4);
    g_assert_cmphex(blocks[1].host[3 * PAGE], ==, 0x99);
    g_assert_cmphex(guest_memfd_access(&writes, AT_NOTHING, buf, len), ==,
                    MEMTX_OK);
    g_assert_cmphex(blocks[1].host[3 * PAGE], ==, 0);
    g_assert_cmphex(allocated_max - allocated, <, MiB);
    end();
}

/* Many pages that are not in a row. */
static void test_scattered(void)
{
    enum { N = 99 };
    const GuestMemfdAccess reads = access_of(GUEST_MEMFD_ACCESS_READ);
    const GuestMemfdAccess writes = access_of(GUEST_MEMFD_ACCESS_WRITE);
    g_autofree uint8_t *buf = g_malloc(N * PAGE);
    unsigned i;

    start();
    for (i = 0; i < PAGES; i++) {
        memset(blocks[1].host + i * PAGE, i + 1, PAGE);
    }
    g_assert_cmphex(guest_memfd_access(&reads, AT_B_AGAIN, buf, N * PAGE), ==,
                    MEMTX_OK);
    for (i = 0; i < N * PAGE; i++) {
        g_assert_cmphex(buf[i], ==, PAGES - i / PAGE % PAGES);
    }
    memset(buf, 0x55, N * PAGE);
    g_assert_cmphex(guest_memfd_access(&writes, AT_B_AGAIN, buf, N * PAGE),
                    ==, MEMTX_OK);
    g_assert_cmphex(blocks[1].host[0], ==, 0x55);
    g_assert_cmphex(blocks[1].host[PAGES * PAGE - 1], ==, 0x55);

    convert(1, 0, TO_PRIVATE);
    g_assert_cmphex(guest_memfd_access(&reads, AT_B_AGAIN, buf, N * PAGE), ==,
                    MEMTX_ACCESS_ERROR);
    g_assert_true(buffer_is_zero(buf, N * PAGE));
    end();
}

/* Only pages that were written are dirty. */
static void test_dirty(void)
{
    const GuestMemfdAccess writes = access_of(GUEST_MEMFD_ACCESS_WRITE);
    uint8_t buf[16] = { };

    start();
    g_assert_cmphex(guest_memfd_access_part(&writes, 16, buf, 8, 16, 8,
                                            &mrs[0]), ==, MEMTX_OK);
    g_assert_cmpstr(dirty->str, ==, " 0:10+8");
    g_string_truncate(dirty, 0);
    g_assert_cmphex(guest_memfd_access_part(&writes, AT_RAM - 8, buf, 16,
                                            AT_RAM - 8, 8, &mrs[0]), ==,
                    MEMTX_OK);
    g_assert_cmpstr(dirty->str, ==, " 2:0+8 0:3ff8+8");
    end();
}

/* A private page is the guest's own, in whatever thread. */
static void test_vcpu(void)
{
    GuestMemfdAccess reads = access_of(GUEST_MEMFD_ACCESS_READ);
    uint64_t data;

    start();
    convert(0, 0, TO_PRIVATE);
    memset(blocks[0].host, 0x5a, 8);
    g_assert_cmphex(mrs[0].ops->read_with_attrs(mrs[0].opaque, 0, &data, 8,
                                                MEMTXATTRS_UNSPECIFIED), ==,
                    MEMTX_ACCESS_ERROR);
    g_assert_cmphex(data, ==, 0);
    reads.attrs.vcpu = true;
    g_assert_cmphex(mrs[0].ops->read_with_attrs(mrs[0].opaque, 0, &data, 8,
                                                reads.attrs), ==, MEMTX_OK);
    g_assert_cmphex(data, ==, 0x5a5a5a5a5a5a5a5a);
    g_assert_cmphex(guest_memfd_access(&reads, 0, &data, 8), ==, MEMTX_OK);
    end();
}

/* An access goes no further than the block, which may grow up to there. */
static void test_end(void)
{
    const hwaddr addr = 2 * PAGE - 4;
    uint64_t data;

    start();
    blocks[0].used_length = 2 * PAGE;
    g_assert_cmphex(mrs[0].ops->read_with_attrs(mrs[0].opaque, addr, &data, 4,
                                                MEMTXATTRS_UNSPECIFIED), ==,
                    MEMTX_OK);
    g_assert_cmphex(mrs[0].ops->read_with_attrs(mrs[0].opaque, addr, &data, 8,
                                                MEMTXATTRS_UNSPECIFIED), ==,
                    MEMTX_ACCESS_ERROR);
    g_assert_cmphex(mrs[0].ops->write_with_attrs(mrs[0].opaque, addr, 0, 8,
                                                 MEMTXATTRS_UNSPECIFIED), ==,
                    MEMTX_ACCESS_ERROR);
    g_assert_cmphex(blocks[0].host[addr], ==, 0x11);
    end();
}

/* ROM is not written to, but for debugging. */
static void test_rom(void)
{
    MemTxAttrs debug = { .debug = 1 };

    start();
    mrs[0].readonly = true;
    g_assert_true(mrs[0].ops->valid.accepts(&mrs[0], 0, 4, false,
                                            MEMTXATTRS_UNSPECIFIED));
    g_assert_false(mrs[0].ops->valid.accepts(&mrs[0], 0, 4, true,
                                             MEMTXATTRS_UNSPECIFIED));
    g_assert_true(mrs[0].ops->valid.accepts(&mrs[0], 0, 4, true, debug));
    end();
}

/* A launch has to know which pages have bytes. */
static void test_written(void)
{
    const GuestMemfdAccess writes = access_of(GUEST_MEMFD_ACCESS_WRITE);
    const GuestMemfdAccess reads = access_of(GUEST_MEMFD_ACCESS_READ);
    g_autofree uint8_t *buf = g_malloc0(END);

    start_as(GUEST_MEMFD_START_SETUP);
    g_assert_cmpint(guest_memfd_access(&reads, 0, buf, END), ==, MEMTX_OK);
    g_assert_cmphex(*blocks[0].gmem->written, ==, 0);
    g_assert_cmphex(*blocks[1].gmem->written, ==, 0);
    /* The last two pages of a, and the last page of b, which comes first. */
    g_assert_cmpint(guest_memfd_access(&writes, 3 * PAGE - 1, buf,
                                       AT_B + 1 - (3 * PAGE - 1)), ==,
                    MEMTX_OK);
    g_assert_cmphex(*blocks[0].gmem->written, ==, 0xc);
    g_assert_cmphex(*blocks[1].gmem->written, ==, 0x8);
    /* Within one region, as most writes are. */
    g_assert_cmpint(guest_memfd_access_part(&writes, PAGE, buf, 4, PAGE, 4,
                                            &mrs[0]), ==, MEMTX_OK);
    g_assert_cmphex(*blocks[0].gmem->written, ==, 0xe);
    end();
}

static void test_is_private(void)
{
    start();
    g_assert_false(guest_memfd_is_private(&address_space_memory, 0, END));
    convert(0, 3, TO_PRIVATE);
    g_assert_true(guest_memfd_is_private(&address_space_memory, 0, END));
    g_assert_true(guest_memfd_is_private(&address_space_memory, 3 * PAGE, 1));
    g_assert_false(guest_memfd_is_private(&address_space_memory, 0, 3 * PAGE));
    end();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/guest-memfd/memory/all-or-nothing", test_all_or_nothing);
    g_test_add_func("/guest-memfd/memory/parts", test_parts);
    g_test_add_func("/guest-memfd/memory/bounded", test_bounded);
    g_test_add_func("/guest-memfd/memory/scattered", test_scattered);
    g_test_add_func("/guest-memfd/memory/dirty", test_dirty);
    g_test_add_func("/guest-memfd/memory/vcpu", test_vcpu);
    g_test_add_func("/guest-memfd/memory/end", test_end);
    g_test_add_func("/guest-memfd/memory/rom", test_rom);
    g_test_add_func("/guest-memfd/memory/written", test_written);
    g_test_add_func("/guest-memfd/memory/is-private", test_is_private);

    return g_test_run();
}
