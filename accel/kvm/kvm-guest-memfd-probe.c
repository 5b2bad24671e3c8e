/*
 * The offer of a KVM for converting guest memory in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The number of the capability differs between kernels, and other
 * capabilities have taken the numbers that were proposed.  So a page of a
 * scratch guest_memfd is converted both ways, and what it holds and whether
 * it can be accessed is the proof.  The type of the VM plays no part: KVM
 * answers for this very VM.
 */

#include "qemu/osdep.h"
#include "kvm-guest-memfd-probe.h"

#define ZERO        KVM_GUEST_MEMFD_FLAG_ZERO
#define PRESERVE    KVM_GUEST_MEMFD_FLAG_PRESERVE
#define UNKNOWN     (1ULL << 63)
#define TO_SHARED   GUEST_MEMFD_DIRECTION_TO_SHARED
#define TO_PRIVATE  GUEST_MEMFD_DIRECTION_TO_PRIVATE

typedef struct Scratch {
    KvmGuestMemfdKernel *kernel;
    int fd;
    uint8_t *bytes;                 /* of one page */
    bool unknown;                   /* a call failed for want of resources */
} Scratch;

/* These errors are the host's of this moment, and say nothing of KVM. */
static int note(Scratch *s, int ret)
{
    s->unknown |= ret == -EMFILE || ret == -ENFILE || ret == -ENOMEM;
    return ret;
}

/* --- what the kernel claims -------------------------------------------- */

static bool claims_in_place(KvmGuestMemfdKernel *kernel)
{
    static const unsigned caps[] = KVM_GUEST_MEMFD_ATTRIBUTES_CAPS;
    int i;

    for (i = 0; i < ARRAY_SIZE(caps); i++) {
        if (kernel->check_extension(kernel, caps[i]) ==
            KVM_MEMORY_ATTRIBUTE_PRIVATE) {
            return true;
        }
    }
    return false;
}

/* Other capabilities may have taken a number: only known bits count. */
static bool claims_modes(KvmGuestMemfdKernel *kernel)
{
    static const unsigned caps[] = KVM_GUEST_MEMFD_FLAGS_CAPS;
    int i;

    for (i = 0; i < ARRAY_SIZE(caps); i++) {
        int flags = kernel->check_extension(kernel, caps[i]);

        if (flags > 0 && !(flags & ~(ZERO | PRESERVE))) {
            return true;
        }
    }
    return false;
}

/* A kernel that takes the flag may still have no huge page to give. */
static bool claims_huge_pages(KvmGuestMemfdKernel *kernel)
{
    int flags = kernel->check_extension(kernel, KVM_CAP_GUEST_MEMFD_FLAGS);

    return flags > 0 && flags & KVM_GUEST_MEMFD_ALLOW_HUGEPAGE;
}

/* --- the page ---------------------------------------------------------- */

static bool fill(Scratch *s, uint8_t byte)
{
    memset(s->bytes, byte, qemu_real_host_page_size());
    return !note(s, s->kernel->write(s->kernel, s->bytes));
}

static bool holds(Scratch *s, uint8_t byte)
{
    const size_t size = qemu_real_host_page_size();

    return !note(s, s->kernel->read(s->kernel, s->bytes)) &&
           s->bytes[0] == byte &&
           !memcmp(s->bytes, s->bytes + 1, size - 1);
}

static int set_page(Scratch *s, GuestMemfdDirection direction, uint64_t flags)
{
    struct kvm_guest_memfd_attributes attributes = {
        .size = qemu_real_host_page_size(),
        .attributes = direction == TO_PRIVATE ?
                      KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
        .flags = flags,
    };

    return note(s, s->kernel->set_attributes(s->kernel, s->fd, &attributes));
}

/* QEMU can access a page if it is shared, and only then. */
static bool looks_like(Scratch *s, GuestMemfdDirection direction)
{
    return note(s, s->kernel->read(s->kernel, s->bytes)) ==
           (direction == TO_PRIVATE ? -EFAULT : 0);
}

static int convert(Scratch *s, GuestMemfdDirection direction, uint64_t flags)
{
    return set_page(s, direction, flags) ?:
           looks_like(s, direction) ? 0 : -EIO;
}

/* --- content modes ----------------------------------------------------- */

/*
 * Convert the page with @flag, or without where the kernel says that it
 * cannot in this direction.  Any other error is a contradiction: false.
 */
static bool try_mode(Scratch *s, GuestMemfdDirection direction, uint64_t flag,
                     KvmGuestMemfdProbe *probe)
{
    int ret = convert(s, direction, flag);

    if (!ret) {
        probe->modes[direction] |= flag;
        return true;
    }
    return ret == -EOPNOTSUPP && !convert(s, direction, 0);
}

/* Bytes can be followed only where both directions preserve them. */
static bool preserve_works(Scratch *s, KvmGuestMemfdProbe *probe)
{
    if (!fill(s, 0x5a) || !try_mode(s, TO_PRIVATE, PRESERVE, probe) ||
        !try_mode(s, TO_SHARED, PRESERVE, probe)) {
        return false;
    }
    return !(probe->modes[TO_PRIVATE] & PRESERVE) ||
           !(probe->modes[TO_SHARED] & PRESERVE) || holds(s, 0x5a);
}

