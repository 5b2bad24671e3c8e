/*
 * qtest: configuration of guest memory conversion, and its errors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-cmdline.h"
#include "guest-memfd-util.h"

#define MANAGER     "-object guest-memfd-manager,id=gmm0"
#define BACKEND     "-object memory-backend-memfd-private,id=ram0,size=64M"
#define OTHER(type) GM_MACHINE GM_RAM "-object memory-backend-" type \
                    ",id=ram0,size=64M"
#define NO_CGS      "-nodefaults -machine q35 "

/* --- the command line -------------------------------------------------- */

static const GmBadArgs bad_args[] = {
    { GM_MACHINE GM_RAM
      "-object memory-backend-memfd-private,id=ram0,size=0",
      { "'size'", "memory-backend-memfd-private", "'0'" } },
    { GM_MACHINE GM_RAM
      "-object memory-backend-memfd-private,id=ram0,size=67108865",
      { "'size'", "memory-backend-memfd-private", "'67108865'",
        "must be a multiple of" } },
    { GM_MACHINE GM_RAM BACKEND ",content-mode=scrub",
      { "'content-mode'", "'scrub'" } },
    { GM_MACHINE GM_RAM BACKEND ",hugetlb=on",
      { "hugetlb=on", "memory-backend-memfd-private", "hugetlb=off" } },
    { GM_MACHINE GM_RAM BACKEND ",huge-pages=maybe",
      { "'huge-pages'", "'maybe'" } },
    { GM_MACHINE GM_RAM BACKEND ",huge-pages=on",
      { "'huge-pages=on' is not supported by memory-backend-memfd-private: "
        "this provider does not offer them", "Use huge-pages=auto",
        "-accel kvm", "kvm.gmem_huge_pages" } },
    /* Lines for the type that AMD's and Intel's trees had in 2022. */
    { GM_MACHINE GM_RAM BACKEND ",hugetlbsize=2M",
      { "'hugetlbsize' is not supported by memory-backend-memfd-private any "
        "more", "one copy", "Leave it out, and hugetlb=on" } },
    { GM_MACHINE GM_RAM BACKEND ",path=/dev/hugepages/ram",
      { "'path' is not supported by memory-backend-memfd-private any more",
        "Leave it out: there is no file" } },
    { GM_MACHINE "-object memory-backend-ram,id=shm0,size=64M " GM_RAM BACKEND
      ",shmemdev=shm0",
      { "'shmemdev' is not supported by memory-backend-memfd-private any "
        "more", "Leave it out, and the backend that it names." } },
    { GM_MACHINE GM_RAM BACKEND ",share=off",
      { "share=off", "memory-backend-memfd-private", "Use share=on." } },
    { NO_CGS GM_RAM BACKEND,
      { "memory-backend-memfd-private", "confidential-guest-support",
        "sw-protected-guest" } },
    { "-machine none -object sw-protected-guest,id=cgs0 " BACKEND,
      { "memory-backend-memfd-private", "confidential-guest-support" } },
    { GM_MACHINE MANAGER ",content-mode=scrub",
      { "'content-mode'", "'scrub'" } },
    { GM_MACHINE MANAGER ",on-unsupported=pray",
      { "'on-unsupported'", "'pray'" } },
    { GM_MACHINE MANAGER ",in-place=maybe", { "'in-place'", "'maybe'" } },
    { GM_MACHINE MANAGER ",retry-timeout-ms=10001",
      { "'retry-timeout-ms'", "guest-memfd-manager", "'10001'",
        "0 to 10000" } },
    { GM_MACHINE MANAGER ",retry-timeout-ms=4294967296",
      { "retry-timeout-ms" } },
    { GM_MACHINE MANAGER ",retry-timeout-ms=-1", { "retry-timeout-ms" } },
    { GM_MACHINE MANAGER ",retry-timeout-ms=soon", { "retry-timeout-ms" } },
    { GM_MACHINE MANAGER ",provider=emulated", { "'provider'" } },
    { GM_MACHINE MANAGER " -object guest-memfd-manager,id=gmm1",
      { "only one guest-memfd-manager", "'/objects/gmm0'", "qom-set" } },
    { GM_MACHINE MANAGER ",in-place=off",
      { "in-place=off", "KVM", "in-place=auto" } },
    { NO_CGS MANAGER ",in-place=on",
      { "in-place=on", "no guest_memfd memory",
        "confidential-guest-support", "in-place=auto" } },
    { "-machine none " MANAGER ",in-place=on",
      { "in-place=on", "no guest_memfd memory", "in-place=auto" } },
    /* A backend that cannot be converted is named, and one that can. */
    { OTHER("file,mem-path=/dev/shm,share=on") " " MANAGER ",in-place=on",
      { "'ram0'", "in place", "memory-backend-memfd" } },
    { OTHER("file,mem-path=/dev/shm"),
      { "'ram0'", "in place", "memory-backend-memfd",
        "memory-backend-ram" }, "in-place=off" },
    { GM_MACHINE "-m 64M -device guest-memfd-testdev,addr=0xfed60800",
      { "'addr'", "guest-memfd-testdev", "'0xfed60800'",
        "multiple of 0x1000" } },
    /* "Names elsewhere" in the manual: what others have is not here. */
    { "-machine none -object sev-snp-guest,id=s,cbitpos=51,reduced-phys-bits=1,"
      "convert-in-place=on",
      { "Invalid parameter 'convert-in-place'" } },
    { "-machine none -object memory-backend-guest-memfd,id=ram0,size=64M",
      { "'memory-backend-guest-memfd'" } },
    { "-machine none -object memory-backend-memfd,id=ram0,size=64M,"
      "x-guest-memfd=auto",
      { "Invalid parameter 'x-guest-memfd'" } },
    { "-machine none -object memory-backend-memfd,id=ram0,size=64M,"
      "guest-memfd=on",
      { "Invalid parameter 'guest-memfd'" } },
    { GM_MACHINE "-m 64M -only-migratable",
      { "converted in place", "cannot be migrated" } },
};

