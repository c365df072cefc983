/*
 * Page tables: sizes, rights, A/D bits, reserved bits, PCID, page-crossing faults.
 */
#include "guest.h"

#define P         1ull
#define W         2ull
#define U         4ull
#define A         0x20ull
#define D         0x40ull
#define PS        0x80ull
#define G         0x100ull
#define NX        (1ull << 63)
#define CR4_PGE   0x80ull
#define CR4_PCIDE 0x20000ull
#define CR4_SMEP  0x100000ull
#define CR4_SMAP  0x200000ull

static u8 frame_a[4096] __attribute__((aligned(4096)));
static u8 frame_b[4096] __attribute__((aligned(4096)));
static u64 spare[512] __attribute__((aligned(4096)));
static u64 other_pml4[512] __attribute__((aligned(4096)));
#define VA 0x40000000ull
#define VB (VA + 0x1000)

static u64 pa(void *p)
{
	return (u64)p;
}

static void basic(void)
{
	map(VA, pa(frame_a) | P | W | U);
	*(u64 *)frame_a = 0x1122334455667788;
	CHECK(try_read(VA) == 0x1122334455667788 && caught.vector == -1);
	try_write(VA + 8, 42);
	CHECK(caught.vector == -1 && *(u64 *)(frame_a + 8) == 42);

	map(VA, 0);
	try_read(VA + 0x123);
	CHECK(CAUGHT(14, 0) && caught.cr2 == VA + 0x123);
	try_write(VA + 0x7f8, 1);
	CHECK(CAUGHT(14, 2) && caught.cr2 == VA + 0x7f8);
	try_call(VA);
	CHECK(CAUGHT(14, 0x10) && caught.cr2 == VA && caught.rip == VA);

	/*
	 * Non-canonical: #GP, but #SS through RSP (whose handler needs a good
	 * stack).
	 */
	try_read(0x800000000000);
	CHECK(CAUGHT(13, 0));
	try_read(0x7ffffffffffc);
	CHECK(caught.vector == 13 || caught.vector == 14);
	if (!have_host()) /* QEMU's TCG has no #SS here */
		return;
	idt[12].ist = 1;
	reset_trap();
	asm volatile(TRY_BEGIN "mov %0, %%rsp\n\tpush %%rax" TRY_END
			       "\n\tmov resume+8, %%rsp"
		     :
		     : "r"(0x900000000000ull)
		     : "memory");
	CHECK(CAUGHT(12, 0) && caught.rsp == 0x900000000000);
	reset_trap();
	asm volatile(TRY_BEGIN
		     "mov %%rbp, %%rbx\n\tmov %0, %%rbp\n\tmov (%%rbp), %%rax\n"
		     "\tmov %%rbx, %%rbp" TRY_END "\n\tmov %%rbx, %%rbp"
		     :
		     : "r"(0x900000000000ull)
		     : "rax", "rbx", "memory");
	CHECK(CAUGHT(12, 0));
}

static void accessed_dirty(void)
{
	map(VA, pa(frame_a) | P | W | U);
	try_read(VA);
	CHECK((*pte(VA) & (A | D)) == A);
	try_write(VA, 1);
	CHECK((*pte(VA) & (A | D)) == (A | D));
	/* Cleared D, flushed: a write sets it again. */
	map(VA, pa(frame_a) | P | W | U | A);
	try_read(VA);
	CHECK(!(*pte(VA) & D));
	asm volatile("lock xaddl %%eax, (%0)" : : "r"(VA), "a"(1) : "memory");
	CHECK(*pte(VA) & D);
	/* A faulting write sets no D. */
	map(VA, pa(frame_a) | P | U);
	try_write(VA, 1);
	CHECK(CAUGHT(14, 3) && !(*pte(VA) & D));
	/* CMPXCHG writes even when it does not match. */
	map(VA, pa(frame_a) | P | U);
	reset_trap();
	asm volatile(TRY_BEGIN "lock cmpxchgq %%rcx, (%0)" TRY_END
		     :
		     : "r"(VA), "a"(0x123456789), "c"(1)
		     : "memory", "cc");
	CHECK(CAUGHT(14, 3));
}

