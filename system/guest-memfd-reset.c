/*
 * Guest memory at a reset
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/ramlist.h"
#include "hw/boards.h"
#include "qemu/error-report.h"
#include "system/confidential-guest-support.h"
#include "system/ramblock.h"
#include "system/runstate.h"
#include "guest-memfd-internal.h"

/* A guest must not start on memory that still is private, or not zero. */
static int reset_block(RAMBlock *rb, void *opaque)
{
    GuestMemfdEngine *engine = opaque;
    GuestMemfdBlock *block = rb->gmem;
    int ret;

    if (!block) {
        return 0;
    }
    ret = guest_memfd_engine_share_block(engine, block);
    if (ret && !qemu_shutdown_requested_get()) {
        error_report("guest memory '%s' cannot be shared for a reset: %s; the "
                     "guest cannot start", block->name, strerror(-ret));
        exit(EXIT_FAILURE);
    }
    return 0;
}

/*
 * A guest may be reset to shared memory without private bytes.  Others cannot
 * be reset, only launched.  A guest that wakes up from sleep, or is loaded,
 * finds its memory as it was.
 *
 * A conversion may drop the BQL: blocks are found under RCU, which keeps
 * those that go away meanwhile until the walk is over.
 */
void guest_memfd_reset(GuestMemfdEngine *engine, ResetType type)
{
    ConfidentialGuestSupport *cgs = current_machine->cgs;

    if (type == RESET_TYPE_COLD && cgs &&
        CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(cgs)->reset_shares_memory) {
        qemu_ram_foreach_block(reset_block, engine);
    }
}
