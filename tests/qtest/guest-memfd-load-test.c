/*
 * The cost of a request of virtio-blk, with and without a confidential guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Reads of 4 KiB in three descriptors by an IOThread from a null disk.  The
 * CPU time of the IOThread is what is compared, of both VMs in turn, since
 * this program's own time and that of the socket between are not in it.
 *
 *   guest-memfd-load-test              as a test: few requests, all right?
 *   GM_BENCH=N guest-memfd-load-test   N rounds; prints one JSON object
 *   GM_COUNT=N guest-memfd-load-test   N rounds of one VM, with GM_VM=plain an
 *                                      ordinary one, for a program that counts
 */

#include "qemu/osdep.h"
#include "guest-memfd-queue.h"
#include "qemu/bswap.h"
#include "qobject/qlist.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_ring.h"

#define BLK         "-object iothread,id=io0,poll-max-ns=0 " \
                    "-blockdev driver=null-co,node-name=d0,size=1073741824," \
                    "read-zeroes=off " \
                    "-device virtio-blk-pci,id=blk0,drive=d0,addr=1," \
                    "iothread=io0,num-queues=1,queue-size=256"
#define REQUESTS    85          /* that fit into the queue at a time */
#define KICKS       20          /* of a round */
#define MAX_ROUNDS  1000
#define PAIRS       9

#define HEADER      (GM_GPA + 2 * GM_PAGE)
#define STATUS      (GM_GPA + 3 * GM_PAGE)
#define BUFFERS     (GM_GPA + 4 * GM_PAGE)

typedef struct Vm {
    const char *name;
    GmQueue q;
    int64_t thread_id;
    uint16_t used;
    unsigned rounds;
    double ns[MAX_ROUNDS];      /* of a request */
} Vm;

static void write_chains(Vm *vm)
{
    const struct virtio_blk_outhdr header = { };
    struct vring_desc chains[REQUESTS * 3] = { };
    unsigned i;

    for (i = 0; i < REQUESTS; i++) {
        struct vring_desc *d = &chains[i * 3];

        d[0].addr = cpu_to_le64(HEADER);
        d[0].len = cpu_to_le32(sizeof(header));
        d[0].flags = cpu_to_le16(VRING_DESC_F_NEXT);
        d[0].next = cpu_to_le16(i * 3 + 1);
        d[1].addr = cpu_to_le64(BUFFERS + i * 4096);
        d[1].len = cpu_to_le32(4096);
        d[1].flags = cpu_to_le16(VRING_DESC_F_NEXT | VRING_DESC_F_WRITE);
        d[1].next = cpu_to_le16(i * 3 + 2);
        d[2].addr = cpu_to_le64(STATUS + i);
        d[2].len = cpu_to_le32(1);
        d[2].flags = cpu_to_le16(VRING_DESC_F_WRITE);
    }
    qtest_memwrite(vm->q.qts, HEADER, &header, sizeof(header));
    qtest_memwrite(vm->q.qts, vm->q.vq->desc, chains, sizeof(chains));
}

static void write_ring(Vm *vm)
{
    uint16_t ring[REQUESTS];
    unsigned i, first = vm->used % 256, n = MIN(REQUESTS, 256 - first);

    for (i = 0; i < REQUESTS; i++) {
        ring[i] = cpu_to_le16(i * 3);
    }
    qtest_memwrite(vm->q.qts, vm->q.vq->avail + 4 + first * 2, ring, n * 2);
    if (n < REQUESTS) {
        qtest_memwrite(vm->q.qts, vm->q.vq->avail + 4, ring + n,
                       (REQUESTS - n) * 2);
    }
}

static void kick(Vm *vm)
{
    const int64_t end = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;

    write_ring(vm);
    vm->used += REQUESTS;
    qtest_writew(vm->q.qts, vm->q.vq->avail + 2, vm->used);
    vm->q.dev->vdev.bus->virtqueue_kick(&vm->q.dev->vdev, vm->q.vq);
    while (qtest_readw(vm->q.qts, vm->q.vq->used + 2) != vm->used) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

static int64_t find_iothread(QTestState *qts)
{
    g_autoptr(QDict) reply = qtest_qmp(qts, "{ 'execute': 'query-iothreads' }");
    QList *list = qdict_get_qlist(reply, "return");

    return qdict_get_int(qobject_to(QDict, qlist_peek(list)), "thread-id");
}

/* In nanoseconds, from the scheduler. */
static uint64_t cpu_time(const Vm *vm)
{
    g_autofree char *path =
        g_strdup_printf("/proc/%d/task/%" PRId64 "/schedstat",
                        (int)qtest_pid(vm->q.qts), vm->thread_id);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return 0;
    }
    return g_ascii_strtoull(text, NULL, 10);
}

