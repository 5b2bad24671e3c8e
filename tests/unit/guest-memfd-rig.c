/*
 * A test rig for the conversion of guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/main-loop.h"
#include "qemu/mmap-alloc.h"
#include "qemu/module.h"
#include "system/guest-memfd-launch.h"
#include "guest-memfd-rig.h"

/* The fake machine of this process; there is one at a time. */
static Rig *current;

Rig *rig_current(void)
{
    return current;
}

static size_t page_size(void)
{
    return qemu_real_host_page_size();
}

/* --- the BQL, and sleeping --------------------------------------------- */

static QemuMutex bql;
static __thread bool bql_is_mine;

static void __attribute__((constructor)) init_bql(void)
{
    qemu_mutex_init(&bql);
}

bool bql_locked(void)
{
    return bql_is_mine;
}

void bql_lock_impl(const char *file, int line)
{
    g_assert(!bql_is_mine);
    qemu_mutex_lock(&bql);
    bql_is_mine = true;
}

void bql_unlock(void)
{
    g_assert(bql_is_mine);
    bql_is_mine = false;
    qemu_mutex_unlock(&bql);
}

/* The rest of what stubs/iothread-lock.c has. */
void rust_bql_mock_lock(void)
{
    g_assert_not_reached();
}

void bql_block_unlock(bool increase)
{
}

bool mutex_is_bql(QemuMutex *mutex)
{
    return mutex == &bql;
}

void bql_update_status(bool locked)
{
}

/* Blocks of the rig have no RAM block, unless a test says so. */
bool guest_memfd_ram_block_mapped_anew(RAMBlock *rb, Error **errp)
{
    g_string_append(current->log, "advise\n");
    return true;
}

static void assert_unlocked(QemuMutex *mutex)
{
    g_assert_cmpint(qemu_mutex_trylock(mutex), ==, 0);
    qemu_mutex_unlock(mutex);
}

static void assert_nothing_held(const Rig *rig)
{
    unsigned i;

    assert_unlocked((QemuMutex *)&rig->engine.span_lock);
    assert_unlocked((QemuMutex *)&rig->engine.rejected_lock);
    for (i = 0; i < rig->n_blocks; i++) {
        assert_unlocked(&rig->blocks[i]->lock);
    }
}

/* Is this thread between the two? */
static __thread bool begun;

void rig_begin(GuestMemfdProvider *provider)
{
    g_assert_false(begun);
    if (!current->threads) {
        assert_nothing_held(current);
    }
    begun = true;
}

void rig_end(GuestMemfdProvider *provider)
{
    g_assert_true(begun);
    if (!current->threads) {
        assert_nothing_held(current);
    }
    begun = false;
}

bool rig_begun(void)
{
    return begun;
}

static bool any_held(const Rig *rig)
{
    unsigned i;

    for (i = 0; i < rig->n_blocks; i++) {
        if (qemu_mutex_trylock(&rig->blocks[i]->lock)) {
            return true;
        }
        qemu_mutex_unlock(&rig->blocks[i]->lock);
    }
    return false;
}

/* This one replaces GLib's: a test need not wait for a retry. */
void g_usleep(gulong microseconds)
{
    Rig *rig = current;

    if (!rig || rig->threads) {
        struct timespec ts = { .tv_nsec = microseconds * 1000 };

        nanosleep(&ts, NULL);
        return;
    }
    if (any_held(rig)) {
        /* A pause on the way back, which is short, and has all locks. */
        g_assert_cmpuint(microseconds, <=, 1000);
        rig->pauses++;
        return;
    }
    g_assert(!bql_is_mine && !begun);
    assert_nothing_held(rig);
    rig->sleeps++;
    if (rig->on_sleep) {
        rig->on_sleep(rig);
    }
}

/* --- guest-physical memory --------------------------------------------- */

void memory_region_ref(MemoryRegion *mr)
{
    qatomic_inc(&container_of(mr, RigPiece, mr)->refs);
}

