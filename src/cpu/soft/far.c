/*
 * Far JMP, CALL and RET: code segments, call gates, tasks (SDM vol. 3 5.8,
 * pseudocode in vol. 2).
 */
#include "cpu/soft/sys.h"

struct far_target {
	uint16_t sel;
	uint64_t off;
};

static void target_operand(
    struct soft_cpu *cpu, const struct insn *in, struct far_target *t)
{
	if (in->op[0].kind == OPND_FAR) {
		t->sel = in->imm2;
		t->off = (uint64_t)in->imm & size_mask(in->opsize);
	} else if (in->op[0].kind == OPND_MEM) {
		unsigned size = in->opsize;
		uint64_t lin;

		/* AMD has no m16:64 form: the offset is then 32 bits wide. */
		if (size == 8 && cpu_policy(cpu)->amd)
			size = 4;
		lin = insn_linear(cpu, in, size + 2, false);
		t->off = mmu_load(cpu, lin, size);
		t->sel = mmu_load(cpu, lin + size, 2);
	} else {
		cpu_ud(cpu);
	}
}

static void far_real(struct soft_cpu *cpu, const struct insn *in,
    const struct far_target *t, bool call)
{
	struct stk st;

	if (t->off > (cpu_vm86(cpu) ? 0xffff : cpu->seg[SEG_CS].limit))
		cpu_gp(cpu);
	if (call) {
		stk_current(cpu, &st);
		stk_push(cpu, &st, in->opsize, cpu->seg[SEG_CS].sel);
		stk_push(cpu, &st, in->opsize, cpu->next_rip);
		stk_commit(cpu, &st);
	}
	if (cpu_vm86(cpu))
		seg_load_vm86(cpu, SEG_CS, t->sel);
	else
		seg_load_real(cpu, SEG_CS, t->sel);
	cpu->next_rip = t->off;
	cpu_update_mode(cpu);
}

/* A code segment reached directly, without a gate. */
static void check_direct(struct soft_cpu *cpu, const struct desc *d)
{
	uint32_t a = d->seg.access, err = d->seg.sel & 0xfffc;

	if (a & ACC_CE ? ACC_DPL(a) > cpu->cpl
		       : (d->seg.sel & 3u) > cpu->cpl || ACC_DPL(a) != cpu->cpl)
		cpu_raise_error(cpu, EXC_GP, err);
	if (cpu->long_mode && (a & (ACC_L | ACC_DB)) == (ACC_L | ACC_DB))
		cpu_raise_error(cpu, EXC_GP, err);
	if (!(a & ACC_P))
		cpu_raise_error(cpu, EXC_NP, err);
}

static void commit_code(
    struct soft_cpu *cpu, const struct desc *d, uint64_t rip, unsigned cpl)
{
	cpu->seg[SEG_CS] = d->seg;
	cpu->seg[SEG_CS].sel = (d->seg.sel & 0xfffc) | cpl;
	cpu->next_rip = rip;
	cpu_update_mode(cpu);
}

static void far_direct(struct soft_cpu *cpu, const struct insn *in, struct desc *d,
    uint64_t off, bool call)
{
	struct stk st;

	check_direct(cpu, d);
	stk_current(cpu, &st);
	if (call) {
		stk_push(cpu, &st, in->opsize, cpu->seg[SEG_CS].sel);
		stk_push(cpu, &st, in->opsize, cpu->next_rip);
	}
	code_check_rip(cpu, &d->seg, off, 0);
	desc_mark_accessed(cpu, d);
	if (call)
		stk_commit(cpu, &st);
	commit_code(cpu, d, off, cpu->cpl);
}

