/* Faults caught and mended, nested signals, alternate stacks, timers, interrupted loops. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "sum.h"

static sigjmp_buf env;
static char *page;
static volatile int count;
static volatile sig_atomic_t ticks;

static void mend(int sig, siginfo_t *si, void *uc)
{
	(void)sig;
	(void)uc;
	sum_value((uint32_t)((char *)si->si_addr - page));
	sum_value(si->si_code);
	count++;
	mprotect((char *)((uintptr_t)si->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE);
}

static void escape(int sig, siginfo_t *si, void *uc)
{
	ucontext_t *u = uc;

	sum_value(sig * 100 + si->si_code);
	sum_value((uint64_t)u->uc_mcontext.gregs[REG_TRAPNO]);
	siglongjmp(env, sig);
}

static void on(int sig, void (*f)(int, siginfo_t *, void *), int flags)
{
	struct sigaction sa = { .sa_sigaction = f, .sa_flags = SA_SIGINFO | flags };

	sigaction(sig, &sa, NULL);
}

static void faults(void)
{
	size_t len = 512 * 4096;

	page = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	on(SIGSEGV, mend, 0);
	for (int i = 0; i < 512; i++)
		page[(i * 37 % 512) * 4096 + i] += (char)i;
	/* Across two pages of which the second is missing. */
	for (int i = 1; i < 511; i += 2) {
		mprotect(page + i * 4096, 4096, PROT_NONE);
		*(volatile uint64_t *)(page + i * 4096 - 4) = rnd();
		mprotect(page + i * 4096, 4096, PROT_READ);
		memset(page + i * 4096 - 300, i, 700);
	}
	sum_value(count);
	sum_bytes(page, len);
	munmap(page, len);
	sum_print("mended");
}

static void traps(void)
{
	static const char *const name[] = { "int3", "ud2", "div", "hlt", "noncanonical",
		"sse", "priv", "x87", "null call" };

	on(SIGSEGV, escape, SA_NODEFER);
	on(SIGILL, escape, SA_NODEFER);
	on(SIGFPE, escape, SA_NODEFER);
	on(SIGTRAP, escape, SA_NODEFER);
	on(SIGBUS, escape, SA_NODEFER);
	for (int round = 0; round < 300; round++) {
		for (volatile int i = 0; i < 9; i++) {
			volatile int zero = 0;
			uint32_t mxcsr = 0x1f80 & ~0x200u, old = 0x1f80;
			uint16_t cw = 0x37b, cw0 = 0x37f;

			if (sigsetjmp(env, 1)) {
				sum_bytes(name[i], strlen(name[i]));
				__asm__ volatile("fnclex; fldcw %0; ldmxcsr %1"
				    : : "m"(cw0), "m"(old));
				continue;
			}
			switch (i) {
			case 0: __asm__ volatile("int3"); break;
			case 1: __asm__ volatile("ud2"); break;
			case 2: zero = 5 / zero; break;
			case 3: __asm__ volatile("hlt"); break;
			case 4: *(volatile char *)0x8000000000000000u = 1; break;
			case 5: /* divide by zero, unmasked */
				__asm__ volatile("ldmxcsr %0; xorps %%xmm0, %%xmm0; "
						 "cvtsi2sd %1, %%xmm1; divsd %%xmm0, %%xmm1"
				    : : "m"(mxcsr), "r"(1) : "xmm0", "xmm1");
				break;
			case 6: __asm__ volatile("mov %%cr0, %%rax" : : : "rax"); break;
			case 7:
				__asm__ volatile("fldcw %0; fld1; fldz; fdivrp; fwait"
				    : : "m"(cw));
				break;
			case 8: ((void (*volatile)(void))0)(); break;
			}
			printf("no trap: %s\n", name[i]);
		}
	}
	sum_print("traps");
}

static void tick(int sig)
{
	(void)sig;
	ticks++;
}

/* A computation is not disturbed by being interrupted. */
static void interrupted(void)
{
	struct itimerval it = { { 0, 2000 }, { 0, 2000 } };
	double f = 1;
	uint64_t h = 1;

	signal(SIGALRM, tick);
	setitimer(ITIMER_REAL, &it, NULL);
	for (int i = 0; i < 20000000 || ticks < 20; i++) {
		if (i < 20000000) {
			h = h * 6364136223846793005u + (h >> 60);
			f = f * 0.999 + (double)(h >> 40);
		}
	}
	memset(&it, 0, sizeof(it));
	setitimer(ITIMER_REAL, &it, NULL);
	sum_value(h);
	sum_value(f);
	sum_print("interrupted");
}

static char alt[65536];
static int depth;

static void overflowed(int sig, siginfo_t *si, void *uc)
{
	(void)si;
	(void)uc;
	sum_value(sig + ((char *)&sig > alt && (char *)&sig < alt + sizeof(alt)));
	siglongjmp(env, 1);
}

static int eat(int n)
{
	volatile char pad[4096];

	pad[n & 4095] = 1;
	depth = n;
	return n < 1 << 20 ? eat(n + 1) + pad[n & 4095] : 0;
}

static void stacks(void)
{
	stack_t ss = { .ss_sp = alt, .ss_size = sizeof(alt) };

	sigaltstack(&ss, NULL);
	on(SIGSEGV, overflowed, SA_ONSTACK);
	if (sigsetjmp(env, 1) == 0)
		eat(0);
	sum_value(depth > 1000);
	sum_print("stack");
}

static int nested;

static void usr(int sig)
{
	sum_value(sig);
	if (++nested % 7)
		raise(sig == SIGUSR1 ? SIGUSR2 : SIGUSR1);
}

int main(void)
{
	faults();
	traps();
	interrupted();
	stacks();
	signal(SIGUSR1, usr);
	signal(SIGUSR2, usr);
	for (int i = 0; i < 5000; i++)
		raise(SIGUSR1);
	sum_value(nested);
	sum_print("nested");
	return 0;
}
