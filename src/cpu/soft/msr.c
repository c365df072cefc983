/*
 * Model-specific registers (SDM vol. 4; APM vol. 2 appendix A). What belongs to
 * the machine (APIC base, x2APIC, TSC deadline) is asked of the host first.
 *
 * Besides the architectural ones there are registers real kernels read or write
 * without looking, with the values bhyve gives them.
 */
#include <errno.h>

#include "cpu/cpuid.h"
#include "cpu/soft/sys.h"

enum {
	MSR_P5_MC_ADDR = 0x0, MSR_P5_MC_TYPE = 0x1, MSR_TSC = 0x10,
	MSR_PLATFORM_ID = 0x17, MSR_FEATURE_CONTROL = 0x3a, MSR_TSC_ADJUST = 0x3b,
	MSR_SPEC_CTRL = 0x48, MSR_PRED_CMD = 0x49, MSR_BIOS_UPDT_TRIG = 0x79,
	MSR_BIOS_SIGN_ID = 0x8b, MSR_PLATFORM_INFO = 0xce, MSR_MTRRCAP = 0xfe,
	MSR_ARCH_CAPABILITIES = 0x10a, MSR_FLUSH_CMD = 0x10b,
	MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP = 0x175, MSR_SYSENTER_EIP = 0x176,
	MSR_MCG_CAP = 0x179, MSR_MCG_STATUS = 0x17a, MSR_MCG_CTL = 0x17b,
	MSR_PERF_STATUS = 0x198, MSR_THERM_STATUS = 0x19c, MSR_MISC_ENABLE = 0x1a0,
	MSR_ENERGY_PERF_BIAS = 0x1b0, MSR_DEBUGCTL = 0x1d9, MSR_MTRR_PHYS = 0x200,
	MSR_MTRR_FIX64K = 0x250, MSR_MTRR_FIX16K = 0x258,
	MSR_MTRR_FIX4K = 0x268, MSR_PAT = 0x277, MSR_MTRR_DEF = 0x2ff, 
	
	MSR_RAPL_POWER_UNIT = 0x606, MSR_PKG_ENERGY = 0x611,
	MSR_DRAM_ENERGY = 0x619, MSR_PP0_ENERGY = 0x639, MSR_PP1_ENERGY = 0x641,
	MSR_XSS = 0xda0,
};
#define MSR_EFER           0xc0000080u
#define MSR_STAR           0xc0000081u
#define MSR_LSTAR          0xc0000082u
#define MSR_CSTAR          0xc0000083u
#define MSR_SFMASK         0xc0000084u
#define MSR_FS_BASE        0xc0000100u
#define MSR_GS_BASE        0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX        0xc0000103u
#define MSR_AMD_PERF       0xc0010000u /* four selectors, four counters */
#define MSR_AMD_PERF_LAST  0xc0010007u
#define MSR_AMD_SYSCFG     0xc0010010u
#define MSR_AMD_HWCR       0xc0010015u
#define MSR_AMD_NB_CFG     0xc001001fu
#define MSR_AMD_PATCH      0xc0010020u
#define MSR_AMD_PS_LIMIT   0xc0010061u
#define MSR_AMD_PS_CONTROL 0xc0010062u
#define MSR_AMD_PS_STATUS  0xc0010063u
#define MSR_AMD_PS_0       0xc0010064u
#define MSR_AMD_SMM_ADDR   0xc0010112u
#define MSR_AMD_SMM_MASK   0xc0010113u
#define MSR_AMD_VM_CR      0xc0010114u
#define MSR_AMD_LS_CFG     0xc0011020u
#define MSR_AMD_IC_CFG     0xc0011021u
#define MSR_AMD_DE_CFG     0xc0011029u

#define MTRR_VARIABLE      8u
#define MCG_BANKS          0u
/* Fast strings; no performance monitoring, branch trace or precise events here. */
#define MISC_ENABLE_READ_ONLY 0x1800u
#define HWCR_VALUE            0x01000210u
#define RAPL_UNITS            0x000a1003u