static bool zero_works(Scratch *s, KvmGuestMemfdProbe *probe)
{
    if (!fill(s, 0xa5) ||
        convert(s, TO_PRIVATE, probe->modes[TO_PRIVATE] & PRESERVE) ||
        !try_mode(s, TO_SHARED, ZERO, probe)) {
        return false;
    }
    return !(probe->modes[TO_SHARED] & ZERO) || holds(s, 0);
}

/* A kernel that accepts any flag ignores them. */
static bool rejects_nonsense(Scratch *s)
{
    return set_page(s, TO_SHARED, ZERO | PRESERVE) == -EINVAL &&
           set_page(s, TO_SHARED, UNKNOWN) == -EINVAL;
}

/* The page is shared, and no flag does anything to it. */
static bool knows_no_modes(Scratch *s)
{
    return set_page(s, TO_SHARED, PRESERVE) == -EINVAL &&
           set_page(s, TO_SHARED, ZERO) == -EINVAL;
}

static void probe_modes(Scratch *s, KvmGuestMemfdProbe *probe)
{
    if (knows_no_modes(s)) {
        probe->why = claims_modes(s->kernel) ?
            "KVM converts in place; the content modes that it claims do not "
            "work" :
            "KVM converts in place and promises no contents";
    } else if (rejects_nonsense(s) && preserve_works(s, probe) &&
               zero_works(s, probe)) {
        probe->why = probe->modes[TO_SHARED] | probe->modes[TO_PRIVATE] ?
            "KVM converts in place and takes content modes" :
            "KVM converts in place and promises no contents";
    } else {
        memset(probe->modes, 0, sizeof(probe->modes));
        probe->why = "KVM converts in place; its content modes do not work";
    }
}

/* --- conversion -------------------------------------------------------- */

static const char *why_no_ioctl(bool claimed, int error)
{
    if (error == -ENOTTY || error == -EINVAL) {
        return !claimed ? "KVM does not offer in-place conversion" :
               error == -EINVAL ?
               "KVM claims in-place conversion, but not for this VM" :
               "KVM claims in-place conversion, but its ioctl does not work";
    }
    return "KVM has in-place conversion, but cannot convert";
}

/* Returns NULL if the page can be converted in both directions. */
static const char *why_not_convertible(Scratch *s, bool claimed,
                                       bool *keeps_bytes)
{
    int ret;

    if (note(s, s->kernel->map(s->kernel, s->fd)) || !fill(s, 0x5a) ||
        !holds(s, 0x5a)) {
        return "KVM cannot map guest_memfd memory that starts shared";
    }
    ret = set_page(s, TO_PRIVATE, 0);
    if (ret) {
        return why_no_ioctl(claimed, ret);
    }
    if (!looks_like(s, TO_PRIVATE)) {
        return "KVM has in-place conversion, but QEMU can access private "
               "memory";
    }
    if (convert(s, TO_SHARED, 0)) {
        return "KVM has in-place conversion, but cannot convert";
    }
    *keeps_bytes = holds(s, 0x5a);
    /* Memory that is shared again is writable. */
    return fill(s, 0xa5) && holds(s, 0xa5) ? NULL :
           "KVM has in-place conversion, but cannot convert";
}

static const char *why_no_scratch(bool claimed, int error)
{
    if (error == -EINVAL) {
        return claimed ? "KVM claims in-place conversion, but has no "
                         "guest_memfd memory that starts shared" :
                         "KVM does not offer in-place conversion";
    }
    return "KVM cannot create guest_memfd memory that starts shared";
}

static KvmGuestMemfdProbe not_known_now(void)
{
    return (KvmGuestMemfdProbe) {
        .unknown = true,
        .why = "KVM cannot be asked now: too few file descriptors, or too "
               "little memory",
    };
}

KvmGuestMemfdProbe kvm_guest_memfd_probe_kernel(KvmGuestMemfdKernel *kernel)
{
    g_autofree uint8_t *bytes = g_malloc(qemu_real_host_page_size());
    Scratch s = { .kernel = kernel, .bytes = bytes };
    KvmGuestMemfdProbe probe = { };
    bool claimed;

    if (kernel->check_extension(kernel, KVM_CAP_GUEST_MEMFD) <= 0 ||
        kernel->check_extension(kernel, KVM_CAP_USER_MEMORY2) <= 0) {
        probe.why = "KVM has no guest_memfd";
        return probe;
    }
    claimed = claims_in_place(kernel);
    s.fd = kernel->create(kernel, GUEST_MEMFD_FLAG_MMAP |
                                  GUEST_MEMFD_FLAG_INIT_SHARED);
    if (note(&s, s.fd) < 0) {
        probe.why = why_no_scratch(claimed, s.fd);
        return s.unknown ? not_known_now() : probe;
    }
    probe.why = why_not_convertible(&s, claimed, &probe.keeps_bytes);
    probe.in_place = !probe.why;
    if (probe.in_place) {
        probe_modes(&s, &probe);
        probe.huge_pages = claims_huge_pages(kernel);
    }
    kernel->close(kernel, s.fd);
    return s.unknown ? not_known_now() : probe;
}
