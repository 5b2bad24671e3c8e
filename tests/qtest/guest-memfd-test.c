/*
 * qtest: conversions of guest memory and the contents after them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-util.h"
#include "qapi/qapi-types-guest-memfd.h"

#define MODE(name) GUEST_MEMFD_CONTENT_MODE_##name

static const char *const policies[GUEST_MEMFD_CONTENT_POLICY__MAX] = {
    "auto", "default", "zero", "preserve",
};

/* The mode of each policy, [to private] last. */
static const GuestMemfdContentMode
policy_modes[GUEST_MEMFD_CONTENT_POLICY__MAX][2] = {
    { MODE(ZERO), MODE(DEFAULT) },
    { MODE(DEFAULT), MODE(DEFAULT) },
    { MODE(ZERO), MODE(DEFAULT) },
    { MODE(PRESERVE), MODE(PRESERVE) },
};

/* --- the decision table ------------------------------------------------ */

typedef struct Cell {
    int backend;
    int manager;
    bool to_private;
    uint64_t hint;
    bool poison;
} Cell;

static GuestMemfdContentMode expected_mode(const Cell *c)
{
    if (c->hint) {
        return c->hint == GMTD_ATTR_ZERO ? MODE(ZERO) : MODE(PRESERVE);
    }
    /* The backend's policy has precedence over the manager's. */
    return policy_modes[c->backend ? c->backend : c->manager][c->to_private];
}

static void assert_contents(QTestState *qts, const Cell *c,
                            GuestMemfdContentMode mode)
{
    switch (mode) {
    case MODE(DEFAULT):
        if (c->poison) {
            gm_assert_bytes(qts, GM_GPA, GM_PAGE, GM_POISON);
            break;
        }
        /* No promise: the emulated provider leaves them alone. */
        gm_assert_filled(qts, GM_GPA, GM_PAGE);
        break;
    case MODE(ZERO):
        gm_assert_bytes(qts, GM_GPA, GM_PAGE, 0);
        break;
    default:
        gm_assert_filled(qts, GM_GPA, GM_PAGE);
    }
}

static void check_cell(QTestState *qts, const Cell *c)
{
    GuestMemfdContentMode mode = expected_mode(c);
    /* The host's zeros are worth nothing to the guest. */
    bool refused = c->to_private && mode == MODE(ZERO);
    GmResult r;

    gm_fill(qts, GM_GPA, GM_PAGE);
    if (!c->to_private) {
        gm_to_private(qts, GM_GPA, GM_PAGE);
    }

    r = gm_convert(qts, GM_GPA, GM_PAGE, c->hint |
                   (c->to_private ? GMTD_ATTR_PRIVATE : 0));
    g_assert_cmpint(r.status, ==, refused ? -EINVAL : 0);
    g_assert_cmpuint(r.changed, ==, refused ? 0 : GM_PAGE);
    g_assert_true(r.decided);
    g_assert_cmpint(r.mode, ==, mode);
    g_assert_cmpint(r.how, ==, refused ? GUEST_MEMFD_REALISATION_REFUSED :
                    GUEST_MEMFD_REALISATION_EMULATED);
    g_assert_cmpint(gm_is_private(qts, GM_GPA), ==,
                    c->to_private && !refused);

    gm_to_shared(qts, GM_GPA, GM_PAGE);
    assert_contents(qts, c, refused ? MODE(PRESERVE) : mode);
}

static void check_policies(QTestState *qts, Cell *c)
{
    static const uint64_t hints[] = { 0, GMTD_ATTR_ZERO, GMTD_ATTR_PRESERVE };
    unsigned i;

    gm_set_str(qts, GM_BACKEND, "content-mode", policies[c->backend]);
    gm_set_str(qts, GM_MANAGER, "content-mode", policies[c->manager]);
    for (i = 0; i < 2 * ARRAY_SIZE(hints); i++) {
        c->to_private = i % 2;
        c->hint = hints[i / 2];
        check_cell(qts, c);
    }
}

static void check_table(bool poison, const char *on_unsupported)
{
    QTestState *qts = gm_start();
    Cell c = { .poison = poison };

    qtest_qom_set_bool(qts, GM_PROVIDER, "poison", poison);
    gm_set_str(qts, GM_MANAGER, "on-unsupported", on_unsupported);
    for (c.backend = 0; c.backend < ARRAY_SIZE(policies); c.backend++) {
        for (c.manager = 0; c.manager < ARRAY_SIZE(policies); c.manager++) {
            check_policies(qts, &c);
        }
    }
    /* This provider offers all that a policy can want. */
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.downgrades"), ==, 0);
    gm_quit(qts);
}

static void test_table(void)
{
    check_table(false, "refuse");
}

static void test_table_downgrade(void)
{
    check_table(false, "downgrade");
}

static void test_table_poison(void)
{
    check_table(true, "refuse");
}

/* --- ranges ------------------------------------------------------------ */

