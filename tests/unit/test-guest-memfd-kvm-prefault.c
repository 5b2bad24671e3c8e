/*
 * Memory that KVM is asked to map after a conversion, on a fake KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/syscall.h>
#include "hw/core/cpu.h"
#include "qemu/memfd.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "system/guest-memfd-launch.h"
#include "system/kvm.h"
#include "guest-memfd-fake-vm.h"

#define PRIVATE     GUEST_MEMFD_ATTR_PRIVATE
#define KEPT        GUEST_MEMFD_ATTR_PRESERVE
#define BOTH        (FLAG_ZERO | FLAG_PRESERVE)

/* The C library's is hidden by this. */
static uid_t user;

uid_t geteuid(void)
{
    return user;
}

static Rig *start(Rig *rig)
{
    kvm_pre_fault_memory_supported = true;
    vcpu_prefaults_at_most = 0;
    vcpu_prefault_error = 0;
    guest_memfd_engine_set_phase(&rig->engine, GUEST_MEMFD_PHASE_RUNNING);
    return rig;
}

/* --- what is mapped ------------------------------------------------------ */

static void test_both_ways(void)
{
    Rig *rig = start(vm_new_in_place(BOTH, FLAG_PRESERVE));

    g_assert_cmpuint(vm_ask(2, 3, PRIVATE), ==, 0);
    fake_expect_log("a: to-private 2+3 default\nv: prefault 2+3\n");
    g_assert_cmpuint(vm_ask(2, 3, KEPT), ==, 0);
    fake_expect_log("a: to-shared 2+3 preserve\na: remap 2+3\n"
                    "v: prefault 2+3\n");
    vm_check(rig);
    vm_free(rig);
}

/* Two conversions, and one ioctl when both are done. */
static void test_one_ioctl(void)
{
    Rig *rig = start(vm_new_in_place(BOTH, FLAG_PRESERVE));

    g_assert_cmpuint(vm_ask(6, 4, PRIVATE), ==, 0);
    fake_expect_log("a: to-private 6+2 preserve\n"
                    "b: to-private 0+2 preserve\nv: prefault 6+4\n");
    vm_free(rig);
}

static void test_two_backings(void)
{
    Rig *rig = start(vm_new_two_backings());

    g_assert_cmpuint(vm_ask(2, 3, PRIVATE), ==, 0);
    fake_expect_log("v: to-private 2+3\na: discard shared 2+3\n"
                    "v: prefault 2+3\n");
    vm_free(rig);
}

/* KVM returns before it is done when the vCPU is wanted. */
static void test_wanted(void)
{
    Rig *rig = start(vm_new_in_place(BOTH, FLAG_PRESERVE));

    vcpu_prefaults_at_most = 2;
    g_assert_cmpuint(vm_ask(0, 5, PRIVATE), ==, 0);
    fake_expect_log("a: to-private 0+5 default\nv: prefault 0+5\n");
    vm_free(rig);
}

/* --- what is not --------------------------------------------------------- */

/* The request has succeeded all the same; nothing is tried again. */
static void test_fails(void)
{
    static const int errors[] = { EINTR, EAGAIN, EFAULT, ENOENT };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(errors); i++) {
        Rig *rig = start(vm_new_in_place(BOTH, FLAG_PRESERVE));

        vcpu_prefault_error = -errors[i];
        g_assert_cmpuint(vm_ask(0, 2, PRIVATE), ==, 0);
        fake_expect_log("a: to-private 0+2 default\nv: prefault 0+2\n");
        vm_check(rig);
        vm_free(rig);
    }
}

static void test_refused(void)
{
    Rig *rig = start(vm_new_in_place(0, 0));

    g_assert_cmpuint(vm_ask(0, 2, PRIVATE | KEPT), ==, EINVAL);
    g_assert_cmpuint(vm_ask(0, 2, PRIVATE | 1 << 20), ==, EINVAL);
    g_assert_cmpuint(vm_ask(1000, 2, PRIVATE), ==, EINVAL);
    fake_expect_log("");
    vm_free(rig);
}

