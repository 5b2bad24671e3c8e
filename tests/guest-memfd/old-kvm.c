/*
 * A KVM that cannot run a software-protected guest, for LD_PRELOAD
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * With -accel kvm,device=/dev/null all of KVM's ioctls come here.
 * GUEST_MEMFD_OLD_KVM says what it lacks: the VM type, or the hypercall.
 */

#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int check_extension(unsigned long extension)
{
    const char *lacks = getenv("GUEST_MEMFD_OLD_KVM");

    switch (extension) {
    case KVM_CAP_VM_TYPES:
        return lacks && !strcmp(lacks, "no-type") ? 1 : 3;
    case KVM_CAP_EXIT_HYPERCALL:
        return 0;
    default:
        return 1;
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    unsigned long argument;
    va_list list;

    va_start(list, request);
    argument = va_arg(list, unsigned long);
    va_end(list);

    switch (request) {
    case KVM_GET_API_VERSION:
        return KVM_API_VERSION;
    case KVM_CHECK_EXTENSION:
        return check_extension(argument);
    case KVM_CREATE_VM:
        return dup(fd);
    case KVM_ENABLE_CAP:
        errno = EINVAL;
        return -1;
    default:
        return syscall(SYS_ioctl, fd, request, argument);
    }
}