static void test_good_args(void)
{
    static const char *const good_args[] = {
        GM_MACHINE GM_RAM BACKEND ",hugetlb=off,share=on,reserve=off",
        GM_MACHINE GM_RAM BACKEND ",prealloc=on,policy=default",
        GM_MACHINE GM_RAM BACKEND ",huge-pages=auto",
        GM_MACHINE GM_RAM BACKEND ",huge-pages=off",
        GM_MACHINE GM_RAM BACKEND " " MANAGER ",in-place=on",
        GM_MACHINE MANAGER ",in-place=auto,retry-timeout-ms=10000",
        OTHER("ram"),
        OTHER("memfd"),
        OTHER("memfd") " " MANAGER ",in-place=on",
        NO_CGS MANAGER,
        NO_CGS MANAGER ",in-place=off",
        "-machine none " MANAGER,
    };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(good_args); i++) {
        gm_check_good_args("qtest", good_args[i]);
    }
}

/* --- properties of a machine that runs --------------------------------- */

static void assert_property(QTestState *qts, const char *path,
                            const char *property, const char *value)
{
    g_autofree char *now = gm_get_str(qts, path, property);

    g_assert_cmpstr(now, ==, value);
}

static void test_defaults(void)
{
    QTestState *qts = gm_start();

    assert_property(qts, GM_MANAGER, "in-place", "auto");
    assert_property(qts, GM_MANAGER, "content-mode", "auto");
    assert_property(qts, GM_MANAGER, "on-unsupported", "refuse");
    g_assert_cmpuint(gm_get_int(qts, GM_MANAGER, "retry-timeout-ms"), ==,
                     100);
    assert_property(qts, GM_MANAGER, "provider", "emulated");
    assert_property(qts, GM_MANAGER, "provider-reason",
                    "no KVM: QEMU keeps the state of pages");
    assert_property(qts, GM_MANAGER, "effective-content-modes",
                    "to-shared=default,zero,preserve "
                    "to-private=default,preserve");
    assert_property(qts, GM_BACKEND, "content-mode", "auto");
    assert_property(qts, GM_BACKEND, "huge-pages", "auto");
    g_assert_false(qtest_qom_get_bool(qts, GM_BACKEND, "hugetlb"));
    g_assert_true(qtest_qom_get_bool(qts, GM_BACKEND, "share"));
    gm_quit(qts);
}

