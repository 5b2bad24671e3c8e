/*
 * Fuzzing the request decoder, the engine and the providers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An input is a provider and a list of steps on a small machine: requests
 * in a guest's words, other policies, faults, listeners that object, bytes
 * written.  After each request:
 *
 * - what QEMU recorded is what the provider did, and what listeners think;
 * - a request that succeeded changed the pages it named, and only those;
 * - one that failed changed none, one that was refused not even a byte;
 * - zeros and kept bytes are where they were promised;
 * - the counters add up.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/main-loop.h"
#include "guest-memfd-fuzz.h"
#include "guest-memfd-machine.h"

#define MAX_STEPS   48
/* More faults in a row than tries of the engine to send pages back. */
#define STUCK       150

/* --- after a request --------------------------------------------------- */

static void check_contents(const Machine *m, const GuestMemfdRequest *req,
                           int block, const PageView *old,
                           const PageView *new)
{
    static const PageView zeros;
    const GuestMemfdDecision d = guest_memfd_engine_decide(&m->rig->engine,
                                     m->rig->blocks[block], req);

    g_assert_cmpint(d.error, ==, 0);
    g_assert(req->intent != ZERO || d.mode == GUEST_MEMFD_CONTENT_MODE_ZERO);
    g_assert(req->intent != PRESERVE ||
             d.mode == GUEST_MEMFD_CONTENT_MODE_PRESERVE);
    if (old->shared == new->shared ||
        d.mode == GUEST_MEMFD_CONTENT_MODE_PRESERVE) {
        g_assert(same_bytes(old, new));
    } else if (d.mode == GUEST_MEMFD_CONTENT_MODE_ZERO) {
        g_assert(same_bytes(&zeros, new));
    }
}

/* Returns the number of bytes that changed state. */
static uint64_t check_pages(const Machine *m, const GuestMemfdRequest *req,
                            bool by_offset, int only, int ret,
                            const View *old, const View *new)
{
    const bool touched = new->operations > old->operations;
    uint64_t changed = 0;
    unsigned i, page;

    for (i = 0; i < BLOCKS; i++) {
        for (page = 0; page < block_pages[i]; page++) {
            const PageView *a = &old->pages[i][page];
            const PageView *b = &new->pages[i][page];
            const bool named = by_offset ?
                i == only && page * page_size() >= req->gpa &&
                page * page_size() - req->gpa < req->size :
                is_named(m, i, page, req->gpa, req->size);

            changed += a->shared != b->shared ? page_size() : 0;
            if (!named || (ret && !touched)) {
                g_assert_cmpint(a->shared, ==, b->shared);
                g_assert(same_bytes(a, b));
            } else if (ret) {
                /* Only a broken page may change, and only to private. */
                g_assert(a->shared == b->shared ||
                         (m->rig->broken && !b->shared));
            } else {
                g_assert_cmpint(b->shared, ==, req->direction == TO_SHARED);
                check_contents(m, req, i, a, b);
            }
        }
    }
    return changed;
}

static void check_counters(const View *old, const View *new, int ret,
                           uint64_t changed)
{
    uint64_t failures = new->rejected - old->rejected, converted = 0;
    unsigned i;

    for (i = 0; i < BLOCKS; i++) {
        const GuestMemfdCounters *a = &old->counters[i];
        const GuestMemfdCounters *b = &new->counters[i];

        g_assert_cmpuint(b->requests - a->requests, <=, 1);
        g_assert_cmpuint(sum(b->origins, ARRAY_SIZE(b->origins)), ==,
                         b->requests);
        g_assert_cmpuint(sum(b->directions, ARRAY_SIZE(b->directions)), ==,
                         b->requests);
        g_assert_cmpuint(sum(b->modes, ARRAY_SIZE(b->modes)), ==,
                         b->requests);
        g_assert_cmpuint(sum(b->realisations, ARRAY_SIZE(b->realisations)),
                         ==, b->requests);
        failures += sum(b->failures, ARRAY_SIZE(b->failures)) -
                    sum(a->failures, ARRAY_SIZE(a->failures));
        converted += sum(b->converted_bytes, ARRAY_SIZE(b->converted_bytes)) -
                     sum(a->converted_bytes, ARRAY_SIZE(a->converted_bytes));
    }
    g_assert_cmpint(failures > 0, ==, ret != 0);
    g_assert_cmpuint(converted, ==, ret ? 0 : changed);
}

