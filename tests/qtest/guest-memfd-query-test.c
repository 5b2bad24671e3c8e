/*
 * qtest: queries of guest memory conversion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-util.h"
#include "libqos/fw_cfg.h"
#include "qemu/bswap.h"
#include "qobject/qlist.h"

/* --- the state --------------------------------------------------------- */

static void assert_str(const QDict *dict, const char *key, const char *value)
{
    g_assert_cmpstr(qdict_get_try_str(dict, key), ==, value);
}

/* "default:emulated zero:emulated" */
static void assert_modes(const QDict *info, const char *direction,
                         const char *expected)
{
    const QDict *modes = qdict_get_qdict(info, "modes");
    g_autoptr(GString) found = g_string_new(NULL);
    const QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(modes, direction), entry) {
        const QDict *m = qobject_to(QDict, qlist_entry_obj(entry));

        g_string_append_printf(found, "%s%s:%s", found->len ? " " : "",
                               qdict_get_str(m, "mode"),
                               qdict_get_str(m, "realisation"));
    }
    g_assert_cmpstr(found->str, ==, expected);
}

static void test_machine(void)
{
    QTestState *qts = gm_start();
    g_autoptr(QDict) info = gm_query(qts);

    assert_str(info, "manager", GM_MANAGER);
    assert_str(info, "in-place", "auto");
    assert_str(info, "content-mode", "auto");
    assert_str(info, "on-unsupported", "refuse");
    g_assert_cmpint(qdict_get_int(info, "retry-timeout-ms"), ==, 100);
    assert_str(info, "provider", "emulated");
    assert_str(info, "provider-reason",
               "no KVM: QEMU keeps the state of pages");
    assert_modes(info, "to-shared",
                 "default:emulated zero:emulated preserve:emulated");
    assert_modes(info, "to-private", "default:emulated preserve:emulated");
    g_assert_true(qlist_empty(qdict_get_qlist(info, "rejected")));

    g_assert_cmpuint(gm_stat(qts, "ram0", "size"), ==, GM_RAM_SIZE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "shared-bytes"), ==, GM_RAM_SIZE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "private-bytes"), ==, 0);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.requests"), ==, 0);
    gm_quit(qts);
}

/* Without guest_memfd memory there is an answer, too. */
static void check_nothing(const char *args, const char *manager)
{
    QTestState *qts = qtest_init(args);
    g_autoptr(QDict) info = gm_query(qts);
    g_autofree char *hmp = qtest_hmp(qts, "info guest-memfd");

    assert_str(info, "manager", manager);
    assert_str(info, "content-mode", manager ? "zero" : NULL);
    assert_str(info, "provider", NULL);
    assert_str(info, "provider-reason", "no guest_memfd memory");
    g_assert_false(qdict_haskey(info, "modes"));
    g_assert_true(qlist_empty(qdict_get_qlist(info, "rejected")));
    g_assert_true(qlist_empty(qdict_get_qlist(info, "backends")));
    g_assert_nonnull(strstr(hmp, "provider: none (no guest_memfd memory)"));
    g_assert_cmpint(!strstr(hmp, "policy: content-mode zero"), ==, !manager);
    gm_quit(qts);
}

static void test_nothing(void)
{
    const char *manager = "-object guest-memfd-manager,id=gmm0,"
                          "content-mode=zero";
    g_autofree char *none = g_strdup_printf("-machine none %s", manager);
    g_autofree char *q35 = g_strdup_printf("-machine q35 %s", manager);

    check_nothing("-machine none", NULL);
    check_nothing("-machine q35", NULL);
    check_nothing(none, GM_MANAGER);
    check_nothing(q35, GM_MANAGER);
}

static bool has_backend(QTestState *qts, const char *name)
{
    g_autoptr(QDict) info = gm_query(qts);
    const QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "backends"), entry) {
        const QDict *b = qobject_to(QDict, qlist_entry_obj(entry));

        if (g_str_equal(qdict_get_str(b, "name"), name)) {
            return true;
        }
    }
    return false;
}

