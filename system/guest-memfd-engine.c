/*
 * The engine's own state: policy, blocks and what it rejected
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-internal.h"

void guest_memfd_engine_init(GuestMemfdEngine *engine)
{
    QLIST_INIT(&engine->blocks);
    qemu_mutex_init(&engine->span_lock);
    qemu_mutex_init(&engine->rejected_lock);
}

void guest_memfd_engine_destroy(GuestMemfdEngine *engine)
{
    assert(QLIST_EMPTY(&engine->blocks));
    qemu_mutex_destroy(&engine->span_lock);
    qemu_mutex_destroy(&engine->rejected_lock);
}

GuestMemfdDecision guest_memfd_engine_decide(const GuestMemfdEngine *engine,
                                             const GuestMemfdBlock *block,
                                             const GuestMemfdRequest *req)
{
    const GuestMemfdQuestion question = {
        .direction = req->direction,
        .intent = req->intent,
        .origin = req->origin,
        .launched = qatomic_read(&engine->launched),
        .block_policy = block ? qatomic_read(&block->content_policy) :
                                GUEST_MEMFD_CONTENT_POLICY_AUTO,
        .manager_policy = qatomic_read(&engine->content_policy),
        .on_unsupported = qatomic_read(&engine->on_unsupported),
    };

    return guest_memfd_decide(&question, &engine->provider->offer);
}

void guest_memfd_count_rejected(GuestMemfdEngine *engine, int ret)
{
    qemu_mutex_lock(&engine->rejected_lock);
    engine->rejected[guest_memfd_errno_place(ret)]++;
    qemu_mutex_unlock(&engine->rejected_lock);
}