/* Call gate to a more privileged ring in 16/32-bit mode: parameters are copied. */
static void gate_inner_legacy(struct soft_cpu *cpu, struct desc *cs, uint64_t off,
    unsigned size, unsigned params)
{
	unsigned cpl = ACC_DPL(cs->seg.access);
	uint32_t esp, param[31];
	struct stk from, st;
	struct desc ss;
	uint16_t sel;

	tss_stack(cpu, cpl, 0, &sel, &esp);
	seg_check_stack(cpu, sel, cpl, EXC_TS, 0, &ss);
	stk_current(cpu, &from);
	for (unsigned i = 0; i < params; i++)
		param[i] = stk_pop(cpu, &from, size);
	st = (struct stk){
		.ss = ss.seg,
		.mask = ss.seg.access & ACC_DB ? 0xffffffff : 0xffff,
		.sp = esp,
		.idx = mmu_idx_of(cpu, cpl),
		.error = sel & 0xfffc,
	};
	st.sp &= st.mask;
	stk_push(cpu, &st, size, cpu->seg[SEG_SS].sel);
	stk_push(cpu, &st, size, cpu->gpr[GPR_RSP]);
	for (unsigned i = params; i-- > 0;)
		stk_push(cpu, &st, size, param[i]);
	stk_push(cpu, &st, size, cpu->seg[SEG_CS].sel);
	stk_push(cpu, &st, size, cpu->next_rip);
	code_check_rip(cpu, &cs->seg, off, 0);
	desc_mark_accessed(cpu, cs);
	desc_mark_accessed(cpu, &ss);
	cpu->seg[SEG_SS] = ss.seg;
	stk_commit(cpu, &st);
	commit_code(cpu, cs, off, cpl);
}

static void gate_inner_long(struct soft_cpu *cpu, struct desc *cs, uint64_t off)
{
	unsigned cpl = ACC_DPL(cs->seg.access);
	struct stk st = {
		.mask = ~UINT64_C(0),
		.flat64 = true,
		.idx = mmu_idx_of(cpu, cpl),
	};

	st.sp = tss_stack64(cpu, cpl, 0);
	stk_push(cpu, &st, 8, cpu->seg[SEG_SS].sel);
	stk_push(cpu, &st, 8, cpu->gpr[GPR_RSP]);
	stk_push(cpu, &st, 8, cpu->seg[SEG_CS].sel);
	stk_push(cpu, &st, 8, cpu->next_rip);
	code_check_rip(cpu, &cs->seg, off, 0);
	desc_mark_accessed(cpu, cs);
	seg_set_null(cpu, SEG_SS, cpl, cpl);
	stk_commit(cpu, &st);
	commit_code(cpu, cs, off, cpl);
}

static void far_gate(struct soft_cpu *cpu, const struct desc *gate, bool call)
{
	unsigned type = ACC_TYPE(gate->seg.access), dpl = ACC_DPL(gate->seg.access);
	unsigned size = cpu->long_mode ? 8 : type == SYS_CALL32 ? 4 : 2;
	uint32_t err = gate->seg.sel & 0xfffc, a;
	uint16_t sel = gate->raw >> 16;
	uint64_t off = (gate->raw & 0xffff) | (gate->raw >> 32 & 0xffff0000);
	unsigned params = gate->raw >> 32 & 0x1f;
	struct desc cs;
	struct stk st;

	if (dpl < cpu->cpl || dpl < (gate->seg.sel & 3u))
		cpu_raise_error(cpu, EXC_GP, err);
	if (cpu->long_mode) {
		uint64_t hi = mmu_load_sys(cpu, gate->lin + 8, 8);

		/* The upper half has a type field too, which must be zero. */
		if (hi >> 40 & 0x1f)
			cpu_raise_error(cpu, EXC_GP, err);
		off |= hi << 32;
	}
	if (!(gate->seg.access & ACC_P))
		cpu_raise_error(cpu, EXC_NP, err);
	if (type == SYS_CALL16)
		off &= 0xffff;
	if (sel_null(sel))
		cpu_gp(cpu);
	desc_load(cpu, sel, &cs, EXC_GP, 0);
	err = sel & 0xfffc;
	a = cs.seg.access;
	if (!ACC_IS_CODE(a) || ACC_DPL(a) > cpu->cpl)
		cpu_raise_error(cpu, EXC_GP, err);
	if (!call && !(a & ACC_CE) && ACC_DPL(a) != cpu->cpl)
		cpu_raise_error(cpu, EXC_GP, err);
	if (cpu->long_mode && (a & (ACC_L | ACC_DB)) != ACC_L)
		cpu_raise_error(cpu, EXC_GP, err);
	if (!(a & ACC_P))
		cpu_raise_error(cpu, EXC_NP, err);
	if (call && !(a & ACC_CE) && ACC_DPL(a) < cpu->cpl) {
		if (cpu->long_mode)
			gate_inner_long(cpu, &cs, off);
		else
			gate_inner_legacy(cpu, &cs, off, size, params);
		return;
	}
	stk_current(cpu, &st);
	if (call) {
		stk_push(cpu, &st, size, cpu->seg[SEG_CS].sel);
		stk_push(cpu, &st, size, cpu->next_rip);
	}
	code_check_rip(cpu, &cs.seg, off, 0);
	desc_mark_accessed(cpu, &cs);
	if (call)
		stk_commit(cpu, &st);
	commit_code(cpu, &cs, off, cpu->cpl);
}

