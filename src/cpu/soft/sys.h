/*
 * What the files of the privileged half share: descriptors, stacks of any
 * ring, far transfers, event delivery. Nothing outside cpu/soft includes this.
 */
#pragma once

#include "cpu/soft/soft.h"

/* Bits of soft_seg.access. */
#define ACC_A	     0x01u /* accessed */
#define ACC_RW	     0x02u /* code: readable, data: writable */
#define ACC_CE	     0x04u /* code: conforming, data: expand-down */
#define ACC_CODE     0x08u
#define ACC_S	     0x10u
#define ACC_P	     0x80u
#define ACC_L	     0x2000u
#define ACC_DB	     0x4000u
#define ACC_G	     0x8000u
#define ACC_DPL(a)   (((a) >> 5) & 3)
#define ACC_TYPE(a)  ((a) & 0x1f) /* with S */
#define ACC_IS_CODE(a) (((a) & (ACC_S | ACC_CODE)) == (ACC_S | ACC_CODE))

/* System descriptor types (S = 0). */
enum {
	SYS_TSS16 = 1, SYS_LDT = 2, SYS_TSS16_BUSY = 3, SYS_CALL16 = 4,
	SYS_TASK = 5, SYS_INT16 = 6, SYS_TRAP16 = 7, SYS_TSS32 = 9,
	SYS_TSS32_BUSY = 11, SYS_CALL32 = 12, SYS_INT32 = 14, SYS_TRAP32 = 15,
};

/* A segment descriptor as it lies in a table. */
struct desc {
	struct soft_seg seg; /* unpacked, sel as asked for */
	uint64_t raw;
	uint64_t lin; /* where it lies */
};

static inline bool sel_null(uint16_t sel)
{
	return (sel & 0xfffc) == 0;
}

/* seg.c */
void seg_unpack(struct soft_seg *s, uint16_t sel, uint64_t raw);
/* Reads a descriptor; raises vector(sel + ext) when it lies beyond its table. */
void desc_load(
    struct soft_cpu *cpu, uint16_t sel, struct desc *d, int vector, unsigned ext);
bool desc_try_load(struct soft_cpu *cpu, uint16_t sel, struct desc *d);
void desc_mark_accessed(struct soft_cpu *cpu, struct desc *d);
/* MOV/POP/Lxx to ES SS DS FS GS, with every check; commits the register. */
void seg_load(struct soft_cpu *cpu, unsigned seg, uint16_t sel);
/*
 * Checks only, for a stack of ring cpl: fault vectors as LSS, or as a task switch.
 */
void seg_check_stack(struct soft_cpu *cpu, uint16_t sel, unsigned cpl, int vector,
    unsigned ext, struct desc *d);
void seg_load_real(struct soft_cpu *cpu, unsigned seg, uint16_t sel);
void seg_load_vm86(struct soft_cpu *cpu, unsigned seg, uint16_t sel);
void seg_set_null(struct soft_cpu *cpu, unsigned seg, uint16_t sel, unsigned dpl);
/* Whether [off, off+size) lies in the segment (limit only). */
bool seg_covers(const struct soft_seg *s, uint32_t off, unsigned size);
/* The code segment that RETF or IRET goes back to; may raise. */
void code_load_return(struct soft_cpu *cpu, uint16_t sel, struct desc *cs);
/* Raises #GP(0) + ext when rip cannot be reached in the code segment. */
void code_check_rip(
    struct soft_cpu *cpu, const struct soft_seg *cs, uint64_t rip, unsigned ext);
/* Data segments a less privileged ring may not keep (RETF, IRET outward). */
void seg_drop_privileged(struct soft_cpu *cpu, unsigned new_cpl);

/* Inner-ring stack pointer from the current TSS; raises #TS. */
void tss_stack(
    struct soft_cpu *cpu, unsigned cpl, unsigned ext, uint16_t *ss, uint32_t *esp);
uint64_t tss_stack64(struct soft_cpu *cpu, unsigned slot, unsigned ext);
/* slot of tss_stack64(): 0-2 RSPn, TSS_IST(n) the interrupt stacks. */
#define TSS_IST(n) ((n) + 3)

/*
 * A stack being filled or emptied; nothing of the CPU changes until the caller
 * stores sp. Values written below a stack pointer that never came to be are the
 * only trace of a fault in the middle, as on hardware.
 */
struct stk {
	struct soft_seg ss;
	uint64_t sp, mask;
	enum mmu_idx idx;
	uint32_t error; /* of #SS */
	bool flat64;    /* no segment, canonical addresses */
};

