/*
 * IRET in every mode (SDM vol. 2 IRET; vol. 3 6.14.3, 7.3, 20.2.1).
 */
#include "cpu/soft/sys.h"

/* Stack segment of the outer ring; a null one only for 64-bit rings 0-2. */
void iret_stack(
    struct soft_cpu *cpu, uint16_t sel, unsigned cpl, bool to64, struct desc *ss)
{
	if (sel_null(sel) && cpu->long_mode && to64 && cpl != 3 &&
	    (sel & 3u) == cpl)
		return;
	seg_check_stack(cpu, sel, cpl, EXC_GP, 0, ss);
	desc_mark_accessed(cpu, ss);
}

void iret_commit_stack(
    struct soft_cpu *cpu, uint16_t sel, unsigned cpl, const struct desc *ss)
{
	if (sel_null(sel))
		seg_set_null(cpu, SEG_SS, sel, cpl);
	else
		cpu->seg[SEG_SS] = ss->seg;
}

uint64_t rflags_writable(const struct soft_cpu *cpu, unsigned opsize)
{
	uint64_t mask = RF_STATUS | RF_TF | RF_DF | RF_NT;

	if (opsize > 2)
		mask |= RF_AC | RF_ID;
	if (cpu->cpl <= cpu_iopl(cpu))
		mask |= RF_IF;
	if (cpu->cpl == 0)
		mask |= RF_IOPL;
	return mask;
}

static void iret_real(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->opsize;
	uint64_t rip, flags, mask = rflags_writable(cpu, size) | RF_RF;
	uint16_t sel;
	struct stk st;

	stk_current(cpu, &st);
	rip = stk_pop(cpu, &st, size);
	sel = stk_pop(cpu, &st, size);
	flags = stk_pop(cpu, &st, size);
	if (rip > (cpu_vm86(cpu) ? 0xffff : cpu->seg[SEG_CS].limit))
		cpu_gp(cpu);
	if (size == 2)
		mask &= 0xffff;
	if (cpu_vm86(cpu) && cpu_iopl(cpu) < 3) {
		/* VME: IF goes to VIF; only 16-bit IRET may. */
		if (!(cpu->cr4 & CR4_VME) || size != 2 || flags & RF_TF ||
		    (flags & RF_IF && cpu->rflags & RF_VIP))
			cpu_gp(cpu);
		if (flags & RF_IF)
			flags |= RF_VIF;
		mask = (mask & ~(uint64_t)RF_IF) | RF_VIF;
	}
	stk_commit(cpu, &st);
	if (cpu_vm86(cpu))
		seg_load_vm86(cpu, SEG_CS, sel);
	else
		seg_load_real(cpu, SEG_CS, sel);
	cpu->next_rip = rip;
	cpu_set_rflags(cpu, flags, mask);
	cpu_update_mode(cpu);
}

static void iret_task(struct soft_cpu *cpu)
{
	const struct soft_seg *tr = &cpu->seg[SEG_TR];
	uint16_t sel = mmu_load_sys(cpu, tr->base, 2);
	struct desc d;

	if (sel & 4 || sel_null(sel) || !desc_try_load(cpu, sel, &d) ||
	    (ACC_TYPE(d.seg.access) != SYS_TSS16_BUSY &&
		ACC_TYPE(d.seg.access) != SYS_TSS32_BUSY))
		cpu_raise_error(cpu, EXC_TS, sel & 0xfffc);
	if (!(d.seg.access & ACC_P))
		cpu_raise_error(cpu, EXC_NP, sel & 0xfffc);
	task_switch(cpu, &d, TASK_IRET, cpu->next_rip, cpu->rflags, 0);
}

/* The frame that enters virtual-8086 mode; rip, cs, flags are popped already. */
static void iret_to_vm86(
    struct soft_cpu *cpu, struct stk *st, uint32_t rip, uint16_t cs, uint32_t flags)
{
	static const uint8_t order[] = { SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	uint16_t sel[ARRAY_SIZE(order)];
	uint32_t esp = stk_pop(cpu, st, 4);

	for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
		sel[i] = stk_pop(cpu, st, 4);
	if (rip > 0xffff)
		cpu_gp(cpu);
	cpu->rflags = (flags & 0x3f7fd7) | 2;
	seg_load_vm86(cpu, SEG_CS, cs);
	for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
		seg_load_vm86(cpu, order[i], sel[i]);
	cpu->gpr[GPR_RSP] = esp;
	cpu->next_rip = rip;
	cpu_update_mode(cpu);
}

static void iret_protected(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->opsize, cpl;
	uint64_t rip, flags, rsp = 0, mask = rflags_writable(cpu, size);
	struct desc cs, ss = { 0 };
	uint16_t sel, ss_sel = 0;
	struct stk st;
	bool pop_ss;

	stk_current(cpu, &st);
	rip = stk_pop(cpu, &st, size);
	sel = stk_pop(cpu, &st, size);
	flags = stk_pop(cpu, &st, size);
	if (!cpu->long_mode && flags & RF_VM && size == 4 && cpu->cpl == 0) {
		iret_to_vm86(cpu, &st, rip, sel, flags);
		return;
	}
	code_load_return(cpu, sel, &cs);
	cpl = sel & 3;
	pop_ss = cpl != cpu->cpl || cpu->mode == MODE_64;
	if (pop_ss) {
		rsp = stk_pop(cpu, &st, size);
		ss_sel = stk_pop(cpu, &st, size);
		iret_stack(cpu, ss_sel, cpl, cs.seg.access & ACC_L, &ss);
	}
	code_check_rip(cpu, &cs.seg, rip, 0);
	desc_mark_accessed(cpu, &cs);

	if (size > 2)
		mask |= RF_RF | (cpu->cpl == 0 ? RF_VIF | RF_VIP : 0);
	if (pop_ss)
		iret_commit_stack(cpu, ss_sel, cpl, &ss);
	else
		stk_commit(cpu, &st);
	cpu->seg[SEG_CS] = cs.seg;
	cpu->seg[SEG_CS].sel = sel;
	cpu->next_rip = rip;
	cpu_set_rflags(cpu, flags, mask);
	cpu_update_mode(cpu);
	if (pop_ss) {
		st.mask = size_mask(cpu->stack_size);
		st.sp = rsp;
		stk_commit(cpu, &st);
	}
	seg_drop_privileged(cpu, cpl);
}

void sys_iret(struct soft_cpu *cpu, const struct insn *in)
{
	cpu->stop_block = true;
	/* Unblocks NMIs even when it faults (SDM vol. 3 6.7.1). */
	cpu->nmi_blocked = false;
	if (!cpu->protected_mode) {
		iret_real(cpu, in);
		return;
	}
	if (cpu->rflags & RF_NT) {
		if (cpu->long_mode)
			cpu_gp(cpu);
		iret_task(cpu);
		return;
	}
	iret_protected(cpu, in);
}
