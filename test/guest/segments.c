/*
 * 32-bit protected mode: limits, segment types, call gates with parameters,
 * hardware tasks, virtual-8086 mode, the 32-bit and PAE page tables.
 */
#include "guest32.h"

static volatile u32 area[64] __attribute__((aligned(256)));
static u32 big[1024] __attribute__((aligned(4096)));

static void load_gs(u64 desc)
{
	gdt[SEL_FREE / 8] = desc;
	asm volatile("mov %0, %%gs" : : "r"(SEL_FREE) : "memory");
}

static void limits(void)
{
	u32 base = (u32)area, v;

	for (u32 i = 0; i < 64; i++)
		area[i] = i;
	load_gs(segment(base, 15, 0x93, 4)); /* 16 bytes */
	TRY("mov %%gs:12, %0", : "=r"(v) : : "memory");
	CHECK(caught.vector == -1 && v == 3);
	TRY("mov %%gs:13, %%eax", NO_OPERANDS);
	CHECK(CAUGHT(13, 0));
	TRY("movb %%gs:15, %%al", NO_OPERANDS);
	CHECK(caught.vector == -1);
	TRY("movb %%gs:16, %%al", NO_OPERANDS);
	CHECK(CAUGHT(13, 0));
	TRY("mov %%gs:0xfffffffe, %%eax", NO_OPERANDS); /* wraps */
	CHECK(CAUGHT(13, 0));
	TRY("lea 1, %%eax\n\tmov %%gs:1000, %%eax", NO_OPERANDS);
	CHECK(CAUGHT(13, 0));
	load_gs(segment(base, 15, 0x91, 4)); /* read-only */
	TRY("movl $1, %%gs:0", NO_OPERANDS);
	CHECK(CAUGHT(13, 0));
	/* Expand-down: what lies beyond the limit. */
	load_gs(segment(base, 15, 0x97, 4));
	TRY("mov %%gs:16, %0", : "=r"(v) : : "memory");
	CHECK(caught.vector == -1 && v == 4);
	TRY("mov %%gs:15, %%eax", NO_OPERANDS);
	CHECK(CAUGHT(13, 0));
	load_gs(segment(base, 15, 0x97, 0)); /* to 64 KiB only */
	TRY("mov %%gs:0xfffd, %%eax", NO_OPERANDS);
	CHECK(CAUGHT(13, 0));
	/* Page granularity. */
	load_gs(segment(base, 0, 0x93, 0xc));
	TRY("mov %%gs:0xffc, %%eax", NO_OPERANDS);
	CHECK(caught.vector == -1);
	TRY("mov %%gs:0xffd, %%eax", NO_OPERANDS);
	CHECK(CAUGHT(13, 0));
	/* Executable: readable or not, never writable. */
	load_gs(segment(base, 0xfffff, 0x9b, 0xc));
	TRY("mov %%gs:4, %0", : "=r"(v) : : "memory");
	CHECK(caught.vector == -1 && v == 1);
	TRY("movl $1, %%gs:0", NO_OPERANDS);
	CHECK(CAUGHT(13, 0));
	gdt[SEL_FREE / 8] = segment(base, 0xfffff, 0x99, 0xc);
	TRY("mov %0, %%gs", : : "r"(SEL_FREE));
	CHECK(CAUGHT(13, SEL_FREE));
	gdt[SEL_FREE / 8] = segment(base, 0xfffff, 0x13, 0xc);
	TRY("mov %0, %%gs", : : "r"(SEL_FREE));
	CHECK(CAUGHT(11, SEL_FREE));
	TRY("mov %0, %%gs", : : "r"(0x1000));
	CHECK(CAUGHT(13, 0x1000));
	/* The accessed bit is set by the load. */
	load_gs(segment(base, 15, 0x92, 4));
	CHECK(gdt[SEL_FREE / 8] >> 40 & 1);
	/* Null: loads, then faults. */
	asm volatile("mov %0, %%gs" : : "r"(0));
	TRY("mov %%gs:0, %%eax", NO_OPERANDS);
	CHECK(CAUGHT(13, 0));
	TRY("mov %0, %%ss", : : "r"(0));
	CHECK(CAUGHT(13, 0));
	/* Stack segment with a limit: #SS for what lies above. */
	gdt[SEL_FREE / 8] = segment(0, ((u32)big >> 12), 0x93, 0xc);
	TRY("mov %0, %%ss\n\tmov %1, %%esp\n\tpush $7\n\tpop %%eax\n\tpop %%eax",
	    :
	    : "r"(SEL_FREE), "r"(big + 1024)
	    : "eax", "memory");
	CHECK(CAUGHT(12, 0) && caught.eax == 7);
	asm volatile("mov %0, %%ss" : : "r"(SEL_KDATA));
}

