/*
 * One event through the IVT, a 16/32-bit IDT or a 64-bit IDT (SDM vol. 3 6.12,
 * 6.14, 20.1.4, 20.3; pseudocode of INT n in vol. 2).
 *
 * All checks and all pushes come before the first change of a register.
 */
#include "cpu/soft/sys.h"

#define GATE_RIP_FLAGS (RF_TF | RF_NT | RF_RF | RF_VM)

struct gate {
	uint16_t sel;
	uint64_t offset;
	unsigned type, dpl, ist;
	bool present;
};

static unsigned ext_bit(const struct event *ev)
{
	return ev->kind != EVENT_SOFTWARE;
}

/* Error code that names the IDT entry. */
static uint32_t idt_error(const struct event *ev)
{
	return ev->vector * 8 + 2 + ext_bit(ev);
}

/* Through a table of real-mode vectors: the IVT, or linear 0 for VME. */
static void deliver_vector(struct soft_cpu *cpu, const struct event *ev,
    uint64_t table, uint64_t flags, uint64_t clear)
{
	uint32_t entry = mmu_load_sys(cpu, table + ev->vector * 4, 4);
	struct stk st;

	stk_current(cpu, &st);
	stk_push(cpu, &st, 2, flags);
	stk_push(cpu, &st, 2, cpu->seg[SEG_CS].sel);
	stk_push(cpu, &st, 2, ev->rip);
	stk_commit(cpu, &st);
	if (cpu_vm86(cpu))
		seg_load_vm86(cpu, SEG_CS, entry >> 16);
	else
		seg_load_real(cpu, SEG_CS, entry >> 16);
	cpu->next_rip = entry & 0xffff;
	cpu_set_rflags(cpu, 0, clear);
	cpu_update_mode(cpu);
}

static void deliver_real(struct soft_cpu *cpu, const struct event *ev)
{
	if (ev->vector * 4u + 3 > cpu->idt_limit)
		cpu_raise_error(cpu, EXC_GP, idt_error(ev));
	deliver_vector(
	    cpu, ev, cpu->idt_base, ev->rflags, RF_IF | RF_TF | RF_AC | RF_RF);
}

/*
 * INT n in virtual-8086 mode with VME: the TSS's redirection bitmap (32 bytes
 * below the I/O bitmap) may send it to the 8086 program's own vector.
 */
static bool vme_redirect(struct soft_cpu *cpu, const struct event *ev)
{
	const struct soft_seg *tr = &cpu->seg[SEG_TR];
	uint64_t flags = ev->rflags;
	uint32_t map;

	if (!(cpu->cr4 & CR4_VME))
		return false;
	if (tr->limit < 103)
		cpu_raise_error(cpu, EXC_GP, 0);
	map = mmu_load_sys(cpu, tr->base + 102, 2);
	if (map < 32 || map - 32 + ev->vector / 8 > tr->limit)
		cpu_raise_error(cpu, EXC_GP, 0);
	map = mmu_load_sys(cpu, tr->base + map - 32 + ev->vector / 8, 1);
	if (map & (1u << (ev->vector & 7)))
		return false;
	if (cpu_iopl(cpu) < 3) {
		flags = (flags & ~(uint64_t)RF_IF) | RF_IOPL;
		if (flags & RF_VIF)
			flags |= RF_IF;
		deliver_vector(cpu, ev, 0, flags, RF_VIF | RF_TF | RF_RF);
	} else {
		deliver_vector(cpu, ev, 0, flags, RF_IF | RF_TF | RF_RF);
	}
	return true;
}

