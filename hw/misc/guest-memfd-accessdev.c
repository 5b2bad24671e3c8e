/*
 * A device that accesses guest memory in each way that QEMU has
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For tests: the result for a device model at a border between shared and
 * private memory, whichever function it uses, in the main thread and in an
 * I/O thread.  include/hw/misc/guest-memfd-accessdev.h describes the
 * registers.
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "exec/cpu-common.h"
#include "hw/core/cpu.h"
#include "hw/isa/isa.h"
#include "hw/misc/guest-memfd-accessdev.h"
#include "hw/qdev-properties.h"
#include "qemu/module.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "system/dma.h"
#include "system/iothread.h"
#include "system/memory.h"

#define TYPE_GUEST_MEMFD_ACCESSDEV "guest-memfd-accessdev"
OBJECT_DECLARE_SIMPLE_TYPE(GuestMemfdAccessdev, GUEST_MEMFD_ACCESSDEV)

struct GuestMemfdAccessdev {
    ISADevice parent_obj;

    MemoryRegion mmio;
    uint64_t base;
    IOThread *iothread;

    uint64_t function;
    uint64_t gpa;
    uint64_t size;
    uint64_t fill;
    int64_t status;
    uint8_t buffer[GMAD_BUFFER_SIZE];

    MemoryRegionCache kept;
    hwaddr kept_gpa;
    int64_t kept_size;          /* 0: none */

    QemuSemaphore done;         /* by the I/O thread */
    bool pending;
    int result;
};

static const MemTxAttrs attrs = { .unspecified = 1 };

static bool is_write(const GuestMemfdAccessdev *s)
{
    return s->function & 1;
}

static int error_of(MemTxResult result)
{
    return result == MEMTX_OK ? 0 : -EFAULT;
}

/* --- whole buffers ----------------------------------------------------- */

static int run_rw(GuestMemfdAccessdev *s, AddressSpace *as)
{
    return error_of(address_space_rw(as, s->gpa, attrs, s->buffer, s->size,
                                     is_write(s)));
}

static int run_plain(GuestMemfdAccessdev *s, AddressSpace *as)
{
    return error_of(is_write(s) ?
        address_space_write(as, s->gpa, attrs, s->buffer, s->size) :
        address_space_read(as, s->gpa, attrs, s->buffer, s->size));
}

static int run_dma(GuestMemfdAccessdev *s, AddressSpace *as)
{
    return error_of(dma_memory_rw(as, s->gpa, s->buffer, s->size,
                                  is_write(s) ? DMA_DIRECTION_FROM_DEVICE :
                                                DMA_DIRECTION_TO_DEVICE,
                                  attrs));
}

static int run_sg(GuestMemfdAccessdev *s, AddressSpace *as)
{
    dma_addr_t left = 0;
    MemTxResult result;
    QEMUSGList sg;

    qemu_sglist_init(&sg, DEVICE(s), 1, as);
    qemu_sglist_add(&sg, s->gpa, s->size);
    result = is_write(s) ?
        dma_buf_read(s->buffer, s->size, &left, &sg, attrs) :
        dma_buf_write(s->buffer, s->size, &left, &sg, attrs);
    qemu_sglist_destroy(&sg);
    return left ? -EFAULT : error_of(result);
}

static int run_map(GuestMemfdAccessdev *s, AddressSpace *as)
{
    hwaddr len = s->size;
    void *pointer = address_space_map(as, s->gpa, &len, is_write(s), attrs);

    if (!pointer) {
        return -EFAULT;
    }
    if (is_write(s)) {
        memcpy(pointer, s->buffer, len);
    } else {
        memcpy(s->buffer, pointer, len);
    }
    address_space_unmap(as, pointer, len, is_write(s), len);
    return len < s->size ? -EFAULT : 0;
}

static int run_set(GuestMemfdAccessdev *s, AddressSpace *as)
{
    return error_of(address_space_set(as, s->gpa, s->fill, s->size, attrs));
}

static int run_write_rom(GuestMemfdAccessdev *s, AddressSpace *as)
{
    return error_of(address_space_write_rom(as, s->gpa, attrs, s->buffer,
                                            s->size));
}

static int run_debug(GuestMemfdAccessdev *s, AddressSpace *as)
{
    return cpu_memory_rw_debug(first_cpu, s->gpa, s->buffer, s->size,
                               is_write(s)) ? -EFAULT : 0;
}

/* --- questions --------------------------------------------------------- */

static int run_valid(GuestMemfdAccessdev *s, AddressSpace *as)
{
    return address_space_access_valid(as, s->gpa, s->size, is_write(s),
                                      attrs) ? 0 : -EFAULT;
}

