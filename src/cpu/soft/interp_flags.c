/*
 * Flags the system owns: PUSHF, POPF, CLI, STI with IOPL, virtual-8086 mode and
 * its extensions (SDM vol. 3 20.3, 20.4), STAC, CLAC.
 */
#include "cpu/soft/sys.h"

/* Virtual-8086 code below IOPL 3: VME lets 16-bit forms work on VIF, else #GP. */
static bool vme_form(struct soft_cpu *cpu, unsigned size)
{
	if (!cpu_vm86(cpu) || cpu_iopl(cpu) == 3)
		return false;
	if (!(cpu->cr4 & CR4_VME) || size != 2)
		cpu_gp(cpu);
	return true;
}

void sys_pushf(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t flags = cpu->rflags & ~(uint64_t)(RF_RF | RF_VM);
	struct stk st;

	if (vme_form(cpu, in->opsize)) {
		flags = (flags & ~(uint64_t)RF_IF) | RF_IOPL;
		if (flags & RF_VIF)
			flags |= RF_IF;
	}
	stk_current(cpu, &st);
	stk_push(cpu, &st, in->opsize, flags);
	stk_commit(cpu, &st);
}

void sys_popf(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t mask = rflags_writable(cpu, in->opsize), flags;
	bool vme = vme_form(cpu, in->opsize);
	struct stk st;

	stk_current(cpu, &st);
	flags = stk_pop(cpu, &st, in->opsize);
	if (vme) {
		if (flags & RF_TF || (flags & RF_IF && cpu->rflags & RF_VIP))
			cpu_gp(cpu);
		if (flags & RF_IF)
			flags |= RF_VIF;
		mask = (mask & ~(uint64_t)RF_IF) | RF_VIF;
	}
	stk_commit(cpu, &st);
	cpu_set_rflags(cpu, flags, mask);
}

enum if_target { USE_IF, USE_VIF };

static enum if_target if_target(struct soft_cpu *cpu)
{
	if (cpu->cpl <= cpu_iopl(cpu))
		return USE_IF;
	if (cpu_vm86(cpu) ? !(cpu->cr4 & CR4_VME)
			  : cpu->cpl < 3 || !(cpu->cr4 & CR4_PVI))
		cpu_gp(cpu);
	return USE_VIF;
}

void sys_cli(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	cpu_set_rflags(cpu, 0, if_target(cpu) == USE_IF ? RF_IF : RF_VIF);
}

void sys_sti(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	if (if_target(cpu) == USE_IF) {
		if (!(cpu->rflags & RF_IF))
			cpu->shadow = true;
		cpu_set_rflags(cpu, RF_IF, RF_IF);
	} else {
		if (cpu->rflags & RF_VIP)
			cpu_gp(cpu);
		cpu_set_rflags(cpu, RF_VIF, RF_VIF);
	}
	cpu->stop_block = true;
}

static void write_ac(struct soft_cpu *cpu, uint64_t v)
{
	if (!(cpu_policy(cpu)->cr4_mask & CR4_SMAP) || cpu->cpl > 0)
		cpu_ud(cpu);
	cpu_set_rflags(cpu, v, RF_AC);
}

void sys_stac(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	write_ac(cpu, RF_AC);
}

void sys_clac(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	write_ac(cpu, 0);
}
