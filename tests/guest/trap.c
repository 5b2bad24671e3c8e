/*
 * Exceptions: none is expected, so report the first one and stop.  The one
 * interrupt is that of smp_wake().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"

#define EXCEPTIONS      32
#define STUB_SIZE       16
#define SEL_CODE64      0x08
#define GATE_INTERRUPT  0x8e00

struct trap_frame {
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

struct gate {
    uint16_t offset_low;
    uint16_t selector;
    uint16_t flags;
    uint16_t offset_mid;
    uint32_t offset_high;
    uint32_t zero;
};

struct __attribute__((packed)) idt_pointer {
    uint16_t limit;
    uint64_t base;
};

static struct gate idt[VECTOR_WAKE + 1];

void trap_report(const struct trap_frame *frame)
{
    uint64_t cr2;

    asm volatile("mov %%cr2, %0" : "=r" (cr2));
    say("trap vector=%lu error=0x%lx rip=0x%lx cr2=0x%lx rsp=0x%lx",
        frame->vector, frame->error, frame->rip, cr2, frame->rsp);
    guest_exit(false);
}

void trap_load(void)
{
    struct idt_pointer pointer = { sizeof(idt) - 1, (uint64_t)idt };

    asm volatile("lidt %0" : : "m" (pointer));
}

static void set_gate(unsigned vector, uint64_t stub)
{
    idt[vector].offset_low = stub;
    idt[vector].selector = SEL_CODE64;
    idt[vector].flags = GATE_INTERRUPT;
    idt[vector].offset_mid = stub >> 16;
    idt[vector].offset_high = stub >> 32;
}

void trap_init(void)
{
    unsigned i;

    for (i = 0; i < EXCEPTIONS; i++) {
        set_gate(i, (uint64_t)trap_stubs + i * STUB_SIZE);
    }
    set_gate(VECTOR_WAKE, (uint64_t)wake_stub);
    trap_load();
}
