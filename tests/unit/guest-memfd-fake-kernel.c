/*
 * A fake KVM, for the KVM providers of guest memory conversion
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/falloc.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/memfd.h"
#include "system/kvm.h"
#include "guest-memfd-fake-kernel.h"

#define PRIVATE KVM_MEMORY_ATTRIBUTE_PRIVATE

static const unsigned in_place_caps[] = KVM_GUEST_MEMFD_ATTRIBUTES_CAPS;
static const unsigned modes_caps[] = KVM_GUEST_MEMFD_FLAGS_CAPS;

FakeKernel fake = { .scratch = -1 };

/* Only passed on, to functions of this file. */
KVMState *kvm_state;

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

void fake_in_place(uint64_t to_shared, uint64_t to_private)
{
    fake = (FakeKernel) {
        .in_place_cap = in_place_caps[0],
        .in_place_value = PRIVATE,
        .modes_cap = to_shared | to_private ? modes_caps[0] : 0,
        .file_flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
        .in_place = true,
        .content_modes = to_shared | to_private,
        .modes = { [TO_SHARED] = to_shared, [TO_PRIVATE] = to_private },
        .scratch = -1,
        .log = g_string_new(NULL),
    };
}

void fake_two_backings(void)
{
    fake.in_place_cap = fake.modes_cap = 0;
    fake.in_place = fake.content_modes = false;
    fake.file_flags = GUEST_MEMFD_FLAG_MMAP;
}

FakeMemory *fake_add_memory(void)
{
    FakeMemory *m = &fake.memories[fake.n_memories];

    g_assert_cmpuint(fake.n_memories, <, FAKE_MEMORIES);
    *m = (FakeMemory) {
        .fd = -1,
        .gpa_bytes = fake.n_memories * FAKE_PAGES * page_size(),
    };
    fake.n_memories++;
    return m;
}

void fake_end(void)
{
    const size_t size = FAKE_PAGES * page_size();

    while (fake.n_memories) {
        FakeMemory *m = &fake.memories[--fake.n_memories];

        munmap(m->shared_copy, size);
        if (m->private_copy != m->shared_copy) {
            munmap(m->private_copy, size);
        }
    }
    if (fake.log) {
        g_string_free(fake.log, true);
    }
    g_free(fake.scratch_bytes);
    fake = (FakeKernel) { .scratch = -1 };
}

/* --- writing down, and failing ----------------------------------------- */

void fake_note(const FakeMemory *m, const char *format, ...)
{
    va_list ap;

    if (!fake.log) {
        return;
    }
    va_start(ap, format);
    g_string_append_printf(fake.log, "%c: ",
                           m ? (int)('a' + (m - fake.memories)) : 'v');
    g_string_append_vprintf(fake.log, format, ap);
    g_string_append_c(fake.log, '\n');
    va_end(ap);
}

void fake_expect_log(const char *lines)
{
    g_assert_cmpstr(fake.log->str, ==, lines);
    g_string_truncate(fake.log, 0);
}

const FakeFault *fake_take_fault(GuestMemfdDirection direction)
{
    const unsigned call = fake.calls++;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(fake.faults); i++) {
        const FakeFault *f = &fake.faults[i];

        if (call >= f->after && call - f->after < f->count) {
            if (fake.on_fault) {
                fake.on_fault(direction, f->error);
            }
            return f;
        }
    }
    return NULL;
}

/* --- pages ------------------------------------------------------------- */

bool fake_is_private(const FakeMemory *m, unsigned page)
{
    return test_bit(page, m->private);
}

uint64_t *fake_words(FakeMemory *m, unsigned page)
{
    uint8_t *copy = fake_is_private(m, page) ? m->private_copy :
                                               m->shared_copy;

    return (uint64_t *)(copy + page * page_size());
}

bool fake_is_present(const FakeMemory *m, unsigned page)
{
    const off_t at = page * page_size();

    return lseek(m->fd, at, SEEK_DATA) == at;
}

