/*
 * The decision table of guest memory conversions, case by case
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The table is stated here a second time, as rows, and every question is
 * put to guest_memfd_decide().  The cases with names say the same in
 * words, one row at a time.
 */

#include "qemu/osdep.h"
#include "system/guest-memfd.h"

#define SHARED      GUEST_MEMFD_DIRECTION_TO_SHARED
#define PRIVATE     GUEST_MEMFD_DIRECTION_TO_PRIVATE
#define DEFAULT     GUEST_MEMFD_CONTENT_MODE_DEFAULT
#define ZERO        GUEST_MEMFD_CONTENT_MODE_ZERO
#define PRESERVE    GUEST_MEMFD_CONTENT_MODE_PRESERVE
#define KERNEL      GUEST_MEMFD_REALISATION_KERNEL
#define EMULATED    GUEST_MEMFD_REALISATION_EMULATED
#define REFUSED     GUEST_MEMFD_REALISATION_REFUSED

/* --- the table --------------------------------------------------------- */

/* The order of those that decide, and their decisions. */
typedef enum Voice {
    SILENT,
    GUEST_ZERO,
    GUEST_PRESERVE,
    LAUNCH_POPULATE,
    POLICY_AUTO,
    POLICY_AUTO_HIDDEN,     /* the host cannot read private bytes */
    POLICY_DEFAULT,
    POLICY_ZERO,
    POLICY_PRESERVE,
    VOICE__MAX,
} Voice;

typedef enum Otherwise {
    NOT_IN_TABLE,
    NEVER,          /* the mode is always on offer */
    EMULATE,
    REFUSE,
    AS_CHOSEN,      /* by on-unsupported */
    NONSENSE,       /* on any host */
} Otherwise;

typedef struct Row {
    GuestMemfdContentMode mode;
    Otherwise not_offered;
} Row;

static const Row table[GUEST_MEMFD_DIRECTION__MAX][VOICE__MAX] = {
    [SHARED] = {
        [GUEST_ZERO]      = { ZERO, EMULATE },
        [GUEST_PRESERVE]  = { PRESERVE, REFUSE },
        [POLICY_AUTO]     = { ZERO, EMULATE },
        [POLICY_AUTO_HIDDEN] = { DEFAULT, NEVER },
        [POLICY_DEFAULT]  = { DEFAULT, NEVER },
        [POLICY_ZERO]     = { ZERO, EMULATE },
        [POLICY_PRESERVE] = { PRESERVE, AS_CHOSEN },
    },
    [PRIVATE] = {
        [GUEST_ZERO]      = { ZERO, NONSENSE },
        [GUEST_PRESERVE]  = { PRESERVE, REFUSE },
        [LAUNCH_POPULATE] = { PRESERVE, REFUSE },
        [POLICY_AUTO]     = { DEFAULT, NEVER },
        [POLICY_AUTO_HIDDEN] = { DEFAULT, NEVER },
        [POLICY_DEFAULT]  = { DEFAULT, NEVER },
        [POLICY_ZERO]     = { DEFAULT, NEVER },
        [POLICY_PRESERVE] = { PRESERVE, AS_CHOSEN },
    },
};

static const Voice guest_voice[GUEST_MEMFD_INTENT__MAX] = {
    [GUEST_MEMFD_INTENT_UNSPECIFIED] = SILENT,
    [GUEST_MEMFD_INTENT_ZERO]        = GUEST_ZERO,
    [GUEST_MEMFD_INTENT_PRESERVE]    = GUEST_PRESERVE,
    [GUEST_MEMFD_INTENT_NONE]        = POLICY_DEFAULT,
};

static const Voice launch_voice[GUEST_MEMFD_DIRECTION__MAX]
                               [GUEST_MEMFD_ORIGIN__MAX] = {
    [PRIVATE][GUEST_MEMFD_ORIGIN_LAUNCH] = LAUNCH_POPULATE,
};

static const Voice policy_voice[GUEST_MEMFD_CONTENT_POLICY__MAX] = {
    [GUEST_MEMFD_CONTENT_POLICY_AUTO]     = SILENT,
    [GUEST_MEMFD_CONTENT_POLICY_DEFAULT]  = POLICY_DEFAULT,
    [GUEST_MEMFD_CONTENT_POLICY_ZERO]     = POLICY_ZERO,
    [GUEST_MEMFD_CONTENT_POLICY_PRESERVE] = POLICY_PRESERVE,
};

