/*
 * qtest: secrecy of private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A page is filled with a secret, becomes private and, with what "auto"
 * gives, shared again.  Then the secret is looked for wherever the host could
 * read it.  That each of these searches would find it is shown with a page
 * that was shared with its bytes on purpose.
 */

#include "qemu/osdep.h"
#include "guest-memfd-secret.h"
#include "qapi/qapi-types-guest-memfd.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "qobject/qstring.h"

#define SIZE        (4 * GM_PAGE)
#define ELSEWHERE   (GM_GPA + 16 * GM_PAGE)

typedef struct Machine {
    QTestState *qts;
    char *dir;
    char *file;                 /* for what QMP saves */
    char *log;                  /* all trace events of conversions */
    char *stderr_log;
} Machine;

static Machine start(void)
{
    Machine m = { .dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL) };

    g_assert_nonnull(m.dir);
    m.file = g_build_filename(m.dir, "memory", NULL);
    m.log = g_build_filename(m.dir, "log", NULL);
    m.stderr_log = g_build_filename(m.dir, "stderr", NULL);
    m.qts = qtest_initf("%s -d guest_errors,unimp -D %s "
                        "-trace enable='*guest_memfd*' "
                        "-trace enable='ram_block*' 2>%s", GM_ONE_BACKEND,
                        m.log, m.stderr_log);
    return m;
}

/* --- looking for the secret -------------------------------------------- */

static char *read_file(const char *path, size_t *size)
{
    char *bytes = NULL;

    g_assert_true(g_file_get_contents(path, &bytes, size, NULL));
    return bytes;
}

static bool by_dma(Machine *m)
{
    g_autofree uint8_t *bytes = g_malloc(SIZE);
    uint64_t done, data, offset;
    bool found = false;

    /* Into a page that anybody can read. */
    qtest_memset(m->qts, ELSEWHERE, 0, SIZE);
    for (offset = 0; offset < SIZE; offset += GMTD_COPY_MAX) {
        gm_copy(m->qts, GM_GPA + offset, ELSEWHERE + offset,
                MIN(GMTD_COPY_MAX, SIZE - offset), &done);
    }
    qtest_bufread(m->qts, ELSEWHERE, bytes, SIZE);
    found |= gm_holds_secret(bytes, SIZE);
    qtest_memset(m->qts, ELSEWHERE, 0, SIZE);

    for (offset = 0; offset < SIZE; offset += 4096) {
        data = 0;
        found |= gm_read(m->qts, GM_GPA + offset, 8, &data) == 0 &&
                 data == GM_SECRET;
    }
    return found;
}

static bool by_qtest(Machine *m)
{
    g_autofree uint8_t *bytes = g_malloc(SIZE);

    qtest_bufread(m->qts, GM_GPA, bytes, SIZE);
    return gm_holds_secret(bytes, SIZE);
}

static bool file_holds_secret(Machine *m)
{
    g_autofree char *bytes = NULL;
    size_t size = 0;
    bool found;

    if (!g_file_test(m->file, G_FILE_TEST_EXISTS)) {
        return false;
    }
    bytes = read_file(m->file, &size);
    found = gm_holds_secret(bytes, size);
    unlink(m->file);
    return found;
}

/* It may well refuse. */
static bool by_pmemsave(Machine *m)
{
    qobject_unref(qtest_qmp(m->qts, "{ 'execute': 'pmemsave', 'arguments': "
                            "{ 'val': %" PRIu64 ", 'size': %" PRIu64
                            ", 'filename': %s } }", (uint64_t)GM_GPA,
                            (uint64_t)SIZE, m->file));
    return file_holds_secret(m);
}

static bool by_dump(Machine *m)
{
    g_autofree char *protocol = g_strdup_printf("file:%s", m->file);

    qtest_qmp_assert_success(m->qts, "{ 'execute': 'dump-guest-memory', "
                             "'arguments': { 'paging': false, "
                             "'protocol': %s } }", protocol);
    return file_holds_secret(m);
}

static bool by_monitor(Machine *m)
{
    bool found = false;
    uint64_t offset;

    for (offset = 0; offset < SIZE; offset += GM_PAGE) {
        g_autofree char *bytes = qtest_hmp(m->qts, "xp /16xb 0x%" PRIx64,
                                           GM_GPA + offset);
        g_autofree char *words = qtest_hmp(m->qts, "xp /4xg 0x%" PRIx64,
                                           GM_GPA + offset);

        found |= gm_spells_secret(bytes) || gm_spells_secret(words);
    }
    return found;
}

static const struct {
    const char *name;
    bool (*look)(Machine *m);
} ways[] = {
    { "DMA", by_dma }, { "qtest", by_qtest }, { "pmemsave", by_pmemsave },
    { "dump-guest-memory", by_dump }, { "xp", by_monitor },
};

static void expect_secret(Machine *m, bool visible)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(ways); i++) {
        if (ways[i].look(m) != visible) {
            g_error("the secret is %sseen by %s", visible ? "not " : "",
                    ways[i].name);
        }
    }
}

