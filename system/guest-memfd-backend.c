/*
 * Memory backends that become guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The use of a backend is not known when it is created: guest RAM, memory of
 * a device, or none.  So it gets memory of its own, as without a confidential
 * guest, which is exchanged when it becomes guest RAM.
 */

#include "qemu/osdep.h"
#include "exec/ramlist.h"
#include "hw/boards.h"
#include "migration/cpr.h"
#include "qapi/error.h"
#include "qemu/madvise.h"
#include "qemu/mmap-alloc.h"
#include "qom/object_interfaces.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-backend.h"
#include "system/guest-memfd-launch.h"
#include "system/guest-memfd-limits.h"
#include "system/guest-memfd-ram.h"
#include "system/qtest.h"
#include "guest-memfd-internal.h"

/* Files keep their contents, and huge pages are not converted. */
static bool check_kind(const RAMBlock *rb, Error **errp)
{
    ERRP_GUARD();
    const char *name = memory_region_name(rb->mr);
    const char *or_off =
        guest_memfd_or_not_in_place(
            guest_memfd_engine()->provider->can_be_off);

    if (rb->page_size > guest_memfd_page_size()) {
        error_setg(errp, "memory backend '%s' uses huge pages, which cannot "
                   "be converted in place", name);
        error_append_hint(errp, "Use memory-backend-memfd without hugetlb=on, "
                          "or memory-backend-ram%s.\n", or_off);
        return false;
    }
    if (rb->flags & RAM_NAMED_FILE) {
        error_setg(errp, "memory backend '%s' keeps guest RAM in a file, "
                   "which cannot be converted in place", name);
        error_append_hint(errp, "The file is left as it is.  Leave -mem-path "
                          "out, or in place of memory-backend-file use "
                          "memory-backend-memfd or memory-backend-ram for "
                          "guest RAM; give the guest the file with "
                          "-device virtio-pmem-pci and -m ...,maxmem=..., or "
                          "-device nvdimm, -m ...,slots=N,maxmem=... and "
                          "-machine nvdimm=on%s.\n", or_off);
        return false;
    }
    return true;
}

static void release(const RAMBlock *rb, HostMemoryBackend *backend)
{
    g_autofree char *name = host_memory_backend_get_name(backend);

    ram_block_notify_remove(rb->host, rb->used_length, rb->max_length);
    qemu_ram_munmap(rb->fd, rb->host, rb->max_length);
    if (rb->fd >= 0) {
        cpr_delete_fd(name, 0);
        close(rb->fd);
    }
}

/* New memory has this advice from ram_block_add(). */
static void advise(const RAMBlock *rb)
{
    if (!machine_dump_guest_core(current_machine)) {
        qemu_madvise(rb->host, rb->max_length, QEMU_MADV_DONTDUMP);
    }
    qemu_madvise(rb->host, rb->max_length, QEMU_MADV_HUGEPAGE);
    if (!qtest_enabled()) {
        qemu_madvise(rb->host, rb->max_length, QEMU_MADV_DONTFORK);
    }
}

/* Host nodes, prealloc and the like, once more. */
static bool complete(HostMemoryBackend *backend, Error **errp)
{
    ERRP_GUARD();
    UserCreatable *uc = USER_CREATABLE(backend);

    USER_CREATABLE_GET_CLASS(uc)->complete(uc, errp);
    return !*errp;
}

bool guest_memfd_ram_block_mapped_anew(RAMBlock *rb, Error **errp)
{
    Object *backend = object_dynamic_cast(memory_region_owner(rb->mr),
                                          TYPE_MEMORY_BACKEND);

    rb->guest_memfd = rb->gmem->fd;
    advise(rb);
    return !backend || complete(MEMORY_BACKEND(backend), errp);
}

/* It may have been guest RAM before, and parts of it private. */
static bool start_anew(GuestMemfdBlock *block, Error **errp)
{
    const ConfidentialGuestSupportClass *cgsc =
        CONFIDENTIAL_GUEST_SUPPORT_GET_CLASS(current_machine->cgs);
    int ret;

    if (!cgsc->memory_starts_shared) {
        return guest_memfd_block_seal_late(block, errp);
    }
    ret = guest_memfd_engine_share_block(guest_memfd_engine(), block);
    if (ret) {
        error_setg_errno(errp, -ret, "memory backend '%s' cannot be shared, "
                         "as memory that is plugged in has to be",
                         block->name);
        return false;
    }
    return true;
}

/*
 * A backend that could not be completed does not become guest RAM.  It can be
 * plugged in again, and must be completed then.
 */
static bool bring_up(HostMemoryBackend *backend, Error **errp)
{
    GuestMemfdBlock *block = backend->mr.ram_block->gmem;

    if (block->incomplete && !complete(backend, errp)) {
        return false;
    }
    block->incomplete = false;
    return start_anew(block, errp);
}

bool guest_memfd_backend_becomes_ram(HostMemoryBackend *backend, Error **errp)
{
    RAMBlock *rb = backend->mr.ram_block;
    const RAMBlock before = *rb;

    if (rb->gmem) {
        return bring_up(backend, errp);
    }
    if (!backend->guest_memfd || !guest_memfd_is_in_place()) {
        return true;
    }
    if (!check_kind(rb, errp) || !guest_memfd_ram_block_adopt(rb, errp)) {
        return false;
    }
    release(&before, backend);
    rb->fd = -1;
    rb->flags |= RAM_GUEST_MEMFD;
    advise(rb);
    ram_block_notify_add(rb->host, rb->used_length, rb->max_length);
    rb->gmem->incomplete = true;
    return bring_up(backend, errp);
}
