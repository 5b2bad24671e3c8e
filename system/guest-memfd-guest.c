/*
 * The offers that guests read: CPUID and fw_cfg
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The same for every accelerator: a guest need not know which one runs it.
 */

#include "qemu/osdep.h"
#include "hw/nvram/fw_cfg.h"
#include "system/guest-memfd-ram.h"
#include "guest-memfd-internal.h"

static uint32_t hints(const GuestMemfdEngine *engine,
                      GuestMemfdDirection direction)
{
    return engine && engine->provider ?
           guest_memfd_hints(&engine->provider->offer, direction) : 0;
}

bool guest_memfd_cpuid(const GuestMemfdEngine *engine, uint32_t index,
                       uint32_t *regs)
{
    switch (index) {
    case 0:
        regs[0] = GUEST_MEMFD_CPUID_FEATURES;
        memcpy(&regs[1], GUEST_MEMFD_CPUID_SIGNATURE, 3 * sizeof(*regs));
        return true;
    case GUEST_MEMFD_CPUID_FEATURES:
        regs[0] = GUEST_MEMFD_CPUID_STARTS_SHARED;
        regs[1] = hints(engine, GUEST_MEMFD_DIRECTION_TO_SHARED);
        regs[2] = hints(engine, GUEST_MEMFD_DIRECTION_TO_PRIVATE);
        regs[3] = 0;
        return true;
    default:
        return false;
    }
}

/* QEMU has one fw_cfg device, which keeps a pointer to this. */
static uint32_t fw_cfg_file[4];

/* Whenever the guest selects the file: offers may change at its launch. */
static void fill_fw_cfg_file(void *opaque)
{
    const GuestMemfdEngine *engine = opaque;

    fw_cfg_file[0] = cpu_to_le32(GUEST_MEMFD_FW_CFG_VERSION);
    fw_cfg_file[1] = cpu_to_le32(hints(engine,
                                       GUEST_MEMFD_DIRECTION_TO_SHARED));
    fw_cfg_file[2] = cpu_to_le32(hints(engine,
                                       GUEST_MEMFD_DIRECTION_TO_PRIVATE));
}

void guest_memfd_add_fw_cfg_file(GuestMemfdEngine *engine)
{
    FWCfgState *fw_cfg = fw_cfg_find();

    if (fw_cfg) {
        fw_cfg_add_file_callback(fw_cfg, GUEST_MEMFD_FW_CFG_FILE,
                                 fill_fw_cfg_file, NULL, engine, fw_cfg_file,
                                 sizeof(fw_cfg_file), true);
    }
}