static void run_round(Vm *vm)
{
    const uint64_t start = cpu_time(vm);
    unsigned i;

    for (i = 0; i < KICKS; i++) {
        kick(vm);
    }
    vm->ns[vm->rounds++] = (double)(cpu_time(vm) - start) / (KICKS * REQUESTS);
}

static void start(Vm *vm)
{
    if (g_str_equal(vm->name, "plain")) {
        gm_queue_start_plain(&vm->q, BLK, 0);
    } else {
        gm_queue_start(&vm->q, BLK, 0);
    }
    vm->thread_id = find_iothread(vm->q.qts);
    write_chains(vm);
    run_round(vm);
    vm->rounds = 0;
}

static void check(Vm *vm)
{
    uint8_t status[REQUESTS];
    unsigned i;

    qtest_memread(vm->q.qts, STATUS, status, sizeof(status));
    for (i = 0; i < REQUESTS; i++) {
        g_assert_cmphex(status[i], ==, VIRTIO_BLK_S_OK);
    }
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* The quarter that was disturbed least, on a machine with other work. */
static double low_quartile(Vm *vm)
{
    qsort(vm->ns, vm->rounds, sizeof(vm->ns[0]), compare);
    return vm->ns[vm->rounds / 4];
}

/* @ns: of a request in the plain VM, and in the other one. */
static void run_pair(unsigned rounds, double ns[2])
{
    Vm *vms[2] = { g_new0(Vm, 1), g_new0(Vm, 1) };
    unsigned i;

    vms[0]->name = "plain";
    vms[1]->name = "sw-protected-guest";
    start(vms[0]);
    start(vms[1]);
    for (i = 0; i < rounds; i++) {
        /* In turn, and each first in half of the rounds. */
        run_round(vms[i & 1]);
        run_round(vms[!(i & 1)]);
    }
    for (i = 0; i < 2; i++) {
        check(vms[i]);
        ns[i] = low_quartile(vms[i]);
        gm_queue_end(&vms[i]->q);
        g_free(vms[i]);
    }
}

static void test_load(void)
{
    double ns[2];

    run_pair(2, ns);
}

/* A VM can be slow for all of its life, where the host put its threads. */
static void bench(unsigned rounds)
{
    double ns[2], plain[PAIRS], guest[PAIRS], ratios[PAIRS];
    unsigned i;

    for (i = 0; i < PAIRS; i++) {
        run_pair(rounds, ns);
        plain[i] = ns[0];
        guest[i] = ns[1];
        ratios[i] = ns[1] / ns[0];
    }
    qsort(plain, PAIRS, sizeof(plain[0]), compare);
    qsort(guest, PAIRS, sizeof(guest[0]), compare);
    qsort(ratios, PAIRS, sizeof(ratios[0]), compare);
    printf("{ \"benchmark\": \"virtio-blk, IOThread, 4 KiB, null-co\", "
           "\"unit\": \"ns of CPU per request\", \"pairs of VMs\": %d, "
           "\"plain\": %.0f, \"sw-protected-guest\": %.0f, "
           "\"ratio\": { \"least\": %.3f, \"median\": %.3f, "
           "\"most\": %.3f }, \"target\": 1.15, \"met\": %s }\n",
           PAIRS, plain[PAIRS / 2], guest[PAIRS / 2], ratios[0],
           ratios[PAIRS / 2], ratios[PAIRS - 1],
           ratios[PAIRS / 2] <= 1.15 ? "true" : "false");
}

/* See tests/bench/ordinary; a counted QEMU is slow. */
static void count(unsigned rounds)
{
    Vm *vm = g_new0(Vm, 1);
    unsigned i;

    vm->name = g_strcmp0(getenv("GM_VM"), "plain") ? "sw-protected-guest" :
                                                     "plain";
    start(vm);
    for (i = 0; i < rounds; i++) {
        run_round(vm);
    }
    check(vm);
    gm_queue_end(&vm->q);
    printf("{ \"requests\": %u }\n", rounds * KICKS * REQUESTS);
    g_free(vm);
}

int main(int argc, char **argv)
{
    const char *rounds = getenv("GM_BENCH"), *counted = getenv("GM_COUNT");

    if (rounds) {
        bench(MIN(MAX_ROUNDS, atoi(rounds)));
        return 0;
    }
    if (counted) {
        count(MIN(MAX_ROUNDS, atoi(counted)));
        return 0;
    }
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/load/virtio-blk", test_load);

    return g_test_run();
}
