/*
 * The software CPU: state of one vCPU and the seams between its rooms.
 *
 *   decode.c  bytes -> struct insn (Zydis)
 *   block.c   runs of insns, cached by guest-physical address and mode
 *   mmu.c     page walks, software TLB, loads and stores
 *   interp_*  one handler per instruction; native.c: those that run on the
 *             host's own vector/x87 units
 *   exception.c, interp_sys.c  privilege, delivery, modes
 *   run.c     the loop, interrupts, the exclusive section
 *   jit/      translation of the same blocks
 *
 * Invariants
 * - A handler either completes or leaves by cpu_raise*() (longjmp to the loop)
 *   with registers and memory as before the instruction (REP forms: counters at
 *   the faulting element). So: access memory first, commit registers after;
 *   check all writes (mmu_probe_write) before the first of several.
 * - cpu->rip is the current instruction's while its handler runs; the handler
 *   of a branch sets cpu->next_rip (already rip + length on entry).
 * - rflags always holds the whole guest RFLAGS (bit 1 set) between handlers.
 * - Derived state (cpl, mode, mmu_idx, intr window) is brought up to date by
 *   cpu_update_mode() by whoever changes CR0/CR4/EFER/CS/SS/RFLAGS.VM,AC.
 */
#pragma once

#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/util.h"
#include "vmm/engine.h"
#include "vmm/memory.h"
#include "vmm/state.h"

/* RFLAGS */
#define RF_CF          0x0001u
#define RF_PF          0x0004u
#define RF_AF          0x0010u
#define RF_ZF          0x0040u
#define RF_SF          0x0080u
#define RF_TF          0x0100u
#define RF_IF          0x0200u
#define RF_DF          0x0400u
#define RF_OF          0x0800u
#define RF_IOPL        0x3000u
#define RF_NT          0x4000u
#define RF_RF          0x10000u
#define RF_VM          0x20000u
#define RF_AC          0x40000u
#define RF_VIF         0x80000u
#define RF_VIP         0x100000u
#define RF_ID          0x200000u
#define RF_STATUS      (RF_CF | RF_PF | RF_AF | RF_ZF | RF_SF | RF_OF)

#define CR0_PE         0x1u
#define CR0_MP         0x2u
#define CR0_EM         0x4u
#define CR0_TS         0x8u
#define CR0_ET         0x10u
#define CR0_NE         0x20u
#define CR0_WP         0x10000u
#define CR0_AM         0x40000u
#define CR0_NW         0x20000000u
#define CR0_CD         0x40000000u
#define CR0_PG         0x80000000u

#define CR4_VME        0x1u
#define CR4_PVI        0x2u
#define CR4_TSD        0x4u
#define CR4_DE         0x8u
#define CR4_PSE        0x10u
#define CR4_PAE        0x20u
#define CR4_MCE        0x40u
#define CR4_PGE        0x80u
#define CR4_PCE        0x100u
#define CR4_OSFXSR     0x200u
#define CR4_OSXMMEXCPT 0x400u
#define CR4_UMIP       0x800u
#define CR4_FSGSBASE   0x10000u
#define CR4_PCIDE      0x20000u
#define CR4_OSXSAVE    0x40000u
#define CR4_SMEP       0x100000u
#define CR4_SMAP       0x200000u

#define EFER_SCE       0x1u
#define EFER_LME       0x100u
#define EFER_LMA       0x400u
#define EFER_NXE       0x800u
#define EFER_AUTOIBRS  0x200000u

enum { /* exception vectors */
	EXC_DE = 0, EXC_DB = 1, EXC_NMI = 2, EXC_BP = 3, EXC_OF = 4, EXC_BR = 5,
	EXC_UD = 6, EXC_NM = 7, EXC_DF = 8, EXC_TS = 10, EXC_NP = 11, EXC_SS = 12,
	EXC_GP = 13, EXC_PF = 14, EXC_MF = 16, EXC_AC = 17, EXC_MC = 18,
	EXC_XM = 19,
};

