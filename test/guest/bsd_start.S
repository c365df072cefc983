/*
 * Entry of a guest that bhyveload starts: everything the processor has on arrival
 * goes into "arrival" (bsd_kernel.c) before anything is changed.
 */
	.section .start, "ax"
	.code64
	.globl _start
_start:
	mov %rax, arrival
	mov %rcx, arrival+8
	mov %rdx, arrival+16
	mov %rbx, arrival+24
	mov %rsp, arrival+32
	mov %rbp, arrival+40
	mov %rsi, arrival+48
	mov %rdi, arrival+56
	mov %r8, arrival+64
	mov %r9, arrival+72
	mov %r10, arrival+80
	mov %r11, arrival+88
	mov %r12, arrival+96
	mov %r13, arrival+104
	mov %r14, arrival+112
	mov %r15, arrival+120
	lea stack_top(%rip), %rsp
	pushfq
	pop %rax
	mov %rax, arrival+128
	mov %cr0, %rax
	mov %rax, arrival+136
	mov %cr3, %rax
	mov %rax, arrival+144
	mov %cr4, %rax
	mov %rax, arrival+152
	mov $0xc0000080, %ecx
	rdmsr
	shl $32, %rdx
	or %rdx, %rax
	mov %rax, arrival+160
	mov %es, arrival+168
	mov %cs, arrival+170
	mov %ss, arrival+172
	mov %ds, arrival+174
	mov %fs, arrival+176
	mov %gs, arrival+178
	str arrival+180
	sldt arrival+182
	sgdt arrival+184
	sidt arrival+200
	call kernel_main
1:	cli
	hlt
	jmp 1b

	.bss
	.align 4096
	.fill 0x4000
stack_top:

	.section .note.GNU-stack, "", @progbits
