/*
 * Common code of the qtests of guest memory conversion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-util.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"

QTestState *gm_start(void)
{
    return qtest_init(GM_ONE_BACKEND);
}

QTestState *gm_start_cells(void)
{
    return qtest_init(GM_MACHINE GM_TESTDEV "-m 64M "
        "-object guest-memfd-manager,id=gmm0 "
        "-object memory-backend-memfd-private,id=ram0,size=32M "
        "-object memory-backend-memfd-private,id=ram1,size=32M "
        "-numa node,memdev=ram0 -numa node,memdev=ram1");
}

QTestState *gm_start_poisoned(QTestState *machine(void))
{
    QTestState *qts = machine();

    qtest_qom_set_bool(qts, GM_PROVIDER, "poison", true);
    return qts;
}

void gm_assert_running(QTestState *qts)
{
    g_autoptr(QDict) status = qtest_qmp_assert_success_ref(qts,
        "{ 'execute': 'query-status' }");

    g_assert_true(qdict_get_bool(status, "running"));
}

/* --- the test device --------------------------------------------------- */

static void set_register(QTestState *qts, unsigned offset, uint64_t value)
{
    qtest_writeq(qts, GMTD_BASE + offset, value);
}

static uint64_t get_register(QTestState *qts, unsigned offset)
{
    return qtest_readq(qts, GMTD_BASE + offset);
}

static int64_t command(QTestState *qts, uint64_t cmd, uint64_t gpa,
                       uint64_t size)
{
    set_register(qts, GMTD_REG_GPA, gpa);
    set_register(qts, GMTD_REG_SIZE, size);
    set_register(qts, GMTD_REG_COMMAND, cmd);
    return get_register(qts, GMTD_REG_STATUS);
}

GmResult gm_convert(QTestState *qts, uint64_t gpa, uint64_t size,
                    uint64_t attributes)
{
    GmResult r = { };
    uint64_t outcome;

    set_register(qts, GMTD_REG_ATTRIBUTES, attributes);
    r.status = command(qts, GMTD_CMD_CONVERT, gpa, size);
    r.changed = get_register(qts, GMTD_REG_CHANGED);
    outcome = get_register(qts, GMTD_REG_OUTCOME);
    r.decided = outcome & GMTD_OUTCOME_VALID;
    r.mode = GMTD_OUTCOME_MODE(outcome);
    r.how = GMTD_OUTCOME_HOW(outcome);
    return r;
}

void gm_to_private(QTestState *qts, uint64_t gpa, uint64_t size)
{
    GmResult r = gm_convert(qts, gpa, size,
                            GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE);

    g_assert_cmpint(r.status, ==, 0);
}

void gm_to_shared(QTestState *qts, uint64_t gpa, uint64_t size)
{
    GmResult r = gm_convert(qts, gpa, size, GMTD_ATTR_PRESERVE);

    g_assert_cmpint(r.status, ==, 0);
}

void gm_go_to(QTestState *qts, uint64_t direction, uint64_t gpa,
              uint64_t size)
{
    if (direction) {
        gm_to_private(qts, gpa, size);
    } else {
        gm_to_shared(qts, gpa, size);
    }
}

void gm_leave(QTestState *qts, uint64_t direction, uint64_t gpa,
              uint64_t size)
{
    gm_go_to(qts, direction ^ GMTD_ATTR_PRIVATE, gpa, size);
}

int64_t gm_read(QTestState *qts, uint64_t gpa, uint64_t size,
                uint64_t *data)
{
    int64_t status = command(qts, GMTD_CMD_READ, gpa, size);

    *data = get_register(qts, GMTD_REG_DATA);
    return status;
}

int64_t gm_write(QTestState *qts, uint64_t gpa, uint64_t size,
                 uint64_t data)
{
    set_register(qts, GMTD_REG_DATA, data);
    return command(qts, GMTD_CMD_WRITE, gpa, size);
}

int64_t gm_copy(QTestState *qts, uint64_t src, uint64_t dst, uint64_t size,
                uint64_t *done)
{
    int64_t status;

    set_register(qts, GMTD_REG_DST, dst);
    status = command(qts, GMTD_CMD_COPY, src, size);
    *done = get_register(qts, GMTD_REG_DONE);
    return status;
}

int64_t gm_pin(QTestState *qts, uint64_t gpa)
{
    return command(qts, GMTD_CMD_PIN, gpa, 0);
}

int64_t gm_unpin(QTestState *qts)
{
    return command(qts, GMTD_CMD_UNPIN, 0, 0);
}

int64_t gm_map(QTestState *qts, uint64_t gpa)
{
    return command(qts, GMTD_CMD_MAP, gpa, 0);
}

