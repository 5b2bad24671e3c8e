/*
 * Requests that must be refused, or do nothing, and change nothing
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For a range in each backend and across the border, shared and private:
 *
 * 1. Write a fresh pattern over the range and its neighbours.
 * 2. Make each bad request; the answer is the expected errno value.
 * 3. All bytes and the state of all pages are as before.
 */

#include "guest.h"

#define AREA_SIZE       (64 * KiB)
#define PRIVATE         GMTD_ATTR_PRIVATE
#define ZERO            GMTD_ATTR_ZERO
#define PRESERVE        GMTD_ATTR_PRESERVE
#define TOP             (~0ULL - PAGE + 1)

/* Where the request begins. */
enum base { AT_AREA, AT_ZERO };

struct refusal {
    const char *name;
    enum base base;
    uint64_t gpa;
    uint64_t size;
    uint64_t attributes;
    int64_t status;
    bool device_only;           /* not expressible in the hypercall */
};

#define AREA(name, attributes) \
    { name, AT_AREA, 0, AREA_SIZE, attributes, -GUEST_EINVAL, false }
#define SHAPE(name, gpa, size, attributes, device_only) \
    { name, AT_AREA, gpa, size, attributes, -GUEST_EINVAL, device_only }
#define AT(name, gpa, size, attributes, status) \
    { name, AT_ZERO, gpa, size, attributes, status, false }

static const struct refusal refusals[] = {
    /* Malformed requests. */
    AREA("zero-to-private", PRIVATE | ZERO),
    AREA("both-hints-to-private", PRIVATE | ZERO | PRESERVE),
    AREA("both-hints-to-shared", ZERO | PRESERVE),
    AREA("unknown-bit-5", PRIVATE | 1ULL << 5),
    AREA("unknown-bit-7-to-shared", 1ULL << 7),
    AREA("unknown-bit-10", PRIVATE | 1ULL << 10),
    AREA("unknown-bit-31-to-shared", 1ULL << 31),
    AREA("unknown-bit-32", PRIVATE | 1ULL << 32),
    AREA("unknown-bit-63", PRIVATE | PRESERVE | 1ULL << 63),

    /* Ranges that are not pages. */
    SHAPE("gpa-off-by-1", 1, PAGE, PRIVATE, false),
    SHAPE("gpa-off-by-1-to-shared", 1, PAGE, 0, false),
    SHAPE("gpa-off-by-half", PAGE / 2, PAGE, PRIVATE, false),
    SHAPE("size-0", 0, 0, PRIVATE, false),
    SHAPE("size-0-to-shared", 0, 0, 0, false),
    SHAPE("size-1", 0, 1, PRIVATE, true),
    SHAPE("size-1-to-shared", 0, 1, 0, true),
    SHAPE("size-page-minus-1", 0, PAGE - 1, PRIVATE, true),
    SHAPE("size-page-plus-8", 0, PAGE + 8, PRIVATE, true),
    SHAPE("wraps", 0, TOP, PRIVATE, true),
    SHAPE("wraps-to-shared", 0, TOP, 0, true),
    AT("wraps-at-top", TOP, 2 * PAGE, PRIVATE, -GUEST_EINVAL),
    AT("wraps-at-top-to-shared", TOP, 2 * PAGE, 0, -GUEST_EINVAL),

    /* Memory that is not guest memory. */
    AT("hole-to-private", RAM_END, AREA_SIZE, PRIVATE, -GUEST_EINVAL),
    AT("hole-preserve", RAM_END, PAGE, PRIVATE | PRESERVE, -GUEST_EINVAL),
    AT("ram-end-to-private", RAM_END - PAGE, 2 * PAGE, PRIVATE,
       -GUEST_EINVAL),
    AT("ram-end-64m-to-private", RAM_END - 32 * MiB, 64 * MiB, PRIVATE,
       -GUEST_EINVAL),
    AT("device-to-private", GMTD_BASE, PAGE, PRIVATE, -GUEST_EINVAL),
    AT("ioapic-to-private", 0xfec00000, PAGE, PRIVATE, -GUEST_EINVAL),
    AT("lapic-to-private", 0xfee00000, PAGE, PRIVATE, -GUEST_EINVAL),

    /* Holes and MMIO, which a guest may share. */
    AT("hole-to-shared", RAM_END, AREA_SIZE, 0, 0),
    AT("pci-hole-to-shared", 0xc0000000, 256 * MiB, 0, 0),
    AT("device-to-shared", GMTD_BASE, PAGE, 0, 0),
    AT("ioapic-to-shared", 0xfec00000, PAGE, 0, 0),
    AT("ram-end-to-shared", RAM_END - PAGE, 2 * PAGE, 0, 0),
};

static const struct range areas[] = {
    { AREA_BACKEND0 + PAGE, AREA_SIZE },
    { AREA_BACKEND1 + PAGE, AREA_SIZE },
    { BORDER - PAGE, AREA_SIZE },
};

static const struct range ram_end = { RAM_END - 16 * PAGE, 16 * PAGE };

static struct range with_neighbours(struct range range)
{
    return (struct range) { range.gpa - PAGE, range.size + 2 * PAGE };
}

static void check_unchanged(struct check *check, struct range range,
                            uint64_t generation)
{
    check_device(check, range);
    check_guest(check, range, CONTENT_KEPT, generation);
}

