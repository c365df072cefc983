/*
 * What a debugger looks at in the system tests: two CPUs that call functions and
 * count until the debugger says "stop"; then the machine powers off.
 */
#include "guest.h"

#define LAPIC_ICR  ((volatile u32 *)0xfee00300)
#define TRAMPOLINE 0x8000u
#define INIT       0xc4500u /* to all but self */
#define STARTUP    (0xc4600u | TRAMPOLINE >> 12)

volatile u64 counter, watched, other_counter;
volatile u32 stop;

/* CPU 1 comes in real mode and goes where CPU 0 came from, with its number. */
asm(".code16\n"
    "trampoline:\n"
    "	cli\n"
    "	xor %ax, %ax\n"
    "	mov %ax, %ds\n"
    "	lgdtl trampoline_gdt - trampoline + 0x8000\n"
    "	mov $0x11, %eax\n"
    "	mov %eax, %cr0\n"
    "	ljmpl $0x38, $trampoline32 - trampoline + 0x8000\n"
    ".code32\n"
    "trampoline32:\n"
    "	mov $0x10, %eax\n"
    "	mov %eax, %ds\n"
    "	mov %eax, %es\n"
    "	mov %eax, %ss\n"
    "	mov $1, %eax\n"
    "	mov $_start, %ecx\n"
    "	jmp *%ecx\n"
    "trampoline_gdt:\n"
    "	.word 0x9f\n"
    "	.long gdt\n"
    "trampoline_end:\n"
    ".code64\n");
u64 leaf(u64 x);
void other(void);
extern const u8 trampoline[], trampoline_end[];

__attribute__((noinline)) u64 leaf(u64 x)
{
	counter++;
	return x * 3;
}

__attribute__((noinline)) void other(void)
{
	other_counter++;
}

static void start_other(void)
{
	for (u32 i = 0; trampoline + i < trampoline_end; i++)
		*(volatile u8 *)(u64)(TRAMPOLINE + i) = trampoline[i];
	*LAPIC_ICR = INIT;
	*LAPIC_ICR = STARTUP;
}

void guest_main(unsigned cpu)
{
	u64 sum = 0;

	if (cpu != 0)
		for (;;)
			other();
	start_other();
	print("counting\n");
	while (!stop) {
		sum += leaf(sum);
		if ((counter & 0xffff) == 0)
			watched = counter;
	}
	print("stopped\n");
	asm volatile("outw %0, %1"
		     :
		     : "a"((u16)(5 << 10 | 1 << 13)), "Nd"((u16)0x404));
	for (;;)
		asm volatile("cli; hlt");
}
