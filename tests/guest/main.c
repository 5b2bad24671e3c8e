/*
 * The whole run: say hello, convert, be refused, sum up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"

static struct {
    uint64_t conversions;
    uint64_t bytes;
    uint64_t mismatches;
} tally;

static uint64_t generation;

uint64_t next_generation(void)
{
    return __atomic_add_fetch(&generation, 1, __ATOMIC_RELAXED);
}

void tally_add(const struct check *check, bool conversion)
{
    __atomic_fetch_add(&tally.conversions, conversion, __ATOMIC_RELAXED);
    __atomic_fetch_add(&tally.bytes, check->bytes, __ATOMIC_RELAXED);
    __atomic_fetch_add(&tally.mismatches, check->bad, __ATOMIC_RELAXED);
}

/* Failed checks so far. */
uint64_t tally_bad(void)
{
    return tally.mismatches;
}

/* The interface of the command line, or the first that exists. */
static enum via choose_via(void)
{
    if (options.via != VIA_AUTO) {
        return options.via;
    }
    return device_present() ? VIA_TESTDEV :
           hypercall_present() ? VIA_HYPERCALL : VIA_NONE;
}

/* Returns the number of vCPUs that took part. */
static unsigned run(void)
{
    switch (options.cases) {
    case CASES_MALFORMED:
        return malformed_run();
    case CASES_RACE:
    case CASES_SLOTS:
        return race_run();
    case CASES_CYCLE:
        return cycle_run();
    case CASES_LARGE:
        return large_run();
    case CASES_PIN:
        return pin_run();
    case CASES_MODEL:
        return model_run();
    case CASES_SVM:
        return svm_run();
    case CASES_ASSIGNED:
        return assigned_run();
    case CASES_WRITERS:
        return writers_run();
    case CASES_BENCH:
        return bench_run();
    case CASES_PLATFORM:
        return platform_run();
    case CASES_DEFECTS:
        defects_run();
        return 1;
    default:
        cases_run();
        refusals_run();
        return options.vcpus < 2 ? 1 :
               smp_run(options.vcpus, cases_run_slice);
    }
}

void guest_main(uint64_t start_info)
{
    unsigned vcpus;

    trap_init();
    options_parse(start_info);
    options.via = choose_via();
    say("hello via=%s expect=%s cases=%s poison=%u testdev=%u kvm=%u "
        "vcpus=%u", via_name(options.via), expect_name(options.expect),
        cases_name(options.cases), options.poison, device_present(),
        hypercall_present(), options.vcpus);
    if (options.via == VIA_NONE ||
        (options.via == VIA_TESTDEV && !device_present()) ||
        (options.via == VIA_HYPERCALL && !hypercall_present())) {
        say("usage no way to convert memory: via=%s",
            via_name(options.via));
        guest_exit(false);
    }

    confidential_start();
    if (options.cases != CASES_DEFECTS && options.cases != CASES_BENCH &&
        options.offer) {
        cases_offer();
    }
    vcpus = run();

    if (options.cases != CASES_RACE && options.cases != CASES_SLOTS &&
        options.cases != CASES_DEFECTS && options.cases != CASES_LARGE &&
        options.cases != CASES_ASSIGNED && options.cases != CASES_BENCH) {
        convert_report();
    }
    say("done conversions=%lu bytes=%lu mismatches=%lu vcpus=%u",
        tally.conversions, tally.bytes, tally.mismatches, vcpus);
    guest_exit(!tally.mismatches);
}