/* Pages 1, 3 and 4 of 6 are private, and one on either side of them. */
static void make_mixed(QTestState *qts)
{
    gm_fill(qts, GM_GPA - GM_PAGE, 8 * GM_PAGE);
    gm_to_private(qts, GM_GPA - GM_PAGE, GM_PAGE);
    gm_to_private(qts, GM_GPA + GM_PAGE, GM_PAGE);
    gm_to_private(qts, GM_GPA + 3 * GM_PAGE, 2 * GM_PAGE);
    gm_to_private(qts, GM_GPA + 6 * GM_PAGE, GM_PAGE);
}

static void assert_neighbours(QTestState *qts)
{
    g_assert_true(gm_is_private(qts, GM_GPA - 8));
    g_assert_true(gm_is_private(qts, GM_GPA + 6 * GM_PAGE));
    gm_to_shared(qts, GM_GPA - GM_PAGE, GM_PAGE);
    gm_to_shared(qts, GM_GPA + 6 * GM_PAGE, GM_PAGE);
    gm_assert_filled(qts, GM_GPA - GM_PAGE, GM_PAGE);
    gm_assert_filled(qts, GM_GPA + 6 * GM_PAGE, GM_PAGE);
}

/* Only pages that change are touched: shared bytes are the guest's own. */
static void test_mixed_to_shared(void)
{
    QTestState *qts = gm_start();
    GmResult r;

    make_mixed(qts);
    r = gm_convert(qts, GM_GPA, 6 * GM_PAGE, GMTD_ATTR_ZERO);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(r.changed, ==, 3 * GM_PAGE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.already-right-bytes"), ==,
                     3 * GM_PAGE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.converted-bytes.to-shared"),
                     ==, 3 * GM_PAGE);

    gm_assert_filled(qts, GM_GPA, GM_PAGE);
    gm_assert_bytes(qts, GM_GPA + GM_PAGE, GM_PAGE, 0);
    gm_assert_filled(qts, GM_GPA + 2 * GM_PAGE, GM_PAGE);
    gm_assert_bytes(qts, GM_GPA + 3 * GM_PAGE, 2 * GM_PAGE, 0);
    gm_assert_filled(qts, GM_GPA + 5 * GM_PAGE, GM_PAGE);
    assert_neighbours(qts);
    gm_quit(qts);
}

static void test_mixed_to_private(void)
{
    QTestState *qts = gm_start();
    GmResult r;

    make_mixed(qts);
    qtest_qom_set_bool(qts, GM_PROVIDER, "poison", true);
    r = gm_convert(qts, GM_GPA, 6 * GM_PAGE, GMTD_ATTR_PRIVATE);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(r.changed, ==, 3 * GM_PAGE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.already-right-bytes"), ==,
                     3 * GM_PAGE);

    gm_to_shared(qts, GM_GPA, 6 * GM_PAGE);
    gm_assert_bytes(qts, GM_GPA, GM_PAGE, GM_POISON);
    gm_assert_filled(qts, GM_GPA + GM_PAGE, GM_PAGE);
    gm_assert_bytes(qts, GM_GPA + 2 * GM_PAGE, GM_PAGE, GM_POISON);
    gm_assert_filled(qts, GM_GPA + 3 * GM_PAGE, 2 * GM_PAGE);
    gm_assert_bytes(qts, GM_GPA + 5 * GM_PAGE, GM_PAGE, GM_POISON);
    assert_neighbours(qts);
    gm_quit(qts);
}

static void test_twice(void)
{
    QTestState *qts = gm_start();
    GmResult r;

    gm_fill(qts, GM_GPA, GM_PAGE);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    r = gm_convert(qts, GM_GPA, GM_PAGE, GMTD_ATTR_PRIVATE);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(r.changed, ==, 0);
    gm_to_shared(qts, GM_GPA, GM_PAGE);
    r = gm_convert(qts, GM_GPA, GM_PAGE, 0);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(r.changed, ==, 0);
    gm_assert_filled(qts, GM_GPA, GM_PAGE);
    g_assert_cmpuint(gm_get_int(qts, GM_PROVIDER, "operations"), ==, 2);
    gm_quit(qts);
}

