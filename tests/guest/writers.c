/*
 * Writers that need a vCPU, with private memory to write to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU's kvmvapic patches the code that accesses its port, and the option
 * ROM that the code says it belongs to, and follows addresses in there.
 * KVM's clock is a page that KVM writes to.  Neither may change a byte of
 * a private page; that they write to shared ones shows that they were
 * reached.  While the guest says writers-hold the VM may be stopped, after
 * which the clock is written again.
 *
 * With seed=2 the page that the vAPIC is to be in stays shared.
 */

#include "guest.h"

#define PRIVATE             GMTD_ATTR_PRIVATE
#define ZERO                GMTD_ATTR_ZERO

#define VAPIC_PORT          0x7e
#define OPTION_ROM          0xc0000
#define MSR_FS_BASE         0xc0000100
#define MSR_KVM_CLOCK       0x4b564d01

#define STUB_BYTE           0x40
#define STUB_LONG           0x80
#define STATE_OFFSET        0x20    /* in the ROM's first page */
#define FIXUPS_OFFSET       0x200   /* there, too */
#define HOOK_OFFSET         0x100   /* in the ROM's second page */
#define FIXED_OFFSET        0x300
#define ROM_BLOCKS          (2 * PAGE / 512)
#define VADDR_MOVED         0x10000

/* The pages, one after the other. */
enum { STUB, ROM, ROM2, VAPIC, KPCR, CLOCK, PAGES };

/* The fields of the ROM that QEMU reads; see pc-bios/optionrom/kvmvapic.S. */
struct rom_state {
    char signature[8];
    uint32_t vaddr;
    uint32_t fixup_start;
    uint32_t fixup_end;
    uint32_t vapic_vaddr;
    uint32_t vapic_size;
} __attribute__((packed));

static uint8_t before[PAGES][PAGE];

/* QEMU alone has the hypercall, too, but neither KVM's APIC nor its clock. */
static bool with_kvm(void)
{
    return options.expect != EXPECT_EMULATED;
}

static uint8_t *page_at(unsigned page)
{
    return (uint8_t *)(AREA_BACKEND0 + page * PAGE);
}

static struct range range_of(unsigned page)
{
    return (struct range) { (uint64_t)page_at(page), PAGE };
}

static void wrmsr(uint32_t msr, uint64_t value)
{
    asm volatile("wrmsr" : : "c" (msr), "a" ((uint32_t)value),
                 "d" ((uint32_t)(value >> 32)) : "memory");
}

static void convert_to(struct check *check, unsigned page, uint64_t attributes)
{
    struct answer answer;

    convert(check, range_of(page), attributes, &answer);
    if (answer.status) {
        fail(check, "writers-status", range_of(page).gpa, answer.status, 0);
    }
}

/* --- kvmvapic ---------------------------------------------------------- */

/* Each with room before it: QEMU patches the two bytes before EIP. */
static void put_stubs(void)
{
    static const uint8_t out16[] = { 0x90, 0x90, 0x90, 0x90, 0x66, 0xef,
                                     0xc3 };
    static const uint8_t out8[] = { 0x90, 0x90, 0x90, 0x90, 0xee, 0xc3 };
    static const uint8_t out32[] = { 0x90, 0x90, 0x90, 0x90, 0xef, 0xc3 };

    __builtin_memcpy(page_at(STUB), out16, sizeof(out16));
    __builtin_memcpy(page_at(STUB) + STUB_BYTE, out8, sizeof(out8));
    __builtin_memcpy(page_at(STUB) + STUB_LONG, out32, sizeof(out32));
}

static void call_stub(unsigned offset, uint32_t value)
{
    asm volatile("call *%0" : : "r" (page_at(STUB) + offset), "a" (value),
                 "d" (VAPIC_PORT) : "memory");
}

/* The hypercall that QEMU replaces by the one which its APIC offers. */
static void put_hook(bool kvm)
{
    static const uint8_t vmcall[] = { 0xb8, 1, 0, 0, 0, 0x0f, 0x01, 0xc1 };
    static const uint8_t outl[] = { 0xb8, 1, 0, 0, 0, 0x90, 0xe7, 0x7e };

    __builtin_memcpy(page_at(ROM2) + HOOK_OFFSET, kvm ? outl : vmcall,
                     sizeof(outl));
}