static void check_answer(QDict *answer)
{
    GString *text = qobject_to_json(QOBJECT(answer));

    g_assert_true(qdict_haskey(answer, "return"));
    g_assert_false(gm_spells_secret(text->str));
    g_string_free(text, true);
    qobject_unref(answer);
}

/* No answer of QMP holds bytes of the guest, whatever their state. */
static void check_qmp(Machine *m)
{
    static const char *const commands[] = {
        "query-guest-memfd", "query-status", "query-memory-devices",
        "query-memory-size-summary", "query-memdev",
    };
    g_autofree char *info = qtest_hmp(m->qts, "info guest-memfd");
    unsigned i;

    g_assert_nonnull(strstr(info, "emulated"));
    g_assert_false(gm_spells_secret(info));
    for (i = 0; i < ARRAY_SIZE(commands); i++) {
        check_answer(qtest_qmp(m->qts, "{ 'execute': %s }", commands[i]));
    }
    check_answer(qtest_qmp(m->qts, "{ 'execute': 'query-stats', "
                           "'arguments': { 'target': 'vm' } }"));
}

static void check_text(const char *path, const char *must_say)
{
    g_autofree char *text = read_file(path, NULL);

    if (!strstr(text, must_say)) {
        g_error("%s does not say '%s': %s", path, must_say, text);
    }
    g_assert_false(gm_spells_secret(text));
}

/* @said: what standard error says at least, or "". */
static void end(Machine *m, const char *said)
{
    check_qmp(m);
    qtest_quit(m->qts);
    check_text(m->log, "guest_memfd_convert_begin");
    check_text(m->log, "guest_memfd_convert_end");
    check_text(m->log, "guest_memfd_testdev_command");
    check_text(m->log, "guest_memfd_emulated_convert");
    check_text(m->stderr_log, said);

    unlink(m->file);
    unlink(m->log);
    unlink(m->stderr_log);
    g_assert_cmpint(rmdir(m->dir), ==, 0);
    g_free(m->stderr_log);
    g_free(m->log);
    g_free(m->file);
    g_free(m->dir);
}

/* --- conversions ------------------------------------------------------- */

/* The secret is in private memory, as a guest's would be. */
static void hide_secret(Machine *m)
{
    gm_go_to(m->qts, 0, GM_GPA, SIZE);
    gm_write_secret(m->qts, GM_GPA, SIZE);
    gm_to_private(m->qts, GM_GPA, SIZE);
}

static void convert(Machine *m, uint64_t attributes, int64_t status)
{
    GmResult r = gm_convert(m->qts, GM_GPA, SIZE, attributes);

    g_assert_cmpint(r.status, ==, status);
}

static void to_shared_and_zero(Machine *m)
{
    GmResult r = gm_convert(m->qts, GM_GPA, SIZE, 0);

    g_assert_cmpint(r.status, ==, 0);
    g_assert_cmpint(r.mode, ==, GUEST_MEMFD_CONTENT_MODE_ZERO);
    gm_assert_bytes(m->qts, GM_GPA, SIZE, 0);
}

/* --- the tests --------------------------------------------------------- */

/* If it is there, it is found: by each of the ways, and in all pages. */
static void test_search(void)
{
    Machine m = start();

    gm_write_secret(m.qts, GM_GPA, SIZE);
    expect_secret(&m, true);
    hide_secret(&m);
    convert(&m, GMTD_ATTR_PRESERVE, 0);
    expect_secret(&m, true);

    gm_write_secret(m.qts, GM_GPA, SIZE);
    qtest_memset(m.qts, GM_GPA, 0, SIZE - 16);
    g_assert_true(by_qtest(&m));
    g_assert_true(by_pmemsave(&m));
    g_assert_true(by_dump(&m));
    end(&m, "");
}

static void test_spellings(void)
{
    g_autofree char *hex = g_strdup_printf("x 0x%" PRIX64 " y", GM_SECRET);
    g_autofree char *decimal = g_strdup_printf("%" PRIu64, GM_SECRET);
    g_autofree char *half = g_strdup_printf("%u", (unsigned)GM_SECRET);

    g_assert_true(gm_spells_secret(hex));
    g_assert_true(gm_spells_secret(decimal));
    g_assert_true(gm_spells_secret(half));
    g_assert_false(gm_spells_secret("0x1000000: 0x00 0x00"));
}

static void test_auto(void)
{
    Machine m = start();

    hide_secret(&m);
    expect_secret(&m, false);
    to_shared_and_zero(&m);
    expect_secret(&m, false);

    /* To and fro, one half and then the other. */
    hide_secret(&m);
    gm_convert(m.qts, GM_GPA, SIZE / 2, 0);
    expect_secret(&m, false);
    to_shared_and_zero(&m);
    convert(&m, GMTD_ATTR_PRIVATE, 0);
    to_shared_and_zero(&m);
    expect_secret(&m, false);
    end(&m, "");
}

