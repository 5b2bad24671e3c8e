/*
 * qtest: devices of a PC whose queues and buffers are in part private
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-dma.h"
#include "hw/net/e1000_regs.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/qemu_fw_cfg.h"

#define DATA_BYTE       0xa7
#define DISK    "-blockdev driver=file,node-name=f0,locking=off," \
                "filename=/proc/self/fd/%d " \
                "-blockdev driver=raw,node-name=d0,file=f0 "
#define NET     "-netdev dgram,id=n0,local.type=fd,local.str=%d "

static void set32(GmDma *d, unsigned offset, uint32_t value)
{
    qpci_io_writel(d->pci, d->bar, offset, value);
}

static uint32_t get32(GmDma *d, unsigned offset)
{
    return qpci_io_readl(d->pci, d->bar, offset);
}

static void set64(GmDma *d, unsigned offset, uint64_t value)
{
    set32(d, offset, value);
    set32(d, offset + 4, value >> 32);
}

static void map_bar0(GmDma *d)
{
    d->bar = qpci_iomap(d->pci, 0, NULL);
}

static void nothing(GmDma *d)
{
}

static void put_data(GmDma *d, uint64_t gpa, uint64_t size)
{
    gm_dma_put(d, gpa, size, DATA_BYTE);
}

/* Where all is shared, it must be right as well. */
static bool was_written(GmDma *d, uint64_t gpa, uint64_t size)
{
    return gm_window_is_byte(d->disk, size, DATA_BYTE) ||
           memchr(gm_dma_ptr(d, gpa), GM_CANARY, size);
}

static bool was_read(GmDma *d, uint64_t gpa, uint64_t size)
{
    return gm_window_is_byte(gm_dma_ptr(d, gpa), size, GM_DISK_BYTE) ||
           memchr(gm_dma_ptr(d, gpa), GM_CANARY, size);
}

/* --- fw_cfg ------------------------------------------------------------ */

enum { FW_CONTROL, FW_DATA };

/* The signature, and zeros after it. */
static bool request_fw_cfg(GmDma *d)
{
    struct fw_cfg_dma_access access = {
        .control = cpu_to_be32(FW_CFG_SIGNATURE << 16 |
                               FW_CFG_DMA_CTL_SELECT | FW_CFG_DMA_CTL_READ),
        .length = cpu_to_be32(d->driver->areas[FW_DATA].size),
        .address = cpu_to_be64(d->at[FW_DATA]),
    };

    memcpy(gm_dma_ptr(d, d->at[FW_CONTROL]), &access, sizeof(access));
    gm_dma_go(d);
    qtest_outl(d->qts, 0x514, bswap32(d->at[FW_CONTROL] >> 32));
    qtest_outl(d->qts, 0x518, bswap32(d->at[FW_CONTROL]));
    return !ldl_be_p(gm_dma_ptr(d, d->at[FW_CONTROL])) &&
           !memcmp(gm_dma_ptr(d, d->at[FW_DATA]), "QEMU", 4);
}

/* --- edu: no errors ---------------------------------------------------- */

#define EDU_BUFFER      0x40000
#define EDU_RUN         1
#define EDU_TO_MEMORY   2

static void edu_copy(GmDma *d, uint64_t from, uint64_t to, unsigned size,
                     unsigned command)
{
    set64(d, 0x80, from);
    set64(d, 0x88, to);
    set64(d, 0x90, size);
    set32(d, 0x98, EDU_RUN | command);
    while (get32(d, 0x98) & EDU_RUN) {
        qtest_clock_step(d->qts, 100000000);
    }
}

static bool request_edu(GmDma *d)
{
    const unsigned size = d->driver->areas[0].size;

    put_data(d, d->at[0], size);
    gm_dma_go(d);
    edu_copy(d, d->at[0], EDU_BUFFER, size, 0);
    edu_copy(d, EDU_BUFFER, d->at[1], size, EDU_TO_MEMORY);
    return gm_window_is_byte(gm_dma_ptr(d, d->at[1]), size, DATA_BYTE);
}

/* --- e1000e ------------------------------------------------------------ */

enum { NET_RING, NET_DATA };

#define NET_DESCS       16
#define PACKET_SIZE     256

static void start_e1000e(GmDma *d)
{
    set32(d, E1000_CTRL, E1000_CTRL_RST);
    set32(d, E1000_CTRL, E1000_CTRL_SLU);
    set64(d, E1000_TDBAL, d->at[NET_RING]);
    set32(d, E1000_TDLEN, NET_DESCS * 16);
    set64(d, E1000_RDBAL, d->at[NET_RING]);
    set32(d, E1000_RDLEN, NET_DESCS * 16);
    set32(d, E1000_TCTL, E1000_TCTL_EN);
}

