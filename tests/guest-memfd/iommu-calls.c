/*
 * The calls that map memory for assigned devices: counted, and made to fail
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * To be preloaded into a QEMU with an assigned device.  The guest says what
 * is to be done, in lines on its serial port:
 *
 *   iommu-count name=NAME       calls since the last such line, mappings and
 *                               memory now are reported in one line
 *   iommu-fail call=map|unmap nth=N errno=E       the Nth such call fails
 *   iommu-limit kib=N|none      so much more memory may be pinned from now on
 *
 * IOMMU_CALLS=no-split plays a kernel that cannot unmap a part of a mapping,
 * IOMMU_CALLS=more-room one that tells more room for mappings than it has.
 * RLIMIT_MEMLOCK binds QEMU, as it does when root has not started it, and is
 * infinite at first, but with IOMMU_CALLS=limited.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include <linux/capability.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define PAGE            4096ULL
#define LIMIT           (8ULL << 30)
#define FIFO            16      /* bytes of a serial port */

typedef enum Call { MAP, UNMAP, CALL__MAX } Call;

static const char * const names[] = { "map", "unmap" };

static struct {
    uint64_t calls[CALL__MAX];
    uint64_t ns;
    uint64_t failed;
} counted;

static struct {
    Call call;
    unsigned nth;               /* 0: none */
    int error;
} failure;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool no_split, more_room;

static int real_ioctl(int fd, unsigned long request, void *arg)
{
    return syscall(SYS_ioctl, fd, request, arg);
}

/* --- the mappings that there are --------------------------------------- */

enum { NOT, BEGINS, GOES_ON };

/* Of all guest memory: is the page the first one of a mapping? */
static uint8_t pages[LIMIT / PAGE];

static void insert(uint64_t iova, uint64_t size)
{
    uint64_t page, first = iova / PAGE, end = MIN(iova + size, LIMIT) / PAGE;

    for (page = first; page < end; page++) {
        pages[page] = page == first ? BEGINS : GOES_ON;
    }
}

static void forget(uint64_t iova, uint64_t size)
{
    uint64_t page, end = size > LIMIT - iova ? LIMIT / PAGE :
                         (iova + size) / PAGE;

    for (page = iova / PAGE; page < end; page++) {
        pages[page] = NOT;
    }
    if (end < LIMIT / PAGE && pages[end] == GOES_ON) {
        pages[end] = BEGINS;
    }
}

static unsigned mappings(void)
{
    unsigned n = 0;
    uint64_t page;

    for (page = 0; page < LIMIT / PAGE; page++) {
        n += pages[page] == BEGINS;
    }
    return n;
}

/* --- calls ------------------------------------------------------------- */

static bool is_call(unsigned long request, void *arg, Call *call,
                    uint64_t *iova, uint64_t *size)
{
    switch (request) {
    case VFIO_IOMMU_MAP_DMA: {
        struct vfio_iommu_type1_dma_map *map = arg;

        *call = MAP, *iova = map->iova, *size = map->size;
        return true;
    }
    case VFIO_IOMMU_UNMAP_DMA: {
        struct vfio_iommu_type1_dma_unmap *unmap = arg;

        *call = UNMAP, *iova = unmap->iova, *size = unmap->size;
        return true;
    }
    case IOMMU_IOAS_MAP: {
        struct iommu_ioas_map *map = arg;

        *call = MAP, *iova = map->iova, *size = map->length;
        return true;
    }
    case IOMMU_IOAS_MAP_FILE: {
        struct iommu_ioas_map_file *map = arg;

        *call = MAP, *iova = map->iova, *size = map->length;
        return true;
    }
    case IOMMU_IOAS_UNMAP: {
        struct iommu_ioas_unmap *unmap = arg;

        *call = UNMAP, *iova = unmap->iova, *size = unmap->length;
        return true;
    }
    default:
        return false;
    }
}

/* With the lock. */
static int do_call(int fd, unsigned long request, void *arg, Call call,
                   uint64_t iova, uint64_t size)
{
    struct timespec from, to;
    int ret;

    counted.calls[call]++;
    if (failure.nth && failure.call == call && !--failure.nth) {
        counted.failed++;
        errno = failure.error;
        return -1;
    }
    clock_gettime(CLOCK_MONOTONIC, &from);
    ret = real_ioctl(fd, request, arg);
    clock_gettime(CLOCK_MONOTONIC, &to);
    counted.ns += (to.tv_sec - from.tv_sec) * 1000000000LL +
                  to.tv_nsec - from.tv_nsec;
    if (!ret && iova < LIMIT) {
        (call == MAP ? insert : forget)(iova, size);
    }
    return ret;
}

/* --- what the guest says ----------------------------------------------- */

static uint64_t field(const char *path, const char *name)
{
    g_autofree char *text = NULL;
    char *found;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return 0;
    }
    found = strstr(text, name);
    return found ? g_ascii_strtoull(found + strlen(name), NULL, 10) : 0;
}

