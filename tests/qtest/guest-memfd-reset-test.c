/*
 * qtest: guest memory and the resets of a machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-util.h"

/* The power management registers of q35, where this test puts them. */
#define PM_BASE         0x600
#define PM1_CNT         (PM_BASE + 4)
#define PM1_SUSPEND     (1 << 10 | 1 << 13)
#define LPC(reg)        (0x80000000 | 31 << 11 | (reg))

static void suspend(QTestState *qts)
{
    qtest_outl(qts, 0xcf8, LPC(0x40));
    qtest_outl(qts, 0xcfc, PM_BASE | 1);
    qtest_outl(qts, 0xcf8, LPC(0x44));
    qtest_outb(qts, 0xcfc, 0x80);
    qtest_outw(qts, PM1_CNT, PM1_SUSPEND);
    qtest_qmp_eventwait(qts, "SUSPEND");
}

/* A guest that sleeps finds its memory as it left it. */
static void test_wakeup(void)
{
    QTestState *qts = qtest_init(GM_ONE_BACKEND
                                 "-global ICH9-LPC.disable_s3=0");

    gm_fill(qts, GM_GPA, 4 * GM_PAGE);
    gm_to_private(qts, GM_GPA, 2 * GM_PAGE);
    suspend(qts);
    qtest_qmp_assert_success(qts, "{ 'execute': 'system_wakeup' }");
    qtest_qmp_eventwait(qts, "WAKEUP");
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 2 * GM_PAGE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.origins.reset"), ==, 0);
    gm_to_shared(qts, GM_GPA, 2 * GM_PAGE);
    gm_assert_filled(qts, GM_GPA, 4 * GM_PAGE);

    /* It is the same machine: another reset shares all. */
    gm_to_private(qts, GM_GPA, GM_PAGE);
    qtest_system_reset(qts);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 0);
    gm_assert_bytes(qts, GM_GPA, GM_PAGE, 0);
    gm_quit(qts);
}

/* Nothing starts on memory that still has what it had. */
static void test_fatal(void)
{
    QTestState *qts = gm_start();

    gm_fill(qts, GM_GPA, GM_PAGE);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    gm_fault(qts, EIO, 0, 1, 0);
    qtest_set_expected_status(qts, EXIT_FAILURE);
    qtest_qmp_send(qts, "{ 'execute': 'system_reset' }");
    qtest_wait_qemu(qts);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/reset/wakeup", test_wakeup);
    qtest_add_func("/guest-memfd/reset/fatal", test_fatal);

    return g_test_run();
}
