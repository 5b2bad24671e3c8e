/*
 * qtest: virtio devices whose rings and buffers are in part private
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-dma.h"
#include "libqos/virtio.h"
#include "libqos/virtio-pci.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ids.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_scsi.h"

#define QUEUE_SIZE      8
#define DATA_SIZE       8192
#define DATA_BYTE       0xa7
#define F_REPORTING     (1u << 5)

/* The first three of each driver. */
enum { DESC, AVAIL, USED, FIRST, SECOND, THIRD };

#define DESC_AREA   { "descriptors", 16 * QUEUE_SIZE, 4, .held = true }
#define AVAIL_AREA  { "avail ring", 4 + 2 * QUEUE_SIZE, 1, .held = true }
#define USED_AREA   { "used ring", 4 + 8 * QUEUE_SIZE, 1, .held = true }

typedef struct Virtio {
    QVirtioPCIDevice *dev;
    uint64_t notify;
    uint16_t used;
} Virtio;

static void set_common(GmDma *d, unsigned offset, unsigned size,
                       uint32_t value)
{
    Virtio *v = d->opaque;
    const unsigned at = v->dev->common_cfg_offset + offset;

    if (size == 1) {
        qpci_io_writeb(v->dev->pdev, v->dev->bar, at, value);
    } else if (size == 2) {
        qpci_io_writew(v->dev->pdev, v->dev->bar, at, value);
    } else {
        qpci_io_writel(v->dev->pdev, v->dev->bar, at, value);
    }
}

#define SET(d, field, value) \
    set_common(d, offsetof(struct virtio_pci_common_cfg, field), \
               sizeof_field(struct virtio_pci_common_cfg, field), value)

static void set_ring(GmDma *d, unsigned offset, uint64_t gpa)
{
    set_common(d, offset, 4, gpa);
    set_common(d, offset + 4, 4, gpa >> 32);
}

static void enable_queue(GmDma *d, unsigned index, const uint64_t *at)
{
    Virtio *v = d->opaque;
    uint16_t off;

    SET(d, queue_select, index);
    SET(d, queue_size, QUEUE_SIZE);
    set_ring(d, offsetof(struct virtio_pci_common_cfg, queue_desc_lo),
             at[DESC]);
    set_ring(d, offsetof(struct virtio_pci_common_cfg, queue_avail_lo),
             at[AVAIL]);
    set_ring(d, offsetof(struct virtio_pci_common_cfg, queue_used_lo),
             at[USED]);
    SET(d, queue_enable, 1);
    off = qpci_io_readw(v->dev->pdev, v->dev->bar, v->dev->common_cfg_offset +
                        offsetof(struct virtio_pci_common_cfg,
                                 queue_notify_off));
    v->notify = v->dev->notify_cfg_offset + off * v->dev->notify_off_multiplier;
}

static void virtio_start_with(GmDma *d, uint32_t features)
{
    const uint8_t driver = VIRTIO_CONFIG_S_ACKNOWLEDGE |
                           VIRTIO_CONFIG_S_DRIVER;
    Virtio *v = d->opaque;

    v->used = 0;
    SET(d, device_status, 0);
    SET(d, device_status, driver);
    SET(d, guest_feature_select, 0);
    SET(d, guest_feature, features);
    SET(d, guest_feature_select, 1);
    SET(d, guest_feature, 1 << (VIRTIO_F_VERSION_1 - 32) |
                          1 << (VIRTIO_F_ACCESS_PLATFORM - 32));
    SET(d, device_status, driver | VIRTIO_CONFIG_S_FEATURES_OK);
    enable_queue(d, d->driver->queue, d->at);
    SET(d, device_status, driver | VIRTIO_CONFIG_S_FEATURES_OK |
                          VIRTIO_CONFIG_S_DRIVER_OK);
}

static void virtio_start(GmDma *d)
{
    virtio_start_with(d, 1u << VIRTIO_RING_F_INDIRECT_DESC);
}

static void virtio_init(GmDma *d)
{
    Virtio *v = g_new0(Virtio, 1);
    QPCIAddress address = { .devfn = QPCI_DEVFN(1, 0) };

    d->opaque = v;
    v->dev = virtio_pci_new(d->bus, &address);
    qvirtio_pci_device_enable(v->dev);
}