static void test_configured(void)
{
    QTestState *qts = qtest_init(GM_MACHINE GM_TESTDEV GM_RAM
        MANAGER ",in-place=on,content-mode=zero,on-unsupported=downgrade,"
        "retry-timeout-ms=0 " BACKEND ",content-mode=preserve");

    assert_property(qts, GM_MANAGER, "in-place", "on");
    assert_property(qts, GM_MANAGER, "content-mode", "zero");
    assert_property(qts, GM_MANAGER, "on-unsupported", "downgrade");
    g_assert_cmpuint(gm_get_int(qts, GM_MANAGER, "retry-timeout-ms"), ==, 0);
    assert_property(qts, GM_BACKEND, "content-mode", "preserve");

    /* They are not only remembered. */
    gm_fill(qts, GM_GPA, GM_PAGE);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    g_assert_cmpint(gm_convert(qts, GM_GPA, GM_PAGE, 0).status, ==, 0);
    gm_assert_filled(qts, GM_GPA, GM_PAGE);
    gm_set_str(qts, GM_BACKEND, "content-mode", "auto");
    gm_to_private(qts, GM_GPA, GM_PAGE);
    g_assert_cmpint(gm_convert(qts, GM_GPA, GM_PAGE, 0).status, ==, 0);
    gm_assert_bytes(qts, GM_GPA, GM_PAGE, 0);
    gm_quit(qts);
}

/* Without guest_memfd memory the manager has nothing to choose. */
static void test_idle(void)
{
    QTestState *qts = qtest_init("-machine none " MANAGER);

    assert_property(qts, GM_MANAGER, "provider", "none");
    assert_property(qts, GM_MANAGER, "provider-reason",
                    "no guest_memfd memory");
    assert_property(qts, GM_MANAGER, "effective-content-modes", "");

    /* It can be deleted, and another one created. */
    gm_set_str(qts, GM_MANAGER, "in-place", "off");
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'gmm0' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments': "
        "{ 'qom-type': 'guest-memfd-manager', 'id': 'gmm0' } }");
    gm_assert_error(qts, "only one guest-memfd-manager",
        "{ 'execute': 'object-add', 'arguments': "
        "{ 'qom-type': 'guest-memfd-manager', 'id': 'gmm1' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'gmm0' } }");
    gm_assert_error(qts, "in-place=on must be set on the command line",
        "{ 'execute': 'object-add', 'arguments': "
        "{ 'qom-type': 'guest-memfd-manager', 'id': 'gmm0', "
        "'in-place': 'on' } }");
    qtest_quit(qts);
}

static void test_too_late(void)
{
    QTestState *qts = gm_start();

    gm_assert_error(qts, "'in-place' of guest-memfd-manager to 'off': "
        "guest memory exists", "{ 'execute': 'qom-set', 'arguments': "
        "{ 'path': %s, 'property': 'in-place', 'value': 'off' } }",
        GM_MANAGER);
    assert_property(qts, GM_MANAGER, "in-place", "auto");
    gm_assert_error(qts, "'/objects/gmm0' exists",
        "{ 'execute': 'object-add', 'arguments': "
        "{ 'qom-type': 'guest-memfd-manager', 'id': 'gmm1' } }");
    gm_assert_error(qts, "'gmm0' is in use, can not be deleted",
        "{ 'execute': 'object-del', 'arguments': { 'id': 'gmm0' } }");
    gm_assert_error(qts, "'ram0' is in use, can not be deleted",
        "{ 'execute': 'object-del', 'arguments': { 'id': 'ram0' } }");
    gm_assert_error(qts, "'cgs0' is in use, can not be deleted",
        "{ 'execute': 'object-del', 'arguments': { 'id': 'cgs0' } }");
    gm_assert_error(qts, "converted in place", "{ 'execute': 'migrate', "
        "'arguments': { 'uri': 'exec:cat >/dev/null' } }");
    gm_to_private(qts, GM_GPA, GM_PAGE);
    gm_quit(qts);
}

/* It protects nothing, and can go again.  The remedy is what GM_MACHINE is. */
static void test_unused_guest(void)
{
    QTestState *qts = qtest_init("-machine none "
                                 "-object sw-protected-guest,id=cgs0");
    g_autofree char *said = NULL;
    int status;

    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'cgs0' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments': "
        "{ 'qom-type': 'sw-protected-guest', 'id': 'cgs0' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'cgs0' } }");
    qtest_quit(qts);

    said = gm_run_qemu("qtest", "-machine q35 -m 64M "
                       "-object sw-protected-guest,id=cgs0", &status);
    g_assert_cmpint(status, ==, 0);
    gm_expect_text("warning: object 'cgs0' has no effect without -machine "
                   "confidential-guest-support=cgs0", said);
    gm_check_good_args("qtest", "-machine q35 -m 64M "
                       "-object sw-protected-guest,id=cgs0 "
                       "-machine confidential-guest-support=cgs0");
}

