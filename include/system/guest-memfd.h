/*
 * Conversion of guest memory between private and shared
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The words used here (conversion, origin, intent, mode, realisation,
 * provider) are explained in docs/system/guest-memfd-conversion.rst.
 *
 * The manager (one per VM) owns the policy, the provider
 * and the list of blocks.  A block is the conversion state of one RAMBlock
 * and lives exactly as long.  The provider changes the state of pages, and
 * only on calls of the engine.
 *
 * Lock order: BQL, then what GuestMemfdProviderClass::begin waits for, then
 * GuestMemfdEngine::span_lock, then GuestMemfdBlock::lock.
 * GuestMemfdBlockStats::lock is taken with any of them held, and no other
 * lock after it.  The listeners of a block are called with the BQL and the
 * block's lock held.  The engine never sleeps with any of them, but for short
 * pauses (0.1 s in all) when pages cannot be rolled back at once.  An access
 * takes the lock of a block only if it finds a private page, and so must not
 * be made with that lock held.
 */

#ifndef SYSTEM_GUEST_MEMFD_H
#define SYSTEM_GUEST_MEMFD_H

#include "qemu/queue.h"
#include "qemu/stats64.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "system/guest-memfd-provider.h"
#include "system/memory.h"

typedef struct GuestMemfdEngine GuestMemfdEngine;
typedef struct GuestMemfdMappings GuestMemfdMappings;

/*
 * @GUEST_MEMFD_INTERRUPT_RESET: the VM is to stop or to be reset.  A request
 * of a reset itself continues: the guest cannot start without it.
 * @GUEST_MEMFD_INTERRUPT_END: QEMU ends
 */
typedef enum GuestMemfdInterrupt {
    GUEST_MEMFD_INTERRUPT_NONE,
    GUEST_MEMFD_INTERRUPT_RESET,
    GUEST_MEMFD_INTERRUPT_END,
} GuestMemfdInterrupt;

/*
 * The result of a request.
 *
 * @error: 0 or a negative errno value.
 * @decided: false when the request failed before the policy decided.
 * @changed_bytes: not 0 for a request that failed after its first slice.
 * @block, @offset: the part that failed; NULL if it is in no block.  Set for
 *     GuestMemfdEngine::failed only, with a reference to @mr, which may be
 *     NULL in tests.
 */
typedef struct GuestMemfdResult {
    int error;
    bool decided;
    GuestMemfdDecision decision;
    uint64_t changed_bytes;
    unsigned retries;
    int64_t ns;
    const GuestMemfdBlock *block;
    uint64_t offset;
    MemoryRegion *mr;
} GuestMemfdResult;

/* --- blocks ------------------------------------------------------------ */

/* Errno values that are counted one by one; the last bucket is "other". */
#define GUEST_MEMFD_ERRNO_BUCKETS 10

/*
 * Bucket 0 counts requests that took no time, bucket n those that took from
 * 2^(n-1) to 2^n - 1 ns, and the last bucket (from 17 s on) all others.
 */
#define GUEST_MEMFD_TIME_BUCKETS 36

/* Only uint64_t: see guest_memfd_counters_add(). */
typedef struct GuestMemfdCounters {
    uint64_t requests;
    uint64_t origins[GUEST_MEMFD_ORIGIN__MAX];
    uint64_t directions[GUEST_MEMFD_DIRECTION__MAX];
    uint64_t modes[GUEST_MEMFD_CONTENT_MODE__MAX];
    uint64_t realisations[GUEST_MEMFD_REALISATION__MAX];
    uint64_t converted_bytes[GUEST_MEMFD_DIRECTION__MAX];
    uint64_t already_right_bytes;
    uint64_t downgrades;
    uint64_t retries;
    uint64_t rollbacks;
    uint64_t failures[GUEST_MEMFD_ERRNO_BUCKETS];
    uint64_t time_ns;
    uint64_t time_max_ns;
    uint64_t time_histogram[GUEST_MEMFD_TIME_BUCKETS];
} GuestMemfdCounters;

/* Of the whole VM, with the blocks that are gone.  Counters only grow. */
typedef struct GuestMemfdTotals {
    GuestMemfdCounters counters;
    uint64_t failures;              /* of all errno values */
    uint64_t rejected;              /* the same, of requests for no block */
    uint64_t unconverted_faults;
    uint64_t private_bytes;
    uint64_t shared_bytes;          /* without memory in setup */
} GuestMemfdTotals;

