/*
 * Vector instructions whose memory operand is not one stretch: gathers, VMASKMOV,
 * VPMASKMOV, MASKMOVDQU, MASKMOVQ (SDM vol. 2). Done element by element on the
 * FPU image.
 *
 * Invariants: an element whose mask is clear is neither addressed nor accessed.
 * Stores are probed as a whole before the first is made. A gather that faults has
 * its finished elements in the destination and their masks cleared, so that it
 * goes on from there when it is restarted.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/soft/native.h"

struct native_mem {
	uint8_t dest, mask, index; /* vector registers; dest: source of a store */
	uint8_t elem, idx_elem;    /* bytes */
	uint8_t count;             /* elements */
	uint8_t width;             /* bytes of the destination that keep data */
	uint8_t base, scale;
	uint8_t seg; /* SEG_* */
	bool vex;
	int64_t disp;
};

static uint8_t *vec_at(struct fpu_image *f, unsigned reg, unsigned at)
{
	return at < 16 ? f->xmm[reg] + at : f->ymmh[reg] + at - 16;
}

static bool mask_set(struct fpu_image *f, const struct native_mem *m, unsigned i)
{
	return vec_at(f, m->mask, i * m->elem)[m->elem - 1] >> 7;
}

static uint64_t element_linear(struct soft_cpu *cpu, const struct insn *in,
    const struct native_mem *m, uint64_t off, bool write)
{
	return seg_linear(cpu, m->seg, off & size_mask(in->addrsize), in->addrsize,
	    m->elem, write);
}

static void do_gather(struct soft_cpu *cpu, const struct insn *in)
{
	const struct native_mem *m = in->aux;
	struct fpu_image *f;

	fpu_check_avx(cpu);
	if (m->dest == m->mask || m->dest == m->index || m->mask == m->index)
		cpu_ud(cpu);
	f = fpu_ready(cpu);
	for (unsigned i = 0; i < m->count; i++) {
		uint64_t off, v;
		int64_t idx = 0;

		if (!mask_set(f, m, i)) {
			memset(vec_at(f, m->mask, i * m->elem), 0, m->elem);
			continue;
		}
		if (m->idx_elem == 4) {
			int32_t idx32;

			memcpy(&idx32, vec_at(f, m->index, i * 4), 4);
			idx = idx32;
		} else {
			memcpy(&idx, vec_at(f, m->index, i * 8), 8);
		}
		off = (m->base != REG_NONE ? cpu->gpr[m->base] : 0) +
		      (uint64_t)m->disp + (uint64_t)idx * m->scale;
		v = mmu_load(cpu, element_linear(cpu, in, m, off, false), m->elem);
		memcpy(vec_at(f, m->dest, i * m->elem), &v, m->elem);
		memset(vec_at(f, m->mask, i * m->elem), 0, m->elem);
	}
	memset(f->xmm[m->mask], 0, 16);
	memset(f->ymmh[m->mask], 0, 16);
	for (unsigned at = m->width; at < 32; at += 8)
		memset(vec_at(f, m->dest, at), 0, 8);
}

static void do_vmaskmov_load(struct soft_cpu *cpu, const struct insn *in)
{
	const struct native_mem *m = in->aux;
	struct fpu_image *f;
	uint8_t data[32] = { 0 };
	uint64_t off;

	fpu_check_avx(cpu);
	f = fpu_ready(cpu);
	off = insn_offset(cpu, in);
	for (unsigned i = 0; i < m->count; i++) {
		uint64_t v;

		if (!mask_set(f, m, i))
			continue;
		v = mmu_load(cpu,
		    element_linear(cpu, in, m, off + i * m->elem, false), m->elem);
		memcpy(data + i * m->elem, &v, m->elem);
	}
	memcpy(f->xmm[m->dest], data, 16);
	memcpy(f->ymmh[m->dest], data + 16, 16);
}

/*
 * One element of a masked store at offset off: probed first, stored in a second
 * pass.
 */
static void masked_store(struct soft_cpu *cpu, const struct insn *in,
    const struct native_mem *m, struct fpu_image *f, uint64_t off,
    const uint8_t *data)
{
	uint64_t lin[16];
	uint32_t set = 0;

	for (unsigned i = 0; i < m->count; i++) {
		if (!mask_set(f, m, i))
			continue;
		lin[i] = element_linear(cpu, in, m, off + i * m->elem, true);
		mmu_probe_write(cpu, lin[i], m->elem);
		set |= BIT(i);
	}
	for (unsigned i = 0; i < m->count; i++) {
		uint64_t v = 0;

		if (!(set & BIT(i)))
			continue;
		memcpy(&v, data + i * m->elem, m->elem);
		mmu_store(cpu, lin[i], m->elem, v);
	}
}

static void do_vmaskmov_store(struct soft_cpu *cpu, const struct insn *in)
{
	const struct native_mem *m = in->aux;
	struct fpu_image *f;
	uint8_t data[32];

	fpu_check_avx(cpu);
	f = fpu_ready(cpu);
	memcpy(data, f->xmm[m->dest], 16);
	memcpy(data + 16, f->ymmh[m->dest], 16);
	masked_store(cpu, in, m, f, insn_offset(cpu, in), data);
}

static void do_maskmovdqu(struct soft_cpu *cpu, const struct insn *in)
{
	const struct native_mem *m = in->aux;
	struct fpu_image *f;

	if (m->vex)
		fpu_check_avx(cpu);
	else
		fpu_check_sse(cpu);
	f = fpu_ready(cpu);
	masked_store(cpu, in, m, f, cpu->gpr[GPR_RDI], f->xmm[m->dest]);
}

