/*
 * qtest: what an assigned device has mapped is what is shared
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The device keeps a list of the pages that it may use.  After whatever
 * happens to guest memory, that list is compared with what QEMU says is
 * shared.
 */

#include "qemu/osdep.h"
#include "guest-memfd-device.h"
#include "guest-memfd-plug.h"
#include "../guest-memfd/test-number.h"

/* Two NUMA cells; what is converted most lies around their border. */
#define CELL            (8 * MiB)
#define RAM_END         (2 * CELL)
#define HOLE            0xa0000         /* until 1 MiB: not only RAM */
#define DIMM            (4 * GiB)       /* its address */
#define DIMM_SIZE       (4 * MiB)
#define WINDOW_PAGES    32
#define SEED_DEFAULT    20260214
#define STEPS_DEFAULT   400

/* As a guest's ACPI code does it: a bus is selected, a slot ejected. */
#define PCIHP_EJECT     (0xcc0 + 0x08)
#define PCIHP_BUS       (0xcc0 + 0x10)

#define DEVICE_JSON     "'driver': 'vfio-user-pci', 'id': 'dev0', " \
                        "'bus': 'rp0', 'socket': { 'type': 'unix', " \
                        "'path': %s }"

/* --- the machine ------------------------------------------------------- */

typedef struct Machine {
    QTestState *qts;
    GmDevice device;
    bool plugged;
    unsigned dimms;             /* that were plugged, one after the other */
    char *dimm;                 /* the backend of the one that is there */
    GRand *random;
    char *what;                 /* was done last */
} Machine;

/* @log: where QEMU's messages go, or NULL. */
static void machine_init_log(Machine *m, bool plugged, const char *log)
{
    *m = (Machine) { .plugged = plugged };
    gm_device_init(&m->device);
    if (plugged) {
        gm_device_start(&m->device);
    }
    m->qts = qtest_initf(GM_MACHINE GM_TESTDEV "-m 16M,maxmem=1G,slots=1 "
        "-object guest-memfd-manager,id=gmm0,retry-timeout-ms=0 "
        "-object memory-backend-memfd-private,id=ram0,size=8M "
        "-object memory-backend-memfd-private,id=ram1,size=8M "
        "-numa node,memdev=ram0 -numa node,memdev=ram1 "
        "-device pcie-root-port,id=rp0 %s%s%s%s%s",
        plugged ? "-device '{\"driver\":\"vfio-user-pci\",\"id\":\"dev0\","
                  "\"bus\":\"rp0\",\"socket\":{\"type\":\"unix\",\"path\":\""
                : "", plugged ? m->device.path : "",
        plugged ? "\"}}'" : "", log ? " 2>" : "", log ?: "");
}

static void machine_init(Machine *m, bool plugged)
{
    machine_init_log(m, plugged, NULL);
}

static void plug(Machine *m)
{
    gm_device_start(&m->device);
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'device_add', "
                             "'arguments': { " DEVICE_JSON " } }",
                             m->device.path);
    m->plugged = true;
}

static void unplug(Machine *m)
{
    uint64_t bus = gm_get_int(m->qts, "/machine/peripheral/rp0/rp0",
                              "acpi-pcihp-bsel");

    qtest_qmp_device_del_send(m->qts, "dev0");
    qtest_outl(m->qts, PCIHP_BUS, bus);
    qtest_outl(m->qts, PCIHP_EJECT, 1);
    qtest_qmp_eventwait(m->qts, "DEVICE_DELETED");
    gm_device_join(&m->device);
    m->plugged = false;
}

static void machine_end(Machine *m)
{
    if (m->plugged) {
        unplug(m);
    }
    g_assert_cmpuint(g_hash_table_size(m->device.pages), ==, 0);
    gm_quit(m->qts);
    gm_device_destroy(&m->device);
    g_free(m->dimm);
    g_free(m->what);
}

/* --- what must be true ------------------------------------------------- */

static bool check_page(Machine *m, uint64_t gpa)
{
    bool private = gm_is_private(m->qts, gpa);

    if (gm_device_has(&m->device, gpa) == (m->plugged && !private)) {
        return true;
    }
    g_test_message("after %s: 0x%" PRIx64 " is %s, and the device %s it",
                   m->what, gpa, private ? "private" : "shared",
                   gm_device_has(&m->device, gpa) ? "has" : "has not");
    return false;
}

static bool check_window(Machine *m, uint64_t middle)
{
    const uint64_t page = qemu_real_host_page_size();
    uint64_t gpa = middle - WINDOW_PAGES / 2 * page;
    int i;

    for (i = 0; i < WINDOW_PAGES; i++) {
        if (!check_page(m, gpa + i * page)) {
            return false;
        }
    }
    return true;
}

