/*
 * A table of the memory that devices access, at borders to private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_GUEST_MEMFD_DMA_H
#define TESTS_QTEST_GUEST_MEMFD_DMA_H

#include "guest-memfd-util.h"
#include "guest-memfd-window.h"
#include "libqos/pci-pc.h"

#define GM_AREAS_MAX    8
#define GM_DISK_SIZE    (64 * KiB)
#define GM_DISK_BYTE    0x11

/* Memory that a request of the device needs. */
typedef struct GmArea {
    const char *name;
    unsigned size;
    unsigned step;              /* where it begins is a multiple of this */
    enum {
        GM_REFUSED,             /* private: the request is not done */
        GM_IGNORED,             /* the device cannot know: it continues */
        GM_HARMLESS,            /* the bytes do not matter: it is done */
    } private;
    bool held;                  /* by the device, from start() on */
    bool fails;                 /* private: the device says so */
    bool needs_reset;           /* the driver has no other way to know */
    bool separate;              /* earlier parts were done by then */
    unsigned used;              /* its first bytes; 0: all */
} GmArea;

typedef struct GmDma GmDma;

typedef struct GmDriver {
    const char *name;
    const char *args;           /* %d: a disk or a network */
    enum { GM_NOTHING, GM_DISK, GM_NET } backend;
    uint8_t devfn;              /* 0: no PCI device */
    unsigned queue;             /* of the driver's own */
    bool write;
    bool goes_on;               /* without a reset, if no ring was private */
    GmArea areas[GM_AREAS_MAX];

    /* Once, after QEMU has started. */
    void (*init)(GmDma *d);
    /* Resets the device, and passes it the memory at @d->at. */
    void (*start)(GmDma *d);
    /*
     * Makes a request; calls gm_dma_go() before the device can know of it.
     * Returns true if the device says that it is done and did it.
     */
    bool (*request)(GmDma *d);
    /* Before QEMU ends. */
    void (*fini)(GmDma *d);
} GmDriver;

struct GmDma {
    const GmDriver *driver;
    QTestState *qts;
    uint8_t *ram;               /* the guest's memory, private pages, too */
    uint8_t *disk;
    int net;
    QPCIBus *bus;
    QPCIDevice *pci;
    QPCIBar bar;
    QGuestAllocator alloc;
    void *opaque;
    uint64_t at[GM_AREAS_MAX];  /* guest-physical, one of each area */
    /* The contents of the private pages when the device starts. */
    uint8_t *snapshot;
    uint64_t private;           /* where they begin, 0: none */
    bool refused;               /* need nothing happen? */
    bool answered;              /* the last time that the device was awaited */
    unsigned cells;
    unsigned failures;
    bool stuck;                 /* the device does not unmap memory */
};

/* The bytes at guest-physical @gpa. */
static inline uint8_t *gm_dma_ptr(GmDma *d, uint64_t gpa)
{
    return d->ram + gpa;
}

void gm_dma_go(GmDma *d);
/* A guest has no secrets in what it sends: @byte where memory is shared. */
void gm_dma_put(GmDma *d, uint64_t gpa, uint64_t size, uint8_t byte);
/* Lets time go by until @done, for a while; returns whether it is. */
bool gm_dma_wait(GmDma *d, bool (*done)(GmDma *d));

/* Registers in @d->bar, and init() for devices that have them in BAR 0. */
void gm_dma_set32(GmDma *d, unsigned offset, uint32_t value);
void gm_dma_set64(GmDma *d, unsigned offset, uint64_t value);
uint32_t gm_dma_get32(GmDma *d, unsigned offset);
void gm_dma_map_bar0(GmDma *d);

/* Adds the test /guest-memfd/dma/NAME. */
void gm_dma_add(const GmDriver *driver);
/* Prints the number of cells; returns @status. */
int gm_dma_end(int status);

#endif /* TESTS_QTEST_GUEST_MEMFD_DMA_H */
