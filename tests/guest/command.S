/*
 * A Linux image that is never run: QEMU takes a command line with a kernel only
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define SECTOR          512
#define PROTOCOL        0x20c
#define LOADED_HIGH     1

        .text
        .globl  command
command:
        .org    0x1f1
        .byte   1                       /* sectors of setup */
        .org    0x202
        .ascii  "HdrS"
        .word   PROTOCOL
        .org    0x211
        .byte   LOADED_HIGH
        .org    0x22c
        .long   0x7fffffff              /* initrd_addr_max */
        .org    0x238
        .long   2047                    /* cmdline_size */
        .org    4 * SECTOR

        .section .note.GNU-stack, "", @progbits
