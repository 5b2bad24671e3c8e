/*
 * qtest: monitors, options and names in a machine with a confidential guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-cmdline.h"
#include "guest-memfd-paging.h"
#include "guest-memfd-plug.h"
#include "qemu/bswap.h"
#include "qobject/qlist.h"

#define MACHINE     GM_MACHINE "-m 64M,maxmem=1G,slots=4 "
#define PATH        "/machine/guest-memfd-manager"
#define FW_CFG_PORT 0x510

/* --- another kind of confidential guest -------------------------------- */

static void expect_hmp(QTestState *qts, const char *command,
                       const char *text)
{
    g_autofree char *out = qtest_hmp(qts, "%s", command);

    gm_expect_text(text, out);
}

/* It is no SEV guest, which QEMU used to abort about. */
static void test_sev(void)
{
    QTestState *qts = qtest_init(MACHINE GM_TESTDEV);
    g_autoptr(QDict) sev = qtest_qmp_assert_success_ref(qts,
        "{ 'execute': 'query-sev' }");

    g_assert_false(qdict_get_bool(sev, "enabled"));
    expect_hmp(qts, "info sev", "SEV is not enabled");
    expect_hmp(qts, "info sgx", "SGX");
    gm_assert_error(qts, "", "{ 'execute': 'query-sev-capabilities' }");
    gm_assert_error(qts, "", "{ 'execute': 'query-sev-launch-measure' }");
    gm_assert_error(qts, "SEV", "{ 'execute': "
        "'query-sev-attestation-report', 'arguments': "
        "{ 'mnonce': 'AAAAAAAAAAAAAAAAAAAAAA==' } }");
    gm_assert_error(qts, "SEV", "{ 'execute': 'sev-inject-launch-secret', "
        "'arguments': { 'packet-header': '', 'secret': '' } }");
    gm_quit(qts);
}

/* Accelerator and memory depend on what the machine was created with. */
static void test_keep_guest(void)
{
    QTestState *qts = gm_start();

    gm_to_private(qts, GM_GPA, GM_PAGE);
    gm_assert_error(qts, "set it with -machine", "{ 'execute': 'qom-set', "
        "'arguments': { 'path': '/machine', 'value': '', "
        "'property': 'confidential-guest-support' } }");
    qtest_system_reset(qts);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 0);
    gm_quit(qts);
}

/* --- the manager's name ------------------------------------------------ */

static void check_path(QTestState *qts)
{
    g_autofree char *mode = NULL;

    gm_set_str(qts, PATH, "content-mode", "zero");
    mode = gm_get_str(qts, PATH, "content-mode");
    g_assert_cmpstr(mode, ==, "zero");
}

/* The user's object may be called as the manager is. */
static void test_user_name(void)
{
    QTestState *qts = qtest_init(MACHINE GM_TESTDEV
        "-object rng-random,id=guest-memfd-manager,filename=/dev/urandom");
    g_autoptr(QDict) info = gm_query(qts);

    g_assert_cmpstr(qdict_get_str(info, "manager"), ==, PATH);
    check_path(qts);
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'guest-memfd-manager' } }");
    check_path(qts);
    gm_assert_error(qts, "not found", "{ 'execute': 'object-del', "
                    "'arguments': { 'id': 'guest-memfd-manager' } }");
    gm_quit(qts);
}

/* The documented path leads to the user's manager, too. */
static void test_one_path(void)
{
    QTestState *qts = gm_start();
    g_autoptr(QDict) info = gm_query(qts);
    g_autofree char *mode = NULL;

    g_assert_cmpstr(qdict_get_str(info, "manager"), ==, GM_MANAGER);
    check_path(qts);
    mode = gm_get_str(qts, GM_MANAGER, "content-mode");
    g_assert_cmpstr(mode, ==, "zero");
    gm_quit(qts);
}

/* The path of a manager is deleted with it. */
static void test_path_goes(void)
{
    QTestState *qts = qtest_init("-machine none "
                                 "-object guest-memfd-manager,id=gmm0");

    check_path(qts);
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'gmm0' } }");
    gm_assert_error(qts, "not found", "{ 'execute': 'qom-get', 'arguments': "
                    "{ 'path': %s, 'property': 'content-mode' } }", PATH);
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments': "
        "{ 'qom-type': 'guest-memfd-manager', 'id': 'gmm1' } }");
    check_path(qts);
    qtest_quit(qts);
}

/* --- what is refused is refused at once, to whoever asked -------------- */

