/*
 * Devices of the host that do DMA, while their memory is converted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An NVMe disk, which is there from the start, and the educational device,
 * which is plugged in while memory is private.  NVMe reads and writes blocks
 * of shared pages only: QEMU's NVMe waits for pages that it cannot map.  The
 * 4 KiB that its Identify command writes are just lost there.
 *
 * Lines that begin with "iommu-" are for tests/guest-memfd/iommu-calls.c.
 */

#include "guest.h"
#include "assigned.h"

#define NVME_ID         0x00101b36
#define EDU_ID          0x11e81234
#define PORT_ID         0x000c1b36

#define IDENTIFY_COPY   (NVME_MEMORY + MiB)
#define BOUNCE_PAGE     (IDENTIFY_COPY + PAGE)

#define FLAG            0x676d656d2d626f6fULL   /* in block 0: second boot */
#define DATA_LBA        64
#define WAIT_MAX_US     (300 * 1000000UL)    /* on a busy machine */

#define STORM           (AREA_BACKEND0 + 68 * MiB)
#define STORM_PAGES     64
#define IN_FLIGHT       8

static struct check all;
static uint64_t identified;     /* where a copy of its bytes is */

void assigned_want(const char *what, uint64_t at, uint64_t got,
                   uint64_t expected)
{
    if (got != expected) {
        fail(&all, what, at, got, expected);
    }
}

int64_t assigned_convert(struct range range, uint64_t attributes)
{
    struct answer answer;
    struct check check = { 0 };

    convert(&check, range, attributes, &answer);
    all.bad += check.bad;
    tally_add(&check, true);
    return answer.status;
}

static void must_convert(struct range range, uint64_t attributes)
{
    assigned_want("assigned-convert", range.gpa,
                  assigned_convert(range, attributes), 0);
}

/* --- what the disk can reach ------------------------------------------- */

static struct range page_at(uint64_t gpa)
{
    return (struct range) { gpa, PAGE };
}

static void fill_pages(const uint64_t *pages, unsigned n, uint64_t generation)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        pattern_fill(page_at(pages[i]), generation);
    }
}

/* To the disk, and back to where it came from. */
void assigned_reach(const uint64_t *pages, unsigned n)
{
    uint64_t generation = next_generation();
    unsigned i;

    fill_pages(pages, n, generation);
    nvme_start(true, DATA_LBA, pages, n);
    assigned_want("assigned-write", pages[0], nvme_end(), 0);
    fill_pages(pages, n, next_generation());
    nvme_start(false, DATA_LBA, pages, n);
    assigned_want("assigned-read", pages[0], nvme_end(), 0);
    for (i = 0; i < n; i++) {
        assigned_want("assigned-bytes", pages[i],
                      pattern_bad(page_at(pages[i]), generation), 0);
    }
    all.bytes += n * PAGE;
}

/* 128 pages of a range that is shared, the first and the last among them. */
void assigned_reach_range(struct range range)
{
    uint64_t pages[NVME_PAGES_MAX];
    uint64_t n = range.size / PAGE, i;

    n = n < NVME_PAGES_MAX ? n : NVME_PAGES_MAX;
    for (i = 0; i < n; i++) {
        pages[i] = range.gpa +
                   (n > 1 ? i * (range.size / PAGE - 1) / (n - 1) : 0) * PAGE;
    }
    assigned_reach(pages, n);
}

/* A private page keeps what the guest has written. */
void assigned_keeps(uint64_t gpa)
{
    uint64_t generation = next_generation();

    pattern_fill(page_at(gpa), generation);
    nvme_identify(gpa);
    assigned_want("assigned-private", gpa,
                  pattern_bad(page_at(gpa), generation), 0);
    all.bytes += PAGE;
}

static void keeps_range(struct range range)
{
    assigned_keeps(range.gpa);
    assigned_keeps(range.gpa + range.size / 2 / PAGE * PAGE);
    assigned_keeps(range.gpa + range.size - PAGE);
}

/* --- conversions of one size ------------------------------------------- */

static void measured(const char *name, struct range range,
                     uint64_t attributes)
{
    uint64_t us;

    say("iommu-count name=before");
    us = clock_us();
    must_convert(range, attributes);
    us = clock_us() - us;
    say("iommu-count name=%s-%s", name,
        attributes & GMTD_ATTR_PRIVATE ? "to-private" : "to-shared");
    say("assigned-time name=%s private=%u us=%lu", name,
        !!(attributes & GMTD_ATTR_PRIVATE), us);
}

static void size(const char *name, uint64_t bytes)
{
    const struct range range = { AREA_BACKEND0, bytes };

    assigned_reach_range(range);
    measured(name, range, GMTD_ATTR_PRIVATE);
    keeps_range(range);
    measured(name, range, GMTD_ATTR_ZERO);
    assigned_reach_range(range);
    say("assigned-size name=%s bad=%lu", name, all.bad);
}

static uint64_t alternate_page(unsigned n, bool private)
{
    return AREA_BACKEND0 + (2 * n + private) * PAGE;
}

