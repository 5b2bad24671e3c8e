/*
 * Conversion of guest memory: what the files of this directory share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_INTERNAL_H
#define SYSTEM_GUEST_MEMFD_INTERNAL_H

#include "system/guest-memfd.h"

/* --- guest-memfd-engine.c ---------------------------------------------- */

/* Only a request that reached no block is counted for the whole VM. */
void guest_memfd_count_rejected(GuestMemfdEngine *engine, int ret);

/* --- guest-memfd-convert.c --------------------------------------------- */

/* How a request went. */
typedef struct GuestMemfdResult {
    GuestMemfdOutcome outcome;
    unsigned retries;
    int64_t start_ns;
    int64_t ns;                     /* as it was counted */
    bool counted;                   /* by a block */

    /* Where it failed, with a reference to be dropped. */
    GuestMemfdBlock *failed;
    MemoryRegion *failed_mr;
    uint64_t failed_offset;
} GuestMemfdResult;

/*
 * Carry out a well-formed request, on @given instead of what is mapped at
 * its GPA unless that is NULL.  @result is new, but for its start.
 */
int guest_memfd_carry_out(GuestMemfdEngine *engine,
                          const GuestMemfdRequest *req,
                          const GuestMemfdSection *given,
                          GuestMemfdResult *result);

/* --- guest-memfd-block.c ----------------------------------------------- */

size_t guest_memfd_page_size(void);

/*
 * guest_memfd_block_next_run: the next run of pages that are shared (or,
 * with @shared false, private) in [*offset, end) and that the request in
 * progress did not convert yet.  Returns false if there is none; else
 * @offset and @size say where it is.  Lock held.
 */
bool guest_memfd_block_next_run(const GuestMemfdBlock *block, bool shared,
                                uint64_t *offset, uint64_t end,
                                uint64_t *size);

/* Record the state of a run of pages that all had the other one. */
void guest_memfd_block_record(GuestMemfdBlock *block, uint64_t offset,
                              uint64_t size, bool shared);

/* Bytes that are shared now; needs no lock. */
uint64_t guest_memfd_block_shared_bytes(const GuestMemfdBlock *block);

/* The same run for the request in progress, to be able to go back. */
void guest_memfd_block_mark_changed(GuestMemfdBlock *block, uint64_t offset,
                                    uint64_t size);
bool guest_memfd_block_next_changed(const GuestMemfdBlock *block,
                                    uint64_t *offset, uint64_t *size);
void guest_memfd_block_forget_changed(GuestMemfdBlock *block);

/* False if the page is private; else @size is cut where one is. */
bool guest_memfd_block_clamp(const GuestMemfdBlock *block, uint64_t offset,
                             uint64_t *size);

/*
 * Users hold pointers to shared pages, and let go in their own time.
 * Pages are recorded as private before users are looked for, and users
 * look at the record before they begin, all with users_lock held: so one
 * sees the other.  @size is cut as guest_memfd_block_clamp() does.
 */
bool guest_memfd_block_use(GuestMemfdBlock *block, uint64_t offset,
                           uint64_t *size);
void guest_memfd_block_unuse(GuestMemfdBlock *block, uint64_t offset,
                             uint64_t size);
/* @busy is where the first user found is. */
bool guest_memfd_block_in_use(GuestMemfdBlock *block, uint64_t offset,
                              uint64_t size, uint64_t *busy);

/* --- guest-memfd-access.c ---------------------------------------------- */

/*
 * guest_memfd_block_access: as guest_memfd_block_clamp(), and none of the
 * pages becomes private until the caller leaves the RCU read-side critical
 * section it is in, or calls this again.
 */
bool guest_memfd_block_access(const GuestMemfdBlock *block, uint64_t offset,
                              uint64_t *size);
/* By another thread; the pages are recorded as private. */
bool guest_memfd_block_accessed(const GuestMemfdBlock *block, uint64_t offset,
                                uint64_t size, uint64_t *busy);

/* --- guest-memfd-listeners.c ------------------------------------------- */

bool guest_memfd_has_listeners(const GuestMemfdBlock *block);
void guest_memfd_notify_discard(GuestMemfdBlock *block, uint64_t offset,
                                uint64_t size);
/* On failure the listeners that had agreed are told of a discard again. */
int guest_memfd_notify_populate(GuestMemfdBlock *block, uint64_t offset,
                                uint64_t size);

/* --- guest-memfd-run.c ------------------------------------------------- */

/* How long to wait before the @n-th retry of anything, in microseconds. */
unsigned guest_memfd_backoff_us(unsigned n);

/*
 * Convert one run of pages, or leave it as it was.  Memory that becomes
 * shared is for nobody to see until it is recorded.  Its bytes are thrown
 * away first if the block's decision says so.
 */
int guest_memfd_run_convert(GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size, GuestMemfdDirection direction,
                            GuestMemfdContentMode mode);
/* Tell the listeners of the pages that became shared; one may refuse. */
int guest_memfd_run_populate(GuestMemfdBlock *block);
/* Let the pages that became shared be used. */
void guest_memfd_run_record(GuestMemfdBlock *block);
/*
 * Bring the pages that the request changed back.  Returns 0, or -EIO if
 * the state of a page, or bytes that were to be preserved, are lost.
 */
int guest_memfd_run_rollback(GuestMemfdBlock *block,
                             GuestMemfdDirection direction);

/* --- guest-memfd-ram.c ------------------------------------------------- */

/* Let @engine work on the machine's memory. */
void guest_memfd_ram_bind(GuestMemfdEngine *engine);

/* Give @rb, which is not in use, memory that is converted in place. */
bool guest_memfd_ram_block_adopt(RAMBlock *rb, Error **errp);

/* More of a remedy, where it is one. */
const char *guest_memfd_or_not_in_place(const GuestMemfdProvider *provider);

/* Sets @errp, for a @feature that does not work with @provider. */
void guest_memfd_refuse(const GuestMemfdProvider *provider,
                        const char *feature, Error **errp);

/* --- guest-memfd-stats.c ----------------------------------------------- */

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

unsigned guest_memfd_errno_place(int error);
const char *guest_memfd_errno_name(unsigned place);
/* Of a slice that succeeded, when it does.  Lock held. */
void guest_memfd_count_bytes(GuestMemfdBlock *block,
                             GuestMemfdDirection direction);
void guest_memfd_count_request(const GuestMemfdTally *tally,
                               const GuestMemfdRequest *req, int ret,
                               int64_t ns, unsigned retries);
/* Add up, as if both had been counted in one place. */
void guest_memfd_counters_add(GuestMemfdCounters *sum,
                              const GuestMemfdCounters *more);
GuestMemfdFailureCountList *
guest_memfd_failure_list(const uint64_t counts[GUEST_MEMFD_ERRNO_PLACES]);
GuestMemfdStats *guest_memfd_stats_new(const GuestMemfdCounters *counters);

#endif /* SYSTEM_GUEST_MEMFD_INTERNAL_H */
