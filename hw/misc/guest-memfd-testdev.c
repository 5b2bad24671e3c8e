/*
 * A device that converts guest memory and probes it by DMA
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For guests without a hypercall to ask for conversions (TCG), and for
 * tests that access memory as a device does.  The registers are
 * described in hw/misc/guest-memfd-testdev.h.
 */

#include "qemu/osdep.h"
#include <glib-unix.h>
#include "hw/boards.h"
#include "hw/isa/isa.h"
#include "hw/misc/guest-memfd-testdev.h"
#include "hw/qdev-properties.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "system/dma.h"
#include "system/guest-memfd-ram.h"
#include "trace.h"

#define TYPE_GUEST_MEMFD_TESTDEV "guest-memfd-testdev"
OBJECT_DECLARE_SIMPLE_TYPE(GuestMemfdTestdev, GUEST_MEMFD_TESTDEV)

struct GuestMemfdTestdev {
    ISADevice parent_obj;

    MemoryRegion mmio;
    uint64_t base;

    uint64_t gpa;
    uint64_t size;
    uint64_t attributes;
    int64_t status;
    uint64_t outcome;
    uint64_t changed;
    uint64_t data;
    uint64_t dst;
    uint64_t done;

    int pin[2];         /* a pipe that holds the page */
    uint64_t *pointer;
    bool mapped;
};

static void testdev_convert(GuestMemfdTestdev *s)
{
    GuestMemfdResult outcome = { };

    s->status = guest_memfd_request(s->gpa, s->size, s->attributes,
                                    GUEST_MEMFD_ORIGIN_DEVICE, &outcome);
    s->changed = outcome.changed_bytes;
    s->outcome = outcome.decision.mode |
                 outcome.decision.realisation << 8 |
                 (outcome.decided ? GMTD_OUTCOME_VALID : 0);
}

static int testdev_result(MemTxResult result)
{
    return result == MEMTX_OK ? 0 : -EFAULT;
}

static int testdev_access(GuestMemfdTestdev *s, DMADirection direction)
{
    uint64_t data = cpu_to_le64(s->data);
    MemTxResult result;

    if (!s->size || s->size > sizeof(data)) {
        return -EINVAL;
    }
    result = dma_memory_rw(&address_space_memory, s->gpa, &data, s->size,
                           direction, MEMTXATTRS_UNSPECIFIED);
    if (result == MEMTX_OK && direction == DMA_DIRECTION_TO_DEVICE) {
        s->data = le64_to_cpu(data) & MAKE_64BIT_MASK(0, s->size * 8);
    }
    return testdev_result(result);
}

/* Page by page, so that DONE names the page that could not be accessed. */
static int testdev_copy(GuestMemfdTestdev *s)
{
    AddressSpace *as = &address_space_memory;
    const MemTxAttrs attrs = MEMTXATTRS_UNSPECIFIED;
    uint8_t page[4 * KiB];
    MemTxResult result = MEMTX_OK;

    s->done = 0;
    if (s->size > GMTD_COPY_MAX) {
        return -EINVAL;
    }
    while (s->done < s->size) {
        dma_addr_t src = s->gpa + s->done;
        dma_addr_t len = MIN(s->size - s->done,
                             sizeof(page) - src % sizeof(page));

        result = dma_memory_read(as, src, page, len, attrs);
        if (result == MEMTX_OK) {
            result = dma_memory_write(as, s->dst + s->done, page, len, attrs);
        }
        if (result != MEMTX_OK) {
            break;
        }
        s->done += len;
    }
    return testdev_result(result);
}

static int testdev_unpin(GuestMemfdTestdev *s)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(s->pin); i++) {
        if (s->pin[i] >= 0) {
            close(s->pin[i]);
            s->pin[i] = -1;
        }
    }
    return 0;
}

