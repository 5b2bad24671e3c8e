/*
 * Accesses that were refused because of private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_REFUSED_H
#define SYSTEM_GUEST_MEMFD_REFUSED_H

/*
 * Accesses of this thread that were refused because of private memory.
 * Code that takes what it cannot read for zeros compares the count with that
 * of before: the monitor prints a line, and a dump with paging fails.
 */
void guest_memfd_count_refused(void);
uint64_t guest_memfd_refused(void);
void guest_memfd_tell_refused(Monitor *mon, uint64_t before);
bool guest_memfd_check_tables(uint64_t before, Error **errp);

#endif /* SYSTEM_GUEST_MEMFD_REFUSED_H */
