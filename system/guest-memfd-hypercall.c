/*
 * What a guest asks for by hypercall, and what it is told
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The same for every accelerator: a guest need not know which one runs it.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "system/guest-memfd-ram.h"

/*
 * What may pass is worth another try to the guest, too: ENOSPC is a device
 * without room for more mappings, which the next unmapping makes.
 */
uint64_t guest_memfd_answer(int ret)
{
    bool again = ret == -EAGAIN || ret == -EINTR || ret == -ENOMEM ||
                 ret == -ENOSPC;

    if (!ret) {
        return 0;
    }
    return again ? EAGAIN : EINVAL;
}

uint64_t guest_memfd_map_gpa_range(hwaddr gpa, uint64_t npages,
                                   uint64_t attributes)
{
    const uint64_t page = 4 * KiB;
    GuestMemfdResult outcome;
    /* Too many pages for any guest, and a size that is refused as such. */
    uint64_t size = npages > UINT64_MAX / page ? UINT64_MAX : npages * page;

    return guest_memfd_answer(
        guest_memfd_request(gpa, size, attributes,
                            GUEST_MEMFD_ORIGIN_HYPERCALL, &outcome));
}

/* --- what it is told --------------------------------------------------- */

static uint32_t hints(GuestMemfdDirection direction)
{
    const GuestMemfdEngine *engine = guest_memfd_engine();

    return engine && engine->provider ?
           guest_memfd_hints(&engine->provider->offer, direction) : 0;
}

bool guest_memfd_cpuid(uint32_t index, uint32_t *regs)
{
    switch (index) {
    case 0:
        regs[0] = GUEST_MEMFD_CPUID_FEATURES;
        memcpy(&regs[1], GUEST_MEMFD_CPUID_SIGNATURE, 3 * sizeof(*regs));
        return true;
    case GUEST_MEMFD_CPUID_FEATURES:
        regs[0] = GUEST_MEMFD_CPUID_STARTS_SHARED;
        regs[1] = hints(GUEST_MEMFD_DIRECTION_TO_SHARED);
        regs[2] = hints(GUEST_MEMFD_DIRECTION_TO_PRIVATE);
        regs[3] = 0;
        return true;
    default:
        return false;
    }
}