int64_t gm_unmap(QTestState *qts)
{
    return command(qts, GMTD_CMD_UNMAP, 0, 0);
}

bool gm_is_private(QTestState *qts, uint64_t gpa)
{
    uint64_t data;
    int64_t status = gm_read(qts, gpa, 8, &data);

    g_assert(status == 0 || status == -EFAULT);
    return status;
}

/* --- contents of shared memory ----------------------------------------- */

/* Neither zero nor poison, and not the same for neighbours. */
static uint8_t byte_of(uint64_t gpa)
{
    return 1 + gpa / GM_PAGE % 211;
}

void gm_fill(QTestState *qts, uint64_t gpa, uint64_t size)
{
    uint64_t page;

    for (page = gpa; page < gpa + size; page += GM_PAGE) {
        qtest_memset(qts, page, byte_of(page), GM_PAGE);
    }
}

void gm_assert_filled(QTestState *qts, uint64_t gpa, uint64_t size)
{
    uint64_t page;

    for (page = gpa; page < gpa + size; page += GM_PAGE) {
        gm_assert_bytes(qts, page, GM_PAGE, byte_of(page));
    }
}

void gm_assert_bytes(QTestState *qts, uint64_t gpa, uint64_t size,
                     uint8_t byte)
{
    g_autofree uint8_t *bytes = g_malloc(size);
    uint64_t i;

    g_assert_false(gm_is_private(qts, gpa));
    qtest_bufread(qts, gpa, bytes, size);
    for (i = 0; i < size; i++) {
        g_assert_cmphex(bytes[i], ==, byte);
    }
}

/* --- QOM and QMP ------------------------------------------------------- */

void gm_set_str(QTestState *qts, const char *path, const char *property,
                const char *value)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'qom-set', 'arguments': "
                             "{ 'path': %s, 'property': %s, 'value': %s } }",
                             path, property, value);
}

void gm_set_int(QTestState *qts, const char *path, const char *property,
                uint64_t value)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'qom-set', 'arguments': "
                             "{ 'path': %s, 'property': %s, "
                             "'value': %" PRIu64 " } }",
                             path, property, value);
}

static QDict *qom_get(QTestState *qts, const char *path, const char *property)
{
    QDict *rsp = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': "
                           "{ 'path': %s, 'property': %s } }",
                           path, property);

    g_assert(qdict_haskey(rsp, "return"));
    return rsp;
}

char *gm_get_str(QTestState *qts, const char *path, const char *property)
{
    g_autoptr(QDict) rsp = qom_get(qts, path, property);

    return g_strdup(qdict_get_str(rsp, "return"));
}

uint64_t gm_get_int(QTestState *qts, const char *path, const char *property)
{
    g_autoptr(QDict) rsp = qom_get(qts, path, property);

    return qdict_get_int(rsp, "return");
}

void gm_fault(QTestState *qts, int error, uint32_t after, uint32_t count,
              uint64_t progress)
{
    /* Disarmed first, so that nothing counts before all is set. */
    gm_set_int(qts, GM_PROVIDER, "fault-errno", 0);
    gm_set_int(qts, GM_PROVIDER, "fault-after", after);
    gm_set_int(qts, GM_PROVIDER, "fault-count", count);
    gm_set_int(qts, GM_PROVIDER, "fault-progress", progress);
    gm_set_int(qts, GM_PROVIDER, "fault-errno", error);
}

uint64_t gm_faults_left(QTestState *qts)
{
    return gm_get_int(qts, GM_PROVIDER, "fault-count");
}

void gm_set_timeout(QTestState *qts, uint32_t ms)
{
    gm_set_int(qts, GM_MANAGER, "retry-timeout-ms", ms);
}

QDict *gm_query(QTestState *qts)
{
    return qtest_qmp_assert_success_ref(qts,
        "{ 'execute': 'query-guest-memfd' }");
}

static const QDict *find_backend(const QDict *info, const char *name)
{
    const QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "backends"), entry) {
        const QDict *b = qobject_to(QDict, qlist_entry_obj(entry));

        if (g_str_equal(qdict_get_str(b, "name"), name)) {
            return b;
        }
    }
    g_assert_not_reached();
}

uint64_t gm_stat(QTestState *qts, const char *backend, const char *field)
{
    g_autoptr(QDict) info = gm_query(qts);
    const QDict *dict = find_backend(info, backend);
    g_auto(GStrv) names = g_strsplit(field, ".", -1);
    unsigned i;

    for (i = 0; names[i + 1]; i++) {
        dict = qdict_get_qdict(dict, names[i]);
    }
    return qdict_get_int(dict, names[i]);
}

uint64_t gm_private_bytes(QTestState *qts, const char *backend)
{
    return gm_stat(qts, backend, "private-bytes");
}

