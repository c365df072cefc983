/*
 * Compatibility mode, hot: 32-bit programs in ring 3 under a 64-bit kernel. What
 * differs from 64-bit code: addresses that wrap at 4 GiB, pushes of four bytes, INC
 * and DEC of one byte, absolute addresses, segments, instructions of old.
 */
#include "guest.h"

/* Ends with INT 0x80; what it left in the registers is then in regs. */
#define CODE32(name, text)                                                         \
	void c32_##name(void);                                                     \
	asm(".code32\n.globl c32_" #name "\nc32_" #name ":\n" text                 \
	    "\nint $0x80\n.code64\n")
/* The same with DS and ES loaded first. */
#define PROGRAM(name, text)                                                        \
	CODE32(name, "mov $0x23, %eax\nmov %eax, %ds\nmov %eax, %es\n" text)

#define STACK ((u64)user_stack_top)
#define HIGH  0xfffff000u /* a page below 4 GiB */
#define FAR   0x50000000u /* words once more, far from zero */
#define HOLE  0x60001000u /* nothing, behind a page */
#define TICK  0x60

u32 words[1024] __attribute__((aligned(4096)));
u8 deep_stack[0x18000] __attribute__((aligned(16)));
static u8 top[3 * 4096] __attribute__((aligned(4096)));
static u8 *const beyond = top + 4096;
static struct frame regs;
static u64 ticks;

static bool note(struct frame *f)
{
	if (f->vector == TICK) {
		ticks++;
		return true;
	}
	regs = *f;
	return false;
}

static void run(void (*fn)(void), u64 flags, u64 arg)
{
	reset_trap();
	trap_hook = note;
	run_user32(fn, flags, arg);
	trap_hook = 0;
}

/* Three times: decoded, translated, linked. */
static bool gives(void (*fn)(void), u64 arg, u32 want)
{
	for (int i = 0; i < 3; i++) {
		run(fn, 0, arg);
		if (caught.vector != 0x80 || regs.rax != want ||
		    caught.rsp != STACK) {
			print("eax ");
			print_hex(regs.rax);
			print(" esp ");
			print_hex(caught.rsp);
			print(" wanted ");
			print_hex(want);
			print("\n");
			return false;
		}
	}
	return true;
}

/* Arithmetic and flags. */

#define CARRIES 300000
PROGRAM(carry, "xor %eax, %eax; mov $0xdeadbeef, %edx; mov $300000, %ecx\n"
	       "1: add %edx, %eax; inc %esi; adc $3, %eax; dec %esi; rcl $1, %edx\n"
	       "inc %ebx; dec %ecx; jnz 1b");

static u32 carry_model(void)
{
	u32 a = 0, d = 0xdeadbeef;

	for (u32 i = 0; i < CARRIES; i++) {
		u64 s = (u64)a + d;

		s = (u64)(u32)s + 3 + (s >> 32);
		a = (u32)s;
		d = d << 1 | (u32)(s >> 32);
	}
	return a;
}

PROGRAM(inc_dec,
    ".irp r, eax, ebx, ecx, edx, ebp, esi, edi\n"
    "mov $0x7fffffff, %\\r; stc; inc %\\r; pushf; clc; dec %\\r; pushf\n"
    ".endr\n"
    "xor %eax, %eax\n"
    ".rept 14\n pop %edx; and $0x8d5, %edx; add %edx, %eax\n.endr\n"
    "inc %esp; inc %esp; dec %esp; dec %esp\n"
    "mov $0x1ffff, %ecx; stc; incw %cx; adc %ecx, %eax\n"
    "decw %cx; adc %ecx, %eax");

/* Calls and the stack. */

asm(".code32\n"
    "fib32: push %ebp; mov %esp, %ebp; push %ebx; mov 8(%ebp), %ebx\n"
    "cmp $2, %ebx; jae 1f; mov %ebx, %eax; pop %ebx; leave; ret\n"
    "1: lea -1(%ebx), %eax; push %eax; call fib32; add $4, %esp; push %eax\n"
    "sub $2, %ebx; push %ebx; call fib32; pop %ecx; pop %ecx; add %ecx, %eax\n"
    "pop %ebx; pop %ebp; ret\n"
    "sum2: mov 4(%esp), %edx; add 8(%esp), %edx; add %edx, %eax; ret $8\n"
    "one: inc %eax; ret\n"
    "five: add $5, %eax; ret\n"
    "deep: dec %ecx; jz 1f; call deep; inc %eax; 1: ret\n"
    ".data\n.align 4\nfive_at: .long five\nhundred: .long 100\n"
    "cases: .long 10f, 20f, 30f, 40f\n.text\n.code64");