/*
 * RDTSCP and LFENCE; RDTSC promise that earlier loads are done; without the fence
 * the host reads its clock ahead of them and guests see it differ between vCPUs.
 */
uint64_t cpu_tsc(const struct soft_cpu *cpu)
{
	__builtin_ia32_lfence();
	return __builtin_ia32_rdtsc() + cpu->tsc_offset;
}

/* The machine's TSC-deadline timer follows the guest's TSC, too. */
static void move_tsc(struct soft_cpu *cpu, uint64_t by)
{
	cpu->tsc_offset += by;
	atomic_store(&cpu->link.tsc_offset, cpu->tsc_offset);
}

static uint64_t canonical_or_gp(struct soft_cpu *cpu, uint64_t v)
{
	if (!is_canonical(v))
		cpu_gp(cpu);
	return v;
}

static bool memory_type_valid(uint8_t t, bool pat)
{
	return t == 0 || t == 1 || (t >= 4 && t <= 6) || (pat && t == 7);
}

static void check_types(struct soft_cpu *cpu, uint64_t v, bool pat)
{
	for (unsigned i = 0; i < 8; i++)
		if (!memory_type_valid(v >> (i * 8), pat))
			cpu_gp(cpu);
}

static void write_efer(struct soft_cpu *cpu, uint64_t v)
{
	uint64_t old = cpu->efer;

	if (v & ~cpu_policy(cpu)->efer_mask)
		cpu_gp(cpu);
	if ((v ^ old) & EFER_LME && cpu->cr0 & CR0_PG)
		cpu_gp(cpu);
	/* LMA follows CR0.PG only. */
	cpu->efer = (v & ~(uint64_t)EFER_LMA) | (old & EFER_LMA);
	if ((v ^ old) & EFER_NXE)
		mmu_flush_all(cpu);
	cpu_update_mode(cpu);
}

static uint64_t *fixed_mtrr(struct soft_cpu *cpu, uint32_t msr)
{
	if (msr == MSR_MTRR_FIX64K)
		return &cpu->mtrr_fixed[0];
	if (msr == MSR_MTRR_FIX16K || msr == MSR_MTRR_FIX16K + 1)
		return &cpu->mtrr_fixed[1 + msr - MSR_MTRR_FIX16K];
	if (msr >= MSR_MTRR_FIX4K && msr < MSR_MTRR_FIX4K + 8)
		return &cpu->mtrr_fixed[3 + msr - MSR_MTRR_FIX4K];
	return NULL;
}

static uint64_t *variable_mtrr(struct soft_cpu *cpu, uint32_t msr)
{
	unsigned n = msr - MSR_MTRR_PHYS;

	if (msr < MSR_MTRR_PHYS || n >= MTRR_VARIABLE * 2)
		return NULL;
	return n & 1 ? &cpu->mtrr_mask[n / 2] : &cpu->mtrr_base[n / 2];
}

/* 0 or -ENOENT. */
static int read_mtrr(struct soft_cpu *cpu, uint32_t msr, uint64_t *v)
{
	const uint64_t *p = fixed_mtrr(cpu, msr);

	if (!p)
		p = variable_mtrr(cpu, msr);
	if (p)
		*v = *p;
	else if (msr == MSR_MTRRCAP)
		*v = MTRR_VARIABLE | 0x500; /* fixed ranges, write combining */
	else if (msr == MSR_MTRR_DEF)
		*v = cpu->mtrr_def;
	else
		return -ENOENT;
	return 0;
}

