/*
 * A guest that is launched, on the rig
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Numbers are pages.
 */

#ifndef TESTS_UNIT_GUEST_MEMFD_LAUNCHED_H
#define TESTS_UNIT_GUEST_MEMFD_LAUNCHED_H

#include "system/guest-memfd-internal.h"
#include "system/guest-memfd-launch.h"
#include "guest-memfd-rig.h"

#define PAGES   16

/* The platform, which takes private pages only. */
typedef struct Platform {
    int error;                      /* of the next part */
    unsigned parts;
    uint64_t first, pages;          /* of the last one */
    void (*on_launch)(const GuestMemfdPart *part);
} Platform;

extern Platform platform;

/* One block "a" in setup, with a listener; the BQL is held until the end. */
Rig *in_setup(const char *provider);
void end_launched(Rig *rig);

/* Zeros, with type 7. */
GuestMemfdPart part_of(Rig *rig, uint64_t first, uint64_t pages);
int populate_part(Rig *rig, const GuestMemfdPart *part, Error **errp);
void expect_populated(Rig *rig, const GuestMemfdPart *part);
void expect_error(Rig *rig, const GuestMemfdPart *part, int error,
                  const char *text);
/* The pages of block "a" in each state. */
void expect_pages(Rig *rig, uint64_t private, uint64_t shared,
                  uint64_t setup);

#endif /* TESTS_UNIT_GUEST_MEMFD_LAUNCHED_H */
