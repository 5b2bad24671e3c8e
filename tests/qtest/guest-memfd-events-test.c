/*
 * qtest: the event about guest memory that could not be converted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-util.h"
#include "qapi/error.h"
#include "qobject/qjson.h"

#define EVENT       "GUEST_MEMFD_CONVERSION_FAILED"
#define SECOND_NS   1000000000LL
#define FLOOD       100

/* Events, by where the request failed. */
typedef struct Events {
    unsigned ram0;
    unsigned ram1;
    unsigned none;
    QDict *last;                    /* its data */
} Events;

static bool collect(QTestState *qts, const char *name, QDict *event,
                    void *opaque)
{
    Events *events = opaque;
    QDict *data = qdict_get_qdict(event, "data");
    const char *backend;

    if (!g_str_equal(name, EVENT)) {
        return false;
    }
    backend = qdict_get_str(data, "backend");
    events->ram0 += g_str_equal(backend, "ram0");
    events->ram1 += g_str_equal(backend, "ram1");
    events->none += g_str_equal(backend, "");
    qobject_unref(events->last);
    events->last = qobject_ref(data);
    return true;
}

static QTestState *start(Events *events)
{
    QTestState *qts = gm_start_cells();

    *events = (Events) { };
    qtest_qmp_set_event_callback(qts, collect, events);
    return qts;
}

static void stop(QTestState *qts, Events *events)
{
    gm_quit(qts);
    qobject_unref(events->last);
}

/* All events come before the answer to a command that is sent now. */
static void expect_events(QTestState *qts, const Events *events,
                          unsigned ram0, unsigned ram1, unsigned none)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'query-status' }");
    g_assert_cmpuint(events->ram0, ==, ram0);
    g_assert_cmpuint(events->ram1, ==, ram1);
    g_assert_cmpuint(events->none, ==, none);
}

static void expect_data(const Events *events, const char *expected)
{
    QObject *want = qobject_from_json(expected, &error_abort);

    g_assert_true(qobject_is_equal(want, QOBJECT(events->last)));
    qobject_unref(want);
}

/* To private with zeros: a request that is refused. */
static void refused(QTestState *qts, uint64_t gpa)
{
    g_assert_cmpint(gm_convert(qts, gpa, GM_PAGE, GMTD_ATTR_PRIVATE |
                               GMTD_ATTR_ZERO).status, ==, -EINVAL);
}

static void test_success(void)
{
    Events events;
    QTestState *qts = start(&events);

    gm_to_private(qts, GM_GPA, GM_PAGE);
    gm_to_shared(qts, GM_GPA, GM_PAGE);
    gm_fault(qts, EAGAIN, 0, 1, 0);
    gm_to_private(qts, GM_GPA, GM_PAGE);
    expect_events(qts, &events, 0, 0, 0);
    stop(qts, &events);
}

static void test_refused(void)
{
    Events events;
    QTestState *qts = start(&events);

    refused(qts, GM_CELL + GM_PAGE);
    expect_events(qts, &events, 0, 1, 0);
    expect_data(&events, "{ \"backend\": \"ram1\", \"offset\": 65536, "
                "\"gpa\": 33619968, \"size\": 65536, "
                "\"direction\": \"to-private\", \"origin\": \"device\", "
                "\"mode\": \"zero\", \"error\": \"EINVAL\", "
                "\"retries\": 0 }");
    stop(qts, &events);
}

static void test_provider(void)
{
    Events events;
    QTestState *qts = start(&events);

    gm_to_private(qts, GM_GPA, GM_PAGE);
    gm_set_timeout(qts, 0);
    gm_fault(qts, EAGAIN, 0, 1, 0);
    g_assert_cmpint(gm_convert(qts, GM_GPA, GM_PAGE, 0).status, ==,
                    -EAGAIN);
    expect_events(qts, &events, 1, 0, 0);
    expect_data(&events, "{ \"backend\": \"ram0\", \"offset\": 16777216, "
                "\"gpa\": 16777216, \"size\": 65536, "
                "\"direction\": \"to-shared\", \"origin\": \"device\", "
                "\"mode\": \"zero\", \"error\": \"EAGAIN\", "
                "\"retries\": 0 }");
    stop(qts, &events);
}

static void test_no_backend(void)
{
    Events events;
    QTestState *qts = start(&events);

    gm_convert(qts, GM_RAM_SIZE, GM_PAGE, GMTD_ATTR_PRIVATE);
    expect_events(qts, &events, 0, 0, 1);
    expect_data(&events, "{ \"backend\": \"\", \"gpa\": 67108864, "
                "\"size\": 65536, \"direction\": \"to-private\", "
                "\"origin\": \"device\", \"error\": \"EINVAL\", "
                "\"retries\": 0 }");
    stop(qts, &events);
}

/* Of a flood, the first is reported at once, the last a second later. */
static void test_flood(void)
{
    Events events;
    QTestState *qts = start(&events);
    unsigned i;

    for (i = 0; i < FLOOD; i++) {
        refused(qts, GM_GPA + i * GM_PAGE);
    }
    expect_events(qts, &events, 1, 0, 0);
    qtest_clock_step(qts, SECOND_NS / 2);
    expect_events(qts, &events, 1, 0, 0);
    qtest_clock_step(qts, SECOND_NS / 2);
    expect_events(qts, &events, 2, 0, 0);
    g_assert_cmpuint(qdict_get_int(events.last, "gpa"), ==,
                     GM_GPA + (FLOOD - 1) * GM_PAGE);

    /* Nothing is left, and the limit is over. */
    qtest_clock_step(qts, 2 * SECOND_NS);
    expect_events(qts, &events, 2, 0, 0);
    refused(qts, GM_GPA);
    expect_events(qts, &events, 3, 0, 0);
    g_assert_cmpuint(gm_failures(qts, "ram0", "EINVAL"), ==, FLOOD + 1);
    stop(qts, &events);
}

/* Malformed requests are limited, too, and hide no other failure. */
static void test_flood_malformed(void)
{
    Events events;
    QTestState *qts = start(&events);
    unsigned i;

    for (i = 0; i < FLOOD; i++) {
        gm_convert(qts, GM_GPA, i, GMTD_ATTR_PRIVATE);
    }
    refused(qts, GM_GPA);
    expect_events(qts, &events, 1, 0, 1);
    qtest_clock_step(qts, SECOND_NS);
    expect_events(qts, &events, 1, 0, 2);
    g_assert_cmpuint(gm_rejected(qts, "EINVAL"), ==, FLOOD);
    stop(qts, &events);
}

static void test_backends(void)
{
    Events events;
    QTestState *qts = start(&events);
    unsigned i;

    for (i = 0; i < FLOOD; i++) {
        refused(qts, GM_GPA);
        refused(qts, GM_CELL);
    }
    expect_events(qts, &events, 1, 1, 0);
    qtest_clock_step(qts, SECOND_NS);
    expect_events(qts, &events, 2, 2, 0);
    stop(qts, &events);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/events/success", test_success);
    qtest_add_func("/guest-memfd/events/refused", test_refused);
    qtest_add_func("/guest-memfd/events/provider", test_provider);
    qtest_add_func("/guest-memfd/events/no-backend", test_no_backend);
    qtest_add_func("/guest-memfd/events/flood", test_flood);
    qtest_add_func("/guest-memfd/events/flood-malformed",
                   test_flood_malformed);
    qtest_add_func("/guest-memfd/events/backends", test_backends);

    return g_test_run();
}
