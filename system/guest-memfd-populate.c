/*
 * Populating private guest memory for a launch
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "system/guest-memfd-launch.h"
#include "guest-memfd-internal.h"
#include "trace.h"

static unsigned long page_of(uint64_t offset)
{
    return offset / guest_memfd_page_size();
}

static bool is_in_block(const GuestMemfdPart *part)
{
    const GuestMemfdBlock *block = part->block;

    return part->size && part->offset <= block->size &&
           part->size <= block->size - part->offset &&
           QEMU_IS_ALIGNED(part->offset | part->size, block->page_size);
}

/* @what goes after the range. */
static int refuse(const GuestMemfdPart *part, uint64_t offset, int error,
                  const char *what, Error **errp)
{
    error_setg(errp, "guest memory '%s': [0x%" HWADDR_PRIx ", +0x%" PRIx64
               ") cannot be populated: %s at 0x%" HWADDR_PRIx,
               part->block->name, part->gpa, part->size, what,
               part->gpa + (offset - part->offset));
    return error;
}

/* --- the bytes ----------------------------------------------------------- */

static bool has_source(const GuestMemfdPart *part)
{
    return part->source && part->source != part->block->host + part->offset;
}

/* The source can be in the same block, and private by now. */
static bool is_accessible(const GuestMemfdPart *part)
{
    GuestMemfdBlock *block = part->block;
    const uint64_t at = (uintptr_t)part->source - (uintptr_t)block->host;

    return at >= block->size ||
           (part->size <= block->size - at &&
            guest_memfd_block_is_shared(block, at, part->size));
}

/* False with *offset at the first page that nobody wrote to. */
static bool is_written(const GuestMemfdPart *part, uint64_t *offset)
{
    const unsigned long end = page_of(part->offset + part->size);
    unsigned long page = find_next_zero_bit(part->block->written, end,
                                            page_of(part->offset));

    *offset = page * guest_memfd_page_size();
    return page >= end;
}

static void clear_written(const GuestMemfdPart *part)
{
    GuestMemfdBlock *block = part->block;
    const size_t size = guest_memfd_page_size();
    const unsigned long end = page_of(part->offset + part->size);
    unsigned long page = page_of(part->offset);

    while ((page = find_next_bit(block->written, end, page)) < end) {
        memset(block->host + page * size, 0, size);
        page++;
    }
}

/* Called with the block's lock; the pages are in setup. */
static int fill(const GuestMemfdPart *part, Error **errp)
{
    GuestMemfdBlock *block = part->block;
    uint64_t offset;

    if (part->contents == GUEST_MEMFD_CONTENTS_ZERO) {
        clear_written(part);
    } else if (has_source(part)) {
        if (!is_accessible(part)) {
            return refuse(part, part->offset, -EFAULT, "its source was "
                          "populated already, for the page", errp);
        }
        memmove(block->host + part->offset, part->source, part->size);
        guest_memfd_block_note_written(block, part->offset, part->size);
    } else if (!is_written(part, &offset)) {
        return refuse(part, offset, -ENODATA, "nothing was written", errp);
    }
    return 0;
}

static int prepare(const GuestMemfdPart *part, Error **errp)
{
    GuestMemfdBlock *block = part->block;
    uint64_t offset = part->offset, size;

    if (!is_in_block(part)) {
        return refuse(part, offset, -EINVAL, "it is not aligned, or not all "
                      "of it is in one block", errp);
    }
    QEMU_LOCK_GUARD(&block->lock);
    if (!guest_memfd_block_in_setup(block)) {
        return refuse(part, offset, -EPERM, "the launch has ended", errp);
    }
    if (guest_memfd_block_next_run(block, false, &offset,
                                   part->offset + part->size,
                                   part->size, &size)) {
        return refuse(part, offset, -EEXIST, "memory was populated already",
                      errp);
    }
    return fill(part, errp);
}

/* --- the unit ------------------------------------------------------------ */

static int convert(GuestMemfdEngine *engine, const GuestMemfdPart *part,
                   GuestMemfdDirection direction, GuestMemfdIntent intent)
{
    const GuestMemfdRequest req = {
        .block = part->block,
        .gpa = part->offset,
        .size = part->size,
        .direction = direction,
        .origin = GUEST_MEMFD_ORIGIN_LAUNCH,
        .intent = intent,
    };

    return guest_memfd_engine_convert(engine, &req, NULL);
}

/* The platform may have taken some of the pages, and changed their bytes. */
static void forget_written(const GuestMemfdPart *part)
{
    bitmap_test_and_clear_atomic(part->block->written, page_of(part->offset),
                                 page_of(part->size));
}

/* QEMU wrote the bytes, so they are no secret: keep them if possible. */
static int undo(GuestMemfdEngine *engine, const GuestMemfdPart *part)
{
    const GuestMemfdDirection direction = GUEST_MEMFD_DIRECTION_TO_SHARED;
    const bool can_preserve =
        guest_memfd_offered(engine, direction,
                            GUEST_MEMFD_CONTENT_MODE_PRESERVE) !=
        GUEST_MEMFD_REALISATION_REFUSED;

    forget_written(part);
    return convert(engine, part, direction,
                   can_preserve ? GUEST_MEMFD_INTENT_PRESERVE :
                                  GUEST_MEMFD_INTENT_NONE);
}

static int launch_private(GuestMemfdEngine *engine,
                          const GuestMemfdPart *part,
                          GuestMemfdLaunchFn *launch, void *opaque,
                          Error **errp)
{
    ERRP_GUARD();
    int ret = launch(opaque, part, errp), undone;

    if (!ret) {
        return 0;
    }
    undone = undo(engine, part);
    if (undone) {
        error_append_hint(errp, "Guest memory '%s' cannot be shared again, "
                          "either: %s\n", part->block->name,
                          strerror(-undone));
        return -EIO;
    }
    return ret;
}

int guest_memfd_engine_populate(GuestMemfdEngine *engine,
                                const GuestMemfdPart *part,
                                GuestMemfdLaunchFn *launch, void *opaque,
                                Error **errp)
{
    int ret = prepare(part, errp);

    if (!ret) {
        guest_memfd_engine_set_phase(engine, GUEST_MEMFD_PHASE_POPULATE);
        ret = convert(engine, part, GUEST_MEMFD_DIRECTION_TO_PRIVATE,
                      GUEST_MEMFD_INTENT_UNSPECIFIED);
        if (ret) {
            error_setg_errno(errp, -ret, "guest memory '%s': [0x%" HWADDR_PRIx
                             ", +0x%" PRIx64 ") cannot be made private for "
                             "the launch", part->block->name, part->gpa,
                             part->size);
        } else {
            ret = launch_private(engine, part, launch, opaque, errp);
        }
    }
    trace_guest_memfd_populate(part->block->name, part->offset, part->size,
                               part->gpa, part->type, ret);
    return ret;
}
