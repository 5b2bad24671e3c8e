/*
 * An assigned device that knows which memory it may use
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The other end of the socket of QEMU's vfio-user-pci, in a thread.
 */

#ifndef TESTS_QTEST_GUEST_MEMFD_DEVICE_H
#define TESTS_QTEST_GUEST_MEMFD_DEVICE_H

typedef struct GmDevice {
    char *dir;
    char *path;                 /* of the socket */
    int listener;
    GThread *thread;

    GMutex lock;
    GHashTable *pages;          /* that it may use, by their numbers */
    GHashTable *mappings;       /* address and size, by the address */
    unsigned maps;
    unsigned refuse;            /* this one of the next maps; 0: none */
    unsigned refused;
    bool keeps;                 /* its mappings: no unmapping succeeds */
} GmDevice;

void gm_device_init(GmDevice *d);
void gm_device_destroy(GmDevice *d);

/* Before QEMU is to connect, and after it has left or is about to. */
void gm_device_start(GmDevice *d);
void gm_device_join(GmDevice *d);

/* The part of the page at @address, or of [from, to), that it may use. */
bool gm_device_has(GmDevice *d, uint64_t address);
uint64_t gm_device_bytes(GmDevice *d, uint64_t from, uint64_t to);

/* It has no room for the next mapping but @which - 1. */
void gm_device_refuse(GmDevice *d, unsigned which);

/* From now on it keeps what it has, or no longer. */
void gm_device_keep(GmDevice *d, bool keeps);

#endif /* TESTS_QTEST_GUEST_MEMFD_DEVICE_H */
