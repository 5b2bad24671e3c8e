/*
 * PVH entry, identity page tables, long mode, exception stubs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * 1. QEMU's option ROM enters start32 in 32-bit protected mode, paging
 *    off, EBX = physical address of the PVH start_info.
 * 2. Map 0..4 GiB one to one with 2 MiB pages, enter long mode.
 * 3. Call guest_main(start_info) on the boot stack.
 * 4. Other processors come through ap_start (copied below 1 MiB), take
 *    the same page tables and call ap_main(index).
 */

#define PTE_PRESENT_WRITE   0x003
#define PTE_PRESENT_LARGE   0x083
#define CR0_PE              0x00000001
#define CR0_PG              0x80000000
#define CR4_PAE             0x00000020
#define MSR_EFER            0xc0000080
#define EFER_LME            0x00000100
#define SEL_CODE64          0x08
#define SEL_DATA            0x10
#define SEL_CODE32          0x18
#define STACK_SIZE          0x4000
#define LAPIC_EOI           0xfee000b0
#define AP_BASE             0x8000
#define XEN_ELFNOTE_PHYS32_ENTRY 18

        .section .note.pvh, "a", @note
        .balign 4
        .long   4                       /* size of the name */
        .long   8                       /* size of the descriptor */
        .long   XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .quad   start32

        .text
        .code32
        .globl  start32
start32:
        cli
        cld
        movl    %ebx, %ebp              /* start_info */

        /* Page directories: 2048 entries of 2 MiB. */
        movl    $pd, %edi
        movl    $PTE_PRESENT_LARGE, %eax
        movl    $2048, %ecx
1:      movl    %eax, (%edi)
        movl    $0, 4(%edi)
        addl    $0x200000, %eax
        addl    $8, %edi
        loop    1b

        /* Page directory pointers: four of 1 GiB. */
        movl    $pdpt, %edi
        movl    $(pd + PTE_PRESENT_WRITE), %eax
        movl    $4, %ecx
2:      movl    %eax, (%edi)
        addl    $0x1000, %eax
        addl    $8, %edi
        loop    2b

        movl    $(pdpt + PTE_PRESENT_WRITE), pml4
        movl    $boot_stack_top, %esp
        call    long_mode
        ljmp    $SEL_CODE64, $start64

/* Leave 32-bit mode, all but the far jump.  Uses EAX, ECX, EDX. */
long_mode:
        lgdt    gdt_pointer
        movl    %cr4, %eax
        orl     $CR4_PAE, %eax
        movl    %eax, %cr4
        movl    $pml4, %eax
        movl    %eax, %cr3
        movl    $MSR_EFER, %ecx
        rdmsr
        orl     $EFER_LME, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $(CR0_PG | CR0_PE), %eax
        movl    %eax, %cr0
        ret

        .code64
start64:
        call    load_segments
        movl    %ebp, %edi
        call    guest_main
3:      hlt
        jmp     3b

load_segments:
        movl    $SEL_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    %eax, %fs
        movl    %eax, %gs
        ret

/*
 * Other processors.  [ap_start, ap_end) runs at AP_BASE in real mode;
 * they come one at a time, ap_stack_top is set for each.
 */
        .globl  ap_start, ap_end, ap_stack_top
        .code16
ap_start:
        cli
        movw    %cs, %ax
        movw    %ax, %ds
        lgdtl   (ap_gdt_pointer - ap_start)
        movl    %cr0, %eax
        orl     $CR0_PE, %eax
        movl    %eax, %cr0
        ljmpl   $SEL_CODE32, $ap_start32
        .balign 8
ap_gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt
ap_end:

        .code32
ap_start32:
        movl    $SEL_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %ss
        movl    ap_stack_top, %esp
        call    long_mode
        ljmp    $SEL_CODE64, $ap_start64

        .code64
ap_start64:
        call    load_segments
        call    ap_main
4:      hlt
        jmp     4b

/* One stub per exception: the same frame with and without error code. */
        .altmacro
        .macro  stub vector
        .balign 16
        .if     \vector == 8 || (\vector >= 10 && \vector <= 14) || \
                \vector == 17 || \vector == 21
        .else
        pushq   $0
        .endif
        pushq   $\vector
        jmp     trap_common
        .endm

        .globl  trap_stubs
        .balign 16
trap_stubs:
        .set    i, 0
        .rept   32
        stub    %i
        .set    i, i + 1
        .endr

/* struct trap_frame *: vector, error, rip, cs, rflags, rsp, ss. */
trap_common:
        movq    %rsp, %rdi
        andq    $-16, %rsp
        call    trap_report
5:      hlt
        jmp     5b

/* smp_wake() of another vCPU: that it came is all. */
        .globl  wake_stub
wake_stub:
        pushq   %rax
        movl    $LAPIC_EOI, %eax
        movl    $0, (%rax)
        popq    %rax
        iretq

        .section .rodata
        .balign 8
gdt:
        .quad   0
        .quad   0x00af9a000000ffff      /* 64-bit code */
        .quad   0x00cf92000000ffff      /* data */
        .quad   0x00cf9a000000ffff      /* 32-bit code */
gdt_end:
gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt

        .bss
        .balign 4096
pml4:   .skip   4096
pdpt:   .skip   4096
pd:     .skip   4 * 4096
        .skip   STACK_SIZE
boot_stack_top:
ap_stack_top:
        .skip   8

        .section .note.GNU-stack, "", @progbits
