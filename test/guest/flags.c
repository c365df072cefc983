/*
 * Arithmetic flags across jumps that a translator may first take elsewhere: targets
 * that share their low address bits, and returns to where no call was.
 */
#include "guest.h"

static u8 code[3 << 16] __attribute__((aligned(4096)));

/* CF as code at an address sees it that is reached by an indirect call. */
static u64 call_with_carry(const u8 *at)
{
	u64 r;

	__asm__ volatile("stc; call *%1" : "=a"(r) : "r"(at) : "memory", "cc", "rdx");
	return r;
}

static void put(u8 *at, const u8 *bytes, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		((volatile u8 *)at)[i] = bytes[i];
}

/* Two places 64 KiB apart: one does not care for flags, one does. */
static void same_low_bits(void)
{
	static const u8 careless[] = { 0x31, 0xc0, 0xc3 };	/* xor %eax, %eax; ret */
	static const u8 careful[] = { 0x0f, 0x92, 0xc0,		/* setc %al */
		0x0f, 0xb6, 0xc0, 0xc3 };			/* movzx %al, %eax; ret */

	put(code, careless, sizeof(careless));
	put(code + 0x10000, careful, sizeof(careful));
	for (int i = 0; i < 100; i++) {
		CHECK(call_with_carry(code) == 0);
		CHECK(call_with_carry(code) == 0);
		CHECK(call_with_carry(code + 0x10000) == 1);
	}
}

/* A function that replaces its return address and returns with carry set. */
static u64 return_elsewhere(void)
{
	u64 r;

	__asm__ volatile(
		"call 1f\n\t"
		"xor %%eax, %%eax\n\t"	/* flags are dead where the call returns */
		"jmp 3f\n"
		"1: lea 2f(%%rip), %%rdx\n\t"
		"mov %%rdx, (%%rsp)\n\t"
		"stc\n\t"
		"ret\n"
		"2: setc %%al\n\t"
		"movzx %%al, %%eax\n"
		"3:"
		: "=a"(r) : : "memory", "cc", "rdx");
	return r;
}

void guest_main(unsigned cpu)
{
	(void)cpu;
	same_low_bits();
	for (int i = 0; i < 100; i++)
		CHECK(return_elsewhere() == 1);
}
