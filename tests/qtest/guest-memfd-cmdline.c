/*
 * Command lines that QEMU refuses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-cmdline.h"
#include "libqtest.h"
#include "qapi/error.h"
#include "qemu/sockets.h"

#define SECONDS_MAX "60"

char *gm_run_qemu(const char *accel, const char *args, int *status)
{
    g_autofree char *command = g_strdup_printf(
        "echo '{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}' | "
        "timeout " SECONDS_MAX " %s -accel %s -display none -qmp stdio %s",
        qtest_qemu_binary(NULL), accel, args);
    const char *argv[] = { "/bin/sh", "-c", command, NULL };
    g_autofree char *out = NULL;
    GError *error = NULL;
    char *err = NULL;

    g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, &out, &err,
                 status, &error);
    g_assert_no_error(error);
    g_test_message("-accel %s %s: %s", accel, args, err);
    return err;
}

void gm_expect_text(const char *text, const char *in)
{
    if (!strstr(in, text)) {
        g_test_message("\"%s\" is not in: %s", text, in);
        g_test_fail();
    }
}

static void check_texts(const GmBadArgs *bad, const char *err)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(bad->texts) && bad->texts[i]; i++) {
        gm_expect_text(bad->texts[i], err);
    }
    if (bad->no_remedy && strstr(err, bad->no_remedy)) {
        g_test_message("\"%s\" does not help: %s", bad->no_remedy, err);
        g_test_fail();
    }
}

void gm_check_bad_args(const char *accel, const GmBadArgs *bad)
{
    g_autofree char *dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "s", NULL);
    g_auto(GStrv) parts = g_strsplit(bad->args, "%s", 2);
    g_autofree char *args = g_strjoinv(path, parts);
    int status, fd = unix_listen(path, &error_abort);
    g_autofree char *err = gm_run_qemu(accel, args, &status);

    close(fd);
    unlink(path);
    rmdir(dir);
    check_texts(bad, err);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
}

void gm_check_good_args(const char *accel, const char *args)
{
    int status;
    g_autofree char *err = gm_run_qemu(accel, args, &status);

    g_assert_cmpstr(err, ==, "");
    g_assert_cmpint(status, ==, 0);
}

static void test_bad_args(const void *opaque)
{
    gm_check_bad_args("qtest", opaque);
}

void gm_add_table(const char *path, const GmBadArgs *table, unsigned count)
{
    unsigned i;

    for (i = 0; i < count; i++) {
        g_autofree char *name = g_strdup_printf("%s/%u", path, i);

        qtest_add_data_func(name, &table[i], test_bad_args);
    }
}
