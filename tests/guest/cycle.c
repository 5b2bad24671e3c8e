/*
 * All free memory: written, made private, written, shared, and so on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For a host that looks how much memory this takes: what is printed as
 * cycle-at has been written page by page just before.  At the end, all is
 * private and written, and the guest stays there for hold=N seconds.
 */

#include "guest.h"

#define STEP_SIZE       (64 * MiB)

static const struct range area = { FREE_START, RAM_END - FREE_START };

static uint64_t converted;

/* Steps end at multiples of their size: the first one is shorter. */
static void convert_area(bool to_private)
{
    uint64_t attributes = to_private ? GMTD_ATTR_PRIVATE : GMTD_ATTR_ZERO;
    struct range part = { area.gpa, 0 };
    struct answer answer;

    for (; part.gpa < RAM_END; part.gpa += part.size) {
        struct check check = { 0 };

        part.size = STEP_SIZE - part.gpa % STEP_SIZE;
        convert(&check, part, attributes, &answer);
        if (answer.status) {
            fail(&check, "cycle-status", part.gpa, answer.status, 0);
        }
        converted += answer.changed;
        tally_add(&check, true);
    }
}

/* Returns the generation that all of it has now. */
static uint64_t touch(bool private, unsigned round)
{
    uint64_t generation = next_generation();

    pattern_fill(area, generation);
    say("cycle-at step=%s round=%u", private ? "private" : "shared", round);
    return generation;
}

static void check_area(enum content content, uint64_t generation)
{
    struct check check = { 0 };

    check_guest(&check, area, content, generation);
    tally_add(&check, false);
}

/* From shared, with the bytes of @generation, to private. */
static uint64_t go_private(uint64_t generation, unsigned round)
{
    check_area(CONTENT_KEPT, generation);
    convert_area(true);
    check_area(CONTENT_ANY, generation);
    generation = touch(true, round);
    check_area(CONTENT_KEPT, generation);
    return generation;
}

static void hold(void)
{
    uint64_t end = clock_us() + options.hold * 1000000UL;

    while (clock_us() < end) {
        asm volatile("pause");
    }
}

unsigned cycle_run(void)
{
    uint64_t generation;
    unsigned round;

    clock_init();
    generation = touch(false, 0);
    for (round = 1; round <= options.rounds; round++) {
        go_private(generation, round);
        convert_area(false);
        check_area(CONTENT_ZERO, 0);
        generation = touch(false, round);
    }
    go_private(generation, round);
    say("cycle rounds=%u bytes=%lu converted=%lu", options.rounds,
        area.size, converted);
    say("cycle-done hold=%u", options.hold);
    hold();
    return 1;
}
