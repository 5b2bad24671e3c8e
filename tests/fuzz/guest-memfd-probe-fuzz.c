/*
 * Fuzzing the probe of KVM with a kernel that says anything
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The first byte says what the kernel can do, and each call takes one more:
 * 0 is what that kernel does, anything else is a lie.  It may contradict
 * itself from one call to the next.  The probe may report only results that
 * the kernel returned, and may send only flags that it uses.
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "../../accel/kvm/kvm-guest-memfd-probe.h"
#include "guest-memfd-fuzz.h"

#define ZERO        KVM_GUEST_MEMFD_FLAG_ZERO
#define PRESERVE    KVM_GUEST_MEMFD_FLAG_PRESERVE
#define TO_SHARED   GUEST_MEMFD_DIRECTION_TO_SHARED
#define TO_PRIVATE  GUEST_MEMFD_DIRECTION_TO_PRIVATE
#define SCRATCH_FD  42

/* Bits of the first byte. */
enum {
    HAS_NO_GUEST_MEMFD = 1 << 0,
    HAS_NO_CONVERSION = 1 << 1,
    ZERO_TO_SHARED = 1 << 2,
    PRESERVE_TO_SHARED = 1 << 3,
    PRESERVE_TO_PRIVATE = 1 << 4,
    HAS_MODES = 1 << 5,
};

typedef struct HostileKernel {
    KvmGuestMemfdKernel kernel;
    Input in;
    uint8_t can;

    int created, mapped, closed;
    bool private;
    uint8_t byte;                   /* all of the page */

    /* The last result of each kind of call. */
    uint64_t last_flags;
    GuestMemfdDirection last_direction;
    bool last_worked;
    bool plain[GUEST_MEMFD_DIRECTION__MAX];     /* worked, flags 0 */
    bool reads_back;                /* what was written was read */
    bool read_zero;                 /* after zero to shared */
    uint8_t written;
    uint64_t taken[GUEST_MEMFD_DIRECTION__MAX];
    bool took_nonsense;
} HostileKernel;

/* 0 if the kernel is honest; else what it says instead. */
static bool lies(HostileKernel *k, int *ret)
{
    static const int likely[] = {
        0, 0, 1, 3, KVM_MEMORY_ATTRIBUTE_PRIVATE, -EINVAL, -EOPNOTSUPP,
        -ENOTTY, -EAGAIN, -EFAULT, -EPERM, INT_MAX, INT_MIN,
    };
    const uint8_t which = take(&k->in, 1);

    if (which) {
        figures.faults++;
        *ret = which < ARRAY_SIZE(likely) ? likely[which] :
               -(int)take(&k->in, 4);
    }
    return which;
}

static int check_extension(KvmGuestMemfdKernel *kernel, unsigned cap)
{
    HostileKernel *k = container_of(kernel, HostileKernel, kernel);
    int ret = !(k->can & HAS_NO_GUEST_MEMFD);

    lies(k, &ret);
    return ret;
}

static int create(KvmGuestMemfdKernel *kernel, uint64_t flags)
{
    HostileKernel *k = container_of(kernel, HostileKernel, kernel);
    int ret = 0;

    g_assert_cmphex(flags, ==, GUEST_MEMFD_FLAG_MMAP |
                               GUEST_MEMFD_FLAG_INIT_SHARED);
    g_assert_cmpint(k->created, ==, 0);
    if (lies(k, &ret) && ret < 0) {
        return ret;
    }
    k->created++;
    return SCRATCH_FD;
}

static int map(KvmGuestMemfdKernel *kernel, int fd)
{
    HostileKernel *k = container_of(kernel, HostileKernel, kernel);
    int ret = 0;

    g_assert_cmpint(fd, ==, SCRATCH_FD);
    g_assert(k->created && !k->mapped && !k->closed);
    lies(k, &ret);
    k->mapped = !ret;
    return ret;
}

