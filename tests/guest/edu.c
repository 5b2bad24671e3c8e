/*
 * QEMU's educational device: DMA of 4 KiB at most, 0.1 s each
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"
#include "assigned.h"

#define SOURCE          0x80
#define DESTINATION     0x88
#define COUNT           0x90
#define COMMAND         0x98

#define RUN             1
#define TO_MEMORY       2
#define BUFFER          0x40000

#define WAIT_MAX_US     (120 * 1000000UL)    /* on a busy machine */

static uint64_t base;

void edu_init(uint64_t bar)
{
    base = bar;
}

static bool transfer(uint64_t from, uint64_t to, uint64_t command)
{
    uint64_t end = clock_us() + WAIT_MAX_US;

    mem_write(base + SOURCE, from);
    mem_write(base + DESTINATION, to);
    mem_write(base + COUNT, PAGE);
    mem_write(base + COMMAND, command | RUN);
    while (mem_read(base + COMMAND) & RUN) {
        if (clock_us() > end) {
            return false;
        }
    }
    return true;
}

/* False if it never ends.  A page that cannot be accessed is no error. */
bool edu_load(uint64_t gpa)
{
    return transfer(gpa, BUFFER, 0);
}

bool edu_store(uint64_t gpa)
{
    return transfer(BUFFER, gpa, TO_MEMORY);
}