void memory_region_unref(MemoryRegion *mr)
{
    int before = qatomic_fetch_dec(&container_of(mr, RigPiece, mr)->refs);

    g_assert_cmpint(before, >, 0);
}

static RigPiece *first_piece(Rig *rig, hwaddr gpa, uint64_t size)
{
    RigPiece *first = NULL;
    unsigned i;

    for (i = 0; i < rig->pieces; i++) {
        RigPiece *p = &rig->map[i];

        if (p->gpa < gpa + size && gpa < p->gpa + p->size &&
            (!first || p->gpa < first->gpa)) {
            first = p;
        }
    }
    return first;
}

static bool find_section(GuestMemfdEngine *engine, hwaddr gpa, uint64_t size,
                         GuestMemfdSection *s)
{
    Rig *rig = container_of(engine, Rig, engine);
    hwaddr start, end;
    RigPiece *p;

    if (!rig->threads) {
        rig->lookups++;
        if (rig->on_lookup) {
            rig->on_lookup(rig);
        }
    }
    p = first_piece(rig, gpa, size);
    if (!p) {
        return false;
    }
    start = MAX(gpa, p->gpa);
    end = MIN(gpa + size, p->gpa + p->size);
    memory_region_ref(&p->mr);
    *s = (GuestMemfdSection) {
        .gpa = start,
        .size = end - start,
        .mr = &p->mr,
        .block = p->block,
        .offset = p->offset + (start - p->gpa),
    };
    return true;
}

static RigPiece *new_piece(Rig *rig, uint64_t gpa, uint64_t pages)
{
    RigPiece *p = &rig->map[rig->pieces++];

    g_assert_cmpuint(rig->pieces, <=, RIG_PIECES);
    p->gpa = gpa * page_size();
    p->size = pages * page_size();
    return p;
}

void rig_map(Rig *rig, uint64_t gpa, GuestMemfdBlock *block, uint64_t first,
             uint64_t pages)
{
    RigPiece *p = new_piece(rig, gpa, pages);

    p->block = block;
    p->offset = first * page_size();
}

void rig_map_other(Rig *rig, uint64_t gpa, uint64_t pages)
{
    new_piece(rig, gpa, pages);
}

/* --- blocks and listeners ---------------------------------------------- */

GuestMemfdBlock *rig_block(Rig *rig, const char *name, unsigned long pages)
{
    RamBlockAttributes *attributes = g_new0(RamBlockAttributes, 1);
    GuestMemfdBlock *block = guest_memfd_block_new(&rig->engine, NULL, name,
                                                   pages * page_size(),
                                                   &error_abort);

    attributes->bitmap_size = pages;
    attributes->bitmap = bitmap_new(pages);
    QLIST_INIT(&attributes->rdl_list);
    guest_memfd_block_set_attributes(block, attributes, rig->all_private ?
                                     GUEST_MEMFD_START_PRIVATE : rig->start);
    if (rig->all_private) {
        bitmap_set(block->provider_data, 0, pages);
    }

    g_assert_cmpuint(rig->n_blocks, <, RIG_BLOCKS);
    rig->blocks[rig->n_blocks++] = block;
    return block;
}

static void free_block(GuestMemfdBlock *block)
{
    RamBlockAttributes *attributes = block->attributes;

    if (block->fd >= 0) {
        qemu_ram_munmap(block->fd, block->host, block->size);
        close(block->fd);
    }
    guest_memfd_block_free(block);
    g_free(attributes->bitmap);
    g_free(attributes);
}

static void listener_called(RigListener *l, const MemoryRegionSection *s,
                            const char *what)
{
    g_assert(bql_locked());
    g_assert_cmpint(qemu_mutex_trylock(&l->block->lock), !=, 0);
    if (!l->rig->threads) {
        rig_note(l->rig, l->block, what, l->name, s->offset_within_region,
                 int128_get64(s->size), "");
    }
}

