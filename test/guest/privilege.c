/*
 * Rings: what ring 3 must not do, call gates, conforming code, SYSCALL, SYSENTER,
 * compatibility mode, I/O rights, control registers and MSRs.
 */
#include "guest.h"

/* Ring 3 code: each piece ends in INT 0x80 if nothing stops it. */
#define USER(name, text)                                                           \
	void user_##name(void);                                                    \
	asm(".globl user_" #name "\nuser_" #name ":\n" text "\nint $0x80\n")

USER(hlt, "hlt");
USER(cli, "cli");
USER(sti, "sti");
USER(rdmsr, "mov $0xc0000080, %ecx; rdmsr");
USER(wrmsr, "mov $0xc0000080, %ecx; xor %eax,%eax; xor %edx,%edx; wrmsr");
USER(cr0, "mov %cr0, %rax");
USER(wcr3, "mov %rax, %cr3");
USER(dr7, "mov %dr7, %rax");
USER(lgdt, "lgdt (%rsp)");
USER(lidt, "lidt (%rsp)");
USER(lldt, "xor %eax, %eax; lldt %ax");
USER(ltr, "mov $0xa0, %eax; ltr %ax");
USER(clts, "clts");
USER(lmsw, "lmsw %ax");
USER(invlpg, "invlpg (%rsp)");
USER(wbinvd, "wbinvd");
USER(swapgs, "swapgs");
USER(sysret, "sysretq");
USER(sysexit, "sysexitl");
USER(in, "in $0x80, %al");
USER(out, "mov $0xf8, %dx; out %al, %dx");
USER(out4, "mov $0xf8, %dx; out %eax, %dx");
USER(xsetbv, "xor %ecx, %ecx; xsetbv");
USER(int41, "int $0x41");
USER(int3, "int3");
USER(kcode, "push $0x08; lea 1f(%rip), %rax; push %rax; lretq\n1:");
USER(kss, "mov $0x10, %eax; mov %eax, %ss");
USER(kds, "mov $0x10, %eax; mov %eax, %ds");
USER(nullss, "xor %eax, %eax; mov %eax, %ss");
USER(popf, "push $0x3202; popfq; pushfq; pop %rbx");
USER(iret_up,
    "mov %rsp, %rax; push $0x10; push %rax; pushfq; push $8; lea 1f(%rip), %rcx;"
    "push %rcx; iretq\n1:");
USER(syscall, "mov $0x1234, %eax; pushfq; pop %rbx; syscall");
USER(sgdt, "sgdt -16(%rsp)");
USER(smsw, "smsw %ax");
USER(sldt, "sldt %ax");
USER(rdtsc, "rdtsc");
USER(rdpmc, "xor %ecx, %ecx; rdpmc");
USER(gate, "sub $16, %rsp; movl $0, (%rsp); movw $0x53, 4(%rsp); lcall *(%rsp)");
USER(conforming,
    "lea 1f(%rip), %rax; push $0x60; push %rax; .byte 0x48; lretq\n1: nop");
USER(nop, "nop");
USER(sysenter, "sysenter");

static void forbidden(void)
{
	static void (*const gp[])(void) = {
		user_hlt, user_cli, user_sti, user_rdmsr, user_wrmsr, user_cr0,
		user_wcr3, user_dr7, user_lgdt, user_lidt, user_lldt, user_ltr,
		user_clts, user_lmsw, user_invlpg, user_wbinvd, user_swapgs,
		user_sysret, user_sysexit, user_in, user_out, user_out4, user_rdpmc,
		user_nullss,
	};

	for (unsigned i = 0; i < sizeof(gp) / sizeof(gp[0]); i++) {
		run_user(gp[i], 0, 0);
		/* SYSEXIT: AMD has none in long mode. */
		CHECK((CAUGHT(13, 0) || (gp[i] == user_sysexit && CAUGHT(6, 0))) &&
		      (caught.cs & 3) == 3 && caught.ss == SEL_UDATA &&
		      caught.rip >= (u64)gp[i]);
	}
	run_user(user_xsetbv, 0, 0);
	CHECK(caught.vector == 6 || caught.vector == 13);
	run_user(user_int41, 0, 0);
	CHECK(CAUGHT(13, 0x41 * 8 + 2));
	run_user(user_int3, 0, 0);
	CHECK(caught.vector == 3);
	run_user(user_kcode, 0, 0);
	CHECK(CAUGHT(13, 8));
	run_user(user_kss, 0, 0);
	CHECK(CAUGHT(13, 0x10));
	run_user(user_kds, 0, 0);
	CHECK(CAUGHT(13, 0x10));
	run_user(user_iret_up, 0, 0);
	CHECK(CAUGHT(13, 8));
	/* POPF in ring 3 silently keeps IF and IOPL. */
	run_user(user_popf, 0, 0);
	CHECK(caught.vector == 0x80 && (caught.rflags & 0x3200) == 0);
	/* IOPL 3: CLI, STI and ports work, POPF may write IF, not IOPL. */
	run_user(user_cli, 0x3200, 0);
	CHECK(caught.vector == 0x80 && (caught.rflags & 0x3200) == 0x3000);
	run_user(user_in, 0x3000, 0);
	CHECK(caught.vector == 0x80);
	/* The I/O bitmap, all bits of a wide access. */
	tss[0].bitmap[0xf8 / 8] = 0xfe;
	run_user(user_out, 0, 0);
	CHECK(caught.vector == 0x80);
	run_user(user_out4, 0, 0);
	CHECK(CAUGHT(13, 0));
	tss[0].bitmap[0xf8 / 8] = 0xf0;
	run_user(user_out4, 0, 0);
	CHECK(caught.vector == 0x80);
	tss[0].bitmap[0xf8 / 8] = 0xff;
	/* Unprivileged until UMIP or TSD say otherwise. */
	run_user(user_sgdt, 0, 0);
	CHECK(caught.vector == 0x80);
	run_user(user_rdtsc, 0, 0);
	CHECK(caught.vector == 0x80);
	write_cr4(read_cr4() | 4);
	run_user(user_rdtsc, 0, 0);
	CHECK(CAUGHT(13, 0));
	write_cr4(read_cr4() & ~4ull);
	u32 r[4];
	cpuid(7, 0, r);
	if (r[2] & 4) {
		write_cr4(read_cr4() | 0x800);
		run_user(user_sgdt, 0, 0);
		CHECK(CAUGHT(13, 0));
		run_user(user_smsw, 0, 0);
		CHECK(CAUGHT(13, 0));
		run_user(user_sldt, 0, 0);
		CHECK(CAUGHT(13, 0));
		write_cr4(read_cr4() & ~0x800ull);
	} else {
		try_write_cr4(read_cr4() | 0x800);
		CHECK(CAUGHT(13, 0));
	}
}

/* Landing places in ring 0: note what arrived, and leave through the trap path. */
static volatile u64 got[8];
void land(void);
asm(".globl land\nland:\n"
    "mov %rax, got\n mov %rcx, got+8\n mov %r11, got+16\n mov %cs, %eax\n mov "
    "%rax, got+24\n"
    "mov %ss, %eax\n mov %rax, got+32\n pushfq\n pop got+40\n mov %rsp, got+48\n "
    "mov %rbx, got+56\n"
    "mov resume+8, %rsp\n ud2\n");

static void fast_calls(void)
{
	u64 at;

	wrmsr(0xc0000081, (u64)(SEL_UCODE32) << 48 | (u64)SEL_KCODE << 32);
	wrmsr(0xc0000082, (u64)land);
	wrmsr(0xc0000084, 0x47700);
	run_user(user_syscall, 0x40201, 0);
	CHECK(caught.vector == 6 && caught.cs == SEL_KCODE && got[0] == 0x1234);
	CHECK(got[3] == SEL_KCODE && got[4] == SEL_KDATA);
	CHECK((got[2] & 0x40300) == 0x40200);
	CHECK((got[5] & 0x47700) == 0);
	CHECK(got[1] > (u64)user_syscall && got[1] < (u64)user_syscall + 16);
	/* Without SCE there is none. */
	wrmsr(0xc0000080, rdmsr(0xc0000080) & ~1ull);
	run_user(user_syscall, 0, 0);
	CHECK(CAUGHT(6, 0) && caught.cs == SEL_UCODE);
	wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);

	/* SYSRET to ring 3, 64-bit and compatibility. */
	TRY("mov $user_nop, %%ecx\n\tmov $0x203, %%r11d\n\tmov $user_stack_top, "
	    "%%esp\n\t"
	    "sysretq",
	    :
	    :
	    : "rcx", "r11", "memory", "cc");
	CHECK(caught.vector == 0x80 && caught.cs == SEL_UCODE &&
	      caught.ss == SEL_UDATA && (caught.rflags & 0x201) == 0x201 &&
	      caught.rsp == (u64)user_stack_top);
	TRY("mov $user_nop, %%ecx\n\tmov $0x3, %%r11d\n\tmov $user_stack_top, "
	    "%%esp\n\tsysretl",
	    :
	    :
	    : "rcx", "r11", "memory", "cc");
	CHECK(caught.vector == 0x80 && caught.cs == SEL_UCODE32);
	/* Non-canonical: in ring 0 on Intel, at the fetch in ring 3 on AMD. */
	u32 r[4];
	cpuid(0, 0, r);
	TRY("movabs $0x800000000000, %%rcx\n\tmov $2, %%r11d\n\tmov "
	    "$user_stack_top, %%esp\n\t"
	    "1:\tsysretq",
	    :
	    :
	    : "rcx", "r11", "memory", "cc");
	CHECK(CAUGHT(13, 0) && (caught.cs & 3) == (r[1] == 0x756e6547 ? 0 : 3));
	(void)at;

	/* SYSENTER and SYSEXIT, where the vendor has them in long mode. */
	if (r[1] != 0x756e6547)
		return;
	wrmsr(0x174, 0);
	run_user(user_sysenter, 0, 0);
	CHECK(CAUGHT(13, 0));
	wrmsr(0x174, SEL_KCODE);
	wrmsr(0x175, tss[0].rsp[0]);
	wrmsr(0x176, (u64)land);
	run_user(user_sysenter, 0x202, 0);
	CHECK(caught.vector == 6 && got[3] == SEL_KCODE && got[4] == SEL_KDATA &&
	      !(got[5] & 0x200) && got[6] == tss[0].rsp[0]);
	TRY("mov $user_nop, %%edx\n\tmov $user_stack_top, %%ecx\n\tsysexitq",
	    :
	    :
	    : "rcx", "rdx", "memory", "cc");
	CHECK(caught.vector == 0x80 && caught.cs == SEL_UCODE &&
	      caught.ss == SEL_UDATA2);
	TRY("mov $user_nop, %%edx\n\tmov $user_stack_top, %%ecx\n\tsysexitl",
	    :
	    :
	    : "rcx", "rdx", "memory", "cc");
	CHECK(caught.vector == 0x80 && caught.cs == SEL_UCODE32 &&
	      caught.ss == SEL_UDATA);
	TRY("movabs $0x800000000000, %%rdx\n\tmov $user_stack_top, "
	    "%%ecx\n\tsysexitq",
	    :
	    :
	    : "rcx", "rdx", "memory", "cc");
	CHECK(CAUGHT(13, 0) && (caught.cs & 3) == 0);
}

