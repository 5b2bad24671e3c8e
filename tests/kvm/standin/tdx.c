/*
 * TDX: what vmx/tdx.c and the TDX module answer until the launch is final
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "standin.h"

#define CPUID_MAX           100
#define ATTRIBUTES          (1ULL << 28 | 1ULL << 30 | 1ULL << 63)
#define XFAM                0x602e7ULL
#define SHARED_BIT          (1ULL << 47)

static int capabilities(struct kvm_tdx_capabilities *caps)
{
    uint32_t room = caps->cpuid.nent;
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + CPUID_MAX *
                                      sizeof(struct kvm_cpuid_entry2));
    int result;

    cpuid->nent = CPUID_MAX;
    result = real_ioctl(vm.kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid);
    if (!result && cpuid->nent > room) {
        result = -E2BIG;
    }
    if (!result) {
        memset(caps, 0, offsetof(struct kvm_tdx_capabilities, cpuid));
        caps->supported_attrs = ATTRIBUTES;
        caps->supported_xfam = XFAM;
        memcpy(&caps->cpuid, cpuid, sizeof(*cpuid) + cpuid->nent *
               sizeof(struct kvm_cpuid_entry2));
    }
    free(cpuid);
    return result;
}

static int init_vm(const struct kvm_tdx_init_vm *arg)
{
    return vm.phase != PHASE_NEW || arg->attributes & ~ATTRIBUTES ||
           arg->xfam & ~XFAM || arg->cpuid.padding ? -EINVAL : 0;
}

/* CPUID is as QEMU configured it. */
static int get_cpuid(struct kvm_cpuid2 *arg)
{
    arg->nent = 0;
    return vm.phase == PHASE_INIT ? 0 : -EINVAL;
}

static bool region_malformed(const struct kvm_tdx_init_mem_region *arg)
{
    uint64_t size = arg->nr_pages * PAGE;

    return arg->source_addr % PAGE || arg->gpa % PAGE || !arg->nr_pages ||
           arg->gpa + size <= arg->gpa || (arg->gpa & SHARED_BIT) ||
           ((arg->gpa + size - 1) & SHARED_BIT);
}

/* Page by page, as KVM does, and what was done is written back. */
static int add_pages(struct kvm_tdx_init_mem_region *arg, bool measure,
                     uint64_t pages)
{
    while (pages) {
        void *source = (void *)(uintptr_t)arg->source_addr;
        uint64_t digest = 0;
        int64_t n = memory_populate(arg->gpa, source, pages, &digest);

        if (n <= 0) {
            return n == -EEXIST || !n ? -EIO : n;
        }
        memory_measure(arg->gpa, measure, measure ? digest : 0);
        arg->source_addr += source ? n * PAGE : 0;
        arg->gpa += n * PAGE;
        arg->nr_pages -= n;
        pages -= n;
    }
    return 0;
}

static int init_mem_region(Vcpu *vcpu, struct kvm_tdx_cmd *cmd,
                           Injected failure)
{
    struct kvm_tdx_init_mem_region *arg = (void *)(uintptr_t)cmd->data;
    bool measure = cmd->flags & KVM_TDX_MEASURE_MEMORY_REGION;
    int result;

    if (!vcpu->ready || vm.phase == PHASE_FINAL ||
        cmd->flags & ~KVM_TDX_MEASURE_MEMORY_REGION) {
        return -EINVAL;
    }
    if (!arg->source_addr && !vm.in_place) {
        return -EOPNOTSUPP;
    }
    if (region_malformed(arg)) {
        return -EINVAL;
    }
    if (failure.error) {
        result = failure.progress ?
                 add_pages(arg, measure, arg->nr_pages / 2) : 0;
        return result ?: -failure.error;
    }
    return add_pages(arg, measure, arg->nr_pages);
}

static int region_command(Vcpu *vcpu, struct kvm_tdx_cmd *cmd,
                          Injected failure)
{
    struct kvm_tdx_init_mem_region *arg = (void *)(uintptr_t)cmd->data;
    struct kvm_tdx_init_mem_region was = *arg;
    int result = init_mem_region(vcpu, cmd, failure);

    record("TDX_INIT_MEM_REGION gpa=0x%llx pages=0x%llx flags=%u source=%d "
           "left=0x%llx measurement=%016" PRIx64 " = %s", was.gpa,
           was.nr_pages, cmd->flags, !!was.source_addr, arg->nr_pages,
           vm.measurement, errno_name(-result));
    if (result && !failure.error) {
        unlawful("TDX_INIT_MEM_REGION");
    }
    return result;
}

static int init_vcpu(Vcpu *vcpu, const struct kvm_tdx_cmd *cmd)
{
    if (vm.phase != PHASE_INIT || cmd->flags || vcpu->ready) {
        return -EINVAL;
    }
    vcpu->ready = true;
    vcpu->hob = cmd->data;
    return 0;
}

static int finalize(const struct kvm_tdx_cmd *cmd)
{
    return vm.phase != PHASE_INIT ? -EINVAL : 0;
}

static int answer(const char *name, int result, Injected failure)
{
    if (result && result != -E2BIG) {
        unlawful("%s in phase %u", name, vm.phase);
    }
    result = result ?: -failure.error;
    record("%s = %s", name, errno_name(-result));
    return result;
}

int tdx_vm_command(struct kvm_tdx_cmd *cmd)
{
    void *data = (void *)(uintptr_t)cmd->data;
    int result;

    cmd->hw_error = 0;
    switch (cmd->id) {
    case KVM_TDX_CAPABILITIES:
        return answer("TDX_CAPABILITIES", capabilities(data),
                      inject("TDX_CAPABILITIES"));
    case KVM_TDX_INIT_VM:
        result = answer("TDX_INIT_VM", init_vm(data), inject("TDX_INIT_VM"));
        vm.phase = result ? vm.phase : PHASE_INIT;
        return result;
    case KVM_TDX_FINALIZE_VM:
        result = answer("TDX_FINALIZE_VM", finalize(cmd),
                        inject("TDX_FINALIZE_VM"));
        vm.phase = result ? vm.phase : PHASE_FINAL;
        return result;
    default:
        unlawful("command %u of TDX for the VM", cmd->id);
        return -EINVAL;
    }
}

int tdx_vcpu_command(Vcpu *vcpu, struct kvm_tdx_cmd *cmd)
{
    void *data = (void *)(uintptr_t)cmd->data;
    int result;

    cmd->hw_error = 0;
    switch (cmd->id) {
    case KVM_TDX_INIT_VCPU:
        result = answer("TDX_INIT_VCPU", init_vcpu(vcpu, cmd),
                        inject("TDX_INIT_VCPU"));
        vcpu->ready = !result;
        return result;
    case KVM_TDX_INIT_MEM_REGION:
        return region_command(vcpu, cmd, inject("TDX_INIT_MEM_REGION"));
    case KVM_TDX_GET_CPUID:
        return answer("TDX_GET_CPUID", get_cpuid(data),
                      inject("TDX_GET_CPUID"));
    default:
        unlawful("command %u of TDX for a vCPU", cmd->id);
        return -EINVAL;
    }
}
