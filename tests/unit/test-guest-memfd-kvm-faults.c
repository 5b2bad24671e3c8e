/*
 * Every fault at every system call of KVM's provider
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One hypercall on a fake KVM.  Each of its system calls fails,
 * with each error and after each progress, once or for good; then each
 * later one fails too, so that the rollback fails.  The expected result
 * follows from what failed, without the engine.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitops.h"
#include "guest-memfd-fake-vm.h"

#define MODE(x)     GUEST_MEMFD_CONTENT_MODE_##x
#define REFUSED     GUEST_MEMFD_REALISATION_REFUSED
#define PRIVATE     GUEST_MEMFD_ATTR_PRIVATE
#define KEPT        GUEST_MEMFD_ATTR_PRESERVE

typedef struct Kernel {
    const char *name;
    bool two_backings, launched;
    uint64_t to_shared, to_private;
} Kernel;

static const Kernel kernels[] = {
    { "content-modes", false, true, FLAG_ZERO | FLAG_PRESERVE,
      FLAG_PRESERVE },
    { "content-modes-after-launch", false, true, FLAG_ZERO, 0 },
    { "content-modes-before-launch", false, false, FLAG_ZERO, FLAG_PRESERVE },
    { "in-place", false, true, 0, 0 },
    { "in-place-before-launch", false, false, 0, 0 },
    { "two-backings", true, true },
};

typedef struct Ask {
    uint64_t attributes;
    GuestMemfdContentPolicy policy;
} Ask;

static const Ask asks[] = {
    { 0, GUEST_MEMFD_CONTENT_POLICY_AUTO },
    { 0, GUEST_MEMFD_CONTENT_POLICY_DEFAULT },
    { KEPT, GUEST_MEMFD_CONTENT_POLICY_AUTO },
    { PRIVATE, GUEST_MEMFD_CONTENT_POLICY_AUTO },
    { PRIVATE | KEPT, GUEST_MEMFD_CONTENT_POLICY_AUTO },
};

/* @right: the page that needs no conversion. */
typedef struct Shape {
    unsigned first, pages, right;
} Shape;

/* One run; two runs of a block; three runs of two blocks. */
static const Shape shapes[] = {
    { 2, 3, VM_PAGES }, { 1, 6, 3 }, { 5, 6, 9 },
};

/* The cell that runs, and its results. */
static struct {
    Rig *rig;
    const Kernel *kernel;
    Ask ask;
    Shape shape;
    bool no_retry;
    bool by_run;                /* a call for several runs failed */
    GuestMemfdDecision decision;
    int fatal;                  /* the error that no other try can mend */
    int error;                  /* that the request ended with */
    uint32_t broken;            /* pages without a way back */
} the;

static struct {
    unsigned long cells, faults, by_run, broken, answers[EINVAL + 1];
} counts;

static void describe(void)
{
    unsigned i;

    g_test_message("%s: attributes 0x%" PRIx64 " policy %d pages %u+%u "
                   "without %u, no_retry %d, fatal %d, error %d",
                   the.kernel->name, the.ask.attributes, the.ask.policy,
                   the.shape.first, the.shape.pages, the.shape.right,
                   the.no_retry, the.fatal, the.error);
    for (i = 0; i < ARRAY_SIZE(fake.faults); i++) {
        g_test_message("  call %u fails %u times with %d after %u pages",
                       fake.faults[i].after, fake.faults[i].count,
                       fake.faults[i].error, fake.faults[i].progress);
    }
}

#define EXPECT(condition) \
    do { \
        if (!(condition)) { \
            describe(); \
            g_assert_true(condition); \
        } \
    } while (0)

static GuestMemfdDirection direction(void)
{
    return the.ask.attributes & PRIVATE ? TO_PRIVATE : TO_SHARED;
}

static bool starts_shared(unsigned page)
{
    return (direction() == TO_SHARED) == (page == the.shape.right);
}