static bool net_is_done(GmDma *d)
{
    return gm_dma_ptr(d, d->at[NET_RING])[12] & 1;
}

static bool request_e1000e_receive(GmDma *d)
{
    uint8_t packet[PACKET_SIZE];
    unsigned i;

    memset(packet, 0xff, 6);
    memset(packet + 6, DATA_BYTE, sizeof(packet) - 6);
    for (i = 0; i < NET_DESCS; i++) {
        uint8_t *p = gm_dma_ptr(d, d->at[NET_RING] + 16 * i);

        memset(p, 0, 16);
        stq_le_p(p, d->at[NET_DATA]);
    }
    gm_dma_go(d);
    set32(d, E1000_RCTL, E1000_RCTL_EN | E1000_RCTL_UPE | E1000_RCTL_MPE |
                         E1000_RCTL_BAM | E1000_RCTL_SECRC);
    set32(d, E1000_RDT, NET_DESCS - 1);
    g_assert_cmpint(send(d->net, packet, sizeof(packet), 0), ==,
                    sizeof(packet));
    return gm_dma_wait(d, net_is_done) &&
           !memcmp(gm_dma_ptr(d, d->at[NET_DATA]), packet, sizeof(packet));
}

/* --- xhci -------------------------------------------------------------- */

enum { XHCI_COMMANDS, XHCI_SEGMENTS, XHCI_EVENTS, XHCI_CONTEXTS, XHCI_INPUT,
       XHCI_OUTPUT };

#define XHCI_OPER       0x40
#define XHCI_INTR       0x1020
#define XHCI_DOORBELL   0x2000
#define XHCI_TRBS       16
#define XHCI_NO_OPS     10
#define XHCI_USED       ((XHCI_NO_OPS + 2) * 16)
#define XHCI_SLOT       9
#define XHCI_ADDRESS    11
#define XHCI_NO_OP      23
#define XHCI_COMPLETION 33

static void xhci_command(GmDma *d, unsigned index, uint64_t parameter,
                         unsigned type, uint32_t flags)
{
    uint8_t *p = gm_dma_ptr(d, d->at[XHCI_COMMANDS] + 16 * index);

    stq_le_p(p, parameter);
    stl_le_p(p + 8, 0);
    stl_le_p(p + 12, type << 10 | flags | 1);
}

static void start_xhci(GmDma *d)
{
    uint8_t *segment = gm_dma_ptr(d, d->at[XHCI_SEGMENTS]);

    set32(d, XHCI_OPER, 2);
    set32(d, XHCI_OPER + 0x38, 8);
    set64(d, XHCI_OPER + 0x30, d->at[XHCI_CONTEXTS]);
    set64(d, XHCI_OPER + 0x18, d->at[XHCI_COMMANDS] | 1);
    stq_le_p(segment, d->at[XHCI_EVENTS]);
    stl_le_p(segment + 8, XHCI_TRBS);
    set32(d, XHCI_INTR + 0x08, 1);
    set64(d, XHCI_INTR + 0x10, d->at[XHCI_SEGMENTS]);
    set64(d, XHCI_INTR + 0x18, d->at[XHCI_EVENTS]);
    gm_dma_go(d);
    set32(d, XHCI_OPER, 1);
}

/* The port that the keyboard is at, from 1. */
static unsigned xhci_port(GmDma *d)
{
    unsigned i;

    for (i = 0; !(get32(d, XHCI_OPER + 0x400 + 16 * i) & 1); i++) {
        g_assert_cmpuint(i, <, 8);
    }
    return i + 1;
}

static unsigned xhci_completions(GmDma *d)
{
    unsigned i, count = 0;

    for (i = 0; i < XHCI_TRBS; i++) {
        const uint8_t *p = gm_dma_ptr(d, d->at[XHCI_EVENTS] + 16 * i);

        count += (ldl_le_p(p + 12) >> 10 & 63) == XHCI_COMPLETION &&
                 p[11] == 1;
    }
    return count;
}

static bool xhci_is_done(GmDma *d)
{
    return xhci_completions(d) == XHCI_NO_OPS + 2;
}

