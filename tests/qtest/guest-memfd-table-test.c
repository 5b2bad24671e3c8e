/*
 * qtest: a table of accesses to memory that is in part private
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A cell is one access: a function that QEMU has, a size from 1 byte to
 * 16 KiB, an offset around a border between shared and private pages, in the
 * main thread with the BQL or in an I/O thread without it.  An access
 * succeeds or fails as a whole:
 *
 * - if any byte is private, the caller gets an error, no byte of memory has
 *   changed, and no byte of it, shared ones included, is in the buffer;
 * - if all are shared, it succeeds, and all its bytes are right;
 * - in both cases nothing else has changed.
 */

#include "qemu/osdep.h"
#include "guest-memfd-util.h"
#include "guest-memfd-window.h"
#include "hw/misc/guest-memfd-accessdev.h"
#include "qemu/host-utils.h"

#define CELL_SIZE       (32 * MiB)
#define REACH           GMAD_BUFFER_SIZE    /* on each side of a border */
#define FILL            0x33
#define FAILURES_SHOWN  5
#define SECONDS_MAX     120

typedef struct Row {
    const char *name;
    uint8_t function;
    enum { ANY, WORDS, LONG } sizes;
    bool question;              /* neither reads nor writes */
    bool host;                  /* gives a pointer: of one backend */
    bool pages;                 /* an access of its own to each page */
    bool bql;                   /* in the main thread only */
} Row;

static const Row rows[] = {
    { "rw-read", GMAD_RW_READ },
    { "rw-write", GMAD_RW_WRITE },
    { "read", GMAD_READ },
    { "write", GMAD_WRITE },
    { "ld-le", GMAD_LD_LE, WORDS },
    { "st-le", GMAD_ST_LE, WORDS },
    { "ld-be", GMAD_LD_BE, WORDS },
    { "st-be", GMAD_ST_BE, WORDS },
    { "ld", GMAD_LD, WORDS },
    { "st", GMAD_ST, WORDS },
    { "st-notdirty", GMAD_ST_NOTDIRTY, LONG },
    { "dma-read", GMAD_DMA_READ },
    { "dma-write", GMAD_DMA_WRITE },
    { "sg-read", GMAD_SG_READ },
    { "sg-write", GMAD_SG_WRITE },
    { "map-read", GMAD_MAP_READ, .host = true },
    { "map-write", GMAD_MAP_WRITE, .host = true },
    { "cache-read", GMAD_CACHE_READ, .host = true },
    { "cache-write", GMAD_CACHE_WRITE, .host = true },
    { "cache-ld-le", GMAD_CACHE_LD_LE, WORDS, .host = true },
    { "cache-st-le", GMAD_CACHE_ST_LE, WORDS, .host = true },
    { "cache-ld-be", GMAD_CACHE_LD_BE, WORDS, .host = true },
    { "cache-st-be", GMAD_CACHE_ST_BE, WORDS, .host = true },
    { "set", GMAD_SET },
    { "write-rom", GMAD_WRITE_ROM },
    { "debug-read", GMAD_DEBUG_READ, .bql = true, .pages = true },
    { "debug-write", GMAD_DEBUG_WRITE, .bql = true, .pages = true },
    { "valid-read", GMAD_VALID_READ, .question = true },
    { "valid-write", GMAD_VALID_WRITE, .question = true },
};

/* Pages from REACH before to REACH after @border; @page: only one of them. */
typedef struct Layout {
    const char *name;
    uint64_t border;
    bool before;                /* private before the border */
    bool after;
    bool page;                  /* @after is for one page only */
} Layout;

static const Layout layouts[] = {
    { "shared, private", GM_GPA, false, true },
    { "private, shared", GM_GPA, true, false },
    { "shared, private page, shared", GM_GPA, false, true, true },
    { "private, shared page, private", GM_GPA, true, false, true },
    { "cell 0 shared, cell 1 private", GM_CELL, false, true },
    { "cell 0 private, cell 1 shared", GM_CELL, true, false },
    { "cells 0 and 1 shared", GM_CELL, false, false },
};

static const Layout shared = { "shared", GM_GPA, false, false };

