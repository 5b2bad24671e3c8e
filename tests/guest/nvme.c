/*
 * NVMe: one queue for commands to the controller, one for blocks, polled
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"

#define CC              0x14
#define CSTS            0x1c
#define AQA             0x24
#define ASQ             0x28
#define ACQ             0x30
#define DOORBELLS       0x1000

#define CC_ENABLE       0x00460001      /* entries of 64 and 16 bytes */
#define CSTS_READY      1

#define CREATE_SQ       1
#define CREATE_CQ       5
#define IDENTIFY        6
#define WRITE           1
#define READ            2

#define DEPTH           32
#define LISTS           NVME_DEPTH      /* of pages, one for each command */
#define WAIT_MAX_US     (120 * 1000000UL)    /* on a busy machine */

struct command {
    uint32_t opcode;            /* and the command's number << 16 */
    uint32_t nsid;
    uint64_t reserved[2];
    uint64_t prp[2];
    uint32_t cdw[6];
};

struct completion {
    uint32_t result[2];
    uint16_t head, queue;
    uint16_t id, status;
};

struct queue {
    volatile struct command *commands;          /* read by the device */
    volatile struct completion *completions;    /* written by it */
    unsigned tail, head, phase, in_flight;
    unsigned number;
};

static uint64_t base;
static unsigned stride;
static struct queue queues[2];

static uint32_t reg_read(unsigned reg)
{
    return *(volatile uint32_t *)(base + reg);  /* a register */
}

static void reg_write(unsigned reg, uint32_t value)
{
    *(volatile uint32_t *)(base + reg) = value; /* a register */
}

static void doorbell(unsigned index, unsigned value)
{
    reg_write(DOORBELLS + index * stride, value);
}

static bool wait_ready(unsigned ready)
{
    uint64_t end = clock_us() + WAIT_MAX_US;

    while ((reg_read(CSTS) & CSTS_READY) != ready) {
        if (clock_us() > end) {
            return false;
        }
    }
    return true;
}

static void submit(struct queue *q, const struct command *command)
{
    q->commands[q->tail] = *command;
    q->tail = (q->tail + 1) % DEPTH;
    q->in_flight++;
    asm volatile("" : : : "memory");
    doorbell(2 * q->number, q->tail);
}

/* The status of the next command that ends, or -1: none in that time. */
static int complete(struct queue *q, uint64_t wait_us)
{
    volatile struct completion *c = &q->completions[q->head]; /* see above */
    uint64_t end = clock_us() + wait_us;
    int status;

    while ((c->status & 1) != q->phase) {
        if (clock_us() > end) {
            return -1;
        }
    }
    status = c->status >> 1;
    q->head = (q->head + 1) % DEPTH;
    q->phase ^= !q->head;
    q->in_flight--;
    doorbell(2 * q->number + 1, q->head);
    return status;
}

static void queue_init(unsigned number)
{
    uint64_t at = NVME_MEMORY + number * 2 * PAGE, i;

    for (i = 0; i < 2 * PAGE; i += 8) {
        mem_write(at + i, 0);
    }
    queues[number] = (struct queue) {
        .commands = (void *)at, .completions = (void *)(at + PAGE),
        .phase = 1, .number = number,
    };
}

static int admin(uint32_t opcode, uint64_t prp, uint32_t cdw10,
                 uint32_t cdw11)
{
    struct command command = {
        .opcode = opcode, .prp = { prp, 0 }, .cdw = { cdw10, cdw11 },
    };

    submit(&queues[0], &command);
    return complete(&queues[0], WAIT_MAX_US);
}

bool nvme_init(unsigned bdf)
{
    uint64_t memory = NVME_MEMORY;
    const uint32_t shape = (DEPTH - 1) << 16 | 1;

    base = pci_enable(bdf);
    stride = 4 << (mem_read(base) >> 32 & 15);  /* CAP.DSTRD */
    reg_write(CC, 0);
    if (!wait_ready(0)) {
        return false;
    }
    queue_init(0);
    queue_init(1);
    reg_write(AQA, (DEPTH - 1) << 16 | (DEPTH - 1));
    reg_write(ASQ, memory);
    reg_write(ASQ + 4, 0);
    reg_write(ACQ, memory + PAGE);
    reg_write(ACQ + 4, 0);
    reg_write(CC, CC_ENABLE);
    return wait_ready(CSTS_READY) &&
           !admin(CREATE_CQ, memory + 3 * PAGE, shape, 1) &&
           !admin(CREATE_SQ, memory + 2 * PAGE, shape, 1 << 16 | 1);
}

/* 4096 bytes that are always the same; where the page is private, nothing. */
int nvme_identify(uint64_t gpa)
{
    return admin(IDENTIFY, gpa, 1, 0);
}

void nvme_identify_start(uint64_t gpa)
{
    struct command command = {
        .opcode = IDENTIFY, .prp = { gpa, 0 }, .cdw = { 1 },
    };

    submit(&queues[0], &command);
}

int nvme_identify_end(void)
{
    return complete(&queues[0], WAIT_MAX_US);
}

/* @pages of 4 KiB each, from or to block @lba, of 512 bytes. */
void nvme_start(bool write, uint64_t lba, const uint64_t *pages, unsigned n)
{
    struct queue *q = &queues[1];
    uint64_t list = NVME_MEMORY + (4 + q->tail % LISTS) * PAGE;
    struct command command = {
        .opcode = (write ? WRITE : READ) | q->tail << 16, .nsid = 1,
        .prp = { pages[0], n > 2 ? list : n > 1 ? pages[1] : 0 },
        .cdw = { lba, lba >> 32, n * (PAGE / 512) - 1 },
    };
    unsigned i;

    for (i = 1; n > 2 && i < n; i++) {
        mem_write(list + (i - 1) * 8, pages[i]);
    }
    submit(q, &command);
}

int nvme_end(void)
{
    return complete(&queues[1], WAIT_MAX_US);
}

int nvme_io(bool write, uint64_t lba, struct range range)
{
    uint64_t pages[NVME_PAGES_MAX];
    unsigned n;
    int ret = 0;

    for (; range.size && !ret; lba += n * (PAGE / 512)) {
        for (n = 0; n < NVME_PAGES_MAX && n * PAGE < range.size; n++) {
            pages[n] = range.gpa + n * PAGE;
        }
        nvme_start(write, lba, pages, n);
        ret = nvme_end();
        range.gpa += n * PAGE;
        range.size -= n * PAGE;
    }
    return ret;
}