static int run_is_io(GuestMemfdAccessdev *s, AddressSpace *as)
{
    return address_space_is_io(as, s->gpa) ? -EFAULT : 0;
}

/* --- loads and stores -------------------------------------------------- */

/* One access of 1, 2, 4 or 8 bytes at @gpa of @arg, with @suffix. */
#define LOAD(suffix, cached, arg, gpa)                                       \
    switch (s->size) {                                                       \
    case 1:                                                                  \
        value = address_space_ldub##cached(arg, gpa, attrs, &result);        \
        break;                                                               \
    case 2:                                                                  \
        value = address_space_lduw##suffix##cached(arg, gpa, attrs, &result);\
        break;                                                               \
    case 4:                                                                  \
        value = address_space_ldl##suffix##cached(arg, gpa, attrs, &result); \
        break;                                                               \
    case 8:                                                                  \
        value = address_space_ldq##suffix##cached(arg, gpa, attrs, &result); \
        break;                                                               \
    }

#define STORE(suffix, cached, arg, gpa)                                      \
    switch (s->size) {                                                       \
    case 1:                                                                  \
        address_space_stb##cached(arg, gpa, value, attrs, &result);          \
        break;                                                               \
    case 2:                                                                  \
        address_space_stw##suffix##cached(arg, gpa, value, attrs, &result);  \
        break;                                                               \
    case 4:                                                                  \
        address_space_stl##suffix##cached(arg, gpa, value, attrs, &result);  \
        break;                                                               \
    case 8:                                                                  \
        address_space_stq##suffix##cached(arg, gpa, value, attrs, &result);  \
        break;                                                               \
    }

static bool is_word(uint64_t size)
{
    return size == 1 || size == 2 || size == 4 || size == 8;
}

/* 0 if it is no word; it is not used then. */
static uint64_t get_value(const GuestMemfdAccessdev *s, bool big)
{
    if (!is_word(s->size)) {
        return 0;
    }
    return big ? ldn_be_p(s->buffer, s->size) : ldn_le_p(s->buffer, s->size);
}

static void put_value(GuestMemfdAccessdev *s, bool big, uint64_t value)
{
    if (big) {
        stn_be_p(s->buffer, s->size, value);
    } else {
        stn_le_p(s->buffer, s->size, value);
    }
}

static int run_load(GuestMemfdAccessdev *s, AddressSpace *as)
{
    const bool big = s->function == GMAD_LD_BE;
    MemTxResult result = MEMTX_OK;
    uint64_t value = 0;

    if (!is_word(s->size)) {
        return -EINVAL;
    }
    if (big) {
        LOAD(_be, , as, s->gpa)
    } else if (s->function == GMAD_LD_LE) {
        LOAD(_le, , as, s->gpa)
    } else {
        LOAD(, , as, s->gpa)
    }
    put_value(s, big, value);
    return error_of(result);
}

static int run_store(GuestMemfdAccessdev *s, AddressSpace *as)
{
    const bool big = s->function == GMAD_ST_BE;
    const uint64_t value = get_value(s, big);
    MemTxResult result = MEMTX_OK;

    if (!is_word(s->size)) {
        return -EINVAL;
    }
    if (big) {
        STORE(_be, , as, s->gpa)
    } else if (s->function == GMAD_ST_LE) {
        STORE(_le, , as, s->gpa)
    } else {
        STORE(, , as, s->gpa)
    }
    return error_of(result);
}

static int run_store_notdirty(GuestMemfdAccessdev *s, AddressSpace *as)
{
    MemTxResult result = MEMTX_OK;

    if (s->size != 4) {
        return -EINVAL;
    }
    address_space_stl_notdirty(as, s->gpa, get_value(s, false), attrs,
                               &result);
    return error_of(result);
}

/* --- caches ------------------------------------------------------------ */

static int keep(GuestMemfdAccessdev *s, AddressSpace *as)
{
    int64_t size;

    if (s->kept_size) {
        return -EBUSY;
    }
    address_space_cache_init_empty(&s->kept);
    size = address_space_cache_init(&s->kept, as, s->gpa, s->size, true);
    if (size < (int64_t)s->size) {
        address_space_cache_destroy(&s->kept);
        return -EFAULT;
    }
    s->kept_gpa = s->gpa;
    s->kept_size = size;
    return 0;
}

static int drop(GuestMemfdAccessdev *s, AddressSpace *as)
{
    if (s->kept_size) {
        address_space_cache_destroy(&s->kept);
        s->kept_size = 0;
    }
    return 0;
}