PROGRAM(fib, "push $20; call fib32; pop %ecx");
PROGRAM(calls, "xor %eax, %eax; mov $1000, %esi\n"
	       "1: push $7; pushl hundred; call sum2; mov $one, %ebx; call *%ebx\n"
	       "call *five_at; mov %esi, %ecx; and $3, %ecx; jmp *cases(,%ecx,4)\n"
	       "10: add $10, %eax; jmp 2f\n"
	       "20: add $20, %eax; jmp 2f\n"
	       "30: add $30, %eax; jmp 2f\n"
	       "40: add $40, %eax\n"
	       "2: push %esp; pop %edx; cmp %esp, %edx; jne 3f\n"
	       "push $-2; pop %edx; cmp $-2, %edx; jne 3f\n"
	       "push %edx; push $back; ret $4\n" /* nobody's call */
	       "3: xor %eax, %eax; int $0x80\n"
	       "back: call 4f\n4: pop %edx; cmp $4b, %edx; jne 3b\n"
	       "cmp $user_stack_top, %esp; jne 3b\n"
	       "dec %esi; jnz 1b");
PROGRAM(deep, "mov $deep_stack + 0x18000, %esp; xor %eax, %eax; mov $20000, %ecx\n"
	      "call deep; cmp $deep_stack + 0x18000, %esp; jne 1f\n"
	      "mov $user_stack_top, %esp; 1:");
PROGRAM(frames, "xor %eax, %eax; mov $500, %ecx\n"
		"1: enter $16, $0; mov %ecx, -16(%ebp); mov %eax, -4(%ebp)\n"
		"pushl -16(%ebp); popl -12(%ebp); mov -12(%ebp), %eax\n"
		"add -4(%ebp), %eax; leave; dec %ecx; jnz 1b");

/* Addresses. */

PROGRAM(absolute, "mov $100, %ecx; xor %esi, %esi\n"
		  "1: mov words+4, %eax; add %eax, %esi\n" /* A1 */
		  "mov words+8, %ebx; add %ebx, %esi\n"
		  "xor %eax, %eax; movb words+12, %al; add %eax, %esi\n"
		  "movw words+16, %ax; add %eax, %esi\n"
		  "mov %esi, %eax; mov %eax, words+2048; add words+2048, %esi\n"
		  "movb %al, words+2052; movw %ax, words+2056\n"
		  "movzbl words+2052, %edx; movzwl words+2056, %eax\n"
		  "add %edx, %esi; add %eax, %esi; dec %ecx; jnz 1b\n"
		  "mov %esi, %eax");

static u32 absolute_model(void)
{
	u32 s = 0;

	for (int i = 0; i < 100; i++) {
		s += words[1] + words[2] + (u8)words[3];
		s += ((u32)(u8)words[3] & 0xffff0000) | (u16)words[4];
		s += s;
		s += (u8)(s / 2) + (u16)(s / 2);
	}
	return s;
}

/* Negative indices, far displacements: sums beyond 4 GiB. */
PROGRAM(negative, "xor %eax, %eax; mov $-400, %ecx\n"
		  "1: add words+400(%ecx), %eax; add 0x50000190(%ecx), %eax\n"
		  "add 0x50000194(%ecx), %eax; add words+404(%ecx), %eax\n"
		  "add $4, %ecx; jnz 1b\n"
		  "mov $-100, %ecx\n"
		  "1: add words+400(,%ecx,4), %eax; add 0x50000190(,%ecx,4), %eax\n"
		  "inc %ecx; jnz 1b\n"
		  "mov $0xb0000000, %edx\n"
		  "add -0x60000000(%edx), %eax; add -0x5ffffffc(%edx), %eax\n"
		  "mov $0xc0000000, %edx; mov $0x24000000, %ecx\n"
		  "add (%edx,%ecx,4), %eax; add 4(%edx,%ecx,4), %eax");

static u32 negative_model(void)
{
	u32 s = 0;

	for (int i = 0; i < 100; i++)
		s += 4 * words[i] + 2 * words[i + 1];
	return s + 2 * words[0] + 2 * words[1];
}