static void gate_load(struct soft_cpu *cpu, const struct event *ev, struct gate *g)
{
	unsigned size = cpu->long_mode ? 16 : 8;
	uint64_t lin = cpu->idt_base + (uint64_t)ev->vector * size, lo, hi = 0;
	bool legacy = false;

	if (ev->vector * size + size - 1 > cpu->idt_limit)
		cpu_raise_error(cpu, EXC_GP, idt_error(ev));
	if (!cpu->long_mode)
		lin &= 0xffffffff;
	lo = mmu_load_sys(cpu, lin, 8);
	if (cpu->long_mode)
		hi = mmu_load_sys(cpu, lin + 8, 8);
	g->type = (lo >> 40) & 0x1f;
	g->dpl = (lo >> 45) & 3;
	g->present = (lo >> 47) & 1;
	g->sel = lo >> 16;
	g->ist = cpu->long_mode ? (lo >> 32) & 7 : 0;
	g->offset = (lo & 0xffff) | (lo >> 32 & 0xffff0000) | hi << 32;
	switch (g->type) {
	case SYS_INT32:
	case SYS_TRAP32:
		break;
	case SYS_INT16:
	case SYS_TRAP16:
		g->offset &= 0xffff;
		legacy = true;
		break;
	case SYS_TASK:
		legacy = true;
		break;
	default:
		cpu_raise_error(cpu, EXC_GP, idt_error(ev));
	}
	if (legacy && cpu->long_mode)
		cpu_raise_error(cpu, EXC_GP, idt_error(ev));
	if (ev->kind == EVENT_SOFTWARE && g->dpl < cpu->cpl)
		cpu_raise_error(cpu, EXC_GP, idt_error(ev));
	if (!g->present)
		cpu_raise_error(cpu, EXC_NP, idt_error(ev));
}

static void deliver_task(
    struct soft_cpu *cpu, const struct event *ev, const struct gate *g)
{
	struct desc d;
	struct stk st;
	bool is32;

	task_desc_load(cpu, g->sel, &d, ext_bit(ev));
	is32 = d.seg.access & 8;
	task_switch(cpu, &d, TASK_GATE, ev->rip, ev->rflags, ext_bit(ev));
	if (!ev->has_error)
		return;
	stk_current(cpu, &st);
	st.error = ext_bit(ev);
	stk_push(cpu, &st, is32 ? 4 : 2, ev->error);
	stk_commit(cpu, &st);
}

/* The handler's code segment; returns the CPL it runs at. */
static unsigned gate_code(struct soft_cpu *cpu, const struct event *ev,
    const struct gate *g, struct desc *cs)
{
	unsigned ext = ext_bit(ev), dpl;
	uint32_t err = (g->sel & 0xfffc) | ext, a;

	if (sel_null(g->sel))
		cpu_raise_error(cpu, EXC_GP, ext);
	desc_load(cpu, g->sel, cs, EXC_GP, ext);
	a = cs->seg.access;
	dpl = ACC_DPL(a);
	if (!ACC_IS_CODE(a) || dpl > cpu->cpl)
		cpu_raise_error(cpu, EXC_GP, err);
	if (cpu->long_mode && (a & (ACC_L | ACC_DB)) != ACC_L)
		cpu_raise_error(cpu, EXC_GP, err);
	if (!(a & ACC_P))
		cpu_raise_error(cpu, EXC_NP, err);
	if (a & ACC_CE)
		dpl = cpu->cpl;
	if (cpu_vm86(cpu) && dpl != 0)
		cpu_raise_error(cpu, EXC_GP, err);
	return dpl;
}

static void commit_gate(
    struct soft_cpu *cpu, const struct gate *g, struct desc *cs, unsigned cpl)
{
	cpu->seg[SEG_CS] = cs->seg;
	cpu->seg[SEG_CS].sel = (g->sel & 0xfffc) | cpl;
	cpu->next_rip = g->offset;
	cpu->rflags &= ~(uint64_t)(GATE_RIP_FLAGS | (g->type & 1 ? 0 : RF_IF));
	cpu_update_mode(cpu);
}

