/*
 * String instructions: directions, address sizes, overlapping, faults in the middle
 * with exact counters, MMIO, port strings.
 */
#include "guest.h"

#define VA 0x40000000ull
static u8 frames[3][4096] __attribute__((aligned(4096)));
static u8 src[256], dst[256];

struct regs {
	u64 di, si, cx;
};

#define STRING(name, text)                                                         \
	static void name(struct regs *r, u64 a)                                    \
	{                                                                          \
		reset_trap();                                                      \
		asm volatile(TRY_BEGIN text TRY_END "cld"                          \
			     : "+D"(r->di), "+S"(r->si), "+c"(r->cx), "+a"(a)      \
			     : "d"(PORT_ECHO)                                      \
			     : "memory", "cc");                                    \
	}
STRING(movsb, "rep movsb")
STRING(movsq, "rep movsq")
STRING(movsb_down, "std\n\trep movsb")
STRING(movsq_down, "std\n\trep movsq")
STRING(stosb, "rep stosb")
STRING(stosq, "rep stosq")
STRING(lodsq, "rep lodsq")
STRING(scasb, "repne scasb")
STRING(cmpsb, "repe cmpsb")
STRING(insb, "rep insb")
STRING(insd, "rep insl")
STRING(outsb, "rep outsb")
STRING(movsb32, "addr32 rep movsb")

static void pages(u64 third)
{
	map(VA, (u64)frames[0] | 7);
	map(VA + 0x1000, (u64)frames[1] | 7);
	map(VA + 0x2000, third);
	for (unsigned i = 0; i < 4096; i++) {
		frames[0][i] = i;
		frames[1][i] = i * 3;
		frames[2][i] = 0xee;
	}
}

static void plain(void)
{
	struct regs r;

	for (unsigned i = 0; i < 256; i++)
		src[i] = i;
	r = (struct regs){ (u64)dst, (u64)src, 256 };
	movsb(&r, 0);
	CHECK(r.cx == 0 && r.di == (u64)dst + 256 && r.si == (u64)src + 256 &&
	      dst[255] == 255);
	/* Overlapping forward: a byte repeats; downward: it moves. */
	r = (struct regs){ (u64)dst + 1, (u64)dst, 100 };
	dst[0] = 9;
	movsb(&r, 0);
	CHECK(dst[100] == 9 && dst[50] == 9);
	for (unsigned i = 0; i < 256; i++)
		dst[i] = i;
	r = (struct regs){ (u64)dst + 100, (u64)dst + 99, 100 };
	movsb_down(&r, 0);
	CHECK(dst[100] == 99 && dst[1] == 0 && dst[50] == 49 && r.di == (u64)dst);
	r = (struct regs){ (u64)dst + 8, (u64)dst, 10 };
	for (unsigned i = 0; i < 256; i++)
		dst[i] = i;
	movsq(&r, 0);
	CHECK(dst[80] == 0 && dst[87] == 7);
	r = (struct regs){ (u64)dst + 200, (u64)src + 200, 5 };
	movsq_down(&r, 0);
	CHECK(r.di == (u64)dst + 160 && dst[207] == 207 && dst[168] == 168);
	/* Count zero touches nothing, not even a bad address. */
	r = (struct regs){ 0x800000000000, 0x800000000000, 0 };
	movsb(&r, 0);
	CHECK(caught.vector == -1);
	r = (struct regs){ (u64)src, 0, 256 };
	scasb(&r, 77);
	CHECK(r.di == (u64)src + 78 && r.cx == 256 - 78);
	dst[255] = 1;
	for (unsigned i = 0; i < 255; i++)
		dst[i] = src[i];
	dst[40] = 0;
	r = (struct regs){ (u64)dst, (u64)src, 256 };
	cmpsb(&r, 0);
	CHECK(r.cx == 256 - 41);
	/* 67h: 32-bit registers, the upper halves ignored and cleared. */
	r = (struct regs){ (u64)dst | 0xf00000000, (u64)src | 0xf00000000,
		0xf00000010 };
	movsb32(&r, 0);
	CHECK(caught.vector == -1 && r.di == (u64)dst + 16 && r.cx == 0);
}

