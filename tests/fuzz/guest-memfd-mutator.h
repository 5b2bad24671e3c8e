/*
 * libFuzzer's functions for mutations of one's own, which no header of it
 * declares
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_FUZZ_GUEST_MEMFD_MUTATOR_H
#define TESTS_FUZZ_GUEST_MEMFD_MUTATOR_H

/* Both change @data, of @size bytes, and return how many it has then. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                               unsigned int seed);

#endif /* TESTS_FUZZ_GUEST_MEMFD_MUTATOR_H */
