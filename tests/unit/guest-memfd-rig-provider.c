/*
 * A test rig for the conversion of guest memory: provider and log
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The provider keeps the state of pages as a kernel would, has no memory,
 * and fails on request.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "guest-memfd-rig.h"

const int rig_errors[] = {
    EAGAIN, EINTR, ENOMEM, EINVAL, EFAULT, EOPNOTSUPP, EIO,
};

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

static bool all_bits(const unsigned long *bitmap, unsigned long first,
                     unsigned long end, bool set)
{
    return (set ? find_next_zero_bit(bitmap, end, first)
                : find_next_bit(bitmap, end, first)) >= end;
}

/* --- the log ----------------------------------------------------------- */

static char recorded(const GuestMemfdBlock *block, unsigned long first,
                     unsigned long end)
{
    const unsigned long *bitmap = block->record;

    return all_bits(bitmap, first, end, true) ? 'S' :
           all_bits(bitmap, first, end, false) ? 'P' : 'M';
}

void rig_note(Rig *rig, const GuestMemfdBlock *block, const char *what,
              const char *who, uint64_t offset_bytes, uint64_t size_bytes,
              const char *more)
{
    const unsigned long first = offset_bytes / page_size();
    const unsigned long pages = size_bytes / page_size();

    if (rig->log) {
        g_string_append_printf(rig->log, "%s %s %lu+%lu%s [%c]\n", what, who,
                               first, pages, more,
                               recorded(block, first, first + pages));
    }
}

void rig_expect_log(Rig *rig, const char *lines)
{
    g_assert_cmpstr(rig->log->str, ==, lines);
    g_string_truncate(rig->log, 0);
}

char *rig_state(const GuestMemfdBlock *block)
{
    const unsigned long *bitmap = block->record;
    const unsigned long pages = block->size / page_size();
    GString *runs = g_string_new(NULL);
    unsigned long page = 0, next;

    while (page < pages) {
        bool shared = test_bit(page, bitmap);

        for (next = page; next < pages; next++) {
            if (test_bit(next, bitmap) != shared) {
                break;
            }
        }
        g_string_append_printf(runs, "%s%c%lu", page ? " " : "",
                               shared ? 'S' : 'P', next - page);
        page = next;
    }
    return g_string_free(runs, false);
}

/* --- the provider ------------------------------------------------------ */

static bool take_fault(RigFault *fault)
{
    if (!fault->count) {
        return false;
    }
    if (fault->after) {
        fault->after--;
        return false;
    }
    fault->count--;
    return true;
}

static void set_state(GuestMemfdBlock *block, uint64_t offset, uint64_t size,
                      GuestMemfdDirection direction)
{
    const unsigned long first = offset / page_size();
    const unsigned long pages = size / page_size();

    if (direction == TO_PRIVATE) {
        bitmap_set(block->provider_data, first, pages);
    } else {
        bitmap_clear(block->provider_data, first, pages);
    }
}

static void called(Rig *rig, const GuestMemfdBlock *block, uint64_t offset,
                   uint64_t size)
{
    g_assert_cmpint(qemu_mutex_trylock(&((GuestMemfdBlock *)block)->lock),
                    !=, 0);
    g_assert_true(rig_begun());
    g_assert(size && QEMU_IS_ALIGNED(offset | size, page_size()));
    g_assert_cmphex(offset + size, <=, block->size);
    if (!rig->threads) {
        rig->calls++;
    }
}

static int fail(Rig *rig, const GuestMemfdBlock *block, uint64_t offset,
                uint64_t size, int error)
{
    rig->failed = block;
    rig->failed_offset = offset;
    rig->failed_size = size;
    return error;
}

/* Spans begin and end with a page that changes, or where a huge page does. */
static void assert_no_wider(const GuestMemfdBlock *block, uint64_t offset,
                            uint64_t end, bool private)
{
    const unsigned long last = end / page_size() - 1;

    g_assert(!(offset % (2 * MiB)) ||
             test_bit(offset / page_size(), block->provider_data) != private);
    g_assert(!(end % (2 * MiB)) ||
             test_bit(last, block->provider_data) != private);
}

/* Pages that change, a span, or a run of the range that failed just before. */
static void assert_may_convert(const Rig *rig, const GuestMemfdBlock *block,
                               uint64_t offset, uint64_t size, bool private)
{
    const bool spans = block->engine->provider->spans[private ? TO_PRIVATE :
        TO_SHARED][GUEST_MEMFD_CONTENT_MODE_PRESERVE];
    const unsigned long end = (offset + size) / page_size();
    unsigned long page = offset / page_size();

    if (rig->failed == block && offset >= rig->failed_offset &&
        offset + size <= rig->failed_offset + rig->failed_size &&
        (spans || size == rig->failed_size)) {
        return;
    }
    assert_no_wider(block, offset, offset + size, private);
    for (; page < end; page++) {
        g_assert((test_bit(page, block->provider_data) != private) ==
                 test_bit(page, block->scratch.changed));
        g_assert(spans || test_bit(page, block->scratch.changed));
    }
}

static int rig_convert_pages(GuestMemfdProvider *provider,
                             GuestMemfdBlock *block, uint64_t offset,
                             uint64_t size, GuestMemfdDirection direction,
                             GuestMemfdContentMode mode,
                             uint64_t *error_offset)
{
    Rig *rig = container_of(block->engine, Rig, engine);
    RigFault *fault = &rig->convert_fault;

    called(rig, block, offset, size);
    if (rig->log) {
        g_autofree char *more = g_strdup_printf(" %s %s",
            GuestMemfdDirection_str(direction),
            GuestMemfdContentMode_str(mode));

        rig_note(rig, block, "convert", block->name, offset, size, more);
    }
    assert_may_convert(rig, block, offset, size, direction == TO_PRIVATE);
    if (take_fault(fault)) {
        const uint64_t done = MIN(size, fault->progress * page_size());

        set_state(block, offset, done, direction);
        *error_offset = offset + done;
        return fail(rig, block, offset, size, fault->error);
    }
    set_state(block, offset, size, direction);
    return 0;
}