static const uint16_t sizes[] = {
    1, 2, 3, 4, 5, 6, 7, 8, 12, 15, 16, 17, 32, 64, 100, 256, 511, 512, 513,
    1024, 1536, 2048, 4095, 4096, 4097, 6000, 8191, 8192, 12288, 16384,
};

typedef struct Table {
    QTestState *qts;
    uint8_t *ram[2];
    /* The expected memory, from border - REACH to border + REACH. */
    uint8_t expected[2 * REACH];
    const Row *row;
    const Layout *layout;
    bool iothread;
    unsigned failures;
} Table;

static Table table;
static unsigned cells;

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

static bool is_private(const Layout *layout, uint64_t gpa)
{
    if (gpa < layout->border) {
        return layout->before;
    }
    return gpa < layout->border + page_size() || !layout->page ?
           layout->after : layout->before;
}

static bool all_shared(const Layout *layout, uint64_t gpa, uint64_t size)
{
    return !is_private(layout, gpa) &&
           !is_private(layout, gpa + size - 1) &&
           !(gpa < layout->border && gpa + size > layout->border &&
             is_private(layout, layout->border));
}

static uint8_t *memory(uint64_t gpa)
{
    return table.ram[gpa / CELL_SIZE] + gpa % CELL_SIZE;
}

/* --- cells ------------------------------------------------------------- */

static void set(unsigned offset, uint64_t value)
{
    qtest_writeq(table.qts, GMAD_BASE + offset, value);
}

static int64_t run(unsigned function, uint64_t gpa, uint64_t size)
{
    set(GMAD_REG_FUNCTION, function);
    set(GMAD_REG_GPA, gpa);
    set(GMAD_REG_SIZE, size);
    set(GMAD_REG_RUN, table.iothread ? GMAD_IOTHREAD : GMAD_HERE);
    return qtest_readq(table.qts, GMAD_BASE + GMAD_REG_STATUS);
}

static void put_memory(const Layout *layout)
{
    uint64_t gpa = layout->border - REACH;
    unsigned i;

    gm_window_fill_shared(table.expected, sizeof(table.expected));
    for (i = 0; i < 2 * REACH; i += page_size()) {
        if (is_private(layout, gpa + i)) {
            memset(table.expected + i, GM_CANARY, page_size());
        }
    }
    memcpy(memory(gpa), table.expected, REACH);
    memcpy(memory(layout->border), table.expected + REACH, REACH);
}

static void fail(const char *what, uint64_t gpa, uint64_t size,
                 int64_t status)
{
    const int64_t from = gpa - table.layout->border;

    g_test_fail();
    if (table.failures++ < FAILURES_SHOWN) {
        g_test_message("%s: %s: %" PRIu64 " bytes at border %c 0x%" PRIx64
                       " in %s thread: status %" PRId64 ": %s",
                       table.row->name, table.layout->name, size,
                       from < 0 ? '-' : '+', (uint64_t)ABS(from),
                       table.iothread ? "an I/O" : "the main", status, what);
    }
    put_memory(table.layout);
}

static bool memory_is_right(void)
{
    const uint64_t border = table.layout->border;

    return !memcmp(memory(border - REACH), table.expected, REACH) &&
           !memcmp(memory(border), table.expected + REACH, REACH);
}

/* The part before a page, or before the other backend, is accessed first. */
static bool may_be_in_part(uint64_t gpa, uint64_t size)
{
    const uint64_t next = ROUND_UP(gpa + 1, page_size());

    return (table.row->host && gpa < GM_CELL && gpa + size > GM_CELL) ||
           (table.row->pages && next < gpa + size);
}

/* That part of memory may be as it was, or written. */
static void forget_part(uint64_t gpa, uint64_t size)
{
    const uint64_t begin = table.layout->border - REACH;
    uint64_t i;

    for (i = gpa; i < gpa + size; i++) {
        if (!is_private(table.layout, i) && *memory(i) == FILL) {
            *memory(i) = table.expected[i - begin];
        }
    }
}

