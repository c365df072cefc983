/*
 * Entry of a guest that grub-bhyve starts in 32-bit mode: what the processor has on
 * arrival goes into "arrival" (flat_kernel.c) before anything is changed.
 */
	.section .start, "ax"
	.code32
	.globl _start
_start:
	mov %eax, arrival
	mov %ecx, arrival+4
	mov %edx, arrival+8
	mov %ebx, arrival+12
	mov %esp, arrival+16
	mov %ebp, arrival+20
	mov %esi, arrival+24
	mov %edi, arrival+28
	mov $stack_top, %esp
	pushfl
	pop arrival+32
	mov %cr0, %eax
	mov %eax, arrival+36
	mov %cr3, %eax
	mov %eax, arrival+40
	mov %cr4, %eax
	mov %eax, arrival+44
	mov $0xc0000080, %ecx
	rdmsr
	mov %eax, arrival+48
	mov %es, arrival+52
	mov %cs, arrival+54
	mov %ss, arrival+56
	mov %ds, arrival+58
	mov %fs, arrival+60
	mov %gs, arrival+62
	str arrival+64
	sldt arrival+66
	sgdt arrival+68
	sidt arrival+74
	call kernel_main
1:	cli
	hlt
	jmp 1b

	.bss
	.align 16
	.fill 0x2000
stack_top:

	.section .note.GNU-stack, "", @progbits
