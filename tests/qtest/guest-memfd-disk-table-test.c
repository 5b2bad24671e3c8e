/*
 * qtest: disks of a PC whose queues and buffers are in part private
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/nvme.h"
#include "guest-memfd-dma.h"
#include "qemu/bswap.h"

#define DATA_BYTE       0xa7
#define DISK    "-blockdev driver=file,node-name=f0,locking=off," \
                "filename=/proc/self/fd/%d " \
                "-blockdev driver=raw,node-name=d0,file=f0 "

static void put_data(GmDma *d, uint64_t gpa, uint64_t size)
{
    gm_dma_put(d, gpa, size, DATA_BYTE);
}

/* Where all is shared, it must be right as well. */
static bool is_right(GmDma *d, uint64_t gpa, uint64_t size)
{
    return memchr(gm_dma_ptr(d, gpa), GM_CANARY, size) ||
           (d->driver->write ?
            gm_window_is_byte(d->disk, size, DATA_BYTE) :
            gm_window_is_byte(gm_dma_ptr(d, gpa), size, GM_DISK_BYTE));
}

/* --- nvme -------------------------------------------------------------- */

enum { NVME_SQ, NVME_CQ, NVME_IO_SQ, NVME_IO_CQ, NVME_LIST, NVME_DATA };

#define NVME_ENTRIES    64
#define NVME_BLOCKS     32

typedef struct Queue {
    unsigned id;
    uint64_t sq;
    uint64_t cq;
    unsigned tail;
} Queue;

static struct {
    Queue queue[2];
    Queue *waiting;
} nvme;

static bool nvme_is_done(GmDma *d)
{
    const Queue *q = nvme.waiting;
    const uint8_t *p = gm_dma_ptr(d, q->cq + (q->tail - 1) * 16);

    /* The phase, and the identifier of the command. */
    return lduw_le_p(p + 14) & 1 && lduw_le_p(p + 12) == q->tail;
}

static bool nvme_command(GmDma *d, Queue *q, uint8_t opcode, uint64_t prp1,
                         uint64_t prp2, uint32_t dw10, uint32_t dw11)
{
    uint8_t *p = gm_dma_ptr(d, q->sq + q->tail * 64);

    memset(p, 0, 64);
    p[0] = opcode;
    stw_le_p(p + 2, ++q->tail);
    stl_le_p(p + 4, q->id ? 1 : 0);
    stq_le_p(p + 24, prp1);
    stq_le_p(p + 32, prp2);
    stl_le_p(p + 40, dw10);
    stl_le_p(p + 44, dw11);
    if (q->id) {
        stl_le_p(p + 48, NVME_BLOCKS - 1);
    }
    gm_dma_go(d);
    gm_dma_set32(d, 0x1000 + 8 * q->id, q->tail);
    nvme.waiting = q;
    return gm_dma_wait(d, nvme_is_done) &&
           !(lduw_le_p(gm_dma_ptr(d, q->cq + (q->tail - 1) * 16 + 14)) >> 1);
}

static bool nvme_is_ready(GmDma *d)
{
    return gm_dma_get32(d, NVME_REG_CSTS) & 1;
}

static void start_nvme(GmDma *d)
{
    unsigned i;

    for (i = 0; i < 2; i++) {
        nvme.queue[i] = (Queue) { i, d->at[2 * i], d->at[2 * i + 1] };
        memset(gm_dma_ptr(d, d->at[2 * i + 1]), 0, NVME_ENTRIES * 16);
    }
    gm_dma_set32(d, NVME_REG_CC, 0);
    gm_dma_set32(d, NVME_REG_AQA,
                 (NVME_ENTRIES - 1) << 16 | (NVME_ENTRIES - 1));
    gm_dma_set64(d, NVME_REG_ASQ, d->at[NVME_SQ]);
    gm_dma_set64(d, NVME_REG_ACQ, d->at[NVME_CQ]);
    gm_dma_set32(d, NVME_REG_CC, 4 << 20 | 6 << 16 | 1);
    gm_dma_wait(d, nvme_is_ready);
}

static bool request_nvme(GmDma *d)
{
    const uint32_t entries = (NVME_ENTRIES - 1) << 16 | 1;
    const uint64_t data = d->at[NVME_DATA], next = ROUND_UP(data + 1, 4096);
    const unsigned size = NVME_BLOCKS * 512;
    unsigned i;

    if (!nvme_command(d, &nvme.queue[0], NVME_ADM_CMD_CREATE_CQ,
                      d->at[NVME_IO_CQ], 0, entries, 1) ||
        !nvme_command(d, &nvme.queue[0], NVME_ADM_CMD_CREATE_SQ,
                      d->at[NVME_IO_SQ], 0, entries, 1 << 16 | 1)) {
        return false;
    }
    for (i = 0; i < NVME_BLOCKS * 512 / 4096; i++) {
        stq_le_p(gm_dma_ptr(d, d->at[NVME_LIST] + 8 * i), next + i * 4096);
    }
    put_data(d, data, size);
    return nvme_command(d, &nvme.queue[1],
                        d->driver->write ? NVME_CMD_WRITE : NVME_CMD_READ,
                        data, d->at[NVME_LIST], 0, 0) &&
           is_right(d, data, size);
}

