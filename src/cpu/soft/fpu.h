/*
 * The guest's x87, SSE and AVX state: cpu->fpu seen as the standard XSAVE form.
 *
 * Invariants between instructions
 * - All components are in memory and valid; XSTATE_BV is FPU_ALL. Who saves the
 *   state with a host XSAVE may leave clear bits: fpu_normalise() puts the
 *   initial configuration in their place before anyone else looks.
 * - MXCSR has no bit outside FPU_MXCSR_MASK, so that the host can load it.
 * - FIP, FDP and FOP are the guest's own or zero, never the host's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cpu/soft/soft.h"

#define FPU_X87         0x1u
#define FPU_SSE         0x2u
#define FPU_AVX         0x4u
#define FPU_ALL         (FPU_X87 | FPU_SSE | FPU_AVX)

#define FPU_FCW_INIT    0x037fu
#define FPU_FCW_FIXED   0x0040u /* bit 6 always reads as 1, 7 and 13-15 as 0 */
#define FPU_FCW_BITS    0x1f7fu
#define FPU_MXCSR_INIT  0x1f80u
#define FPU_MXCSR_MASK  0xffffu /* no MISALIGNSSE bit 17 */
#define FPU_FLAGS       0x3fu   /* IE DE ZE OE UE PE, in FSW and MXCSR alike */
#define FSW_ES          0x0080u
#define FSW_B           0x8000u
#define FSW_TOP_SHIFT   11

#define FPU_LEGACY_SIZE 512u
#define FPU_AVX_OFFSET  576u
#define FPU_AVX_SIZE    256u

struct fpu_image {
	uint16_t fcw, fsw;
	uint8_t ftw, pad0; /* one bit a physical register: not empty */
	uint16_t fop;
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	uint8_t st[8][16]; /* ST(0) first; MM0 is physical register 0 */
	uint8_t xmm[16][16];
	uint8_t pad1[96];
	uint64_t xstate_bv, xcomp_bv;
	uint8_t pad2[48];
	uint8_t ymmh[16][16];
};
_Static_assert(
    sizeof(struct fpu_image) == XSAVE_SIZE, "the image is the XSAVE area");

static inline struct fpu_image *fpu_image(struct soft_cpu *cpu)
{
	return (struct fpu_image *)(void *)cpu->fpu;
}

/* The image as some other party left it: make it satisfy the invariants. */
void fpu_normalise(struct soft_cpu *cpu);

static inline struct fpu_image *fpu_ready(struct soft_cpu *cpu)
{
	struct fpu_image *f = fpu_image(cpu);

	if (unlikely(f->xstate_bv != FPU_ALL))
		fpu_normalise(cpu);
	return f;
}

/* Components not in their initial configuration (XINUSE): XGETBV with ECX = 1. */
uint64_t fpu_xinuse(struct soft_cpu *cpu);

/* An x87 exception waits for the next waiting instruction. */
static inline bool fpu_pending(const struct fpu_image *f)
{
	return f->fsw & ~f->fcw & FPU_FLAGS;
}

/* ES and B follow the flags and masks. */
static inline void fpu_update_es(struct fpu_image *f)
{
	f->fsw &= ~(FSW_ES | FSW_B);
	if (fpu_pending(f))
		f->fsw |= FSW_ES | FSW_B;
}

static inline unsigned fpu_top(const struct fpu_image *f)
{
	return f->fsw >> FSW_TOP_SHIFT & 7;
}

/*
 * A new TOP names the same physical registers differently: ST(0) is stored first.
 */
void fpu_set_top(struct fpu_image *f, unsigned top);

/*
 * #NM, #UD and #MF before anything else happens. x87 exceptions with CR0.NE = 0
 * would freeze the CPU until IRQ 13 is handled; we behave as if IGNNE# were
 * asserted and go on with all of them masked - no guest of this machine's age
 * relies on IRQ 13.
 */
static inline void fpu_check_x87(struct soft_cpu *cpu)
{
	if (unlikely(cpu->cr0 & (CR0_EM | CR0_TS)))
		cpu_raise(cpu, EXC_NM);
}

static inline void fpu_check_pending(struct soft_cpu *cpu)
{
	if (unlikely(fpu_pending(fpu_ready(cpu))) && cpu->cr0 & CR0_NE)
		cpu_raise(cpu, EXC_MF);
}

static inline void fpu_check_mmx(struct soft_cpu *cpu)
{
	if (unlikely(cpu->cr0 & (CR0_EM | CR0_TS)))
		cpu_raise(cpu, cpu->cr0 & CR0_EM ? EXC_UD : EXC_NM);
	fpu_check_pending(cpu);
}

static inline void fpu_check_sse(struct soft_cpu *cpu)
{
	if (unlikely(cpu->cr0 & (CR0_EM | CR0_TS) || !(cpu->cr4 & CR4_OSFXSR)))
		cpu_raise(cpu, cpu->cr0 & CR0_EM || !(cpu->cr4 & CR4_OSFXSR)
				   ? EXC_UD
				   : EXC_NM);
}

static inline void fpu_check_avx(struct soft_cpu *cpu)
{
	if (unlikely(!(cpu->cr4 & CR4_OSXSAVE) || !cpu->protected_mode ||
		     (cpu->xcr0 & (FPU_SSE | FPU_AVX)) != (FPU_SSE | FPU_AVX)))
		cpu_ud(cpu);
	if (unlikely(cpu->cr0 & CR0_TS))
		cpu_raise(cpu, EXC_NM);
}

/*
 * The instructions that move or control the state itself; NULL: not one of them.
 * mem: it has a memory operand.
 */
insn_fn *fpu_control_handler(const struct insn *in, bool mem); /* fpu.c */
insn_fn *fpu_state_handler(const struct insn *in);             /* fpu_state.c */
