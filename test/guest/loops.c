/*
 * Loops of one block over memory that moves by constant steps: over pages that lie
 * apart in physical memory, in both directions, unaligned, up to faults in the middle,
 * into their own code, with interrupts coming all the time.
 */
#include "guest.h"

#define PAGES 8
#define SIZE  (PAGES * 4096)
#define VA    0x80000000ul /* the pages below, shuffled; then nothing */
#define VB    0x80100000ul

static u8 pages[2 * PAGES][4096] __attribute__((aligned(4096)));
static u8 page[4096] __attribute__((aligned(4096)));
static u32 one __attribute__((used)) = 1; /* named in asm */
static volatile u64 ticks;

static bool count_tick(struct frame *f)
{
	if (f->vector != 0x60)
		return false;
	ticks++;
	return true;
}

static void map_pages(unsigned shift)
{
	for (unsigned i = 0; i < PAGES; i++) {
		map(VA + i * 4096, (u64)pages[(i * 5 + shift) % PAGES] | 7);
		map(VB + i * 4096, (u64)pages[PAGES + (i * 3 + shift) % PAGES] | 7);
		asm volatile("invlpg (%0)" : : "r"(VA + i * 4096) : "memory");
		asm volatile("invlpg (%0)" : : "r"(VB + i * 4096) : "memory");
	}
}

static u8 *at(u64 va)
{
	return (u8 *)va;
}

static void fill(u64 va, u64 seed)
{
	for (unsigned i = 0; i < SIZE; i++) {
		seed = seed * 6364136223846793005 + 1442695040888963407;
		at(va)[i] = (u8)(seed >> 56);
	}
}

static bool same(u64 a, u64 b, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (at(a)[i] != at(b)[i])
			return false;
	return true;
}

static void copies(void)
{
	u64 n = SIZE / 8 - 1, s = VA + 3, d = VB + 5, t;

	asm volatile("1: mov (%0), %3\n\tmov %3, (%1)\n\tadd $8, %0\n\tadd $8, %1\n\t"
		     "dec %2\n\tjnz 1b"
		     : "+r"(s), "+r"(d), "+r"(n), "=&r"(t) : : "memory", "cc");
	CHECK(s == VA + 3 + SIZE - 8 && d == VB + 5 + SIZE - 8 && n == 0);
	CHECK(same(VA + 3, VB + 5, SIZE - 8));

	n = SIZE / 4 - 1, s = VA + SIZE - 7, d = VB + SIZE - 4;
	asm volatile("1: movl (%0), %k3\n\tmovl %k3, (%1)\n\tlea -4(%0), %0\n\t"
		     "sub $4, %1\n\tsub $1, %2\n\tjnz 1b"
		     : "+r"(s), "+r"(d), "+r"(n), "=&r"(t) : : "memory", "cc");
	CHECK(same(VA + 1, VB + 4, SIZE - 8));
}

static void sums(void)
{
	u64 n = 0, sum = 0, want = 0, p;

	for (unsigned i = 0; i < SIZE / 4; i++)
		want += ((u32 *)VA)[i];
	asm volatile("1: movl (%2,%0,4), %%eax\n\tadd %%rax, %1\n\tinc %0\n\t"
		     "cmp %3, %0\n\tjne 1b"
		     : "+r"(n), "+r"(sum) : "r"(VA), "r"((u64)SIZE / 4) : "rax", "cc");
	CHECK(sum == want);
	/* Down a column, with the step of a row. */
	for (unsigned column = 0; column < 0x200; column += 61) {
		want = sum = 0;
		for (unsigned i = 0; i < SIZE; i += 0x200)
			want += at(VA)[i + column];
		p = VA + column;
		asm volatile("1: movzbl (%0), %%eax\n\tadd $0x200, %0\n\tadd %%rax, %1\n\t"
			     "cmp %2, %0\n\tjb 1b"
			     : "+r"(p), "+r"(sum) : "r"(VA + SIZE) : "rax", "cc");
		CHECK(sum == want && p == VA + SIZE + column);
	}
}

/* What a round stores the next one loads; a constant address beside a moving one. */
static void chained(void)
{
	u64 n = SIZE - 1, p = VA;

	at(VA)[0] = 0x5a;
	asm volatile("1: movb (%0), %%al\n\tmovb %%al, 1(%0)\n\tinc %0\n\tdec %1\n\tjnz 1b"
		     : "+r"(p), "+r"(n) : : "rax", "memory", "cc");
	CHECK(at(VA)[1] == 0x5a && at(VA)[SIZE / 2] == 0x5a && at(VA)[SIZE - 1] == 0x5a);
	p = VA, n = SIZE / 4;
	asm volatile("1: movl one(%%rip), %%eax\n\taddl %%eax, (%0)\n\taddl $4, one(%%rip)\n\t"
		     "add $4, %0\n\tdec %1\n\tjnz 1b"
		     : "+r"(p), "+r"(n) : : "rax", "memory", "cc");
	CHECK(((u32 *)VA)[0] == 0x5a5a5a5b && one == 1 + SIZE);
	CHECK(((u32 *)VA)[SIZE / 4 - 1] == 0x5a5a5a5a + 1 + SIZE - 4);
	one = 1;
}

