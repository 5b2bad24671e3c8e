/*
 * Memory faults that KVM reports, on a fake of KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each cell of the table, against the rules in words that
 * docs/devel/guest-memfd-conversion.rst gives; then what comes of it.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "accel/kvm/kvm-guest-memfd-fault.h"
#include "system/kvm.h"
#include "guest-memfd-fake-vm.h"

#define PRIVATE     GUEST_MEMFD_ATTR_PRIVATE
#define BOTH        (FLAG_ZERO | FLAG_PRESERVE)
#define REPEATS     KVM_GUEST_MEMFD_FAULT_REPEATS

#define NONE        GUEST_MEMFD_RECORD_NONE
#define SECRET      0x5ec2e7ULL

/* --- the table ---------------------------------------------------------- */

static bool is_right(const KvmGuestMemfdFault *f)
{
    return f->record == (f->private ? GUEST_MEMFD_RECORD_PRIVATE :
                                      GUEST_MEMFD_RECORD_SHARED);
}

static KvmGuestMemfdFaultAction expected(const KvmGuestMemfdFault *f)
{
    if (f->repeats >= REPEATS) {
        return KVM_GUEST_MEMFD_FAULT_STOP;
    }
    if (f->guest_says) {
        if (f->record == NONE && f->private) {
            return KVM_GUEST_MEMFD_FAULT_STOP;
        }
        if (f->record != NONE && !is_right(f)) {
            return KVM_GUEST_MEMFD_FAULT_CONVERT;
        }
    }
    return f->again ? KVM_GUEST_MEMFD_FAULT_PREFAULT :
                      KVM_GUEST_MEMFD_FAULT_REENTER;
}

static void test_table(void)
{
    static const unsigned repeats[] = { 0, 1, 2, REPEATS - 1, REPEATS,
                                        UINT_MAX };
    unsigned count[KVM_GUEST_MEMFD_FAULT_ACTION__MAX] = { };
    KvmGuestMemfdFault f;
    unsigned i, r, a;

    for (f.record = 0; f.record < GUEST_MEMFD_RECORD__MAX; f.record++) {
        for (i = 0; i < 8; i++) {
            f.private = i & 1;
            f.guest_says = i & 2;
            f.again = i & 4;
            for (r = 0; r < ARRAY_SIZE(repeats); r++) {
                f.repeats = repeats[r];
                a = kvm_guest_memfd_fault_action(&f);
                g_test_message("record %d private %d says %d again %d "
                               "repeats %u: %u", f.record, f.private,
                               f.guest_says, f.again, f.repeats, a);
                g_assert_cmpuint(a, ==, expected(&f));
                count[a]++;
            }
        }
    }
    for (a = 0; a < ARRAY_SIZE(count); a++) {
        g_assert_cmpuint(count[a], >, 0);
    }
}

/* Only what may pass is worth entering the guest again. */
static void test_errors(void)
{
    int error;

    for (error = 0; error < 4096; error++) {
        bool again = !error || error == EAGAIN || error == EINTR ||
                     error == ENOMEM || error == ENOSPC;

        g_assert_cmpint(kvm_guest_memfd_fault_converted(-error), ==,
                        again ? KVM_GUEST_MEMFD_FAULT_REENTER :
                                KVM_GUEST_MEMFD_FAULT_STOP);
    }
}

/* --- the record ---------------------------------------------------------- */

/* The vCPU of another test had the same thread. */
static Rig *start(Rig *rig, bool guest_says)
{
    vm_guest_says(guest_says);
    rig->engine.phase = GUEST_MEMFD_PHASE_RUNNING;
    g_assert_cmpint(vm_fault(1000, 1, false), ==, 0);
    stat64_init(&rig->engine.unconverted_faults, 0);
    g_string_truncate(fake.log, 0);
    kvm_pre_fault_memory_supported = true;
    return rig;
}

static Rig *new_launched(bool guest_says)
{
    return start(vm_new_in_place(BOTH, FLAG_PRESERVE), guest_says);
}

static GuestMemfdRecord record(Rig *rig, uint64_t gpa, uint64_t pages)
{
    const size_t page = qemu_real_host_page_size();
    uint64_t generation;

    return guest_memfd_engine_record(&rig->engine, gpa * page, pages * page,
                                     &generation);
}

