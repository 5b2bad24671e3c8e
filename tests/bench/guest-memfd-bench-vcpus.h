/*
 * vCPUs that convert the memory of a machine without a guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_BENCH_GUEST_MEMFD_BENCH_VCPUS_H
#define TESTS_BENCH_GUEST_MEMFD_BENCH_VCPUS_H

#include "../unit/guest-memfd-rig.h"

#define BENCH_VCPUS_MAX     8

/* One block of @bytes at address 0; end with rig_free(). */
Rig *bench_machine(const char *provider, uint64_t bytes);

/* CPU time of the calling thread, in nanoseconds. */
int64_t bench_thread_ns(void);

/* For qsort() of int64_t. */
int bench_compare_ns(const void *a, const void *b);

/*
 * Each of @n vCPUs makes @requests for @size bytes of its own, private and
 * shared by turns.  Returns the CPU time of a request, in nanoseconds.
 */
double bench_vcpus_convert(Rig *rig, unsigned n, uint64_t size,
                           unsigned requests);

#endif /* TESTS_BENCH_GUEST_MEMFD_BENCH_VCPUS_H */
