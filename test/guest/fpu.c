/*
 * FPU, SSE and AVX in a machine: lazy switching by #NM, CR4.OSFXSR and OSXSAVE,
 * #MF, #XM, FXSAVE and XSAVE, faults in vector loads.
 */
#include "guest.h"

static u8 area[1024] __attribute__((aligned(64)));
static u8 frame[4096] __attribute__((aligned(4096)));
static u64 cell[8] __attribute__((aligned(64)));

static void lazy(void)
{
	write_cr0(read_cr0() | 8); /* TS */
	TRY("fld1", NO_OPERANDS);
	CHECK(CAUGHT(7, 0));
	TRY("movd %%eax, %%xmm0", NO_OPERANDS);
	CHECK(CAUGHT(7, 0));
	TRY("fwait", NO_OPERANDS); /* MP is set */
	CHECK(CAUGHT(7, 0));
	TRY("fxsave (%0)", : : "r"(area) : "memory");
	CHECK(CAUGHT(7, 0));
	asm volatile("clts");
	TRY("fninit\n\tfld1\n\tfld1\n\tfaddp\n\tfistpl (%0)",
	    :
	    : "r"(cell)
	    : "memory");
	CHECK(caught.vector == -1 && *(u32 *)cell == 2);
	write_cr0(read_cr0() | 4); /* EM */
	TRY("fld1", NO_OPERANDS);
	CHECK(CAUGHT(7, 0));
	TRY("movd %%eax, %%xmm0", NO_OPERANDS);
	CHECK(CAUGHT(6, 0));
	write_cr0(read_cr0() & ~4ull);
	write_cr4(read_cr4() & ~0x200ull); /* OSFXSR */
	TRY("movd %%eax, %%xmm0", NO_OPERANDS);
	CHECK(CAUGHT(6, 0));
	write_cr4(read_cr4() | 0x200);
	TRY("movd %%eax, %%xmm0", NO_OPERANDS);
	CHECK(caught.vector == -1);
}

static void exceptions(void)
{
	static const u32 unmasked = 0x1f80 & ~0x200u; /* divide by zero */
	static const u16 cw = 0x37b;
	static const float zero[4], one[4] = { 1, 1, 1, 1 };
	u32 r;

	TRY("ldmxcsr %0\n\tmovups %1, %%xmm0\n\tdivps %2, %%xmm0",
	    :
	    : "m"(unmasked), "m"(one), "m"(zero)
	    : "memory");
	CHECK(CAUGHT(19, 0));
	asm volatile("stmxcsr %0" : "=m"(r));
	CHECK(r & 4);
	write_cr4(read_cr4() & ~0x400ull); /* OSXMMEXCPT */
	TRY("divps %0, %%xmm0", : : "m"(zero) : "memory");
	CHECK(CAUGHT(6, 0));
	write_cr4(read_cr4() | 0x400);
	r = 0x10000;
	TRY("ldmxcsr %0", : : "m"(r));
	CHECK(CAUGHT(13, 0));
	r = 0x1f80;
	asm volatile("ldmxcsr %0" : : "m"(r));
	/* x87: reported by the next waiting instruction. */
	TRY("fninit\n\tfldcw %0\n\tfld1\n\tfldz\n\tfdivrp\n\tfnop\n\tfwait",
	    :
	    : "m"(cw)
	    : "memory");
	CHECK(CAUGHT(16, 0));
	asm volatile("fninit");
}