/* Content modes are for pages that exist; KVM alone leaves bytes alone. */
static void change_bytes(FakeMemory *m, unsigned page, uint64_t flags)
{
    uint8_t *bytes = m->shared_copy + page * page_size();

    if (!fake.content_modes || flags == FLAG_PRESERVE ||
        !fake_is_present(m, page)) {
        return;
    }
    memset(bytes, flags == FLAG_ZERO ? 0 : (uint8_t)FAKE_SCRAMBLED,
           page_size());
}

void fake_change(FakeMemory *m, unsigned page, bool private, uint64_t flags)
{
    if (fake_is_private(m, page) == private) {
        /*
         * Modes are for the whole range, also where no state changes; those
         * who scramble it can preserve it.
         */
        if (m->fd >= 0 &&
            (flags || fake.modes[private ? TO_PRIVATE : TO_SHARED] &
             FLAG_PRESERVE)) {
            change_bytes(m, page, flags);
        }
        return;
    }
    change_bit(page, m->private);
    set_bit(page, m->touched);
    if (m->fd < 0) {
        return;
    }
    change_bytes(m, page, flags);
    if (m->host) {
        mprotect(m->host + page * page_size(), page_size(),
                 private ? PROT_NONE : PROT_READ | PROT_WRITE);
    }
}

/* --- the ioctl on a guest_memfd ---------------------------------------- */

static GuestMemfdDirection direction_of(
    const struct kvm_guest_memfd_attributes *a)
{
    return a->attributes & PRIVATE ? TO_PRIVATE : TO_SHARED;
}

static int check_flags(const struct kvm_guest_memfd_attributes *a)
{
    const uint64_t known = fake.content_modes ? FLAG_ZERO | FLAG_PRESERVE : 0;

    if (fake.lie == LIE_TAKES_ANY_FLAG ||
        (fake.lie == LIE_TAKES_UNKNOWN_FLAG &&
         !(a->flags & (FLAG_ZERO | FLAG_PRESERVE)))) {
        return 0;
    }
    if (a->flags & ~known) {
        return -EINVAL;
    }
    if (ctpop64(a->flags) > 1) {
        return fake.lie == LIE_TAKES_BOTH_MODES ? 0 : -EINVAL;
    }
    return 0;
}

static int check(const struct kvm_guest_memfd_attributes *a, uint64_t size)
{
    if (!fake.in_place) {
        return -ENOTTY;
    }
    if (check_flags(a) ||
        !buffer_is_zero(a->reserved, sizeof(a->reserved)) ||
        fake.no_private_memory || (a->attributes & ~PRIVATE) ||
        !a->size || a->offset + a->size < a->offset ||
        !QEMU_IS_ALIGNED(a->offset | a->size, page_size()) ||
        a->offset + a->size > size) {
        return -EINVAL;
    }
    if (fake.lie != LIE_TAKES_ANY_FLAG && ctpop64(a->flags) == 1 &&
        a->flags & (FLAG_ZERO | FLAG_PRESERVE) &
        ~fake.modes[direction_of(a)]) {
        return -EOPNOTSUPP;
    }
    if (fake.one_way && direction_of(a) == TO_PRIVATE) {
        return -EIO;
    }
    return 0;
}

/* --- the scratch page: its file is empty while it is private ------------ */

static void scratch_to_private(uint64_t flags)
{
    fake.scratch_bytes = g_malloc(page_size());
    g_assert_cmpint(pread(fake.scratch, fake.scratch_bytes, page_size(), 0),
                    ==, page_size());
    if (flags == FLAG_PRESERVE && fake.lie == LIE_FORGETS) {
        memset(fake.scratch_bytes, 0x11, page_size());
    }
    if (fake.lie != LIE_ACCESSIBLE) {
        g_assert_cmpint(ftruncate(fake.scratch, 0), ==, 0);
    }
}

