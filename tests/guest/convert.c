/*
 * Requests, the state that every page should have, and the statistics
 * that the other side should have counted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"

#define KVM_SIGNATURE_LEAF      0x40000000
#define NEXT_LEAVES             0x100
#define LAST_LEAVES             0x40010000

#define BACKENDS_MAX            2

struct counts {
    uint64_t requests;
    uint64_t directions[2];     /* to shared, to private */
    uint64_t modes[3];
    uint64_t hows[3];
    uint64_t converted[2];
    uint64_t already;
    uint64_t failures;
};

static struct counts counts[BACKENDS_MAX];
static uint64_t rejected;

/* A byte for each page: neighbours can belong to different vCPUs. */
static bool private_pages[RAM_PAGES];

bool page_private(uint64_t gpa)
{
    return gpa < RAM_END && private_pages[gpa / PAGE];
}

/* Where the memory in the range ends, be its size nonsense or not. */
static uint64_t memory_end(struct range range)
{
    uint64_t end = range.gpa + range.size;

    return end < range.gpa || end > RAM_END ? RAM_END : end;
}

uint64_t pages_in_state(struct range range, bool private)
{
    uint64_t end = memory_end(range), gpa, n = 0;

    for (gpa = range.gpa; gpa < end; gpa += PAGE) {
        n += page_private(gpa) == private;
    }
    return n;
}

/* Whatever the pages were, they are in this state now. */
void convert_settle(struct range range, bool private)
{
    uint64_t end = memory_end(range), gpa;

    for (gpa = range.gpa; gpa < end; gpa += PAGE) {
        private_pages[gpa / PAGE] = private;
    }
}

/* The signature is where KVM puts it when nothing else claims the leaf. */
bool hypercall_present(void)
{
    uint32_t regs[4];

    cpuid(KVM_SIGNATURE_LEAF, regs);
    return regs[1] == 0x4b4d564b && regs[2] == 0x564b4d56 &&
           regs[3] == 0x4d;             /* "KVMKVMKVM" */
}

static bool is_signature(const uint32_t *regs)
{
    const char *signature = GUEST_MEMFD_CPUID_SIGNATURE;
    const char *bytes = (const char *)regs;
    unsigned i;

    for (i = 0; i < 3 * sizeof(*regs) && bytes[i] == signature[i]; i++) {
        continue;
    }
    return i == 3 * sizeof(*regs);
}

bool cpuid_offer(uint32_t *features, uint64_t *to_shared,
                 uint64_t *to_private)
{
    uint32_t base, regs[4];

    for (base = KVM_SIGNATURE_LEAF; base < LAST_LEAVES; base += NEXT_LEAVES) {
        cpuid(base, regs);
        if (is_signature(&regs[1]) &&
            regs[0] >= base + GUEST_MEMFD_CPUID_FEATURES) {
            cpuid(base + GUEST_MEMFD_CPUID_FEATURES, regs);
            *features = regs[0];
            *to_shared = regs[1];
            *to_private = regs[2];
            return true;
        }
    }
    return false;
}

/* The bit that says that the hypercall is there. */
bool hypercall_in_cpuid(void)
{
    uint32_t regs[4];

    cpuid(KVM_SIGNATURE_LEAF + 1, regs);
    return regs[0] & 1 << KVM_FEATURE_HC_MAP_GPA_RANGE;
}

static bool cpu_is_amd(void)
{
    uint32_t regs[4];

    cpuid(0, regs);
    return (regs[1] == 0x68747541 && regs[2] == 0x444d4163) ||
           (regs[1] == 0x6f677948 && regs[2] == 0x656e6975);
}

int64_t hypercall(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2)
{
    /* The fourth argument is for numbers that are none of ours. */
    const uint64_t a3 = ~0ULL;
    int64_t result;

    if (cpu_is_amd()) {
        asm volatile("vmmcall" : "=a" (result)
                     : "a" (number), "b" (a0), "c" (a1), "d" (a2), "S" (a3)
                     : "memory");
    } else {
        asm volatile("vmcall" : "=a" (result)
                     : "a" (number), "b" (a0), "c" (a1), "d" (a2), "S" (a3)
                     : "memory");
    }
    /* KVM answers with negative values, the VMM behind it with positive. */
    return result > 0 ? -result : result;
}

struct range part_in_backend(struct range range, unsigned backend)
{
    uint64_t border = options.backends == 1 ? RAM_END : BORDER;
    uint64_t start = backend ? border : 0;
    uint64_t end = backend ? RAM_END : border;
    uint64_t from = range.gpa > start ? range.gpa : start;
    uint64_t to = range.gpa + range.size < end ? range.gpa + range.size : end;

