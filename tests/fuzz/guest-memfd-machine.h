/*
 * Fuzzing the engine: a small machine, and its visible state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_FUZZ_GUEST_MEMFD_MACHINE_H
#define TESTS_FUZZ_GUEST_MEMFD_MACHINE_H

#include "../unit/guest-memfd-rig.h"

#define BLOCKS      3
#define MAX_PAGES   24
/* Eight pages that end one page below the end of all addresses. */
#define LAST_GPA    ((1ULL << 52) - 9)

static const unsigned block_pages[BLOCKS] = { MAX_PAGES, 12, 8 };

typedef struct Machine {
    Rig *rig;
    bool emulated;
    bool faulty;                    /* a fault or an objection is possible */
    bool lossy;                     /* bytes are not kept both ways */
} Machine;

typedef struct PageView {
    bool shared;
    uint64_t words[3];
} PageView;

typedef struct View {
    PageView pages[BLOCKS][MAX_PAGES];
    GuestMemfdCounters counters[BLOCKS];
    uint64_t rejected;
    uint64_t operations;
} View;

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

static uint64_t sum(const uint64_t *counts, unsigned n)
{
    uint64_t total = 0;

    while (n--) {
        total += counts[n];
    }
    return total;
}

/* --- the machine ------------------------------------------------------- */

/* A page without a way back ends private; then the provider is mended. */
static void broken(GuestMemfdBlock *block, uint64_t offset, uint64_t size,
                   int error)
{
    Rig *rig = container_of(block->engine, Rig, engine);

    g_assert_cmpint(error, <, 0);
    bitmap_set(block->provider_data, offset / page_size(),
               size / page_size());
    rig->broken++;
}

static void new_machine(Machine *m, uint8_t kind)
{
    Rig *rig;
    unsigned i;

    m->emulated = kind & 1;
    m->faulty = m->lossy = false;
    m->rig = rig = rig_new(m->emulated ? TYPE_GUEST_MEMFD_PROVIDER_EMULATED :
                           TYPE_RIG_PROVIDER);
    rig->engine.broken = broken;
    rig->all_private = kind & 2;
    rig->engine.phase = kind & 4 ? GUEST_MEMFD_PHASE_SETUP :
                                   GUEST_MEMFD_PHASE_RUNNING;
    g_string_free(rig->log, true);
    rig->log = NULL;

    for (i = 0; i < BLOCKS; i++) {
        const char name[] = { 'a' + i, 0 };

        rig_block(rig, name, block_pages[i]);
    }
    rig_map(rig, 0, rig->blocks[0], 0, 24);
    rig_map_other(rig, 24, 4);
    rig_map(rig, 32, rig->blocks[1], 0, 12);
    rig_map_other(rig, 44, 2);
    rig_map(rig, 48, rig->blocks[0], 8, 8);
    rig_map(rig, 56, rig->blocks[2], 0, 8);
    rig_map(rig, LAST_GPA, rig->blocks[2], 0, 8);
    if (kind & 8) {
        rig_listen(rig, rig->blocks[1], 2, 8);
    }
    if (kind & 16) {
        rig_listen(rig, rig->blocks[0], 0, 24);
        rig_listen(rig, rig->blocks[0], 4, 16);
    }
}

/* --- the visible state ------------------------------------------------- */

static void look(const Machine *m, View *v)
{
    const size_t words = page_size() / sizeof(uint64_t);
    unsigned i, page;

    for (i = 0; i < BLOCKS; i++) {
        const GuestMemfdBlock *block = m->rig->blocks[i];

        v->counters[i] = block->stats.counters;
        for (page = 0; page < block_pages[i]; page++) {
            const uint64_t *host = (uint64_t *)(block->host +
                                                page * page_size());
            PageView *p = &v->pages[i][page];

            p->shared = test_bit(page, block->attributes->bitmap);
            if (m->emulated) {
                p->words[0] = host[0];
                p->words[1] = host[(page * 37 + 1) % words];
                p->words[2] = host[words - 1];
            }
        }
    }
    v->rejected = sum(m->rig->engine.rejected, GUEST_MEMFD_ERRNO_BUCKETS);
    v->operations = m->emulated ?
        object_property_get_uint(OBJECT(m->rig->engine.provider),
                                 "operations", &error_abort) :
        m->rig->calls;
}

/* Is the page in [gpa, gpa + size), which must not wrap? */
static bool is_named(const Machine *m, int block, unsigned page, uint64_t gpa,
                     uint64_t size)
{
    const uint64_t offset = page * page_size();
    unsigned i;

    for (i = 0; i < m->rig->pieces; i++) {
        const RigPiece *p = &m->rig->map[i];
        const uint64_t here = p->gpa + (offset - p->offset);

        if (p->block == m->rig->blocks[block] && offset >= p->offset &&
            offset - p->offset < p->size && here >= gpa &&
            here - gpa < size) {
            return true;
        }
    }
    return false;
}

static bool same_bytes(const PageView *a, const PageView *b)
{
    return memcmp(a->words, b->words, sizeof(a->words)) == 0;
}

#endif /* TESTS_FUZZ_GUEST_MEMFD_MACHINE_H */
