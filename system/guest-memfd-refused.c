/*
 * Accesses that were refused because of private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Some of QEMU's code takes memory that it cannot read for zeros, and walks
 * empty page tables then.  Its callers read the reason from the count.
 */

#include "qemu/osdep.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "system/guest-memfd-refused.h"

static __thread uint64_t refused;

void guest_memfd_count_refused(void)
{
    refused++;
}

uint64_t guest_memfd_refused(void)
{
    return refused;
}

void guest_memfd_tell_refused(Monitor *mon, uint64_t before)
{
    if (refused != before) {
        monitor_printf(mon, "There is private guest memory in the way, which "
                       "was not read.\n");
    }
}

bool guest_memfd_check_tables(uint64_t before, Error **errp)
{
    if (refused == before) {
        return true;
    }
    error_setg(errp, "cannot read the guest's page tables: they are private "
               "guest memory; use paging=false");
    return false;
}
