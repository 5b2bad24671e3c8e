/*
 * A request to convert guest memory, while it is in progress
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_CONVERSION_H
#define SYSTEM_GUEST_MEMFD_CONVERSION_H

#include "guest-memfd-internal.h"

/*
 * A block that a request reached, until the request ends and is counted.
 * @mr: referenced, so that @block stays; may be NULL in tests.
 */
typedef struct GuestMemfdTally GuestMemfdTally;
struct GuestMemfdTally {
    GuestMemfdBlock *block;
    MemoryRegion *mr;
    GuestMemfdDecision decision;
    GuestMemfdTally *next;
};

typedef struct GuestMemfdConversion {
    GuestMemfdEngine *engine;
    const GuestMemfdRequest *req;
    GuestMemfdResult *result;
    GuestMemfdTally own_tallies[4], *tallies;   /* more are allocated */
    unsigned n_tallies;

    hwaddr pos;                     /* all before it is done */
    int64_t deadline_ns;            /* of this slice */

    /* Of one try. */
    int error;
    uint64_t left;                  /* that the slice may change, in bytes */
    uint64_t look_left;             /* that it may look at */
    hwaddr slice_end;
    uint64_t slice_end_offset;      /* in the block that was held last */
    GuestMemfdBlock *held;
    GuestMemfdBlock *only;          /* NULL: the request spans blocks */
    GuestMemfdBlock *failing;
    uint64_t failing_offset;

    bool by_run;                    /* the provider failed with a span */
} GuestMemfdConversion;

/*
 * GuestMemfdTry: how a try, or a part of one, ended.
 *
 * @GUEST_MEMFD_TRY_DONE: with nothing left to do
 * @GUEST_MEMFD_TRY_SLICE: a slice is converted, and more is to follow
 * @GUEST_MEMFD_TRY_RETRY: nothing has changed; try again after a pause
 * @GUEST_MEMFD_TRY_WITH_BQL: nothing has changed; try again with the BQL
 * @GUEST_MEMFD_TRY_FAILED: GuestMemfdConversion::error says why
 */
typedef enum GuestMemfdTry {
    GUEST_MEMFD_TRY_DONE,
    GUEST_MEMFD_TRY_SLICE,
    GUEST_MEMFD_TRY_RETRY,
    GUEST_MEMFD_TRY_WITH_BQL,
    GUEST_MEMFD_TRY_FAILED,
} GuestMemfdTry;

static inline hwaddr guest_memfd_request_end(const GuestMemfdConversion *c)
{
    return c->req->gpa + c->req->size;
}

/* --- guest-memfd-sections.c -------------------------------------------- */

/*
 * guest_memfd_next_section: the first section of guest memory from @gpa on,
 * which is moved to its end
 *
 * Returns 1, with @s to be put; 0 if there is none; or -EINVAL if memory in
 * the way cannot become private.
 */
int guest_memfd_next_section(const GuestMemfdConversion *c, hwaddr *gpa,
                             GuestMemfdSection *s);
void guest_memfd_section_put(GuestMemfdSection *s);

/* --- guest-memfd-tally.c ----------------------------------------------- */

/* The request reached @block: count it there when it ends. */
void guest_memfd_tally(GuestMemfdConversion *c, GuestMemfdBlock *block,
                       MemoryRegion *mr, const GuestMemfdDecision *decision);
/* By policy; @s is not converted.  Returns the decision's error. */
int guest_memfd_refuse_request(GuestMemfdConversion *c,
                               const GuestMemfdSection *s,
                               const GuestMemfdDecision *decision);
/* The first one is reported.  A reference keeps @block until then. */
void guest_memfd_note_failure(GuestMemfdConversion *c, GuestMemfdBlock *block,
                              MemoryRegion *mr, uint64_t offset);
/*
 * The request has ended, with a result: count it, once in each block that
 * it reached, or for the whole VM if it reached none.
 */
void guest_memfd_count_conversion(GuestMemfdConversion *c);

/* --- guest-memfd-slice.c ----------------------------------------------- */

/*
 * guest_memfd_slice_convert: convert a slice, and move c->pos to its end
 *
 * @only: the block of the request, NULL if there are several.
 */
GuestMemfdTry guest_memfd_slice_convert(GuestMemfdConversion *c,
                                        GuestMemfdBlock *only);

#endif /* SYSTEM_GUEST_MEMFD_CONVERSION_H */