static void test_not_offered(void)
{
    Rig *rig = start(vm_new_in_place(BOTH, FLAG_PRESERVE));

    kvm_pre_fault_memory_supported = false;
    g_assert_cmpuint(vm_ask(2, 3, PRIVATE), ==, 0);
    fake_expect_log("a: to-private 2+3 default\n");
    vm_free(rig);
}

/* Nobody waits for the memory: a device asks, or QEMU itself. */
static void test_others(void)
{
    static const GuestMemfdOrigin origins[] = {
        GUEST_MEMFD_ORIGIN_DEVICE, GUEST_MEMFD_ORIGIN_LAUNCH,
        GUEST_MEMFD_ORIGIN_RESET, GUEST_MEMFD_ORIGIN_MEMORY_FAULT,
    };
    const size_t page = qemu_real_host_page_size();
    Rig *rig = start(vm_new_in_place(BOTH, FLAG_PRESERVE));
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(origins); i++) {
        const GuestMemfdRequest req = {
            .gpa = i * page,
            .size = page,
            .direction = TO_PRIVATE,
            .origin = origins[i],
        };

        g_assert_cmpint(guest_memfd_convert(&req, NULL), ==, 0);
    }
    g_assert_null(strstr(fake.log->str, "prefault"));
    g_assert_cmpint(guest_memfd_engine_share_block(&rig->engine,
                                                   rig->blocks[0]), ==, 0);
    g_assert_null(strstr(fake.log->str, "prefault"));
    vm_check(rig);
    vm_free(rig);
}

/* --- large requests ------------------------------------------------------ */

#define GROUP   (2 * MiB)
#define LARGE   (40 * GROUP)
#define AT      (16 * GROUP)

static GuestMemfdBlock large;
static uint64_t section_max = LARGE;
static CPUState vcpu;
static unsigned looks, wanted_at;

/* The kernel's, which no test could interrupt. */
int mincore(void *host, size_t size, unsigned char *present)
{
    if (++looks == wanted_at) {
        vcpu.exit_request = true;
    }
    return syscall(SYS_mincore, host, size, present);
}

/* There is a hole in front of the block, which has several sections then. */
static bool find_large(GuestMemfdEngine *engine, hwaddr gpa, uint64_t size,
                       GuestMemfdSection *s)
{
    const hwaddr from = MAX(gpa, AT), to = MIN(gpa + size, AT + LARGE);

    *s = (GuestMemfdSection) {
        .gpa = from,
        .size = from < to ? MIN(to - from, section_max) : 0,
        .block = &large,
        .offset = from - AT,
    };
    return s->size;
}

static void expect_large(Rig *rig, hwaddr gpa, uint64_t size,
                         const char *log)
{
    GuestMemfdProvider *provider = rig->engine.provider;

    GUEST_MEMFD_PROVIDER_GET_CLASS(provider)->prefault(provider, gpa, size);
    fake_expect_log(log);
}

static Rig *start_large(void)
{
    Rig *rig = start(vm_new_in_place(BOTH, FLAG_PRESERVE));
    int fd = qemu_memfd_create("large", LARGE, false, 0, 0, &error_abort);

    large.host = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    g_assert_true(large.host != MAP_FAILED);
    close(fd);
    rig->engine.find_section = find_large;
    current_cpu = &vcpu;
    return rig;
}

static void end_large(Rig *rig)
{
    munmap(large.host, LARGE);
    current_cpu = NULL;
    vm_free(rig);
}

static void use(unsigned group, unsigned groups)
{
    memset(large.host + group * GROUP, 1, groups * GROUP);
}