static void check_answer(const Machine *m, const GuestMemfdRequest *req,
                         int ret)
{
    const bool malformed = !req->size || (req->gpa | req->size) % page_size() ||
                           req->gpa + req->size < req->gpa;

    if (malformed || (req->intent == ZERO && req->direction == TO_PRIVATE)) {
        /* Holes and MMIO are refused for their own reason, or passed by. */
        g_assert(ret == -EINVAL || (!malformed && ret == -EOPNOTSUPP));
    }
    if (!m->faulty) {
        g_assert(ret == 0 || ret == -EINVAL || ret == -EOPNOTSUPP);
    }
    g_assert_cmpint(ret, <=, 0);
    g_assert(!m->rig->broken || ret == -EIO);
}

static void check(Machine *m, const GuestMemfdRequest *req, int only, int ret,
                  const GuestMemfdResult *outcome, const View *old)
{
    View new = { };
    uint64_t changed;

    look(m, &new);
    check_answer(m, req, ret);
    changed = check_pages(m, req, only >= 0, only, ret, old, &new);
    g_assert_cmpuint(outcome->changed_bytes, ==, ret ? 0 : changed);
    check_counters(old, &new, ret, changed);
    m->rig->broken = 0;
    rig_check(m->rig);
    figures.requests++;
    figures.refused += ret == -EINVAL || ret == -EOPNOTSUPP;
}

/* --- steps ------------------------------------------------------------- */

static void range(Input *in, uint8_t how, uint64_t *gpa, uint64_t *size)
{
    if (how & 1) {
        *gpa = take(in, 8);
        *size = take(in, 8);
        return;
    }
    *gpa = (take(in, 1) % 72 + (how & 2 ? LAST_GPA - 4 : 0)) * page_size();
    *size = take(in, 1) % 72 * page_size();
}

static void step_request(Machine *m, Input *in, uint8_t how, bool to_shared)
{
    const GuestMemfdOrigin origin = how / 16 % GUEST_MEMFD_ORIGIN__MAX;
    uint64_t gpa, size, attributes;
    GuestMemfdResult outcome;
    GuestMemfdRequest req;
    bool bql = how & 4;
    int ret, decoded;
    View old = { };

    range(in, how, &gpa, &size);
    attributes = take(in, how & 8 ? 8 : 2);
    if (to_shared) {
        attributes &= ~GUEST_MEMFD_ATTR_PRIVATE;
    }
    look(m, &old);
    if (bql) {
        bql_lock();
    }
    ret = guest_memfd_engine_request(&m->rig->engine, gpa, size, attributes,
                                     origin, &outcome);
    g_assert_cmpint(bql_locked(), ==, bql);
    if (bql) {
        bql_unlock();
    }
    decoded = guest_memfd_request_decode(&req, gpa, size, attributes, origin);
    g_assert_cmpint(decoded, ==,
                    attributes & ~0x31fULL || (attributes & 0x300) == 0x300 ?
                    -EINVAL : 0);
    g_assert(!decoded || ret == -EINVAL);
    check(m, &req, -1, ret, &outcome, &old);
}

static void step_block(Machine *m, Input *in, uint8_t how)
{
    const int block = how / 4 % BLOCKS;
    const unsigned first = take(in, 1) % block_pages[block];
    const unsigned pages = take(in, 1) % (block_pages[block] - first);
    GuestMemfdRequest req = rig_request(how & 1, how / 16 %
                                        GUEST_MEMFD_INTENT_NONE, first, pages);
    GuestMemfdResult outcome;
    View old = { };
    int ret;

    look(m, &old);
    req.block = m->rig->blocks[block];
    ret = guest_memfd_engine_convert(&m->rig->engine, &req, &outcome);
    check(m, &req, block, ret, &outcome, &old);
}