/* Both sides of 4 GiB through one register, also one that moves between accesses.
 */
PROGRAM(wrap,
    "xor %eax, %eax; mov $30, %esi\n"
    "1: mov $0xfffffff8, %ebx; add (%ebx), %eax; add 4(%ebx), %eax\n"
    "add 8(%ebx), %eax; add 12(%ebx), %eax; add 0x108(%ebx), %eax\n"
    "add 0x1008(%ebx), %eax\n"
    "mov $4, %ecx; add -8(%ecx), %eax; add -4(%ecx), %eax; add (%ecx), %eax\n"
    "dec %esi; jnz 1b\n"
    "mov $30, %esi\n"
    "1: mov $0xffffff80, %ebx; add (%ebx), %eax; add $0x100, %ebx\n"
    "add -0x100(%ebx), %eax; add -0xfc(%ebx), %eax; movl $7, -0x100(%ebx)\n"
    "add -0x100(%ebx), %eax; movl $0x13e0, -0x100(%ebx); nop; jmp 2f\n"
    "2: add (%ebx), %eax\n"
    "mov $0xffffff80, %ebx; mov $0x40, %ecx; add (%ebx,%ecx,2), %eax\n"
    "add 4(%ebx,%ecx,2), %eax; dec %esi; jnz 1b\n"
    "mov $-1, %ecx; lea 2(%ecx), %edx; add %edx, %eax\n"
    "lea (%ecx,%ecx,8), %edx; add %edx, %eax");

/* [HIGH + 4 i] = 0x1000 + i, [4 i] = i + 1, the store of 7 being undone */
static u32 wrap_model(void)
{
	u32 h = 0x1000 + 1022, m = 0x1000 + 0x3e0;
	u32 first = h + h + 1 + 1 + 2 + (0x100 / 4 + 1) + (0x1000 / 4 + 1) +
		    (h + 1) + 1 + 2;
	u32 second = m + m + m + 1 + 7 + (0x80 / 4 + 1) + 1 + 2;

	return 30 * (first + second) + 1 + 0xfffffff7;
}

PROGRAM(wrap_stack,
    "xor %eax, %eax; mov $30, %esi\n"
    "1: mov $8, %esp; push $1; push $2; push $3; push $4\n"
    "add 0xfffffffc, %eax; add 4(%esp), %eax; pop %edx; add %edx, %eax\n"
    "pop %edx; pop %edi; shl $1, %edi; add %edi, %eax; pop %ecx\n"
    "cmp $8, %esp; jne 2f\n"
    "mov $0, %esp; call one; cmp $0, %esp; jne 2f\n"
    "movl $5, 0xfffffffc; mov $0xfffffffc, %ebp; leave\n"
    "cmp $0, %esp; jne 2f; add %ebp, %eax; dec %esi; jnz 1b\n"
    "mov $user_stack_top, %esp; 2:");

PROGRAM(cross, "mov $0xfffffffe, %ebx; mov $20, %ecx\n"
	       "1: cmp $1, %ecx; jne 2f; add $2, %ebx; 2: sub $2, %ebx\n"
	       "movw (%ebx), %ax; add $2, %ebx; dec %ecx; jnz 1b\n"
	       ".globl cross_at\ncross_at: mov -2(%ebx), %eax");
extern u8 cross_at[];

/* 64-bit code that knows the page behind, and that it continues the one before. */
void c64_beyond(void);
asm("c64_beyond: mov $0x100000000, %rbx; mov $0xfffff000, %ecx; mov $100, %edx\n"
    "1: mov (%rbx), %eax; mov (%rcx), %esi; mov %eax, 8(%rbx); mov %esi, (%rcx)\n"
    "mov %eax, 4096(%rbx)\n"
    "dec %edx; jnz 1b; int $0x80");