static void rights(void)
{
	/* Supervisor write to a read-only page: CR0.WP decides. */
	map(VA, pa(frame_a) | P | U);
	try_write(VA, 7);
	CHECK(CAUGHT(14, 3));
	write_cr0(read_cr0() & ~0x10000ull);
	try_write(VA, 7);
	CHECK(caught.vector == -1 && frame_a[0] == 7);
	write_cr0(read_cr0() | 0x10000);
	try_write(VA, 8);
	CHECK(CAUGHT(14, 3));

	map(VA, pa(frame_a) | P | W | U | NX);
	frame_a[0] = 0xc3;
	try_read(VA);
	CHECK(caught.vector == -1);
	try_call(VA);
	CHECK(CAUGHT(14, 0x11) && caught.rip == VA);
	map(VA, pa(frame_a) | P | W | U);
	try_call(VA);
	CHECK(caught.vector == -1);

	/* Rights are the AND of all levels. */
	map(VA, pa(frame_a) | P | W | U);
	u64 *l1 = &((u64 *)(pml4[0] & ~0xfffull))[VA >> 30];
	*l1 &= ~W;
	write_cr3(read_cr3());
	try_write(VA, 1);
	CHECK(CAUGHT(14, 3));
	*l1 |= W | NX;
	write_cr3(read_cr3());
	try_call(VA);
	CHECK(CAUGHT(14, 0x11));
	*l1 &= ~NX;
	write_cr3(read_cr3());
	try_call(VA);
	CHECK(caught.vector == -1);
}

void user_read(void);
void user_write(void);
void user_nop(void);
asm("user_read: mov (%rdi), %rax; int $0x80\n"
    "user_write: mov %rax, (%rdi); int $0x80\n"
    "user_nop: int $0x80");

static void user(void)
{
	map(VA, pa(frame_a) | P | W);
	run_user(user_read, 0, VA);
	CHECK(CAUGHT(14, 5) && caught.cr2 == VA && (caught.cs & 3) == 3);
	run_user(user_write, 0, VA);
	CHECK(CAUGHT(14, 7));
	map(VA, pa(frame_a) | P | U);
	run_user(user_read, 0, VA);
	CHECK(caught.vector == 0x80);
	run_user(user_write, 0, VA);
	CHECK(CAUGHT(14, 7));
	run_user(user_read, 0, VB);
	CHECK(CAUGHT(14, 4));
	/* A kernel access just before must not open the page to ring 3. */
	map(VA, pa(frame_a) | P | W);
	try_write(VA, 1);
	run_user(user_write, 0, VA);
	CHECK(CAUGHT(14, 7));
	frame_a[0] = 0xcd;
	frame_a[1] = 0x80;
	run_user((void (*)(void))VA, 0, 0);
	CHECK(CAUGHT(14, 0x15) && caught.rip == VA);
	/*
	 * SYS accesses (GDT) ignore U: the frame got pushed, or we would not be
	 * here.
	 */
	run_user(user_nop, 0, 0);
	CHECK(caught.vector == 0x80);
}

static void smep_smap(void)
{
	u32 r[4];

	cpuid(7, 0, r);
	map(VA, pa(frame_a) | P | W | U);
	frame_a[0] = 0xc3;
	/* Our own code lies in user pages: run from a supervisor mapping of it. */
	if (r[1] & 1u << 20) {
		for (unsigned i = 0; i < 512; i++)
			pd[i] &= ~U;
		write_cr3(read_cr3());
		write_cr4(read_cr4() | CR4_SMAP);
		try_read(VA);
		CHECK(CAUGHT(14, 1) && caught.cr2 == VA);
		try_write(VA, 0xc3);
		CHECK(CAUGHT(14, 3));
		asm volatile("stac");
		try_read(VA);
		CHECK(caught.vector == -1);
		asm volatile("clac");
		try_read(VA);
		CHECK(CAUGHT(14, 1));
		write_cr4(read_cr4() & ~CR4_SMAP);
		try_read(VA);
		CHECK(caught.vector == -1);
	}
	if (r[1] & 1u << 7) {
		for (unsigned i = 0; i < 512; i++)
			pd[i] &= ~U;
		write_cr3(read_cr3());
		try_call(VA);
		CHECK(caught.vector == -1);
		write_cr4(read_cr4() | CR4_SMEP);
		try_call(VA);
		CHECK(CAUGHT(14, 0x11));
		write_cr4(read_cr4() & ~CR4_SMEP);
		try_call(VA);
		CHECK(caught.vector == -1);
	}
	for (unsigned i = 0; i < 512; i++)
		pd[i] |= U;
	write_cr3(read_cr3());
}

