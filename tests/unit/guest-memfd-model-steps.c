/*
 * A naive model of guest memory conversion: the map, and random steps
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-model.h"
#include "guest-memfd-rig.h"

/* Where a guest page is; the last one shows pages of block 0 again. */
static const Place places[] = {
    { 0, 70, 0, 0 },
    { 80, 130, 1, 0 },
    { 210, 4, -1, 0, true },
    { 214, 64, 2, 0 },
    { 278, 10, 0, 60 },
};

const unsigned model_block_pages[MODEL_BLOCKS] = { 70, 130, 64 };

const Place *model_place(unsigned gpa)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(places); i++) {
        if (gpa >= places[i].gpa && gpa - places[i].gpa < places[i].pages) {
            return &places[i];
        }
    }
    return NULL;
}

const Place *model_nth_place(unsigned n)
{
    return n < ARRAY_SIZE(places) ? &places[n] : NULL;
}

/* --- steps ------------------------------------------------------------- */

uint64_t model_random(uint64_t seed, uint64_t n)
{
    uint64_t x = seed + (n + 1) * 0x9e3779b97f4a7c15ULL;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

Step model_nth_step(uint64_t seed, uint64_t n)
{
    static const ModelKind kinds[16] = { [10] = WRITE, WRITE, WRITE, POLICY,
                                    POLICY, FAULT };
    static const GuestMemfdIntent intents[8] = { [6] = ZERO, PRESERVE };
    const uint64_t a = model_random(seed, 2 * n);
    const uint64_t b = model_random(seed, 2 * n + 1);
    Step s = {
        .kind = kinds[a % 16],
        .gpa = (a >> 4) % MODEL_GPA_END,
        .direction = (a >> 16) % GUEST_MEMFD_DIRECTION__MAX,
        .intent = intents[(a >> 20) % ARRAY_SIZE(intents)],
        .listener_agrees = (a >> 24) % 16,
        .value = b,
    };

    s.pages = 1 + (b >> 8) % ((a >> 32) % 8 ? 8 : 100);
    return s;
}

char *model_describe_step(uint64_t seed, uint64_t n)
{
    static const char *const names[] = { "convert", "write", "policy",
                                         "fault" };
    Step s = model_nth_step(seed, n);

    return g_strdup_printf("%" PRIu64 ": %s %u+%u %s intent %d agrees %u "
                           "value 0x%" PRIx64, n, names[s.kind], s.gpa,
                           s.pages, GuestMemfdDirection_str(s.direction),
                           s.intent, s.listener_agrees, s.value);
}