static void scratch_to_shared(uint64_t flags)
{
    g_autofree uint8_t *bytes = g_steal_pointer(&fake.scratch_bytes);

    if (fake.lie == LIE_STAYS_PRIVATE) {
        return;
    }
    if (fake.content_modes && !flags) {
        memset(bytes, FAKE_SCRAMBLED & 0xff, page_size());
    } else if (flags == FLAG_ZERO && fake.lie != LIE_NOT_CLEARED) {
        /* The last byte is as good as the first. */
        memset(bytes, 0, page_size());
    } else if (flags == FLAG_ZERO) {
        memset(bytes, 0, page_size() - 1);
        bytes[page_size() - 1] = 1;
    }
    g_assert_cmpint(pwrite(fake.scratch, bytes, page_size(), 0), ==,
                    page_size());
}

/* Only flags that worked here may be sent later. */
static int set_scratch(const struct kvm_guest_memfd_attributes *a)
{
    int ret = check(a, page_size());

    if (fake.scratch_busy) {
        fake.scratch_busy--;
        return -EAGAIN;
    }
    if (ret || fake.scratch_error) {
        return ret ?: fake.scratch_error;
    }
    fake.confirmed[direction_of(a)] |= a->flags;
    if (!!a->attributes != fake.scratch_private) {
        fake.scratch_private = a->attributes;
        if (a->attributes) {
            scratch_to_private(a->flags);
        } else {
            scratch_to_shared(a->flags);
        }
    }
    return 0;
}

/* --- the memory of the guest --------------------------------------------- */

static const char *flags_str(uint64_t flags)
{
    return flags == FLAG_ZERO ? "zero" :
           flags == FLAG_PRESERVE ? "preserve" : "default";
}

/* A kernel to come: it converts no more than so many pages at a time. */
static bool is_step_over(const FakeMemory *m, unsigned page,
                         GuestMemfdDirection direction, unsigned *changed)
{
    *changed += fake_is_private(m, page) != (direction == TO_PRIVATE);
    return fake.step && *changed > fake.step;
}

static int set_memory(FakeMemory *m, struct kvm_guest_memfd_attributes *a)
{
    const GuestMemfdDirection direction = direction_of(a);
    const unsigned first = a->offset / page_size();
    unsigned page, pages = a->size / page_size(), changed = 0;
    const FakeFault *f;
    int ret;

    fake_note(m, "%s %u+%u %s", GuestMemfdDirection_str(direction), first,
              pages, flags_str(a->flags));
    g_assert_cmphex(a->flags & ~fake.confirmed[direction], ==, 0);
    ret = check(a, FAKE_PAGES * page_size());
    f = fake_take_fault(direction);
    if (f) {
        ret = f->error;
    }
    if (ret == -EAGAIN || ret == -ENOMEM || ret == -EOPNOTSUPP) {
        a->error_offset = a->offset + (f ? f->at * page_size() : 0);
    }
    if (ret) {
        pages = f ? MIN(pages, f->progress) : 0;
    }
    for (page = first; page < first + pages; page++) {
        if (is_step_over(m, page, direction, &changed)) {
            a->error_offset = page * page_size();
            ret = -EAGAIN;
            break;
        }
        fake_change(m, page, direction == TO_PRIVATE, a->flags);
    }
    if (ret && fake.error_offset) {
        a->error_offset = *fake.error_offset;
    }
    return ret;
}

int kvm_device_ioctl(int fd, unsigned long type, ...)
{
    struct kvm_guest_memfd_attributes *a;
    unsigned i;
    va_list ap;

    va_start(ap, type);
    a = va_arg(ap, struct kvm_guest_memfd_attributes *);
    va_end(ap);
    g_assert_cmphex(type, ==, KVM_GUEST_MEMFD_SET_ATTRIBUTES);
    if (fd == fake.scratch) {
        return set_scratch(a);
    }
    for (i = 0; i < fake.n_memories; i++) {
        if (fake.memories[i].fd == fd) {
            return set_memory(&fake.memories[i], a);
        }
    }
    g_assert_not_reached();
}

/* --- capabilities and files -------------------------------------------- */

int kvm_vm_check_extension(KVMState *s, unsigned extension)
{
    if (extension == KVM_CAP_GUEST_MEMFD || extension == KVM_CAP_USER_MEMORY2) {
        return !fake.no_guest_memfd;
    }
    if (extension == KVM_CAP_GUEST_MEMFD_FLAGS) {
        return fake.file_flags;
    }
    if (extension == fake.in_place_cap) {
        return fake.in_place_value;
    }
    return extension == fake.modes_cap ?
           fake.modes[TO_SHARED] | fake.modes[TO_PRIVATE] : 0;
}