static void gates(void)
{
	u64 at = (u64)land;

	/* 0x50: call gate for ring 3 to land(); 0x60: conforming 64-bit code. */
	gdt[0x50 / 8] = (at & 0xffff) | (u64)SEL_KCODE << 16 | 0xecull << 40 |
			(at >> 16 & 0xffff) << 48;
	gdt[0x58 / 8] = at >> 32;
	gdt[0x60 / 8] = 0x00af9f000000ffff;
	run_user(user_gate, 0, 0);
	CHECK(caught.vector == 6 && got[3] == SEL_KCODE && (got[4] & 0xfffc) == 0 &&
	      got[6] == tss[0].rsp[0] - 32);
	gdt[0x50 / 8] &= ~(3ull << 45); /* DPL 0 */
	run_user(user_gate, 0, 0);
	CHECK(CAUGHT(13, 0x50));
	gdt[0x50 / 8] |= 3ull << 45;
	gdt[0x50 / 8] &= ~(1ull << 47);
	run_user(user_gate, 0, 0);
	CHECK(CAUGHT(11, 0x50));
	gdt[0x50 / 8] |= 1ull << 47;
	gdt[0x58 / 8] |= 1ull << 40; /* a type where none may be */
	run_user(user_gate, 0, 0);
	CHECK(CAUGHT(13, 0x50));
	/*
	 * Conforming code runs at the caller's privilege: RETF with RPL 0 is
	 * refused.
	 */
	run_user(user_conforming, 0, 0);
	CHECK(CAUGHT(13, 0x60));
	reset_trap();
	TRY("push %0\n\tlea 1f, %%rax\n\tpush %%rax\n\tlretq\n1:\tmov %%cs, "
	    "%%ebx\n\tud2",
	    :
	    : "r"(0x60ull)
	    : "rax", "rbx", "memory");
	CHECK(caught.vector == 6 && caught.cs == 0x60);
}

