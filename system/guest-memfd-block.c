/*
 * The conversion state of one block of guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#ifdef CONFIG_POSIX
#include <sys/mman.h>
#endif
#ifdef CONFIG_FALLOCATE_PUNCH_HOLE
#include <linux/falloc.h>
#endif
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/mmap-alloc.h"
#include "system/ramblock.h"
#include "guest-memfd-internal.h"

static unsigned long page_of(uint64_t offset)
{
    return offset / guest_memfd_page_size();
}

GuestMemfdBlock *guest_memfd_block_new(GuestMemfdEngine *engine,
                                       RAMBlock *ram_block, const char *name,
                                       uint64_t size, Error **errp)
{
    GuestMemfdProvider *provider = engine->provider;
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_GET_CLASS(provider);
    GuestMemfdBlock *block = g_new0(GuestMemfdBlock, 1);

    block->engine = engine;
    block->ram_block = ram_block;
    block->size = size;
    block->fd = -1;
    block->in_place = provider->in_place;
    block->page_size = guest_memfd_page_size();
    block->content_policy = GUEST_MEMFD_CONTENT_POLICY_AUTO;
    block->name = g_strdup(name);

    if (!guest_memfd_mappings_init(block, errp)) {
        goto err_name;
    }
    if (pc->block_alloc && !pc->block_alloc(provider, block, errp)) {
        goto err_mappings;
    }

    qemu_mutex_init(&block->lock);
    qemu_mutex_init(&block->stats.lock);
    block->scratch.changed = bitmap_new(page_of(size));
    QLIST_INSERT_HEAD(&engine->blocks, block, next);
    return block;

err_mappings:
    guest_memfd_mappings_destroy(block);
err_name:
    g_free(block->name);
    g_free(block);
    return NULL;
}

#ifdef CONFIG_POSIX
bool guest_memfd_block_map(GuestMemfdBlock *block, int fd, Error **errp)
{
    void *host = qemu_ram_mmap(fd, block->size, QEMU_VMALLOC_ALIGN,
                               QEMU_MAP_SHARED | QEMU_MAP_NORESERVE, 0);

    if (host == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map guest memory '%s'",
                         block->name);
        close(fd);
        return false;
    }
    block->fd = fd;
    block->host = host;
    return true;
}

void guest_memfd_block_unmap(GuestMemfdBlock *block)
{
    qemu_ram_munmap(block->fd, block->host, block->size);
    close(block->fd);
}

bool guest_memfd_block_remap(GuestMemfdBlock *block, int fd, Error **errp)
{
    void *host = mmap(block->host, block->size, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0);

    if (host == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map guest memory '%s' anew",
                         block->name);
        close(fd);
        return false;
    }
    close(block->fd);
    block->fd = fd;
    return true;
}
#else
/* No provider of this host has a file to map. */
bool guest_memfd_block_map(GuestMemfdBlock *block, int fd, Error **errp)
{
    g_assert_not_reached();
}

void guest_memfd_block_unmap(GuestMemfdBlock *block)
{
    g_assert_not_reached();
}

bool guest_memfd_block_remap(GuestMemfdBlock *block, int fd, Error **errp)
{
    g_assert_not_reached();
}
#endif

int guest_memfd_block_punch_hole(const GuestMemfdBlock *block,
                                 uint64_t offset, uint64_t size)
{
#ifdef CONFIG_FALLOCATE_PUNCH_HOLE
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    int ret = RETRY_ON_EINTR(fallocate(block->fd, mode, offset, size));

    return ret ? -errno : 0;
#else
    return -ENOSYS;
#endif
}

void guest_memfd_block_set_attributes(GuestMemfdBlock *block,
                                      RamBlockAttributes *attributes,
                                      GuestMemfdStart start)
{
    block->attributes = attributes;
    block->start = start;
    if (start == GUEST_MEMFD_START_SETUP) {
        block->setup = bitmap_new(page_of(block->size));
        block->written = bitmap_new(page_of(block->size));
    }
    guest_memfd_block_start(block);
}

/* No page is recorded as accessible. */
void guest_memfd_block_start(GuestMemfdBlock *block)
{
    assert(!block->shared_pages);
    if (block->written) {
        bitmap_zero(block->written, page_of(block->size));
    }
    qatomic_set(&block->record, block->setup ?: block->attributes->bitmap);
    if (block->start != GUEST_MEMFD_START_PRIVATE) {
        guest_memfd_block_record(block, 0, block->size, true);
    }
}

bool guest_memfd_block_in_setup(const GuestMemfdBlock *block)
{
    return block->setup && qatomic_read(&block->record) == block->setup;
}

/* An access that still reads the other bitmap finds it clear, too. */
void guest_memfd_block_end_setup(GuestMemfdBlock *block)
{
    assert(!block->shared_pages);
    qatomic_set(&block->record, block->attributes->bitmap);
}

void guest_memfd_block_note_written(GuestMemfdBlock *block, uint64_t offset,
                                    uint64_t size)
{
    if (size && guest_memfd_block_in_setup(block)) {
        const unsigned long first = page_of(offset);

        bitmap_set_atomic(block->written, first,
                          page_of(offset + size - 1) - first + 1);
    }
}

