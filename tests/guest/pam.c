/*
 * The memory below 1 MiB
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"

#define PCI_ADDRESS     0xcf8
#define PCI_DATA        0xcfc
#define PCI_ENABLE      0x80000000

#define I440FX          0x12378086
#define I440FX_PAM      0x37        /* so much lower than q35's */

void pam_set(unsigned reg, uint8_t value)
{
    outl(PCI_ADDRESS, PCI_ENABLE);
    reg -= inl(PCI_DATA) == I440FX ? I440FX_PAM : 0;
    outl(PCI_ADDRESS, PCI_ENABLE | (reg & ~3));
    outb(PCI_DATA + (reg & 3), value);
}
