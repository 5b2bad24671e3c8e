/*
 * Hooks of QEMU's fuzzers in the functions with which devices read memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Included before all else of a file of QEMU that is compiled for a fuzzer,
 * since a build that is not for fuzzing says that there are none.
 */

#ifndef TESTS_FUZZ_GUEST_MEMFD_FUZZER_HOOKS_H
#define TESTS_FUZZ_GUEST_MEMFD_FUZZER_HOOKS_H

#include "config-host.h"

#define CONFIG_FUZZ

#endif /* TESTS_FUZZ_GUEST_MEMFD_FUZZER_HOOKS_H */