    if (range.gpa + range.size < range.gpa || from >= to) {
        return (struct range) { 0, 0 };
    }
    return (struct range) { from, to - from };
}

static void add(uint64_t *counter, uint64_t n)
{
    __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static void count_backend(unsigned backend, struct range range,
                          bool to_private, const struct answer *answer)
{
    struct counts *c = &counts[backend];
    unsigned mode = GMTD_OUTCOME_MODE(answer->outcome);
    unsigned how = GMTD_OUTCOME_HOW(answer->outcome);
    uint64_t right = pages_in_state(range, to_private) * PAGE;

    add(&c->requests, 1);
    add(&c->directions[to_private], 1);
    if (mode < ARRAY_SIZE(c->modes) && how < ARRAY_SIZE(c->hows)) {
        add(&c->modes[mode], 1);
        add(&c->hows[how], 1);
    }
    if (answer->status) {
        add(&c->failures, 1);
    } else {
        add(&c->already, right);
        add(&c->converted[to_private], range.size - right);
    }
}

/*
 * A request that succeeds counts once in each backend that it touches, one
 * that the policy refuses in the first of them, and what does not get that
 * far counts for the whole machine.
 */
static void count(struct range range, bool to_private,
                  const struct answer *answer)
{
    bool refused = answer->outcome & GMTD_OUTCOME_VALID &&
                   GMTD_OUTCOME_HOW(answer->outcome) == HOW_REFUSED;
    struct range part;
    unsigned i;

    if (answer->status && !refused) {
        add(&rejected, 1);
        return;
    }
    for (i = 0; i < BACKENDS_MAX; i++) {
        part = part_in_backend(range, i);
        if (part.size) {
            count_backend(i, part, to_private, answer);
            if (refused) {
                break;
            }
        }
    }
}

static void ask(enum via via, struct range range, uint64_t attributes,
                struct answer *answer)
{
    *answer = (struct answer) { 0 };
    if (via == VIA_TESTDEV) {
        device_convert(range, attributes, answer);
    } else if (via == VIA_HYPERCALL) {
        answer->status = hypercall(KVM_HC_MAP_GPA_RANGE, range.gpa,
                                   range.size / PAGE, attributes);
    }
}

static void convert_via(enum via via, struct check *check,
                        struct range range, uint64_t attributes,
                        struct answer *answer)
{
    bool to_private = attributes & GMTD_ATTR_PRIVATE;

    ask(via, range, attributes, answer);
    count(range, to_private, answer);
    if (!answer->status) {
        answer->changed = answer->detailed ? answer->changed :
                          pages_in_state(range, !to_private) * PAGE;
        if (answer->changed != pages_in_state(range, !to_private) * PAGE) {
            fail(check, "changed-bytes", range.gpa, answer->changed,
                 pages_in_state(range, !to_private) * PAGE);
        }
        convert_settle(range, to_private);
    } else if (answer->detailed && answer->changed) {
        fail(check, "changed-bytes-of-failure", range.gpa, answer->changed,
             0);
    }
}

void convert(struct check *check, struct range range, uint64_t attributes,
             struct answer *answer)
{
    convert_via(options.via, check, range, attributes, answer);
}

/* The device says what changed, however other requests are made. */
void convert_device(struct check *check, struct range range,
                    uint64_t attributes, struct answer *answer)
{
    convert_via(VIA_TESTDEV, check, range, attributes, answer);
}

/* Not counted, and no word about the state: others convert it, too. */
int64_t convert_unchecked(struct range range, uint64_t attributes)
{
    struct answer answer;

    ask(options.via, range, attributes, &answer);
    return answer.status;
}

/* The expected answer of query-guest-memfd at the end. */
void convert_report(void)
{
    unsigned i;

    for (i = 0; i < options.backends; i++) {
        struct range ram = part_in_backend((struct range) { 0, RAM_END }, i);
        const struct counts *c = &counts[i];

        say("stats backend=%u requests=%lu to-shared=%lu to-private=%lu "
            "default=%lu zero=%lu preserve=%lu kernel=%lu emulated=%lu "
            "refused=%lu converted-to-shared=%lu converted-to-private=%lu "
            "already-right=%lu failures=%lu private-bytes=%lu",
            i, c->requests, c->directions[false], c->directions[true],
            c->modes[MODE_DEFAULT], c->modes[MODE_ZERO],
            c->modes[MODE_PRESERVE], c->hows[HOW_KERNEL],
            c->hows[HOW_EMULATED], c->hows[HOW_REFUSED],
            c->converted[false], c->converted[true], c->already,
            c->failures, pages_in_state(ram, true) * PAGE);
    }
    say("rejected count=%lu", rejected);
}
