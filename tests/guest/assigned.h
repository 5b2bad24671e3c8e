/*
 * Devices of the host: what its parts share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_GUEST_ASSIGNED_H
#define TESTS_GUEST_ASSIGNED_H

/* edu.c */
void edu_init(uint64_t bar);
bool edu_load(uint64_t gpa);
bool edu_store(uint64_t gpa);

/* assigned.c */
void assigned_want(const char *what, uint64_t at, uint64_t got,
                   uint64_t expected);
int64_t assigned_convert(struct range range, uint64_t attributes);
/* DMA of shared pages, of which there are NVME_PAGES_MAX at most. */
void assigned_reach(const uint64_t *pages, unsigned n);
/* DMA of a private page. */
void assigned_keeps(uint64_t gpa);

/* assigned-failures.c */
void assigned_failures(void);

#endif /* TESTS_GUEST_ASSIGNED_H */
