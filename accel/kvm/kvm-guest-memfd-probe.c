/*
 * What a KVM offers for converting guest memory in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A capability is a claim; the ioctl on a scratch guest_memfd is the
 * proof.  Where they disagree the probe takes the lower step.  The type of
 * the VM plays no part: KVM answers for this very VM.
 */

#include "qemu/osdep.h"
#include "kvm-guest-memfd-probe.h"

#define ZERO        KVM_GUEST_MEMFD_FLAG_ZERO
#define PRESERVE    KVM_GUEST_MEMFD_FLAG_PRESERVE
#define TO_SHARED   GUEST_MEMFD_DIRECTION_TO_SHARED
#define TO_PRIVATE  GUEST_MEMFD_DIRECTION_TO_PRIVATE

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
static uint64_t claimed_flags(KvmGuestMemfdKernel *kernel)
{
    static const unsigned caps[] = KVM_GUEST_MEMFD_FLAGS_CAPS;
    int i;

    for (i = 0; i < ARRAY_SIZE(caps); i++) {
        int flags = kernel->check_extension(kernel, caps[i]);

        if (flags > 0 && !(flags & ~(ZERO | PRESERVE))) {
            return flags;
        }
    }
    return 0;
}

static int set_page(KvmGuestMemfdKernel *kernel, int fd,
                    GuestMemfdDirection direction, uint64_t flags)
{
    struct kvm_guest_memfd_attributes attributes = {
        .size = qemu_real_host_page_size(),
        .attributes = direction == TO_PRIVATE ?
                      KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
        .flags = flags,
    };

    return kernel->set_attributes(kernel, fd, &attributes);
}

/*
 * Does the kernel take @flag in this direction?  EOPNOTSUPP is an honest
 * no; any other error contradicts the capability and sets @distrust.
 */
static bool takes(KvmGuestMemfdKernel *kernel, int fd,
                  GuestMemfdDirection direction, uint64_t flag,
                  bool *distrust)
{
    int ret = set_page(kernel, fd, direction, flag);

    *distrust |= ret && ret != -EOPNOTSUPP;
    return !ret;
}

static void probe_modes(KvmGuestMemfdKernel *kernel, int fd, uint64_t flags,
                        KvmGuestMemfdProbe *probe)
{
    bool distrust = false;

    if ((flags & PRESERVE) &&
        takes(kernel, fd, TO_PRIVATE, PRESERVE, &distrust)) {
        probe->modes[TO_PRIVATE] |= PRESERVE;
    }
    if ((flags & PRESERVE) &&
        takes(kernel, fd, TO_SHARED, PRESERVE, &distrust)) {
        probe->modes[TO_SHARED] |= PRESERVE;
    }
    if ((flags & ZERO) && takes(kernel, fd, TO_SHARED, ZERO, &distrust)) {
        probe->modes[TO_SHARED] |= ZERO;
    }
    /* A kernel that takes both at once does not know what they mean. */
    if (flags == (ZERO | PRESERVE) &&
        set_page(kernel, fd, TO_SHARED, flags) != -EINVAL) {
        distrust = true;
    }

    if (distrust) {
        probe->modes[TO_PRIVATE] = 0;
        probe->modes[TO_SHARED] = 0;
        probe->why = "KVM converts in place; the content modes that it "
                     "claims do not work";
    } else if (flags) {
        probe->why = "KVM converts in place and takes content modes";
    }
}

static void probe_scratch(KvmGuestMemfdKernel *kernel, int fd,
                          KvmGuestMemfdProbe *probe)
{
    int ret = set_page(kernel, fd, TO_SHARED, 0);

    if (ret) {
        probe->why = ret == -EINVAL ?
            "KVM claims in-place conversion, but not for this VM" :
            "KVM claims in-place conversion, but its ioctl does not work";
        return;
    }
    if (set_page(kernel, fd, TO_PRIVATE, 0) ||
        set_page(kernel, fd, TO_SHARED, 0)) {
        probe->why = "KVM claims in-place conversion, but cannot convert";
        return;
    }
    probe->in_place = true;
    probe->why = "KVM converts in place and promises no contents";
    probe_modes(kernel, fd, claimed_flags(kernel), probe);
}

KvmGuestMemfdProbe kvm_guest_memfd_probe_kernel(KvmGuestMemfdKernel *kernel)
{
    const uint64_t flags = GUEST_MEMFD_FLAG_MMAP |
                           GUEST_MEMFD_FLAG_INIT_SHARED;
    KvmGuestMemfdProbe probe = { };
    int fd, ret;

    if (kernel->check_extension(kernel, KVM_CAP_GUEST_MEMFD) <= 0 ||
        kernel->check_extension(kernel, KVM_CAP_USER_MEMORY2) <= 0) {
        probe.why = "KVM has no guest_memfd";
        return probe;
    }
    if (!claims_in_place(kernel)) {
        probe.why = "KVM does not offer in-place conversion";
        return probe;
    }
    ret = kernel->check_extension(kernel, KVM_CAP_GUEST_MEMFD_FLAGS);
    if (ret < 0 || (ret & flags) != flags) {
        probe.why = "KVM cannot map guest_memfd memory that starts shared";
        return probe;
    }

    fd = kernel->create(kernel, flags);
    if (fd < 0) {
        probe.why = "KVM cannot create guest_memfd memory that starts shared";
        return probe;
    }
    probe_scratch(kernel, fd, &probe);
    kernel->close(kernel, fd);
    return probe;
}
