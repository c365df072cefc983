/*
 * Entry of 64-bit test guests: every CPU arrives in 32-bit protected mode with flat
 * segments, paging off and its number in EAX (a multiboot loader's magic counts as
 * CPU 0), and goes to long mode and guest_main(cpu).
 */
#include "guest.h"

#define STACK_SIZE 0x4000

	.section .start, "ax"
	.code32
	.align 4
	.long 0x1badb002, 0, -0x1badb002
	.globl _start
_start:
	cli
	cld
	cmp $0x2badb002, %eax
	jne 1f
	xor %eax, %eax
1:	mov %eax, %edi
	lgdt gdt_pointer
	mov $0x6a0, %eax		/* PAE PGE OSFXSR OSXMMEXCPT */
	mov %eax, %cr4
	mov $pml4, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx
	rdmsr
	or $0x901, %eax			/* NXE LME SCE */
	wrmsr
	mov $0x80010033, %eax		/* PG WP NE ET MP PE */
	mov %eax, %cr0
	ljmp $SEL_KCODE, $1f
	.code64
1:	mov $SEL_KDATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	xor %eax, %eax
	mov %eax, %fs
	mov %eax, %gs
	mov %edi, %eax
	inc %eax
	shl $14, %eax
	lea stacks(%rax), %rsp
	push %rdi
	push %rdi
	call cpu_init
	pop %rdi
	call guest_main
	mov failures, %edi
	call guest_exit

/* Exceptions: one stub a vector, all of one size. */
	.text
	.macro stubs from to
	.set n, \from
	.rept \to - \from + 1
	.align 16
	.if n == 8 || (n >= 10 && n <= 14) || n == 17 || n == 21 || n == 29 || n == 30
	nop
	.else
	push $0
	.endif
	push $n
	jmp trap_entry
	.set n, n + 1
	.endr
	.endm

	.globl stub_table
	.align 16
stub_table:
	stubs 0 255

trap_entry:
	push %rax
	push %rbx
	push %rcx
	push %rdx
	push %rsi
	push %rdi
	push %rbp
	push %r8
	push %r9
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	cld
	mov %rsp, %rdi
	call trap
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rbp
	pop %rdi
	pop %rsi
	pop %rdx
	pop %rcx
	pop %rbx
	pop %rax
	add $16, %rsp
	iretq

/* run_user(rip, rflags, arg): arg arrives in RDI. */
	.globl run_user, run_user32
run_user32:
	mov $SEL_UCODE32, %eax
	jmp 1f
run_user:
	mov $SEL_UCODE, %eax
1:	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	movq $-1, caught
	movq $1f, resume
	mov %rsp, resume+8
	mov %rdi, %rcx
	mov %rdx, %rdi
	pushq $SEL_UDATA
	pushq $user_stack_top
	or $2, %rsi
	push %rsi
	push %rax
	push %rcx
	iretq
1:	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

	.data
	.align 8
	.globl gdt, gdt_pointer
gdt:
	.quad 0
	.quad 0x00af9b000000ffff	/* 08 kernel code, 64-bit */
	.quad 0x00cf93000000ffff	/* 10 kernel data */
	.quad 0x00cffb000000ffff	/* 18 user code, 32-bit */
	.quad 0x00cff3000000ffff	/* 20 user data */
	.quad 0x00affb000000ffff	/* 28 user code, 64-bit */
	.quad 0x00cff3000000ffff	/* 30 user data again, for SYSEXIT */
	.quad 0x00cf9b000000ffff	/* 38 kernel code, 32-bit */
	.quad 0x00009b000000ffff	/* 40 kernel code, 16-bit */
	.quad 0x000093000000ffff	/* 48 kernel data, 16-bit */
	.fill (SEL_TSS - SEL_FREE) / 8, 8, 0
	.fill 8, 8, 0			/* a0 TSS of four CPUs */
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.quad gdt

	.align 4096
	.globl pml4, pdpt, pd
pml4:	.quad pdpt + 7
	.fill 511, 8, 0
pdpt:	.quad pd + 7
	.fill 2, 8, 0
	.quad pd_high + 7
	.fill 508, 8, 0
pd:	.set at, 0
	.rept 512
	.quad at + 0xe7
	.set at, at + 0x200000
	.endr
pd_high: .set at, 0xc0000000
	.rept 512
	.quad at + 0xf7			/* uncached */
	.set at, at + 0x200000
	.endr

	.bss
	.align 4096
stacks:	.fill STACK_SIZE * 4
	.globl user_stack, user_stack_top
user_stack:
	.fill 0x4000
user_stack_top:

	.section .note.GNU-stack, "", @progbits