static uint64_t count_of(const QList *failures, const char *error)
{
    const QListEntry *entry;

    QLIST_FOREACH_ENTRY(failures, entry) {
        const QDict *f = qobject_to(QDict, qlist_entry_obj(entry));

        if (g_str_equal(qdict_get_str(f, "error"), error)) {
            return qdict_get_int(f, "count");
        }
    }
    return 0;
}

uint64_t gm_failures(QTestState *qts, const char *backend, const char *error)
{
    g_autoptr(QDict) info = gm_query(qts);
    const QDict *b = find_backend(info, backend);

    return count_of(qdict_get_qlist(qdict_get_qdict(b, "stats"), "failures"),
                    error);
}

uint64_t gm_rejected(QTestState *qts, const char *error)
{
    g_autoptr(QDict) info = gm_query(qts);

    return count_of(qdict_get_qlist(info, "rejected"), error);
}

void gm_assert_error(QTestState *qts, const char *text, const char *fmt, ...)
{
    g_autoptr(QDict) rsp = NULL;
    const char *desc;
    va_list ap;

    va_start(ap, fmt);
    rsp = qtest_vqmp(qts, fmt, ap);
    va_end(ap);
    g_assert(qdict_haskey(rsp, "error"));
    desc = qdict_get_str(qdict_get_qdict(rsp, "error"), "desc");
    if (!strstr(desc, text)) {
        g_test_message("'%s' is not in the error: %s", text, desc);
        g_test_fail();
    }
}

uint32_t gm_first_pixel(QTestState *qts)
{
    g_autofree char *path = NULL;
    g_autofree char *bytes = NULL;
    int fd = g_file_open_tmp("guest-memfd-XXXXXX", &path, NULL);
    const uint8_t *pixel;
    size_t size;
    int i;

    g_assert(fd >= 0);
    close(fd);
    qtest_qmp_assert_success(qts, "{ 'execute': 'screendump', "
                             "'arguments': { 'filename': %s } }", path);
    g_assert_true(g_file_get_contents(path, &bytes, &size, NULL));
    unlink(path);
    /* "P6\nWIDTH HEIGHT\n255\n" */
    pixel = (const uint8_t *)bytes;
    for (i = 0; i < 3; i++) {
        pixel = (const uint8_t *)strchr((const char *)pixel, '\n') + 1;
    }
    return pixel[0] << 16 | pixel[1] << 8 | pixel[2];
}

/* --- the end ----------------------------------------------------------- */

static uint64_t sum_of(const QDict *stats, const char *field)
{
    const QDict *counts = qdict_get_qdict(stats, field);
    const QDictEntry *e;
    uint64_t sum = 0;

    for (e = qdict_first(counts); e; e = qdict_next(counts, e)) {
        sum += qdict_get_int(counts, qdict_entry_key(e));
    }
    return sum;
}

static uint64_t histogram_sum(const QDict *stats)
{
    const QListEntry *entry;
    uint64_t sum = 0;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(stats, "time-histogram-ns"), entry) {
        sum += qnum_get_uint(qobject_to(QNum, qlist_entry_obj(entry)));
    }
    return sum;
}

static void check_backend(const QDict *b)
{
    const QDict *stats = qdict_get_qdict(b, "stats");
    uint64_t requests = qdict_get_int(stats, "requests");
    uint64_t private = qdict_get_int(b, "private-bytes");

    g_assert_cmpuint(sum_of(stats, "origins"), ==, requests);
    g_assert_cmpuint(sum_of(stats, "directions"), ==, requests);
    g_assert_cmpuint(sum_of(stats, "modes"), ==, requests);
    g_assert_cmpuint(sum_of(stats, "realisations"), ==, requests);
    g_assert_cmpuint(private + qdict_get_int(b, "shared-bytes"), ==,
                     qdict_get_int(b, "size"));
    /* All memory starts shared. */
    g_assert_cmpint(qdict_get_int(qdict_get_qdict(stats, "converted-bytes"),
                                  "to-private") -
                    qdict_get_int(qdict_get_qdict(stats, "converted-bytes"),
                                  "to-shared"), ==, private);
    g_assert_cmpuint(qdict_get_int(stats, "time-max-ns"), <=,
                     qdict_get_int(stats, "time-ns"));
    g_assert_cmpint(!qdict_get_int(stats, "time-max-ns"), ==, !requests);
    g_assert_cmpuint(histogram_sum(stats), ==, requests);
}

void gm_quit(QTestState *qts)
{
    g_autoptr(QDict) info = gm_query(qts);
    const QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "backends"), entry) {
        check_backend(qobject_to(QDict, qlist_entry_obj(entry)));
    }
    qtest_quit(qts);
}
