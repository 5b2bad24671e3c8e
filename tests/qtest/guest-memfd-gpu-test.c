/*
 * qtest: a display device with pictures in private memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-queue.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_gpu.h"

/* The queue is at GM_GPA. */
#define PICTURE     (GM_GPA + 4 * GM_PAGE)
#define REQUEST     (GM_GPA + 8 * GM_PAGE)
#define RESPONSE    (GM_GPA + 9 * GM_PAGE)
#define PIXEL       0x123456
/* Its bytes fit into a bounce buffer. */
#define SMALL       32
#define LARGE       64

typedef struct Gpu {
    GmQueue q;
    uint16_t requests;
} Gpu;

static void start(Gpu *gpu, uint32_t side)
{
    uint32_t i;

    *gpu = (Gpu) { };
    gm_queue_start(&gpu->q, "-device virtio-gpu-pci,addr=1 -display none", 0);
    gm_set_timeout(gpu->q.qts, 0);
    for (i = 0; i < side * side; i++) {
        qtest_writel(gpu->q.qts, PICTURE + 4 * i, PIXEL);
    }
}

/* The device's answer; this fills the header of @command. */
static uint32_t request(Gpu *gpu, uint32_t type, void *command, size_t size)
{
    struct virtio_gpu_ctrl_hdr *header = command;
    GmQueue *q = &gpu->q;
    uint32_t head;

    header->type = cpu_to_le32(type);
    qtest_memwrite(q->qts, REQUEST, command, size);
    qtest_memset(q->qts, RESPONSE, 0, sizeof(*header));
    head = qvirtqueue_add(q->qts, q->vq, REQUEST, size, false, true);
    qvirtqueue_add(q->qts, q->vq, RESPONSE, sizeof(*header), true, false);
    qvirtqueue_kick(q->qts, &q->dev->vdev, q->vq, head);
    gm_queue_wait(q, ++gpu->requests);
    return qtest_readl(q->qts, RESPONSE);
}

static uint32_t create(Gpu *gpu, uint32_t id, uint32_t side)
{
    struct virtio_gpu_resource_create_2d c = {
        .resource_id = cpu_to_le32(id),
        .format = cpu_to_le32(VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM),
        .width = cpu_to_le32(side),
        .height = cpu_to_le32(side),
    };

    return request(gpu, VIRTIO_GPU_CMD_RESOURCE_CREATE_2D, &c, sizeof(c));
}

static uint32_t attach(Gpu *gpu, uint32_t id, uint32_t side)
{
    struct {
        struct virtio_gpu_resource_attach_backing attach;
        struct virtio_gpu_mem_entry entry;
    } c = {
        .attach.resource_id = cpu_to_le32(id),
        .attach.nr_entries = cpu_to_le32(1),
        .entry.addr = cpu_to_le64(PICTURE),
        .entry.length = cpu_to_le32(4 * side * side),
    };

    return request(gpu, VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING, &c,
                   sizeof(c));
}

static uint32_t detach(Gpu *gpu, uint32_t id)
{
    struct virtio_gpu_resource_detach_backing c = {
        .resource_id = cpu_to_le32(id),
    };

    return request(gpu, VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING, &c,
                   sizeof(c));
}

static uint32_t transfer(Gpu *gpu, uint32_t id, uint32_t side)
{
    struct virtio_gpu_transfer_to_host_2d c = {
        .resource_id = cpu_to_le32(id),
        .r.width = cpu_to_le32(side),
        .r.height = cpu_to_le32(side),
    };

    return request(gpu, VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D, &c, sizeof(c));
}

static uint32_t show(Gpu *gpu, uint32_t id, uint32_t side)
{
    struct virtio_gpu_set_scanout c = {
        .resource_id = cpu_to_le32(id),
        .r.width = cpu_to_le32(side),
        .r.height = cpu_to_le32(side),
    };

    return request(gpu, VIRTIO_GPU_CMD_SET_SCANOUT, &c, sizeof(c));
}

static void assert_picture(Gpu *gpu, uint32_t side)
{
    uint32_t i;

    for (i = 0; i < side * side; i++) {
        g_assert_cmphex(qtest_readl(gpu->q.qts, PICTURE + 4 * i), ==, PIXEL);
    }
}

/* A shared picture is shown, and stays shared until it is detached. */
static void test_shared(void)
{
    Gpu gpu;

    start(&gpu, LARGE);
    g_assert_cmphex(create(&gpu, 1, LARGE), ==, VIRTIO_GPU_RESP_OK_NODATA);
    g_assert_cmphex(attach(&gpu, 1, LARGE), ==, VIRTIO_GPU_RESP_OK_NODATA);
    g_assert_cmphex(transfer(&gpu, 1, LARGE), ==, VIRTIO_GPU_RESP_OK_NODATA);
    g_assert_cmphex(show(&gpu, 1, LARGE), ==, VIRTIO_GPU_RESP_OK_NODATA);
    g_assert_cmphex(gm_first_pixel(gpu.q.qts), ==, PIXEL);

    g_assert_cmpint(gm_convert(gpu.q.qts, PICTURE, GM_PAGE,
                               GMTD_ATTR_PRIVATE).status, ==, -EAGAIN);
    g_assert_cmphex(detach(&gpu, 1), ==, VIRTIO_GPU_RESP_OK_NODATA);
    gm_to_private(gpu.q.qts, PICTURE, GM_PAGE);
    /* The device's own copy is still shown. */
    g_assert_cmphex(gm_first_pixel(gpu.q.qts), ==, PIXEL);
    gm_to_shared(gpu.q.qts, PICTURE, GM_PAGE);
    gm_queue_end(&gpu.q);
}

/* The device is refused the memory, and has nothing to show. */
static void test_private(const void *opaque)
{
    const uint32_t size = *(const uint32_t *)opaque;
    Gpu gpu;

    start(&gpu, size);
    gm_to_private(gpu.q.qts, PICTURE, GM_PAGE);
    g_assert_cmphex(create(&gpu, 1, size), ==, VIRTIO_GPU_RESP_OK_NODATA);
    g_assert_cmphex(attach(&gpu, 1, size), ==, VIRTIO_GPU_RESP_ERR_UNSPEC);
    g_assert_cmphex(transfer(&gpu, 1, size), !=, VIRTIO_GPU_RESP_OK_NODATA);
    g_assert_cmphex(show(&gpu, 1, size), ==, VIRTIO_GPU_RESP_ERR_UNSPEC);
    g_assert_cmphex(gm_first_pixel(gpu.q.qts), ==, 0);

    gm_to_shared(gpu.q.qts, PICTURE, GM_PAGE);
    assert_picture(&gpu, size);
    g_assert_cmphex(attach(&gpu, 1, size), ==, VIRTIO_GPU_RESP_OK_NODATA);
    g_assert_cmphex(transfer(&gpu, 1, size), ==, VIRTIO_GPU_RESP_OK_NODATA);
    g_assert_cmphex(show(&gpu, 1, size), ==, VIRTIO_GPU_RESP_OK_NODATA);
    g_assert_cmphex(gm_first_pixel(gpu.q.qts), ==, PIXEL);
    gm_queue_end(&gpu.q);
}

int main(int argc, char **argv)
{
    static const uint32_t large = LARGE, small = SMALL;

    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/guest-memfd/gpu/shared", test_shared);
    qtest_add_data_func("/guest-memfd/gpu/private", &large, test_private);
    /* It would fit into a bounce buffer. */
    qtest_add_data_func("/guest-memfd/gpu/private-small", &small,
                        test_private);

    return g_test_run();
}