static void test_dirty_limit(void)
{
    QTestState *qts = qtest_init(MACHINE GM_TESTDEV);

    gm_assert_error(qts, "set-vcpu-dirty-limit does not work with guest "
                    "memory that is converted in place",
                    "{ 'execute': 'set-vcpu-dirty-limit', "
                    "'arguments': { 'dirty-rate': 1 } }");
    expect_hmp(qts, "set_vcpu_dirty_limit 1", "does not work");
    qtest_qmp_assert_success(qts,
                             "{ 'execute': 'cancel-vcpu-dirty-limit' }");
    expect_hmp(qts, "cancel_vcpu_dirty_limit", "info vcpu_dirty_limit");
    gm_quit(qts);
}

static void test_netdev_add(void)
{
    g_autofree char *dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *path = g_strdup_printf("%s/s", dir);
    QTestState *qts = qtest_initf(MACHINE GM_TESTDEV
        "-chardev socket,id=c0,server=on,wait=off,path=%s", path);

    gm_assert_error(qts, "vhost-user does not work with guest memory",
                    "{ 'execute': 'netdev_add', 'arguments': "
                    "{ 'type': 'vhost-user', 'id': 'n0', "
                    "'chardev': 'c0' } }");
    gm_quit(qts);
    unlink(path);
    rmdir(dir);
}

/* --- the test device --------------------------------------------------- */

static const GmBadArgs bad_args[] = {
    { MACHINE GM_TESTDEV GM_TESTDEV,
      { "'addr'", "guest-memfd-testdev", "'0xfed60000'",
        "an address of its own" } },
    { "-nodefaults -machine q35 " GM_TESTDEV,
      { "guest-memfd-testdev", "confidential-guest-support",
        "sw-protected-guest" } },
};

static void test_two_devices(void)
{
    gm_check_good_args("qtest", MACHINE GM_TESTDEV
                       "-device guest-memfd-testdev,addr=0xfed61000");
}

static void assert_bad_errno(QTestState *qts, uint64_t value)
{
    g_autofree char *text = g_strdup_printf("property 'fault-errno' of "
        "guest-memfd-provider-emulated doesn't take value '%" PRIu64 "': "
        "it is 0 to 4095", value);

    gm_assert_error(qts, text, "{ 'execute': 'qom-set', 'arguments': "
        "{ 'path': %s, 'property': 'fault-errno', 'value': %" PRIu64 " } }",
        GM_PROVIDER, value);
}

static void test_fault_errno(void)
{
    QTestState *qts = gm_start();

    gm_set_int(qts, GM_PROVIDER, "fault-errno", 4095);
    assert_bad_errno(qts, 4096);
    assert_bad_errno(qts, 99999);
    assert_bad_errno(qts, 2147483648);
    g_assert_cmpuint(gm_get_int(qts, GM_PROVIDER, "fault-errno"), ==, 4095);
    gm_set_int(qts, GM_PROVIDER, "fault-errno", 0);
    gm_quit(qts);
}

static int64_t touch(QTestState *qts)
{
    qtest_writeq(qts, GMTD_BASE + GMTD_REG_COMMAND, GMTD_CMD_TOUCH);
    return qtest_readq(qts, GMTD_BASE + GMTD_REG_STATUS);
}

/* The last pointer may be to memory that was unplugged. */
static void test_touch_unplugged(void)
{
    const uint64_t gpa = 4 * GiB;
    QTestState *qts = qtest_init(MACHINE GM_TESTDEV);
    const unsigned blocks = gm_count_blocks(qts);

    gm_plug_dimm(qts, "memory-backend-ram", "m0", 128 * MiB);
    g_assert_cmpint(gm_map(qts, gpa), ==, 0);
    g_assert_cmpint(touch(qts), ==, 0);
    g_assert_cmpint(gm_unmap(qts), ==, 0);
    g_assert_cmpint(touch(qts), ==, 0);
    gm_unplug_dimm(qts, "m0");
    gm_wait_blocks(qts, blocks);
    g_assert_cmpint(touch(qts), ==, -EFAULT);
    gm_quit(qts);
}

/* --- the monitor ------------------------------------------------------- */

static void test_monitor(void)
{
    QTestState *qts = gm_start();

    gm_to_private(qts, GM_GPA, GM_PAGE);
    expect_hmp(qts, "sum 0x1000000 16", "Cannot access memory");
    expect_hmp(qts, "sum 0xfffff8 16", "Cannot access memory");
    expect_hmp(qts, "sum 0x2000000 16", "00000");
    expect_hmp(qts, "gpa2hva 0x1000000", "private guest memory");
    expect_hmp(qts, "gpa2hpa 0x1000000", "private guest memory");
    expect_hmp(qts, "gpa2hva 0x2000000", "Host virtual address");
    gm_quit(qts);
}

#define NOT_READ    "There is private guest memory in the way"

