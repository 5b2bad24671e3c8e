/*
 * qtest: devices that map a page, and devices that are set up with private
 * ones
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-queue.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_config.h"

/* Rings are at GM_GPA, and these pages are what the tests convert. */
#define BUFFER      (GM_GPA + 4 * GM_PAGE)
#define HEADER      (GM_GPA + 8 * GM_PAGE)
#define STATUS      (GM_GPA + 9 * GM_PAGE)
#define LATENCY     "500000000"
#define NULL_BLK    "-blockdev null-co,node-name=d0,size=1048576," \
                    "read-zeroes=on,latency-ns=" LATENCY " "

/* --- the test device --------------------------------------------------- */

static int64_t to_private(QTestState *qts, uint64_t gpa, uint64_t size)
{
    return gm_convert(qts, gpa, size,
                      GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE).status;
}

static void test_map(void)
{
    QTestState *qts = gm_start();

    gm_fill(qts, BUFFER, 3 * GM_PAGE);
    gm_set_timeout(qts, 0);
    g_assert_cmpint(gm_map(qts, BUFFER + GM_PAGE), ==, 0);
    g_assert_cmpint(gm_map(qts, BUFFER), ==, -EBUSY);

    g_assert_cmpint(to_private(qts, BUFFER + GM_PAGE, GM_PAGE), ==, -EAGAIN);
    g_assert_cmpint(to_private(qts, BUFFER, 3 * GM_PAGE), ==, -EAGAIN);
    g_assert_cmpuint(gm_private_bytes(qts, "ram0"), ==, 0);
    g_assert_cmpuint(gm_failures(qts, "ram0", "EAGAIN"), ==, 2);
    gm_assert_filled(qts, BUFFER, 3 * GM_PAGE);
    gm_to_private(qts, BUFFER, GM_PAGE);
    gm_to_private(qts, BUFFER + 2 * GM_PAGE, GM_PAGE);

    g_assert_cmpint(gm_unmap(qts), ==, 0);
    gm_to_private(qts, BUFFER + GM_PAGE, GM_PAGE);
    /* Nothing is held of a private page. */
    g_assert_cmpint(gm_map(qts, BUFFER), ==, -EFAULT);
    gm_to_shared(qts, BUFFER, 3 * GM_PAGE);
    gm_assert_filled(qts, BUFFER, 3 * GM_PAGE);
    gm_quit(qts);
}

/* The 8 bytes are in two blocks: no pointer reaches both. */
static void test_map_two_blocks(void)
{
    const uint64_t gpa = GM_CELL - GM_PAGE;
    QTestState *qts = gm_start_cells();
    uint64_t data;

    gm_set_timeout(qts, 0);
    g_assert_cmpint(gm_read(qts, GM_CELL - 4, 8, &data), ==, 0);
    g_assert_cmpint(gm_map(qts, GM_CELL - 4), ==, -EFAULT);
    g_assert_cmpint(gm_unmap(qts), ==, 0);
    gm_to_private(qts, gpa, 2 * GM_PAGE);
    gm_to_shared(qts, gpa, 2 * GM_PAGE);
    g_assert_cmpint(gm_map(qts, GM_CELL - 8), ==, 0);
    g_assert_cmpint(to_private(qts, gpa, GM_PAGE), ==, -EAGAIN);
    g_assert_cmpint(gm_unmap(qts), ==, 0);
    gm_quit(qts);
}

/* A retry to the timeout, and other things that happen meanwhile. */
static void test_map_timeout(void)
{
    QTestState *qts = gm_start();
    int64_t begin;

    gm_set_timeout(qts, 50);
    g_assert_cmpint(gm_map(qts, BUFFER), ==, 0);
    begin = g_get_monotonic_time();
    g_assert_cmpint(to_private(qts, BUFFER, GM_PAGE), ==, -EAGAIN);
    g_assert_cmpint(g_get_monotonic_time() - begin, >=, 50000);
    g_assert_cmpuint(gm_stat(qts, "ram0", "stats.retries"), >, 0);

    /* A reset clears the memory, mapped or not. */
    qtest_system_reset(qts);
    g_assert_cmpint(to_private(qts, BUFFER, GM_PAGE), ==, -EAGAIN);
    g_assert_cmpint(gm_unmap(qts), ==, 0);
    gm_to_private(qts, BUFFER, GM_PAGE);
    gm_quit(qts);
}

/* --- virtio ------------------------------------------------------------ */

static void read_block(GmQueue *q)
{
    const struct virtio_blk_outhdr header = { .type = VIRTIO_BLK_T_IN };
    uint32_t head;

    gm_fill(q->qts, BUFFER, GM_PAGE);
    qtest_memwrite(q->qts, HEADER, &header, sizeof(header));
    qtest_writeb(q->qts, STATUS, 0xff);
    head = qvirtqueue_add(q->qts, q->vq, HEADER, sizeof(header), false, true);
    qvirtqueue_add(q->qts, q->vq, BUFFER, 512, true, true);
    qvirtqueue_add(q->qts, q->vq, STATUS, 1, true, false);
    qvirtqueue_kick(q->qts, &q->dev->vdev, q->vq, head);
}