/* Pages 0-7 and 8-15 are two blocks; 5 to 9 are private. */
static void test_record(void)
{
    const size_t page = qemu_real_host_page_size();
    Rig *rig = new_launched(false);
    uint64_t g;

    g_assert_cmpuint(vm_ask(5, 5, PRIVATE), ==, 0);
    g_assert_cmpint(record(rig, 0, 5), ==, GUEST_MEMFD_RECORD_SHARED);
    g_assert_cmpint(record(rig, 5, 5), ==, GUEST_MEMFD_RECORD_PRIVATE);
    g_assert_cmpint(record(rig, 4, 2), ==, GUEST_MEMFD_RECORD_MIXED);
    g_assert_cmpint(record(rig, 9, 2), ==, GUEST_MEMFD_RECORD_MIXED);
    g_assert_cmpint(record(rig, 0, 16), ==, GUEST_MEMFD_RECORD_MIXED);
    g_assert_cmpint(record(rig, 10, 6), ==, GUEST_MEMFD_RECORD_SHARED);
    g_assert_cmpint(record(rig, 10, 7), ==, NONE);
    g_assert_cmpint(record(rig, 16, 1), ==, NONE);
    g_assert_cmpint(record(rig, 0, 0), ==, NONE);
    g_assert_cmpint(record(rig, UINT64_MAX / page, 2), ==, NONE);
    g_assert_cmpint(guest_memfd_engine_record(&rig->engine, 1, page, &g), ==,
                    NONE);
    g_assert_cmpint(guest_memfd_engine_record(&rig->engine, 0, 1, &g), ==,
                    NONE);
    vm_free(rig);
}

static void test_generation(void)
{
    const size_t page = qemu_real_host_page_size();
    Rig *rig = new_launched(false);
    uint64_t before, after;

    guest_memfd_engine_record(&rig->engine, 0, page, &before);
    g_assert_cmpuint(vm_ask(8, 1, PRIVATE), ==, 0);     /* another block */
    g_assert_cmpuint(vm_ask(0, 1, 0), ==, 0);           /* nothing to do */
    guest_memfd_engine_record(&rig->engine, 0, page, &after);
    g_assert_cmpuint(before, ==, after);
    g_assert_cmpuint(vm_ask(0, 1, PRIVATE), ==, 0);
    guest_memfd_engine_record(&rig->engine, 0, page, &after);
    g_assert_cmpuint(before, !=, after);
    /* There and back is not as if nothing had happened. */
    before = after;
    g_assert_cmpuint(vm_ask(0, 1, 0), ==, 0);
    g_assert_cmpuint(vm_ask(0, 1, PRIVATE), ==, 0);
    guest_memfd_engine_record(&rig->engine, 0, page, &after);
    g_assert_cmpuint(before, !=, after);
    vm_free(rig);
}

/* --- accesses that cannot say it ---------------------------------------- */

static Rig *new_with_secret(Rig *rig)
{
    g_assert_cmpuint(vm_ask(3, 1, PRIVATE), ==, 0);
    vm_words(3)[0] = SECRET;
    g_string_truncate(fake.log, 0);
    return rig;
}

static uint64_t unconverted(const Rig *rig)
{
    return stat64_get(&rig->engine.unconverted_faults);
}

/* A private page stays private and keeps its bytes; no ioctl is issued. */
static void check_race(Rig *rig)
{
    const unsigned in_block = rig->blocks[0]->stats.counters.requests;
    unsigned i;

    for (i = 0; i < REPEATS; i++) {
        g_assert_cmpint(vm_fault(3, 1, false), ==, 0);
        g_assert_cmphex(vm_words(3)[0], ==, SECRET);
        fake_expect_log(i ? "v: prefault 3+1\n" : "");
        g_assert_true(vm_is_private(3));
    }
    g_assert_cmpuint(unconverted(rig), ==, REPEATS);
    g_assert_cmpuint(rig->blocks[0]->stats.counters.requests, ==, in_block);
    vm_check(rig);
    /* That is often enough; once the VM is resumed, it starts again. */
    g_assert_cmpint(vm_fault(3, 1, false), <, 0);
    g_assert_cmpint(vm_fault(3, 1, false), ==, 0);
    fake_expect_log("");
    vm_check(rig);
}

static void test_race(void)
{
    Rig *rig = new_with_secret(new_launched(false));

    check_race(rig);
    /* Nor does a shared page become private. */
    g_assert_cmpint(vm_fault(0, 1, true), ==, 0);
    fake_expect_log("");
    vm_check(rig);
    vm_free(rig);
}

static void test_race_two_backings(void)
{
    Rig *rig = start(vm_new_two_backings(), false);

    check_race(new_with_secret(rig));
    vm_free(rig);
}

/* Something has changed since: it may go on like that for ever. */
static void test_progress(void)
{
    Rig *rig = new_with_secret(new_launched(false));
    MemoryRegion *mr = &rig->map[0].mr;
    unsigned i;

    for (i = 0; i < 2 * REPEATS; i++) {
        g_assert_cmpint(vm_fault(3, 1, false), ==, 0);
        g_assert_cmpuint(vm_ask(0, 1, i % 2 ? 0 : PRIVATE), ==, 0);
    }
    for (i = 0; i < 2 * REPEATS; i++) {
        g_assert_cmpint(vm_fault(3, 1, false), ==, 0);
        kvm_guest_memfd_slot_added(mr, 0, 0, qemu_real_host_page_size());
    }
    g_assert_cmphex(vm_words(3)[0], ==, SECRET);
    /* KVM may have a stale entry all the same. */
    g_assert_nonnull(strstr(fake.log->str, "v: prefault 3+1\n"));
    /* So may faults on other pages. */
    for (i = 0; i < 2 * REPEATS; i++) {
        g_assert_cmpint(vm_fault(i % 8, 1, true), ==, 0);
    }
    vm_check(rig);
    vm_free(rig);
}

