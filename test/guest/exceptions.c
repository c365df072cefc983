/*
 * Exceptions and interrupts in long mode: error codes, stacks, double faults,
 * single step, breakpoints, interrupt shadows, NMI blocking.
 */
#include "guest.h"

static u8 ro_page[4096] __attribute__((aligned(4096)));

static void vectors(void)
{
	u64 at;

	TRY("xor %%edx, %%edx\n\txor %%ecx, %%ecx\n\tdiv %%ecx",
	    :
	    :
	    : "rax", "rcx", "rdx");
	CHECK(CAUGHT(0, 0) && caught.rflags & 0x10000); /* a fault pushes RF */
	/* Fault: RIP of the instruction. Trap: behind it. */
	TRY("lea 1f, %%rbx\n1:\tud2", : "=&b"(at) : : "memory");
	CHECK(CAUGHT(6, 0) && caught.rip == at);
	TRY("lea 1f, %%rbx\n\tint3\n1:", : "=&b"(at) : : "memory");
	CHECK(CAUGHT(3, 0) && caught.rip == at && !(caught.rflags & 0x10000));
	TRY("lea 1f, %%rbx\n\t.byte 0xcd, 3\n1:", : "=&b"(at) : : "memory");
	CHECK(CAUGHT(3, 0) && caught.rip == at);
	TRY("lea 1f, %%rbx\n\tint $0x80\n1:", : "=&b"(at) : : "memory");
	CHECK(CAUGHT(0x80, 0) && caught.rip == at);
	TRY("lea 1f, %%rbx\n\t.byte 0xf1\n1:", : "=&b"(at) : : "memory");
	CHECK(CAUGHT(1, 0) && caught.rip == at);
	TRY(".byte 0x0f, 0x0b", NO_OPERANDS);
	CHECK(CAUGHT(6, 0));
	TRY(".byte 0xce", NO_OPERANDS); /* INTO */
	CHECK(CAUGHT(6, 0));
	TRY(".byte 0x0f, 0xff, 0xc0", NO_OPERANDS); /* UD0 */
	CHECK(CAUGHT(6, 0));
	TRY(".byte 0xf0, 0x83, 0xc0, 1", : : : "rax");
	CHECK(CAUGHT(6, 0));
	TRY("movl $-1, %%eax\n\txor %%edx, %%edx\n\tmovl $0x7fffffff, %%ecx\n\t"
	    "movl $0x7fffffff, %%edx\n\tidivl %%ecx", : : : "rax", "rcx", "rdx");
	CHECK(CAUGHT(0, 0));
	/* INT n: absent gates name the IDT entry, without EXT. */
	idt[0x90].type = 0;
	TRY("int $0x90", NO_OPERANDS);
	CHECK(CAUGHT(13, 0x90 * 8 + 2));
	idt[0x90].type = 0x0e;
	TRY("int $0x90", NO_OPERANDS);
	CHECK(CAUGHT(11, 0x90 * 8 + 2));
	idt[0x90].type = 0x8e;
	idt[0x90].sel = SEL_KDATA;
	TRY("int $0x90", NO_OPERANDS);
	CHECK(CAUGHT(13, SEL_KDATA));
	idt[0x90].sel = 0;
	TRY("int $0x90", NO_OPERANDS);
	CHECK(CAUGHT(13, 0));
	idt[0x90].sel = 0xff8;
	TRY("int $0x90", NO_OPERANDS);
	CHECK(CAUGHT(13, 0xff8));
	idt[0x90].sel = SEL_KCODE32; /* long mode needs L */
	TRY("int $0x90", NO_OPERANDS);
	CHECK(CAUGHT(13, SEL_KCODE32));
	idt[0x90].sel = SEL_KCODE;
	/* An exception through a bad gate: EXT is set. */
	idt[0].type = 0;
	TRY("xor %%edx, %%edx\n\txor %%ecx, %%ecx\n\tdiv %%ecx",
	    :
	    :
	    : "rax", "rcx", "rdx");
	CHECK(caught.vector == 8 || CAUGHT(13, 3)); /* #DE then #GP: #DF */
	CHECK(CAUGHT(8, 0));
	idt[0].type = 0x8e;
	idt[6].type = 0; /* #UD is benign: #GP gets through */
	TRY("ud2", NO_OPERANDS);
	CHECK(CAUGHT(13, 6 * 8 + 3));
	idt[6].type = 0x8e;
	/* Segment errors carry the selector. */
	TRY("mov %0, %%ds", : : "r"(0xff8));
	CHECK(CAUGHT(13, 0xff8));
	gdt[SEL_FREE / 8] = 0x00cf13000000ffff; /* not present */
	TRY("mov %0, %%es", : : "r"(SEL_FREE));
	CHECK(CAUGHT(11, SEL_FREE));
	TRY("mov %0, %%ss", : : "r"(SEL_FREE));
	CHECK(CAUGHT(12, SEL_FREE));
	TRY("lldt %w0", : : "r"(SEL_KDATA));
	CHECK(CAUGHT(13, SEL_KDATA));
	TRY("ltr %w0", : : "r"(SEL_TSS)); /* busy */
	CHECK(CAUGHT(13, SEL_TSS));
	/* Too long an instruction. */
	TRY(".fill 15, 1, 0x66\n\tnop", NO_OPERANDS);
	CHECK(CAUGHT(13, 0));
	/* IRET from 64-bit with NT; to a non-canonical address. */
	TRY("pushfq\n\torl $0x4000, (%%rsp)\n\tpopfq\n\tiretq", : : : "memory");
	CHECK(CAUGHT(13, 0));
	TRY("mov %%rsp, %%rax\n\tpush %0\n\tpush %%rax\n\tpushfq\n\tpush "
	    "%1\n\tpush %2\n\tiretq",
	    :
	    : "r"((u64)SEL_KDATA), "r"((u64)SEL_KCODE), "r"(0x800000000000ull)
	    : "rax", "memory");
	CHECK(CAUGHT(13, 0));
}

