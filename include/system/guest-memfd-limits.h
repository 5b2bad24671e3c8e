/*
 * Features that do not work with guest memory that is converted in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_LIMITS_H
#define SYSTEM_GUEST_MEMFD_LIMITS_H

typedef enum GuestMemfdFeature {
    GUEST_MEMFD_FEATURE_VHOST_USER,
    GUEST_MEMFD_FEATURE_VIRTIO_MEM,
    GUEST_MEMFD_FEATURE_INCOMING,
    GUEST_MEMFD_FEATURE_POSTCOPY_RAM,
    GUEST_MEMFD_FEATURE_X_COLO,
    GUEST_MEMFD_FEATURE_BACKGROUND_SNAPSHOT,
    GUEST_MEMFD_FEATURE_SNAPSHOT,
    GUEST_MEMFD_FEATURE_DIRTY_RATE,
    GUEST_MEMFD_FEATURE_DIRTY_LIMIT,
    GUEST_MEMFD_FEATURE_DIRTY_LOG,
    GUEST_MEMFD_FEATURE__MAX,
} GuestMemfdFeature;

/*
 * guest_memfd_allows: can @feature be used in this VM?
 *
 * False with @errp set if guest memory is converted in place, or will be
 * when there is memory, and @feature cannot work with it.
 */
bool guest_memfd_allows(GuestMemfdFeature feature, Error **errp);
/* @capabilities: of a migration, indexed by MigrationCapability. */
bool guest_memfd_allows_capabilities(const bool *capabilities, Error **errp);

/* More of a remedy, where it is one. */
const char *guest_memfd_or_not_in_place(bool can_be_off);

#endif /* SYSTEM_GUEST_MEMFD_LIMITS_H */
