/*
 * What a 32-bit protected-mode test guest may use; the counterpart of guest.h, with
 * the same ports and the same way of turning exceptions into values.
 */
#pragma once

#define SEL_KCODE  0x08
#define SEL_KDATA  0x10
#define SEL_UCODE  0x1b
#define SEL_UDATA  0x23
#define SEL_TSS    0x28 /* the first task */
#define SEL_DFTSS  0x30 /* free to use from here on, to 0xff */
#define SEL_FREE   0x40

#define PORT_PUTC  0x3f8
#define PORT_EXIT  0xf4
#define PORT_HOST  0xf7
#define HOST_MAGIC 0x5a

#ifndef __ASSEMBLER__
#include <stdbool.h>
#include <stdint.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

struct frame {
	u32 edi, esi, ebp, esp0, ebx, edx, ecx, eax;
	u32 vector, error, eip, cs, eflags, esp, ss, es, ds, fs, gs;
};

struct tss32 {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
	u32 eax, ecx, edx, ebx, esp, ebp, esi, edi;
	u32 es, cs, ss, ds, fs, gs, ldt;
	u16 trap, iomap;
	u8 bitmap[33];
};

extern volatile struct caught {
	int vector;
	u32 error, eip, cs, eflags, esp, ss, cr2, count, eax;
} caught;
extern volatile struct resume {
	u32 eip, esp, ebx, esi, edi, ebp; /* the event may come in another task */
} resume;

extern u64 gdt[32];
extern u64 idt[256];
extern struct tss32 tss;
extern u8 user_stack_top[], kernel_stack_top[];

void check(bool ok, const char *file, unsigned line, const char *what);
void *memset(void *p, int c, unsigned n);
void *memcpy(void *p, const void *q, unsigned n);
void print(const char *s);
void print_hex(u32 v);
_Noreturn void guest_exit(u32 status);
void guest_main(void);
u64 segment(u32 base, u32 limit, u32 access, u32 flags);
u64 gate(u32 type, u32 sel, u32 offset);
/*
 * IRET to a frame of {eip, cs, eflags, esp, ss, es, ds, fs, gs} until the next
 * event.
 */
void run_frame(const u32 *frame, u32 words);

#define CHECK(cond)  check(cond, __FILE__, __LINE__, #cond)
#define CAUGHT(v, e) (caught.vector == (v) && caught.error == (u32)(e))
#define TRY_BEGIN                                                                  \
	"movl $77f, resume\n\tmovl %%esp, resume+4\n\tmovl %%ebx, resume+8\n\t"    \
	"movl %%esi, resume+12\n\tmovl %%edi, resume+16\n\tmovl %%ebp, "           \
	"resume+20\n\t"
#define TRY_END "\n77:\tmovl $0, resume\n\t"
#define TRY(text, ...)                                                             \
	do {                                                                       \
		reset_trap();                                                      \
		asm volatile(TRY_BEGIN text TRY_END __VA_ARGS__);                  \
	} while (0)
#define NO_OPERANDS : : : "eax", "ecx", "edx", "memory", "cc"

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

static inline bool have_host(void)
{
	return inb(PORT_HOST) == HOST_MAGIC;
}
#endif
