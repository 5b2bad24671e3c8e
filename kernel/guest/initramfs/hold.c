/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Keep a page, and read it until its memory has an error
 *
 * hold SECONDS
 *
 * Prints "hold gpa=0x..." and then "hold bad=N code=N" when the kernel tells
 * of the error: the bytes that were wrong before, and the code of SIGBUS,
 * which is 4 for an access to memory with an error.  Without an error it is 0.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE    4096
#define PATTERN 0x5a

static sigjmp_buf back;
static volatile int code;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)context;
    code = info->si_code;
    siglongjmp(back, 1);
}

static uint64_t physical_address(const void *page)
{
    uint64_t entry = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY);

    if (pread(fd, &entry, 8, (uintptr_t)page / PAGE * 8) != 8) {
        perror("hold: pagemap");
        exit(1);
    }
    close(fd);
    return (entry & ((1ULL << 55) - 1)) * PAGE;
}

int main(int argc, char **argv)
{
    struct sigaction action = { .sa_sigaction = on_sigbus,
                                .sa_flags = SA_SIGINFO };
    time_t end = time(NULL) + (argc > 1 ? atol(argv[1]) : 0);
    volatile unsigned char *page;
    volatile int bad = 0;
    int i;

    page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (page == MAP_FAILED || sigaction(SIGBUS, &action, NULL)) {
        perror("hold");
        return 1;
    }
    for (i = 0; i < PAGE; i++) {
        page[i] = PATTERN;
    }
    printf("hold gpa=%#llx\n",
           (unsigned long long)physical_address((void *)page));
    fflush(stdout);

    if (!sigsetjmp(back, 1)) {
        while (time(NULL) < end) {
            for (i = 0; i < PAGE; i++) {
                bad += page[i] != PATTERN;
            }
            usleep(10000);
        }
    }
    printf("hold bad=%d code=%d\n", bad, code);
    return bad != 0;
}
