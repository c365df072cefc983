/*
 * Hardware task switches between 16- and 32-bit TSSs (SDM vol. 3 chapter 7).
 *
 * Order of 7.3: everything that can fault in the old task's context (reading the
 * new TSS, saving into the old one) first; then the registers; what faults after
 * that (LDT, segments, entry point) faults in the new task.
 */
#include <string.h>

#include "cpu/soft/sys.h"

struct image {
	uint32_t cr3, eip, eflags, gpr[8], ldt;
	uint16_t seg[6]; /* SEG_ order */
	bool trap;
};

#define TSS32_SIZE 104u
#define TSS16_SIZE 44u

static void image_load32(struct soft_cpu *cpu, uint64_t base, struct image *im)
{
	im->cr3 = mmu_load_sys(cpu, base + 28, 4);
	im->eip = mmu_load_sys(cpu, base + 32, 4);
	im->eflags = mmu_load_sys(cpu, base + 36, 4);
	for (unsigned i = 0; i < 8; i++)
		im->gpr[i] = mmu_load_sys(cpu, base + 40 + i * 4, 4);
	for (unsigned i = 0; i < 6; i++)
		im->seg[i] = mmu_load_sys(cpu, base + 72 + i * 4, 2);
	im->ldt = mmu_load_sys(cpu, base + 96, 2);
	im->trap = mmu_load_sys(cpu, base + 100, 2) & 1;
}

static void image_load16(struct soft_cpu *cpu, uint64_t base, struct image *im)
{
	im->eip = mmu_load_sys(cpu, base + 14, 2);
	im->eflags = mmu_load_sys(cpu, base + 16, 2);
	for (unsigned i = 0; i < 8; i++)
		im->gpr[i] = 0xffff0000 | mmu_load_sys(cpu, base + 18 + i * 2, 2);
	for (unsigned i = 0; i < 4; i++)
		im->seg[i] = mmu_load_sys(cpu, base + 34 + i * 2, 2);
	im->ldt = mmu_load_sys(cpu, base + 42, 2);
}

static void image_save(
    struct soft_cpu *cpu, const struct soft_seg *tr, uint32_t eip, uint32_t eflags)
{
	bool is32 = tr->access & 8;
	unsigned width = is32 ? 4 : 2;
	uint64_t at = tr->base + (is32 ? 32 : 14);

	mmu_store_sys(cpu, at, width, eip);
	mmu_store_sys(cpu, at += width, width, eflags);
	for (unsigned i = 0; i < 8; i++)
		mmu_store_sys(cpu, at += width, width, cpu->gpr[i]);
	for (unsigned i = 0; i < (is32 ? 6 : 4); i++)
		mmu_store_sys(cpu, at += width, 2, cpu->seg[i].sel);
}

static void set_busy(struct soft_cpu *cpu, uint16_t sel, bool busy)
{
	uint64_t lin = (uint32_t)(cpu->gdt_base + (sel & 0xfff8) + 5);
	uint8_t type = mmu_load_sys(cpu, lin, 1);

	mmu_store_sys(cpu, lin, 1, busy ? type | 2 : type & ~2);
}

void task_desc_load(
    struct soft_cpu *cpu, uint16_t sel, struct desc *d, unsigned ext)
{
	uint32_t err = (sel & 0xfffc) | ext;

	if (sel_null(sel) || sel & 4)
		cpu_raise_error(cpu, EXC_GP, err);
	desc_load(cpu, sel, d, EXC_GP, ext);
	if (ACC_TYPE(d->seg.access) != SYS_TSS16 &&
	    ACC_TYPE(d->seg.access) != SYS_TSS32)
		cpu_raise_error(cpu, EXC_GP, err);
	if (!(d->seg.access & ACC_P))
		cpu_raise_error(cpu, EXC_NP, err);
}

static void load_ldt(struct soft_cpu *cpu, uint16_t sel)
{
	struct desc d;

	seg_set_null(cpu, SEG_LDTR, sel, 0);
	if (sel_null(sel))
		return;
	if (sel & 4 || !desc_try_load(cpu, sel, &d) ||
	    ACC_TYPE(d.seg.access) != SYS_LDT || !(d.seg.access & ACC_P))
		cpu_raise_error(cpu, EXC_TS, sel & 0xfffc);
	cpu->seg[SEG_LDTR] = d.seg;
}

static void load_code(struct soft_cpu *cpu, uint16_t sel)
{
	uint32_t err = sel & 0xfffc, a;
	struct desc d;

	if (sel_null(sel))
		cpu_raise_error(cpu, EXC_TS, 0);
	desc_load(cpu, sel, &d, EXC_TS, 0);
	a = d.seg.access;
	if (!ACC_IS_CODE(a) ||
	    (a & ACC_CE ? ACC_DPL(a) > (sel & 3u) : ACC_DPL(a) != (sel & 3u)))
		cpu_raise_error(cpu, EXC_TS, err);
	if (!(a & ACC_P))
		cpu_raise_error(cpu, EXC_NP, err);
	desc_mark_accessed(cpu, &d);
	cpu->seg[SEG_CS] = d.seg;
}

