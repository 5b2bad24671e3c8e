/*
 * How a guest converts its memory and says what it wants of the bytes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For firmware and kernels: needs no library.
 */

#include <stdbool.h>
#include <stdint.h>

#define KVM_HC_MAP_GPA_RANGE    12
#define MAP_GPA_PRIVATE         (1ULL << 4)
#define HINT_ZERO               (1ULL << 8)
#define HINT_PRESERVE           (1ULL << 9)

#define AGAIN                   11      /* EAGAIN: a page is still in use */

/* The fw_cfg file etc/guest-memfd/content-modes, little endian. */
struct content_modes {
    uint32_t version;
    uint32_t hints[2];                  /* to shared, to private */
    uint32_t reserved;
};

/* Which of the wanted hints may be set; 0 without the file. */
uint64_t offered_hints(const struct content_modes *modes, bool to_private,
                       uint64_t wanted)
{
    return modes && modes->version == 1 ?
           modes->hints[to_private] & wanted : 0;
}

/* AMD's instruction; Intel's is vmcall, with the same registers. */
static int64_t map_gpa_range(uint64_t gpa, uint64_t pages,
                             uint64_t attributes)
{
    int64_t ret;

    asm volatile("vmmcall" : "=a" (ret)
                 : "a" (KVM_HC_MAP_GPA_RANGE), "b" (gpa), "c" (pages),
                   "d" (attributes) : "memory");
    /* QEMU's errors are positive; what KVM refuses by itself is negative. */
    return ret < 0 ? -ret : ret;
}

/* Nothing is changed unless 0 is returned. */
int64_t convert(uint64_t gpa, uint64_t pages, bool to_private,
                uint64_t hints)
{
    uint64_t attributes = hints | (to_private ? MAP_GPA_PRIVATE : 0);
    int64_t ret;

    do {
        ret = map_gpa_range(gpa, pages, attributes);
    } while (ret == AGAIN);
    return ret;
}

/*
 * Hand a message over where it lies: the host sees the bytes, and the
 * guest gets the answer in the same page.  Without the hint the page must
 * be shared first and filled afterwards.
 */
bool share_message(const struct content_modes *modes, uint64_t gpa,
                   uint64_t pages)
{
    return offered_hints(modes, false, HINT_PRESERVE) &&
           convert(gpa, pages, false, HINT_PRESERVE) == 0;
}
