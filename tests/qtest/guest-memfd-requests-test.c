/*
 * qtest: guest memory conversion requests that make no sense, and where
 * guest memory ends
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-util.h"

#define TO_PRIVATE  GMTD_ATTR_PRIVATE
#define TO_SHARED   0ULL
/* Where nothing is mapped, below and above 4 GiB. */
#define HOLE        (2 * GiB)
#define HIGH_HOLE   (1ULL << 40)
/* Ordinary ROM below 4 GiB. */
#define FIRMWARE    0xfffc0000ULL

/* --- bad requests ------------------------------------------------------ */

typedef struct BadRequest {
    const char *name;
    uint64_t gpa;
    uint64_t size;
    uint64_t attributes;
    /* Guest memory came first, so the policy was asked. */
    bool decided;
    /* It was the policy that refused. */
    bool refused;
} BadRequest;

static const BadRequest bad_requests[] = {
    { "zero length", GM_GPA, 0 },
    { "unaligned start", GM_GPA + 0x800, GM_PAGE },
    { "start not on a page", GM_GPA + 1, GM_PAGE },
    { "unaligned size", GM_GPA, GM_PAGE + 0x800 },
    { "size not in pages", GM_GPA, GM_PAGE + 1 },
    { "less than a page", GM_GPA, 8 },
    { "ends beyond 2^64", -GM_PAGE, 2 * GM_PAGE },
    { "ends at 2^64", -GM_PAGE, GM_PAGE },
    { "longest size", GM_GPA, -GM_PAGE },
    { "all addresses", GM_GPA, -GM_GPA },
    { "size overflows", GM_GPA, UINT64_MAX },
    { "both hints", GM_GPA, 4 * GM_PAGE,
      GMTD_ATTR_ZERO | GMTD_ATTR_PRESERVE },
    { "unknown bit 5", GM_GPA, 4 * GM_PAGE, 1ULL << 5 },
    { "unknown bit 7", GM_GPA, 4 * GM_PAGE, 1ULL << 7 },
    { "unknown bit 10", GM_GPA, 4 * GM_PAGE, 1ULL << 10 },
    { "unknown bit 63", GM_GPA, 4 * GM_PAGE, 1ULL << 63 },
    { "unaligned, in a hole", HOLE + 0x800, GM_PAGE },
    { "unaligned size, in a hole", HOLE, 0x800 },
};

/* To private only: the firmware shares more than memory. */
static const BadRequest bad_private_requests[] = {
    { "a hole", HOLE, GM_PAGE },
    { "beyond all memory", HIGH_HOLE, GM_PAGE },
    { "MMIO", GMTD_BASE, GMTD_SIZE },
    { "memory and a hole", GM_RAM_SIZE - 2 * GM_PAGE, 4 * GM_PAGE, 0, true },
    { "memory and everything else", GM_GPA, 4 * GiB - GM_GPA, 0, true },
    { "firmware", FIRMWARE, GM_PAGE },
    { "memory and firmware", GM_GPA, 4 * GiB, 0, true },
    { "zeros for the guest", GM_GPA, 4 * GM_PAGE, GMTD_ATTR_ZERO, true,
      true },
};

/* Pages 0 and 1 of GM_GPA are shared, 2 and 3 are private. */
static void assert_unchanged(QTestState *qts)
{
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 2 * GM_PAGE);
    g_assert_true(gm_is_private(qts, GM_GPA + 2 * GM_PAGE));
    g_assert_true(gm_is_private(qts, GM_GPA + 4 * GM_PAGE - 8));
    gm_assert_filled(qts, GM_GPA, 2 * GM_PAGE);
    gm_assert_filled(qts, GM_RAM_SIZE - 2 * GM_PAGE, 2 * GM_PAGE);
}

static void check_bad(QTestState *qts, const BadRequest *bad,
                      uint64_t direction)
{
    uint64_t rejected = gm_rejected(qts, "EINVAL");
    uint64_t refused = gm_stat(qts, "ram0", "stats.realisations.refused");
    uint64_t operations = gm_get_int(qts, GM_PROVIDER, "operations");
    GmResult r = gm_convert(qts, bad->gpa, bad->size,
                            bad->attributes | direction);

    g_test_message("%s, %s", bad->name,
                   direction ? "to private" : "to shared");
    g_assert_cmpint(r.status, ==, -EINVAL);
    g_assert_cmpuint(r.changed, ==, 0);
    g_assert_cmpint(r.decided, ==, bad->decided);
    assert_unchanged(qts);
    g_assert_cmpuint(gm_get_int(qts, GM_PROVIDER, "operations"), ==,
                     operations);
    /* Each is counted once, for the VM or for the backend. */
    g_assert_cmpuint(gm_rejected(qts, "EINVAL"), ==,
                     rejected + !bad->refused);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.realisations.refused"), ==,
                     refused + bad->refused);
}