static void check_read(uint64_t gpa, uint64_t size, int64_t status)
{
    const unsigned at = gpa - (table.layout->border - REACH);
    g_autofree uint8_t *buffer = g_malloc(ROUND_UP(size, 8));

    qtest_bufread(table.qts, GMAD_BASE + GMAD_BUFFER, buffer,
                  ROUND_UP(size, 8));
    if (!status && memcmp(buffer, table.expected + at, size)) {
        fail("it read something else", gpa, size, status);
    } else if (status && may_be_in_part(gpa, size)) {
        if (memchr(buffer, GM_CANARY, size)) {
            fail("it read private bytes", gpa, size, status);
        }
    } else if (status && !gm_window_is_byte(buffer, size, FILL) &&
               !gm_window_is_byte(buffer, size, 0) &&
               !gm_window_is_byte(buffer, size, 0xff)) {
        fail(memchr(buffer, GM_CANARY, size) ?
             "it read private bytes" : "it read a part", gpa, size, status);
    }
}

/* QEMU has pointers, loads and stores in one backend only. */
static bool may_succeed(uint64_t gpa, uint64_t size)
{
    const bool one = table.row->host || table.row->sizes != ANY;

    return all_shared(table.layout, gpa, size) &&
           !(one && gpa < GM_CELL && gpa + size > GM_CELL);
}

static bool check_cell(uint64_t gpa, uint64_t size)
{
    const Row *row = table.row;
    const unsigned at = gpa - (table.layout->border - REACH);
    const bool good = may_succeed(gpa, size);
    const int64_t status = run(row->function, gpa, size);

    cells++;
    if (status == -ETIMEDOUT) {
        fail("it waits for the BQL", gpa, size, status);
        return false;
    }
    if (good != !status) {
        fail(good ? "it should succeed" : "it should fail", gpa, size,
             status);
    }
    if (row->question) {
        return true;
    }
    if (!(row->function & 1)) {
        check_read(gpa, size, status);
    } else if (!status && good) {
        memset(table.expected + at, FILL, size);
    }
    if (status && may_be_in_part(gpa, size)) {
        forget_part(gpa, size);
    }
    /* QEMU may write to the one before it checks the other. */
    if (!good && all_shared(table.layout, gpa, size)) {
        put_memory(table.layout);
    } else if (!memory_is_right()) {
        fail("memory has changed", gpa, size, status);
    } else if (!status && (row->function & 1)) {
        put_memory(table.layout);
    }
    return true;
}

/* --- rows -------------------------------------------------------------- */

static bool has_size(const Row *row, unsigned size)
{
    return row->sizes == ANY || size == 4 ||
           (row->sizes == WORDS && size <= 8 && is_power_of_2(size));
}

/* Of @size bytes, how many come before the border: near both ends, all. */
static bool is_offset(unsigned before, unsigned size)
{
    return before <= 8 || size - before <= 8 || before == 16 ||
           before == 64 || size - before == 16 || before == size / 2 ||
           before % 4096 == 0;
}

static bool check_border(uint64_t border)
{
    unsigned i, before;

    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        if (!has_size(table.row, sizes[i])) {
            continue;
        }
        for (before = 0; before <= sizes[i]; before++) {
            if (is_offset(before, sizes[i]) &&
                border - before >= table.layout->border - REACH &&
                border - before + sizes[i] <= table.layout->border + REACH &&
                !check_cell(border - before, sizes[i])) {
                return false;
            }
        }
    }
    return true;
}

static void convert(const Layout *layout, uint64_t from, uint64_t to)
{
    gm_go_to(table.qts, is_private(layout, from) ? GMTD_ATTR_PRIVATE : 0,
             from, to - from);
}

static void enter_layout(const Layout *layout)
{
    const uint64_t border = layout->border;

    table.layout = layout;
    convert(layout, border - REACH, border);
    convert(layout, border, border + page_size());
    convert(layout, border + page_size(), border + REACH);
    put_memory(layout);
    set(GMAD_REG_FILL, FILL);
}

static void leave_layout(void)
{
    gm_to_shared(table.qts, table.layout->border - REACH, 2 * REACH);
    gm_assert_running(table.qts);
}

static bool check_layout(const Layout *layout)
{
    bool go_on;

    enter_layout(layout);
    go_on = check_border(layout->border);
    if (go_on && layout->page) {
        go_on = check_border(layout->border + page_size());
    }
    leave_layout();
    return go_on;
}

