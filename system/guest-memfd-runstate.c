/*
 * The run state, as the engine uses it: waits that end, and a VM that stops
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/core/cpu.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "system/cpus.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "guest-memfd-internal.h"

#define MAIN_LOOP_TURN_NS_MAX       (10 * SCALE_MS)

static void broken(GuestMemfdBlock *block, uint64_t offset, uint64_t size,
                   int error)
{
    error_report("guest memory '%s': cannot bring back [0x%" PRIx64
                 ", +0x%" PRIx64 "): %s; the VM is stopped",
                 block->name, offset, size, strerror(-error));
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
}

/* Must a wait end, so that the VM can stop or end? */
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

/*
 * A monitor that wants a vCPU's registers waits, and all of the main loop
 * with it, until the vCPU's thread has read them.
 */
static void do_queued_work(GuestMemfdEngine *engine)
{
    CPUState *cpu = current_cpu;

    if (!cpu || !kvm_enabled() || cpu_work_list_empty(cpu)) {
        return;
    }
    /* Some work needs all vCPUs, this one included, out of the guest. */
    cpu_exec_end(cpu);
    bql_lock();
    process_queued_cpu_work(cpu);
    bql_unlock();
    cpu_exec_start(cpu);
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
        do_queued_work(engine);
        g_usleep(20);
    }
}

void guest_memfd_bind_runstate(GuestMemfdEngine *engine)
{
    engine->interrupted = interrupted;
    engine->between_slices = let_main_loop_run;
    engine->serve = do_queued_work;
    engine->broken = broken;
}