/* Alignment of the frame, and the SS:RSP in it. */
static void frames(void)
{
	u64 rsp;

	TRY("mov %%rsp, %%rbx\n\tsub $3, %%rsp\n\tud2", : "=&b"(rsp) : : "memory");
	CHECK(CAUGHT(6, 0) && caught.rsp == rsp - 3 && caught.ss == SEL_KDATA);
}

static u64 ist_rsp;

static bool note_rsp(struct frame *f)
{
	ist_rsp = (u64)f;
	return false;
}

static void stacks(void)
{
	u64 top = tss[0].ist[0];

	idt[6].ist = 1;
	trap_hook = note_rsp;
	TRY("ud2", NO_OPERANDS);
	CHECK(CAUGHT(6, 0) && ist_rsp == top - sizeof(struct frame));
	tss[0].ist[0] = top + 8; /* aligned down */
	TRY("ud2", NO_OPERANDS);
	CHECK(CAUGHT(6, 0) && ist_rsp == top - sizeof(struct frame));
	tss[0].ist[0] = top;
	trap_hook = 0;
	idt[6].ist = 0;
	/*
	 * A stack that cannot be written: #PF while delivering, then #DF on its
	 * IST.
	 */
	idt[8].ist = 1;
	map(0x40000000, (u64)ro_page | 5);
	TRY("mov %0, %%rsp\n\tud2\n\t", : : "r"(0x40001000ull) : "memory");
	asm volatile("" ::: "memory");
	CHECK(CAUGHT(8, 0) && caught.rsp == 0x40001000 && read_cr2() >= 0x40000000);
	idt[8].ist = 0;
}

/* Single step: one #DB an instruction, none after what is shadowed. */
static volatile unsigned steps;
static u64 step_rip[64];

static bool count_steps(struct frame *f)
{
	if (f->vector != 1)
		return false;
	if (steps < 64)
		step_rip[steps] = f->rip;
	steps++;
	return true;
}

static u64 read_dr6(void)
{
	u64 v;

	asm volatile("mov %%dr6, %0" : "=r"(v));
	return v;
}

static void write_dr(unsigned n, u64 v)
{
	switch (n) {
	case 0:
		asm volatile("mov %0, %%dr0" : : "r"(v));
		break;
	case 1:
		asm volatile("mov %0, %%dr1" : : "r"(v));
		break;
	case 6:
		asm volatile("mov %0, %%dr6" : : "r"(v));
		break;
	default:
		asm volatile("mov %0, %%dr7" : : "r"(v) : "memory");
	}
}

