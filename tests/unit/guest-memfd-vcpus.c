/*
 * Many vCPUs, and the memory that they convert at once
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "guest-memfd-vcpus.h"

#define DEADLOCK_S      300

bool vcpus_stop;

uint32_t vcpus_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

Rig *vcpus_rig(const char *provider)
{
    Rig *rig = rig_new(provider);
    unsigned i;

    for (i = 0; i < BLOCKS; i++) {
        const char name[] = { 'a' + i, 0 };
        GuestMemfdBlock *block = rig_block(rig, name, BLOCK_PAGES);

        rig_map(rig, i * BLOCK_PAGES, block, 0, BLOCK_PAGES);
        rig_map(rig, MIRROR + (BLOCKS - 1 - i) * BLOCK_PAGES, block, 0,
                BLOCK_PAGES);
    }
    rig_listen(rig, rig->blocks[2], 0, BLOCK_PAGES);
    g_string_free(rig->log, true);
    rig->log = NULL;
    rig->threads = true;
    qatomic_set(&vcpus_stop, false);
    return rig;
}

void vcpus_start(Rig *rig, Vcpu *vcpus, unsigned first, unsigned end,
                 void *(*vcpu_main)(void *))
{
    unsigned i;

    alarm(DEADLOCK_S);
    for (i = first; i < end; i++) {
        vcpus[i].rig = rig;
        vcpus[i].index = i;
        vcpus[i].random = i;
        qemu_thread_create(&vcpus[i].thread, "vcpu", vcpu_main, &vcpus[i],
                           QEMU_THREAD_JOINABLE);
    }
}

void vcpus_join(Vcpu *vcpus, unsigned first, unsigned end)
{
    unsigned i;

    for (i = first; i < end; i++) {
        qemu_thread_join(&vcpus[i].thread);
    }
    if (end == VCPUS) {
        alarm(0);
    }
}
