/*
 * The guest_memfd manager: policy, provider and life cycle
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One per VM.  It is created by the user with -object, or by default when
 * the machine's first guest_memfd memory appears, and lives until the end.
 */

#include "qemu/osdep.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "hw/nvram/fw_cfg.h"
#include "hw/qdev-core.h"
#include "migration/blocker.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qom/object_interfaces.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-ram.h"
#include "system/kvm.h"
#include "system/qtest.h"
#include "system/ramblock.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "system/system.h"
#include "system/tcg.h"
#include "guest-memfd-internal.h"
#include "guest-memfd-manager.h"
#include "trace.h"

#define RETRY_TIMEOUT_MS_DEFAULT    100
#define MAIN_LOOP_TURN_NS_MAX       (10 * SCALE_MS)

static GuestMemfdManager *manager;

GuestMemfdManager *guest_memfd_manager(void)
{
    return manager;
}

GuestMemfdEngine *guest_memfd_engine(void)
{
    return manager ? &manager->engine : NULL;
}

static bool is_in_place(GuestMemfdProvider *provider)
{
    return GUEST_MEMFD_PROVIDER_GET_CLASS(provider)->block_alloc;
}

bool guest_memfd_has_provider(void)
{
    return manager && manager->engine.provider;
}

bool guest_memfd_is_in_place(void)
{
    return guest_memfd_has_provider() && is_in_place(manager->engine.provider);
}

int guest_memfd_convert(const GuestMemfdRequest *req,
                        GuestMemfdResult *outcome)
{
    if (!guest_memfd_has_provider()) {
        return -EINVAL;
    }
    return guest_memfd_engine_convert(&manager->engine, req, outcome);
}

int guest_memfd_request(hwaddr gpa, uint64_t size, uint64_t attributes,
                        GuestMemfdOrigin origin, GuestMemfdResult *outcome)
{
    if (!guest_memfd_has_provider()) {
        return -EINVAL;
    }
    return guest_memfd_engine_request(&manager->engine, gpa, size, attributes,
                                      origin, outcome);
}

/* --- the provider ------------------------------------------------------ */

/*
 * Without KVM the emulated provider serves a guest that needs nothing from
 * the accelerator, which is one that is ready already.
 */
static bool can_emulate(void)
{
    ConfidentialGuestSupport *cgs = current_machine->cgs;

    return (tcg_enabled() || qtest_enabled()) && cgs && cgs->ready;
}

static GuestMemfdProvider *choose_provider(GuestMemfdManager *s, Error **errp)
{
    ERRP_GUARD();

    if (kvm_enabled()) {
        return kvm_guest_memfd_provider_new(s->in_place, errp);
    }
    if (s->in_place == ON_OFF_AUTO_OFF) {
        error_setg(errp, "guest-memfd-manager: in-place=off needs KVM");
        error_append_hint(errp, "Without KVM guest memory is always "
                          "converted in place: use in-place=auto.\n");
        return NULL;
    }
    return GUEST_MEMFD_PROVIDER(
        object_new(TYPE_GUEST_MEMFD_PROVIDER_EMULATED));
}

static const char *provider_child_name(GuestMemfdProvider *provider)
{
    return provider->type == GUEST_MEMFD_PROVIDER_TYPE_EMULATED ?
           "emulated" : "kvm";
}

static bool set_provider(GuestMemfdManager *s, GuestMemfdProvider *provider,
                         Error **errp)
{
    if (is_in_place(provider)) {
        if (runstate_check(RUN_STATE_INMIGRATE)) {
            guest_memfd_refuse(provider, "-incoming", errp);
            object_unref(OBJECT(provider));
            return false;
        }
        error_setg(&s->migration_blocker, "guest memory is converted in "
                   "place between private and shared, which cannot be "
                   "migrated");
        if (migrate_add_blocker(&s->migration_blocker, errp) < 0) {
            object_unref(OBJECT(provider));
            return false;
        }
    }
    object_property_add_child(OBJECT(s), provider_child_name(provider),
                              OBJECT(provider));
    object_unref(OBJECT(provider));
    /* Memory outlives the user's objects when QEMU exits. */
    object_ref(OBJECT(s));
    s->engine.provider = provider;
    trace_guest_memfd_provider(GuestMemfdProviderType_str(provider->type),
                               provider->reason);
    return true;
}