/* #PF error code */
#define PF_P    0x1u
#define PF_W    0x2u
#define PF_U    0x4u
#define PF_RSVD 0x8u
#define PF_I    0x10u

/*
 * Software TLB. Direct-mapped by virtual page; an entry is valid for an access
 * kind when the kind's tag equals the access's page address (canonical bits
 * included). No tag ever equals TLB_INVALID (not page aligned, nor canonical). host pointer =
 * gva + delta. tag_w is invalid for pages that hold translated code, that are
 * not dirty yet, or are MMIO; MMIO pages are in no fast entry at all.
 */
#define TLB_BITS    12
#define TLB_SIZE    (1u << TLB_BITS)
#define TLB_INVALID (UINT64_C(1) << 56 | 1)

struct tlb_entry {
	uint64_t tag_r, tag_w, tag_x;
	uint64_t delta;  /* host - gva */
	uint64_t gpa;    /* page address */
	uint32_t global; /* G bit: survives a CR3 write */
	/* bytes mapped by the guest's entry, as a shift: 12, 21, 30 */
	uint32_t level;
	uint64_t lin; /* page address it was filled for; level 0: never filled */
	uint64_t logged; /* logs of its context it is in, as bits */
};

enum mmu_idx {
	MMU_KERNEL,      /* CPL 0-2, may touch user pages (SMAP off or AC set) */
	MMU_KERNEL_SMAP, /* CPL 0-2, SMAP on and AC clear */
	MMU_USER,        /* CPL 3 */
	MMU_COUNT,
};

struct tlb {
	struct tlb_entry e[MMU_COUNT][TLB_SIZE];
};

static inline unsigned tlb_index(uint64_t gva)
{
	return (gva >> 12) & (TLB_SIZE - 1);
}

enum cpu_mode { MODE_16, MODE_32, MODE_64 }; /* code size: CS.L / CS.D */

struct soft_cpu;
struct soft_engine;
struct insn;
struct block;

typedef void insn_fn(struct soft_cpu *cpu, const struct insn *in);

enum opnd_kind {
	OPND_NONE,
	OPND_GPR,   /* reg 0-15 */
	OPND_GPR8H, /* AH CH DH BH: reg is 0-3 */
	OPND_MEM,   /* address in the insn */
	OPND_IMM,   /* value in insn.imm (insn.imm2 for a second one) */
	OPND_REL,   /* branch: displacement from the next instruction in insn.imm */
	OPND_FAR,   /* ptr16:16/32: selector in imm2, offset in imm */
	OPND_SEG,   /* reg = SEG_* */
	OPND_CR,
	OPND_DR,
	OPND_OTHER, /* x87, MMX, XMM, YMM, mask: look at the bytes again */
};

struct operand {
	uint8_t kind;
	uint8_t reg;
	uint16_t size; /* bytes */
};

#define INSN_LOCK	0x0001u
#define INSN_REP	0x0002u /* F3 */
#define INSN_REPNE	0x0004u /* F2 */
#define INSN_END	0x0008u /* last of its block: branch, mode or TLB change */
#define INSN_STORES	0x0010u /* may write memory */
#define INSN_LOADS	0x0020u
#define INSN_RIPREL	0x0040u /* disp is relative to the next instruction */
#define INSN_NOSEG	0x0080u /* memory operand is an address only (LEA, NOP, PREFETCH) */
#define INSN_BRANCH	0x0100u /* direct or indirect near branch, call, ret */
#define INSN_FLAT	0x0200u /* 64-bit, no FS/GS, not RIPREL: no base to add */

#define REG_NONE 0xffu

