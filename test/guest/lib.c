/* The C half of every 64-bit test guest; see guest.h. */
#include "guest.h"

volatile struct caught caught;
volatile struct resume resume;
bool (*trap_hook)(struct frame *f);
struct gate idt[256] __attribute__((aligned(16)));
struct tss tss[4] __attribute__((aligned(4096)));
unsigned failures;

static u8 ring0_stack[5][0x4000] __attribute__((aligned(16)));
static u8 ist_stack[5][0x2000] __attribute__((aligned(16)));
static u64 tables[64][512] __attribute__((aligned(4096)));
static unsigned tables_used;
extern u8 stub_table[];
void cpu_init(unsigned cpu);
void trap(struct frame *f);

void *memset(void *p, int c, unsigned long n)
{
	for (u8 *d = p; n--;)
		*d++ = c;
	return p;
}

void *memcpy(void *p, const void *q, unsigned long n)
{
	const u8 *s = q;

	for (u8 *d = p; n--;)
		*d++ = *s++;
	return p;
}

void print(const char *s)
{
	while (*s)
		outb(PORT_PUTC, *s++);
}

void print_hex(u64 v)
{
	print("0x");
	for (int i = 60; i >= 0; i -= 4)
		if (v >> i || i == 0)
			outb(PORT_PUTC, "0123456789abcdef"[v >> i & 15]);
}

static void print_dec(unsigned v)
{
	if (v >= 10)
		print_dec(v / 10);
	outb(PORT_PUTC, '0' + v % 10);
}

void check(bool ok, const char *file, unsigned line, const char *what)
{
	if (ok)
		return;
	for (const char *p = file; *p; p++)
		if (*p == '/')
			file = p + 1;
	print("FAIL ");
	print(file);
	print(":");
	print_dec(line);
	print(": ");
	print(what);
	print("  [vector ");
	print_hex(caught.vector);
	print(" error ");
	print_hex(caught.error);
	print(" cr2 ");
	print_hex(caught.cr2);
	print(" rip ");
	print_hex(caught.rip);
	print("]\n");
	failures++;
}

_Noreturn void guest_exit(unsigned status)
{
	outb(PORT_EXIT, status > 127 ? 127 : status);
	for (;;)
		asm volatile("cli; hlt");
}

void trap(struct frame *f)
{
	if (trap_hook && trap_hook(f))
		return;
	caught.vector = f->vector;
	caught.error = f->error;
	caught.rip = f->rip;
	caught.cs = f->cs;
	caught.rflags = f->rflags;
	caught.rsp = f->rsp;
	caught.ss = f->ss;
	caught.cr2 = read_cr2();
	caught.count++;
	if (!resume.rip) {
		print("unexpected event ");
		print_hex(f->vector);
		print(" error ");
		print_hex(f->error);
		print(" at ");
		print_hex(f->cs);
		print(":");
		print_hex(f->rip);
		print(" cr2 ");
		print_hex(read_cr2());
		print("\n");
		guest_exit(126);
	}
	f->rip = resume.rip;
	f->rsp = resume.rsp;
	f->cs = SEL_KCODE;
	f->ss = SEL_KDATA;
	f->rflags = 2;
	resume.rip = 0;
}

void set_gate(
    unsigned vector, void (*fn)(void), unsigned type, unsigned dpl, unsigned ist)
{
	u64 at = (u64)fn;

	idt[vector] = (struct gate){
		.lo = at,
		.sel = SEL_KCODE,
		.ist = ist,
		.type = 0x80 | dpl << 5 | type,
		.mid = at >> 16,
		.hi = at >> 32,
	};
}

void cpu_init(unsigned cpu)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) p = { sizeof(idt) - 1, (u64)idt };
	u64 at = (u64)&tss[cpu], limit = sizeof(struct tss) - 1;

	for (unsigned i = 0; i < 256 && cpu == 0; i++)
		set_gate(i, (void (*)(void))(stub_table + i * 16), 14,
		    i == 0x80 || i == 3 || i == 4 ? 3 : 0, 0);
	tss[cpu].rsp[0] = (u64)ring0_stack[cpu + 1];
	tss[cpu].ist[0] = (u64)ist_stack[cpu + 1];
	tss[cpu].iomap = sizeof(struct tss) - sizeof(tss[cpu].bitmap);
	memset(tss[cpu].bitmap, 0xff, sizeof(tss[cpu].bitmap));
	gdt[SEL_TSS / 8 + cpu * 2] =
	    limit | (at & 0xffffff) << 16 | 0x89ull << 40 | (at >> 24 & 0xff) << 56;
	gdt[SEL_TSS / 8 + cpu * 2 + 1] = at >> 32;
	asm volatile("lidt %0; ltr %w1" : : "m"(p), "r"(SEL_TSS + cpu * 16));
}

static u64 *next_table(u64 *entry)
{
	if (!(*entry & 1))
		*entry = (u64)tables[tables_used++] | 7;
	return (u64 *)(*entry & 0xffffffffff000);
}

u64 *pte(u64 va)
{
	u64 *t = next_table(&pml4[va >> 39 & 511]);

	t = next_table(&t[va >> 30 & 511]);
	t = next_table(&t[va >> 21 & 511]);
	return &t[va >> 12 & 511];
}

void map(u64 va, u64 entry)
{
	*pte(va) = entry;
	invlpg(va);
}
