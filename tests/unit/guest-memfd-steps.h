/*
 * Random steps for models of guest memory conversion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A step depends on a seed and its number only.  The model of the engine
 * and the one inside the bare-metal guest take the same steps; this file
 * and the .c.inc need no header of QEMU, the guest has none.
 */

#ifndef TESTS_UNIT_GUEST_MEMFD_STEPS_H
#define TESTS_UNIT_GUEST_MEMFD_STEPS_H

#include <stdint.h>

/* Steps begin below; where there is memory is up to the model. */
#define MODEL_GPA_END   292

typedef enum ModelKind { CONVERT, WRITE, POLICY, FAULT } ModelKind;

/* Values of GuestMemfdDirection and GuestMemfdIntent. */
enum { STEP_TO_SHARED, STEP_TO_PRIVATE, STEP_DIRECTIONS };
enum { STEP_UNSPECIFIED, STEP_ZERO, STEP_PRESERVE };

/* All numbers of memory are in pages. */
typedef struct Step {
    ModelKind kind;
    unsigned gpa, pages;
    unsigned direction;
    unsigned intent;
    unsigned listener_agrees;       /* to so many, or to all (15) */
    uint64_t value;
} Step;

/* Bits of @seed and @n that look random. */
uint64_t model_random(uint64_t seed, uint64_t n);

/* Step @n of the sequence that @seed stands for. */
Step model_nth_step(uint64_t seed, uint64_t n);

#endif /* TESTS_UNIT_GUEST_MEMFD_STEPS_H */
