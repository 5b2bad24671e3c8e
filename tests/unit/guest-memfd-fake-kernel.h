/*
 * A fake KVM, for the KVM providers of guest memory conversion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It keeps the contract that kernel/README.md describes: the same checks
 * in the same order, all or nothing, and bytes that are zeroed, kept or
 * overwritten as the content mode says.  On request it breaks it: chosen
 * calls fail, after some pages.
 *
 * In place a memory is one file.  Its private pages cannot be touched
 * through QEMU's mapping: a test that does dies.  With two backings it is
 * two copies, and the state of the guest's addresses chooses.
 *
 * Numbers are pages, unless a name says bytes.
 */

#ifndef TESTS_UNIT_GUEST_MEMFD_FAKE_KERNEL_H
#define TESTS_UNIT_GUEST_MEMFD_FAKE_KERNEL_H

#include "accel/kvm/kvm-guest-memfd-abi.h"
#include "system/kvm-guest-memfd.h"
#include "guest-memfd-rig.h"

#define FAKE_PAGES      8       /* of a memory */
#define FAKE_MEMORIES   2

#define FLAG_ZERO       KVM_GUEST_MEMFD_FLAG_ZERO
#define FLAG_PRESERVE   KVM_GUEST_MEMFD_FLAG_PRESERVE

/* The byte that the kernel writes over bytes that it need not preserve. */
#define FAKE_SCRAMBLED  0xd5d5d5d5d5d5d5d5ULL

typedef struct FakeMemory {
    int fd;                         /* -1: two backings */
    uint8_t *shared_copy;
    uint8_t *private_copy;          /* in place: the same */
    uint8_t *host;                  /* QEMU's mapping, in place */
    unsigned long private[1];
    unsigned long touched[1];       /* their state was ever changed */
    RAMBlock rb;                    /* of two backings */
    hwaddr gpa_bytes;
} FakeMemory;

/*
 * The calls from @after on fail, @count times.  @progress pages have
 * changed by then, and @at more is the page that is to blame.
 */
typedef struct FakeFault {
    unsigned after, count;
    int error;
    unsigned progress;
    unsigned at;
} FakeFault;

/*
 * Violations of the ioctl's contract.  With LIE_ACCESSIBLE
 * private memory can be read; LIE_FORGETS loses bytes that were to be
 * preserved, and LIE_NOT_CLEARED keeps those that were to be zero.
 */
typedef enum FakeLie {
    LIE_NONE,
    LIE_ACCESSIBLE,
    LIE_STAYS_PRIVATE,
    LIE_FORGETS,
    LIE_NOT_CLEARED,
    LIE_TAKES_BOTH_MODES,
    LIE_TAKES_ANY_FLAG,
    LIE_TAKES_UNKNOWN_FLAG,
    LIE__MAX,
} FakeLie;

typedef struct FakeKernel {
    /* Claims: numbers of capabilities, 0 for none. */
    bool no_guest_memfd;
    unsigned in_place_cap;
    int in_place_value;             /* that of the capability */
    unsigned modes_cap;
    /* Abilities. */
    uint64_t file_flags;            /* that can be created */
    uint64_t memory_flags;          /* of the last memory that was */
    bool in_place;
    bool content_modes;
    FakeLie lie;
    bool one_way;                   /* pages cannot become private */
    bool no_private_memory;         /* for this kind of VM */
    uint64_t modes[GUEST_MEMFD_DIRECTION__MAX];
    /* Failures: negative errno values. */
    int create_error;
    bool cannot_map;
    int scratch_error;              /* of the ioctl, while probing */
    unsigned step;                  /* pages of a call; 0: all of them */
    const uint64_t *error_offset;   /* in bytes, whatever went wrong */
    unsigned scratch_busy;          /* this many times EAGAIN before that */
    bool cannot_guard;
    bool really_discards;           /* of a shared copy, no page is left */
    bool small_pages;               /* are what the memory's backend wants */
    int discard_error;              /* of the next fallocate() */
    FakeFault faults[2];

    unsigned calls;                 /* that can fail */
    void (*on_fault)(GuestMemfdDirection direction, int error);
    /* Of two backings: these are what KVM holds now, or it failed. */
    void (*on_attributes)(hwaddr gpa, uint64_t size, bool private);

    /* The last probing's file, and the flags that it was shown to take. */
    int scratch;
    bool scratch_private;
    uint8_t *scratch_bytes;         /* while they cannot be accessed */
    uint64_t confirmed[GUEST_MEMFD_DIRECTION__MAX];

    FakeMemory memories[FAKE_MEMORIES];
    unsigned n_memories;
    unsigned old_memories;          /* of a VM that is exchanged */
    GString *log;                   /* NULL: no reader */
} FakeKernel;

extern FakeKernel fake;

/* One that converts in place, and takes these flags. */
void fake_in_place(uint64_t to_shared, uint64_t to_private);
/* Then: one as Linux 7.3, which does not. */
void fake_two_backings(void);
/* A new memory with two backings, all shared. */
FakeMemory *fake_add_two_backings(void);
/* A new VM: files that are created replace those of the last memory first. */
void fake_new_vm(void);
/* Nothing is left of it. */
void fake_end(void);

/* For the parts of the fake. */
FakeMemory *fake_add_memory(void);
/* This call's failure, or NULL. */
const FakeFault *fake_take_fault(GuestMemfdDirection direction);
/* Change the state of a page, and its bytes as @flags say. */
void fake_change(FakeMemory *m, unsigned page, bool private, uint64_t flags);
void fake_note(const FakeMemory *m, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/* The lines since the last time. */
void fake_expect_log(const char *lines);

/* --- looking at it ------------------------------------------------------ */

bool fake_is_private(const FakeMemory *m, unsigned page);
/* The state in the kernel, and so for the guest. */
uint64_t *fake_words(FakeMemory *m, unsigned page);
/* Does the page take up memory? */
bool fake_is_present(const FakeMemory *m, unsigned page);

#endif /* TESTS_UNIT_GUEST_MEMFD_FAKE_KERNEL_H */