static int listener_populate(RamDiscardListener *rdl, MemoryRegionSection *s)
{
    RigListener *l = container_of(rdl, RigListener, rdl);
    unsigned long first = s->offset_within_region / page_size();
    unsigned long end = first + int128_get64(s->size) / page_size();

    listener_called(l, s, "populate");
    if (l->stuck) {
        l->stuck = false;
        return -EEXIST;
    }
    g_assert_cmpuint(find_next_bit(l->mapped, end, first), >=, end);
    if (l->agrees-- <= 0) {
        return l->error;
    }
    bitmap_set(l->mapped, first, end - first);
    return 0;
}

static int listener_discard(RamDiscardListener *rdl, MemoryRegionSection *s)
{
    RigListener *l = container_of(rdl, RigListener, rdl);
    unsigned long first = s->offset_within_region / page_size();
    unsigned long end = first + int128_get64(s->size) / page_size();

    listener_called(l, s, "discard");
    g_assert_cmpuint(find_next_zero_bit(l->mapped, end, first), >=, end);
    if (l->gives_up-- <= 0) {
        l->gives_up = INT_MAX;
        l->stuck = true;
        return l->error;
    }
    bitmap_clear(l->mapped, first, end - first);
    return 0;
}

static void insert_last(RamBlockAttributes *attributes,
                        RamDiscardListener *rdl)
{
    RamDiscardListener *last = QLIST_FIRST(&attributes->rdl_list);

    if (!last) {
        QLIST_INSERT_HEAD(&attributes->rdl_list, rdl, next);
        return;
    }
    while (QLIST_NEXT(last, next)) {
        last = QLIST_NEXT(last, next);
    }
    QLIST_INSERT_AFTER(last, rdl, next);
}

RigListener *rig_listen(Rig *rig, GuestMemfdBlock *block, uint64_t first,
                        uint64_t pages)
{
    RigListener *l = &rig->listeners[rig->n_listeners];

    g_assert_cmpuint(rig->n_listeners, <, RIG_LISTENERS);
    l->rig = rig;
    l->block = block;
    l->agrees = INT_MAX;
    l->gives_up = INT_MAX;
    l->error = -ENOSPC;
    l->mapped = bitmap_new(block->size / page_size());
    bitmap_copy(l->mapped, block->attributes->bitmap,
                block->size / page_size());
    snprintf(l->name, sizeof(l->name), "L%u", rig->n_listeners++);

    l->section.offset_within_region = first * page_size();
    l->section.size = int128_make64(pages * page_size());
    l->rdl.section = &l->section;
    ram_discard_listener_init(&l->rdl, listener_populate, listener_discard,
                              false);
    insert_last(block->attributes, &l->rdl);
    return l;
}

/* --- the rig ----------------------------------------------------------- */

static void note_broken(GuestMemfdBlock *block, uint64_t offset,
                        uint64_t size, int error)
{
    Rig *rig = container_of(block->engine, Rig, engine);

    g_assert_cmpint(error, <, 0);
    rig->broken++;
    rig_note(rig, block, "broken", block->name, offset, size, "");
}

static GuestMemfdInterrupt interrupted(GuestMemfdEngine *engine)
{
    return qatomic_read(&container_of(engine, Rig, engine)->interrupted);
}

/* No lock is held, and nothing is half done. */
static void between_slices(GuestMemfdEngine *engine)
{
    Rig *rig = container_of(engine, Rig, engine);

    g_assert(!bql_is_mine && !begun);
    if (rig->threads) {
        return;
    }
    assert_nothing_held(rig);
    rig->slices++;
    if (rig->on_slice) {
        rig->on_slice(rig);
    }
}

Rig *rig_new(const char *provider_type)
{
    Rig *rig = g_new0(Rig, 1);

    module_call_init(MODULE_INIT_QOM);
    g_assert(!current);
    current = rig;
    guest_memfd_engine_init(&rig->engine);
    rig->engine.provider = GUEST_MEMFD_PROVIDER(object_new(provider_type));
    rig->engine.find_section = find_section;
    rig->engine.interrupted = interrupted;
    rig->engine.between_slices = between_slices;
    rig->engine.broken = note_broken;
    rig->engine.phase = GUEST_MEMFD_PHASE_RUNNING;
    rig->engine.retry_timeout_ms = 10000;
    rig->start = GUEST_MEMFD_START_SHARED;
    rig->log = g_string_new(NULL);
    return rig;
}