/* The device has the buffer, and nothing happens while QEMU is asked. */
static void test_in_flight(void)
{
    GmQueue q = { };

    gm_queue_start(&q, NULL_BLK "-device virtio-blk-pci,drive=d0,addr=1,"
                   "ioeventfd=off", 0);
    gm_set_timeout(q.qts, 0);
    read_block(&q);
    g_assert_cmpint(to_private(q.qts, BUFFER, GM_PAGE), ==, -EAGAIN);
    g_assert_cmpint(to_private(q.qts, BUFFER, 8 * GM_PAGE), ==, -EAGAIN);

    gm_queue_wait(&q, 1);
    g_assert_cmphex(qtest_readb(q.qts, STATUS), ==, VIRTIO_BLK_S_OK);
    gm_to_private(q.qts, BUFFER, GM_PAGE);
    gm_to_shared(q.qts, BUFFER, GM_PAGE);
    gm_assert_bytes(q.qts, BUFFER, 512, 0);
    gm_queue_end(&q);
}

static uint64_t requests_taken(GmQueue *q)
{
    g_autoptr(QDict) status = qtest_qmp_assert_success_ref(q->qts,
        "{ 'execute': 'x-query-virtio-queue-status', 'arguments': "
        "{ 'path': '/machine/peripheral/blk0/virtio-backend', "
        "'queue': 0 } }");

    return qdict_get_int(status, "last-avail-idx");
}

/* The conversion waits until the other thread is done. */
static void test_in_flight_waits(void)
{
    GmQueue q = { };
    uint8_t byte;

    gm_queue_start(&q, "-object iothread,id=io0 " NULL_BLK
                   "-device virtio-blk-pci,id=blk0,drive=d0,addr=1,"
                   "iothread=io0", 0);
    gm_set_timeout(q.qts, 10000);
    read_block(&q);
    while (!requests_taken(&q)) {
        g_usleep(1000);
    }
    gm_to_private(q.qts, BUFFER, GM_PAGE);
    g_assert_cmpuint(gm_stat(q.qts, "ram0", "stats.retries"), >, 0);

    /* All of it arrived before the page became private. */
    gm_to_shared(q.qts, BUFFER, GM_PAGE);
    gm_assert_bytes(q.qts, BUFFER, 512, 0);
    qtest_memread(q.qts, STATUS, &byte, 1);
    g_assert_cmphex(byte, ==, VIRTIO_BLK_S_OK);
    gm_queue_end(&q);
}

/* The request is completed, with nothing written. */
static void test_private_buffer(void)
{
    GmQueue q = { };
    uint32_t head;

    gm_queue_start(&q, "-object rng-builtin,id=rng0 "
                   "-device virtio-rng-pci,rng=rng0,addr=1", 0);
    gm_fill(q.qts, BUFFER, GM_PAGE);
    gm_to_private(q.qts, BUFFER, GM_PAGE);
    head = qvirtqueue_add(q.qts, q.vq, BUFFER, 64, true, false);
    qvirtqueue_kick(q.qts, &q.dev->vdev, q.vq, head);
    gm_queue_wait(&q, 1);
    g_assert_cmpuint(qtest_readl(q.qts, q.vq->used + 8), ==, 0);
    gm_to_shared(q.qts, BUFFER, GM_PAGE);
    gm_assert_filled(q.qts, BUFFER, GM_PAGE);

    /* The device still works. */
    head = qvirtqueue_add(q.qts, q.vq, HEADER, 64, true, false);
    qvirtqueue_kick(q.qts, &q.dev->vdev, q.vq, head);
    gm_queue_wait(&q, 2);
    gm_queue_end(&q);
}

/* --- balloon ----------------------------------------------------------- */

static void inflate(GmQueue *q, uint64_t gpa, uint16_t index)
{
    uint32_t pfns[GM_PAGE / 4096], head, i;

    for (i = 0; i < ARRAY_SIZE(pfns); i++) {
        pfns[i] = cpu_to_le32((gpa >> 12) + i);
    }
    qtest_memwrite(q->qts, HEADER, pfns, sizeof(pfns));
    head = qvirtqueue_add(q->qts, q->vq, HEADER, sizeof(pfns), false, false);
    qvirtqueue_kick(q->qts, &q->dev->vdev, q->vq, head);
    gm_queue_wait(q, index);
}

static void test_balloon(void)
{
    GmQueue q = { };

    gm_queue_start(&q, "-device virtio-balloon-pci,addr=1", 0);
    gm_fill(q.qts, BUFFER, 3 * GM_PAGE);
    gm_to_private(q.qts, BUFFER + GM_PAGE, GM_PAGE);
    inflate(&q, BUFFER + GM_PAGE, 1);
    gm_to_shared(q.qts, BUFFER + GM_PAGE, GM_PAGE);
    gm_assert_filled(q.qts, BUFFER, 3 * GM_PAGE);

    inflate(&q, BUFFER + GM_PAGE, 2);
    gm_assert_filled(q.qts, BUFFER, GM_PAGE);
    gm_assert_bytes(q.qts, BUFFER + GM_PAGE, GM_PAGE, 0);
    gm_assert_filled(q.qts, BUFFER + 2 * GM_PAGE, GM_PAGE);
    gm_fill(q.qts, BUFFER, 3 * GM_PAGE);
    gm_assert_filled(q.qts, BUFFER, 3 * GM_PAGE);
    gm_queue_end(&q);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/users/map", test_map);
    qtest_add_func("/guest-memfd/users/map-two-blocks", test_map_two_blocks);
    qtest_add_func("/guest-memfd/users/map-timeout", test_map_timeout);
    qtest_add_func("/guest-memfd/users/in-flight", test_in_flight);
    qtest_add_func("/guest-memfd/users/in-flight-waits",
                   test_in_flight_waits);
    qtest_add_func("/guest-memfd/users/private-buffer", test_private_buffer);
    qtest_add_func("/guest-memfd/users/balloon", test_balloon);

    return g_test_run();
}
