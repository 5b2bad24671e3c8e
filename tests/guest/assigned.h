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

/* options.rounds */
#define ROUNDS_NO_PARTS 2       /* the host cannot unmap a part of a mapping */
#define ROUNDS_EXHAUST  3       /* it runs out of mappings */

#define DIMM            (4 * GiB)
#define DIMM_SIZE       (64 * MiB)

/* assigned.c */
void assigned_want(const char *what, uint64_t at, uint64_t got,
                   uint64_t expected);
int64_t assigned_convert(struct range range, uint64_t attributes);
/* DMA of shared pages, of which there are NVME_PAGES_MAX at most. */
void assigned_reach(const uint64_t *pages, unsigned n);
void assigned_reach_range(struct range range);
/* DMA of a private page. */
void assigned_keeps(uint64_t gpa);

/* Waits for memory at @gpa, which is that of a dimm. */
bool assigned_plugged(uint64_t gpa);

/* assigned-failures.c */
void assigned_failures(void);

/* assigned-limits.c */
void assigned_lock_limit(void);
void assigned_exhaust(void);

#endif /* TESTS_GUEST_ASSIGNED_H */
