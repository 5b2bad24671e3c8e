/*
 * Memslots, guest_memfds, and the state of each page
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The bytes change as the hardware changes them: memory that was assigned to
 * the guest is ciphertext for the host (SNP) or cleared (TDX) when it becomes
 * shared, and memory that becomes private after the launch is garbage (SNP)
 * or zero (TDX).  With two backings there is nothing to do:
 * the bytes are in another place.
 */

#include "standin.h"
#include "accel/kvm/kvm-guest-memfd-abi.h"
#include <sys/mman.h>

#define GFNS_MAX        (64ULL << 30 >> 12)
#define CIPHERTEXT      0xc7
#define FNV_BASIS       0xcbf29ce484222325ULL
#define FNV_PRIME       0x100000001b3ULL

/* By attributes of the VM. */
static uint8_t vm_private[GFNS_MAX];

Slot *slot_of(uint64_t gpa)
{
    unsigned i;

    for (i = 0; i < SLOTS_MAX; i++) {
        Slot *slot = &vm.slots[i];

        if (gpa >= slot->gpa && gpa - slot->gpa < slot->size) {
            return slot;
        }
    }
    return NULL;
}

static uint64_t page_index(const Slot *slot, uint64_t gpa)
{
    return (slot->offset + gpa - slot->gpa) / PAGE;
}

uint8_t *page_assigned(uint64_t gpa)
{
    Slot *slot = slot_of(gpa);

    return slot && slot->gmem ?
           &slot->gmem->assigned[page_index(slot, gpa)] : NULL;
}

bool page_private(uint64_t gpa)
{
    Slot *slot = slot_of(gpa);

    if (!vm.in_place) {
        return gpa / PAGE < GFNS_MAX && vm_private[gpa / PAGE];
    }
    return slot && slot->gmem && slot->gmem->private[page_index(slot, gpa)];
}

/* --- memslots and files ------------------------------------------------ */

static Gmem *gmem_of(int fd)
{
    unsigned i;

    for (i = 0; i < vm.gmems_used; i++) {
        if (vm.gmems[i].fd == fd) {
            return &vm.gmems[i];
        }
    }
    return NULL;
}

bool memory_is_gmem(int fd)
{
    return fd >= 0 && gmem_of(fd);
}

static Slot *slot_for(uint32_t id)
{
    Slot *unused = NULL;
    unsigned i;

    for (i = 0; i < SLOTS_MAX; i++) {
        if (vm.slots[i].size && vm.slots[i].id == id) {
            return &vm.slots[i];
        }
        unused = vm.slots[i].size ? unused : &vm.slots[i];
    }
    if (!unused) {
        abort();
    }
    return unused;
}

int memory_set_slot(struct kvm_userspace_memory_region2 *region)
{
    bool has_gmem = region->flags & KVM_MEM_GUEST_MEMFD &&
                    region->memory_size;
    Gmem *gmem = has_gmem ? gmem_of(region->guest_memfd) : NULL;
    int result = real_ioctl(vm.fd, KVM_SET_USER_MEMORY_REGION2, region);

    record("SET_USER_MEMORY_REGION2 slot=%u gpa=0x%llx size=0x%llx "
           "flags=0x%x gmem=%d offset=0x%llx = %s", region->slot,
           region->guest_phys_addr, region->memory_size, region->flags,
           gmem ? (int)gmem->number : -1,
           has_gmem ? region->guest_memfd_offset : 0, errno_name(-result));
    if (!result) {
        *slot_for(region->slot) = (Slot) {
            .id = region->slot,
            .gpa = region->guest_phys_addr,
            .size = region->memory_size,
            .host = region->userspace_addr,
            .offset = region->guest_memfd_offset,
            .gmem = gmem,
        };
    }
    return result;
}

int memory_create_gmem(struct kvm_create_guest_memfd *arg)
{
    int fd = real_ioctl(vm.fd, KVM_CREATE_GUEST_MEMFD, arg);
    uint64_t pages = arg->size / PAGE;
    Gmem *gmem;

    record("CREATE_GUEST_MEMFD size=0x%llx flags=0x%llx = %s", arg->size,
           arg->flags, errno_name(fd < 0 ? -fd : 0));
    if (fd < 0) {
        return fd;
    }
    if (vm.gmems_used == GMEMS_MAX) {
        abort();
    }
    gmem = &vm.gmems[vm.gmems_used];
    *gmem = (Gmem) {
        .fd = fd,
        .number = vm.gmems_used++,
        .size = arg->size,
        .private = calloc(pages, 1),
        .assigned = calloc(pages, 1),
    };
    memset(gmem->private, !(arg->flags & GUEST_MEMFD_FLAG_INIT_SHARED),
           pages);
    return fd;
}