/* A pipe keeps a reference to the very page, as a pinned DMA buffer would. */
static int testdev_pin(GuestMemfdTestdev *s)
{
    hwaddr len = sizeof(uint64_t);
    struct iovec iov;
    ssize_t done;

    if (s->pin[0] >= 0) {
        return -EBUSY;
    }
    if (address_space_rw(&address_space_memory, s->gpa,
                         MEMTXATTRS_UNSPECIFIED, &s->data, len, false)) {
        return -EFAULT;
    }
    if (!g_unix_open_pipe(s->pin, FD_CLOEXEC, NULL)) {
        return -EMFILE;
    }
    iov.iov_base = address_space_map(&address_space_memory, s->gpa, &len,
                                     false, MEMTXATTRS_UNSPECIFIED);
    iov.iov_len = len;
    done = iov.iov_base ? vmsplice(s->pin[1], &iov, 1, 0) : -1;
    if (iov.iov_base) {
        address_space_unmap(&address_space_memory, iov.iov_base, len, false,
                            0);
    }
    if (done <= 0) {
        testdev_unpin(s);
        return -EFAULT;
    }
    return 0;
}

static int testdev_unmap(GuestMemfdTestdev *s)
{
    const hwaddr len = sizeof(uint64_t);

    if (s->mapped) {
        address_space_unmap(&address_space_memory, s->pointer, len, false, 0);
        s->mapped = false;
    }
    return 0;
}

static int testdev_map(GuestMemfdTestdev *s)
{
    hwaddr len = sizeof(uint64_t);
    void *pointer;

    if (s->mapped) {
        return -EBUSY;
    }
    if (address_space_rw(&address_space_memory, s->gpa,
                         MEMTXATTRS_UNSPECIFIED, &s->data, len, false)) {
        return -EFAULT;
    }
    pointer = address_space_map(&address_space_memory, s->gpa, &len, false,
                                MEMTXATTRS_UNSPECIFIED);
    if (len < sizeof(uint64_t)) {
        /* The bytes are not together in the host's memory. */
        address_space_unmap(&address_space_memory, pointer, len, false, 0);
        return -EFAULT;
    }
    s->pointer = pointer;
    s->mapped = true;
    return 0;
}

static int testdev_touch(GuestMemfdTestdev *s)
{
    ram_addr_t offset;

    if (!s->pointer) {
        return -EINVAL;
    }
    RCU_READ_LOCK_GUARD();
    /* The memory may have been unplugged since. */
    if (!qemu_ram_block_from_host(s->pointer, false, &offset)) {
        return -EFAULT;
    }
    s->data = ldq_le_p(s->pointer);
    return 0;
}

static void testdev_command(GuestMemfdTestdev *s, uint64_t command)
{
    switch (command) {
    case GMTD_CMD_CONVERT:
        testdev_convert(s);
        break;
    case GMTD_CMD_READ:
        s->status = testdev_access(s, DMA_DIRECTION_TO_DEVICE);
        break;
    case GMTD_CMD_WRITE:
        s->status = testdev_access(s, DMA_DIRECTION_FROM_DEVICE);
        break;
    case GMTD_CMD_COPY:
        s->status = testdev_copy(s);
        break;
    case GMTD_CMD_PIN:
        s->status = testdev_pin(s);
        break;
    case GMTD_CMD_UNPIN:
        s->status = testdev_unpin(s);
        break;
    case GMTD_CMD_MAP:
        s->status = testdev_map(s);
        break;
    case GMTD_CMD_TOUCH:
        s->status = testdev_touch(s);
        break;
    case GMTD_CMD_UNMAP:
        s->status = testdev_unmap(s);
        break;
    default:
        s->status = -EINVAL;
    }
    trace_guest_memfd_testdev_command(command, s->gpa, s->size,
                                      s->attributes, s->status);
}

static uint64_t testdev_read(void *opaque, hwaddr addr, unsigned size)
{
    const GuestMemfdTestdev *s = opaque;

    switch (addr) {
    case GMTD_REG_ID:
        return GMTD_ID;
    case GMTD_REG_GPA:
        return s->gpa;
    case GMTD_REG_SIZE:
        return s->size;
    case GMTD_REG_ATTRIBUTES:
        return s->attributes;
    case GMTD_REG_STATUS:
        return s->status;
    case GMTD_REG_OUTCOME:
        return s->outcome;
    case GMTD_REG_CHANGED:
        return s->changed;
    case GMTD_REG_DATA:
        return s->data;
    case GMTD_REG_DST:
        return s->dst;
    case GMTD_REG_DONE:
        return s->done;
    default:
        return 0;
    }
}

