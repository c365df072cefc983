/*
 * Derived CPU state: operating mode, CPL, and what follows from them (SDM vol. 3
 * 2.2, 5.5; APM vol. 2 1.3). The CPL is SS.DPL, as in the VMCS and VMCB: unlike
 * CS.RPL it is right between MOV CR0 and the far jump, unlike CS.DPL it is right
 * in conforming code.
 */
#include "cpu/soft/sys.h"

enum mmu_idx mmu_idx_of(const struct soft_cpu *cpu, unsigned cpl)
{
	if (cpl == 3)
		return MMU_USER;
	if ((cpu->cr4 & CR4_SMAP) && !(cpu->rflags & RF_AC))
		return MMU_KERNEL_SMAP;
	return MMU_KERNEL;
}

void cpu_update_mode(struct soft_cpu *cpu)
{
	uint32_t cs = cpu->seg[SEG_CS].access, ss = cpu->seg[SEG_SS].access;
	bool pe = cpu->cr0 & CR0_PE, vm = pe && (cpu->rflags & RF_VM);

	cpu->long_mode = cpu->efer & EFER_LMA;
	cpu->protected_mode = pe && !vm;
	cpu->cpl = !pe ? 0 : vm ? 3 : ACC_DPL(ss);
	if (cpu->long_mode && (cs & ACC_L)) {
		cpu->mode = MODE_64;
		cpu->rip_mask = ~UINT64_C(0);
		cpu->stack_size = 8;
	} else {
		cpu->mode = cs & ACC_DB ? MODE_32 : MODE_16;
		cpu->rip_mask = cs & ACC_DB ? 0xffffffff : 0xffff;
		cpu->stack_size = ss & ACC_DB ? 4 : 2;
	}
	cpu->mmu_idx = mmu_idx_of(cpu, cpu->cpl);
}

void cpu_set_rflags(struct soft_cpu *cpu, uint64_t value, uint64_t mask)
{
	uint64_t old = cpu->rflags;

	cpu->rflags = (old & ~mask) | (value & mask) | 2;
	if ((old ^ cpu->rflags) & (RF_VM | RF_AC))
		cpu_update_mode(cpu);
	if (cpu->rflags & ~old & (RF_IF | RF_TF | RF_VIF))
		cpu->stop_block = true;
}
