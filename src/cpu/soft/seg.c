/*
 * Segment descriptors and registers (SDM vol. 3 chapters 3 and 5.6-5.7).
 *
 * Invariant: a register is committed after the last thing that can fault,
 * setting the descriptor's accessed bit included.
 */
#include "cpu/soft/sys.h"

#define ACCESS_BITS 0xf0ffu

void seg_unpack(struct soft_seg *s, uint16_t sel, uint64_t raw)
{
	s->sel = sel;
	s->base = (raw >> 16 & 0xffffff) | (raw >> 32 & 0xff000000);
	s->access = (raw >> 40) & ACCESS_BITS;
	s->limit = (raw & 0xffff) | (raw >> 32 & 0xf0000);
	if (s->access & ACC_G)
		s->limit = s->limit << 12 | 0xfff;
}

/* False when sel lies beyond its table or there is no LDT. */
bool desc_try_load(struct soft_cpu *cpu, uint16_t sel, struct desc *d)
{
	uint64_t base = cpu->gdt_base;
	uint32_t limit = cpu->gdt_limit;

	if (sel & 4) {
		const struct soft_seg *ldt = &cpu->seg[SEG_LDTR];

		if (ldt->access & SEG_ACCESS_UNUSABLE || !(ldt->access & ACC_P))
			return false;
		base = ldt->base;
		limit = ldt->limit;
	}
	if ((sel | 7u) > limit)
		return false;
	d->lin = base + (sel & 0xfff8);
	if (!cpu->long_mode)
		d->lin &= 0xffffffff;
	d->raw = mmu_load_sys(cpu, d->lin, 8);
	seg_unpack(&d->seg, sel, d->raw);
	return true;
}

void desc_load(
    struct soft_cpu *cpu, uint16_t sel, struct desc *d, int vector, unsigned ext)
{
	if (!desc_try_load(cpu, sel, d))
		cpu_raise_error(cpu, vector, (sel & 0xfffc) | ext);
}

void desc_mark_accessed(struct soft_cpu *cpu, struct desc *d)
{
	if (d->seg.access & ACC_A)
		return;
	mmu_store_sys(cpu, d->lin + 5, 1, (d->raw >> 40 & 0xff) | ACC_A);
	d->seg.access |= ACC_A;
}

/*
 * Base and selector only: limit and rights stay, which "unreal mode" relies on.
 * CS is the exception: it becomes writable and readable at privilege 0.
 */
void seg_load_real(struct soft_cpu *cpu, unsigned seg, uint16_t sel)
{
	struct soft_seg *s = &cpu->seg[seg];

	s->sel = sel;
	s->base = (uint32_t)sel << 4;
	if (s->access & SEG_ACCESS_UNUSABLE) {
		s->access = ACC_P | ACC_S | ACC_RW | ACC_A;
		s->limit = 0xffff;
	}
	if (seg == SEG_CS)
		s->access =
		    (s->access & (ACC_DB | ACC_G)) | ACC_P | ACC_S | ACC_RW | ACC_A;
}

void seg_load_vm86(struct soft_cpu *cpu, unsigned seg, uint16_t sel)
{
	cpu->seg[seg] = (struct soft_seg){
		.sel = sel,
		.base = (uint32_t)sel << 4,
		.limit = 0xffff,
		.access = ACC_P | 3 << 5 | ACC_S | ACC_RW | ACC_A,
	};
}

void seg_set_null(struct soft_cpu *cpu, unsigned seg, uint16_t sel, unsigned dpl)
{
	cpu->seg[seg] = (struct soft_seg){
		.sel = sel,
		.access = SEG_ACCESS_UNUSABLE | dpl << 5,
	};
}

bool seg_covers(const struct soft_seg *s, uint32_t off, unsigned size)
{
	uint64_t last = (uint64_t)off + size - 1;

	if ((s->access & (ACC_CODE | ACC_CE)) == ACC_CE && s->access & ACC_S)
		return off > s->limit &&
		       last <= (s->access & ACC_DB ? 0xffffffff : 0xffff);
	return last <= s->limit;
}

void code_load_return(struct soft_cpu *cpu, uint16_t sel, struct desc *cs)
{
	unsigned cpl = sel & 3;
	uint32_t a;

	if (sel_null(sel))
		cpu_gp(cpu);
	desc_load(cpu, sel, cs, EXC_GP, 0);
	a = cs->seg.access;
	if (!ACC_IS_CODE(a) || cpl < cpu->cpl ||
	    (a & ACC_CE ? ACC_DPL(a) > cpl : ACC_DPL(a) != cpl) ||
	    (cpu->long_mode && (a & (ACC_L | ACC_DB)) == (ACC_L | ACC_DB)))
		cpu_raise_error(cpu, EXC_GP, sel & 0xfffc);
	if (!(a & ACC_P))
		cpu_raise_error(cpu, EXC_NP, sel & 0xfffc);
}

