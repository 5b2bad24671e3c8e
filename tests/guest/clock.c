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
#define MEASURE         (PM_HZ / 50)
#define MEASUREMENTS    5
#define READS_MAX       200000
#define READS_STUCK     1000        /* no timer there: assume 1 GHz */

static uint64_t ticks_per_ms = 1000000;
static uint64_t start;

/*
 * Ticks of the TSC in a millisecond, or more: the vCPU can be away between a
 * look at one clock and at the other.  0 without a timer.
 */
static uint64_t measure(void)
{
    uint64_t tsc = rdtsc();
    uint32_t from = inl(PM_TIMER), passed = 0;
    unsigned reads = 0;

    while (passed < MEASURE &&
           reads++ < (passed ? READS_MAX : READS_STUCK)) {
        passed = (inl(PM_TIMER) - from) & PM_MASK;
    }
    tsc = rdtsc() - tsc;
    return passed < MEASURE ? 0 : tsc * (PM_HZ / 1000) / passed;
}

/* The least is the nearest, and no wait is ever too short. */
void clock_init(void)
{
    uint64_t least = ~0ULL;
    unsigned i;

    if (start) {
        return;
    }
    start = rdtsc();
    for (i = 0; i < MEASUREMENTS && least; i++) {
        uint64_t ticks = measure();

        least = ticks < least ? ticks : least;
    }
    if (least) {
        ticks_per_ms = least;
    }
}

/* Since clock_init(). */
uint64_t clock_us(void)
{
    uint64_t ticks = rdtsc() - start;

    return ticks / ticks_per_ms * 1000 +
           ticks % ticks_per_ms * 1000 / ticks_per_ms;
}
