/*
 * Real mode, unreal mode, 16- and 32-bit protected mode, long mode, compatibility
 * mode and all the way back. The exit status is the number of the first check that
 * failed.
 */
#define PORT_EXIT 0xf4
#define PORT_ECHO 0xf8

	/* ZF says whether check n holds. */
	.macro check n
	je 99f
	mov $\n, %al
	out %al, $PORT_EXIT
99:
	.endm
	.macro equal n a b
	cmp \a, \b
	check \n
	.endm
	.macro vector n to
	movw $\to, \n * 4
	movw $0, \n * 4 + 2
	.endm

	.text
	.code16
	.globl _start
_start:
	cli
	xor %ax, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov $0x7000, %sp
	cld

	/* INT n through the vector table: six bytes, IF cleared, IRET restores. */
	vector 0x40 int40
	sti
	mov $0x1234, %bx
	int $0x40
	equal 1 $0x5678 %bx
	equal 2 $0x7000 %sp
	testb $2, handler_if
	check 48
	mov saved_if, %al
	and $2, %al
	equal 49 $2 %al
	pushf
	pop %ax
	test $0x200, %ax
	setz %al
	equal 3 $0 %al
	cli

	/* Faults push the faulting IP and no error code. */
	vector 0 fault
	vector 6 fault
	vector 12 fault
	vector 13 fault
	movw $1f, resume16
	xor %cx, %cx
	xor %dx, %dx
bad_div:
	div %cx
	mov $4, %al
	out %al, $PORT_EXIT
1:	cmpw $bad_div, fault_ip
	check 5
	equal 6 $0x7000 %sp
	movw $1f, resume16
	movw $0, fault_ip
bad_word:
	mov 0xffff, %ax
	mov $7, %al
	out %al, $PORT_EXIT
1:	cmpw $bad_word, fault_ip
	check 8
	movw $1f, resume16
bad_ud:
	ud2
	mov $9, %al
	out %al, $PORT_EXIT
1:	cmpw $bad_ud, fault_ip
	check 10
	/* Privileged table instructions exist, protected-mode ones do not. */
	movw $1f, resume16
bad_str:
	str %ax
	mov $11, %al
	out %al, $PORT_EXIT
1:	cmpw $bad_str, fault_ip
	check 12
	/* A push that wraps in the middle: #SS. */
	movw $1f, resume16
	mov $0x7000, %bp
	movl $0x12345678, %eax
	mov $0xffff, %bx
bad_ss:
	mov %ss:(%bx), %ax
	mov $13, %al
	out %al, $PORT_EXIT
1:	cmpw $bad_ss, fault_ip
	check 14

	/* Segments, far calls, LES, PUSHA, ENTER, XLAT, LOOP, string with segments. */
	mov $0x1000, %ax
	mov %ax, %es
	movw $0xabcd, %es:4
	mov $0x0fff, %ax
	mov %ax, %fs
	cmpw $0xabcd, %fs:0x14
	check 15
	lcall $0x0800, $(far_target - 0x8000)
	equal 16 $0x0800 %dx
	equal 17 $0x7000 %sp
	push $0x1111
	push $0x2222
	lcall $0, $far_pop
	equal 18 $0x7000 %sp
	les far_pointer, %di
	mov %es, %ax
	equal 19 $0x2345 %ax
	equal 20 $0x6789 %di
	mov $1, %ax
	mov $2, %cx
	mov $3, %dx
	pusha
	xor %ax, %ax
	xor %cx, %cx
	popa
	add %cx, %ax
	add %dx, %ax
	equal 21 $6 %ax
	mov $0x7000, %bp
	enter $8, $0
	mov %sp, %ax
	leave
	equal 22 $0x6ff6 %ax
	equal 23 $0x7000 %sp
	mov $table, %bx
	mov $2, %al
	xlat
	equal 24 $0x33 %al
	mov $5, %cx
	xor %ax, %ax
1:	inc %ax
	loop 1b
	equal 25 $5 %ax
	jcxz 1f
	mov $26, %al
	out %al, $PORT_EXIT
1:	xor %ax, %ax
	mov %ax, %es
	mov $0xfffe, %di
	mov $2, %cx
	mov $0x5a, %al
	rep stosb			/* DI wraps */
	equal 27 $0 %di
	/* 32-bit operands and addresses by prefix. */
	mov $0x10000, %ebx
	mov $0xffff1234, %eax
	add $0x0001edcc, %eax
	equal 28 $0 %ax
	mov $0x6000, %ebx
	movl $0x11223344, (%ebx)
	addr32 mov (%ebx), %ecx
	cmp $0x11223344, %ecx
	check 29
	movw $1f, resume16
	mov $0x100000, %ebx
bad_addr:
	addr32 mov (%ebx), %al		/* beyond the 64 KiB limit */
	mov $30, %al
	out %al, $PORT_EXIT
1:	cmpw $bad_addr, fault_ip
	check 31
	/* Ports. */
	mov $0x12345678, %eax
	mov $PORT_ECHO, %dx
	out %eax, %dx
	xor %eax, %eax
	in %dx, %ax
	equal 32 $0x5678 %ax

	/* Unreal mode: a big DS survives the return to real mode. */
	lgdt gdt_pointer
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	mov $0x18, %cx
	mov %cx, %ds
	and $0xfe, %al
	mov %eax, %cr0
	ljmp $0, $1f