/* A slot gets an address, without a word to the keyboard; and no-ops. */
static bool request_xhci(GmDma *d)
{
    uint8_t *input = gm_dma_ptr(d, d->at[XHCI_INPUT]);
    unsigned i;

    memset(input, 0, 96);
    stl_le_p(input + 4, 3);
    stl_le_p(input + 32, 1 << 27);
    stl_le_p(input + 36, xhci_port(d) << 16);
    stl_le_p(input + 68, 4 << 3 | 8 << 16);
    stq_le_p(input + 72, (GM_GPA - GM_PAGE) | 1);
    stq_le_p(gm_dma_ptr(d, d->at[XHCI_CONTEXTS] + 8), d->at[XHCI_OUTPUT]);

    xhci_command(d, 0, 0, XHCI_SLOT, 0);
    xhci_command(d, 1, d->at[XHCI_INPUT], XHCI_ADDRESS, 1 << 24 | 1 << 9);
    for (i = 2; i < XHCI_NO_OPS + 2; i++) {
        xhci_command(d, i, 0, XHCI_NO_OP, 0);
    }
    gm_dma_go(d);
    set32(d, XHCI_DOORBELL, 0);
    return gm_dma_wait(d, xhci_is_done) &&
           !(get32(d, XHCI_OPER + 4) & (1 << 12 | 1 << 2));
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
    set32(d, 0x08, argument);
    qpci_io_writew(d->pci, d->bar, 0x0c, mode);
    qpci_io_writew(d->pci, d->bar, 0x0e, index << 8 | flags);
}

static void start_sdhci(GmDma *d)
{
    qpci_io_writeb(d->pci, d->bar, 0x2f, 1);
    qpci_io_writew(d->pci, d->bar, 0x2c, 1);
    qpci_io_writew(d->pci, d->bar, 0x2c, 5);
    qpci_io_writeb(d->pci, d->bar, 0x29, 0xf);
    set32(d, 0x34, ~0u);
    sd_command(d, 0, 0, 0, 0);
    sd_command(d, 8, 0x1aa, 0x1a, 0);
    sd_command(d, 55, 0, 0x1a, 0);
    sd_command(d, 41, 0x41200000, 2, 0);
    sd_command(d, 2, 0, 9, 0);
    sd_command(d, 3, 0, 0x1a, 0);
    sd_command(d, 7, get32(d, 0x10) & 0xffff0000, 0x1b, 0);
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
    set32(d, adma ? 0x58 : 0x00, adma ? d->at[SD_TABLE] : data);
    sd_command(d, d->driver->write ? 25 : 18, 0, 0x3a,
               1 | 1 << 1 | 1 << 2 | 1 << 5 | (d->driver->write ? 0 : 1 << 4));
    return gm_dma_wait(d, sd_is_done) &&
           !(qpci_io_readw(d->pci, d->bar, 0x30) & 1 << 15) &&
           (d->driver->write ? was_written(d, data, size) :
            was_read(d, data, size));
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

#define PCI     .devfn = QPCI_DEVFN(1, 0), .init = map_bar0
#define E1000E  NET "-device e1000e,netdev=n0,addr=1"

#define XHCI    "-device qemu-xhci,id=x0,addr=1 -device usb-kbd,bus=x0.0"
#define SDHCI   DISK "-device sdhci-pci,sd-spec-version=3,addr=1 " \
                "-device sd-card,drive=d0"

static const GmDriver drivers[] = {
    { "fw-cfg", "", .start = nothing, .request = request_fw_cfg,
      .areas = { { "control", 16, 1 }, { "data", 512, 1 } } },
    { "edu", "-device edu,addr=1", PCI, .start = nothing,
      .request = request_edu, .areas = {
        { "source", 4096, 64, GM_IGNORED },
        { "destination", 4096, 64, GM_IGNORED } } },
    { "e1000e-receive", E1000E, GM_NET, PCI, .start = start_e1000e,
      .request = request_e1000e_receive, .areas = {
        { "ring", NET_DESCS * 16, 16, .used = 16 },
        { "packet", PACKET_SIZE, 1 } } },
    { "xhci", XHCI, PCI, .start = start_xhci, .request = request_xhci,
      .areas = {
        { "command ring", XHCI_TRBS * 16, 64, .used = XHCI_USED },
        { "segment table", 64, 64 },
        { "event ring", XHCI_TRBS * 16, 64, .used = XHCI_USED },
        { "device contexts", 128, 64, GM_IGNORED },
        { "input context", 128, 64, .used = 96 },
        { "output context", 128, 64, .used = 64 } } },
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