/* --- what follows from it ---------------------------------------------- */

static Voice auto_voice(const GuestMemfdOffer *offer)
{
    return offer->hides_private_bytes ? POLICY_AUTO_HIDDEN : POLICY_AUTO;
}

static const Row *row_for(const GuestMemfdQuestion *q,
                          const GuestMemfdOffer *offer)
{
    const Voice in_order[] = {
        guest_voice[q->intent],
        launch_voice[q->direction][q->origin],
        policy_voice[q->block_policy],
        policy_voice[q->manager_policy],
        auto_voice(offer),
    };
    unsigned i = 0;

    while (in_order[i] == SILENT) {
        i++;
    }
    return &table[q->direction][in_order[i]];
}

/* KVM keeps bytes that it does not measure or encrypt before the launch. */
static GuestMemfdRealisation host_can(const GuestMemfdQuestion *q,
                                      const GuestMemfdOffer *offer,
                                      GuestMemfdContentMode mode)
{
    bool populates = q->direction == PRIVATE && mode == PRESERVE &&
                     q->phase < GUEST_MEMFD_PHASE_FINAL &&
                     offer->preserve_until_final;

    return populates ? KERNEL : offer->how[q->direction][mode];
}

static GuestMemfdDecision yes(GuestMemfdContentMode mode,
                              GuestMemfdRealisation how, bool downgraded)
{
    return (GuestMemfdDecision) {
        .mode = mode, .realisation = how, .downgraded = downgraded,
    };
}

static GuestMemfdDecision no(GuestMemfdContentMode mode, int error)
{
    return (GuestMemfdDecision) {
        .mode = mode, .realisation = REFUSED, .error = error,
    };
}

/* A policy that cannot be kept is replaced by "auto", and counted. */
static GuestMemfdDecision downgrade(const GuestMemfdQuestion *q,
                                    const GuestMemfdOffer *offer)
{
    const Row *row = &table[q->direction][auto_voice(offer)];
    GuestMemfdRealisation how = offer->how[q->direction][row->mode];

    return yes(row->mode, how == REFUSED ? EMULATED : how, true);
}

static GuestMemfdDecision expected(const GuestMemfdQuestion *q,
                                   const GuestMemfdOffer *offer)
{
    const Row *row = row_for(q, offer);
    GuestMemfdRealisation how = host_can(q, offer, row->mode);

    if (row->not_offered == NONSENSE) {
        return no(row->mode, -EINVAL);
    }
    if (how != REFUSED) {
        return yes(row->mode, how, false);
    }
    switch (row->not_offered) {
    case EMULATE:
        return yes(row->mode, EMULATED, false);
    case REFUSE:
        return no(row->mode, -EOPNOTSUPP);
    case AS_CHOSEN:
        return q->on_unsupported == GUEST_MEMFD_UNSUPPORTED_ACTION_REFUSE ?
               no(row->mode, -EOPNOTSUPP) : downgrade(q, offer);
    default:
        g_assert_not_reached();
    }
}

/* --- every question ---------------------------------------------------- */

static void print_question(const GuestMemfdQuestion *q,
                           const GuestMemfdOffer *offer)
{
    const GuestMemfdRealisation *how = offer->how[q->direction];

    g_test_message("%s, intent %d, origin %s, phase %s, block %s, "
                   "manager %s, on-unsupported %s; offer: default %s, "
                   "zero %s, preserve %s, before launch %d",
                   GuestMemfdDirection_str(q->direction), q->intent,
                   GuestMemfdOrigin_str(q->origin),
                   GuestMemfdPhase_str(q->phase),
                   GuestMemfdContentPolicy_str(q->block_policy),
                   GuestMemfdContentPolicy_str(q->manager_policy),
                   GuestMemfdUnsupportedAction_str(q->on_unsupported),
                   GuestMemfdRealisation_str(how[DEFAULT]),
                   GuestMemfdRealisation_str(how[ZERO]),
                   GuestMemfdRealisation_str(how[PRESERVE]),
                   offer->preserve_until_final);
}

static void check(const GuestMemfdQuestion *q, const GuestMemfdOffer *offer)
{
    GuestMemfdDecision want = expected(q, offer);
    GuestMemfdDecision got = guest_memfd_decide(q, offer);

    if (got.mode != want.mode || got.realisation != want.realisation ||
        got.downgraded != want.downgraded || got.error != want.error) {
        print_question(q, offer);
    }
    g_assert_cmpstr(GuestMemfdContentMode_str(got.mode), ==,
                    GuestMemfdContentMode_str(want.mode));
    g_assert_cmpstr(GuestMemfdRealisation_str(got.realisation), ==,
                    GuestMemfdRealisation_str(want.realisation));
    g_assert_cmpint(got.downgraded, ==, want.downgraded);
    g_assert_cmpint(got.error, ==, want.error);
}

