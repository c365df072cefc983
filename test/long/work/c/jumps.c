/* setjmp, deep recursion, computed jumps, switch tables, calls through pointers. */
#include <setjmp.h>
#include <stdlib.h>
#include <ucontext.h>

#include "sum.h"

static jmp_buf env;
static volatile int endless;

static void dive(int depth, int stop)
{
	volatile char pad[64];

	pad[depth & 63] = (char)depth;
	if (depth == stop)
		longjmp(env, depth + 1);
	if (depth != endless - 1)
		dive(depth + 1, stop);
	sum_value(pad[depth & 63]);
}

static void long_jumps(void)
{
	for (volatile int i = 0; i < 3000; i++) {
		int r = setjmp(env);

		if (r == 0)
			dive(0, i % 500);
		sum_value(r);
	}
	sum_print("longjmp");
}

static unsigned ackermann(unsigned m, unsigned n)
{
	if (m == 0)
		return n + 1;
	if (n == 0)
		return ackermann(m - 1, 1);
	return ackermann(m - 1, ackermann(m, n - 1));
}

static void recursion(void)
{
	sum_value(ackermann(2, 300));
	sum_value(ackermann(3, 7));
	sum_print("recursion");
}

static uint64_t machine(const uint8_t *code, int steps)
{
	static void *const op[] = { &&add, &&sub, &&mul, &&rot, &&xor, &&jmp, &&dup, &&neg };
	uint64_t acc = 1, other = 2;
	unsigned pc = 0;

#define NEXT                                                   \
	do {                                                   \
		if (steps-- == 0)                              \
			return acc;                            \
		goto *op[code[pc++ & 255] & 7];                \
	} while (0)

	NEXT;
add:	acc += other;
	NEXT;
sub:	acc -= 3 * other;
	NEXT;
mul:	acc *= other | 1;
	NEXT;
rot:	acc = acc << 13 | acc >> 51;
	NEXT;
xor:	other ^= acc;
	NEXT;
jmp:	pc += acc & 15;
	NEXT;
dup:	other = acc;
	NEXT;
neg:	acc = -acc;
	NEXT;
}

static void threaded(void)
{
	uint8_t code[256];

	for (int n = 0; n < 20; n++) {
		for (int i = 0; i < 256; i++)
			code[i] = (uint8_t)rnd();
		sum_value(machine(code, 200000));
	}
	sum_print("threaded");
}

static ucontext_t main_context, context[8];
static int turns;

static void fiber(int me)
{
	for (int i = 0; i < 2000; i++) {
		turns++;
		sum_value(me * 10000 + i);
		swapcontext(&context[me], &context[(me + 1) % 8]);
	}
	setcontext(&main_context);
}

static void fibers(void)
{
	for (int i = 0; i < 8; i++) {
		getcontext(&context[i]);
		context[i].uc_stack.ss_size = 65536;
		context[i].uc_stack.ss_sp = malloc(65536);
		context[i].uc_link = &main_context;
		makecontext(&context[i], (void (*)(void))fiber, 1, i);
	}
	swapcontext(&main_context, &context[0]);
	sum_value(turns);
	sum_print("fibers");
}

int main(void)
{
	long_jumps();
	recursion();
	threaded();
	fibers();
	return 0;
}