/* The memory is freed with its last reader: soon. */
static void wait_for_no_backend(QTestState *qts, const char *name)
{
    const int64_t end = g_get_monotonic_time() + 10 * G_USEC_PER_SEC;

    while (has_backend(qts, name)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

static void test_backends(void)
{
    QTestState *qts = gm_start();

    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments': "
        "{ 'qom-type': 'memory-backend-memfd-private', 'id': 'more', "
        "'size': %" PRIu64 " } }", (uint64_t)GM_PAGE);
    g_assert_true(has_backend(qts, "ram0"));
    g_assert_true(has_backend(qts, "more"));
    g_assert_cmpuint(gm_stat(qts, "more", "size"), ==, GM_PAGE);
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'more' } }");
    wait_for_no_backend(qts, "more");
    g_assert_true(has_backend(qts, "ram0"));
    gm_quit(qts);
}

/* A backend that cannot be made leaves nothing behind. */
static void test_bad_backends(void)
{
    static const char *const bad[] = {
        "'size': 0", "'size': 4097", "'size': 4096, 'hugetlb': true",
        "'size': 4096, 'share': false", "'size': 4096, 'content-mode': 'x'",
        "'size': 4611686018427387904",
    };
    QTestState *qts = gm_start();
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autofree char *command = g_strdup_printf(
            "{ 'execute': 'object-add', 'arguments': { 'qom-type': "
            "'memory-backend-memfd-private', 'id': 'more', %s } }", bad[i]);
        g_autoptr(QDict) rsp = NULL;

        qtest_qmp_send_raw(qts, "%s", command);
        rsp = qtest_qmp_receive(qts);
        g_test_message("%s", bad[i]);
        g_assert_true(qdict_haskey(rsp, "error"));
        g_assert_false(has_backend(qts, "more"));
    }
    gm_fill(qts, GM_GPA, GM_PAGE);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    gm_to_shared(qts, GM_GPA, GM_PAGE);
    gm_assert_filled(qts, GM_GPA, GM_PAGE);
    gm_quit(qts);
}

/* --- statistics -------------------------------------------------------- */

typedef struct Count {
    const char *field;
    uint64_t value;
} Count;

static void assert_counts(QTestState *qts, const Count *counts, unsigned n)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        g_test_message("%s", counts[i].field);
        g_assert_cmpuint(gm_stat(qts, "ram0", counts[i].field), ==,
                         counts[i].value);
    }
}

/* Four that succeed, one that is refused, one that fails, one retried. */
static void make_requests(QTestState *qts)
{
    const uint64_t size = 4 * GM_PAGE;

    gm_convert(qts, GM_GPA, size, GMTD_ATTR_PRIVATE);
    gm_convert(qts, GM_GPA + GM_PAGE, size, GMTD_ATTR_PRIVATE |
               GMTD_ATTR_PRESERVE);
    gm_convert(qts, GM_GPA, 2 * size, GMTD_ATTR_ZERO);
    gm_convert(qts, GM_GPA, size, GMTD_ATTR_PRIVATE | GMTD_ATTR_ZERO);
    gm_convert(qts, GM_GPA, size, 0);
    gm_fault(qts, ENOMEM, 0, 1, 0);
    gm_convert(qts, GM_GPA, size, GMTD_ATTR_PRIVATE);
    gm_fault(qts, EAGAIN, 0, 1, 0);
    gm_convert(qts, GM_GPA, GM_PAGE, GMTD_ATTR_PRIVATE);
}

