/*
 * Control registers and XCR0 (SDM vol. 3 2.5, 4.1, 4.10.4; vol. 1 13.3).
 */
#include "cpu/soft/fpu.h"
#include "cpu/soft/sys.h"

#define CR0_MASK                                                                   \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM |   \
	    CR0_NW | CR0_CD | CR0_PG)
/* What a cached translation was computed from. */
#define CR4_TLB_BITS (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)

#define XCR0_X87     0x1u
#define XCR0_SSE     0x2u
#define XCR0_AVX     0x4u

/* PAE paging reads its four top entries when CR3 is loaded and faults then. */
static void check_pdptes(struct soft_cpu *cpu, uint64_t cr3)
{
	uint64_t reserved = ~(BIT64(cpu_policy(cpu)->maxphyaddr) - 1) | 0x1e6;

	for (unsigned i = 0; i < 4; i++) {
		uint64_t e;

		if (memory_read(cpu->mem, (cr3 & 0xffffffe0) + i * 8, &e, 8))
			continue;
		if (e & 1 && e & reserved)
			cpu_gp(cpu);
	}
}

static bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	return cr0 & CR0_PG && cr4 & CR4_PAE && !(efer & EFER_LME);
}

void cpu_write_cr0(struct soft_cpu *cpu, uint64_t v)
{
	uint64_t old = cpu->cr0, efer = cpu->efer;

	if (v >> 32 || (v & CR0_PG && !(v & CR0_PE)) ||
	    (v & CR0_NW && !(v & CR0_CD)))
		cpu_gp(cpu);
	v = (v & CR0_MASK) | CR0_ET;
	if (v & ~old & CR0_PG) {
		if (efer & EFER_LME) {
			if (!(cpu->cr4 & CR4_PAE) ||
			    cpu->seg[SEG_CS].access & ACC_L)
				cpu_gp(cpu);
			efer |= EFER_LMA;
		} else if (pae_paging(v, cpu->cr4, efer)) {
			check_pdptes(cpu, cpu->cr3);
		}
	} else if (old & ~v & CR0_PG) {
		if (cpu->mode == MODE_64 || cpu->cr4 & CR4_PCIDE)
			cpu_gp(cpu);
		efer &= ~(uint64_t)EFER_LMA;
	} else if ((v ^ old) & (CR0_CD | CR0_NW) && pae_paging(v, cpu->cr4, efer)) {
		check_pdptes(cpu, cpu->cr3);
	}
	cpu->cr0 = v;
	cpu->efer = efer;
	cpu_update_mode(cpu);
	if ((v ^ old) & (CR0_PG | CR0_PE | CR0_WP))
		mmu_flush_all(cpu);
	cpu->stop_block = true;
}

void cpu_write_cr3(struct soft_cpu *cpu, uint64_t v)
{
	bool noflush = false;

	if (cpu->long_mode) {
		if (cpu->cr4 & CR4_PCIDE) {
			noflush = v >> 63;
			v &= ~BIT64(63);
		}
		if (v >> cpu_policy(cpu)->maxphyaddr)
			cpu_gp(cpu);
	} else {
		v &= 0xffffffff;
		if (pae_paging(cpu->cr0, cpu->cr4, cpu->efer))
			check_pdptes(cpu, v);
	}
	cpu->cr3 = v;
	mmu_cr3_written(cpu, noflush);
	cpu->stop_block = true;
}

void cpu_write_cr4(struct soft_cpu *cpu, uint64_t v)
{
	uint64_t old = cpu->cr4;

	if (v & ~cpu_policy(cpu)->cr4_mask)
		cpu_gp(cpu);
	if (cpu->long_mode && !(v & CR4_PAE))
		cpu_gp(cpu);
	if (v & ~old & CR4_PCIDE && (!cpu->long_mode || cpu->cr3 & 0xfff))
		cpu_gp(cpu);
	if ((v ^ old) & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP) &&
	    pae_paging(cpu->cr0, v, cpu->efer))
		check_pdptes(cpu, cpu->cr3);
	cpu->cr4 = v;
	cpu_update_mode(cpu);
	if ((v ^ old) & CR4_TLB_BITS)
		mmu_flush_all(cpu);
	cpu->stop_block = true;
}