static void virtio_fini(GmDma *d)
{
    Virtio *v = d->opaque;

    SET(d, device_status, 0);
    qvirtio_pci_destructor(&v->dev->obj);
    g_free(v->dev);
    g_free(v);
}

/* --- requests ---------------------------------------------------------- */

static void put_desc(GmDma *d, uint64_t table, unsigned index, uint64_t gpa,
                     uint32_t size, uint16_t flags)
{
    uint8_t *p = gm_dma_ptr(d, table + 16 * index);

    stq_le_p(p, gpa);
    stl_le_p(p + 8, size);
    stw_le_p(p + 12, flags);
    stw_le_p(p + 14, index + 1);
}

/* Each from @first, in the order of the driver's areas. */
static void put_chain(GmDma *d, uint64_t table, unsigned first,
                      unsigned count, uint64_t written)
{
    unsigned i;

    for (i = 0; i < count; i++) {
        put_desc(d, table, i, d->at[first + i],
                 d->driver->areas[first + i].size,
                 (i < count - 1 ? VRING_DESC_F_NEXT : 0) |
                 (written & (1 << i) ? VRING_DESC_F_WRITE : 0));
    }
}

static bool is_used(GmDma *d)
{
    Virtio *v = d->opaque;

    return lduw_le_p(gm_dma_ptr(d, d->at[USED] + 2)) == v->used;
}

/* A request in the first descriptors; true if the device used it. */
static bool kick(GmDma *d)
{
    Virtio *v = d->opaque;

    stw_le_p(gm_dma_ptr(d, d->at[AVAIL] + 4 + 2 * v->used), 0);
    v->used++;
    stw_le_p(gm_dma_ptr(d, d->at[AVAIL] + 2), v->used);
    gm_dma_go(d);
    qpci_io_writew(v->dev->pdev, v->dev->bar, v->notify, d->driver->queue);
    return gm_dma_wait(d, is_used);
}

/* Where all is shared, it must be right as well. */
static bool data_is_right(GmDma *d, uint64_t data)
{
    return memchr(gm_dma_ptr(d, data), GM_CANARY, DATA_SIZE) ||
           (d->driver->write ?
            gm_window_is_byte(d->disk, DATA_SIZE, DATA_BYTE) :
            gm_window_is_byte(gm_dma_ptr(d, data), DATA_SIZE, GM_DISK_BYTE));
}

static bool request_blk_with(GmDma *d, uint64_t table, unsigned first)
{
    const uint64_t data = d->at[first + 1], status = d->at[first + 2];
    const struct virtio_blk_outhdr header = {
        .type = cpu_to_le32(d->driver->write ? VIRTIO_BLK_T_OUT :
                                               VIRTIO_BLK_T_IN),
    };

    memcpy(gm_dma_ptr(d, d->at[first]), &header, sizeof(header));
    *gm_dma_ptr(d, status) = 0xff;
    if (d->driver->write) {
        gm_dma_put(d, data, DATA_SIZE, DATA_BYTE);
    }
    put_chain(d, table, first, 3, d->driver->write ? 4 : 6);
    return kick(d) && *gm_dma_ptr(d, status) == VIRTIO_BLK_S_OK &&
           data_is_right(d, data);
}

static bool request_blk(GmDma *d)
{
    return request_blk_with(d, d->at[DESC], FIRST);
}

static bool request_blk_indirect(GmDma *d)
{
    put_desc(d, d->at[DESC], 0, d->at[FIRST], 3 * 16, VRING_DESC_F_INDIRECT);
    return request_blk_with(d, d->at[FIRST], SECOND);
}

/* READ(10) or WRITE(10) of the first sectors. */
static bool request_scsi_once(GmDma *d)
{
    struct virtio_scsi_cmd_req request = {
        .lun = { 1, 0, 0x40 },
        .cdb = { d->driver->write ? 0x2a : 0x28, [8] = DATA_SIZE / 512 },
    };
    const uint64_t data = d->at[d->driver->write ? SECOND : THIRD];
    const uint64_t response = d->at[d->driver->write ? THIRD : SECOND];
    const struct virtio_scsi_cmd_resp *resp =
        (void *)gm_dma_ptr(d, response);

    memcpy(gm_dma_ptr(d, d->at[FIRST]), &request, sizeof(request));
    memset(gm_dma_ptr(d, response), 0xff, sizeof(*resp));
    if (d->driver->write) {
        gm_dma_put(d, data, DATA_SIZE, DATA_BYTE);
    }
    put_chain(d, d->at[DESC], FIRST, 3, d->driver->write ? 4 : 6);
    return kick(d) && resp->response == VIRTIO_SCSI_S_OK && !resp->status &&
           data_is_right(d, data);
}