/* Memory that the guest has not used is not allocated. */
static void test_large(void)
{
    Rig *rig = start_large();

    expect_large(rig, AT, LARGE, "");
    use(0, 1);
    use(2, 2);
    expect_large(rig, AT, LARGE, "v: prefault 8192+512\n"
                                 "v: prefault 9216+1024\n");
    expect_large(rig, AT - GROUP, LARGE + GROUP, "v: prefault 8192+512\n"
                                                 "v: prefault 9216+1024\n");
    expect_large(rig, AT + GROUP / 2, 2 * GROUP,
                 "v: prefault 8448+256\nv: prefault 9216+256\n");
    expect_large(rig, AT + GROUP * 3 / 2, 2 * GROUP,
                 "v: prefault 9216+768\n");
    /* Not large. */
    expect_large(rig, AT + GROUP, GROUP, "v: prefault 8704+512\n");
    end_large(rig);
}

/* An ioctl is for a slice at most, so that the vCPU can be stopped. */
static void test_slices(void)
{
    Rig *rig = start_large();

    use(3, 37);
    expect_large(rig, AT, LARGE, "v: prefault 9728+8192\n"
                                 "v: prefault 17920+8192\n"
                                 "v: prefault 26112+2560\n");
    end_large(rig);
}

static unsigned asked;

static GuestMemfdInterrupt stop_after_first(GuestMemfdEngine *engine)
{
    return asked++ ? GUEST_MEMFD_INTERRUPT_RESET : GUEST_MEMFD_INTERRUPT_NONE;
}

static void test_interrupted(void)
{
    Rig *rig = start_large();

    use(0, 40);
    vcpu_prefaults_at_most = 2;
    expect_large(rig, AT, LARGE, "v: prefault 8192+8192\n");
    vcpu_prefaults_at_most = 0;
    rig->engine.interrupted = stop_after_first;
    expect_large(rig, AT, LARGE, "v: prefault 8192+8192\n");
    end_large(rig);
}

/* No ioctl is made for memory that was never used. */
static void test_unused_wanted(void)
{
    Rig *rig = start_large();

    use(39, 1);
    looks = 0;
    wanted_at = 3;
    expect_large(rig, AT, LARGE, "");
    g_assert_cmpuint(looks, ==, 3);
    wanted_at = 0;
    vcpu.exit_request = false;
    expect_large(rig, AT, LARGE, "v: prefault 28160+512\n");
    end_large(rig);
}

/* The end of a section is not the end of an interruption. */
static void test_sections_interrupted(void)
{
    Rig *rig = start_large();

    use(0, 40);
    section_max = 4 * GROUP;
    vcpu_prefaults_at_most = 2;
    expect_large(rig, AT, LARGE, "v: prefault 8192+2048\n");
    vcpu_prefaults_at_most = 0;
    expect_large(rig, AT, 2 * section_max, "v: prefault 8192+2048\n"
                                           "v: prefault 10240+2048\n");
    section_max = LARGE;
    end_large(rig);
}

/* The kernel tells others than the file's owner that all is there. */
static void test_other_user(void)
{
    Rig *rig = start_large();

    use(0, 40);
    user = 1000;
    expect_large(rig, AT, LARGE, "");
    expect_large(rig, AT, GROUP, "v: prefault 8192+512\n");
    user = 0;
    expect_large(rig, AT, 2 * GROUP, "v: prefault 8192+1024\n");
    end_large(rig);
}

int main(int argc, char **argv)
{
    static const struct { const char *path; void (*test)(void); } tests[] = {
        { "both-ways", test_both_ways },
        { "one-ioctl", test_one_ioctl },
        { "two-backings", test_two_backings },
        { "wanted", test_wanted },
        { "fails", test_fails },
        { "refused", test_refused },
        { "not-offered", test_not_offered },
        { "others", test_others },
        { "large", test_large },
        { "large/slices", test_slices },
        { "large/interrupted", test_interrupted },
        { "large/unused-wanted", test_unused_wanted },
        { "large/sections-interrupted", test_sections_interrupted },
        { "large/other-user", test_other_user },
    };
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strconcat("/guest-memfd/kvm-prefault/",
                                            tests[i].path, NULL);

        g_test_add_func(path, tests[i].test);
    }
    return g_test_run();
}
