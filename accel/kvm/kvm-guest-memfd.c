/*
 * KVM as a provider of guest memory conversions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * In place there is one guest_memfd, mapped as the RAM block's host
 * memory.  Which pages are private is kept in its inode and survives the
 * memslots.  For other kernels see kvm-guest-memfd-backings.c.
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-ram.h"
#include "system/hostmem.h"
#include "system/kvm.h"
#include "system/kvm-guest-memfd.h"
#include "system/kvm_int.h"
#include "system/ramblock.h"
#include "kvm-guest-memfd-backings.h"
#include "kvm-guest-memfd-choice.h"
#include "kvm-guest-memfd-kernel.h"
#include "kvm-guest-memfd-sigbus.h"

/* Of requests for more bytes, what the guest has not used is not mapped. */
#define PREFAULT_GROUP  (2 * MiB)
#define PREFAULT_SAMPLE (64 * KiB)

#define TYPE_GUEST_MEMFD_PROVIDER_KVM_IN_PLACE \
    "guest-memfd-provider-kvm-in-place"

OBJECT_DECLARE_SIMPLE_TYPE(KvmGuestMemfdInPlace,
                           GUEST_MEMFD_PROVIDER_KVM_IN_PLACE)

struct KvmGuestMemfdInPlace {
    GuestMemfdProvider parent_obj;

    /* Flags that may be sent, by direction; changes with the phase. */
    uint64_t modes[GUEST_MEMFD_DIRECTION__MAX];
    bool unsure;            /* the phase has changed since they were probed */
    uid_t owner;            /* of the files */
};

/* Of this process's one VM; written once by kvm_init(). */
static struct {
    KvmGuestMemfdProbe probe;
    bool two_backings;
    bool hides_private_bytes;       /* does the guest's platform */
} kvm_guest_memfd = {
    .probe.why = "KVM has not been probed",
};

static bool has_modes(const KvmGuestMemfdProbe *probe)
{
    return probe->modes[GUEST_MEMFD_DIRECTION_TO_SHARED] |
           probe->modes[GUEST_MEMFD_DIRECTION_TO_PRIVATE];
}

/* The bytes of a launch must be there when its pages are private. */
static bool can_populate(const KvmGuestMemfdProbe *probe)
{
    return has_modes(probe) ?
           probe->modes[GUEST_MEMFD_DIRECTION_TO_PRIVATE] &
           KVM_GUEST_MEMFD_FLAG_PRESERVE : probe->keeps_bytes;
}

static void probe(MachineState *ms)
{
    const ConfidentialGuestSupportClass *cgsc =
        CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(ms->cgs);

    kvm_guest_memfd.hides_private_bytes = cgsc->hides_private_bytes;
    kvm_guest_memfd.probe = kvm_guest_memfd_probe_kernel(
        kvm_guest_memfd_kernel());
    if (kvm_guest_memfd.probe.in_place &&
        (!cgsc->converts_in_place ||
         (cgsc->launch_memory && !can_populate(&kvm_guest_memfd.probe)))) {
        kvm_guest_memfd.probe.in_place = false;
        kvm_guest_memfd.probe.why = "this guest's launch needs a second copy "
                                    "of its initial memory";
    }
}

/* --- the in-place provider --------------------------------------------- */

static bool is_dumped(const GuestMemfdBlock *block)
{
    MemoryRegion *mr = block->ram_block ? block->ram_block->mr : NULL;
    Object *backend = object_dynamic_cast(mr ? mr->owner : NULL,
                                          TYPE_MEMORY_BACKEND);

    return !backend || MEMORY_BACKEND(backend)->dump;
}

static int create_file(const GuestMemfdBlock *block, Error **errp)
{
    uint64_t flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;

    flags |= block->huge_pages ? KVM_GUEST_MEMFD_ALLOW_HUGEPAGE : 0;
    return kvm_create_guest_memfd(block->size, flags, errp);
}

