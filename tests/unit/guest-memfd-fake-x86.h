/*
 * A fake of KVM and an x86 machine, for sw-protected-guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_UNIT_GUEST_MEMFD_FAKE_X86_H
#define TESTS_UNIT_GUEST_MEMFD_FAKE_X86_H

#include "qapi/qapi-types-common.h"

typedef struct FakeX86 {
    uint64_t vm_types;          /* that KVM has: a bit each */
    bool has_hypercall;
    uint64_t hypercalls;        /* that it was set up to pass on */
    bool no_machine;
} FakeX86;

extern FakeX86 fake_x86;

void fake_x86_start(OnOffAuto smm);
OnOffAuto fake_x86_smm(void);
/* The type that KVM's VM gets for @cgs. */
int fake_x86_vm_type(Object *cgs);
/* Register @reg of a leaf of CPUID with @cgs, @value without. */
uint32_t fake_x86_cpuid(Object *cgs, uint32_t leaf, int reg, uint32_t value);

#endif /* TESTS_UNIT_GUEST_MEMFD_FAKE_X86_H */
