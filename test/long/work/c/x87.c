/* long double: the x87 unit, its precision control, and its libm. */
#include <fenv.h>
#include <math.h>
#include <string.h>

#include "sum.h"

static void sum_long(long double v)
{
	unsigned char b[16];

	if (isnan(v))
		v = 1;
	memcpy(b, &v, sizeof(b));
	sum_bytes(b, 10); /* the rest is padding */
}

static long double any(void)
{
	return (long double)(int64_t)rnd() / (long double)((rnd() >> rnd() % 60) | 1);
}

static void arithmetic(void)
{
	for (int i = 0; i < 200000; i++) {
		volatile long double a = any(), b = any();

		sum_long(a + b);
		sum_long(a - b);
		sum_long(a * b);
		sum_long(a / b);
		sum_long(sqrtl(fabsl(a)));
		sum_value((int64_t)(a / 1e10L));
		sum_value((double)a);
		sum_value((float)b);
		sum_value((a < b) + 2 * (a == b));
	}
	sum_print("arithmetic");
}

static void functions(void)
{
	for (int i = 0; i < 20000; i++) {
		long double a = any() / 1e12L;

		sum_long(sinl(a));
		sum_long(cosl(a));
		sum_long(tanl(a));
		sum_long(atanl(a));
		sum_long(logl(fabsl(a) + 1));
		sum_long(expl(fmodl(a, 100)));
		sum_long(powl(fabsl(a), 0.125L));
		sum_long(rintl(a));
		sum_long(floorl(a));
		sum_long(remainderl(a, 3.3L));
	}
	sum_print("functions");
}

/* Instructions that compilers do not make. */
static void by_hand(void)
{
	for (int i = 0; i < 50000; i++) {
		long double a = any() / 1e18L, r, q;
		unsigned char bcd[10];
		unsigned short sw;

		__asm__("fsin" : "=t"(r) : "0"(a));
		sum_long(r);
		__asm__("fcos" : "=t"(r) : "0"(a));
		sum_long(r);
		__asm__("fpatan" : "=t"(r) : "0"(a), "u"(1.5L) : "st(1)");
		sum_long(r);
		__asm__("fyl2x" : "=t"(r) : "0"(fabsl(a) + 0.1L), "u"(2.0L) : "st(1)");
		sum_long(r);
		__asm__("f2xm1" : "=t"(r) : "0"(fmodl(a, 1)));
		sum_long(r);
		__asm__("fscale" : "=t"(r) : "0"(a), "u"(3.0L));
		sum_long(r);
		__asm__("fxtract" : "=t"(r), "=u"(q) : "0"(a + 2));
		sum_long(r);
		sum_long(q);
		__asm__("fprem" : "=t"(r) : "0"(a * 100), "u"(1.1L));
		sum_long(r);
		__asm__ volatile("fbstp %0" : "=m"(bcd) : "t"((long double)(int)rnd())
		    : "st");
		sum_bytes(bcd, 10);
		__asm__ volatile("fxam; fnstsw %0" : "=a"(sw) : "t"(a));
		sum_value((unsigned short)(sw & 0x4700));
	}
	sum_print("by hand");
}

static void control(void)
{
	for (unsigned pc = 0; pc < 4; pc++) {
		for (unsigned rc = 0; rc < 4; rc++) {
			unsigned short cw = (unsigned short)(0x3f | pc << 8 | rc << 10);
			unsigned short old;

			if (pc == 1)
				continue; /* reserved */
			__asm__ volatile("fnstcw %0; fldcw %1" : "=m"(old) : "m"(cw));
			for (int i = 0; i < 5000; i++) {
				volatile long double a = any(), b = any();

				sum_long(a / b);
				sum_long(a * b);
				sum_long(rintl(a));
			}
			__asm__ volatile("fldcw %0" : : "m"(old));
		}
	}
	sum_print("control");
}

int main(void)
{
	arithmetic();
	functions();
	by_hand();
	control();
	return 0;
}