static void test_two_cells(void)
{
    const uint64_t first = GM_CELL - 2 * GM_PAGE, size = 5 * GM_PAGE;
    QTestState *qts = gm_start_cells();
    GmResult r;

    gm_fill(qts, first, size);
    r = gm_convert(qts, first, size, GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(r.changed, ==, size);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 2 * GM_PAGE);
    g_assert_cmpuint(gm_private_bytes(qts, "ram1"), ==, 3 * GM_PAGE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.requests"), ==, 1);
    g_assert_cmpuint(gm_stat(qts, "ram1", "stats.requests"), ==, 1);

    gm_to_shared(qts, first, size);
    gm_assert_filled(qts, first, size);
    gm_quit(qts);
}

/* Each backend follows its own policy. */
static void test_two_policies(void)
{
    const uint64_t first = GM_CELL - GM_PAGE, size = 2 * GM_PAGE;
    QTestState *qts = gm_start_cells();
    GmResult r;

    gm_set_str(qts, "/objects/ram1", "content-mode", "preserve");
    gm_fill(qts, first, size);
    gm_to_private(qts, first, size);
    r = gm_convert(qts, first, size, 0);
    g_assert_cmpint(r.status, ==, 0);
    gm_assert_bytes(qts, first, GM_PAGE, 0);
    gm_assert_filled(qts, GM_CELL, GM_PAGE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.modes.zero"), ==, 1);
    g_assert_cmpuint(gm_stat(qts, "ram1", "stats.modes.zero"), ==, 0);
    g_assert_cmpuint(gm_stat(qts, "ram1", "stats.modes.preserve"), ==, 2);
    gm_quit(qts);
}

/* --- the life of a machine --------------------------------------------- */

static void check_reset(const char *policy)
{
    QTestState *qts = gm_start();

    gm_set_str(qts, GM_MANAGER, "content-mode", policy);
    gm_fill(qts, GM_GPA, 4 * GM_PAGE);
    gm_to_private(qts, GM_GPA, 2 * GM_PAGE);
    qtest_system_reset(qts);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 0);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.origins.reset"), ==, 1);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.modes.zero"), ==, 1);
    gm_assert_bytes(qts, GM_GPA, 2 * GM_PAGE, 0);
    gm_assert_filled(qts, GM_GPA + 2 * GM_PAGE, 2 * GM_PAGE);

    /* Nothing to do, nothing counted. */
    qtest_system_reset(qts);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.origins.reset"), ==, 1);

    gm_fill(qts, GM_GPA, GM_PAGE);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    gm_to_shared(qts, GM_GPA, GM_PAGE);
    gm_assert_filled(qts, GM_GPA, GM_PAGE);
    gm_quit(qts);
}

static void test_reset(void)
{
    check_reset("auto");
}

/* A policy is about what a guest converts, not about its secrets' end. */
static void test_reset_preserve(void)
{
    check_reset("preserve");
}

static void test_default_manager(void)
{
    QTestState *qts = qtest_init(GM_MACHINE GM_TESTDEV "-m 64M");
    g_autofree char *provider = gm_get_str(qts,
        "/machine/guest-memfd-manager", "provider");

    g_assert_cmpstr(provider, ==, "emulated");
    gm_fill(qts, GM_GPA, GM_PAGE);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    g_assert_cmpuint(gm_private_bytes(qts, "pc.ram"), ==, GM_PAGE);
    gm_to_shared(qts, GM_GPA, GM_PAGE);
    gm_assert_filled(qts, GM_GPA, GM_PAGE);
    gm_quit(qts);
}

static void test_hotplug(void)
{
    const uint64_t gpa = 4 * GiB;
    QTestState *qts = qtest_init(GM_ONE_BACKEND
                                 "-m 64M,slots=1,maxmem=1G");

    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add', 'arguments': "
        "{ 'qom-type': 'memory-backend-memfd-private', 'id': 'more', "
        "'size': %" PRIu64 ", 'content-mode': 'preserve' } }", 128 * MiB);
    qtest_qmp_device_add(qts, "pc-dimm", "dimm0",
                         "{ 'memdev': 'more', 'addr': %" PRIu64 " }", gpa);

    gm_fill(qts, gpa, 2 * GM_PAGE);
    g_assert_cmpint(gm_convert(qts, gpa, 2 * GM_PAGE,
                               GMTD_ATTR_PRIVATE).status, ==, 0);
    g_assert_cmpuint(gm_private_bytes(qts, "more"), ==, 2 * GM_PAGE);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 0);
    g_assert_cmpint(gm_convert(qts, gpa, 2 * GM_PAGE, 0).status, ==, 0);
    gm_assert_filled(qts, gpa, 2 * GM_PAGE);
    gm_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/table", test_table);
    qtest_add_func("/guest-memfd/table-downgrade", test_table_downgrade);
    qtest_add_func("/guest-memfd/table-poison", test_table_poison);
    qtest_add_func("/guest-memfd/mixed-to-shared", test_mixed_to_shared);
    qtest_add_func("/guest-memfd/mixed-to-private", test_mixed_to_private);
    qtest_add_func("/guest-memfd/twice", test_twice);
    qtest_add_func("/guest-memfd/two-cells", test_two_cells);
    qtest_add_func("/guest-memfd/two-policies", test_two_policies);
    qtest_add_func("/guest-memfd/reset", test_reset);
    qtest_add_func("/guest-memfd/reset-preserve", test_reset_preserve);
    qtest_add_func("/guest-memfd/default-manager", test_default_manager);
    qtest_add_func("/guest-memfd/hotplug", test_hotplug);

    return g_test_run();
}