static bool changes(unsigned page)
{
    return page - the.shape.first < the.shape.pages &&
           page != the.shape.right;
}

static uint64_t secret(unsigned page)
{
    return 0x5ec2e70000000000ULL + page;
}

/* KVM cannot preserve bytes when it converts back. */
static bool is_lossy(void)
{
    return the.rig->engine.provider->offer.how[!direction()][MODE(PRESERVE)]
           == REFUSED;
}

/* --- while it runs ------------------------------------------------------ */

static bool worth_another_try(int error)
{
    return !the.no_retry && (error == -EAGAIN || error == -EINTR);
}

/* Does this kernel keep the bytes of a page that is right already? */
static bool takes_spans(void)
{
    const GuestMemfdProvider *provider = the.rig->engine.provider;
    GuestMemfdContentMode mode = the.decision.mode;

    if (mode == MODE(DEFAULT) &&
        provider->offer.how[direction()][MODE(PRESERVE)] != REFUSED) {
        mode = MODE(PRESERVE);
    }
    return provider->spans[direction()][mode];
}

/* A call for runs with a page in between that is right already. */
static bool is_span(void)
{
    const GuestMemfdBlock *block = the.rig->blocks[the.shape.right /
                                                   FAKE_PAGES % 2];
    uint64_t offset = 0, size, runs = 0;

    while (guest_memfd_block_next_changed(block, block->size, &offset,
                                          &size)) {
        offset += size;
        runs++;
    }
    return runs > 1 && !the.by_run && takes_spans();
}

/* The runs are tried one by one, unless bytes may have been lost. */
static bool is_tried_by_run(int error)
{
    return is_span() && (the.decision.mode != MODE(PRESERVE) ||
                         !is_lossy() || error == -EAGAIN || error == -EINTR);
}

static void on_fault(GuestMemfdDirection of_call, int error)
{
    counts.faults++;
    if (of_call != direction()) {
        return;
    }
    if (is_tried_by_run(error)) {
        the.by_run = true;
        counts.by_run++;
    } else if (!the.fatal && !worth_another_try(error)) {
        the.fatal = error;
    }
}

static void on_broken(GuestMemfdBlock *block, uint64_t offset, uint64_t size,
                      int error)
{
    const size_t page_size = qemu_real_host_page_size();
    unsigned page = offset / page_size, end = page + size / page_size;

    for (; page < end; page++) {
        the.broken |= 1 << (page + (block == the.rig->blocks[0] ?
                                    0 : FAKE_PAGES));
    }
    counts.broken++;
}

static void on_failure(GuestMemfdEngine *engine, const GuestMemfdRequest *req,
                       const GuestMemfdResult *result)
{
    the.error = result->error;
}

/* A request that waits is not half done. */
static void on_sleep(Rig *rig)
{
    unsigned page;

    EXPECT(!the.fatal && !the.broken && !the.no_retry);
    for (page = 0; page < VM_PAGES; page++) {
        EXPECT(vm_is_private(page) != starts_shared(page));
        EXPECT(vm_is_recorded_shared(rig, page) == starts_shared(page));
    }
}

/* --- the expected result ------------------------------------------------ */

static bool rolled_back(void)
{
    return the.rig->blocks[0]->stats.counters.rollbacks +
           the.rig->blocks[1]->stats.counters.rollbacks;
}

static int expected_error(void)
{
    if (the.decision.error) {
        return the.decision.error;
    }
    if (the.broken) {
        return -EIO;
    }
    if (the.decision.mode == MODE(PRESERVE) && is_lossy() && rolled_back()) {
        return -EIO;
    }
    return the.fatal;
}

static uint64_t expected_answer(int error)
{
    return !error ? 0 :
           error == -EAGAIN || error == -EINTR || error == -ENOMEM ||
           error == -ENOSPC ? EAGAIN : EINVAL;
}

