/*
 * How a vCPU enters the guest, and requests that the guest makes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A software-protected VM knows no access of the wrong kind, so a guest asks
 * for one: with STANDIN_FAULT in the attributes of its hypercall, QEMU sees
 * KVM_EXIT_MEMORY_FAULT for page after page instead, and the same one again
 * if it changes nothing.
 */

#include "standin.h"
#include <linux/kvm_para.h>
#include <sys/mman.h>

#define MAP_GPA_RANGE       12
#define ATTRIBUTE_ENCRYPTED (1ULL << 4)
#define STANDIN_FAULT       (1ULL << 60)
#define TDX_MAP_GPA_MAX     (2ULL << 20)
#define TDX_GPAW            48
#define CR0_PE              1
#define RESET_VECTOR        0xfffffff0

void vcpu_created(int fd, unsigned id)
{
    int size = real_ioctl(vm.kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
    Vcpu *vcpu;

    if (vm.vcpus_used == VCPUS_MAX) {
        abort();
    }
    vcpu = &vm.vcpus[vm.vcpus_used];
    vcpu->fd = fd;
    vcpu->id = id;
    vcpu->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (vcpu->run == MAP_FAILED) {
        abort();
    }
    vm.vcpus_used++;
}

Vcpu *vcpu_of(int fd)
{
    unsigned i;

    for (i = 0; i < vm.vcpus_used; i++) {
        if (vm.vcpus[i].fd == fd) {
            return &vm.vcpus[i];
        }
    }
    return NULL;
}

/* Registers are QEMU's until they are measured; a TD's never are. */
bool vcpu_state_protected(const Vcpu *vcpu, unsigned long request)
{
    switch (request) {
    case KVM_GET_REGS:
    case KVM_SET_REGS:
    case KVM_GET_SREGS:
    case KVM_SET_SREGS:
    case KVM_GET_SREGS2:
    case KVM_SET_SREGS2:
    case KVM_GET_XSAVE:
    case KVM_GET_XSAVE2:
    case KVM_SET_XSAVE:
    case KVM_GET_DEBUGREGS:
    case KVM_SET_DEBUGREGS:
        return is_tdx() || vm.phase == PHASE_FINAL;
    default:
        return false;
    }
}

/* A TD starts in flat protected mode, with what TDVF expects in registers. */
static void enter_td(Vcpu *vcpu)
{
    struct kvm_segment data = {
        .limit = 0xffffffff, .type = 3, .present = 1, .db = 1, .s = 1,
        .g = 1, .selector = 16,
    };
    struct kvm_regs regs = {
        .rip = RESET_VECTOR, .rflags = 2, .rbx = TDX_GPAW,
        .rcx = vcpu->hob, .r8 = vcpu->hob, .rsi = vcpu->id,
    };
    struct kvm_sregs sregs;

    if (real_ioctl(vcpu->fd, KVM_GET_SREGS, &sregs)) {
        abort();
    }
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
    sregs.cs = data;
    sregs.cs.type = 11;
    sregs.cs.selector = 8;
    sregs.cr0 |= CR0_PE;
    if (real_ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) ||
        real_ioctl(vcpu->fd, KVM_SET_REGS, &regs)) {
        abort();
    }
}

static bool enter(Vcpu *vcpu)
{
    if (vm.phase != PHASE_FINAL) {
        unlawful("KVM_RUN in phase %u", vm.phase);
        return false;
    }
    if (!vcpu->entered) {
        record("KVM_RUN vcpu=%u", vcpu->id);
        vcpu->entered = true;
        if (is_tdx() && !vcpu->id) {
            enter_td(vcpu);
        }
    }
    return true;
}

/* --- exits ------------------------------------------------------------- */

static bool wants_private(const Vcpu *vcpu)
{
    return vcpu->saved.hypercall.args[2] & ATTRIBUTE_ENCRYPTED;
}

static int exit_with_fault(Vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;

    run->exit_reason = KVM_EXIT_MEMORY_FAULT;
    run->memory_fault.flags = wants_private(vcpu) ?
                              KVM_MEMORY_EXIT_FLAG_PRIVATE : 0;
    run->memory_fault.gpa = vcpu->gpa;
    run->memory_fault.size = PAGE;
    record("EXIT_MEMORY_FAULT vcpu=%u gpa=0x%" PRIx64 " private=%d",
           vcpu->id, vcpu->gpa, wants_private(vcpu));
    return -EFAULT;
}