static void reach_alternate(unsigned n)
{
    uint64_t pages[NVME_PAGES_MAX];
    unsigned i;

    for (i = 0; i < n; i++) {
        pages[i % NVME_PAGES_MAX] = alternate_page(i, false);
        if (i % NVME_PAGES_MAX == NVME_PAGES_MAX - 1 || i == n - 1) {
            assigned_reach(pages, i % NVME_PAGES_MAX + 1);
        }
    }
}

static void alternate(unsigned n)
{
    const struct range range = { AREA_BACKEND0, 2 * n * PAGE };
    uint64_t us;
    unsigned i;

    say("iommu-count name=before");
    us = clock_us();
    for (i = 0; i < n; i++) {
        must_convert(page_at(alternate_page(i, true)), GMTD_ATTR_PRIVATE);
    }
    us = clock_us() - us;
    say("iommu-count name=alternate-to-private");
    say("assigned-alternate pages=%u us=%lu", n, us);
    reach_alternate(n);
    for (i = 0; i < n; i += 50) {
        assigned_keeps(alternate_page(i, true));
    }
    measured("alternate", range, GMTD_ATTR_ZERO);
    assigned_reach_range(range);
}

/* --- DMA all the time -------------------------------------------------- */

static uint64_t neighbours(uint64_t *state, struct range range,
                           uint64_t *pages)
{
    uint64_t n = 0;

    while (n < IN_FLIGHT) {
        uint64_t gpa = STORM + random_below(state, STORM_PAGES) * PAGE;

        if (gpa - range.gpa >= range.size) {
            pages[n++] = gpa;
        }
    }
    return n;
}

/* The bytes that Identify wrote, or the zeros that were there before. */
static void check_identified(uint64_t gpa)
{
    uint64_t i, bad = 0;

    for (i = 0; i < PAGE; i += 8) {
        uint64_t word = mem_read(gpa + i);

        bad += word && word != mem_read(identified + i);
    }
    assigned_want("storm-shared", gpa, bad, 0);
}

/* Convert with I/O under way to both what is converted, and beside it. */
static void storm_convert(uint64_t *state, struct range range,
                          uint64_t attributes)
{
    uint64_t pages[IN_FLIGHT], n, i;

    n = neighbours(state, range, pages);
    for (i = 0; i < n; i++) {
        nvme_start(false, DATA_LBA, &pages[i], 1);
    }
    nvme_identify_start(range.gpa + range.size - PAGE);
    must_convert(range, attributes);
    for (i = 0; i < n; i++) {
        assigned_want("storm-read", pages[i], nvme_end(), 0);
    }
}

/* It may fail, but has to end: the device would write later otherwise. */
static void end_identify(uint64_t gpa)
{
    assigned_want("storm-identify", gpa, nvme_identify_end() < 0, false);
}

static void storm_round(uint64_t *state, uint64_t first)
{
    uint64_t from = random_below(state, STORM_PAGES);
    uint64_t n = 1 + random_below(state, STORM_PAGES - from);
    const struct range range = { STORM + from * PAGE, PAGE *
                                 (n < STORM_PAGES / 2 ? n : 1) };
    uint64_t generation = next_generation();
    const uint64_t last = range.gpa + range.size - PAGE;

    storm_convert(state, range, GMTD_ATTR_PRIVATE);
    pattern_fill(range, generation);
    end_identify(last);
    nvme_identify(last);
    assigned_want("storm-private", range.gpa, pattern_bad(range, generation),
                  0);
    storm_convert(state, range, GMTD_ATTR_ZERO);
    end_identify(last);
    check_identified(last);
    assigned_want("storm-page", first, mem_read(first), FLAG);
}

static unsigned storm(uint64_t us)
{
    uint64_t state = options.seed, end = clock_us() + us, bad = all.bad;
    const uint64_t page = BOUNCE_PAGE;
    unsigned rounds = 0;

    mem_write(page, FLAG);
    nvme_io(true, DATA_LBA, page_at(page));
    for (; clock_us() < end && all.bad == bad; rounds++) {
        storm_round(&state, page);
    }
    return rounds;
}

/* --- plugging ---------------------------------------------------------- */

static unsigned wait_plugged(unsigned bus)
{
    uint64_t end = clock_us() + WAIT_MAX_US;
    unsigned bdf;

    do {
        bdf = pci_find(bus, EDU_ID);
    } while (bdf == PCI_NONE && clock_us() < end);
    return bdf;
}

/* The device loads a page into its buffer, and stores that in another one. */
static void edu_check(uint64_t shared, uint64_t private)
{
    uint64_t generation = next_generation();

    pattern_fill(page_at(shared), generation);
    assigned_want("edu-load", shared, edu_load(shared), true);
    pattern_fill(page_at(private), generation + 1);
    assigned_want("edu-store", private, edu_store(private), true);
    assigned_want("edu-private", private,
                  pattern_bad(page_at(private), generation + 1), 0);
    assigned_want("edu-load", private, edu_load(private), true);
    assigned_want("edu-store", BOUNCE_PAGE, edu_store(BOUNCE_PAGE), true);
    assigned_want("edu-secret", private,
                  compare_bad(page_at(private), BOUNCE_PAGE) > PAGE / 2, true);
    assigned_want("edu-load", shared, edu_load(shared), true);
    assigned_want("edu-store", BOUNCE_PAGE, edu_store(BOUNCE_PAGE), true);
    assigned_want("edu-shared", shared,
                  compare_bad(page_at(shared), BOUNCE_PAGE), 0);
}

