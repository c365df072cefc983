/*
 * Fast system calls and the FS/GS bases: SYSCALL, SYSRET, SYSENTER, SYSEXIT,
 * SWAPGS, RDFSBASE ... (SDM vol. 2; APM vol. 3). Intel and AMD differ; the guest
 * sees the host's vendor, and kernels patch themselves by it.
 *
 * SYSCALL and SYSRET also run while guest vectors are in the host's registers
 * (jit/gate.c): compiled for integer registers only.
 */
#include "cpu/soft/sys.h"

/* Bits SYSRET takes from R11. */
#define SYSRET_FLAGS 0x3c7fd7u

/* Code and data segments as SYSCALL, SYSENTER and SYSEXIT make them. */
static void set_flat_code(struct soft_cpu *cpu, uint16_t sel, unsigned dpl, bool is64)
{
	cpu->seg[SEG_CS] = (struct soft_seg){
		.sel = sel,
		.limit = 0xffffffff,
		.access = ACC_G | (is64 ? ACC_L : ACC_DB) | ACC_P | dpl << 5 |
			  ACC_S | ACC_CODE | ACC_RW | ACC_A,
	};
}

static void set_flat_stack(struct soft_cpu *cpu, uint16_t sel, unsigned dpl)
{
	cpu->seg[SEG_SS] = (struct soft_seg){
		.sel = sel,
		.limit = 0xffffffff,
		.access =
		    ACC_G | ACC_DB | ACC_P | dpl << 5 | ACC_S | ACC_RW | ACC_A,
	};
}

void sys_syscall(struct soft_cpu *cpu, const struct insn *in)
{
	bool mode64 = cpu->mode == MODE_64;
	uint16_t sel = (cpu->star >> 32) & 0xfffc;

	(void)in;
	if (!(cpu->efer & EFER_SCE) || !cpu->protected_mode ||
	    (!mode64 && !cpu_policy(cpu)->amd))
		cpu_ud(cpu);
	cpu->stop_block = true;
	if (cpu->long_mode) {
		cpu->gpr[GPR_RCX] = cpu->next_rip;
		cpu->gpr[GPR_R11] = cpu->rflags & ~(uint64_t)RF_RF;
		cpu->next_rip = mode64 ? cpu->lstar : cpu->cstar;
		cpu->rflags = (cpu->rflags & ~(cpu->sfmask | RF_RF)) | 2;
	} else {
		cpu->gpr[GPR_RCX] = (uint32_t)cpu->next_rip;
		cpu->next_rip = (uint32_t)cpu->star;
		cpu->rflags &= ~(uint64_t)(RF_IF | RF_RF | RF_VM);
	}
	set_flat_code(cpu, sel, 0, cpu->long_mode);
	set_flat_stack(cpu, sel + 8, 0);
	cpu_update_mode(cpu);
}

void sys_sysret(struct soft_cpu *cpu, const struct insn *in)
{
	uint16_t sel = cpu->star >> 48;
	uint64_t flags;
	bool to64 = in->opsize == 8;

	if (!(cpu->efer & EFER_SCE) || !cpu->protected_mode ||
	    (cpu->mode != MODE_64 && !cpu_policy(cpu)->amd))
		cpu_ud(cpu);
	need_cpl0(cpu);
	/* Intel's faults here, still in ring 0; AMD's at the fetch in ring 3. */
	if (to64 && !is_canonical(cpu->gpr[GPR_RCX]) && !cpu_policy(cpu)->amd)
		cpu_gp(cpu);
	cpu->stop_block = true;
	if (cpu->long_mode)
		flags = (cpu->gpr[GPR_R11] & SYSRET_FLAGS) | 2;
	else
		flags = cpu->rflags | RF_IF;
	cpu->next_rip = to64 ? cpu->gpr[GPR_RCX] : (uint32_t)cpu->gpr[GPR_RCX];
	set_flat_code(cpu, (to64 ? sel + 16 : sel) | 3, 3, to64);
	set_flat_stack(cpu, (sel + 8) | 3, 3);
	cpu_set_rflags(cpu, flags, ~UINT64_C(0));
	cpu_update_mode(cpu);
}

