/*
 * Bytes that a guest had in private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_GUEST_MEMFD_SECRET_H
#define TESTS_QTEST_GUEST_MEMFD_SECRET_H

#include "guest-memfd-util.h"

/* All words of a page. */
#define GM_SECRET   UINT64_C(0x5ec2e7a1b2c3d4f6)

void gm_write_secret(QTestState *qts, uint64_t gpa, uint64_t size);

/* At whatever offset, and cut as it may be. */
bool gm_holds_secret(const void *bytes, size_t size);
/* As numbers of whatever size and base, too. */
bool gm_spells_secret(const char *text);

#endif /* TESTS_QTEST_GUEST_MEMFD_SECRET_H */
