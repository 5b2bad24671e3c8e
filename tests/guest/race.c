/*
 * All vCPUs at once convert the same pages, and pages of their own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each vCPU, in a row, until the time is over:
 *
 * 1. Requests for ranges in arenas that all vCPUs convert, one of them
 *    across the border.  The bytes are not used, every answer is 0.
 * 2. To private and back for a range in a region of its own, one in each
 *    backend.  All bytes of the region are checked at every step.  What the
 *    device writes to a private page of it does not show, then or later.
 * 3. A page of its own to private and back, which the device writes to all
 *    the time for other vCPUs.  It may be shared then, or the device is
 *    turned away; what this vCPU writes to private memory, stays.  Other
 *    vCPUs read the page all the time.
 *
 * With cases=slots the first vCPU does something else: the memory from
 * 0xf0000 is RAM and is not, in turn, so that the host creates the memslot
 * of backend 0 again each time.
 *
 * -EAGAIN is an answer to try again.  At the end, the arenas are brought
 * to a state that is known again, and checked.
 */

#include "guest.h"

#define PRIVATE         GMTD_ATTR_PRIVATE
#define ZERO            GMTD_ATTR_ZERO
#define PRESERVE        GMTD_ATTR_PRESERVE

#define ARENA_SIZE      (1 * MiB)
#define ARENA_REQUESTS  3
#define OWN_OFFSET      (16 * MiB)
#define OWN_SIZE        (128 * KiB)
#define OWN_STRIDE      (OWN_SIZE + 3 * PAGE)
#define DEVICE_EVERY    64              /* rounds: vCPUs queue for it */
#define RETRIES_MAX     1000
#define COVETED_OFFSET  (24 * MiB)
#define COVETED_LOOKS   4
#define READS           256
#define BACKENDS        2

static const struct range arenas[] = {
    { AREA_BACKEND0, ARENA_SIZE },
    { AREA_BACKEND1, ARENA_SIZE },
    { BORDER - ARENA_SIZE / 2, ARENA_SIZE },
};

/* Of one vCPU. */
struct racer {
    uint64_t seed;
    uint64_t round;
    struct range own;
    uint64_t generation;
};

static uint64_t requests[BACKENDS];
static uint64_t conversions;
static uint64_t eagain;
static uint64_t turned_away;        /* writes of the device */
static uint64_t slots;              /* created again; by the first vCPU */
static bool over;

static struct range random_range(struct racer *racer, struct range in)
{
    uint64_t pages = in.size / PAGE;
    uint64_t first = random_below(&racer->seed, pages);
    uint64_t n = 1 + random_below(&racer->seed, pages - first);

    return (struct range) { in.gpa + first * PAGE, n * PAGE };
}

static void count(struct range range)
{
    unsigned i;

    __atomic_fetch_add(&conversions, 1, __ATOMIC_RELAXED);
    for (i = 0; i < BACKENDS; i++) {
        if (part_in_backend(range, i).size) {
            __atomic_fetch_add(&requests[i], 1, __ATOMIC_RELAXED);
        }
    }
}

/* @own: only this vCPU converts these pages, so their state is known. */
static void request(struct check *check, struct range range,
                    uint64_t attributes, bool own)
{
    struct answer answer = { 0 };
    unsigned tries;

    for (tries = 0; tries < RETRIES_MAX; tries++) {
        if (own) {
            convert(check, range, attributes, &answer);
        } else {
            answer.status = convert_unchecked(range, attributes);
        }
        if (answer.status != -GUEST_EAGAIN) {
            break;
        }
        __atomic_fetch_add(&eagain, 1, __ATOMIC_RELAXED);
    }
    if (answer.status) {
        fail(check, own ? "own-status" : "arena-status", range.gpa,
             answer.status, attributes);
        return;
    }
    count(range);
}

/* --- what all vCPUs convert -------------------------------------------- */

static uint64_t random_attributes(struct racer *racer)
{
    uint64_t choice = random_below(&racer->seed, 3);
    bool to_private = random_below(&racer->seed, 2);

    if (choice == 0 && mode_offered(to_private, MODE_PRESERVE)) {
        return PRESERVE | (to_private ? PRIVATE : 0);
    }
    return to_private ? PRIVATE : choice == 1 ? ZERO : 0;
}

static void arena_round(struct racer *racer)
{
    unsigned i;

    for (i = 0; i < ARENA_REQUESTS; i++) {
        struct range arena = arenas[random_below(&racer->seed,
                                                 ARRAY_SIZE(arenas))];
        struct range range = random_range(racer, arena);
        struct check check = { 0 };

        request(&check, range, random_attributes(racer), false);
        tally_add(&check, true);
    }
}

static void settle(struct check *check, struct range arena)
{
    uint64_t generation = next_generation();

    request(check, arena, PRIVATE, false);
    convert_settle(arena, true);
    check_device(check, arena);
    pattern_fill(arena, generation);
    check_guest(check, arena, CONTENT_KEPT, generation);
    request(check, arena, ZERO, true);
    check_guest(check, arena, CONTENT_ZERO, generation);
    check_device(check, arena);
}

/* --- what only one vCPU converts --------------------------------------- */

static void check_own(struct racer *racer, struct check *check,
                      struct range range, enum content content)
{
    struct range own = racer->own;
    struct range before = { own.gpa, range.gpa - own.gpa };
    struct range after = { range.gpa + range.size,
                           own.gpa + own.size - range.gpa - range.size };

    check_guest(check, before, CONTENT_KEPT, racer->generation);
    check_guest(check, range, content, racer->generation);
    check_guest(check, after, CONTENT_KEPT, racer->generation);
    if (racer->round % DEVICE_EVERY == DEVICE_EVERY - 1) {
        check_device(check, own);
    }
}

