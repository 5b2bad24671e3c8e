# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of scenarios: name, and the coroutine that gets a Run."""

import functools

import host_scenarios as host
import io_scenarios as io
import nested_scenarios as nested
import plug_scenarios as plug
import restart_scenarios as restart

SCENARIOS = {
    'boot and I/O, 1 vCPU': functools.partial(io.boot, vcpus=1),
    'boot and I/O, 4 vCPUs': functools.partial(io.boot, vcpus=4),
    'poisoned contents': io.poison,
    'iothreads': io.iothreads,
    '16 queues': io.queues,
    'vsock': io.vsock,
    'module loaded and unloaded': io.module,
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
    'dump-guest-memory, debug=on': host.dump_whole,
    'memory errors': host.memory_error,
    'virtio-balloon': host.balloon,
    'on KVM, content modes': functools.partial(
        nested.nested, setting='content-modes'),
    'on KVM, in place': functools.partial(
        nested.nested, setting='in-place+fixed'),
}

# Tried with each change: --quick.
QUICK = ('on KVM, content modes', 'on KVM, in place', 'boot and I/O, 1 vCPU',
         'boot and I/O, 4 vCPUs')