static void single_step(void)
{
	static u8 buf[16];
	u64 a;

	trap_hook = count_steps;
	write_dr(6, 0);
	steps = 0;
	/* POPF itself is not trapped; the three NOPs and the second POPF are. */
	asm volatile(
	    "pushfq\n\tpushfq\n\torl $0x100, (%%rsp)\n\tlea 1f, %0\n\tpopfq\n\t"
	    "nop\n1:\tnop\n\tnop\n\tpopfq"
	    : "=r"(a)
	    :
	    : "memory", "cc");
	CHECK(steps == 4 && step_rip[0] == a);
	CHECK((read_dr6() & 0xffff) == 0x4ff0);
	/* REP: one trap an element. */
	steps = 0;
	asm volatile(
	    "pushfq\n\tpushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\trep stosb\n\tpopfq"
	    :
	    : "D"(buf), "c"(5), "a"(7)
	    : "memory", "cc");
	CHECK(steps == 6 && buf[4] == 7);
	/* MOV SS holds the trap of the next instruction... of itself off. */
	steps = 0;
	asm volatile("mov %%ss, %%eax\n\tpushfq\n\tpushfq\n\torl $0x100, "
		     "(%%rsp)\n\tpopfq\n\t"
		     "mov %%eax, %%ss\n\tnop\n\tpopfq"
		     :
		     :
		     : "rax", "memory", "cc");
	CHECK(steps == 2);
	/* INT n clears TF: the handler is not stepped. */
	steps = 0;
	reset_trap();
	asm volatile(TRY_BEGIN
		     "pushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\tint $0x80" TRY_END
		     :
		     :
		     : "memory", "cc");
	CHECK(caught.vector == 0x80 && (caught.rflags & 0x100) && steps == 0);
	asm volatile("mov resume+8, %%rsp" : : : "memory");
	/* A fault leaves no single-step trap behind. */
	TRY("pushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\tud2", : : : "memory", "cc");
	CHECK(caught.vector == 6 && steps == 0);
	trap_hook = 0;
}

static void breakpoints(void)
{
	static volatile u64 watched[4];
	u64 at, b;

	/* Execution: a fault before the instruction; RF lets it pass. */
	write_dr(6, 0);
	asm volatile("lea 1f, %0\n\tjmp 2f\n1:\tnop\n\tret\n2:" : "=r"(at));
	write_dr(0, at);
	write_dr(7, 0x402);
	try_call(at);
	CHECK(CAUGHT(1, 0) && caught.rip == at && (read_dr6() & 0xf) == 1);
	trap_hook = count_steps;
	steps = 0;
	/*
	 * The handler returns with RF clear in the frame: it comes again until RF
	 * is set.
	 */
	write_dr(7, 0x400);
	trap_hook = 0;

	/* Data writes: a trap behind the instruction. */
	write_dr(6, 0);
	write_dr(1, (u64)&watched[1]);
	write_dr(7, 0x408 | 1 << 20 | 3 << 22); /* write, 4 bytes */
	reset_trap();
	asm volatile(TRY_BEGIN "lea 1f, %0\n\tmovb $5, 3(%1)\n1:" TRY_END
		     : "=&b"(b)
		     : "r"(&watched[1])
		     : "memory");
	CHECK(CAUGHT(1, 0) && caught.rip == b && (read_dr6() & 0xf) == 2 &&
	      watched[1] == 0x5000000);
	write_dr(6, 0);
	try_read((u64)&watched[1]);
	CHECK(caught.vector == -1);
	try_write((u64)&watched[2], 1);
	CHECK(caught.vector == -1);
	reset_trap();
	asm volatile(TRY_BEGIN "lock addl $1, (%0)" TRY_END
		     :
		     : "r"(&watched[1])
		     : "memory");
	CHECK(CAUGHT(1, 0));
	/* Reads and writes. */
	write_dr(7, 0x408 | 3 << 20 | 3 << 22);
	try_read((u64)&watched[1]);
	CHECK(CAUGHT(1, 0));
	write_dr(7, 0x400);
	try_read((u64)&watched[1]);
	CHECK(caught.vector == -1);

	/* GD: the next access to a debug register faults, once. */
	write_dr(6, 0);
	write_dr(7, 0x2400);
	TRY("mov %%dr0, %%rax", : : : "rax");
	CHECK(CAUGHT(1, 0) && (read_dr6() & 0x2000));
	write_dr(6, 0);
	TRY("mov %0, %%dr7", : : "r"(1ull << 32));
	CHECK(CAUGHT(13, 0));
	write_cr4(read_cr4() | 8); /* DE: DR4 is gone */
	TRY("mov %%dr4, %%rax", : : : "rax");
	CHECK(CAUGHT(6, 0));
	write_cr4(read_cr4() & ~8ull);
	TRY("mov %%dr4, %%rax", : : : "rax");
	CHECK(caught.vector == -1);
}