/* The memory is gone by now, or never was: nor is that a silent loop. */
static void test_no_memory(void)
{
    Rig *rig = new_launched(false);
    unsigned i;

    for (i = 0; i < REPEATS; i++) {
        g_assert_cmpint(vm_fault(100, 1, i & 1), ==, 0);
    }
    g_assert_cmpint(vm_fault(100, 1, false), <, 0);
    vm_free(rig);
}

/* --- accesses that say it ------------------------------------------------ */

static void test_request(void)
{
    Rig *rig = new_launched(true);

    g_assert_cmpint(vm_fault(4, 8, true), ==, 0);
    rig_expect_state(rig->blocks[0], "S4 P4");
    rig_expect_state(rig->blocks[1], "P4 S4");
    fake_expect_log("a: to-private 4+4 preserve\n"
                    "b: to-private 0+4 preserve\n");
    g_assert_cmpuint(unconverted(rig), ==, 0);
    g_assert_cmpuint(
        rig->blocks[0]->stats.counters.origins[GUEST_MEMFD_ORIGIN_MEMORY_FAULT],
        ==, 1);
    /* It is right by now, and another vCPU may have made it so. */
    g_assert_cmpint(vm_fault(4, 8, true), ==, 0);
    fake_expect_log("v: prefault 4+8\n");
    g_assert_cmpuint(unconverted(rig), ==, 1);
    g_assert_cmpuint(
        rig->blocks[0]->stats.counters.origins[GUEST_MEMFD_ORIGIN_MEMORY_FAULT],
        ==, 1);
    g_assert_cmpint(vm_fault(4, 4, false), ==, 0);
    fake_expect_log("a: to-shared 4+4 zero\na: remap 4+4\n");
    vm_check(rig);
    vm_free(rig);
}

/* A page that stays in use: the guest faults again, but not for ever. */
static void test_request_busy(void)
{
    Rig *rig = new_launched(true);
    unsigned i;

    rig->engine.retry_timeout_ms = 0;
    fake.faults[0] = (FakeFault) { .count = 1, .error = -EAGAIN };
    for (i = 0; i < REPEATS; i++) {
        fake.calls = 0;
        g_assert_cmpint(vm_fault(0, 1, true), ==, 0);
    }
    fake.calls = 0;
    g_assert_cmpint(vm_fault(0, 1, true), <, 0);
    vm_check(rig);

    /* Resumed, when the page is free. */
    fake.faults[0] = (FakeFault) { };
    g_assert_cmpint(vm_fault(0, 1, true), ==, 0);
    rig_expect_state(rig->blocks[0], "P1 S7");
    vm_check(rig);
    vm_free(rig);
}

/* A permanent error stops the VM at once. */
static void test_request_fails(void)
{
    static const int errors[] = { EINVAL, EIO, EPERM, 4095 };
    Rig *rig = new_launched(true);
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(errors); i++) {
        fake.calls = 0;
        fake.faults[0] = (FakeFault) { .count = 1, .error = -errors[i] };
        g_assert_cmpint(vm_fault(0, 1, true), <, 0);
        vm_check(rig);
    }
    g_assert_cmpint(vm_fault(100, 1, true), <, 0);
    /* MMIO is shared: KVM will emulate the access. */
    g_assert_cmpint(vm_fault(100, 1, false), ==, 0);
    vm_free(rig);
}

/* --- memory that is not ours --------------------------------------------- */

static void test_unused_manager(void)
{
    Rig *rig = new_launched(false);
    GuestMemfdProvider *provider = g_steal_pointer(&rig->engine.provider);

    g_assert_cmpint(vm_fault(0, 1, false), ==, -EINVAL);
    fake_expect_log("v: upstream\n");
    rig->engine.provider = provider;
    vm_free(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*test)(void); } tests[] = {
        { "table", test_table },
        { "errors", test_errors },
        { "record", test_record },
        { "generation", test_generation },
        { "race/in-place", test_race },
        { "race/two-backings", test_race_two_backings },
        { "race/progress", test_progress },
        { "race/no-memory", test_no_memory },
        { "request/obeyed", test_request },
        { "request/busy", test_request_busy },
        { "request/fails", test_request_fails },
        { "unused-manager", test_unused_manager },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/kvm-exits/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].test);
    }
    return g_test_run();
}