static void plug(void)
{
    const struct range range = { AREA_BACKEND0, 64 * MiB };
    unsigned port = pci_find(0, PORT_ID), bdf;

    must_convert(range, GMTD_ATTR_PRIVATE);
    pci_slot_on(port);
    say("assigned-plug");
    bdf = wait_plugged(pci_bus_behind(port));
    assigned_want("edu-plugged", port, bdf != PCI_NONE, true);
    if (bdf != PCI_NONE) {
        edu_init(pci_enable_plugged(port, bdf));
        edu_check(range.gpa + range.size, range.gpa + 5 * MiB);
        must_convert(page_at(range.gpa + 7 * MiB), GMTD_ATTR_ZERO);
        edu_check(range.gpa + 7 * MiB, range.gpa + 7 * MiB + PAGE);
    }
    pci_slot_off(port);
    say("assigned-unplugged");
    keeps_range((struct range) { range.gpa, 7 * MiB });
    must_convert(range, GMTD_ATTR_ZERO);
    assigned_reach_range(range);
}

/* --- memory that is plugged in ------------------------------------------ */

static void map_dimm(void)
{
    static uint64_t directory[512] __attribute__((aligned(4096)));
    uint64_t pml4, pdpt, i;

    for (i = 0; i < ARRAY_SIZE(directory); i++) {
        directory[i] = (DIMM + i * 2 * MiB) | 0x83;
    }
    asm volatile("mov %%cr3, %0" : "=r" (pml4));
    pdpt = mem_read(pml4 & ~0xfffUL) & ~0xfffUL;
    mem_write(pdpt + DIMM / GiB * 8, (uint64_t)directory | 3);
}

bool assigned_plugged(uint64_t gpa)
{
    uint64_t end = clock_us() + WAIT_MAX_US;

    map_dimm();
    do {
        mem_write(gpa, FLAG);
    } while (mem_read(gpa) != FLAG && clock_us() < end);
    assigned_want("dimm-plugged", gpa, mem_read(gpa), FLAG);
    return mem_read(gpa) == FLAG;
}

static void memory(void)
{
    const struct range range = { DIMM + 2 * MiB, 2 * MiB };

    say("assigned-memory");
    if (!assigned_plugged(DIMM)) {
        return;
    }
    say("iommu-count name=dimm");
    assigned_reach_range((struct range) { DIMM, DIMM_SIZE });
    must_convert(range, GMTD_ATTR_PRIVATE);
    keeps_range(range);
    assigned_reach_range(page_at(range.gpa - PAGE));
    must_convert(range, GMTD_ATTR_ZERO);
    assigned_reach_range(range);
}

/* --- all of it --------------------------------------------------------- */

static bool second_boot(void)
{
    assigned_want("disk-read", 0, nvme_io(false, 0, page_at(BOUNCE_PAGE)), 0);
    return mem_read(BOUNCE_PAGE) == FLAG;
}

/* Somebody resets the machine while this goes on. */
static void be_reset(void)
{
    mem_write(BOUNCE_PAGE, FLAG);
    assigned_want("disk-write", 0, nvme_io(true, 0, page_at(BOUNCE_PAGE)), 0);
    say("assigned-reset bad=%lu", all.bad);
    storm(WAIT_MAX_US);
    fail(&all, "no-reset", 0, 0, 0);
}

static void run_phases(void)
{
    unsigned rounds;

    size("4k", PAGE);
    size("2m", 2 * MiB);
    size("64m", 64 * MiB);
    alternate(options.count);
    say("assigned-storm");
    rounds = storm(options.seconds * 1000000UL);
    say("assigned-storm-over rounds=%u bad=%lu", rounds, all.bad);
    plug();
    memory();
    assigned_failures();
    assigned_lock_limit();
    be_reset();
}

unsigned assigned_run(void)
{
    unsigned bdf = pci_find(0, NVME_ID);

    clock_init();
    say("iommu-count name=start");
    if (bdf == PCI_NONE || !nvme_init(bdf)) {
        fail(&all, "no-disk", bdf, 0, 0);
        tally_add(&all, false);
        return 1;
    }
    identified = IDENTIFY_COPY;
    assigned_want("identify", identified, nvme_identify(identified), 0);
    if (!second_boot()) {
        run_phases();
    }
    size("2m", 2 * MiB);
    say("assigned-again rounds=%u", storm(MiB));
    if (options.rounds == ROUNDS_EXHAUST) {
        assigned_exhaust();
    }
    tally_add(&all, false);
    return 1;
}
