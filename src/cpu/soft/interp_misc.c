/* Flags, no-operations, fences, cache hints, XLAT, BOUND, SALC. */
#include <sched.h>

#include "cpu/soft/interp.h"

static void clc(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	cpu->rflags &= ~(uint64_t)RF_CF;
}

static void stc(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	cpu->rflags |= RF_CF;
}

static void cmc(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	cpu->rflags ^= RF_CF;
}

static void cld(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	cpu->rflags &= ~(uint64_t)RF_DF;
}

static void std(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	cpu->rflags |= RF_DF;
}

#define SAHF_FLAGS (RF_CF | RF_PF | RF_AF | RF_ZF | RF_SF)

static void lahf(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t ah = (cpu->rflags & SAHF_FLAGS) | 2;

	(void)in;
	cpu->gpr[GPR_RAX] = (cpu->gpr[GPR_RAX] & ~UINT64_C(0xff00)) | ah << 8;
}

static void sahf(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	cpu->rflags = (cpu->rflags & ~(uint64_t)SAHF_FLAGS) |
		      ((cpu->gpr[GPR_RAX] >> 8) & SAHF_FLAGS);
}

static void nop(struct soft_cpu *cpu, const struct insn *in)
{
	(void)cpu;
	(void)in;
}

/* Whoever it waits for may be a vCPU that wants this host CPU. */
static void pause_hint(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	if (cpu->engine->ncpu > 1 && ++cpu->pauses % 64 == 0)
		sched_yield();
}

static void fence(struct soft_cpu *cpu, const struct insn *in)
{
	(void)cpu;
	(void)in;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* A cache line's flush is a read as far as protection goes. */
static void flush_line(struct soft_cpu *cpu, const struct insn *in)
{
	mmu_probe_read(cpu, insn_linear(cpu, in, 1, false), 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void xlat(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t off = cpu->gpr[GPR_RBX] + (uint8_t)cpu->gpr[GPR_RAX];

	gpr_set(cpu, GPR_RAX, 1,
	    mmu_ld(cpu, seg_linear(cpu, in->seg, off, in->addrsize, 1, false), 1));
}

static void salc(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	gpr_set(cpu, GPR_RAX, 1, cpu->rflags & RF_CF ? 0xff : 0);
}

static int32_t signed_value(uint64_t v, unsigned size)
{
	return size == 2 ? (int16_t)v : (int32_t)v;
}

static void bound(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->opsize;
	uint64_t lin = ea(cpu, in, size * 2, false);
	int32_t v = signed_value(cpu->gpr[in->op[0].reg], size);
	int32_t lo = signed_value(mmu_ld(cpu, lin, size), size);
	int32_t hi = signed_value(mmu_ld(cpu, (uint32_t)(lin + size), size), size);

	if (v < lo || v > hi)
		cpu_raise(cpu, EXC_BR);
}

insn_fn *interp_misc_handler(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_CLC:
		return clc;
	case ZYDIS_MNEMONIC_STC:
		return stc;
	case ZYDIS_MNEMONIC_CMC:
		return cmc;
	case ZYDIS_MNEMONIC_CLD:
		return cld;
	case ZYDIS_MNEMONIC_STD:
		return std;
	case ZYDIS_MNEMONIC_LAHF:
		return lahf;
	case ZYDIS_MNEMONIC_SAHF:
		return sahf;
	case ZYDIS_MNEMONIC_NOP:
	case ZYDIS_MNEMONIC_PAUSE:
		return pause_hint;
	case ZYDIS_MNEMONIC_ENDBR32:
	case ZYDIS_MNEMONIC_ENDBR64:
	case ZYDIS_MNEMONIC_CLDEMOTE:
	case ZYDIS_MNEMONIC_PREFETCH:
	case ZYDIS_MNEMONIC_PREFETCHNTA:
	case ZYDIS_MNEMONIC_PREFETCHT0:
	case ZYDIS_MNEMONIC_PREFETCHT1:
	case ZYDIS_MNEMONIC_PREFETCHT2:
	case ZYDIS_MNEMONIC_PREFETCHW:
	case ZYDIS_MNEMONIC_PREFETCHWT1:
		return nop;
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
		return fence;
	case ZYDIS_MNEMONIC_CLFLUSH:
	case ZYDIS_MNEMONIC_CLFLUSHOPT:
	case ZYDIS_MNEMONIC_CLWB:
		return flush_line;
	case ZYDIS_MNEMONIC_XLAT:
		return xlat;
	case ZYDIS_MNEMONIC_SALC:
		return salc;
	case ZYDIS_MNEMONIC_BOUND:
		return bound;
	default:
		return NULL;
	}
}
