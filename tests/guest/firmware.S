/*
 * Firmware that starts a PVH kernel and does nothing else
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * SeaBIOS switches memory between ROM and RAM; a QEMU that loses the
 * state of such memory does not get through it.  QEMU has put the kernel
 * where it belongs, entry and command line are in fw_cfg.
 */

#define CR0_PE              0x00000001
#define CR0_NW              0x20000000
#define CR0_CD              0x40000000
#define SEL_CODE32          0x08
#define SEL_DATA            0x10
#define SIZE                0x10000
#define RESET_VECTOR        0xfff0

#define FW_CFG_SELECTOR     0x510
#define FW_CFG_KERNEL_ENTRY 0x10
#define FW_CFG_CMDLINE_SIZE 0x14
#define FW_CFG_CMDLINE_DATA 0x15

#define START_INFO          0x6000
#define START_INFO_SIZE     56
#define START_INFO_MAGIC    0x336ec578
#define START_INFO_CMDLINE  24
#define NUMBER              0x6100
#define CMDLINE             0x6200

        /* ECX bytes of a fw_cfg item to EDI. */
        .macro  read_item item
        movw    $FW_CFG_SELECTOR, %dx
        movw    $\item, %ax
        outw    %ax, %dx
        incw    %dx
        rep insb
        .endm

        .text
        .code16
        .globl  firmware
firmware:
        cli
        cld
        lgdtl   %cs:(gdt_pointer - firmware)
        movl    %cr0, %eax
        andl    $~(CR0_CD | CR0_NW), %eax
        orl     $CR0_PE, %eax
        movl    %eax, %cr0
        ljmpl   $SEL_CODE32, $start32

        .code32
start32:
        movl    $SEL_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss

        xorl    %eax, %eax
        movl    $START_INFO, %edi
        movl    $START_INFO_SIZE, %ecx
        rep stosb
        movl    $START_INFO_MAGIC, START_INFO
        movl    $CMDLINE, START_INFO + START_INFO_CMDLINE

        movl    $4, %ecx
        movl    $NUMBER, %edi
        read_item FW_CFG_CMDLINE_SIZE
        movl    NUMBER, %ecx
        movl    $CMDLINE, %edi
        read_item FW_CFG_CMDLINE_DATA
        movl    $4, %ecx
        movl    $NUMBER, %edi
        read_item FW_CFG_KERNEL_ENTRY

        movl    $START_INFO, %ebx
        jmp     *NUMBER

        /* Accessed already: the processor cannot write that to a ROM. */
        .balign 8
gdt:
        .quad   0
        .quad   0x00cf9b000000ffff      /* 32-bit code */
        .quad   0x00cf93000000ffff      /* data */
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt

        .org    RESET_VECTOR
        .code16
        jmp     firmware
        .org    SIZE

        .section .note.GNU-stack, "", @progbits