/* @device: a string that stays, or NULL if it is not known. */
typedef struct GuestMemfdUser {
    GuestMemfdPageUser kind;
    const char *device;
} GuestMemfdUser;

/* The last page that a conversion found in use; @ns is of get_clock(). */
typedef struct GuestMemfdBusy {
    bool any;
    uint64_t offset;
    GuestMemfdUser user;
    int64_t ns;
} GuestMemfdBusy;

/* A leaf lock, held for a few instructions: monitors wait for no request. */
typedef struct GuestMemfdBlockStats {
    QemuMutex lock;
    GuestMemfdCounters counters;
    GuestMemfdBusy busy;
} GuestMemfdBlockStats;

/*
 * The part of a request that a block holds, empty between requests.
 *
 * @mr: referenced, may be NULL in tests.
 * @changed: pages converted so far, and those that the provider is being asked
 *     for, all in [@changed_first, @changed_end).
 * @populated: the listeners were notified of them.
 * @next: the next block that the request holds.
 */
typedef struct GuestMemfdScratch {
    MemoryRegion *mr;
    GuestMemfdDecision decision;
    uint64_t requested_bytes;
    unsigned long *changed;
    unsigned long changed_first;
    unsigned long changed_end;
    uint64_t changed_bytes;
    bool populated;
    GuestMemfdBlock *next;
} GuestMemfdScratch;

/*
 * The state of a block's pages when it is new.
 *
 * @GUEST_MEMFD_START_PRIVATE: private (two backings)
 * @GUEST_MEMFD_START_SHARED: shared; listeners see all of it
 * @GUEST_MEMFD_START_SETUP: in setup: shared for the kernel, and accessible
 *     to QEMU, but listeners (VFIO) see nothing before the block is sealed
 */
typedef enum GuestMemfdStart {
    GUEST_MEMFD_START_PRIVATE,
    GUEST_MEMFD_START_SHARED,
    GUEST_MEMFD_START_SETUP,
} GuestMemfdStart;

/*
 * The conversion state of one RAMBlock.
 *
 * @record says which pages may be accessed: a set bit is a shared page, or
 * one in setup.  It is the bitmap of @attributes, which QEMU's other users of
 * the block read.  While the block is in setup it is @setup, and the bitmap
 * of @attributes is clear; both are clear when a block is sealed, and @record
 * changes from one to the other.
 */
struct GuestMemfdBlock {
    GuestMemfdEngine *engine;
    char *name;
    RAMBlock *ram_block;
    struct RamBlockAttributes *attributes;
    uint64_t size;
    uint8_t *host;
    int fd;
    bool in_place;                  /* the memory exists only once */
    bool huge_pages;                /* the provider asked for them */
    bool incomplete;                /* a backend lacks prealloc etc.; BQL */
    /*
     * Of a conversion, in bytes: requests are multiples of it.  At least the
     * host's, in which pages are recorded.
     */
    uint64_t page_size;
    void *provider_data;

    GuestMemfdStart start;
    unsigned long *record;          /* atomic; written with BQL and lock */
    unsigned long *setup;           /* NULL for other starts */
    unsigned long *written;         /* by QEMU in setup; atomic bits */

    int content_policy;             /* GuestMemfdContentPolicy, atomic */
    unsigned long shared_pages;     /* set in record; written with lock */
    GuestMemfdMappings *mappings;
    GuestMemfdBlockStats stats;

    QemuMutex lock;
    GuestMemfdScratch scratch;      /* protected by lock */
    /* Differs whenever a page was converted since; protected by lock. */
    uint64_t generation;

    QLIST_ENTRY(GuestMemfdBlock) next;  /* BQL */
};

/* One piece of a request: guest memory, or something else in its way. */
typedef struct GuestMemfdSection {
    hwaddr gpa;
    uint64_t size;
    MemoryRegion *mr;               /* referenced, may be NULL in tests */
    GuestMemfdBlock *block;         /* NULL: not guest_memfd memory */
    uint64_t offset;                /* in @block */
} GuestMemfdSection;

/* --- engine ------------------------------------------------------------ */