/* No page beside those that were looked at is wrong, either. */
static bool check_sum(Machine *m)
{
    uint64_t mapped = gm_device_bytes(&m->device, 0, HOLE) +
                      gm_device_bytes(&m->device, 1 * MiB, RAM_END) +
                      gm_device_bytes(&m->device, DIMM, DIMM + DIMM_SIZE);
    uint64_t private = gm_private_bytes(m->qts, "ram0") +
                       gm_private_bytes(m->qts, "ram1") +
                       (m->dimm ? gm_private_bytes(m->qts, m->dimm) : 0);
    uint64_t memory = HOLE + RAM_END - 1 * MiB + (m->dimm ? DIMM_SIZE : 0);

    if (mapped == (m->plugged ? memory - private : 0)) {
        return true;
    }
    g_test_message("after %s: 0x%" PRIx64 " bytes are mapped, 0x%" PRIx64
                   " of 0x%" PRIx64 " are private", m->what, mapped, private,
                   memory);
    return false;
}

static bool check(Machine *m)
{
    bool good = check_window(m, CELL) &&
                (!m->dimm || check_window(m, DIMM + DIMM_SIZE / 2)) &&
                check_sum(m);

    if (!good) {
        g_test_fail();
    }
    return good;
}

static void did(Machine *m, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

static void did(Machine *m, const char *fmt, ...)
{
    va_list ap;

    g_free(m->what);
    va_start(ap, fmt);
    m->what = g_strdup_vprintf(fmt, ap);
    va_end(ap);
}

/* --- random steps ------------------------------------------------------ */

typedef struct Range {
    uint64_t gpa;
    uint64_t size;
} Range;

static uint32_t below(Machine *m, uint32_t end)
{
    return g_rand_int_range(m->random, 0, end);
}

/* In one of the windows; now and then nearly all memory. */
static Range random_range(Machine *m)
{
    const uint64_t page = qemu_real_host_page_size();
    uint64_t middle = m->dimm && below(m, 2) ? DIMM + DIMM_SIZE / 2 : CELL;
    const unsigned first = below(m, WINDOW_PAGES);

    if (!below(m, 32)) {
        return (Range) { 1 * MiB, RAM_END - 1 * MiB };
    }
    return (Range) {
        middle - WINDOW_PAGES / 2 * page + first * page,
        (1 + below(m, WINDOW_PAGES - first)) * page,
    };
}

static int64_t convert(Machine *m, Range r, uint64_t attributes)
{
    int64_t status = gm_convert(m->qts, r.gpa, r.size, attributes).status;

    did(m, "0x%" PRIx64 " +0x%" PRIx64 " attributes 0x%" PRIx64 ": %s",
        r.gpa, r.size, attributes, strerror(-status));
    return status;
}

static uint64_t random_attributes(Machine *m)
{
    static const uint64_t hints[] = {
        0, GMTD_ATTR_PRESERVE, GMTD_ATTR_PRESERVE, GMTD_ATTR_ZERO,
    };

    return hints[below(m, ARRAY_SIZE(hints))] |
           (below(m, 2) ? GMTD_ATTR_PRIVATE : 0);
}

static void step_convert(Machine *m)
{
    convert(m, random_range(m), random_attributes(m));
}

static void step_malformed(Machine *m)
{
    const Range ranges[] = {
        { CELL, 0 }, { CELL + 1, 0x10000 }, { CELL, 0x10001 },
        { -0x10000ULL, 0x20000 }, { CELL, -CELL },
    };

    g_assert_cmpint(convert(m, ranges[below(m, ARRAY_SIZE(ranges))],
                            random_attributes(m)), !=, 0);
    g_assert_cmpint(convert(m, random_range(m), 1ULL << 40), ==, -EINVAL);
}

static void step_fault(Machine *m)
{
    static const int errors[] = { EAGAIN, EIO, ENOMEM, EINVAL, EFAULT };

    gm_fault(m->qts, errors[below(m, ARRAY_SIZE(errors))], below(m, 4), 1,
             below(m, 8) * qemu_real_host_page_size());
    convert(m, random_range(m), random_attributes(m));
    gm_fault(m->qts, 0, 0, 0, 0);
}

/* Another device maps a page. */
static void step_held(Machine *m)
{
    Range r = random_range(m);
    bool held = gm_map(m->qts, r.gpa) == 0;
    int64_t status = convert(m, r, GMTD_ATTR_PRIVATE);

    g_assert_cmpint(status, ==, held ? -EAGAIN : 0);
    gm_unmap(m->qts);
}

/* The device has no room: nothing becomes shared. */
static void step_device_refuses(Machine *m)
{
    unsigned before = m->device.refused;
    int64_t status;

    gm_device_refuse(&m->device, 1 + below(m, 8));
    status = convert(m, random_range(m), GMTD_ATTR_PRESERVE);
    gm_device_refuse(&m->device, 0);
    g_assert_cmpint(status, ==, m->device.refused > before ? -ENOSPC : 0);
}

static void step_device(Machine *m)
{
    if (m->plugged) {
        unplug(m);
    } else {
        plug(m);
    }
    did(m, m->plugged ? "plugged" : "unplugged");
}

/*
 * A name of its own: memory that is unplugged stays as long as a device that
 * was plugged in after it, whose listeners keep the memory map of that time.
 */
static void step_dimm(Machine *m)
{
    if (m->dimm) {
        gm_unplug_dimm(m->qts, m->dimm);
        did(m, "memory '%s' unplugged", m->dimm);
        g_clear_pointer(&m->dimm, g_free);
    } else {
        m->dimm = g_strdup_printf("m%u", m->dimms++);
        gm_plug_dimm(m->qts, "memory-backend-memfd-private", m->dimm,
                     DIMM_SIZE);
        did(m, "memory '%s' plugged", m->dimm);
    }
}

static void step_reset(Machine *m)
{
    qtest_system_reset(m->qts);
    did(m, "reset");
}

/* How often of 100 steps. */
static const struct {
    unsigned often;
    void (*step)(Machine *m);
} kinds[] = {
    { 45, step_convert },
    { 8, step_malformed },
    { 17, step_fault },
    { 10, step_held },
    { 12, step_device_refuses },
    { 4, step_device },
    { 3, step_dimm },
    { 1, step_reset },
};

static void random_step(Machine *m)
{
    unsigned n = below(m, 100), i = 0;

    while (n >= kinds[i].often) {
        n -= kinds[i++].often;
    }
    kinds[i].step(m);
}

static void test_random(void)
{
    const unsigned seed = test_number("GMEM_TEST_SEED", SEED_DEFAULT);
    const unsigned steps = test_number("GMEM_TEST_STEPS", STEPS_DEFAULT);
    unsigned done = 0;
    Machine m;

    g_test_message("GMEM_TEST_SEED=%u GMEM_TEST_STEPS=%u", seed, steps);
    machine_init(&m, true);
    m.random = g_rand_new_with_seed(seed);
    did(&m, "start");
    while (check(&m) && done < steps) {
        random_step(&m);
        done++;
    }
    g_test_message("%u steps, %u mappings, %u of them refused", done,
                   m.device.maps, m.device.refused);
    g_assert_true(m.device.refused || done < STEPS_DEFAULT);
    g_rand_free(m.random);
    machine_end(&m);
}

/* --- more than once ---------------------------------------------------- */

/* Plugged into a machine in which pages are private already. */
static void test_plug(void)
{
    const uint64_t page = qemu_real_host_page_size();
    Machine m;

    machine_init(&m, false);
    gm_to_private(m.qts, CELL - 2 * page, 4 * page);
    g_assert_cmpuint(gm_stat(m.qts, "ram0", "assigned-bytes"), ==, 0);
    plug(&m);
    did(&m, "plugged");
    check(&m);
    gm_to_shared(m.qts, CELL - page, 2 * page);
    did(&m, "shared");
    check(&m);
    g_assert_cmpuint(gm_stat(m.qts, "ram0", "assigned-bytes"), ==,
                     gm_stat(m.qts, "ram0", "shared-bytes"));
    unplug(&m);
    g_assert_cmpuint(gm_stat(m.qts, "ram0", "assigned-bytes"), ==, 0);
    plug(&m);
    did(&m, "plugged again");
    check(&m);
    machine_end(&m);
}

/* No way back: the VM stops, and the device has none of these pages. */
static void test_stuck(void)
{
    const uint64_t page = qemu_real_host_page_size();
    Machine m;

    machine_init(&m, true);
    gm_to_private(m.qts, CELL - 2 * page, 4 * page);
    gm_fault(m.qts, EIO, 1, 2, page);
    g_assert_cmpint(convert(&m, (Range) { CELL - 2 * page, 4 * page }, 0),
                    ==, -EIO);
    qtest_qmp_eventwait(m.qts, "STOP");
    check(&m);
    machine_end(&m);
}

static unsigned count_lines(const char *text, const char *word)
{
    unsigned n = 0;

    for (text = strstr(text, word); text; text = strstr(text + 1, word)) {
        n++;
    }
    return n;
}

/* Memory is not plugged in, with an error, where the device cannot map it. */
static void test_memory_refused(void)
{
    g_autoptr(QDict) answer = NULL;
    const char *error;
    Machine m;

    machine_init(&m, true);
    qtest_qmp_assert_success(m.qts, "{ 'execute': 'object-add', 'arguments': "
                             "{ 'qom-type': 'memory-backend-memfd-private', "
                             "'id': 'm0', 'size': %" PRIu64 " } }",
                             (uint64_t)DIMM_SIZE);
    gm_device_refuse(&m.device, 500);
    answer = qtest_qmp(m.qts, "{ 'execute': 'device_add', 'arguments': "
                       "{ 'driver': 'pc-dimm', 'id': 'd0', "
                       "'memdev': 'm0' } }");
    gm_device_refuse(&m.device, 0);
    g_assert_cmpuint(m.device.refused, ==, 1);
    error = qdict_get_str(qdict_get_qdict(answer, "error"), "desc");
    g_assert_nonnull(strstr(error, "cannot map memory"));
    did(&m, "memory refused: %s", error);
    check(&m);

    /* Nothing of the attempt is left. */
    qtest_qmp_assert_success(m.qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'm0' } }");
    step_dimm(&m);
    check(&m);
    step_dimm(&m);
    check(&m);
    machine_end(&m);
}

