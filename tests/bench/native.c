/*
 * The steps of a conversion on this machine, in nanoseconds
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Prints one JSON object.  A tiny guest in 32-bit protected mode runs in
 * guest_memfd memory that is mapped here, too: it exits to KVM (CPUID), to
 * this program (OUT), and touches pages that are there but not in its page
 * tables.  Null is what this KVM does not offer.  Exits with 77, and says why,
 * where there is no guest_memfd that can be mapped.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CREATE_GUEST_MEMFD  _IOWR(KVMIO, 0xd4, struct create_guest_memfd)
#define SET_USER_MEMORY2    _IOW(KVMIO, 0x49, struct memory_region2)
#define PRE_FAULT_MEMORY    _IOWR(KVMIO, 0xd5, struct pre_fault_memory)
#define CAP_PRE_FAULT       236
#define MEM_GUEST_MEMFD     (1 << 2)
#define FLAG_MMAP           (1 << 0)
#define FLAG_INIT_SHARED    (1 << 1)

#define PAGE        4096UL
#define AREA        (2UL << 20)
#define AREA_PAGES  (AREA / PAGE)
#define MEMORY      (2 * AREA)
#define CODE        0x1000
#define EXITS       2000
#define ROUNDS      15

struct create_guest_memfd { uint64_t size, flags, reserved[6]; };

struct memory_region2 {
    uint32_t slot, flags;
    uint64_t gpa, size, host, offset;
    uint32_t fd, pad;
    uint64_t reserved[14];
};

struct pre_fault_memory { uint64_t gpa, size, flags, padding[5]; };

/* ecx times CPUID; ecx times OUT; a word to ecx pages from edi on. */
static const uint8_t code_cpuid[] = {
    0x89, 0xce,                     /* mov esi, ecx */
    0x31, 0xc0, 0x0f, 0xa2,         /* xor eax, eax; cpuid */
    0x4e, 0x75, 0xf9,               /* dec esi; jnz -7 */
    0xe6, 0x10, 0xf4,               /* out 0x10, al; hlt */
};
static const uint8_t code_out[] = {
    0xe6, 0x11, 0xe2, 0xfc,         /* out 0x11, al; loop -4 */
    0xe6, 0x10, 0xf4,
};
static const uint8_t code_touch[] = {
    0x89, 0x07,                     /* mov [edi], eax */
    0x81, 0xc7, 0x00, 0x10, 0, 0,   /* add edi, 4096 */
    0xe2, 0xf6,                     /* loop -10 */
    0xe6, 0x10, 0xf4,
};

static struct {
    int vm, vcpu, memfd;
    struct kvm_run *run;
    uint8_t *memory;
} kvm;

static void cannot(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(77);
}

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

/* --- the guest ----------------------------------------------------------- */

static void make_memory(void)
{
    struct create_guest_memfd create = {
        .size = MEMORY, .flags = FLAG_MMAP | FLAG_INIT_SHARED,
    };
    struct memory_region2 region = {
        .flags = MEM_GUEST_MEMFD, .size = MEMORY,
    };

    kvm.memfd = ioctl(kvm.vm, CREATE_GUEST_MEMFD, &create);
    if (kvm.memfd < 0) {
        cannot("no guest_memfd that can be mapped");
    }
    kvm.memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED,
                      kvm.memfd, 0);
    if (kvm.memory == MAP_FAILED) {
        cannot("guest_memfd cannot be mapped");
    }
    region.host = (uintptr_t)kvm.memory;
    region.fd = kvm.memfd;
    if (ioctl(kvm.vm, SET_USER_MEMORY2, &region)) {
        cannot("no memslot in guest_memfd");
    }
}

static void make_guest(void)
{
    int dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int size;

    if (dev < 0) {
        cannot("/dev/kvm");
    }
    kvm.vm = ioctl(dev, KVM_CREATE_VM, 0);
    if (kvm.vm < 0) {
        cannot("KVM_CREATE_VM");
    }
    make_memory();
    kvm.vcpu = ioctl(kvm.vm, KVM_CREATE_VCPU, 0);
    size = ioctl(dev, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (kvm.vcpu < 0 || size < 0) {
        cannot("KVM_CREATE_VCPU");
    }
    kvm.run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, kvm.vcpu,
                   0);
    if (kvm.run == MAP_FAILED) {
        cannot("KVM_RUN cannot be mapped");
    }
}

static void set_segment(struct kvm_segment *s, uint16_t selector, int type)
{
    *s = (struct kvm_segment) {
        .limit = 0xffffffff, .selector = selector, .type = type,
        .present = 1, .db = 1, .s = 1, .g = 1,
    };
}