void sys_sysenter(struct soft_cpu *cpu, const struct insn *in)
{
	uint16_t sel = cpu->sysenter_cs & 0xfffc;

	(void)in;
	if (cpu->long_mode && cpu_policy(cpu)->amd)
		cpu_ud(cpu);
	if (!(cpu->cr0 & CR0_PE) || sel == 0)
		cpu_gp(cpu);
	cpu->stop_block = true;
	cpu->rflags &= ~(uint64_t)(RF_VM | RF_IF | RF_RF);
	if (cpu->long_mode) {
		cpu->gpr[GPR_RSP] = cpu->sysenter_esp;
		cpu->next_rip = cpu->sysenter_eip;
	} else {
		cpu->gpr[GPR_RSP] = (uint32_t)cpu->sysenter_esp;
		cpu->next_rip = (uint32_t)cpu->sysenter_eip;
	}
	set_flat_code(cpu, sel, 0, cpu->long_mode);
	set_flat_stack(cpu, sel + 8, 0);
	cpu_update_mode(cpu);
}

void sys_sysexit(struct soft_cpu *cpu, const struct insn *in)
{
	uint16_t sel = cpu->sysenter_cs & 0xfffc;
	bool to64 = in->opsize == 8;

	if (cpu->long_mode && cpu_policy(cpu)->amd)
		cpu_ud(cpu);
	if (!cpu->protected_mode || sel == 0)
		cpu_gp(cpu);
	need_cpl0(cpu);
	if (to64 &&
	    (!is_canonical(cpu->gpr[GPR_RCX]) || !is_canonical(cpu->gpr[GPR_RDX])))
		cpu_gp(cpu);
	cpu->stop_block = true;
	cpu->next_rip = gpr_get(cpu, GPR_RDX, to64 ? 8 : 4);
	cpu->gpr[GPR_RSP] = gpr_get(cpu, GPR_RCX, to64 ? 8 : 4);
	set_flat_code(cpu, (sel + (to64 ? 32 : 16)) | 3, 3, to64);
	set_flat_stack(cpu, (sel + (to64 ? 40 : 24)) | 3, 3);
	cpu_update_mode(cpu);
}

void sys_swapgs(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t base = cpu->seg[SEG_GS].base;

	(void)in;
	if (cpu->mode != MODE_64)
		cpu_ud(cpu);
	need_cpl0(cpu);
	cpu->seg[SEG_GS].base = cpu->kernel_gs_base;
	cpu->kernel_gs_base = base;
}

static void need_fsgsbase(struct soft_cpu *cpu)
{
	if (cpu->mode != MODE_64 || !(cpu->cr4 & CR4_FSGSBASE))
		cpu_ud(cpu);
}

static void read_base(struct soft_cpu *cpu, const struct insn *in, unsigned seg)
{
	need_fsgsbase(cpu);
	gpr_set(cpu, in->op[0].reg, in->opsize == 8 ? 8 : 4, cpu->seg[seg].base);
}

static void write_base(struct soft_cpu *cpu, const struct insn *in, unsigned seg)
{
	uint64_t v;

	need_fsgsbase(cpu);
	v = gpr_get(cpu, in->op[0].reg, in->opsize == 8 ? 8 : 4);
	if (!is_canonical(v))
		cpu_gp(cpu);
	cpu->seg[seg].base = v;
}

void sys_rdfsbase(struct soft_cpu *cpu, const struct insn *in)
{
	read_base(cpu, in, SEG_FS);
}

void sys_rdgsbase(struct soft_cpu *cpu, const struct insn *in)
{
	read_base(cpu, in, SEG_GS);
}

void sys_wrfsbase(struct soft_cpu *cpu, const struct insn *in)
{
	write_base(cpu, in, SEG_FS);
}

void sys_wrgsbase(struct soft_cpu *cpu, const struct insn *in)
{
	write_base(cpu, in, SEG_GS);
}
