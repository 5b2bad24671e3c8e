/*
 * Where a request counts, and where it failed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-conversion.h"

/* The decision that was made last is the one that counts. */
void guest_memfd_tally(GuestMemfdConversion *c, GuestMemfdBlock *block,
                       MemoryRegion *mr, const GuestMemfdDecision *decision)
{
    GuestMemfdTally *t;

    for (t = c->tallies; t; t = t->next) {
        if (t->block == block) {
            t->decision = *decision;
            return;
        }
    }
    t = c->n_tallies < ARRAY_SIZE(c->own_tallies) ?
        &c->own_tallies[c->n_tallies] : g_new0(GuestMemfdTally, 1);
    c->n_tallies++;
    if (mr) {
        memory_region_ref(mr);
    }
    t->block = block;
    t->mr = mr;
    t->decision = *decision;
    t->next = c->tallies;
    c->tallies = t;
}

void guest_memfd_note_failure(GuestMemfdConversion *c, GuestMemfdBlock *block,
                              MemoryRegion *mr, uint64_t offset)
{
    GuestMemfdResult *result = c->result;

    if (result->block) {
        return;
    }
    if (mr) {
        memory_region_ref(mr);
    }
    result->block = block;
    result->mr = mr;
    result->offset = offset;
}

int guest_memfd_refuse_request(GuestMemfdConversion *c,
                               const GuestMemfdSection *s,
                               const GuestMemfdDecision *decision)
{
    guest_memfd_note_failure(c, s->block, s->mr, s->offset);
    guest_memfd_tally(c, s->block, s->mr, decision);
    return decision->error;
}

void guest_memfd_count_conversion(GuestMemfdConversion *c)
{
    if (c->result->error && !c->tallies) {
        guest_memfd_count_rejected(c->engine, c->result->error);
    }
    while (c->tallies) {
        GuestMemfdTally *t = c->tallies;

        c->tallies = t->next;
        guest_memfd_count_request(&t->block->stats, c->req, &t->decision,
                                  c->result);
        if (t->mr) {
            memory_region_unref(t->mr);
        }
        if (--c->n_tallies >= ARRAY_SIZE(c->own_tallies)) {
            g_free(t);
        }
    }
}
