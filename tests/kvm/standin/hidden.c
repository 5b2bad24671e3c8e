/*
 * A vCPU that QEMU does not know: it accesses private memory for us
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Nobody outside a software-protected VM can write to its private memory,
 * so a few instructions inside it do.  Their code, page tables and what
 * they copy from or to are in memslots far above the guest's memory.
 */

#include "standin.h"
#include <sys/mman.h>

#define CR0_PE          0x00000001ULL
#define CR0_PG          0x80000000ULL
#define CR4_PAE         0x00000020ULL
#define EFER_LME_LMA    0x00000500ULL
#define PTE_TABLE       0x003ULL
#define PTE_LARGE       0x083ULL
#define GIB             (1ULL << 30)
#define CPUID_MAX       100

/* rep movsq or rep stosq, then a port that no device has */
static const uint8_t copy_code[] = { 0xf3, 0x48, 0xa5, 0xe6, 0x80, 0xf4 };
static const uint8_t fill_code[] = { 0xf3, 0x48, 0xab, 0xe6, 0x80, 0xf4 };
#define FILL_OFFSET     64

static int hidden_fd = -1;
static struct kvm_run *hidden_run;

static bool set_memory(unsigned slot, uint64_t gpa, const void *host,
                       uint64_t size)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .guest_phys_addr = gpa,
        .userspace_addr = (uintptr_t)host,
        .memory_size = size,
    };

    return !real_ioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Code, and the first 512 GiB one to one. */
static bool create_memory(void)
{
    uint8_t *pages = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t *pml4, *pdpt, i;

    if (pages == MAP_FAILED) {
        return false;
    }
    memcpy(pages, copy_code, sizeof(copy_code));
    memcpy(pages + FILL_OFFSET, fill_code, sizeof(fill_code));
    pml4 = (uint64_t *)(pages + PAGE);
    pdpt = (uint64_t *)(pages + 2 * PAGE);
    pml4[0] = (HIDDEN_GPA + 2 * PAGE) | PTE_TABLE;
    for (i = 0; i < 512; i++) {
        pdpt[i] = i * GIB | PTE_LARGE;
    }
    return set_memory(HIDDEN_SLOT, HIDDEN_GPA, pages, 3 * PAGE);
}

static bool set_cpuid(void)
{
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + CPUID_MAX *
                                      sizeof(struct kvm_cpuid_entry2));
    bool good;

    cpuid->nent = CPUID_MAX;
    good = !real_ioctl(vm.kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) &&
           !real_ioctl(hidden_fd, KVM_SET_CPUID2, cpuid);
    free(cpuid);
    return good;
}

static bool set_mode(void)
{
    struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_RUNNABLE };
    struct kvm_segment data = {
        .limit = 0xffffffff, .type = 3, .present = 1, .db = 1, .s = 1,
        .g = 1, .selector = 16,
    };
    struct kvm_sregs sregs;

    if (real_ioctl(hidden_fd, KVM_GET_SREGS, &sregs)) {
        return false;
    }
    sregs.cs = data;
    sregs.cs.type = 11;
    sregs.cs.db = 0;
    sregs.cs.l = 1;
    sregs.cs.selector = 8;
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
    sregs.cr0 = CR0_PE | CR0_PG;
    sregs.cr3 = HIDDEN_GPA + PAGE;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME_LMA;
    return !real_ioctl(hidden_fd, KVM_SET_SREGS, &sregs) &&
           !real_ioctl(hidden_fd, KVM_SET_MP_STATE, &state);
}

static bool create(void)
{
    int size = real_ioctl(vm.kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);

    if (hidden_fd >= 0) {
        return true;
    }
    hidden_fd = real_ioctl(vm.fd, KVM_CREATE_VCPU, (void *)HIDDEN_VCPU);
    if (hidden_fd < 0) {
        return false;
    }
    hidden_run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
                      hidden_fd, 0);
    return hidden_run != MAP_FAILED && create_memory() && set_cpuid() &&
           set_mode();
}

/* Until the instruction behind the loop. */
static bool run(struct kvm_regs *regs)
{
    int result;

    if (real_ioctl(hidden_fd, KVM_SET_REGS, regs)) {
        return false;
    }
    do {
        result = real_ioctl(hidden_fd, KVM_RUN, NULL);
    } while (result == -EINTR || result == -EAGAIN);
    if (result || hidden_run->exit_reason != KVM_EXIT_IO) {
        unlawful("hidden vCPU: %s, exit reason %u",
                 errno_name(-result), hidden_run->exit_reason);
        return false;
    }
    return true;
}

static bool copy(uint64_t to, uint64_t from, const void *host, uint64_t size)
{
    struct kvm_regs regs = {
        .rip = HIDDEN_GPA, .rflags = 2,
        .rsi = from, .rdi = to, .rcx = size / 8,
    };
    bool good = create() &&
                set_memory(HIDDEN_SLOT + 1, WINDOW_GPA, host, size) &&
                run(&regs);

    set_memory(HIDDEN_SLOT + 1, WINDOW_GPA, host, 0);
    return good;
}

bool hidden_copy(uint64_t gpa, const void *from, uint64_t size)
{
    return copy(gpa, WINDOW_GPA, from, size);
}

bool hidden_read(void *to, uint64_t gpa, uint64_t size)
{
    return copy(WINDOW_GPA, gpa, to, size);
}

bool hidden_fill(uint64_t gpa, uint8_t byte, uint64_t size)
{
    struct kvm_regs regs = {
        .rip = HIDDEN_GPA + FILL_OFFSET, .rflags = 2,
        .rax = byte * 0x0101010101010101ULL, .rdi = gpa, .rcx = size / 8,
    };

    return create() && run(&regs);
}
