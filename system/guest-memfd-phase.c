/*
 * The phases of guest memory, from its setup to the running guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "system/guest-memfd-launch.h"
#include "guest-memfd-internal.h"
#include "trace.h"

void guest_memfd_phase_begin(GuestMemfdEngine *engine, GuestMemfdPhase phase)
{
    GuestMemfdProvider *provider = engine->provider;

    qatomic_set(&engine->phase, phase);
    if (provider && GUEST_MEMFD_PROVIDER_GET_CLASS(provider)->phase_changed) {
        GUEST_MEMFD_PROVIDER_GET_CLASS(provider)->phase_changed(provider,
                                                                phase);
    }
    trace_guest_memfd_phase(GuestMemfdPhase_str(phase));
}

void guest_memfd_engine_set_phase(GuestMemfdEngine *engine,
                                  GuestMemfdPhase phase)
{
    if (phase > qatomic_read(&engine->phase)) {
        guest_memfd_phase_begin(engine, phase);
    }
}

/* --- sealing ------------------------------------------------------------- */

int guest_memfd_engine_seal_block(GuestMemfdEngine *engine,
                                  GuestMemfdBlock *block, Error **errp)
{
    const GuestMemfdRequest req = {
        .block = block,
        .size = block->size,
        .direction = GUEST_MEMFD_DIRECTION_TO_PRIVATE,
        .origin = GUEST_MEMFD_ORIGIN_LAUNCH,
        .intent = GUEST_MEMFD_INTENT_NONE,
    };
    int ret;

    if (!guest_memfd_block_in_setup(block)) {
        return 0;
    }
    ret = guest_memfd_engine_convert(engine, &req, NULL);
    if (ret) {
        error_setg_errno(errp, -ret, "guest memory '%s' cannot be made "
                         "private for the launch", block->name);
        return ret;
    }
    QEMU_LOCK_GUARD(&block->lock);
    guest_memfd_block_end_setup(block);
    return 0;
}

/* A conversion may drop the BQL: RCU keeps blocks that go away meanwhile. */
int guest_memfd_engine_seal(GuestMemfdEngine *engine, Error **errp)
{
    GuestMemfdBlock *block;
    int ret = 0;

    RCU_READ_LOCK_GUARD();
    QLIST_FOREACH(block, &engine->blocks, next) {
        ret = guest_memfd_engine_seal_block(engine, block, errp);
        if (ret) {
            break;
        }
    }
    return ret;
}

/* Once the guest runs, only memory that is not its own yet is in setup. */
int guest_memfd_engine_run(GuestMemfdEngine *engine, Error **errp)
{
    int ret = 0;

    if (qatomic_read(&engine->phase) < GUEST_MEMFD_PHASE_RUNNING) {
        ret = guest_memfd_engine_seal(engine, errp);
    }
    if (!ret) {
        guest_memfd_engine_set_phase(engine, GUEST_MEMFD_PHASE_RUNNING);
    }
    return ret;
}

bool guest_memfd_block_seal_late(GuestMemfdBlock *block, Error **errp)
{
    return qatomic_read(&block->engine->phase) < GUEST_MEMFD_PHASE_FINAL ||
           !guest_memfd_engine_seal_block(block->engine, block, errp);
}
