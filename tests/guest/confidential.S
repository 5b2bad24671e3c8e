/*
 * Firmware of a guest that is launched with SEV-SNP or TDX: it has the payload
 * in it, copies that to where it runs, and starts it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The table of GUIDed structures at the end is OVMF's.  With SNP it points to
 * metadata whose sections are those of a published launch, with TDX to those
 * of a TDVF image.  Guest memory:
 *
 *   0x00800000  SNP: prevalidated
 *   0x00809000  TDX: TD HOB
 *   0x0080a000  SNP: prevalidated; 0x0080b000 TDX: temporary memory
 *   0x0080d000  SNP: secrets
 *   0x0080e000  SNP: CPUID
 *   0x0080f000  SNP: calling area of an SVSM
 *   0x00810000  SNP: hashes of a kernel, and prevalidated; TDX: temporary
 */

#define CR0_PE              0x00000001
#define CR0_NW              0x20000000
#define CR0_CD              0x40000000
#define SEL_CODE32          0x08
#define SEL_DATA            0x10
#define SIZE                0x10000
#define BASE                0xffff0000
#define RESET_VECTOR        0xfff0
#define TABLE_END           0xffe0

#define PAYLOAD_BASE        0x100000
#define FW_CFG_SELECTOR     0x510
#define FW_CFG_CMDLINE_SIZE 0x14
#define FW_CFG_CMDLINE_DATA 0x15

#define START_INFO          0x6000
#define START_INFO_SIZE     56
#define START_INFO_MAGIC    0x336ec578
#define START_INFO_CMDLINE  24
#define NUMBER              0x6100
#define CMDLINE             0x6200
#define STACK               0x6000

#define SNP_SEC_MEM         1
#define SNP_SECRETS         2
#define SNP_CPUID           3
#define SNP_SVSM_CAA        4
#define SNP_KERNEL_HASHES   0x10

#define TDVF_BFV            0
#define TDVF_CFV            1
#define TDVF_TD_HOB         2
#define TDVF_TEMP_MEM       3
#define TDVF_MR_EXTEND      1
#define CFV_SIZE            0x1000
#define BFV_SIZE            (SIZE-CFV_SIZE)
#define BFV_BASE            (BASE+CFV_SIZE)

#ifdef TDX
#define TABLE_SIZE          40
#else
#define TABLE_SIZE          88
#endif

        .macro  guid a, b, c, d, e:vararg
        .long   \a
        .word   \b, \c
        .byte   \d, \e
        .endm

        .macro  snp_section base, size, type
        .long   \base, \size, \type
        .endm

        .macro  tdvf_section offset, data_size, base, size, type, attributes
        .long   \offset, \data_size
        .quad   \base, \size
        .long   \type, \attributes
        .endm

        .text
        .globl  firmware
firmware:
        /* A TDVF image begins with its variables. */
#ifdef TDX
        .ascii  "variables"
        .org    CFV_SIZE
#endif
payload:
        .incbin PAYLOAD
payload_end:

#ifndef TDX
        .code16
start16:
        cli
        lgdtl   %cs:(gdt_pointer - firmware)
        movl    %cr0, %eax
        andl    $~(CR0_CD | CR0_NW), %eax
        orl     $CR0_PE, %eax
        movl    %eax, %cr0
        ljmpl   $SEL_CODE32, $start32

/* Other processors, if they were started here. */
park16:
        cli
        hlt
        jmp     park16
#endif

        .code32