static int exit_with_hypercall(Vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint64_t pages = MIN(vcpu->left, TDX_MAP_GPA_MAX) / PAGE;

    run->exit_reason = KVM_EXIT_HYPERCALL;
    run->hypercall = vcpu->saved.hypercall;
    if (is_tdx() && vcpu->left) {
        run->hypercall.args[0] = vcpu->gpa;
        run->hypercall.args[1] = pages;
    }
    record("EXIT_HYPERCALL vcpu=%u gpa=0x%llx pages=0x%llx "
           "attributes=0x%llx", vcpu->id, run->hypercall.args[0],
           run->hypercall.args[1], run->hypercall.args[2]);
    return 0;
}

static void resume_with(Vcpu *vcpu, uint64_t ret)
{
    vcpu->pending = IDLE;
    vcpu->run->exit_reason = KVM_EXIT_HYPERCALL;
    vcpu->run->hypercall = vcpu->saved.hypercall;
    vcpu->run->hypercall.ret = ret;
}

/* The access is tried again; one page further if it was resolved. */
static bool fault_continues(Vcpu *vcpu)
{
    while (vcpu->left && page_private(vcpu->gpa) == wants_private(vcpu)) {
        vcpu->gpa += PAGE;
        vcpu->left -= PAGE;
    }
    if (!vcpu->left) {
        resume_with(vcpu, 0);
    }
    return vcpu->left;
}

/* TDX: the next part of a request, unless this one failed. */
static bool map_continues(Vcpu *vcpu)
{
    uint64_t ret = vcpu->run->hypercall.ret;
    uint64_t done = MIN(vcpu->left, TDX_MAP_GPA_MAX);

    if (ret && ret != EINVAL && ret != EAGAIN) {
        unlawful("hypercall.ret %" PRId64, (int64_t)ret);
    }
    if (is_tdx() && !ret && vcpu->left > done) {
        vcpu->gpa += done;
        vcpu->left -= done;
        return true;
    }
    resume_with(vcpu, ret);
    return false;
}

/* An exit that is made here, without the guest having run. */
static bool exits_at_once(Vcpu *vcpu, int *result)
{
    if (vcpu->pending == FAULT && fault_continues(vcpu)) {
        *result = exit_with_fault(vcpu);
        return true;
    }
    if (vcpu->pending == MAP_GPA && map_continues(vcpu)) {
        *result = exit_with_hypercall(vcpu);
        return true;
    }
    return false;
}

static int map_gpa_range(Vcpu *vcpu)
{
    uint64_t *args = (uint64_t *)vcpu->run->hypercall.args;
    bool fault = args[2] & STANDIN_FAULT;

    vcpu->saved.hypercall = vcpu->run->hypercall;
    vcpu->gpa = args[0];
    vcpu->left = args[1] > UINT64_MAX / PAGE ? 0 : args[1] * PAGE;
    vcpu->pending = fault ? FAULT : MAP_GPA;
    if (fault && !fault_continues(vcpu)) {
        return 1;
    }
    return fault ? exit_with_fault(vcpu) : exit_with_hypercall(vcpu);
}

/* Without vm_lock while the guest runs. */
int vcpu_run(Vcpu *vcpu)
{
    int result;

    pthread_mutex_lock(&vm_lock);
    if (!enter(vcpu)) {
        pthread_mutex_unlock(&vm_lock);
        return -EINVAL;
    }
    while (!exits_at_once(vcpu, &result)) {
        pthread_mutex_unlock(&vm_lock);
        result = real_ioctl(vcpu->fd, KVM_RUN, NULL);
        pthread_mutex_lock(&vm_lock);
        if (result || vcpu->run->exit_reason != KVM_EXIT_HYPERCALL ||
            vcpu->run->hypercall.nr != MAP_GPA_RANGE) {
            break;
        }
        result = map_gpa_range(vcpu);
        if (result <= 0) {
            break;
        }
    }
    pthread_mutex_unlock(&vm_lock);
    return result;
}
