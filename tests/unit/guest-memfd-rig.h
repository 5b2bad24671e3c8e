/*
 * A test rig for the conversion of guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The real engine on a fake machine: a map of guest-physical
 * memory, blocks with hand-made RamBlockAttributes, listeners that keep
 * their view, a BQL, and a provider that logs its calls and fails on
 * request.  All that the engine promises at each call (which locks it holds,
 * which pages it asks for, that it sleeps with nothing held) is asserted
 * here, for all tests.
 *
 * Numbers are pages, unless a name says bytes.
 */

#ifndef TESTS_UNIT_GUEST_MEMFD_RIG_H
#define TESTS_UNIT_GUEST_MEMFD_RIG_H

#include "system/guest-memfd.h"
#include "system/ramblock.h"

#define TYPE_RIG_PROVIDER "guest-memfd-provider-rig"

#define TO_SHARED   GUEST_MEMFD_DIRECTION_TO_SHARED
#define TO_PRIVATE  GUEST_MEMFD_DIRECTION_TO_PRIVATE
#define UNSPECIFIED GUEST_MEMFD_INTENT_UNSPECIFIED
#define ZERO        GUEST_MEMFD_INTENT_ZERO
#define PRESERVE    GUEST_MEMFD_INTENT_PRESERVE

/* For tables of faults: what fails more often than the engine tries. */
#define RIG_FOR_GOOD    150

#define RIG_PIECES      8
#define RIG_BLOCKS      4
#define RIG_LISTENERS   4

typedef struct Rig Rig;

/* All that a provider may say. */
extern const int rig_errors[7];

/* A piece of guest-physical memory. */
typedef struct RigPiece {
    hwaddr gpa;                     /* bytes */
    uint64_t size;                  /* bytes */
    GuestMemfdBlock *block;
    uint64_t offset;                /* bytes */
    MemoryRegion mr;
    int refs;
} RigPiece;

typedef struct RigListener {
    RamDiscardListener rdl;
    MemoryRegionSection section;
    Rig *rig;
    GuestMemfdBlock *block;
    char name[16];
    unsigned long *mapped;
    int agrees;                     /* to so many populates, then refuses */
    int gives_up;                   /* so many discards, then one fails */
    bool stuck;                     /* and all is mapped as before */
    int error;
} RigListener;

/* @after operations succeed, then @count fail, after @progress pages. */
typedef struct RigFault {
    unsigned after;
    unsigned count;
    int error;
    unsigned progress;
} RigFault;

struct Rig {
    GuestMemfdEngine engine;
    RigPiece map[RIG_PIECES];
    unsigned pieces;
    GuestMemfdBlock *blocks[RIG_BLOCKS];
    unsigned n_blocks;
    bool all_private;               /* are new blocks */
    GuestMemfdStart start;          /* of others */
    RigListener listeners[RIG_LISTENERS];
    unsigned n_listeners;

    /* Of the rig's own provider. */
    RigFault convert_fault, discard_fault;
    bool rebind_fails;
    const GuestMemfdBlock *failed;  /* the range that may be sent back */
    uint64_t failed_offset;
    uint64_t failed_size;

    bool threads;                   /* there are several: sleep, count not */

    GString *log;
    unsigned calls;                 /* of the provider */
    unsigned lookups;
    unsigned sleeps;
    unsigned pauses;                /* on the way back, with locks */
    unsigned slices;                /* after which others were let in */
    unsigned broken;
    GuestMemfdInterrupt interrupted;
    void (*on_lookup)(Rig *rig);
    void (*on_sleep)(Rig *rig);
    void (*on_slice)(Rig *rig);
    void (*on_discard)(Rig *rig);
};

Rig *rig_new(const char *provider_type);
/* For the parts of the rig. */
Rig *rig_current(void);
/* Checks everything once more. */
void rig_free(Rig *rig);

GuestMemfdBlock *rig_block(Rig *rig, const char *name, unsigned long pages);
void rig_map(Rig *rig, uint64_t gpa, GuestMemfdBlock *block, uint64_t first,
             uint64_t pages);
/* The block and the piece that came last, with no listener, go. */
void rig_unplug_last(Rig *rig);
/* MMIO, or memory that is never converted. */
void rig_map_other(Rig *rig, uint64_t gpa, uint64_t pages);
RigListener *rig_listen(Rig *rig, GuestMemfdBlock *block, uint64_t first,
                        uint64_t pages);

/* A fake machine with one block "a" of that many pages at GPA 0. */
Rig *rig_new_simple(unsigned long pages);

GuestMemfdRequest rig_request(GuestMemfdDirection direction,
                              GuestMemfdIntent intent, uint64_t gpa,
                              uint64_t pages);
int rig_convert(Rig *rig, GuestMemfdDirection direction, uint64_t gpa,
                uint64_t pages);
int rig_ask(Rig *rig, GuestMemfdDirection direction, GuestMemfdIntent intent,
            uint64_t gpa, uint64_t pages, GuestMemfdResult *outcome);

/*
 * The lines since the last time, for example "convert a 3+2 to-private
 * default [S]": the provider was asked for the pages 3 and 4 when they
 * were recorded as shared ([P]: private, [M]: some of each).
 */
void rig_expect_log(Rig *rig, const char *lines);

/* For the rig's provider. */
void rig_begin(GuestMemfdProvider *provider);
void rig_end(GuestMemfdProvider *provider);
bool rig_begun(void);

/* For the parts of the rig: write a line down. */
void rig_note(Rig *rig, const GuestMemfdBlock *block, const char *what,
              const char *who, uint64_t offset_bytes, uint64_t size_bytes,
              const char *more);

/* For example "S3 P2 S59": runs from the first page to the last. */
char *rig_state(const GuestMemfdBlock *block);
#define rig_expect_state(block, runs) \
    do { \
        g_autofree char *state_ = rig_state(block); \
        g_assert_cmpstr(state_, ==, (runs)); \
    } while (0)

/* Nothing is held, and everybody's view of the state is the same. */
void rig_check(const Rig *rig);

/* a at 0-15, b at 16-31, each with a listener. */
Rig *rig_two_blocks(void);
Rig *rig_one_block(void);
void rig_prepare_private(Rig *rig, uint64_t gpa, uint64_t pages);
/* An unspecified request fails with @error, and leaves this log. */
void rig_expect_failure(Rig *rig, GuestMemfdDirection direction,
                        uint64_t gpa, uint64_t pages, int error,
                        const char *log);

#endif /* TESTS_UNIT_GUEST_MEMFD_RIG_H */