struct GuestMemfdEngine {
    GuestMemfdProvider *provider;
    QLIST_HEAD(, GuestMemfdBlock) blocks;   /* BQL */
    GuestMemfdCounters retired;     /* of blocks that are gone; BQL */

    /* Policy; atomic, may change at any time. */
    int content_policy;
    int on_unsupported;
    uint32_t retry_timeout_ms;

    int phase;              /* GuestMemfdPhase, atomic; written with the BQL */

    /*
     * Limit of a slice, after which a request drops its locks: bytes that
     * change, and no more than GUEST_MEMFD_SLICE_RUNS runs of pages.  Of
     * pages that are right already, and in a span (GuestMemfdProvider::spans),
     * an eighth counts.  A request of the launch is one slice: nothing else
     * runs yet.
     */
    uint64_t slice_bytes;

    /* Held by a request that holds more than one block. */
    QemuMutex span_lock;

    QemuMutex rejected_lock;
    uint64_t rejected[GUEST_MEMFD_ERRNO_BUCKETS];

    /* Memory faults after which the guest went on without a conversion. */
    Stat64 unconverted_faults;

    /*
     * @find_section: the first piece of [gpa, gpa + size) that is mapped;
     * false if there is none.  Takes a reference to section->mr.
     */
    bool (*find_section)(GuestMemfdEngine *engine, hwaddr gpa, uint64_t size,
                         GuestMemfdSection *section);

    /* @bytes_changed: QEMU wrote to guest memory.  May be NULL. */
    void (*bytes_changed)(GuestMemfdBlock *block, uint64_t offset,
                          uint64_t size);

    /*
     * @interrupted: why a request must end.  Asked before the engine waits
     * and between slices, with any of its locks held.  May be NULL.
     */
    GuestMemfdInterrupt (*interrupted)(GuestMemfdEngine *engine);

    /*
     * @between_slices: let other threads take the locks of a large request.
     * Called without any lock, the BQL included.  May be NULL.
     */
    void (*between_slices)(GuestMemfdEngine *engine);

    /*
     * @serve: do what others asked this thread to do, and wait for.  Called
     * without any lock, the BQL included, before the engine sleeps.  May be
     * NULL.
     */
    void (*serve)(GuestMemfdEngine *engine);

    /* @broken: a page cannot be brought back to a known state. */
    void (*broken)(GuestMemfdBlock *block, uint64_t offset, uint64_t size,
                   int error);

    /*
     * @failed: a request ended with an error.  The engine holds no lock;
     * its caller may hold the BQL.  May be NULL.
     */
    void (*failed)(GuestMemfdEngine *engine, const GuestMemfdRequest *req,
                   const GuestMemfdResult *result);
};

/* The default of GuestMemfdEngine::slice_bytes, and what bounds it. */
#define GUEST_MEMFD_SLICE_BYTES (32 * MiB)
#define GUEST_MEMFD_SLICE_RUNS  512

void guest_memfd_engine_init(GuestMemfdEngine *engine);
void guest_memfd_engine_destroy(GuestMemfdEngine *engine);

/*
 * The decision for a request; @block may be NULL, which has no policy of its
 * own.
 */
GuestMemfdDecision guest_memfd_engine_decide(const GuestMemfdEngine *engine,
                                             const GuestMemfdBlock *block,
                                             const GuestMemfdRequest *req);

/*
 * guest_memfd_engine_convert: convert memory for a guest
 *
 * A request that changes no more than a slice (see
 * GuestMemfdEngine::slice_bytes) is all or nothing: on failure the state of
 * every page is as before.  A larger one is converted slice by slice, from
 * its lowest address on; other threads run in between and find it half done.
 * On failure the slices before stay converted (@result->changed_bytes), and
 * to repeat the request is right.
 *
 * The bytes of pages that did not change state are as before, unless
 * - the mode is default, and the kernel changed them as that mode allows;
 * - the mode is zero: a failed to-shared request with zero may have replaced
 *   bytes by zeros in pages that stay private; never anything else.  This
 *   happens when the provider or a listener fails in a slice whose bytes had
 *   been discarded, also if it is retried and then fails;
 * - pages were converted and rolled back, and the provider does not offer to
 *   preserve bytes then (two backings never do).
 *
 * May be called with or without the BQL.  May drop and take it again.
 *
 * @result may be NULL.
 *
 * Returns 0 or a negative errno value for the guest: -EINVAL (malformed,
 * or not guest memory), -EOPNOTSUPP (the contents cannot be promised),
 * -EAGAIN (a page stayed busy for longer than the retry timeout, or the VM
 * is stopped, reset or ended: the guest may retry), or the error of the
 * provider or a listener; of these -ENOSPC (a listener has no room for more
 * mappings), -ENOMEM and -EINTR are transient, too.
 */
