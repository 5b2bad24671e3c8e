/*
 * The calls of QEMU: open(), ioctl(), fallocate() and close()
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "standin.h"
#include "accel/kvm/kvm-guest-memfd-abi.h"
#include <dlfcn.h>
#include <linux/falloc.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#define EXPORT          __attribute__((visibility("default")))
#define CONTENT_MODES   4098    /* the reference kernel's */
#define ZERO_TO_SHARED  1
#define PRESERVE_TO_PRIVATE (2 << 16)

Vm vm = { .kvm_fd = -1, .fd = -1, .sev_fd = -1 };
pthread_mutex_t vm_lock = PTHREAD_MUTEX_INITIALIZER;

/* The errno is a negative value. */
int real_ioctl(int fd, unsigned long request, void *arg)
{
    int result = syscall(SYS_ioctl, fd, request, arg);

    return result == -1 ? -errno : result;
}

/* INIT_SHARED is for VMs whose memory is converted in place. */
static bool probe_in_place(void)
{
    struct kvm_create_guest_memfd arg = {
        .size = PAGE,
        .flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
    };
    int fd = real_ioctl(vm.fd, KVM_CREATE_GUEST_MEMFD, &arg);

    if (fd >= 0) {
        syscall(SYS_close, fd);
    }
    return fd >= 0;
}

static int create_vm(unsigned long type)
{
    bool ours = type == KVM_X86_SNP_VM || type == KVM_X86_TDX_VM;
    Injected failure = ours ? inject("CREATE_VM") : (Injected) { 0 };
    int fd = failure.error ? -failure.error :
             real_ioctl(vm.kvm_fd, KVM_CREATE_VM, (void *)
                        (ours ? KVM_X86_SW_PROTECTED_VM : type));

    if (ours) {
        record("CREATE_VM type=%lu = %s", type,
               errno_name(fd < 0 ? -fd : 0));
    }
    if (ours && fd >= 0) {
        vm.fd = fd;
        vm.type = type;
        vm.in_place = probe_in_place();
        vm.content_modes = real_ioctl(fd, KVM_CHECK_EXTENSION,
                                      (void *)CONTENT_MODES) > 0;
    }
    return fd;
}

/* The features of the VMSA: none but what SNP needs anyway. */
static int get_device_attr(const struct kvm_device_attr *attr)
{
    if (attr->group != KVM_X86_GRP_SEV ||
        attr->attr != KVM_X86_SEV_VMSA_FEATURES) {
        return real_ioctl(vm.kvm_fd, KVM_GET_DEVICE_ATTR, (void *)attr);
    }
    *(uint64_t *)(uintptr_t)attr->addr = 0;
    return 0;
}

static int kvm_call(unsigned long request, void *arg)
{
    int result;

    switch (request) {
    case KVM_CREATE_VM:
        return create_vm((uintptr_t)arg);
    case KVM_GET_DEVICE_ATTR:
        return get_device_attr(arg);
    default:
        result = real_ioctl(vm.kvm_fd, request, arg);
        if (request == KVM_CHECK_EXTENSION && result >= 0 &&
            (uintptr_t)arg == KVM_CAP_VM_TYPES) {
            result |= 1 << KVM_X86_SNP_VM | 1 << KVM_X86_TDX_VM;
        }
        return result;
    }
}

static int vm_extension(unsigned long number)
{
    int result = real_ioctl(vm.fd, KVM_CHECK_EXTENSION, (void *)number);

    if (number == CONTENT_MODES && result > 0) {
        result = ZERO_TO_SHARED |
                 (vm.phase == PHASE_FINAL ? 0 : PRESERVE_TO_PRIVATE);
    }
    return result;
}

static int enable_cap(struct kvm_enable_cap *cap)
{
    struct kvm_enable_cap real = *cap;
    Injected failure = cap->cap == KVM_CAP_EXIT_HYPERCALL ?
                       inject("EXIT_HYPERCALL") : (Injected) { 0 };
    int result;

    /* Room for the hidden vCPU. */
    if (cap->cap == KVM_CAP_MAX_VCPU_ID && cap->args[0] <= HIDDEN_VCPU) {
        real.args[0] = HIDDEN_VCPU + 1;
    }
    result = -failure.error ?: real_ioctl(vm.fd, KVM_ENABLE_CAP, &real);
    record("ENABLE_CAP cap=%u args=0x%llx,0x%llx = %s", cap->cap,
           cap->args[0], cap->args[1], errno_name(-result));
    return result;
}

static int create_vcpu(unsigned long id)
{
    int fd = real_ioctl(vm.fd, KVM_CREATE_VCPU, (void *)id);

    record("CREATE_VCPU id=%lu = %s", id, errno_name(fd < 0 ? -fd : 0));
    if (fd >= 0) {
        vcpu_created(fd, id);
    }
    return fd;
}

