/*
 * More than one vCPU: each converts ranges of its own, all at once
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"

#define LAPIC_SVR       0xfee000f0
#define LAPIC_ICR_LOW   0xfee00300
#define LAPIC_ICR_HIGH  0xfee00310
#define SVR_ENABLE      0x1ff
#define ICR_INIT        0x4500
#define ICR_STARTUP     0x4600
#define ICR_OTHERS      0xc4000
#define PIC_MASK        0x21
#define PIC_MASK_SECOND 0xa1

#define AP_BASE         0x8000
#define STACK_SIZE      0x4000
#define INIT_US         10000
#define STARTUP_US      1000000

static char stacks[VCPUS_MAX][STACK_SIZE] __attribute__((aligned(16)));
static unsigned arrived;
static unsigned finished;
static void (*slice_run)(unsigned slice);
static unsigned go;

/* This vCPU's own, by its APIC ID. */
uint64_t bounce_buffer(void)
{
    uint32_t regs[4];

    if (options.vcpus == 1) {
        return BOUNCE;
    }
    cpuid(1, regs);
    return BOUNCE + (regs[1] >> 24) % VCPUS_MAX * GMTD_COPY_MAX;
}

static void lapic_write(uint64_t reg, uint32_t value)
{
    *(volatile uint32_t *)reg = value; /* a register */
}

static void wait_for(unsigned *counter, unsigned value, unsigned us)
{
    uint64_t end = clock_us() + us;

    while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) < value &&
           clock_us() < end) {
        asm volatile("pause");
    }
}

/*
 * Until another vCPU changes it and calls smp_wake().  Halted: a vCPU that
 * spins takes the host's CPU from those that it waits for.
 */
void smp_wait_while(const unsigned *word, unsigned value)
{
    while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == value) {
        /* An interrupt that came before STI ends the HLT after it. */
        asm volatile("sti; hlt; cli" : : : "memory");
    }
}

void smp_wake(void)
{
    if (options.vcpus > 1) {
        lapic_write(LAPIC_ICR_LOW, ICR_OTHERS | VECTOR_WAKE);
    }
}

void ap_main(void)
{
    unsigned slice;

    trap_load();
    lapic_write(LAPIC_SVR, SVR_ENABLE);
    slice = __atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL);
    smp_wait_while(&go, 0);
    slice_run(slice);
    __atomic_add_fetch(&finished, 1, __ATOMIC_ACQ_REL);
    smp_wake();
    for (;;) {
        asm volatile("cli; hlt");
    }
}

/* INIT, then STARTUP, to one processor; true when it arrived. */
static bool start_one(unsigned apic_id)
{
    unsigned before = arrived;
    unsigned tries;

    ap_stack_top = (uint32_t)(uint64_t)(stacks[apic_id] + STACK_SIZE);
    lapic_write(LAPIC_ICR_HIGH, apic_id << 24);
    lapic_write(LAPIC_ICR_LOW, ICR_INIT);
    wait_for(&arrived, before + 1, INIT_US);
    for (tries = 0; tries < 2; tries++) {
        lapic_write(LAPIC_ICR_HIGH, apic_id << 24);
        lapic_write(LAPIC_ICR_LOW, ICR_STARTUP | AP_BASE / PAGE);
        wait_for(&arrived, before + 1, STARTUP_US);
        if (__atomic_load_n(&arrived, __ATOMIC_ACQUIRE) > before) {
            return true;
        }
    }
    return false;
}

static void start_all(struct check *check, unsigned vcpus)
{
    const char *from;
    char *to = (char *)AP_BASE;
    unsigned i;

    clock_init();
    /* No interrupts but those of smp_wake(). */
    outb(PIC_MASK, 0xff);
    outb(PIC_MASK_SECOND, 0xff);
    for (from = ap_start; from < ap_end; from++) {
        *to++ = *from;
    }
    lapic_write(LAPIC_SVR, SVR_ENABLE);
    for (i = 1; i < vcpus && i < VCPUS_MAX; i++) {
        if (!start_one(i)) {
            fail(check, "vcpu-did-not-start", i, arrived, i);
        }
    }
}

/* slice_run(0..) on each; returns the number of vCPUs that took part. */
unsigned smp_run(unsigned vcpus, void (*run)(unsigned slice))
{
    struct check check = { 0 };
    unsigned done;

    slice_run = run;
    if (vcpus > 1) {
        start_all(&check, vcpus);
    }
    __atomic_store_n(&go, 1, __ATOMIC_RELEASE);
    smp_wake();
    slice_run(0);
    while ((done = __atomic_load_n(&finished, __ATOMIC_ACQUIRE)) < arrived) {
        smp_wait_while(&finished, done);
    }
    tally_add(&check, false);
    return arrived + 1;
}
