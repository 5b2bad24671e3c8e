/*
 * A guest of the guest, whose control block is in private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * VMRUN and #VMEXIT access memory by physical address: they are this
 * vCPU's own accesses, and no device's.
 */

#include "guest.h"

#define PRIVATE             GMTD_ATTR_PRIVATE
#define ZERO                GMTD_ATTR_ZERO

#define MSR_EFER            0xc0000080
#define MSR_VM_HSAVE_PA     0xc0010117
#define EFER_SVME           (1 << 12)
#define CPUID_SVM           (1 << 2)    /* of leaf 0x80000001, ECX */
#define EXIT_VMMCALL        0x81
#define ROUNDS              3

/* Offsets in the control block, AMD's manual, volume 2, appendix B. */
#define VMCB_INTERCEPT      0x010       /* VMRUN: 1, VMMCALL: 2 */
#define VMCB_ASID           0x058
#define VMCB_EXITCODE       0x070
#define VMCB_ES             0x400
#define VMCB_CS             0x410
#define VMCB_SS             0x420
#define VMCB_DS             0x430
#define VMCB_EFER           0x4d0
#define VMCB_CR4            0x548
#define VMCB_CR3            0x550
#define VMCB_CR0            0x558
#define VMCB_RFLAGS         0x570
#define VMCB_RIP            0x578
#define VMCB_RSP            0x5d8

enum { VMCB, HOST_SAVE, PAGES };

static uint64_t page_at(unsigned page)
{
    return AREA_BACKEND0 + page * PAGE;
}

static uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;

    asm volatile("rdmsr" : "=a" (low), "=d" (high) : "c" (msr));
    return low | (uint64_t)high << 32;
}

static void wrmsr(uint32_t msr, uint64_t value)
{
    asm volatile("wrmsr" : : "c" (msr), "a" ((uint32_t)value),
                 "d" ((uint32_t)(value >> 32)) : "memory");
}

static void put(unsigned offset, unsigned size, uint64_t value)
{
    __builtin_memcpy((void *)(page_at(VMCB) + offset), &value, size);
}

/* Selector, attributes, limit; the base is 0. */
static void put_segment(unsigned offset, uint16_t selector, uint16_t attrib)
{
    put(offset, 8, selector | (uint32_t)attrib << 16 | 0xffffffffULL << 32);
    put(offset + 8, 8, 0);
}

static uint64_t control(unsigned reg)
{
    uint64_t value;

    if (reg == 0) {
        asm volatile("mov %%cr0, %0" : "=r" (value));
    } else if (reg == 3) {
        asm volatile("mov %%cr3, %0" : "=r" (value));
    } else {
        asm volatile("mov %%cr4, %0" : "=r" (value));
    }
    return value;
}

/* It continues here, in the same memory, and issues VMMCALL at once. */
static void fill_control_block(void)
{
    put(VMCB_INTERCEPT, 4, 3);
    put(VMCB_ASID, 4, 1);
    put_segment(VMCB_CS, 0x08, 0xa9b);
    put_segment(VMCB_SS, 0x10, 0xc93);
    put_segment(VMCB_DS, 0x10, 0xc93);
    put_segment(VMCB_ES, 0x10, 0xc93);
    put(VMCB_EFER, 8, rdmsr(MSR_EFER));
    put(VMCB_CR0, 8, control(0));
    put(VMCB_CR3, 8, control(3));
    put(VMCB_CR4, 8, control(4));
    put(VMCB_RFLAGS, 8, 2);
    put(VMCB_RIP, 8, (uint64_t)svm_inner);
}

static void enter(void)
{
    asm volatile("jmp 1f\n\t"
                 ".globl svm_inner\n"
                 "svm_inner: vmmcall\n\t"
                 "jmp svm_inner\n"
                 "1: clgi\n\t"
                 "vmrun\n\t"
                 "stgi"
                 : : "a" (page_at(VMCB)) : "memory", "cc");
}

static void convert_all(struct check *check, uint64_t attributes)
{
    const struct range range = { page_at(0), PAGES * PAGE };
    struct answer answer;

    convert(check, range, attributes, &answer);
    if (answer.status) {
        fail(check, "svm-status", range.gpa, answer.status, 0);
    }
}

static void run_round(struct check *check)
{
    const struct range range = { page_at(0), PAGES * PAGE };
    uint64_t code;

    convert_all(check, PRIVATE);
    wrmsr(MSR_VM_HSAVE_PA, page_at(HOST_SAVE));
    __builtin_memset((void *)page_at(0), 0, PAGES * PAGE);
    fill_control_block();
    enter();
    code = mem_read(page_at(VMCB) + VMCB_EXITCODE);
    if (code != EXIT_VMMCALL) {
        fail(check, "svm-exit", page_at(VMCB), code, EXIT_VMMCALL);
    }
    /* A device still gets nothing of it, also in this thread. */
    check_device(check, range);
    convert_all(check, ZERO);
}

unsigned svm_run(void)
{
    struct check check = { 0 };
    uint32_t regs[4];
    unsigned i;

    cpuid(0x80000001, regs);
    if (!(regs[2] & CPUID_SVM)) {
        say("svm absent=1");
        fail(&check, "svm-absent", 0, regs[2], CPUID_SVM);
    } else {
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
        for (i = 0; i < ROUNDS; i++) {
            run_round(&check);
        }
        say("svm rounds=%u ok=%u", i, !check.bad);
    }
    tally_add(&check, false);
    return 1;
}