/* Ring 3 through a call gate with two parameters, back by RETF $8. */
void gate_target(void);
void user_gate(void);
static volatile u32 gate_sum;
asm("gate_target: mov 8(%esp), %eax; add 12(%esp), %eax; mov $0x10, %ecx; mov "
    "%ecx, %ds\n"
    "mov %eax, gate_sum; lret $8\n"
    "user_gate: push $5; push $6; lcall $0x53, $0; mov %esp, %eax; int $0x80");

static void call_gates(void)
{
	u32 frame[] = { (u32)user_gate, SEL_UCODE, 2, (u32)user_stack_top,
		SEL_UDATA };

	gdt[0x50 / 8] = gate(0xec, SEL_KCODE, (u32)gate_target) | (u64)2 << 32;
	gate_sum = 0;
	run_frame(frame, 5);
	CHECK(caught.vector == 0x80 && gate_sum == 11 &&
	      caught.eax == (u32)user_stack_top && caught.cs == SEL_UCODE &&
	      caught.ss == SEL_UDATA);
	/* Ring-0 data does not survive the way out. */
	gdt[0x50 / 8] = gate(0x8c, SEL_KCODE, (u32)gate_target) | (u64)2 << 32;
	run_frame(frame, 5);
	CHECK(CAUGHT(13, 0x50));
}

/* Tasks. */
static struct tss32 task;
static u8 task_stack[4096] __attribute__((aligned(16)));
static volatile u32 task_ran, task_link, task_flags;
void task_entry(void);
asm("task_entry: incl task_ran; str %ax; movzwl %ax, %eax; mov %eax, task_link\n"
    "pushf; popl task_flags; clts; iret; jmp task_entry");
void task_jump(void);
asm("task_jump: incl task_ran; mov $0x1234, %ebx; clts; ljmp $0x28, $0; jmp "
    "task_jump");
static void task_make(void (*entry)(void))
{
	task = (struct tss32){
		.eip = (u32)entry,
		.eflags = 2,
		.esp = (u32)task_stack + sizeof(task_stack),
		.es = SEL_KDATA,
		.cs = SEL_KCODE,
		.ss = SEL_KDATA,
		.ds = SEL_KDATA,
		.esp0 = (u32)task_stack + 2048,
		.ss0 = SEL_KDATA,
		.iomap = 104,
	};
	asm volatile("mov %%cr3, %0" : "=r"(task.cr3));
	gdt[0x30 / 8] = segment((u32)&task, 103, 0x89, 0);
}

