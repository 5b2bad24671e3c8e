/*
 * QEMU software-protected guest: its part of virtual CPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TARGET_I386_SW_PROTECTED_GUEST_H
#define TARGET_I386_SW_PROTECTED_GUEST_H

#include "cpu.h"

#define TYPE_SW_PROTECTED_GUEST "sw-protected-guest"

struct kvm_cpuid_entry2;

#ifdef CONFIG_USER_ONLY
static inline bool sw_protected_guest_has_hypercall(void)
{
    return false;
}
static inline bool sw_protected_guest_cpuid(X86CPU *cpu, uint32_t index,
                                            uint32_t *eax, uint32_t *ebx,
                                            uint32_t *ecx, uint32_t *edx)
{
    return false;
}
#else
/*
 * With TCG: does QEMU serve hypercalls (VMMCALL and VMCALL)?  The same for
 * all CPUs of a VM, for as long as it lives.
 */
bool sw_protected_guest_has_hypercall(void);

/*
 * Serve a hypercall by the registers of @env, as KVM does.  False if that
 * instruction is an invalid one here.  Without the BQL.
 */
bool sw_protected_guest_hypercall(CPUX86State *env);

/* With TCG: leaf @index, if it is one of the hypervisor. */
bool sw_protected_guest_cpuid(X86CPU *cpu, uint32_t index, uint32_t *eax,
                              uint32_t *ebx, uint32_t *ecx, uint32_t *edx);

/*
 * With KVM: add the leaves of a software-protected guest from @base on to
 * the @n entries that are in @entries.  Returns how many there are then.
 */
uint32_t sw_protected_guest_add_cpuid(struct kvm_cpuid_entry2 *entries,
                                      uint32_t n, uint32_t base);
#endif

#endif /* TARGET_I386_SW_PROTECTED_GUEST_H */
