/*
 * qtest: guest memory that is plugged and unplugged, and the memory map
 * around it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-plug.h"
#include "libqos/pci-pc.h"
#include "qobject/qlist.h"

#define ARGS        GM_MACHINE GM_TESTDEV "-m 64M,maxmem=1G,slots=4 " \
                    "-object guest-memfd-manager,id=gmm0 "
#define DIMM_SIZE   (64 * MiB)
/* PAM0 of the host bridge: 0xf0000-0xfffff. */
#define MCH_PAM0    0x90
#define ROUNDS      20

/* --- pc-dimm ----------------------------------------------------------- */

static uint64_t dimm_address(QTestState *qts)
{
    g_autoptr(QDict) rsp = qtest_qmp(qts,
        "{ 'execute': 'query-memory-devices' }");
    const QListEntry *entry = qlist_first(qdict_get_qlist(rsp, "return"));
    const QDict *dev = qobject_to(QDict, qlist_entry_obj(entry));

    return qdict_get_int(qdict_get_qdict(dev, "data"), "addr");
}

static uint64_t plug(QTestState *qts, const char *type)
{
    gm_plug_dimm(qts, type, "m0", DIMM_SIZE);
    return dimm_address(qts);
}

static void check_dimm(const char *type)
{
    QTestState *qts = qtest_init(ARGS);
    const unsigned blocks = gm_count_blocks(qts);
    uint64_t gpa;
    int i;

    for (i = 0; i < ROUNDS; i++) {
        gpa = plug(qts, type);
        g_assert_cmpuint(gm_count_blocks(qts), ==, blocks + 1);
        gm_fill(qts, gpa, 3 * GM_PAGE);
        gm_to_private(qts, gpa + GM_PAGE, GM_PAGE);
        g_assert_true(gm_is_private(qts, gpa + GM_PAGE));
        gm_to_shared(qts, gpa, DIMM_SIZE);
        gm_assert_filled(qts, gpa, 3 * GM_PAGE);

        /* It is unplugged while pages of it are private. */
        gm_to_private(qts, gpa, i & 1 ? DIMM_SIZE : GM_PAGE);
        gm_unplug_dimm(qts, "m0");
        gm_wait_blocks(qts, blocks);
        g_assert_cmpint(gm_convert(qts, gpa, GM_PAGE,
                                   GMTD_ATTR_PRIVATE).status, ==, -EINVAL);
        g_assert_cmpint(gm_convert(qts, gpa, GM_PAGE, 0).status, ==, 0);
    }
    gm_quit(qts);
}

static void test_dimm(void)
{
    check_dimm("memory-backend-memfd-private");
}

static void test_dimm_ram(void)
{
    check_dimm("memory-backend-ram");
}

/* The same backend again: it starts shared, as all memory that is plugged. */
static void test_dimm_again(void)
{
    QTestState *qts = qtest_init(ARGS);
    uint64_t gpa = plug(qts, "memory-backend-ram");

    gm_fill(qts, gpa, GM_PAGE);
    gm_to_private(qts, gpa, GM_PAGE);
    gm_eject_dimm(qts);
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_add', 'arguments': "
                             "{ 'driver': 'pc-dimm', 'id': 'd0', "
                             "'memdev': 'm0' } }");
    g_assert_cmphex(dimm_address(qts), ==, gpa);
    g_assert_cmpuint(gm_private_bytes(qts, "m0"), ==, 0);
    gm_assert_bytes(qts, gpa, GM_PAGE, 0);
    gm_quit(qts);
}

static void set_policy(QTestState *qts, const char *policy)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'qom-set', 'arguments': "
                             "{ 'path': '/objects/m0', 'property': 'policy', "
                             "'value': %s } }", policy);
}

#define ADD_DIMM    "{ 'execute': 'device_add', 'arguments': " \
                    "{ 'driver': 'pc-dimm', 'id': 'd0', 'memdev': 'm0' } }"

/* The host nodes are asked for again, until the host can give them. */
static void test_dimm_incomplete(void)
{
#ifdef CONFIG_NUMA
    QTestState *qts = qtest_init(ARGS);
    int i;

    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments': "
                             "{ 'qom-type': 'memory-backend-ram', "
                             "'id': 'm0', 'size': %u } }",
                             (unsigned)DIMM_SIZE);
    set_policy(qts, "bind");
    for (i = 0; i < 3; i++) {
        g_autoptr(QDict) error = qtest_qmp_assert_failure_ref(qts, ADD_DIMM);

        g_assert_cmpstr(qdict_get_str(error, "desc"), ==,
                        "host-nodes must be set for policy bind");
    }
    set_policy(qts, "default");
    qtest_qmp_assert_success(qts, ADD_DIMM);
    gm_to_private(qts, dimm_address(qts), GM_PAGE);
    g_assert_cmpuint(gm_private_bytes(qts, "m0"), ==, GM_PAGE);
    gm_quit(qts);
