/*
 * qtest: memory backends, as guest RAM and as something else
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-cmdline.h"
#include "guest-memfd-plug.h"
#include "qobject/qlist.h"
#include <sys/resource.h>

#define NO_RAM      GM_MACHINE GM_TESTDEV "-m 64M,maxmem=1G,slots=4 "
#define RAM(args)   GM_MACHINE GM_TESTDEV GM_RAM "-object " args \
                    ",id=ram0,size=64M "
#define FILE_SIZE   (2 * MiB)

/* --- not guest RAM ----------------------------------------------------- */

typedef struct Use {
    const char *name;
    const char *machine;
    const char *device;     /* with memory of m0 */
    unsigned size;          /* in MiB, 2 if 0 */
    bool formats;           /* it writes, and wants memory to be empty */
} Use;

/* A device with the user's data in it, or nothing at all. */
static const Use uses[] = {
    { "unused", "", "" },
    { "ivshmem", "", "-device ivshmem-plain,memdev=m0" },
    { "nvdimm", "-machine nvdimm=on", "-device nvdimm,memdev=m0" },
    { "virtio-pmem", "", "-device virtio-pmem-pci,memdev=m0" },
    { "nvme", "-drive if=none,id=disk,driver=null-co,size=1M",
      "-device nvme,serial=s,drive=disk,pmrdev=m0" },
    { "erst", "", "-device acpi-erst,memdev=m0", .formats = true },
    { "cxl", "-machine cxl=on -device pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl0 "
      "-device cxl-rp,port=0,bus=cxl0,id=rp0,chassis=0,slot=2",
      "-device cxl-type3,bus=rp0,volatile-memdev=m0,id=cxl1", 256, true },
};

static const char *const backends[] = {
    "memory-backend-file,mem-path=%s,share=on",
    "memory-backend-memfd,share=on",
    "memory-backend-ram,share=on",
};

static QTestState *start_used(const Use *use, const char *backend)
{
    return qtest_initf(NO_RAM "%s -object %s,id=m0,size=%uM %s",
                       use->machine, backend, use->size ?: 2, use->device);
}

/* The backend is none of those that are converted. */
static void expect_left_alone(QTestState *qts)
{
    g_autoptr(QDict) info = gm_query(qts);
    QList *blocks = qdict_get_qlist(info, "backends");
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(blocks, e) {
        const char *name = qdict_get_str(qobject_to(QDict, e->value), "name");

        g_assert_cmpstr(name, !=, "m0");
    }
    gm_to_private(qts, GM_GPA, GM_PAGE);
    gm_to_shared(qts, GM_GPA, GM_PAGE);
}

static char *make_file(const char *dir, char byte)
{
    char *path = g_build_filename(dir, "data", NULL);
    g_autofree char *data = g_malloc(FILE_SIZE);

    memset(data, byte, FILE_SIZE);
    g_assert_true(g_file_set_contents(path, data, FILE_SIZE, NULL));
    return path;
}

static void expect_file(const char *path)
{
    g_autofree char *data = NULL;
    size_t size, i;

    g_assert_true(g_file_get_contents(path, &data, &size, NULL));
    g_assert_cmpuint(size, ==, FILE_SIZE);
    for (i = 0; i < size; i++) {
        g_assert_cmphex(data[i], ==, 0x5a);
    }
}

static void test_not_ram(const void *opaque)
{
    const Use *use = opaque;
    g_autofree char *dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *path = make_file(dir, use->formats ? 0 : 0x5a);
    int i;

    if (use->size) {
        g_assert_cmpint(truncate(path, use->size * MiB), ==, 0);
    }
    for (i = 0; i < ARRAY_SIZE(backends); i++) {
        g_auto(GStrv) parts = g_strsplit(backends[i], "%s", 2);
        g_autofree char *backend = g_strjoinv(path, parts);
        QTestState *qts = start_used(use, backend);

        expect_left_alone(qts);
        gm_quit(qts);
    }
    if (!use->formats) {
        expect_file(path);
    }
    unlink(path);
    rmdir(dir);
}

/* A backend that is not used need not exist. */
static void test_unused_huge(void)
{
    gm_check_good_args("qtest", GM_MACHINE "-m 64M -object memory-backend-"
                       "memfd,id=m0,size=64M,hugetlb=on,reserve=off");
}

/* --- guest RAM --------------------------------------------------------- */

