/*
 * The probe of each possible KVM, on a fake KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "guest-memfd-fake-vm.h"

#define KERNEL      GUEST_MEMFD_REALISATION_KERNEL
#define REFUSED     GUEST_MEMFD_REALISATION_REFUSED
#define BOTH        (FLAG_ZERO | FLAG_PRESERVE)

static struct {
    unsigned kernels, in_place, modes;
} counts;

static bool can_convert(void)
{
    return fake.file_flags & GUEST_MEMFD_FLAG_INIT_SHARED && !fake.cannot_map &&
           fake.in_place && !fake.one_way && !fake.no_private_memory &&
           fake.lie != LIE_ACCESSIBLE && fake.lie != LIE_STAYS_PRIVATE;
}

/* A lie counts where the flag that it is about is taken. */
static bool tells_the_truth(void)
{
    switch (fake.lie) {
    case LIE_FORGETS:
        return !(fake.modes[TO_SHARED] & fake.modes[TO_PRIVATE] &
                 FLAG_PRESERVE);
    case LIE_NOT_CLEARED:
        return !(fake.modes[TO_SHARED] & FLAG_ZERO);
    default:
        return fake.lie == LIE_NONE;
    }
}

static uint64_t expected_modes(GuestMemfdDirection direction)
{
    if (!fake.content_modes || !tells_the_truth()) {
        return 0;
    }
    return fake.modes[direction];
}

static void expect_modes(const Rig *rig, GuestMemfdDirection direction)
{
    const GuestMemfdOffer *offer = &rig->engine.provider->offer;
    const uint64_t modes = expected_modes(direction);

    g_assert_cmpint(offer->how[direction][GUEST_MEMFD_CONTENT_MODE_ZERO], ==,
                    modes & FLAG_ZERO ? KERNEL : REFUSED);
    g_assert_cmpint(offer->how[direction][GUEST_MEMFD_CONTENT_MODE_PRESERVE],
                    ==, modes & FLAG_PRESERVE ? KERNEL : REFUSED);
    counts.modes += modes != 0;
}

static void probe_this_kernel(void)
{
    const bool in_place = can_convert();
    Rig *rig;

    counts.kernels++;
    g_assert_cmpint(vm_init(true), ==, in_place);
    g_assert_cmpint(fcntl(fake.scratch, F_GETFD), ==, -1);
    if (!in_place || fake.cannot_map) {
        return;
    }
    counts.in_place++;
    rig = vm_new(ON_OFF_AUTO_AUTO);
    expect_modes(rig, TO_SHARED);
    expect_modes(rig, TO_PRIVATE);
    /* A kernel that knows content modes overwrites bytes without one. */
    g_assert_cmpint(rig->engine.provider->offer.preserve_until_final, ==,
                    !fake.content_modes);
    rig_free(rig);
}

/* One bit of @bits for each thing that a kernel can lack. */
static void break_by(unsigned bits)
{
    fake.content_modes = !(bits & 1);
    fake.in_place_cap = bits & 2 ? 0 : fake.in_place_cap;
    fake.file_flags = bits & 4 ? GUEST_MEMFD_FLAG_MMAP : fake.file_flags;
    fake.cannot_map = bits & 8;
    fake.in_place = !(bits & 16);
    fake.one_way = bits & 32;
    fake.no_private_memory = bits & 64;
}

/*
 * Each kernel that lacks some of what is needed, takes some content modes
 * and makes one false claim at most.
 */
static void test_all_kernels(void)
{
    unsigned bits, modes, lie;

    for (bits = 0; bits < 1 << 7; bits++) {
        for (modes = 0; modes < 8; modes++) {
            for (lie = 0; lie < LIE__MAX; lie++) {
                fake_in_place(modes & BOTH, modes & 4 ? FLAG_PRESERVE : 0);
                break_by(bits);
                fake.lie = lie;
                probe_this_kernel();
                fake_end();
            }
        }
    }
    g_test_message("%u kernels, %u in place, %u directions with modes",
                   counts.kernels, counts.in_place, counts.modes);
    g_assert_cmpuint(counts.in_place, >, 0);
    g_assert_cmpuint(counts.modes, >, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guest-memfd/kvm-kernels/all", test_all_kernels);
    return g_test_run();
}