/* One decoded instruction; immutable once its block is published. */
struct insn {
	insn_fn *fn;
	void *aux; /* fn's own: native.c's stub */
	int64_t imm;
	int64_t disp;
	int32_t imm2;
	uint16_t mnemonic; /* ZydisMnemonic */
	uint16_t flags;    /* INSN_ */
	uint8_t len;
	uint8_t opsize;      /* effective operand size in bytes: 1 2 4 8 */
	uint8_t addrsize;    /* 2 4 8 */
	uint8_t stacksize;   /* of implicit stack accesses: 2 4 8 */
	uint8_t nopnd;       /* explicit operands */
	uint8_t seg;         /* of the memory operand: SEG_* */
	uint8_t base, index; /* GPR numbers or REG_NONE */
	uint8_t scale;       /* 1 2 4 8 */
	uint8_t mode;        /* enum cpu_mode it was decoded for */
	uint8_t bytes[15];
	uint8_t cc;          /* condition code 0-15 of Jcc, SETcc, CMOVcc */
	uint16_t flags_read; /* RF_STATUS bits it reads / may write */
	uint16_t flags_written;
	struct operand op[4];
};

struct soft_seg {
	uint64_t base;
	uint32_t limit;  /* bytes */
	uint32_t access; /* as struct vcpu_seg */
	uint16_t sel;
};

struct soft_stats {
	uint64_t insns, blocks, block_misses, tlb_misses, page_walks, page_faults,
	    exceptions, interrupts, io, mmio, hlt, invalidations, flushes,
	    exclusive;
};

/*
 * What CPUID promises, in the form the privileged half checks it by; and answers
 * of CPUID itself, dropped when the guest state they mirror changes. policy.c.
 */
#define CPUID_CACHE 32
struct cpu_policy {
	bool ready;
	bool amd; /* AMD's rules of SYSCALL, SYSRET, SYSENTER */
	bool rdtscp, rdpid, rdrand, rdseed, invpcid, lm;
	uint8_t maxphyaddr;
	uint64_t cr4_mask, efer_mask, xcr0_mask;
	bool has_spec_ctrl, has_arch_cap, has_tsc_adjust, has_mca;
	uint64_t cache_key;
	unsigned cached;
	struct {
		uint32_t leaf, subleaf, out[4];
	} cache[CPUID_CACHE];
};

struct soft_cpu {
	struct vcpu_link link; /* must be first */
	uint64_t gpr[16];
	uint64_t rip, next_rip;
	uint64_t rflags;
	struct soft_seg seg[SEG_COUNT];
	uint64_t gdt_base, idt_base;
	uint32_t gdt_limit, idt_limit;

	/* derived, see cpu_update_mode() */
	uint8_t cpl;
	uint8_t mode;        /* enum cpu_mode */
	uint8_t mmu_idx;     /* enum mmu_idx for data accesses now */
	bool long_mode;      /* EFER.LMA */
	bool protected_mode; /* CR0.PE and not VM86 */
	uint8_t stack_size;  /* of SP: 2 4 8 */
	bool shadow; /* interrupts and #DB held off for the next instruction */
	bool nmi_blocked;
	bool intr_waiting; /* an EV_INTR was seen with IF clear */
	bool stop_block;   /* leave the current block after this instruction */
	uint64_t rip_mask; /* 0xffff, 0xffffffff or all ones */

	struct tlb *tlb; /* of the current address space context */

	uint64_t cr0, cr2, cr3, cr4, efer, xcr0, xss;
	uint64_t dr[4], dr6, dr7;
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, tsc_aux, tsc_offset, tsc_adjust, misc_enable, spec_ctrl;
	uint64_t mtrr_def, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];

	uint8_t fpu[XSAVE_SIZE]
	    __attribute__((aligned(64))); /* standard XSAVE form */

	struct soft_engine *engine;
	struct memory *mem;
	const struct engine_host *host;
	unsigned id;
	uint64_t pending_db; /* DR6 bits of debug conditions of this instruction */

	/* Delivery in progress, for #DF escalation; -1: none. */
	int delivering;

	struct block *block; /* being interpreted */
	unsigned block_pos;
	jmp_buf env;      /* cpu_raise() lands in run.c */
	int raise_vector; /* what was raised */
	bool raise_has_error;
	uint32_t raise_error;
	uint64_t raise_cr2;

	struct block_cache *blocks;
	struct jit *jit; /* NULL: interpreter only */
	/* Runs one block: interp_block(), or the translator's entry. */
	void (*run_block)(struct soft_cpu *cpu, struct block *b);
	/*
	 * The translator's: a block with a translation becomes stale. May be NULL.
	 */
	void (*block_dropped)(struct soft_cpu *cpu, struct block *b);
	struct native *native;
	struct mmu *mmu; /* private to mmu.c: contexts, PCIDs */
	struct soft_stats stats;
	bool halted;
	/* A debugger's: debugger.c. */
	bool debugged;  /* instruction by instruction: a step, or watchpoints */
	bool step_on;   /* leave after the next one */
	bool watch_hit; /* the instruction touched a watchpoint */
	enum engine_point stopped;
	uint64_t stopped_gla;
	uint32_t points_seen; /* engine's point_changes the blocks are made for */
	uint64_t stops_seen[MEMORY_PAGE / 64];
	unsigned pauses; /* PAUSEs executed: now and then the host CPU is yielded */
	struct cpu_policy policy;
};

