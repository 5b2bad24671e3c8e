/*
 * A line for each call, and failures that a test wants
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * STANDIN_LOG=FILE      the lines
 * STANDIN_FAIL=LIST     NAME:FIRST[-LAST]:ERRNO[:FIRMWARE|:progress], and
 *                       more of these after commas: the calls of that name
 *                       from the FIRST to the LAST one fail
 */

#include "standin.h"

#define TEXT_MAX        512
#define CALLS_MAX       32

static const struct {
    const char *name;
    int value;
} errors[] = {
    { "EPERM", EPERM }, { "ENOENT", ENOENT }, { "EINTR", EINTR },
    { "EIO", EIO }, { "E2BIG", E2BIG }, { "EBADF", EBADF },
    { "EAGAIN", EAGAIN }, { "ENOMEM", ENOMEM }, { "EFAULT", EFAULT },
    { "EBUSY", EBUSY }, { "EEXIST", EEXIST }, { "EINVAL", EINVAL },
    { "ENOSPC", ENOSPC }, { "ENOTTY", ENOTTY },
    { "EOPNOTSUPP", EOPNOTSUPP },
};

static struct {
    const char *name;
    unsigned count;
} calls[CALLS_MAX];

const char *errno_name(int error)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(errors); i++) {
        if (errors[i].value == error) {
            return errors[i].name;
        }
    }
    return error ? "E?" : "0";
}

static int errno_value(const char *name, size_t length)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(errors); i++) {
        if (strlen(errors[i].name) == length &&
            !strncmp(errors[i].name, name, length)) {
            return errors[i].value;
        }
    }
    return 0;
}

/* One write() for a line, so that threads do not cut each other's. */
static void write_line(const char *prefix, const char *format, va_list ap)
{
    static int fd = -2;
    char line[TEXT_MAX];
    int length, more;

    if (fd == -2) {
        const char *name = getenv("STANDIN_LOG");

        fd = name ? open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                         0600) : -1;
    }
    length = snprintf(line, sizeof(line), "%s", prefix);
    more = vsnprintf(line + length, sizeof(line) - length - 1, format, ap);
    length = MIN(length + more, (int)sizeof(line) - 2);
    line[length++] = '\n';
    if (fd >= 0 && write(fd, line, length) != length) {
        abort();
    }
}

void record(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    write_line("", format, ap);
    va_end(ap);
}

void unlawful(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    write_line("unlawful: ", format, ap);
    va_end(ap);
}

/* Counts from 1. */
static unsigned next_call(const char *name)
{
    unsigned i = 0;

    while (calls[i].name && strcmp(calls[i].name, name)) {
        if (++i == CALLS_MAX) {
            abort();
        }
    }
    calls[i].name = name;
    return ++calls[i].count;
}

static bool parse(const char *text, const char *call, unsigned n,
                  Injected *result)
{
    size_t length = strlen(call);
    unsigned first, last;
    int used;

    if (strncmp(text, call, length) || text[length] != ':') {
        return false;
    }
    text += length + 1;
    if (sscanf(text, "%u-%u:%n", &first, &last, &used) < 2) {
        if (sscanf(text, "%u:%n", &first, &used) < 1) {
            return false;
        }
        last = first;
    }
    if (n < first || n > last) {
        return false;
    }
    text += used;
    length = strcspn(text, ":,");
    result->error = errno_value(text, length);
    if (text[length] == ':') {
        result->progress = !strncmp(text + length, ":progress", 9);
        sscanf(text + length, ":%i", &result->firmware);
    }
    return result->error;
}

/* With vm_lock. */
Injected inject(const char *call)
{
    const char *text = getenv("STANDIN_FAIL");
    unsigned n = next_call(call);
    Injected result = { 0 };

    while (text && !parse(text, call, n, &result)) {
        text = strchr(text, ',');
        text += !!text;
    }
    return result;
}
