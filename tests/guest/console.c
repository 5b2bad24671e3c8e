/*
 * Lines on the serial port, failures, and the way out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "guest.h"

#define SERIAL          0x3f8
#define SERIAL_FCR      (SERIAL + 2)
#define SERIAL_LSR      (SERIAL + 5)
#define LSR_THR_EMPTY   0x20
#define FIFO_ENABLE     0x01
#define FIFO_DEPTH      16

#define DEBUG_EXIT      0xf4
#define EXIT_GOOD       0       /* QEMU exits with 1 */
#define EXIT_BAD        1       /* QEMU exits with 3 */

#define LINE_MAX        512
#define FAILURES_SHOWN  40

struct line {
    unsigned length;
    char text[LINE_MAX];
};

static int console_lock;

static void put_char(struct line *line, char c)
{
    if (line->length < LINE_MAX) {
        line->text[line->length++] = c;
    }
}

static void put_string(struct line *line, const char *s)
{
    while (*s) {
        put_char(line, *s++);
    }
}

static void put_number(struct line *line, uint64_t value, unsigned base)
{
    char digits[20];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (n) {
        put_char(line, digits[--n]);
    }
}

static void put_signed(struct line *line, int64_t value)
{
    if (value < 0) {
        put_char(line, '-');
        put_number(line, -(uint64_t)value, 10);
    } else {
        put_number(line, value, 10);
    }
}

/* %s, and %d, %u, %x with or without l. */
static void format_line(struct line *line, const char *format, va_list ap)
{
    bool wide;

    for (; *format; format++) {
        if (*format != '%') {
            put_char(line, *format);
            continue;
        }
        wide = *++format == 'l';
        format += wide;
        switch (*format) {
        case 's':
            put_string(line, va_arg(ap, const char *));
            break;
        case 'd':
            put_signed(line, wide ? va_arg(ap, long) : va_arg(ap, int));
            break;
        case 'u':
            put_number(line, wide ? va_arg(ap, unsigned long) :
                       va_arg(ap, unsigned), 10);
            break;
        case 'x':
            put_number(line, wide ? va_arg(ap, unsigned long) :
                       va_arg(ap, unsigned), 16);
            break;
        }
    }
}

/* An empty transmitter takes FIFO_DEPTH characters without looking. */
static void send_line(const struct line *line)
{
    unsigned i;

    outb(SERIAL_FCR, FIFO_ENABLE);
    for (i = 0; i < line->length; i++) {
        if (i % FIFO_DEPTH == 0) {
            while (!(inb(SERIAL_LSR) & LSR_THR_EMPTY)) {
                continue;
            }
        }
        outb(SERIAL, line->text[i]);
    }
    while (!(inb(SERIAL_LSR) & LSR_THR_EMPTY)) {
        continue;
    }
}

void say(const char *format, ...)
{
    struct line line = { .length = 0 };
    va_list ap;

    va_start(ap, format);
    format_line(&line, format, ap);
    va_end(ap);
    put_char(&line, '\n');

    while (__atomic_exchange_n(&console_lock, 1, __ATOMIC_ACQUIRE)) {
        asm volatile("pause");
    }
    send_line(&line);
    __atomic_store_n(&console_lock, 0, __ATOMIC_RELEASE);
}

/* Count a failed check, and show the first ones. */
void fail(struct check *check, const char *what, uint64_t at,
          uint64_t got, uint64_t want)
{
    static unsigned shown;

    check->bad++;
    if (__atomic_fetch_add(&shown, 1, __ATOMIC_RELAXED) < FAILURES_SHOWN) {
        say("fail what=%s at=0x%lx got=0x%lx want=0x%lx", what, at, got,
            want);
    }
}

void guest_exit(bool good)
{
    outl(DEBUG_EXIT, good ? EXIT_GOOD : EXIT_BAD);
    for (;;) {
        asm volatile("cli; hlt");
    }
}