struct point {
	uint64_t gla, len;
	enum engine_point kind;
};

#define POINTS 256

struct soft_engine {
	struct engine_config cfg;
	/* cfg.host's, with the vCPU outside during each call */
	struct engine_host host;
	struct soft_cpu *cpu[64];
	unsigned ncpu;
	bool jit; /* vCPUs translate */
	bool jit_must; /* asked for by name: no fall back to the interpreter */
	bool lockstep; /* and what they translate is interpreted, too */
	struct codemem *codemem;
	struct exclusive *exclusive;
	/* The debugger's; changed only while every vCPU is outside run(). */
	struct point point[POINTS];
	unsigned npoints, nwatches; /* nwatches: those not POINT_EXECUTE */
	uint32_t point_changes;
	/* Offsets in a page where a breakpoint is, see debugger.c. */
	uint64_t stops[MEMORY_PAGE / 64];
};

/* exception.c: leave the current instruction. Never return. */
_Noreturn void cpu_raise(struct soft_cpu *cpu, int vector);
_Noreturn void cpu_raise_error(struct soft_cpu *cpu, int vector, uint32_t error);
_Noreturn void cpu_raise_pf(struct soft_cpu *cpu, uint64_t gla, uint32_t error);
/* The engine cannot go on, and has said why: run() returns ENGINE_ERROR. */
#define LEFT_FOR_GOOD 2
_Noreturn void cpu_give_up(struct soft_cpu *cpu);
#define cpu_ud(cpu) cpu_raise(cpu, EXC_UD)
#define cpu_gp(cpu) cpu_raise_error(cpu, EXC_GP, 0)
/*
 * Delivers what cpu_raise() recorded, an external interrupt, NMI or INT n. Double
 * fault escalation inside. 0, or -1: triple fault (shutdown).
 */
int cpu_deliver_raised(struct soft_cpu *cpu);
int cpu_deliver_interrupt(struct soft_cpu *cpu, int vector);
int cpu_deliver_nmi(struct soft_cpu *cpu);
/* #DB after an instruction completed (TF, data breakpoints); as above. */
int cpu_deliver_debug(struct soft_cpu *cpu);

/*
 * debug.c: instruction breakpoints that match at rip, as DR6 bits; 0: none (or RF
 * set).
 */
uint64_t cpu_code_breakpoints(const struct soft_cpu *cpu);
/*
 * Data breakpoints hit by an access (write: a store; else a load): sets pending_db.
 */
void cpu_data_breakpoints(
    struct soft_cpu *cpu, uint64_t lin, unsigned size, bool write);
/*
 * Whether DR7 arms any data breakpoint, or a debugger watches: then no access may skip
 * the check above.
 */
bool cpu_data_breakpoints_armed(const struct soft_cpu *cpu);

/*
 * debugger.c. By the vCPU's thread, at the begin of run(): follows the points that
 * were changed.
 */
