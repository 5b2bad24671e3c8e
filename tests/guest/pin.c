/*
 * A page that a device holds on to cannot become private
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For ranges that contain such a page, among pages of one or both states
 * or in the other backend: the answer is -EAGAIN after a while, and all
 * is as it was, whatever part of the range had been converted by then.
 * Single pages on either side, or, if pages can be huge, 2 MiB further on, are
 * converted at any time, and so are others in the same backend by other vCPUs,
 * while the first one waits.
 * When the device unmaps, the same request succeeds.
 */

#include "guest.h"

#define PRIVATE         GMTD_ATTR_PRIVATE
#define ZERO            GMTD_ATTR_ZERO
#define PRESERVE        GMTD_ATTR_PRESERVE

#define SIZE            (16 * PAGE)
#define WAIT_MAX_US     (20 * 1000000UL)
#define OTHERS          (AREA_BACKEND0 + 8 * MiB)
#define OTHERS_STRIDE   (5 * PAGE)

struct shape {
    const char *name;
    struct range range;
    uint64_t pinned;
    bool mixed;                 /* every fourth page is private already */
};

static const struct shape shapes[] = {
    { "uniform", { AREA_BACKEND0 + PAGE, SIZE },
      AREA_BACKEND0 + PAGE + 9 * PAGE, false },
    { "first", { AREA_BACKEND0, SIZE }, AREA_BACKEND0, false },
    { "last", { AREA_BACKEND1, SIZE }, AREA_BACKEND1 + SIZE - PAGE, false },
    { "mixed", { AREA_BACKEND1 + PAGE, SIZE },
      AREA_BACKEND1 + PAGE + 9 * PAGE, true },
    { "border", { BORDER - SIZE / 2, SIZE }, BORDER + 3 * PAGE, false },
    { "border-mixed", { BORDER - SIZE / 2, SIZE }, BORDER + 5 * PAGE, true },
};

static bool waiting, over;
static uint64_t others;         /* conversions while the first vCPU waits */
static uint64_t longest_us;

static void want(struct check *check, const char *what, uint64_t gpa,
                 int64_t status, int64_t expected)
{
    if (status != expected) {
        fail(check, what, gpa, status, expected);
    }
}

static void convert_to(struct check *check, struct range range,
                       uint64_t attributes)
{
    struct answer answer;

    convert(check, range, attributes, &answer);
    want(check, "pin-convert", range.gpa, answer.status, 0);
}

static struct range with_neighbours(struct range range)
{
    return (struct range) { range.gpa - PAGE, range.size + 2 * PAGE };
}

/* --- other vCPUs ------------------------------------------------------- */

static void pin_other(unsigned slice)
{
    struct range page = { OTHERS + slice * OTHERS_STRIDE, PAGE };
    struct range all = with_neighbours(page);

    while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
        bool before = __atomic_load_n(&waiting, __ATOMIC_ACQUIRE);
        uint64_t generation = next_generation();
        struct check check = { 0 };

        convert_to(&check, page, PRIVATE);
        if (before && __atomic_load_n(&waiting, __ATOMIC_ACQUIRE)) {
            __atomic_fetch_add(&others, 1, __ATOMIC_RELAXED);
        }
        pattern_fill(all, generation);
        check_guest(&check, all, CONTENT_KEPT, generation);
        convert_to(&check, page, ZERO);
        check_guest(&check, page, CONTENT_ZERO, generation);
        tally_add(&check, true);
    }
}

/* --- the vCPU that waits ----------------------------------------------- */

static int64_t timed(struct check *check, struct range range,
                     uint64_t attributes, uint64_t *us)
{
    struct answer answer;
    uint64_t start = clock_us();

    __atomic_store_n(&waiting, true, __ATOMIC_RELEASE);
    convert(check, range, attributes, &answer);
    __atomic_store_n(&waiting, false, __ATOMIC_RELEASE);
    *us = clock_us() - start;
    return answer.status;
}

static void set_up(struct check *check, const struct shape *shape,
                   uint64_t generation)
{
    struct range page = { shape->range.gpa, PAGE };
    uint64_t end = page.gpa + shape->range.size;

    convert_to(check, shape->range, 0);
    for (; shape->mixed && page.gpa < end; page.gpa += 4 * PAGE) {
        convert_to(check, page, PRIVATE);
    }
    pattern_fill(with_neighbours(shape->range), generation);
    want(check, "pin", shape->pinned,
         device_command(GMTD_CMD_PIN, shape->pinned, PAGE), 0);
    want(check, "pin-twice", shape->pinned,
         device_command(GMTD_CMD_PIN, shape->pinned, PAGE), -GUEST_EBUSY);
}

static void check_unchanged(struct check *check, const struct shape *shape,
                            uint64_t generation)
{
    struct range all = with_neighbours(shape->range);

    check_device(check, all);
    check_guest(check, all, CONTENT_KEPT, generation);
}