/* --- ahci -------------------------------------------------------------- */

enum { AHCI_LIST, AHCI_FIS, AHCI_TABLE, AHCI_DATA };

#define AHCI_PORT       0x100
#define AHCI_SIZE       8192

static bool ahci_is_done(GmDma *d)
{
    const uint32_t status = gm_dma_get32(d, AHCI_PORT + 0x20);

    return status & 1 ||
           (!(gm_dma_get32(d, AHCI_PORT + 0x38) & 1) && !(status & 0x88));
}

static void init_ahci(GmDma *d)
{
    d->bar = qpci_iomap(d->pci, 5, NULL);
}

static void start_ahci(GmDma *d)
{
    gm_dma_set32(d, 0x04, 1);
    gm_dma_set32(d, 0x04, 1u << 31);
    gm_dma_set32(d, AHCI_PORT + 0x18, 0);
    gm_dma_set64(d, AHCI_PORT + 0x00, d->at[AHCI_LIST]);
    gm_dma_set64(d, AHCI_PORT + 0x08, d->at[AHCI_FIS]);
    gm_dma_set32(d, AHCI_PORT + 0x30, ~0u);
    gm_dma_set32(d, AHCI_PORT + 0x10, ~0u);
    gm_dma_set32(d, AHCI_PORT + 0x18, 1 << 4);
    gm_dma_set32(d, AHCI_PORT + 0x18, 1 << 4 | 1);
}

/* READ DMA EXT or WRITE DMA EXT, with two descriptors. */
static bool request_ahci(GmDma *d)
{
    const uint8_t fis[] = {
        0x27, 0x80, d->driver->write ? 0x35 : 0x25, 0, 0, 0, 0, 0x40,
        [12] = AHCI_SIZE / 512
    };
    uint8_t *list = gm_dma_ptr(d, d->at[AHCI_LIST]);
    uint8_t *table = gm_dma_ptr(d, d->at[AHCI_TABLE]);
    unsigned i;

    memset(list, 0, 32);
    stw_le_p(list, 5 | (d->driver->write ? 1 << 6 : 0));
    stw_le_p(list + 2, 2);
    stq_le_p(list + 8, d->at[AHCI_TABLE]);
    memset(table, 0, 0x80 + 2 * 16);
    memcpy(table, fis, sizeof(fis));
    for (i = 0; i < 2; i++) {
        stq_le_p(table + 0x80 + 16 * i, d->at[AHCI_DATA] + i * AHCI_SIZE / 2);
        stl_le_p(table + 0x8c + 16 * i, AHCI_SIZE / 2 - 1);
    }
    put_data(d, d->at[AHCI_DATA], AHCI_SIZE);
    gm_dma_go(d);
    gm_dma_set32(d, AHCI_PORT + 0x38, 1);
    return gm_dma_wait(d, ahci_is_done) &&
           !(gm_dma_get32(d, AHCI_PORT + 0x20) & 1) &&
           !(gm_dma_get32(d, AHCI_PORT + 0x10) & 0x7f000000) &&
           ldl_le_p(list + 4) == AHCI_SIZE &&
           is_right(d, d->at[AHCI_DATA], AHCI_SIZE);
}

/* --- sdhci ------------------------------------------------------------- */

enum { SD_TABLE, SD_DATA };

#define SD_BLOCKS       4

static void sd_command(GmDma *d, unsigned index, uint32_t argument,
                       unsigned flags, unsigned mode)
{
    qpci_io_writew(d->pci, d->bar, 0x30, 0xffff);
    qpci_io_writew(d->pci, d->bar, 0x32, 0xffff);
    qpci_io_writew(d->pci, d->bar, 0x04, 0x7000 | 512);
    qpci_io_writew(d->pci, d->bar, 0x06, SD_BLOCKS);
    gm_dma_set32(d, 0x08, argument);
    qpci_io_writew(d->pci, d->bar, 0x0c, mode);
    qpci_io_writew(d->pci, d->bar, 0x0e, index << 8 | flags);
}

static void start_sdhci(GmDma *d)
{
    qpci_io_writeb(d->pci, d->bar, 0x2f, 1);
    qpci_io_writew(d->pci, d->bar, 0x2c, 1);
    qpci_io_writew(d->pci, d->bar, 0x2c, 5);
    qpci_io_writeb(d->pci, d->bar, 0x29, 0xf);
    gm_dma_set32(d, 0x34, ~0u);
    sd_command(d, 0, 0, 0, 0);
    sd_command(d, 8, 0x1aa, 0x1a, 0);
    sd_command(d, 55, 0, 0x1a, 0);
    sd_command(d, 41, 0x41200000, 2, 0);
    sd_command(d, 2, 0, 9, 0);
    sd_command(d, 3, 0, 0x1a, 0);
    sd_command(d, 7, gm_dma_get32(d, 0x10) & 0xffff0000, 0x1b, 0);
}