/* Commands that walk page tables say that these are private. */
static void test_page_tables(void)
{
    QTestState *qts;
    g_autofree char *before = NULL;

    if (!qtest_has_accel("tcg")) {
        g_test_skip("this QEMU has no TCG");
        return;
    }
    qts = gm_start_paging("q35", "");
    before = qtest_hmp(qts, "info mem");
    g_assert_null(strstr(before, NOT_READ));
    gm_expect_text("-rw", before);
    expect_hmp(qts, "gva2gpa 0x1000", "gpa: 0x1000");

    gm_to_private(qts, GM_PAGE_TABLES, GM_PAGE);
    expect_hmp(qts, "info mem", NOT_READ);
    expect_hmp(qts, "info tlb", NOT_READ);
    expect_hmp(qts, "gva2gpa 0x1000", NOT_READ);
    expect_hmp(qts, "x /1xb 0x1000", NOT_READ);
    expect_hmp(qts, "xp /1xb 0x200000", NOT_READ);
    gm_assert_error(qts, "page tables: they are private guest memory; use "
                    "paging=false", "{ 'execute': 'dump-guest-memory', "
                    "'arguments': { 'paging': true, "
                    "'protocol': 'file:/dev/null' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'dump-guest-memory', "
                             "'arguments': { 'paging': false, "
                             "'protocol': 'file:/dev/null' } }");
    gm_quit(qts);
}

/* --- a device that cannot answer --------------------------------------- */

/* fw_cfg's answer is where the request is, and Linux waits for it. */
static void test_fw_cfg_warning(void)
{
    g_autofree char *dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *path = g_strdup_printf("%s/stderr", dir);
    g_autofree char *said = NULL;
    QTestState *qts = qtest_initf(MACHINE GM_TESTDEV "-device vmcoreinfo "
                                  "2>%s", path);

    gm_to_private(qts, GM_GPA, GM_PAGE);
    qtest_outl(qts, FW_CFG_PORT + 4, 0);
    qtest_outl(qts, FW_CFG_PORT + 8, bswap32(GM_GPA));
    gm_quit(qts);
    g_assert_true(g_file_get_contents(path, &said, NULL, NULL));
    gm_expect_text("fw_cfg cannot answer a request in private memory", said);
    unlink(path);
    rmdir(dir);
}

/* --- Linux from the command line --------------------------------------- */

#define INITRD_ADDR     0x0a
#define INITRD_SIZE     0x0b
#define CMDLINE_ADDR    0x13
#define CMDLINE_DATA    0x15
#define SETUP_DATA      0x18
/* Of the kernel's setup header, see Linux's Documentation/arch/x86/boot. */
#define HDR_LOADER      0x210
#define HDR_RAMDISK     0x218
#define HDR_RAMDISK_SIZE 0x21c
#define HDR_CMDLINE     0x228
#define SETUP_SIZE      1024
#define KERNEL_SIZE     (32 * KiB)

static void read_fw_cfg(QTestState *qts, uint16_t key, uint8_t *data,
                        size_t size)
{
    qtest_outw(qts, FW_CFG_PORT, key);
    while (size--) {
        *data++ = qtest_inb(qts, FW_CFG_PORT + 1);
    }
}

static uint32_t read_fw_cfg32(QTestState *qts, uint16_t key)
{
    uint8_t data[4];

    read_fw_cfg(qts, key, data, sizeof(data));
    return ldl_le_p(data);
}

/* As much of a bzImage as QEMU looks at. */
static char *make_kernel(const char *dir)
{
    g_autofree uint8_t *image = g_malloc0(KERNEL_SIZE);
    char *path = g_build_filename(dir, "kernel", NULL);

    image[0x1f1] = SETUP_SIZE / 512 - 1;
    memcpy(image + 0x202, "HdrS", 4);
    stw_le_p(image + 0x206, 0x020f);
    image[0x211] = 1;
    stl_le_p(image + 0x22c, 0x7fffffff);
    g_assert_true(g_file_set_contents(path, (char *)image, KERNEL_SIZE,
                                      NULL));
    return path;
}

static char *make_initrd(const char *dir)
{
    char *path = g_build_filename(dir, "initrd", NULL);

    g_assert_true(g_file_set_contents(path, "an initrd", 9, NULL));
    return path;
}

static void check_setup(QTestState *qts, uint8_t *setup)
{
    char line[] = "console=ttyS0";
    char found[sizeof(line)];

    read_fw_cfg(qts, SETUP_DATA, setup, SETUP_SIZE);
    g_assert_cmphex(setup[HDR_LOADER], ==, 0xb0);
    g_assert_cmphex(ldl_le_p(setup + HDR_CMDLINE), ==,
                    read_fw_cfg32(qts, CMDLINE_ADDR));
    g_assert_cmphex(ldl_le_p(setup + HDR_CMDLINE), !=, 0);
    read_fw_cfg(qts, CMDLINE_DATA, (uint8_t *)found, sizeof(found));
    g_assert_cmpstr(found, ==, line);
    g_assert_cmphex(ldl_le_p(setup + HDR_RAMDISK), ==,
                    read_fw_cfg32(qts, INITRD_ADDR));
    g_assert_cmphex(ldl_le_p(setup + HDR_RAMDISK_SIZE), ==, 9);
    g_assert_cmphex(read_fw_cfg32(qts, INITRD_SIZE), ==, 9);
    qtest_quit(qts);
}

