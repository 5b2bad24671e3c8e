/*
 * Conversion of guest memory: the contract of engine and providers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_PROVIDER_H
#define SYSTEM_GUEST_MEMFD_PROVIDER_H

#include "qapi/qapi-types-common.h"
#include "qom/object.h"
#include "system/guest-memfd-policy.h"

#define TYPE_GUEST_MEMFD_PROVIDER "guest-memfd-provider"
OBJECT_DECLARE_TYPE(GuestMemfdProvider, GuestMemfdProviderClass,
                    GUEST_MEMFD_PROVIDER)

#define TYPE_GUEST_MEMFD_PROVIDER_EMULATED "guest-memfd-provider-emulated"

struct GuestMemfdProvider {
    Object parent_obj;

    GuestMemfdProviderType type;
    GuestMemfdOffer offer;
    char *reason;
    bool in_place;          /* it has block_alloc */
    bool can_be_off;        /* in-place=off is possible on this host, too */
    bool huge_pages;        /* block_alloc can ask for them */
    /*
     * convert() takes spans, by direction and mode: pages of the range that
     * are in the wanted state already stay in it, and keep their bytes.  In
     * pages, how many of them between two runs are worth one call instead of
     * two; 0: none.
     */
    unsigned spans[GUEST_MEMFD_DIRECTION__MAX][GUEST_MEMFD_CONTENT_MODE__MAX];
};

/* GuestMemfdProvider::spans is @pages for all directions and modes. */
void guest_memfd_provider_set_spans(GuestMemfdProvider *provider,
                                    unsigned pages);

/*
 * GuestMemfdProviderSource: the providers of an accelerator
 *
 * @allowed: of its AccelClass; NULL if it is not for an accelerator.
 * @in_place, @two_backings: both ways are possible, or one, or none.
 * @provider_new: returns NULL with @errp set if @in_place requires more.
 */
typedef struct GuestMemfdProviderSource {
    const bool *allowed;
    bool in_place;
    bool two_backings;
    GuestMemfdProvider *(*provider_new)(OnOffAuto in_place, Error **errp);
} GuestMemfdProviderSource;

/* Called by an accelerator that is set up; @source is static. */
void guest_memfd_register_source(const GuestMemfdProviderSource *source);

struct GuestMemfdProviderClass {
    ObjectClass parent_class;

    /*
     * @block_alloc: get memory for @block->size bytes, all of it shared.
     * Sets @block->host and @block->fd, and @block->page_size if it is not
     * the host's.  BQL held.  NULL if the memory is not converted in place:
     * the RAMBlock then has its two backings.
     */
    bool (*block_alloc)(GuestMemfdProvider *provider, GuestMemfdBlock *block,
                       Error **errp);

    /*
     * @block_free: drop what the provider keeps for @block, but not
     * @block->host and @block->fd, which belong to the RAMBlock by then.
     * May be NULL.
     */
    void (*block_free)(GuestMemfdProvider *provider,
                          GuestMemfdBlock *block);

    /*
     * @block_rebind: get new memory for @block, of the VM that there is now,
     * all of it shared and zero, and map it at @block->host, where nothing is
     * left of the old memory.  Sets @block->fd and closes the old file.
     * @block->lock and the BQL are held, no page is mapped, no vCPU runs.  On
     * failure @block has its old memory, or none that can be accessed.
     * May be NULL: the VM cannot be exchanged.
     */
    bool (*block_rebind)(GuestMemfdProvider *provider, GuestMemfdBlock *block,
                         Error **errp);

    /*
     * @begin, @end: around all that a request does to its blocks, with
     * none of their locks held.  May be NULL.
     */
    void (*begin)(GuestMemfdProvider *provider);
    void (*end)(GuestMemfdProvider *provider);

    /*
     * @convert: change the state of [offset, offset + size), in bytes and
     * page aligned.  Called with @block->lock held, only for pages that
     * are in the other state, except when the engine restores a range
     * whose conversion failed, and for spans (GuestMemfdProvider::spans): of
     * these guest_memfd_block_next_changed() gives the runs that change.
     *
     * @mode is kept by the provider unless the offer says "emulated".
     *
     * Returns 0 or a negative errno value.  -EAGAIN and -EINTR are worth
     * another try.  On failure pages may have changed state; the engine
     * then has the range converted back.  A provider that cannot preserve
     * bytes when it converts back must not return -EAGAIN or -EINTR after it
     * changed a page (KVM does not).  @error_offset is the offset of the page
     * that failed, where known.
     */
    int (*convert)(GuestMemfdProvider *provider, GuestMemfdBlock *block,
                   uint64_t offset, uint64_t size,
                   GuestMemfdDirection direction, GuestMemfdContentMode mode,
                   uint64_t *error_offset);

    /*
     * @discard: throw away the bytes of private pages, which read zeros
     * from then on.  Called with @block->lock held, right before @convert
     * makes them shared, where zero is promised and the offer says
     * "emulated".  So no shared page ever has its old bytes, and no write
     * after the conversion is lost.  The host must not be made to touch the
     * memory: it may be bad, or private.
     *
     * Returns 0 or a negative errno value, as @convert does.  On failure
     * bytes may have been replaced by zeros.
     */
    int (*discard)(GuestMemfdProvider *provider, GuestMemfdBlock *block,
                   uint64_t offset, uint64_t size);

    /*
     * @phase_changed: the VM's memory is in @phase from now on; may change
     * the offer.  Called with the BQL, while no conversion is in progress.
     * May be NULL.
     */
    void (*phase_changed)(GuestMemfdProvider *provider, GuestMemfdPhase phase);

    /*
     * @prefault: [gpa, gpa + size), in bytes and page aligned, was converted
     * on request of the vCPU that calls, which is likely to access it next:
     * have it in the page tables of the guest.  A hint: how much of it, if
     * any, is up to the provider, errors are found by the access itself, and
     * another vCPU may have converted it again.  No lock of the engine is
     * held.  May be NULL.
     */
    void (*prefault)(GuestMemfdProvider *provider, hwaddr gpa, uint64_t size);
};

#endif /* SYSTEM_GUEST_MEMFD_PROVIDER_H */