void debugger_follow(struct soft_cpu *cpu);
/* A breakpoint is at rip: run() shall leave. */
bool debugger_stops(struct soft_cpu *cpu);
/* A step is done, or a watchpoint was touched: run() shall leave. */
bool debugger_done(struct soft_cpu *cpu);
/* An access while there are watchpoints. */
void debugger_access(struct soft_cpu *cpu, uint64_t lin, unsigned size, bool write);
int debugger_point(struct soft_engine *e, enum engine_point kind, uint64_t gla,
    uint64_t len, bool set);
void debugger_step(struct soft_cpu *cpu, bool on);
/* Whether an instruction at gpa must be a block of its own. */
static inline bool debugger_marks(const struct soft_engine *e, uint64_t gpa)
{
	return e->stops[(gpa & (MEMORY_PAGE - 1)) / 64] >> (gpa & 63) & 1;
}

/* policy.c: what the guest was promised; computed at the first call. */
const struct cpu_policy *cpu_policy(struct soft_cpu *cpu);

/* mode.c: recompute derived state. Does not flush the TLB by itself. */
void cpu_update_mode(struct soft_cpu *cpu);
/* interp_sys.c: write RFLAGS under mask, with what follows (mode, intr window). */
void cpu_set_rflags(struct soft_cpu *cpu, uint64_t value, uint64_t mask);
/* cr.c: MOV CRn and XSETBV with all checks; raise #GP. */
void cpu_write_cr0(struct soft_cpu *cpu, uint64_t v);
void cpu_write_cr3(struct soft_cpu *cpu, uint64_t v);
void cpu_write_cr4(struct soft_cpu *cpu, uint64_t v);

/*
 * mmu.c. lin is a linear address (segment base added, canonical); sizes 1-8 for
 * load/store, any for the _bytes forms. All raise #PF; MMIO goes to the host
 * callbacks in pieces of 1, 2, 4, 8. Loads and stores of 1, 2, 4, 8 bytes inside
 * a page are single host accesses; page-crossing ones check both pages first.
 */
uint64_t mmu_load(struct soft_cpu *cpu, uint64_t lin, unsigned size);
void mmu_store(struct soft_cpu *cpu, uint64_t lin, unsigned size, uint64_t v);
void mmu_load_bytes(struct soft_cpu *cpu, uint64_t lin, void *buf, unsigned n);
void mmu_store_bytes(
    struct soft_cpu *cpu, uint64_t lin, const void *buf, unsigned n);
/*
 * Would a write / read of n bytes succeed? Raises if not. Sets A/D as the access
 * would.
 */
void mmu_probe_write(struct soft_cpu *cpu, uint64_t lin, unsigned n);
void mmu_probe_read(struct soft_cpu *cpu, uint64_t lin, unsigned n);
/* Implicit supervisor accesses (GDT, IDT, TSS, LDT, page-delivered stacks). */
uint64_t mmu_load_sys(struct soft_cpu *cpu, uint64_t lin, unsigned size);
void mmu_store_sys(struct soft_cpu *cpu, uint64_t lin, unsigned size, uint64_t v);
/* With the rights of a given privilege: stacks of the ring being entered. */
uint64_t mmu_load_idx(
    struct soft_cpu *cpu, enum mmu_idx idx, uint64_t lin, unsigned size);
void mmu_store_idx(struct soft_cpu *cpu, enum mmu_idx idx, uint64_t lin,
    unsigned size, uint64_t v);
/*
 * Host pointer for a read-modify-write of size bytes at lin that lie in one RAM
 * page and may be written (raises #PF if not). NULL: MMIO, page-crossing, a page
 * with translated code or one a data breakpoint watches - do it inside
 * cpu_exclusive_begin/end with mmu_load and mmu_store (after mmu_probe_write).
 * The pointer is good until the next call into mmu.c.
 */
void *mmu_rmw_ptr(struct soft_cpu *cpu, uint64_t lin, unsigned size);
/*
 * Host pointer and number of contiguous bytes (1 .. max, within a page or wider)
 * for string instructions; NULL: go element by element. write: as mmu_rmw_ptr.
 */
