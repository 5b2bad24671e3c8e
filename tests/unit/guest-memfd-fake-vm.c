/*
 * A VM on the fake KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A fake of the rest of QEMU, for accel/kvm/kvm-guest-memfd.c.
 */

#include "qemu/osdep.h"
#include <sys/syscall.h>
#include <sys/mman.h>
#include "accel/kvm/kvm-guest-memfd-sigbus.h"
#include "hw/boards.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/units.h"
#include "system/accel-blocker.h"
#include "system/address-spaces.h"
#include "system/confidential-guest-support.h"
#include "system/kvm.h"
#include "guest-memfd-fake-vm.h"

static Rig *vm;

/* The copy that is thrown away next is the other one, or else the same. */
static bool just_made_private;

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* --- the machine and its manager --------------------------------------- */

bool machine_require_guest_memfd(MachineState *machine)
{
    return machine->cgs && machine->cgs->require_guest_memfd;
}

GuestMemfdEngine *guest_memfd_engine(void)
{
    return &vm->engine;
}

bool kvm_allowed = true;
static const GuestMemfdProviderSource *source;

void guest_memfd_register_source(const GuestMemfdProviderSource *s)
{
    source = s;
}

bool guest_memfd_wants_huge_pages(const RAMBlock *rb)
{
    return !fake.small_pages;
}

bool guest_memfd_ram_block_in_place(RAMBlock *rb)
{
    return vm->engine.provider->in_place;
}

bool guest_memfd_has_provider(void)
{
    return vm->engine.provider;
}

/* --- locks --------------------------------------------------------------- */

/* Ioctls are not inhibited here: they only have to be begun and ended. */
static __thread bool begun;

void accel_ioctl_begin(void)
{
    g_assert_false(begun);
    begun = true;
}

void accel_ioctl_end(void)
{
    g_assert_true(begun);
    begun = false;
}

static GuestMemfdBlock *block_of(const RAMBlock *rb)
{
    unsigned i;

    for (i = 0; i < vm->n_blocks; i++) {
        if (vm->blocks[i]->ram_block == rb) {
            return vm->blocks[i];
        }
    }
    g_assert_not_reached();
}

void guest_memfd_ram_block_lock(RAMBlock *rb)
{
    qemu_mutex_lock(&block_of(rb)->lock);
}

void guest_memfd_ram_block_unlock(RAMBlock *rb)
{
    qemu_mutex_unlock(&block_of(rb)->lock);
}

bool vm_hides_private_bytes;

static bool init(bool require, bool converts, bool two_backings)
{
    bool in_place;

    vm_guest_says(false);
    current_machine->cgs->require_guest_memfd = require;
    vm_guest_class()->converts_in_place = converts;
    vm_guest_class()->hides_private_bytes = vm_hides_private_bytes;
    vm_guest_class()->memory_starts_shared = true;
    in_place = kvm_guest_memfd_init(current_machine, two_backings);
    g_assert_true(source->allowed == &kvm_allowed);
    g_assert_true(source->provider_new == kvm_guest_memfd_provider_new);
    g_assert_cmpint(source->in_place, ==, in_place);
    g_assert_cmpint(source->two_backings, ==, two_backings);
    return in_place;
}

bool vm_init(bool two_backings)
{
    return init(true, true, two_backings);
}

bool vm_init_launched_from_copy(void)
{
    return init(true, false, true);
}

bool vm_init_without_guest_memfd(void)
{
    return init(false, true, true);
}

/* --- memory with two backings ------------------------------------------ */

AddressSpace address_space_memory;

MemoryRegion *memory_region_from_host(void *ptr, ram_addr_t *offset)
{
    unsigned i;

    for (i = 0; i < vm->pieces; i++) {
        RigPiece *p = &vm->map[i];

        *offset = (uint8_t *)ptr - p->block->host;
        if (*offset < p->size && p->mr.ram_block) {
            return &p->mr;
        }
    }
    return NULL;
}

/* Every piece of the map, in the order of addresses. */
void flatview_for_each_range(FlatView *fv, flatview_cb cb, void *opaque)
{
    unsigned i;

    for (i = 0; i < vm->pieces; i++) {
        RigPiece *p = &vm->map[i];

        if (cb(int128_make64(p->gpa), int128_make64(p->size), &p->mr,
               p->offset, opaque)) {
            return;
        }
    }
}

