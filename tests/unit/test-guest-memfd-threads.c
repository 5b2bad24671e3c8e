/*
 * Conversions of guest memory from many vCPUs at once
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "system/guest-memfd-internal.h"
#include "guest-memfd-vcpus.h"

#define RUN_US          600000
#define FAULTS          20000

/* --- vCPUs ------------------------------------------------------------- */

static GuestMemfdRequest random_request(Vcpu *vcpu)
{
    static const GuestMemfdIntent intents[] = {
        UNSPECIFIED, UNSPECIFIED, ZERO, PRESERVE,
    };
    const unsigned first = vcpu->own_pages ? vcpu->index * OWN_PAGES : 0;
    const unsigned n = vcpu->own_pages ? OWN_PAGES : ALL_PAGES;
    const uint32_t r = vcpus_random(&vcpu->random);
    unsigned gpa = vcpus_random(&vcpu->random) % n;
    unsigned pages = 1 + vcpus_random(&vcpu->random) % (n - gpa);

    gpa += first;
    if (!vcpu->own_pages && r & 16) {
        gpa += MIRROR;
    }
    return rig_request(r & 1, intents[(r >> 1) % ARRAY_SIZE(intents)], gpa,
                       pages);
}

/* No other vCPU converts these pages: this one sets their state. */
static void check_own_pages(const Vcpu *vcpu, const GuestMemfdRequest *req)
{
    const size_t page_size = qemu_real_host_page_size();
    unsigned page = req->gpa / page_size;
    unsigned end = page + req->size / page_size;

    for (; page < end; page++) {
        GuestMemfdBlock *block = vcpu->rig->blocks[page / BLOCK_PAGES];

        WITH_QEMU_LOCK_GUARD(&block->lock) {
            g_assert_cmpint(test_bit(page % BLOCK_PAGES,
                                     block->attributes->bitmap), ==,
                            req->direction == TO_SHARED);
        }
    }
}

static void ask(Vcpu *vcpu)
{
    const GuestMemfdRequest req = random_request(vcpu);
    const bool with_bql = vcpu->index == 0;
    GuestMemfdResult outcome;
    int ret;

    if (with_bql) {
        bql_lock();
    }
    ret = guest_memfd_engine_convert(&vcpu->rig->engine, &req, &outcome);
    g_assert_cmpint(bql_locked(), ==, with_bql);
    if (with_bql) {
        bql_unlock();
    }

    vcpu->answers++;
    vcpu->changed[req.direction] += outcome.changed_bytes;
    if (ret == 0) {
        vcpu->asked += req.size;
        if (vcpu->own_pages) {
            check_own_pages(vcpu, &req);
        }
    } else if (req.direction == TO_PRIVATE) {
        g_assert_cmpint(ret, ==, -EINVAL);
        g_assert_cmpint(req.intent, ==, ZERO);
    } else {
        g_assert_cmpint(ret, ==, -ENOSPC);
    }
}

static void *vcpu_main(void *opaque)
{
    Vcpu *vcpu = opaque;

    while (!qatomic_read(&vcpus_stop)) {
        ask(vcpu);
    }
    return NULL;
}

/* --- the monitor ------------------------------------------------------- */

static uint64_t sum(const uint64_t *counts, unsigned n)
{
    uint64_t total = 0;

    while (n--) {
        total += counts[n];
    }
    return total;
}

/* The answer of query-guest-memfd is consistent at any time. */
static void check_statistics(GuestMemfdBlock *block)
{
    const GuestMemfdCounters *c = &block->stats.counters;
    const size_t page_size = qemu_real_host_page_size();
    uint64_t private_bytes;

    QEMU_LOCK_GUARD(&block->lock);
    qemu_mutex_lock(&block->stats.lock);
    g_assert_cmpuint(sum(c->modes, ARRAY_SIZE(c->modes)), ==, c->requests);
    g_assert_cmpuint(sum(c->directions, ARRAY_SIZE(c->directions)), ==,
                     c->requests);
    g_assert_cmpuint(block->shared_pages, ==,
                     bitmap_count_one(block->attributes->bitmap,
                                      BLOCK_PAGES));
    private_bytes = c->converted_bytes[TO_PRIVATE] -
                    c->converted_bytes[TO_SHARED];
    qemu_mutex_unlock(&block->stats.lock);
    g_assert_cmpuint(block->shared_pages * page_size + private_bytes, ==,
                     block->size);
}

static void change_policy(Rig *rig, uint32_t r)
{
    const int policy = (r >> 2) % GUEST_MEMFD_CONTENT_POLICY__MAX;

    qatomic_set(&rig->blocks[r % BLOCKS]->content_policy, policy);
    qatomic_set(&rig->engine.content_policy, policy);
    qatomic_set(&rig->engine.on_unsupported, r >> 8 & 1);
    bql_lock();
    rig->listeners[0].agrees = r & 1 ? INT_MAX : 5;
    bql_unlock();
}

