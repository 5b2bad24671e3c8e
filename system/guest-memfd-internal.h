/*
 * Conversion of guest memory: internal interfaces
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_INTERNAL_H
#define SYSTEM_GUEST_MEMFD_INTERNAL_H

#include "hw/resettable.h"
#include "system/guest-memfd.h"

/* --- guest-memfd-engine.c ---------------------------------------------- */

/* Only a request that reached no block is counted for the whole VM. */
void guest_memfd_count_rejected(GuestMemfdEngine *engine, int ret);

/* --- guest-memfd-block.c ----------------------------------------------- */

/* KVM converts in units of host pages, with any backing. */
static inline size_t guest_memfd_page_size(void)
{
    return qemu_real_host_page_size();
}

/*
 * guest_memfd_block_next_run: the next run of pages that are shared (or,
 * with @shared false, private) in [*offset, end) and that the request in
 * progress did not convert yet.  Returns false if there is none; else
 * @offset and @size say where it is.  Not much more than @most bytes of it
 * are looked at: what is longer ends there.  Lock held.
 */
bool guest_memfd_block_next_run(const GuestMemfdBlock *block, bool shared,
                                uint64_t *offset, uint64_t end,
                                uint64_t most, uint64_t *size);

/* Record the state of a run of pages that all had the other one. */
void guest_memfd_block_record(GuestMemfdBlock *block, uint64_t offset,
                              uint64_t size, bool shared);

/* Bytes in each state now; needs no lock. */
void guest_memfd_block_count_bytes(const GuestMemfdBlock *block,
                                   uint64_t *private, uint64_t *shared,
                                   uint64_t *setup);
bool guest_memfd_block_is_all_shared(const GuestMemfdBlock *block);

/* Record a new block's pages as GuestMemfdBlock::start says. */
void guest_memfd_block_start(GuestMemfdBlock *block);

/*
 * Do listeners see nothing of the block yet?  It stays so with the block's
 * lock or the BQL.
 */
bool guest_memfd_block_in_setup(const GuestMemfdBlock *block);
/* All pages are private.  BQL and the block's lock held. */
void guest_memfd_block_end_setup(GuestMemfdBlock *block);

/* QEMU wrote to [offset, offset + size).  Nothing after setup.  Any thread. */
void guest_memfd_block_note_written(GuestMemfdBlock *block, uint64_t offset,
                                    uint64_t size);

/*
 * A run that the request in progress changes, to be able to go back; see
 * guest_memfd_block_next_changed().
 */
void guest_memfd_block_mark_changed(GuestMemfdBlock *block, uint64_t offset,
                                    uint64_t size);
/* It did not: of all in [offset, end), @bytes in sum. */
void guest_memfd_block_unmark_changed(GuestMemfdBlock *block, uint64_t offset,
                                      uint64_t end, uint64_t bytes);
void guest_memfd_block_forget_changed(GuestMemfdBlock *block);

/* --- guest-memfd-mappings.c -------------------------------------------- */

/* Called by guest_memfd_block_new() and guest_memfd_block_free(). */
bool guest_memfd_mappings_init(GuestMemfdBlock *block, Error **errp);
void guest_memfd_mappings_destroy(GuestMemfdBlock *block);

/*
 * guest_memfd_mapping_add: keep all pages of a range shared until
 * guest_memfd_mapping_remove() with the same @offset and @size
 *
 * Returns false, with nothing done, if a page is private.  Any thread; the
 * block's lock is taken if a page is recorded as private.
 */
bool guest_memfd_mapping_add(GuestMemfdBlock *block, uint64_t offset,
                             uint64_t size);
/* The same, for somebody whom guest_memfd_mapping_user() can name. */
bool guest_memfd_mapping_add_for(GuestMemfdBlock *block, uint64_t offset,
                                 uint64_t size, GuestMemfdUser user);
/* Returns false, with nothing done, if there is no such mapping. */
bool guest_memfd_mapping_remove(GuestMemfdBlock *block, uint64_t offset,
                                uint64_t size);
/*
 * For a conversion that has recorded the pages as private, with the block's
 * lock.  @busy is set to the first page that is mapped, in bytes.
 */
