/*
 * A conversion of guest memory in which chosen calls fail: the provider
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The emulated provider, with real memory.  Which of its calls fail is
 * known for the whole of a cell, the way back included.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/module.h"
#include "guest-memfd-cell.h"

#define MODE_ZERO       GUEST_MEMFD_CONTENT_MODE_ZERO
#define KERNEL          GUEST_MEMFD_REALISATION_KERNEL

static int alloc_error;

static int (*emulated_convert)(GuestMemfdProvider *, GuestMemfdBlock *,
                               uint64_t, uint64_t, GuestMemfdDirection,
                               GuestMemfdContentMode, uint64_t *);
static int (*emulated_discard)(GuestMemfdProvider *, GuestMemfdBlock *,
                               uint64_t, uint64_t);
static bool (*emulated_alloc)(GuestMemfdProvider *, GuestMemfdBlock *,
                              Error **);

static const CellFault *take_fault(void)
{
    const unsigned call = the.calls++;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(the.cell.faults); i++) {
        const CellFault *f = &the.cell.faults[i];

        if (call >= f->call && call - f->call < f->count) {
            return f;
        }
    }
    return NULL;
}

/* The contract: no progress where another try would find the bytes lost. */
static uint64_t progress_of(const CellFault *f, uint64_t size, bool back)
{
    if (!f) {
        return size;
    }
    if (!back && cell_is_lossy() &&
        (f->error == -EAGAIN || f->error == -EINTR)) {
        return 0;
    }
    return MIN(size, f->progress * qemu_real_host_page_size());
}

/* Only pages that are asked for; a kernel that zeroes does so at once. */
static void touch(const GuestMemfdBlock *block, uint64_t offset,
                  uint64_t size, GuestMemfdDirection direction,
                  GuestMemfdContentMode mode)
{
    const bool zeroes = mode == MODE_ZERO &&
                        the.cell.offer.how[direction][MODE_ZERO] == KERNEL;
    const unsigned end = cell_page_of(block, offset + size);
    unsigned page;

    for (page = cell_page_of(block, offset); page < end; page++) {
        EXPECT(cell_changes(page));
        if (cell_is_shared(page) == (direction == TO_SHARED)) {
            continue;
        }
        the.touched |= 1 << page;
        if (zeroes) {
            memset(cell_words(page), 0, qemu_real_host_page_size());
        }
    }
}

static int note_failure(uint64_t offset, uint64_t size, bool back, int error)
{
    cell_counts.faults++;
    if (back) {
        the.way_back.failed = true;
        the.way_back.tries++;
        the.way_back.offset = offset;
        the.way_back.size = size;
    } else if (!the.fatal && !cell_worth_another_try(error)) {
        the.fatal = error;
    }
    return error;
}

static int cell_convert(GuestMemfdProvider *provider, GuestMemfdBlock *block,
                        uint64_t offset, uint64_t size,
                        GuestMemfdDirection direction,
                        GuestMemfdContentMode mode, uint64_t *error_offset)
{
    const bool back = direction != the.cell.ask.direction;
    const CellFault *f = take_fault();
    const uint64_t done = progress_of(f, size, back);

    cell_check_visible();
    if (done) {
        touch(block, offset, done, direction, mode);
        g_assert_cmpint(emulated_convert(provider, block, offset, done,
                                         direction, mode, error_offset),
                        ==, 0);
    }
    if (f) {
        *error_offset = offset + done;
        return note_failure(offset, size, back, f->error);
    }
    if (back) {
        the.way_back.failed = false;
        the.way_back.tries = 0;
    }
    return 0;
}

/* Throwing bytes away is a call that may fail as well, with the page as is. */
static int cell_discard(GuestMemfdProvider *provider, GuestMemfdBlock *block,
                        uint64_t offset, uint64_t size)
{
    const CellFault *f = take_fault();
    const unsigned end = cell_page_of(block, offset + size);
    unsigned page;

    cell_check_visible();
    for (page = cell_page_of(block, offset); page < end; page++) {
        EXPECT(cell_changes(page) && !cell_is_shared(page));
        the.touched |= 1 << page;
    }
    g_assert_cmpint(emulated_discard(provider, block, offset, size), ==, 0);
    return f ? note_failure(offset, size, false, f->error) : 0;
}

static bool cell_alloc(GuestMemfdProvider *provider, GuestMemfdBlock *block,
                       Error **errp)
{
    if (alloc_error) {
        error_setg_errno(errp, alloc_error, "no memory for '%s'",
                         block->name);
        return false;
    }
    return emulated_alloc(provider, block, errp);
}

void cell_set_alloc_error(int error)
{
    alloc_error = error;
}

static void cell_provider_class_init(ObjectClass *oc, const void *data)
{
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_CLASS(oc);

    emulated_convert = pc->convert;
    emulated_alloc = pc->block_alloc;
    emulated_discard = pc->discard;
    pc->convert = cell_convert;
    pc->discard = cell_discard;
    pc->block_alloc = cell_alloc;
}

static const TypeInfo cell_provider_info = {
    .name = TYPE_CELL_PROVIDER,
    .parent = TYPE_GUEST_MEMFD_PROVIDER_EMULATED,
    .class_init = cell_provider_class_init,
};

static void cell_provider_register_types(void)
{
    type_register_static(&cell_provider_info);
}

type_init(cell_provider_register_types)