static void put_rom(void)
{
    uint64_t at = range_of(ROM).gpa + STATE_OFFSET;
    uint32_t vaddr = at + VADDR_MOVED;
    struct rom_state state = {
        .signature = "kvm aPiC",
        .vaddr = vaddr,
        .fixup_start = vaddr + FIXUPS_OFFSET,
        .fixup_end = vaddr + FIXUPS_OFFSET + 4,
        .vapic_vaddr = vaddr + range_of(VAPIC).gpa - at,
        .vapic_size = PAGE,
    };
    uint32_t fixed = range_of(ROM2).gpa + FIXED_OFFSET - at;

    page_at(ROM)[2] = ROM_BLOCKS;
    __builtin_memcpy((void *)at, &state, sizeof(state));
    __builtin_memcpy((void *)(at + FIXUPS_OFFSET), &fixed, sizeof(fixed));
}

static void fill(void)
{
    uint32_t self = range_of(KPCR).gpa;
    unsigned i;

    for (i = STUB; i <= KPCR; i++) {
        __builtin_memset(page_at(i), 0, PAGE);
    }
    put_stubs();
    put_rom();
    put_hook(with_kvm());
    __builtin_memcpy(page_at(KPCR) + 0x1c, &self, sizeof(self));
    wrmsr(MSR_FS_BASE, self);
}

static void remember(void)
{
    unsigned i;

    for (i = 0; i < PAGES; i++) {
        __builtin_memcpy(before[i], page_at(i), PAGE);
    }
}

static unsigned changed(unsigned page)
{
    unsigned i, n = 0;

    for (i = 0; i < PAGE; i++) {
        n += ((volatile uint8_t *)page_at(page))[i] /* QEMU's */
             != before[page][i];
    }
    return n;
}

/* @private: bits of the pages. */
static void vapic_step(const char *name, unsigned private)
{
    struct check check = { 0 };
    unsigned i;

    for (i = STUB; i <= KPCR; i++) {
        convert_to(&check, i, private & 1U << i ? PRIVATE : ZERO);
    }
    fill();
    remember();
    call_stub(0, range_of(ROM).gpa + STATE_OFFSET - range_of(STUB).gpa);
    call_stub(STUB_BYTE, 0);
    call_stub(STUB_LONG, 0);

    for (i = STUB; i <= KPCR; i++) {
        check.bytes += PAGE;
        if ((private & 1U << i) && changed(i)) {
            fail(&check, "writers-private", range_of(i).gpa, changed(i), 0);
        }
    }
    say("writers step=%s private=0x%x stub=%u rom=%u rom2=%u vapic=%u "
        "kpcr=%u", name, private, changed(STUB), changed(ROM), changed(ROM2),
        changed(VAPIC), changed(KPCR));
    tally_add(&check, true);
}

/* The firmware ran QEMU's own ROM.  QEMU forgets it when it is private. */
static void forget_rom(void)
{
    const struct range rom = { OPTION_ROM, PAGE };
    struct check check = { 0 };
    struct answer answer;

    put_stubs();
    convert(&check, rom, PRIVATE, &answer);
    call_stub(0, 0);
    convert(&check, rom, ZERO, &answer);
    tally_add(&check, true);
}

/* The order counts: once the vAPIC is there, it stays. */
static void vapic_steps(void)
{
    bool shared = options.seed == 2;

    forget_rom();
    vapic_step("rom", 1U << ROM);
    vapic_step("kpcr", 1U << KPCR);
    vapic_step("targets", 1U << STUB | 1U << ROM2 |
               (shared ? 0 : 1U << VAPIC));
    vapic_step("none", 0);
}

/* --- KVM's clock ------------------------------------------------------- */

static void wait_us(uint64_t us)
{
    uint64_t end = clock_us() + us;

    while (clock_us() < end) {
        outb(0x80, 0);
    }
}

static void clock_steps(void)
{
    struct check check = { 0 };
    uint64_t generation = next_generation(), written;

    convert_to(&check, CLOCK, ZERO);
    __builtin_memset(page_at(CLOCK), 0, PAGE);
    wrmsr(MSR_KVM_CLOCK, range_of(CLOCK).gpa | 1);
    wait_us(10000);
    written = zero_bad(range_of(CLOCK));

    convert_to(&check, CLOCK, PRIVATE);
    pattern_fill(range_of(CLOCK), generation);
    wrmsr(MSR_KVM_CLOCK, range_of(CLOCK).gpa | 1);
    say("writers-hold");
    wait_us(3000000);
    check_guest(&check, range_of(CLOCK), CONTENT_KEPT, generation);
    wrmsr(MSR_KVM_CLOCK, 0);
    say("writers-clock shared=%lu private-bad=%lu", written, check.bad);
    tally_add(&check, true);
}

unsigned writers_run(void)
{
    clock_init();
    vapic_steps();
    if (with_kvm()) {
        clock_steps();
    }
    return 1;
}