/* Take the next digit off @number: 0 to @base - 1. */
static unsigned digit(unsigned *number, unsigned base)
{
    unsigned d = *number % base;

    *number /= base;
    return d;
}

#define OFFERS      (2 * 2 * (2 * 3 * 3) * (2 * 3 * 3))
#define QUESTIONS   (GUEST_MEMFD_DIRECTION__MAX * GUEST_MEMFD_INTENT__MAX * \
                     GUEST_MEMFD_ORIGIN__MAX * GUEST_MEMFD_PHASE__MAX * \
                     GUEST_MEMFD_CONTENT_POLICY__MAX * \
                     GUEST_MEMFD_CONTENT_POLICY__MAX * \
                     GUEST_MEMFD_UNSUPPORTED_ACTION__MAX)

static GuestMemfdOffer nth_offer(unsigned n)
{
    GuestMemfdOffer offer = { };
    int direction;

    offer.preserve_until_final = digit(&n, 2);
    offer.hides_private_bytes = digit(&n, 2);

    for (direction = 0; direction < GUEST_MEMFD_DIRECTION__MAX; direction++) {
        GuestMemfdRealisation *how = offer.how[direction];

        how[DEFAULT] = digit(&n, 2);    /* never refused */
        how[ZERO] = digit(&n, GUEST_MEMFD_REALISATION__MAX);
        how[PRESERVE] = digit(&n, GUEST_MEMFD_REALISATION__MAX);
    }
    g_assert_cmpuint(n, ==, 0);
    return offer;
}

static GuestMemfdQuestion nth_question(unsigned n)
{
    GuestMemfdQuestion q;

    q.direction = digit(&n, GUEST_MEMFD_DIRECTION__MAX);
    q.intent = digit(&n, GUEST_MEMFD_INTENT__MAX);
    q.origin = digit(&n, GUEST_MEMFD_ORIGIN__MAX);
    q.phase = digit(&n, GUEST_MEMFD_PHASE__MAX);
    q.block_policy = digit(&n, GUEST_MEMFD_CONTENT_POLICY__MAX);
    q.manager_policy = digit(&n, GUEST_MEMFD_CONTENT_POLICY__MAX);
    q.on_unsupported = digit(&n, GUEST_MEMFD_UNSUPPORTED_ACTION__MAX);
    g_assert_cmpuint(n, ==, 0);
    return q;
}

static void test_every_question(void)
{
    unsigned o, n;

    for (o = 0; o < OFFERS; o++) {
        const GuestMemfdOffer offer = nth_offer(o);

        for (n = 0; n < QUESTIONS; n++) {
            const GuestMemfdQuestion q = nth_question(n);

            check(&q, &offer);
        }
    }
    g_test_message("%u questions", OFFERS * QUESTIONS);
}

/* --- the rows, in words ------------------------------------------------ */

/* ABI A: everything that makes sense, by the kernel. */
static const GuestMemfdOffer content_modes = {
    .how = {
        [SHARED]  = { KERNEL, KERNEL, KERNEL },
        [PRIVATE] = { KERNEL, REFUSED, KERNEL },
    },
};

/* ABI B and C: conversion without flags. */
static const GuestMemfdOffer in_place = {
    .how = {
        [SHARED]  = { KERNEL, EMULATED, REFUSED },
        [PRIVATE] = { KERNEL, REFUSED, REFUSED },
    },
    .preserve_until_final = true,
};

/* The same for a platform that encrypts memory. */
static const GuestMemfdOffer encrypted = {
    .how = {
        [SHARED]  = { KERNEL, EMULATED, REFUSED },
        [PRIVATE] = { KERNEL, REFUSED, REFUSED },
    },
    .hides_private_bytes = true,
};

typedef struct Case {
    const char *name;
    const GuestMemfdOffer *offer;
    GuestMemfdQuestion question;
    GuestMemfdDecision answer;
} Case;