static void arm(Machine *m, int error, unsigned after, unsigned count,
                unsigned progress)
{
    Object *provider = OBJECT(m->rig->engine.provider);

    if (!m->emulated) {
        m->rig->convert_fault = (RigFault) { after, count, -error, progress };
        return;
    }
    object_property_set_uint(provider, "fault-errno", error, &error_abort);
    object_property_set_uint(provider, "fault-after", after, &error_abort);
    object_property_set_uint(provider, "fault-count", count, &error_abort);
    object_property_set_uint(provider, "fault-progress",
                             progress * page_size(), &error_abort);
}

static void step_policy(Machine *m, uint8_t how)
{
    const int policy = how / 4 % GUEST_MEMFD_CONTENT_POLICY__MAX;
    GuestMemfdEngine *engine = &m->rig->engine;
    unsigned d;

    switch (how % 4) {
    case 0:
        engine->content_policy = policy;
        engine->on_unsupported = how >> 7;
        break;
    case 1:
        m->rig->blocks[how / 32 % BLOCKS]->content_policy = policy;
        break;
    case 2:
        for (d = 0; d < GUEST_MEMFD_DIRECTION__MAX; d++) {
            engine->provider->offer.how[d][GUEST_MEMFD_CONTENT_MODE_PRESERVE] =
                how >> (2 + d) & 1 ? GUEST_MEMFD_REALISATION_EMULATED :
                GUEST_MEMFD_REALISATION_REFUSED;
        }
        engine->provider->offer.preserve_until_final = how & 16;
        m->lossy = (how & 12) != 12;
        arm(m, 0, 0, 0, 0);
        if (how & 32) {
            engine->phase = GUEST_MEMFD_PHASE_RUNNING;
        }
        break;
    default:
        engine->retry_timeout_ms = how & 4 ? 10000 : 0;
        if (m->emulated) {
            object_property_set_bool(OBJECT(engine->provider), "poison",
                                     how & 8, &error_abort);
        }
    }
}

static void step_fault(Machine *m, Input *in, uint8_t how)
{
    static const int errors[] = { EAGAIN, EINTR, ENOMEM, EIO, EFAULT, EPERM };
    const int error = errors[how % ARRAY_SIZE(errors)];
    const unsigned after = how / 8 % 4;
    const unsigned count = how & 32 ? STUCK : 1 + how / 64;
    unsigned progress = take(in, 1) % 16;

    /* Where bytes are lost on the way back, "again" means nothing changed. */
    if (m->lossy && (error == EAGAIN || error == EINTR)) {
        progress = 0;
    }
    m->faulty = true;
    figures.faults++;
    arm(m, error, after, count, progress);
}

/* Listeners may object to new pages, but not to getting theirs back. */
static void step_listeners(Machine *m, Input *in, uint8_t how)
{
    unsigned i;

    if (!m->rig->n_listeners) {
        return;
    }
    m->rig->listeners[how % m->rig->n_listeners].agrees = how / 4 % 8;
    m->faulty = true;
    figures.faults++;
    step_request(m, in, take(in, 1), true);
    for (i = 0; i < m->rig->n_listeners; i++) {
        m->rig->listeners[i].agrees = INT_MAX;
    }
}

static void step_write(Machine *m, Input *in, uint8_t how)
{
    const int block = how % BLOCKS;
    const unsigned page = take(in, 1) % block_pages[block];

    if (m->emulated) {
        memset(m->rig->blocks[block]->host + page * page_size(), how,
               page_size());
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = { data, size };
    Machine m;
    unsigned n;

    new_machine(&m, take(&in, 1));
    for (n = 0; n < MAX_STEPS && in.left; n++) {
        const uint8_t kind = take(&in, 1), how = take(&in, 1);

        switch (kind % 8) {
        case 0:
            step_block(&m, &in, how);
            break;
        case 1:
            step_policy(&m, how);
            break;
        case 2:
            step_fault(&m, &in, how);
            break;
        case 3:
            step_listeners(&m, &in, how);
            break;
        case 4:
            step_write(&m, &in, how);
            break;
        default:
            step_request(&m, &in, how, false);
        }
    }
    rig_free(m.rig);
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return atexit(print_figures);
}
