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

static void nothing(GmDma *d)
{
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
    gm_dma_set64(d, 0x80, from);
    gm_dma_set64(d, 0x88, to);
    gm_dma_set64(d, 0x90, size);
    gm_dma_set32(d, 0x98, EDU_RUN | command);
    while (gm_dma_get32(d, 0x98) & EDU_RUN) {
        qtest_clock_step(d->qts, 100000000);
    }
}

static bool request_edu(GmDma *d)
{
    const unsigned size = d->driver->areas[0].size;

    gm_dma_put(d, d->at[0], size, DATA_BYTE);
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
    gm_dma_set32(d, E1000_CTRL, E1000_CTRL_RST);
    gm_dma_set32(d, E1000_CTRL, E1000_CTRL_SLU);
    gm_dma_set64(d, E1000_TDBAL, d->at[NET_RING]);
    gm_dma_set32(d, E1000_TDLEN, NET_DESCS * 16);
    gm_dma_set64(d, E1000_RDBAL, d->at[NET_RING]);
    gm_dma_set32(d, E1000_RDLEN, NET_DESCS * 16);
    gm_dma_set32(d, E1000_TCTL, E1000_TCTL_EN);
}

static bool net_is_done(GmDma *d)
{
    return gm_dma_ptr(d, d->at[NET_RING])[12] & 1;
}

/* Legacy descriptors, all of them used: the last one is waited for. */
static bool request_e1000e_send(GmDma *d)
{
    uint8_t packet[2 * PACKET_SIZE];
    ssize_t size;
    bool done;
    unsigned i;

    gm_dma_put(d, d->at[NET_DATA], PACKET_SIZE, DATA_BYTE);
    for (i = 0; i < NET_DESCS - 1; i++) {
        uint8_t *p = gm_dma_ptr(d, d->at[NET_RING] + 16 * i);

        memset(p, 0, 16);
        stq_le_p(p, d->at[NET_DATA]);
        stw_le_p(p + 8, PACKET_SIZE);
        p[11] = 1 | 2 | 8;
    }
    gm_dma_go(d);
    gm_dma_set32(d, E1000_TDT, NET_DESCS - 1);
    done = gm_dma_wait(d, net_is_done);
    for (i = 0; (size = recv(d->net, packet, sizeof(packet),
                             MSG_DONTWAIT)) > 0; i++) {
        if (gm_window_has_canary(packet, size, 1)) {
            g_test_message("private bytes were sent");
            g_test_fail();
        }
        done = done && size == PACKET_SIZE;
    }
    return done && i == NET_DESCS - 1;
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
    gm_dma_set32(d, E1000_RCTL, E1000_RCTL_EN | E1000_RCTL_UPE |
                 E1000_RCTL_MPE | E1000_RCTL_BAM | E1000_RCTL_SECRC);
    gm_dma_set32(d, E1000_RDT, NET_DESCS - 1);
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

    gm_dma_set32(d, XHCI_OPER, 2);
    gm_dma_set32(d, XHCI_OPER + 0x38, 8);
    gm_dma_set64(d, XHCI_OPER + 0x30, d->at[XHCI_CONTEXTS]);
    gm_dma_set64(d, XHCI_OPER + 0x18, d->at[XHCI_COMMANDS] | 1);
    stq_le_p(segment, d->at[XHCI_EVENTS]);
    stl_le_p(segment + 8, XHCI_TRBS);
    gm_dma_set32(d, XHCI_INTR + 0x08, 1);
    gm_dma_set64(d, XHCI_INTR + 0x10, d->at[XHCI_SEGMENTS]);
    gm_dma_set64(d, XHCI_INTR + 0x18, d->at[XHCI_EVENTS]);
    gm_dma_go(d);
    gm_dma_set32(d, XHCI_OPER, 1);
}

/* The port that the keyboard is at, from 1. */
static unsigned xhci_port(GmDma *d)
{
    unsigned i;

    for (i = 0; !(gm_dma_get32(d, XHCI_OPER + 0x400 + 16 * i) & 1); i++) {
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
    gm_dma_set32(d, XHCI_DOORBELL, 0);
    return gm_dma_wait(d, xhci_is_done) &&
           !(gm_dma_get32(d, XHCI_OPER + 4) & (1 << 12 | 1 << 2));
}

/* --- drivers ----------------------------------------------------------- */

#define PCI     .devfn = QPCI_DEVFN(1, 0), .init = gm_dma_map_bar0
#define NET     "-netdev dgram,id=n0,local.type=fd,local.str=%d "
#define E1000E  NET "-device e1000e,netdev=n0,addr=1"
#define XHCI    "-device qemu-xhci,id=x0,addr=1 -device usb-kbd,bus=x0.0"

static const GmDriver drivers[] = {
    { "fw-cfg", "", .goes_on = true, .start = nothing,
      .request = request_fw_cfg,
      .areas = { { "control", 16, 1 }, { "data", 512, 1 } } },
    { "edu", "-device edu,addr=1", PCI, .goes_on = true, .start = nothing,
      .request = request_edu, .areas = {
        { "source", 4096, 64, GM_IGNORED },
        { "destination", 4096, 64, GM_IGNORED } } },
    { "e1000e-send", E1000E, GM_NET, PCI, .start = start_e1000e,
      .request = request_e1000e_send, .areas = {
        { "ring", NET_DESCS * 16, 16, .used = (NET_DESCS - 1) * 16 },
        { "packet", PACKET_SIZE, 1 } } },
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
