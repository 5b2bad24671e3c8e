/*
 * The sections of guest memory that a request covers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-conversion.h"

void guest_memfd_section_put(GuestMemfdSection *s)
{
    if (s->mr) {
        memory_region_unref(s->mr);
    }
}

/*
 * Holes, MMIO, ROM and the memory of devices are shared and cannot become
 * private.  Requests to share them succeed: firmware shares the whole 32-bit
 * PCI hole.
 */
static int check_other_memory(const GuestMemfdConversion *c, uint64_t size)
{
    if (!size || c->req->direction == GUEST_MEMFD_DIRECTION_TO_SHARED) {
        return 0;
    }
    return -EINVAL;
}

static int next_in_block(const GuestMemfdConversion *c, hwaddr *gpa,
                         GuestMemfdSection *s)
{
    const hwaddr end = guest_memfd_request_end(c);

    *s = (GuestMemfdSection) {
        .gpa = *gpa,
        .size = end - *gpa,
        .block = c->req->block,
        .offset = *gpa,
    };
    *gpa = end;
    return s->size > 0;
}

int guest_memfd_next_section(const GuestMemfdConversion *c, hwaddr *gpa,
                             GuestMemfdSection *s)
{
    const hwaddr end = guest_memfd_request_end(c);
    int ret = 0;

    if (c->req->block) {
        return next_in_block(c, gpa, s);
    }
    while (!ret && *gpa < end) {
        hwaddr start = *gpa;

        if (!c->engine->find_section(c->engine, start, end - start, s)) {
            return check_other_memory(c, end - start);
        }
        *gpa = s->gpa + s->size;
        ret = check_other_memory(c, (s->block ? s->gpa : *gpa) - start);
        if (!ret && s->block) {
            return 1;
        }
        guest_memfd_section_put(s);
    }
    return ret;
}
