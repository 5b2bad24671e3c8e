/*
 * Memory that is plugged into a machine, and unplugged
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-plug.h"
#include "qobject/qlist.h"

/* As a guest's ACPI code does it: a slot is selected, and ejected. */
#define MEMHP_SLOT  0xa00
#define MEMHP_FLAGS 0xa14
#define MEMHP_EJECT 8

void gm_plug_dimm(QTestState *qts, const char *type, const char *backend,
                  uint64_t size)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments': "
                             "{ 'qom-type': %s, 'id': %s, "
                             "'size': %" PRIu64 " } }", type, backend, size);
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_add', 'arguments': "
                             "{ 'driver': 'pc-dimm', 'id': 'd0', "
                             "'memdev': %s } }", backend);
}

void gm_eject_dimm(QTestState *qts)
{
    qtest_qmp_device_del_send(qts, "d0");
    qtest_outl(qts, MEMHP_SLOT, 0);
    qtest_outb(qts, MEMHP_FLAGS, MEMHP_EJECT);
    qtest_qmp_eventwait(qts, "DEVICE_DELETED");
}

void gm_unplug_dimm(QTestState *qts, const char *backend)
{
    gm_eject_dimm(qts);
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': %s } }", backend);
}

unsigned gm_count_blocks(QTestState *qts)
{
    g_autoptr(QDict) info = gm_query(qts);

    return qlist_size(qdict_get_qlist(info, "backends"));
}

void gm_wait_blocks(QTestState *qts, unsigned count)
{
    const int64_t end = g_get_monotonic_time() + 10 * G_USEC_PER_SEC;

    while (gm_count_blocks(qts) != count) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}
