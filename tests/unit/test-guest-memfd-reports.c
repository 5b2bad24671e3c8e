/*
 * Reports of failed conversions of guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "guest-memfd-rig.h"

/* The last failure that was reported. */
static struct {
    unsigned count;
    GuestMemfdRequest req;
    GuestMemfdResult result;
} report;

/* The callback may query the VM, and take any lock for that. */
static void expect_nothing_locked(GuestMemfdEngine *engine)
{
    GuestMemfdBlock *block;

    g_assert_false(bql_locked());
    g_assert_cmpint(qemu_mutex_trylock(&engine->span_lock), ==, 0);
    qemu_mutex_unlock(&engine->span_lock);
    QLIST_FOREACH(block, &engine->blocks, next) {
        g_assert_cmpint(qemu_mutex_trylock(&block->lock), ==, 0);
        qemu_mutex_unlock(&block->lock);
    }
}

static void note(GuestMemfdEngine *engine, const GuestMemfdRequest *req,
                 const GuestMemfdResult *result)
{
    expect_nothing_locked(engine);
    report.count++;
    report.req = *req;
    report.result = *result;
}

static Rig *start(void)
{
    Rig *rig = rig_two_blocks();

    memset(&report, 0, sizeof(report));
    rig->engine.failed = note;
    return rig;
}

/* Reported once, for this page; @block NULL: for none. */
static void expect_report(const GuestMemfdBlock *block, uint64_t page,
                          int error)
{
    g_assert_cmpuint(report.count, ==, 1);
    g_assert_true(report.result.block == block);
    g_assert_cmpuint(report.result.offset, ==,
                     page * qemu_real_host_page_size());
    g_assert_cmpint(report.result.error, ==, error);
    report.count = 0;
}

static void test_success(void)
{
    Rig *rig = start();

    rig_convert(rig, TO_PRIVATE, 0, 32);
    rig->convert_fault = (RigFault) { .count = 2, .error = -EAGAIN };
    rig_convert(rig, TO_SHARED, 0, 32);
    g_assert_cmpuint(report.count, ==, 0);
    rig_free(rig);
}

static void test_provider(void)
{
    Rig *rig = start();

    rig->convert_fault = (RigFault) { .count = 1, .error = -EIO };
    rig_convert(rig, TO_PRIVATE, 4, 20);
    g_assert_cmpuint(report.req.gpa, ==, 4 * qemu_real_host_page_size());
    g_assert_cmpuint(report.req.size, ==, 20 * qemu_real_host_page_size());
    g_assert_null(report.req.block);
    expect_report(rig->blocks[0], 4, -EIO);

    /* The second run of the request, which is in the other block. */
    rig->convert_fault = (RigFault) { .after = 1, .count = 1,
                                      .error = -ENOMEM };
    rig_convert(rig, TO_PRIVATE, 4, 20);
    expect_report(rig->blocks[1], 0, -ENOMEM);
    rig_free(rig);
}

/* A busy page is an error after the third try. */
static void fail_for_good(Rig *rig)
{
    rig->convert_fault = (RigFault) {
        .count = 1,
        .error = rig->sleeps < 3 ? -EAGAIN : -EIO,
    };
}

static void test_retries(void)
{
    Rig *rig = start();

    rig->on_sleep = fail_for_good;
    rig->convert_fault = (RigFault) { .count = 1, .error = -EAGAIN };
    rig_convert(rig, TO_PRIVATE, 17, 1);
    g_assert_cmpuint(report.result.retries, ==, 3);
    expect_report(rig->blocks[1], 1, -EIO);
    rig_free(rig);
}

static void test_refused(void)
{
    Rig *rig = start();

    rig_ask(rig, TO_PRIVATE, ZERO, 20, 1, NULL);
    g_assert_true(report.result.decided);
    g_assert_cmpint(report.result.decision.mode, ==,
                    GUEST_MEMFD_CONTENT_MODE_ZERO);
    expect_report(rig->blocks[1], 4, -EINVAL);
    rig_free(rig);
}

static void test_listener(void)
{
    Rig *rig = start();

    rig_convert(rig, TO_PRIVATE, 0, 32);
    rig->listeners[1].agrees = 0;
    rig_convert(rig, TO_SHARED, 10, 10);
    expect_report(rig->blocks[1], 0, -ENOSPC);
    rig_free(rig);
}

static void test_no_block(void)
{
    const size_t page = qemu_real_host_page_size();
    Rig *rig = start();

    rig_convert(rig, TO_PRIVATE, 0, 0);
    g_assert_false(report.result.decided);
    expect_report(NULL, 0, -EINVAL);
    rig_convert(rig, TO_PRIVATE, 31, 2);                /* a hole */
    expect_report(NULL, 0, -EINVAL);
    guest_memfd_engine_request(&rig->engine, page, page,
                               GUEST_MEMFD_ATTR_PRIVATE | 1 << 10,
                               GUEST_MEMFD_ORIGIN_HYPERCALL, NULL);
    g_assert_cmpint(report.req.direction, ==, TO_PRIVATE);
    g_assert_cmpuint(report.req.gpa, ==, page);
    expect_report(NULL, 0, -EINVAL);
    rig_free(rig);
}

static void test_part_of_block(void)
{
    const size_t page = qemu_real_host_page_size();
    Rig *rig = start();
    const GuestMemfdRequest req = {
        .block = rig->blocks[1],
        .gpa = 3 * page,
        .size = page,
        .direction = TO_PRIVATE,
        .origin = GUEST_MEMFD_ORIGIN_RESET,
    };

    rig->convert_fault = (RigFault) { .count = 1, .error = -EIO };
    guest_memfd_engine_convert(&rig->engine, &req, NULL);
    g_assert_true(report.req.block == rig->blocks[1]);
    expect_report(rig->blocks[1], 3, -EIO);
    rig_free(rig);
}

/* The section's reference to the block is dropped after the report. */
static void note_reference(GuestMemfdEngine *engine,
                           const GuestMemfdRequest *req,
                           const GuestMemfdResult *result)
{
    Rig *rig = container_of(engine, Rig, engine);

    note(engine, req, result);
    g_assert_cmpint(rig->map[1].refs, ==, 1);
}

static void test_reference(void)
{
    Rig *rig = start();

    rig->engine.failed = note_reference;
    rig->convert_fault = (RigFault) { .count = 1, .error = -EIO };
    rig_convert(rig, TO_PRIVATE, 16, 4);
    expect_report(rig->blocks[1], 0, -EIO);
    rig_ask(rig, TO_PRIVATE, ZERO, 16, 1, NULL);
    expect_report(rig->blocks[1], 0, -EINVAL);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/guest-memfd/report/success", test_success);
    g_test_add_func("/guest-memfd/report/provider", test_provider);
    g_test_add_func("/guest-memfd/report/retries", test_retries);
    g_test_add_func("/guest-memfd/report/refused", test_refused);
    g_test_add_func("/guest-memfd/report/listener", test_listener);
    g_test_add_func("/guest-memfd/report/no-block", test_no_block);
    g_test_add_func("/guest-memfd/report/part-of-block", test_part_of_block);
    g_test_add_func("/guest-memfd/report/reference", test_reference);

    return g_test_run();
}