/* After a reset the first one is answered with UNIT ATTENTION. */
static bool request_scsi(GmDma *d)
{
    request_scsi_once(d);
    return request_scsi_once(d);
}

/* --- network ----------------------------------------------------------- */

#define PACKET_SIZE     256

static bool request_net_send(GmDma *d)
{
    uint8_t packet[2 * PACKET_SIZE];
    ssize_t size;
    bool used;

    gm_dma_put(d, d->at[SECOND], PACKET_SIZE, DATA_BYTE);
    put_chain(d, d->at[DESC], FIRST, 2, 0);
    used = kick(d);
    size = recv(d->net, packet, sizeof(packet), MSG_DONTWAIT);
    if (size > 0 && gm_window_has_canary(packet, size, 1)) {
        g_test_message("private bytes were sent");
        g_test_fail();
    }
    return used && size == PACKET_SIZE;
}

static bool request_net_receive(GmDma *d)
{
    uint8_t packet[PACKET_SIZE];
    ssize_t sent;

    memset(packet, 0xff, 6);
    memset(packet + 6, DATA_BYTE, sizeof(packet) - 6);
    put_chain(d, d->at[DESC], FIRST, 2, 3);
    stw_le_p(gm_dma_ptr(d, d->at[AVAIL] + 4), 0);
    stw_le_p(gm_dma_ptr(d, d->at[AVAIL] + 2), 1);
    sent = send(d->net, packet, sizeof(packet), MSG_DONTWAIT);
    g_assert_cmpint(sent, ==, sizeof(packet));
    return kick(d) &&
           !memcmp(gm_dma_ptr(d, d->at[SECOND]), packet, sizeof(packet));
}

/* --- balloon ----------------------------------------------------------- */

static void start_balloon(GmDma *d)
{
    virtio_start_with(d, F_REPORTING);
}

static bool request_pages(GmDma *d)
{
    unsigned i;

    for (i = 0; i < d->driver->areas[FIRST].size / 4; i++) {
        stl_le_p(gm_dma_ptr(d, d->at[FIRST]) + 4 * i,
                 (d->at[SECOND] >> 12) + i);
    }
    put_desc(d, d->at[DESC], 0, d->at[FIRST], d->driver->areas[FIRST].size,
             0);
    return kick(d);
}

static bool request_report(GmDma *d)
{
    put_chain(d, d->at[DESC], FIRST, 1, 1);
    return kick(d);
}

/* --- drivers ----------------------------------------------------------- */

#define DISK    "-blockdev driver=file,node-name=f0,locking=off," \
                "filename=/proc/self/fd/%d " \
                "-blockdev driver=raw,node-name=d0,file=f0 "
#define BLK     DISK "-device virtio-blk-pci,drive=d0,addr=1"
#define SCSI    DISK "-device virtio-scsi-pci,id=s0,addr=1"
#define HD      " -device scsi-hd,drive=d0,bus=s0.0"
#define IO      "-object iothread,id=io0 "
#define NET     "-netdev dgram,id=n0,local.type=fd,local.str=%d " \
                "-device virtio-net-pci,netdev=n0,addr=1"
#define BALLOON "-device virtio-balloon-pci,free-page-reporting=on,addr=1"

#define VIRTIO \
    .devfn = QPCI_DEVFN(1, 0), .init = virtio_init, .fini = virtio_fini, \
    .start = virtio_start, .goes_on = true

#define STATUS_AREA { "status", 1, 1, .needs_reset = true }
#define BLK_AREAS { DESC_AREA, AVAIL_AREA, USED_AREA, \
    { "header", 16, 1, .fails = true }, \
    { "data", DATA_SIZE, 64, .fails = true }, STATUS_AREA }