static void saves(void)
{
	u32 r[4];

	TRY("fninit\n\tfxsave (%0)", : : "r"(area) : "memory");
	CHECK(caught.vector == -1 && *(u16 *)area == 0x37f &&
	      *(u32 *)(area + 24) == 0x1f80);
	TRY("fxsave 8(%0)", : : "r"(area) : "memory");
	CHECK(CAUGHT(13, 0));
	asm volatile("movups %0, %%xmm7"
		     :
		     : "m"(*(const char(*)[16]) "0123456789abcde"));
	asm volatile("fxsave (%0)\n\tpxor %%xmm7, %%xmm7\n\tfxrstor (%0)\n\tmovups "
		     "%%xmm7, (%1)"
		     :
		     : "r"(area), "r"(cell)
		     : "memory");
	CHECK(((u8 *)cell)[0] == '0' && ((u8 *)cell)[14] == 'e');

	cpuid(1, 0, r);
	TRY("xgetbv", : : "c"(0) : "rax", "rdx");
	CHECK(CAUGHT(6, 0));
	CHECK(!(r[2] & 1u << 27));
	if (!(r[2] & 1u << 26))
		return;
	write_cr4(read_cr4() | 0x40000);
	cpuid(1, 0, r);
	CHECK(r[2] & 1u << 27);
	TRY("xsetbv", : : "a"(6), "c"(0), "d"(0)); /* x87 is not optional */
	CHECK(CAUGHT(13, 0));
	TRY("xsetbv", : : "a"(0x80000007), "c"(0), "d"(0));
	CHECK(CAUGHT(13, 0));
	TRY("xsetbv", : : "a"(1), "c"(1), "d"(0));
	CHECK(CAUGHT(13, 0));
	if (!(r[2] & 1u << 28))
		return;
	TRY("xsetbv", : : "a"(5), "c"(0), "d"(0)); /* AVX needs SSE */
	CHECK(CAUGHT(13, 0));
	TRY("xsetbv", : : "a"(3), "c"(0), "d"(0));
	TRY("vpxor %%ymm0, %%ymm0, %%ymm0", NO_OPERANDS);
	CHECK(CAUGHT(6, 0));
	TRY("xsetbv", : : "a"(7), "c"(0), "d"(0));
	CHECK(caught.vector == -1);
	cpuid(0xd, 0, r);
	CHECK(r[1] == 832 && r[0] == 7);
	for (unsigned i = 0; i < 4; i++)
		cell[i] = 0x1111111111111111 * i;
	memset(area, 0, sizeof(area));
	TRY("vmovdqu (%0), %%ymm5\n\txsave (%1)\n\tvzeroall\n\txrstor (%1)\n\t"
	    "vmovdqu %%ymm5, 32(%0)",
	    :
	    : "r"(cell), "r"(area), "a"(7), "d"(0)
	    : "memory");
	CHECK(caught.vector == -1 && cell[7] == 0x3333333333333333 &&
	      cell[5] == 0x1111111111111111);
	/* FS, DS ... an XSAVE area with a reserved bit set is refused. */
	area[512 + 1] = 0x80;
	TRY("xrstor (%0)", : : "r"(area), "a"(7), "d"(0) : "memory");
	CHECK(CAUGHT(13, 0));
}

static void memory(void)
{
	u64 va = 0x40000000;

	map(va, (u64)frame | 7);
	map(va + 0x1000, 0);
	TRY("movups 0xff8(%0), %%xmm1", : : "r"(va) : "memory");
	CHECK(CAUGHT(14, 0) && caught.cr2 == va + 0x1000);
	TRY("movups %%xmm1, 0xff8(%0)", : : "r"(va) : "memory");
	CHECK(CAUGHT(14, 2) && caught.cr2 == va + 0x1000);
	TRY("movaps 8(%0), %%xmm1", : : "r"(va) : "memory");
	CHECK(CAUGHT(13, 0));
	TRY("fldt 0xff8(%0)", : : "r"(va) : "memory");
	CHECK(CAUGHT(14, 0));
	TRY("movups (%0), %%xmm1", : : "r"(0x800000000000ull) : "memory");
	CHECK(CAUGHT(13, 0));
	TRY("fxsave 0xf00(%0)", : : "r"(va) : "memory");
	CHECK(CAUGHT(14, 2));
	map(va + 0x1000, (u64)frame | 7);
	TRY("movups 0xff8(%0), %%xmm1\n\tmovups %%xmm1, 0xff8(%0)",
	    :
	    : "r"(va)
	    : "memory");
	CHECK(caught.vector == -1);
	if (have_host()) {
		va = MMIO_PAGE;
		TRY("movups %%xmm7, (%0)\n\tmovups (%0), %%xmm6\n\tmovups %%xmm6, "
		    "(%1)\n\t"
		    "movups %%xmm7, 16(%1)",
		    :
		    : "r"(va), "r"(cell)
		    : "memory");
		CHECK(caught.vector == -1 && cell[0] == cell[2] &&
		      cell[1] == cell[3]);
	}
}

void guest_main(unsigned cpu)
{
	(void)cpu;
	asm volatile("fninit");
	lazy();
	exceptions();
	saves();
	memory();
}