static void faults(void)
{
	struct regs r;

	pages(0);
	/* Destination runs into the hole after 100 bytes. */
	r = (struct regs){ VA + 0x2000 - 100, VA, 1000 };
	movsb(&r, 0);
	CHECK(CAUGHT(14, 2) && caught.cr2 == VA + 0x2000 && r.di == VA + 0x2000 &&
	      r.si == VA + 100 && r.cx == 900 && frames[1][4095] == 99);
	/* Source first. */
	r = (struct regs){ VA, VA + 0x2000 - 24, 10 };
	movsq(&r, 0);
	CHECK(CAUGHT(14, 0) && r.cx == 7 && r.di == VA + 24 && r.si == VA + 0x2000);
	/* An element over the page end leaves no half behind. */
	frames[1][4092] = frames[1][4095] = 0x5a;
	r = (struct regs){ VA + 0x2000 - 12, 0, 4 };
	stosq(&r, ~0ull);
	CHECK(CAUGHT(14, 2) && r.cx == 3 && r.di == VA + 0x2000 - 4 &&
	      frames[1][4092] == 0x5a && frames[1][4095] == 0x5a);
	map(VA + 0x3000, (u64)frames[0] | 7);
	r = (struct regs){ VA + 0x3000 + 50, 0, 100 };
	asm volatile("std");
	reset_trap();
	asm volatile(TRY_BEGIN "rep stosb" TRY_END "cld"
		     : "+D"(r.di), "+c"(r.cx)
		     : "a"(3)
		     : "memory", "cc");
	CHECK(CAUGHT(14, 2) && r.cx == 49 && r.di == VA + 0x2fff &&
	      frames[0][0] == 3);
	r = (struct regs){ 0, VA + 0x2000 - 16, 100 };
	lodsq(&r, 0);
	CHECK(CAUGHT(14, 0) && r.cx == 98 && r.si == VA + 0x2000);
	r = (struct regs){ VA + 0x2000 - 10, 0, 100 };
	for (unsigned i = 0; i < 10; i++)
		frames[1][4086 + i] = 1;
	scasb(&r, 0);
	CHECK(CAUGHT(14, 0) && r.cx == 90);
	/* Read-only destination. */
	pages((u64)frames[2] | 5);
	r = (struct regs){ VA + 0x2000 - 1, 0, 10 };
	stosb(&r, 8);
	CHECK(CAUGHT(14, 3) && r.cx == 9 && frames[1][4095] == 8 &&
	      frames[2][0] == 0xee);
	/* Restarting finishes the job, as a kernel's fault handler relies on. */
	map(VA + 0x2000, (u64)frames[2] | 7);
	stosb(&r, 8);
	CHECK(caught.vector == -1 && r.cx == 0 && frames[2][8] == 8 &&
	      frames[2][9] == 0xee);
	/* Long runs over three pages. */
	r = (struct regs){ VA + 3, VA + 5000, 7000 };
	movsb(&r, 0);
	CHECK(caught.vector == -1 && r.cx == 0 && r.di == VA + 7003);
}

static void io(void)
{
	struct regs r;

	if (!have_host())
		return;
	pages(0);
	outb(PORT_ECHO, 0x77);
	r = (struct regs){ VA + 0x2000 - 3, 0, 5 };
	insb(&r, 0);
	CHECK(CAUGHT(14, 2) && r.cx == 2 && frames[1][4095] == 0x77 &&
	      frames[1][4093] == 0x77);
	r = (struct regs){ VA, 0, 3 };
	insd(&r, 0);
	CHECK(caught.vector == -1 && r.di == VA + 12 && frames[0][8] == 0x77);
	r = (struct regs){ 0, VA + 0x2000 - 2, 4 };
	frames[1][4095] = 0x42;
	outsb(&r, 0);
	CHECK(CAUGHT(14, 0) && r.cx == 2 && inb(PORT_ECHO) == 0x42);

	/* Strings to and from a device. */
	volatile u8 *dev = (u8 *)MMIO_PAGE;
	r = (struct regs){ MMIO_PAGE + 16, (u64)src, 64 };
	movsb(&r, 0);
	CHECK(dev[16 + 63] == src[63] && r.cx == 0);
	for (unsigned i = 0; i < 64; i++)
		dst[i] = 0;
	r = (struct regs){ (u64)dst, MMIO_PAGE + 16, 8 };
	movsq(&r, 0);
	CHECK(dst[63] == src[63] && r.cx == 0);
}

/* Single accesses to a device in every width, and over its page's end. */
static void mmio(void)
{
	u64 at = MMIO_PAGE + 0x100;

	if (!have_host())
		return;
	try_write(at, 0x1122334455667788);
	CHECK(try_read(at) == 0x1122334455667788);
	CHECK(try_read(at + 1) << 8 >> 8 == 0x11223344556677);
	*(volatile u16 *)(at + 3) = 0xabcd;
	CHECK(try_read(at) == 0x112233abcd667788);
	u64 v = 5;
	asm volatile("lock xaddq %0, (%1)" : "+r"(v) : "r"(at) : "memory", "cc");
	CHECK(v == 0x112233abcd667788 && try_read(at) == 0x112233abcd66778d);
	asm volatile("xchgq %0, (%1)" : "+r"(v) : "r"(at) : "memory");
	CHECK(v == 0x112233abcd66778d);
	asm volatile("addl $1, (%1)\n\tpush (%1)\n\tpop %0"
		     : "=r"(v)
		     : "r"(at)
		     : "memory", "cc");
	CHECK(v == 0x112233abcd667789);
	try_read(MMIO_PAGE + 0xffc);
	CHECK(caught.vector == -1);
}

void guest_main(unsigned cpu)
{
	(void)cpu;
	plain();
	faults();
	io();
	mmio();
}
