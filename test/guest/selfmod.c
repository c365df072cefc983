/*
 * Self-modifying code: ahead in the same block, the running instruction, the next
 * page, over a page end, through another mapping, by string instructions.
 */
#include "guest.h"

static u8 page[3 * 4096] __attribute__((aligned(4096)));
typedef u64 code_fn(u64 a, u64 b);

static void put(u8 *at, const void *code, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		((volatile u8 *)at)[i] = ((const u8 *)code)[i];
}

static const u8 ret_imm[] = { 0xb8, 0, 0, 0, 0, 0xc3 }; /* mov $imm, %eax; ret */

static u64 call(u8 *at, u64 a, u64 b)
{
	return ((code_fn *)at)(a, b);
}

static void rewrite(u8 *at)
{
	put(at, ret_imm, sizeof(ret_imm));
	for (u32 i = 1; i < 200; i++) {
		*(volatile u32 *)(at + 1) = i;
		if (call(at, 0, 0) != i) {
			CHECK(!"new code is seen");
			return;
		}
	}
}

/* movb $imm, next+1; next: mov $0, %eax; ret: changes what is behind it. */
static void ahead(u8 *at)
{
	static const u8 code[] = {
		0x40, 0x88, 0x3d, 1, 0, 0, 0, /* mov %dil, 1(%rip): the next imm */
		0xb8, 0, 0, 0, 0, 0xc3,
	};

	put(at, code, sizeof(code));
	for (u64 i = 1; i < 100; i++)
		CHECK(call(at, i, 0) == i);
}

/*
 * A loop whose body rewrites the body: xor of an opcode makes ADD and SUB take
 * turns.
 */
static void in_loop(u8 *at)
{
	static const u8 code[] = {
		0x31, 0xc0,			/* xor %eax, %eax */
		0x83, 0xc0, 1, /* 2: add $1, %eax (/0) or sub (/5) */
		0x80, 0x35, 0xf7, 0xff, 0xff, 0xff, 0x28, /* xorb $0x28, 2+1 */
		0xff, 0xcf,			/* dec %edi */
		0x75, 0xf2,			/* jnz 2 */
		0xc3,
	};

	put(at, code, sizeof(code));
	CHECK((u32)call(at, 5, 0) == 1);
	put(at, code, sizeof(code));
	CHECK((u32)call(at, 8, 0) == 0);
}

/* REP MOVSB over the code that runs it: the old instruction finishes first. */
static void by_string(u8 *at)
{
	static u8 nops[16] = {
		0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xb8, 7, 0, 0, 0,
		0xc3,
	};
	static const u8 code[] = { 0xb9, 16, 0, 0, 0, 0xf3, 0xa4, 0x0f, 0x0b };

	/* mov $16, %ecx; rep movsb; ud2 - the ud2 becomes NOP, MOV $7, RET */
	for (u32 i = 0; i < 3; i++) {
		put(at, code, sizeof(code));
		reset_trap();
		CHECK(call(at, (u64)at, (u64)nops) == 7);
	}
}

static void by_alias(u8 *at)
{
	u64 va = 0x50000000;

	map(va, ((u64)at & ~0xfffull) | 7);
	u8 *other = (u8 *)va + ((u64)at & 0xfff);
	put(at, ret_imm, sizeof(ret_imm));
	for (u32 i = 1; i < 50; i++) {
		*(volatile u32 *)(other + 1) = i;
		CHECK(call(at, 0, 0) == i);
		*(volatile u32 *)(at + 1) = i + 1000;
		CHECK(call(other, 0, 0) == i + 1000);
	}
	/* Remapped: the same address is other code now. */
	put(page + 8192, ret_imm, sizeof(ret_imm));
	*(volatile u32 *)(page + 8193) = 4711;
	map(va, ((u64)page + 8192) | 7);
	CHECK(call((u8 *)va, 0, 0) == 4711);
}

/* Data in the page of the running code is written all the time. */
static void mixed(u8 *at)
{
	static const u8 code[] = {
		0x48, 0x31, 0xc0,                /* xor %rax, %rax */
		0x48, 0xff, 0x05, 0x36, 0, 0, 0, /* incq 0x40(code) */
		0x48, 0x03, 0x05, 0x2f, 0, 0, 0, /* add 0x40(code), %rax */
		0xff, 0xcf, 0x75, 0xee, 0xc3,    /* dec %edi; jnz; ret */
	};

	put(at, code, sizeof(code));
	*(volatile u64 *)(at + 0x40) = 0;
	CHECK(call(at, 100, 0) == 5050);
	CHECK(*(volatile u64 *)(at + 0x40) == 100);
}

void guest_main(unsigned cpu)
{
	(void)cpu;
	rewrite(page);
	rewrite(page + 4096 - 3); /* instruction over the page end */
	rewrite(page + 4096 - 1);
	ahead(page + 64);
	ahead(page + 4096 - 7); /* the changed one is on the next page */
	ahead(page + 4096 - 9);
	in_loop(page + 128);
	in_loop(page + 4096 - 5);
	by_string(page + 256);
	by_alias(page + 512);
	mixed(page + 1024);
	mixed(page + 4096 - 8);
}