static void addresses(void)
{
	volatile u32 *low = 0;

	for (u32 i = 0; i < 1024; i++)
		words[i] = i * 0x01010203 + 1;
	map(FAR, (u64)words | 7);
	CHECK(gives(c32_absolute, 0, absolute_model()));
	CHECK(gives(c32_negative, 0, negative_model()));
	/* RAM on both sides, and other RAM where 64-bit code would go on. */
	asm("" : "+r"(low));
	((u64 *)(pdpt[3] & ~0xfffull))[511] = 0;
	write_cr3(read_cr3());
	map(HIGH, (u64)top | 7);
	map(HIGH + 0x1000ull, (u64)beyond | 7);
	map(HIGH + 0x2000ull, ((u64)beyond + 4096) | 7);
	for (u32 i = 0; i < 2048; i++) {
		((volatile u32 *)top)[i & 1023] = 0x1000 + (i & 1023);
		((volatile u32 *)beyond)[i] = 0xbad00000;
		low[i] = i + 1;
	}
	run_user(c64_beyond, 0, 0);
	CHECK(gives(c32_wrap, 0, wrap_model()));
	run_user(c64_beyond, 0, 0);
	CHECK(gives(c32_wrap, 0, wrap_model()));
	CHECK(gives(c32_wrap_stack, 0, 30 * (3 + 3 + 4 + 2 * 2 + 1 + 5)));
	run(c32_cross, 0, 0);
	CHECK(!have_host() || (caught.rip == (u64)cross_at && CAUGHT(13, 0)));
	for (u32 i = 0; i < 2048; i++)
		CHECK(((volatile u32 *)beyond)[i] == 0xbad00000);
}

/* The instruction pointer wraps, too: by a jump, and by going on. */
PROGRAM(
    ip_jump, "mov $5000, %ecx; xor %eax, %eax; mov $0xfffffff0, %edx; jmp *%edx");
PROGRAM(ip_next, "xor %eax, %eax; mov $0xfffffffe, %edx; jmp *%edx");
/* An instruction on both sides is beyond the limit. */
PROGRAM(ip_cross, "mov $0xfffffffd, %edx; jmp *%edx");

static void put(volatile u8 *at, const void *code, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		at[i] = ((const u8 *)code)[i];
}

static void instruction_pointer(void)
{
	static const u8 there[] = { 0x40, 0xe9, 0x1a, 0, 0, 0 }; /* inc; jmp 0x10 */
	static const u8 here[] = { 0x49, 0x74, 0x05,             /* dec; jz 0x18 */
		0xe9, 0xd8, 0xff, 0xff, 0xff, 0xcd, 0x80 };      /* jmp; int 0x80 */
	static const u8 cross[] = { 0xb8, 0, 0 };                /* mov $, %eax */
	static const u8 end_of[] = { 0x40, 0x40 }, start[] = { 0x40, 0xcd, 0x80 };
	volatile u8 *low = (u8 *)0x10;

	asm("" : "+r"(low));
	put(top + 0xff0, there, sizeof(there));
	put(low, here, sizeof(here));
	CHECK(gives(c32_ip_jump, 0, 5000) && caught.rip == 0x1a);
	put(top + 0xffe, end_of, sizeof(end_of));
	put(low - 0x10, start, sizeof(start));
	CHECK(gives(c32_ip_next, 0, 3) && caught.rip == 3);
	put(top + 0xffd, cross, sizeof(cross));
	run(c32_ip_cross, 0, 0);
	CHECK(!have_host() || (CAUGHT(13, 0) && caught.rip == 0xfffffffd));
	map(HIGH + 0x1000ull, 0);
	run(c32_ip_cross, 0, 0);
	CHECK(!have_host() || (CAUGHT(13, 0) && caught.rip == 0xfffffffd));
	map(HIGH + 0x1000ull, (u64)beyond | 7);
}

/* Segments. */

static u64 data_segment(u32 base, u32 limit, u32 access, u32 flags)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
	       (u64)(limit >> 16 & 15) << 48 | (u64)flags << 52 |
	       (u64)(base >> 24) << 56;
}

extern u8 tls_beyond[];
#define TLS (SEL_FREE | 3)
PROGRAM(tls, "mov $0x53, %eax; mov %eax, %gs; xor %eax, %eax; xor %edx, %edx\n"
	     "mov $1000, %ecx\n"
	     "1: add %gs:0, %eax; mov %gs:4, %ebx; add %ebx, %eax\n"
	     "mov $-8, %edx; add %gs:(%edx), %eax; add %gs:0xfffffffc, %eax\n"
	     "mov $1, %edx; add %gs:4(%edx,%edx,2), %ax; mov %ecx, %gs:16\n"
	     "incl %gs:20; call *%gs:24; dec %ecx; jnz 1b\n"
	     "add %gs:16, %eax; add %gs:20, %eax");
CODE32(tls_use, "mov $100, %ecx; xor %eax, %eax\n"
		"1: add %gs:0, %eax; dec %ecx; jnz 1b\n"
		".globl tls_beyond\ntls_beyond: add %gs:16, %eax");
