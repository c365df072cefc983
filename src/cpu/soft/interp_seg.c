/*
 * Instructions on segment and descriptor-table registers: MOV/PUSH/POP sreg, LDS
 * and friends, LGDT ... STR, LAR, LSL, VERR, VERW, ARPL.
 */
#include <string.h>

#include "cpu/soft/sys.h"

static void load_ss_shadow(struct soft_cpu *cpu, unsigned seg)
{
	if (seg == SEG_SS)
		cpu->shadow = true;
	cpu->stop_block = true;
}

void sys_mov_sreg(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned seg = in->op[0].reg;

	if (seg == SEG_CS || seg > SEG_GS)
		cpu_ud(cpu);
	seg_load(cpu, seg, opnd_read(cpu, in, &in->op[1], 2));
	load_ss_shadow(cpu, seg);
}

/* A 16-bit register value: memory gets 2 bytes, a register the operand size. */
static void store_word(struct soft_cpu *cpu, const struct insn *in, uint64_t v)
{
	opnd_write(
	    cpu, in, &in->op[0], in->op[0].kind == OPND_MEM ? 2 : in->opsize, v);
}

void sys_store_sreg(struct soft_cpu *cpu, const struct insn *in)
{
	if (in->op[1].reg > SEG_GS)
		cpu_ud(cpu);
	store_word(cpu, in, cpu->seg[in->op[1].reg].sel);
}

static unsigned stack_seg(const struct insn *in)
{
	const uint8_t *op = insn_opcode(in);

	/* 06 0E 16 1E; 0F A0, A1, A8, A9 */
	return op[0] == 0x0f ? (op[1] & 8 ? SEG_GS : SEG_FS) : (op[0] >> 3) & 3;
}

void sys_push_sreg(struct soft_cpu *cpu, const struct insn *in)
{
	struct stk st;

	stk_current(cpu, &st);
	stk_push(cpu, &st, in->opsize, cpu->seg[stack_seg(in)].sel);
	stk_commit(cpu, &st);
}

void sys_pop_sreg(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned seg = stack_seg(in);
	struct stk st;

	stk_current(cpu, &st);
	seg_load(cpu, seg, stk_pop(cpu, &st, in->opsize));
	stk_commit(cpu, &st);
	load_ss_shadow(cpu, seg);
}

void sys_load_far(struct soft_cpu *cpu, const struct insn *in)
{
	const uint8_t *op = insn_opcode(in);
	unsigned size = in->opsize, seg;
	uint64_t lin, off;

	switch (op[0] == 0x0f ? op[1] : op[0]) {
	case 0xc4:
		seg = SEG_ES;
		break;
	case 0xc5:
		seg = SEG_DS;
		break;
	case 0xb2:
		seg = SEG_SS;
		break;
	case 0xb4:
		seg = SEG_FS;
		break;
	default:
		seg = SEG_GS;
	}
	lin = insn_linear(cpu, in, size + 2, false);
	off = mmu_load(cpu, lin, size);
	seg_load(cpu, seg, mmu_load(cpu, lin + size, 2));
	gpr_set(cpu, in->op[0].reg, size, off);
	cpu->stop_block = true;
}

static void load_table(
    struct soft_cpu *cpu, const struct insn *in, uint64_t *base, uint32_t *limit)
{
	unsigned width = cpu->mode == MODE_64 ? 8 : 4;
	uint64_t lin, b;
	uint32_t l;

	need_cpl0(cpu);
	lin = insn_linear(cpu, in, width + 2, false);
	l = mmu_load(cpu, lin, 2);
	b = mmu_load(cpu, lin + 2, width);
	if (width == 8) {
		if (!is_canonical(b))
			cpu_gp(cpu);
	} else if (in->opsize == 2) {
		b &= 0xffffff;
	}
	*base = b;
	*limit = l;
}

void sys_lgdt(struct soft_cpu *cpu, const struct insn *in)
{
	load_table(cpu, in, &cpu->gdt_base, &cpu->gdt_limit);
}

void sys_lidt(struct soft_cpu *cpu, const struct insn *in)
{
	load_table(cpu, in, &cpu->idt_base, &cpu->idt_limit);
}

static void check_umip(struct soft_cpu *cpu)
{
	if (cpu->cr4 & CR4_UMIP && cpu->cpl > 0)
		cpu_gp(cpu);
}

static void store_table(
    struct soft_cpu *cpu, const struct insn *in, uint64_t base, uint32_t limit)
{
	unsigned width = cpu->mode == MODE_64 ? 8 : 4;
	uint8_t buf[10] = { limit, limit >> 8 };

	check_umip(cpu);
	memcpy(buf + 2, &base, width);
	mmu_store_bytes(cpu, insn_linear(cpu, in, width + 2, true), buf, width + 2);
}

void sys_sgdt(struct soft_cpu *cpu, const struct insn *in)
{
	store_table(cpu, in, cpu->gdt_base, cpu->gdt_limit);
}

void sys_sidt(struct soft_cpu *cpu, const struct insn *in)
{
	store_table(cpu, in, cpu->idt_base, cpu->idt_limit);
}

static void need_protected(struct soft_cpu *cpu)
{
	if (!cpu->protected_mode)
		cpu_ud(cpu);
}

/* LDT and TSS descriptors are 16 bytes in long mode. */
static void system_desc(struct soft_cpu *cpu, uint16_t sel, struct desc *d)
{
	if (sel & 4)
		cpu_raise_error(cpu, EXC_GP, sel & 0xfffc);
	desc_load(cpu, sel, d, EXC_GP, 0);
	if (cpu->long_mode) {
		if ((sel | 15u) > cpu->gdt_limit)
			cpu_raise_error(cpu, EXC_GP, sel & 0xfffc);
		d->seg.base |= mmu_load_sys(cpu, d->lin + 8, 4) << 32;
	}
}