/* --- life cycle -------------------------------------------------------- */

static void broken(GuestMemfdBlock *block, uint64_t offset, uint64_t size,
                   int error)
{
    error_report("guest memory '%s': cannot bring back [0x%" PRIx64
                 ", +0x%" PRIx64 "): %s; the VM is stopped, no page was "
                 "given away", block->name, offset, size, strerror(-error));
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
}

/* Must the thread give up waiting, so that the VM can stop or end? */
static GuestMemfdInterrupt interrupted(GuestMemfdEngine *engine)
{
    const CPUState *cpu = current_cpu;

    if (qemu_shutdown_requested_get()) {
        return GUEST_MEMFD_INTERRUPT_END;
    }
    if (cpu && (qatomic_read(&cpu->stop) || qatomic_read(&cpu->unplug))) {
        return GUEST_MEMFD_INTERRUPT_RESET;
    }
    return qemu_reset_requested_get() ? GUEST_MEMFD_INTERRUPT_RESET :
                                        GUEST_MEMFD_INTERRUPT_NONE;
}

static void count_turn(void *opaque)
{
    unsigned *turns = opaque;

    qatomic_inc(turns);
}

/*
 * Locks are not fair: a vCPU with a large request would take them again
 * before the main loop, which waits for them, has woken up.
 */
static void let_main_loop_run(GuestMemfdEngine *engine)
{
    static unsigned turns;
    const unsigned before = qatomic_read(&turns);
    const int64_t deadline = get_clock() + MAIN_LOOP_TURN_NS_MAX;

    if (!current_cpu) {
        return;         /* This is the main loop. */
    }
    aio_bh_schedule_oneshot(qemu_get_aio_context(), count_turn, &turns);
    while (qatomic_read(&turns) == before && get_clock() < deadline) {
        g_usleep(20);
    }
}

/* A guest must not start on memory that still is private, or not zero. */
static int reset_block(RAMBlock *rb, void *opaque)
{
    GuestMemfdManager *s = opaque;
    GuestMemfdBlock *block = rb->gmem;
    GuestMemfdRequest req = {
        .block = block,
        .direction = GUEST_MEMFD_DIRECTION_TO_SHARED,
        .origin = GUEST_MEMFD_ORIGIN_RESET,
        .intent = GUEST_MEMFD_INTENT_ZERO,
    };
    int ret;

    if (!block || guest_memfd_block_shared_bytes(block) == block->size) {
        return 0;
    }
    req.size = block->size;
    ret = guest_memfd_engine_convert(&s->engine, &req, NULL);
    if (ret && !qemu_shutdown_requested_get()) {
        error_report("guest memory '%s' cannot be shared for a reset: %s; the "
                     "guest cannot start", block->name, strerror(-ret));
        exit(EXIT_FAILURE);
    }
    return 0;
}

/*
 * A guest that starts shared starts anew so, and with no private byte in
 * its memory.  Others cannot be reset, only launched.  A guest that wakes up
 * from sleep, or is loaded, finds its memory as it was.
 *
 * A conversion may drop the BQL: blocks are found under RCU, which keeps
 * those that go away meanwhile until the walk is over.
 */
static void manager_reset_hold(Object *obj, ResetType type)
{
    if (type == RESET_TYPE_COLD && current_machine->cgs &&
        current_machine->cgs->starts_shared) {
        qemu_ram_foreach_block(reset_block, obj);
    }
}

static ResettableState *manager_get_reset_state(Object *obj)
{
    return &GUEST_MEMFD_MANAGER(obj)->reset_state;
}

