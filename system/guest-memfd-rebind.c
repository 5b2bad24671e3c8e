/*
 * Giving guest memory to a new VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest_memfd belongs to the VM that it was created for.  A VM that is
 * built again needs new ones, which are mapped where the old ones were, so
 * that QEMU's pointers stay valid.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "system/guest-memfd-launch.h"
#include "guest-memfd-internal.h"

/* As a conversion to private does it: record, then look for mappings. */
static int forget_run(GuestMemfdBlock *block, uint64_t offset, uint64_t size,
                      Error **errp)
{
    uint64_t busy;
    int ret;

    guest_memfd_block_record(block, offset, size, false);
    if (guest_memfd_block_is_mapped(block, offset, size, &busy)) {
        guest_memfd_block_record(block, offset, size, true);
        error_setg(errp, "guest memory '%s' cannot be given to a new VM: a "
                   "device uses offset 0x%" PRIx64, block->name, busy);
        return -EBUSY;
    }
    guest_memfd_block_wait(block, offset, size);
    ret = guest_memfd_notify_discard(block, offset, size);
    if (ret) {
        guest_memfd_block_record(block, offset, size, true);
        error_setg_errno(errp, -ret, "guest memory '%s' cannot be given to a "
                         "new VM: a device cannot unmap it", block->name);
    }
    return ret;
}

/* No page can be accessed, and listeners have none. */
static int forget_pages(GuestMemfdBlock *block, Error **errp)
{
    uint64_t offset = 0, size;
    int ret = 0;

    while (!ret && guest_memfd_block_next_run(block, true, &offset,
                                              block->size, block->size,
                                              &size)) {
        ret = forget_run(block, offset, size, errp);
        offset += size;
    }
    return ret;
}

static int rebind_block(GuestMemfdBlock *block, Error **errp)
{
    GuestMemfdProvider *provider = block->engine->provider;
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_GET_CLASS(provider);
    int ret;

    QEMU_LOCK_GUARD(&block->lock);
    ret = forget_pages(block, errp);
    if (ret) {
        return ret;
    }
    if (!pc->block_rebind(provider, block, errp)) {
        return -EIO;
    }
    if (block->ram_block &&
        !guest_memfd_ram_block_mapped_anew(block->ram_block, errp)) {
        return -EIO;
    }
    block->generation++;
    guest_memfd_block_start(block);
    ret = guest_memfd_notify_populate(block, 0, block->size);
    if (ret) {
        guest_memfd_block_record(block, 0, block->size, false);
        error_setg_errno(errp, -ret, "a device cannot use guest memory '%s' "
                         "of the new VM", block->name);
    }
    return ret;
}

int guest_memfd_engine_rebind(GuestMemfdEngine *engine, Error **errp)
{
    GuestMemfdProviderClass *pc =
        GUEST_MEMFD_PROVIDER_GET_CLASS(engine->provider);
    GuestMemfdBlock *block;
    int ret;

    if (!pc->block_rebind) {
        error_setg(errp, "guest memory cannot be given to a new VM: it is "
                   "not converted in place");
        return -EOPNOTSUPP;
    }
    QLIST_FOREACH(block, &engine->blocks, next) {
        ret = rebind_block(block, errp);
        if (ret) {
            return ret;
        }
    }
    guest_memfd_phase_begin(engine, GUEST_MEMFD_PHASE_SETUP);
    return 0;
}