void stk_current(struct soft_cpu *cpu, struct stk *st);
void stk_push(struct soft_cpu *cpu, struct stk *st, unsigned size, uint64_t v);
uint64_t stk_pop(struct soft_cpu *cpu, struct stk *st, unsigned size);
/* RSP, ESP or SP := st->sp. */
void stk_commit(struct soft_cpu *cpu, const struct stk *st);
enum mmu_idx mmu_idx_of(const struct soft_cpu *cpu, unsigned cpl);

/* iret.c: the outer ring's SS, checked and loaded; for RETF too. */
void iret_stack(
    struct soft_cpu *cpu, uint16_t sel, unsigned cpl, bool to64, struct desc *ss);
void iret_commit_stack(
    struct soft_cpu *cpu, uint16_t sel, unsigned cpl, const struct desc *ss);

/* deliver.c: one event through IVT, IDT or gate; sets next_rip or raises. */
enum event_kind {
	EVENT_EXCEPTION,
	EVENT_EXTERNAL,
	EVENT_NMI,
	EVENT_ICEBP,    /* INT1: as an exception, but a trap */
	EVENT_SOFTWARE, /* INT n, INT3, INTO: gate DPL counts, EXT is 0 */
};

struct event {
	enum event_kind kind;
	int vector;
	bool has_error;
	bool int_n; /* INT n proper: sensitive to IOPL in virtual-8086 mode */
	uint32_t error;
	uint64_t rip;    /* to be pushed */
	uint64_t rflags; /* to be pushed */
};

void event_deliver(struct soft_cpu *cpu, const struct event *ev);

/* task.c */
enum task_reason { TASK_JUMP, TASK_CALL, TASK_IRET, TASK_GATE };
void task_switch(struct soft_cpu *cpu, struct desc *tss, enum task_reason why,
    uint64_t rip, uint64_t rflags, unsigned ext);
/* Checks a task gate's or a direct TSS selector and reads its descriptor. */
void task_desc_load(
    struct soft_cpu *cpu, uint16_t sel, struct desc *d, unsigned ext);

/* policy.c */
void cpu_cpuid(
    struct soft_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

/* cr.c */
void cpu_write_xcr0(struct soft_cpu *cpu, uint64_t v);

/* msr.c: raise #GP. */
uint64_t cpu_rdmsr(struct soft_cpu *cpu, uint32_t msr);
void cpu_wrmsr(struct soft_cpu *cpu, uint32_t msr, uint64_t v);
uint64_t cpu_tsc(const struct soft_cpu *cpu);

/* Opcode bytes behind legacy and REX prefixes; 0x0f maps include the escape. */
const uint8_t *insn_opcode(const struct insn *in);
/* The whole RFLAGS mask POPF and IRET may write at the current CPL and IOPL. */
uint64_t rflags_writable(const struct soft_cpu *cpu, unsigned opsize);

/* Operands: registers and memory. */
uint64_t opnd_read(struct soft_cpu *cpu, const struct insn *in,
    const struct operand *o, unsigned size);
void opnd_write(struct soft_cpu *cpu, const struct insn *in,
    const struct operand *o, unsigned size, uint64_t v);

static inline unsigned cpu_iopl(const struct soft_cpu *cpu)
{
	return (cpu->rflags >> 12) & 3;
}

static inline bool cpu_vm86(const struct soft_cpu *cpu)
{
	return cpu->rflags & RF_VM;
}

static inline void need_cpl0(struct soft_cpu *cpu)
{
	if (cpu->cpl != 0)
		cpu_gp(cpu);
}

/* Handlers, by file. */
insn_fn sys_mov_sreg, sys_store_sreg, sys_push_sreg, sys_pop_sreg, sys_load_far;
insn_fn sys_lgdt, sys_lidt, sys_sgdt, sys_sidt, sys_lldt, sys_ltr, sys_sldt,
    sys_str;
insn_fn sys_lar, sys_lsl, sys_verr, sys_verw, sys_arpl;
insn_fn sys_far_jmp, sys_far_call, sys_far_ret, sys_iret;
insn_fn sys_int, sys_int1, sys_int3, sys_into;
insn_fn sys_syscall, sys_sysret, sys_sysenter, sys_sysexit, sys_swapgs;
insn_fn sys_rdfsbase, sys_rdgsbase, sys_wrfsbase, sys_wrgsbase;
insn_fn sys_pushf, sys_popf, sys_cli, sys_sti, sys_stac, sys_clac;
insn_fn sys_in, sys_out, sys_ins, sys_outs;
insn_fn sys_mov_cr, sys_mov_dr, sys_clts, sys_lmsw, sys_smsw, sys_xgetbv,
    sys_xsetbv;
insn_fn sys_rdmsr, sys_wrmsr, sys_rdtsc, sys_rdtscp, sys_rdpid, sys_rdpmc,
    sys_cpuid;
insn_fn sys_hlt, sys_wbinvd, sys_invlpg, sys_invpcid, sys_rdrand, sys_rdseed,
    sys_ud;
