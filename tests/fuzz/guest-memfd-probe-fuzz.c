/*
 * Fuzzing the probe of KVM with a kernel that says anything
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The kernel may contradict itself from one call to the next.  Whatever it
 * says, the probe may only report what was claimed and confirmed, and may
 * only send what was claimed.
 */

#include "qemu/osdep.h"
#include "../../accel/kvm/kvm-guest-memfd-probe.h"
#include "guest-memfd-fuzz.h"

#define ZERO        KVM_GUEST_MEMFD_FLAG_ZERO
#define PRESERVE    KVM_GUEST_MEMFD_FLAG_PRESERVE
#define TO_SHARED   GUEST_MEMFD_DIRECTION_TO_SHARED
#define TO_PRIVATE  GUEST_MEMFD_DIRECTION_TO_PRIVATE
#define SCRATCH_FD  42

typedef struct HostileKernel {
    KvmGuestMemfdKernel kernel;
    Input in;

    bool has_guest_memfd, has_flags, claims_in_place;
    uint64_t claimed;               /* all content modes, ever */
    int created, closed;
    bool plain[GUEST_MEMFD_DIRECTION__MAX];     /* flags 0 worked */
    bool plain_failed;
    uint64_t taken[GUEST_MEMFD_DIRECTION__MAX];
    bool took_both, broke_word;
} HostileKernel;

/* Values that mean something come up often. */
static int answer(Input *in)
{
    static const int likely[] = {
        0, 1, 2, 3, 8, KVM_MEMORY_ATTRIBUTE_PRIVATE, -EINVAL, -EOPNOTSUPP,
        -ENOTTY, -EAGAIN, -EFAULT, INT_MAX, INT_MIN, 4, 0xff,
    };
    const uint8_t which = take(in, 1);

    return which < ARRAY_SIZE(likely) ? likely[which] : (int)take(in, 4);
}

static bool is_one_of(unsigned cap, const unsigned *caps, unsigned n)
{
    while (n--) {
        if (caps[n] == cap) {
            return true;
        }
    }
    return false;
}

static int check_extension(KvmGuestMemfdKernel *kernel, unsigned cap)
{
    static const unsigned attributes[] = KVM_GUEST_MEMFD_ATTRIBUTES_CAPS;
    static const unsigned flags[] = KVM_GUEST_MEMFD_FLAGS_CAPS;
    HostileKernel *k = container_of(kernel, HostileKernel, kernel);
    const uint64_t both = GUEST_MEMFD_FLAG_MMAP |
                          GUEST_MEMFD_FLAG_INIT_SHARED;
    const int ret = answer(&k->in);

    if (cap == KVM_CAP_GUEST_MEMFD) {
        k->has_guest_memfd = ret > 0;
    } else if (cap == KVM_CAP_GUEST_MEMFD_FLAGS) {
        k->has_flags = ret >= 0 && (ret & both) == both;
    }
    if (is_one_of(cap, attributes, ARRAY_SIZE(attributes))) {
        k->claims_in_place |= ret == KVM_MEMORY_ATTRIBUTE_PRIVATE;
    }
    if (is_one_of(cap, flags, ARRAY_SIZE(flags)) && ret > 0 &&
        !(ret & ~(ZERO | PRESERVE))) {
        k->claimed |= ret;
    }
    return ret;
}

static int create(KvmGuestMemfdKernel *kernel, uint64_t flags)
{
    HostileKernel *k = container_of(kernel, HostileKernel, kernel);

    g_assert(k->has_guest_memfd && k->has_flags && k->claims_in_place);
    g_assert_cmphex(flags, ==, GUEST_MEMFD_FLAG_MMAP |
                               GUEST_MEMFD_FLAG_INIT_SHARED);
    g_assert_cmpint(k->created, ==, 0);
    if (take(&k->in, 1) % 8 == 7) {
        figures.faults++;
        return -1 - (int)take(&k->in, 1);
    }
    k->created++;
    return SCRATCH_FD;
}

static int set_attributes(KvmGuestMemfdKernel *kernel, int fd,
                          struct kvm_guest_memfd_attributes *a)
{
    static const uint64_t reserved[ARRAY_SIZE(a->reserved)];
    HostileKernel *k = container_of(kernel, HostileKernel, kernel);
    const GuestMemfdDirection direction =
        a->attributes == KVM_MEMORY_ATTRIBUTE_PRIVATE ? TO_PRIVATE : TO_SHARED;
    int ret;

    g_assert_cmpint(fd, ==, SCRATCH_FD);
    g_assert(k->created && !k->closed);
    g_assert_cmphex(a->offset, ==, 0);
    g_assert_cmphex(a->size, ==, qemu_real_host_page_size());
    g_assert_cmphex(a->attributes & ~KVM_MEMORY_ATTRIBUTE_PRIVATE, ==, 0);
    g_assert_cmphex(a->flags & ~k->claimed, ==, 0);
    g_assert(memcmp(a->reserved, reserved, sizeof(reserved)) == 0);
    /* Modes are tried only when plain conversion is known to work. */
    g_assert(!a->flags || (k->plain[TO_SHARED] && k->plain[TO_PRIVATE]));

    a->error_offset = take(&k->in, 1) * 0x0101010101010101ULL;
    ret = answer(&k->in);
    if (ret) {
        figures.faults++;
    }
    if (!a->flags) {
        k->plain[direction] |= !ret;
        k->plain_failed |= ret != 0;
    } else if (a->flags == (ZERO | PRESERVE)) {
        k->took_both |= ret != -EINVAL;
    } else {
        k->taken[direction] |= ret ? 0 : a->flags;
        k->broke_word |= ret && ret != -EOPNOTSUPP;
    }
    return ret;
}

static void close_fd(KvmGuestMemfdKernel *kernel, int fd)
{
    HostileKernel *k = container_of(kernel, HostileKernel, kernel);

    g_assert_cmpint(fd, ==, SCRATCH_FD);
    k->closed++;
}

static void check(const HostileKernel *k, const KvmGuestMemfdProbe *probe)
{
    const bool distrust = k->took_both || k->broke_word;
    const bool works = k->plain[TO_SHARED] && k->plain[TO_PRIVATE] &&
                       !k->plain_failed;
    int d;

    g_assert_nonnull(probe->why);
    g_assert_cmpint(k->created, ==, k->closed);
    g_assert_cmpint(probe->in_place, ==, works);
    for (d = 0; d < GUEST_MEMFD_DIRECTION__MAX; d++) {
        g_assert_cmphex(probe->modes[d] & ~k->claimed, ==, 0);
        g_assert_cmphex(probe->modes[d], ==,
                        works && !distrust ? k->taken[d] : 0);
    }
    /* Zeros for private memory are nobody's to promise. */
    g_assert_cmphex(probe->modes[TO_PRIVATE] & ZERO, ==, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    HostileKernel k = {
        .kernel = {
            .check_extension = check_extension,
            .create = create,
            .set_attributes = set_attributes,
            .close = close_fd,
        },
        .in = { data, size },
    };
    KvmGuestMemfdProbe probe = kvm_guest_memfd_probe_kernel(&k.kernel);

    figures.requests++;
    figures.refused += !probe.in_place;
    check(&k, &probe);
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return atexit(print_figures);
}