static bool in_place_block_alloc(GuestMemfdProvider *provider,
                                 GuestMemfdBlock *block, Error **errp)
{
    int fd;

    block->huge_pages = provider->huge_pages &&
                        guest_memfd_wants_huge_pages(block->ram_block);
    fd = create_file(block, errp);
    if (fd < 0 || !guest_memfd_block_map(block, fd, errp)) {
        return false;
    }
    if (!kvm_guest_memfd_guard(fd, block->host, block->size,
                               is_dumped(block), errp)) {
        guest_memfd_block_unmap(block);
        return false;
    }
    return true;
}

static void in_place_block_free(GuestMemfdProvider *provider,
                                GuestMemfdBlock *block)
{
    kvm_guest_memfd_unguard(block->host);
}

static bool in_place_block_rebind(GuestMemfdProvider *provider,
                                  GuestMemfdBlock *block, Error **errp)
{
    int fd = create_file(block, errp), old;

    if (fd < 0) {
        return false;
    }
    /* First: the old file is closed when the new one is mapped. */
    old = kvm_guest_memfd_guard_file(block->host, fd);
    if (!guest_memfd_block_remap(block, fd, errp)) {
        kvm_guest_memfd_guard_file(block->host, old);
        return false;
    }
    return true;
}

static uint64_t mode_flag(GuestMemfdContentMode mode)
{
    switch (mode) {
    case GUEST_MEMFD_CONTENT_MODE_ZERO:
        return KVM_GUEST_MEMFD_FLAG_ZERO;
    case GUEST_MEMFD_CONTENT_MODE_PRESERVE:
        return KVM_GUEST_MEMFD_FLAG_PRESERVE;
    default:
        return 0;
    }
}

/*
 * Linux 7.4 converts a range or nothing of it, and @error_offset is the page
 * in use.  A later kernel may stop on the way and return how far it got: then
 * the same request continues there.
 */
static int convert_range(int fd, struct kvm_guest_memfd_attributes *attributes)
{
    const uint64_t page = qemu_real_host_page_size();
    const uint64_t end = attributes->offset + attributes->size;
    uint64_t mark = attributes->offset;
    int ret;

    for (;;) {
        attributes->error_offset = 0;
        ret = kvm_guest_memfd_set_attributes(fd, attributes);
        if (ret != -EAGAIN || attributes->error_offset <= mark ||
            attributes->error_offset >= end ||
            !QEMU_IS_ALIGNED(attributes->error_offset, page)) {
            return ret;
        }
        mark = attributes->error_offset;
    }
}

/*
 * An offer of the phase before, which KVM has refused, ends.  EINTR: the
 * request is decided anew.
 */
static int withdraw_mode(KvmGuestMemfdInPlace *s,
                         GuestMemfdDirection direction,
                         GuestMemfdContentMode mode)
{
    GuestMemfdOffer *offer = &GUEST_MEMFD_PROVIDER(s)->offer;

    qatomic_set(&offer->how[direction][mode],
                GUEST_MEMFD_REALISATION_REFUSED);
    return -EINTR;
}

static int in_place_convert(GuestMemfdProvider *provider,
                            GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size, GuestMemfdDirection direction,
                            GuestMemfdContentMode mode,
                            uint64_t *error_offset)
{
    KvmGuestMemfdInPlace *s = GUEST_MEMFD_PROVIDER_KVM_IN_PLACE(provider);
    struct kvm_guest_memfd_attributes attributes = {
        .offset = offset,
        .size = size,
        .attributes = direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE ?
                      KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
        .flags = mode_flag(mode) & qatomic_read(&s->modes[direction]),
    };
    int ret;

    ret = convert_range(block->fd, &attributes);
    if (ret == -EOPNOTSUPP && attributes.flags && qatomic_read(&s->unsure)) {
        return withdraw_mode(s, direction, mode);
    }
    if (ret == -EAGAIN || ret == -EOPNOTSUPP || ret == -ENOMEM) {
        *error_offset = attributes.error_offset;
    }
    if (!ret && direction == GUEST_MEMFD_DIRECTION_TO_SHARED) {
        ret = kvm_guest_memfd_remap(block->host + offset, size);
    }
    return ret;
}

