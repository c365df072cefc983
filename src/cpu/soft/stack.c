/*
 * Stacks of any ring for far transfers and event delivery (SDM vol. 3 6.14,
 * vol. 1 6.2). See struct stk: registers change only at stk_commit().
 */
#include "cpu/soft/sys.h"

void stk_current(struct soft_cpu *cpu, struct stk *st)
{
	st->ss = cpu->seg[SEG_SS];
	st->mask = size_mask(cpu->stack_size);
	st->sp = cpu->gpr[GPR_RSP] & st->mask;
	st->idx = cpu->mmu_idx;
	st->error = 0;
	st->flat64 = cpu->mode == MODE_64;
}

static uint64_t stk_linear(
    struct soft_cpu *cpu, const struct stk *st, uint64_t off, unsigned size)
{
	if (st->flat64) {
		if (!is_canonical(off) || !is_canonical(off + size - 1))
			cpu_raise_error(cpu, EXC_SS, st->error);
		return off;
	}
	if (!seg_covers(&st->ss, off, size))
		cpu_raise_error(cpu, EXC_SS, st->error);
	return (uint32_t)(st->ss.base + off);
}

void stk_push(struct soft_cpu *cpu, struct stk *st, unsigned size, uint64_t v)
{
	uint64_t sp = (st->sp - size) & st->mask;

	mmu_store_idx(
	    cpu, st->idx, stk_linear(cpu, st, sp, size), size, v & size_mask(size));
	st->sp = sp;
}

uint64_t stk_pop(struct soft_cpu *cpu, struct stk *st, unsigned size)
{
	uint64_t v =
	    mmu_load_idx(cpu, st->idx, stk_linear(cpu, st, st->sp, size), size);

	st->sp = (st->sp + size) & st->mask;
	return v;
}

void stk_commit(struct soft_cpu *cpu, const struct stk *st)
{
	uint64_t *rsp = &cpu->gpr[GPR_RSP];

	/*
	 * A 32-bit stack pointer clears the upper half, a 16-bit one keeps all
	 * above.
	 */
	if (st->mask == 0xffff)
		*rsp = (*rsp & ~st->mask) | (st->sp & st->mask);
	else
		*rsp = st->sp & st->mask;
}
