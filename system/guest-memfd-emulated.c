/*
 * The emulated provider: private memory for TCG and qtest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An ordinary memfd stands for the guest_memfd.  The provider keeps its own
 * record of which pages are private, as a kernel would, so that tests can
 * compare it with what QEMU recorded.  No page is hidden from the host's
 * mapping, since TCG's guest runs on it; system/physmem.c keeps devices
 * off private pages.
 *
 * For tests, the provider can fill memory that was converted without any
 * promise with a pattern, so that reliance on its contents shows, and it
 * can fail on request, after a part of the range was converted.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/bitmap.h"
#include "qemu/memfd.h"
#include "qemu/module.h"
#include "guest-memfd-internal.h"
#include "trace.h"

/* The byte that poisoned memory reads. */
#define POISON_BYTE 0xd5

/* Linux has no greater errno values. */
#define FAULT_ERRNO_MAX 4095

OBJECT_DECLARE_SIMPLE_TYPE(GuestMemfdEmulated, GUEST_MEMFD_PROVIDER_EMULATED)

struct GuestMemfdEmulated {
    GuestMemfdProvider parent_obj;

    bool poison;
    bool preserve_ends;         /* once final, as a kernel's may */

    /* Faults; atomic, since conversions run without the BQL. */
    uint32_t fault_errno;       /* 0: none */
    uint32_t fault_after;       /* operations that still succeed */
    uint32_t fault_count;       /* operations that then fail */
    uint64_t fault_progress;    /* bytes converted before the failure */
    uint64_t operations;
};

static int create_file(const GuestMemfdBlock *block, Error **errp)
{
    return qemu_memfd_create("guest-memfd-emulated", block->size, false, 0, 0,
                             errp);
}

static bool emulated_block_alloc(GuestMemfdProvider *provider,
                                 GuestMemfdBlock *block, Error **errp)
{
    int fd = create_file(block, errp);

    if (fd < 0 || !guest_memfd_block_map(block, fd, errp)) {
        return false;
    }
    /* Bit set: private. */
    block->provider_data = bitmap_new(block->size / guest_memfd_page_size());
    return true;
}

static void emulated_block_free(GuestMemfdProvider *provider,
                                   GuestMemfdBlock *block)
{
    g_free(block->provider_data);
}

static bool emulated_block_rebind(GuestMemfdProvider *provider,
                                  GuestMemfdBlock *block, Error **errp)
{
    int fd = create_file(block, errp);

    if (fd < 0 || !guest_memfd_block_remap(block, fd, errp)) {
        return false;
    }
    bitmap_zero(block->provider_data, block->size / guest_memfd_page_size());
    if (block->engine->bytes_changed) {
        block->engine->bytes_changed(block, 0, block->size);
    }
    return true;
}

static void poison_bytes(GuestMemfdBlock *block, uint64_t offset,
                         uint64_t size)
{
    memset(block->host + offset, POISON_BYTE, size);
    if (block->engine->bytes_changed) {
        block->engine->bytes_changed(block, offset, size);
    }
}

#ifdef CONFIG_LINUX
/*
 * Poison what the guest ever used.  The rest of the file is holes, and
 * filling them would only allocate memory.  SEEK_HOLE would walk to the next
 * hole, however far that is: look at no page but those asked for.
 */
static void poison_data(GuestMemfdBlock *block, uint64_t offset,
                        uint64_t size)
{
    const size_t page = guest_memfd_page_size();
    const off_t end = offset + size;
    unsigned char present[512];
    off_t data = offset;

    while (data < end) {
        size_t i, pages;

        data = lseek(block->fd, data, SEEK_DATA);
        if (data < 0 || data >= end) {
            break;
        }
        pages = MIN((end - data) / page, sizeof(present));
        if (mincore(block->host + data, pages * page, present)) {
            memset(present, 1, pages);
        }
        for (i = 0; i < pages; i++, data += page) {
            if (present[i] & 1) {
                poison_bytes(block, data, page);
            }
        }
    }
}
#else
static void poison_data(GuestMemfdBlock *block, uint64_t offset,
                        uint64_t size)
{
    poison_bytes(block, offset, size);
}
#endif

/* Is any page not in the wanted state yet? */
static bool is_change(const GuestMemfdBlock *block, uint64_t offset,
                      uint64_t size, GuestMemfdDirection direction)
{
    const unsigned long *private = block->provider_data;
    unsigned long first = offset / guest_memfd_page_size();
    unsigned long end = (offset + size) / guest_memfd_page_size();

    return direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE ?
           find_next_zero_bit(private, end, first) < end :
           find_next_bit(private, end, first) < end;
}