static void tasks(void)
{
	u32 tr, keep = 0x5555aaaa;

	/* CALL, IRET back. */
	task_make(task_entry);
	task_ran = 0;
	TRY("lcall $0x30, $0",
	    : "+b"(keep)
	    :
	    : "eax", "ecx", "edx", "memory", "cc");
	CHECK(caught.vector == -1 && task_ran == 1 && task_link == 0x30 &&
	      keep == 0x5555aaaa);
	CHECK(task_flags & 0x4000 && (task.link & 0xffff) == SEL_TSS);
	asm volatile("str %0" : "=r"(tr));
	CHECK((tr & 0xffff) == SEL_TSS);
	CHECK((gdt[0x30 / 8] >> 40 & 0xff) == 0x89 &&
	      (gdt[SEL_TSS / 8] >> 40 & 0xff) == 0x8b);
	CHECK(!(task.eflags & 0x4000));
	/* Again: it goes on behind its IRET. */
	TRY("lcall $0x30, $0", NO_OPERANDS);
	CHECK(caught.vector == -1 && task_ran == 2);
	/* JMP, JMP back: nothing nests. */
	task_make(task_jump);
	TRY("ljmp $0x30, $0", NO_OPERANDS);
	CHECK(caught.vector == -1 && task_ran == 3 && task.ebx == 0x1234 &&
	      task.link == 0);
	/* Interrupt through a task gate. */
	task_ran = 0;
	idt[0x90] = gate(0x85, 0x30, 0);
	task_make(task_entry);
	TRY("int $0x90", NO_OPERANDS);
	CHECK(caught.vector == -1 && task_ran == 1 && task_link == 0x30);
	/* Busy, absent, too small, no TSS. */
	task_make(task_entry);
	gdt[0x30 / 8] |= 2ull << 40;
	TRY("lcall $0x30, $0", NO_OPERANDS);
	CHECK(CAUGHT(13, 0x30));
	gdt[0x30 / 8] = segment((u32)&task, 103, 0x09, 0);
	TRY("lcall $0x30, $0", NO_OPERANDS);
	CHECK(CAUGHT(11, 0x30));
	gdt[0x30 / 8] = segment((u32)&task, 102, 0x89, 0);
	TRY("lcall $0x30, $0", NO_OPERANDS);
	CHECK(CAUGHT(10, 0x30));
	/* CR0.TS is set by every switch. */
	task_make(task_entry);
	TRY("lcall $0x30, $0", NO_OPERANDS);
	asm volatile("mov %%cr0, %0" : "=r"(tr));
	CHECK(tr & 8);
	asm volatile("clts");
	/* A bad segment in the new task faults there. */
	task_make(task_entry);
	task.ds = SEL_KCODE | 0x800;
	TRY("lcall $0x30, $0", NO_OPERANDS);
	CHECK(CAUGHT(10, 0x808) && caught.eip == (u32)task_entry);
	asm volatile("clts; pushf; andl $~0x4000, (%%esp); popf"
		     :
		     :
		     : "memory", "cc");
	gdt[SEL_TSS / 8] &= ~(2ull << 40);
	asm volatile("ltr %w0" : : "r"(SEL_TSS) : "memory");
}

void df_entry(void);
asm("df_entry: incl task_ran; pop task_link; mov resume, %eax; mov %eax, tss+32\n"
    "mov resume+4, %eax; mov %eax, tss+56; movl $0x10, tss+80; clts; iret");

/* Double fault through a task gate: the one way out of a lost stack. */
static void double_fault(void)
{
	u64 old = idt[8];

	task_make(df_entry);
	idt[8] = gate(0x85, 0x30, 0);
	task_ran = 0;
	task_link = 99;
	/* ESP far beyond RAM-backed limits: SS limited to 4 KiB, ESP outside. */
	gdt[SEL_FREE / 8] = segment(0, 0, 0x93, 0xc);
	/*
	 * The handler task IRETs to the interrupted one, whose stack is as bad as
	 * before: df_entry mends it in the saved TSS first.
	 */
	TRY("mov %0, %%ss\n\tmov $0x100000, %%esp\n\tpush $1",
	    :
	    : "r"(SEL_FREE)
	    : "eax", "memory", "cc");
	CHECK(caught.vector == -1 && task_ran == 1 && task_link == 0);
	idt[8] = old;
}

/* 16-bit code for virtual-8086 mode at 0x8000 = 0800:0000. */
extern u8 vm86_code[], vm86_int[], vm86_cli[], vm86_end[], vm86_pushf[], vm86_hlt[],
    vm86_ivt[], vm86_sti[];
asm(".code16\n.globl vm86_code\nvm86_code:\n"
    "mov $0x1000, %ax; mov %ax, %es; movw $0xbeef, %es:2; mov %ss:2, %bx; push "
    "%ds\n"
    "lcall $0x0800, $(vm86_far - vm86_code); pop %cx; int $0x80\n"
    "vm86_far: lret\n"
    "vm86_cli: cli; int $0x80\n"
    "vm86_pushf: pushf; pop %ax; int $0x80\n"
    "vm86_hlt: hlt\n"
    "vm86_sti: sti; hlt\n"
    "vm86_ivt: hlt\n"
    "vm86_int: int $0x21; int $0x80\n"
    "vm86_end:\n.code32");