static int vm_call(unsigned long request, void *arg)
{
    switch (request) {
    case KVM_CHECK_EXTENSION:
        return vm_extension((uintptr_t)arg);
    case KVM_ENABLE_CAP:
        return enable_cap(arg);
    case KVM_CREATE_VCPU:
        return create_vcpu((uintptr_t)arg);
    case KVM_CREATE_GUEST_MEMFD:
        return memory_create_gmem(arg);
    case KVM_SET_USER_MEMORY_REGION2:
        return memory_set_slot(arg);
    case KVM_SET_MEMORY_ATTRIBUTES:
        return memory_vm_attributes(arg);
    case KVM_MEMORY_ENCRYPT_OP:
        return is_snp() ? snp_command(arg) : tdx_vm_command(arg);
    default:
        return real_ioctl(vm.fd, request, arg);
    }
}

static int vcpu_call(Vcpu *vcpu, unsigned long request, void *arg)
{
    if (request == KVM_MEMORY_ENCRYPT_OP && is_tdx()) {
        return tdx_vcpu_command(vcpu, arg);
    }
    if (vcpu_state_protected(vcpu, request)) {
        unlawful("vcpu=%u request=0x%lx of protected state", vcpu->id,
                 request);
        return -EINVAL;
    }
    return real_ioctl(vcpu->fd, request, arg);
}

static int locked_call(int fd, unsigned long request, void *arg)
{
    Vcpu *vcpu = vm.type ? vcpu_of(fd) : NULL;

    if (vcpu) {
        return vcpu_call(vcpu, request, arg);
    }
    if (fd == vm.kvm_fd) {
        return kvm_call(request, arg);
    }
    if (request == KVM_MEMORY_ENCRYPT_OP && !arg) {
        return is_tdx() ? -EFAULT : 0;      /* this host has SEV */
    }
    if (vm.type && fd == vm.fd) {
        return vm_call(request, arg);
    }
    if (fd == vm.sev_fd && request == SEV_ISSUE_CMD) {
        return sev_issue(arg);
    }
    if (memory_is_gmem(fd) && request == KVM_GUEST_MEMFD_SET_ATTRIBUTES) {
        return memory_gmem_attributes(fd, arg);
    }
    return real_ioctl(fd, request, arg);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    Vcpu *vcpu;
    void *arg;
    va_list ap;
    int result;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);

    vcpu = vm.type && request == KVM_RUN ? vcpu_of(fd) : NULL;
    if (vcpu) {
        result = vcpu_run(vcpu);
    } else if (fd < 0) {
        result = -EBADF;
    } else {
        pthread_mutex_lock(&vm_lock);
        result = locked_call(fd, request, arg);
        pthread_mutex_unlock(&vm_lock);
    }
    if (result < 0) {
        errno = -result;
        return -1;
    }
    return result;
}

static int open_file(const char *name, int flags, mode_t mode)
{
    int fd;

    if (!strcmp(name, "/dev/sev")) {
        fd = syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC);
        vm.sev_fd = fd;
        return fd;
    }
    fd = syscall(SYS_openat, AT_FDCWD, name, flags, mode);
    if (!strcmp(name, "/dev/kvm")) {
        vm.kvm_fd = fd;
    }
    return fd;
}

#define OPEN(name)                                  \
    EXPORT int name(const char *path, int flags, ...) \
    {                                               \
        mode_t mode;                                \
        va_list ap;                                 \
                                                    \
        va_start(ap, flags);                        \
        mode = va_arg(ap, mode_t);                  \
        va_end(ap);                                 \
        return open_file(path, flags, mode);        \
    }

#undef open
#undef open64
OPEN(open)
OPEN(open64)

EXPORT int __open_2(const char *path, int flags)
{
    return open_file(path, flags, 0);
}

EXPORT int __open64_2(const char *path, int flags)
{
    return open_file(path, flags, 0);
}

static int punch(int fd, int mode, off_t offset, off_t size)
{
    int result = syscall(SYS_fallocate, fd, mode, offset, size);

    pthread_mutex_lock(&vm_lock);
    if (!result && mode & FALLOC_FL_PUNCH_HOLE && memory_is_gmem(fd)) {
        memory_punch(fd, offset, size);
    }
    pthread_mutex_unlock(&vm_lock);
    return result;
}

#undef fallocate
#undef fallocate64
EXPORT int fallocate(int fd, int mode, off_t offset, off_t size)
{
    return punch(fd, mode, offset, size);
}

EXPORT int fallocate64(int fd, int mode, off64_t offset, off64_t size)
{
    return punch(fd, mode, offset, size);
}

EXPORT int close(int fd)
{
    pthread_mutex_lock(&vm_lock);
    if (vm.type) {
        memory_close(fd);
    }
    pthread_mutex_unlock(&vm_lock);
    return syscall(SYS_close, fd);
}
