/*
 * Fuzzing the registers of guest-memfd-testdev
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The device itself, on the engine, the emulated provider and an address
 * space of one block.  As in QEMU, an access to a private page fails.
 * An input is a list of register accesses; after each write:
 *
 * - the registers that the guest may not write hold what they should;
 * - no DMA read or changed a private page;
 * - what QEMU recorded is what the provider did;
 * - no file descriptor is left behind.
 */

#include "../../hw/misc/guest-memfd-testdev.c"
#include "qemu/bitmap.h"
#include "../unit/guest-memfd-rig.h"
#include "guest-memfd-fuzz.h"

#define PAGES       16
#define MAX_STEPS   64

static Rig *rig;
static unsigned mapped;             /* address_space_map() not yet undone */

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* --- what QEMU is to the device ---------------------------------------- */

AddressSpace address_space_memory;
const PropertyInfo qdev_prop_uint64;

int guest_memfd_request(hwaddr gpa, uint64_t size, uint64_t attributes,
                        GuestMemfdOrigin origin, GuestMemfdResult *outcome)
{
    int ret;

    ret = guest_memfd_engine_request(&rig->engine, gpa, size, attributes,
                                     origin, outcome);
    figures.requests++;
    figures.refused += ret == -EINVAL || ret == -EOPNOTSUPP;
    return ret;
}

static bool is_shared(uint64_t addr, uint64_t len)
{
    const uint64_t size = PAGES * page_size();

    if (!len || addr >= size || len > size - addr) {
        return false;
    }
    return find_next_zero_bit(rig->blocks[0]->attributes->bitmap,
                              DIV_ROUND_UP(addr + len, page_size()),
                              addr / page_size()) >=
           DIV_ROUND_UP(addr + len, page_size());
}

MemTxResult address_space_rw(AddressSpace *as, hwaddr addr, MemTxAttrs attrs,
                             void *buf, hwaddr len, bool is_write)
{
    uint8_t *host = rig->blocks[0]->host + addr;

    g_assert(as == &address_space_memory);
    if (!is_shared(addr, len)) {
        figures.faults++;
        return MEMTX_ERROR;
    }
    if (is_write) {
        memcpy(host, buf, len);
    } else {
        memcpy(buf, host, len);
    }
    return MEMTX_OK;
}

void *address_space_map(AddressSpace *as, hwaddr addr, hwaddr *plen,
                        bool is_write, MemTxAttrs attrs)
{
    /* As much as there is in one piece. */
    while (*plen && !is_shared(addr, *plen)) {
        (*plen)--;
    }
    if (!*plen) {
        return NULL;
    }
    mapped++;
    return rig->blocks[0]->host + addr;
}

void address_space_unmap(AddressSpace *as, void *buffer, hwaddr len,
                         bool is_write, hwaddr access_len)
{
    g_assert_cmpuint(mapped, >, 0);
    mapped--;
}

/* No memory is unplugged here. */
RAMBlock *qemu_ram_block_from_host(void *ptr, bool round_offset,
                                   ram_addr_t *offset)
{
    static RAMBlock block;

    return &block;
}

/* realize() is not called. */
MachineState *current_machine;

bool machine_require_guest_memfd(MachineState *machine)
{
    g_assert_not_reached();
}

MemoryRegionSection memory_region_find(MemoryRegion *mr, hwaddr addr,
                                       uint64_t size)
{
    g_assert_not_reached();
}

void memory_region_init_io(MemoryRegion *mr, Object *owner,
                           const MemoryRegionOps *ops, void *opaque,
                           const char *name, uint64_t size)
{
}

MemoryRegion *isa_address_space(ISADevice *dev)
{
    return NULL;
}

void memory_region_add_subregion_overlap(MemoryRegion *mr, hwaddr offset,
                                         MemoryRegion *subregion,
                                         int priority)
{
}

void device_class_set_props_n(DeviceClass *dc, const Property *props,
                              size_t n)
{
}

/* --- checking ---------------------------------------------------------- */

typedef struct View {
    GuestMemfdTestdev dev;
    unsigned long shared[BITS_TO_LONGS(PAGES)];
    uint64_t sums[PAGES];
} View;

static void look(const GuestMemfdTestdev *dev, View *v)
{
    const size_t words = page_size() / sizeof(uint64_t);
    unsigned page, i;

    v->dev = *dev;
    bitmap_copy(v->shared, rig->blocks[0]->attributes->bitmap, PAGES);
    for (page = 0; page < PAGES; page++) {
        const uint64_t *host = (uint64_t *)(rig->blocks[0]->host +
                                            page * page_size());

        v->sums[page] = 0;
        for (i = 0; i < words; i++) {
            v->sums[page] = v->sums[page] * 31 + host[i];
        }
    }
}

static void check_bytes(const View *old, const View *new, bool convert)
{
    unsigned page;

    for (page = 0; page < PAGES; page++) {
        if (convert && test_bit(page, old->shared) !=
                       test_bit(page, new->shared)) {
            continue;
        }
        /* Nothing but DMA to a shared page changes bytes. */
        g_assert(old->sums[page] == new->sums[page] ||
                 (!convert && test_bit(page, old->shared)));
    }
}

