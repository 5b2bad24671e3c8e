/*
 * The calls of KVM for in-place conversion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <sys/mman.h>
#include "system/kvm.h"
#include "system/kvm_int.h"
#include "kvm-guest-memfd-kernel.h"
#include "trace.h"

/* A reference that is about to go, e.g. of an LRU batch, is waited for. */
#define BUSY_TRIES      10
#define BUSY_WAIT_US    1000

typedef struct RealKernel {
    KvmGuestMemfdKernel parent;
    void *page;                     /* mapped, or NULL */
} RealKernel;

bool kvm_guest_memfd_prefault(CPUState *cpu, hwaddr gpa, uint64_t size)
{
    struct kvm_pre_fault_memory mem = { .gpa = gpa, .size = size };
    int ret;

    if (!size || !kvm_pre_fault_memory_supported) {
        return true;
    }
    /* It ends early for an error, and for a signal: the vCPU is wanted. */
    ret = kvm_vcpu_ioctl(cpu, KVM_PRE_FAULT_MEMORY, &mem);
    trace_kvm_guest_memfd_prefault(gpa, size, mem.size, ret);
    return !ret && !mem.size;
}

static int check_extension(KvmGuestMemfdKernel *kernel, unsigned cap)
{
    return kvm_vm_check_extension(kvm_state, cap);
}

static int create(KvmGuestMemfdKernel *kernel, uint64_t flags)
{
    struct kvm_create_guest_memfd create = {
        .size = qemu_real_host_page_size(),
        .flags = flags,
    };

    return kvm_vm_ioctl(kvm_state, KVM_CREATE_GUEST_MEMFD, &create);
}

static int set_attributes(KvmGuestMemfdKernel *kernel, int fd,
                          struct kvm_guest_memfd_attributes *attributes)
{
    unsigned tries = 0;
    int ret;

    do {
        if (tries) {
            g_usleep(BUSY_WAIT_US);
        }
        ret = kvm_device_ioctl(fd, KVM_GUEST_MEMFD_SET_ATTRIBUTES, attributes);
        trace_kvm_guest_memfd_probe(attributes->attributes, attributes->flags,
                                    ret);
    } while ((ret == -EAGAIN || ret == -EINTR) && ++tries < BUSY_TRIES);
    return ret;
}

static int map(KvmGuestMemfdKernel *kernel, int fd)
{
    RealKernel *real = container_of(kernel, RealKernel, parent);
    void *page = mmap(NULL, qemu_real_host_page_size(),
                      PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (page == MAP_FAILED) {
        return -errno;
    }
    real->page = page;
    return 0;
}

/* A pipe gets an errno value instead of a signal. */
static int copy_page(void *to, const void *from)
{
    const ssize_t size = qemu_real_host_page_size();
    int fds[2], ret = 0;
    ssize_t done;

    if (!g_unix_open_pipe(fds, FD_CLOEXEC, NULL)) {
        return -EMFILE;
    }
    done = RETRY_ON_EINTR(write(fds[1], from, size));
    if (done == size) {
        done = RETRY_ON_EINTR(read(fds[0], to, size));
    }
    if (done != size) {
        ret = done < 0 ? -errno : -EFAULT;
    }
    close(fds[0]);
    close(fds[1]);
    return ret;
}

static int read_page(KvmGuestMemfdKernel *kernel, void *page)
{
    return copy_page(page, container_of(kernel, RealKernel, parent)->page);
}

static int write_page(KvmGuestMemfdKernel *kernel, const void *page)
{
    return copy_page(container_of(kernel, RealKernel, parent)->page, page);
}

static void close_scratch(KvmGuestMemfdKernel *kernel, int fd)
{
    RealKernel *real = container_of(kernel, RealKernel, parent);

    if (real->page) {
        munmap(real->page, qemu_real_host_page_size());
        real->page = NULL;
    }
    close(fd);
}

KvmGuestMemfdKernel *kvm_guest_memfd_kernel(void)
{
    static RealKernel real = {
        .parent = {
            .check_extension = check_extension,
            .create = create,
            .map = map,
            .set_attributes = set_attributes,
            .read = read_page,
            .write = write_page,
            .close = close_scratch,
        },
    };

    return &real.parent;
}
