/*
 * Near CALL, JMP, RET, Jcc, LOOPcc, JrCXZ. The target is checked before anything is
 * committed; next_rip already points past the instruction.
 */
#include "cpu/soft/interp.h"

ALWAYS_INLINE void jump_relative(struct soft_cpu *cpu, const struct insn *in)
{
	cpu->next_rip = branch_target(cpu, cpu->next_rip + in->imm, in->opsize);
}

#define JCC(cc)                                                                    \
	static void j_##cc(struct soft_cpu *cpu, const struct insn *in)            \
	{                                                                          \
		if (cond(cpu->rflags, cc))                                         \
			jump_relative(cpu, in);                                    \
	}

JCC(0)
JCC(1) JCC(2) JCC(3) JCC(4) JCC(5) JCC(6) JCC(7) JCC(8) JCC(9) JCC(10) JCC(11)
    JCC(12) JCC(13) JCC(14) JCC(15)

	static void jmp_rel(struct soft_cpu *cpu, const struct insn *in)
{
	jump_relative(cpu, in);
}

static void jmp_indirect(struct soft_cpu *cpu, const struct insn *in)
{
	cpu->next_rip =
	    branch_target(cpu, opnd_get(cpu, in, 0, in->opsize), in->opsize);
}

static void call(struct soft_cpu *cpu, const struct insn *in, uint64_t target)
{
	uint64_t sp = sp_get(cpu) - in->opsize;
	uint64_t lin =
	    stack_linear(cpu, sp & size_mask(cpu->stack_size), in->opsize, true);

	/* A bad stack is found before a bad target, and neither leaves a trace. */
	if (unlikely(!mmu_rw_fast(cpu, lin, in->opsize)))
		mmu_probe_write(cpu, lin, in->opsize);
	target = branch_target(cpu, target, in->opsize);
	mmu_st(cpu, lin, in->opsize, cpu->next_rip);
	sp_set(cpu, sp);
	cpu->next_rip = target;
}

static void call_rel(struct soft_cpu *cpu, const struct insn *in)
{
	call(cpu, in, cpu->next_rip + in->imm);
}

static void call_indirect(struct soft_cpu *cpu, const struct insn *in)
{
	call(cpu, in, opnd_get(cpu, in, 0, in->opsize));
}

static void ret(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t target =
	    branch_target(cpu, stack_top(cpu, in->opsize), in->opsize);

	sp_set(cpu, sp_get(cpu) + in->opsize + (in->nopnd ? (uint16_t)in->imm : 0));
	cpu->next_rip = target;
}

static void loop(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t count = gpr_get(cpu, GPR_RCX, in->addrsize) - 1;
	bool zf = cpu->rflags & RF_ZF, taken = count & size_mask(in->addrsize);

	if (in->mnemonic == ZYDIS_MNEMONIC_LOOPE)
		taken &= zf;
	else if (in->mnemonic == ZYDIS_MNEMONIC_LOOPNE)
		taken &= !zf;
	if (taken)
		jump_relative(cpu, in);
	gpr_set(cpu, GPR_RCX, in->addrsize, count);
}

static void jrcxz(struct soft_cpu *cpu, const struct insn *in)
{
	if (gpr_get(cpu, GPR_RCX, in->addrsize) == 0)
		jump_relative(cpu, in);
}

insn_fn *interp_branch_handler(const struct insn *in)
{
	static insn_fn *const jcc[] = { j_0, j_1, j_2, j_3, j_4, j_5, j_6, j_7, j_8,
		j_9, j_10, j_11, j_12, j_13, j_14, j_15 };
	bool relative = opnd_is(in, 0, OPND_REL);

	/* Far forms change CS and belong to the privileged half. */
	if (!(in->flags & INSN_BRANCH))
		return NULL;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
		return relative ? jmp_rel : jmp_indirect;
	case ZYDIS_MNEMONIC_CALL:
		return relative ? call_rel : call_indirect;
	case ZYDIS_MNEMONIC_RET:
		return ret;
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
		return loop;
	case ZYDIS_MNEMONIC_JCXZ:
	case ZYDIS_MNEMONIC_JECXZ:
	case ZYDIS_MNEMONIC_JRCXZ:
		return jrcxz;
	case ZYDIS_MNEMONIC_JB:
	case ZYDIS_MNEMONIC_JBE:
	case ZYDIS_MNEMONIC_JL:
	case ZYDIS_MNEMONIC_JLE:
	case ZYDIS_MNEMONIC_JNB:
	case ZYDIS_MNEMONIC_JNBE:
	case ZYDIS_MNEMONIC_JNL:
	case ZYDIS_MNEMONIC_JNLE:
	case ZYDIS_MNEMONIC_JNO:
	case ZYDIS_MNEMONIC_JNP:
	case ZYDIS_MNEMONIC_JNS:
	case ZYDIS_MNEMONIC_JNZ:
	case ZYDIS_MNEMONIC_JO:
	case ZYDIS_MNEMONIC_JP:
	case ZYDIS_MNEMONIC_JS:
	case ZYDIS_MNEMONIC_JZ:
		return jcc[in->cc];
	default:
		return NULL;
	}
}