static void faults(void)
{
	u64 p = VA, n = SIZE, sum = 0;

	/* Off the end of what is mapped. */
	TRY("1: addq (%0), %2\n\tadd $8, %0\n\tdec %1\n\tjnz 1b",
	    : "+r"(p), "+r"(n), "+r"(sum) : : "memory", "cc");
	CHECK(caught.vector == 14 && caught.cr2 == VA + SIZE && caught.error == 0);
	CHECK(p == VA + SIZE && n == SIZE - SIZE / 8);
	/* Over the end: the bytes before it stay as they are. */
	p = VA + 5, n = SIZE;
	at(VA)[SIZE - 1] = 0x77;
	TRY("1: movq $-1, (%0)\n\tadd $8, %0\n\tdec %1\n\tjnz 1b",
	    : "+r"(p), "+r"(n) : : "memory", "cc");
	CHECK(caught.vector == 14 && caught.cr2 == VA + SIZE && caught.error == 2);
	CHECK(p == VA + SIZE - 3 && at(VA)[SIZE - 1] == 0x77 && at(VA)[SIZE - 4] == 0xff);
	/* A fault of the arithmetic, not of the access. */
	for (unsigned i = 0; i < SIZE / 4; i++)
		((u32 *)VA)[i] = i == 5000 ? 0 : i + 1;
	p = VA, n = SIZE, sum = 0;
	TRY("1: mov $1000, %%eax\n\txor %%edx, %%edx\n\tdivl (%0)\n\tadd %%rax, %2\n\t"
	    "add $4, %0\n\tdec %1\n\tjnz 1b",
	    : "+r"(p), "+r"(n), "+r"(sum) : : "rax", "rdx", "memory", "cc");
	CHECK(caught.vector == 0 && p == VA + 5000 * 4 && n == SIZE - 5000);
	CHECK(sum == 7069); /* of 1000 / k for k from 1 to 5000 */
}

/* mov %al, (%rdi); inc %rdi; dec %rcx; jnz: from behind itself on over what follows. */
static void own_code(void)
{
	static const u8 code[] = {
		0x48, 0x8d, 0x3d, 0x0c, 0, 0, 0,	/* lea 12(%rip), %rdi: the 05 */
		0x88, 0x07,				/* 7: mov %al, (%rdi) */
		0x48, 0xff, 0xc7,			/* inc %rdi */
		0x48, 0xff, 0xc9,			/* dec %rcx */
		0x75, 0xf6,				/* jnz 7 */
		0x31, 0xc0,				/* xor %eax, %eax */
		0x05, 0, 0, 0, 0,			/* add $0, %eax */
		0xc3,
	};
	u64 r, n;

	for (unsigned k = 1; k < 40; k++) {
		for (unsigned i = 0; i < sizeof(code); i++)
			((volatile u8 *)page)[64 + i] = code[i];
		((volatile u8 *)page)[64 + 2] = 0x3d;
		((volatile u8 *)page)[64 + 3] = 13; /* the immediate of the ADD */
		n = 4;
		asm volatile("call *%2" : "=a"(r), "+c"(n) : "r"(page + 64), "0"((u64)k)
			     : "rdi", "memory", "cc");
		CHECK((u32)r == k * 0x01010101u);
	}
}

/* A value from memory is pushed, and called, while the stack changes pages all the time. */
static void two_stacks(void)
{
	u64 a = VA + 4096 + 256, b = VA + 3 * 4096 + 256, n = 20000, calls = 0, sum = 0;
	u64 word = 3, target;

	asm volatile("lea 9f(%%rip), %0\n\tjmp 8f\n9: inc %1\n\tret\n8:"
		     : "=r"(target), "+a"(calls) : : "cc");
	calls = 0;
	/* An interrupt would do, but here the stack is no kernel's. */
	asm volatile("pushfq\n\tpop %%r14\n\tcli\n\tmov %%rsp, %%r13\n\t"
		     "1: xchg %2, %3\n\tmov %2, %%rsp\n\txor %%edx, %%edx\n\tpushq (%5)\n\t"
		     "jmp 2f\n2: pop %%rdx\n\tadd %%rdx, %1\n\tjmp 3f\n"
		     "3: call *(%6)\n\tdec %4\n\t"
		     "jnz 1b\n\tmov %%r13, %%rsp\n\tpush %%r14\n\tpopfq"
		     : "+a"(calls), "+r"(sum), "+r"(a), "+r"(b), "+r"(n)
		     : "r"(&word), "r"(&target)
		     : "rdx", "r13", "r14", "memory", "cc");
	CHECK(calls == 20000 && sum == 60000);
}

static void all(void)
{
	for (unsigned i = 0; i < 3; i++) {
		map_pages(i);
		fill(VA, i + 1);
		copies();
		sums();
		chained();
		faults();
		/* Who was caught goes on with interrupts off. */
		if (trap_hook)
			asm volatile("sti");
		own_code();
		two_stacks();
	}
}

void guest_main(unsigned cpu)
{
	(void)cpu;
	all();
	if (!have_host())
		return;
	trap_hook = count_tick;
	asm volatile("sti");
	outb(PORT_TICK, 0x60);
	/* A busy host's first tick may be late. */
	for (unsigned round = 0; ticks < 20 && round < 500; round++)
		all();
	outb(PORT_TICK, 0);
	asm volatile("cli");
	CHECK(ticks >= 20);
}
