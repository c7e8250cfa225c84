/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bare.S - from the reset vector to long mode, in a ROM of 64 KiB
 *
 * The ROM is seen below 1 MiB and, by the first instructions, below 4 GiB. Linked to run at the former.
 * The first 4 GiB are mapped one to one.
 */
#define CODE32		8
#define DATA		16
#define CODE64		24
#define PML4		0x1000
#define PDPT		0x2000
#define PAGE_DIRS	0x3000	/* four, of 2 MiB pages */
#define STACK		0x90000

	.section .text.boot, "ax"
	.code16
boot:
	cli
	movw	$0xf000, %ax
	movw	%ax, %ds
	lgdtl	gdt_pointer - 0xf0000
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$CODE32, $protected

	.code32
protected:
	movw	$DATA, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movl	$PDPT + 3, PML4
	movl	$PDPT, %edi
	movl	$PAGE_DIRS + 3, %eax
1:	movl	%eax, (%edi)
	addl	$0x1000, %eax
	addl	$8, %edi
	cmpl	$PDPT + 4 * 8, %edi
	jne	1b
	movl	$PAGE_DIRS, %edi
	movl	$0x83, %eax		/* present, writable, large */
2:	movl	%eax, (%edi)
	addl	$0x200000, %eax
	addl	$8, %edi
	cmpl	$PAGE_DIRS + 0x4000, %edi
	jne	2b
	movl	%cr4, %eax
	orl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	$PML4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER */
	rdmsr
	orl	$0x100, %eax		/* long mode */
	wrmsr
	movl	%cr0, %eax
	andl	$0x9fffffff, %eax	/* caches on */
	orl	$0x80000000, %eax	/* paging */
	movl	%eax, %cr0
	ljmpl	$CODE64, $long_mode

	.code64
long_mode:
	movl	$STACK, %esp
	call	bare_main
3:	hlt
	jmp	3b

	.section .rodata
	.balign	8
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff	/* CODE32 */
	.quad	0x00cf93000000ffff	/* DATA */
	.quad	0x00af9b000000ffff	/* CODE64 */
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt

	.section .reset, "ax"
	.code16
	.globl	reset
reset:
	jmp	boot
	.org	16, 0
	.section .note.GNU-stack, "", @progbits
