/*
 * Conversions of ranges of every size, region, direction and intent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One case:
 *
 * 1. Bring the range to its start state: the other state throughout, or
 *    mixed, some pages having the wanted state already, or all of them.
 * 2. Write a fresh pattern over the range and the page on either side.
 * 3. Ask for the conversion; status, mode and realisation are as
 *    promised.
 * 4.  Through the device: shared pages have the very bytes of the guest,
 *    private pages refuse everything.
 * 5. Inside the guest: every byte is what the mode promises; pages that
 *    had the state already and the neighbours keep theirs.
 */

#include "guest.h"

enum start { START_UNIFORM, START_REPEAT, START_ONE_PAGE, START_ALTERNATE };

struct step {
    bool to_private;
    uint64_t intent;
    bool repeat;
};

struct region {
    const char *name;
    const char *alignment;
    struct range range;
};

#define SHARED      false
#define PRIVATE     true
#define UNSPECIFIED 0
#define ZERO        GMTD_ATTR_ZERO
#define PRESERVE    GMTD_ATTR_PRESERVE

static const struct step chain_uniform[] = {
    { PRIVATE, UNSPECIFIED, false },
    { PRIVATE, UNSPECIFIED, true },
    { SHARED, UNSPECIFIED, false },
    { SHARED, ZERO, true },
    { PRIVATE, PRESERVE, false },
    { SHARED, PRESERVE, false },
    { PRIVATE, UNSPECIFIED, false },
    { SHARED, ZERO, false },
};

static const struct step chain_mixed[] = {
    { PRIVATE, UNSPECIFIED, false },
    { SHARED, UNSPECIFIED, false },
    { PRIVATE, PRESERVE, false },
    { SHARED, PRESERVE, false },
    { PRIVATE, UNSPECIFIED, false },
    { SHARED, ZERO, false },
};

/* One page cannot cross the border: the last, the first, and both. */
static const struct region pages[] = {
    { "backend0", "aligned", { AREA_BACKEND0, PAGE } },
    { "backend0", "off-by-page", { AREA_BACKEND0 + PAGE, PAGE } },
    { "backend1", "aligned", { AREA_BACKEND1, PAGE } },
    { "backend1", "off-by-page", { AREA_BACKEND1 + PAGE, PAGE } },
    { "backend0", "at-border", { BORDER - PAGE, PAGE } },
    { "backend1", "at-border", { BORDER, PAGE } },
    { "border", "aligned", { BORDER - PAGE, 2 * PAGE } },
};

static const uint64_t sizes[] = { 64 * KiB, 2 * MiB, 64 * MiB };

static const struct site {
    const char *name;
    uint64_t gpa;
    bool across;                    /* half the range lies before gpa */
} sites[] = {
    { "backend0", AREA_BACKEND0, false },
    { "backend1", AREA_BACKEND1, false },
    { "border", BORDER, true },
};

static uint64_t offered[2];         /* hint bits, to shared, to private */

static const uint64_t promised[][2] = {
    [EXPECT_EMULATED] = { ZERO | PRESERVE, PRESERVE },
    [EXPECT_CONTENT_MODES] = { ZERO | PRESERVE, PRESERVE },
    [EXPECT_IN_PLACE] = { ZERO, 0 },
    [EXPECT_TWO_BACKINGS] = { ZERO, 0 },
};

/* CPUID agrees with the file, and has the bit of the hypercall. */
static void check_cpuid(struct check *check)
{
    uint64_t hints[2] = { 0 };
    uint32_t features = 0;
    unsigned i;

    if (!cpuid_offer(&features, &hints[SHARED], &hints[PRIVATE])) {
        fail(check, "cpuid-leaf", 0, 0, 1);
    }
    say("cpuid features=0x%x to-shared=0x%lx to-private=0x%lx cpuid=%u",
        features, hints[SHARED], hints[PRIVATE], hypercall_in_cpuid());
    if (features != GUEST_MEMFD_CPUID_STARTS_SHARED) {
        fail(check, "cpuid-features", 0, features,
             GUEST_MEMFD_CPUID_STARTS_SHARED);
    }
    if (!hypercall_in_cpuid()) {
        fail(check, "cpuid-hypercall", 0, 0, 1);
    }
    for (i = 0; i < 2; i++) {
        if (hints[i] != offered[i]) {
            fail(check, "cpuid-offer", i, hints[i], offered[i]);
        }
    }
}

