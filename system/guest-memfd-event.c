/*
 * The event of a conversion that failed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-events-guest-memfd.h"
#include "qemu/main-loop.h"
#include "guest-memfd-internal.h"

/*
 * The monitor's rate limit needs the BQL: it does not expect an event
 * while the timer of the last one is about to run.
 */
void guest_memfd_send_failure(GuestMemfdEngine *engine,
                              const GuestMemfdRequest *req,
                              const GuestMemfdResult *result)
{
    const GuestMemfdBlock *block = result->block;
    const char *error = guest_memfd_errno_name(
                            guest_memfd_errno_bucket(result->error));

    BQL_LOCK_GUARD();
    qapi_event_send_guest_memfd_conversion_failed(
        block ? block->name : "", block, result->offset,
        !req->block, req->gpa, req->size, req->direction, req->origin,
        result->decided, result->decision.mode, error, result->retries);
}