uint8_t *mmu_span(
    struct soft_cpu *cpu, uint64_t lin, bool write, uint64_t max, uint64_t *len);
/*
 * Instruction fetch: fills buf with up to n bytes at lin from executable pages;
 * returns bytes got (stops before a page that cannot be fetched, raises if none
 * can). gpa[2]: physical pages used.
 */
unsigned mmu_fetch(
    struct soft_cpu *cpu, uint64_t lin, uint8_t *buf, unsigned n, uint64_t gpa[2]);
/* Physical address of code at lin (raises #PF), through tag_x. */
uint64_t mmu_code_gpa(struct soft_cpu *cpu, uint64_t lin);
/* Debugger walk without side effects; 0 or -EFAULT. */
int mmu_translate(struct soft_cpu *cpu, uint64_t lin, uint64_t *gpa);
/*
 * Fill the fast entry for an access (kind 'r' 'w' 'x') or raise; returns it, NULL
 * for MMIO. The tag of the kind may still be invalid (code or watched page): check
 * it.
 */
struct tlb_entry *mmu_fill(
    struct soft_cpu *cpu, uint64_t lin, enum mmu_idx idx, char kind);

void mmu_flush_all(
    struct soft_cpu *cpu); /* CR0.PG, CR4, EFER changes: globals too */
void mmu_flush_page(struct soft_cpu *cpu, uint64_t lin); /* INVLPG */
void mmu_invpcid(struct soft_cpu *cpu, unsigned type, uint64_t pcid, uint64_t lin);
/*
 * CR3 was written (cpu->cr3 holds the new value): switch context. noflush: bit 63.
 */
void mmu_cr3_written(struct soft_cpu *cpu, bool noflush);
int mmu_create(struct soft_cpu *cpu);
void mmu_destroy(struct soft_cpu *cpu);

/*
 * Address of the instruction's memory operand: segment base added, limits and
 * rights checked in 16/32-bit modes, canonical form in 64-bit; raises #GP/#SS.
 * size bytes will be accessed, write says how.
 */
uint64_t insn_linear(
    struct soft_cpu *cpu, const struct insn *in, unsigned size, bool write);
/* The same for an explicit segment and offset (string and stack instructions). */
uint64_t seg_linear(struct soft_cpu *cpu, unsigned seg, uint64_t off,
    unsigned addrsize, unsigned size, bool write);
/* Offset part only (LEA). */
uint64_t insn_offset(const struct soft_cpu *cpu, const struct insn *in);

/*
 * run.c: all other vCPUs stopped at instruction boundaries, for accesses that no
 * host instruction can make atomic. Never held across a cpu_raise(): probe first.
 */
void cpu_exclusive_begin(struct soft_cpu *cpu);
void cpu_exclusive_end(struct soft_cpu *cpu);

/*
 * decode.c: one instruction from n (1-15) bytes for a mode. 0; -EAGAIN: needs more
 * bytes than n; -EINVAL: no instruction (in->fn then raises #UD, or #GP for more
 * than 15 bytes). The handler comes from the first of interp_int_handler,
 * interp_sys_handler, native_handler that knows it.
 */
int insn_decode(struct soft_cpu *cpu, struct insn *in, const uint8_t *bytes,
    unsigned n, enum cpu_mode mode);
insn_fn *interp_int_handler(const struct insn *in); /* interp_int.c and friends */
insn_fn *interp_sys_handler(const struct insn *in); /* interp_sys.c and friends */
/*
 * Whether an instruction interp_sys_handler() knows must be the last of its block.
 */
bool interp_sys_ends_block(const struct insn *in);
/* native.c: may build a stub (in->aux), freed by native_release(). */
insn_fn *native_handler(struct soft_cpu *cpu, struct insn *in);
void native_release(struct soft_cpu *cpu, struct insn *in);
int native_create(struct soft_cpu *cpu);
void native_destroy(struct soft_cpu *cpu);