#else
    g_test_skip("QEMU is built without libnuma");
#endif
}

/* A device still holds a page of it: the memory outlives the dimm. */
static void test_dimm_in_use(void)
{
    QTestState *qts = qtest_init(ARGS);
    const unsigned blocks = gm_count_blocks(qts);
    uint64_t gpa = plug(qts, "memory-backend-memfd-private");

    gm_set_timeout(qts, 0);
    gm_to_private(qts, gpa + GM_PAGE, GM_PAGE);
    g_assert_cmpint(gm_map(qts, gpa), ==, 0);
    g_assert_cmpint(gm_convert(qts, gpa, GM_PAGE, GMTD_ATTR_PRIVATE).status,
                    ==, -EAGAIN);
    gm_eject_dimm(qts);
    g_assert_cmpint(gm_convert(qts, gpa, GM_PAGE, GMTD_ATTR_PRIVATE).status,
                    ==, -EINVAL);
    g_assert_cmpuint(gm_count_blocks(qts), ==, blocks + 1);
    g_assert_cmpint(gm_unmap(qts), ==, 0);
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'm0' } }");
    gm_wait_blocks(qts, blocks);
    gm_quit(qts);
}

/* Reset: everything is shared and zero, hot-plugged memory, too. */
static void test_dimm_reset(void)
{
    QTestState *qts = qtest_init(ARGS);
    uint64_t gpa = plug(qts, "memory-backend-memfd-private");

    gm_fill(qts, gpa, GM_PAGE);
    gm_to_private(qts, gpa, GM_PAGE);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    qtest_system_reset(qts);
    g_assert_cmpuint(gm_private_bytes(qts, "m0"), ==, 0);
    gm_assert_bytes(qts, gpa, GM_PAGE, 0);
    g_assert_false(gm_is_private(qts, GM_GPA));
    gm_quit(qts);
}

/* --- the memory map ---------------------------------------------------- */

/*
 * The firmware's shadow at 0xf0000 shows and hides RAM: all of the map is
 * built again, and with it KVM's slots.  The state stays where it was.
 */
static void test_remap(void)
{
    QTestState *qts = gm_start();
    QPCIBus *bus = qpci_new_pc(qts, NULL);
    QPCIDevice *mch = qpci_device_find(bus, QPCI_DEVFN(0, 0));
    uint64_t changed = 0;
    int i;

    gm_fill(qts, GM_GPA, 2 * GM_PAGE);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    for (i = 0; i < ROUNDS; i++) {
        qpci_config_writeb(mch, MCH_PAM0, i & 1 ? 0 : 0x30);
        g_assert_true(gm_is_private(qts, GM_GPA));
        g_assert_false(gm_is_private(qts, GM_GPA + GM_PAGE));
        gm_to_private(qts, 0x80000, 0x10000);
        gm_to_shared(qts, 0x80000, 0x10000);
        changed += 0x10000;
    }
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.converted-bytes.to-shared"),
                     ==, changed);
    gm_to_shared(qts, GM_GPA, GM_PAGE);
    gm_assert_filled(qts, GM_GPA, 2 * GM_PAGE);
    g_free(mch);
    qpci_free_pc(bus);
    gm_quit(qts);
}

/* --- reset ------------------------------------------------------------- */

/* Nothing is left of a request that gave up. */
static void test_reset_after_retry(void)
{
    QTestState *qts = gm_start();
    int64_t begin = g_get_monotonic_time();

    gm_to_private(qts, GM_GPA + GM_PAGE, GM_PAGE);
    gm_set_timeout(qts, 500);
    gm_fault(qts, EAGAIN, 0, UINT32_MAX, 0);
    g_assert_cmpint(gm_convert(qts, GM_GPA, GM_PAGE,
                               GMTD_ATTR_PRIVATE).status, ==, -EAGAIN);
    g_assert_cmpint(g_get_monotonic_time() - begin, >=, 500000);
    gm_fault(qts, 0, 0, 0, 0);
    qtest_system_reset(qts);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 0);
    gm_assert_running(qts);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    gm_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/hotplug/dimm-again", test_dimm_again);
    qtest_add_func("/guest-memfd/hotplug/dimm-incomplete",
                   test_dimm_incomplete);
    qtest_add_func("/guest-memfd/hotplug/dimm", test_dimm);
    qtest_add_func("/guest-memfd/hotplug/dimm-ram", test_dimm_ram);
    qtest_add_func("/guest-memfd/hotplug/dimm-in-use", test_dimm_in_use);
    qtest_add_func("/guest-memfd/hotplug/dimm-reset", test_dimm_reset);
    qtest_add_func("/guest-memfd/hotplug/remap", test_remap);
    qtest_add_func("/guest-memfd/hotplug/reset-after-retry",
                   test_reset_after_retry);

    return g_test_run();
}
