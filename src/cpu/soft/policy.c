/*
 * What the guest was promised through CPUID, as masks for the checks of CR4, EFER
 * and XCR0; and CPUID itself, cached since answering is slow on nested hosts.
 */
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/soft/sys.h"

#define MSR_APIC_BASE 0x1bu
#define APIC_ENABLED  0x800u
#define APIC_X2APIC   0x400u

/* The guest state CPUID mirrors, packed: a change empties the cache. */
static uint64_t context(struct soft_cpu *cpu, struct cpuid_context *ctx)
{
	uint64_t base = 0;
	bool on, x2;

	if (cpu->host->msr_read(cpu->host->arg, cpu->id, MSR_APIC_BASE, &base))
		base = APIC_ENABLED;
	on = base & APIC_ENABLED;
	x2 = on && base & APIC_X2APIC;
	*ctx = (struct cpuid_context){
		.cpu = cpu->id,
		.cr4 = cpu->cr4,
		.xcr0 = cpu->xcr0,
		.apic_enabled = on,
		.x2apic = x2,
	};
	return (cpu->cr4 << 10) | (cpu->xcr0 & 0xff) << 2 |
	       (on ? 2 : 0) | (x2 ? 1 : 0);
}

void cpu_cpuid(
    struct soft_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	struct cpu_policy *p = &cpu->policy;
	struct cpuid_context ctx;
	struct cpuid_regs r;
	uint64_t key = context(cpu, &ctx);

	if (key != p->cache_key) {
		p->cached = 0;
		p->cache_key = key;
	}
	for (unsigned i = 0; i < p->cached; i++)
		if (p->cache[i].leaf == leaf && p->cache[i].subleaf == subleaf) {
			memcpy(out, p->cache[i].out, sizeof(p->cache[i].out));
			return;
		}
	cpuid_guest(&cpu->engine->cfg, &ctx, leaf, subleaf, &r);
	out[0] = r.eax;
	out[1] = r.ebx;
	out[2] = r.ecx;
	out[3] = r.edx;
	if (p->cached < CPUID_CACHE) {
		p->cache[p->cached].leaf = leaf;
		p->cache[p->cached].subleaf = subleaf;
		memcpy(p->cache[p->cached].out, out, sizeof(p->cache[0].out));
		p->cached++;
	}
}

static void allow(uint64_t *mask, bool feature, uint64_t bit)
{
	if (feature)
		*mask |= bit;
}

static void fill(struct soft_cpu *cpu, struct cpu_policy *p)
{
	uint32_t l0[4], l1[4], l7[4] = { 0 }, ld[4] = { 0 }, e0[4], e1[4] = { 0 };
	uint32_t e8[4] = { 36 }, e21[4] = { 0 }, bits;

	cpu_cpuid(cpu, 0, 0, l0);
	cpu_cpuid(cpu, 1, 0, l1);
	if (l0[0] >= 7)
		cpu_cpuid(cpu, 7, 0, l7);
	if (l0[0] >= 0xd)
		cpu_cpuid(cpu, 0xd, 0, ld);
	cpu_cpuid(cpu, 0x80000000, 0, e0);
	if (e0[0] >= 0x80000001)
		cpu_cpuid(cpu, 0x80000001, 0, e1);
	if (e0[0] >= 0x80000008)
		cpu_cpuid(cpu, 0x80000008, 0, e8);
	if (e0[0] >= 0x80000021)
		cpu_cpuid(cpu, 0x80000021, 0, e21);

	p->amd =
	    l0[2] == 0x444d4163 || l0[2] == 0x656e6975; /* "cAMD", "uine" (Hygon) */
	p->lm = e1[3] & BIT(29);
	bits = e8[0] & 0xff;
	p->maxphyaddr = bits < 36 ? 36 : bits > 52 ? 52 : bits;
	p->rdtscp = e1[3] & BIT(27);
	p->rdpid = l7[2] & BIT(22);
	p->rdrand = l1[2] & BIT(30);
	p->rdseed = l7[1] & BIT(18);
	p->invpcid = l7[1] & BIT(10);
	p->has_tsc_adjust = l7[1] & BIT(1);
	p->has_arch_cap = l7[3] & BIT(29);
	p->has_spec_ctrl = l7[3] & (BIT(26) | BIT(27) | BIT(31)) ||
			   e8[1] & (BIT(14) | BIT(15) | BIT(24));
	p->has_mca = l1[3] & BIT(14);

	p->cr4_mask = 0;
	allow(&p->cr4_mask, l1[3] & BIT(1), CR4_VME | CR4_PVI);
	allow(&p->cr4_mask, l1[3] & BIT(4), CR4_TSD);
	allow(&p->cr4_mask, l1[3] & BIT(2), CR4_DE);
	allow(&p->cr4_mask, l1[3] & BIT(3), CR4_PSE);
	allow(&p->cr4_mask, l1[3] & BIT(6), CR4_PAE);
	allow(&p->cr4_mask, l1[3] & (BIT(7) | BIT(14)), CR4_MCE);
	allow(&p->cr4_mask, l1[3] & BIT(13), CR4_PGE);
	allow(&p->cr4_mask, l1[3] & BIT(24), CR4_OSFXSR);
	allow(&p->cr4_mask, l1[3] & BIT(25), CR4_OSXMMEXCPT);
	allow(&p->cr4_mask, l1[2] & BIT(17), CR4_PCIDE);
	allow(&p->cr4_mask, l1[2] & BIT(26), CR4_OSXSAVE);
	allow(&p->cr4_mask, l7[1] & BIT(0), CR4_FSGSBASE);
	allow(&p->cr4_mask, l7[1] & BIT(7), CR4_SMEP);
	allow(&p->cr4_mask, l7[1] & BIT(20), CR4_SMAP);
	allow(&p->cr4_mask, l7[2] & BIT(2), CR4_UMIP);
	/* RDPMC always faults, so that user mode's right to it changes nothing. */
	p->cr4_mask |= CR4_PCE;

	p->efer_mask = 0;
	allow(&p->efer_mask, e1[3] & BIT(11) || p->lm, EFER_SCE);
	allow(&p->efer_mask, p->lm, EFER_LME | EFER_LMA);
	allow(&p->efer_mask, e1[3] & BIT(20), EFER_NXE);
	allow(&p->efer_mask, e21[0] & BIT(8), EFER_AUTOIBRS);
	p->xcr0_mask = l1[2] & BIT(26) ? ld[0] | (uint64_t)ld[3] << 32 : 1;
	p->ready = true;
}

const struct cpu_policy *cpu_policy(struct soft_cpu *cpu)
{
	if (!cpu->policy.ready)
		fill(cpu, &cpu->policy);
	return &cpu->policy;
}