void sys_lldt(struct soft_cpu *cpu, const struct insn *in)
{
	struct desc d;
	uint16_t sel;

	need_protected(cpu);
	need_cpl0(cpu);
	sel = opnd_read(cpu, in, &in->op[0], 2);
	if (sel_null(sel)) {
		seg_set_null(cpu, SEG_LDTR, sel, 0);
		return;
	}
	system_desc(cpu, sel, &d);
	if (ACC_TYPE(d.seg.access) != SYS_LDT || !is_canonical(d.seg.base))
		cpu_raise_error(cpu, EXC_GP, sel & 0xfffc);
	if (!(d.seg.access & ACC_P))
		cpu_raise_error(cpu, EXC_NP, sel & 0xfffc);
	cpu->seg[SEG_LDTR] = d.seg;
}

void sys_ltr(struct soft_cpu *cpu, const struct insn *in)
{
	struct desc d;
	uint16_t sel;
	unsigned type;

	need_protected(cpu);
	need_cpl0(cpu);
	sel = opnd_read(cpu, in, &in->op[0], 2);
	if (sel_null(sel))
		cpu_gp(cpu);
	system_desc(cpu, sel, &d);
	type = ACC_TYPE(d.seg.access);
	if ((type != SYS_TSS32 && (cpu->long_mode || type != SYS_TSS16)) ||
	    !is_canonical(d.seg.base))
		cpu_raise_error(cpu, EXC_GP, sel & 0xfffc);
	if (!(d.seg.access & ACC_P))
		cpu_raise_error(cpu, EXC_NP, sel & 0xfffc);
	mmu_store_sys(cpu, d.lin + 5, 1, (d.raw >> 40 & 0xff) | 2);
	d.seg.access |= 2;
	cpu->seg[SEG_TR] = d.seg;
}

void sys_sldt(struct soft_cpu *cpu, const struct insn *in)
{
	need_protected(cpu);
	check_umip(cpu);
	store_word(cpu, in, cpu->seg[SEG_LDTR].sel);
}

void sys_str(struct soft_cpu *cpu, const struct insn *in)
{
	need_protected(cpu);
	check_umip(cpu);
	store_word(cpu, in, cpu->seg[SEG_TR].sel);
}

static bool visible(const struct soft_cpu *cpu, const struct desc *d)
{
	uint32_t a = d->seg.access;

	if (ACC_IS_CODE(a) && a & ACC_CE)
		return true;
	return ACC_DPL(a) >= MAX((unsigned)cpu->cpl, d->seg.sel & 3u);
}

/* Descriptor for LAR, LSL, VERR, VERW, which answer in ZF instead of faulting. */
static bool query(
    struct soft_cpu *cpu, const struct insn *in, unsigned opnd, struct desc *d)
{
	uint16_t sel;

	need_protected(cpu);
	sel = opnd_read(cpu, in, &in->op[opnd], 2);
	return !sel_null(sel) && desc_try_load(cpu, sel, d) && visible(cpu, d);
}

static void set_zf(struct soft_cpu *cpu, bool zf)
{
	cpu->rflags = (cpu->rflags & ~(uint64_t)RF_ZF) | (zf ? RF_ZF : 0);
}

static bool type_in(uint32_t access, uint32_t legacy, uint32_t longm, bool is_long)
{
	return access & ACC_S || BIT(ACC_TYPE(access)) & (is_long ? longm : legacy);
}

void sys_lar(struct soft_cpu *cpu, const struct insn *in)
{
	struct desc d;
	bool ok = query(cpu, in, 1, &d) &&
		  type_in(d.seg.access, 0x1a3e, 0x1a04, cpu->long_mode);

	if (ok)
		gpr_set(cpu, in->op[0].reg, in->opsize,
		    (d.raw >> 32) & (in->opsize == 2 ? 0xff00 : 0xffff00));
	set_zf(cpu, ok);
}

void sys_lsl(struct soft_cpu *cpu, const struct insn *in)
{
	struct desc d;
	bool ok = query(cpu, in, 1, &d) &&
		  type_in(d.seg.access, 0x0a0e, 0x0a04, cpu->long_mode);

	if (ok)
		gpr_set(cpu, in->op[0].reg, in->opsize, d.seg.limit);
	set_zf(cpu, ok);
}

void sys_verr(struct soft_cpu *cpu, const struct insn *in)
{
	struct desc d;

	set_zf(cpu, query(cpu, in, 0, &d) && d.seg.access & ACC_S &&
			(d.seg.access & (ACC_CODE | ACC_RW)) != ACC_CODE);
}

void sys_verw(struct soft_cpu *cpu, const struct insn *in)
{
	struct desc d;

	set_zf(cpu,
	    query(cpu, in, 0, &d) &&
		(d.seg.access & (ACC_S | ACC_CODE | ACC_RW)) == (ACC_S | ACC_RW));
}

void sys_arpl(struct soft_cpu *cpu, const struct insn *in)
{
	uint16_t dst, src;

	need_protected(cpu);
	dst = opnd_read(cpu, in, &in->op[0], 2);
	src = gpr_get(cpu, in->op[1].reg, 2);
	if ((dst & 3) < (src & 3)) {
		opnd_write(cpu, in, &in->op[0], 2, (dst & ~3) | (src & 3));
		set_zf(cpu, true);
	} else {
		set_zf(cpu, false);
	}
}