/* As any other memory: converted, cleared, kept from devices, reset. */
static void check_ram(QTestState *qts, const char *backend, uint64_t gpa)
{
    uint64_t data;

    gm_fill(qts, gpa, 2 * GM_PAGE);
    gm_to_private(qts, gpa, GM_PAGE);
    g_assert_cmpuint(gm_private_bytes(qts, backend), ==, GM_PAGE);
    g_assert_true(gm_is_private(qts, gpa));
    g_assert_cmpint(gm_read(qts, gpa, 8, &data), ==, -EFAULT);
    gm_to_shared(qts, gpa, GM_PAGE);
    gm_assert_filled(qts, gpa, 2 * GM_PAGE);
    gm_to_private(qts, gpa, GM_PAGE);
    g_assert_cmpint(gm_convert(qts, gpa, GM_PAGE, 0).status, ==, 0);
    gm_assert_bytes(qts, gpa, GM_PAGE, 0);
    gm_to_private(qts, gpa, GM_PAGE);
    qtest_system_reset(qts);
    g_assert_cmpuint(gm_private_bytes(qts, backend), ==, 0);
}

/* Options of libvirt, Kata and virtiofsd's users. */
static const char *const rams[] = {
    RAM("memory-backend-memfd,share=on"),
    RAM("memory-backend-memfd,share=off"),
    RAM("memory-backend-memfd,share=on,prealloc=on,seal=off"),
    RAM("memory-backend-memfd,share=on,merge=on,dump=off"),
    RAM("memory-backend-shm,share=on"),
    RAM("memory-backend-ram"),
    RAM("memory-backend-ram,prealloc=on"),
    RAM("memory-backend-ram,share=on,reserve=off"),
};

static void test_ram(void)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(rams); i++) {
        QTestState *qts = qtest_init(rams[i]);

        check_ram(qts, "ram0", GM_GPA);
        gm_quit(qts);
    }
}

/* Options of QEMU for the machine's own memory. */
static void check_machine(const char *args)
{
    QTestState *qts = qtest_initf(GM_MACHINE GM_TESTDEV "-m 64M %s", args);

    check_ram(qts, "pc.ram", GM_GPA);
    gm_quit(qts);
}

static void test_prealloc(void)
{
    check_machine("-mem-prealloc");
}

/* All of it can be locked, and is locked while it is private. */
static void test_mem_lock(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (geteuid() && limit.rlim_cur != RLIM_INFINITY) {
        g_test_skip("this user may not lock that much memory (ulimit -l)");
        return;
    }
    check_machine("-overcommit mem-lock=on");
    check_machine("-overcommit mem-lock=on-fault");
    check_machine("-overcommit mem-lock=on -mem-prealloc");
}

static void test_cells(void)
{
    QTestState *qts = qtest_init(GM_MACHINE GM_TESTDEV "-m 64M "
        "-object memory-backend-memfd,id=ram0,size=32M,share=on "
        "-object memory-backend-memfd,id=ram1,size=32M,share=on "
        "-numa node,memdev=ram0 -numa node,memdev=ram1");

    check_ram(qts, "ram0", GM_GPA);
    check_ram(qts, "ram1", GM_CELL + GM_GPA / 2);
    gm_quit(qts);
}

/* The memfd is gone: its pages do not come on top. */
static unsigned count_memfds(QTestState *qts)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", qtest_pid(qts));
    GDir *dir = g_dir_open(path, 0, NULL);
    unsigned n = 0;
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *link = g_build_filename(path, name, NULL);
        g_autofree char *target = g_file_read_link(link, NULL);

        n += target && strstr(target, "memory-backend-memfd");
    }
    g_dir_close(dir);
    return n;
}

static void test_one_copy(void)
{
    QTestState *qts = qtest_init(rams[2]);

    g_assert_cmpuint(count_memfds(qts), ==, 0);
    gm_quit(qts);
}

static void test_dimm(void)
{
    const uint64_t gpa = 4 * GiB;
    QTestState *qts = qtest_init(NO_RAM);
    const unsigned blocks = gm_count_blocks(qts);

    gm_plug_dimm(qts, "memory-backend-memfd", "m0", 128 * MiB);
    g_assert_cmpuint(gm_count_blocks(qts), ==, blocks + 1);
    g_assert_cmpuint(count_memfds(qts), ==, 0);
    check_ram(qts, "m0", gpa);
    gm_unplug_dimm(qts, "m0");
    gm_wait_blocks(qts, blocks);
    gm_quit(qts);
}

