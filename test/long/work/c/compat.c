/*
 * A 32-bit program under the 64-bit kernel (compatibility mode), without any library:
 * gcc -m32 -nostdlib. Integer and x87 work, int 0x80, a far call to 64-bit code and back.
 */
typedef unsigned int u32;
typedef unsigned long long u64;

static long sys3(long n, long a, long b, long c)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
	return r;
}

static void print(const char *name, u32 v)
{
	char s[40];
	u32 n = 0;

	for (; name[n]; n++)
		s[n] = name[n];
	s[n++] = ' ';
	for (int i = 28; i >= 0; i -= 4)
		s[n++] = "0123456789abcdef"[v >> i & 15];
	s[n++] = '\n';
	sys3(4, 1, (long)s, (long)n);
}

static u32 state = 12345;

static u32 rnd(void)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

static u32 fib(u32 n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

/* 64-bit instructions, reached through the 64-bit code segment. */
static u32 in_64_bits(u32 a, u32 b)
{
	u32 lo, hi;

	__asm__ volatile("push %%ebx\n\t"
			 "lcall $0x33, $1f\n\t"
			 "jmp 2f\n"
			 "1:\n\t.byte 0x48, 0x01, 0xd0\n\t"	/* add rax, rdx */
			 ".byte 0x48, 0x0f, 0xaf, 0xc2\n\t"	/* imul rax, rdx */
			 ".byte 0x48, 0x89, 0xc2\n\t"		/* mov rdx, rax */
			 ".byte 0x48, 0xc1, 0xea, 0x20\n\t"	/* shr rdx, 32 */
			 "lret\n"
			 "2:\n\tpop %%ebx"
	    : "=a"(lo), "=d"(hi)
	    : "a"(a), "d"(b)
	    : "ecx", "cc", "memory");
	return lo ^ hi;
}

__attribute__((force_align_arg_pointer, noreturn)) void _start(void)
{
	static u32 v[4096];
	u32 h = 0;

	print("fib", fib(24));
	for (u32 i = 0; i < 500000; i++) {
		u32 a = rnd(), b = rnd() | 1;

		h = h * 31 + a / b + a % (b >> (i & 31) | 1);
		h ^= (u32)((u64)a * b >> 17);
		h += (u32)((int)a >> (i & 31));
		v[a & 4095] += h;
	}
	print("arithmetic", h);
	for (u32 i = 0; i < 4096; i++)
		h = (h ^ v[i]) * 16777619u;
	print("memory", h);
	for (u32 i = 0; i < 100000; i++) {
		volatile double d = (double)(int)rnd(), e = (double)(int)rnd();
		union {
			double d;
			u32 u[2];
		} q = { .d = d / (e + 0.5) };

		h = (h ^ q.u[0] ^ q.u[1]) * 16777619u;
	}
	print("x87", h);
	for (u32 i = 0; i < 20000; i++)
		h = h * 31 + in_64_bits(rnd(), rnd());
	print("far", h);
	for (u32 i = 0; i < 5000; i++)
		h += (u32)(sys3(20, 0, 0, 0) > 0); /* getpid */
	print("int80", h);
	for (;;)
		sys3(1, 0, 0, 0);
}