#define INTENT(x)   .intent = GUEST_MEMFD_INTENT_##x
#define POLICY(x)   .manager_policy = GUEST_MEMFD_CONTENT_POLICY_##x
#define BLOCK(x)    .block_policy = GUEST_MEMFD_CONTENT_POLICY_##x
#define LAUNCH      .origin = GUEST_MEMFD_ORIGIN_LAUNCH
#define FINAL       .phase = GUEST_MEMFD_PHASE_FINAL
#define DOWNGRADE   .on_unsupported = GUEST_MEMFD_UNSUPPORTED_ACTION_DOWNGRADE

static const Case cases[] = {
    { "to-shared/unspecified-is-zero", &content_modes,
      { SHARED, FINAL }, { ZERO, KERNEL } },
    { "to-shared/unspecified-is-zero-by-qemu", &in_place,
      { SHARED, FINAL }, { ZERO, EMULATED } },
    { "to-shared/unspecified-is-default-if-hidden", &encrypted,
      { SHARED, FINAL }, { DEFAULT, KERNEL } },
    { "to-shared/zero-though-hidden", &encrypted,
      { SHARED, POLICY(ZERO), FINAL }, { ZERO, EMULATED } },
    { "to-shared/zero", &content_modes,
      { SHARED, INTENT(ZERO) }, { ZERO, KERNEL } },
    { "to-shared/zero-by-qemu", &in_place,
      { SHARED, INTENT(ZERO) }, { ZERO, EMULATED } },
    { "to-shared/preserve", &content_modes,
      { SHARED, INTENT(PRESERVE) }, { PRESERVE, KERNEL } },
    { "to-shared/preserve-not-offered", &in_place,
      { SHARED, INTENT(PRESERVE), DOWNGRADE },
      { PRESERVE, REFUSED, .error = -EOPNOTSUPP } },
    { "to-private/unspecified-is-default", &content_modes,
      { PRIVATE, FINAL }, { DEFAULT, KERNEL } },
    { "to-private/zero-policy-is-no-promise", &content_modes,
      { PRIVATE, POLICY(ZERO) }, { DEFAULT, KERNEL } },
    { "to-private/zero-of-the-backend-is-no-promise", &content_modes,
      { PRIVATE, BLOCK(ZERO), POLICY(PRESERVE) }, { DEFAULT, KERNEL } },
    { "to-private/zero-makes-no-sense", &content_modes,
      { PRIVATE, INTENT(ZERO), DOWNGRADE },
      { ZERO, REFUSED, .error = -EINVAL } },
    { "to-private/preserve", &content_modes,
      { PRIVATE, INTENT(PRESERVE), FINAL },
      { PRESERVE, KERNEL } },
    { "to-private/preserve-not-offered", &in_place,
      { PRIVATE, INTENT(PRESERVE), DOWNGRADE, FINAL },
      { PRESERVE, REFUSED, .error = -EOPNOTSUPP } },
    { "launch/populates", &content_modes,
      { PRIVATE, LAUNCH }, { PRESERVE, KERNEL } },
    { "launch/populates-with-flags-0", &in_place,
      { PRIVATE, LAUNCH }, { PRESERVE, KERNEL } },
    { "launch/too-late-with-flags-0", &in_place,
      { PRIVATE, LAUNCH, FINAL, DOWNGRADE },
      { PRESERVE, REFUSED, .error = -EOPNOTSUPP } },
    { "launch/stronger-than-policy", &content_modes,
      { PRIVATE, LAUNCH, BLOCK(DEFAULT), POLICY(DEFAULT) },
      { PRESERVE, KERNEL } },
    { "launch/to-shared-populates-nothing", &content_modes,
      { SHARED, LAUNCH, POLICY(DEFAULT) }, { DEFAULT, KERNEL } },
    { "policy/default", &content_modes,
      { SHARED, POLICY(DEFAULT) }, { DEFAULT, KERNEL } },
    { "policy/preserve", &content_modes,
      { SHARED, POLICY(PRESERVE) }, { PRESERVE, KERNEL } },
    { "policy/preserve-refused", &in_place,
      { SHARED, POLICY(PRESERVE) },
      { PRESERVE, REFUSED, .error = -EOPNOTSUPP } },
    { "policy/preserve-downgraded", &in_place,
      { SHARED, POLICY(PRESERVE), DOWNGRADE }, { ZERO, EMULATED, true } },
    { "policy/preserve-downgraded-to-private", &in_place,
      { PRIVATE, POLICY(PRESERVE), DOWNGRADE, FINAL },
      { DEFAULT, KERNEL, true } },
    { "policy/block-before-manager", &content_modes,
      { SHARED, BLOCK(PRESERVE), POLICY(DEFAULT) }, { PRESERVE, KERNEL } },
    { "policy/auto-block-leaves-it-to-manager", &content_modes,
      { SHARED, BLOCK(AUTO), POLICY(DEFAULT) }, { DEFAULT, KERNEL } },
    { "policy/guest-before-block", &content_modes,
      { SHARED, INTENT(ZERO), BLOCK(PRESERVE) }, { ZERO, KERNEL } },
};