/*
 * HWCR's bit 24 promises that the TSC runs at the frequency of P-state 0, which
 * kernels (OpenBSD 7.3) then read without more ado.
 */
static void amd_registers(void)
{
	u32 r[4];

	cpuid(0, 0, r);
	if (r[1] != 0x68747541) /* "Auth" */
		return;
	CHECK(rdmsr(0xc0010015) & 1 << 24);
	for (u32 msr = 0xc0010061; msr <= 0xc0010064; msr++) {
		try_rdmsr(msr);
		CHECK(caught.vector == -1);
	}
	CHECK(rdmsr(0xc0010064) == 0); /* bit 63: valid */
	for (u32 msr = 0xc0010000; msr <= 0xc0010007; msr++) {
		try_wrmsr(msr, 1);
		CHECK(caught.vector == -1 && rdmsr(msr) == 0);
	}
	try_wrmsr(0xc0010064, 0);
	CHECK(CAUGHT(13, 0));
}

static void registers(void)
{
	if (have_host()) { /* QEMU's TCG lets these through */
		/* CR0: PG without PE, NW without CD, upper half. */
		try_write_cr0(read_cr0() & ~1ull);
		CHECK(CAUGHT(13, 0));
		try_write_cr0(read_cr0() | 0x20000000);
		CHECK(CAUGHT(13, 0));
		try_write_cr0(read_cr0() | 1ull << 32);
		CHECK(CAUGHT(13, 0));
		try_write_cr0(read_cr0() & ~(1ull << 31)); /* in 64-bit code */
		CHECK(CAUGHT(13, 0));
		try_write_cr4(read_cr4() & ~0x20ull);
		CHECK(CAUGHT(13, 0));
		try_write_cr4(read_cr4() | 1ull << 31);
		CHECK(CAUGHT(13, 0));
		try_write_cr3(read_cr3() | 1ull << 60);
		CHECK(CAUGHT(13, 0));
		TRY("mov %%rax, %%cr8", : : "a"(16ull));
		CHECK(CAUGHT(13, 0));
	}
	TRY(".byte 0x0f, 0x20, 0xc8", NO_OPERANDS); /* MOV CR1 */
	CHECK(CAUGHT(6, 0));

	try_wrmsr(
	    0xc0000080, rdmsr(0xc0000080) & ~0x100ull); /* LME with paging on */
	CHECK(CAUGHT(13, 0));
	try_wrmsr(0xc0000080, rdmsr(0xc0000080) | 2);
	CHECK(CAUGHT(13, 0));
	CHECK((rdmsr(0xc0000080) & 0x500) == 0x500);
	try_wrmsr(0xc0000100, 0x800000000000);
	CHECK(CAUGHT(13, 0));
	try_wrmsr(0xc0000082, 0x8000000000000000);
	CHECK(CAUGHT(13, 0));
	try_wrmsr(0x277, 0x0007040600070402);
	CHECK(CAUGHT(13, 0));
	try_wrmsr(0x277, 0x0007040600070406);
	CHECK(caught.vector == -1 && rdmsr(0x277) == 0x0007040600070406);
	if (have_host()) {
		try_rdmsr(0x12345);
		CHECK(CAUGHT(13, 0));
		try_wrmsr(0x12345, 0);
		CHECK(CAUGHT(13, 0));
		try_rdmsr(0x1b);
		CHECK(caught.vector == -1);
		amd_registers();
	}
	/* FS and GS bases, SWAPGS. */
	static u64 cell[2] = { 0x1111, 0x2222 };
	u64 a, b;
	wrmsr(0xc0000101, (u64)&cell[0]);
	wrmsr(0xc0000102, (u64)&cell[1]);
	asm volatile("mov %%gs:0, %0\n\tswapgs\n\tmov %%gs:0, %1\n\tswapgs"
		     : "=&r"(a), "=&r"(b)
		     :
		     : "memory");
	CHECK(a == 0x1111 && b == 0x2222 && rdmsr(0xc0000102) == (u64)&cell[1]);
	wrmsr(0xc0000100, (u64)&cell[1]);
	asm volatile("mov %%fs:-8, %0" : "=r"(a));
	CHECK(a == 0x1111);
	u32 r[4];
	cpuid(7, 0, r);
	TRY("rdfsbase %%rax", NO_OPERANDS);
	CHECK(CAUGHT(6, 0));
	if (r[1] & 1) {
		write_cr4(read_cr4() | 0x10000);
		asm volatile("rdfsbase %0" : "=r"(a));
		CHECK(a == (u64)&cell[1]);
		asm volatile("wrgsbase %0" : : "r"(0x123456789abcull));
		CHECK(rdmsr(0xc0000101) == 0x123456789abc);
		TRY("wrgsbase %0", : : "r"(0x800000000000ull));
		CHECK(CAUGHT(13, 0));
		write_cr4(read_cr4() & ~0x10000ull);
	}
	/* TSC moves on and can be set. */
	u64 t0 = rdmsr(0x10), t1 = rdmsr(0x10);
	CHECK(t1 > t0);
	wrmsr(0x10, 0x1000000000000);
	t0 = rdmsr(0x10);
	CHECK(t0 >= 0x1000000000000 && t0 < 0x1000100000000);

	/* LAR, LSL, VERR, VERW. */
	u64 v = 0;
	u8 z;
	asm volatile("lar %2, %0\n\tsetz %1"
		     : "+r"(v), "=q"(z)
		     : "r"((u64)SEL_UCODE)
		     : "cc");
	CHECK(z && (v & 0xf0ff00) == 0xa0fb00);
	asm volatile("lsl %2, %0\n\tsetz %1"
		     : "+r"(v), "=q"(z)
		     : "r"((u64)SEL_KCODE16)
		     : "cc");
	CHECK(z && v == 0xffff);
	asm volatile("lsl %2, %0\n\tsetz %1"
		     : "+r"(v), "=q"(z)
		     : "r"((u64)SEL_UDATA)
		     : "cc");
	CHECK(z && v == 0xffffffff);
	asm volatile("lar %2, %0\n\tsetz %1"
		     : "+r"(v), "=q"(z)
		     : "r"(0xff8ull)
		     : "cc");
	CHECK(!z);
	asm volatile("verw %w1\n\tsetz %0" : "=q"(z) : "r"(SEL_KDATA) : "cc");
	CHECK(z);
	asm volatile("verw %w1\n\tsetz %0" : "=q"(z) : "r"(SEL_KCODE) : "cc");
	CHECK(!z);
	asm volatile("verr %w1\n\tsetz %0" : "=q"(z) : "r"(SEL_KCODE) : "cc");
	CHECK(z);
}