static void test_policies(void)
{
    Machine m = start();

    /* The guest's word counts. */
    gm_set_str(m.qts, GM_MANAGER, "content-mode", "preserve");
    hide_secret(&m);
    convert(&m, GMTD_ATTR_ZERO, 0);
    expect_secret(&m, false);

    gm_set_str(m.qts, GM_MANAGER, "content-mode", "zero");
    hide_secret(&m);
    to_shared_and_zero(&m);
    expect_secret(&m, false);

    /* As documented: no promise, and no encryption. */
    gm_set_str(m.qts, GM_MANAGER, "content-mode", "default");
    hide_secret(&m);
    expect_secret(&m, false);
    convert(&m, 0, 0);
    expect_secret(&m, true);
    end(&m, "");
}

/* Pages of one request that were shared before keep what they have. */
static void test_islands(void)
{
    Machine m = start();

    hide_secret(&m);
    gm_convert(m.qts, GM_GPA + GM_PAGE, GM_PAGE, 0);
    gm_fill(m.qts, GM_GPA + GM_PAGE, GM_PAGE);
    convert(&m, 0, 0);
    gm_assert_filled(m.qts, GM_GPA + GM_PAGE, GM_PAGE);
    expect_secret(&m, false);
    end(&m, "");
}

/* A failed conversion, after any progress, has exposed nothing. */
static void test_failures(void)
{
    static const int errors[] = { EIO, ENOMEM, EINVAL, EFAULT, EOPNOTSUPP };
    Machine m = start();
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(errors); i++) {
        hide_secret(&m);
        gm_fault(m.qts, errors[i], 0, 1, i * GM_PAGE);
        convert(&m, 0, -errors[i]);
        g_assert_true(gm_is_private(m.qts, GM_GPA));
        expect_secret(&m, false);
        to_shared_and_zero(&m);
        expect_secret(&m, false);
    }
    convert(&m, GMTD_ATTR_PRIVATE | GMTD_ATTR_ZERO, -EINVAL);
    g_assert_cmpint(gm_write(m.qts, ELSEWHERE, 8, GM_SECRET), ==, 0);
    end(&m, "");
}

/* No way back: the VM stops, and the pages cannot be accessed. */
static void test_stuck(void)
{
    Machine m = start();

    hide_secret(&m);
    gm_fault(m.qts, EIO, 0, 2, GM_PAGE);
    convert(&m, 0, -EIO);
    qtest_qmp_eventwait(m.qts, "STOP");
    g_assert_true(gm_is_private(m.qts, GM_GPA));
    g_assert_true(gm_is_private(m.qts, GM_GPA + SIZE - GM_PAGE));
    expect_secret(&m, false);
    end(&m, "cannot bring back");
}

/*
 * A device that keeps a pointer keeps the page shared; one that unmapped
 * finds nothing private in a new mapping.
 */
static void test_pointer(void)
{
    Machine m = start();
    uint64_t attributes = GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE;

    gm_write_secret(m.qts, GM_GPA, SIZE);
    gm_set_timeout(m.qts, 0);
    g_assert_cmpint(gm_map(m.qts, GM_GPA), ==, 0);
    g_assert_cmpint(gm_convert(m.qts, GM_GPA, SIZE, attributes).status, ==,
                    -EAGAIN);
    g_assert_false(gm_is_private(m.qts, GM_GPA));

    g_assert_cmpint(gm_unmap(m.qts), ==, 0);
    gm_to_private(m.qts, GM_GPA, SIZE);
    g_assert_cmpint(gm_map(m.qts, GM_GPA), ==, -EFAULT);
    to_shared_and_zero(&m);
    g_assert_cmpint(gm_map(m.qts, GM_GPA), ==, 0);
    qtest_writeq(m.qts, GMTD_BASE + GMTD_REG_COMMAND, GMTD_CMD_TOUCH);
    g_assert_cmpint(qtest_readq(m.qts, GMTD_BASE + GMTD_REG_STATUS), ==, 0);
    g_assert_cmphex(qtest_readq(m.qts, GMTD_BASE + GMTD_REG_DATA), ==, 0);
    expect_secret(&m, false);
    end(&m, "");
}

/* A reset shares all memory, and none of it holds what was private. */
static void test_reset(void)
{
    Machine m = start();

    hide_secret(&m);
    qtest_system_reset(m.qts);
    gm_assert_bytes(m.qts, GM_GPA, SIZE, 0);
    expect_secret(&m, false);
    end(&m, "");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/secrecy/search", test_search);
    qtest_add_func("/guest-memfd/secrecy/spellings", test_spellings);
    qtest_add_func("/guest-memfd/secrecy/auto", test_auto);
    qtest_add_func("/guest-memfd/secrecy/policies", test_policies);
    qtest_add_func("/guest-memfd/secrecy/islands", test_islands);
    qtest_add_func("/guest-memfd/secrecy/failures", test_failures);
    qtest_add_func("/guest-memfd/secrecy/stuck", test_stuck);
    qtest_add_func("/guest-memfd/secrecy/pointer", test_pointer);
    qtest_add_func("/guest-memfd/secrecy/reset", test_reset);

    return g_test_run();
}