static void do_maskmovq(struct soft_cpu *cpu, const struct insn *in)
{
	const struct native_mem *m = in->aux;
	struct fpu_image *f, regs;

	fpu_check_mmx(cpu);
	f = fpu_ready(cpu);
	/* MMn is physical register n: what ST(n) is when TOP is 0. */
	regs.fsw = f->fsw;
	memcpy(regs.st, f->st, sizeof(regs.st));
	fpu_set_top(&regs, 0);
	memcpy(regs.xmm, regs.st, sizeof(regs.st));
	masked_store(cpu, in, m, &regs, cpu->gpr[GPR_RDI], regs.xmm[m->dest]);
	/* As every MMX instruction: TOP becomes 0 and no register is empty. */
	fpu_set_top(f, 0);
	f->ftw = 0xff;
}

static unsigned reg_id(const ZydisDecodedOperand *o)
{
	return (uint8_t)ZydisRegisterGetId(o->reg.value);
}

static bool is_gather(const ZydisDecodedInstruction *zi)
{
	return zi->meta.category == ZYDIS_CATEGORY_AVX2GATHER;
}

static insn_fn *gather(struct native_mem *m, const struct native_decoded *d)
{
	const ZydisDecodedOperand *mem = &d->op[1];
	bool wide_index = false, ymm_index;
	unsigned dest_size = d->op[0].size / 8, index_size, n;

	switch (d->insn.mnemonic) {
	case ZYDIS_MNEMONIC_VGATHERDPS:
	case ZYDIS_MNEMONIC_VPGATHERDD:
		m->elem = 4;
		break;
	case ZYDIS_MNEMONIC_VGATHERQPS:
	case ZYDIS_MNEMONIC_VPGATHERQD:
		m->elem = 4;
		wide_index = true;
		break;
	case ZYDIS_MNEMONIC_VGATHERDPD:
	case ZYDIS_MNEMONIC_VPGATHERDQ:
		m->elem = 8;
		break;
	case ZYDIS_MNEMONIC_VGATHERQPD:
	case ZYDIS_MNEMONIC_VPGATHERQQ:
		m->elem = 8;
		wide_index = true;
		break;
	default:
		return NULL;
	}
	if (d->mem != 1 || mem->mem.index == ZYDIS_REGISTER_NONE)
		return NULL;
	ymm_index = ZydisRegisterGetClass(mem->mem.index) == ZYDIS_REGCLASS_YMM;
	m->idx_elem = wide_index ? 8 : 4;
	index_size = ymm_index ? 32 : 16;
	n = MIN(dest_size / m->elem, index_size / m->idx_elem);
	m->count = (uint8_t)n;
	m->width = (uint8_t)(n * m->elem);
	m->dest = reg_id(&d->op[0]);
	m->mask = reg_id(&d->op[2]);
	m->index = (uint8_t)ZydisRegisterGetId(mem->mem.index);
	m->scale = mem->mem.scale ? mem->mem.scale : 1;
	m->disp = mem->mem.disp.has_displacement ? mem->mem.disp.value : 0;
	m->base = mem->mem.base == ZYDIS_REGISTER_NONE
		      ? REG_NONE
		      : (uint8_t)ZydisRegisterGetId(mem->mem.base);
	/* Zydis 4.0 takes R13D for the base here when the address size is 32. */
	if (d->insn.raw.modrm.mod == 0 && d->insn.raw.sib.base == 5) {
		m->base = REG_NONE;
		m->disp = d->insn.raw.disp.value;
	}
	return do_gather;
}

static insn_fn *describe(struct native_mem *m, const struct native_decoded *d)
{
	m->vex = d->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	if (d->mem < 0)
		return NULL;
	m->seg = (uint8_t)ZydisRegisterGetId(d->op[d->mem].mem.segment);
	if (m->seg > SEG_GS)
		m->seg = SEG_DS;
	if (is_gather(&d->insn))
		return gather(m, d);
	switch (d->insn.mnemonic) {
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
		m->elem = 4;
		break;
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ:
		m->elem = 8;
		break;
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_MASKMOVQ:
		m->elem = 1;
		m->count = d->insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ? 8 : 16;
		m->dest = reg_id(&d->op[0]);
		m->mask = reg_id(&d->op[1]);
		return d->insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ? do_maskmovq
								   : do_maskmovdqu;
	default:
		return NULL;
	}
	m->count = (uint8_t)(d->op[d->mem].size / 8 / m->elem);
	m->mask = reg_id(&d->op[1]);
	m->dest = reg_id(&d->op[d->mem == 0 ? 2 : 0]);
	return d->mem == 0 ? do_vmaskmov_store : do_vmaskmov_load;
}

insn_fn *native_mem_handler(struct insn *in, const struct native_decoded *d)
{
	struct native_mem m = { 0 };
	insn_fn *fn = describe(&m, d);

	if (fn == NULL)
		return NULL;
	in->aux = malloc(sizeof(m));
	if (in->aux == NULL)
		return NULL;
	memcpy(in->aux, &m, sizeof(m));
	return fn;
}

bool native_mem_owns(insn_fn *fn)
{
	return fn == do_gather || fn == do_vmaskmov_load ||
	       fn == do_vmaskmov_store || fn == do_maskmovdqu || fn == do_maskmovq;
}
