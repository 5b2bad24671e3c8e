/*
 * QEMU software-protected guest: CPUID, and hypercalls without KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest finds and uses the same interface with every accelerator: KVM's
 * signature and KVM_FEATURE_HC_MAP_GPA_RANGE, a block of leaves of this
 * project, and KVM_HC_MAP_GPA_RANGE.  With KVM, KVM serves the hypercall;
 * with TCG it is done here, by the rules of kvm_emulate_hypercall().
 */

#include "qemu/osdep.h"
#include "hw/boards.h"
#include "qemu/main-loop.h"
#include "standard-headers/asm-x86/kvm_para.h"
#include "system/guest-memfd-ram.h"
#include "system/tcg.h"
#include "sw-protected-guest.h"
#ifdef CONFIG_KVM
#include <linux/kvm.h>
#endif

/* linux/kvm_para.h, which hosts other than Linux do not have. */
#define HC_MAP_GPA_RANGE    12
#define HC_EPERM            1
#define HC_ENOSYS           1000

/* Where KVM's leaves are with TCG, and the next block of leaves. */
#define KVM_BASE            KVM_CPUID_SIGNATURE
#define LEAVES              0x100

static bool is_sw_protected(void)
{
    return current_machine && current_machine->cgs &&
           object_dynamic_cast(OBJECT(current_machine->cgs),
                               TYPE_SW_PROTECTED_GUEST);
}

bool sw_protected_guest_has_hypercall(void)
{
    return tcg_enabled() && is_sw_protected();
}

/* --- hypercalls -------------------------------------------------------- */

static bool is_64_bit(const CPUX86State *env)
{
    return env->hflags & HF_CS64_MASK;
}

static uint64_t argument(const CPUX86State *env, int reg)
{
    return is_64_bit(env) ? env->regs[reg] : (uint32_t)env->regs[reg];
}

static uint64_t serve(const CPUX86State *env)
{
    if (env->hflags & HF_CPL_MASK) {
        return -HC_EPERM;
    }
    if (argument(env, R_EAX) != HC_MAP_GPA_RANGE) {
        return -HC_ENOSYS;
    }
    return guest_memfd_map_gpa_range(argument(env, R_EBX),
                                     argument(env, R_ECX),
                                     argument(env, R_EDX));
}

/* With the BQL, as a device does that converts memory for a vCPU. */
bool sw_protected_guest_hypercall(CPUX86State *env)
{
    uint64_t ret;

    if (!sw_protected_guest_has_hypercall() ||
        (env->hflags & HF_GUEST_MASK)) {
        return false;
    }
    bql_lock();
    ret = serve(env);
    bql_unlock();
    env->regs[R_EAX] = is_64_bit(env) ? ret : (uint32_t)ret;
    return true;
}

/* --- CPUID ------------------------------------------------------------- */

static bool kvm_leaf(uint32_t index, uint32_t *regs)
{
    switch (index) {
    case KVM_CPUID_SIGNATURE:
        regs[0] = KVM_CPUID_FEATURES;
        memcpy(&regs[1], "KVMKVMKVM\0\0\0", 3 * sizeof(*regs));
        return true;
    case KVM_CPUID_FEATURES:
        regs[0] = 1u << KVM_FEATURE_HC_MAP_GPA_RANGE;
        return true;
    default:
        return false;
    }
}

static bool own_leaf(uint32_t index, uint32_t base, uint32_t *regs)
{
    if (index < base || !guest_memfd_cpuid(guest_memfd_engine(), index - base,
                                          regs)) {
        return false;
    }
    if (index == base) {
        regs[0] += base;
    }
    return true;
}

bool sw_protected_guest_cpuid(X86CPU *cpu, uint32_t index, uint32_t *eax,
                              uint32_t *ebx, uint32_t *ecx, uint32_t *edx)
{
    uint32_t regs[4] = { };

    if (index < KVM_BASE || index >= KVM_BASE + 2 * LEAVES ||
        !cpu->expose_kvm ||
        !sw_protected_guest_has_hypercall()) {
        return false;
    }
    if (!kvm_leaf(index, regs) &&
        !own_leaf(index, KVM_BASE + LEAVES, regs)) {
        return false;
    }
    *eax = regs[0];
    *ebx = regs[1];
    *ecx = regs[2];
    *edx = regs[3];
    return true;
}

#ifdef CONFIG_KVM
uint32_t sw_protected_guest_add_cpuid(struct kvm_cpuid_entry2 *entries,
                                      uint32_t n, uint32_t base)
{
    uint32_t index, regs[4];

    if (!is_sw_protected()) {
        return n;
    }
    base += LEAVES;
    for (index = base; own_leaf(index, base, regs); index++) {
        entries[n++] = (struct kvm_cpuid_entry2) {
            .function = index,
            .eax = regs[0],
            .ebx = regs[1],
            .ecx = regs[2],
            .edx = regs[3],
        };
    }
    return n;
}
#endif