static void testdev_write(void *opaque, hwaddr addr, uint64_t value,
                          unsigned size)
{
    GuestMemfdTestdev *s = opaque;

    switch (addr) {
    case GMTD_REG_GPA:
        s->gpa = value;
        break;
    case GMTD_REG_SIZE:
        s->size = value;
        break;
    case GMTD_REG_ATTRIBUTES:
        s->attributes = value;
        break;
    case GMTD_REG_DATA:
        s->data = value;
        break;
    case GMTD_REG_DST:
        s->dst = value;
        break;
    case GMTD_REG_COMMAND:
        testdev_command(s, value);
        break;
    }
}

static const MemoryRegionOps testdev_ops = {
    .read = testdev_read,
    .write = testdev_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid.min_access_size = 8,
    .valid.max_access_size = 8,
    .impl.min_access_size = 8,
    .impl.max_access_size = 8,
};

/* Two of them would process each request twice. */
static bool testdev_is_taken(GuestMemfdTestdev *s, MemoryRegion *isa)
{
    MemoryRegionSection mrs = memory_region_find(isa, s->base, GMTD_SIZE);
    bool taken = mrs.mr && mrs.mr->ops == &testdev_ops;

    memory_region_unref(mrs.mr);
    return taken;
}

static bool testdev_check(GuestMemfdTestdev *s, MemoryRegion *isa,
                          Error **errp)
{
    ERRP_GUARD();
    const char *type = TYPE_GUEST_MEMFD_TESTDEV;

    if (!machine_require_guest_memfd(current_machine)) {
        error_setg(errp, "%s needs a confidential guest", type);
        error_append_hint(errp, "Add -machine "
                          "confidential-guest-support=..., for example of "
                          "-object sw-protected-guest.\n");
        return false;
    }
    if (!QEMU_IS_ALIGNED(s->base, GMTD_SIZE)) {
        error_setg(errp, "property 'addr' of %s doesn't take value '0x%"
                   PRIx64 "': it must be a multiple of 0x%x", type, s->base,
                   GMTD_SIZE);
        return false;
    }
    if (testdev_is_taken(s, isa)) {
        error_setg(errp, "property 'addr' of %s doesn't take value '0x%"
                   PRIx64 "': another one is there", type, s->base);
        error_append_hint(errp, "Give each an address of its own.\n");
        return false;
    }
    return true;
}

static void testdev_realize(DeviceState *dev, Error **errp)
{
    GuestMemfdTestdev *s = GUEST_MEMFD_TESTDEV(dev);
    MemoryRegion *isa = isa_address_space(ISA_DEVICE(dev));

    if (!testdev_check(s, isa, errp)) {
        return;
    }
    memory_region_init_io(&s->mmio, OBJECT(s), &testdev_ops, s,
                          TYPE_GUEST_MEMFD_TESTDEV, GMTD_SIZE);
    memory_region_add_subregion_overlap(isa, s->base, &s->mmio, 1);
}

static void testdev_init(Object *obj)
{
    GuestMemfdTestdev *s = GUEST_MEMFD_TESTDEV(obj);

    s->pin[0] = -1;
    s->pin[1] = -1;
}

static void testdev_finalize(Object *obj)
{
    testdev_unpin(GUEST_MEMFD_TESTDEV(obj));
    testdev_unmap(GUEST_MEMFD_TESTDEV(obj));
}

static const Property testdev_properties[] = {
    DEFINE_PROP_UINT64("addr", GuestMemfdTestdev, base, GMTD_BASE),
};

static void testdev_class_init(ObjectClass *oc, const void *data)
{
    DeviceClass *dc = DEVICE_CLASS(oc);

    dc->realize = testdev_realize;
    dc->desc = "Converts guest memory on request of a guest or a test";
    dc->hotpluggable = false;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, testdev_properties);
}

static const TypeInfo testdev_info = {
    .name = TYPE_GUEST_MEMFD_TESTDEV,
    .parent = TYPE_ISA_DEVICE,
    .instance_size = sizeof(GuestMemfdTestdev),
    .instance_init = testdev_init,
    .instance_finalize = testdev_finalize,
    .class_init = testdev_class_init,
};

static void testdev_register_types(void)
{
    type_register_static(&testdev_info);
}

type_init(testdev_register_types)
