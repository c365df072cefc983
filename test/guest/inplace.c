/*
 * Instructions that a translator does itself rather than hand them to somebody who
 * knows the whole machine: bit strings, short strings, reads of system state, bases.
 * Each runs often enough to be translated, and is compared with plain C.
 */
#include "guest.h"

#define ROUNDS 200
#define VA     0x80000000ul

static u64 bits[512] __attribute__((aligned(4096))), want[512];
static u8 pages[2][4096] __attribute__((aligned(4096)));

#define BIT_OP(name, ins, type)                                                    \
	static bool name(void *p, type bit)                                        \
	{                                                                          \
		bool old;                                                          \
                                                                                   \
		asm volatile(ins " %2, (%1)\n\tsetc %0"                            \
			     : "=q"(old)                                           \
			     : "r"(p), "r"(bit)                                    \
			     : "memory", "cc");                                    \
		return old;                                                        \
	}

BIT_OP(bt64, "bt", long)
BIT_OP(bts64, "lock bts", long)
BIT_OP(btr64, "btr", long)
BIT_OP(btc64, "btc", long)
BIT_OP(bts32, "bts", int)
BIT_OP(btr32, "lock btr", int)

static bool model(long bit, int op)
{
	u64 *w = &want[256 + (bit >> 6)], m = 1ul << (bit & 63);
	bool old = *w & m;

	if (op == 1 || (op == 3 && !old))
		*w |= m;
	else if (op == 2 || op == 3)
		*w &= ~m;
	return old;
}

static void bit_strings(void)
{
	u64 seed = 1;
	bool good = true;

	for (unsigned i = 0; i < 20 * ROUNDS; i++) {
		long bit;

		seed = seed * 6364136223846793005 + 1442695040888963407;
		bit = (long)(seed >> 50) - 8192;
		good &= bt64(bits + 256, bit) == model(bit, 0);
		good &= bts64(bits + 256, bit) == model(bit, 1);
		good &= btc64(bits + 256, bit ^ 5) == model(bit ^ 5, 3);
		good &= btr64(bits + 256, bit ^ 9) == model(bit ^ 9, 2);
		good &= bts32(bits + 256, (int)bit ^ 77) == model(bit ^ 77, 1);
		good &= btr32(bits + 256, (int)bit ^ 600) == model(bit ^ 600, 2);
	}
	for (unsigned i = 0; i < 512; i++)
		good &= bits[i] == want[i];
	CHECK(good);
}

/* Across two pages that lie apart, from everywhere, with and without overlap. */
static void strings(void)
{
	bool good = true;

	map(VA, (u64)pages[1] | 7);
	map(VA + 4096, (u64)pages[0] | 7);
	asm volatile("invlpg (%0)\n\tinvlpg 4096(%0)" : : "r"(VA) : "memory");
	for (unsigned i = 0; i < ROUNDS; i++) {
		u8 *d = (u8 *)VA + 4000 + i % 100, *s = d + (i % 3 ? 200 : -1);
		u64 n = i % 40, left = n, words = i % 7;
		u8 *to = d, *from = s, *fill = d + 120;

		for (unsigned k = 0; k < 64; k++)
			s[k] = (u8)(i + k);
		d[n] = 0x5a;
		asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(left) : : "memory");
		good &= !left && to == d + n && from == s + n;
		for (unsigned k = 0; k < n; k++)
			good &= d[k] == (s == d - 1 ? (u8)i : (u8)(i + k));
		fill[words * 8] = 0xa5;
		left = words;
		asm volatile("rep stosq"
			     : "+D"(fill), "+c"(left)
			     : "a"(0x0102030405060708ul * i)
			     : "memory");
		good &= !left && fill == d + 120 + words * 8 && *fill == 0xa5;
		for (u64 k = 0; k < words; k++)
			good &= ((volatile u64 *)(d + 120))[k] == 0x0102030405060708ul * i;
		asm volatile("stosb\n\tmovsb" : "+D"(to), "+S"(from) : "a"(7) : "memory");
		good &= to == d + n + 2 && from == s + n + 1 && d[n] == 7;
	}
	CHECK(good);
}

static void system_state(void)
{
	bool good = true;
	u64 cr4 = 0, a, b, c, d;

	asm volatile("mov %%cr4, %0" : "=r"(cr4));
	asm volatile("mov %0, %%cr4" : : "r"(cr4 | 1u << 16) : "memory");
	for (u64 i = 0; i < ROUNDS; i++) {
		u64 v = i & 1 ? 0xffff800000000000 + i : 0x7fffffff0000 + i;

		asm volatile("mov %%cs, %k0\n\tmov %%ss, %k1\n\tmov %%cr4, %2\n\t"
			     "mov %%cr0, %3"
			     : "=r"(a), "=r"(b), "=r"(c), "=r"(d));
		good &= a && !(a & 3) && !(b & 3) && c == (cr4 | 1u << 16) && d & 1;
		asm volatile("mov %1, %%cr2\n\tmov %%cr2, %0" : "=r"(a) : "r"(v));
		asm volatile("wrfsbase %2\n\trdfsbase %0\n\txor %1, %1\n\t"
			     "wrgsbase %2\n\trdgsbase %1"
			     : "=&r"(b), "=&r"(c)
			     : "r"(v)
			     : "cc");
		good &= a == v && b == v && c == v;
	}
	asm volatile("xor %%eax, %%eax\n\twrfsbase %%rax\n\twrgsbase %%rax" : : : "rax", "cc");
	CHECK(good);
}

void guest_main(unsigned cpu)
{
	(void)cpu;
	bit_strings();
	strings();
	system_state();
}
