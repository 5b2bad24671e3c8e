/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Write a disk and read it back, checking every byte
 *
 * io DEVICE FIRST-MIB MIB SEED [direct]
 *
 * Prints "io DEVICE bytes=N bad=N ms=N": the bytes that were read, and those
 * of them that are not what was written.  The pattern depends on seed and
 * place, so that a block that went elsewhere is found, too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define MIB     (1024 * 1024L)
#define CHUNK   (MIB / 4)

static uint64_t word_at(uint64_t seed, uint64_t offset)
{
    uint64_t z = seed * 0x9e3779b97f4a7c15 + offset + 1;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static void die(const char *what)
{
    fprintf(stderr, "io: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void fill(uint64_t *buffer, uint64_t seed, uint64_t offset)
{
    long i;

    for (i = 0; i < CHUNK / 8; i++) {
        buffer[i] = word_at(seed, offset + i * 8);
    }
}

static long bad_bytes(const uint64_t *buffer, uint64_t seed, uint64_t offset)
{
    long bad = 0, i;

    for (i = 0; i < CHUNK / 8; i++) {
        uint64_t differs = buffer[i] ^ word_at(seed, offset + i * 8);

        for (; differs; differs >>= 8) {
            bad += (differs & 0xff) != 0;
        }
    }
    return bad;
}

static long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
    int direct = argc > 5 && !strcmp(argv[5], "direct") ? O_DIRECT : 0;
    long first, end, offset, bad = 0, start = now_ms();
    uint64_t *buffer, seed;
    int fd;

    if (argc < 5) {
        fprintf(stderr, "usage: io DEVICE FIRST-MIB MIB SEED [direct]\n");
        return 1;
    }
    first = atol(argv[2]) * MIB;
    end = first + atol(argv[3]) * MIB;
    seed = strtoull(argv[4], NULL, 0);
    if (posix_memalign((void **)&buffer, 4096, CHUNK)) {
        die("memory");
    }
    fd = open(argv[1], O_RDWR | direct);
    if (fd < 0) {
        die(argv[1]);
    }

    for (offset = first; offset < end; offset += CHUNK) {
        fill(buffer, seed, offset);
        if (pwrite(fd, buffer, CHUNK, offset) != CHUNK) {
            die("write");
        }
    }
    /* To the disk, and from there again. */
    if (fsync(fd) || ioctl(fd, BLKFLSBUF, 0)) {
        die("flush");
    }
    for (offset = first; offset < end; offset += CHUNK) {
        memset(buffer, 0x55, CHUNK);
        if (pread(fd, buffer, CHUNK, offset) != CHUNK) {
            die("read");
        }
        bad += bad_bytes(buffer, seed, offset);
    }
    printf("io %s bytes=%ld bad=%ld ms=%ld\n", argv[1], end - first, bad,
           now_ms() - start);
    return bad != 0;
}
