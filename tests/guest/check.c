/*
 * Check a range from inside the guest and through the device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"

#define PROBE_VALUE     0x5bad5bad0ddba115ULL
#define POKE_STEP       512

void check_guest(struct check *check, struct range range,
                 enum content content, uint64_t generation)
{
    uint64_t bad = 0;

    switch (content) {
    case CONTENT_KEPT:
        bad = pattern_bad(range, generation);
        break;
    case CONTENT_ZERO:
        bad = zero_bad(range);
        break;
    case CONTENT_ANY:
        if (!options.poison) {
            return;
        }
        bad = pattern_left(range, generation);
        break;
    }
    check->bytes += range.size;
    if (bad) {
        fail(check, content == CONTENT_KEPT ? "guest-bytes-lost" :
             content == CONTENT_ZERO ? "guest-bytes-not-zero" :
             "guest-bytes-not-poisoned", range.gpa, bad, 0);
        check->bad += bad - 1;
    }
}

/* A device can read what it likes where two backings hide the bytes. */
static bool device_refuses(void)
{
    return options.expect != EXPECT_TWO_BACKINGS;
}

static void want_status(struct check *check, const char *what, uint64_t gpa,
                        int64_t status, int64_t want)
{
    if (status != want) {
        fail(check, what, gpa, status, want);
    }
}

/* DMA from shared memory reads the guest's bytes. */
static void check_copy(struct check *check, struct range range)
{
    uint64_t bounce = bounce_buffer(), offset, done, i;
    struct range part;

    for (offset = 0; offset < range.size; offset += part.size) {
        part.gpa = range.gpa + offset;
        part.size = range.size - offset;
        if (part.size > GMTD_COPY_MAX) {
            part.size = GMTD_COPY_MAX;
        }
        for (i = 0; i < part.size; i += POKE_STEP) {
            mem_write(bounce + i, PROBE_VALUE);
        }
        want_status(check, "copy-shared", part.gpa,
                    device_copy(part.gpa, part.size, bounce, &done), 0);
        want_status(check, "copy-shared-done", part.gpa, done, part.size);
        i = compare_bad(part, bounce);
        if (i) {
            fail(check, "device-bytes", part.gpa, i, 0);
            check->bad += i - 1;
        }
        check->bytes += part.size;
    }
}

/* A word that the device writes arrives at the guest, and only there. */
static void check_shared_write(struct check *check, uint64_t gpa)
{
    uint64_t word = mem_read(gpa);

    want_status(check, "write-shared", gpa,
                device_write(gpa, 8, ~word), 0);
    want_status(check, "write-shared-bytes", gpa, mem_read(gpa), ~word);
    mem_write(gpa, word);
}

static void check_shared(struct check *check, struct range range)
{
    check_copy(check, range);
    check_shared_write(check, range.gpa);
    check_shared_write(check, range.gpa + range.size - 8);
}

/* One private page refuses READ and WRITE, and keeps its word. */
static void check_private_page(struct check *check, uint64_t page)
{
    uint64_t gpa = page + page / PAGE * 8 % PAGE;
    uint64_t before = mem_read(gpa), value;

    want_status(check, "read-private", gpa, device_read(gpa, 8, &value),
                -GUEST_EFAULT);
    want_status(check, "write-private", gpa,
                device_write(gpa, 8, PROBE_VALUE), -GUEST_EFAULT);
    want_status(check, "write-private-bytes", gpa, mem_read(gpa), before);
    check->bytes += 8;
}