static int write_mtrr(struct soft_cpu *cpu, uint32_t msr, uint64_t v)
{
	uint64_t reserved = ~(BIT64(cpu_policy(cpu)->maxphyaddr) - 1), *p;

	if ((p = fixed_mtrr(cpu, msr))) {
		check_types(cpu, v, false);
		*p = v;
	} else if ((p = variable_mtrr(cpu, msr))) {
		if (msr & 1) {
			if (v & (reserved | 0x7ff))
				cpu_gp(cpu);
		} else if (v & (reserved | 0xf00) || !memory_type_valid(v, false)) {
			cpu_gp(cpu);
		}
		*p = v;
	} else if (msr == MSR_MTRR_DEF) {
		if (v & ~UINT64_C(0xcff) || !memory_type_valid(v, false))
			cpu_gp(cpu);
		cpu->mtrr_def = v;
	} else if (msr == MSR_MTRRCAP) {
		cpu_gp(cpu);
	} else {
		return -ENOENT;
	}
	return 0;
}

static int read_vendor(struct soft_cpu *cpu, uint32_t msr, uint64_t *v)
{
	*v = 0;
	if (cpu_policy(cpu)->amd) {
		if (msr >= MSR_AMD_PERF && msr <= MSR_AMD_PERF_LAST)
			return 0;
		switch (msr) {
		case MSR_AMD_HWCR:
			*v = HWCR_VALUE;
			return 0;
		case MSR_AMD_DE_CFG:
			*v = 2; /* LFENCE serialises */
			return 0;
		case MSR_AMD_VM_CR:
			*v = 0x10; /* SVM off */
			return 0;
		case MSR_AMD_SYSCFG:
		case MSR_AMD_NB_CFG:
		case MSR_AMD_LS_CFG:
		case MSR_AMD_IC_CFG:
		case MSR_AMD_SMM_ADDR:
		case MSR_AMD_SMM_MASK:
		/*
		 * HWCR says that the TSC runs at P0's frequency: OpenBSD and Linux
		 * then read P0. Zero: not valid, and they measure.
		 */
		case MSR_AMD_PS_LIMIT:
		case MSR_AMD_PS_CONTROL:
		case MSR_AMD_PS_STATUS:
		case MSR_AMD_PS_0:
			return 0;
		}
		return -ENOENT;
	}
	switch (msr) {
	case MSR_RAPL_POWER_UNIT:
		*v = RAPL_UNITS;
		return 0;
	case MSR_PKG_ENERGY:
	case MSR_DRAM_ENERGY:
	case MSR_PP0_ENERGY:
	case MSR_PP1_ENERGY:
	case MSR_ENERGY_PERF_BIAS:
	case MSR_THERM_STATUS:
		return 0;
	case MSR_PERF_STATUS:
	case MSR_PLATFORM_INFO: /* ratio to a 100 MHz bus, as CPUID 0x16 has it */
		*v = (cpu->engine->cfg.tsc_hz / 100000000 & 0xff) << 8;
		return 0;
	}
	return -ENOENT;
}

static int read_architectural(struct soft_cpu *cpu, uint32_t msr, uint64_t *v)
{
	switch (msr) {
	case MSR_TSC:
		*v = cpu_tsc(cpu);
		return 0;
	case MSR_EFER:
		*v = cpu->efer;
		return 0;
	case MSR_STAR:
		*v = cpu->star;
		return 0;
	case MSR_LSTAR:
		*v = cpu->lstar;
		return 0;
	case MSR_CSTAR:
		*v = cpu->cstar;
		return 0;
	case MSR_SFMASK:
		*v = cpu->sfmask;
		return 0;
	case MSR_FS_BASE:
		*v = cpu->seg[SEG_FS].base;
		return 0;
	case MSR_GS_BASE:
		*v = cpu->seg[SEG_GS].base;
		return 0;
	case MSR_KERNEL_GS_BASE:
		*v = cpu->kernel_gs_base;
		return 0;
	case MSR_SYSENTER_CS:
		*v = cpu->sysenter_cs;
		return 0;
	case MSR_SYSENTER_ESP:
		*v = cpu->sysenter_esp;
		return 0;
	case MSR_SYSENTER_EIP:
		*v = cpu->sysenter_eip;
		return 0;
	case MSR_PAT:
		*v = cpu->pat;
		return 0;
	}
	return -ENOENT;
}