/* Count down, not below zero; false if it was zero. */
static bool take_one(uint32_t *count)
{
    uint32_t old = qatomic_read(count);

    while (old) {
        uint32_t current = qatomic_cmpxchg(count, old, old - 1);

        if (current == old) {
            return true;
        }
        old = current;
    }
    return false;
}

/* True if this operation is to fail. */
static bool take_fault(GuestMemfdEmulated *s)
{
    return qatomic_read(&s->fault_errno) && !take_one(&s->fault_after) &&
           take_one(&s->fault_count);
}

/* Contents are touched only where the state changes, as a kernel does. */
static void poison(GuestMemfdBlock *block, uint64_t offset, uint64_t size,
                   GuestMemfdDirection direction)
{
    const unsigned long *private = block->provider_data;
    const bool to_private = direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE;
    const size_t page = guest_memfd_page_size();
    unsigned long from = offset / page, end = from + size / page, to;

    for (; from < end; from = to) {
        from = to_private ? find_next_zero_bit(private, end, from) :
                            find_next_bit(private, end, from);
        to = to_private ? find_next_bit(private, end, from) :
                          find_next_zero_bit(private, end, from);
        if (from < to) {
            poison_data(block, from * page, (to - from) * page);
        }
    }
}

static void set_state(GuestMemfdBlock *block, uint64_t offset, uint64_t size,
                      GuestMemfdDirection direction)
{
    unsigned long first = offset / guest_memfd_page_size();
    unsigned long pages = size / guest_memfd_page_size();

    if (direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE) {
        bitmap_set(block->provider_data, first, pages);
    } else {
        bitmap_clear(block->provider_data, first, pages);
    }
}

static int emulated_convert(GuestMemfdProvider *provider,
                            GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size, GuestMemfdDirection direction,
                            GuestMemfdContentMode mode,
                            uint64_t *error_offset)
{
    GuestMemfdEmulated *s = GUEST_MEMFD_PROVIDER_EMULATED(provider);
    int ret = 0;

    qatomic_inc(&s->operations);
    /*
     * Converting pages back that did not change cannot fail, as with a
     * kernel.
     */
    if (is_change(block, offset, size, direction) && take_fault(s)) {
        size = MIN(size, qatomic_read(&s->fault_progress));
        *error_offset = offset + size;
        ret = -qatomic_read(&s->fault_errno);
    }
    if (mode == GUEST_MEMFD_CONTENT_MODE_DEFAULT && qatomic_read(&s->poison)) {
        poison(block, offset, size, direction);
    }
    set_state(block, offset, size, direction);
    trace_guest_memfd_emulated_convert(block->name, offset, size,
        GuestMemfdDirection_str(direction),
        GuestMemfdContentMode_str(mode), ret);
    return ret;
}

static int emulated_discard(GuestMemfdProvider *provider,
                            GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size)
{
    int ret = guest_memfd_block_punch_hole(block, offset, size);

    if (!ret && block->engine->bytes_changed) {
        block->engine->bytes_changed(block, offset, size);
    }
    return ret;
}

static void emulated_phase_changed(GuestMemfdProvider *provider,
                                   GuestMemfdPhase phase)
{
    const GuestMemfdContentMode preserve = GUEST_MEMFD_CONTENT_MODE_PRESERVE;
    const bool ended = phase >= GUEST_MEMFD_PHASE_FINAL &&
        GUEST_MEMFD_PROVIDER_EMULATED(provider)->preserve_ends;
    int direction;

    for (direction = 0; direction < GUEST_MEMFD_DIRECTION__MAX; direction++) {
        provider->offer.how[direction][preserve] = ended ?
            GUEST_MEMFD_REALISATION_REFUSED :
            GUEST_MEMFD_REALISATION_EMULATED;
    }
}

static bool emulated_get_preserve_ends(Object *obj, Error **errp)
{
    return GUEST_MEMFD_PROVIDER_EMULATED(obj)->preserve_ends;
}

static void emulated_set_preserve_ends(Object *obj, bool value, Error **errp)
{
    GUEST_MEMFD_PROVIDER_EMULATED(obj)->preserve_ends = value;
}

static bool emulated_get_poison(Object *obj, Error **errp)
{
    return qatomic_read(&GUEST_MEMFD_PROVIDER_EMULATED(obj)->poison);
}

