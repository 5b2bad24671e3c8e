/*
 * The launch of this machine's confidential guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The same for every platform: those know no blocks, and the engine knows no
 * platform.
 */

#include "qemu/osdep.h"
#include "hw/boards.h"
#include "qapi/error.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-launch.h"
#include "system/guest-memfd-ram.h"
#include "guest-memfd-internal.h"

static int launch_memory(void *opaque, const GuestMemfdPart *part,
                         Error **errp)
{
    ConfidentialGuestSupport *cgs = opaque;

    return CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(cgs)->launch_memory(
        cgs, part->gpa, part->size, part->type, errp);
}

/* Sets @part to the beginning of [gpa, gpa + size), with its memory region. */
static MemoryRegion *find_part(GuestMemfdEngine *engine, hwaddr gpa,
                               uint64_t size, GuestMemfdPart *part,
                               Error **errp)
{
    GuestMemfdSection s;

    if (size && engine->find_section(engine, gpa, size, &s)) {
        if (s.gpa == gpa && s.block) {
            part->block = s.block;
            part->gpa = gpa;
            part->offset = s.offset;
            part->size = s.size;
            return s.mr;
        }
        memory_region_unref(s.mr);
    }
    error_setg(errp, "[0x%" HWADDR_PRIx ", +0x%" PRIx64 ") cannot be "
               "populated: no guest memory is there", gpa, size);
    return NULL;
}

int guest_memfd_populate(hwaddr gpa, uint64_t size, const void *source,
                         GuestMemfdContents contents, uint32_t type,
                         Error **errp)
{
    GuestMemfdEngine *engine = guest_memfd_engine();
    GuestMemfdPart part = {
        .source = source,
        .contents = contents,
        .type = type,
    };
    int ret;

    do {
        MemoryRegion *mr = find_part(engine, gpa, size, &part, errp);

        if (!mr) {
            return -EINVAL;
        }
        ret = guest_memfd_engine_populate(engine, &part, launch_memory,
                                          current_machine->cgs, errp);
        memory_region_unref(mr);
        gpa += part.size;
        size -= part.size;
        part.source = source ? (const uint8_t *)part.source + part.size : NULL;
    } while (size && !ret);
    return ret;
}

void guest_memfd_note_written(const void *host, uint64_t size)
{
    ram_addr_t offset;
    const MemoryRegion *mr = memory_region_from_host((void *)host, &offset);

    if (mr && mr->ram_block->gmem) {
        guest_memfd_block_note_written(mr->ram_block->gmem, offset, size);
    }
}

int guest_memfd_seal(Error **errp)
{
    return guest_memfd_has_provider() ?
           guest_memfd_engine_seal(guest_memfd_engine(), errp) : 0;
}

void guest_memfd_finish(void)
{
    if (guest_memfd_has_provider()) {
        guest_memfd_engine_set_phase(guest_memfd_engine(),
                                     GUEST_MEMFD_PHASE_FINAL);
    }
}