static void vm_state_changed(void *opaque, bool running, RunState state)
{
    GuestMemfdManager *s = opaque;

    GuestMemfdProvider *provider = s->engine.provider;

    if (!running || qatomic_read(&s->engine.launched)) {
        return;
    }
    if (provider && GUEST_MEMFD_PROVIDER_GET_CLASS(provider)->launched) {
        GUEST_MEMFD_PROVIDER_GET_CLASS(provider)->launched(provider);
    }
    qatomic_set(&s->engine.launched, true);
}

/* Whenever the guest selects the file: offers may change at its launch. */
static void fill_fw_cfg_file(void *opaque)
{
    GuestMemfdManager *s = opaque;
    const GuestMemfdOffer *offer = &s->engine.provider->offer;

    s->fw_cfg_file[0] = cpu_to_le32(GUEST_MEMFD_FW_CFG_VERSION);
    s->fw_cfg_file[1] = cpu_to_le32(
        guest_memfd_hints(offer, GUEST_MEMFD_DIRECTION_TO_SHARED));
    s->fw_cfg_file[2] = cpu_to_le32(
        guest_memfd_hints(offer, GUEST_MEMFD_DIRECTION_TO_PRIVATE));
}

static void tell_guest(GuestMemfdManager *s)
{
    FWCfgState *fw_cfg = fw_cfg_find();

    if (fw_cfg) {
        fw_cfg_add_file_callback(fw_cfg, GUEST_MEMFD_FW_CFG_FILE,
                                 fill_fw_cfg_file, NULL, s, s->fw_cfg_file,
                                 sizeof(s->fw_cfg_file), true);
    }
}

static void machine_done(Notifier *notifier, void *data)
{
    GuestMemfdManager *s = container_of(notifier, GuestMemfdManager,
                                        machine_done);
    GuestMemfdProvider *provider = s->engine.provider;

    if (provider) {
        tell_guest(s);
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

/* The manager has one path, whoever created it. */
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
        error_setg(errp, "guest-memfd-manager: in-place=on must be given on "
                   "the command line, before guest memory exists");
        return;
    }

    manager = s;
    link_to_machine(s);
    qemu_register_resettable(OBJECT(s));
    s->vm_state = qemu_add_vm_change_state_handler(vm_state_changed, s);
    s->machine_done.notify = machine_done;
    qemu_add_machine_init_done_notifier(&s->machine_done);
}

static bool manager_can_be_deleted(UserCreatable *uc)
{
    return !GUEST_MEMFD_MANAGER(uc)->engine.provider;
}

/* Not in /objects, where the user chooses the names. */
static bool create_default(Error **errp)
{
    return object_new_with_props(TYPE_GUEST_MEMFD_MANAGER,
                                 OBJECT(current_machine),
                                 TYPE_GUEST_MEMFD_MANAGER, errp, NULL);
}

/* What the guest does when it is told to try again differs a lot. */
static void set_patience(GuestMemfdManager *s)
{
    const uint32_t ms = current_machine->cgs->conversion_patience_ms;

    if (ms && !s->retry_timeout_set) {
        s->engine.retry_timeout_ms = ms;
    }
}

GuestMemfdEngine *guest_memfd_engine_for_ram(Error **errp)
{
    GuestMemfdProvider *provider;

    if (!manager && !create_default(errp)) {
        return NULL;
    }
    if (!manager->engine.provider && (kvm_enabled() || can_emulate())) {
        provider = choose_provider(manager, errp);
        if (!provider || !set_provider(manager, provider, errp)) {
            return NULL;
        }
        set_patience(manager);
    }
    return &manager->engine;
}

/* --- the object -------------------------------------------------------- */

static void manager_init(Object *obj)
{
    GuestMemfdManager *s = GUEST_MEMFD_MANAGER(obj);

    guest_memfd_engine_init(&s->engine);
    guest_memfd_ram_bind(&s->engine);
    s->engine.interrupted = interrupted;
    s->engine.between_slices = let_main_loop_run;
    s->engine.broken = broken;
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