static QTestState *start_unchanged(void)
{
    QTestState *qts = gm_start();

    gm_fill(qts, GM_RAM_SIZE - 2 * GM_PAGE, 2 * GM_PAGE);
    gm_fill(qts, GM_GPA, 4 * GM_PAGE);
    gm_to_private(qts, GM_GPA + 2 * GM_PAGE, 2 * GM_PAGE);
    return qts;
}

static void quit_unchanged(QTestState *qts)
{
    gm_to_shared(qts, GM_GPA, 4 * GM_PAGE);
    gm_assert_filled(qts, GM_GPA, 4 * GM_PAGE);
    gm_quit(qts);
}

static void test_malformed(void)
{
    QTestState *qts = start_unchanged();
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(bad_requests); i++) {
        check_bad(qts, &bad_requests[i], TO_SHARED);
        check_bad(qts, &bad_requests[i], TO_PRIVATE);
    }
    quit_unchanged(qts);
}

static void test_not_private(void)
{
    QTestState *qts = start_unchanged();
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(bad_private_requests); i++) {
        check_bad(qts, &bad_private_requests[i], TO_PRIVATE);
    }
    quit_unchanged(qts);
}

/* The page size is a hint of KVM's: any value will do. */
static void test_page_size_bits(void)
{
    QTestState *qts = gm_start();
    unsigned bits;

    for (bits = 0; bits < 16; bits++) {
        g_assert_cmpint(gm_convert(qts, GM_GPA, GM_PAGE,
                                   bits | TO_PRIVATE).status, ==, 0);
        g_assert_cmpint(gm_convert(qts, GM_GPA, GM_PAGE, bits).status, ==, 0);
    }
    gm_quit(qts);
}

/* --- holes, MMIO and other memory -------------------------------------- */

static void test_share_holes(void)
{
    static const struct {
        uint64_t gpa;
        uint64_t size;
    } ranges[] = {
        { HOLE, GM_PAGE },
        { HIGH_HOLE, GM_PAGE },
        { GMTD_BASE, GMTD_SIZE },
        { 0xc0000000, 0x20000000 },
        /* The 32-bit PCI hole, with the firmware at its end. */
        { 2 * GiB, 2 * GiB },
        { FIRMWARE, GM_PAGE },
    };
    QTestState *qts = start_unchanged();
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(ranges); i++) {
        GmResult r = gm_convert(qts, ranges[i].gpa, ranges[i].size,
                                TO_SHARED);

        g_assert_cmpint(r.status, ==, 0);
        g_assert_cmpuint(r.changed, ==, 0);
        g_assert_false(r.decided);
        assert_unchanged(qts);
    }
    quit_unchanged(qts);
}

/* Memory in a range of holes and MMIO is converted all the same. */
static void test_share_all(void)
{
    QTestState *qts = start_unchanged();
    GmResult r;

    gm_to_private(qts, GM_RAM_SIZE - GM_PAGE, GM_PAGE);
    r = gm_convert(qts, GM_GPA, FIRMWARE - GM_GPA, GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(r.changed, ==, 3 * GM_PAGE);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 0);
    gm_assert_filled(qts, GM_GPA, 4 * GM_PAGE);
    gm_assert_filled(qts, GM_RAM_SIZE - GM_PAGE, GM_PAGE);
    gm_quit(qts);
}

/* The last page can be converted, the one after it cannot. */
static void test_last_page(void)
{
    QTestState *qts = gm_start();
    GmResult r;

    gm_to_private(qts, GM_RAM_SIZE - GM_PAGE, GM_PAGE);
    g_assert_true(gm_is_private(qts, GM_RAM_SIZE - 8));
    r = gm_convert(qts, GM_RAM_SIZE, GM_PAGE, TO_PRIVATE);
    g_assert_cmpint(r.status, ==, -EINVAL);
    gm_quit(qts);
}

/* Memory that is not guest_memfd memory is shared, and stays so. */
static void test_other_memory(void)
{
    QTestState *qts = qtest_init(GM_ONE_BACKEND "-device VGA");
    const uint64_t bar = 0xd0000000;
    const uint32_t vga = 0x80000000 | 1 << 11;
    GmResult r;

    /* Map the frame buffer, BAR 0, by the configuration ports. */
    qtest_outl(qts, 0xcf8, vga | 0x10);
    qtest_outl(qts, 0xcfc, bar);
    qtest_outl(qts, 0xcf8, vga | 0x04);
    qtest_outw(qts, 0xcfc, 2);
    qtest_writeq(qts, bar, 0x1122334455667788);
    g_assert_cmphex(qtest_readq(qts, bar), ==, 0x1122334455667788);

    r = gm_convert(qts, bar, GM_PAGE, TO_PRIVATE);
    g_assert_cmpint(r.status, ==, -EINVAL);
    r = gm_convert(qts, bar, GM_PAGE, TO_SHARED);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(r.changed, ==, 0);
    /* Where display memory and ROM are on a PC. */
    r = gm_convert(qts, 0xa0000, 0x60000, TO_SHARED);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(r.changed, ==, 0);
    g_assert_cmphex(qtest_readq(qts, bar), ==, 0x1122334455667788);
    gm_quit(qts);
}

