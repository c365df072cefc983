/*
 * What a 64-bit test guest may use: ports to the runner, checks, exceptions as
 * values, ring 3. One identity-mapped address space; everything is user-accessible.
 *
 * A check that fails prints its file and line and the guest goes on; the verdict is
 * the number of failures, written to PORT_EXIT.
 */
#pragma once

#define SEL_KCODE   0x08
#define SEL_KDATA   0x10
#define SEL_UCODE32 0x1b
#define SEL_UDATA   0x23
#define SEL_UCODE   0x2b
#define SEL_UDATA2  0x33
#define SEL_KCODE32 0x38
#define SEL_KCODE16 0x40
#define SEL_KDATA16 0x48
#define SEL_FREE    0x50 /* up to 0x9f: for the guest's own descriptors */
#define SEL_TSS     0xa0 /* + 16 a CPU */

#define PORT_PUTC 0x3f8
#define PORT_EXIT 0xf4
#define PORT_NMI  0xf5 /* any write: an NMI for the writing CPU */
#define PORT_INTR 0xf6 /* a write: this vector becomes pending for the writer */
#define PORT_HOST 0xf7 /* reads HOST_MAGIC when the runner is ours */
#define PORT_ECHO 0xf8 /* reads back what was written, 1, 2 or 4 bytes */
#define PORT_TICK 0xf9 /* this vector comes every 100 us; 0: no more */
#define PORT_CPUS 0xfa /* reads the number of CPUs */
#define HOST_MAGIC 0x5a
/* A page of memory that is a device: reads and writes leave through the bus. */
#define MMIO_PAGE 0xd0000000

#ifndef __ASSEMBLER__
#include <stdbool.h>
#include <stdint.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

struct frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	u64 vector, error, rip, cs, rflags, rsp, ss;
};

struct tss {
	u32 reserved0;
	u64 rsp[3], reserved1, ist[7], reserved2;
	u16 reserved3, iomap;
	u8 bitmap[64];
} __attribute__((packed));

/* The last exception or interrupt; vector -1: none since reset_trap(). */
extern volatile struct caught {
	int64_t vector;
	u64 error, rip, cs, rflags, rsp, ss, cr2, count;
} caught;

/* Where the next event goes on (rip 0: an unexpected event ends the guest). */
extern volatile struct resume {
	u64 rip, rsp;
} resume;

/* Sees an event first; true: handled, return to the frame as it is now. */
extern bool (*trap_hook)(struct frame *f);

extern u64 gdt[], pml4[512], pdpt[512], pd[512];
extern struct gate {
	u16 lo, sel;
	u8 ist, type;
	u16 mid;
	u32 hi, zero;
} idt[256];
extern struct tss tss[4];
extern u8 user_stack[], user_stack_top[];
extern u8 end[];
extern unsigned failures;

void check(bool ok, const char *file, unsigned line, const char *what);
void *memset(void *p, int c, unsigned long n);
void *memcpy(void *p, const void *q, unsigned long n);
void print(const char *s);
void print_hex(u64 v);
_Noreturn void guest_exit(unsigned status);
void guest_main(unsigned cpu);
void set_gate(
    unsigned vector, void (*fn)(void), unsigned type, unsigned dpl, unsigned ist);
/* Runs code in ring 3 until its first event. */
void run_user(void (*rip)(void), u64 rflags, u64 arg);
void run_user32(void (*rip)(void), u64 rflags, u64 arg);
/*
 * Maps 4 KiB at va (in the second GiB or above, below 2 TiB) with raw entry bits.
 */
void map(u64 va, u64 entry);
u64 *pte(u64 va);

#define CHECK(cond)  check(cond, __FILE__, __LINE__, #cond)
#define CAUGHT(v, e) (caught.vector == (v) && caught.error == (u64)(e))

/* Around the instructions of an asm statement that may trap. */
#define TRY_BEGIN "movq $77f, resume\n\tmovq %%rsp, resume+8\n\t"
#define TRY_END   "\n77:\tmovq $0, resume\n\t"

/*
 * One fragment that may trap; the rest after text are operands: ": out : in :
 * clobber".
 */
#define TRY(text, ...)                                                             \
	do {                                                                       \
		reset_trap();                                                      \
		asm volatile(TRY_BEGIN text TRY_END __VA_ARGS__);                  \
	} while (0)
#define NO_OPERANDS : : : "rax", "rbx", "rcx", "rdx", "memory", "cc"

static inline void reset_trap(void)
{
	caught.vector = -1;
	caught.error = caught.cr2 = 0;
}

static inline void outb(u16 port, u8 v)
{
	asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 v;

	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

/* The runner's extra ports (NMI, interrupts, MMIO page) exist. */
static inline bool have_host(void)
{
	return inb(PORT_HOST) == HOST_MAGIC;
}

static inline void cpuid(u32 leaf, u32 sub, u32 r[4])
{
	asm volatile("cpuid"
		     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
		     : "a"(leaf), "c"(sub));
}

static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return (u64)hi << 32 | lo;
}

static inline void wrmsr(u32 msr, u64 v)
{
	asm volatile("wrmsr"
		     :
		     : "c"(msr), "a"((u32)v), "d"((u32)(v >> 32))
		     : "memory");
}

/* MSR writes that may fault. */
static inline void try_wrmsr(u32 msr, u64 v)
{
	reset_trap();
	asm volatile(TRY_BEGIN "wrmsr" TRY_END
		     :
		     : "c"(msr), "a"((u32)v), "d"((u32)(v >> 32))
		     : "memory");
}

static inline void try_rdmsr(u32 msr)
{
	reset_trap();
	asm volatile(TRY_BEGIN "rdmsr" TRY_END
		     :
		     : "c"(msr)
		     : "rax", "rdx", "memory");
}

#define CR_ACCESS(n)                                                               \
	static inline u64 read_cr##n(void)                                         \
	{                                                                          \
		u64 v;                                                             \
		asm volatile("mov %%cr" #n ", %0" : "=r"(v) : : "memory");         \
		return v;                                                          \
	}                                                                          \
	static inline void write_cr##n(u64 v)                                      \
	{                                                                          \
		asm volatile("mov %0, %%cr" #n : : "r"(v) : "memory");             \
	}                                                                          \
	static inline void try_write_cr##n(u64 v)                                  \
	{                                                                          \
		reset_trap();                                                      \
		asm volatile(TRY_BEGIN "mov %0, %%cr" #n TRY_END                   \
			     :                                                     \
			     : "r"(v)                                              \
			     : "memory");                                          \
	}
CR_ACCESS(0)
CR_ACCESS(2)
CR_ACCESS(3)
CR_ACCESS(4)

static inline void invlpg(u64 va)
{
	asm volatile("invlpg (%0)" : : "r"(va) : "memory");
}

/* Loads and stores that may fault. */
static inline u64 try_read(u64 va)
{
	u64 v = 0;

	reset_trap();
	asm volatile(TRY_BEGIN "mov (%1), %0" TRY_END
		     : "+r"(v)
		     : "r"(va)
		     : "memory");
	return v;
}

static inline void try_write(u64 va, u64 v)
{
	reset_trap();
	asm volatile(TRY_BEGIN "mov %0, (%1)" TRY_END
		     :
		     : "r"(v), "r"(va)
		     : "memory");
}

static inline void try_call(u64 va)
{
	reset_trap();
	asm volatile(TRY_BEGIN "call *%0" TRY_END
		     :
		     : "r"(va)
		     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11",
		     "memory", "cc");
}
#endif