static void deliver_legacy(struct soft_cpu *cpu, const struct event *ev)
{
	static const uint8_t vm86_segs[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };
	unsigned ext = ext_bit(ev), cpl, size;
	struct gate g;
	struct desc cs, ss;
	struct stk st;
	bool inner;

	gate_load(cpu, ev, &g);
	if (g.type == SYS_TASK) {
		deliver_task(cpu, ev, &g);
		return;
	}
	size = g.type & 8 ? 4 : 2;
	cpl = gate_code(cpu, ev, &g, &cs);
	inner = cpl < cpu->cpl;
	stk_current(cpu, &st);
	st.error = ext;
	if (inner) {
		uint16_t sel;
		uint32_t esp;

		tss_stack(cpu, cpl, ext, &sel, &esp);
		seg_check_stack(cpu, sel, cpl, EXC_TS, ext, &ss);
		st.ss = ss.seg;
		st.mask = ss.seg.access & ACC_DB ? 0xffffffff : 0xffff;
		st.sp = esp & st.mask;
		st.idx = mmu_idx_of(cpu, cpl);
		st.error = (sel & 0xfffc) | ext;
		if (cpu_vm86(cpu))
			for (unsigned i = 0; i < ARRAY_SIZE(vm86_segs); i++)
				stk_push(
				    cpu, &st, size, cpu->seg[vm86_segs[i]].sel);
		stk_push(cpu, &st, size, cpu->seg[SEG_SS].sel);
		stk_push(cpu, &st, size, cpu->gpr[GPR_RSP]);
	}
	stk_push(cpu, &st, size, ev->rflags);
	stk_push(cpu, &st, size, cpu->seg[SEG_CS].sel);
	stk_push(cpu, &st, size, ev->rip);
	if (ev->has_error)
		stk_push(cpu, &st, size, ev->error);
	code_check_rip(cpu, &cs.seg, g.offset, ext);
	desc_mark_accessed(cpu, &cs);
	if (inner) {
		desc_mark_accessed(cpu, &ss);
		if (cpu_vm86(cpu))
			for (unsigned i = 0; i < ARRAY_SIZE(vm86_segs); i++)
				seg_set_null(cpu, vm86_segs[i], 0, 0);
		cpu->seg[SEG_SS] = ss.seg;
	}
	stk_commit(cpu, &st);
	commit_gate(cpu, &g, &cs, cpl);
}

static void deliver_long(struct soft_cpu *cpu, const struct event *ev)
{
	unsigned ext = ext_bit(ev), cpl;
	struct gate g;
	struct desc cs;
	struct stk st;
	uint64_t rsp;

	gate_load(cpu, ev, &g);
	cpl = gate_code(cpu, ev, &g, &cs);
	if (g.ist)
		rsp = tss_stack64(cpu, TSS_IST(g.ist), ext);
	else if (cpl < cpu->cpl)
		rsp = tss_stack64(cpu, cpl, ext);
	else
		rsp = cpu->gpr[GPR_RSP];
	if (!is_canonical(rsp))
		cpu_raise_error(cpu, EXC_SS, ext);
	st = (struct stk){
		.sp = rsp & ~UINT64_C(15),
		.mask = ~UINT64_C(0),
		.flat64 = true,
		.idx = mmu_idx_of(cpu, cpl),
		.error = ext,
	};
	stk_push(cpu, &st, 8, cpu->seg[SEG_SS].sel);
	stk_push(cpu, &st, 8, cpu->gpr[GPR_RSP]);
	stk_push(cpu, &st, 8, ev->rflags);
	stk_push(cpu, &st, 8, cpu->seg[SEG_CS].sel);
	stk_push(cpu, &st, 8, ev->rip);
	if (ev->has_error)
		stk_push(cpu, &st, 8, ev->error);
	code_check_rip(cpu, &cs.seg, g.offset, ext);
	desc_mark_accessed(cpu, &cs);
	if (cpl < cpu->cpl)
		seg_set_null(cpu, SEG_SS, cpl, cpl);
	stk_commit(cpu, &st);
	commit_gate(cpu, &g, &cs, cpl);
}

void event_deliver(struct soft_cpu *cpu, const struct event *ev)
{
	cpu->stop_block = true;
	if (!(cpu->cr0 & CR0_PE)) {
		deliver_real(cpu, ev);
	} else if (cpu->long_mode) {
		deliver_long(cpu, ev);
	} else {
		if (cpu_vm86(cpu) && ev->int_n) {
			if (vme_redirect(cpu, ev))
				return;
			if (cpu_iopl(cpu) < 3)
				cpu_gp(cpu);
		}
		deliver_legacy(cpu, ev);
	}
}
