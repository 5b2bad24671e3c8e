/*
 * From a guest's intent to the content mode of a conversion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pure functions: the whole decision is a table that is tested case by
 * case in tests/unit/test-guest-memfd-policy.c.  Nothing here knows which
 * kind of VM runs; the promise of a conversion follows from the request and
 * the offer of the provider.
 */

#include "qemu/osdep.h"
#include "system/guest-memfd.h"

int guest_memfd_request_decode(GuestMemfdRequest *req, hwaddr gpa,
                               uint64_t size, uint64_t attributes,
                               GuestMemfdOrigin origin)
{
    const uint64_t hints = GUEST_MEMFD_ATTR_ZERO | GUEST_MEMFD_ATTR_PRESERVE;
    const uint64_t known = GUEST_MEMFD_ATTR_PAGE_SIZE |
                           GUEST_MEMFD_ATTR_PRIVATE | hints;

    *req = (GuestMemfdRequest) {
        .gpa = gpa,
        .size = size,
        .origin = origin,
        .direction = attributes & GUEST_MEMFD_ATTR_PRIVATE ?
                     GUEST_MEMFD_DIRECTION_TO_PRIVATE :
                     GUEST_MEMFD_DIRECTION_TO_SHARED,
        .intent = attributes & GUEST_MEMFD_ATTR_ZERO ?
                  GUEST_MEMFD_INTENT_ZERO :
                  attributes & GUEST_MEMFD_ATTR_PRESERVE ?
                  GUEST_MEMFD_INTENT_PRESERVE :
                  GUEST_MEMFD_INTENT_UNSPECIFIED,
    };

    if (attributes & ~known || (attributes & hints) == hints) {
        return -EINVAL;
    }
    return 0;
}

/* No stale private byte may reach the host by default. */
static GuestMemfdContentMode auto_mode(const GuestMemfdOffer *offer,
                                       GuestMemfdDirection direction)
{
    return direction == GUEST_MEMFD_DIRECTION_TO_SHARED &&
           !offer->hides_private_bytes ? GUEST_MEMFD_CONTENT_MODE_ZERO :
                                         GUEST_MEMFD_CONTENT_MODE_DEFAULT;
}

/* The mode of a policy; never zero to private, see below. */
static GuestMemfdContentMode policy_mode(GuestMemfdContentPolicy policy,
                                         const GuestMemfdOffer *offer,
                                         GuestMemfdDirection direction)
{
    switch (policy) {
    case GUEST_MEMFD_CONTENT_POLICY_DEFAULT:
        return GUEST_MEMFD_CONTENT_MODE_DEFAULT;
    case GUEST_MEMFD_CONTENT_POLICY_PRESERVE:
        return GUEST_MEMFD_CONTENT_MODE_PRESERVE;
    case GUEST_MEMFD_CONTENT_POLICY_AUTO:
        return auto_mode(offer, direction);
    case GUEST_MEMFD_CONTENT_POLICY_ZERO:
        return direction == GUEST_MEMFD_DIRECTION_TO_SHARED ?
               GUEST_MEMFD_CONTENT_MODE_ZERO :
               GUEST_MEMFD_CONTENT_MODE_DEFAULT;
    default:
        g_assert_not_reached();
    }
}

/*
 * The first of these that is set decides: the request, the launch (which
 * populates private memory), the block's policy, the manager's policy.
 * @binding: the mode must be kept or refused.
 */
static GuestMemfdContentMode wanted_mode(const GuestMemfdQuestion *q,
                                         const GuestMemfdOffer *offer,
                                         bool *binding)
{
    *binding = true;
    if (q->intent == GUEST_MEMFD_INTENT_NONE) {
        return GUEST_MEMFD_CONTENT_MODE_DEFAULT;
    }
    if (q->intent == GUEST_MEMFD_INTENT_ZERO) {
        return GUEST_MEMFD_CONTENT_MODE_ZERO;
    }
    if (q->intent == GUEST_MEMFD_INTENT_PRESERVE) {
        return GUEST_MEMFD_CONTENT_MODE_PRESERVE;
    }
    if (q->origin == GUEST_MEMFD_ORIGIN_LAUNCH &&
        q->direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE) {
        return GUEST_MEMFD_CONTENT_MODE_PRESERVE;
    }

    *binding = q->on_unsupported == GUEST_MEMFD_UNSUPPORTED_ACTION_REFUSE;
    if (q->block_policy != GUEST_MEMFD_CONTENT_POLICY_AUTO) {
        return policy_mode(q->block_policy, offer, q->direction);
    }
    return policy_mode(q->manager_policy, offer, q->direction);
}

static GuestMemfdRealisation realisation(const GuestMemfdQuestion *q,
                                         const GuestMemfdOffer *offer,
                                         GuestMemfdContentMode mode)
{
    GuestMemfdRealisation how = offer->how[q->direction][mode];

    if (mode == GUEST_MEMFD_CONTENT_MODE_PRESERVE &&
        q->direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE &&
        offer->preserve_until_final && q->phase < GUEST_MEMFD_PHASE_FINAL) {
        return GUEST_MEMFD_REALISATION_KERNEL;
    }
    /* QEMU can always clear memory that the host may touch. */
    if (mode == GUEST_MEMFD_CONTENT_MODE_ZERO &&
        how == GUEST_MEMFD_REALISATION_REFUSED) {
        return GUEST_MEMFD_REALISATION_EMULATED;
    }
    return how;
}

static GuestMemfdDecision refused(GuestMemfdContentMode mode, int error)
{
    return (GuestMemfdDecision) {
        .mode = mode,
        .realisation = GUEST_MEMFD_REALISATION_REFUSED,
        .error = error,
    };
}

GuestMemfdDecision guest_memfd_decide(const GuestMemfdQuestion *q,
                                      const GuestMemfdOffer *offer)
{
    bool binding, downgraded = false;
    GuestMemfdContentMode mode = wanted_mode(q, offer, &binding);
    GuestMemfdRealisation how;

    /* A guest that does not trust the VMM cannot rely on its zeros. */
    if (mode == GUEST_MEMFD_CONTENT_MODE_ZERO &&
        q->direction == GUEST_MEMFD_DIRECTION_TO_PRIVATE) {
        return refused(mode, -EINVAL);
    }

    how = realisation(q, offer, mode);
    if (how == GUEST_MEMFD_REALISATION_REFUSED) {
        if (binding) {
            return refused(mode, -EOPNOTSUPP);
        }
        downgraded = true;
        mode = auto_mode(offer, q->direction);
        how = realisation(q, offer, mode);
    }

    return (GuestMemfdDecision) {
        .mode = mode,
        .realisation = how,
        .downgraded = downgraded,
    };
}

/* Zero is emulated if the kernel does not offer it; preserve never is. */
uint32_t guest_memfd_hints(const GuestMemfdOffer *offer,
                           GuestMemfdDirection direction)
{
    const GuestMemfdRealisation *how = offer->how[direction];
    uint32_t bits = 0;

    if (direction == GUEST_MEMFD_DIRECTION_TO_SHARED) {
        bits |= GUEST_MEMFD_ATTR_ZERO;
    }
    if (how[GUEST_MEMFD_CONTENT_MODE_PRESERVE] !=
        GUEST_MEMFD_REALISATION_REFUSED) {
        bits |= GUEST_MEMFD_ATTR_PRESERVE;
    }
    return bits;
}
