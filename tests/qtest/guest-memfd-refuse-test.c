/*
 * qtest: what does not work with memory that is converted in place is
 * refused by name, with what to do instead
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-cmdline.h"
#include "guest-memfd-util.h"
#include "qapi/error.h"
#include "qemu/sockets.h"

#define MACHINE     GM_MACHINE "-m 64M,maxmem=1G,slots=4 "
#define IN_PLACE    " does not work with guest memory that is converted in " \
                    "place: "
#define VHOST_USER  "vhost-user" IN_PLACE "another process would touch " \
                    "private pages"
#define VHOST_HINT  "Use a device of QEMU's own, for example virtio-blk-pci, " \
                    "or virtio-net-pci with -netdev tap."
#define VIRTIO_MEM  "virtio-mem" IN_PLACE "it would discard private pages"
#define DIMM_HINT   "Add memory with pc-dimm and memory-backend-memfd-private."
#define INCOMING    "-incoming" IN_PLACE "there is no migration of private " \
                    "pages"
#define INCOMING_HINT "Start the guest without -incoming."
#define SNAPSHOT    "a snapshot of the VM" IN_PLACE "private pages cannot be " \
                    "saved and loaded"
#define BLOCKER     "guest memory is converted in place between private and " \
                    "shared, which cannot be migrated"

/* --- the command line -------------------------------------------------- */

#define CHARDEV     "-chardev socket,id=c0,path=%s "

static const GmBadArgs refusals[] = {
    { MACHINE CHARDEV "-device vhost-user-blk-pci,chardev=c0",
      { VHOST_USER, VHOST_HINT } },
    { MACHINE CHARDEV "-device vhost-user-scsi-pci,chardev=c0",
      { VHOST_USER, VHOST_HINT } },
    { MACHINE CHARDEV "-device vhost-user-fs-pci,chardev=c0,tag=t",
      { VHOST_USER, VHOST_HINT } },
    { MACHINE CHARDEV "-device vhost-user-rng-pci,chardev=c0",
      { VHOST_USER, VHOST_HINT } },
    { MACHINE CHARDEV "-device vhost-user-vsock-pci,chardev=c0",
      { VHOST_USER, VHOST_HINT } },
    /* Network back ends come before there is memory. */
    { MACHINE CHARDEV "-netdev vhost-user,id=n0,chardev=c0 "
      "-device virtio-net-pci,netdev=n0", { VHOST_USER, VHOST_HINT } },
    { MACHINE "-object memory-backend-memfd-private,id=m0,size=64M "
      "-device virtio-mem-pci,memdev=m0", { VIRTIO_MEM, DIMM_HINT } },
    { MACHINE "-object memory-backend-ram,id=m0,size=64M "
      "-device virtio-mem-pci,memdev=m0", { VIRTIO_MEM, DIMM_HINT } },
    { MACHINE "-incoming defer", { INCOMING, INCOMING_HINT } },
    { MACHINE "-incoming tcp:localhost:0", { INCOMING, INCOMING_HINT } },
    { MACHINE "-loadvm s0",
      { SNAPSHOT, "Take snapshots of disks only, with blockdev-snapshot." } },
};

/* --- at run time ------------------------------------------------------- */

static QTestState *start(void)
{
    return qtest_init(MACHINE GM_TESTDEV
                      "-object guest-memfd-manager,id=gmm0");
}

/* The VM is as it was. */
static void end(QTestState *qts)
{
    gm_to_private(qts, GM_GPA, GM_PAGE);
    gm_to_shared(qts, GM_GPA, GM_PAGE);
    gm_quit(qts);
}

static void test_hotplug(void)
{
    g_autofree char *dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *path = g_strdup_printf("%s/s", dir);
    int fd = unix_listen(path, &error_abort);
    QTestState *qts = qtest_initf(MACHINE GM_TESTDEV
        "-object guest-memfd-manager,id=gmm0 "
        "-device pcie-root-port,id=rp0 -chardev socket,id=c0,path=%s", path);

    gm_assert_error(qts, VHOST_USER, "{ 'execute': 'device_add', "
                    "'arguments': { 'driver': 'vhost-user-blk-pci', "
                    "'bus': 'rp0', 'chardev': 'c0' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments': "
                             "{ 'qom-type': 'memory-backend-memfd-private', "
                             "'id': 'm0', 'size': 67108864 } }");
    gm_assert_error(qts, VIRTIO_MEM, "{ 'execute': 'device_add', "
                    "'arguments': { 'driver': 'virtio-mem-pci', "
                    "'bus': 'rp0', 'memdev': 'm0' } }");
    /* What was refused holds nothing. */
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_add', 'arguments': "
                             "{ 'driver': 'pc-dimm', 'id': 'd0', "
                             "'memdev': 'm0' } }");
    gm_assert_error(qts, "brings its own memory, which cannot be converted "
                    "in place", "{ 'execute': 'object-add', 'arguments': "
                    "{ 'qom-type': 'memory-backend-memfd', 'id': 'm1', "
                    "'size': 67108864 } }");
    end(qts);
    close(fd);
    unlink(path);
    rmdir(dir);
}

