/*
 * Interrupts at arbitrary points: a computation that keeps state in registers,
 * flags, the stack, string counters and vector registers gives the same result with
 * a timer firing all the time as without, in ring 0 and in ring 3.
 */
#include "guest.h"

#define BYTES 2048

static u8 from[BYTES], to[BYTES];
static volatile u64 ticks;

static bool count_tick(struct frame *f)
{
	if (f->vector != 0x60)
		return false;
	ticks++;
	return true;
}

static u64 fib(u64 n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static u64 compute(u64 seed)
{
	u64 h = seed, hi = 0;

	for (unsigned i = 0; i < BYTES; i++)
		from[i] = (u8)(seed >> (i & 31)) ^ (u8)i;
	/* Carries across memory operands and INC/DEC, which leave CF alone. */
	for (unsigned i = 0; i < BYTES / 8; i++) {
		asm volatile("addq %2, %0\n\tadcq $0, %1\n\tinc %3\n\tdec "
			     "%3\n\tadcq %0, %1\n\t"
			     "rolq $7, %0\n\txorq %1, %0"
			     : "+r"(h), "+r"(hi)
			     : "m"(((u64 *)from)[i]), "r"(h)
			     : "cc");
	}
	{
		void *d = to, *s = from;
		u64 n = BYTES;

		asm volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
		h += n + (u64)((u8 *)d - to);
	}
	for (unsigned i = 0; i < BYTES; i += 16) {
		u64 lo, up;

		asm volatile(
		    "movups %2, %%xmm0\n\tpaddq %3, %%xmm0\n\tmovq %%xmm0, %0\n\t"
		    "psrldq $8, %%xmm0\n\tmovq %%xmm0, %1"
		    : "=r"(lo), "=r"(up)
		    : "m"(to[i]), "m"(from[BYTES - 16 - i]));
		h = (h ^ lo) * 0x9e3779b97f4a7c15 + up;
	}
	return h + hi + fib(12);
}

static volatile u64 user_result, user_rounds;
void user_entry(void);
void user_compute(void);

void user_compute(void)
{
	u64 expected = compute(77);

	user_result = 1;
	for (unsigned i = 0; i < user_rounds; i++)
		if (compute(77) != expected)
			user_result = 0;
}
asm("user_entry: call user_compute\n int $0x80\n");

void guest_main(unsigned cpu)
{
	u64 expected[4];

	if (!have_host())
		return;
	for (u64 i = 0; i < 4; i++)
		expected[i] = compute(i * 0x123456789);
	trap_hook = count_tick;
	outb(PORT_TICK, 0x60);
	asm volatile("sti");
	for (unsigned round = 0; ticks < 300 && round < 20000; round++)
		if (compute((round & 3) * 0x123456789ull) != expected[round & 3])
			CHECK(!"the same result under interrupts");
	CHECK(ticks >= 300);
	asm volatile("cli");
	ticks = 0;
	user_rounds = 300;
	do {
		run_user(user_entry, 0x200, 0);
		CHECK(caught.vector == 0x80 && user_result == 1);
	} while (ticks < 300 && caught.vector == 0x80);
	outb(PORT_TICK, 0);
	/* HLT sleeps until the next one. */
	outb(PORT_TICK, 0x60);
	u64 t = ticks;
	for (unsigned i = 0; i < 20; i++)
		asm volatile("sti\n\thlt\n\tcli" : : : "memory");
	CHECK(ticks >= t + 20);
	outb(PORT_TICK, 0);
	(void)cpu;
}
