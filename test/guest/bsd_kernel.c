/*
 * A kernel for bhyveload: checks what does not depend on the disk it came from -
 * registers, stack, page tables, descriptor table, the form of the metadata - and
 * prints the rest, for the test that knows what is on the disk: each record, each
 * variable, and a sum over the contents of every file and section.
 */
#include "serial.h"

typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

#define KERNBASE 0xffffffff80000000ul

struct table {
	u16 limit;
	u64 base;
} __attribute__((packed));

/* bsd_start.S knows where each member lies. */
struct arrival {
	u64 gpr[16], rflags, cr0, cr3, cr4, efer;
	u16 es, cs, ss, ds, fs, gs, tr, ldtr;
	struct table gdtr;
	u8 pad[6];
	struct table idtr;
} __attribute__((packed)) arrival = { .rflags = 1 };

/* As FreeBSD's kernels tell what they hold (sys/module.h). */
static const int kernel_version = 1500000;
static const struct {
	int version, type;
	const void *data;
	const char *cval;
} metadata = { 1, 3, &kernel_version, "kernel" };
static const void *const entry
    __attribute__((section("set_modmetadata_set"), used)) = &metadata;

extern u8 end[];
static volatile u8 bss[100000]; /* zero, whatever lay there */
static u32 failures;
static u32 exit_value; /* from the variable test.exit=N, one digit */
void kernel_main(void);

static void print_hex(u64 v)
{
	for (int i = 60; i >= 0; i -= 4)
		if (v >> i || i == 0)
			put("0123456789abcdef"[v >> i & 15]);
}

static void check(int ok, const char *what)
{
	if (ok)
		return;
	print("FAIL ");
	print(what);
	print("\n");
	failures++;
}

#define CHECK(cond) check(cond, #cond)

/* FNV-1a, which the test computes too. */
static u32 sum(const u8 *p, u64 n)
{
	u32 h = 0x811c9dc5;

	while (n--)
		h = (h ^ *p++) * 0x01000193;
	return h;
}

static void check_processor(void)
{
	const struct arrival *a = &arrival;

	for (unsigned i = 0; i < 16; i++)
		CHECK(a->gpr[i] == (i == 4 ? 0x1000 : 0));
	CHECK(a->rflags == 2);
	CHECK((a->cr0 & ~0x10ul) == 0x80000021); /* ET always reads as one */
	CHECK(a->cr3 == 0x2000);
	CHECK(a->cr4 == 0x20);
	CHECK(a->efer == 0x500);
	CHECK(a->cs == 8);
	CHECK(a->ss == 0x10 && a->ds == 0x10 && a->es == 0x10);
	CHECK(a->fs == 0x10 && a->gs == 0x10);
	CHECK(a->tr == 0 && a->ldtr == 0);
	CHECK(a->gdtr.base == 0x5000 && a->gdtr.limit == 0x17);
}

static void check_tables(void)
{
	const volatile u64 *pml4 = (void *)0x2000, *pdpt = (void *)0x3000;
	const volatile u64 *pd = (void *)0x4000, *gdt = (void *)0x5000;
	u32 bad = 0;

	/* The processor sets accessed (0x20) and dirty (0x40) bits. */
	for (u64 i = 0; i < 512; i++) {
		bad += (pml4[i] & ~0x60ul) != 0x3003;
		bad += (pdpt[i] & ~0x60ul) != 0x4003;
		bad += (pd[i] & ~0x60ul) != (i << 21 | 0x83);
	}
	CHECK(bad == 0);
	CHECK(gdt[0] == 0);
	CHECK((gdt[1] & ~(1ul << 40)) == 0x0020980000000000);
	CHECK((gdt[2] & ~(1ul << 40)) == 0x0000900000000000);
}

static void print_record(const char *what, u32 type, u32 size)
{
	print(what);
	print(" ");
	print_hex(type);
	print(" ");
	print_hex(size);
	print(" ");
}

struct file {
	u64 addr, size;
	const u8 *shdr;
	u32 shdrs;
};

