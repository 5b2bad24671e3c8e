/*
 * A table of the memory that devices access, at borders to private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A cell is one request of a device, with one of the areas in its memory
 * at a border, so that from none to all of its bytes are private.  A guest
 * may write to its own private memory, so all areas are as they should be;
 * the device must not find out.
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "guest-memfd-dma.h"
#include "qemu/timer.h"

#define AREAS           GM_GPA
#define BORDER          (24 * MiB)
/* On each side of the border. */
#define REACH           (2 * GM_PAGE)
#define ROUNDS          20
#define PATIENCE        3000            /* rounds for what must succeed */
#define SECONDS_MAX     120
#define FAILURES_SHOWN  5
#define CANARIES        8

static unsigned all_cells;

static void fail(GmDma *d, unsigned area, int64_t before, bool private_first,
                 const char *what)
{
    g_test_fail();
    if (d->failures++ < FAILURES_SHOWN) {
        g_test_message("%s: %s, %" PRId64 " of %u bytes before the border "
                       "from %s memory: %s", d->driver->name,
                       d->driver->areas[area].name, before,
                       d->driver->areas[area].size,
                       private_first ? "private to shared" :
                                       "shared to private", what);
    }
}

/* --- one request ------------------------------------------------------- */

void gm_dma_go(GmDma *d)
{
    if (d->private) {
        memcpy(d->snapshot, gm_dma_ptr(d, d->private), REACH);
    }
}

void gm_dma_put(GmDma *d, uint64_t gpa, uint64_t size, uint8_t byte)
{
    uint64_t i;

    for (i = gpa; i < gpa + size; i++) {
        if (!d->private || i < d->private || i >= d->private + REACH) {
            *gm_dma_ptr(d, i) = byte;
        }
    }
}

bool gm_dma_wait(GmDma *d, bool (*done)(GmDma *d))
{
    const unsigned rounds = d->refused ? ROUNDS : PATIENCE;
    unsigned i;

    d->answered = false;
    for (i = 0; i < rounds; i++) {
        if (done(d)) {
            d->answered = true;
            return true;
        }
        qtest_clock_step(d->qts, 10 * SCALE_MS);
        if (i) {
            g_usleep(500);
        }
    }
    return false;
}

void gm_dma_set32(GmDma *d, unsigned offset, uint32_t value)
{
    qpci_io_writel(d->pci, d->bar, offset, value);
}

void gm_dma_set64(GmDma *d, unsigned offset, uint64_t value)
{
    gm_dma_set32(d, offset, value);
    gm_dma_set32(d, offset + 4, value >> 32);
}

uint32_t gm_dma_get32(GmDma *d, unsigned offset)
{
    return qpci_io_readl(d->pci, d->bar, offset);
}

void gm_dma_map_bar0(GmDma *d)
{
    d->bar = qpci_iomap(d->pci, 0, NULL);
}

static void put_areas(GmDma *d)
{
    unsigned i;

    for (i = 0; i < GM_AREAS_MAX; i++) {
        d->at[i] = AREAS + i * GM_PAGE;
        memset(gm_dma_ptr(d, d->at[i]), 0, GM_PAGE);
    }
    if (d->disk) {
        memset(d->disk, GM_DISK_BYTE, GM_DISK_SIZE);
    }
}

/* Of what the device may read and write, nothing is private. */
static bool works(GmDma *d)
{
    d->private = 0;
    put_areas(d);
    d->driver->start(d);
    return d->driver->request(d);
}

static bool has_leaked(GmDma *d)
{
    const uint64_t shared = d->private < BORDER ? BORDER : BORDER - REACH;
    uint8_t packet[4096];
    ssize_t size = 0;

    if (d->net) {
        size = recv(d->net, packet, sizeof(packet), MSG_DONTWAIT);
    }
    return gm_window_has_canary(gm_dma_ptr(d, AREAS), GM_AREAS_MAX * GM_PAGE,
                                CANARIES) ||
           gm_window_has_canary(gm_dma_ptr(d, shared), REACH, CANARIES) ||
           (d->disk && gm_window_has_canary(d->disk, GM_DISK_SIZE,
                                            CANARIES)) ||
           (size > 0 && gm_window_has_canary(packet, size, CANARIES));
}

static void check_cell(GmDma *d, unsigned area, unsigned before,
                       bool private_first)
{
    const GmArea *a = &d->driver->areas[area];
    const bool private = private_first ? before : before < (a->used ?: a->size);
    bool done;

    d->cells++;
    put_areas(d);
    d->private = private_first ? BORDER - REACH : BORDER;
    memset(gm_dma_ptr(d, BORDER - REACH), 0, 2 * REACH);
    memset(gm_dma_ptr(d, d->private), GM_CANARY, REACH);
    if (gm_convert(d->qts, d->private, REACH,
                   GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE).status) {
        fail(d, area, before, private_first, "the device holds memory");
        d->stuck = true;
        return;
    }
    d->at[area] = BORDER - before;
    d->refused = private && a->private != GM_HARMLESS && !a->fails;
    d->driver->start(d);
    done = d->driver->request(d);
    d->refused = false;

    if (memcmp(gm_dma_ptr(d, d->private), d->snapshot, REACH)) {
        fail(d, area, before, private_first, "private bytes have changed");
    }
    if (has_leaked(d)) {
        fail(d, area, before, private_first, "private bytes were read");
    }
    if (private && a->private == GM_REFUSED && done) {
        fail(d, area, before, private_first, "the request was done");
    }
    if (private && a->fails && !d->answered) {
        fail(d, area, before, private_first, "the request never ends");
    }
    if (private && a->private == GM_REFUSED && !a->separate && d->disk &&
        !gm_window_is_byte(d->disk, GM_DISK_SIZE, GM_DISK_BYTE)) {
        fail(d, area, before, private_first, "the disk was written");
    }
    if ((!private || a->private == GM_HARMLESS) && !done) {
        fail(d, area, before, private_first, "the request was not done");
    }
    gm_to_shared(d->qts, d->private, REACH);
    d->private = 0;
    if (d->driver->goes_on && !a->held && !a->needs_reset) {
        d->at[area] = AREAS + area * GM_PAGE;
        if (!d->driver->request(d)) {
            fail(d, area, before, private_first, "the device is dead");
        }
    }
    if (!works(d)) {
        fail(d, area, before, private_first,
             "the device is dead even after a reset");
    }
}

