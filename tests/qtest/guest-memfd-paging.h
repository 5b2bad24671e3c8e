/*
 * A guest that has turned on paging, and halts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_GUEST_MEMFD_PAGING_H
#define TESTS_QTEST_GUEST_MEMFD_PAGING_H

#include "guest-memfd-util.h"

/* All of its page tables, which map memory 1 to 1 in pages of 4 MiB. */
#define GM_PAGE_TABLES  0x200000

/* Under TCG.  @more: further options. */
QTestState *gm_start_paging(const char *machine, const char *more);
/* After a reset; its memory must be shared. */
void gm_wait_paging(QTestState *qts);

#endif /* TESTS_QTEST_GUEST_MEMFD_PAGING_H */