static void large(void)
{
	u64 *l1 = (u64 *)(pml4[0] & ~0xfffull);
	u64 va = 0x80000000;
	u32 r[4];

	/* 2 MiB page, then a 4 KiB table in its place. */
	l1[2] = pa(spare) | 7;
	spare[1] = 0x200000 | P | W | U | PS;
	*(u64 *)0x212340 = 0xabcdef;
	write_cr3(read_cr3());
	CHECK(try_read(va + 0x212340) == 0xabcdef && caught.vector == -1);
	CHECK(spare[1] & A && !(spare[1] & D));
	try_write(va + 0x3ffff8, 5);
	CHECK(spare[1] & D && *(u64 *)0x3ffff8 == 5);
	/* Bits 13-20 of a 2 MiB entry are reserved. */
	spare[1] |= 0x2000;
	invlpg(va + 0x200000);
	try_read(va + 0x200000);
	CHECK(CAUGHT(14, 9));
	/* 1 GiB page. */
	cpuid(0x80000001, 0, r);
	if (r[3] & 1u << 26) {
		l1[2] = 0 | P | W | U | PS;
		write_cr3(read_cr3());
		CHECK(try_read(va + 0x212340) == 0xabcdef && caught.vector == -1);
		try_write(va + 0x212348, 77);
		CHECK(*(u64 *)0x212348 == 77 && l1[2] & D);
		l1[2] |= 0x4000;
		write_cr3(read_cr3());
		try_read(va);
		CHECK(CAUGHT(14, 9));
	}
	l1[2] = 0;
	write_cr3(read_cr3());

	/* Reserved physical bits, and NX with EFER.NXE off. */
	cpuid(0x80000008, 0, r);
	if ((r[0] & 0xff) < 52) {
		map(VA, pa(frame_a) | P | W | 1ull << 51);
		try_read(VA);
		CHECK(CAUGHT(14, 9));
		try_write(VA, 0);
		CHECK(CAUGHT(14, 0xb));
	}
	map(VA, pa(frame_a) | P | W | NX);
	wrmsr(0xc0000080, rdmsr(0xc0000080) & ~0x800ull);
	try_read(VA);
	CHECK(CAUGHT(14, 9));
	wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
	try_read(VA);
	CHECK(caught.vector == -1);
}

/* Both pages must be right before either is written. */
static void crossing(void)
{
	u64 v;

	map(VA, pa(frame_a) | P | W | U);
	map(VB, pa(frame_b) | P | W | U);
	*(u32 *)(frame_a + 4092) = 0x11111111;
	*(u32 *)frame_b = 0x22222222;
	CHECK(try_read(VA + 4092) == 0x2222222211111111);
	try_write(VA + 4093, 0x8877665544332211);
	CHECK(frame_a[4095] == 0x33 && frame_b[0] == 0x44 && frame_b[4] == 0x88);
	map(VB, 0);
	*(u32 *)(frame_a + 4092) = 0x11111111;
	try_write(VA + 4092, ~0ull);
	CHECK(CAUGHT(14, 2) && caught.cr2 == VB &&
	      *(u32 *)(frame_a + 4092) == 0x11111111);
	try_read(VA + 4089);
	CHECK(CAUGHT(14, 0) && caught.cr2 == VB);
	map(VB, pa(frame_b) | P);
	v = 1;
	reset_trap();
	asm volatile(TRY_BEGIN "lock xaddq %0, (%1)" TRY_END
		     : "+r"(v)
		     : "r"(VA + 4092)
		     : "memory", "cc");
	CHECK(CAUGHT(14, 3) && caught.cr2 == VB && v == 1 &&
	      *(u32 *)(frame_a + 4092) == 0x11111111);
	map(VB, pa(frame_b) | P | W);
	v = 0x100000001;
	*(u32 *)frame_b = 5;
	asm volatile("lock xaddq %0, (%1)"
		     : "+r"(v)
		     : "r"(VA + 4092)
		     : "memory", "cc");
	CHECK(v == 0x511111111 && *(u32 *)(frame_a + 4092) == 0x11111112 &&
	      *(u32 *)frame_b == 6);

	/* An instruction over a page end: mov $imm64, %rax; ret. */
	static const u8 code[] = { 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0xc3 };
	for (unsigned i = 0; i < sizeof(code); i++)
		*(u8 *)(VA + 4096 - 4 + i) = code[i];
	reset_trap();
	asm volatile(TRY_BEGIN "call *%1" TRY_END
		     : "=a"(v)
		     : "r"(VA + 4092)
		     : "memory");
	CHECK(caught.vector == -1 && v == 0x0807060504030201);
	map(VB, 0);
	try_call(VA + 4092);
	CHECK(CAUGHT(14, 0x10) && caught.cr2 == VB && caught.rip == VA + 4092);
	/* The second half is fetched anew. */
	map(VB, pa(frame_b) | P | W);
	frame_b[0] = 0x99;
	asm volatile("call *%1" : "=a"(v) : "r"(VA + 4092) : "memory");
	CHECK((v >> 16 & 0xff) == 0x99);
}