/* Registers that exist when CPUID says so, and the harmless rest. */
static int read_other(struct soft_cpu *cpu, uint32_t msr, uint64_t *v)
{
	const struct cpu_policy *p = cpu_policy(cpu);

	*v = 0;
	switch (msr) {
	case MSR_TSC_AUX:
		*v = cpu->tsc_aux;
		return p->rdtscp || p->rdpid ? 0 : -ENOENT;
	case MSR_TSC_ADJUST:
		*v = cpu->tsc_adjust;
		return p->has_tsc_adjust ? 0 : -ENOENT;
	case MSR_SPEC_CTRL:
		*v = cpu->spec_ctrl;
		return p->has_spec_ctrl ? 0 : -ENOENT;
	case MSR_ARCH_CAPABILITIES:
		*v = cpuid_arch_capabilities();
		return p->has_arch_cap ? 0 : -ENOENT;
	case MSR_MISC_ENABLE:
		*v = cpu->misc_enable | MISC_ENABLE_READ_ONLY;
		return 0;
	case MSR_FEATURE_CONTROL:
		*v = 1; /* locked, VMX off */
		return p->amd ? -ENOENT : 0;
	case MSR_MCG_CAP:
		*v = MCG_BANKS;
		return 0;
	case MSR_BIOS_SIGN_ID:
	case MSR_PLATFORM_ID:
	case MSR_P5_MC_ADDR:
	case MSR_P5_MC_TYPE:
	case MSR_MCG_STATUS:
	case MSR_DEBUGCTL:
		return 0;
	case MSR_XSS:
		*v = cpu->xss;
		return 0;
	}
	return -ENOENT;
}

uint64_t cpu_rdmsr(struct soft_cpu *cpu, uint32_t msr)
{
	uint64_t v = 0;
	int rc = read_architectural(cpu, msr, &v);

	if (rc == -ENOENT)
		rc = cpu->host->msr_read(cpu->host->arg, cpu->id, msr, &v);
	if (rc == -ENOENT)
		rc = read_mtrr(cpu, msr, &v);
	if (rc == -ENOENT)
		rc = read_other(cpu, msr, &v);
	if (rc == -ENOENT)
		rc = read_vendor(cpu, msr, &v);
	if (rc == -ENOENT && !cpu->engine->cfg.strict_msr)
		return 0;
	if (rc)
		cpu_gp(cpu);
	return v;
}

static int write_architectural(struct soft_cpu *cpu, uint32_t msr, uint64_t v)
{
	switch (msr) {
	case MSR_TSC:
		v -= cpu_tsc(cpu);
		move_tsc(cpu, v);
		cpu->tsc_adjust += v;
		return 0;
	case MSR_EFER:
		write_efer(cpu, v);
		return 0;
	case MSR_STAR:
		cpu->star = v;
		return 0;
	case MSR_LSTAR:
		cpu->lstar = canonical_or_gp(cpu, v);
		return 0;
	case MSR_CSTAR:
		cpu->cstar = canonical_or_gp(cpu, v);
		return 0;
	case MSR_SFMASK:
		if (v >> 32)
			cpu_gp(cpu);
		cpu->sfmask = v;
		return 0;
	case MSR_FS_BASE:
		cpu->seg[SEG_FS].base = canonical_or_gp(cpu, v);
		return 0;
	case MSR_GS_BASE:
		cpu->seg[SEG_GS].base = canonical_or_gp(cpu, v);
		return 0;
	case MSR_KERNEL_GS_BASE:
		cpu->kernel_gs_base = canonical_or_gp(cpu, v);
		return 0;
	case MSR_SYSENTER_CS:
		cpu->sysenter_cs = (uint32_t)v;
		return 0;
	case MSR_SYSENTER_ESP:
		cpu->sysenter_esp = canonical_or_gp(cpu, v);
		return 0;
	case MSR_SYSENTER_EIP:
		cpu->sysenter_eip = canonical_or_gp(cpu, v);
		return 0;
	case MSR_PAT:
		check_types(cpu, v, true);
		cpu->pat = v;
		return 0;
	}
	return -ENOENT;
}

