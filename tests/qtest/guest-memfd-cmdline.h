/*
 * Command lines that QEMU refuses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_GUEST_MEMFD_CMDLINE_H
#define TESTS_QTEST_GUEST_MEMFD_CMDLINE_H

/*
 * @args: %s in them is a socket that accepts connections.
 * @texts: the property or feature, the value and the remedy, in any order.
 * @no_remedy: what does not help and is not to be said.
 */
typedef struct GmBadArgs {
    const char *args;
    const char *texts[4];
    const char *no_remedy;
} GmBadArgs;

/* Standard error; a machine that starts in spite of all quits at once. */
char *gm_run_qemu(const char *accel, const char *args, int *status);
/* All texts are there, and nothing started. */
void gm_check_bad_args(const char *accel, const GmBadArgs *bad);
/* Nothing is said, and the machine starts. */
void gm_check_good_args(const char *accel, const char *args);
/* A test of each, as @path/0, @path/1 ... */
void gm_add_table(const char *path, const GmBadArgs *table, unsigned count);

/* @text must be in @in. */
void gm_expect_text(const char *text, const char *in);

#endif /* TESTS_QTEST_GUEST_MEMFD_CMDLINE_H */