static void monitor_main(Rig *rig)
{
    const int64_t end = g_get_monotonic_time() + RUN_US;
    uint32_t random = 1;
    unsigned i;

    while (g_get_monotonic_time() < end) {
        change_policy(rig, vcpus_random(&random));
        for (i = 0; i < BLOCKS; i++) {
            check_statistics(rig->blocks[i]);
        }
        g_usleep(100);
    }
    qatomic_set(&vcpus_stop, true);
}

/* --- the tests --------------------------------------------------------- */

static void check_sums(const Rig *rig, const Vcpu *vcpus)
{
    uint64_t counted[GUEST_MEMFD_DIRECTION__MAX] = { }, right = 0;
    uint64_t changed[GUEST_MEMFD_DIRECTION__MAX] = { }, asked = 0;
    uint64_t answers = 0;
    unsigned i, d;

    for (i = 0; i < BLOCKS; i++) {
        const GuestMemfdCounters *c = &rig->blocks[i]->stats.counters;

        right += c->already_right_bytes;
        for (d = 0; d < GUEST_MEMFD_DIRECTION__MAX; d++) {
            counted[d] += c->converted_bytes[d];
        }
    }
    for (i = 0; i < VCPUS; i++) {
        asked += vcpus[i].asked;
        answers += vcpus[i].answers;
        for (d = 0; d < GUEST_MEMFD_DIRECTION__MAX; d++) {
            changed[d] += vcpus[i].changed[d];
        }
    }
    g_test_message("%" PRIu64 " requests", answers);
    g_assert_cmpmem(counted, sizeof(counted), changed, sizeof(changed));
    g_assert_cmpuint(sum(counted, ARRAY_SIZE(counted)) + right, ==, asked);
}

static void run(const char *provider, bool own_pages)
{
    Rig *rig = vcpus_rig(provider);
    Vcpu vcpus[VCPUS] = { };
    unsigned i;

    for (i = 0; i < VCPUS; i++) {
        vcpus[i].own_pages = own_pages;
    }
    vcpus_start(rig, vcpus, 0, VCPUS, vcpu_main);
    monitor_main(rig);
    vcpus_join(vcpus, 0, VCPUS);

    check_sums(rig, vcpus);
    for (i = 0; i < BLOCKS; i++) {
        check_statistics(rig->blocks[i]);
    }
    rig_free(rig);
}

static void test_disjoint(void)
{
    run(TYPE_RIG_PROVIDER, true);
}

static void test_overlapping(void)
{
    run(TYPE_RIG_PROVIDER, false);
}

static void test_emulated(void)
{
    run(TYPE_GUEST_MEMFD_PROVIDER_EMULATED, false);
}

/* --- faults ------------------------------------------------------------ */

/* Back and forth with one page, whatever it takes. */
static void *faulty_vcpu_main(void *opaque)
{
    Vcpu *vcpu = opaque;
    GuestMemfdRequest req = rig_request(TO_PRIVATE, PRESERVE,
                                        vcpu->index * OWN_PAGES, 1);

    while (vcpu->answers++ < FAULTS) {
        int ret = guest_memfd_engine_convert(&vcpu->rig->engine, &req, NULL);

        if (ret) {
            g_assert_cmpint(ret, ==, -EIO);
            vcpu->failures++;
        } else {
            req.direction = !req.direction;
        }
    }
    return NULL;
}

