/*
 * Requests that QEMU 10.2.2 without this project gets wrong
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One to a run, because some stop the guest there.  The result is printed and
 * not judged: tests/defects knows what to expect of which QEMU.
 */

#include "guest.h"

#define PRIVATE         GMTD_ATTR_PRIVATE
#define SHARED          0

#define PAM_LOW_RAM     0x03        /* the lower 16 KiB are RAM */
#define PAM_BOTH_RAM    0x33

/* There is little memory then: the host maps it page by page. */
#define NOTIFY_AT       (6 * MiB)

/* Memory that was plugged in, with a hole in front of it. */
#define DIMM            0x108000000UL
#define MAPPED_AT       (4 * GiB)
#define LARGE_PAGE      (2 * MiB)
#define PTE_TABLE       0x003
#define PTE_LARGE       0x083

/* One more GiB than boot.S maps. */
static void map_dimm(void)
{
    static uint64_t table[512] __attribute__((aligned(4096)));
    uint64_t *top, *directories;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(table); i++) {
        table[i] = (MAPPED_AT + i * LARGE_PAGE) | PTE_LARGE;
    }
    asm volatile("mov %%cr3, %0" : "=r" (top));
    directories = (uint64_t *)(top[0] & ~(PAGE - 1));
    directories[MAPPED_AT / GiB] = (uint64_t)table | PTE_TABLE;
}

/* The request is in two memory regions. */
static void two_regions(void)
{
    const struct range range = { BORDER - 2 * PAGE, 4 * PAGE };
    uint64_t generation = next_generation();
    int64_t to_private, to_shared;
    uint64_t bad;

    to_private = convert_unchecked(range, PRIVATE);
    pattern_fill(range, generation);
    bad = pattern_bad(range, generation);
    to_shared = convert_unchecked(range, SHARED);
    say("defect to-private=%ld to-shared=%ld bad=%lu not-zero=%lu",
        to_private, to_shared, bad, zero_bad(range));
}

/* The request begins in a hole, and a private page follows it. */
static void hole(void)
{
    const struct range ram = { DIMM, 4 * PAGE };
    const struct range request = { ram.gpa - PAGE, 2 * PAGE };
    const struct range others = { ram.gpa + PAGE, ram.size - PAGE };
    uint64_t generation = next_generation();
    int64_t to_private, to_shared;

    map_dimm();
    to_private = convert_unchecked(ram, PRIVATE);
    pattern_fill(ram, generation);
    to_shared = convert_unchecked(request, SHARED);
    say("defect to-private=%ld to-shared=%ld not-zero=%lu others-lost=%lu",
        to_private, to_shared,
        zero_bad((struct range) { ram.gpa, PAGE }),
        pattern_bad(others, generation));
}

/* The memslot of shared memory grows, which is nothing that it asked for. */
static void slot(void)
{
    const struct range ram = { 0xc8000, 4 * PAGE };
    uint64_t generation = next_generation();
    int64_t to_shared;
    uint64_t before;

    pam_set(PAM_C8000, PAM_LOW_RAM);
    to_shared = convert_unchecked(ram, SHARED);
    pattern_fill(ram, generation);
    before = pattern_bad(ram, generation);
    pam_set(PAM_C8000, PAM_BOTH_RAM);
    say("defect to-shared=%ld bad-before=%lu bad-after=%lu", to_shared,
        before, pattern_bad(ram, generation));
}

/* There is no memory to be made private. */
static void bad_request(void)
{
    const struct range no_memory = { RAM_END, PAGE };

    say("defect to-private=%ld", convert_unchecked(no_memory, PRIVATE));
}

/* Where a device may go: the host looks what happens in what order. */
static void notify(void)
{
    const struct range range = { NOTIFY_AT, 2 * PAGE };
    int64_t to_private = convert_unchecked(range, PRIVATE);

    say("defect to-private=%ld to-shared=%ld", to_private,
        convert_unchecked(range, SHARED));
}

void defects_run(void)
{
    static void (*const runs[])(void) = {
        [DEFECT_TWO_REGIONS] = two_regions,
        [DEFECT_HOLE] = hole,
        [DEFECT_SLOT] = slot,
        [DEFECT_BAD_REQUEST] = bad_request,
        [DEFECT_NOTIFY] = notify,
    };

    say("begin");
    runs[options.defect]();
}