#define INDIRECT_AREAS { DESC_AREA, AVAIL_AREA, USED_AREA, \
    { "indirect", 48, 1, .needs_reset = true }, \
    { "header", 16, 4, .fails = true }, \
    { "data", DATA_SIZE, 512, .fails = true }, STATUS_AREA }

static const GmDriver drivers[] = {
    { "virtio-blk-read", BLK, GM_DISK, VIRTIO, .request = request_blk,
      .areas = BLK_AREAS },
    { "virtio-blk-write", BLK, GM_DISK, VIRTIO, .request = request_blk,
      .write = true, .areas = BLK_AREAS },
    { "virtio-blk-read/iothread", IO BLK ",iothread=io0", GM_DISK, VIRTIO,
      .request = request_blk, .areas = BLK_AREAS },
    { "virtio-blk-write/iothread", IO BLK ",iothread=io0", GM_DISK, VIRTIO,
      .request = request_blk, .write = true, .areas = BLK_AREAS },
    { "virtio-blk-indirect", BLK, GM_DISK, VIRTIO, .write = true,
      .request = request_blk_indirect, .areas = INDIRECT_AREAS },
    { "virtio-blk-indirect/iothread", IO BLK ",iothread=io0", GM_DISK,
      VIRTIO, .request = request_blk_indirect, .areas = INDIRECT_AREAS },
    { "virtio-scsi-read", SCSI HD, GM_DISK, VIRTIO,
      .queue = 2, .request = request_scsi, .areas = {
        DESC_AREA, AVAIL_AREA, USED_AREA,
        { "request", 51, 1 }, { "response", 108, 4, .needs_reset = true },
        { "data", DATA_SIZE, 512 } } },
    { "virtio-scsi-write", SCSI HD, GM_DISK, VIRTIO,
      .queue = 2, .write = true, .request = request_scsi, .areas = {
        DESC_AREA, AVAIL_AREA, USED_AREA,
        { "request", 51, 1 }, { "data", DATA_SIZE, 512 },
        { "response", 108, 4, .needs_reset = true } } },
    { "virtio-scsi-write/iothread", IO SCSI ",iothread=io0" HD, GM_DISK,
      VIRTIO, .queue = 2, .write = true,
      .request = request_scsi, .areas = {
        DESC_AREA, AVAIL_AREA, USED_AREA,
        { "request", 51, 1 }, { "data", DATA_SIZE, 512 },
        { "response", 108, 4, .needs_reset = true } } },
    { "virtio-net-send", NET, GM_NET, VIRTIO, .queue = 1,
      .request = request_net_send, .areas = {
        DESC_AREA, AVAIL_AREA, USED_AREA,
        { "header", 12, 1 }, { "packet", PACKET_SIZE, 4 } } },
    { "virtio-net-receive", NET, GM_NET, VIRTIO, .queue = 0,
      .request = request_net_receive, .areas = {
        DESC_AREA, AVAIL_AREA, USED_AREA,
        { "header", 12, 1 }, { "packet", PACKET_SIZE, 4 } } },
    { "virtio-balloon-inflate", BALLOON, VIRTIO, .start = start_balloon,
      .queue = 0, .request = request_pages, .areas = {
        DESC_AREA, AVAIL_AREA, USED_AREA,
        { "page numbers", 64, 4, GM_IGNORED },
        { "pages", 64 * KiB, 4096, GM_HARMLESS } } },
    { "virtio-balloon-deflate", BALLOON, VIRTIO, .start = start_balloon,
      .queue = 1, .request = request_pages, .areas = {
        DESC_AREA, AVAIL_AREA, USED_AREA,
        { "page numbers", 64, 4, GM_IGNORED },
        { "pages", 64 * KiB, 4096, GM_HARMLESS } } },
    { "virtio-balloon-report", BALLOON, VIRTIO, .start = start_balloon,
      .queue = 3, .request = request_report, .areas = {
        DESC_AREA, AVAIL_AREA, USED_AREA,
        { "pages", 64 * KiB, 4096, GM_HARMLESS } } },
};

int main(int argc, char **argv)
{
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(drivers); i++) {
        gm_dma_add(&drivers[i]);
    }
    return gm_dma_end(g_test_run());
}