/*
 * The pages are freed, and come back as zeros when they are first used.  This
 * works on private memory, and on bad pages.
 */
static int in_place_discard(GuestMemfdProvider *provider,
                            GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size)
{
    return guest_memfd_block_punch_hole(block, offset, size);
}

/*
 * Pages that are not there would be allocated, and cleared.  To look at all of
 * them would cost a tenth of what mapping them saves.
 */
static bool looks_present(const GuestMemfdBlock *block, uint64_t offset,
                          uint64_t size)
{
    const size_t sample = MIN(size, PREFAULT_SAMPLE);
    const size_t pages = sample / qemu_real_host_page_size();
    unsigned char present[PREFAULT_SAMPLE / (4 * KiB)];
    size_t i, n = 0;

    if (mincore(block->host + offset, sample, present)) {
        return false;
    }
    for (i = 0; i < pages; i++) {
        n += present[i] & 1;
    }
    return n > pages / 2;
}

/* The end of the memory from @offset on that one ioctl is to map. */
static uint64_t present_end(const GuestMemfdBlock *block, uint64_t offset,
                            uint64_t end)
{
    const uint64_t start = offset;

    end = MIN(end, start + GUEST_MEMFD_SLICE_BYTES);
    while (offset < end) {
        uint64_t part = MIN(PREFAULT_GROUP - offset % PREFAULT_GROUP,
                            end - offset);

        if (!looks_present(block, offset, part)) {
            break;
        }
        offset += part;
    }
    return offset;
}

/* The ioctl ends for this, too: a monitor may wait for the vCPU. */
static bool is_wanted(GuestMemfdEngine *engine)
{
    return qatomic_read(&current_cpu->exit_request) ||
           guest_memfd_engine_is_interrupted(engine,
                                             GUEST_MEMFD_ORIGIN_HYPERCALL);
}

/* As a conversion, this ends when the vCPU has to stop: false. */
static bool prefault_present(GuestMemfdEngine *engine,
                             const GuestMemfdSection *s)
{
    const uint64_t end = s->offset + s->size;
    uint64_t offset = s->offset, to;
    bool more = true;

    while (more && offset < end && !is_wanted(engine)) {
        to = present_end(s->block, offset, end);
        more = kvm_guest_memfd_prefault(current_cpu,
                                        s->gpa + offset - s->offset,
                                        to - offset);
        /* The next pages are not there, or are for another ioctl. */
        offset = to > offset ? to :
                 QEMU_ALIGN_DOWN(offset, PREFAULT_GROUP) + PREFAULT_GROUP;
    }
    return more && offset >= end;
}

static void prefault_sections(hwaddr gpa, uint64_t size)
{
    GuestMemfdEngine *engine = guest_memfd_engine();
    const hwaddr end = gpa + size;
    GuestMemfdSection s;
    bool more = true;

    while (more && gpa < end &&
           engine->find_section(engine, gpa, end - gpa, &s)) {
        more = !s.block || prefault_present(engine, &s);
        gpa = s.gpa + s.size;
        if (s.mr) {
            memory_region_unref(s.mr);
        }
    }
}

/*
 * The guest is about to use a small range that it asks for.  Of a large one it
 * may never use the most, e.g. of a pool of bounce buffers: only what has been
 * used before is mapped.  See docs/devel/performance.md for the figures.  Where
 * QEMU runs as another user by now, mincore() says that everything is there.
 */
static void in_place_prefault(GuestMemfdProvider *provider, hwaddr gpa,
                              uint64_t size)
{
    if (size <= PREFAULT_GROUP) {
        kvm_guest_memfd_prefault(current_cpu, gpa, size);
    } else if (geteuid() ==
               GUEST_MEMFD_PROVIDER_KVM_IN_PLACE(provider)->owner) {
        prefault_sections(gpa, size);
    }
}

