/*
 * The guest_memfd manager: the object and its life cycle
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One per VM.  It is created by the user with -object, or by default when
 * the machine's first guest_memfd memory appears, and lives until the end.
 */

#include "qemu/osdep.h"
#include "hw/boards.h"
#include "hw/qdev-core.h"
#include "migration/blocker.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "qom/object_interfaces.h"
#include "system/guest-memfd-launch.h"
#include "system/guest-memfd-ram.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "system/system.h"
#include "guest-memfd-internal.h"
#include "guest-memfd-manager.h"

#define RETRY_TIMEOUT_MS_DEFAULT    100

/* A platform may end its launch when the VM starts, with priority 0. */
#define AFTER_LAUNCH    10

static GuestMemfdManager *manager;

GuestMemfdManager *guest_memfd_manager(void)
{
    return manager;
}

GuestMemfdEngine *guest_memfd_engine(void)
{
    return manager ? &manager->engine : NULL;
}

bool guest_memfd_has_provider(void)
{
    return manager && manager->engine.provider;
}

bool guest_memfd_is_in_place(void)
{
    return guest_memfd_has_provider() && manager->engine.provider->in_place;
}

/* --- life cycle -------------------------------------------------------- */

static void manager_reset_hold(Object *obj, ResetType type)
{
    guest_memfd_reset(&GUEST_MEMFD_MANAGER(obj)->engine, type);
}

static ResettableState *manager_get_reset_state(Object *obj)
{
    return &GUEST_MEMFD_MANAGER(obj)->reset_state;
}

static void vm_state_changed(void *opaque, bool running, RunState state)
{
    GuestMemfdManager *s = opaque;
    Error *err = NULL;

    /* It fails at the first start only: the guest was not launched. */
    if (running && guest_memfd_engine_run(&s->engine, &err)) {
        error_report_err(err);
        exit(EXIT_FAILURE);
    }
}

static void machine_done(Notifier *notifier, void *data)
{
    GuestMemfdManager *s = container_of(notifier, GuestMemfdManager,
                                        machine_done);
    GuestMemfdProvider *provider = s->engine.provider;

    if (provider) {
        guest_memfd_add_fw_cfg_file(&s->engine);
    } else if (s->in_place == ON_OFF_AUTO_ON) {
        error_report("guest-memfd-manager: in-place=on, but the machine has "
                     "no guest_memfd memory");
        error_printf("Add a confidential guest, for example -object "
                     "sw-protected-guest,id=cgs0 -machine "
                     "confidential-guest-support=cgs0, or use "
                     "in-place=auto.\n");
        exit(EXIT_FAILURE);
    }
}

/* The path of the manager does not depend on its creator. */
static void link_to_machine(GuestMemfdManager *s)
{
    if (OBJECT(s)->parent != OBJECT(current_machine)) {
        object_property_add_const_link(OBJECT(current_machine),
                                       TYPE_GUEST_MEMFD_MANAGER, OBJECT(s));
        s->linked = true;
    }
}

static void manager_complete(UserCreatable *uc, Error **errp)
{
    ERRP_GUARD();
    GuestMemfdManager *s = GUEST_MEMFD_MANAGER(uc);

    if (manager) {
        g_autofree char *path = object_get_canonical_path(OBJECT(manager));

        error_setg(errp, "a VM has only one guest-memfd-manager, and '%s' "
                   "exists", path);
        error_append_hint(errp, "Set its properties with qom-set.\n");
        return;
    }
    if (phase_check(PHASE_MACHINE_READY) && s->in_place == ON_OFF_AUTO_ON) {
        error_setg(errp, "guest-memfd-manager: in-place=on must be set on "
                   "the command line, before guest memory exists");
        return;
    }

    manager = s;
    link_to_machine(s);
    qemu_register_resettable(OBJECT(s));
    s->vm_state = qemu_add_vm_change_state_handler_prio(vm_state_changed, s,
                                                        AFTER_LAUNCH);
    s->machine_done.notify = machine_done;
    qemu_add_machine_init_done_notifier(&s->machine_done);
}

static bool manager_can_be_deleted(UserCreatable *uc)
{
    return !GUEST_MEMFD_MANAGER(uc)->engine.provider;
}

/* --- the object -------------------------------------------------------- */

static void manager_init(Object *obj)
{
    GuestMemfdManager *s = GUEST_MEMFD_MANAGER(obj);

    guest_memfd_engine_init(&s->engine);
    guest_memfd_bind_map(&s->engine);
    guest_memfd_bind_runstate(&s->engine);
    s->engine.failed = guest_memfd_send_failure;
    s->engine.content_policy = GUEST_MEMFD_CONTENT_POLICY_AUTO;
    s->engine.on_unsupported = GUEST_MEMFD_UNSUPPORTED_ACTION_REFUSE;
    s->engine.retry_timeout_ms = RETRY_TIMEOUT_MS_DEFAULT;
    s->in_place = ON_OFF_AUTO_AUTO;
}

static void manager_finalize(Object *obj)
{
    GuestMemfdManager *s = GUEST_MEMFD_MANAGER(obj);

    if (manager == s) {
        if (s->linked) {
            object_property_del(OBJECT(current_machine),
                                TYPE_GUEST_MEMFD_MANAGER);
        }
        qemu_remove_machine_init_done_notifier(&s->machine_done);
        qemu_del_vm_change_state_handler(s->vm_state);
        qemu_unregister_resettable(OBJECT(s));
        manager = NULL;
    }
    migrate_del_blocker(&s->migration_blocker);
    guest_memfd_engine_destroy(&s->engine);
}

static void manager_class_init(ObjectClass *oc, const void *data)
{
    UserCreatableClass *ucc = USER_CREATABLE_CLASS(oc);
    ResettableClass *rc = RESETTABLE_CLASS(oc);

    rc->get_state = manager_get_reset_state;
    rc->phases.hold = manager_reset_hold;
    ucc->complete = manager_complete;
    ucc->can_be_deleted = manager_can_be_deleted;
    guest_memfd_manager_add_properties(oc);
}

static const TypeInfo manager_info = {
    .name = TYPE_GUEST_MEMFD_MANAGER,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(GuestMemfdManager),
    .instance_init = manager_init,
    .instance_finalize = manager_finalize,
    .class_init = manager_class_init,
    .interfaces = (const InterfaceInfo[]) {
        { TYPE_USER_CREATABLE },
        { TYPE_RESETTABLE_INTERFACE },
        { }
    }
};

static void manager_register_types(void)
{
    type_register_static(&manager_info);
}

type_init(manager_register_types)