static int write_other(struct soft_cpu *cpu, uint32_t msr, uint64_t v)
{
	const struct cpu_policy *p = cpu_policy(cpu);

	switch (msr) {
	case MSR_TSC_AUX:
		if (!p->rdtscp && !p->rdpid)
			return -ENOENT;
		if (v >> 32)
			cpu_gp(cpu);
		cpu->tsc_aux = v;
		return 0;
	case MSR_TSC_ADJUST:
		if (!p->has_tsc_adjust)
			return -ENOENT;
		move_tsc(cpu, v - cpu->tsc_adjust);
		cpu->tsc_adjust = v;
		return 0;
	case MSR_SPEC_CTRL:
		if (!p->has_spec_ctrl)
			return -ENOENT;
		if (v & ~UINT64_C(0x4f7))
			cpu_gp(cpu);
		cpu->spec_ctrl = v;
		return 0;
	case MSR_PRED_CMD:
		return p->has_spec_ctrl ? 0 : -ENOENT;
	case MSR_FLUSH_CMD:
		return p->has_arch_cap ? 0 : -ENOENT;
	case MSR_MISC_ENABLE:
		cpu->misc_enable = v & ~(uint64_t)MISC_ENABLE_READ_ONLY;
		return 0;
	case MSR_XSS:
		if (v)
			cpu_gp(cpu);
		return 0;
	case MSR_BIOS_SIGN_ID:
	case MSR_BIOS_UPDT_TRIG:
	case MSR_MCG_STATUS:
	case MSR_MCG_CTL:
	case MSR_DEBUGCTL:
		return 0;
	case MSR_ARCH_CAPABILITIES:
	case MSR_MCG_CAP:
	case MSR_FEATURE_CONTROL:
	case MSR_PLATFORM_INFO:
		cpu_gp(cpu);
	}
	return -ENOENT;
}

static int write_vendor(struct soft_cpu *cpu, uint32_t msr)
{
	if (!cpu_policy(cpu)->amd)
		return msr == MSR_ENERGY_PERF_BIAS || msr == MSR_THERM_STATUS
			   ? 0
			   : -ENOENT;
	if (msr >= MSR_AMD_PERF && msr <= MSR_AMD_PERF_LAST)
		return 0;
	switch (msr) {
	case MSR_AMD_HWCR:
	case MSR_AMD_PS_CONTROL:
	case MSR_AMD_LS_CFG:
	case MSR_AMD_DE_CFG:
	case MSR_AMD_SYSCFG:
	case MSR_AMD_NB_CFG:
	case MSR_AMD_IC_CFG:
	case MSR_AMD_PATCH:
	case MSR_AMD_VM_CR:
		return 0;
	}
	return -ENOENT;
}

void cpu_wrmsr(struct soft_cpu *cpu, uint32_t msr, uint64_t v)
{
	int rc = write_architectural(cpu, msr, v);

	if (rc == -ENOENT)
		rc = cpu->host->msr_write(cpu->host->arg, cpu->id, msr, v);
	if (rc == -ENOENT)
		rc = write_mtrr(cpu, msr, v);
	if (rc == -ENOENT)
		rc = write_other(cpu, msr, v);
	if (rc == -ENOENT)
		rc = write_vendor(cpu, msr);
	if (rc && (rc != -ENOENT || cpu->engine->cfg.strict_msr))
		cpu_gp(cpu);
	cpu->stop_block = true;
}

void sys_rdmsr(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t v;

	(void)in;
	need_cpl0(cpu);
	v = cpu_rdmsr(cpu, cpu->gpr[GPR_RCX]);
	cpu->gpr[GPR_RAX] = (uint32_t)v;
	cpu->gpr[GPR_RDX] = v >> 32;
}

void sys_wrmsr(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	need_cpl0(cpu);
	cpu_wrmsr(cpu, cpu->gpr[GPR_RCX],
	    cpu->gpr[GPR_RDX] << 32 | (uint32_t)cpu->gpr[GPR_RAX]);
}