PROGRAM(tls_kept, "jmp c32_tls_use");
PROGRAM(tls_null, "mov $100, %ecx; mov $0x53, %ebx; mov %ebx, %gs\n"
		  "1: add %gs:0, %eax; dec %ecx; jnz 1b\n"
		  "xor %ebx, %ebx; mov %ebx, %gs; mov $1, %ecx; jmp 1b");
PROGRAM(fs, "mov $0x53, %eax; mov %eax, %fs; mov $100, %ecx; xor %eax, %eax\n"
	    "1: add %fs:4, %eax; dec %ecx; jnz 1b");
/* Stores through CS, and through a DS that is read-only. */
PROGRAM(cs_read, "mov $100, %ecx; xor %eax, %eax\n"
		 "1: add %cs:words, %eax; dec %ecx; jnz 1b");
PROGRAM(cs_write, "mov $words, %ebx; mov $5, %ecx; 1: mov %cs:(%ebx), %eax\n"
		  "dec %ecx; jnz 1b; mov %eax, %cs:(%ebx)");
CODE32(ds_read_only,
    "mov $0x23, %eax; mov %eax, %es; mov %eax, %ds\n"
    "mov $words, %ebx; mov $20, %ecx\n"
    "1: mov (%ebx), %eax; mov %eax, (%ebx); dec %ecx; jz 2f\n"
    "cmp $1, %ecx; jne 1b; mov $0x53, %edx; mov %edx, %ds; jmp 1b; 2:");
CODE32(ds_base,
    "mov $0x23, %eax; mov %eax, %es; mov %eax, %ds; mov $0x53, %edx\n"
    "xor %eax, %eax; xor %esi, %esi; mov $200, %ecx\n"
    "1: mov %edx, %ds; add 4(%esi), %eax; add (%esi), %eax\n"
    "mov %es:words, %ebx; mov %es, %edi; mov %edi, %ds\n"
    "add words+8, %ebx; sub words, %ebx; add %ebx, %eax; dec %ecx; jnz 1b");

static u32 tls_model(const u32 *at)
{
	u32 a = 0;

	for (u32 i = 0; i < 1000; i++) {
		a += at[0] + at[1] + at[-2] + at[-1];
		a = (a & 0xffff0000) | (u16)(a + (at[1] >> 24 | at[2] << 8));
		a++;
	}
	return a + 1 + 1000;
}

static void segments(void)
{
	u32 *at = words + 16;

	for (u32 i = 0; i < 1024; i++)
		words[i] = i + 1;
	gdt[TLS / 8] = data_segment((u32)(u64)at, 0xfffff, 0xf3, 0xc);
	for (u32 i = 0; i < 3; i++) {
		at[5] = 0;
		asm("movl $one, %0" : "=m"(at[6]));
		run(c32_tls, 0, 0);
		CHECK(caught.vector == 0x80 && regs.rax == tls_model(at));
	}
	at[5] = 0;
	/* Kept from ring 0: with a base above 4 GiB, then with a limit. */
	asm volatile("mov %0, %%gs" : : "r"(TLS));
	wrmsr(0xc0000101, 0x700000000 + (u64)(at + 1));
	CHECK(gives(c32_tls_kept, 0, 100 * 18));
	gdt[TLS / 8] = data_segment((u32)(u64)at, 15, 0xf3, 4);
	asm volatile("mov %0, %%gs" : : "r"(TLS));
	run(c32_tls_kept, 0, 0);
	CHECK(
	    CAUGHT(13, 0) && caught.rip == (u64)tls_beyond && regs.rax == 100 * 17);
	asm volatile("mov %0, %%gs" : : "r"(0));
	gdt[TLS / 8] = data_segment((u32)(u64)at, 0xfffff, 0xf3, 0xc);
	run(c32_tls_null, 0, 0);
	CHECK(CAUGHT(13, 0) && regs.rcx == 1);
	CHECK(gives(c32_fs, 0, 100 * 18));
	CHECK(gives(c32_cs_read, 0, 100));
	run(c32_cs_write, 0, 0);
	CHECK(CAUGHT(13, 0) && regs.rcx == 0 && words[0] == 1);
	gdt[TLS / 8] = data_segment((u32)(u64)words, 0xfffff, 0xf3, 0xc);
	CHECK(gives(c32_ds_base, 0, 200 * (1 + 2 + 3)));
	gdt[TLS / 8] = data_segment(0, 0xfffff, 0xf1, 0xc);
	run(c32_ds_read_only, 0, 0);
	CHECK(CAUGHT(13, 0) && regs.rcx == 1 && regs.rax == 1);
}