static void check_transfer(const View *old, const View *new,
                           uint64_t command)
{
    const GuestMemfdTestdev *a = &old->dev, *b = &new->dev;

    switch (command) {
    case GMTD_CMD_READ:
    case GMTD_CMD_WRITE:
        g_assert_cmpint(b->status, ==, !a->size || a->size > 8 ? -EINVAL :
                        is_shared(a->gpa, a->size) ? 0 : -EFAULT);
        g_assert(b->data == a->data ||
                 (command == GMTD_CMD_READ && !b->status));
        break;
    case GMTD_CMD_COPY:
        g_assert_cmphex(b->done, <=, a->size);
        g_assert_cmpint(b->status, ==, a->size > GMTD_COPY_MAX ? -EINVAL :
                        b->done == a->size ? 0 : -EFAULT);
        break;
    case GMTD_CMD_PIN:
        g_assert_cmpint(b->pin[0] >= 0, ==,
                        b->status == 0 || b->status == -EBUSY);
        break;
    case GMTD_CMD_UNPIN:
        g_assert_cmpint(b->pin[0], ==, -1);
        break;
    }
}

static void check_convert(const View *old, const View *new)
{
    const GuestMemfdTestdev *b = &new->dev;
    const uint64_t outcome = b->outcome;
    unsigned long changed[BITS_TO_LONGS(PAGES)];

    bitmap_xor(changed, old->shared, new->shared, PAGES);
    g_assert_cmphex(b->changed, ==,
                    bitmap_count_one(changed, PAGES) * page_size());
    g_assert_cmpint(b->status, <=, 0);
    g_assert(!b->status || !b->changed);
    g_assert_cmphex(outcome & ~(GMTD_OUTCOME_VALID | 0x303), ==, 0);
    g_assert_cmpint(GMTD_OUTCOME_HOW(outcome), <=,
                    GUEST_MEMFD_REALISATION_REFUSED);
    if (b->status == 0 && b->changed) {
        g_assert(outcome & GMTD_OUTCOME_VALID);
        g_assert_cmpint(GMTD_OUTCOME_HOW(outcome), !=,
                        GUEST_MEMFD_REALISATION_REFUSED);
    }
}

static void check(const GuestMemfdTestdev *dev, const View *old,
                  uint64_t addr, uint64_t value)
{
    const bool command = addr == GMTD_REG_COMMAND;
    const bool convert = command && value == GMTD_CMD_CONVERT;
    View new;

    look(dev, &new);
    g_assert_cmphex(testdev_ops.read(NULL, GMTD_REG_ID, 8), ==, GMTD_ID);
    g_assert_cmpuint(mapped, ==, dev->mapped);
    g_assert_cmpint(dev->pin[0] >= 0, ==, dev->pin[1] >= 0);
    check_bytes(old, &new, convert);
    if (convert) {
        check_convert(old, &new);
    } else {
        g_assert(bitmap_equal(old->shared, new.shared, PAGES));
        g_assert_cmphex(dev->changed, ==, old->dev.changed);
        g_assert_cmphex(dev->outcome, ==, old->dev.outcome);
    }
    if (command) {
        check_transfer(old, &new, value);
    } else {
        g_assert_cmpint(dev->status, ==, old->dev.status);
        g_assert_cmphex(dev->done, ==, old->dev.done);
    }
    rig_check(rig);
}

/* --- the registers ----------------------------------------------------- */

static uint64_t operand(Input *in, uint8_t how)
{
    switch (how % 4) {
    case 0:
        return take(in, 1) % (PAGES + 4) * page_size();
    case 1:
        return take(in, 2);
    case 2:
        return take(in, 1);
    default:
        return take(in, 8);
    }
}

static void store(GuestMemfdTestdev *dev, uint64_t addr, uint64_t value)
{
    View old;

    look(dev, &old);
    testdev_ops.write(dev, addr, value, 8);
    check(dev, &old, addr, value);
}

static void step(GuestMemfdTestdev *dev, Input *in)
{
    const uint8_t where = take(in, 1), how = take(in, 1);
    const hwaddr addr = where & 128 ? take(in, 2) % GMTD_SIZE & ~7 :
                        where % 12 * 8;

    if (where & 64) {
        /* The steps of a driver. */
        store(dev, GMTD_REG_GPA, operand(in, how));
        store(dev, GMTD_REG_SIZE, operand(in, how / 4));
        store(dev, GMTD_REG_ATTRIBUTES, take(in, 2));
        store(dev, GMTD_REG_COMMAND, how / 16 % 8);
    } else if (how & 128) {
        testdev_ops.read(dev, addr, 8);
    } else {
        store(dev, addr, operand(in, addr == GMTD_REG_COMMAND ? 2 : how));
    }
}

static unsigned open_files(void)
{
    unsigned n = 0;
    int fd;

    for (fd = 0; fd < 64; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const unsigned before = open_files();
    GuestMemfdTestdev dev = { .pin = { -1, -1 } };
    Input in = { data, size };
    unsigned n;

    rig = rig_new(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    rig_map(rig, 0, rig_block(rig, "a", PAGES), 0, PAGES);
    rig_map_other(rig, PAGES, 2);
    memset(rig->blocks[0]->host, 0x5a, PAGES * page_size());

    for (n = 0; n < MAX_STEPS && in.left; n++) {
        step(&dev, &in);
    }
    testdev_unpin(&dev);
    testdev_unmap(&dev);
    g_assert_cmpuint(mapped, ==, 0);
    rig_free(rig);
    g_assert_cmpuint(open_files(), ==, before);
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return atexit(print_figures);
}