static void refused(struct check *check, const struct shape *shape,
                    uint64_t attributes, uint64_t generation)
{
    struct range page = { shape->pinned, PAGE };
    uint64_t us, page_us;
    int64_t status;

    status = timed(check, shape->range, attributes, &us);
    want(check, "pinned-range", shape->range.gpa, status, -GUEST_EAGAIN);
    check_unchanged(check, shape, generation);
    pattern_fill(with_neighbours(shape->range), generation);
    status = timed(check, page, attributes, &page_us);
    want(check, "pinned-page", page.gpa, status, -GUEST_EAGAIN);
    check_unchanged(check, shape, generation);

    us = us > page_us ? us : page_us;
    longest_us = us > longest_us ? us : longest_us;
    if (us > WAIT_MAX_US) {
        fail(check, "pin-wait", page.gpa, us, WAIT_MAX_US);
    }
    say("pin-case shape=%s gpa=0x%lx size=0x%lx pinned=0x%lx "
        "attributes=0x%lx status=%ld us=%lu bad=%lu", shape->name,
        shape->range.gpa, shape->range.size, shape->pinned, attributes,
        status, us, check->bad);
}

/* Not the same page of the host's, whatever its size. */
static uint64_t neighbour(uint64_t pinned, unsigned i)
{
    if (options.huge) {
        return pinned + (i + 1) * 2 * MiB;
    }
    return i ? pinned + PAGE : pinned - PAGE;
}

/* The pages next to the pinned one, each on its own. */
static void neighbours(struct check *check, const struct shape *shape,
                       uint64_t generation)
{
    unsigned i;

    for (i = 0; i < 2; i++) {
        struct range page = { neighbour(shape->pinned, i), PAGE };
        bool private = page_private(page.gpa);

        convert_to(check, page, private ? ZERO : PRIVATE);
        check_device(check, with_neighbours(shape->range));
        convert_to(check, page, private ? PRIVATE : ZERO);
        pattern_fill(page, generation);
    }
    check_unchanged(check, shape, generation);
}

static void run_shape(const struct shape *shape, bool preserve)
{
    uint64_t attributes = PRIVATE | (preserve ? PRESERVE : 0);
    uint64_t generation = next_generation();
    struct check check = { 0 };
    struct range all = with_neighbours(shape->range);

    set_up(&check, shape, generation);
    refused(&check, shape, attributes, generation);
    neighbours(&check, shape, generation);
    want(&check, "unpin", shape->pinned,
         device_command(GMTD_CMD_UNPIN, 0, 0), 0);

    convert_to(&check, shape->range, attributes);
    check_device(&check, all);
    check_guest(&check, shape->range, preserve ? CONTENT_KEPT : CONTENT_ANY,
                generation);
    convert_to(&check, shape->range, ZERO);
    check_guest(&check, shape->range, CONTENT_ZERO, generation);
    check_device(&check, all);
    tally_add(&check, true);
}

/* --- all of it --------------------------------------------------------- */

static bool pin_is_noticed(void)
{
    return options.expect == EXPECT_CONTENT_MODES ||
           options.expect == EXPECT_IN_PLACE;
}

/* Nothing keeps this memory from becoming private: it just does. */
static void not_noticed(struct check *check)
{
    const struct shape *shape = &shapes[0];

    set_up(check, shape, next_generation());
    convert_to(check, shape->range, PRIVATE);
    check_device(check, with_neighbours(shape->range));
    convert_to(check, shape->range, ZERO);
    check_guest(check, shape->range, CONTENT_ZERO, 0);
    want(check, "unpin", shape->pinned,
         device_command(GMTD_CMD_UNPIN, 0, 0), 0);
    say("pin skipped=%s", expect_name(options.expect));
}

static void pin_slice(unsigned slice)
{
    unsigned i;

    if (slice) {
        pin_other(slice);
        return;
    }
    for (i = 0; i < ARRAY_SIZE(shapes); i++) {
        run_shape(&shapes[i], false);
        if (mode_offered(true, MODE_PRESERVE)) {
            run_shape(&shapes[i], true);
        }
    }
    __atomic_store_n(&over, true, __ATOMIC_RELEASE);
}

unsigned pin_run(void)
{
    struct check check = { 0 };
    unsigned vcpus = 1;

    clock_init();
    if (!device_present()) {
        fail(&check, "pin-without-device", GMTD_BASE, 0, 0);
    } else if (!pin_is_noticed()) {
        not_noticed(&check);
    } else {
        vcpus = smp_run(options.vcpus, pin_slice);
        say("pin status=%d us=%lu others=%lu ok=%u", -GUEST_EAGAIN,
            longest_us, others, !tally_bad());
    }
    tally_add(&check, false);
    return vcpus;
}