/* Faults in hot code: where, with what in the registers. */

PROGRAM(pf_read, "mov $0x60000000, %ebx; xor %ecx, %ecx\n"
		 "1: inc %ecx; .globl pf_read_at\npf_read_at: mov (%ebx), %eax\n"
		 "add $4, %ebx; jmp 1b");
PROGRAM(pf_write, "mov $0x60000000, %ebx; mov $-4096, %ecx\n"
		  "1: mov %ecx, %gs:0; .globl pf_write_at\npf_write_at:\n"
		  "mov %eax, 4096(%ebx,%ecx); add $4, %ecx; jmp 1b");
PROGRAM(pf_push, "mov $0x60000ffc, %esp; mov $5000, %ecx\n"
		 "1: .globl pf_push_at\npf_push_at: push %ecx; dec %ecx; jmp 1b");
PROGRAM(pf_call,
    "mov $100, %ecx; mov $one, %ebx\n"
    "1: dec %ecx; jnz 2f; mov $0x60001000, %ebx; 2: call *%ebx; jmp 1b");
PROGRAM(divide, "mov $100, %ecx; 1: mov $100000, %eax; cltd\n"
		".globl divide_at\ndivide_at: div %ecx; dec %ecx; jmp 1b");
PROGRAM(overflow, "mov $0x7ffffff0, %eax; 1: inc %eax; into; jmp 1b");
extern u8 pf_read_at[], pf_write_at[], pf_push_at[], divide_at[];

static void faults(void)
{
	gdt[TLS / 8] = data_segment((u32)(u64)words, 0xfffff, 0xf3, 0xc);
	map(HOLE - 4096, (u64)top | 7);
	map(HOLE, 0);
	run(c32_pf_read, 0, 0);
	CHECK(CAUGHT(14, 4) && caught.cr2 == HOLE && regs.rcx == 1025 &&
	      regs.rbx == HOLE && caught.rip == (u64)pf_read_at);
	asm volatile("mov %0, %%gs" : : "r"(TLS));
	map(HOLE, (u64)beyond | 5);
	run(c32_pf_write, 0, 0);
	CHECK(CAUGHT(14, 7) && caught.cr2 == HOLE && regs.rcx == 0 &&
	      caught.rip == (u64)pf_write_at);
	asm volatile("mov %0, %%gs" : : "r"(0));
	map(HOLE, 0);
	map(HOLE - 8192, 0);
	run(c32_pf_push, 0, 0);
	CHECK(CAUGHT(14, 6) && caught.cr2 == HOLE - 4096 - 4 &&
	      caught.rsp == HOLE - 4096 && regs.rcx == 5000 - 0xffc / 4 &&
	      caught.rip == (u64)pf_push_at);
	run(c32_pf_call, 0, 0);
	CHECK(CAUGHT(14, 0x14) && caught.cr2 == HOLE && caught.rip == HOLE &&
	      caught.rsp == STACK - 4 && regs.rcx == 0);
	run(c32_divide, 0, 0);
	CHECK(CAUGHT(0, 0) && regs.rcx == 0 && regs.rax == 100000 &&
	      caught.rip == (u64)divide_at);
	run(c32_overflow, 0, 0);
	CHECK(CAUGHT(4, 0) && regs.rax == 0x80000000);
}

/* What 64-bit code has no encoding for, and what needs a REX prefix there. */