/* Mapping its file fails from now on. */
static int unmappable(int fd)
{
    int other = eventfd(0, EFD_CLOEXEC);

    g_assert_cmpint(dup2(other, fd), ==, fd);
    close(other);
    return fd;
}

int kvm_vm_ioctl(KVMState *s, unsigned long type, ...)
{
    const struct kvm_create_guest_memfd *create;
    va_list ap;

    va_start(ap, type);
    create = va_arg(ap, const struct kvm_create_guest_memfd *);
    va_end(ap);
    g_assert_cmphex(type, ==, KVM_CREATE_GUEST_MEMFD);
    g_assert_cmphex(create->size, ==, page_size());
    /* Later kernels give them a meaning. */
    g_assert_true(buffer_is_zero(create->reserved, sizeof(create->reserved)));
    if (create->flags & ~fake.file_flags) {
        return -EINVAL;
    }
    if (fake.create_error) {
        return fake.create_error;
    }
    fake.confirmed[TO_SHARED] = fake.confirmed[TO_PRIVATE] = 0;
    fake.scratch_private = false;
    g_clear_pointer(&fake.scratch_bytes, g_free);
    fake.scratch = qemu_memfd_create("scratch", create->size, false, 0, 0,
                                     &error_abort);
    return fake.cannot_map ? unmappable(fake.scratch) : fake.scratch;
}

void fake_new_vm(void)
{
    fake.old_memories = fake.n_memories;
}

/* QEMU closes the old file, and maps the new one at the same address. */
static FakeMemory *next_memory(uint64_t size)
{
    FakeMemory *m;

    if (!fake.old_memories) {
        return fake_add_memory();
    }
    m = &fake.memories[--fake.old_memories];
    munmap(m->shared_copy, size);
    bitmap_zero(m->private, FAKE_PAGES);
    bitmap_zero(m->touched, FAKE_PAGES);
    return m;
}

int kvm_create_guest_memfd(uint64_t size, uint64_t flags, Error **errp)
{
    FakeMemory *m;

    g_assert_cmphex(size, ==, FAKE_PAGES * page_size());
    g_assert_cmphex(flags & ~KVM_GUEST_MEMFD_ALLOW_HUGEPAGE, ==,
                    GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED);
    g_assert_cmphex(flags & ~fake.file_flags, ==, 0);
    fake.memory_flags = flags;
    if (fake.create_error) {
        error_setg_errno(errp, -fake.create_error, "no guest_memfd");
        return fake.create_error;
    }
    /* The probing is over: the number of its file is free. */
    g_assert_cmpint(fcntl(fake.scratch, F_GETFD), ==, -1);
    fake.scratch = -1;
    m = next_memory(size);
    m->fd = qemu_memfd_create("gmem", size, false, 0, 0, &error_abort);
    m->shared_copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
                          m->fd, 0);
    m->private_copy = m->shared_copy;
    return fake.cannot_map ? unmappable(m->fd) : m->fd;
}

/* The C library's is hidden by this one: pages go while they are private. */
int fallocate(int fd, int mode, off_t offset, off_t size)
{
    const unsigned first = offset / page_size(), pages = size / page_size();
    unsigned i = 0, page;

    g_assert_cmphex(mode, ==, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
    while (fake.memories[i].fd != fd) {
        i++;
        g_assert_cmpuint(i, <, fake.n_memories);
    }
    fake_note(&fake.memories[i], "discard %u+%u", first, pages);
    for (page = first; page < first + pages; page++) {
        g_assert_true(fake_is_private(&fake.memories[i], page));
        set_bit(page, fake.memories[i].touched);
    }
    if (fake.discard_error) {
        errno = fake.discard_error;
        fake.discard_error = 0;
        return -1;
    }
    return syscall(SYS_fallocate, fd, mode, offset, size);
}