/* The offer that this provider should have. */
void cases_offer(void)
{
    struct check check = { 0 };
    uint32_t version = 0;
    unsigned i;

    if (!fwcfg_offer(&version, &offered[SHARED], &offered[PRIVATE])) {
        say("fwcfg version=0 to-shared=0x0 to-private=0x0");
        fail(&check, "fwcfg-file", 0, version, GUEST_MEMFD_FW_CFG_VERSION);
    } else {
        say("fwcfg version=%u to-shared=0x%lx to-private=0x%lx", version,
            offered[SHARED], offered[PRIVATE]);
    }
    for (i = 0; i < 2; i++) {
        uint64_t want = promised[options.expect][i];

        /* Encrypted memory cannot keep its bytes. */
        if (options.platform != PLATFORM_NONE) {
            want &= ~(uint64_t)PRESERVE;
        }
        if (offered[i] != want) {
            fail(&check, "fwcfg-offer", i, offered[i], want);
        }
    }
    /* Others have a CPUID that they can trust, and it has no such leaf. */
    if (options.platform == PLATFORM_NONE) {
        check_cpuid(&check);
    }
    tally_add(&check, false);
}

bool mode_offered(bool to_private, enum mode mode)
{
    return mode == MODE_DEFAULT ||
           (offered[to_private] & (mode == MODE_ZERO ? ZERO : PRESERVE));
}

/* Nothing is cleared for a host that could not read it before. */
static bool cleared_by_default(void)
{
    return options.platform == PLATFORM_NONE ||
           options.expect == EXPECT_TWO_BACKINGS;
}

static enum mode expected_mode(const struct step *step)
{
    if (step->intent == PRESERVE) {
        return MODE_PRESERVE;
    }
    return !step->to_private && (step->intent == ZERO ||
                                 cleared_by_default()) ?
           MODE_ZERO : MODE_DEFAULT;
}

/* Page by page takes long with large ranges: quick does it in one region. */
static bool alternates_by_page(struct range range)
{
    bool border = range.gpa < BORDER && range.gpa + range.size > BORDER;

    return range.size < 2 * MiB ||
           (range.size == 2 * MiB && (options.full || border));
}

/* True for pages that have the wanted state before the conversion. */
static bool right_already(enum start start, struct range range,
                          uint64_t page)
{
    uint64_t pages = range.size / PAGE;
    uint64_t run = alternates_by_page(range) ? 1 : 16;

    switch (start) {
    case START_REPEAT:
        return true;
    case START_ONE_PAGE:
        return page == pages / 2;
    case START_ALTERNATE:
        return page / run % 2;
    default:
        return false;
    }
}

/* Pages [page, page + n): the longest run that starts alike. */
static uint64_t run_length(enum start start, struct range range,
                           uint64_t page)
{
    bool right = right_already(start, range, page);
    uint64_t n = 1;

    while (page + n < range.size / PAGE &&
           right_already(start, range, page + n) == right) {
        n++;
    }
    return n;
}

static void set_up(struct check *check, struct range range, bool private)
{
    struct answer answer;

    if (pages_in_state(range, !private)) {
        convert(check, range, private ? GMTD_ATTR_PRIVATE : 0, &answer);
        if (answer.status) {
            fail(check, "set-up", range.gpa, answer.status, 0);
        }
    }
}

/* Step 1.  A range that is largely right already needs few requests. */
static void set_start(struct check *check, enum start start,
                      struct range range, bool to_private)
{
    uint64_t page, n;