void guest_memfd_block_free(GuestMemfdBlock *block)
{
    GuestMemfdProvider *provider = block->engine->provider;
    GuestMemfdProviderClass *pc = GUEST_MEMFD_PROVIDER_GET_CLASS(provider);

    QLIST_REMOVE(block, next);
    guest_memfd_counters_add(&block->engine->retired, &block->stats.counters);
    if (pc->block_free) {
        pc->block_free(provider, block);
    }
    qemu_mutex_destroy(&block->stats.lock);
    guest_memfd_mappings_destroy(block);
    qemu_mutex_destroy(&block->lock);
    g_free(block->scratch.changed);
    g_free(block->setup);
    g_free(block->written);
    g_free(block->name);
    g_free(block);
}

bool guest_memfd_block_next_run(const GuestMemfdBlock *block, bool shared,
                                uint64_t *offset, uint64_t end,
                                uint64_t most, uint64_t *size)
{
    const unsigned long *bitmap = block->record;
    /* One page more than is wanted shows that the run does not end there. */
    const unsigned long pages = page_of(most) + 1;
    const unsigned long last = page_of(end);
    unsigned long from = page_of(*offset), to;

    for (;;) {
        from = shared ? find_next_bit(bitmap, last, from)
                      : find_next_zero_bit(bitmap, last, from);
        if (from >= last) {
            return false;
        }
        to = from + MIN(pages, last - from);
        to = shared ? find_next_zero_bit(bitmap, to, from)
                    : find_next_bit(bitmap, to, from);
        /* A request can cover a block twice that is mapped twice. */
        from = find_next_zero_bit(block->scratch.changed, to, from);
        if (from < to) {
            break;
        }
    }
    to = find_next_bit(block->scratch.changed, to, from);

    *offset = from * guest_memfd_page_size();
    *size = (to - from) * guest_memfd_page_size();
    return true;
}

void guest_memfd_block_record(GuestMemfdBlock *block, uint64_t offset,
                              uint64_t size, bool shared)
{
    unsigned long *bitmap = block->record;
    const unsigned long pages = page_of(size);

    if (shared) {
        bitmap_set(bitmap, page_of(offset), pages);
        qatomic_set(&block->shared_pages, block->shared_pages + pages);
    } else {
        bitmap_clear(bitmap, page_of(offset), pages);
        qatomic_set(&block->shared_pages, block->shared_pages - pages);
    }
}

void guest_memfd_block_count_bytes(const GuestMemfdBlock *block,
                                   uint64_t *private, uint64_t *shared,
                                   uint64_t *setup)
{
    const uint64_t accessible = (uint64_t)qatomic_read(&block->shared_pages) *
                                guest_memfd_page_size();
    const bool in_setup = guest_memfd_block_in_setup(block);

    *private = block->size - accessible;
    *shared = in_setup ? 0 : accessible;
    *setup = in_setup ? accessible : 0;
}

bool guest_memfd_block_is_all_shared(const GuestMemfdBlock *block)
{
    uint64_t private, shared, setup;

    guest_memfd_block_count_bytes(block, &private, &shared, &setup);
    return shared == block->size;
}

void guest_memfd_block_mark_changed(GuestMemfdBlock *block, uint64_t offset,
                                    uint64_t size)
{
    GuestMemfdScratch *scratch = &block->scratch;
    unsigned long first = page_of(offset), end = page_of(offset + size);

    if (scratch->changed_first == scratch->changed_end) {
        scratch->changed_first = first;
        scratch->changed_end = end;
    } else {
        scratch->changed_first = MIN(scratch->changed_first, first);
        scratch->changed_end = MAX(scratch->changed_end, end);
    }
    bitmap_set(scratch->changed, first, end - first);
    scratch->changed_bytes += size;
}

void guest_memfd_block_unmark_changed(GuestMemfdBlock *block, uint64_t offset,
                                      uint64_t end, uint64_t bytes)
{
    const unsigned long first = page_of(offset);

    bitmap_clear(block->scratch.changed, first, page_of(end) - first);
    block->scratch.changed_bytes -= bytes;
}

bool guest_memfd_block_next_changed(const GuestMemfdBlock *block, uint64_t end,
                                    uint64_t *offset, uint64_t *size)
{
    const GuestMemfdScratch *scratch = &block->scratch;
    const unsigned long last = MIN(page_of(end), scratch->changed_end);
    unsigned long from = MAX(page_of(*offset), scratch->changed_first), to;

    from = find_next_bit(scratch->changed, last, from);
    if (from >= last) {
        return false;
    }
    to = find_next_zero_bit(scratch->changed, last, from);
    *offset = from * guest_memfd_page_size();
    *size = (to - from) * guest_memfd_page_size();
    return true;
}

void guest_memfd_block_forget_changed(GuestMemfdBlock *block)
{
    GuestMemfdScratch *scratch = &block->scratch;

    if (scratch->changed_end) {
        bitmap_clear(scratch->changed, scratch->changed_first,
                     scratch->changed_end - scratch->changed_first);
    }
    scratch->changed_first = 0;
    scratch->changed_end = 0;
    scratch->changed_bytes = 0;
    scratch->populated = false;
}
