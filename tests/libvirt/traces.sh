# SPDX-License-Identifier: GPL-2.0-or-later
# Files that libvirt and its domains would leave on a machine: source it after lib.sh.
# shellcheck shell=bash

# Its files, users, packages, cgroups, networks, with size and time.
traces() {
    {
        find /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /run/libvirt \
            /run/libvirtd.pid /usr/share/libvirt /usr/lib/*/libvirt /usr/sbin/libvirtd \
            /usr/bin/virsh /usr/local/bin /usr/lib/*/libvirt*.so* /etc/passwd /etc/group \
            -printf '%p %y %s %T@\n' || true
        find /sys/fs/cgroup -maxdepth 3 \( -name 'machine*' -o -name '*libvirt*' \) || true
        dpkg-query -W -f '${Package} ${db:Status-Status}\n' '*libvirt*' || true
        ls /sys/class/net
    } 2>/dev/null | sort
}

private_mounts() { grep -hsF "$BUILD/libvirt/space" /proc/[0-9]*/mountinfo | sort -u || true; }

# processes_in NAMESPACE: those of a PID namespace, one a line.
processes_in() {
    find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/pid' -lname "$1" 2>/dev/null || true
}