/* Old translations go when they must and stay when they may. */
static void tlb(void)
{
	u32 r[4];

	map(VA, pa(frame_a) | P | W | U);
	frame_a[0] = 1;
	frame_b[0] = 2;
	CHECK((try_read(VA) & 0xff) == 1);
	*pte(VA) = pa(frame_b) | P | W | U;
	invlpg(VA);
	CHECK((try_read(VA) & 0xff) == 2);
	*pte(VA) = pa(frame_a) | P | W | U;
	write_cr3(read_cr3());
	CHECK((try_read(VA) & 0xff) == 1);
	/* Global: survives CR3, not INVLPG or CR4.PGE. */
	*pte(VA) = pa(frame_b) | P | W | U | G;
	write_cr4(read_cr4() & ~CR4_PGE);
	write_cr4(read_cr4() | CR4_PGE);
	CHECK((try_read(VA) & 0xff) == 2);
	*pte(VA) = pa(frame_a) | P | W | U | G;
	write_cr4(read_cr4() & ~CR4_PGE);
	write_cr4(read_cr4() | CR4_PGE);
	CHECK((try_read(VA) & 0xff) == 1);
	*pte(VA) = 0;
	invlpg(VA);
	try_read(VA);
	CHECK(CAUGHT(14, 0));

	cpuid(1, 0, r);
	if (!(r[2] & 1u << 17))
		return;
	/* Two address spaces by PCID. */
	for (unsigned i = 0; i < 512; i++)
		other_pml4[i] = pml4[i];
	write_cr4(read_cr4() | CR4_PCIDE);
	map(VA, pa(frame_a) | P | W | U);
	CHECK((try_read(VA) & 0xff) == 1);
	write_cr3(pa(other_pml4) | 5);
	CHECK((try_read(VA) & 0xff) == 1);
	*pte(VA) = pa(frame_b) | P | W | U;
	invlpg(VA);
	CHECK((try_read(VA) & 0xff) == 2);
	write_cr3(pa(pml4)); /* PCID 0 flushed by this */
	CHECK((try_read(VA) & 0xff) == 2);
	*pte(VA) = pa(frame_a) | P | W | U;
	write_cr3(pa(other_pml4) | 5);
	CHECK((try_read(VA) & 0xff) == 1);
	cpuid(7, 0, r);
	if (r[1] & 1u << 10) {
		struct {
			u64 pcid, va;
		} d = { 5, VA };

		for (u64 type = 0; type < 4; type++) {
			u64 *f = type & 1 ? (u64 *)frame_a : (u64 *)frame_b;

			*pte(VA) = pa(f) | P | W | U;
			asm volatile("invpcid %0, %1"
				     :
				     : "m"(d), "r"(type)
				     : "memory");
			CHECK((try_read(VA) & 0xff) == (type & 1 ? 1 : 2));
		}
		reset_trap();
		asm volatile(TRY_BEGIN "invpcid %0, %1" TRY_END
			     :
			     : "m"(d), "r"(4ull)
			     : "memory");
		CHECK(CAUGHT(13, 0));
		d.pcid = 0x1000;
		reset_trap();
		asm volatile(TRY_BEGIN "invpcid %0, %1" TRY_END
			     :
			     : "m"(d), "r"(1ull)
			     : "memory");
		CHECK(CAUGHT(13, 0));
	}
	/* PCIDE cannot be set while CR3 has a PCID, nor can paging end with it. */
	write_cr4(read_cr4() & ~CR4_PCIDE);
	try_write_cr4(read_cr4() | CR4_PCIDE);
	CHECK(CAUGHT(13, 0));
	write_cr3(pa(pml4));
	try_write_cr3(pa(pml4) | 1ull << 63);
	CHECK(CAUGHT(13, 0));
}

void guest_main(unsigned cpu)
{
	(void)cpu;
	basic();
	accessed_dirty();
	rights();
	user();
	smep_smap();
	large();
	crossing();
	tlb();
}