/* COPY stops at the private page and says how far it got. */
static void check_private_start(struct check *check, uint64_t page)
{
    uint64_t bounce = bounce_buffer(), before = mem_read(page), done, value;

    want_status(check, "copy-private", page,
                device_copy(page, PAGE, bounce, &done), -GUEST_EFAULT);
    want_status(check, "copy-private-done", page, done, 0);
    want_status(check, "copy-to-private", page,
                device_copy(bounce, 8, page, &done), -GUEST_EFAULT);
    want_status(check, "copy-to-private-bytes", page, mem_read(page),
                before);
    if (page_private(page - PAGE)) {
        return;
    }
    want_status(check, "copy-into-private", page - PAGE,
                device_copy(page - PAGE, 2 * PAGE, bounce, &done),
                -GUEST_EFAULT);
    want_status(check, "copy-into-private-done", page - PAGE, done, PAGE);
    check->bad += compare_bad((struct range) { page - PAGE, PAGE }, bounce);
    check->bytes += PAGE;
    want_status(check, "copy-8-into-private", page - 8,
                device_copy(page - 8, 16, bounce, &done), -GUEST_EFAULT);
    want_status(check, "copy-8-into-private-done", page - 8, done, 8);
    want_status(check, "read-across", page - 4,
                device_read(page - 4, 8, &value), -GUEST_EFAULT);
}

/* Two backings: the device reads something, never the guest's word. */
static void check_hidden_page(struct check *check, uint64_t gpa)
{
    uint64_t word = mem_read(gpa), value;

    if (!device_read(gpa, 8, &value) && word && value == word) {
        fail(check, "private-bytes-leaked", gpa, value, 0);
    }
    check->bytes += 8;
}

static void check_private(struct check *check, struct range range)
{
    uint64_t last = range.gpa + range.size - PAGE, page;
    uint64_t step = options.probe * PAGE;

    for (page = range.gpa; page <= last; page += step) {
        if (device_refuses()) {
            check_private_page(check, page);
        } else {
            check_hidden_page(check, page);
        }
    }
    if (device_refuses()) {
        check_private_page(check, last);
        check_private_start(check, range.gpa);
    }
}

/* Every page behaves as the state that it should have. */
void check_device(struct check *check, struct range range)
{
    uint64_t end = range.gpa + range.size;
    struct range run = { range.gpa, 0 };

    if (!device_present()) {
        return;
    }
    while (run.gpa < end) {
        bool private = page_private(run.gpa);

        for (run.size = PAGE; run.gpa + run.size < end; run.size += PAGE) {
            if (page_private(run.gpa + run.size) != private) {
                break;
            }
        }
        if (private) {
            check_private(check, run);
        } else {
            check_shared(check, run);
        }
        run.gpa += run.size;
    }
}

/* In a word: what a few samples of the range look like. */
static const char *word_looks(uint64_t gpa, uint64_t value,
                              uint64_t generation)
{
    return value == pattern_word(gpa, generation) ? "pattern" :
           value == 0 ? "zero" : options.poison ? "poison" : "other";
}

static const char *merge(const char *a, const char *b)
{
    return !a || string_equal(a, b) ? b : "mixed";
}

static uint64_t sample(struct range range, unsigned i)
{
    uint64_t pages = range.size / PAGE;
    uint64_t page = i == 0 ? 0 : i == 1 ? pages > 1 :
                    i == 2 ? pages / 2 : i == 3 ? 16 % pages : pages - 1;

    return range.gpa + page * PAGE + 8 * i;
}

#define SAMPLES 5

const char *guest_sees(struct range range, uint64_t generation)
{
    const char *looks = NULL;
    unsigned i;

    for (i = 0; i < SAMPLES; i++) {
        uint64_t gpa = sample(range, i);

        looks = merge(looks, word_looks(gpa, mem_read(gpa), generation));
    }
    return looks;
}

const char *device_sees(struct range range, uint64_t generation)
{
    const char *looks = NULL;
    uint64_t value;
    unsigned i;

    if (!device_present()) {
        return "-";
    }
    for (i = 0; i < SAMPLES; i++) {
        uint64_t gpa = sample(range, i);

        if (device_read(gpa, 8, &value)) {
            looks = merge(looks, "refused");
        } else {
            looks = merge(looks, word_looks(gpa, value, generation));
        }
    }
    return looks;
}
