/*
 * Random steps against a naive model, page by page
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The steps are those of tests/unit/test-guest-memfd-model.  Odd ones
 * are about memory on both sides of the border, even ones about the end
 * of memory and the hole behind it.  After each step:
 *
 * 1. The answer is the one that the model gives.
 * 2. The bytes of all pages in the range, and of the page on either side,
 *    are what the model says; a device reads them only where it may.
 */

#include "guest.h"
#include "../unit/guest-memfd-steps.c.inc"

#define ARENA_PAGES     (MODEL_GPA_END + 100UL)
#define BORDER_AT       150         /* page of the arena */
#define HOLE_AT         280
#define STEPS_SHOWN     8

struct arena {
    uint64_t gpa;
    uint64_t pages;                 /* of memory */
};

static const struct arena arenas[] = {
    { RAM_END - HOLE_AT * PAGE, HOLE_AT },
    { BORDER - BORDER_AT * PAGE, ARENA_PAGES },
};

/* The contents of each page: a pattern, or zeros. */
static uint64_t generations[ARRAY_SIZE(arenas)][ARENA_PAGES];

enum verdict { REFUSED, GRANTED, EITHER };

static struct range range_of(const struct arena *arena, const Step *s)
{
    return (struct range) { arena->gpa + s->gpa * PAGE, s->pages * PAGE };
}

/* Pages [first, end) of the range are memory. */
static uint64_t memory_end(const struct arena *arena, const Step *s)
{
    uint64_t end = s->gpa + s->pages;

    return end < arena->pages ? end : arena->pages;
}

static enum mode mode_of(const Step *s)
{
    return s->intent == STEP_PRESERVE ? MODE_PRESERVE :
           s->direction == STEP_TO_SHARED ? MODE_ZERO : MODE_DEFAULT;
}

static enum verdict expected(const struct arena *arena, const Step *s)
{
    bool to_private = s->direction == STEP_TO_PRIVATE;

    if (to_private && (s->intent == STEP_ZERO ||
                       s->gpa + s->pages > arena->pages)) {
        return REFUSED;
    }
    if (mode_offered(to_private, mode_of(s))) {
        return GRANTED;
    }
    return s->gpa >= arena->pages ? EITHER : REFUSED;
}

static void write_pages(unsigned a, uint64_t first, uint64_t end)
{
    uint64_t generation = next_generation(), page;

    for (page = first; page < end; page++) {
        generations[a][page] = generation;
    }
    if (first < end) {
        pattern_fill((struct range) { arenas[a].gpa + first * PAGE,
                                      (end - first) * PAGE }, generation);
    }
}

/* Nothing is promised: only a fresh pattern is known then. */
static void convert_page(unsigned a, uint64_t page, enum mode mode)
{
    if (mode == MODE_ZERO) {
        generations[a][page] = 0;
    } else if (mode == MODE_DEFAULT) {
        write_pages(a, page, page + 1);
    }
}

static void check_pages(struct check *check, unsigned a, uint64_t first,
                        uint64_t end)
{
    uint64_t page;

    for (page = first; page < end; page++) {
        uint64_t generation = generations[a][page];

        check_guest(check, (struct range) { arenas[a].gpa + page * PAGE,
                                            PAGE },
                    generation ? CONTENT_KEPT : CONTENT_ZERO, generation);
    }
    if (first < end) {
        check_device(check, (struct range) { arenas[a].gpa + first * PAGE,
                                             (end - first) * PAGE });
    }
}

static void convert_step(struct check *check, unsigned a, const Step *s)
{
    static const uint64_t hints[] = {
        [STEP_ZERO] = GMTD_ATTR_ZERO, [STEP_PRESERVE] = GMTD_ATTR_PRESERVE,
    };
    const struct arena *arena = &arenas[a];
    uint64_t end = memory_end(arena, s), page;
    bool to_private = s->direction == STEP_TO_PRIVATE;
    enum verdict verdict = expected(arena, s);
    bool changes[ARENA_PAGES] = { false };
    struct answer answer;

    for (page = s->gpa; page < end; page++) {
        changes[page] = page_private(arena->gpa + page * PAGE) != to_private;
    }
    convert(check, range_of(arena, s),
            hints[s->intent] | (to_private ? GMTD_ATTR_PRIVATE : 0),
            &answer);
    if (verdict != EITHER && (verdict == GRANTED) != !answer.status) {
        fail(check, "model-status", range_of(arena, s).gpa, answer.status,
             verdict == GRANTED);
    }
    for (page = s->gpa; page < end && !answer.status; page++) {
        if (changes[page]) {
            convert_page(a, page, mode_of(s));
        }
    }
}

static void run_step(struct check *check, unsigned a, const Step *s)
{
    uint64_t end = memory_end(&arenas[a], s);

    switch (s->kind) {
    case CONVERT:
        convert_step(check, a, s);
        tally_add(&(struct check) { 0 }, true);
        break;
    case WRITE:
        write_pages(a, s->gpa, end);
        break;
    default:                        /* nothing that a guest can do */
        break;
    }
    check_pages(check, a, s->gpa ? s->gpa - 1 : 0,
                end < arenas[a].pages ? end + 1 : end);
}

/* The last steps before the one that failed, it included. */
static void explain(uint64_t failed)
{
    uint64_t n = failed < STEPS_SHOWN ? 0 : failed + 1 - STEPS_SHOWN;

    for (; n <= failed; n++) {
        const Step s = model_nth_step(options.seed, n);

        say("model-step n=%lu kind=%s arena=%lu page=%u pages=%u to=%s "
            "intent=%u", n, s.kind == CONVERT ? "convert" :
            s.kind == WRITE ? "write" : "none", n % ARRAY_SIZE(arenas),
            s.gpa, s.pages, s.direction == STEP_TO_PRIVATE ? "private" :
            "shared", s.intent);
    }
}

unsigned model_run(void)
{
    uint64_t n;
    unsigned a;

    for (a = 0; a < ARRAY_SIZE(arenas); a++) {
        write_pages(a, 0, arenas[a].pages);
    }
    say("model seed=%u count=%u", options.seed, options.count);
    for (n = 0; n < options.count; n++) {
        const Step s = model_nth_step(options.seed, n);
        struct check check = { 0 };

        run_step(&check, n % ARRAY_SIZE(arenas), &s);
        tally_add(&check, false);
        if (check.bad) {
            say("model-failed seed=%u step=%lu", options.seed, n);
            explain(n);
            return 1;
        }
    }
    for (a = 0; a < ARRAY_SIZE(arenas); a++) {
        struct check check = { 0 };

        check_pages(&check, a, 0, arenas[a].pages);
        tally_add(&check, false);
    }
    return 1;
}