void memory_close(int fd)
{
    Gmem *gmem = gmem_of(fd);

    if (gmem) {
        gmem->fd = -1;
    }
}

void memory_punch(int fd, uint64_t offset, uint64_t size)
{
    Gmem *gmem = gmem_of(fd);
    uint64_t i;

    record("PUNCH_HOLE gmem=%u offset=0x%" PRIx64 " size=0x%" PRIx64,
           gmem->number, offset, size);
    for (i = offset / PAGE; i < (offset + size) / PAGE; i++) {
        /* Later, it is a way to have zeros. */
        if (vm.in_place && vm.phase != PHASE_FINAL && gmem->assigned[i]) {
            unlawful("PUNCH_HOLE of populated memory at 0x%" PRIx64,
                     i * PAGE);
            break;
        }
        gmem->assigned[i] = 0;
    }
}

/* --- attributes -------------------------------------------------------- */

int memory_vm_attributes(struct kvm_memory_attributes *arg)
{
    Injected failure = arg->attributes ? inject("SET_MEMORY_ATTRIBUTES") :
                                         (Injected) { 0 };
    int result = -failure.error ?:
                 real_ioctl(vm.fd, KVM_SET_MEMORY_ATTRIBUTES, arg);
    uint64_t gpa;

    record("SET_MEMORY_ATTRIBUTES gpa=0x%llx size=0x%llx attributes=%llu "
           "= %s", arg->address, arg->size, arg->attributes,
           errno_name(-result));
    for (gpa = arg->address; !result && gpa < arg->address + arg->size;
         gpa += PAGE) {
        uint8_t *assigned = page_assigned(gpa);

        vm_private[gpa / PAGE] = !!arg->attributes;
        if (!arg->attributes && assigned) {
            *assigned = 0;
        }
    }
    return result;
}

/* Where a page of the file is in the guest's memory; false: not in it. */
static bool find_page(const Gmem *gmem, uint64_t offset, uint64_t *gpa,
                      uint8_t **host)
{
    unsigned i;

    for (i = 0; i < SLOTS_MAX; i++) {
        Slot *slot = &vm.slots[i];

        if (slot->gmem == gmem && offset >= slot->offset &&
            offset - slot->offset < slot->size) {
            *gpa = slot->gpa + offset - slot->offset;
            *host = (uint8_t *)(uintptr_t)(slot->host + offset -
                                           slot->offset);
            return true;
        }
    }
    return false;
}

/* Pages that exist, all of them in a row. */
static void spoil(uint64_t gpa, uint8_t *host, uint64_t size, bool private)
{
    uint8_t byte = is_snp() ? CIPHERTEXT : 0;

    if (!private) {
        memset(host, byte, size);
    } else if (!hidden_fill(gpa, byte, size)) {
        abort();
    }
}

/* Memory that nobody has used yet costs the host nothing. */
static void spoil_resident(uint64_t gpa, uint8_t *host, uint64_t size,
                           bool private)
{
    uint64_t pages = size / PAGE, i, n;
    uint8_t *resident = malloc(pages);

    if (mincore(host, size, resident)) {
        abort();
    }
    for (i = 0; i < pages; i += n) {
        for (n = 1; i + n < pages && resident[i + n] == resident[i]; n++) {
            continue;
        }
        if (resident[i]) {
            spoil(gpa + i * PAGE, host + i * PAGE, n * PAGE, private);
        }
    }
    free(resident);
}

/* Part of a memslot, and all of it changed its state. */
static void changed(uint64_t gpa, uint8_t *host, uint64_t size, bool private,
                    uint64_t flags)
{
    if (private ? vm.phase == PHASE_FINAL :
                  !(flags & KVM_GUEST_MEMFD_FLAG_ZERO)) {
        spoil_resident(gpa, host, size, private);
    }
}