static int do_convert(HostileKernel *k, GuestMemfdDirection direction,
                      uint64_t flags)
{
    uint64_t can = direction == TO_PRIVATE ?
        (k->can & PRESERVE_TO_PRIVATE ? PRESERVE : 0) :
        (k->can & PRESERVE_TO_SHARED ? PRESERVE : 0) |
        (k->can & ZERO_TO_SHARED ? ZERO : 0);

    if (k->can & HAS_NO_CONVERSION) {
        return -ENOTTY;
    }
    if (flags && (!(k->can & HAS_MODES) ||
                  (flags != ZERO && flags != PRESERVE))) {
        return -EINVAL;
    }
    if (flags & ~can) {
        return -EOPNOTSUPP;
    }
    if (k->private != (direction == TO_PRIVATE)) {
        k->private = direction == TO_PRIVATE;
        k->byte = flags == ZERO ? 0 : flags == PRESERVE ? k->byte : 0xd5;
    }
    return 0;
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
    g_assert(k->mapped && !k->closed);
    g_assert_cmphex(a->offset, ==, 0);
    g_assert_cmphex(a->size, ==, qemu_real_host_page_size());
    g_assert_cmphex(a->attributes & ~KVM_MEMORY_ATTRIBUTE_PRIVATE, ==, 0);
    g_assert_cmphex(a->error_offset, ==, 0);
    g_assert(memcmp(a->reserved, reserved, sizeof(reserved)) == 0);
    /* Modes are tried only when plain conversion is known to work. */
    g_assert(!a->flags || (k->plain[TO_SHARED] && k->plain[TO_PRIVATE]));

    a->error_offset = take(&k->in, 1) * 0x0101010101010101ULL;
    ret = do_convert(k, direction, a->flags);
    lies(k, &ret);
    k->last_flags = a->flags;
    k->last_direction = direction;
    k->last_worked = !ret;
    if (a->flags == ZERO || a->flags == PRESERVE) {
        k->taken[direction] |= ret ? 0 : a->flags;
    } else if (a->flags) {
        k->took_nonsense |= ret != -EINVAL;
    }
    return ret;
}

static int read_page(KvmGuestMemfdKernel *kernel, void *page)
{
    HostileKernel *k = container_of(kernel, HostileKernel, kernel);
    const GuestMemfdDirection direction = k->last_direction;
    const size_t size = qemu_real_host_page_size();
    uint8_t byte = k->byte, last = byte, *tail = (uint8_t *)page + size;
    int ret = k->private ? -EFAULT : 0;

    g_assert(k->mapped && !k->closed);
    if (lies(k, &ret)) {
        byte = take(&k->in, 1);
        last = byte ^ take(&k->in, 1);
    }
    if (!ret) {
        memset(page, byte, size);
        tail[-1] = last;
        k->reads_back |= byte == k->written && tail[-1] == byte;
        k->read_zero |= k->last_flags == ZERO && k->last_worked &&
                        buffer_is_zero(page, size);
    }
    k->plain[direction] |= k->last_worked && !k->last_flags &&
                           ret == (direction == TO_PRIVATE ? -EFAULT : 0);
    return ret;
}

static int write_page(KvmGuestMemfdKernel *kernel, const void *page)
{
    HostileKernel *k = container_of(kernel, HostileKernel, kernel);
    int ret = k->private ? -EFAULT : 0;

    g_assert(k->mapped && !k->closed);
    k->written = *(const uint8_t *)page;
    if (!k->private) {
        k->byte = k->written;
    }
    lies(k, &ret);
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
    uint64_t modes = probe->modes[TO_SHARED] | probe->modes[TO_PRIVATE];
    int d;

    g_assert_nonnull(probe->why);
    g_assert_cmpint(k->created, ==, k->closed);
    g_assert(!probe->in_place ||
             (k->plain[TO_SHARED] && k->plain[TO_PRIVATE] && k->reads_back));
    g_assert(!modes || (probe->in_place && !k->took_nonsense));
    for (d = 0; d < GUEST_MEMFD_DIRECTION__MAX; d++) {
        g_assert_cmphex(probe->modes[d] & ~k->taken[d], ==, 0);
    }
    g_assert(!(probe->modes[TO_SHARED] & ZERO) || k->read_zero);
    /* Zeros for private memory cannot be promised. */
    g_assert_cmphex(probe->modes[TO_PRIVATE] & ZERO, ==, 0);
}

/* An honest kernel gets what it can do. */
static void check_honest(const HostileKernel *k,
                         const KvmGuestMemfdProbe *probe)
{
    const uint8_t can = k->can & HAS_MODES ? k->can : 0;

    g_assert_cmpint(probe->in_place, ==,
                    !(k->can & (HAS_NO_GUEST_MEMFD | HAS_NO_CONVERSION)));
    if (probe->in_place) {
        g_assert_cmphex(probe->modes[TO_SHARED], ==,
                        (can & ZERO_TO_SHARED ? ZERO : 0) |
                        (can & PRESERVE_TO_SHARED ? PRESERVE : 0));
        g_assert_cmphex(probe->modes[TO_PRIVATE], ==,
                        can & PRESERVE_TO_PRIVATE ? PRESERVE : 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint64_t lies_before = figures.faults;
    HostileKernel k = {
        .kernel = {
            .check_extension = check_extension,
            .create = create,
            .map = map,
            .set_attributes = set_attributes,
            .read = read_page,
            .write = write_page,
            .close = close_fd,
        },
        .in = { data, size },
    };
    KvmGuestMemfdProbe probe;

    k.can = take(&k.in, 1);
    probe = kvm_guest_memfd_probe_kernel(&k.kernel);
    figures.requests++;
    figures.refused += !probe.in_place;
    check(&k, &probe);
    if (figures.faults == lies_before) {
        check_honest(&k, &probe);
    }
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return atexit(print_figures);
}