/* A hole may be RAM later: all memory and memslots are counted. */
static void test_no_room(void)
{
    const uint64_t size = 256 * MiB, memslots = 512;
    g_autofree char *needed = g_strdup_printf(" needs %" PRIu64, size /
                                    qemu_real_host_page_size() + memslots);
    g_autoptr(QDict) answer = NULL;
    const char *error;
    GmDevice device;
    QTestState *qts;

    gm_device_init(&device);
    gm_device_start(&device);
    qts = qtest_init(GM_MACHINE "-m 256M -device pcie-root-port,id=rp0 "
                     "-object guest-memfd-manager,id=gmm0 "
                     "-object memory-backend-memfd-private,id=ram0,size=256M "
                     "-machine memory-backend=ram0");
    answer = qtest_qmp(qts, "{ 'execute': 'device_add', "
                       "'arguments': { " DEVICE_JSON " } }", device.path);
    error = qdict_get_str(qdict_get_qdict(answer, "error"), "desc");
    g_test_message("%s", error);
    g_assert_true(g_str_has_suffix(error, needed));
    gm_device_join(&device);
    g_assert_cmpuint(device.maps, <, 16);
    gm_quit(qts);
    gm_device_destroy(&device);
}

/*
 * The device goes on using memory that could not be unmapped, so that it
 * cannot become private.  That is said once, however often it is tried.
 */