static void report(int fd, const char *name)
{
    dprintf(fd, "iommu %s maps=%" PRIu64 " unmaps=%" PRIu64 " us=%" PRIu64
            " failed=%" PRIu64 " mappings=%u free=%" PRIu64 " locked=%" PRIu64
            " pinned=%" PRIu64 "\n", name, counted.calls[MAP],
            counted.calls[UNMAP], counted.ns / 1000, counted.failed,
            mappings(), field("/proc/meminfo", "MemFree:"),
            field("/proc/self/status", "VmLck:"),
            field("/proc/self/status", "VmPin:"));
    memset(&counted, 0, sizeof(counted));
}

static void fail(const char *call, unsigned nth, int error)
{
    failure.call = strcmp(call, names[MAP]) ? UNMAP : MAP;
    failure.error = error;
    failure.nth = nth;
}

static void set_lock_limit(rlim_t bytes)
{
    const struct rlimit limit = { bytes, RLIM_INFINITY };

    if (setrlimit(RLIMIT_MEMLOCK, &limit)) {
        abort();
    }
}

static void limit(const char *kib)
{
    uint64_t now = field("/proc/self/status", "VmLck:") +
                   field("/proc/self/status", "VmPin:");

    set_lock_limit(strcmp(kib, "none") ?
                   (now + g_ascii_strtoull(kib, NULL, 10)) * KiB :
                   RLIM_INFINITY);
}

static void line(int fd, const char *text)
{
    char call[8];
    unsigned nth;
    int error;

    if (g_str_has_prefix(text, "iommu-count ")) {
        report(fd, text + strlen("iommu-count "));
    } else if (g_str_has_prefix(text, "iommu-limit kib=")) {
        limit(text + strlen("iommu-limit kib="));
    } else if (sscanf(text, "iommu-fail call=%7s nth=%u errno=%d", call, &nth,
                      &error) == 3) {
        fail(call, nth, error);
    }
}

/* --- the kernel's answers ---------------------------------------------- */

static void add_room(struct vfio_iommu_type1_info *info)
{
    char *base = (char *)info;
    uint32_t at = info->flags & VFIO_IOMMU_INFO_CAPS ? info->cap_offset : 0;

    while (at) {
        struct vfio_info_cap_header *cap = (void *)(base + at);

        if (cap->id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL) {
            ((struct vfio_iommu_type1_info_dma_avail *)cap)->avail =
                UINT32_MAX;
        }
        at = cap->next;
    }
}

static int other_call(int fd, unsigned long request, void *arg)
{
    int ret = real_ioctl(fd, request, arg);

    if (!ret && more_room && request == VFIO_IOMMU_GET_INFO) {
        add_room(arg);
    }
    return ret;
}

/* --- instead of libc's ------------------------------------------------- */

#define PUBLIC __attribute__((visibility("default")))

PUBLIC int ioctl(int fd, unsigned long request, ...)
{
    uint64_t iova, size;
    va_list ap;
    void *arg;
    Call call;
    int ret;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);

    if (no_split && request == IOMMU_OPTION) {
        errno = EOPNOTSUPP;
        return -1;
    }
    if (!is_call(request, arg, &call, &iova, &size)) {
        return other_call(fd, request, arg);
    }
    pthread_mutex_lock(&lock);
    ret = do_call(fd, request, arg, call, iova, size);
    pthread_mutex_unlock(&lock);
    return ret;
}

/* A serial port sends what the guest writes, one or a few at a time. */
PUBLIC ssize_t writev(int fd, const struct iovec *iov, int n)
{
    static char said[128];
    static size_t length;
    const char *text = iov->iov_base;
    ssize_t ret = syscall(SYS_writev, fd, iov, n), i;
    int saved_errno = errno;

    if (n != 1 || iov->iov_len > FIFO || ret <= 0) {
        return ret;
    }
    pthread_mutex_lock(&lock);
    for (i = 0; i < ret; i++) {
        if (text[i] == '\n') {
            said[length] = '\0';
            length = 0;
            line(fd, said);
        } else if (length < sizeof(said) - 1) {
            said[length++] = text[i];
        }
    }
    pthread_mutex_unlock(&lock);
    errno = saved_errno;
    return ret;
}

/* VFIO counts for every process, and limits those without this capability. */
static void drop_lock_capability(void)
{
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { };

    if (syscall(SYS_capget, &header, data)) {
        abort();
    }
    data[0].effective &= ~(1U << CAP_IPC_LOCK);
    if (syscall(SYS_capset, &header, data)) {
        abort();
    }
}

static void __attribute__((constructor)) start(void)
{
    const char *calls = getenv("IOMMU_CALLS") ?: "";

    no_split = !strcmp(calls, "no-split");
    more_room = !strcmp(calls, "more-room");
    if (strcmp(calls, "limited")) {
        set_lock_limit(RLIM_INFINITY);
    }
    drop_lock_capability();
}