PROGRAM(old,
    "xor %eax, %eax; xor %edi, %edi; mov $1000, %ecx\n"
    "1: mov %ecx, %edx; pusha; xor %edi, %edi; mov $3, %edx; popa\n"
    "add %edx, %edi; mov %cl, %al; and $0x77, %al; add $0x19, %al; daa\n"
    "movzbl %al, %edx; add %edx, %edi; mov $0x25, %al; sub $0x17, %al; das\n"
    "movzbl %al, %edx; add %edx, %edi; mov %cl, %al; aam\n"
    "movzwl %ax, %edx; add %edx, %edi; aad; movzbl %al, %edx\n"
    "add %edx, %edi; cmp %ecx, %ecx; stc; .byte 0xd6\n" /* salc */
    "movzbl %al, %edx; add %edx, %edi; .byte 0x82, 0xc0, 0x05\n"
    "movzbl %al, %edx; add %edx, %edi; bound %ecx, range32\n"
    "mov $0x100, %ebx; arpl %cx, %bx; setz %dl; movzbl %dl, %edx\n"
    "add %edx, %edi; add %ebx, %edi; les far32, %ebx; add %ebx, %edi\n"
    "pushw %cx; popw %bx; movzwl %bx, %ebx; add %ebx, %edi\n"
    "push %es; pop %es; push %ds; pop %edx; movzwl %dx, %edx\n"
    "add %edx, %edi; mov $0x500, %ebx; movl $9, (%ebx); addr16 mov (%bx), %edx\n"
    "add %edx, %edi; mov $2, %edx; push %ecx; mov $3, %ecx; 2: loop 2b\n"
    "jecxz 3f; xor %edi, %edi; 3: pop %ecx; mov $words, %ebx; mov $5, %al\n"
    "xlat; movzbl %al, %edx; add %edx, %edi; mov $words, %esi; lodsl\n"
    "add %eax, %edi; mov %esp, %ebx; xchg %eax, %esp; xchg %eax, %esp\n"
    "cmp %ebx, %esp; jne 4f; bswap %edi; dec %ecx; jnz 1b; 4: mov %edi, %eax\n"
    ".data\n.align 4\nrange32: .long 1, 1000\nfar32: .long 0x777, 0x23\n.text");

PROGRAM(bytes,
    "mov $0x11223344, %eax; mov $0x55667788, %ebx; mov $1000, %ecx\n"
    "mov $words+2048, %edx; mov %esp, %ebp\n"
    "1: mov %ah, (%edx); mov %bh, 1(%edx); add 3(%edx), %ah; xor (%edx), %bh\n"
    "xchg %ah, 2(%edx); adc %ch, 3(%edx); push %eax; mov 3(%esp), %bl\n"
    "add %bh, (%esp); cmp %ah, 1(%esp); sete 2(%edx); pop %eax\n"
    "xchg %al, %ah; movzbl %bh, %esi; add %esi, %esp; sub %esi, %esp\n"
    "rol $3, %eax; add (%edx), %ebx; dec %ecx; jnz 1b; add %ebx, %eax");

/* Vectors and x87; AVX with bits in its prefixes that 32-bit code does not look at.
 */
PROGRAM(vector,
    "fninit; mov $1000, %ecx; xorps %xmm0, %xmm0; fldz; mov $words, %ebx\n"
    "1: cvtsi2sd %ecx, %xmm1; mulsd %xmm1, %xmm1; addsd %xmm1, %xmm0\n"
    "movd %ecx, %xmm7; pshufd $0, %xmm7, %xmm7; movaps %xmm7, (%ebx)\n"
    "paddd 16(%ebx), %xmm7; movups %xmm7, 20(%ebx); mov %ecx, -8000(%esp,%ecx,4)\n"
    "fiaddl -8000(%esp,%ecx,4); push %ecx; fiaddl (%esp); pop %edx\n"
    "dec %ecx; jnz 1b; cvttsd2si %xmm0, %eax\n"
    "push %eax; fistpl (%esp); pop %edx; add %edx, %eax");
PROGRAM(vex,
    "mov $1000, %ecx; xor %eax, %eax; vpxor %xmm2, %xmm2, %xmm2\n"
    "1: vmovd %ecx, %xmm0; vpaddd %xmm0, %xmm2, %xmm2\n"
    ".byte 0xc4, 0xe2, 0xf8, 0xf2, 0xd1\n"       /* andn %ecx, %eax, %edx, W */
    ".byte 0xc4, 0xe3, 0x79, 0x4a, 0xd8, 0xa0\n" /* vblendvps, register 10 */
    "add %edx, %eax; dec %ecx; jnz 1b; vmovd %xmm2, %edx; add %edx, %eax");

