/*
 * A naive model of guest memory conversion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One page after the other, without runs, locks or bitmaps.  The real engine
 * and the model do each step, and the two are compared:
 * state, contents, listeners' views and counters.
 */

#ifndef TESTS_UNIT_GUEST_MEMFD_MODEL_H
#define TESTS_UNIT_GUEST_MEMFD_MODEL_H

#include "guest-memfd-rig.h"
#include "guest-memfd-steps.h"

#define MODEL_BLOCKS    3

/* A piece of guest memory; like all numbers here, in pages. */
typedef struct MemoryRange {
    unsigned gpa, pages;
    int block;
    unsigned first;
    bool mmio;
} MemoryRange;

extern const unsigned model_block_pages[MODEL_BLOCKS];

/* NULL where there is nothing. */
const MemoryRange *model_find_range(unsigned gpa);
const MemoryRange *model_nth_range(unsigned n);
/* The memory that all of @s is about; NULL if it is not one piece. */
const MemoryRange *model_only_range(const Step *s);

/* The steps that only prepare others: for the engine, and so for the model. */
void model_change_policy(Rig *rig, const Step *s);
void model_arm_fault(Rig *rig, const Step *s);
/* The progress of a fault that the conversion @s may run into. */
void model_set_progress(Rig *rig, const Step *s);
unsigned model_armed_faults(const Rig *rig);
bool model_is_emulated(const Rig *rig);
GuestMemfdRealisation model_preserve(const Rig *rig,
                                     GuestMemfdDirection direction);

typedef struct Model Model;

Model *model_new(const char *provider_type);
void model_free(Model *m);

void model_step(Model *m, uint64_t seed, uint64_t n);
char *model_describe_step(uint64_t seed, uint64_t n);

/* Every byte of every page; model_step() looks only at what it touched. */
void model_check_all(const Model *m);

#endif /* TESTS_UNIT_GUEST_MEMFD_MODEL_H */