/* A call costs about as much as mapping as many pages again. */
#define SPAN_GAP_PAGES  8

/*
 * KVM leaves pages alone that are right already.  But revisions of the series
 * before 7.4 unmap all of the range from the guest, and a platform that hides
 * private bytes then loses those of the pages in between.  A kernel may apply
 * modes other than PRESERVE to all pages of the range.
 */
static bool takes_spans(const KvmGuestMemfdProbe *probe, uint64_t flags)
{
    return !kvm_guest_memfd.hides_private_bytes &&
           (flags == KVM_GUEST_MEMFD_FLAG_PRESERVE ||
            (!flags && !has_modes(probe) && probe->keeps_bytes));
}

static void set_offer(KvmGuestMemfdInPlace *s, const KvmGuestMemfdProbe *probe)
{
    const GuestMemfdRealisation kernel = GUEST_MEMFD_REALISATION_KERNEL;
    const GuestMemfdRealisation refused = GUEST_MEMFD_REALISATION_REFUSED;
    GuestMemfdProvider *provider = GUEST_MEMFD_PROVIDER(s);
    int direction, mode;

    for (direction = 0; direction < GUEST_MEMFD_DIRECTION__MAX; direction++) {
        uint64_t flags = probe->modes[direction];

        qatomic_set(&s->modes[direction], flags);
        for (mode = 0; mode < GUEST_MEMFD_CONTENT_MODE__MAX; mode++) {
            provider->offer.how[direction][mode] =
                (mode_flag(mode) & ~flags) ? refused : kernel;
            provider->spans[direction][mode] =
                takes_spans(probe, mode_flag(mode) & flags) ?
                SPAN_GAP_PAGES : 0;
        }
    }
}

/*
 * The offer may change with the phase: probe again.  Where that is not possible
 * now the last offer stays until KVM refuses a mode of it, or the next phase.
 */
static void in_place_phase_changed(GuestMemfdProvider *provider,
                                   GuestMemfdPhase phase)
{
    KvmGuestMemfdInPlace *s = GUEST_MEMFD_PROVIDER_KVM_IN_PLACE(provider);
    KvmGuestMemfdProbe probe = kvm_guest_memfd_probe_kernel(
        kvm_guest_memfd_kernel());

    qatomic_set(&s->unsure, probe.unknown);
    if (probe.unknown) {
        warn_report("guest-memfd-manager: what is offered from now on is not "
                    "known, and stays as it was: %s", probe.why);
        return;
    }
    set_offer(s, &probe);
    if (!probe.in_place) {
        warn_report_once("guest-memfd-manager: %s any more", probe.why);
    }
}

static void in_place_class_init(ObjectClass *oc, const void *data)
{
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_CLASS(oc);

    pc->block_alloc = in_place_block_alloc;
    pc->block_free = in_place_block_free;
    pc->convert = in_place_convert;
    pc->discard = in_place_discard;
    pc->block_rebind = in_place_block_rebind;
    pc->phase_changed = in_place_phase_changed;
    pc->prefault = in_place_prefault;
}

static GuestMemfdProvider *in_place_new(void)
{
    const KvmGuestMemfdProbe *probe = &kvm_guest_memfd.probe;
    Object *obj = object_new(TYPE_GUEST_MEMFD_PROVIDER_KVM_IN_PLACE);
    GuestMemfdProvider *provider = GUEST_MEMFD_PROVIDER(obj);
    bool modes = has_modes(probe);

    GUEST_MEMFD_PROVIDER_KVM_IN_PLACE(obj)->owner = geteuid();
    provider->reason = g_strdup(probe->why);
    provider->can_be_off = kvm_guest_memfd.two_backings;
    provider->huge_pages = probe->huge_pages;
    provider->type = modes ? GUEST_MEMFD_PROVIDER_TYPE_KVM_CONTENT_MODES :
                             GUEST_MEMFD_PROVIDER_TYPE_KVM_IN_PLACE;
    provider->offer.preserve_until_final = !modes && probe->keeps_bytes;
    provider->offer.hides_private_bytes = kvm_guest_memfd.hides_private_bytes;
    set_offer(GUEST_MEMFD_PROVIDER_KVM_IN_PLACE(obj), probe);
    return provider;
}