    if (start != START_REPEAT) {
        set_up(check, range, !to_private);
    }
    for (page = 0; page < range.size / PAGE; page += n) {
        n = run_length(start, range, page);
        if (right_already(start, range, page)) {
            set_up(check, (struct range) { range.gpa + page * PAGE,
                                           n * PAGE }, to_private);
        }
    }
}

/* A hypercall can only say that the request was invalid. */
static int64_t refused_status(void)
{
    return options.via == VIA_HYPERCALL ? -GUEST_EINVAL : -GUEST_EOPNOTSUPP;
}

/* Step 3: the answer is the promised one. */
static void check_answer(struct check *check, const struct region *region,
                         const struct step *step,
                         const struct answer *answer)
{
    enum mode mode = expected_mode(step);
    bool good = mode_offered(step->to_private, mode);
    unsigned how = GMTD_OUTCOME_HOW(answer->outcome);

    if (good != !answer->status || answer->status > 0) {
        fail(check, "status", region->range.gpa, answer->status, good);
    }
    if (!good && answer->status != refused_status()) {
        fail(check, "status-of-refusal", region->range.gpa, answer->status,
             refused_status());
    }
    if (!answer->detailed) {
        return;
    }
    if (!(answer->outcome & GMTD_OUTCOME_VALID) ||
        GMTD_OUTCOME_MODE(answer->outcome) != mode) {
        fail(check, "mode", region->range.gpa, answer->outcome, mode);
    }
    if (good != (how == HOW_KERNEL || how == HOW_EMULATED)) {
        fail(check, "realisation", region->range.gpa, how, good);
    }
}

/* Step 5: what the guest reads, run by run. */
static void check_contents(struct check *check, enum start start,
                           struct range range, const struct step *step,
                           bool converted, uint64_t generation)
{
    static const enum content contents[] = {
        [MODE_DEFAULT] = CONTENT_ANY,
        [MODE_ZERO] = CONTENT_ZERO,
        [MODE_PRESERVE] = CONTENT_KEPT,
    };
    enum content content = contents[expected_mode(step)];
    uint64_t page, n;

    for (page = 0; page < range.size / PAGE; page += n) {
        struct range run;

        n = run_length(start, range, page);
        run = (struct range) { range.gpa + page * PAGE, n * PAGE };
        check_guest(check, run,
                    !converted || right_already(start, range, page) ?
                    CONTENT_KEPT : content, generation);
    }
}

static const char *const start_names[] = {
    [START_UNIFORM] = "uniform",
    [START_REPEAT] = "repeat",
    [START_ONE_PAGE] = "one-page-right",
    [START_ALTERNATE] = "alternate",
};

static const char *mode_name(const struct answer *answer,
                             const struct step *step)
{
    static const char *const names[] = { "default", "zero", "preserve" };
    unsigned mode = answer->detailed ? GMTD_OUTCOME_MODE(answer->outcome) :
                    expected_mode(step);

    return mode < ARRAY_SIZE(names) ? names[mode] : "?";
}

static const char *how_name(const struct answer *answer)
{
    static const char *const names[] = { "kernel", "emulated", "refused" };
    unsigned how = GMTD_OUTCOME_HOW(answer->outcome);

    return !answer->detailed ? (answer->status ? "refused" : "-") :
           how < ARRAY_SIZE(names) ? names[how] : "?";
}

static const char *intent_name(uint64_t intent)
{
    return intent == ZERO ? "zero" :
           intent == PRESERVE ? "preserve" : "unspecified";
}

struct view {
    const char *guest;
    const char *device;
};

static struct view look(struct range range, uint64_t generation)
{
    return (struct view) { guest_sees(range, generation),
                           device_sees(range, generation) };
}