/* QEMU's record is what KVM holds; where that is unknown, it is private. */
static void check_state(unsigned page)
{
    const bool shared = starts_shared(page) !=
                        (!the.error && changes(page));

    if (the.broken & 1 << page) {
        EXPECT(!vm_is_recorded_shared(the.rig, page));
    } else {
        EXPECT(vm_is_recorded_shared(the.rig, page) == shared);
        EXPECT(vm_is_private(page) == !shared);
    }
}

/* Zeros, its own bytes, or the kernel's; never those of another page. */
static void check_own_bytes(unsigned page)
{
    EXPECT(vm_reads(page, 0) || vm_reads(page, secret(page)) ||
           vm_reads(page, FAKE_SCRAMBLED));
}

static bool is_one_run(void)
{
    const Shape *s = &the.shape;

    return s->right - s->first >= s->pages &&
           s->first / FAKE_PAGES == (s->first + s->pages - 1) / FAKE_PAGES;
}

/*
 * KVM was only asked for what loses no byte: a request of several runs
 * asks to preserve.  Zeros are made at once, by KVM or by QEMU.
 */
static bool kept_on_the_way(void)
{
    const GuestMemfdOffer *offer = &the.rig->engine.provider->offer;

    if (the.kernel->two_backings || the.decision.mode == MODE(ZERO)) {
        return false;
    }
    return !fake.content_modes ||
           (!is_lossy() && (the.decision.mode == MODE(PRESERVE) ||
            (!is_one_run() &&
             offer->how[direction()][MODE(PRESERVE)] != REFUSED)));
}

static void check_bytes(unsigned page)
{
    const GuestMemfdContentMode mode = the.decision.mode;
    const bool touched = test_bit(page % FAKE_PAGES,
                                  vm_memory(page)->touched);

    check_own_bytes(page);
    EXPECT(!touched || changes(page));
    if (!touched) {
        EXPECT(vm_reads(page, secret(page)));
    } else if (the.error) {
        EXPECT(!kept_on_the_way() || vm_reads(page, secret(page)));
        EXPECT(mode != MODE(ZERO) || is_lossy() || vm_reads(page, 0) ||
               vm_reads(page, secret(page)));
    } else if (mode == MODE(ZERO)) {
        EXPECT(vm_reads(page, 0));
    } else if (mode == MODE(PRESERVE)) {
        EXPECT(vm_reads(page, secret(page)));
    }
}

static void check(uint64_t answer)
{
    unsigned page;

    EXPECT(the.error == expected_error());
    EXPECT(answer == expected_answer(the.error));
    for (page = 0; page < VM_PAGES; page++) {
        check_state(page);
        check_bytes(page);
    }
    counts.answers[answer]++;
    counts.cells++;
}

/* --- a cell ------------------------------------------------------------- */

static void prepare(void)
{
    unsigned page, i;

    the.fatal = the.error = 0;
    the.broken = 0;
    the.by_run = false;
    fake.calls = 0;
    for (i = 0; i < the.rig->n_blocks; i++) {
        the.rig->blocks[i]->stats.counters = (GuestMemfdCounters) { };
    }
    for (page = 0; page < VM_PAGES; page++) {
        vm_set_page(the.rig, page, starts_shared(page), secret(page));
    }
    the.rig->engine.content_policy = the.ask.policy;
    the.rig->engine.retry_timeout_ms = the.no_retry ? 0 : UINT32_MAX;
}

static unsigned run_cell(void)
{
    GuestMemfdRequest req;

    prepare();
    guest_memfd_request_decode(&req, 0, 0, the.ask.attributes,
                               GUEST_MEMFD_ORIGIN_HYPERCALL);
    the.decision = guest_memfd_engine_decide(&the.rig->engine,
                                             the.rig->blocks[0], &req);
    check(vm_ask(the.shape.first, the.shape.pages, the.ask.attributes));
    return fake.calls;
}

