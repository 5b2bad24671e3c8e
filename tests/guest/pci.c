/*
 * PCI: configuration, by ports, and the devices that the tests drive
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"

#define CONFIG_ADDRESS  0xcf8
#define CONFIG_DATA     0xcfc
#define CONFIG_ENABLE   0x80000000

#define VENDOR          0x00
#define COMMAND         0x04
#define HEADER          0x0c
#define BAR0            0x10
#define BUSES           0x18
#define WINDOW          0x20
#define CAPABILITIES    0x34

#define COMMAND_MEMORY_MASTER   6
#define CAP_EXPRESS     0x10
#define SLOT_CONTROL    0x18    /* and status, in the upper half */
#define POWER_OFF       0x0700  /* power off, its indicator, too */
#define POWER_ON        0x0100

static void select(unsigned bdf, unsigned reg)
{
    outl(CONFIG_ADDRESS, CONFIG_ENABLE | bdf << 8 | (reg & ~3));
}

uint32_t pci_read(unsigned bdf, unsigned reg)
{
    select(bdf, reg);
    return inl(CONFIG_DATA);
}

void pci_write(unsigned bdf, unsigned reg, uint32_t value)
{
    select(bdf, reg);
    outl(CONFIG_DATA, value);
}

unsigned pci_find(unsigned bus, uint32_t id)
{
    unsigned slot;

    for (slot = 0; slot < 32; slot++) {
        if (pci_read(bus << 8 | slot << 3, VENDOR) == id) {
            return bus << 8 | slot << 3;
        }
    }
    return PCI_NONE;
}

uint64_t pci_enable(unsigned bdf)
{
    uint32_t bar = pci_read(bdf, BAR0), high = pci_read(bdf, BAR0 + 4);

    pci_write(bdf, COMMAND, COMMAND_MEMORY_MASTER);
    return (bar & ~15u) | (bar & 4 ? (uint64_t)high << 32 : 0);
}

/* Behind a port, to which firmware has given a window of memory. */
uint64_t pci_enable_plugged(unsigned port, unsigned bdf)
{
    pci_write(port, COMMAND, COMMAND_MEMORY_MASTER);
    pci_write(bdf, BAR0, (pci_read(port, WINDOW) & 0xfff0) << 16);
    return pci_enable(bdf);
}

unsigned pci_bus_behind(unsigned port)
{
    return pci_read(port, BUSES) >> 8 & 0xff;
}

static unsigned express(unsigned bdf)
{
    unsigned at = pci_read(bdf, CAPABILITIES) & 0xfc;

    while (at && (pci_read(bdf, at) & 0xff) != CAP_EXPRESS) {
        at = pci_read(bdf, at) >> 8 & 0xfc;
    }
    return at;
}

/* Power the slot, in which a device can come then. */
void pci_slot_on(unsigned port)
{
    unsigned slot = express(port) + SLOT_CONTROL;

    pci_write(port, slot, 0xffff0000 | POWER_ON);
}

/* The device is gone once there is no power. */
void pci_slot_off(unsigned port)
{
    unsigned slot = express(port) + SLOT_CONTROL;

    pci_write(port, slot, 0xffff0000 | POWER_OFF);
}