static void test_case(const void *opaque)
{
    const Case *c = opaque;
    GuestMemfdDecision got = guest_memfd_decide(&c->question, c->offer);

    g_assert_cmpint(got.mode, ==, c->answer.mode);
    g_assert_cmpint(got.realisation, ==, c->answer.realisation);
    g_assert_cmpint(got.downgraded, ==, c->answer.downgraded);
    g_assert_cmpint(got.error, ==, c->answer.error);
}

/* --- the guest's words ------------------------------------------------- */

static int decode(GuestMemfdRequest *req, uint64_t attributes)
{
    memset(req, 0xff, sizeof(*req));
    return guest_memfd_request_decode(req, 0x5000, 0x3000, attributes,
                                      GUEST_MEMFD_ORIGIN_DEVICE);
}

/* Every combination of the bits 0 to 9, and each unknown bit with it. */
static void test_decode(void)
{
    uint64_t known, low;
    unsigned bit;

    for (low = 0; low < 1 << 10; low++) {
        unsigned hints = low >> 8;
        GuestMemfdRequest req;

        known = (low & 0xe0) == 0 && hints != 3;
        g_assert_cmpint(decode(&req, low), ==, known ? 0 : -EINVAL);
        if (known) {
            g_assert_cmphex(req.gpa, ==, 0x5000);
            g_assert_cmphex(req.size, ==, 0x3000);
            g_assert_cmpint(req.origin, ==, GUEST_MEMFD_ORIGIN_DEVICE);
            g_assert_cmpint(req.direction, ==, low & 16 ? PRIVATE : SHARED);
            g_assert_cmpint(req.intent, ==, hints);
        }
        for (bit = 10; bit < 64; bit++) {
            g_assert_cmpint(decode(&req, low | 1ULL << bit), ==, -EINVAL);
        }
    }
}

/* The numbers are a guest ABI. */
static void test_abi(void)
{
    g_assert_cmphex(GUEST_MEMFD_ATTR_PAGE_SIZE, ==, 0xf);
    g_assert_cmphex(GUEST_MEMFD_ATTR_PRIVATE, ==, 0x10);
    g_assert_cmphex(GUEST_MEMFD_ATTR_ZERO, ==, 0x100);
    g_assert_cmphex(GUEST_MEMFD_ATTR_PRESERVE, ==, 0x200);
    g_assert_cmpint(GUEST_MEMFD_INTENT_ZERO, ==, 1);
    g_assert_cmpint(GUEST_MEMFD_INTENT_PRESERVE, ==, 2);
}

/* CPUID and the fw_cfg file have the realisation of a request. */
static void test_hints(void)
{
    const uint64_t zero = GUEST_MEMFD_ATTR_ZERO;
    const uint64_t preserve = GUEST_MEMFD_ATTR_PRESERVE;

    g_assert_cmphex(guest_memfd_hints(&content_modes,
                                      GUEST_MEMFD_DIRECTION_TO_SHARED), ==,
                    zero | preserve);
    g_assert_cmphex(guest_memfd_hints(&content_modes,
                                      GUEST_MEMFD_DIRECTION_TO_PRIVATE), ==,
                    preserve);
    g_assert_cmphex(guest_memfd_hints(&in_place,
                                      GUEST_MEMFD_DIRECTION_TO_SHARED), ==,
                    zero);
    g_assert_cmphex(guest_memfd_hints(&in_place,
                                      GUEST_MEMFD_DIRECTION_TO_PRIVATE), ==,
                    0);
}

int main(int argc, char **argv)
{
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guest-memfd/policy/every-question",
                    test_every_question);
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/policy/",
                                            cases[i].name, NULL);

        g_test_add_data_func(path, &cases[i], test_case);
    }
    g_test_add_func("/guest-memfd/policy/hints", test_hints);
    g_test_add_func("/guest-memfd/decode/every-bit", test_decode);
    g_test_add_func("/guest-memfd/decode/abi", test_abi);
    return g_test_run();
}