/*
 * The provider's contract: no progress where another try would find the
 * bytes lost.  KVM makes none at all when it says EAGAIN.
 */
static bool makes_sense(const FakeFault *f)
{
    return !f->progress || !is_lossy() ||
           (f->error != -EAGAIN && f->error != -EINTR);
}

/* One more failure in calls [first, end). */
static void add_fault(unsigned first, unsigned end)
{
    static const int later[] = { EAGAIN, EINTR, EIO };
    unsigned e, times;

    for (; first < end; first++) {
        for (e = 0; e < ARRAY_SIZE(later); e++) {
            for (times = 1; times <= RIG_FOR_GOOD; times += RIG_FOR_GOOD - 1) {
                fake.faults[1] = (FakeFault) { first, times, -later[e] };
                run_cell();
            }
        }
    }
    fake.faults[1] = (FakeFault) { };
}

static void fail_with(unsigned call, int error)
{
    static const unsigned progress[] = { 0, 1, VM_PAGES };
    unsigned p;

    for (p = 0; p < ARRAY_SIZE(progress); p++) {
        fake.faults[0] = (FakeFault) { call, 1, -error, progress[p] };
        if (!makes_sense(&fake.faults[0])) {
            continue;
        }
        the.no_retry = true;
        run_cell();
        the.no_retry = false;
        add_fault(call + 1, run_cell());
        if (!worth_another_try(-error)) {
            fake.faults[0].count = RIG_FOR_GOOD;
            run_cell();
        }
    }
}

static void fail_each_call(void)
{
    unsigned call, calls, e;

    memset(fake.faults, 0, sizeof(fake.faults));
    calls = run_cell();
    for (call = 0; call < calls; call++) {
        for (e = 0; e < ARRAY_SIZE(rig_errors); e++) {
            fail_with(call, rig_errors[e]);
        }
    }
}

static void start(const Kernel *kernel)
{
    memset(&counts, 0, sizeof(counts));
    the.kernel = kernel;
    the.rig = kernel->two_backings ? vm_new_two_backings() :
              vm_new_in_place(kernel->to_shared, kernel->to_private);
    the.rig->engine.phase = kernel->launched ? GUEST_MEMFD_PHASE_RUNNING :
                                               GUEST_MEMFD_PHASE_SETUP;
    the.rig->engine.broken = on_broken;
    the.rig->engine.failed = on_failure;
    the.rig->on_sleep = on_sleep;
    g_string_free(fake.log, true);
    fake.log = NULL;
    fake.on_fault = on_fault;
}

static void end(void)
{
    memset(fake.faults, 0, sizeof(fake.faults));
    prepare();
    vm_free(the.rig);
    g_test_message("%lu cells: %lu calls failed, %lu ways back failed; the "
                   "guest got success %lu, EAGAIN %lu, EINVAL %lu times",
                   counts.cells, counts.faults, counts.broken,
                   counts.answers[0], counts.answers[EAGAIN],
                   counts.answers[EINVAL]);
    g_assert_cmpuint(counts.broken, >, 0);
    g_assert_cmpuint(counts.answers[EAGAIN], >, 0);
}

static void test_kernel(const void *kernel)
{
    unsigned a, s;

    start(kernel);
    for (a = 0; a < ARRAY_SIZE(asks); a++) {
        for (s = 0; s < ARRAY_SIZE(shapes); s++) {
            the.ask = asks[a];
            the.shape = shapes[s];
            fail_each_call();
        }
    }
    end();
}

int main(int argc, char **argv)
{
    unsigned k;

    g_test_init(&argc, &argv, NULL);
    for (k = 0; k < ARRAY_SIZE(kernels); k++) {
        g_autofree char *path = g_strconcat("/guest-memfd/kvm-faults/",
                                            kernels[k].name, NULL);

        g_test_add_data_func(path, &kernels[k], test_kernel);
    }
    return g_test_run();
}