/* 32-bit user code: addresses wrap, registers are zero-extended on the way back. */
USER(compat, ".code32\n mov $0x23, %eax\n mov %eax, %ds\n mov $0x89abcdef, %eax\n "
	     "inc %eax\n mov $-4, %ecx\n mov user_stack(%ecx), %ebx\n"
	     " push $0x55\n pop %edx\n int $0x80\n .code64");

static u64 regs[4];

static bool note_regs(struct frame *f)
{
	regs[0] = f->rax;
	regs[1] = f->rdx;
	return false;
}

static void compat(void)
{
	trap_hook = note_regs;
	run_user32(user_compat, 0, 0);
	trap_hook = 0;
	CHECK(caught.vector == 0x80 && caught.cs == SEL_UCODE32 &&
	      regs[0] == 0x89abcdf0 && regs[1] == 0x55 &&
	      caught.rsp == (u64)user_stack_top);
	/* SYSCALL from compatibility mode is AMD's alone, and goes to CSTAR. */
	u32 r[4];
	cpuid(0, 0, r);
	wrmsr(0xc0000083, (u64)land);
	got[0] = 0;
	run_user32(user_syscall, 0, 0);
	if (r[1] == 0x756e6547)
		CHECK(CAUGHT(6, 0) && caught.cs == SEL_UCODE32);
	else
		CHECK(CAUGHT(6, 0) && caught.cs == SEL_KCODE && got[0] == 0x1234);
}

void guest_main(unsigned cpu)
{
	(void)cpu;
	forbidden();
	fast_calls();
	gates();
	registers();
	compat();
}