static FakeMemory *memory_at(hwaddr gpa)
{
    unsigned i;

    for (i = 0; i < fake.n_memories; i++) {
        if (gpa - fake.memories[i].gpa_bytes < FAKE_PAGES * page_size()) {
            return &fake.memories[i];
        }
    }
    return NULL;
}

static int set_addresses(hwaddr gpa, uint64_t size, bool private)
{
    const FakeFault *f = fake_take_fault(private ? TO_PRIVATE : TO_SHARED);
    unsigned page, pages = size / page_size();
    FakeMemory *m = memory_at(gpa);

    fake_note(NULL, "%s %u+%u", private ? "to-private" : "to-shared",
              (unsigned)(gpa / page_size()), pages);
    if (f) {
        pages = MIN(pages, f->progress);
    }
    for (page = 0; m && page < pages; page++) {
        fake_change(m, gpa / page_size() % FAKE_PAGES + page, private, 0);
    }
    just_made_private = private && !f;
    if (fake.on_attributes) {
        fake.on_attributes(gpa, size, private);
    }
    return f ? f->error : 0;
}

int kvm_set_memory_attributes_private(hwaddr start, uint64_t size)
{
    return set_addresses(start, size, true);
}

int kvm_set_memory_attributes_shared(hwaddr start, uint64_t size)
{
    return set_addresses(start, size, false);
}

/* As QEMU does: no page is left. */
static void throw_away(const FakeMemory *m, uint8_t *host, uint64_t size)
{
    if (m->rb.fd >= 0) {
        /* fallocate() is the fake kernel's. */
        g_assert_cmpint(syscall(SYS_fallocate, m->rb.fd,
                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                m->rb.fd_offset + (host - m->shared_copy),
                                size), ==, 0);
    }
    g_assert_cmpint(madvise(host, size, MADV_DONTNEED), ==, 0);
}

static int discard(RAMBlock *rb, uint64_t offset, uint64_t size,
                   bool private_copy)
{
    FakeMemory *m = container_of(rb, FakeMemory, rb);
    const FakeFault *f = fake_take_fault(just_made_private ? TO_PRIVATE :
                                                             TO_SHARED);
    uint8_t *copy = private_copy ? m->private_copy : m->shared_copy;

    fake_note(m, "discard %s %u+%u", private_copy ? "private" : "shared",
              (unsigned)(offset / page_size()),
              (unsigned)(size / page_size()));
    just_made_private = false;
    size = f ? MIN(size, f->progress * page_size()) : size;
    memset(copy + offset, 0, size);
    if (fake.really_discards && !private_copy) {
        throw_away(m, copy + offset, size);
    }
    return f ? f->error : 0;
}

int ram_block_discard_range(RAMBlock *rb, uint64_t offset, size_t length)
{
    return discard(rb, offset, length, false);
}

int ram_block_discard_guest_memfd_range(RAMBlock *rb, uint64_t offset,
                                        size_t length)
{
    return discard(rb, offset, length, true);
}

