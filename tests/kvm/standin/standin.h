/*
 * Stand-in for the hardware of SEV-SNP and TDX, at the border of KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * To be preloaded into QEMU.  A VM of type SNP or TDX becomes a
 * software-protected one of the real KVM; the ioctls that launch it are
 * answered here, by the rules of Linux's svm/sev.c and vmx/tdx.c, and have
 * their effect on the real guest_memfd.
 */

#ifndef TESTS_KVM_STANDIN_H
#define TESTS_KVM_STANDIN_H

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include <linux/psp-sev.h>
#include <pthread.h>

#define PAGE            ((uint64_t)4096)
#define SLOTS_MAX       64
#define GMEMS_MAX       64
#define VCPUS_MAX       16

/* QEMU never gets these; the hidden vCPU lives there. */
#define HIDDEN_SLOT     32000
#define HIDDEN_VCPU     255
#define HIDDEN_GPA      (256ULL << 30)
#define WINDOW_GPA      (320ULL << 30)

typedef enum Phase { PHASE_NEW, PHASE_INIT, PHASE_LAUNCH, PHASE_FINAL } Phase;

typedef struct Gmem {
    int fd;                     /* -1: closed */
    unsigned number;            /* in the order of creation */
    uint64_t size;
    uint8_t *private;           /* in place: a byte for each page */
    uint8_t *assigned;          /* populated, or used as private memory */
} Gmem;

typedef struct Slot {
    uint32_t id;
    uint64_t gpa;
    uint64_t size;              /* 0: unused */
    uint64_t host;
    uint64_t offset;
    Gmem *gmem;
} Slot;

typedef struct Vcpu {
    int fd;
    unsigned id;
    struct kvm_run *run;
    bool ready;                 /* TDX: INIT_VCPU was done */
    bool entered;
    uint64_t hob;
    struct kvm_run saved;       /* a hypercall that is answered by parts */
    enum { IDLE, MAP_GPA, FAULT } pending;
    uint64_t gpa, left;         /* what of it is to be done */
} Vcpu;

/* The one VM of this process. */
typedef struct Vm {
    int kvm_fd;
    int fd;
    int sev_fd;
    unsigned type;              /* 0: not one of ours */
    Phase phase;
    bool in_place;
    bool content_modes;         /* KVM has them */
    uint64_t measurement;
    Slot slots[SLOTS_MAX];
    Gmem gmems[GMEMS_MAX];
    unsigned gmems_used;
    Vcpu vcpus[VCPUS_MAX];
    unsigned vcpus_used;
} Vm;

extern Vm vm;
/* Held for every ioctl but KVM_RUN. */
extern pthread_mutex_t vm_lock;

int real_ioctl(int fd, unsigned long request, void *arg);

static inline bool is_snp(void)
{
    return vm.type == KVM_X86_SNP_VM;
}

static inline bool is_tdx(void)
{
    return vm.type == KVM_X86_TDX_VM;
}

/* record.c: a line for each call, and failures that a test wants */
void record(const char *format, ...) G_GNUC_PRINTF(1, 2);
void unlawful(const char *format, ...) G_GNUC_PRINTF(1, 2);
const char *errno_name(int error);

typedef struct Injected {
    int error;                  /* 0: none */
    int firmware;               /* error code of the firmware */
    bool progress;              /* half of it is done before */
} Injected;

Injected inject(const char *call);

/* memory.c: memslots, and the state of each page */
Slot *slot_of(uint64_t gpa);
uint8_t *page_assigned(uint64_t gpa);
bool page_private(uint64_t gpa);
int memory_set_slot(struct kvm_userspace_memory_region2 *region);
int memory_create_gmem(struct kvm_create_guest_memfd *arg);
int memory_vm_attributes(struct kvm_memory_attributes *arg);
int memory_gmem_attributes(int fd, void *arg);
bool memory_is_gmem(int fd);
void memory_punch(int fd, uint64_t offset, uint64_t size);
void memory_close(int fd);
/* Number of pages, at least 1, or a negative errno. */
int64_t memory_populate(uint64_t gpa, const void *source, uint64_t pages,
                        uint64_t *digest);
void memory_measure(uint64_t gpa, uint64_t type, uint64_t digest);

/* hidden.c: a vCPU that accesses private memory for us */
bool hidden_copy(uint64_t gpa, const void *from, uint64_t size);
bool hidden_read(void *to, uint64_t gpa, uint64_t size);
bool hidden_fill(uint64_t gpa, uint8_t byte, uint64_t size);

/* vcpu.c: entry and exits */
void vcpu_created(int fd, unsigned id);
Vcpu *vcpu_of(int fd);
int vcpu_run(Vcpu *vcpu);
bool vcpu_state_protected(const Vcpu *vcpu, unsigned long request);

/* snp.c, tdx.c: a result as of ioctl(), errno as a negative value */
int sev_issue(struct sev_issue_cmd *arg);
int snp_command(struct kvm_sev_cmd *cmd);
int tdx_vm_command(struct kvm_tdx_cmd *cmd);
int tdx_vcpu_command(Vcpu *vcpu, struct kvm_tdx_cmd *cmd);

/* standin.c: what a fortified QEMU calls for open() */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);

#endif /* TESTS_KVM_STANDIN_H */