static void set_state(const uint8_t *code, size_t size, uint32_t count)
{
    struct kvm_regs regs = {
        .rip = CODE, .rcx = count, .rdi = AREA, .rflags = 2,
    };
    struct kvm_sregs sregs;

    memcpy(kvm.memory + CODE, code, size);
    if (ioctl(kvm.vcpu, KVM_GET_SREGS, &sregs)) {
        cannot("KVM_GET_SREGS");
    }
    set_segment(&sregs.cs, 8, 11);
    set_segment(&sregs.ds, 16, 3);
    sregs.es = sregs.ss = sregs.fs = sregs.gs = sregs.ds;
    sregs.cr0 |= 1;
    if (ioctl(kvm.vcpu, KVM_SET_SREGS, &sregs) ||
        ioctl(kvm.vcpu, KVM_SET_REGS, &regs)) {
        cannot("KVM_SET_REGS");
    }
}

/* Until the guest says that it is done; returns the time that this takes. */
static double run_guest(const uint8_t *code, size_t size, uint32_t count)
{
    double start;

    set_state(code, size, count);
    start = now_ns();
    do {
        if (ioctl(kvm.vcpu, KVM_RUN, 0) && errno != EINTR) {
            cannot("KVM_RUN");
        }
        if (kvm.run->exit_reason != KVM_EXIT_IO) {
            errno = EIO;
            cannot("the guest does not run");
        }
    } while (kvm.run->io.port != 0x10);
    return now_ns() - start;
}

/* --- what is measured ----------------------------------------------------- */

static void punch(void)
{
    if (fallocate(kvm.memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, AREA,
                  AREA)) {
        cannot("fallocate");
    }
}

static void touch_host(void)
{
    uint64_t at;

    for (at = 0; at < AREA; at += PAGE) {
        *(volatile uint8_t *)(kvm.memory + AREA + at) = 1; /* a page fault */
    }
}

/* The guest's page tables lose the pages, the file keeps them: a new slot. */
static void forget_mappings(void)
{
    struct memory_region2 region = {
        .flags = MEM_GUEST_MEMFD,
        .host = (uintptr_t)kvm.memory, .fd = kvm.memfd,
    };

    if (ioctl(kvm.vm, SET_USER_MEMORY2, &region)) {
        cannot("the memslot cannot be removed");
    }
    region.size = MEMORY;
    if (ioctl(kvm.vm, SET_USER_MEMORY2, &region)) {
        cannot("the memslot cannot be added again");
    }
    /* The page of the code is there again. */
    run_guest(code_out, sizeof(code_out), 1);
}

static double guest_cpuid(void)
{
    return run_guest(code_cpuid, sizeof(code_cpuid), EXITS) / EXITS;
}

static double guest_out(void)
{
    return run_guest(code_out, sizeof(code_out), EXITS) / EXITS;
}

static double guest_fault(void)
{
    touch_host();
    forget_mappings();
    return run_guest(code_touch, sizeof(code_touch), AREA_PAGES) / AREA_PAGES;
}

static double guest_prefault(void)
{
    struct pre_fault_memory range = { .gpa = AREA, .size = AREA };
    double start;

    touch_host();
    forget_mappings();
    start = now_ns();
    while (range.size && !ioctl(kvm.vcpu, PRE_FAULT_MEMORY, &range)) {
        continue;
    }
    return range.size ? -1 : (now_ns() - start) / AREA_PAGES;
}

static double host_punch(void)
{
    double start;

    touch_host();
    start = now_ns();
    punch();
    return (now_ns() - start) / AREA_PAGES;
}

static double host_refault(void)
{
    double start;

    punch();
    start = now_ns();
    touch_host();
    return (now_ns() - start) / AREA_PAGES;
}

static double host_memset(void)
{
    double start;

    touch_host();
    start = now_ns();
    memset(kvm.memory + AREA, 0, AREA);
    return now_ns() - start;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double (*measure)(void))
{
    double ns[ROUNDS];
    unsigned i;

    measure();
    for (i = 0; i < ROUNDS; i++) {
        ns[i] = measure();
    }
    qsort(ns, ROUNDS, sizeof(ns[0]), compare);
    return ns[ROUNDS / 2];
}

int main(void)
{
    static const struct { const char *what; double (*measure)(void); } all[] = {
        { "exit to KVM (CPUID)", guest_cpuid },
        { "exit to QEMU (OUT)", guest_out },
        { "page fault of the guest, page is there", guest_fault },
        { "KVM_PRE_FAULT_MEMORY of 2 MiB, for a page", guest_prefault },
        { "hole of 2 MiB, for a page", host_punch },
        { "page fault of the host after that", host_refault },
        { "memset of 2 MiB, all of it", host_memset },
    };
    unsigned i, n = sizeof(all) / sizeof(all[0]);

    make_guest();
    printf("{\"benchmark\": \"steps of a conversion, natively\", "
           "\"unit\": \"ns\"");
    for (i = 0; i < n; i++) {
        double ns = median(all[i].measure);

        if (ns < 0) {
            printf(",\n \"%s\": null", all[i].what);
        } else {
            printf(",\n \"%s\": %.0f", all[i].what, ns);
        }
    }
    printf("}\n");
    return 0;
}
