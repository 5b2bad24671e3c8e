/*
 * qtest: what does not work with memory that is converted in place is
 * refused by name, with what to do instead
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
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
                    "or virtio-net-pci with -netdev tap, or virtio-9p-pci " \
                    "instead of virtiofs."
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
    /* Network backends are created before there is memory. */
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

/* --- huge pages -------------------------------------------------------- */

#define POOL        "/proc/sys/vm/nr_hugepages"
#define RAM_OF(backend) GM_MACHINE GM_RAM "-object memory-backend-" backend \
                    ",id=ram0,size=64M"
#define HUGE        { "memory backend 'ram0' uses huge pages, which cannot " \
                      "be converted in place", "memory-backend-ram" }

static uint64_t number_in(const char *path, const char *name)
{
    g_autofree char *text = NULL;
    const char *at;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return 0;
    }
    at = strstr(text, name);
    return at ? g_ascii_strtoull(at + strlen(name), NULL, 10) : 0;
}

static uint64_t free_pages(void)
{
    return number_in("/proc/meminfo", "HugePages_Free:");
}

static bool set_pool(uint64_t pages)
{
    g_autofree char *text = g_strdup_printf("%" PRIu64, pages);
    int fd = open(POOL, O_WRONLY);
    bool done = fd >= 0 && write(fd, text, strlen(text)) > 0;

    if (fd >= 0) {
        close(fd);
    }
    return done;
}

/* True if the pool has as many as guest memory takes. */
static bool grow_pool(uint64_t before)
{
    uint64_t size = number_in("/proc/meminfo", "Hugepagesize:") * KiB;
    uint64_t pages = size ? GM_RAM_SIZE / size : 0;

    if (!pages) {
        g_test_skip("no huge pages that are small enough");
        return false;
    }
    if (!set_pool(before + pages) || free_pages() < pages) {
        set_pool(before);
        g_test_skip(POOL " cannot be raised");
        return false;
    }
    return true;
}

/* With the pages that it was refused for; none of them is lost. */
static void check_huge_pages(const char *args)
{
    const GmBadArgs bad = { args, HUGE };
    uint64_t before = number_in(POOL, ""), had;

    if (grow_pool(before)) {
        had = free_pages();
        gm_check_bad_args("qtest", &bad);
        g_assert_cmpuint(free_pages(), ==, had);
        set_pool(before);
    }
}

static void test_huge_memfd(void)
{
    check_huge_pages(RAM_OF("memfd,hugetlb=on,prealloc=on"));
}

/* Mounts are in a private namespace. */
static bool mount_huge(const char *dir)
{
    if (unshare(CLONE_NEWNS) ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", dir, "hugetlbfs", 0, NULL)) {
        g_autofree char *why = g_strdup_printf("cannot mount hugetlbfs: %s",
                                               strerror(errno));
        g_test_skip(why);
        return false;
    }
    return true;
}

static void test_huge_file(void)
{
    g_autofree char *dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *args = g_strdup_printf(
        RAM_OF("file,mem-path=%s,prealloc=on"), dir);

    if (mount_huge(dir)) {
        check_huge_pages(args);
        umount(dir);
    }
    rmdir(dir);
}

/* It is refused for its kind: there may be no such page. */
static void test_huge_reserved(void)
{
    static const GmBadArgs bad = {
        RAM_OF("memfd,hugetlb=on,reserve=off") " "
        "-object guest-memfd-manager,id=gmm0,in-place=on", HUGE
    };
    int fd = memfd_create("guest-memfd-refuse-test", MFD_HUGETLB);

    if (fd < 0) {
        g_test_skip("the kernel has no huge pages");
        return;
    }
    close(fd);
    gm_check_bad_args("qtest", &bad);
}

/* --- SMM, and KVM as far as the host has it ---------------------------- */

static bool has_kvm(void)
{
    int fd = open("/dev/kvm", O_RDWR);

    if (fd < 0) {
        g_autofree char *why = g_strdup_printf("/dev/kvm: %s",
                                               strerror(errno));
        g_test_skip(why);
        return false;
    }
    close(fd);
    return true;
}

static void test_smm_kvm(void)
{
    g_autofree char *err = NULL;
    int status;

    if (!has_kvm()) {
        return;
    }
    err = gm_run_qemu("kvm", MACHINE "-machine smm=on", &status);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
    if (strstr(err, "this KVM has no software-protected VMs")) {
        gm_expect_text("CONFIG_KVM_SW_PROTECTED_VM, or -accel tcg", err);
        g_test_skip("this KVM has no software-protected VMs");
        return;
    }
    gm_expect_text("sw-protected-guest does not support smm=on with KVM",
                   err);
    gm_expect_text("Use -machine smm=off.", err);
}

/* Nothing maps memory twice there. */
static void test_smm_tcg(void)
{
    if (qtest_has_accel("tcg")) {
        gm_check_good_args("tcg", MACHINE "-machine smm=on");
    } else {
        g_test_skip("this QEMU has no TCG");
    }
}

/* It has no SMM that could be asked for. */
static void test_no_machine_kvm(void)
{
    if (has_kvm()) {
        gm_check_good_args("kvm", "-machine none "
                           "-machine confidential-guest-support=cgs0 "
                           "-object sw-protected-guest,id=cgs0");
    }
}

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
    /* A refused backend holds no memory. */
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_add', 'arguments': "
                             "{ 'driver': 'pc-dimm', 'id': 'd0', "
                             "'memdev': 'm0' } }");
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
    qtest_add_func("/guest-memfd/refuse/huge-memfd", test_huge_memfd);
    qtest_add_func("/guest-memfd/refuse/huge-file", test_huge_file);
    qtest_add_func("/guest-memfd/refuse/huge-reserved", test_huge_reserved);
    qtest_add_func("/guest-memfd/refuse/smm-kvm", test_smm_kvm);
    qtest_add_func("/guest-memfd/refuse/smm-tcg", test_smm_tcg);
    qtest_add_func("/guest-memfd/refuse/no-machine-kvm", test_no_machine_kvm);
    qtest_add_func("/guest-memfd/refuse/hotplug", test_hotplug);
    qtest_add_func("/guest-memfd/refuse/migrate", test_migrate);
    qtest_add_func("/guest-memfd/refuse/capabilities", test_capabilities);
    qtest_add_func("/guest-memfd/refuse/snapshot", test_snapshot);
    qtest_add_func("/guest-memfd/refuse/dirty-rate", test_dirty_rate);
    qtest_add_func("/guest-memfd/refuse/other-machine", test_other_machine);

    return g_test_run();
}
