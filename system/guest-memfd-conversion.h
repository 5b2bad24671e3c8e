/*
 * A request to convert guest memory, while it is carried out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_CONVERSION_H
#define SYSTEM_GUEST_MEMFD_CONVERSION_H

#include "guest-memfd-internal.h"

typedef struct GuestMemfdConversion {
    GuestMemfdEngine *engine;
    const GuestMemfdRequest *req;
    const GuestMemfdSection *given; /* instead of what is mapped at a GPA */
    GuestMemfdResult *result;
    GuestMemfdTally own_tallies[4], *tallies;   /* more are allocated */
    unsigned n_tallies;

    hwaddr pos;                     /* all before it is done */
    int64_t deadline_ns;            /* of this slice */

    /* Of one try. */
    uint64_t left;                  /* that the slice may change, in bytes */
    uint64_t look_left;             /* that it may look at */
    hwaddr slice_end;
    uint64_t slice_end_offset;      /* in the block that was held last */
    GuestMemfdBlock *held;
    GuestMemfdBlock *only;          /* NULL: the request spans blocks */
    GuestMemfdBlock *failing;
    uint64_t failing_offset;
    bool needs_bql;
} GuestMemfdConversion;

typedef int GuestMemfdSectionFn(GuestMemfdConversion *c,
                                const GuestMemfdSection *s, unsigned *blocks);

/* --- guest-memfd-convert.c --------------------------------------------- */

static inline hwaddr guest_memfd_request_end(const GuestMemfdConversion *c)
{
    return c->req->gpa + c->req->size;
}

/* Until @fn, or what is no guest memory in its way, returns other than 0. */
int guest_memfd_for_each_section(GuestMemfdConversion *c,
                                 GuestMemfdSectionFn *fn, unsigned *blocks);
/* Nothing but guest memory can become private.  Returns 0 or -EINVAL. */
int guest_memfd_check_foreign(const GuestMemfdConversion *c, uint64_t size);
/* By policy; @s is not converted.  Returns the decision's error. */
int guest_memfd_refuse_request(GuestMemfdConversion *c,
                               const GuestMemfdSection *s,
                               const GuestMemfdDecision *decision);
/* The request reached @block: count it there when it ends. */
void guest_memfd_tally(GuestMemfdConversion *c, GuestMemfdBlock *block,
                       MemoryRegion *mr, const GuestMemfdDecision *decision);
/* The first one is told.  A reference keeps @block until then. */
void guest_memfd_note_failure(GuestMemfdConversion *c, GuestMemfdBlock *block,
                              MemoryRegion *mr, uint64_t offset);
/* Must it end for a stop, a reset, or the end of QEMU? */
bool guest_memfd_is_interrupted(const GuestMemfdConversion *c);

/* --- guest-memfd-slice.c ----------------------------------------------- */

/*
 * guest_memfd_slice_convert: convert what a slice holds, from c->pos on
 *
 * @spans: the request is about more than one block.
 * @again: there is more to do, or another try is worth it.
 *
 * Returns 0 with c->pos moved on, or a negative errno value.
 */
int guest_memfd_slice_convert(GuestMemfdConversion *c, bool spans,
                              bool *again);

#endif /* SYSTEM_GUEST_MEMFD_CONVERSION_H */
