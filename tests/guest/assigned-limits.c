/*
 * The host pins no more memory, or has no more mappings
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Shared memory is pinned, so that a request to share more than the host
 * allows is answered EAGAIN, changes nothing, and succeeds when less is shared
 * elsewhere, or the limit is higher.
 */

#include "guest.h"
#include "assigned.h"

#define AREA            (AREA_BACKEND0 + 80 * MiB)
#define SIZE            (8 * MiB)
#define LARGE           (32 * MiB)

static void want(struct range range, uint64_t attributes, int64_t status)
{
    assigned_want("limits-status", range.gpa,
                  assigned_convert(range, attributes), status);
}

static struct range part_of(struct range range, uint64_t size)
{
    return (struct range) { range.gpa, size };
}

/* Zeros were asked for, and a request that fails may leave them behind. */
static void check_bytes(struct range range, uint64_t generation)
{
    uint64_t offset;

    for (offset = 0; offset < range.size; offset += PAGE) {
        struct range page = { range.gpa + offset, PAGE };

        assigned_want("limits-bytes", page.gpa, pattern_bad(page, generation)
                      && zero_bad(page), false);
    }
}

/* All is private still, and neither lost nor in reach of a device. */
static void check_private(struct range range, uint64_t generation)
{
    check_bytes(range, generation);
    assigned_keeps(range.gpa);
    assigned_keeps(range.gpa + range.size / 2);
    assigned_keeps(range.gpa + range.size - PAGE);
}

/* Of @range, which is private, there is room for @fits bytes. */
static void refused(struct range range, uint64_t fits)
{
    uint64_t generation = next_generation();

    pattern_fill(range, generation);
    want(range, GMTD_ATTR_ZERO, -GUEST_EAGAIN);
    check_private(range, generation);
    want(part_of(range, fits), GMTD_ATTR_ZERO, 0);
    assigned_reach_range(part_of(range, fits));
    want(part_of(range, fits), GMTD_ATTR_PRIVATE, 0);
}

void assigned_lock_limit(void)
{
    const struct range range = { AREA, SIZE };

    want(range, GMTD_ATTR_PRIVATE, 0);
    say("iommu-limit kib=%lu", SIZE / 2 / KiB);
    refused(range, SIZE / 4);
    say("iommu-count name=limited");
    say("iommu-limit kib=none");
    want(range, GMTD_ATTR_ZERO, 0);
    assigned_reach_range(range);
}

/*
 * While memory is private, memory is plugged in, which takes most of the
 * mappings that this left.
 */
void assigned_exhaust(void)
{
    const struct range range = { AREA_BACKEND0, LARGE };
    const struct range plugged = { DIMM + DIMM_SIZE, LARGE };

    want(range, GMTD_ATTR_PRIVATE, 0);
    say("assigned-exhaust");
    if (!assigned_plugged(plugged.gpa)) {
        return;
    }
    say("iommu-count name=before");
    refused(range, LARGE / 4);
    say("iommu-count name=exhausted");
    say("assigned-exhausted");
    want(plugged, GMTD_ATTR_PRIVATE, 0);
    want(range, GMTD_ATTR_ZERO, 0);
    assigned_reach_range(range);
    say("iommu-count name=exhaust-end");
}