static void vm86_run(u8 *entry, u32 flags)
{
	u32 frame[] = {
		(u32)(entry - vm86_code), 0x800, 0x20002 | flags, 0x100, 0x1000,
		0x2000, 0x3000, 0, 0,
	};

	for (u8 *s = vm86_code, *d = (u8 *)0x8000; s < vm86_end;)
		*d++ = *s++;
	run_frame(frame, 9);
}

static void vm86(void)
{
	/* IOPL 3: INT goes through the IDT. */
	vm86_run(vm86_code, 0x3000);
	CHECK(caught.vector == 0x80 && caught.eflags & 0x20000 &&
	      caught.cs == 0x800 && caught.ss == 0x1000 &&
	      *(u16 *)0x10002 == 0xbeef);
	/* IOPL 0: INT n, CLI, PUSHF go to the monitor. */
	vm86_run(vm86_int, 0);
	CHECK(CAUGHT(13, 0) && caught.eflags & 0x20000 &&
	      caught.eip == (u32)(vm86_int - vm86_code));
	vm86_run(vm86_cli, 0);
	CHECK(CAUGHT(13, 0));
	vm86_run(vm86_cli, 0x3200);
	CHECK(caught.vector == 0x80 && !(caught.eflags & 0x200));
	vm86_run(vm86_pushf, 0);
	CHECK(CAUGHT(13, 0));
	vm86_run(vm86_hlt, 0x3000);
	CHECK(CAUGHT(13, 0));
	/* INT 0x21 with DPL 0 at IOPL 3. */
	vm86_run(vm86_int, 0x3000);
	CHECK(CAUGHT(13, 0x21 * 8 + 2));
}

#define VIF 0x80000
#define VIP 0x100000

/* Virtual-8086 mode extensions: VIF in place of IF, interrupts redirected. */
static void vme(void)
{
	u32 a, b, c, d, hlt = (u32)(vm86_ivt - vm86_code);

	asm volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(1), "c"(0));
	if (!(d & 2))
		return;
	asm volatile("mov %0, %%cr4" : : "r"(1));
	tss.iomap = 136;
	memset(tss.bitmap, 0xff, sizeof(tss.bitmap));
	vm86_run(vm86_cli, VIF);
	CHECK(CAUGHT(13, 0) && !(caught.eflags & VIF)); /* at INT 0x80 */
	vm86_run(vm86_sti, 0);
	CHECK(CAUGHT(13, 0) && caught.eflags & VIF && caught.eip == hlt - 1);
	vm86_run(vm86_sti, VIP);
	CHECK(CAUGHT(13, 0) && caught.eip == (u32)(vm86_sti - vm86_code));
	vm86_run(vm86_pushf, VIF);
	CHECK(CAUGHT(13, 0) && (caught.eax & 0x3200) == 0x3200);
	vm86_run(vm86_pushf, 0);
	CHECK(CAUGHT(13, 0) && (caught.eax & 0x3200) == 0x3000);
	/* INT 0x21 to the program's own vector. */
	tss.bitmap[0x21 / 8] = 0xfd;
	*(volatile u32 *)(0x21 * 4) = 0x08000000 | hlt;
	vm86_run(vm86_int, VIF);
	CHECK(CAUGHT(13, 0) && caught.eip == hlt && caught.cs == 0x800 &&
	      caught.esp == 0xfa && !(caught.eflags & VIF) &&
	      *(volatile u16 *)0x100fe == ((caught.eflags & 0xdff) | 0x3200));
	asm volatile("mov %0, %%cr4" : : "r"(0));
	tss.iomap = 104;
}

