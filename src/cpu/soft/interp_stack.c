/*
 * PUSH, POP, PUSHA, POPA, ENTER, LEAVE. stacksize is what one push moves, the CPU's
 * stack_size how wide the pointer is. PUSH and POP of segment registers, PUSHF and
 * POPF are the privileged half's.
 */
#include "cpu/soft/interp.h"

static void push_r8(struct soft_cpu *cpu, const struct insn *in)
{
	push(cpu, 8, cpu->gpr[in->op[0].reg]);
}

static void push_any(struct soft_cpu *cpu, const struct insn *in)
{
	push(cpu, in->stacksize, opnd_get(cpu, in, 0, in->stacksize));
}

static void pop_r8(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t v = stack_top(cpu, 8);

	cpu->gpr[GPR_RSP] += 8;
	cpu->gpr[in->op[0].reg] = v;
}

static void pop_any(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->stacksize;
	uint64_t v = stack_top(cpu, size), old = cpu->gpr[GPR_RSP], off;

	if (in->op[0].kind == OPND_GPR) {
		sp_set(cpu, sp_get(cpu) + size);
		gpr_set(cpu, in->op[0].reg, size, v);
		return;
	}
	/*
	 * The address is computed with the pointer already moved, which a fault
	 * undoes.
	 */
	sp_set(cpu, sp_get(cpu) + size);
	off = insn_offset(cpu, in);
	cpu->gpr[GPR_RSP] = old;
	mmu_st(
	    cpu, seg_linear(cpu, in->seg, off, in->addrsize, size, true), size, v);
	sp_set(cpu, sp_get(cpu) + size);
}

static void pusha(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->stacksize;
	uint64_t sp = sp_get(cpu), lin[8];

	for (unsigned i = 0; i < 8; i++) {
		sp -= size;
		lin[i] =
		    stack_linear(cpu, sp & size_mask(cpu->stack_size), size, true);
		mmu_probe_write(cpu, lin[i], size);
	}
	/* AX CX DX BX SP BP SI DI, SP as it was. */
	for (unsigned i = 0; i < 8; i++)
		mmu_store(cpu, lin[i], size, cpu->gpr[i] & size_mask(size));
	sp_set(cpu, sp);
}

static void popa(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->stacksize;
	uint64_t sp = sp_get(cpu), v[8];

	for (unsigned i = 0; i < 8; i++) {
		v[i] = mmu_load(cpu,
		    stack_linear(cpu, sp & size_mask(cpu->stack_size), size, false),
		    size);
		sp += size;
	}
	sp_set(cpu, sp);
	for (unsigned i = 0; i < 8; i++)
		if (7 - i != GPR_RSP)
			gpr_set(cpu, 7 - i, size, v[i]);
}

#define ENTER_LEVELS 32

static void enter(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->stacksize, level = in->imm2 & (ENTER_LEVELS - 1), n = 0;
	uint64_t mask = size_mask(cpu->stack_size), sp = sp_get(cpu);
	uint64_t bp = cpu->gpr[GPR_RBP], frame = (sp - size) & mask;
	uint64_t v[ENTER_LEVELS + 1], lin[ENTER_LEVELS + 1];

	v[n++] = bp;
	for (unsigned i = 1; i < level; i++) {
		bp -= size;
		v[n++] =
		    mmu_load(cpu, stack_linear(cpu, bp & mask, size, false), size);
	}
	if (level)
		v[n++] = frame;
	for (unsigned i = 0; i < n; i++) {
		sp = (sp - size) & mask;
		lin[i] = stack_linear(cpu, sp, size, true);
		mmu_probe_write(cpu, lin[i], size);
	}
	sp = (sp - (uint16_t)in->imm) & mask;
	/* The frame must be writable at its far end, too. */
	mmu_probe_write(cpu, stack_linear(cpu, sp, size, true), size);
	for (unsigned i = 0; i < n; i++)
		mmu_store(cpu, lin[i], size, v[i] & size_mask(size));
	gpr_set(cpu, GPR_RBP, MIN(size, (unsigned)cpu->stack_size), frame);
	sp_set(cpu, sp);
}

static void leave(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->stacksize;
	uint64_t sp = gpr_get(cpu, GPR_RBP, cpu->stack_size);
	uint64_t v = mmu_ld(cpu, stack_linear(cpu, sp, size, false), size);

	sp_set(cpu, sp + size);
	gpr_set(cpu, GPR_RBP, size, v);
}

insn_fn *interp_stack_handler(const struct insn *in)
{
	bool reg = opnd_is(in, 0, OPND_GPR);

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_PUSH:
		if (opnd_is(in, 0, OPND_SEG))
			return NULL;
		return reg && in->stacksize == 8 ? push_r8 : push_any;
	case ZYDIS_MNEMONIC_POP:
		if (opnd_is(in, 0, OPND_SEG))
			return NULL;
		return reg && in->stacksize == 8 ? pop_r8 : pop_any;
	case ZYDIS_MNEMONIC_PUSHA:
	case ZYDIS_MNEMONIC_PUSHAD:
		return pusha;
	case ZYDIS_MNEMONIC_POPA:
	case ZYDIS_MNEMONIC_POPAD:
		return popa;
	case ZYDIS_MNEMONIC_ENTER:
		return enter;
	case ZYDIS_MNEMONIC_LEAVE:
		return leave;
	default:
		return NULL;
	}
}
