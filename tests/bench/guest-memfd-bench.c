/*
 * QEMU's own share of a conversion of guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The provider does nothing, so what is left is the engine: two lookups,
 * the decision, locks, the bitmaps, statistics and trace points.  Prints
 * one JSON object, times in nanoseconds.
 *
 *   guest-memfd-bench [--check]
 *
 * --check: exit with 1 if a target is missed.
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "system/guest-memfd-internal.h"
#include "guest-memfd-bench-polls.h"
#include "guest-memfd-bench-vcpus.h"

#define TYPE_BENCH_PROVIDER "guest-memfd-provider-bench"
#define MAX_SAMPLES         100000

/* --- a provider that does nothing -------------------------------------- */

static int bench_convert(GuestMemfdProvider *provider, GuestMemfdBlock *block,
                         uint64_t offset, uint64_t size,
                         GuestMemfdDirection direction,
                         GuestMemfdContentMode mode, uint64_t *error_offset)
{
    return 0;
}

static int bench_discard(GuestMemfdProvider *provider, GuestMemfdBlock *block,
                         uint64_t offset, uint64_t size)
{
    return 0;
}

static void bench_init(Object *obj)
{
    GuestMemfdProvider *provider = GUEST_MEMFD_PROVIDER(obj);

    /* The long way: everything else is by the kernel. */
    provider->offer.how[TO_SHARED][GUEST_MEMFD_CONTENT_MODE_ZERO] =
        GUEST_MEMFD_REALISATION_EMULATED;
    guest_memfd_provider_set_spans(provider, 8);
}

static void bench_class_init(ObjectClass *oc, const void *data)
{
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_CLASS(oc);

    pc->convert = bench_convert;
    pc->discard = bench_discard;
}

static const TypeInfo bench_info = {
    .name = TYPE_BENCH_PROVIDER,
    .parent = TYPE_GUEST_MEMFD_PROVIDER,
    .instance_size = sizeof(GuestMemfdProvider),
    .instance_init = bench_init,
    .class_init = bench_class_init,
};

static void bench_register_types(void)
{
    type_register_static(&bench_info);
}

type_init(bench_register_types)

/* --- samples ----------------------------------------------------------- */

typedef struct Samples {
    unsigned n;
    int64_t ns[MAX_SAMPLES];
} Samples;

static Samples samples[GUEST_MEMFD_DIRECTION__MAX], zeroing;

static int64_t at(const Samples *s, unsigned percent)
{
    return s->ns[(uint64_t)(s->n - 1) * percent / 100];
}

static void add(Samples *s, int64_t ns)
{
    s->ns[s->n++] = ns;
}

static void sort(Samples *s)
{
    qsort(s->ns, s->n, sizeof(s->ns[0]), bench_compare_ns);
}

/* --- the machine ------------------------------------------------------- */

static int64_t time_one(Rig *rig, GuestMemfdDirection direction,
                        uint64_t gpa, uint64_t bytes)
{
    const GuestMemfdRequest req = {
        .gpa = gpa, .size = bytes, .direction = direction,
    };
    int64_t start = get_clock();
    int ret = guest_memfd_engine_convert(&rig->engine, &req, NULL);

    start = get_clock() - start;
    g_assert_cmpint(ret, ==, 0);
    return start;
}

/* Every second page is in the other state. */
static void alternate(GuestMemfdBlock *block)
{
    const uint64_t pages = block->size / qemu_real_host_page_size();

    memset(block->attributes->bitmap, 0x55, pages / 8);
    block->shared_pages = pages / 2;
}

static void measure(Rig *rig, uint64_t gpa, uint64_t bytes,
                    unsigned iterations, bool alternating)
{
    static const GuestMemfdDirection order[] = { TO_PRIVATE, TO_SHARED };
    unsigned i, warm_up = iterations / 10, d;

    samples[TO_SHARED].n = 0;
    samples[TO_PRIVATE].n = 0;
    for (i = 0; i < iterations + warm_up; i++) {
        for (d = 0; d < ARRAY_SIZE(order); d++) {
            int64_t ns;

            if (alternating) {
                alternate(rig->blocks[0]);
            }
            ns = time_one(rig, order[d], gpa, bytes);
            if (i >= warm_up) {
                add(&samples[order[d]], ns);
            }
        }
    }
    sort(&samples[TO_SHARED]);
    sort(&samples[TO_PRIVATE]);
}

/* --- the report -------------------------------------------------------- */

static bool all_met = true;

static void print_target(double value, double target)
{
    const bool met = value <= target;

    all_met &= met;
    printf(", \"target\": %g, \"met\": %s", target, met ? "true" : "false");
}

typedef struct Span {
    const char *name;
    uint64_t bytes;
    unsigned iterations;
    bool alternating;
    int64_t target;                 /* for the median; 0: none */
} Span;

