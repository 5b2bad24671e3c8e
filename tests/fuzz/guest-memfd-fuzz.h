/*
 * Fuzzing the conversion of guest memory: reading the input
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Beyond its end an input reads zero.  The work of a target is
 * added up, and printed when it ends, for the table in
 * docs/devel/reliability.md.
 */

#ifndef TESTS_FUZZ_GUEST_MEMFD_FUZZ_H
#define TESTS_FUZZ_GUEST_MEMFD_FUZZ_H

typedef struct Input {
    const uint8_t *data;
    size_t left;
} Input;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* @bytes of the input, little endian. */
static inline uint64_t take(Input *in, unsigned bytes)
{
    uint64_t value = 0;
    unsigned i;

    for (i = 0; i < bytes && in->left; i++, in->left--) {
        value |= (uint64_t)*in->data++ << (8 * i);
    }
    return value;
}

typedef struct Figures {
    uint64_t requests;
    uint64_t refused;
    uint64_t faults;
} Figures;

static Figures figures;

static inline void print_figures(void)
{
    fprintf(stderr, "figures: requests %" PRIu64 " refused %" PRIu64
            " faults %" PRIu64 "\n", figures.requests, figures.refused,
            figures.faults);
}

#endif /* TESTS_FUZZ_GUEST_MEMFD_FUZZ_H */
