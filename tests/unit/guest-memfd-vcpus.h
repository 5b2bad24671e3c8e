/*
 * Many vCPUs, and the memory that they convert at once
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Three blocks are mapped twice, in opposite orders, so that requests that
 * span blocks would wait for each other if they could.  The last one has a
 * listener, which brings the BQL into play, and only there: conversions
 * under the BQL do not race.
 */

#ifndef TESTS_UNIT_GUEST_MEMFD_VCPUS_H
#define TESTS_UNIT_GUEST_MEMFD_VCPUS_H

#include "qemu/thread.h"
#include "guest-memfd-rig.h"

#define VCPUS           8
#define BLOCKS          3
#define BLOCK_PAGES     64
#define ALL_PAGES       (BLOCKS * BLOCK_PAGES)
#define OWN_PAGES       (ALL_PAGES / VCPUS)
#define MIRROR          1000        /* the GPA of the second mapping */

typedef struct Vcpu {
    QemuThread thread;
    Rig *rig;
    unsigned index;
    uint32_t random;
    bool own_pages;                 /* that no other vCPU converts */

    uint64_t answers;
    uint64_t failures;
    uint64_t changed[GUEST_MEMFD_DIRECTION__MAX];
    uint64_t asked;                 /* of the requests that succeeded */
} Vcpu;

/* Threads that check it end. */
extern bool vcpus_stop;

Rig *vcpus_rig(const char *provider);

/* The vCPUs from @first on, up to @end.  The process ends if they hang. */
void vcpus_start(Rig *rig, Vcpu *vcpus, unsigned first, unsigned end,
                 void *(*vcpu_main)(void *));
void vcpus_join(Vcpu *vcpus, unsigned first, unsigned end);

uint32_t vcpus_random(uint32_t *state);

#endif /* TESTS_UNIT_GUEST_MEMFD_VCPUS_H */
