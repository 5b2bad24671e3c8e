/*
 * Code that counts the basic blocks that it runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_UNIT_GUEST_MEMFD_COUNTED_H
#define TESTS_UNIT_GUEST_MEMFD_COUNTED_H

/* Called by each block of what has -fsanitize-coverage=trace-pc. */
void __sanitizer_cov_trace_pc(void);

#endif /* TESTS_UNIT_GUEST_MEMFD_COUNTED_H */