static void emulated_set_poison(Object *obj, bool value, Error **errp)
{
    qatomic_set(&GUEST_MEMFD_PROVIDER_EMULATED(obj)->poison, value);
}

static void emulated_get_fault_errno(Object *obj, Visitor *v,
                                     const char *name, void *opaque,
                                     Error **errp)
{
    GuestMemfdEmulated *s = GUEST_MEMFD_PROVIDER_EMULATED(obj);
    uint32_t value = qatomic_read(&s->fault_errno);

    visit_type_uint32(v, name, &value, errp);
}

static void emulated_set_fault_errno(Object *obj, Visitor *v,
                                     const char *name, void *opaque,
                                     Error **errp)
{
    uint64_t value;

    if (!visit_type_uint64(v, name, &value, errp)) {
        return;
    }
    if (value > FAULT_ERRNO_MAX) {
        error_setg(errp, "property '%s' of %s doesn't take value '%" PRIu64
                   "': it is 0 to %d", name, object_get_typename(obj), value,
                   FAULT_ERRNO_MAX);
        return;
    }
    qatomic_set(&GUEST_MEMFD_PROVIDER_EMULATED(obj)->fault_errno, value);
}

static void emulated_init(Object *obj)
{
    const GuestMemfdRealisation how = GUEST_MEMFD_REALISATION_EMULATED;
    GuestMemfdEmulated *s = GUEST_MEMFD_PROVIDER_EMULATED(obj);
    GuestMemfdProvider *provider = GUEST_MEMFD_PROVIDER(obj);
    int direction, mode;

    provider->type = GUEST_MEMFD_PROVIDER_TYPE_EMULATED;
    provider->reason = g_strdup("no KVM: QEMU keeps the state of pages");
    for (direction = 0; direction < GUEST_MEMFD_DIRECTION__MAX; direction++) {
        for (mode = 0; mode < GUEST_MEMFD_CONTENT_MODE__MAX; mode++) {
            provider->offer.how[direction][mode] = how;
        }
    }
    provider->offer.how[GUEST_MEMFD_DIRECTION_TO_PRIVATE]
                       [GUEST_MEMFD_CONTENT_MODE_ZERO] =
        GUEST_MEMFD_REALISATION_REFUSED;

    object_property_add_uint32_ptr(obj, "fault-after", &s->fault_after,
                                   OBJ_PROP_FLAG_READWRITE);
    object_property_add_uint32_ptr(obj, "fault-count", &s->fault_count,
                                   OBJ_PROP_FLAG_READWRITE);
    object_property_add_uint64_ptr(obj, "fault-progress", &s->fault_progress,
                                   OBJ_PROP_FLAG_READWRITE);
    object_property_add_uint64_ptr(obj, "operations", &s->operations,
                                   OBJ_PROP_FLAG_READ);
}

static void emulated_class_init(ObjectClass *oc, const void *data)
{
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_CLASS(oc);

    pc->block_alloc = emulated_block_alloc;
    pc->block_free = emulated_block_free;
    pc->convert = emulated_convert;
    pc->discard = emulated_discard;
    pc->phase_changed = emulated_phase_changed;
    pc->block_rebind = emulated_block_rebind;

    object_class_property_add_bool(oc, "preserve-ends",
                                   emulated_get_preserve_ends,
                                   emulated_set_preserve_ends);
    object_class_property_set_description(oc, "preserve-ends",
        "Content mode preserve is offered until the launch is final");
    object_class_property_add_bool(oc, "poison", emulated_get_poison,
                                   emulated_set_poison);
    object_class_property_set_description(oc, "poison",
        "Overwrite memory converted with content mode default");
    object_class_property_add(oc, "fault-errno", "uint32",
                              emulated_get_fault_errno,
                              emulated_set_fault_errno, NULL, NULL);
    object_class_property_set_description(oc, "fault-errno",
        "The errno value of injected faults (0 to 4095; 0: no fault)");
}

static const TypeInfo emulated_info = {
    .name = TYPE_GUEST_MEMFD_PROVIDER_EMULATED,
    .parent = TYPE_GUEST_MEMFD_PROVIDER,
    .instance_size = sizeof(GuestMemfdEmulated),
    .instance_init = emulated_init,
    .class_init = emulated_class_init,
};

static void emulated_register_types(void)
{
    type_register_static(&emulated_info);
}

type_init(emulated_register_types)