void cpu_write_xcr0(struct soft_cpu *cpu, uint64_t v)
{
	if (v & ~cpu_policy(cpu)->xcr0_mask || !(v & XCR0_X87) ||
	    (v & XCR0_AVX && !(v & XCR0_SSE)))
		cpu_gp(cpu);
	cpu->xcr0 = v;
	cpu->stop_block = true;
}

void sys_mov_cr(struct soft_cpu *cpu, const struct insn *in)
{
	bool store = in->op[0].kind == OPND_GPR;
	const struct operand *cr = &in->op[store ? 1 : 0];
	unsigned gpr = in->op[store ? 0 : 1].reg;
	unsigned size = cpu->mode == MODE_64 ? 8 : 4;
	uint64_t v;

	if (cr->reg == 1 || (cr->reg > 4 && cr->reg != 8))
		cpu_ud(cpu);
	need_cpl0(cpu);
	if (store) {
		switch (cr->reg) {
		case 0:
			v = cpu->cr0;
			break;
		case 2:
			v = cpu->cr2;
			break;
		case 3:
			v = cpu->cr3;
			break;
		case 4:
			v = cpu->cr4;
			break;
		default:
			v = cpu->host->cr8_read(cpu->host->arg, cpu->id);
		}
		gpr_set(cpu, gpr, size, v);
		return;
	}
	v = gpr_get(cpu, gpr, size);
	switch (cr->reg) {
	case 0:
		cpu_write_cr0(cpu, v);
		break;
	case 2:
		cpu->cr2 = v;
		break;
	case 3:
		cpu_write_cr3(cpu, v);
		break;
	case 4:
		cpu_write_cr4(cpu, v);
		break;
	default:
		if (v >> 4)
			cpu_gp(cpu);
		cpu->host->cr8_write(cpu->host->arg, cpu->id, v);
		/* A lower TPR may let a waiting interrupt through. */
		cpu->stop_block = true;
	}
}

void sys_clts(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	need_cpl0(cpu);
	cpu->cr0 &= ~(uint64_t)CR0_TS;
	cpu->stop_block = true;
}

/* LMSW writes PE, MP, EM, TS and cannot clear PE. */
void sys_lmsw(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t v;

	need_cpl0(cpu);
	v = opnd_read(cpu, in, &in->op[0], 2);
	cpu_write_cr0(cpu, (cpu->cr0 & ~UINT64_C(0xe)) | (v & 0xf));
}

void sys_smsw(struct soft_cpu *cpu, const struct insn *in)
{
	if (cpu->cr4 & CR4_UMIP && cpu->cpl > 0)
		cpu_gp(cpu);
	if (in->op[0].kind == OPND_MEM)
		opnd_write(cpu, in, &in->op[0], 2, cpu->cr0);
	else
		opnd_write(cpu, in, &in->op[0], in->opsize, cpu->cr0);
}

void sys_xgetbv(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t v;

	(void)in;
	if (!(cpu->cr4 & CR4_OSXSAVE))
		cpu_ud(cpu);
	if ((uint32_t)cpu->gpr[GPR_RCX] > 1)
		cpu_gp(cpu);
	v = cpu->xcr0;
	if ((uint32_t)cpu->gpr[GPR_RCX] == 1) {
		uint32_t r[4];

		cpu_cpuid(cpu, 0xd, 1, r);
		if (!(r[0] & 4))
			cpu_gp(cpu);
		v &= fpu_xinuse(cpu);
	}
	cpu->gpr[GPR_RAX] = (uint32_t)v;
	cpu->gpr[GPR_RDX] = v >> 32;
}

void sys_xsetbv(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	if (!(cpu->cr4 & CR4_OSXSAVE))
		cpu_ud(cpu);
	need_cpl0(cpu);
	if ((uint32_t)cpu->gpr[GPR_RCX] != 0)
		cpu_gp(cpu);
	cpu_write_xcr0(cpu, cpu->gpr[GPR_RDX] << 32 | (uint32_t)cpu->gpr[GPR_RAX]);
}
