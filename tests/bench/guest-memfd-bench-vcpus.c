/*
 * vCPUs that convert the memory of a machine without a guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "system/guest-memfd-internal.h"
#include "guest-memfd-bench-vcpus.h"

typedef struct Vcpu {
    QemuThread thread;
    Rig *rig;
    uint64_t gpa;
    uint64_t size;
    unsigned requests;
    int64_t cpu_ns;
} Vcpu;

Rig *bench_machine(const char *provider, uint64_t bytes)
{
    const uint64_t pages = bytes / qemu_real_host_page_size();
    Rig *rig = rig_new(provider);

    g_string_free(rig->log, true);
    rig->log = NULL;
    rig->threads = true;            /* no books are kept, then */
    rig_map(rig, 0, rig_block(rig, "bench", pages), 0, pages);
    return rig;
}

int64_t bench_thread_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * NANOSECONDS_PER_SECOND + t.tv_nsec;
}

int bench_compare_ns(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static void *vcpu_run(void *opaque)
{
    Vcpu *vcpu = opaque;
    unsigned i;

    vcpu->cpu_ns = bench_thread_ns();
    for (i = 0; i < vcpu->requests; i++) {
        const GuestMemfdRequest req = {
            .gpa = vcpu->gpa, .size = vcpu->size,
            .direction = i & 1 ? TO_SHARED : TO_PRIVATE,
        };
        int ret = guest_memfd_engine_convert(&vcpu->rig->engine, &req, NULL);

        g_assert_cmpint(ret, ==, 0);
    }
    vcpu->cpu_ns = bench_thread_ns() - vcpu->cpu_ns;
    return NULL;
}

double bench_vcpus_convert(Rig *rig, unsigned n, uint64_t size,
                           unsigned requests)
{
    Vcpu vcpus[BENCH_VCPUS_MAX];
    int64_t sum = 0;
    unsigned i;

    g_assert_cmpuint(n, <=, BENCH_VCPUS_MAX);
    for (i = 0; i < n; i++) {
        vcpus[i] = (Vcpu) { .rig = rig, .gpa = i * size, .size = size,
                            .requests = requests };
        qemu_thread_create(&vcpus[i].thread, "vcpu", vcpu_run, &vcpus[i],
                           QEMU_THREAD_JOINABLE);
    }
    for (i = 0; i < n; i++) {
        qemu_thread_join(&vcpus[i].thread);
        sum += vcpus[i].cpu_ns;
    }
    return (double)sum / n / requests;
}