/*
 * block.c: decoded runs. A block ends at INSN_END, at a page end, or after
 * BLOCK_MAX instructions. Key: gpa of the first byte and mode (an insn holds
 * nothing that depends on CS.base, CPL or rip). An instruction that crosses a page
 * is a block of its own, so that a fault on the second page is raised when and
 * only when that instruction is reached.
 *
 * A handler that changes next_rip is INSN_END or sets stop_block.
 */
#define BLOCK_MAX 64
struct block {
	uint64_t gpa;     /* of the first byte */
	uint64_t page[2]; /* physical pages it lies in; page[1] = ~0 when one */
	uint32_t bytes;   /* length in the first page and beyond */
	uint8_t mode;
	bool stale; /* its page was written: never enter again */
	bool stop;  /* a debugger may want to look first; not for the translator */
	uint16_t n;
	uint16_t seen; /* runs, the last time blocks were looked through */
	uint32_t runs; /* times entered, for the translator's choice */
	void *jit;     /* translation, owned by jit/ */
	struct block *hash_next;
	struct block *page_next[2];
	struct insn insn[];
};
struct block *block_get(struct soft_cpu *cpu); /* at cpu->rip; raises #PF, #GP */
/* Drop every block of THIS vCPU that overlaps [gpa, gpa+len). */
void block_invalidate(struct soft_cpu *cpu, uint64_t gpa, uint64_t len);
void block_flush(struct soft_cpu *cpu);
/* Drop every block with a byte at one of these offsets in a page. */
void block_drop_at(
    struct soft_cpu *cpu, const uint64_t offset[static MEMORY_PAGE / 64]);
/* Frees stale blocks; only where none can be running (the loop in run.c). */
void block_reap(struct soft_cpu *cpu);
int block_create(struct soft_cpu *cpu);
void block_destroy(struct soft_cpu *cpu);
/*
 * A store by cpu touched a page marked in memory.code: drop the blocks it
 * overlaps on this vCPU now and on the others before their next block
 * (posted through EV_ENGINE). Sets stop_block when the current block is hit.
 */
void code_written(struct soft_cpu *cpu, uint64_t gpa, uint64_t len);

/*
 * codemem.c: executable memory, one memfd mapped twice (write and execute are
 * never on one mapping). Per engine; callers allocate from it and free.
 */
struct codemem;
int codemem_new(struct codemem **cm, size_t size);
void codemem_free(struct codemem *cm);
/*
 * Carves [0, size) into regions; NULL when full. rx = address to run, rw = to
 * write.
 */
int codemem_alloc(struct codemem *cm, size_t len, uint8_t **rw, uint8_t **rx);
void codemem_release(struct codemem *cm, uint8_t *rx, size_t len);
uint8_t *codemem_rx_to_rw(struct codemem *cm, const uint8_t *rx);

/*
 * run.c: one instruction or block in the interpreter; used by jit/ as its fallback.
 */
void interp_block(struct soft_cpu *cpu, struct block *b);

/* Register access by operand. */
static inline uint64_t size_mask(unsigned size)
{
	return size >= 8 ? ~UINT64_C(0) : (UINT64_C(1) << (size * 8)) - 1;
}

static inline uint64_t gpr_get(
    const struct soft_cpu *cpu, unsigned reg, unsigned size)
{
	return cpu->gpr[reg] & size_mask(size);
}

/* 32-bit writes clear the upper half, smaller ones keep the rest. */
static inline void gpr_set(
    struct soft_cpu *cpu, unsigned reg, unsigned size, uint64_t v)
{
	switch (size) {
	case 8:
		cpu->gpr[reg] = v;
		break;
	case 4:
		cpu->gpr[reg] = (uint32_t)v;
		break;
	case 2:
		cpu->gpr[reg] = (cpu->gpr[reg] & ~UINT64_C(0xffff)) | (uint16_t)v;
		break;
	default:
		cpu->gpr[reg] = (cpu->gpr[reg] & ~UINT64_C(0xff)) | (uint8_t)v;
	}
}

static inline bool is_canonical(uint64_t a)
{
	return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}
