/*
 * Patterns: a word that says where it belongs and when it was written
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A word depends on its address and on a generation number, so that
 * bytes that moved and bytes of an earlier step are both found.  The
 * fast loops gather differences without a branch; only a difference
 * makes the slow loop count bytes.
 */

#include "guest.h"

#define GENERATION_STEP     0x9e3779b97f4a7c15ULL

uint64_t pattern_word(uint64_t gpa, uint64_t generation)
{
    return generation * GENERATION_STEP + gpa;
}

static uint64_t bad_bytes(uint64_t got, uint64_t want)
{
    uint64_t difference = got ^ want;
    uint64_t n = 0;

    for (; difference; difference >>= 8) {
        n += (difference & 0xff) != 0;
    }
    return n;
}

void pattern_fill(struct range range, uint64_t generation)
{
    uint64_t *p = (uint64_t *)range.gpa;
    uint64_t *end = (uint64_t *)(range.gpa + range.size);
    uint64_t word = pattern_word(range.gpa, generation);

#pragma GCC unroll 8
    for (; p != end; p++) {
        *p = word;
        word += 8;
    }
    asm volatile("" : : : "memory");
}

uint64_t pattern_bad(struct range range, uint64_t generation)
{
    const uint64_t *p = (const uint64_t *)range.gpa;
    const uint64_t *end = (const uint64_t *)(range.gpa + range.size);
    uint64_t word = pattern_word(range.gpa, generation);
    uint64_t difference = 0, bad = 0;

    asm volatile("" : : : "memory");
#pragma GCC unroll 8
    for (; p != end; p++) {
        difference |= *p ^ word;
        word += 8;
    }
    if (!difference) {
        return 0;
    }
    for (p = (const uint64_t *)range.gpa; p != end; p++) {
        bad += bad_bytes(*p, pattern_word((uint64_t)p, generation));
    }
    return bad;
}

/* Bytes in words that still hold the pattern. */
uint64_t pattern_left(struct range range, uint64_t generation)
{
    const uint64_t *p = (const uint64_t *)range.gpa;
    const uint64_t *end = (const uint64_t *)(range.gpa + range.size);
    uint64_t word = pattern_word(range.gpa, generation);
    uint64_t left = 0;

    asm volatile("" : : : "memory");
#pragma GCC unroll 8
    for (; p != end; p++) {
        left += *p == word;
        word += 8;
    }
    return left * 8;
}

uint64_t zero_bad(struct range range)
{
    const uint64_t *p = (const uint64_t *)range.gpa;
    const uint64_t *end = (const uint64_t *)(range.gpa + range.size);
    uint64_t any = 0, bad = 0;

    asm volatile("" : : : "memory");
#pragma GCC unroll 8
    for (; p != end; p++) {
        any |= *p;
    }
    if (!any) {
        return 0;
    }
    for (p = (const uint64_t *)range.gpa; p != end; p++) {
        bad += bad_bytes(*p, 0);
    }
    return bad;
}

uint64_t compare_bad(struct range range, uint64_t copy)
{
    const uint64_t *p = (const uint64_t *)range.gpa;
    const uint64_t *q = (const uint64_t *)copy;
    uint64_t n = range.size / 8, difference = 0, bad = 0, i;

    asm volatile("" : : : "memory");
#pragma GCC unroll 8
    for (i = 0; i < n; i++) {
        difference |= p[i] ^ q[i];
    }
    if (!difference) {
        return 0;
    }
    for (i = 0; i < n; i++) {
        bad += bad_bytes(p[i], q[i]);
    }
    return bad;
}
