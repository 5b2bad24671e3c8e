/*
 * Time: the TSC, measured against the ACPI PM timer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The PM timer wraps after 4.7 seconds, which a vCPU under nested KVM can
 * be away for; the TSC does not.  Only the first vCPU asks for the time.
 */

#include "guest.h"

#define PM_TIMER        0x608
#define PM_MASK         0xffffff
#define PM_HZ           3579545
#define MEASURE         (PM_HZ / 20)
#define READS_MAX       1000000     /* no timer there: assume 1 GHz */

static uint64_t ticks_per_ms = 1000000;
static uint64_t start;

void clock_init(void)
{
    uint32_t from = inl(PM_TIMER), passed = 0;
    unsigned reads = 0;

    if (start) {
        return;
    }
    start = rdtsc();
    while (passed < MEASURE && reads++ < READS_MAX) {
        passed = (inl(PM_TIMER) - from) & PM_MASK;
    }
    if (passed >= MEASURE) {
        ticks_per_ms = (rdtsc() - start) * (PM_HZ / 1000) / passed;
    }
}

/* Since clock_init(). */
uint64_t clock_us(void)
{
    uint64_t ticks = rdtsc() - start;

    return ticks / ticks_per_ms * 1000 +
           ticks % ticks_per_ms * 1000 / ticks_per_ms;
}
