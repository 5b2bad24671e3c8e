/*
 * Requests of this VM's guest, and their answers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The same for every accelerator: a guest need not know which one runs it.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "system/guest-memfd-ram.h"

/*
 * Transient errors are EAGAIN to the guest: ENOSPC is a device without room
 * for more mappings, until the next one is removed.
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

int guest_memfd_convert(const GuestMemfdRequest *req,
                        GuestMemfdResult *result)
{
    if (!guest_memfd_has_provider()) {
        return -EINVAL;
    }
    return guest_memfd_engine_convert(guest_memfd_engine(), req, result);
}

int guest_memfd_request(hwaddr gpa, uint64_t size, uint64_t attributes,
                        GuestMemfdOrigin origin, GuestMemfdResult *result)
{
    if (!guest_memfd_has_provider()) {
        return -EINVAL;
    }
    return guest_memfd_engine_request(guest_memfd_engine(), gpa, size,
                                      attributes, origin, result);
}

uint64_t guest_memfd_map_gpa_range(hwaddr gpa, uint64_t npages,
                                   uint64_t attributes)
{
    const uint64_t page = 4 * KiB;
    /* Too many pages for any guest, and a size that is refused as such. */
    uint64_t size = npages > UINT64_MAX / page ? UINT64_MAX : npages * page;

    return guest_memfd_answer(
        guest_memfd_request(gpa, size, attributes,
                            GUEST_MEMFD_ORIGIN_HYPERCALL, NULL));
}