/* Each fault that is asked for fails one request, and no more do. */
static void test_faults(void)
{
    Rig *rig = vcpus_rig(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    Object *provider = OBJECT(rig->engine.provider);
    Vcpu vcpus[VCPUS] = { };
    uint64_t failures = 0;
    unsigned i;

    object_property_set_uint(provider, "fault-errno", EIO, &error_abort);
    object_property_set_uint(provider, "fault-after", FAULTS, &error_abort);
    object_property_set_uint(provider, "fault-count", FAULTS, &error_abort);
    vcpus_start(rig, vcpus, 0, VCPUS, faulty_vcpu_main);
    vcpus_join(vcpus, 0, VCPUS);
    for (i = 0; i < VCPUS; i++) {
        failures += vcpus[i].failures;
    }
    g_assert_cmpuint(failures, ==, FAULTS);
    g_assert_cmpuint(object_property_get_uint(provider, "fault-after",
                                              &error_abort), ==, 0);
    g_assert_cmpuint(object_property_get_uint(provider, "fault-count",
                                              &error_abort), ==, 0);
    g_assert_cmpuint(rig->broken, ==, 0);
    rig_free(rig);
}

/* --- secrecy ------------------------------------------------------------ */

#define GUESTS          4
#define GUEST_PAGES     (ALL_PAGES / GUESTS)
#define ROUNDS          500
/* Reads of pages that were secret before, until the guests may end. */
#define READS           1000
#define SECRET          0x5ec2e75ec2e75ec2ULL

/* Counts up when a guest's pages are private, before it writes secrets. */
static uint64_t rounds[GUESTS];
static uint64_t reads;

static uint64_t *page_words(const Rig *rig, unsigned page)
{
    return (uint64_t *)(rig->blocks[page / BLOCK_PAGES]->host +
                        page % BLOCK_PAGES * qemu_real_host_page_size());
}

static void fill_secret(const Rig *rig, unsigned page)
{
    const size_t n = qemu_real_host_page_size() / sizeof(uint64_t);
    uint64_t *words = page_words(rig, page);
    size_t i;

    for (i = 0; i < n; i++) {
        words[i] = SECRET;
    }
}

/* In the middle of a conversion: one run is cleared, the next one not. */
static void let_others_run(GuestMemfdBlock *block, uint64_t offset,
                           uint64_t size)
{
    const struct timespec ts = { .tv_nsec = 1000 };

    nanosleep(&ts, NULL);
}

static void convert_pages(const Vcpu *vcpu, GuestMemfdDirection direction,
                          unsigned first, unsigned pages)
{
    GuestMemfdRequest req = rig_request(direction, UNSPECIFIED, first, pages);

    g_assert_cmpint(guest_memfd_engine_convert(&vcpu->rig->engine, &req,
                                               NULL), ==, 0);
}

/* Secrets are written while private only; then "auto" shares the pages. */
static void *guest_main(void *opaque)
{
    Vcpu *vcpu = opaque;
    const unsigned first = vcpu->index * GUEST_PAGES;
    unsigned i;

    while (vcpu->answers++ < ROUNDS || qatomic_read(&reads) < READS) {
        convert_pages(vcpu, TO_PRIVATE, first, GUEST_PAGES);
        qatomic_store_release(&rounds[vcpu->index], vcpu->answers);
        for (i = 0; i < GUEST_PAGES; i++) {
            fill_secret(vcpu->rig, first + i);
        }
        convert_pages(vcpu, TO_SHARED, first + GUEST_PAGES / 2, 1);
        convert_pages(vcpu, TO_SHARED, first, GUEST_PAGES);
    }
    return NULL;
}

/* As devices do: without a lock, and so out of a thread sanitizer's sight. */
__attribute__((no_sanitize("thread")))
static bool is_recorded_shared(const GuestMemfdBlock *block, unsigned page)
{
    /* volatile: another thread sets the bit */
    const volatile unsigned long *word =
        &block->attributes->bitmap[page / BITS_PER_LONG];

    return *word & 1UL << page % BITS_PER_LONG;
}

__attribute__((no_sanitize("thread")))
static bool is_secret_visible(const Rig *rig, unsigned page)
{
    const size_t n = qemu_real_host_page_size() / sizeof(uint64_t);
    /* volatile: another thread writes the page */
    const volatile uint64_t *words = page_words(rig, page);
    size_t i;

    for (i = 0; i < n; i++) {
        if (words[i]) {
            return true;
        }
    }
    return false;
}

/* The read counts if the next secrets were not written meanwhile. */
static void *reader_main(void *opaque)
{
    Vcpu *vcpu = opaque;

    while (!qatomic_read(&vcpus_stop)) {
        unsigned page = vcpus_random(&vcpu->random) % ALL_PAGES;
        uint64_t *round = &rounds[page / GUEST_PAGES];
        uint64_t before = qatomic_load_acquire(round);
        bool visible;

        if (!is_recorded_shared(vcpu->rig->blocks[page / BLOCK_PAGES],
                                page % BLOCK_PAGES)) {
            continue;
        }
        smp_rmb();      /* the state was looked at before the bytes */
        visible = is_secret_visible(vcpu->rig, page);
        smp_rmb();      /* and the round after them */
        if (qatomic_read(round) == before) {
            g_assert_false(visible);
            qatomic_inc(&reads);
        }
    }
    return NULL;
}

static void test_secrecy(void)
{
    Rig *rig = vcpus_rig(TYPE_GUEST_MEMFD_PROVIDER_EMULATED);
    Vcpu vcpus[VCPUS] = { };

    rig->engine.bytes_changed = let_others_run;
    vcpus_start(rig, vcpus, 0, GUESTS, guest_main);
    vcpus_start(rig, vcpus, GUESTS, VCPUS, reader_main);
    vcpus_join(vcpus, 0, GUESTS);
    qatomic_set(&vcpus_stop, true);
    vcpus_join(vcpus, GUESTS, VCPUS);
    g_test_message("%" PRIu64 " reads raced conversions", reads);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guest-memfd/threads/disjoint", test_disjoint);
    g_test_add_func("/guest-memfd/threads/overlapping", test_overlapping);
    g_test_add_func("/guest-memfd/threads/emulated", test_emulated);
    g_test_add_func("/guest-memfd/threads/faults", test_faults);
    g_test_add_func("/guest-memfd/threads/secrecy", test_secrecy);
    return g_test_run();
}
