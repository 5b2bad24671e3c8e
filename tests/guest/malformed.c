/*
 * Nonsense, at random: every request is refused and changes nothing
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The same seed gives the same requests.  Memory under observation has
 * pages in both states: in each backend, across the border and at the end
 * of memory.  Its bytes are checked from inside and through the device;
 * that no other page changed its state, the device shows when it converts it
 * to the state that it should have.
 */

#include "guest.h"

#define PRIVATE         GMTD_ATTR_PRIVATE
#define ZERO            GMTD_ATTR_ZERO
#define PRESERVE        GMTD_ATTR_PRESERVE
#define ATTR_KNOWN      (0xfULL | PRIVATE | ZERO | PRESERVE)

#define SAMPLE_SIZE     (256 * KiB)
#define SAMPLE_RUN      (4 * PAGE)      /* pages in the same state */
#define CHECKS          4               /* times that all is checked */
#define TOP             (~0ULL - PAGE + 1)
#define PCI_HOLE_END    0xb0000000UL
#define FIRMWARE        0xfffff000UL
#define HYPERCALLS      21

struct request {
    const char *name;
    uint64_t gpa;
    uint64_t size;          /* bytes, of pages those that count below */
    uint64_t pages;         /* what the hypercall says */
    uint64_t attributes;
};

static const struct range samples[] = {
    { AREA_BACKEND0 + PAGE, SAMPLE_SIZE },
    { AREA_BACKEND1 + PAGE, SAMPLE_SIZE },
    { BORDER - SAMPLE_SIZE / 2, SAMPLE_SIZE },
    { RAM_END - SAMPLE_SIZE, SAMPLE_SIZE },
};

static uint64_t seed;

static uint64_t below(uint64_t n)
{
    return random_below(&seed, n);
}

/* --- what makes a request wrong ---------------------------------------- */

/* A good request somewhere in memory, half of them in a sample. */
static struct request good(void)
{
    struct range sample = samples[below(ARRAY_SIZE(samples))];
    struct request r = { .pages = 1 + below(16) };

    if (below(2)) {
        sample = (struct range) { AREA_BACKEND0, RAM_END - AREA_BACKEND0 };
    }
    r.gpa = sample.gpa + below(sample.size / PAGE - r.pages) * PAGE;
    r.size = r.pages * PAGE;
    switch (below(3)) {
    case 0:
        r.attributes = below(2) ? PRIVATE | PRESERVE : PRIVATE;
        break;
    case 1:
        r.attributes = below(2) ? ZERO : PRESERVE;
        break;
    }
    return r;
}

static void set_pages(struct request *r, uint64_t pages)
{
    r->pages = pages;
    r->size = pages * PAGE;
}

/* The device takes bytes, which can be no pages at all. */
static void bad_shape(struct request *r)
{
    switch (below(options.via == VIA_HYPERCALL ? 2 : 3)) {
    case 0:
        r->name = "unaligned";
        r->gpa += 1 + below(PAGE - 1);
        break;
    case 1:
        r->name = "empty";
        set_pages(r, 0);
        break;
    case 2:
        r->name = "part-of-a-page";
        r->size -= 1 + below(PAGE - 1);
        break;
    }
}

static void too_large(struct request *r)
{
    static const uint64_t sizes[] = {
        1ULL << 52, 1ULL << 53, 1ULL << 63, ~0ULL - 0xffff, ~0ULL - 15,
    };

    r->name = "too-large";
    r->pages = sizes[below(ARRAY_SIZE(sizes))] + below(16);
    r->size = ~below(1ULL << 40);
    r->attributes |= PRIVATE;
    r->attributes &= ~ZERO;
}

static void wraps(struct request *r)
{
    uint64_t pages = below(1024);

    r->name = "wraps";
    r->gpa = TOP - pages * PAGE;
    set_pages(r, pages + 1 + below(1024));
}

static void bad_attributes(struct request *r)
{
    uint64_t bit;

    switch (below(4)) {
    case 0:
        r->name = "both-hints";
        r->attributes |= ZERO | PRESERVE;
        break;
    case 1:
        r->name = "zero-to-private";
        r->attributes = PRIVATE | ZERO;
        break;
    default:
        r->name = "unknown-bit";
        do {
            bit = 1ULL << below(64);
        } while (bit & ATTR_KNOWN);
        r->attributes |= bit | below(16);
        break;
    }
}

/* To-shared may pass over what is no memory; to-private may not. */
static void no_memory(struct request *r)
{
    static const uint64_t addresses[] = {
        GMTD_BASE, 0xfec00000, 0xfed00000, 0xfee00000, FIRMWARE,
    };

    r->attributes = below(2) ? PRIVATE | PRESERVE : PRIVATE;
    switch (below(4)) {
    case 0:
        r->name = "hole";
        r->gpa = RAM_END + below((PCI_HOLE_END - RAM_END) / PAGE) * PAGE;
        set_pages(r, 1 + below(16384));
        break;
    case 1:
        r->name = "far-away";
        r->gpa = (1ULL << (32 + below(31))) + below(1 << 20) * PAGE;
        set_pages(r, 1 + below(16384));
        break;
    case 2:
        r->name = "no-memory";
        r->gpa = addresses[below(ARRAY_SIZE(addresses))];
        set_pages(r, 1);
        break;
    case 3:
        r->name = "beyond-the-end";
        r->gpa = RAM_END - (1 + below(8192)) * PAGE;
        set_pages(r, (RAM_END - r->gpa) / PAGE + 1 + below(8192));
        break;
    }
}

