/* The C half of 32-bit test guests; see guest32.h. */
#include "guest32.h"

volatile struct caught caught;
volatile struct resume resume;
volatile u32 resume_eip, resume_esp;
u64 idt[256] __attribute__((aligned(16)));
struct tss32 tss __attribute__((aligned(4096)));
u32 failures;

extern u8 stub_table[];
void cpu_init(void);
void trap(struct frame *f);

void *memset(void *p, int c, unsigned n)
{
	for (u8 *d = p; n--;)
		*d++ = c;
	return p;
}

void *memcpy(void *p, const void *q, unsigned n)
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

void print_hex(u32 v)
{
	print("0x");
	for (int i = 28; i >= 0; i -= 4)
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
	print(" eip ");
	print_hex(caught.eip);
	print("]\n");
	failures++;
}

_Noreturn void guest_exit(u32 status)
{
	outb(PORT_EXIT, status > 127 ? 127 : status);
	for (;;)
		asm volatile("cli; hlt");
}

void trap(struct frame *f)
{
	caught.vector = (int)f->vector;
	caught.error = f->error;
	caught.eip = f->eip;
	caught.cs = f->cs;
	caught.eflags = f->eflags;
	caught.esp = f->esp;
	caught.ss = f->ss;
	caught.eax = f->eax;
	asm volatile("mov %%cr2, %0" : "=r"(caught.cr2));
	caught.count++;
	if (!resume.eip) {
		print("unexpected event ");
		print_hex(f->vector);
		print(" error ");
		print_hex(f->error);
		print(" at ");
		print_hex(f->cs);
		print(":");
		print_hex(f->eip);
		print("\n");
		guest_exit(126);
	}
	/* Abandons the interrupted context: ring 0, flags clean, flat segments. */
	asm volatile("pushl $2\n\tpopf\n\tmov %0, %%ss"
		     :
		     : "r"(SEL_KDATA)
		     : "memory", "cc");
	resume_eip = resume.eip;
	resume_esp = resume.esp;
	resume.eip = 0;
}

u64 segment(u32 base, u32 limit, u32 access, u32 flags)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
	       (u64)(limit >> 16 & 15) << 48 | (u64)flags << 52 |
	       (u64)(base >> 24) << 56;
}

u64 gate(u32 type, u32 sel, u32 offset)
{
	return (offset & 0xffff) | sel << 16 | (u64)type << 40 |
	       (u64)(offset >> 16) << 48;
}

void cpu_init(void)
{
	struct {
		u16 limit;
		u32 base;
	} __attribute__((packed)) p = { sizeof(idt) - 1, (u32)idt };

	for (unsigned i = 0; i < 256; i++)
		idt[i] = gate(i == 0x80 || i == 3 || i == 4 ? 0xee : 0x8e,
		    SEL_KCODE, (u32)stub_table + i * 16);
	tss.esp0 = (u32)kernel_stack_top;
	tss.ss0 = SEL_KDATA;
	tss.iomap = 104;
	memset(tss.bitmap, 0xff, sizeof(tss.bitmap));
	gdt[SEL_TSS / 8] = segment((u32)&tss, sizeof(tss) - 1, 0x89, 0);
	asm volatile("lidt %0; ltr %w1" : : "m"(p), "r"(SEL_TSS));
}
