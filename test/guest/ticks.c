/*
 * A kernel that asks of its timers what Linux asks when it boots: that they tick while
 * it watches the TSC. A raw image whose first byte is the 64-bit entry of a bzImage;
 * test/system/ticks_test.py runs it on a busy host.
 *
 * For each timer it prints how many rounds there were, and in how many of them the TSC
 * had gone further than the ticks that were seen allow.
 */
#include "serial.h"

typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

#define VECTOR       0x40
#define LAPIC        0xfee00000ul
#define IOAPIC       0xfec00000ul
#define HPET         0xfed00000ul
#define MSR_DEADLINE 0x6e0
#define HZ           250u
/* Of Linux: it watches for 40 Gcycles / HZ at most, and wants to see five ticks. */
#define WATCH 160000000ul
#define WANT  5u

struct gate {
	u16 low, selector;
	u8 ist, type;
	u16 mid;
	u32 high, zero;
};

static volatile u64 ticks;
static struct gate idt[256];
static u8 stack[16384] __attribute__((used, aligned(16)));
void isr(void);
void kernel_main(void);

asm("	.section .start, \"ax\"\n"
    "	.globl _start\n"
    "_start:	lea	stack+16384(%rip), %rsp\n"
    "	call	kernel_main\n"
    "1:	cli\n"
    "	hlt\n"
    "	jmp	1b\n"
    "	.text\n"
    "isr:	push	%rax\n"
    "	incq	ticks(%rip)\n"
    "	mov	$0xfee000b0, %eax\n" /* EOI */
    "	movl	$0, (%rax)\n"
    "	pop	%rax\n"
    "	iretq\n");

static void put32(u64 at, u32 v)
{
	*(volatile u32 *)at = v;
}

static void put64(u64 at, u64 v)
{
	*(volatile u64 *)at = v;
}

static void wrmsr(u32 msr, u64 v)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((u32)v), "d"((u32)(v >> 32)));
}

static u64 rdtsc(void)
{
	u32 lo, hi;

	asm volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (u64)hi << 32 | lo;
}

static u64 tsc_hz(void)
{
	u32 a = 0x15, b, c = 0, d;

	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return (u64)c * b / a;
}

static void print_number(u64 v)
{
	if (v >= 10)
		print_number(v / 10);
	put((char)('0' + v % 10));
}

static void report(const char *name, u64 rounds, u64 failed)
{
	print(name);
	print(": ");
	print_number(rounds);
	print(" rounds, ");
	print_number(failed);
	print(" failed\n");
}

static void interrupts_to(void (*handler)(void))
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) idtr = { sizeof(idt) - 1, (u64)idt };
	u64 at = (u64)handler;
	u16 cs;

	asm("mov %%cs, %0" : "=r"(cs));
	idt[VECTOR] = (struct gate){ (u16)at, cs, 0, 0x8e, (u16)(at >> 16),
		(u32)(at >> 32), 0 };
	asm volatile("lidt %0" : : "m"(idtr));
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	put32(LAPIC + 0xf0, 0x1ff);
}

static void ioapic(u32 reg, u32 v)
{
	put32(IOAPIC, reg);
	put32(IOAPIC + 0x10, v);
}

/* As timer_irq_works() does it. */
static void watch(const char *name, u64 rounds)
{
	u64 failed = 0;

	for (u64 i = 0; i < rounds; i++) {
		u64 seen = ticks, start, now;

		asm volatile("sti");
		start = rdtsc();
		do {
			asm volatile("pause");
			now = rdtsc();
		} while (now - start < WATCH && ticks < seen + WANT);
		asm volatile("cli");
		failed += ticks < seen + WANT;
	}
	report(name, rounds, failed);
}

static void pit(void)
{
	u32 count = 1193182 / HZ;

	outb(0x43, 0x34);
	outb(0x40, (u8)count);
	outb(0x40, (u8)(count >> 8));
	watch("8254", 150);
	outb(0x43, 0x30);
}

static void hpet(void)
{
	u64 period = (1ul << 24) / HZ;

	put64(HPET + 0x10, 0);
	put64(HPET + 0xf0, 0);
	put64(HPET + 0x100, 0x4c); /* periodic, interrupt, set accumulator */
	put64(HPET + 0x108, period);
	put64(HPET + 0x108, period);
	put64(HPET + 0x10, 3); /* in the 8254's place */
	watch("HPET", 150);
	put64(HPET + 0x100, 0);
	put64(HPET + 0x10, 0);
}

/* Once the TSC has been seen half a millisecond behind the deadline, it was taken. */
static void lapic(void)
{
	u64 hz = tsc_hz(), slack = hz / 2000, rounds = 1000, failed = 0;

	put32(LAPIC + 0x320, VECTOR | 2 << 17);
	for (u64 i = 0; i < rounds; i++) {
		u64 seen = ticks, deadline = rdtsc() + hz / 500, now;

		wrmsr(MSR_DEADLINE, deadline);
		asm volatile("sti");
		do {
			now = rdtsc();
		} while (ticks == seen && now < deadline + slack);
		failed += ticks == seen;
		while (ticks == seen)
			;
		asm volatile("cli");
	}
	report("LAPIC", rounds, failed);
}

void kernel_main(void)
{
	interrupts_to(isr);
	ioapic(0x15, 0);
	ioapic(0x14, VECTOR);
	pit();
	hpet();
	ioapic(0x14, 0x10000);
	lapic();
	print("done\n");
	while ((inb(0x3fd) & 0x40) == 0)
		;
	asm volatile("outw %0, %1"
		     :
		     : "a"((u16)(5 << 10 | 1 << 13)), "Nd"((u16)0x404));
}