bool guest_memfd_block_is_mapped(const GuestMemfdBlock *block,
                                 uint64_t offset, uint64_t size,
                                 uint64_t *busy);
/* Whose mapping covers a page: one of several, and not looked for long. */
GuestMemfdUser guest_memfd_mapping_user(const GuestMemfdBlock *block,
                                        uint64_t offset);
/* How many there are, and the sum of their sizes; needs no lock. */
void guest_memfd_mappings_count(const GuestMemfdBlock *block,
                                uint64_t *mappings, uint64_t *bytes);

/* --- guest-memfd-access.c ---------------------------------------------- */

/*
 * Are all pages of [offset, offset + size) recorded as shared?  @size is not
 * 0.  The answer holds with the block's lock, or as said below.
 */
bool guest_memfd_block_is_shared(const GuestMemfdBlock *block,
                                 uint64_t offset, uint64_t size);

/*
 * guest_memfd_block_copy: read or write shared memory, all of it or nothing
 *
 * Returns false, with nothing copied, if a page is private.  Any thread; the
 * block's lock is taken if a page is recorded as private.
 */
bool guest_memfd_block_copy(GuestMemfdBlock *block, uint64_t offset,
                            void *buf, uint64_t size, bool is_write);

/*
 * The same for accesses that guest_memfd_block_copy() cannot make: between
 * the two calls, what guest_memfd_block_is_shared() says stays true, for all
 * blocks.  The thread must not block or take a lock in between.
 */
void guest_memfd_access_begin(void);
void guest_memfd_access_end(void);

/*
 * For a conversion that has recorded the pages as private, with the block's
 * lock: returns when no thread copies there.
 */
void guest_memfd_block_wait(const GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size);

/* --- guest-memfd-listeners.c ------------------------------------------- */

bool guest_memfd_has_listeners(const GuestMemfdBlock *block);
/*
 * Notify of pages that become private.  On failure the listeners have mapped
 * them again, and nothing may be converted.
 */
int guest_memfd_notify_discard(GuestMemfdBlock *block, uint64_t offset,
                               uint64_t size);
/* The pages stay shared after all: listeners map them again, or warn. */
void guest_memfd_notify_again(GuestMemfdBlock *block, uint64_t offset,
                              uint64_t size);
/* The pages that were notified of as shared are private after all. */
void guest_memfd_notify_withdrawn(GuestMemfdBlock *block, uint64_t offset,
                                  uint64_t size);
/* On failure the listeners that succeeded get a discard again. */
int guest_memfd_notify_populate(GuestMemfdBlock *block, uint64_t offset,
                                uint64_t size);

/* --- guest-memfd-run.c ------------------------------------------------- */

/* Time to wait before the @n-th retry, in microseconds. */
unsigned guest_memfd_backoff_us(unsigned n);

/*
 * GuestMemfdSpan: runs of pages that are converted at once
 *
 * @offset, @end: in bytes.  What is marked in between changes, see
 *     guest_memfd_block_mark_changed(); the other pages are in the wanted
 *     state already, which can be the first and the last ones, too.
 * @runs, @bytes: how many there are, and what changes.
 * @failed_offset: of the run that failed, or of the first one.
 * @refused: the provider failed, and all is as before.
 */
typedef struct GuestMemfdSpan {
    uint64_t offset;
    uint64_t end;
    uint64_t bytes;
    unsigned runs;
    uint64_t failed_offset;
    bool refused;
} GuestMemfdSpan;

/*
 * Convert the runs of a span, or leave them as they were and unmark them.
 * Memory that becomes shared cannot be accessed until it is recorded.  Its
 * bytes are discarded first if the block's decision says so.
 */
int guest_memfd_span_convert(GuestMemfdBlock *block, GuestMemfdSpan *span,
                             GuestMemfdDirection direction,
                             GuestMemfdContentMode mode);
/* Notify the listeners of the pages that became shared; one may fail. */
int guest_memfd_run_populate(GuestMemfdBlock *block);
/* Publish the pages that became shared: they may be accessed now. */
void guest_memfd_run_record(GuestMemfdBlock *block);
/*
 * Roll back the pages that the request changed.  Returns 0, or -EIO if
 * the state of a page, or bytes that were to be preserved, are lost.
 */