static u32 bytes_model(void)
{
	u32 a = 0x11223344, b = 0x55667788, c = 1000;
	u8 m[4] = { 0 };

	for (; c; c--) {
		u32 t;
		u8 ah = (u8)(a >> 8), bh = (u8)(b >> 8), x, cf;

		m[0] = ah;
		m[1] = bh;
		ah += m[3];
		bh ^= m[0]; /* clears CF */
		x = m[2];
		m[2] = ah;
		ah = x;
		cf = 0;
		m[3] += (u8)(c >> 8) + cf;
		a = (a & 0xffff00ff) | (u32)ah << 8;
		b = (b & 0xffff0000) | (u32)bh << 8 | a >> 24;
		t = (a & 0xffffff00) | (u8)(a + bh);
		m[2] = ah == (u8)(t >> 8);
		a = (t & 0xffff0000) | (t & 0xff) << 8 | (t >> 8 & 0xff);
		a = a << 3 | a >> 29;
		b += m[0] | (u32)m[1] << 8 | (u32)m[2] << 16 | (u32)m[3] << 24;
	}
	return a + b;
}

static u32 vex_model(void)
{
	u32 a = 0, s = 0;

	for (u32 c = 1000; c; c--) {
		s += c;
		a += ~a & c;
	}
	return a + s;
}

static void encodings(void)
{
	u32 r[4];

	for (u32 i = 0; i < 1024; i++)
		words[i] = i * 0x01010203 + 1;
	/* As a 32-bit process on a CPU has it. */
	CHECK(gives(c32_old, 0, 0x4af302c4));
	for (int i = 0; i < 3; i++) {
		words[512] = 0;
		run(c32_bytes, 0, 0);
		CHECK(caught.vector == 0x80 && regs.rax == bytes_model());
	}
	CHECK(gives(c32_vector, 0, 333833500 + 500500 * 2));
	cpuid(1, 0, r);
	if (!(r[2] & 1u << 28))
		return;
	cpuid(7, 0, r);
	if (!(r[1] & 8))
		return;
	write_cr4(read_cr4() | 0x40000);
	asm volatile("xsetbv" : : "a"(7), "d"(0), "c"(0));
	CHECK(gives(c32_vex, 0, vex_model()));
}

/* The same bytes in both modes; registers with something in their upper halves. */
void both_modes(void);
asm("both_modes: .byte 0x48, 0xff, 0xc0\nint $0x80"); /* dec, inc or incq */
PROGRAM(upper, "mov $1000, %ecx; xor %eax, %eax\n"
	       "1: add (%edi), %eax; add 4(%edi), %eax; movw $0, %dx\n"
	       "lea (%edi,%edx), %ebx; dec %ecx; jnz 1b; push %edi; pop %ebx");
PROGRAM(rewrite,
    "movl $0, 2f+1; mov $200, %ecx; xor %eax, %eax\n"
    "1: incl 2f+1; jmp 2f; 2: add $0x11223344, %eax; dec %ecx; jnz 1b");

static void modes(void)
{
	for (int i = 0; i < 4; i++) {
		trap_hook = note;
		run_user(both_modes, 0, 0);
		CHECK(caught.vector == 0x80 && regs.rax == SEL_UCODE + 1);
		run_user32(both_modes, 0, 0);
		CHECK(caught.vector == 0x80 && regs.rax == SEL_UCODE32);
	}
	words[0] = 3;
	words[1] = 4;
	CHECK(gives(c32_upper, (u64)words | 0xdeadbeef00000000, 7000) &&
	      regs.rbx == (u64)words);
	CHECK(gives(c32_rewrite, 0, 20100));
}

static void ticking(void)
{
	u32 want = carry_model();
	bool ok = true;

	outb(PORT_TICK, TICK);
	for (int i = 0; i < 20; i++) {
		run(c32_carry, 0x200, 0);
		ok &= caught.vector == 0x80 && regs.rax == want;
		run(c32_fib, 0x200, 0);
		ok &= caught.vector == 0x80 && regs.rax == 6765;
	}
	outb(PORT_TICK, 0);
	CHECK(ok && (ticks || !have_host()));
}

void guest_main(unsigned cpu)
{
	(void)cpu;
	CHECK(gives(c32_carry, 0, carry_model()));
	CHECK(gives(c32_inc_dec, 0, 7 * (0x895 + 0x814) + 0x10001 + 0x1ffff));
	CHECK(gives(c32_fib, 0, 6765));
	CHECK(
	    gives(c32_calls, 0, 1000 * (107 + 1 + 5) + 250 * (10 + 20 + 30 + 40)));
	CHECK(gives(c32_deep, 0, 19999));
	CHECK(gives(c32_frames, 0, 500 * 501 / 2));
	addresses();
	instruction_pointer();
	segments();
	faults();
	encodings();
	modes();
	ticking();
}
