/*
 * Bytes that a guest had in private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-secret.h"
#include "qemu/bswap.h"

static const char *const spellings[] = {
    "5ec2e7a1b2c3d4f6", "6828274666722022646", "f6d4c3b2a1e7c25e",
    "0xf6 0xd4 0xc3 0xb2", "f6 d4 c3 b2", "b2c3d4f6", "2999178486",
};

void gm_write_secret(QTestState *qts, uint64_t gpa, uint64_t size)
{
    g_autofree uint64_t *words = g_new(uint64_t, size / sizeof(uint64_t));
    uint64_t i;

    for (i = 0; i < size / sizeof(*words); i++) {
        words[i] = cpu_to_le64(GM_SECRET);
    }
    qtest_bufwrite(qts, gpa, words, size);
}

bool gm_holds_secret(const void *bytes, size_t size)
{
    const uint64_t word = cpu_to_le64(GM_SECRET);

    return memmem(bytes, size, &word, sizeof(word)) ||
           memmem(bytes, size, (char *)&word + 1, sizeof(word) - 2);
}

bool gm_spells_secret(const char *text)
{
    g_autofree char *lower = g_ascii_strdown(text, -1);
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(spellings); i++) {
        if (strstr(lower, spellings[i])) {
            return true;
        }
    }
    return gm_holds_secret(text, strlen(text));
}