Rig *rig_new_simple(unsigned long pages)
{
    Rig *rig = rig_new(TYPE_RIG_PROVIDER);

    rig_map(rig, 0, rig_block(rig, "a", pages), 0, pages);
    return rig;
}

void rig_free(Rig *rig)
{
    unsigned i;

    rig_check(rig);
    for (i = 0; i < rig->n_listeners; i++) {
        g_free(rig->listeners[i].mapped);
    }
    for (i = 0; i < rig->n_blocks; i++) {
        free_block(rig->blocks[i]);
    }
    guest_memfd_engine_destroy(&rig->engine);
    object_unref(OBJECT(rig->engine.provider));
    if (rig->log) {
        g_string_free(rig->log, true);
    }
    g_free(rig);
    current = NULL;
}

void rig_unplug_last(Rig *rig)
{
    rig->pieces--;
    free_block(rig->blocks[--rig->n_blocks]);
}

/* --- asking ------------------------------------------------------------ */

GuestMemfdRequest rig_request(GuestMemfdDirection direction,
                              GuestMemfdIntent intent, uint64_t gpa,
                              uint64_t pages)
{
    return (GuestMemfdRequest) {
        .gpa = gpa * page_size(),
        .size = pages * page_size(),
        .direction = direction,
        .intent = intent,
        .origin = GUEST_MEMFD_ORIGIN_HYPERCALL,
    };
}

int rig_ask(Rig *rig, GuestMemfdDirection direction, GuestMemfdIntent intent,
            uint64_t gpa, uint64_t pages, GuestMemfdResult *outcome)
{
    const GuestMemfdRequest req = rig_request(direction, intent, gpa, pages);
    bool locked = bql_locked();
    int ret = guest_memfd_engine_convert(&rig->engine, &req, outcome);

    g_assert_cmpint(bql_locked(), ==, locked);
    return ret;
}

int rig_convert(Rig *rig, GuestMemfdDirection direction, uint64_t gpa,
                uint64_t pages)
{
    return rig_ask(rig, direction, UNSPECIFIED, gpa, pages, NULL);
}

/* --- checking ---------------------------------------------------------- */

static void check_listener(const RigListener *l)
{
    const unsigned long *bitmap = l->block->attributes->bitmap;
    unsigned long page = l->section.offset_within_region / page_size();
    unsigned long end = page + int128_get64(l->section.size) / page_size();

    for (; page < end; page++) {
        g_assert_cmpint(test_bit(page, l->mapped), ==,
                        test_bit(page, bitmap));
    }
}

static void check_block(const GuestMemfdBlock *block)
{
    const unsigned long pages = block->size / page_size();
    const unsigned long *bitmap = block->record;
    unsigned long page;

    g_assert_null(block->scratch.mr);
    g_assert_null(block->scratch.next);
    g_assert(bitmap_empty(block->scratch.changed, pages));
    g_assert_cmpuint(block->scratch.changed_end, ==, 0);
    g_assert_cmpuint(block->scratch.changed_bytes, ==, 0);
    g_assert_cmpuint(block->shared_pages, ==,
                     bitmap_count_one(bitmap, pages));
    if (block->provider_data) {
        for (page = 0; page < pages; page++) {
            g_assert_cmpint(test_bit(page, bitmap), ==,
                            !test_bit(page, block->provider_data));
        }
    }
}

void rig_check(const Rig *rig)
{
    unsigned i;

    assert_nothing_held(rig);
    for (i = 0; i < rig->pieces; i++) {
        g_assert_cmpint(rig->map[i].refs, ==, 0);
    }
    if (rig->broken) {
        return;
    }
    for (i = 0; i < rig->n_blocks; i++) {
        check_block(rig->blocks[i]);
    }
    for (i = 0; i < rig->n_listeners; i++) {
        check_listener(&rig->listeners[i]);
    }
}
