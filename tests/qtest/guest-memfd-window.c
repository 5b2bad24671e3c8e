/*
 * Guest memory in the host, with its private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "guest-memfd-window.h"

#define MEMFD       "/memfd:guest-memfd-emulated"
#define FDS_MAX     256

/* The file descriptors of QEMU, in the order in which they were opened. */
uint8_t *gm_window_open(QTestState *qts, unsigned index, uint64_t size)
{
    unsigned number;

    for (number = 0; number < FDS_MAX; number++) {
        g_autofree char *path = g_strdup_printf("/proc/%d/fd/%u",
                                                (int)qtest_pid(qts), number);
        g_autofree char *link = g_file_read_link(path, NULL);
        uint8_t *bytes;
        int fd;

        if (!link || !g_str_has_prefix(link, MEMFD) || index--) {
            continue;
        }
        fd = open(path, O_RDWR | O_CLOEXEC);
        g_assert_cmpint(fd, >=, 0);
        bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        g_assert(bytes != MAP_FAILED);
        return bytes;
    }
    g_assert_not_reached();
}

/* The upper half of all bytes, which the canary is not in. */
static uint8_t shared_byte(uint64_t offset)
{
    return 0x80 | (offset + (offset >> 7)) % 127;
}

void gm_window_fill_shared(uint8_t *bytes, uint64_t size)
{
    uint64_t i;

    for (i = 0; i < size; i++) {
        bytes[i] = shared_byte(i);
    }
}

bool gm_window_is_filled(const uint8_t *bytes, uint64_t size, uint64_t offset)
{
    uint64_t i;

    for (i = 0; i < size; i++) {
        if (bytes[i] != shared_byte(offset + i)) {
            return false;
        }
    }
    return true;
}

bool gm_window_is_byte(const uint8_t *bytes, uint64_t size, uint8_t byte)
{
    return !size || (bytes[0] == byte && !memcmp(bytes, bytes + 1, size - 1));
}

bool gm_window_has_canary(const uint8_t *bytes, uint64_t size, unsigned count)
{
    g_autofree uint8_t *canary = g_malloc(count);

    memset(canary, GM_CANARY, count);
    return memmem(bytes, size, canary, count);
}

static pid_t watched;

static void too_late(int signal)
{
    static const char text[] = "Bail out! QEMU does not answer\n";
    ssize_t written = write(STDOUT_FILENO, text, sizeof(text) - 1);

    kill(watched, SIGKILL);
    _exit(written > 0 ? 1 : 2);
}

void gm_watchdog(QTestState *qts, unsigned seconds)
{
    const struct sigaction action = { .sa_handler = too_late };

    watched = qtest_pid(qts);
    sigaction(SIGALRM, &action, NULL);
    alarm(seconds);
}