/* Near both ends, and in the middle. */
static bool is_offset(const GmArea *area, unsigned before)
{
    const unsigned after = area->size - before;

    return before <= 3 * area->step || after <= 3 * area->step ||
           (before <= 16 && area->size <= 64) || before == area->size / 2 ||
           before == 64;
}

static void check_area(GmDma *d, unsigned area)
{
    const GmArea *a = &d->driver->areas[area];
    unsigned before, i;

    for (before = 0; before <= a->size; before += a->step) {
        if (!is_offset(a, before)) {
            continue;
        }
        gm_watchdog(d->qts, SECONDS_MAX);
        for (i = 0; i < 2 && !d->stuck; i++) {
            check_cell(d, area, before, i);
        }
        if (d->failures > 10 * FAILURES_SHOWN) {
            g_test_message("%s: %s: too many failures, going on with the "
                           "next area", d->driver->name, a->name);
            return;
        }
    }
}

/* Pages that the device maps do not become private, and it works on. */
static void check_held(GmDma *d, unsigned area)
{
    int64_t status;

    d->cells++;
    if (!works(d)) {
        fail(d, area, 0, false, "the request was not done");
    }
    status = gm_convert(d->qts, AREAS + area * GM_PAGE, GM_PAGE,
                        GMTD_ATTR_PRIVATE | GMTD_ATTR_PRESERVE).status;
    if (status != -EAGAIN) {
        fail(d, area, 0, false, "it became private under the device");
        gm_to_shared(d->qts, AREAS + area * GM_PAGE, GM_PAGE);
    } else if (!d->driver->request(d)) {
        fail(d, area, 0, false, "the device has lost what it held");
    }
}

/* --- the machine ------------------------------------------------------- */

static int open_disk(GmDma *d)
{
    int fd = memfd_create("disk", 0);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, GM_DISK_SIZE), ==, 0);
    d->disk = mmap(NULL, GM_DISK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                   0);
    g_assert(d->disk != MAP_FAILED);
    memset(d->disk, GM_DISK_BYTE, GM_DISK_SIZE);
    return fd;
}

static int open_net(GmDma *d)
{
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), ==, 0);
    d->net = fds[1];
    return fds[0];
}

static void start(GmDma *d)
{
    const GmDriver *driver = d->driver;
    g_auto(GStrv) parts = g_strsplit(driver->args, "%d", 2);
    g_autofree char *number = NULL;
    g_autofree char *args = NULL;
    int fd = -1;

    if (driver->backend) {
        fd = driver->backend == GM_DISK ? open_disk(d) : open_net(d);
    }
    number = g_strdup_printf("%d", fd);
    args = g_strjoinv(number, parts);
    d->qts = qtest_initf(GM_ONE_BACKEND " %s", args);
    if (fd >= 0) {
        close(fd);
    }
    d->ram = gm_window_open(d->qts, 0, GM_RAM_SIZE);
    d->snapshot = g_malloc(REACH);
    alloc_init(&d->alloc, ALLOC_NO_FLAGS, BORDER + REACH, GM_RAM_SIZE, 4096);
    d->bus = qpci_new_pc(d->qts, &d->alloc);
    if (driver->devfn) {
        d->pci = qpci_device_find(d->bus, driver->devfn);
        g_assert_nonnull(d->pci);
        qpci_device_enable(d->pci);
    }
    gm_set_timeout(d->qts, 0);
    if (driver->init) {
        driver->init(d);
    }
}

static void end(GmDma *d)
{
    if (d->driver->fini) {
        d->driver->fini(d);
    }
    munmap(d->ram, GM_RAM_SIZE);
    if (d->disk) {
        munmap(d->disk, GM_DISK_SIZE);
    }
    if (d->net) {
        close(d->net);
    }
    g_free(d->pci);
    qpci_free_pc(d->bus);
    alloc_destroy(&d->alloc);
    g_free(d->snapshot);
    gm_quit(d->qts);
    alarm(0);
}

static void test_driver(const void *opaque)
{
    GmDma d = { .driver = opaque };
    unsigned area;

    start(&d);
    gm_watchdog(d.qts, SECONDS_MAX);
    if (!works(&d)) {
        g_test_message("%s: not even with shared memory", d.driver->name);
        g_test_fail();
    } else {
        for (area = 0; d.driver->areas[area].name && !d.stuck; area++) {
            check_area(&d, area);
            if (d.driver->areas[area].held && !d.stuck) {
                check_held(&d, area);
            }
            gm_assert_running(d.qts);
        }
    }
    end(&d);
    g_test_message("%u cells, %u failures", d.cells, d.failures);
    all_cells += d.cells;
}

void gm_dma_add(const GmDriver *driver)
{
    g_autofree char *path = g_strdup_printf("/guest-memfd/dma/%s",
                                            driver->name);

    qtest_add_data_func(path, driver, test_driver);
}

int gm_dma_end(int status)
{
    printf("# %u cells of the table of accesses\n", all_cells);
    return status;
}