static const Span ranges[] = {
    { "4 KiB", 4 * KiB, MAX_SAMPLES, false, 1000 },
    { "64 KiB", 64 * KiB, MAX_SAMPLES },
    { "2 MiB", 2 * MiB, MAX_SAMPLES },
    { "64 MiB", 64 * MiB, 20000 },
    /* In 32 slices. */
    { "1 GiB", 1 * GiB, 5000, false, 100000 },
    { "1 GiB, alternating pages", 1 * GiB, 50, true },
};

static void print_range(const Span *r, GuestMemfdDirection direction)
{
    const Samples *s = &samples[direction];

    printf("    { \"range\": \"%s\", \"direction\": \"%s\", "
           "\"iterations\": %u, \"best\": %" PRId64 ", "
           "\"median\": %" PRId64 ", \"p99\": %" PRId64,
           r->name, GuestMemfdDirection_str(direction), s->n,
           at(s, 0), at(s, 50), at(s, 99));
    if (r->target) {
        print_target(at(s, 50), r->target);
    }
    printf(" }");
}

static void bench_ranges(void)
{
    Rig *rig = bench_machine(TYPE_BENCH_PROVIDER, 1 * GiB);
    unsigned i;

    printf("  \"block\": %" PRIu64 ",\n  \"ranges\": [\n", (uint64_t)GiB);
    for (i = 0; i < ARRAY_SIZE(ranges); i++) {
        const Span *r = &ranges[i];

        measure(rig, 0, r->bytes, r->iterations, r->alternating);
        print_range(r, TO_PRIVATE);
        printf(",\n");
        print_range(r, TO_SHARED);
        printf(i + 1 < ARRAY_SIZE(ranges) ? ",\n" : "\n");
    }
    printf("  ],\n");
    rig_free(rig);
}

static int64_t best_in_block(uint64_t block_bytes)
{
    Rig *rig = bench_machine(TYPE_BENCH_PROVIDER, block_bytes);

    measure(rig, block_bytes / 2, 4 * KiB, MAX_SAMPLES, false);
    rig_free(rig);
    return MAX(at(&samples[TO_SHARED], 0), at(&samples[TO_PRIVATE], 0));
}

/* The cost of 4 KiB does not depend on the block around it. */
static void bench_block_size(void)
{
    const int64_t small = best_in_block(1 * GiB);
    const int64_t large = best_in_block(1 * TiB);
    const double ratio = (double)large / small;

    printf("  \"4 KiB in a block of\": { \"1 GiB\": %" PRId64
           ", \"1 TiB\": %" PRId64 ", \"ratio\": %.2f", small, large, ratio);
    print_target(ratio, 2);
    printf(" },\n");
}

/* The cost of discarding bytes, for comparison. */
static void bench_zeroing(void)
{
    const uint64_t bytes = 2 * MiB;
    Rig *rig = bench_machine(TYPE_BENCH_PROVIDER, bytes), *emulated;
    GuestMemfdProviderClass *pc;
    GuestMemfdBlock *block;
    unsigned i;

    measure(rig, 0, bytes, MAX_SAMPLES, false);
    rig_free(rig);

    emulated = bench_machine(TYPE_GUEST_MEMFD_PROVIDER_EMULATED, bytes);
    block = emulated->blocks[0];
    pc = GUEST_MEMFD_PROVIDER_GET_CLASS(emulated->engine.provider);
    for (i = 0; i < 200; i++) {
        int64_t start;

        memset(block->host, 1, bytes);
        start = get_clock();
        WITH_QEMU_LOCK_GUARD(&block->lock) {
            pc->discard(emulated->engine.provider, block, 0, bytes);
        }
        add(&zeroing, get_clock() - start);
    }
    rig_free(emulated);

    sort(&zeroing);
    printf("  \"2 MiB to-shared\": { \"zeroing\": %" PRId64
           ", \"engine\": %" PRId64 ", \"engine/zeroing\": %.4f },\n",
           at(&zeroing, 50), at(&samples[TO_SHARED], 50),
           (double)at(&samples[TO_SHARED], 50) / at(&zeroing, 50));
}

/* For how long locks are held, for as many bytes, or runs, as may be. */
static int64_t time_slice(uint64_t bytes, unsigned step)
{
    Rig *rig = bench_machine(TYPE_GUEST_MEMFD_PROVIDER_EMULATED,
                             GUEST_MEMFD_SLICE_BYTES);
    const size_t page = qemu_real_host_page_size();
    GuestMemfdBlock *block = rig->blocks[0];
    Samples *s = &samples[TO_SHARED];
    unsigned i, run;

    s->n = 0;
    for (i = 0; i < 50; i++) {
        memset(block->host, 1, block->size);
        for (run = 0; run < bytes / (step * page); run++) {
            time_one(rig, TO_PRIVATE, run * step * page,
                     step == 1 ? bytes : page);
            run += step == 1 ? bytes / page : 0;
        }
        add(s, time_one(rig, TO_SHARED, 0, bytes));
    }
    rig_free(rig);
    sort(s);
    return at(s, 50);
}

