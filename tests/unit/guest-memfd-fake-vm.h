/*
 * A VM on the fake KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The rig of the engine, with a provider that KVM's code has chosen, and
 * two blocks: pages 0 to 7 of guest-physical memory, and 8 to 15.
 */

#ifndef TESTS_UNIT_GUEST_MEMFD_FAKE_VM_H
#define TESTS_UNIT_GUEST_MEMFD_FAKE_VM_H

#include "accel/kvm/kvm-guest-memfd-choice.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-ram.h"
#include "guest-memfd-fake-kernel.h"

#define VM_PAGES    (FAKE_MEMORIES * FAKE_PAGES)


/* Of the platform of VMs that are new. */
extern bool vm_hides_private_bytes;

/* Probing, as QEMU does it when the VM is new. */
bool vm_init(bool two_backings);
/* One whose launch populates private memory. */
bool vm_init_launched_from_copy(void);
bool vm_init_without_guest_memfd(void);

/* Not launched yet. */
Rig *vm_new(OnOffAuto in_place);
/* On a kernel that takes these flags, and on one that cannot do it in place. */
Rig *vm_new_in_place(uint64_t to_shared, uint64_t to_private);
Rig *vm_new_two_backings(void);
/* With the fake kernel. */
void vm_free(Rig *rig);

/* The guest's hypercall; returns the answer to the guest. */
uint64_t vm_ask(uint64_t gpa, uint64_t pages, uint64_t attributes);

/* Does an access of the guest say whether it is private?  No, by default. */
void vm_guest_says(bool guest_says);
ConfidentialGuestSupportClass *vm_guest_class(void);
/* KVM's exit; returns what kvm_cpu_exec() goes by. */
int vm_fault(uint64_t gpa, uint64_t pages, bool private);

/*
 * KVM_PRE_FAULT_MEMORY, if this KVM has it: 0, or it stops after so many
 * pages; 0, or its error.
 */
extern unsigned vcpu_prefaults_at_most;
extern int vcpu_prefault_error;

/* The memory of a page of guest-physical memory. */
FakeMemory *vm_memory(unsigned page);
#define vm_is_private(page) \
    fake_is_private(vm_memory(page), (page) % FAKE_PAGES)
#define vm_words(page) fake_words(vm_memory(page), (page) % FAKE_PAGES)
bool vm_is_recorded_shared(const Rig *rig, unsigned page);

/* QEMU's record is what KVM holds, in every page. */
void vm_check(const Rig *rig);

/* Put a page into a state, with everything that knows of it. */
void vm_set_page(Rig *rig, unsigned page, bool shared, uint64_t word);

/* Does the whole of the page's bytes look like @word? */
bool vm_reads(unsigned page, uint64_t word);

#endif /* TESTS_UNIT_GUEST_MEMFD_FAKE_VM_H */
