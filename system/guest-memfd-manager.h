/*
 * The guest_memfd manager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_MANAGER_H
#define SYSTEM_GUEST_MEMFD_MANAGER_H

#include "hw/resettable.h"
#include "qapi/qapi-types-common.h"
#include "qemu/notify.h"
#include "system/guest-memfd-ram.h"
#include "system/runstate.h"

#define TYPE_GUEST_MEMFD_MANAGER "guest-memfd-manager"
OBJECT_DECLARE_SIMPLE_TYPE(GuestMemfdManager, GUEST_MEMFD_MANAGER)

struct GuestMemfdManager {
    Object parent_obj;

    GuestMemfdEngine engine;
    OnOffAuto in_place;
    bool linked;            /* the machine has a link to it */
    bool retry_timeout_set;         /* by the user */
    Error *migration_blocker;
    Notifier machine_done;
    VMChangeStateEntry *vm_state;
    ResettableState reset_state;
};

/* NULL if there is none. */
GuestMemfdManager *guest_memfd_manager(void);

void guest_memfd_manager_add_properties(ObjectClass *oc);

#endif /* SYSTEM_GUEST_MEMFD_MANAGER_H */