static void load_data(struct soft_cpu *cpu, unsigned seg, uint16_t sel)
{
	uint32_t err = sel & 0xfffc, a;
	struct desc d;

	if (sel_null(sel))
		return;
	desc_load(cpu, sel, &d, EXC_TS, 0);
	a = d.seg.access;
	if (!(a & ACC_S) || (a & (ACC_CODE | ACC_RW)) == ACC_CODE)
		cpu_raise_error(cpu, EXC_TS, err);
	if ((a & (ACC_CODE | ACC_CE)) != (ACC_CODE | ACC_CE) &&
	    MAX(sel & 3u, (unsigned)cpu->cpl) > ACC_DPL(a))
		cpu_raise_error(cpu, EXC_TS, err);
	if (!(a & ACC_P))
		cpu_raise_error(cpu, EXC_NP, err);
	desc_mark_accessed(cpu, &d);
	cpu->seg[seg] = d.seg;
}

/* The new task's segments, checked in its own context. */
static void load_segments(struct soft_cpu *cpu, const struct image *im)
{
	static const uint8_t data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	unsigned cpl = im->seg[SEG_CS] & 3;
	struct desc ss;

	if (cpu_vm86(cpu)) {
		for (unsigned i = 0; i < 6; i++)
			seg_load_vm86(cpu, i, im->seg[i]);
		cpu_update_mode(cpu);
		return;
	}
	/* Until they are loaded none is usable, at the new privilege. */
	for (unsigned i = 0; i < 6; i++)
		seg_set_null(cpu, i, im->seg[i], cpl);
	cpu_update_mode(cpu);
	load_ldt(cpu, im->ldt);
	load_code(cpu, im->seg[SEG_CS]);
	seg_check_stack(cpu, im->seg[SEG_SS], cpl, EXC_TS, 0, &ss);
	desc_mark_accessed(cpu, &ss);
	cpu->seg[SEG_SS] = ss.seg;
	cpu_update_mode(cpu);
	for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
		load_data(cpu, data[i], im->seg[data[i]]);
}

/*
 * rip is where the old task resumes. On return next_rip and rip are the new
 * task's, so that what faults from here on is the new task's fault.
 */
void task_switch(struct soft_cpu *cpu, struct desc *tss, enum task_reason why,
    uint64_t rip, uint64_t rflags, unsigned ext)
{
	struct soft_seg old = cpu->seg[SEG_TR];
	bool is32 = tss->seg.access & 8;
	bool nest = why == TASK_CALL || why == TASK_GATE;
	struct image im = { 0 };

	if (tss->seg.limit + 1 < (is32 ? TSS32_SIZE : TSS16_SIZE) ||
	    tss->seg.limit == UINT32_MAX)
		cpu_raise_error(cpu, EXC_TS, (tss->seg.sel & 0xfffc) | ext);
	if (old.access & SEG_ACCESS_UNUSABLE ||
	    old.limit < (old.access & 8 ? TSS32_SIZE : TSS16_SIZE) - 1)
		cpu_raise_error(cpu, EXC_TS, (old.sel & 0xfffc) | ext);
	if (is32)
		image_load32(cpu, tss->seg.base, &im);
	else
		image_load16(cpu, tss->seg.base, &im);
	if (why == TASK_IRET)
		rflags &= ~(uint64_t)RF_NT;
	image_save(cpu, &old, rip, rflags);
	if (nest) {
		mmu_store_sys(cpu, tss->seg.base, 2, old.sel);
		im.eflags |= RF_NT;
	} else {
		set_busy(cpu, old.sel, false);
	}
	if (why != TASK_IRET)
		set_busy(cpu, tss->seg.sel, true);

	/* Committed: from here on we are the new task. */
	tss->seg.access |= 2;
	cpu->seg[SEG_TR] = tss->seg;
	cpu->cr0 |= CR0_TS;
	cpu->dr7 &= ~UINT64_C(0x155); /* L0-L3, LE */
	for (unsigned i = 0; i < 8; i++)
		cpu->gpr[i] = im.gpr[i];
	cpu->rip = cpu->next_rip = im.eip;
	cpu->rflags = (im.eflags & 0x3f7fd7) | 2;
	if (is32 && cpu->cr0 & CR0_PG && (uint32_t)cpu->cr3 != im.cr3) {
		cpu->cr3 = im.cr3;
		mmu_cr3_written(cpu, false);
	}
	load_segments(cpu, &im);
	code_check_rip(cpu, &cpu->seg[SEG_CS], im.eip, 0);
	if (im.trap)
		cpu->pending_db |= 0x8000; /* BT; the loop raises #DB */
	cpu->stop_block = true;
}
