/*
 * qtest: vhost in the kernel, which reads guest memory past QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A packet is sent from shared and from private memory, through a tap that
 * counts what comes.  With GMEM_TEST_ARGS="-accel kvm ..." the pages are
 * those of a guest_memfd; else nothing hides private pages from the kernel,
 * and only the ring is tried.
 */

#include "qemu/osdep.h"
#include <net/if.h>
#include <sys/ioctl.h>
#include <linux/if_tun.h>
#include "guest-memfd-queue.h"

#define TX          1
#define BUFFER      (GM_GPA + GM_PAGE)
/* The header of virtio-net, and an Ethernet frame of a local experiment. */
#define HEADER      12
#define FRAME       60
#define WAIT_US     (20 * G_USEC_PER_SEC)
/* A packet that does not arrive in that time is lost. */
#define QUIET_US    (G_USEC_PER_SEC / 2)

static char tap[IFNAMSIZ];

static bool skip(const char *what)
{
    g_autofree char *why = g_strdup_printf("%s: %s", what, strerror(errno));

    g_test_skip(why);
    return false;
}

/* Whether QEMU can have a tap, and vhost. */
static bool has_vhost(void)
{
    struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI };
    int fd, ret;

    if (access("/dev/vhost-net", R_OK | W_OK)) {
        return skip("/dev/vhost-net");
    }
    fd = open("/dev/net/tun", O_RDWR);
    if (fd < 0) {
        return skip("/dev/net/tun");
    }
    g_strlcpy(ifr.ifr_name, tap, sizeof(ifr.ifr_name));
    ret = ioctl(fd, TUNSETIFF, &ifr);
    close(fd);
    return ret == 0 || skip("cannot make a tap");
}

static void prepare(GmQueue *q)
{
    g_autofree char *args = g_strdup_printf(
        "-netdev tap,id=n0,ifname=%s,script=no,downscript=no,vhost=on,"
        "vhostforce=on "
        "-device virtio-net-pci,netdev=n0,addr=1,id=dev0,romfile= %s", tap,
        getenv("GMEM_TEST_ARGS") ?: "");

    gm_queue_prepare(q, args, 0, TX);
}

/* The kernel counts packets of interfaces that are up. */
static void set_up(void)
{
    struct ifreq ifr = { .ifr_flags = IFF_UP };
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    g_assert_cmpint(fd, >=, 0);
    g_strlcpy(ifr.ifr_name, tap, sizeof(ifr.ifr_name));
    g_assert_cmpint(ioctl(fd, SIOCSIFFLAGS, &ifr), ==, 0);
    close(fd);
}

static uint64_t packets(void)
{
    g_autofree char *path = g_strdup_printf(
        "/sys/class/net/%s/statistics/rx_packets", tap);
    g_autofree char *text = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    return g_ascii_strtoull(text, NULL, 10);
}

static bool is_vhost(GmQueue *q)
{
    g_autoptr(QDict) rsp = qtest_qmp_assert_success_ref(q->qts,
        "{ 'execute': 'x-query-virtio-status', 'arguments': { 'path': "
        "'/machine/peripheral/dev0/virtio-backend' } }");

    return qdict_get_bool(rsp, "vhost-started");
}

static bool is_emulated(GmQueue *q)
{
    g_autofree char *provider = gm_get_str(q->qts, GM_MANAGER, "provider");

    return g_str_equal(provider, "emulated");
}

static void write_packet(GmQueue *q)
{
    uint8_t packet[HEADER + FRAME] = { };

    memset(packet + HEADER, 0xff, 6);
    packet[HEADER + 12] = 0x88;
    packet[HEADER + 13] = 0xb5;
    qtest_memwrite(q->qts, BUFFER, packet, sizeof(packet));
}

static void send_packet(GmQueue *q)
{
    uint32_t head = qvirtqueue_add(q->qts, q->vq, BUFFER, HEADER + FRAME,
                                   false, false);

    qvirtqueue_kick(q->qts, &q->dev->vdev, q->vq, head);
}

static uint16_t used(GmQueue *q)
{
    return qtest_readw(q->qts, q->vq->used + 2);
}

static void wait_used(GmQueue *q, uint16_t count)
{
    int64_t end = g_get_monotonic_time() + WAIT_US;

    while (used(q) != count) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

/* Not every KVM can preserve. */
static void convert(GmQueue *q, uint64_t gpa, uint64_t attributes)
{
    g_assert_cmpint(gm_convert(q->qts, gpa, GM_PAGE, attributes).status, ==,
                    0);
}

static void test_buffer(void)
{
    GmQueue q = { };
    uint64_t before;

    if (!has_vhost()) {
        return;
    }
    prepare(&q);
    qvirtio_set_driver_ok(&q.dev->vdev);
    g_assert_true(is_vhost(&q));
    set_up();
    write_packet(&q);
    before = packets();
    send_packet(&q);
    wait_used(&q, 1);
    g_assert_cmpuint(packets(), ==, before + 1);

    if (is_emulated(&q)) {
        g_test_message("no buffer is hidden from the kernel here");
    } else {
        /* vhost tries again and again, and gets nothing. */
        convert(&q, BUFFER, GMTD_ATTR_PRIVATE);
        send_packet(&q);
        g_usleep(QUIET_US);
        g_assert_cmpuint(used(&q), ==, 1);
        g_assert_cmpuint(packets(), ==, before + 1);

        convert(&q, BUFFER, 0);
        wait_used(&q, 2);
        g_assert_cmpuint(packets(), ==, before + 2);
    }
    gm_assert_running(q.qts);
    gm_queue_end(&q);
}

/* As long as vhost uses it, the ring stays shared. */
static void test_ring_in_use(void)
{
    GmQueue q = { };

    if (!has_vhost()) {
        return;
    }
    prepare(&q);
    qvirtio_set_driver_ok(&q.dev->vdev);
    g_assert_true(is_vhost(&q));
    gm_set_timeout(q.qts, 0);
    g_assert_cmpint(gm_convert(q.qts, GM_GPA, GM_PAGE,
                               GMTD_ATTR_PRIVATE).status, ==, -EAGAIN);
    qvirtio_reset(&q.dev->vdev);
    g_assert_false(is_vhost(&q));
    convert(&q, GM_GPA, GMTD_ATTR_PRIVATE);
    convert(&q, GM_GPA, 0);
    gm_queue_end(&q);
}

/* QEMU serves the queue itself, and finds nothing there. */
/* A ring is mapped when the driver sets its address. */
static void test_ring_private(void)
{
    GmQueue q = { };

    if (!has_vhost()) {
        return;
    }
    prepare(&q);
    g_assert_cmpint(gm_convert(q.qts, GM_GPA, GM_PAGE,
                               GMTD_ATTR_PRIVATE).status, ==, -EAGAIN);
    qvirtio_set_driver_ok(&q.dev->vdev);
    g_assert_true(is_vhost(&q));
    gm_assert_running(q.qts);
    gm_queue_end(&q);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    snprintf(tap, sizeof(tap), "gm%d", getpid());

    qtest_add_func("/guest-memfd/vhost/buffer", test_buffer);
    qtest_add_func("/guest-memfd/vhost/ring-in-use", test_ring_in_use);
    qtest_add_func("/guest-memfd/vhost/ring-private", test_ring_private);

    return g_test_run();
}