static void shadows(void)
{
	u64 a;

	if (!have_host())
		return;
	/* Not before STI, and not right behind it. */
	reset_trap();
	outb(PORT_INTR, 0x41);
	CHECK(caught.vector == -1);
	asm volatile(TRY_BEGIN "lea 1f, %0\n\tsti\n\tnop\n1:\tnop\n\tcli" TRY_END
		     : "=&b"(a)
		     :
		     : "memory");
	CHECK(CAUGHT(0x41, 0) && caught.rip == a && (caught.rflags & 0x200));
	/* STI with IF set shadows nothing; HLT wakes up behind itself. */
	reset_trap();
	outb(PORT_INTR, 0x42);
	asm volatile(TRY_BEGIN "lea 1f, %0\n\tsti\n\thlt\n1:\tcli" TRY_END
		     : "=&b"(a)
		     :
		     : "memory");
	CHECK(CAUGHT(0x42, 0) && caught.rip == a);
	/* MOV SS shadows one instruction with interrupts on. */
	reset_trap();
	asm volatile(
	    TRY_BEGIN
	    "mov %%ss, %%ecx\n\tlea 1f, %0\n\tmov $0x43, %%al\n\tsti\n\tnop\n\t"
	    "outb %%al, $0xf6\n\tnop\n1:\tcli" TRY_END
	    : "=&b"(a)
	    :
	    : "rax", "rcx", "memory");
	CHECK(CAUGHT(0x43, 0) && caught.rip <= a);
	reset_trap();
	outb(PORT_INTR, 0x44);
	asm volatile(
	    TRY_BEGIN
	    "mov %%ss, %%ecx\n\tlea 1f, %0\n\tsti\n\tmov %%ecx, %%ss\n\tnop\n"
	    "1:\tcli" TRY_END
	    : "=&b"(a)
	    :
	    : "rcx", "memory");
	CHECK(CAUGHT(0x44, 0) && caught.rip == a);
	/* CR8 holds lower classes back. */
	reset_trap();
	asm volatile("mov %0, %%cr8" : : "r"(5ull));
	outb(PORT_INTR, 0x45);
	asm volatile(TRY_BEGIN "sti\n\tnop\n\tnop\n\tcli" TRY_END : : : "memory");
	CHECK(caught.vector == -1);
	asm volatile(TRY_BEGIN "sti\n\tnop\n\tmov %0, %%cr8\n\tnop\n\tcli" TRY_END
		     :
		     : "r"(0ull)
		     : "memory");
	CHECK(CAUGHT(0x45, 0));
	/* POPF and IRET open the window at once. */
	reset_trap();
	outb(PORT_INTR, 0x46);
	asm volatile(TRY_BEGIN "lea 1f, %0\n\tpushfq\n\torl $0x200, "
			       "(%%rsp)\n\tpopfq\n1:\tnop\n\tcli" TRY_END
		     : "=&b"(a)
		     :
		     : "memory");
	CHECK(CAUGHT(0x46, 0) && caught.rip == a);
}

static volatile unsigned nmis, nested;

static bool nmi_hook(struct frame *f)
{
	if (f->vector != 2)
		return false;
	nmis++;
	if (nmis == 1) {
		outb(PORT_NMI, 0); /* must wait for our IRET */
		asm volatile("nop; nop; nop");
		nested = nmis;
	}
	return true;
}

static void nmi(void)
{
	if (!have_host())
		return;
	trap_hook = nmi_hook;
	outb(PORT_NMI, 0);
	asm volatile("nop; nop; nop");
	CHECK(nested == 1 && nmis == 2);
	trap_hook = 0;
}

void guest_main(unsigned cpu)
{
	(void)cpu;
	/* #DF must find a stack whatever happened. */
	vectors();
	frames();
	stacks();
	single_step();
	breakpoints();
	shadows();
	nmi();
}
