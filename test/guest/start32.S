/* Entry of 32-bit test guests, exception stubs, ring 3 and virtual-8086 mode. */
#include "guest32.h"

	.section .start, "ax"
	.align 4
	.long 0x1badb002, 0, -0x1badb002
	.globl _start
_start:
	cli
	cld
	lgdt gdt_pointer
	ljmp $SEL_KCODE, $1f
1:	mov $SEL_KDATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $stack_top, %esp
	xor %eax, %eax
	mov %eax, %fs
	mov %eax, %gs
	mov $0x33, %eax
	mov %eax, %cr0
	push $0
	push $0
	push $0
	call cpu_init
	call guest_main
	pushl failures
	call guest_exit

	.text
	.globl stub_table
	.align 16
stub_table:
	.set n, 0
	.rept 256
	.align 16
	.if n == 8 || (n >= 10 && n <= 14) || n == 17
	nop
	.else
	push $0
	.endif
	push $n
	jmp trap_entry
	.set n, n + 1
	.endr

trap_entry:
	pusha
	cld
	mov $SEL_KDATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %esp, %eax
	push %eax
	call trap
	mov resume_esp, %esp
	mov resume+8, %ebx
	mov resume+12, %esi
	mov resume+16, %edi
	mov resume+20, %ebp
	jmp *resume_eip

	.globl run_frame
run_frame:
	push %ebx
	push %esi
	push %edi
	push %ebp
	mov 20(%esp), %esi
	mov 24(%esp), %ecx
	movl $-1, caught
	movl $1f, resume
	mov %esp, resume+4
2:	pushl -4(%esi, %ecx, 4)
	loop 2b
	iret
1:	pop %ebp
	pop %edi
	pop %esi
	pop %ebx
	ret

	.data
	.align 8
	.globl gdt, gdt_pointer
gdt:	.quad 0
	.quad 0x00cf9b000000ffff
	.quad 0x00cf93000000ffff
	.quad 0x00cffb000000ffff
	.quad 0x00cff3000000ffff
	.fill 27, 8, 0
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.long gdt

	.bss
	.align 4096
	.fill 0x4000
stack_top:
	.fill 0x4000
	.globl kernel_stack_top, user_stack_top
kernel_stack_top:
	.fill 0x4000
user_stack_top:

	.section .note.GNU-stack, "", @progbits
