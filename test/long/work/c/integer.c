/* Arithmetic of every width: division, multiplication, shifts, carries, bits, 128 bits. */
#include <stdlib.h>

#include "sum.h"

#define WIDTH(name, u, s)                                                     \
	static void name(void)                                                \
	{                                                                     \
		for (int i = 0; i < 200000; i++) {                            \
			u a = (u)rnd(), b = (u)rnd(), r;                      \
			s x = (s)a, y = (s)b;                                 \
			unsigned n = (unsigned)rnd() % (sizeof(u) * 8);       \
			sum_value((u)(a + b));                                \
			sum_value((u)(a * b));                                \
			sum_value((u)(a << n | a >> (sizeof(u) * 8 - n) %     \
					(sizeof(u) * 8)));                    \
			sum_value((s)(x >> n));                               \
			if (b) {                                              \
				sum_value((u)(a / b));                        \
				sum_value((u)(a % b));                        \
			}                                                     \
			if (y && y != -1) {                                   \
				sum_value((s)(x / y));                        \
				sum_value((s)(x % y));                        \
			}                                                     \
			sum_value((int)__builtin_add_overflow(a, b, &r));     \
			sum_value((int)__builtin_sub_overflow(x, y, &x));     \
			sum_value((int)__builtin_mul_overflow(a, b, &r));     \
			sum_value((int)(a < b) + 2 * ((s)a < (s)b));          \
		}                                                             \
		sum_print(#name);                                             \
	}

WIDTH(bits8, uint8_t, int8_t)
WIDTH(bits16, uint16_t, int16_t)
WIDTH(bits32, uint32_t, int32_t)
WIDTH(bits64, uint64_t, int64_t)

static void bits128(void)
{
	for (int i = 0; i < 100000; i++) {
		unsigned __int128 a = (unsigned __int128)rnd() << 64 | rnd();
		unsigned __int128 b = (unsigned __int128)(rnd() >> rnd() % 64) << 64 |
		    rnd();

		sum_value(a + b);
		sum_value(a - b);
		sum_value(a * b);
		sum_value(a / b);
		sum_value(a % b);
		sum_value((__int128)a >> (rnd() & 127));
	}
	sum_print("bits128");
}

static void counts(void)
{
	for (int i = 0; i < 500000; i++) {
		uint64_t a = rnd() >> rnd() % 64;

		if (a == 0)
			continue;
		sum_value(__builtin_popcountll(a) + 64 * __builtin_clzll(a) +
		    4096 * __builtin_ctzll(a));
		sum_value(__builtin_bswap64(a));
		sum_value(__builtin_bswap32((uint32_t)a));
	}
	sum_print("counts");
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void sorting(void)
{
	static uint64_t v[200000];

	for (size_t i = 0; i < 200000; i++)
		v[i] = rnd();
	qsort(v, 200000, sizeof(v[0]), by_value);
	sum_bytes(v, sizeof(v));
	sum_print("qsort");
}

int main(void)
{
	bits8();
	bits16();
	bits32();
	bits64();
	bits128();
	counts();
	sorting();
	return 0;
}
