/*
 * Features that do not work with guest memory that is converted in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-migration.h"
#include "system/guest-memfd-limits.h"
#include "guest-memfd-internal.h"

#define START_AGAIN  "Shut the guest down and start it again"

static const struct {
    const char *name;
    const char *why;
    const char *remedy;
} limits[GUEST_MEMFD_FEATURE__MAX] = {
    [GUEST_MEMFD_FEATURE_VHOST_USER] = {
        "vhost-user", "another process would touch private pages",
        "Use a device of QEMU's own, for example virtio-blk-pci, or "
        "virtio-net-pci with -netdev tap, or virtio-9p-pci instead of "
        "virtiofs"
    },
    [GUEST_MEMFD_FEATURE_VIRTIO_MEM] = {
        "virtio-mem", "it would discard private pages",
        "Add memory with pc-dimm and memory-backend-memfd-private"
    },
    [GUEST_MEMFD_FEATURE_INCOMING] = {
        "-incoming", "there is no migration of private pages",
        "Start the guest without -incoming"
    },
    [GUEST_MEMFD_FEATURE_POSTCOPY_RAM] = {
        "postcopy-ram", "there is no migration of private pages", START_AGAIN
    },
    [GUEST_MEMFD_FEATURE_X_COLO] = {
        "x-colo", "there is no migration of private pages", START_AGAIN
    },
    [GUEST_MEMFD_FEATURE_BACKGROUND_SNAPSHOT] = {
        "background-snapshot", "private pages cannot be saved", START_AGAIN
    },
    [GUEST_MEMFD_FEATURE_SNAPSHOT] = {
        "a snapshot of the VM", "private pages cannot be saved and loaded",
        "Take snapshots of disks only, with blockdev-snapshot"
    },
    [GUEST_MEMFD_FEATURE_DIRTY_RATE] = {
        "calc-dirty-rate", "private pages cannot be read",
        "Count conversions with query-guest-memfd instead"
    },
    [GUEST_MEMFD_FEATURE_DIRTY_LIMIT] = {
        "set-vcpu-dirty-limit", "writes to private pages cannot be tracked",
        "Limit the guest's CPU time instead, for example with cgroups"
    },
    [GUEST_MEMFD_FEATURE_DIRTY_LOG] = {
        "dirty page logging", "writes to private pages cannot be tracked",
        "Count conversions with query-guest-memfd instead"
    },
};

const char *guest_memfd_or_not_in_place(bool can_be_off)
{
    return can_be_off ? ", or set in-place=off on guest-memfd-manager" : "";
}

bool guest_memfd_allows(GuestMemfdFeature feature, Error **errp)
{
    ERRP_GUARD();
    bool can_be_off;

    if (!guest_memfd_will_be_in_place(&can_be_off)) {
        return true;
    }
    error_setg(errp, "%s does not work with guest memory that is converted "
               "in place: %s", limits[feature].name, limits[feature].why);
    error_append_hint(errp, "%s%s.\n", limits[feature].remedy,
                      guest_memfd_or_not_in_place(can_be_off));
    return false;
}

bool guest_memfd_allows_capabilities(const bool *capabilities, Error **errp)
{
    static const struct {
        MigrationCapability capability;
        GuestMemfdFeature feature;
    } refused[] = {
        { MIGRATION_CAPABILITY_POSTCOPY_RAM,
          GUEST_MEMFD_FEATURE_POSTCOPY_RAM },
        { MIGRATION_CAPABILITY_X_COLO, GUEST_MEMFD_FEATURE_X_COLO },
        { MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT,
          GUEST_MEMFD_FEATURE_BACKGROUND_SNAPSHOT },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(refused); i++) {
        if (capabilities[refused[i].capability] &&
            !guest_memfd_allows(refused[i].feature, errp)) {
            return false;
        }
    }
    return true;
}
