/*
 * Conversion of guest memory: requests, and the decision about the contents
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_POLICY_H
#define SYSTEM_GUEST_MEMFD_POLICY_H

#include "exec/hwaddr.h"
#include "qapi/qapi-types-guest-memfd.h"
#include "system/guest-memfd-guest.h"

typedef struct GuestMemfdBlock GuestMemfdBlock;

/*
 * Contents that a request asks for.
 *
 * @GUEST_MEMFD_INTENT_UNSPECIFIED: the origin and the policies decide
 * @GUEST_MEMFD_INTENT_NONE: nothing is promised, whatever the policies say;
 *     never refused.  For QEMU's own requests, no guest can ask for it.
 */
typedef enum GuestMemfdIntent {
    GUEST_MEMFD_INTENT_UNSPECIFIED,
    GUEST_MEMFD_INTENT_ZERO,
    GUEST_MEMFD_INTENT_PRESERVE,
    GUEST_MEMFD_INTENT_NONE,
    GUEST_MEMFD_INTENT__MAX,
} GuestMemfdIntent;

/*
 * GuestMemfdOffer: how a provider can keep each content mode.
 *
 * @how: "refused" where it cannot; "emulated" for zero means that the
 *     engine calls GuestMemfdProviderClass::discard before the conversion.
 *     Default to either side is never refused.
 * @preserve_until_final: to-private keeps the bytes by the kernel in the
 *     phases setup and populate, whatever @how says.
 * @hides_private_bytes: the host cannot read private bytes, whatever becomes
 *     of the page: the platform encrypts them, or clears them.  There is no
 *     need to zero them then.
 */
typedef struct GuestMemfdOffer {
    GuestMemfdRealisation how[GUEST_MEMFD_DIRECTION__MAX]
                             [GUEST_MEMFD_CONTENT_MODE__MAX];
    bool preserve_until_final;
    bool hides_private_bytes;
} GuestMemfdOffer;

/* Input of the decision about the contents. */
typedef struct GuestMemfdQuestion {
    GuestMemfdDirection direction;
    GuestMemfdIntent intent;
    GuestMemfdOrigin origin;
    GuestMemfdPhase phase;
    GuestMemfdContentPolicy block_policy;
    GuestMemfdContentPolicy manager_policy;
    GuestMemfdUnsupportedAction on_unsupported;
} GuestMemfdQuestion;

/*
 * @error: 0, or why @realisation is "refused": -EINVAL for a request that
 *     makes no sense on any host, -EOPNOTSUPP where this one cannot.
 * @downgraded: the policy requires more than @mode.
 */
typedef struct GuestMemfdDecision {
    GuestMemfdContentMode mode;
    GuestMemfdRealisation realisation;
    bool downgraded;
    int error;
} GuestMemfdDecision;

/*
 * A request for a conversion.  @gpa and @size are in bytes.
 *
 * @block: @gpa is an offset in it, mapped or not; else NULL, and @gpa is
 *     guest-physical.
 */
typedef struct GuestMemfdRequest {
    GuestMemfdBlock *block;
    hwaddr gpa;
    uint64_t size;
    GuestMemfdDirection direction;
    GuestMemfdOrigin origin;
    GuestMemfdIntent intent;
} GuestMemfdRequest;

/*
 * guest_memfd_request_decode: decode the arguments of a hypercall
 *
 * @attributes is what the guest passed to KVM_HC_MAP_GPA_RANGE.
 *
 * Returns 0, or -EINVAL for unknown bits or contradicting hints.
 */
int guest_memfd_request_decode(GuestMemfdRequest *req, hwaddr gpa,
                               uint64_t size, uint64_t attributes,
                               GuestMemfdOrigin origin);

/* The decision table.  Pure: depends on nothing but its arguments. */
GuestMemfdDecision guest_memfd_decide(const GuestMemfdQuestion *question,
                                      const GuestMemfdOffer *offer);

/* The hints that a guest may set in @direction: GUEST_MEMFD_ATTR_*. */
uint32_t guest_memfd_hints(const GuestMemfdOffer *offer,
                           GuestMemfdDirection direction);

#endif /* SYSTEM_GUEST_MEMFD_POLICY_H */
