/*
 * Conversions while a monitor asks for statistics
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_BENCH_GUEST_MEMFD_BENCH_POLLS_H
#define TESTS_BENCH_GUEST_MEMFD_BENCH_POLLS_H

/* Prints a member of a JSON object, times in nanoseconds, without a comma. */
void bench_polls(void);

#endif /* TESTS_BENCH_GUEST_MEMFD_BENCH_POLLS_H */
