/*
 * Random conversions of guest memory against a naive model
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * GMEM_TEST_SEED and GMEM_TEST_STEPS choose other sequences.  A sequence
 * that fails is run again in parts, to find a short one that fails too.
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "qemu/bitmap.h"
#include "../guest-memfd/test-number.h"
#include "system/guest-memfd-internal.h"
#include "guest-memfd-model.h"
#include "guest-memfd-rig.h"

#define STEPS_DEFAULT   1000000     /* for each of two providers */
#define SHRINK_RUNS     2000
#define SHRINK_STEPS    10000

static uint64_t seed, steps;

/* --- running steps in a child ------------------------------------------ */

static volatile uint64_t *at_step;  /* shared with the child */

/* Which steps, in order; NULL: all below @n. */
typedef struct Sequence {
    const char *provider;
    const uint64_t *list;
    uint64_t n;
} Sequence;

static void run_here(const Sequence *seq)
{
    Model *m = model_new(seq->provider);
    uint64_t i;

    for (i = 0; i < seq->n; i++) {
        *at_step = i;
        model_step(m, seed, seq->list ? seq->list[i] : i);
        if (i % 1024 == 0) {
            model_check_all(m);
        }
    }
    model_check_all(m);
    model_free(m);
}

/* A failed assertion ends the child only. */
static bool run(const Sequence *seq, bool quiet)
{
    pid_t pid;
    int status;

    fflush(stdout);
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        const struct rlimit no_core = { };
        int null = open("/dev/null", O_WRONLY);

        setrlimit(RLIMIT_CORE, &no_core);
        dup2(quiet ? null : STDERR_FILENO, STDERR_FILENO);
        dup2(null, STDOUT_FILENO);
        run_here(seq);
        _exit(EXIT_SUCCESS);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

/* --- shrinking --------------------------------------------------------- */

/* Leave out [first, first + count). */
static bool fails_without(const Sequence *seq, uint64_t first, uint64_t count)
{
    g_autofree uint64_t *list = g_new(uint64_t, seq->n);
    const Sequence less = { seq->provider, list, seq->n - count };

    memcpy(list, seq->list, first * sizeof(*list));
    memcpy(list + first, seq->list + first + count,
           (seq->n - first - count) * sizeof(*list));
    return !run(&less, true);
}

static void leave_out(Sequence *seq, uint64_t *list, uint64_t first,
                      uint64_t count)
{
    memmove(list + first, list + first + count,
            (seq->n - first - count) * sizeof(*list));
    seq->n -= count;
}

/* Delta debugging: leave out ever smaller parts. */
static void shrink(Sequence *seq, uint64_t *list)
{
    uint64_t part = seq->n / 2, first;
    unsigned runs = 0;

    while (part && runs < SHRINK_RUNS) {
        for (first = 0; first + part <= seq->n && runs < SHRINK_RUNS;) {
            runs++;
            if (fails_without(seq, first, part)) {
                leave_out(seq, list, first, part);
            } else {
                first += part;
            }
        }
        part /= 2;
    }
}

static void print_steps(const Sequence *seq)
{
    uint64_t i;

    for (i = 0; i < seq->n; i++) {
        g_autofree char *step = model_describe_step(seed, seq->list[i]);

        g_test_message("  %s", step);
    }
}

/* The end of the sequence that failed, as little of it as fails alone. */
static void explain(const char *provider, uint64_t failed)
{
    uint64_t length, i;

    g_test_message("%s: seed %" PRIu64 " fails at step %" PRIu64, provider,
                   seed, failed);
    for (length = 10; length <= SHRINK_STEPS; length *= 10) {
        const uint64_t n = MIN(length, failed + 1);
        g_autofree uint64_t *list = g_new(uint64_t, n);
        Sequence seq = { provider, list, n };

        for (i = 0; i < n; i++) {
            list[i] = failed + 1 - n + i;
        }
        if (!run(&seq, true)) {
            shrink(&seq, list);
            g_test_message("these %" PRIu64 " steps fail, too:", seq.n);
            print_steps(&seq);
            return;
        }
    }
    g_test_message("no short sequence fails");
}

static void test_model(const void *provider)
{
    const Sequence seq = { provider, NULL, steps };

    g_test_message("GMEM_TEST_SEED=%" PRIu64 " GMEM_TEST_STEPS=%" PRIu64,
                   seed, steps);
    if (!run(&seq, false)) {
        explain(provider, *at_step);
        g_test_fail();
    }
}

/* --- the splitter ------------------------------------------------------ */

typedef enum SplitPage { IS_PRIVATE, IS_SHARED, IS_CHANGED } SplitPage;

/* Pages that the request converted already are neither. */
static bool naive_next_run(const SplitPage *pages, bool shared,
                           uint64_t *first, uint64_t end, uint64_t *count)
{
    uint64_t page = *first;

    while (page < end && pages[page] != shared) {
        page++;
    }
    *first = page;
    while (page < end && pages[page] == shared) {
        page++;
    }
    *count = page - *first;
    return *count > 0;
}

static void check_runs(const GuestMemfdBlock *block, const SplitPage *pages,
                       bool shared, uint64_t first, uint64_t end)
{
    const size_t page = qemu_real_host_page_size();
    uint64_t offset = first * page, size, count;
    bool more;

    do {
        more = naive_next_run(pages, shared, &first, end, &count);
        g_assert_cmpint(guest_memfd_block_next_run(block, shared, &offset,
                                                   end * page, end * page,
                                                   &size),
                        ==, more);
        if (more) {
            g_assert_cmpuint(offset, ==, first * page);
            g_assert_cmpuint(size, ==, count * page);
            offset += size;
            first += count;
        }
    } while (more);
}

static void test_splitter(void)
{
    enum { PAGES = 300 };
    Rig *rig = rig_new_simple(PAGES);
    GuestMemfdBlock *block = rig->blocks[0];
    SplitPage pages[PAGES];
    uint64_t n, r, end;
    unsigned i;

    for (n = 0; n < 20000; n++) {
        uint64_t density = 1 + model_random(seed, n) % 64;
        bool shared = model_random(seed, n + 1) % 2, changed = false;

        for (i = 0; i < PAGES; i++) {
            r = model_random(seed, n * PAGES + i);
            shared ^= r % density == 0;
            changed ^= n % 4 && (r >> 32) % density == 0;
            pages[i] = changed ? IS_CHANGED : shared;
            (shared ? set_bit : clear_bit)(i, block->attributes->bitmap);
            (changed ? set_bit : clear_bit)(i, block->scratch.changed);
        }
        r = model_random(seed, ~n);
        end = r % (PAGES + 1);
        check_runs(block, pages, n % 2, (r >> 32) % (end + 1), end);
    }
    bitmap_set(block->attributes->bitmap, 0, PAGES);
    bitmap_zero(block->scratch.changed, PAGES);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    seed = test_number("GMEM_TEST_SEED", 20240229);
    steps = test_number("GMEM_TEST_STEPS", STEPS_DEFAULT);
    at_step = mmap(NULL, sizeof(*at_step), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    g_assert(at_step != MAP_FAILED);

    g_test_add_func("/guest-memfd/model/splitter", test_splitter);
    g_test_add_data_func("/guest-memfd/model/emulated",
                         TYPE_GUEST_MEMFD_PROVIDER_EMULATED, test_model);
    g_test_add_data_func("/guest-memfd/model/failing", TYPE_RIG_PROVIDER,
                         test_model);
    return g_test_run();
}