static int access_cache_words(GuestMemfdAccessdev *s, hwaddr at)
{
    const bool big = s->function == GMAD_CACHE_LD_BE ||
                     s->function == GMAD_CACHE_ST_BE;
    MemTxResult result = MEMTX_OK;
    uint64_t value = get_value(s, big);

    if (is_write(s) && big) {
        STORE(_be, _cached, &s->kept, at)
    } else if (is_write(s)) {
        STORE(_le, _cached, &s->kept, at)
    } else if (big) {
        LOAD(_be, _cached, &s->kept, at)
    } else {
        LOAD(_le, _cached, &s->kept, at)
    }
    put_value(s, big, value);
    return error_of(result);
}

static int access_cache(GuestMemfdAccessdev *s, hwaddr at)
{
    RCU_READ_LOCK_GUARD();

    if (s->function == GMAD_CACHE_READ) {
        return error_of(address_space_read_cached(&s->kept, at, s->buffer,
                                                  s->size));
    } else if (s->function == GMAD_CACHE_WRITE) {
        return error_of(address_space_write_cached(&s->kept, at, s->buffer,
                                                   s->size));
    }
    return access_cache_words(s, at);
}

static int run_cache(GuestMemfdAccessdev *s, AddressSpace *as)
{
    const bool kept = s->kept_size;
    int ret = 0;

    if (s->function >= GMAD_CACHE_LD_LE && !is_word(s->size)) {
        return -EINVAL;
    }
    if (kept && (s->gpa < s->kept_gpa || s->size > s->kept_size ||
                 s->gpa - s->kept_gpa > s->kept_size - s->size)) {
        return -EINVAL;
    }
    if (!kept) {
        ret = keep(s, as);
    }
    if (!ret) {
        ret = access_cache(s, s->gpa - s->kept_gpa);
        if (is_write(s)) {
            address_space_cache_invalidate(&s->kept, s->gpa - s->kept_gpa,
                                           s->size);
        }
    }
    if (!kept) {
        drop(s, as);
    }
    return ret;
}

/* --- the device -------------------------------------------------------- */

static int (*const functions[GMAD_FUNCTIONS])(GuestMemfdAccessdev *s,
                                              AddressSpace *as) = {
    [GMAD_RW_READ] = run_rw,
    [GMAD_RW_WRITE] = run_rw,
    [GMAD_READ] = run_plain,
    [GMAD_WRITE] = run_plain,
    [GMAD_LD_LE] = run_load,
    [GMAD_ST_LE] = run_store,
    [GMAD_LD_BE] = run_load,
    [GMAD_ST_BE] = run_store,
    [GMAD_LD] = run_load,
    [GMAD_ST] = run_store,
    [GMAD_DMA_READ] = run_dma,
    [GMAD_DMA_WRITE] = run_dma,
    [GMAD_SG_READ] = run_sg,
    [GMAD_SG_WRITE] = run_sg,
    [GMAD_MAP_READ] = run_map,
    [GMAD_MAP_WRITE] = run_map,
    [GMAD_CACHE_READ] = run_cache,
    [GMAD_CACHE_WRITE] = run_cache,
    [GMAD_CACHE_LD_LE] = run_cache,
    [GMAD_CACHE_ST_LE] = run_cache,
    [GMAD_CACHE_LD_BE] = run_cache,
    [GMAD_CACHE_ST_BE] = run_cache,
    [GMAD_DEBUG_READ] = run_debug,
    [GMAD_DEBUG_WRITE] = run_debug,
    [GMAD_VALID_READ] = run_valid,
    [GMAD_VALID_WRITE] = run_valid,
    [GMAD_IS_IO] = run_is_io,
    [GMAD_SET] = run_set,
    [GMAD_DROP] = drop,
    [GMAD_WRITE_ROM] = run_write_rom,
    [GMAD_KEEP] = keep,
    [GMAD_ST_NOTDIRTY] = run_store_notdirty,
};

static void run_function(void *opaque)
{
    GuestMemfdAccessdev *s = opaque;

    s->result = functions[s->function](s, &address_space_memory);
}

static void run_in_iothread(void *opaque)
{
    GuestMemfdAccessdev *s = opaque;

    run_function(s);
    qemu_sem_post(&s->done);
}

/* An I/O thread that waits for the BQL gets it when this one has failed. */
static int wait_for_iothread(GuestMemfdAccessdev *s)
{
    if (s->pending && qemu_sem_timedwait(&s->done, GMAD_TIMEOUT_MS) < 0) {
        return -ETIMEDOUT;
    }
    s->pending = false;
    return 0;
}

