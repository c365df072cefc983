/*
 * A 32-bit program without a C library, for a guest whose kernel is 64-bit: system
 * calls by INT 0x80 and by the kernel's own page, thread-local storage, signals in
 * the middle of a computation, a fault mended by its handler. Says "i386: good".
 */
#include <stdint.h>

#define NR_EXIT            1
#define NR_WRITE           4
#define NR_GETPID          20
#define NR_SETITIMER       104
#define NR_RT_SIGRETURN    173
#define NR_RT_SIGACTION    174
#define NR_SET_THREAD_AREA 243
#define SIGSEGV            11
#define SIGALRM            14
#define AT_SYSINFO         32
#define SA_SIGINFO         4
#define SA_RESTORER        0x4000000

/* Of the kernel's ABI; the fields that matter here. */
struct action {
	void (*handler)(int, void *, void *);
	uint32_t flags;
	void (*restorer)(void);
	uint32_t mask[2];
};
struct context {
	uint32_t flags, link, stack[3];
	uint32_t gs, fs, es, ds, edi, esi, ebp, esp, ebx, edx, ecx, eax, trap,
	    error, eip;
};
struct user_desc {
	uint32_t entry, base, limit, flags;
};

void restore(void);
void start(uint32_t *stack);
__asm__(
    ".globl _start\n_start: mov %esp, %eax\n\tand $-16, %esp\n\tsub $12, %esp\n\t"
    "push %eax\n\tcall start\n"
    "restore: mov $173, %eax\n\tint $0x80\n"
    /* 16 bytes beyond what is mapped at first, then what the handler puts there */
    ".globl try_read, try_read_at\n"
    "try_read: mov 4(%esp), %ecx\n\txor %eax, %eax\n\tinc %eax\n"
    "try_read_at: mov 16(%ecx), %edx\n\tadd %edx, %eax\n\tret");
uint32_t try_read(const void *at);
extern const char try_read_at[];

static uint32_t good_words[8] = { 0, 0, 0, 0, 41 };
static uint32_t tls[4] = { 7, 8, 9, 10 };
static volatile uint32_t alarms, faults;

static int32_t call3(uint32_t n, uintptr_t a, uintptr_t b, uintptr_t c)
{
	int32_t r;

	__asm__ volatile("int $0x80"
			 : "=a"(r)
			 : "a"(n), "b"(a), "c"(b), "d"(c)
			 : "memory");
	return r;
}

static void say(const char *s)
{
	uint32_t n = 0;

	while (s[n])
		n++;
	call3(NR_WRITE, 1, (uintptr_t)s, n);
}

static void need(int ok, const char *what)
{
	if (ok)
		return;
	say("i386: failed: ");
	say(what);
	say("\n");
	call3(NR_EXIT, 1, 0, 0);
}

static void on_alarm(int sig, void *info, void *context)
{
	(void)sig, (void)info, (void)context;
	alarms++;
}

static void on_fault(int sig, void *info, void *context)
{
	struct context *c = context;

	(void)info;
	need(sig == SIGSEGV && c->eip == (uintptr_t)try_read_at && c->eax == 1,
	    "registers at a fault");
	c->ecx = (uintptr_t)good_words;
	faults++;
}

static void handle(int sig, void (*fn)(int, void *, void *))
{
	struct action a = { fn, SA_SIGINFO | SA_RESTORER, restore, { 0, 0 } };
	int32_t r;

	__asm__ volatile("int $0x80"
			 : "=a"(r)
			 : "a"(NR_RT_SIGACTION), "b"(sig), "c"(&a), "d"(0), "S"(8)
			 : "memory");
	need(r == 0, "sigaction");
}

static uint32_t fib(uint32_t n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint32_t crc(uint32_t rounds)
{
	uint32_t c = ~UINT32_C(0);

	for (uint32_t i = 0; i < rounds; i++) {
		c ^= i & 255;
		for (int k = 0; k < 8; k++)
			c = c >> 1 ^ (c & 1 ? 0xedb88320 : 0);
	}
	return ~c;
}

static void calls(const uint32_t *aux)
{
	int32_t pid = call3(NR_GETPID, 0, 0, 0), other = pid;

	for (; aux[0]; aux += 2)
		if (aux[0] == AT_SYSINFO)
			for (int i = 0; i < 1000; i++)
				__asm__ volatile("call *%1"
						 : "=a"(other)
						 : "r"(aux[1]), "a"(NR_GETPID)
						 : "memory");
	need(pid > 0 && other == pid, "getpid");
}

static void thread_area(void)
{
	/* writable data of 4 GiB in 32-bit code, usable */
	struct user_desc d = { ~UINT32_C(0), (uintptr_t)tls, 0xfffff, 0x51 };
	uint32_t a, b, sum = 0;

	need(
	    call3(NR_SET_THREAD_AREA, (uintptr_t)&d, 0, 0) == 0, "set_thread_area");
	__asm__ volatile("mov %0, %%gs" : : "r"(d.entry << 3 | 3));
	for (uint32_t i = 0; i < 1000; i++) {
		__asm__ volatile(
		    "mov %%gs:4, %0\n\tmov %%gs:(%2), %1\n\tincl %%gs:12"
		    : "=&r"(a), "=&r"(b)
		    : "r"(8)
		    : "memory");
		sum += a + b;
	}
	need(sum == 17000 && *(volatile uint32_t *)&tls[3] == 1010,
	    "thread-local storage");
}

static void signals(void)
{
	static const uint32_t often[4] = { 0, 1000, 0, 1000 }, never[4];
	/* Volatile: the sums are to be made each time. */
	volatile uint32_t rounds = 20000, n = 18;
	uint32_t want = crc(rounds), f = fib(n);

	handle(SIGALRM, on_alarm);
	handle(SIGSEGV, on_fault);
	need(call3(NR_SETITIMER, 0, (uintptr_t)often, 0) == 0, "setitimer");
	while (alarms < 20)
		need(crc(rounds) == want && fib(n) == f, "a sum among signals");
	need(call3(NR_SETITIMER, 0, (uintptr_t)never, 0) == 0, "setitimer");
	for (int i = 0; i < 100; i++)
		need(try_read((void *)0xfff0) == 42, "a fault mended");
	need(faults == 100, "faults");
}

void start(uint32_t *stack)
{
	uint32_t *p = stack + 1;

	while (*p++) /* arguments */
		;
	while (*p++) /* environment */
		;
	need(fib(20) == 6765 && crc(1000000) == 0x6182291b, "arithmetic");
	calls(p);
	thread_area();
	signals();
	say("i386: good\n");
	call3(NR_EXIT, 0, 0, 0);
}