static void settle(Gmem *gmem, const struct kvm_guest_memfd_attributes *arg)
{
    bool private = arg->attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE;
    uint64_t end = arg->offset + arg->size, offset, next;
    uint64_t gpa, next_gpa;
    uint8_t *host, *next_host;

    for (offset = arg->offset; offset < end; offset = next) {
        bool same = gmem->private[offset / PAGE] == private;
        uint8_t assigned = gmem->assigned[offset / PAGE];
        bool found = find_page(gmem, offset, &gpa, &host);

        gmem->private[offset / PAGE] = private;
        for (next = offset + PAGE; next < end; next += PAGE) {
            if ((gmem->private[next / PAGE] == private) != same ||
                gmem->assigned[next / PAGE] != assigned ||
                find_page(gmem, next, &next_gpa, &next_host) != found ||
                (found && next_gpa - gpa != next - offset)) {
                break;
            }
            gmem->private[next / PAGE] = private;
        }
        /* Memory that the guest never had is as the host left it. */
        if (!same && found && (private || assigned)) {
            changed(gpa, host, next - offset, private, arg->flags);
        }
        if (!same) {
            memset(gmem->assigned + offset / PAGE,
                   private && vm.phase == PHASE_FINAL,
                   (next - offset) / PAGE);
        }
    }
}

static bool in_slot(const Gmem *gmem)
{
    unsigned i;

    for (i = 0; i < SLOTS_MAX; i++) {
        if (vm.slots[i].size && vm.slots[i].gmem == gmem) {
            return true;
        }
    }
    return false;
}

/*
 * Only memory that is not encrypted yet can be preserved.  Elsewhere than in
 * the guest's memory it is a lawful question whether it can.
 */
static bool mode_possible(const Gmem *gmem,
                          const struct kvm_guest_memfd_attributes *arg)
{
    if (!vm.content_modes || arg->flags != KVM_GUEST_MEMFD_FLAG_PRESERVE ||
        (arg->attributes && vm.phase != PHASE_FINAL)) {
        return true;
    }
    if (in_slot(gmem)) {
        unlawful("PRESERVE to %s in phase %u",
                 arg->attributes ? "private" : "shared", vm.phase);
    }
    return false;
}

int memory_gmem_attributes(int fd, void *data)
{
    struct kvm_guest_memfd_attributes *arg = data;
    Gmem *gmem = gmem_of(fd);
    int result = -EOPNOTSUPP;

    if (mode_possible(gmem, arg)) {
        result = real_ioctl(fd, KVM_GUEST_MEMFD_SET_ATTRIBUTES, arg);
    } else {
        arg->error_offset = arg->offset;
    }
    record("SET_MEMORY_ATTRIBUTES2 gmem=%u offset=0x%" PRIx64 " size=0x%"
           PRIx64 " attributes=%" PRIu64 " flags=%" PRIu64 " = %s",
           gmem->number, arg->offset, arg->size, arg->attributes,
           arg->flags, errno_name(-result));
    if (!result) {
        settle(gmem, arg);
    }
    return result;
}

/* --- populate ---------------------------------------------------------- */

static uint64_t digest_of(uint64_t digest, const void *data, uint64_t size)
{
    const uint8_t *bytes = data;
    uint64_t i;

    for (i = 0; i < size; i++) {
        digest = (digest ^ bytes[i]) * FNV_PRIME;
    }
    return digest;
}

/* A chain, as the measurement of the hardware is. */
void memory_measure(uint64_t gpa, uint64_t type, uint64_t digest)
{
    uint64_t words[] = { gpa, type, digest };

    vm.measurement = digest_of(vm.measurement ?: FNV_BASIS, words,
                               sizeof(words));
}

/* As kvm_gmem_populate(): to the end of the memslot at most. */
static int64_t possible_pages(uint64_t gpa, uint64_t pages)
{
    Slot *slot = slot_of(gpa);
    uint64_t n;

    if (!slot || !slot->gmem) {
        return -EINVAL;
    }
    pages = MIN(pages, (slot->gpa + slot->size - gpa) / PAGE);
    for (n = 0; n < pages; n++) {
        int error = !page_private(gpa + n * PAGE) ? -EINVAL :
                    *page_assigned(gpa + n * PAGE) ? -EEXIST : 0;

        if (error) {
            unlawful("populate of gpa 0x%" PRIx64 ", which is %s",
                     gpa + n * PAGE, error == -EEXIST ?
                     "populated already" : "not private");
            return n ? (int64_t)n : error;
        }
    }
    return pages;
}

int64_t memory_populate(uint64_t gpa, const void *source, uint64_t pages,
                        uint64_t *digest)
{
    int64_t n = possible_pages(gpa, pages);
    void *copy;

    if (n <= 0) {
        return n;
    }
    if (source && !hidden_copy(gpa, source, n * PAGE)) {
        return -EFAULT;
    }
    copy = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED || !hidden_read(copy, gpa, n * PAGE)) {
        abort();
    }
    *digest = digest_of(FNV_BASIS, copy, n * PAGE);
    munmap(copy, n * PAGE);
    for (pages = 0; pages < n; pages++) {
        *page_assigned(gpa + pages * PAGE) = 1;
    }
    return n;
}
