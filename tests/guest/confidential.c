/*
 * A guest that SEV-SNP or TDX launched: what the launch left in its memory,
 * and requests as these platforms make them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All memory is private at first.  Everything else here expects it to be
 * shared, so that is what this program asks for before it does anything.
 */

#include "guest.h"

/* As in confidential.S. */
#define SNP_ZERO            0x800000
#define SNP_ZERO_SIZE       0x9000
#define SNP_SECRETS         0x80d000
#define SNP_CPUID           0x80e000
#define TDX_HOB             0x809000
#define TDX_TEMPORARY       0x810000
#define TDX_TEMPORARY_SIZE  0x10000

/* The secrets of tests/kvm/standin/snp.c. */
#define SECRETS_WORD        0x5e5e5e5e5e5e5e5eULL
#define CPUID_ENTRIES_MAX   64
#define HOB_HANDOFF         1
#define HOB_RESOURCE        3
#define HOB_END             0xffff
#define RESOURCE_UNACCEPTED 7

/* Of tests/kvm/standin/vcpu.c: an access instead of a hypercall. */
#define BY_ACCESS           (1ULL << 60)

/* PCI configuration of the LPC bridge of ICH9, 00:1f.0. */
#define CONFIG_ADDRESS      0xcf8
#define CONFIG_DATA         0xcfc
#define LPC                 0x8000f800
#define LPC_PMBASE          0x40
#define LPC_ACPI_CTRL       0x44
#define PMBASE              0x600
#define ACPI_ENABLE         0x80

static void lpc_write(unsigned reg, uint32_t value)
{
    outl(CONFIG_ADDRESS, LPC | reg);
    outl(CONFIG_DATA, value);
}

/* For clock.c, as other firmware does. */
static void enable_pm_timer(void)
{
    lpc_write(LPC_PMBASE, PMBASE);
    lpc_write(LPC_ACPI_CTRL, ACPI_ENABLE);
}

static void check_zero(struct check *check, uint64_t gpa, uint64_t size)
{
    uint64_t bad = zero_bad((struct range) { gpa, size });

    check->bytes += size;
    if (bad) {
        fail(check, "launch-not-zero", gpa, bad, 0);
    }
}

static void check_snp(struct check *check)
{
    uint64_t gpa;
    uint32_t entries = mem_read(SNP_CPUID);

    check_zero(check, SNP_ZERO, SNP_ZERO_SIZE);
    for (gpa = SNP_SECRETS; gpa < SNP_SECRETS + PAGE; gpa += 8) {
        if (mem_read(gpa) != SECRETS_WORD) {
            fail(check, "launch-secrets", gpa, mem_read(gpa), SECRETS_WORD);
        }
    }
    if (!entries || entries > CPUID_ENTRIES_MAX) {
        fail(check, "launch-cpuid", SNP_CPUID, entries, CPUID_ENTRIES_MAX);
    }
    check->bytes += 2 * PAGE;
}

/* The list describes memory that the guest has to accept, too. */
static void check_hob(struct check *check)
{
    uint64_t gpa = TDX_HOB, unaccepted = 0;
    unsigned type = mem_read(gpa) & 0xffff;

    if (type != HOB_HANDOFF) {
        fail(check, "launch-hob", gpa, type, HOB_HANDOFF);
        return;
    }
    while (type != HOB_END && gpa < TDX_HOB + PAGE) {
        if (type == HOB_RESOURCE &&
            (uint32_t)mem_read(gpa + 24) == RESOURCE_UNACCEPTED) {
            unaccepted += mem_read(gpa + 40);
        }
        gpa += mem_read(gpa) >> 16 & 0xffff;
        type = mem_read(gpa) & 0xffff;
    }
    if (type != HOB_END || !unaccepted || unaccepted > RAM_END) {
        fail(check, "launch-hob-memory", gpa, unaccepted, RAM_END);
    }
}

static void check_launch(struct check *check)
{
    if (options.platform == PLATFORM_SNP) {
        check_snp(check);
    } else {
        check_hob(check);
        check_zero(check, TDX_TEMPORARY, TDX_TEMPORARY_SIZE);
    }
}

/* In requests of the size that KVM makes of larger ones. */
static void share(struct check *check, uint64_t gpa, uint64_t end)
{
    struct answer answer;
    uint64_t next;

    for (; gpa < end; gpa = next) {
        next = (gpa | (2 * MiB - 1)) + 1;
        convert(check, (struct range) { gpa, next - gpa }, 0, &answer);
        if (answer.status) {
            fail(check, "share-all", gpa, answer.status, 0);
        }
    }
}

void confidential_start(void)
{
    struct check check = { 0 };

    if (options.platform == PLATFORM_NONE) {
        return;
    }
    enable_pm_timer();
    convert_settle((struct range) { 0, RAM_END }, true);
    check_launch(&check);
    say("launch platform=%s bad=%lu",
        options.platform == PLATFORM_SNP ? "snp" : "tdx", check.bad);
    share(&check, BOUNCE, RAM_END);
    tally_add(&check, true);
}

static void request(struct check *check, struct range range, bool private,
                    uint64_t how)
{
    uint64_t attributes = (private ? GMTD_ATTR_PRIVATE : 0) | how;
    int64_t status = hypercall(KVM_HC_MAP_GPA_RANGE, range.gpa,
                               range.size / PAGE, attributes);

    if (status) {
        fail(check, "request", range.gpa, status, 0);
        return;
    }
    convert_settle(range, private);
}

/* To private and back; what is written there stays while it is in use. */
static void round_trip(struct range range, uint64_t how)
{
    uint64_t generation = next_generation();
    struct range after = { range.gpa + range.size, PAGE };
    struct check check = { 0 };

    pattern_fill(after, generation);
    request(&check, range, true, how);
    pattern_fill(range, generation);
    check_device(&check, range);
    check_guest(&check, range, CONTENT_KEPT, generation);
    request(&check, range, false, how);
    pattern_fill(range, generation);
    check_device(&check, range);
    check_guest(&check, range, CONTENT_KEPT, generation);
    check_guest(&check, after, CONTENT_KEPT, generation);
    tally_add(&check, true);
}

static void round_trips(unsigned slice)
{
    uint64_t gpa = AREA_BACKEND0 + slice * 8 * MiB;

    round_trip((struct range) { gpa, PAGE }, 0);
    round_trip((struct range) { gpa + PAGE, 5 * MiB }, 0);
    round_trip((struct range) { gpa, PAGE }, BY_ACCESS);
    round_trip((struct range) { gpa + PAGE, 16 * PAGE }, BY_ACCESS);
    if (!slice && options.backends > 1) {
        round_trip((struct range) { BORDER - MiB, 2 * MiB }, 0);
        round_trip((struct range) { BORDER - PAGE, 2 * PAGE }, BY_ACCESS);
    }
}

unsigned platform_run(void)
{
    return smp_run(options.vcpus, round_trips);
}