/* The default manager excludes a second one, and nothing else. */
static void test_too_late_default(void)
{
    QTestState *qts = qtest_init(GM_MACHINE "-m 64M");

    gm_assert_error(qts, "'/machine/guest-memfd-manager' exists",
        "{ 'execute': 'object-add', 'arguments': "
        "{ 'qom-type': 'guest-memfd-manager', 'id': 'gmm0' } }");
    gm_assert_error(qts, "converted in place", "{ 'execute': 'migrate', "
        "'arguments': { 'uri': 'exec:cat >/dev/null' } }");
    gm_quit(qts);
}

static void assert_bad_value(QTestState *qts, const char *path,
                             const char *property, const char *value,
                             const char *text)
{
    g_autofree char *before = gm_get_str(qts, path, property);

    gm_assert_error(qts, text, "{ 'execute': 'qom-set', 'arguments': "
                    "{ 'path': %s, 'property': %s, 'value': %s } }",
                    path, property, value);
    assert_property(qts, path, property, before);
}

static void test_bad_values(void)
{
    QTestState *qts = gm_start();

    assert_bad_value(qts, GM_MANAGER, "content-mode", "scrub", "scrub");
    assert_bad_value(qts, GM_MANAGER, "on-unsupported", "pray", "pray");
    assert_bad_value(qts, GM_MANAGER, "in-place", "maybe", "maybe");
    assert_bad_value(qts, GM_MANAGER, "provider", "none", "provider");
    assert_bad_value(qts, GM_MANAGER, "provider-reason", "", "reason");
    assert_bad_value(qts, GM_BACKEND, "content-mode", "scrub", "scrub");

    gm_assert_error(qts, "'retry-timeout-ms' of guest-memfd-manager doesn't "
        "take value '10001'", "{ 'execute': 'qom-set', 'arguments': "
        "{ 'path': %s, 'property': 'retry-timeout-ms', 'value': 10001 } }",
        GM_MANAGER);
    g_assert_cmpuint(gm_get_int(qts, GM_MANAGER, "retry-timeout-ms"), ==,
                     100);
    gm_quit(qts);
}

/* --- policy at run time ------------------------------------------------ */

static GmResult convert_after(QTestState *qts, const char *path,
                              const char *policy)
{
    gm_to_private(qts, GM_GPA, GM_PAGE);
    gm_set_str(qts, path, "content-mode", policy);
    return gm_convert(qts, GM_GPA, GM_PAGE, 0);
}

/* The next conversion follows the new policy, the last one is history. */
static void test_run_time(void)
{
    QTestState *qts = gm_start();

    gm_fill(qts, GM_GPA, GM_PAGE);
    g_assert_cmpint(convert_after(qts, GM_MANAGER, "preserve").mode, ==, 2);
    gm_assert_filled(qts, GM_GPA, GM_PAGE);
    g_assert_cmpint(convert_after(qts, GM_MANAGER, "default").mode, ==, 0);
    g_assert_cmpint(convert_after(qts, GM_BACKEND, "preserve").mode, ==, 2);
    gm_assert_filled(qts, GM_GPA, GM_PAGE);
    g_assert_cmpint(convert_after(qts, GM_BACKEND, "zero").mode, ==, 1);
    gm_assert_bytes(qts, GM_GPA, GM_PAGE, 0);

    gm_set_int(qts, GM_MANAGER, "retry-timeout-ms", 0);
    gm_fault(qts, EAGAIN, 0, 1, 0);
    g_assert_cmpint(gm_convert(qts, GM_GPA, GM_PAGE,
                               GMTD_ATTR_PRIVATE).status, ==, -EAGAIN);
    gm_set_int(qts, GM_MANAGER, "retry-timeout-ms", 10000);
    gm_fault(qts, EAGAIN, 0, 1, 0);
    g_assert_cmpint(gm_convert(qts, GM_GPA, GM_PAGE,
                               GMTD_ATTR_PRIVATE).status, ==, 0);
    gm_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    gm_add_table("/guest-memfd/props/bad-args", bad_args,
                 ARRAY_SIZE(bad_args));
    qtest_add_func("/guest-memfd/props/good-args", test_good_args);
    qtest_add_func("/guest-memfd/props/defaults", test_defaults);
    qtest_add_func("/guest-memfd/props/configured", test_configured);
    qtest_add_func("/guest-memfd/props/idle", test_idle);
    qtest_add_func("/guest-memfd/props/too-late", test_too_late);
    qtest_add_func("/guest-memfd/props/unused-guest", test_unused_guest);
    qtest_add_func("/guest-memfd/props/too-late-default",
                   test_too_late_default);
    qtest_add_func("/guest-memfd/props/bad-values", test_bad_values);
    qtest_add_func("/guest-memfd/props/run-time", test_run_time);

    return g_test_run();
}
