/*
 * Conversion of guest memory: what the rest of QEMU calls
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_RAM_H
#define SYSTEM_GUEST_MEMFD_RAM_H

#include "system/guest-memfd.h"
#include "system/guest-memfd-memory.h"
#include "system/memory.h"
#include "system/ramblock.h"

#define TYPE_MEMORY_BACKEND_MEMFD_PRIVATE "memory-backend-memfd-private"

/*
 * guest_memfd_ram_block_init: allocate the memory of a RAM_GUEST_MEMFD block
 *
 * Called by ram_block_add() before it allocates host memory, with the BQL.
 * With an in-place provider the block gets host memory, guest_memfd and
 * attributes, or loses the flag until it becomes guest RAM; otherwise it is
 * left to ram_block_add().
 */
bool guest_memfd_ram_block_init(RAMBlock *rb, Error **errp);

/* Called when the block is reclaimed.  Does not free its host memory. */
void guest_memfd_ram_block_cleanup(RAMBlock *rb);

/*
 * Keep conversions out while the listeners or memslots of a block change;
 * BQL held.  Nothing happens for memory that the manager does not know.
 */
void guest_memfd_ram_block_lock(RAMBlock *rb);
void guest_memfd_ram_block_unlock(RAMBlock *rb);

/*
 * guest_memfd_ram_block_discard: there is only one copy of the memory, so
 * shared pages are thrown away, and private ones are not QEMU's to touch.
 *
 * For blocks that are converted in place.  Returns 0, -EPERM if a page is
 * private, or another negative errno value.
 */
int guest_memfd_ram_block_discard(RAMBlock *rb, uint64_t offset,
                                  uint64_t size);

/* Is this VM's guest memory converted in place? */
bool guest_memfd_is_in_place(void);

/*
 * guest_memfd_debug_attrs: of an access by gdb or the monitor: the guest's
 * own, if the user lets them see private memory (see sw-protected-guest)
 */
MemTxAttrs guest_memfd_debug_attrs(MemTxAttrs attrs);

/*
 * guest_memfd_dump_has_private: is private memory of @rb part of a dump?  The
 * same property decides it.
 */
bool guest_memfd_dump_has_private(RAMBlock *rb);

/*
 * guest_memfd_ram_block_in_place: is the block converted in place?  Then
 * pages become inaccessible, and exist only once.
 */
bool guest_memfd_ram_block_in_place(RAMBlock *rb);

/* The content policy of one block of guest_memfd memory. */
void guest_memfd_ram_block_set_policy(RAMBlock *rb,
                                      GuestMemfdContentPolicy policy);

/*
 * guest_memfd_wants_huge_pages: is the memory of @rb, which may be NULL, to
 * consist of huge pages where possible?  Only a memory-backend-memfd-private
 * can say no.
 */
bool guest_memfd_wants_huge_pages(const RAMBlock *rb);

/*
 * guest_memfd_convert: process a request of a guest
 *
 * See guest_memfd_engine_convert() and guest_memfd_engine_request().
 * Return -EINVAL when this VM has no memory to convert.
 */
int guest_memfd_convert(const GuestMemfdRequest *req,
                        GuestMemfdResult *result);
int guest_memfd_request(hwaddr gpa, uint64_t size, uint64_t attributes,
                        GuestMemfdOrigin origin, GuestMemfdResult *result);

/*
 * guest_memfd_answer: the answer to the guest for @ret, 0 or a negative errno
 * value: 0, EAGAIN for a transient error, or EINVAL
 */
uint64_t guest_memfd_answer(int ret);

/*
 * guest_memfd_map_gpa_range: a guest's KVM_HC_MAP_GPA_RANGE
 *
 * @npages is in units of 4 KiB.  Returns the answer to the guest: 0, EINVAL
 * or EAGAIN, the only values that KVM passes on for every kind of VM.
 */
uint64_t guest_memfd_map_gpa_range(hwaddr gpa, uint64_t npages,
                                   uint64_t attributes);

/*
 * guest_memfd_cpuid: leaf @index of the block that a guest which starts
 * shared finds in CPUID, as EAX, EBX, ECX and EDX; false behind the last.
 * @engine may be NULL.
 */
bool guest_memfd_cpuid(const GuestMemfdEngine *engine, uint32_t index,
                       uint32_t *regs);

/* False for a VM without guest memory that can be converted. */
bool guest_memfd_has_provider(void);

/*
 * guest_memfd_ram_block_start: take over a block with two backings
 *
 * Called by ram_block_add() when it has created guest_memfd and
 * attributes, all private, with the BQL.  On failure the block is as it was.
 */
bool guest_memfd_ram_block_start(RAMBlock *rb, Error **errp);

/* The engine of this VM, NULL without a manager.  BQL held. */
GuestMemfdEngine *guest_memfd_engine(void);

/*
 * guest_memfd_engine_for_ram: the engine, with its manager created and its
 * provider chosen, for the first guest memory.
 *
 * Returns NULL with @errp set on error.  engine->provider is NULL when the
 * machine's guest memory is not for the manager to provide.
 */
GuestMemfdEngine *guest_memfd_engine_for_ram(Error **errp);

#endif /* SYSTEM_GUEST_MEMFD_RAM_H */