static bool sd_is_done(GmDma *d)
{
    return qpci_io_readw(d->pci, d->bar, 0x30) & (1 << 15 | 1 << 1);
}

/* With ADMA2, of two descriptors, or with SDMA. */
static bool request_sdhci_with(GmDma *d, uint64_t data, bool adma)
{
    const unsigned size = SD_BLOCKS * 512;
    unsigned i;

    put_data(d, data, size);
    if (adma) {
        for (i = 0; i < 2; i++) {
            uint8_t *p = gm_dma_ptr(d, d->at[SD_TABLE] + 8 * i);

            stw_le_p(p, i ? 0x23 : 0x21);
            stw_le_p(p + 2, size / 2);
            stl_le_p(p + 4, data + i * size / 2);
        }
    }
    gm_dma_go(d);
    qpci_io_writeb(d->pci, d->bar, 0x28, adma ? 0x10 : 0);
    gm_dma_set32(d, adma ? 0x58 : 0x00, adma ? d->at[SD_TABLE] : data);
    sd_command(d, d->driver->write ? 25 : 18, 0, 0x3a,
               1 | 1 << 1 | 1 << 2 | 1 << 5 | (d->driver->write ? 0 : 1 << 4));
    return gm_dma_wait(d, sd_is_done) &&
           !(qpci_io_readw(d->pci, d->bar, 0x30) & 1 << 15) &&
           is_right(d, data, size);
}

static bool request_sdhci_adma(GmDma *d)
{
    return request_sdhci_with(d, d->at[SD_DATA], true);
}

static bool request_sdhci_sdma(GmDma *d)
{
    return request_sdhci_with(d, d->at[0], false);
}

/* --- drivers ----------------------------------------------------------- */

#define PCI     .devfn = QPCI_DEVFN(1, 0), .init = gm_dma_map_bar0
#define NVME    DISK "-device nvme,drive=d0,serial=1,addr=1"
#define AHCI    DISK "-device ide-hd,drive=d0,bus=ide.0"
#define SDHCI   DISK "-device sdhci-pci,sd-spec-version=3,addr=1 " \
                "-device sd-card,drive=d0"

#define NVME_AREAS { \
    { "admin submission queue", NVME_ENTRIES * 64, 4096 }, \
    { "admin completion queue", NVME_ENTRIES * 64, 4096 }, \
    { "submission queue", NVME_ENTRIES * 64, 4096 }, \
    { "completion queue", NVME_ENTRIES * 64, 4096, .separate = true }, \
    { "PRP list", 32, 8, .fails = true, \
      .used = NVME_BLOCKS * 512 / 4096 * 8 - 8 }, \
    { "data", NVME_BLOCKS * 512, 4, .separate = true, .fails = true } }

#define AHCI_AREAS { \
    { "command list", 1024, 1024, .held = true }, \
    { "received FIS", 256, 256, .held = true, .separate = true }, \
    { "command table", 0x80 + 2 * 16, 128 }, \
    { "data", AHCI_SIZE, 2, .separate = true, .fails = true } }

static const GmDriver drivers[] = {
    { "nvme-read", NVME, GM_DISK, PCI, .start = start_nvme,
      .request = request_nvme, .areas = NVME_AREAS },
    { "nvme-write", NVME, GM_DISK, PCI, .start = start_nvme,
      .request = request_nvme, .write = true, .areas = NVME_AREAS },
    { "ahci-read", AHCI, GM_DISK, .devfn = QPCI_DEVFN(31, 2),
      .init = init_ahci, .start = start_ahci, .request = request_ahci,
      .areas = AHCI_AREAS },
    { "ahci-write", AHCI, GM_DISK, .devfn = QPCI_DEVFN(31, 2),
      .init = init_ahci, .start = start_ahci, .request = request_ahci,
      .write = true, .areas = AHCI_AREAS },
    { "sdhci-adma-read", SDHCI, GM_DISK, PCI, .start = start_sdhci,
      .request = request_sdhci_adma, .areas = {
        { "table", 16, 4, .separate = true },
        { "data", SD_BLOCKS * 512, 4, .separate = true } } },
    { "sdhci-adma-write", SDHCI, GM_DISK, PCI, .start = start_sdhci,
      .request = request_sdhci_adma, .write = true, .areas = {
        { "table", 16, 4, .separate = true },
        { "data", SD_BLOCKS * 512, 4, .separate = true } } },
    { "sdhci-sdma-read", SDHCI, GM_DISK, PCI, .start = start_sdhci,
      .request = request_sdhci_sdma, .areas = {
        { "data", SD_BLOCKS * 512, 1, GM_IGNORED } } },
    { "sdhci-sdma-write", SDHCI, GM_DISK, PCI, .start = start_sdhci,
      .request = request_sdhci_sdma, .write = true, .areas = {
        { "data", SD_BLOCKS * 512, 1, GM_IGNORED } } },
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