/* Contents as they lie in memory, whole and section by section. */
static void print_file(const struct file *f)
{
	print("contents ");
	print_hex(sum((u8 *)f->addr, f->size));
	print("\n");
	for (u32 i = 0; f->shdr && i < f->shdrs / 64; i++) {
		const u8 *s = f->shdr + i * 64;
		u64 at = *(u64 *)(s + 16), size = *(u64 *)(s + 32);
		u32 type = *(u32 *)(s + 4);
		if (at == 0 || at >= KERNBASE || size == 0)
			continue;
		print_record("section", i, type);
		print_hex(at - f->addr);
		print(" ");
		print_hex(sum((u8 *)at, size));
		print("\n");
	}
}

static void print_symbols(u64 ssym, u64 esym)
{
	for (u64 at = ssym; at < esym; at = (at + 8 + *(u64 *)at + 7) & ~7ul) {
		print("symbols ");
		print_hex(*(u64 *)at);
		print(" ");
		print_hex(sum((u8 *)at + 8, *(u64 *)at));
		print("\n");
	}
}

static void print_environment(const char *p)
{
	while (*p) {
		static const char name[] = "test.exit=";
		u32 n = 0;

		while (n < sizeof(name) - 1 && p[n] == name[n])
			n++;
		if (n == sizeof(name) - 1)
			exit_value = (u32)(p[n] - '0');
		print("env ");
		for (; *p; p++)
			put(*p);
		print("\n");
		p++;
	}
}

static void walk_metadata(u64 modulep, u64 kernend)
{
	struct file f = { 0 };
	u64 ssym = 0, at = modulep;
	const u64 mask = 7;

	for (;;) {
		u32 type = *(u32 *)at, size = *(u32 *)(at + 4);
		const u8 *data = (u8 *)at + 8;
		u64 v = *(u64 *)data;

		if (at >= kernend || (at & mask) != 0) {
			check(0, "metadata has an end");
			return;
		}
		if ((type == 0 || type == 1) && f.addr) {
			print_file(&f);
			f = (struct file){ 0 };
		}
		if (type == 0)
			break;
		print_record("record", type, size);
		if (type == 1 || type == 2 || type == 6) {
			print((const char *)data);
			check(data[size - 1] == 0, "text ends");
		} else if (size <= 8) {
			print_hex(size == 8 ? v : *(u32 *)data);
		} else {
			print_hex(sum(data, size));
		}
		print("\n");
		for (u32 i = size; i & 7; i++)
			check(data[i] == 0, "padding is zero");
		if (type == 3)
			f.addr = v;
		if (type == 4)
			f.size = v;
		if (type == 0x8009) {
			f.shdr = data;
			f.shdrs = size;
		}
		if (type == 0x8003)
			ssym = v;
		if (type == 0x8004)
			print_symbols(ssym, v);
		if (type == 0x8006) {
			CHECK((v & 4095) == 0);
			print_environment((const char *)v);
		}
		if (type == 0x8008)
			CHECK(v == kernend);
		if (type == 0x9001)
			for (u32 i = 0; i < size; i += 20) {
				print("smap ");
				print_hex(*(u64 *)(data + i));
				print(" ");
				print_hex(*(u64 *)(data + i + 8));
				print(" ");
				print_hex(*(u32 *)(data + i + 16));
				print("\n");
			}
		at += 8 + ((size + mask) & ~mask);
	}
	CHECK(*(u32 *)(at + 4) == 0);
	CHECK(((at + 8 + 4095) & ~4095ul) == kernend);
}

void kernel_main(void)
{
	/* 32-bit words, as FreeBSD's locore reads them. */
	const volatile u32 *stack = (void *)0x1000;
	u32 dirty = 0;

	for (u64 i = 0; i < sizeof(bss); i++)
		dirty |= bss[i];
	CHECK(dirty == 0);
	check_processor();
	check_tables();
	CHECK(stack[0] == 0);
	CHECK((stack[1] & 4095) == 0 && (stack[2] & 4095) == 0);
	CHECK(stack[1] >= (u64)end - KERNBASE);
	walk_metadata(stack[1], stack[2]);
	print("handover: ");
	print_hex(failures);
	print(" failures\n");
	while ((inb(0x3fd) & 0x40) == 0)
		;
	if (exit_value)
		outb(0xf4, (u8)exit_value);
	asm volatile("outw %0, %1"
		     :
		     : "a"((u16)(5 << 10 | 1 << 13)), "Nd"((u16)0x404));
}