static void test_statistics(void)
{
    static const Count counts[] = {
        { "stats.requests", 7 },
        { "stats.origins.device", 7 },
        { "stats.origins.hypercall", 0 },
        { "stats.directions.to-shared", 2 },
        { "stats.directions.to-private", 5 },
        { "stats.modes.default", 3 },
        { "stats.modes.zero", 3 },
        { "stats.modes.preserve", 1 },
        { "stats.realisations.kernel", 0 },
        { "stats.realisations.emulated", 6 },
        { "stats.realisations.refused", 1 },
        { "stats.converted-bytes.to-private", 6 * GM_PAGE },
        { "stats.converted-bytes.to-shared", 5 * GM_PAGE },
        { "stats.already-right-bytes", (3 + 3 + 4) * GM_PAGE },
        { "stats.downgrades", 0 },
        { "stats.retries", 1 },
        { "stats.rollbacks", 0 },
        { "private-bytes", GM_PAGE },
        { "mappings", 0 },
        { "mapped-bytes", 0 },
        { "assigned-bytes", 0 },
        { "last-busy.offset", GM_GPA },
    };
    QTestState *qts = gm_start();

    make_requests(qts);
    assert_counts(qts, counts, ARRAY_SIZE(counts));
    g_assert_cmpuint(gm_failures(qts, "ram0", "EINVAL"), ==, 1);
    g_assert_cmpuint(gm_failures(qts, "ram0", "ENOMEM"), ==, 1);
    g_assert_cmpuint(gm_failures(qts, "ram0", "EAGAIN"), ==, 0);
    g_assert_cmpuint(gm_rejected(qts, "EINVAL"), ==, 0);
    gm_quit(qts);
}

static void test_rejected(void)
{
    QTestState *qts = gm_start();

    gm_convert(qts, GM_GPA, 0, 0);
    gm_convert(qts, GM_GPA, GM_PAGE, 1ULL << 20);
    gm_convert(qts, GM_RAM_SIZE, GM_PAGE, GMTD_ATTR_PRIVATE);
    g_assert_cmpuint(gm_rejected(qts, "EINVAL"), ==, 3);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.requests"), ==, 0);
    gm_quit(qts);
}

/* --- the human monitor ------------------------------------------------- */

static void test_hmp(void)
{
    static const char *const lines[] = {
        "provider: emulated (no KVM: QEMU keeps the state of pages)\r\n",
        "policy: content-mode preserve, on-unsupported refuse, "
        "retry-timeout-ms 100\r\n",
        "modes: to-shared=default,zero,preserve "
        "to-private=default,preserve\r\n",
        "  rejected EINVAL: 1\r\n",
        "ram0: private 64 KiB, shared 63.9 MiB, setup 0 B, content-mode "
        "default\r\n",
        "  requests: 7 (to-shared 2, to-private 5)\r\n",
        "  modes: default 4, zero 2, preserve 1\r\n",
        "  realised by: kernel 0, emulated 6, refused 1\r\n",
        "  bytes: to-shared 327680, to-private 393216, "
        "already right 655360\r\n",
        "  retries: 1, rollbacks: 0, downgrades: 0\r\n",
        "  mapped: 0 bytes by 0 mappings, for assigned devices 0\r\n",
        "  last busy: 0x",
        ", fault-injection, ",
        "  failed EINVAL: 1\r\n",
        "  failed ENOMEM: 1\r\n",
        " ns, longest ",
    };
    QTestState *qts = gm_start();
    g_autofree char *hmp = NULL;
    unsigned i;

    gm_set_str(qts, GM_MANAGER, "content-mode", "preserve");
    gm_set_str(qts, GM_BACKEND, "content-mode", "default");
    make_requests(qts);
    gm_convert(qts, GM_GPA, 0, 0);
    hmp = qtest_hmp(qts, "info guest-memfd");
    for (i = 0; i < ARRAY_SIZE(lines); i++) {
        if (!strstr(hmp, lines[i])) {
            g_test_message("\"%s\" is not in: %s", lines[i], hmp);
            g_test_fail();
        }
    }
    gm_quit(qts);
}

/* --- the guest --------------------------------------------------------- */