int guest_memfd_run_rollback(GuestMemfdBlock *block,
                             GuestMemfdDirection direction);

/* --- guest-memfd-phase.c ----------------------------------------------- */

/* Whatever the phase is now; see guest_memfd_engine_set_phase().  BQL. */
void guest_memfd_phase_begin(GuestMemfdEngine *engine, GuestMemfdPhase phase);
/* Memory that is plugged in has missed the launch: seal it.  BQL. */
bool guest_memfd_block_seal_late(GuestMemfdBlock *block, Error **errp);

/* --- guest-memfd-ram.c ------------------------------------------------- */

/* Allocate memory that is converted in place for @rb, which is not in use. */
bool guest_memfd_ram_block_adopt(RAMBlock *rb, Error **errp);

/* --- guest-memfd-choice.c ---------------------------------------------- */

/*
 * Is guest memory converted in place, or will it be when there is some?
 * Changes nothing.  @can_be_off: in-place=off is possible on this host, too.
 */
bool guest_memfd_will_be_in_place(bool *can_be_off);

/* --- callbacks of the engine ------------------------------------------- */

/* guest-memfd-map.c: the machine's memory. */
void guest_memfd_bind_map(GuestMemfdEngine *engine);
/* guest-memfd-runstate.c: stops, resets and the main loop. */
void guest_memfd_bind_runstate(GuestMemfdEngine *engine);
/* guest-memfd-event.c: GuestMemfdEngine::failed for monitors. */
void guest_memfd_send_failure(GuestMemfdEngine *engine,
                              const GuestMemfdRequest *req,
                              const GuestMemfdResult *result);

/* --- guest-memfd-reset.c ----------------------------------------------- */

void guest_memfd_reset(GuestMemfdEngine *engine, ResetType type);

/* --- guest-memfd-guest.c ----------------------------------------------- */

void guest_memfd_add_fw_cfg_file(GuestMemfdEngine *engine);

/* --- guest-memfd-offer.c ----------------------------------------------- */

/*
 * The realisation for a request now; guest_memfd_decide() knows the
 * exceptions.
 */
GuestMemfdRealisation guest_memfd_offered(const GuestMemfdEngine *engine,
                                          GuestMemfdDirection direction,
                                          GuestMemfdContentMode mode);
/* For example "to-shared=default,zero to-private=default"; caller frees. */
char *guest_memfd_offer_to_string(const GuestMemfdEngine *engine);
/* Why this provider was chosen; @engine may be NULL. */
const char *guest_memfd_provider_reason(const GuestMemfdEngine *engine);

/* --- guest-memfd-stats.c ----------------------------------------------- */

unsigned guest_memfd_errno_bucket(int error);
const char *guest_memfd_errno_name(unsigned bucket);
/* Of a slice that succeeded, when it does. */
void guest_memfd_count_bytes(GuestMemfdBlockStats *stats,
                             GuestMemfdDirection direction,
                             uint64_t requested, uint64_t changed);
void guest_memfd_count_request(GuestMemfdBlockStats *stats,
                               const GuestMemfdRequest *req,
                               const GuestMemfdDecision *decision,
                               const GuestMemfdResult *result);
void guest_memfd_note_busy(GuestMemfdBlockStats *stats, uint64_t offset,
                           GuestMemfdUser user);
/* NULL if there was none. */
GuestMemfdBusyPage *guest_memfd_busy_page_new(const GuestMemfdBusy *busy);
uint64_t guest_memfd_all_failures(
    const uint64_t counts[GUEST_MEMFD_ERRNO_BUCKETS]);
/* Add the counters of one to those of the other. */
void guest_memfd_counters_add(GuestMemfdCounters *sum,
                              const GuestMemfdCounters *more);
GuestMemfdFailureCountList *
guest_memfd_failure_list(const uint64_t counts[GUEST_MEMFD_ERRNO_BUCKETS]);
GuestMemfdStats *guest_memfd_stats_new(const GuestMemfdCounters *counters);

#endif /* SYSTEM_GUEST_MEMFD_INTERNAL_H */
