/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Keep memory busy, and check that it holds what was written
 *
 * mem MIB SECONDS
 *
 * Prints "mem bytes=N bad=N": the bytes that were read, and those of them
 * that were wrong.  At least one round is made.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    uint64_t words, i, round, bytes = 0, bad = 0;
    volatile uint64_t *memory;
    time_t end;

    if (argc < 3) {
        fprintf(stderr, "usage: mem MIB SECONDS\n");
        return 1;
    }
    words = strtoull(argv[1], NULL, 0) * (1024 * 1024 / 8);
    end = time(NULL) + atol(argv[2]);
    memory = malloc(words * 8);
    if (!memory) {
        perror("mem");
        return 1;
    }

    for (round = 1; round == 1 || time(NULL) < end; round++) {
        for (i = 0; i < words; i++) {
            memory[i] = i * 0x9e3779b97f4a7c15 ^ round;
        }
        for (i = 0; i < words; i++) {
            bad += memory[i] == (i * 0x9e3779b97f4a7c15 ^ round) ? 0 : 8;
        }
        bytes += words * 8;
    }
    printf("mem bytes=%llu bad=%llu\n", (unsigned long long)bytes,
           (unsigned long long)bad);
    return bad != 0;
}
