/*
 * Guest memory in the host, with its private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_GUEST_MEMFD_WINDOW_H
#define TESTS_QTEST_GUEST_MEMFD_WINDOW_H

#include "libqtest.h"

/* A pattern that only private pages have. */
#define GM_CANARY       0x5a

/*
 * Maps the memory of the backend with number @index, in the order in which
 * they were created, and of @size bytes.  The emulated provider hides
 * nothing from the host.  Undone by munmap().
 */
uint8_t *gm_window_open(QTestState *qts, unsigned index, uint64_t size);

/* Bytes of @size that are not 0, not GM_CANARY, and unlike neighbours. */
void gm_window_fill_shared(uint8_t *bytes, uint64_t size);
bool gm_window_is_filled(const uint8_t *bytes, uint64_t size,
                         uint64_t offset);
bool gm_window_is_byte(const uint8_t *bytes, uint64_t size, uint8_t byte);
/* Whether @count bytes of the canary in a row are in @bytes. */
bool gm_window_has_canary(const uint8_t *bytes, uint64_t size,
                          unsigned count);

/*
 * Ends this program and QEMU with a message if it is not called again, or
 * with 0, within @seconds: QEMU hangs, and libqtest waits for ever.
 */
void gm_watchdog(QTestState *qts, unsigned seconds);

#endif /* TESTS_QTEST_GUEST_MEMFD_WINDOW_H */