static void run_refusal(const struct refusal *refusal, struct range area,
                        uint64_t generation)
{
    uint64_t base = refusal->base == AT_AREA ? area.gpa : 0;
    struct range range = { base + refusal->gpa, refusal->size };
    struct check check = { 0 };
    struct answer answer;

    convert(&check, range, refusal->attributes, &answer);
    if (answer.status != refusal->status) {
        fail(&check, refusal->name, range.gpa, answer.status,
             refusal->status);
    }
    if (answer.detailed && !answer.status &&
        answer.outcome & GMTD_OUTCOME_VALID && range.gpa >= RAM_END) {
        fail(&check, "outcome-without-memory", range.gpa, answer.outcome, 0);
    }
    check_unchanged(&check, with_neighbours(area), generation);
    check_unchanged(&check, ram_end, generation);
    if (reported(&check)) {
        say("refusal name=%s gpa=0x%lx size=0x%lx attributes=0x%lx state=%s "
            "status=%ld want=%ld checked=%lu bad=%lu", refusal->name,
            range.gpa, range.size, refusal->attributes,
            page_private(area.gpa) ? "private" : "shared", answer.status,
            refusal->status, check.bytes, check.bad);
    }
    tally_add(&check, false);
}

/*
 * KVM makes requests of 2 MiB of one that TDX makes, and those before the hole
 * succeed.
 */
static bool succeeds_partly(const struct refusal *refusal)
{
    return options.platform == PLATFORM_TDX && refusal->base != AT_AREA &&
           refusal->gpa < RAM_END && refusal->size > 2 * MiB;
}

static bool makes_sense(const struct refusal *refusal)
{
    return options.via == VIA_TESTDEV ||
           (!refusal->device_only && !succeeds_partly(refusal));
}

static void run_area(struct range area, bool private)
{
    uint64_t generation = next_generation();
    struct check check = { 0 };
    struct answer answer;
    unsigned i;

    convert(&check, area, private ? PRIVATE : 0, &answer);
    if (answer.status) {
        fail(&check, "set-up", area.gpa, answer.status, 0);
    }
    tally_add(&check, false);
    pattern_fill(with_neighbours(area), generation);
    pattern_fill(ram_end, generation);
    for (i = 0; i < ARRAY_SIZE(refusals); i++) {
        if (makes_sense(&refusals[i])) {
            run_refusal(&refusals[i], area, generation);
        }
    }
}

/* Page size bits are KVM's: they are no hint and change nothing. */
static void page_size_bits(void)
{
    static const struct range range = { AREA_BACKEND0, 2 * MiB };
    struct check check = { 0 };
    struct answer answer;
    unsigned i;

    for (i = 0; i < 2; i++) {
        convert(&check, range, i ? 1 : PRIVATE | 1, &answer);
        if (answer.status) {
            fail(&check, "page-size-bits", range.gpa, answer.status, 0);
        }
        check_device(&check, range);
    }
    say("refusal name=page-size-bits gpa=0x%lx size=0x%lx attributes=0x1 "
        "state=both status=%ld want=0 checked=%lu bad=%lu", range.gpa,
        range.size, answer.status, check.bytes, check.bad);
    tally_add(&check, false);
}

/* The memory in front of a hole is converted, the hole does not matter. */
static void private_page_before_hole(void)
{
    const struct range last = { RAM_END - PAGE, PAGE };
    const struct range both = { RAM_END - PAGE, 2 * PAGE };
    uint64_t generation = next_generation();
    struct check check = { 0 };
    struct answer answer;

    pattern_fill(ram_end, generation);
    convert(&check, last, PRIVATE, &answer);
    convert(&check, both, mode_offered(false, MODE_PRESERVE) ? PRESERVE : 0,
            &answer);
    if (answer.status || page_private(last.gpa)) {
        fail(&check, "private-page-before-hole", both.gpa, answer.status, 0);
    }
    check_device(&check, ram_end);
    check_guest(&check, (struct range) { ram_end.gpa, ram_end.size - PAGE },
                CONTENT_KEPT, generation);
    say("refusal name=private-page-before-hole gpa=0x%lx size=0x%lx "
        "attributes=0x%lx state=private status=%ld want=0 checked=%lu "
        "bad=%lu", both.gpa, both.size, (uint64_t)PRESERVE, answer.status,
        check.bytes, check.bad);
    tally_add(&check, false);
}

/* READ and WRITE of every size, and commands that make no sense. */
static void device_rules(void)
{
    const uint64_t gpa = AREA_BACKEND0, word = 0x8877665544332211ULL;
    struct check check = { 0 };
    uint64_t value, mask, done;
    unsigned size;

    for (size = 1; size <= 8; size++) {
        mask = ~0ULL >> (64 - 8 * size);
        mem_write(gpa, word);
        if (device_read(gpa, size, &value) || value != (word & mask)) {
            fail(&check, "read-size", size, value, word & mask);
        }
        if (device_write(gpa, size, ~word) ||
            mem_read(gpa) != (word ^ mask)) {
            fail(&check, "write-size", size, mem_read(gpa), word ^ mask);
        }
        check.bytes += 16;
    }
    if (device_read(gpa, 0, &value) >= 0 ||
        device_read(gpa, 9, &value) >= 0 ||
        device_copy(gpa, GMTD_COPY_MAX + 8, BOUNCE, &done) >= 0 ||
        device_command(0, gpa, 8) >= 0 ||
        device_command(99, gpa, 8) >= 0) {
        fail(&check, "bad-command-accepted", gpa, 0, 0);
    }
    say("refusal name=device-rules gpa=0x%lx size=0x8 attributes=0x0 "
        "state=shared status=0 want=0 checked=%lu bad=%lu", gpa,
        check.bytes, check.bad);
    tally_add(&check, false);
}

void refusals_run(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(areas); i++) {
        run_area(areas[i], false);
        run_area(areas[i], true);
    }
    page_size_bits();
    private_page_before_hole();
    if (device_present()) {
        device_rules();
    }
}
