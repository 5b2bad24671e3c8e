/*
 * Conversion of guest memory by KVM: what KVM's code calls
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_KVM_GUEST_MEMFD_H
#define SYSTEM_KVM_GUEST_MEMFD_H

#include "exec/hwaddr.h"
#include "qapi/qapi-types-stats.h"
#include "qemu/typedefs.h"

/*
 * kvm_guest_memfd_init: probe, once the VM exists
 *
 * @two_backings: KVM can keep private and shared memory apart.
 *
 * Returns true if guest memory can be converted in place.  Issues no ioctl
 * for machines without guest_memfd memory.
 */
bool kvm_guest_memfd_init(MachineState *ms, bool two_backings);

/*
 * kvm_guest_memfd_slot_added: make KVM's attributes those of the block
 *
 * Nothing to do in place, where attributes belong to the memory and not to
 * the address.  Returns 0 or a negative errno value.
 */
int kvm_guest_memfd_slot_added(MemoryRegion *mr, hwaddr gpa, uint64_t offset,
                               uint64_t size);

/*
 * kvm_guest_memfd_convert: memory that the launch, or the access of a guest
 * that says so, needs to have this state
 *
 * Returns 0 or a negative errno value.
 */
int kvm_guest_memfd_convert(hwaddr gpa, uint64_t size, bool to_private);

/*
 * kvm_guest_memfd_memory_fault: KVM_EXIT_MEMORY_FAULT of @cpu
 *
 * @private: the flag of the exit.
 *
 * Called by the vCPU's thread without the BQL.  Returns 0 if the vCPU can
 * be entered again, negative if the VM must be stopped.
 */
int kvm_guest_memfd_memory_fault(CPUState *cpu, hwaddr gpa, uint64_t size,
                                 bool private);

/*
 * kvm_guest_memfd_add_stats: the VM's conversions for query-stats
 *
 * Puts those of @names (NULL: all) before @list, in the same order as
 * kvm_guest_memfd_add_schema() does.  Nothing for other targets than the
 * VM, or when it has no guest memory to convert.  BQL held.
 */
StatsList *kvm_guest_memfd_add_stats(StatsTarget target, strList *names,
                                     StatsList *list);
StatsSchemaValueList *
kvm_guest_memfd_add_schema(StatsTarget target, StatsSchemaValueList *list);

#endif /* SYSTEM_KVM_GUEST_MEMFD_H */