static int accessdev_run(GuestMemfdAccessdev *s, uint64_t where)
{
    if (wait_for_iothread(s)) {
        return -EBUSY;
    }
    if (s->function >= GMAD_FUNCTIONS || !s->size ||
        s->size > sizeof(s->buffer) || where > GMAD_IOTHREAD ||
        (where == GMAD_IOTHREAD && !s->iothread)) {
        return -EINVAL;
    }
    memset(s->buffer, s->fill, sizeof(s->buffer));
    if (where == GMAD_HERE) {
        run_function(s);
        return s->result;
    }
    s->pending = true;
    aio_bh_schedule_oneshot(iothread_get_aio_context(s->iothread),
                            run_in_iothread, s);
    return wait_for_iothread(s) ?: s->result;
}

static uint64_t accessdev_read(void *opaque, hwaddr addr, unsigned size)
{
    const GuestMemfdAccessdev *s = opaque;

    if (addr >= GMAD_BUFFER) {
        return ldq_le_p(s->buffer + addr - GMAD_BUFFER);
    }
    switch (addr) {
    case GMAD_REG_FUNCTION:
        return s->function;
    case GMAD_REG_GPA:
        return s->gpa;
    case GMAD_REG_SIZE:
        return s->size;
    case GMAD_REG_FILL:
        return s->fill;
    case GMAD_REG_STATUS:
        return s->status;
    default:
        return 0;
    }
}

/* The fields that an I/O thread uses do not change meanwhile. */
static void accessdev_write(void *opaque, hwaddr addr, uint64_t value,
                            unsigned size)
{
    GuestMemfdAccessdev *s = opaque;

    if (wait_for_iothread(s)) {
        s->status = -EBUSY;
        return;
    }
    switch (addr) {
    case GMAD_REG_FUNCTION:
        s->function = value;
        break;
    case GMAD_REG_GPA:
        s->gpa = value;
        break;
    case GMAD_REG_SIZE:
        s->size = value;
        break;
    case GMAD_REG_FILL:
        s->fill = value & 0xff;
        break;
    case GMAD_REG_RUN:
        s->status = accessdev_run(s, value);
        break;
    }
}

static const MemoryRegionOps accessdev_ops = {
    .read = accessdev_read,
    .write = accessdev_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid.min_access_size = 8,
    .valid.max_access_size = 8,
    .impl.min_access_size = 8,
    .impl.max_access_size = 8,
};

static void accessdev_realize(DeviceState *dev, Error **errp)
{
    GuestMemfdAccessdev *s = GUEST_MEMFD_ACCESSDEV(dev);

    memory_region_init_io(&s->mmio, OBJECT(s), &accessdev_ops, s,
                          TYPE_GUEST_MEMFD_ACCESSDEV, GMAD_SIZE);
    memory_region_add_subregion_overlap(isa_address_space(ISA_DEVICE(dev)),
                                        s->base, &s->mmio, 1);
}

static void accessdev_init(Object *obj)
{
    qemu_sem_init(&GUEST_MEMFD_ACCESSDEV(obj)->done, 0);
}

static void accessdev_finalize(Object *obj)
{
    GuestMemfdAccessdev *s = GUEST_MEMFD_ACCESSDEV(obj);

    drop(s, &address_space_memory);
    qemu_sem_destroy(&s->done);
}

static const Property accessdev_properties[] = {
    DEFINE_PROP_UINT64("addr", GuestMemfdAccessdev, base, GMAD_BASE),
    DEFINE_PROP_LINK("iothread", GuestMemfdAccessdev, iothread, TYPE_IOTHREAD,
                     IOThread *),
};

static void accessdev_class_init(ObjectClass *oc, const void *data)
{
    DeviceClass *dc = DEVICE_CLASS(oc);

    dc->realize = accessdev_realize;
    dc->desc = "Accesses guest memory in each way that QEMU has, for tests";
    dc->hotpluggable = false;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, accessdev_properties);
}

static const TypeInfo accessdev_info = {
    .name = TYPE_GUEST_MEMFD_ACCESSDEV,
    .parent = TYPE_ISA_DEVICE,
    .instance_size = sizeof(GuestMemfdAccessdev),
    .instance_init = accessdev_init,
    .instance_finalize = accessdev_finalize,
    .class_init = accessdev_class_init,
};

static void accessdev_register_types(void)
{
    type_register_static(&accessdev_info);
}

type_init(accessdev_register_types)
