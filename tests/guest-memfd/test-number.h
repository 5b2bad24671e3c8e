/*
 * Numbers that the user of a random test may choose
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_GUEST_MEMFD_TEST_NUMBER_H
#define TESTS_GUEST_MEMFD_TEST_NUMBER_H

#include "qemu/cutils.h"

/* That of an environment variable, if it is set. */
static inline uint64_t test_number(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);
    uint64_t number = otherwise;

    if (text && qemu_strtou64(text, NULL, 0, &number) < 0) {
        g_error("%s is not a number: %s", variable, text);
    }
    return number;
}

#endif /* TESTS_GUEST_MEMFD_TEST_NUMBER_H */