static void bench_slices(void)
{
    printf("  \"slice\": { \"32 MiB\": %" PRId64
           ", \"512 runs of 4 KiB\": %" PRId64 " },\n",
           time_slice(GUEST_MEMFD_SLICE_BYTES, 1),
           time_slice(2 * GUEST_MEMFD_SLICE_RUNS * 4 * KiB, 2));
}

/* The cost of one buffer of a device's request. */
static void bench_mapping(void)
{
    Rig *rig = bench_machine(TYPE_BENCH_PROVIDER, 64 * MiB);
    GuestMemfdBlock *block = rig->blocks[0];
    int64_t start;
    unsigned i;

    zeroing.n = 0;
    for (i = 0; i < 100; i++) {
        uint64_t offset;

        start = get_clock();
        for (offset = 0; offset < 4 * MiB; offset += 4 * KiB) {
            guest_memfd_mapping_add(block, offset, 4 * KiB);
            guest_memfd_mapping_remove(block, offset, 4 * KiB);
        }
        add(&zeroing, (get_clock() - start) / (4 * MiB / (4 * KiB)));
    }
    sort(&zeroing);
    printf("  \"map and unmap 4 KiB\": { \"best\": %" PRId64
           ", \"median\": %" PRId64 " },\n", at(&zeroing, 0),
           at(&zeroing, 50));
    rig_free(rig);
}

/* All memory of a large guest, as its boot may ask for; the bitmap only. */
static void bench_boot(void)
{
    const uint64_t bytes = 64 * GiB;
    Rig *rig = bench_machine(TYPE_BENCH_PROVIDER, bytes);

    measure(rig, 0, bytes, 20, false);
    printf("  \"64 GiB\": { \"to-private\": %" PRId64
           ", \"to-shared\": %" PRId64 " },\n",
           at(&samples[TO_PRIVATE], 50), at(&samples[TO_SHARED], 50));
    rig_free(rig);
}

/*
 * The same with memory, all of it used: what was private is thrown away.  The
 * kernel does most of this.
 */
static void bench_boot_with_memory(void)
{
    const uint64_t bytes = 4 * GiB;
    Rig *rig = bench_machine(TYPE_GUEST_MEMFD_PROVIDER_EMULATED, bytes);
    int64_t to_private, to_shared;

    memset(rig->blocks[0]->host, 1, bytes);
    to_private = bench_thread_ns();
    time_one(rig, TO_PRIVATE, 0, bytes);
    to_private = bench_thread_ns() - to_private;
    to_shared = bench_thread_ns();
    time_one(rig, TO_SHARED, 0, bytes);
    to_shared = bench_thread_ns() - to_shared;
    printf("  \"4 GiB with memory, CPU time\": { \"to-private\": %" PRId64
           ", \"to-shared\": %" PRId64 " },\n", to_private, to_shared);
    rig_free(rig);
}

#define VCPU_REQUESTS   200000

/* CPU time of a request, while @n vCPUs convert ranges of one block. */
static int64_t time_vcpus(unsigned n)
{
    Rig *rig = bench_machine(TYPE_BENCH_PROVIDER, BENCH_VCPUS_MAX * 2 * MiB);
    const int64_t ns = bench_vcpus_convert(rig, n, 2 * MiB, VCPU_REQUESTS);

    rig_free(rig);
    return ns;
}

static void bench_vcpus(void)
{
    const int64_t one = time_vcpus(1), eight = time_vcpus(BENCH_VCPUS_MAX);

    printf("  \"2 MiB, CPU time\": { \"1 vCPU\": %" PRId64
           ", \"8 vCPUs\": %" PRId64 " },\n",
           one, eight);
}

int main(int argc, char **argv)
{
    bool check = argc == 2 && g_str_equal(argv[1], "--check");

    if (argc > 1 && !check) {
        fprintf(stderr, "usage: %s [--check]\n", argv[0]);
        return EXIT_FAILURE;
    }
    printf("{\n  \"benchmark\": \"guest-memfd\",\n  \"unit\": \"ns\",\n");
    bench_ranges();
    bench_block_size();
    bench_zeroing();
    bench_slices();
    bench_mapping();
    bench_boot();
    bench_boot_with_memory();
    bench_vcpus();
    bench_polls();
    printf(",\n  \"met\": %s\n}\n", all_met ? "true" : "false");
    return check && !all_met ? EXIT_FAILURE : EXIT_SUCCESS;
}
