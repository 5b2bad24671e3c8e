/*
 * Conversion of guest memory: the launch of a confidential guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest that does not start shared is launched like this:
 *
 *   setup     QEMU writes the initial contents; devices see no memory
 *   populate  parts of it become private, and the platform takes each one
 *             over (guest_memfd_populate()); the rest becomes private at once
 *             (guest_memfd_seal())
 *   final     the platform has ended the launch (guest_memfd_finish())
 *   running   the guest has run
 *
 * For memory that is converted in place: with two backings a platform copies
 * its pages, and everything else is private from the start.
 *
 * All functions are called with the BQL, before a vCPU runs.
 */

#ifndef SYSTEM_GUEST_MEMFD_LAUNCH_H
#define SYSTEM_GUEST_MEMFD_LAUNCH_H

#include "exec/hwaddr.h"
#include "qapi/qapi-types-guest-memfd-common.h"
#include "system/guest-memfd.h"

/*
 * The bytes of memory that is populated.
 *
 * @GUEST_MEMFD_CONTENTS_WRITTEN: QEMU wrote to each page.  A page that nobody
 *     wrote to is an error: it would be measured as zeros.
 * @GUEST_MEMFD_CONTENTS_ZERO: zeros, on purpose, or whatever the platform
 *     makes of them.  Pages that were written to are cleared.
 */
typedef enum GuestMemfdContents {
    GUEST_MEMFD_CONTENTS_WRITTEN,
    GUEST_MEMFD_CONTENTS_ZERO,
} GuestMemfdContents;

/*
 * A part of the launch.
 *
 * @block, @offset, @size: in bytes, multiples of @block->page_size.
 * @gpa: the address of @offset, for the platform.
 * @source: copied to the pages first.  NULL, or the pages themselves: they
 *     have their bytes already.  Not in another block that can be private.
 * @type: of the pages, a value of the platform.
 */
typedef struct GuestMemfdPart {
    GuestMemfdBlock *block;
    uint64_t offset;
    uint64_t size;
    hwaddr gpa;
    const void *source;
    GuestMemfdContents contents;
    uint32_t type;
} GuestMemfdPart;

/*
 * GuestMemfdLaunchFn: the platform takes over the private pages of @part,
 * whose bytes are in the pages.  Returns 0, or a negative errno value with
 * @errp set.
 */
typedef int GuestMemfdLaunchFn(void *opaque, const GuestMemfdPart *part,
                               Error **errp);

/* --- engine ------------------------------------------------------------ */

/*
 * guest_memfd_engine_set_phase: the memory of the VM is in @phase now
 *
 * Phases only advance; an earlier one changes nothing.  The provider is asked
 * for its offer once more.
 */
void guest_memfd_engine_set_phase(GuestMemfdEngine *engine,
                                  GuestMemfdPhase phase);

/*
 * guest_memfd_engine_populate: make memory private, as a part of the launch
 *
 * One unit: the bytes are copied while the pages are in setup, the pages are
 * converted with content mode preserve (origin launch), and @launch takes
 * them over.  On failure all pages are in setup again, with their bytes where
 * the provider can preserve them (KVM may have corrected them).  They may be
 * populated anew; if @launch failed, they are to be written first.
 *
 * Begins phase populate.  Returns 0, or a negative errno value with @errp
 * set: -EPERM after the launch, -EINVAL (not aligned, or not in the block),
 * -EEXIST (a page is private already), -ENODATA (nobody wrote to a page),
 * -EFAULT (the source is private), or
 * the error of the conversion or of @launch.  -EIO if the state of a page is
 * unknown.
 */
int guest_memfd_engine_populate(GuestMemfdEngine *engine,
                                const GuestMemfdPart *part,
                                GuestMemfdLaunchFn *launch, void *opaque,
                                Error **errp);

/*
 * guest_memfd_engine_seal: make all memory in setup private
 *
 * One request for each block (origin launch), which promises no contents.
 * Devices see the blocks from then on.  Returns 0, or a negative errno value
 * with @errp set; blocks that were sealed before the failure stay so.
 */
int guest_memfd_engine_seal(GuestMemfdEngine *engine, Error **errp);
/* The same for one block; does nothing if it is not in setup. */
int guest_memfd_engine_seal_block(GuestMemfdEngine *engine,
                                  GuestMemfdBlock *block, Error **errp);

/*
 * guest_memfd_engine_run: the VM starts, or continues
 *
 * Before phase running, which it begins, all memory is sealed that a platform
 * did not seal.  Memory that is added later is sealed when it becomes guest
 * RAM.  Returns 0, or as guest_memfd_engine_seal().
 */
int guest_memfd_engine_run(GuestMemfdEngine *engine, Error **errp);

/*
 * guest_memfd_engine_rebind: give all blocks to a new VM
 *
 * Each block gets new memory of the provider at the same host address, with
 * the state of its start; nothing is left of the old bytes.  The phase is
 * setup.  Called when the accelerator has its new VM, with all vCPUs stopped
 * and no memslot of the old one in use.
 *
 * Returns 0, or a negative errno value with @errp set: -EOPNOTSUPP if the
 * provider cannot do it, -EBUSY if a device has a page mapped.  The guest
 * cannot run then: parts of its memory are the old VM's.
 */
int guest_memfd_engine_rebind(GuestMemfdEngine *engine, Error **errp);

/*
 * guest_memfd_ram_block_mapped_anew: the memory of @rb is another file's now
 *
 * Asks the host for all that it was asked for, as host nodes and no dump.
 * Returns true, or false with @errp set.
 */
bool guest_memfd_ram_block_mapped_anew(RAMBlock *rb, Error **errp);

/* --- the machine: for confidential guests ------------------------------ */

/*
 * guest_memfd_populate: populate [gpa, gpa + size) of guest-physical memory
 *
 * See guest_memfd_engine_populate(), which is called for each part of it that
 * is in one block; parts before one that fails stay populated.  The platform
 * is ConfidentialGuestSupportClass::launch_memory.  @source: see
 * GuestMemfdPart.  In place only: see guest_memfd_is_in_place().
 *
 * Returns 0, or a negative errno value with @errp set.
 */
int guest_memfd_populate(hwaddr gpa, uint64_t size, const void *source,
                         GuestMemfdContents contents, uint32_t type,
                         Error **errp);

/*
 * guest_memfd_note_written: [host, host + size), in one memory region, was
 * written to by a pointer
 *
 * Nothing happens for other memory than that of a block in setup.
 *
 * Writes by address_space_write() and the like are noted already.
 */
void guest_memfd_note_written(const void *host, uint64_t size);

/*
 * guest_memfd_seal, guest_memfd_finish: before and after the platform ends
 * the launch
 *
 * Nothing to do with two backings.
 */
int guest_memfd_seal(Error **errp);
void guest_memfd_finish(void);

#endif /* SYSTEM_GUEST_MEMFD_LAUNCH_H */