/* SeaBIOS starts the kernel with what is in its header. */
static void test_kernel(void)
{
    g_autofree char *dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *kernel = make_kernel(dir);
    g_autofree char *initrd = make_initrd(dir);
    g_autofree char *args = g_strdup_printf(
        "-m 64M -kernel %s -initrd %s -append console=ttyS0", kernel,
        initrd);
    uint8_t setup[SETUP_SIZE], ordinary[SETUP_SIZE];

    check_setup(qtest_initf("-nodefaults -machine q35 %s", args), ordinary);
    check_setup(qtest_initf(GM_MACHINE "%s", args), setup);
    g_assert_cmpmem(setup, SETUP_SIZE, ordinary, SETUP_SIZE);
    unlink(kernel);
    unlink(initrd);
    rmdir(dir);
}

/* --- the network that needs no rights ---------------------------------- */

static void test_user_network(void)
{
    QTestState *qts = qtest_init(MACHINE GM_TESTDEV "-netdev user,id=n0 "
                                 "-device virtio-net-pci,netdev=n0");

    expect_hmp(qts, "info usernet", "Hub");
    expect_hmp(qts, "info network", "type=user");
    gm_quit(qts);
}

/* --- KVM that cannot do it, and another accelerator -------------------- */

/* tests/guest-memfd/old-kvm.c plays the KVM. */
static void check_fallback(const char *what_kvm, const char *text)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = g_path_get_dirname(self);
    g_autofree char *kvm = g_build_filename(dir, "..", "guest-memfd",
                                            "libguest-memfd-old-kvm.so",
                                            NULL);
    g_autofree char *err = NULL;
    int status;

    if (!qtest_has_accel("tcg")) {
        g_test_skip("this QEMU has no TCG");
        return;
    }
    g_assert_true(g_file_test(kvm, G_FILE_TEST_EXISTS));
    g_setenv("LD_PRELOAD", kvm, true);
    g_setenv("GUEST_MEMFD_OLD_KVM", what_kvm, true);
    /* A sanitizer's library wants to be first. */
    g_setenv("ASAN_OPTIONS", "verify_asan_link_order=0", false);
    err = gm_run_qemu("kvm,device=/dev/null -accel tcg", MACHINE, &status);
    g_unsetenv("LD_PRELOAD");
    gm_expect_text(text, err);
    gm_expect_text("falling back to tcg", err);
    g_assert_cmpint(status, ==, 0);
}

static void test_no_vm_type(void)
{
    check_fallback("no-type", "this KVM has no software-protected VMs");
}

static void test_no_hypercall(void)
{
    check_fallback("no-hypercall", "KVM does not pass on the guest's "
                   "conversion requests");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/surface/sev", test_sev);
    qtest_add_func("/guest-memfd/surface/keep-guest", test_keep_guest);
    qtest_add_func("/guest-memfd/surface/user-name", test_user_name);
    qtest_add_func("/guest-memfd/surface/one-path", test_one_path);
    qtest_add_func("/guest-memfd/surface/path-goes", test_path_goes);
    qtest_add_func("/guest-memfd/surface/dirty-limit", test_dirty_limit);
    qtest_add_func("/guest-memfd/surface/netdev-add", test_netdev_add);
    gm_add_table("/guest-memfd/surface/testdev", bad_args,
                 ARRAY_SIZE(bad_args));
    qtest_add_func("/guest-memfd/surface/two-devices", test_two_devices);
    qtest_add_func("/guest-memfd/surface/fault-errno", test_fault_errno);
    qtest_add_func("/guest-memfd/surface/touch-unplugged",
                   test_touch_unplugged);
    qtest_add_func("/guest-memfd/surface/monitor", test_monitor);
    qtest_add_func("/guest-memfd/surface/page-tables", test_page_tables);
    qtest_add_func("/guest-memfd/surface/fw-cfg-warning",
                   test_fw_cfg_warning);
    qtest_add_func("/guest-memfd/surface/kernel", test_kernel);
    qtest_add_func("/guest-memfd/surface/user-network", test_user_network);
    qtest_add_func("/guest-memfd/surface/no-vm-type", test_no_vm_type);
    qtest_add_func("/guest-memfd/surface/no-hypercall", test_no_hypercall);

    return g_test_run();
}
