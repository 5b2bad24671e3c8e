/*
 * The device's end of a vfio-user socket
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A PCI device that does nothing.  Its use is that QEMU has a VFIO container
 * then, whose mappings of guest memory follow conversions.
 */
#include <linux/vfio.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vfio-user.h"

/* Protocol: QEMU's docs/interop/vfio-user.rst. */
enum {
    VERSION = 1, DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION_INFO,
    GET_REGION_IO_FDS, GET_IRQ_INFO, SET_IRQS, REGION_READ, REGION_WRITE,
};

#define REPLY           0x1
#define NO_REPLY        0x10
#define FAILED          0x20
#define CAPABILITIES    "{\"capabilities\":{}}"
#define CONFIG_SIZE     256
#define BAR_SIZE        4096    /* it reads as zeros */
#define BODY_MAX        65536

struct header {
    uint16_t id, command;
    uint32_t size, flags, error;
};

struct access {
    uint64_t offset;
    uint32_t region, count;
};

struct dma_map {
    uint32_t argsz, flags;
    uint64_t offset, iova, size;
};

struct dma_unmap {
    uint32_t argsz, flags;
    uint64_t iova, size;
};

struct message {
    struct header header;
    union {
        char body[BODY_MAX];
        struct dma_map map;
        struct dma_unmap unmap;
        struct vfio_device_info device;
        struct vfio_region_info region;
        struct vfio_irq_info irq;
        struct access access;
    };
};

/* Vendor, device and class: nothing that a guest has a driver for. */
static const uint8_t config[CONFIG_SIZE] = {
    [0] = 0x34, 0x12, 0xde, 0xc0, [11] = 0xff,
};

static int transfer(int fd, void *data, size_t size, int out)
{
    char *p = data;
    ssize_t n;

    for (; size; size -= n, p += n) {
        n = out ? write(fd, p, size) : read(fd, p, size);
        if (n <= 0) {
            return 0;
        }
    }
    return 1;
}

/* File descriptors that come along are dropped by read(). */
static int receive(int fd, struct message *message)
{
    struct header *header = &message->header;

    if (!transfer(fd, header, sizeof(*header), 0) ||
        header->size < sizeof(*header) ||
        header->size > sizeof(*header) + BODY_MAX) {
        return 0;
    }
    return transfer(fd, message->body, header->size - sizeof(*header), 0);
}

static size_t read_region(struct message *message)
{
    struct access *access = &message->access;

    if (access->region == VFIO_PCI_BAR0_REGION_INDEX &&
        access->count <= sizeof(uint64_t)) {
        memset(access + 1, 0, access->count);
        return sizeof(*access) + access->count;
    }
    if (access->count > CONFIG_SIZE ||
        access->offset > CONFIG_SIZE - access->count) {
        access->count = 0;
    }
    memcpy(access + 1, config + access->offset, access->count);
    return sizeof(*access) + access->count;
}

/* The size of the answer's body. */
static size_t answer(struct message *message)
{
    switch (message->header.command) {
    case VERSION:
        memset(message->body, 0, 4);
        strcpy(message->body + 4, CAPABILITIES);
        return 4 + sizeof(CAPABILITIES);
    case GET_INFO:
        message->device.flags = VFIO_DEVICE_FLAGS_PCI;
        message->device.num_regions = VFIO_PCI_NUM_REGIONS;
        message->device.num_irqs = VFIO_PCI_NUM_IRQS;
        return 16;
    case GET_REGION_INFO:
        message->region.flags = 0;
        message->region.size = 0;
        if (message->region.index == VFIO_PCI_CONFIG_REGION_INDEX) {
            message->region.flags = VFIO_REGION_INFO_FLAG_READ |
                                    VFIO_REGION_INFO_FLAG_WRITE;
            message->region.size = CONFIG_SIZE;
        }
        if (message->region.index == VFIO_PCI_BAR0_REGION_INDEX) {
            message->region.flags = VFIO_REGION_INFO_FLAG_READ |
                                    VFIO_REGION_INFO_FLAG_WRITE;
            message->region.size = BAR_SIZE;
        }
        message->region.argsz = sizeof(message->region);
        message->region.cap_offset = 0;
        message->region.offset = 0;
        return sizeof(message->region);
    case GET_IRQ_INFO:
        message->irq.flags = 0;
        message->irq.count = 0;
        return sizeof(message->irq);
    case REGION_READ:
        return read_region(message);
    case REGION_WRITE:
        return sizeof(message->access);
    default:
        return message->header.size - sizeof(message->header);
    }
}

/* The answer of the device, if it has a callback. */
static int notify_device(const struct message *message,
                         const struct vfio_user_device *device)
{
    switch (message->header.command) {
    case DMA_MAP:
        return device->map ? device->map(device->opaque, message->map.iova,
                                         message->map.size) : 0;
    case DMA_UNMAP:
        return device->unmap ? device->unmap(device->opaque,
                                             message->unmap.iova,
                                             message->unmap.size) : 0;
    case REGION_READ:
        return device->read ? device->read(device->opaque,
                                           message->access.region,
                                           message->access.offset) : 0;
    default:
        return 0;
    }
}

/* QEMU has read the header, and waits for the rest. */
static void answer_in_part(int fd, struct header *header)
{
    int unread = 1;

    transfer(fd, header, sizeof(*header), 1);
    while (unread && !ioctl(fd, TIOCOUTQ, &unread)) {
        usleep(1000);
    }
    usleep(100000);
}

/* Its data look as the answer that QEMU waits for. */
static void answer_late(int fd, struct header header)
{
    struct header late[2] = { header, header };

    late[0].id ^= 0x8000;
    late[0].size = sizeof(late);
    late[1].size = sizeof(header);
    transfer(fd, late, sizeof(late), 1);
}

static void wait_to_be_killed(void)
{
    for (;;) {
        pause();
    }
}

static void end_in_answer(int fd, struct message *message, int how)
{
    switch (how) {
    case VFIO_USER_DIE:
        answer_in_part(fd, &message->header);
        raise(SIGKILL);
        break;
    case VFIO_USER_STALL:
        answer_in_part(fd, &message->header);
        break;
    case VFIO_USER_LATE:
        answer_late(fd, message->header);
        break;
    case VFIO_USER_DEAF:
        shutdown(fd, SHUT_RD);
        transfer(fd, message, message->header.size, 1);
        break;
    }
    wait_to_be_killed();
}

static void talk(int fd, const struct vfio_user_device *device)
{
    struct message message;
    struct header *header = &message.header;

    while (receive(fd, &message)) {
        int error = notify_device(&message, device);

        if (header->flags & NO_REPLY) {
            continue;
        }
        header->size = sizeof(*header) + answer(&message);
        header->flags = REPLY | (error ? FAILED : 0);
        header->error = error;
        if (error < 0) {
            header->flags = REPLY;
            header->error = 0;
            end_in_answer(fd, &message, error);
        }
        if (!transfer(fd, &message, header->size, 1)) {
            break;
        }
    }
}

int vfio_user_serve(int listener, const struct vfio_user_device *device)
{
    int fd = accept(listener, NULL, NULL);

    if (fd < 0) {
        return -1;
    }
    talk(fd, device);
    close(fd);
    return 0;
}