static void test_unmap_fails(void)
{
    g_autofree char *log = g_strdup_printf("%s/gmem-vfio-XXXXXX",
                                           g_get_tmp_dir());
    const uint64_t page = qemu_real_host_page_size();
    g_autofree char *text = NULL;
    g_autofree char *info = NULL;
    int fd = g_mkstemp(log);
    Machine m;
    int i;

    g_assert_cmpint(fd, >=, 0);
    machine_init_log(&m, true, log);
    gm_set_timeout(m.qts, 20);
    gm_device_keep(&m.device, true);
    gm_fault(m.qts, EAGAIN, 0, 1000000, 0);
    for (i = 0; i < 3; i++) {
        g_assert_cmpint(convert(&m, (Range) { CELL - 2 * page, 4 * page },
                                GMTD_ATTR_PRIVATE), ==, -EAGAIN);
    }
    info = qtest_hmp(m.qts, "info guest-memfd");
    g_assert_nonnull(strstr(info, "last busy: 0x"));
    g_assert_nonnull(strstr(info, ", kernel, "));
    gm_fault(m.qts, 0, 0, 0, 0);
    gm_device_keep(&m.device, false);
    did(&m, "kept");
    check(&m);
    gm_to_private(m.qts, CELL - 2 * page, 4 * page);
    check(&m);
    machine_end(&m);

    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    g_assert_cmpuint(count_lines(text, "can still access"), ==, 1);
    g_assert_cmpuint(count_lines(text, "cannot use"), ==, 0);
    unlink(log);
    close(fd);
}

/* Rather than nothing. */
static void test_none(void)
{
    g_test_skip("this QEMU has no vfio-user-pci");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    if (!qtest_has_device("vfio-user-pci")) {
        qtest_add_func("/guest-memfd/vfio/none", test_none);
        return g_test_run();
    }
    qtest_add_func("/guest-memfd/vfio/memory-refused", test_memory_refused);
    qtest_add_func("/guest-memfd/vfio/no-room", test_no_room);
    qtest_add_func("/guest-memfd/vfio/plug", test_plug);
    qtest_add_func("/guest-memfd/vfio/random", test_random);
    qtest_add_func("/guest-memfd/vfio/stuck", test_stuck);
    qtest_add_func("/guest-memfd/vfio/unmap-fails", test_unmap_fails);

    return g_test_run();
}