/* sel names a TSS or a task gate. */
static void far_task(struct soft_cpu *cpu, const struct desc *d, bool call)
{
	uint32_t a = d->seg.access;
	uint16_t sel = d->seg.sel;
	struct desc tss;

	if (ACC_DPL(a) < cpu->cpl || ACC_DPL(a) < (sel & 3u))
		cpu_raise_error(cpu, EXC_GP, sel & 0xfffc);
	if (ACC_TYPE(a) == SYS_TASK) {
		if (!(a & ACC_P))
			cpu_raise_error(cpu, EXC_NP, sel & 0xfffc);
		sel = d->raw >> 16;
	}
	task_desc_load(cpu, sel, &tss, 0);
	task_switch(
	    cpu, &tss, call ? TASK_CALL : TASK_JUMP, cpu->next_rip, cpu->rflags, 0);
}

static void far_transfer(struct soft_cpu *cpu, const struct insn *in, bool call)
{
	struct far_target t;
	struct desc d;

	target_operand(cpu, in, &t);
	cpu->stop_block = true;
	if (!cpu->protected_mode) {
		far_real(cpu, in, &t, call);
		return;
	}
	if (sel_null(t.sel))
		cpu_gp(cpu);
	desc_load(cpu, t.sel, &d, EXC_GP, 0);
	if (ACC_IS_CODE(d.seg.access)) {
		far_direct(cpu, in, &d, t.off, call);
		return;
	}
	switch (ACC_TYPE(d.seg.access)) {
	case SYS_CALL32:
		far_gate(cpu, &d, call);
		return;
	case SYS_CALL16:
		if (cpu->long_mode)
			break;
		far_gate(cpu, &d, call);
		return;
	case SYS_TASK:
	case SYS_TSS16:
	case SYS_TSS32:
		if (cpu->long_mode)
			break;
		far_task(cpu, &d, call);
		return;
	}
	cpu_raise_error(cpu, EXC_GP, t.sel & 0xfffc);
}

void sys_far_jmp(struct soft_cpu *cpu, const struct insn *in)
{
	far_transfer(cpu, in, false);
}

void sys_far_call(struct soft_cpu *cpu, const struct insn *in)
{
	far_transfer(cpu, in, true);
}

void sys_far_ret(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned extra = *insn_opcode(in) == 0xca ? in->imm & 0xffff : 0, cpl;
	struct desc cs, ss = { 0 };
	uint64_t rip;
	uint16_t sel, ss_sel;
	struct stk st, out;

	stk_current(cpu, &st);
	rip = stk_pop(cpu, &st, in->opsize);
	sel = stk_pop(cpu, &st, in->opsize);
	st.sp = (st.sp + extra) & st.mask;
	cpu->stop_block = true;
	if (!cpu->protected_mode) {
		if (rip > (cpu_vm86(cpu) ? 0xffff : cpu->seg[SEG_CS].limit))
			cpu_gp(cpu);
		stk_commit(cpu, &st);
		if (cpu_vm86(cpu))
			seg_load_vm86(cpu, SEG_CS, sel);
		else
			seg_load_real(cpu, SEG_CS, sel);
		cpu->next_rip = rip;
		cpu_update_mode(cpu);
		return;
	}
	code_load_return(cpu, sel, &cs);
	cpl = sel & 3;
	if (cpl == cpu->cpl) {
		code_check_rip(cpu, &cs.seg, rip, 0);
		desc_mark_accessed(cpu, &cs);
		stk_commit(cpu, &st);
		commit_code(cpu, &cs, rip, cpl);
		return;
	}
	out = st;
	out.sp = stk_pop(cpu, &st, in->opsize);
	ss_sel = stk_pop(cpu, &st, in->opsize);
	iret_stack(cpu, ss_sel, cpl, cs.seg.access & ACC_L, &ss);
	code_check_rip(cpu, &cs.seg, rip, 0);
	desc_mark_accessed(cpu, &cs);
	iret_commit_stack(cpu, ss_sel, cpl, &ss);
	commit_code(cpu, &cs, rip, cpl);
	out.mask = size_mask(cpu->stack_size);
	out.sp = (out.sp + extra) & out.mask;
	stk_commit(cpu, &out);
	seg_drop_privileged(cpu, cpl);
}
