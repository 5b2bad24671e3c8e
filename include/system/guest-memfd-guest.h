/*
 * Conversion of guest memory: the guest's ABI
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Plain numbers only: bare-metal guests include this file, too.  They are
 * explained in docs/system/guest-memfd-hints.rst.
 */

#ifndef SYSTEM_GUEST_MEMFD_GUEST_H
#define SYSTEM_GUEST_MEMFD_GUEST_H

/* The attributes of KVM_HC_MAP_GPA_RANGE. */
#define GUEST_MEMFD_ATTR_PAGE_SIZE  0xfULL
#define GUEST_MEMFD_ATTR_PRIVATE    (1ULL << 4)
#define GUEST_MEMFD_ATTR_ZERO       (1ULL << 8)
#define GUEST_MEMFD_ATTR_PRESERVE   (1ULL << 9)

/*
 * CPUID of a guest that starts shared: a block of two leaves, whose first
 * one has the signature in EBX, ECX and EDX.  The block is at 0x40000100,
 * or at 0x40000200 if KVM's own is not at 0x40000000.
 *
 * EAX of the second says how the guest's memory starts, EBX and ECX are the
 * hints that may be set to shared and to private, as bits of the
 * attributes.
 */
#define GUEST_MEMFD_CPUID_SIGNATURE         "GmemGmemGmem"
#define GUEST_MEMFD_CPUID_FEATURES          1
#define GUEST_MEMFD_CPUID_STARTS_SHARED     1

/*
 * The fw_cfg file: four little-endian 32-bit words: version, the hints that
 * may be set to shared, those to private, 0.
 */
#define GUEST_MEMFD_FW_CFG_FILE     "etc/guest-memfd/content-modes"
#define GUEST_MEMFD_FW_CFG_VERSION  1

#endif /* SYSTEM_GUEST_MEMFD_GUEST_H */
