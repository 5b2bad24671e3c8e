/*
 * fw_cfg: what content modes the guest may ask for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Selector at port 0x510, data at port 0x511; the directory (item 0x19)
 * is a big-endian count and entries of size, selector and name.
 */

#include "guest.h"

#define FW_CFG_SELECTOR     0x510
#define FW_CFG_DATA         0x511
#define FW_CFG_FILE_DIR     0x19
#define FW_CFG_NAME_MAX     56

static uint64_t read_bytes(unsigned n, bool big_endian)
{
    uint64_t value = 0;
    unsigned i;

    for (i = 0; i < n; i++) {
        uint64_t byte = inb(FW_CFG_DATA);

        value = big_endian ? value << 8 | byte : value | byte << (8 * i);
    }
    return value;
}

/* Returns the file's size, 0 if there is none. */
static uint32_t find_file(const char *wanted, uint16_t *selector)
{
    char name[FW_CFG_NAME_MAX];
    uint32_t count, size;
    unsigned i;

    outw(FW_CFG_SELECTOR, FW_CFG_FILE_DIR);
    for (count = read_bytes(4, true); count; count--) {
        size = read_bytes(4, true);
        *selector = read_bytes(2, true);
        read_bytes(2, true);
        for (i = 0; i < FW_CFG_NAME_MAX; i++) {
            name[i] = read_bytes(1, true);
        }
        name[FW_CFG_NAME_MAX - 1] = 0;
        if (string_equal(name, wanted)) {
            return size;
        }
    }
    return 0;
}

bool fwcfg_offer(uint32_t *version, uint64_t *to_shared,
                 uint64_t *to_private)
{
    uint16_t selector;
    uint32_t reserved;

    if (find_file(GUEST_MEMFD_FW_CFG_FILE, &selector) != 16) {
        return false;
    }
    outw(FW_CFG_SELECTOR, selector);
    *version = read_bytes(4, false);
    *to_shared = read_bytes(4, false);
    *to_private = read_bytes(4, false);
    reserved = read_bytes(4, false);
    return *version == GUEST_MEMFD_FW_CFG_VERSION && reserved == 0;
}
