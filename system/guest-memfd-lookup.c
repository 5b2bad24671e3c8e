/*
 * Where guest memory is private
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The answers may be outdated when they arrive: accesses decide themselves.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/rcu.h"
#include "system/address-spaces.h"
#include "system/guest-memfd-memory.h"
#include "system/ramblock.h"
#include "guest-memfd-internal.h"

bool guest_memfd_is_shared(MemoryRegion *mr, hwaddr addr, hwaddr len)
{
    return guest_memfd_block_is_shared(mr->ram_block->gmem, addr, len);
}

bool guest_memfd_may_hide(AddressSpace *as, hwaddr addr, bool is_write)
{
    hwaddr len = 1;

    RCU_READ_LOCK_GUARD();
    return address_space_translate(as, addr, &addr, &len, is_write,
                                   MEMTXATTRS_UNSPECIFIED)->convertible;
}

/* Moves on to the end of the first section in [*addr, end). */
static bool has_private(AddressSpace *as, hwaddr *addr, hwaddr end)
{
    MemoryRegionSection s = memory_region_find(as->root, *addr, end - *addr);
    bool private;

    if (!s.mr) {
        *addr = end;
        return false;
    }
    private = s.mr->convertible &&
              !guest_memfd_is_shared(s.mr, s.offset_within_region,
                                     int128_get64(s.size));
    *addr = s.offset_within_address_space + int128_get64(s.size);
    memory_region_unref(s.mr);
    return private;
}

bool guest_memfd_is_private(AddressSpace *as, hwaddr addr, hwaddr len)
{
    const hwaddr end = addr + MIN(len, UINT64_MAX - addr);
    bool private = false;

    while (addr < end && !private) {
        private = has_private(as, &addr, end);
    }
    return private;
}

bool guest_memfd_check_shared(hwaddr addr, hwaddr len, Error **errp)
{
    if (!guest_memfd_is_private(&address_space_memory, addr, len)) {
        return true;
    }
    error_setg(errp, "cannot read [0x%" HWADDR_PRIx ", +0x%" HWADDR_PRIx
               "): it is private guest memory; dump-guest-memory leaves such "
               "pages out", addr, len);
    return false;
}

void guest_memfd_warn_fw_cfg(hwaddr addr, hwaddr size)
{
    if (guest_memfd_is_private(&address_space_memory, addr, size)) {
        warn_report_once("guest memory [0x%" HWADDR_PRIx ", +0x%" HWADDR_PRIx
                         "): fw_cfg cannot answer a request in private "
                         "memory; the guest may wait for ever", addr, size);
    }
}
