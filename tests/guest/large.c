/*
 * Requests for gigabytes, of memory above 4 GiB that the guest never touches
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For a host that looks how long others wait meanwhile.  For the device
 * only: a hypercall asks for no more than its own count of pages.
 */

#include "guest.h"

#define HIGH_MEMORY     (4UL * 1024 * MiB)

static void ask(uint64_t attributes)
{
    const struct range area = { HIGH_MEMORY, options.count * 1024UL * MiB };
    struct check check = { 0 };
    struct answer answer;

    device_convert(area, attributes, &answer);
    if (answer.status || answer.changed != area.size) {
        fail(&check, "large-status", area.gpa, answer.status,
             answer.changed);
    }
    tally_add(&check, true);
}

unsigned large_run(void)
{
    unsigned round;

    for (round = 1; round <= options.rounds; round++) {
        say("large-at round=%u gigabytes=%u", round, options.count);
        ask(GMTD_ATTR_PRIVATE);
        ask(GMTD_ATTR_ZERO);
    }
    return 1;
}
