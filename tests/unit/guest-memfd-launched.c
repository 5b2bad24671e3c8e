/*
 * A guest that is launched, on the rig
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/main-loop.h"
#include "guest-memfd-launched.h"

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* --- the platform -------------------------------------------------------- */

Platform platform;

static int launch(void *opaque, const GuestMemfdPart *part, Error **errp)
{
    const unsigned long first = part->offset / page_size();
    const unsigned long pages = part->size / page_size();
    const int error = platform.error;

    g_assert_true(opaque == &platform);
    g_assert_cmpuint(find_next_zero_bit(part->block->provider_data,
                                        first + pages, first), >=,
                     first + pages);
    platform.parts++;
    platform.first = first;
    platform.pages = pages;
    platform.error = 0;
    if (platform.on_launch) {
        platform.on_launch(part);
    }
    if (error) {
        error_setg_errno(errp, -error, "part %u", part->type);
    }
    return error;
}

/* --- the VM -------------------------------------------------------------- */

/* One block "a" in setup, with a listener. */
Rig *in_setup(const char *provider)
{
    Rig *rig = rig_new(provider);

    platform = (Platform) { };
    rig->start = GUEST_MEMFD_START_SETUP;
    rig->engine.phase = GUEST_MEMFD_PHASE_SETUP;
    rig_map(rig, 0, rig_block(rig, "a", PAGES), 0, PAGES);
    rig_listen(rig, rig->blocks[0], 0, PAGES);
    bql_lock();
    return rig;
}

void end_launched(Rig *rig)
{
    bql_unlock();
    rig_free(rig);
}

GuestMemfdPart part_of(Rig *rig, uint64_t first, uint64_t pages)
{
    return (GuestMemfdPart) {
        .block = rig->blocks[0],
        .offset = first * page_size(),
        .size = pages * page_size(),
        .gpa = first * page_size(),
        .contents = GUEST_MEMFD_CONTENTS_ZERO,
        .type = 7,
    };
}

int populate_part(Rig *rig, const GuestMemfdPart *part, Error **errp)
{
    return guest_memfd_engine_populate(&rig->engine, part, launch, &platform,
                                       errp);
}

void expect_populated(Rig *rig, const GuestMemfdPart *part)
{
    g_assert_cmpint(populate_part(rig, part, &error_abort), ==, 0);
    rig_check(rig);
}

void expect_error(Rig *rig, const GuestMemfdPart *part, int error,
                  const char *text)
{
    Error *err = NULL;

    g_assert_cmpint(populate_part(rig, part, &err), ==, error);
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
    rig_check(rig);
}

void expect_pages(Rig *rig, uint64_t private, uint64_t shared,
                  uint64_t setup)
{
    uint64_t p, s, w;

    guest_memfd_block_count_bytes(rig->blocks[0], &p, &s, &w);
    g_assert_cmpuint(p, ==, private * page_size());
    g_assert_cmpuint(s, ==, shared * page_size());
    g_assert_cmpuint(w, ==, setup * page_size());
}