static void test_row(const void *opaque)
{
    unsigned i, before = cells;

    table.row = opaque;
    table.failures = 0;
    for (i = 0; i < ARRAY_SIZE(layouts); i++) {
        if (layouts[i].page && page_size() > REACH / 2) {
            continue;
        }
        gm_watchdog(table.qts, SECONDS_MAX);
        if (!check_layout(&layouts[i])) {
            break;
        }
    }
    g_test_message("%u cells, %u failed", cells - before, table.failures);
}

static void test_row_iothread(const void *opaque)
{
    table.iothread = true;
    test_row(opaque);
    table.iothread = false;
}

/* --- caches that are kept ---------------------------------------------- */

/* A ring: no part of it becomes private while it is mapped. */
static void check_kept(uint64_t before, uint64_t size)
{
    const uint64_t gpa = GM_GPA - before;
    int64_t kept, converted;

    enter_layout(&shared);
    kept = run(GMAD_KEEP, gpa, size);
    converted = gm_convert(table.qts, GM_GPA, page_size(),
                           GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE).status;
    cells++;
    if (kept || converted != (before < size ? -EAGAIN : 0)) {
        fail("a page of a cache that is kept became private", gpa, size,
             converted);
    }
    run(GMAD_DROP, gpa, size);
    gm_to_private(table.qts, GM_GPA, page_size());
    gm_to_shared(table.qts, GM_GPA, page_size());
    leave_layout();
}

static void test_kept(void)
{
    static const Row row = { "kept" };
    unsigned i, before;

    gm_watchdog(table.qts, SECONDS_MAX);
    table.row = &row;
    table.failures = 0;
    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        for (before = 0; before <= sizes[i]; before++) {
            if (before <= 1 || sizes[i] - before <= 1) {
                check_kept(before, sizes[i]);
            }
        }
    }
}

/* --- the monitor ------------------------------------------------------- */

#define OLD_FILE        "what was in the file before"

/* All of it is in the file, or the file is what it was. */
static void check_pmemsave(uint64_t gpa, uint64_t size, const char *path)
{
    const unsigned at = gpa - (table.layout->border - REACH);
    g_autoptr(QDict) rsp = NULL;
    g_autofree char *bytes = NULL;
    bool done;
    size_t got;

    g_assert_true(g_file_set_contents(path, OLD_FILE, -1, NULL));
    rsp = qtest_qmp(table.qts, "{ 'execute': 'pmemsave', 'arguments': "
                    "{ 'val': %" PRIu64 ", 'size': %" PRIu64
                    ", 'filename': %s } }", gpa, size, path);
    done = !qdict_haskey(rsp, "error");
    g_assert_true(g_file_get_contents(path, &bytes, &got, NULL));
    cells++;
    if (done != all_shared(table.layout, gpa, size) ||
        (done && (got != size || memcmp(bytes, table.expected + at, size))) ||
        (!done && strcmp(bytes, OLD_FILE))) {
        fail(done ? "it was saved" : "it was not saved", gpa, size, got);
    }
}

static void check_xp(uint64_t gpa, uint64_t size)
{
    const unsigned at = gpa - (table.layout->border - REACH);
    g_autofree char *text = qtest_hmp(table.qts, "xp /%" PRIu64 "xb 0x%"
                                      PRIx64, size, gpa);
    g_autofree char *canary = g_strdup_printf("0x%02x", GM_CANARY);
    g_autofree char *first = g_strdup_printf("0x%02x", table.expected[at]);
    const bool done = !strstr(text, "Cannot access memory");

    cells++;
    if (done != all_shared(table.layout, gpa, size) ||
        strstr(text, canary) || (done && !strstr(text, first))) {
        fail(done ? "it was shown" : "it was not shown", gpa, size, 0);
    }
}

static void test_monitor(void)
{
    static const Row row = { "monitor" };
    static const uint16_t bytes[] = { 1, 2, 7, 8, 16, 100, 4096, 16384 };
    g_autofree char *path = NULL;
    unsigned i, j;
    int fd = g_file_open_tmp("guest-memfd-XXXXXX", &path, NULL);

    close(fd);
    table.row = &row;
    table.failures = 0;
    for (i = 0; i < ARRAY_SIZE(layouts); i++) {
        gm_watchdog(table.qts, SECONDS_MAX);
        enter_layout(&layouts[i]);
        for (j = 0; j < ARRAY_SIZE(bytes); j++) {
            const uint64_t border = layouts[i].border, size = bytes[j];

            check_pmemsave(border, size, path);
            check_pmemsave(border - 1, size, path);
            check_pmemsave(border - size, size, path);
            check_pmemsave(border - size / 2, size, path);
            /* The monitor reads a line of eight bytes at a time. */
            check_xp(border, MIN(size, 8));
            check_xp(border - MIN(size, 8), MIN(size, 8));
            check_xp(border - MIN(size, 8) / 2, MIN(size, 8));
        }
        leave_layout();
    }
    unlink(path);
}