1:	xor %cx, %cx
	mov %cx, %ds
	mov $0x200000, %ebx
	addr32 movl $0x600dcafe, (%ebx)
	addr32 mov (%ebx), %eax
	cmp $0x600dcafe, %eax
	check 33

	/* SMSW, LMSW: into protected mode, not out of it. */
	smsw %ax
	or $1, %ax
	lmsw %ax
	ljmp $0x20, $1f			/* 16-bit protected */
1:	mov $0x28, %ax
	mov %ax, %ds
	mov %ax, %ss
	mov %ax, %es
	xor %ax, %ax
	lmsw %ax
	smsw %ax
	and $1, %ax
	equal 34 $1 %ax
	ljmpl $0x08, $prot32
	.code32
prot32:	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $0x7000, %esp
	push $0x12345678
	pop %ebx
	equal 35 $0x12345678 %ebx
	/* 16-bit stack under 32-bit code: only SP moves. */
	mov $0x28, %eax
	mov %eax, %ss
	mov $0xabc07000, %esp
	push %eax
	equal 36 $0xabc06ffc %esp
	pop %ecx
	equal 37 $0x28 %ecx
	mov $0x10, %eax
	mov %eax, %ss
	mov $0x7000, %esp

	/* Long mode. */
	mov $0x20, %eax
	mov %eax, %cr4
	mov $pml4, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx
	rdmsr
	or $0x100, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80000000, %eax
	mov %eax, %cr0
	rdmsr
	and $0x500, %eax
	equal 38 $0x500 %eax		/* LMA came with paging; still compatibility mode */
	mov $0xffffffff, %eax
	inc %eax
	equal 39 $0 %eax
	ljmp $0x30, $long64
	.code64
long64:	movabs $0x123456789abcdef0, %rax
	mov %rax, %rbx
	shr $32, %rbx
	cmp $0x12345678, %rbx
	check 40
	mov $-1, %eax			/* zero-extends */
	shr $32, %rax
	check 41
	movq $0x7000, %rsp
	/* Null segments are fine. */
	xor %eax, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	push $5
	pop %rcx
	equal 42 $5 %rcx
	/* To compatibility mode by IRET, and back by a far jump. */
	pushq $0x10
	pushq $0x7000
	pushq $2
	pushq $0x08
	pushq $compat
	iretq
	.code32
compat:	mov $0x10, %eax
	mov %eax, %ds
	mov %cs, %eax
	equal 43 $8 %eax
	.byte 0x40			/* INC EAX here, REX there */
	equal 44 $9 %eax
	mov $0xfffffffe, %eax
	mov pml4 + 2(%eax), %ebx	/* wraps at 4 GiB */
	equal 45 $pdpt+0x27 %ebx
	push $0x30
	push $1f
	lret
	.code64
1:	mov $0x20, %eax
	/* Out: compatibility mode, paging off, LME off, 16-bit, real. */
	pushq $0x08
	pushq $1f
	lretq
	.code32
1:	mov $0x10, %eax
	mov %eax, %ss
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0
	mov $0xc0000080, %ecx
	rdmsr
	test $0x400, %eax
	check 46
	and $~0x100, %eax
	wrmsr
	xor %eax, %eax
	mov %eax, %cr4
	mov $0x28, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	ljmp $0x20, $1f
	.code16
1:	mov %cr0, %eax
	and $0xfffe, %ax
	mov %eax, %cr0
	ljmp $0, $1f
1:	xor %ax, %ax
	mov %ax, %ds
	mov %ax, %ss
	mov $0x7000, %sp
	mov $0x1234, %bx
	int $0x40
	equal 47 $0x5678 %bx
	xor %al, %al
	out %al, $PORT_EXIT
	hlt

int40:	mov $0x5678, %bx
	push %bp
	mov %sp, %bp
	movb 7(%bp), %al		/* the caller's IF ... */
	pop %bp
	mov %al, saved_if
	pushf
	pop %ax				/* ... and ours */
	mov %ah, handler_if
	iret

fault:	push %bp
	mov %sp, %bp
	push %ax
	mov %cs:2(%bp), %ax
	mov %ax, %cs:fault_ip
	mov %cs:resume16, %ax
	mov %ax, %cs:2(%bp)
	pop %ax
	pop %bp
	iret

far_target:
	mov %cs, %dx
	lret
far_pop:
	lret $4

	.align 8
resume16: .word 0
fault_ip: .word 0
saved_if: .byte 0
handler_if: .byte 0
far_pointer: .word 0x6789, 0x2345
table:	.byte 0x11, 0x22, 0x33
	.align 8
gdt:	.quad 0
	.quad 0x00cf9b000000ffff	/* 08 32-bit code */
	.quad 0x00cf93000000ffff	/* 10 32-bit data */
	.quad 0x008f93000000ffff	/* 18 big data for unreal mode */
	.quad 0x00009b000000ffff	/* 20 16-bit code */
	.quad 0x000093000000ffff	/* 28 16-bit data */
	.quad 0x00af9b000000ffff	/* 30 64-bit code */
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.long gdt
	.align 4096
pml4:	.quad pdpt + 7
	.fill 511, 8, 0
pdpt:	.quad pd + 7
	.fill 511, 8, 0
pd:	.quad 0x87
	.quad 0x200087
	.fill 510, 8, 0

	.section .note.GNU-stack, "", @progbits