/* A dimm that was unplugged is plugged in again with the same backend. */
static void test_dimm_again(void)
{
    QTestState *qts = qtest_init(NO_RAM);

    gm_plug_dimm(qts, "memory-backend-memfd", "m0", 128 * MiB);
    gm_eject_dimm(qts);
    qtest_qmp_assert_success(qts, "{ 'execute': 'device_add', 'arguments': "
                             "{ 'driver': 'pc-dimm', 'id': 'd0', "
                             "'memdev': 'm0' } }");
    check_ram(qts, "m0", 4 * GiB);
    gm_quit(qts);
}

/* --- refused ----------------------------------------------------------- */

#define IN_FILE     "memory backend 'ram0' keeps guest RAM in a file, which " \
                    "cannot be converted in place"
#define KEEP        "The file is left as it is."
#define FILE_OF(machine, path) machine " -object memory-backend-file,id=m0," \
                    "size=2M,share=on,mem-path=" path " "

static const GmBadArgs bad_args[] = {
    { RAM("memory-backend-file,mem-path=/dev/shm,share=on"),
      { IN_FILE, "in place of memory-backend-file use "
        "memory-backend-memfd or memory-backend-ram",
        "-device virtio-pmem-pci and -m ...,maxmem=",
        "-m ...,slots=N,maxmem=... and -machine nvdimm=on" },
      "in-place=off" },
    { RAM("memory-backend-file,mem-path=/dev/shm"), { IN_FILE, KEEP } },
    { GM_MACHINE "-m 64M -mem-path /dev/shm",
      { "keeps guest RAM in a file", KEEP "  Leave -mem-path out" } },
    { RAM("memory-backend-memfd,hugetlb=on,reserve=off"),
      { "memory backend 'ram0' uses huge pages, which cannot be converted "
        "in place", "without hugetlb=on", "memory-backend-ram" } },
};

/* The remedies for -mem-path, to the letter, and for what is in the file. */
static void test_mem_path_remedy(void)
{
    g_autofree char *dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *path = make_file(dir, 0x5a);
    g_autofree char *pmem = g_strdup_printf(
        FILE_OF(GM_MACHINE "-m 64M,maxmem=1G", "%s")
        "-device virtio-pmem-pci,memdev=m0", path);
    g_autofree char *nvdimm = g_strdup_printf(
        FILE_OF(GM_MACHINE "-m 64M,slots=2,maxmem=1G", "%s")
        "-device nvdimm,memdev=m0 -machine nvdimm=on", path);

    gm_check_good_args("qtest", GM_MACHINE "-m 64M");
    gm_check_good_args("qtest", pmem);
    gm_check_good_args("qtest", nvdimm);
    expect_file(path);
    unlink(path);
    rmdir(dir);
}

/* The dimm is not there, and the file is as it was. */
static void test_file_dimm(void)
{
    g_autofree char *dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *path = make_file(dir, 0x5a);
    QTestState *qts = qtest_initf(NO_RAM "-object memory-backend-file,id=m0,"
                                  "size=2M,share=on,mem-path=%s", path);

    gm_assert_error(qts, "memory backend 'm0' keeps guest RAM in a file",
                    "{ 'execute': 'device_add', 'arguments': "
                    "{ 'driver': 'pc-dimm', 'id': 'd0', "
                    "'memdev': 'm0' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'm0' } }");
    gm_quit(qts);
    expect_file(path);
    unlink(path);
    rmdir(dir);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);

    for (i = 0; i < ARRAY_SIZE(uses); i++) {
        g_autofree char *name = g_strdup_printf(
            "/guest-memfd/backends/not-ram/%s", uses[i].name);

        qtest_add_data_func(name, &uses[i], test_not_ram);
    }
    qtest_add_func("/guest-memfd/backends/unused-huge", test_unused_huge);
    qtest_add_func("/guest-memfd/backends/ram", test_ram);
    qtest_add_func("/guest-memfd/backends/prealloc", test_prealloc);
    qtest_add_func("/guest-memfd/backends/mem-lock", test_mem_lock);
    qtest_add_func("/guest-memfd/backends/cells", test_cells);
    qtest_add_func("/guest-memfd/backends/one-copy", test_one_copy);
    qtest_add_func("/guest-memfd/backends/dimm", test_dimm);
    qtest_add_func("/guest-memfd/backends/dimm-again", test_dimm_again);
    gm_add_table("/guest-memfd/backends/refused", bad_args,
                 ARRAY_SIZE(bad_args));
    qtest_add_func("/guest-memfd/backends/mem-path-remedy",
                   test_mem_path_remedy);
    qtest_add_func("/guest-memfd/backends/file-dimm", test_file_dimm);

    return g_test_run();
}