static void test_fw_cfg(void)
{
    QTestState *qts = gm_start();
    QFWCFG *fw_cfg = pc_fw_cfg_init(qts);
    uint32_t words[4] = { };
    size_t size = qfw_cfg_get_file(fw_cfg, GUEST_MEMFD_FW_CFG_FILE, words,
                                   sizeof(words));

    g_assert_cmpuint(size, ==, sizeof(words));
    g_assert_cmphex(le32_to_cpu(words[0]), ==, GUEST_MEMFD_FW_CFG_VERSION);
    g_assert_cmphex(le32_to_cpu(words[1]), ==,
                    GMTD_ATTR_ZERO | GMTD_ATTR_PRESERVE);
    g_assert_cmphex(le32_to_cpu(words[2]), ==, GMTD_ATTR_PRESERVE);
    g_assert_cmphex(words[3], ==, 0);
    pc_fw_cfg_uninit(fw_cfg);
    gm_quit(qts);
}

static uint32_t read_hints(QTestState *qts, unsigned word)
{
    QFWCFG *fw_cfg = pc_fw_cfg_init(qts);
    uint32_t words[4] = { };

    qfw_cfg_get_file(fw_cfg, GUEST_MEMFD_FW_CFG_FILE, words, sizeof(words));
    pc_fw_cfg_uninit(fw_cfg);
    return le32_to_cpu(words[word]);
}

/* The guest reads the current offer, not an earlier one. */
static void expect_phase(QTestState *qts, const char *phase, bool launched)
{
    g_autofree char *hmp = qtest_hmp(qts, "info guest-memfd");
    g_autofree char *line = g_strdup_printf("phase: %s\r\n", phase);
    g_autoptr(QDict) info = gm_query(qts);

    assert_str(info, "phase", phase);
    g_assert_cmpint(qdict_get_bool(info, "launched"), ==, launched);
    g_assert_nonnull(strstr(hmp, line));
    /* Memory of this guest needs no launch. */
    g_assert_cmpuint(gm_stat(qts, "ram0", "setup-bytes"), ==, 0);
}

static void test_fw_cfg_launch(void)
{
    QTestState *qts = qtest_init(GM_ONE_BACKEND "-S");

    expect_phase(qts, "setup", false);
    qtest_qom_set_bool(qts, GM_PROVIDER, "preserve-ends", true);
    g_assert_cmphex(read_hints(qts, 1), ==,
                    GMTD_ATTR_ZERO | GMTD_ATTR_PRESERVE);
    g_assert_cmphex(read_hints(qts, 2), ==, GMTD_ATTR_PRESERVE);
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    expect_phase(qts, "running", true);
    qtest_qmp_assert_success(qts, "{ 'execute': 'stop' }");
    expect_phase(qts, "running", true);
    g_assert_cmphex(read_hints(qts, 1), ==, GMTD_ATTR_ZERO);
    g_assert_cmphex(read_hints(qts, 2), ==, 0);
    gm_quit(qts);
}

/* A guest that cannot convert is not offered it. */
static void test_fw_cfg_absent(void)
{
    QTestState *qts = qtest_init("-nodefaults -machine q35 -m 64M "
                                 "-object guest-memfd-manager,id=gmm0");
    QFWCFG *fw_cfg = pc_fw_cfg_init(qts);
    uint32_t words[4];

    g_assert_cmpuint(qfw_cfg_get_file(fw_cfg, GUEST_MEMFD_FW_CFG_FILE, words,
                                      sizeof(words)), ==, 0);
    pc_fw_cfg_uninit(fw_cfg);
    gm_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/query/machine", test_machine);
    qtest_add_func("/guest-memfd/query/nothing", test_nothing);
    qtest_add_func("/guest-memfd/query/backends", test_backends);
    qtest_add_func("/guest-memfd/query/bad-backends", test_bad_backends);
    qtest_add_func("/guest-memfd/query/statistics", test_statistics);
    qtest_add_func("/guest-memfd/query/rejected", test_rejected);
    qtest_add_func("/guest-memfd/query/hmp", test_hmp);
    qtest_add_func("/guest-memfd/query/fw-cfg", test_fw_cfg);
    qtest_add_func("/guest-memfd/query/fw-cfg-launch", test_fw_cfg_launch);
    qtest_add_func("/guest-memfd/query/fw-cfg-absent", test_fw_cfg_absent);

    return g_test_run();
}