/* The device itself, on bad input. */
static void test_device(void)
{
    g_assert_cmpint(run(GMAD_FUNCTIONS, GM_GPA, 8), ==, -EINVAL);
    g_assert_cmpint(run(UINT8_MAX, GM_GPA, 8), ==, -EINVAL);
    g_assert_cmpint(run(GMAD_READ, GM_GPA, 0), ==, -EINVAL);
    g_assert_cmpint(run(GMAD_READ, GM_GPA, GMAD_BUFFER_SIZE + 1), ==,
                    -EINVAL);
    g_assert_cmpint(run(GMAD_LD_LE, GM_GPA, 3), ==, -EINVAL);
    g_assert_cmpint(run(GMAD_ST_LE, GM_GPA, 16), ==, -EINVAL);
    g_assert_cmpint(run(GMAD_ST_NOTDIRTY, GM_GPA, 8), ==, -EINVAL);
    g_assert_cmpint(run(GMAD_CACHE_LD_LE, GM_GPA, 5), ==, -EINVAL);
    g_assert_cmpint(run(GMAD_IS_IO, GM_GPA, 1), ==, 0);
    g_assert_cmpint(run(GMAD_IS_IO, GMAD_BASE, 1), ==, -EFAULT);

    g_assert_cmpint(run(GMAD_KEEP, GM_GPA, 64), ==, 0);
    g_assert_cmpint(run(GMAD_KEEP, GM_GPA, 64), ==, -EBUSY);
    g_assert_cmpint(run(GMAD_CACHE_READ, GM_GPA + 60, 4), ==, 0);
    g_assert_cmpint(run(GMAD_CACHE_READ, GM_GPA + 60, 5), ==, -EINVAL);
    g_assert_cmpint(run(GMAD_CACHE_READ, GM_GPA - 1, 4), ==, -EINVAL);
    g_assert_cmpint(run(GMAD_DROP, GM_GPA, 1), ==, 0);
    g_assert_cmpint(run(GMAD_DROP, GM_GPA, 1), ==, 0);
    g_assert_cmphex(qtest_readq(table.qts, GMAD_BASE + GMAD_REG_GPA), ==,
                    GM_GPA);
}

static void start(void)
{
    table.qts = qtest_init(GM_MACHINE GM_TESTDEV "-m 64M "
        "-object guest-memfd-manager,id=gmm0,retry-timeout-ms=0 "
        "-object memory-backend-memfd-private,id=ram0,size=32M "
        "-object memory-backend-memfd-private,id=ram1,size=32M "
        "-numa node,memdev=ram0 -numa node,memdev=ram1 "
        "-object iothread,id=io0 -device guest-memfd-accessdev,iothread=io0");
    table.ram[0] = gm_window_open(table.qts, 0, CELL_SIZE);
    table.ram[1] = gm_window_open(table.qts, 1, CELL_SIZE);
}

static void add_row(const Row *row)
{
    g_autofree char *here = g_strdup_printf("/guest-memfd/table/%s",
                                            row->name);
    g_autofree char *there = g_strdup_printf("%s/iothread", here);

    qtest_add_data_func(here, row, test_row);
    if (!row->bql) {
        qtest_add_data_func(there, row, test_row_iothread);
    }
}

int main(int argc, char **argv)
{
    int status;
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(rows); i++) {
        add_row(&rows[i]);
    }
    qtest_add_func("/guest-memfd/table/kept", test_kept);
    qtest_add_func("/guest-memfd/table/monitor", test_monitor);
    qtest_add_func("/guest-memfd/table/device", test_device);

    start();
    status = g_test_run();
    gm_watchdog(table.qts, SECONDS_MAX);
    gm_quit(table.qts);
    printf("# %u cells of the table of accesses\n", cells);
    return status;
}