static void own_to_private(struct racer *racer, struct range range)
{
    bool preserve = mode_offered(true, MODE_PRESERVE) &&
                    random_below(&racer->seed, 2);
    struct check check = { 0 };

    racer->generation = next_generation();
    pattern_fill(racer->own, racer->generation);
    request(&check, range, PRIVATE | (preserve ? PRESERVE : 0), true);
    check_own(racer, &check, range, preserve ? CONTENT_KEPT : CONTENT_ANY);
    if (!preserve) {
        pattern_fill(range, racer->generation);
    }
    tally_add(&check, true);
}

/* The whole region, most of which is shared already. */
static void own_to_shared(struct racer *racer, struct range range)
{
    bool preserve = mode_offered(false, MODE_PRESERVE) &&
                    random_below(&racer->seed, 2);
    bool whole = random_below(&racer->seed, 2);
    struct check check = { 0 };

    device_write(range.gpa, sizeof(uint64_t), UINT64_MAX);
    request(&check, whole ? racer->own : range,
            preserve ? PRESERVE : ZERO, true);
    check_own(racer, &check, range, preserve ? CONTENT_KEPT : CONTENT_ZERO);
    tally_add(&check, true);
}

/* All of it is shared: devices read what is written now. */
static void use_own(struct racer *racer)
{
    struct check check = { 0 };

    pattern_fill(racer->own, next_generation());
    check_device(&check, racer->own);
    tally_add(&check, false);
}

static void own_round(struct racer *racer, unsigned slice)
{
    uint64_t area = racer->round % 2 ? AREA_BACKEND1 : AREA_BACKEND0;
    struct range range;

    racer->own = (struct range) { area + OWN_OFFSET + slice * OWN_STRIDE,
                                  OWN_SIZE };
    range = random_range(racer, racer->own);
    own_to_private(racer, range);
    own_to_shared(racer, range);
    if (options.cases == CASES_SLOTS) {
        use_own(racer);
    }
}

/* --- a page that devices write to -------------------------------------- */

static struct range coveted(unsigned slice)
{
    return (struct range) { AREA_BACKEND0 + COVETED_OFFSET + slice * PAGE,
                            PAGE };
}

/* For another vCPU, which may find it in the way. */
static void intrude(struct racer *racer)
{
    struct range page = coveted(random_below(&racer->seed, options.vcpus));
    uint64_t word = random_below(&racer->seed, PAGE / sizeof(uint64_t));
    struct check check = { 0 };
    int64_t status;

    status = device_write(page.gpa + word * sizeof(uint64_t),
                          sizeof(uint64_t), racer->seed);
    if (status == -GUEST_EFAULT) {
        __atomic_fetch_add(&turned_away, 1, __ATOMIC_RELAXED);
    } else if (status) {
        fail(&check, "intruder-status", page.gpa, status, 0);
    }
    tally_add(&check, false);
}

/*
 * Pages that another vCPU converts meanwhile, read over and over.  That one
 * checks the bytes.  A fault may race with a conversion, which KVM reports.
 */
static void read_coveted(struct racer *racer)
{
    struct range page = coveted(random_below(&racer->seed, options.vcpus));
    /* Volatile: each read has to take place. */
    const volatile uint64_t *word = (const volatile uint64_t *)page.gpa;
    unsigned i;

    for (i = 0; i < READS; i++) {
        (void)*word;
    }
}

static void coveted_round(struct racer *racer, unsigned slice)
{
    struct range page = coveted(slice);
    struct check check = { 0 };
    unsigned i;

    request(&check, page, PRIVATE, true);
    racer->generation = next_generation();
    pattern_fill(page, racer->generation);
    for (i = 0; i < COVETED_LOOKS; i++) {
        intrude(racer);
        read_coveted(racer);
        check_guest(&check, page, CONTENT_KEPT, racer->generation);
    }
    request(&check, page, ZERO, true);
    intrude(racer);
    tally_add(&check, true);
}

static void make_slots_anew(void)
{
    pam_set(PAM_F0000, PAM_F0000_RAM);
    pam_set(PAM_F0000, 0);
}

static void race_slice(unsigned slice)
{
    struct racer racer = { .seed = options.seed * 1000003UL + slice };
    uint64_t end = clock_us() + options.seconds * 1000000UL;

    while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
        if (options.cases == CASES_SLOTS && slice == 0) {
            make_slots_anew();
            slots += 2;
        } else {
            arena_round(&racer);
            own_round(&racer, slice);
            coveted_round(&racer, slice);
        }
        racer.round++;
        if (slice == 0 && clock_us() >= end) {
            __atomic_store_n(&over, true, __ATOMIC_RELEASE);
        }
    }
}

unsigned race_run(void)
{
    struct check check = { 0 };
    unsigned vcpus, i;
    uint64_t us;

    say("race-start seed=%u", options.seed);
    clock_init();
    us = clock_us();
    vcpus = smp_run(options.vcpus, race_slice);
    us = clock_us() - us;
    for (i = 0; i < ARRAY_SIZE(arenas); i++) {
        settle(&check, arenas[i]);
    }
    say("race seconds=%lu vcpus=%u conversions=%lu eagain=%lu "
        "turned-away=%lu slots=%lu", us / 1000000, vcpus, conversions,
        eagain, turned_away, slots);
    for (i = 0; i < options.backends; i++) {
        say("race-stats backend=%u requests=%lu", i, requests[i]);
    }
    tally_add(&check, false);
    return vcpus;
}