static void bounds(void)
{
	static int pair[2] = { -5, 10 };

	TRY("bound %0, %1", : : "r"(11), "m"(pair[0]));
	CHECK(CAUGHT(5, 0));
	TRY("bound %0, %1", : : "r"(-5), "m"(pair[0]));
	CHECK(caught.vector == -1);
	TRY("mov $0x7fffffff, %%eax\n\tinc %%eax\n\tinto", NO_OPERANDS);
	CHECK(CAUGHT(4, 0));
	TRY("xor %%eax, %%eax\n\tinto", NO_OPERANDS);
	CHECK(caught.vector == -1);
	u32 a = 0x1230;
	u8 z;
	asm volatile("arpl %w2, %w0\n\tsetz %1" : "+r"(a), "=q"(z) : "r"(3) : "cc");
	CHECK(a == 0x1233 && z);
}

/* Page tables of both 32-bit kinds. */
static volatile u32 dir[1024] __attribute__((aligned(4096)));
static volatile u32 table[1024] __attribute__((aligned(4096)));
static volatile u64 pdptes[4] __attribute__((aligned(32)));
static volatile u64 dir_pae[4][512] __attribute__((aligned(4096)));
static volatile u64 table_pae[512] __attribute__((aligned(4096)));

static void set_paging(u32 cr3, u32 cr4)
{
	asm volatile("mov %0, %%cr4\n\tmov %1, %%cr3\n\tmov %%cr0, %%eax\n\t"
		     "or $0x80010000, %%eax\n\tmov %%eax, %%cr0\n\tjmp 1f\n1:"
		     :
		     : "r"(cr4), "r"(cr3)
		     : "eax", "memory");
}

static void no_paging(void)
{
	asm volatile(
	    "mov %%cr0, %%eax\n\tand $0x7fffffff, %%eax\n\tmov %%eax, %%cr0\n\t"
	    "jmp 1f\n1:"
	    :
	    :
	    : "eax", "memory");
}

static void paging(void)
{
	volatile u32 *at = (u32 *)(0x40000000 + ((u32)area & 4095));

	for (u32 i = 0; i < 1024; i++)
		dir[i] = i << 22 | 0x87;
	dir[0x100] = (u32)table | 7;
	table[0] = ((u32)area & ~4095u) | 7;
	table[1] = 0;
	table[2] = ((u32)area & ~4095u) | 5;
	set_paging((u32)dir, 0x10);
	area[0] = 77;
	CHECK(at[0] == 77 && (table[0] & 0x60) == 0x20 && (dir[0x100] & 0x20));
	at[1] = 78;
	CHECK(area[1] == 78 && (table[0] & 0x60) == 0x60);
	TRY("mov 0x40001234, %%eax", NO_OPERANDS);
	CHECK(CAUGHT(14, 0) && caught.cr2 == 0x40001234);
	TRY("movl $1, 0x40002000", NO_OPERANDS);
	CHECK(CAUGHT(14, 3));
	no_paging();

	for (u32 d = 0; d < 4; d++) {
		for (u32 i = 0; i < 512; i++)
			dir_pae[d][i] = (u64)(d << 9 | i) << 21 | 0x87;
		pdptes[d] = (u32)dir_pae[d] | 1;
	}
	dir_pae[1][0] = (u32)table_pae | 7;
	table_pae[0] = ((u32)area & ~4095u) | 7;
	set_paging((u32)pdptes, 0x20);
	CHECK(at[0] == 77);
	TRY("movl $1, 0x40001000", NO_OPERANDS);
	CHECK(CAUGHT(14, 2));
	/* A PDPTE changes nothing until CR3 is loaded; reserved bits fault then. */
	pdptes[3] |= 2;
	TRY("mov %0, %%cr3", : : "r"(pdptes));
	CHECK(CAUGHT(13, 0));
	pdptes[3] &= ~2ull;
	TRY("mov %0, %%cr3", : : "r"(pdptes));
	CHECK(caught.vector == -1);
	no_paging();
	asm volatile("mov %0, %%cr4" : : "r"(0));
}

void guest_main(void)
{
	limits();
	call_gates();
	tasks();
	double_fault();
	vm86();
	vme();
	bounds();
	paging();
}