/* --- the choice -------------------------------------------------------- */

GuestMemfdProvider *kvm_guest_memfd_provider_new(OnOffAuto in_place,
                                                 Error **errp)
{
    ERRP_GUARD();
    const KvmGuestMemfdProbe *probe = &kvm_guest_memfd.probe;
    bool possible = probe->in_place;

    /* The choice is for good, and would be a guess. */
    if (probe->unknown && in_place != ON_OFF_AUTO_OFF) {
        error_setg(errp, "guest-memfd-manager: whether memory can be converted "
                   "in place is not known: %s", probe->why);
        error_append_hint(errp, "Start QEMU again, with a higher limit of open "
                          "files (ulimit -n) if that is used up%s.\n",
                          kvm_guest_memfd.two_backings ?
                          ", or use in-place=off" : "");
        return NULL;
    }
    if (in_place == ON_OFF_AUTO_ON && !possible) {
        error_setg(errp, "guest-memfd-manager: in-place=on, but %s",
                   probe->why);
        error_append_hint(errp, "Use in-place=auto, or a kernel that "
                          "converts in place (parameter "
                          "kvm.gmem_in_place_conversion).\n");
        return NULL;
    }
    if (possible && in_place != ON_OFF_AUTO_OFF) {
        return in_place_new();
    }
    if (!kvm_guest_memfd.two_backings) {
        error_setg(errp, "guest-memfd-manager: this KVM cannot keep private "
                   "and shared memory apart: %s", possible ?
                   "it converts in place only" : probe->why);
        error_append_hint(errp, possible ? "Use in-place=auto.\n" :
                          "Use a kernel with memory attributes.\n");
        return NULL;
    }
    return kvm_guest_memfd_two_backings_new(possible ? "in-place=off" :
                                            probe->why);
}

static const TypeInfo kvm_guest_memfd_types[] = {
    {
        .name = TYPE_GUEST_MEMFD_PROVIDER_KVM_IN_PLACE,
        .parent = TYPE_GUEST_MEMFD_PROVIDER,
        .instance_size = sizeof(KvmGuestMemfdInPlace),
        .class_init = in_place_class_init,
    }
};

DEFINE_TYPES(kvm_guest_memfd_types)

bool kvm_guest_memfd_init(MachineState *ms, bool two_backings)
{
    static GuestMemfdProviderSource source = {
        .allowed = &kvm_allowed,
        .provider_new = kvm_guest_memfd_provider_new,
    };

    kvm_guest_memfd.two_backings = two_backings;
    if (machine_require_guest_memfd(ms)) {
        probe(ms);
    }
    source.in_place = kvm_guest_memfd.probe.in_place;
    source.two_backings = two_backings;
    guest_memfd_register_source(&source);
    return source.in_place;
}

/* --- called by KVM's code ---------------------------------------------- */

int kvm_guest_memfd_convert(hwaddr gpa, uint64_t size, bool to_private)
{
    const GuestMemfdPhase phase = qatomic_read(&guest_memfd_engine()->phase);
    const GuestMemfdRequest req = {
        .gpa = gpa,
        .size = size,
        .direction = to_private ? GUEST_MEMFD_DIRECTION_TO_PRIVATE :
                                  GUEST_MEMFD_DIRECTION_TO_SHARED,
        .origin = phase < GUEST_MEMFD_PHASE_FINAL ?
                  GUEST_MEMFD_ORIGIN_LAUNCH :
                  GUEST_MEMFD_ORIGIN_MEMORY_FAULT,
    };

    return guest_memfd_convert(&req, NULL);
}