/* --- making it --------------------------------------------------------- */

static int64_t make(struct check *check, const struct request *r)
{
    struct answer answer;

    if (options.via == VIA_HYPERCALL) {
        return hypercall(KVM_HC_MAP_GPA_RANGE, r->gpa, r->pages,
                         r->attributes);
    }
    convert(check, (struct range) { r->gpa, r->size }, r->attributes,
            &answer);
    return answer.status;
}

/*
 * Hypercalls that are not ours.  1, 5 and 11 (poll, kick, yield) do no
 * harm and answer 0: make them, but ask for another number.
 */
static int64_t other_hypercall(struct request *r)
{
    const uint64_t harmless = 1 << 1 | 1 << 5 | 1 << 11;
    uint64_t number;

    r->name = "other-hypercall";
    do {
        number = below(2) ? below(HYPERCALLS) :
                 random_next(&seed) | 1ULL << (32 + below(32));
        if (number < HYPERCALLS && harmless >> number & 1) {
            hypercall(number, r->gpa, r->pages, r->attributes);
            number = KVM_HC_MAP_GPA_RANGE;
        }
    } while (number == KVM_HC_MAP_GPA_RANGE);
    return hypercall(number, r->gpa, r->pages, r->attributes);
}

static int64_t bad_command(struct request *r)
{
    uint64_t hole = RAM_END + below(PCI_HOLE_END - RAM_END - PAGE);
    uint64_t big = random_next(&seed), done;

    r->name = "command";
    switch (below(7)) {
    case 0:
        return device_command(7 + below(256), r->gpa, r->size);
    case 1:
        return device_command(big | 1 << 8, r->gpa, r->size);
    case 2:
        return device_command(below(2) ? GMTD_CMD_READ : GMTD_CMD_WRITE,
                              r->gpa, below(2) ? 0 : big | 16);
    case 3:
        return device_copy(r->gpa, GMTD_COPY_MAX + 1 + (big >> 1),
                           bounce_buffer(), &done);
    case 4:
        return device_copy(hole, 8, bounce_buffer(), &done);
    case 5:
        return device_write(hole, 1 + below(8), big);
    default:
        return device_command(GMTD_CMD_PIN, hole, r->size);
    }
}

static int64_t one(struct check *check, struct request *r)
{
    static void (*const wrong[])(struct request *r) = {
        bad_shape, too_large, wraps, bad_attributes, no_memory,
    };
    uint64_t kind = below(ARRAY_SIZE(wrong) + 1);

    *r = good();
    if (kind < ARRAY_SIZE(wrong)) {
        wrong[kind](r);
        return make(check, r);
    }
    return options.via == VIA_HYPERCALL ? other_hypercall(r) :
                                          bad_command(r);
}

/* --- nothing has changed ----------------------------------------------- */

static void set_up(struct check *check, uint64_t generation)
{
    struct answer answer;
    struct range run;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(samples); i++) {
        run = (struct range) { samples[i].gpa, SAMPLE_RUN };
        for (; run.gpa < samples[i].gpa + SAMPLE_SIZE;
             run.gpa += 2 * SAMPLE_RUN) {
            convert(check, run, PRIVATE, &answer);
            if (answer.status) {
                fail(check, "set-up", run.gpa, answer.status, 0);
            }
        }
        pattern_fill(samples[i], generation);
    }
}

/* The device has nothing to do for any page, so all are as they were. */
static void check_states(struct check *check)
{
    struct range run = { FREE_START, 0 };
    struct answer answer;

    for (; run.gpa < RAM_END; run.gpa += run.size) {
        bool private = page_private(run.gpa);

        run.size = PAGE;
        while (run.gpa + run.size < RAM_END &&
               page_private(run.gpa + run.size) == private) {
            run.size += PAGE;
        }
        convert_device(check, run, private ? PRIVATE : 0, &answer);
        if (answer.status) {
            fail(check, "state", run.gpa, answer.status, 0);
        }
    }
}

static void check_all(struct check *check, uint64_t generation)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(samples); i++) {
        check_guest(check, samples[i], CONTENT_KEPT, generation);
        check_device(check, samples[i]);
    }
    if (device_present()) {
        check_states(check);
    }
}

unsigned malformed_run(void)
{
    uint64_t generation = next_generation();
    unsigned every = options.count / CHECKS + 1, refused = 0, i;
    struct check check = { 0 };
    struct request r;
    int64_t status;

    seed = options.seed;
    say("malformed-start count=%u seed=%u", options.count, options.seed);
    set_up(&check, generation);
    for (i = 1; i <= options.count; i++) {
        status = one(&check, &r);
        refused += status != 0;
        if (!status) {
            fail(&check, r.name, r.gpa, r.pages, r.attributes);
        }
        if (i % every == 0) {
            check_all(&check, generation);
        }
    }
    check_all(&check, generation);
    say("malformed count=%u refused=%u", options.count, refused);
    tally_add(&check, false);
    return 1;
}
