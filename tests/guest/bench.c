/*
 * The cost of a conversion for the guest, in ticks of its TSC
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A round has five phases: nothing, for the cost of measuring, make private,
 * write a word to each page, make shared, write a word to each page.  With a
 * pattern, some pages are in the wanted state already when a request is made.
 * With several vCPUs, each has a range of its own and all do the same at the
 * same time; the time of a phase is from when all are ready until all are
 * done.  This is done for all sizes up to count=KIB, each in an area of its
 * own as far as there is room: pages of a size before may be split, or
 * allocated.
 *
 * With pause=on the VM is stopped around each phase, so that the host can
 * read its counters; it has to be continued.
 */

#include "guest.h"

#define AREA            (512 * MiB)
#define AREA_SIZE       (512 * MiB)
#define PVPANIC_PORT    0x505
#define PVPANIC_PANICKED 1

enum phase {
    NOTHING, TO_PRIVATE, TOUCH_PRIVATE, TO_SHARED, TOUCH_SHARED, PHASES
};

static const uint64_t sizes[] = {
    4 * KiB, 64 * KiB, 2 * MiB, 64 * MiB, 512 * MiB,
};

/* The shortest of all rounds: without interrupts of the host. */
static uint64_t ticks[PHASES];
static unsigned failures;

/* --- all vCPUs at once --------------------------------------------------- */

static unsigned arrived;
static unsigned passed;
static uint64_t met;

/* All vCPUs come here; returns when the last one did. */
static uint64_t meet(void)
{
    unsigned round = __atomic_load_n(&passed, __ATOMIC_ACQUIRE);

    if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) == options.vcpus) {
        __atomic_store_n(&arrived, 0, __ATOMIC_RELAXED);
        met = rdtsc();
        __atomic_store_n(&passed, round + 1, __ATOMIC_RELEASE);
        smp_wake();
    }
    smp_wait_while(&passed, round);
    return met;
}

/* --- phases -------------------------------------------------------------- */

/* A huge page has the memory of one size, and of one vCPU if that is large. */
static uint64_t start_of(uint64_t size)
{
    uint64_t start = AREA, end;
    unsigned i;

    for (i = 0; sizes[i] < size; i++) {
        end = start + sizes[i] * options.vcpus;
        start = (end + 2 * MiB - 1) / (2 * MiB) * (2 * MiB);
    }
    return start + size * options.vcpus <= AREA + AREA_SIZE ? start : AREA;
}

static struct range range_of(unsigned slice, uint64_t size)
{
    return (struct range) { start_of(size) + slice * size, size };
}

static void request(struct range range, bool to_private)
{
    if (convert_unchecked(range, to_private ? GMTD_ATTR_PRIVATE : 0)) {
        __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
    }
}

static void touch(struct range range)
{
    uint64_t gpa;

    for (gpa = range.gpa; gpa < range.gpa + range.size; gpa += PAGE) {
        mem_write(gpa, gpa);
    }
}

static void run_phase(struct range range, enum phase phase)
{
    if (phase == TO_PRIVATE || phase == TO_SHARED) {
        request(range, phase == TO_PRIVATE);
    } else if (phase != NOTHING) {
        touch(range);
    }
}

/* Every other page, or one of two by chance, the same ones in each run. */
static bool is_early(uint64_t page, uint64_t *random)
{
    return options.pattern == PATTERN_ALTERNATE ? page & 1 :
           random_next(random) & 1;
}

static void convert_early(struct range range, bool to_private)
{
    uint64_t random = options.seed, page;

    for (page = 0; page < range.size / PAGE; page++) {
        if (is_early(page, &random)) {
            request((struct range) { range.gpa + page * PAGE, PAGE },
                    to_private);
        }
    }
}

static void prepare(struct range range, enum phase phase)
{
    if (options.pattern != PATTERN_UNIFORM &&
        (phase == TO_PRIVATE || phase == TO_SHARED)) {
        convert_early(range, phase == TO_PRIVATE);
    }
}

/* The host reads what it counted, and has the VM go on: not a word here. */
static void pause_here(unsigned slice)
{
    if (options.pause && !slice) {
        outb(PVPANIC_PORT, PVPANIC_PANICKED);
    }
}

static void one_phase(unsigned slice, struct range range, enum phase phase)
{
    uint64_t start, end;

    prepare(range, phase);
    meet();
    pause_here(slice);
    start = meet();
    run_phase(range, phase);
    end = meet();
    pause_here(slice);
    if (!slice && end - start < ticks[phase]) {
        ticks[phase] = end - start;
    }
}

static void report(uint64_t size)
{
    say("bench kib=%lu pattern=%s vcpus=%u nothing=%lu to-private=%lu "
        "touch-private=%lu to-shared=%lu touch-shared=%lu", size / KiB,
        pattern_name(options.pattern), options.vcpus, ticks[NOTHING],
        ticks[TO_PRIVATE], ticks[TOUCH_PRIVATE], ticks[TO_SHARED],
        ticks[TOUCH_SHARED]);
}

static void run_round(unsigned slice, struct range range)
{
    enum phase phase;

    for (phase = 0; phase < PHASES; phase++) {
        one_phase(slice, range, phase);
    }
}

static void run_size(unsigned slice, uint64_t size)
{
    struct range range = range_of(slice, size);
    unsigned i;

    touch(range);
    run_round(slice, range);
    if (!slice) {
        for (i = 0; i < PHASES; i++) {
            ticks[i] = UINT64_MAX;
        }
    }
    for (i = 0; i < options.rounds; i++) {
        run_round(slice, range);
    }
    if (!slice) {
        report(size);
    }
}

static void run_slice(unsigned slice)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        if (sizes[i] <= options.count * KiB &&
            (!options.only || sizes[i] == options.only * KiB)) {
            run_size(slice, sizes[i]);
        }
    }
}

unsigned bench_run(void)
{
    unsigned vcpus = smp_run(options.vcpus, run_slice);
    struct check check = { 0 };

    if (failures) {
        fail(&check, "bench-failures", AREA, failures, 0);
        tally_add(&check, true);
    }
    return vcpus;
}
