/*
 * An assigned device that knows which memory it may use
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-device.h"
#include "qapi/error.h"
#include "qemu/sockets.h"
#include "../guest-memfd/vfio-user.h"

static void *page_key(uint64_t address)
{
    return GSIZE_TO_POINTER(address / qemu_real_host_page_size());
}

/* The key is the first number of the value. */
static void note_mapping(GmDevice *d, uint64_t iova, uint64_t size)
{
    const uint64_t mapping[] = { iova, size };
    uint64_t *copy = g_memdup2(mapping, sizeof(mapping));

    g_hash_table_replace(d->mappings, copy, copy);
}

/* As VFIO does: what is mapped must be unmapped before. */
static int device_map(void *opaque, uint64_t iova, uint64_t size)
{
    GmDevice *d = opaque;
    uint64_t at;
    int ret = 0;

    g_mutex_lock(&d->lock);
    d->maps++;
    if (d->refuse && !--d->refuse) {
        d->refused++;
        ret = ENOSPC;
    }
    for (at = iova; !ret && at < iova + size;
         at += qemu_real_host_page_size()) {
        if (!g_hash_table_add(d->pages, page_key(at))) {
            ret = EEXIST;
            if (!d->keeps) {
                g_test_message("0x%" PRIx64 " is mapped twice", at);
                g_test_fail();
            }
        }
    }
    if (!ret) {
        note_mapping(d, iova, size);
    }
    g_mutex_unlock(&d->lock);
    return ret;
}

/* As libvfio-user does it: what one message mapped, and nothing else. */
static bool is_mapping(GmDevice *d, uint64_t iova, uint64_t size)
{
    const uint64_t *mapped = g_hash_table_lookup(d->mappings, &iova);

    return mapped && mapped[1] == size;
}

static int device_unmap(void *opaque, uint64_t iova, uint64_t size)
{
    GmDevice *d = opaque;
    uint64_t at;
    int ret = 0;

    g_mutex_lock(&d->lock);
    if (d->keeps) {
        ret = EBUSY;
    } else if (!is_mapping(d, iova, size)) {
        ret = ENOENT;
    }
    for (at = iova; !ret && at < iova + size;
         at += qemu_real_host_page_size()) {
        g_hash_table_remove(d->pages, page_key(at));
    }
    if (!ret) {
        g_hash_table_remove(d->mappings, &iova);
    }
    g_mutex_unlock(&d->lock);
    return ret;
}

static void *device_main(void *opaque)
{
    GmDevice *d = opaque;
    const struct vfio_user_device callbacks = {
        .map = device_map,
        .unmap = device_unmap,
        .opaque = d,
    };

    g_assert_cmpint(vfio_user_serve(d->listener, &callbacks), ==, 0);
    return NULL;
}

void gm_device_init(GmDevice *d)
{
    *d = (GmDevice) {
        .dir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL),
        .pages = g_hash_table_new(NULL, NULL),
        .mappings = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                          NULL),
    };
    g_assert_nonnull(d->dir);
    g_mutex_init(&d->lock);
    d->path = g_build_filename(d->dir, "device", NULL);
    d->listener = unix_listen(d->path, &error_abort);
}

void gm_device_start(GmDevice *d)
{
    d->thread = g_thread_new("device", device_main, d);
}

void gm_device_join(GmDevice *d)
{
    g_thread_join(d->thread);
    d->thread = NULL;
}

void gm_device_destroy(GmDevice *d)
{
    close(d->listener);
    unlink(d->path);
    g_assert_cmpint(rmdir(d->dir), ==, 0);
    g_hash_table_destroy(d->mappings);
    g_hash_table_destroy(d->pages);
    g_mutex_clear(&d->lock);
    g_free(d->path);
    g_free(d->dir);
}

bool gm_device_has(GmDevice *d, uint64_t address)
{
    bool has;

    g_mutex_lock(&d->lock);
    has = g_hash_table_contains(d->pages, page_key(address));
    g_mutex_unlock(&d->lock);
    return has;
}

uint64_t gm_device_bytes(GmDevice *d, uint64_t from, uint64_t to)
{
    uint64_t bytes = 0;

    for (; from < to; from += qemu_real_host_page_size()) {
        bytes += gm_device_has(d, from) ? qemu_real_host_page_size() : 0;
    }
    return bytes;
}

void gm_device_keep(GmDevice *d, bool keeps)
{
    g_mutex_lock(&d->lock);
    d->keeps = keeps;
    g_mutex_unlock(&d->lock);
}

void gm_device_refuse(GmDevice *d, unsigned which)
{
    g_mutex_lock(&d->lock);
    d->refuse = which;
    g_mutex_unlock(&d->lock);
}