/* --- one backend, mapped in more than one piece ------------------------ */

#define LOW         (1 * GiB)
#define HIGH        (4 * GiB + 1 * GiB)
/* A second test device is in the middle of the memory at LOW. */
#define LOW_SIZE    (8 * GM_PAGE)

/* Private are the first page and the last one, and one above 4 GiB. */
static QTestState *start_split(void)
{
    QTestState *qts = qtest_init(GM_MACHINE GM_TESTDEV
        "-device guest-memfd-testdev,addr=0x40040000 "
        "-object guest-memfd-manager,id=gmm0 "
        "-object memory-backend-memfd-private,id=ram0,size=5G "
        "-machine memory-backend=ram0 -m 5G");

    g_assert_cmphex(qtest_readq(qts, LOW + 4 * GM_PAGE), ==, GMTD_ID);
    gm_fill(qts, LOW, 4 * GM_PAGE);
    gm_fill(qts, LOW + 5 * GM_PAGE, 3 * GM_PAGE);
    gm_fill(qts, HIGH, 2 * GM_PAGE);
    gm_to_private(qts, LOW, GM_PAGE);
    gm_to_private(qts, LOW + 7 * GM_PAGE, GM_PAGE);
    gm_to_private(qts, HIGH, GM_PAGE);
    return qts;
}

static void assert_split_unchanged(QTestState *qts)
{
    g_assert_true(gm_is_private(qts, LOW));
    g_assert_true(gm_is_private(qts, LOW + 7 * GM_PAGE));
    g_assert_true(gm_is_private(qts, HIGH));
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 3 * GM_PAGE);
}

static void test_split(void)
{
    QTestState *qts = start_split();
    GmResult r;

    r = gm_convert(qts, LOW, LOW_SIZE, TO_PRIVATE);
    g_assert_cmpint(r.status, ==, -EINVAL);
    assert_split_unchanged(qts);

    /* One backend: one request, though it is mapped twice. */
    r = gm_convert(qts, LOW, LOW_SIZE, GMTD_ATTR_ZERO);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(r.changed, ==, 2 * GM_PAGE);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.modes.zero"), ==, 1);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, GM_PAGE);
    gm_assert_bytes(qts, LOW, GM_PAGE, 0);
    gm_assert_filled(qts, LOW + GM_PAGE, 3 * GM_PAGE);
    gm_assert_filled(qts, LOW + 5 * GM_PAGE, 2 * GM_PAGE);
    gm_assert_bytes(qts, LOW + 7 * GM_PAGE, GM_PAGE, 0);
    gm_quit(qts);
}

static void test_split_rollback(void)
{
    QTestState *qts = start_split();
    GmResult r;

    gm_fault(qts, EIO, 1, 1, 0);
    r = gm_convert(qts, LOW, LOW_SIZE, GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, -EIO);
    g_assert_cmpuint(r.changed, ==, 0);
    assert_split_unchanged(qts);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.rollbacks"), ==, 1);

    gm_to_shared(qts, LOW, LOW_SIZE);
    gm_assert_filled(qts, LOW, 4 * GM_PAGE);
    gm_assert_filled(qts, LOW + 5 * GM_PAGE, 3 * GM_PAGE);
    gm_quit(qts);
}

/* Memory goes on above 4 GiB, behind the firmware. */
static void test_above_4g(void)
{
    QTestState *qts = start_split();
    GmResult r;

    r = gm_convert(qts, 2 * GiB, HIGH + GM_PAGE - 2 * GiB, TO_PRIVATE);
    g_assert_cmpint(r.status, ==, -EINVAL);
    g_assert_cmpuint(r.changed, ==, 0);
    assert_split_unchanged(qts);

    r = gm_convert(qts, 2 * GiB, 4 * GiB, GMTD_ATTR_PRESERVE);
    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpuint(r.changed, ==, GM_PAGE);
    gm_assert_filled(qts, HIGH, 2 * GM_PAGE);
    gm_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/requests/malformed", test_malformed);
    qtest_add_func("/guest-memfd/requests/not-private", test_not_private);
    qtest_add_func("/guest-memfd/requests/page-size-bits",
                   test_page_size_bits);
    qtest_add_func("/guest-memfd/requests/share-holes", test_share_holes);
    qtest_add_func("/guest-memfd/requests/share-all", test_share_all);
    qtest_add_func("/guest-memfd/requests/last-page", test_last_page);
    qtest_add_func("/guest-memfd/requests/other-memory",
                   test_other_memory);
    qtest_add_func("/guest-memfd/requests/split", test_split);
    qtest_add_func("/guest-memfd/requests/split-rollback",
                   test_split_rollback);
    qtest_add_func("/guest-memfd/requests/above-4g", test_above_4g);

    return g_test_run();
}