int guest_memfd_engine_convert(GuestMemfdEngine *engine,
                               const GuestMemfdRequest *req,
                               GuestMemfdResult *result);

/* The same, from a hypercall's arguments: see guest_memfd_request_decode(). */
int guest_memfd_engine_request(GuestMemfdEngine *engine, hwaddr gpa,
                               uint64_t size, uint64_t attributes,
                               GuestMemfdOrigin origin,
                               GuestMemfdResult *result);

/*
 * guest_memfd_engine_share_block: share all of @block, for a new start
 *
 * Pages that were private read as zero.
 *
 * Returns as guest_memfd_engine_convert().
 */
int guest_memfd_engine_share_block(GuestMemfdEngine *engine,
                                   GuestMemfdBlock *block);

/*
 * guest_memfd_engine_is_interrupted: must a request end, for a stop or a reset
 * of the VM, or the end of QEMU?  So must a provider that works for it.
 *
 * @origin: of the request.  Any thread; see GuestMemfdEngine::interrupted.
 */
bool guest_memfd_engine_is_interrupted(GuestMemfdEngine *engine,
                                       GuestMemfdOrigin origin);

/* BQL held. */
void guest_memfd_engine_totals(GuestMemfdEngine *engine,
                               GuestMemfdTotals *totals);

/* The record of a range of guest-physical memory. */
typedef enum GuestMemfdRecord {
    GUEST_MEMFD_RECORD_NONE,        /* not all of it is guest memory */
    GUEST_MEMFD_RECORD_SHARED,
    GUEST_MEMFD_RECORD_PRIVATE,
    GUEST_MEMFD_RECORD_MIXED,
    GUEST_MEMFD_RECORD__MAX,
} GuestMemfdRecord;

/*
 * guest_memfd_engine_record: what is recorded of [gpa, gpa + size)
 *
 * Waits for the conversions in progress of each block that is touched.  A
 * range that is empty, wraps or is not page aligned is not guest memory.
 *
 * @generation: differs from what an earlier call for the same range gave
 *     if a page of the same blocks was converted in between.
 */
GuestMemfdRecord guest_memfd_engine_record(GuestMemfdEngine *engine,
                                           hwaddr gpa, uint64_t size,
                                           uint64_t *generation);

/* BQL held.  @ram_block may be NULL in tests. */
GuestMemfdBlock *guest_memfd_block_new(GuestMemfdEngine *engine,
                                       RAMBlock *ram_block, const char *name,
                                       uint64_t size, Error **errp);
/* For providers.  On failure @fd is closed. */
bool guest_memfd_block_map(GuestMemfdBlock *block, int fd, Error **errp);
void guest_memfd_block_unmap(GuestMemfdBlock *block);
/*
 * Exchange the file that is mapped, at the same address.  On failure @fd is
 * closed, and the old file is still mapped.
 */
bool guest_memfd_block_remap(GuestMemfdBlock *block, int fd, Error **errp);
/*
 * Throw away what is in [offset, offset + size) of @block->fd, in bytes and
 * page aligned: it reads zeros.  Returns 0 or a negative errno value.
 */
int guest_memfd_block_punch_hole(const GuestMemfdBlock *block,
                                 uint64_t offset, uint64_t size);

/*
 * For providers that take spans, and for the engine: the next run of pages in
 * [*offset, end) that the conversion in progress changes.  Returns false if
 * there is none; else @offset and @size say where it is, in bytes.  Lock held.
 */
bool guest_memfd_block_next_changed(const GuestMemfdBlock *block, uint64_t end,
                                    uint64_t *offset, uint64_t *size);

/* @attributes is new, with a bitmap that is clear. */
void guest_memfd_block_set_attributes(GuestMemfdBlock *block,
                                      struct RamBlockAttributes *attributes,
                                      GuestMemfdStart start);
void guest_memfd_block_free(GuestMemfdBlock *block);

#endif /* SYSTEM_GUEST_MEMFD_H */