start32:
        cli
        cld
        lgdt    gdt_pointer
        movl    $SEL_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $STACK, %esp
        movl    %cr0, %eax
        andl    $~(CR0_CD | CR0_NW), %eax
        movl    %eax, %cr0

        /* Private memory contains anything. */
        movl    $payload, %esi
        movl    $PAYLOAD_BASE, %edi
        movl    $(payload_end - payload), %ecx
        rep movsb
        movl    $PAYLOAD_END, %ecx
        subl    %edi, %ecx
        xorl    %eax, %eax
        rep stosb
        movl    $START_INFO, %edi
        movl    $START_INFO_SIZE, %ecx
        rep stosb
        movl    $START_INFO_MAGIC, START_INFO
        movl    $CMDLINE, START_INFO + START_INFO_CMDLINE

        movl    $FW_CFG_CMDLINE_SIZE, %eax
        movl    $NUMBER, %edi
        movl    $4, %ecx
        call    read_item
        movl    $FW_CFG_CMDLINE_DATA, %eax
        movl    $CMDLINE, %edi
        movl    NUMBER, %ecx
        call    read_item

        movl    $START_INFO, %ebx
        movl    $PAYLOAD_ENTRY, %eax
        jmp     *%eax

/*
 * ECX bytes of the fw_cfg item EAX to EDI.  Byte by byte: the host cannot
 * write to this memory, as it would have to for INS.
 */
read_item:
        movw    $FW_CFG_SELECTOR, %dx
        outw    %ax, %dx
        incw    %dx
1:      jecxz   2f
        inb     %dx, %al
        stosb
        decl    %ecx
        jmp     1b
2:      ret

        /* Accessed already: the processor cannot write that to a ROM. */
        .balign 8
gdt:
        .quad   0
        .quad   0x00cf9b000000ffff      /* 32-bit code */
        .quad   0x00cf93000000ffff      /* data */
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt

        .balign 8
metadata:
#ifdef TDX
        .ascii  "TDVF"
        .long   metadata_end - metadata, 1, (metadata_end - sections) / 32
sections:
        tdvf_section CFV_SIZE, BFV_SIZE, BFV_BASE, BFV_SIZE, TDVF_BFV, \
                     TDVF_MR_EXTEND
        tdvf_section 0, CFV_SIZE, BASE, CFV_SIZE, TDVF_CFV, 0
        tdvf_section 0, 0, 0x810000, 0x10000, TDVF_TEMP_MEM, 0
        tdvf_section 0, 0, 0x80b000, 0x2000, TDVF_TEMP_MEM, TDVF_MR_EXTEND
        tdvf_section 0, 0, 0x809000, 0x2000, TDVF_TD_HOB, 0
#else
        .ascii  "ASEV"
        .long   metadata_end - metadata, 1, (metadata_end - sections) / 12
sections:
        snp_section 0x800000, 0x9000, SNP_SEC_MEM
        snp_section 0x80a000, 0x3000, SNP_SEC_MEM
        snp_section 0x80d000, 0x1000, SNP_SECRETS
        snp_section 0x80e000, 0x1000, SNP_CPUID
        snp_section 0x80f000, 0x1000, SNP_SVSM_CAA
        snp_section 0x810000, 0x1000, SNP_KERNEL_HASHES
        snp_section 0x811000, 0xf000, SNP_SEC_MEM
#endif
metadata_end:

        /* Read from its end: data, length, GUID. */
        .org    TABLE_END - TABLE_SIZE
table:
#ifdef TDX
        .long   SIZE - (metadata - firmware)
        .word   22
        guid    0xe47a6535, 0x984a, 0x4798, \
                0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2
#else
        .long   SIZE - (metadata - firmware)
        .word   22
        guid    0xdc886566, 0x984a, 0x4798, \
                0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc
        /* Where hashes of the kernel go: address and size. */
        .long   0x810c00, 0x400
        .word   26
        guid    0x7255371f, 0x3a3b, 0x4b04, \
                0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54
        /* Where other processors start. */
        .long   park16
        .word   22
        guid    0x00f771de, 0x1a7e, 0x4fcb, \
                0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e
#endif
        .word   table_end - table
        guid    0x96b582de, 0x1fb2, 0x45f7, \
                0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d
table_end:
        .org    TABLE_END

        .org    RESET_VECTOR
#ifdef TDX
        .code32
        jmp     start32
#else
        .code16
        jmp     start16
#endif
        .org    SIZE

        .section .note.GNU-stack, "", @progbits
