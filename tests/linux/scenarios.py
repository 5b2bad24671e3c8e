# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of scenarios: name, and the coroutine that gets a Run."""

import functools

import host_scenarios as host
import io_scenarios as io
import plug_scenarios as plug
import restart_scenarios as restart

SCENARIOS = {
    'boot and I/O, 1 vCPU': functools.partial(io.boot, vcpus=1),
    'boot and I/O, 4 vCPUs': functools.partial(io.boot, vcpus=4),
    'poisoned contents': io.poison,
    'iothreads': io.iothreads,
    '8 queues': io.queues,
    'serial port and shared folder': io.channels,
    'VGA console': io.vga,
    'virtio-gpu': io.gpu,
    '4 vCPUs under stress': io.stress,
    'reboot': restart.reboot,
    'system_reset': restart.system_reset,
    'suspend and wakeup': restart.suspend,
    'kexec': restart.kexec,
    'crash kexec': restart.crash,
    'memory plugged': plug.memory_plug,
    'memory unplugged': plug.memory_unplug,
    'devices plugged and unplugged': plug.device_plug,
    'drivers unbound and bound': plug.drivers,
    'conversions fail': plug.faults,
    'stop and cont': host.stop,
    'snapshot and migration': host.snapshot,
    'gdb and the monitor': host.debuggers,
    'gdb and the monitor, debug=on': host.kernel_debugging,
    'dump-guest-memory': host.dump,
    'virtio-balloon': host.balloon,
}