static void report(const struct region *region, const struct step *step,
                   enum start start, const struct answer *answer,
                   struct view before, struct view after,
                   const struct check *check)
{
    say("case gpa=0x%lx size=0x%lx place=%s align=%s start=%s dir=%s "
        "intent=%s status=%ld mode=%s how=%s changed=0x%lx "
        "guest_before=%s guest_after=%s device_before=%s device_after=%s "
        "checked=%lu bad=%lu", region->range.gpa, region->range.size,
        region->name, region->alignment, start_names[start],
        step->to_private ? "to-private" : "to-shared",
        intent_name(step->intent), answer->status, mode_name(answer, step),
        how_name(answer), answer->changed, before.guest, after.guest,
        before.device, after.device, check->bytes, check->bad);
}

static void run_case(const struct region *region, const struct step *step,
                     enum start start)
{
    struct range range = region->range;
    struct range below = { range.gpa - PAGE, PAGE };
    struct range above = { range.gpa + range.size, PAGE };
    struct range all = { below.gpa, range.size + 2 * PAGE };
    uint64_t generation = next_generation();
    struct view before, after;
    struct check check = { 0 };
    struct answer answer;

    set_start(&check, start, range, step->to_private);
    pattern_fill(all, generation);
    before = look(range, generation);

    convert(&check, range, step->intent |
            (step->to_private ? GMTD_ATTR_PRIVATE : 0), &answer);
    check_answer(&check, region, step, &answer);
    after = look(range, generation);

    check_device(&check, all);
    check_contents(&check, start, range, step, !answer.status, generation);
    check_guest(&check, below, CONTENT_KEPT, generation);
    check_guest(&check, above, CONTENT_KEPT, generation);

    if (reported(&check)) {
        report(region, step, start, &answer, before, after, &check);
    }
    tally_add(&check, true);
}

/* The neighbours differ: one is private and the other one shared. */
static void run_range(const struct region *region, bool below_private)
{
    struct range range = region->range;
    struct check check = { 0 };
    enum start start;
    unsigned i;

    set_up(&check, (struct range) { range.gpa - PAGE, PAGE }, below_private);
    set_up(&check, (struct range) { range.gpa + range.size, PAGE },
           !below_private);
    tally_add(&check, false);

    for (i = 0; i < ARRAY_SIZE(chain_uniform); i++) {
        run_case(region, &chain_uniform[i], chain_uniform[i].repeat ?
                 START_REPEAT : START_UNIFORM);
    }
    for (start = START_ONE_PAGE; start <= START_ALTERNATE; start++) {
        if (range.size < 2 * PAGE || (start == START_ONE_PAGE &&
                                      !options.full)) {
            continue;
        }
        for (i = 0; i < ARRAY_SIZE(chain_mixed); i++) {
            run_case(region, &chain_mixed[i], start);
        }
    }
}

static void run_site(const struct site *site, uint64_t size)
{
    uint64_t gpa = site->across ? site->gpa - size / 2 : site->gpa;
    const struct region aligned = { site->name, "aligned", { gpa, size } };
    const struct region off = { site->name, "off-by-page",
                               { gpa + PAGE, size } };

    run_range(&aligned, false);
    run_range(&off, true);
}

void cases_run(void)
{
    unsigned i, j;

    for (i = 0; i < ARRAY_SIZE(pages); i++) {
        run_range(&pages[i], i % 2);
    }
    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        for (j = 0; j < ARRAY_SIZE(sites); j++) {
            if (options.full || sizes[i] <= 2 * MiB) {
                run_site(&sites[j], sizes[i]);
            }
        }
    }
}

/* One of several vCPUs: small ranges of its own, side by side. */
void cases_run_slice(unsigned slice)
{
    static const uint64_t slice_sizes[] = { 4 * KiB, 64 * KiB, 2 * MiB };
    uint64_t area = slice % 2 ? AREA_BACKEND1 : AREA_BACKEND0;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(slice_sizes); i++) {
        struct region region = {
            slice % 2 ? "backend1" : "backend0", "off-by-page",
            { area + slice / 2 * (2 * MiB + 3 * PAGE) + PAGE,
              slice_sizes[i] }
        };

        run_range(&region, slice % 2);
    }
}
