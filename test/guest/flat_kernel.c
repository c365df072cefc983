/*
 * A kernel for kopenbsd, knetbsd, multiboot and multiboot2: prints what the
 * processor arrived with, all of low memory that is not zero, and a sum over every
 * page above; the test knows what must be there.
 */
#include "serial.h"

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

#define LOW_END  0xa0000u
#define HIGH_END 0x1000000u
#define PAGE     4096u

struct table {
	u16 limit;
	u32 base;
} __attribute__((packed));

/* flat_start.S knows where each member lies. */
struct arrival {
	u32 word[13]; /* registers: print_arrival() names them */
	u16 selector[8];
	struct table gdtr, idtr;
} __attribute__((packed)) arrival = { .word = { 1 } };

/* The space that OpenBSD's kernels keep for a ram disk. */
u32 rd_root_size __attribute__((section(".data"))) = 12288;
u8 rd_root_image[12288] __attribute__((section(".data"))) = { 1 };

static volatile u8 bss[50000]; /* zero, whatever lay there */
void kernel_main(void);

static void print_hex(u32 v, int digits)
{
	for (int i = 4 * digits - 4; i >= 0; i -= 4)
		put("0123456789abcdef"[v >> i & 15]);
}

static void print_value(const char *name, u32 v)
{
	print("reg ");
	print(name);
	print(" ");
	print_hex(v, 8);
	print("\n");
}

/* FNV-1a, which the test computes too. */
static u32 sum(const volatile u8 *p, u32 n)
{
	u32 h = 0x811c9dc5;

	while (n--)
		h = (h ^ *p++) * 0x01000193;
	return h;
}

static int is_zero(const volatile u8 *p, u32 n)
{
	for (u32 i = 0; i < n; i += 4)
		if (*(const volatile u32 *)(p + i) != 0)
			return 0;
	return 1;
}

static void print_arrival(void)
{
	static const char *const names[] = { "eax", "ecx", "edx", "ebx", "esp",
		"ebp", "esi", "edi", "eflags", "cr0", "cr3", "cr4", "efer" };
	static const char *const selectors[] = { "es", "cs", "ss", "ds", "fs", "gs",
		"tr", "ldtr" };

	for (u32 i = 0; i < 13; i++)
		print_value(names[i], arrival.word[i]);
	for (u32 i = 0; i < 8; i++)
		print_value(selectors[i], arrival.selector[i]);
	print_value("gdtr", arrival.gdtr.base);
	print_value("gdtr_limit", arrival.gdtr.limit);
	print_value("idtr_limit", arrival.idtr.limit);
}

static void print_low(void)
{
	for (u32 at = 0; at < LOW_END; at += 64) {
		const volatile u8 *p = (const volatile u8 *)at;
		if (is_zero(p, 64))
			continue;
		print("low ");
		print_hex(at, 8);
		print(" ");
		for (u32 i = 0; i < 64; i++)
			print_hex(p[i], 2);
		print("\n");
	}
}

void kernel_main(void)
{
	print(is_zero((const volatile u8 *)bss, sizeof(bss)) ? "bss zero\n"
							     : "bss dirty\n");
	print_arrival();
	print_low();
	for (u32 at = 0x100000; at < HIGH_END; at += PAGE) {
		const volatile u8 *p = (const volatile u8 *)at;
		if (is_zero(p, PAGE))
			continue;
		print("page ");
		print_hex(at, 8);
		print(" ");
		print_hex(sum(p, PAGE), 8);
		print("\n");
	}
	print_value("rd_root_size", rd_root_size);
	print_value("rd_root_sum", sum(rd_root_image, sizeof(rd_root_image)));
	print("handover: done\n");
	while ((inb(0x3fd) & 0x40) == 0)
		;
	asm volatile("outw %0, %1"
		     :
		     : "a"((u16)(5 << 10 | 1 << 13)), "Nd"((u16)0x404));
}