void code_check_rip(
    struct soft_cpu *cpu, const struct soft_seg *cs, uint64_t rip, unsigned ext)
{
	if (cpu->long_mode && cs->access & ACC_L) {
		if (!is_canonical(rip))
			cpu_raise_error(cpu, EXC_GP, ext);
	} else if (rip > cs->limit) {
		cpu_raise_error(cpu, EXC_GP, ext);
	}
}

void seg_check_stack(struct soft_cpu *cpu, uint16_t sel, unsigned cpl, int vector,
    unsigned ext, struct desc *d)
{
	uint32_t err = (sel & 0xfffc) | ext;

	if (sel_null(sel))
		cpu_raise_error(cpu, vector, ext);
	if ((sel & 3) != cpl)
		cpu_raise_error(cpu, vector, err);
	desc_load(cpu, sel, d, vector, ext);
	if ((d->seg.access & (ACC_S | ACC_CODE | ACC_RW)) != (ACC_S | ACC_RW) ||
	    ACC_DPL(d->seg.access) != cpl)
		cpu_raise_error(cpu, vector, err);
	if (!(d->seg.access & ACC_P))
		cpu_raise_error(cpu, EXC_SS, err);
}

static void load_stack(struct soft_cpu *cpu, uint16_t sel)
{
	struct desc d;

	/* A null SS is what 64-bit kernels run on; ring 3 may not. */
	if (sel_null(sel) && cpu->mode == MODE_64 && cpu->cpl < 3 &&
	    (sel & 3) == cpu->cpl) {
		seg_set_null(cpu, SEG_SS, sel, cpu->cpl);
		return;
	}
	seg_check_stack(cpu, sel, cpu->cpl, EXC_GP, 0, &d);
	desc_mark_accessed(cpu, &d);
	cpu->seg[SEG_SS] = d.seg;
	cpu_update_mode(cpu);
}

void seg_load(struct soft_cpu *cpu, unsigned seg, uint16_t sel)
{
	struct desc d;
	uint32_t a;

	if (!(cpu->cr0 & CR0_PE)) {
		seg_load_real(cpu, seg, sel);
		return;
	}
	if (cpu_vm86(cpu)) {
		seg_load_vm86(cpu, seg, sel);
		return;
	}
	if (seg == SEG_SS) {
		load_stack(cpu, sel);
		return;
	}
	if (sel_null(sel)) {
		seg_set_null(cpu, seg, sel, 0);
		return;
	}
	desc_load(cpu, sel, &d, EXC_GP, 0);
	a = d.seg.access;
	if (!(a & ACC_S) || (a & (ACC_CODE | ACC_RW)) == ACC_CODE)
		cpu_raise_error(cpu, EXC_GP, sel & 0xfffc);
	if ((a & (ACC_CODE | ACC_CE)) != (ACC_CODE | ACC_CE) &&
	    MAX(sel & 3u, (unsigned)cpu->cpl) > ACC_DPL(a))
		cpu_raise_error(cpu, EXC_GP, sel & 0xfffc);
	if (!(a & ACC_P))
		cpu_raise_error(cpu, EXC_NP, sel & 0xfffc);
	desc_mark_accessed(cpu, &d);
	cpu->seg[seg] = d.seg;
}

void seg_drop_privileged(struct soft_cpu *cpu, unsigned new_cpl)
{
	static const uint8_t regs[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
		struct soft_seg *s = &cpu->seg[regs[i]];
		uint32_t a = s->access;

		if (a & SEG_ACCESS_UNUSABLE ||
		    (a & (ACC_CODE | ACC_CE)) == (ACC_CODE | ACC_CE))
			continue;
		if (ACC_DPL(a) < new_cpl)
			seg_set_null(cpu, regs[i], 0, 0);
	}
}

void tss_stack(
    struct soft_cpu *cpu, unsigned cpl, unsigned ext, uint16_t *ss, uint32_t *esp)
{
	const struct soft_seg *tr = &cpu->seg[SEG_TR];
	bool is32 = tr->access & 8;
	uint32_t off = is32 ? 4 + cpl * 8 : 2 + cpl * 4;

	if (tr->access & SEG_ACCESS_UNUSABLE || off + (is32 ? 5 : 3) > tr->limit)
		cpu_raise_error(cpu, EXC_TS, (tr->sel & 0xfffc) | ext);
	if (is32) {
		*esp = mmu_load_sys(cpu, tr->base + off, 4);
		*ss = mmu_load_sys(cpu, tr->base + off + 4, 2);
	} else {
		*esp = mmu_load_sys(cpu, tr->base + off, 2);
		*ss = mmu_load_sys(cpu, tr->base + off + 2, 2);
	}
}

uint64_t tss_stack64(struct soft_cpu *cpu, unsigned slot, unsigned ext)
{
	const struct soft_seg *tr = &cpu->seg[SEG_TR];
	uint32_t off = 4 + slot * 8;

	if (tr->access & SEG_ACCESS_UNUSABLE || off + 7 > tr->limit)
		cpu_raise_error(cpu, EXC_TS, (tr->sel & 0xfffc) | ext);
	return mmu_load_sys(cpu, tr->base + off, 8);
}