/* Private still, for everybody. */
static int rig_discard_bytes(GuestMemfdProvider *provider,
                             GuestMemfdBlock *block, uint64_t offset,
                             uint64_t size)
{
    const unsigned long first = offset / page_size();
    const unsigned long end = (offset + size) / page_size();
    Rig *rig = container_of(block->engine, Rig, engine);

    called(rig, block, offset, size);
    rig_note(rig, block, "discard", block->name, offset, size, "");
    g_assert(all_bits(block->provider_data, first, end, true));
    g_assert(all_bits(block->record, first, end, false));
    if (rig->on_discard) {
        rig->on_discard(rig);
    }
    if (take_fault(&rig->discard_fault)) {
        return fail(rig, block, offset, size, rig->discard_fault.error);
    }
    return 0;
}

static bool rig_block_rebind(GuestMemfdProvider *provider,
                             GuestMemfdBlock *block, Error **errp)
{
    Rig *rig = container_of(block->engine, Rig, engine);

    g_assert_true(bql_locked());
    g_assert_cmpint(qemu_mutex_trylock(&block->lock), !=, 0);
    rig_note(rig, block, "rebind", block->name, 0, block->size, "");
    if (rig->rebind_fails) {
        error_setg(errp, "no memory");
        return false;
    }
    bitmap_zero(block->provider_data, block->size / page_size());
    return true;
}

static void rig_phase_changed(GuestMemfdProvider *provider,
                              GuestMemfdPhase phase)
{
    Rig *rig = rig_current();

    if (rig->log) {
        g_string_append_printf(rig->log, "phase %s\n",
                               GuestMemfdPhase_str(phase));
    }
}

static bool rig_block_alloc(GuestMemfdProvider *provider,
                            GuestMemfdBlock *block, Error **errp)
{
    block->provider_data = bitmap_new(block->size / page_size());
    return true;
}

static void rig_block_free(GuestMemfdProvider *provider,
                           GuestMemfdBlock *block)
{
    g_free(block->provider_data);
}

static void rig_provider_init(Object *obj)
{
    static const GuestMemfdOffer offer = {
        .how = {
            [TO_SHARED] = {
                [GUEST_MEMFD_CONTENT_MODE_DEFAULT] =
                    GUEST_MEMFD_REALISATION_KERNEL,
                [GUEST_MEMFD_CONTENT_MODE_ZERO] =
                    GUEST_MEMFD_REALISATION_EMULATED,
                [GUEST_MEMFD_CONTENT_MODE_PRESERVE] =
                    GUEST_MEMFD_REALISATION_KERNEL,
            },
            [TO_PRIVATE] = {
                [GUEST_MEMFD_CONTENT_MODE_DEFAULT] =
                    GUEST_MEMFD_REALISATION_KERNEL,
                [GUEST_MEMFD_CONTENT_MODE_ZERO] =
                    GUEST_MEMFD_REALISATION_REFUSED,
                [GUEST_MEMFD_CONTENT_MODE_PRESERVE] =
                    GUEST_MEMFD_REALISATION_KERNEL,
            },
        },
    };

    GUEST_MEMFD_PROVIDER(obj)->offer = offer;
}

static void rig_provider_class_init(ObjectClass *oc, const void *data)
{
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_CLASS(oc);

    pc->block_alloc = rig_block_alloc;
    pc->block_free = rig_block_free;
    pc->block_rebind = rig_block_rebind;
    pc->phase_changed = rig_phase_changed;
    pc->begin = rig_begin;
    pc->end = rig_end;
    pc->convert = rig_convert_pages;
    pc->discard = rig_discard_bytes;
}

static const TypeInfo rig_provider_info = {
    .name = TYPE_RIG_PROVIDER,
    .parent = TYPE_GUEST_MEMFD_PROVIDER,
    .instance_size = sizeof(GuestMemfdProvider),
    .instance_init = rig_provider_init,
    .class_init = rig_provider_class_init,
};

static void rig_provider_register_types(void)
{
    type_register_static(&rig_provider_info);
}

type_init(rig_provider_register_types)

/* a at 0-15, b at 16-31, each with a listener. */
Rig *rig_two_blocks(void)
{
    Rig *rig = rig_new_simple(16);

    rig_map(rig, 16, rig_block(rig, "b", 16), 0, 16);
    rig_listen(rig, rig->blocks[0], 0, 16);
    rig_listen(rig, rig->blocks[1], 0, 16);
    return rig;
}

Rig *rig_one_block(void)
{
    Rig *rig = rig_new_simple(16);

    rig_listen(rig, rig->blocks[0], 0, 16);
    return rig;
}

void rig_prepare_private(Rig *rig, uint64_t gpa, uint64_t pages)
{
    g_assert_cmpint(rig_convert(rig, TO_PRIVATE, gpa, pages), ==, 0);
    g_string_truncate(rig->log, 0);
}

void rig_expect_failure(Rig *rig, GuestMemfdDirection direction,
                        uint64_t gpa, uint64_t pages, int error,
                        const char *log)
{
    GuestMemfdResult outcome;

    g_assert_cmpint(rig_ask(rig, direction, UNSPECIFIED, gpa, pages,
                            &outcome), ==, error);
    g_assert_cmphex(outcome.changed_bytes, ==, 0);
    rig_expect_log(rig, log);
    rig_check(rig);
}
