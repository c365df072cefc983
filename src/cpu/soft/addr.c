/*
 * Addresses of operands: offset, segment, alignment (SDM vol. 3 5.3, 6.15 #AC;
 * vol. 1 3.3.7 canonical form).
 */
#include "cpu/soft/mmu.h"

#define TYPE_RW    0x2u
#define TYPE_CE    0x4u /* data: expand-down */
#define TYPE_CODE  0x8u
#define ACCESS_BIG 0x4000u

uint64_t insn_offset(const struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t off = in->disp;

	if (in->flags & INSN_RIPREL)
		off += cpu->rip + in->len;
	if (in->base != REG_NONE)
		off += cpu->gpr[in->base];
	if (in->index != REG_NONE)
		off += cpu->gpr[in->index] * in->scale;
	return off & size_mask(in->addrsize);
}

_Noreturn static void seg_fault(struct soft_cpu *cpu, unsigned seg)
{
	cpu_raise_error(cpu, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
}

/* #AC: what matters is the natural alignment of integers. */
static void check_alignment(struct soft_cpu *cpu, uint64_t lin, unsigned size)
{
	if (cpu->cpl == 3 && cpu->cr0 & CR0_AM && size <= 8 &&
	    !(size & (size - 1)) && lin & (size - 1))
		cpu_raise_error(cpu, EXC_AC, 0);
}

static void check_rights(struct soft_cpu *cpu, unsigned seg, bool write)
{
	uint32_t a = cpu->seg[seg].access;

	if (a & SEG_ACCESS_UNUSABLE)
		seg_fault(cpu, seg);
	if (!cpu->protected_mode)
		return;
	if (write ? (a & (TYPE_CODE | TYPE_RW)) != TYPE_RW
		  : (a & (TYPE_CODE | TYPE_RW)) == TYPE_CODE)
		seg_fault(cpu, seg);
}

static void check_limit(
    struct soft_cpu *cpu, unsigned seg, uint64_t off, unsigned size)
{
	const struct soft_seg *s = &cpu->seg[seg];
	uint64_t last = off + size - 1;

	if ((s->access & (TYPE_CODE | TYPE_CE)) == TYPE_CE) {
		if (off > s->limit &&
		    last <= (s->access & ACCESS_BIG ? 0xffffffff : 0xffff))
			return;
	} else if (last <= s->limit) {
		return;
	}
	seg_fault(cpu, seg);
}

uint64_t seg_linear(struct soft_cpu *cpu, unsigned seg, uint64_t off,
    unsigned addrsize, unsigned size, bool write)
{
	uint64_t lin = off & size_mask(addrsize);

	if (cpu->mode == MODE_64) {
		if (seg == SEG_FS || seg == SEG_GS)
			lin += cpu->seg[seg].base;
		if (unlikely(!is_canonical(lin) || !is_canonical(lin + size - 1)))
			seg_fault(cpu, seg);
	} else {
		check_rights(cpu, seg, write);
		check_limit(cpu, seg, lin, size);
		lin = (uint32_t)(lin + cpu->seg[seg].base);
	}
	if (unlikely(cpu->rflags & RF_AC))
		check_alignment(cpu, lin, size);
	return lin;
}

uint64_t insn_linear(
    struct soft_cpu *cpu, const struct insn *in, unsigned size, bool write)
{
	return seg_linear(
	    cpu, in->seg, insn_offset(cpu, in), in->addrsize, size, write);
}
