/*
 * The host's IOMMU cannot map, or cannot unmap
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every other page of a range is private.  All of it is converted then, which
 * takes one call for each of the others, and one of these fails: the guest
 * gets an error, all is as before, and the same request succeeds afterwards.
 * With rounds=2 the kernel says that it does not know the mapping, though it
 * does, as where a range cuts one.
 */

#include "guest.h"
#include "assigned.h"

#define AREA            (AREA_BACKEND0 + 72 * MiB)
#define PAGES           8

#define GUEST_ENOENT    2       /* of IOMMU_IOAS_UNMAP only */
#define GUEST_ENOMEM    12
#define GUEST_ENOSPC    28

static const struct range area = { AREA, PAGES * PAGE };
static const int errors[] = {
    GUEST_ENOSPC, GUEST_ENOMEM, GUEST_EINVAL, GUEST_EFAULT,
};

static void check_state(void)
{
    uint64_t pages[PAGES];
    unsigned n = 0, i;

    for (i = 0; i < PAGES; i++) {
        uint64_t gpa = AREA + i * PAGE;

        if (page_private(gpa)) {
            assigned_keeps(gpa);
        } else {
            pages[n++] = gpa;
        }
    }
    if (n) {
        assigned_reach(pages, n);
    }
}

static void make_alternate(void)
{
    unsigned i;

    assigned_want("failures-shared", AREA,
                  assigned_convert(area, GMTD_ATTR_ZERO), 0);
    for (i = 0; i < PAGES; i += 2) {
        struct range page = { AREA + i * PAGE, PAGE };

        assigned_want("failures-private", page.gpa,
                      assigned_convert(page, GMTD_ATTR_PRIVATE), 0);
    }
}

static void one(bool map, unsigned nth, int error)
{
    uint64_t attributes = map ? GMTD_ATTR_ZERO : GMTD_ATTR_PRIVATE;
    bool again = error == GUEST_ENOSPC || error == GUEST_ENOMEM;
    int64_t status;

    make_alternate();
    say("iommu-fail call=%s nth=%u errno=%u", map ? "map" : "unmap", nth,
        error);
    status = assigned_convert(area, attributes);
    say("iommu-count name=failed");
    say("assigned-failure call=%s nth=%u errno=%u status=%ld",
        map ? "map" : "unmap", nth, error, status);
    assigned_want("failures-status", nth, status,
                  again ? -GUEST_EAGAIN : -GUEST_EINVAL);
    check_state();
    assigned_want("failures-again", nth, assigned_convert(area, attributes),
                  0);
    check_state();
}

void assigned_failures(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(errors); i++) {
        one(true, 1, errors[i]);
        one(true, 3, errors[i]);
        one(false, 1, errors[i]);
        one(false, 3, errors[i]);
    }
    if (options.rounds == ROUNDS_NO_PARTS) {
        one(false, 1, GUEST_ENOENT);
        one(false, 3, GUEST_ENOENT);
    }
    assigned_want("failures-end", AREA, assigned_convert(area, GMTD_ATTR_ZERO),
                  0);
}