static void set_mode(QTestState *qts, const char *mode)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-parameters', "
                             "'arguments': { 'mode': %s } }", mode);
}

#define CHANNEL(type) \
    "{ 'channel-type': '" type "', 'addr': { 'transport': 'socket', " \
    "'type': 'unix', 'path': '/nonexistent' } }"

/* No kind of migration, whatever it is called. */
static void test_migrate(void)
{
    static const char *modes[] = {
        "normal", "cpr-reboot", "cpr-transfer", "cpr-exec",
    };
    /* Shared, so that nothing else is in the way of cpr-transfer. */
    QTestState *qts = qtest_init(MACHINE GM_TESTDEV
                                 "-machine aux-ram-share=on "
                                 "-object guest-memfd-manager,id=gmm0");
    int i;

    for (i = 0; i < ARRAY_SIZE(modes); i++) {
        set_mode(qts, modes[i]);
        gm_assert_error(qts, BLOCKER, "{ 'execute': 'migrate', "
                        "'arguments': { 'channels': [ "
                        CHANNEL("main") ", " CHANNEL("cpr") " ] } }");
    }
    set_mode(qts, "normal");
    end(qts);
}

static void test_capabilities(void)
{
    static const char *names[] = {
        "postcopy-ram", "x-colo", "background-snapshot",
    };
    QTestState *qts = start();
    int i;

    for (i = 0; i < ARRAY_SIZE(names); i++) {
        g_autofree char *text = g_strdup_printf("%s" IN_PLACE, names[i]);

        gm_assert_error(qts, text, "{ 'execute': "
                        "'migrate-set-capabilities', 'arguments': "
                        "{ 'capabilities': [ { 'capability': %s, "
                        "'state': true } ] } }", names[i]);
    }
    end(qts);
}

static void test_snapshot(void)
{
    QTestState *qts = start();
    g_autofree char *save = qtest_hmp(qts, "savevm s0");
    g_autofree char *load = qtest_hmp(qts, "loadvm s0");

    gm_expect_text(SNAPSHOT, save);
    gm_expect_text(SNAPSHOT, load);
    end(qts);
}

static void test_dirty_rate(void)
{
    QTestState *qts = start();

    gm_assert_error(qts, "calc-dirty-rate" IN_PLACE "private pages cannot be "
                    "read", "{ 'execute': 'calc-dirty-rate', 'arguments': "
                    "{ 'calc-time': 1 } }");
    gm_assert_error(qts, "calc-dirty-rate" IN_PLACE, "{ 'execute': "
                    "'calc-dirty-rate', 'arguments': { 'calc-time': 1, "
                    "'mode': 'dirty-bitmap' } }");
    end(qts);
}

/* Nothing of this is in the way of other machines. */
static void test_other_machine(void)
{
    QTestState *qts = qtest_init("-nodefaults -machine q35 -m 64M");

    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-capabilities', "
                             "'arguments': { 'capabilities': [ "
                             "{ 'capability': 'x-colo', 'state': true } "
                             "] } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'calc-dirty-rate', "
                             "'arguments': { 'calc-time': 1 } }");
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    gm_add_table("/guest-memfd/refuse/command-line", refusals,
                 ARRAY_SIZE(refusals));
    qtest_add_func("/guest-memfd/refuse/hotplug", test_hotplug);
    qtest_add_func("/guest-memfd/refuse/migrate", test_migrate);
    qtest_add_func("/guest-memfd/refuse/capabilities", test_capabilities);
    qtest_add_func("/guest-memfd/refuse/snapshot", test_snapshot);
    qtest_add_func("/guest-memfd/refuse/dirty-rate", test_dirty_rate);
    qtest_add_func("/guest-memfd/refuse/other-machine", test_other_machine);

    return g_test_run();
}