FakeMemory *fake_add_two_backings(void)
{
    const size_t size = FAKE_PAGES * page_size();
    FakeMemory *m = fake_add_memory();

    m->shared_copy = mmap(NULL, size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    m->private_copy = mmap(NULL, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    m->rb.page_size = page_size();
    m->rb.host = m->shared_copy;
    m->rb.fd = -1;
    /* Nobody can say what is there: all is discarded, and logged. */
    m->rb.flags = RAM_SHARED;
    return m;
}

/* --- host accesses to private memory ----------------------------------- */

bool kvm_guest_memfd_guard(int fd, void *host, uint64_t size, bool dump,
                           Error **errp)
{
    FakeMemory *m = &fake.memories[fake.n_memories - 1];

    if (fake.cannot_guard) {
        error_setg(errp, "too many blocks");
        return false;
    }
    while (m->fd != fd) {
        g_assert_true(m > fake.memories);
        m--;
    }
    g_assert_null(m->host);
    m->host = host;
    return true;
}

static FakeMemory *guarded(const uint8_t *host)
{
    unsigned i;

    for (i = 0; i < fake.n_memories; i++) {
        FakeMemory *m = &fake.memories[i];

        if (m->host && host >= m->host &&
            host < m->host + FAKE_PAGES * page_size()) {
            return m;
        }
    }
    g_assert_not_reached();
}

void kvm_guest_memfd_unguard(void *host)
{
    guarded(host)->host = NULL;
}

int kvm_guest_memfd_guard_file(void *host, int fd)
{
    FakeMemory *m = &fake.memories[0];
    int old = guarded(host)->fd;

    guarded(host)->host = NULL;
    while (m->fd != fd) {
        m++;
        g_assert_true(m < fake.memories + fake.n_memories);
    }
    m->host = host;
    return old;
}

int kvm_guest_memfd_remap(void *host, uint64_t size)
{
    const FakeFault *f = fake_take_fault(TO_SHARED);
    FakeMemory *m = guarded(host);

    fake_note(m, "remap %u+%u",
              (unsigned)(((uint8_t *)host - m->host) / page_size()),
              (unsigned)(size / page_size()));
    return f ? f->error : 0;
}

/* --- the VM ------------------------------------------------------------- */

static void add_block(Rig *rig, const char *name)
{
    const unsigned first = rig->n_blocks * FAKE_PAGES;
    FakeMemory *m = vm->engine.provider->in_place ? NULL :
                    fake_add_two_backings();
    GuestMemfdBlock *block = rig_block(rig, name, FAKE_PAGES);

    rig_map(rig, first, block, 0, FAKE_PAGES);
    if (m) {
        block->ram_block = &m->rb;
        block->host = m->shared_copy;
        m->rb.attributes = block->attributes;
        rig->map[rig->pieces - 1].mr.ram_block = &m->rb;
    }
}

Rig *vm_new(OnOffAuto in_place)
{
    GuestMemfdProvider *provider = kvm_guest_memfd_provider_new(in_place,
                                                                &error_abort);

    vm = rig_new(TYPE_RIG_PROVIDER);
    object_unref(OBJECT(vm->engine.provider));
    vm->engine.provider = provider;
    vm->engine.phase = GUEST_MEMFD_PHASE_SETUP;
    vm->start = vm_guest_class()->memory_starts_shared ?
                GUEST_MEMFD_START_SHARED : GUEST_MEMFD_START_SETUP;
    add_block(vm, "a");
    add_block(vm, "b");
    return vm;
}

Rig *vm_new_in_place(uint64_t to_shared, uint64_t to_private)
{
    fake_in_place(to_shared, to_private);
    g_assert_true(vm_init(false));
    return vm_new(ON_OFF_AUTO_AUTO);
}

Rig *vm_new_two_backings(void)
{
    fake_in_place(0, 0);
    fake_two_backings();
    g_assert_false(vm_init(true));
    return vm_new(ON_OFF_AUTO_AUTO);
}

uint64_t vm_ask(uint64_t gpa, uint64_t pages, uint64_t attributes)
{
    /* The hypercall's pages have 4 KiB on any host. */
    return guest_memfd_map_gpa_range(gpa * page_size(),
                                     pages * (page_size() / (4 * KiB)),
                                     attributes);
}

void vm_free(Rig *rig)
{
    rig_free(rig);
    fake_end();
    vm = NULL;
}

FakeMemory *vm_memory(unsigned page)
{
    return &fake.memories[page / FAKE_PAGES];
}

bool vm_is_recorded_shared(const Rig *rig, unsigned page)
{
    return test_bit(page % FAKE_PAGES,
                    rig->blocks[page / FAKE_PAGES]->record);
}

void vm_check(const Rig *rig)
{
    unsigned page;

    rig_check(rig);
    for (page = 0; page < VM_PAGES; page++) {
        g_assert_cmpint(vm_is_recorded_shared(rig, page), ==,
                        !vm_is_private(page));
    }
}

void vm_set_page(Rig *rig, unsigned page, bool shared, uint64_t word)
{
    GuestMemfdBlock *block = rig->blocks[page / FAKE_PAGES];
    FakeMemory *m = vm_memory(page);
    uint64_t *words;

    if (vm_is_recorded_shared(rig, page) != shared) {
        change_bit(page % FAKE_PAGES, block->attributes->bitmap);
        block->shared_pages += shared ? 1 : -1;
    }
    fake_change(m, page % FAKE_PAGES, !shared, FLAG_PRESERVE);
    clear_bit(page % FAKE_PAGES, m->touched);
    /* The other copy, if there is one, is empty. */
    memset(m->shared_copy + page % FAKE_PAGES * page_size(), 0, page_size());
    memset(m->private_copy + page % FAKE_PAGES * page_size(), 0, page_size());
    words = vm_words(page);
    words[0] = words[page_size() / sizeof(*words) - 1] = word;
}

bool vm_reads(unsigned page, uint64_t word)
{
    const uint64_t *words = vm_words(page);

    return words[0] == word && words[page_size() / sizeof(*words) - 1] == word;
}
