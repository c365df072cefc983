/*
 * Debug registers (SDM vol. 3 chapter 17). Matching is here; run.c asks for
 * instruction breakpoints, mmu.c and string.c report data accesses, and #DB is
 * delivered by exception.c.
 */
#include "cpu/soft/sys.h"

#define DR6_ONE   0xffff0ff0u
#define DR6_BD    0x2000u
#define DR7_GD    0x2000u
#define DR7_FIXED 0x400u
#define DR7_MASK  0xffff23ffu

enum { DR_EXECUTE, DR_WRITE, DR_IO, DR_ACCESS };

static bool armed(const struct soft_cpu *cpu, unsigned n)
{
	return cpu->dr7 >> (n * 2) & 3;
}

static unsigned kind(const struct soft_cpu *cpu, unsigned n)
{
	return cpu->dr7 >> (16 + n * 4) & 3;
}

/* The range [start, start+len) a breakpoint covers: DRn is aligned down. */
static uint64_t range(const struct soft_cpu *cpu, unsigned n, uint64_t *start)
{
	static const uint8_t length[] = { 1, 2, 8, 4 };
	uint64_t len = length[cpu->dr7 >> (18 + n * 4) & 3];

	*start = cpu->dr[n] & ~(len - 1);
	return len;
}

uint64_t cpu_code_breakpoints(const struct soft_cpu *cpu)
{
	uint64_t hit = 0, lin;

	if (!(cpu->dr7 & 0xff) || cpu->rflags & RF_RF)
		return 0;
	lin = cpu->rip;
	if (cpu->mode != MODE_64)
		lin = (uint32_t)(cpu->seg[SEG_CS].base + lin);
	for (unsigned n = 0; n < 4; n++)
		if (armed(cpu, n) && kind(cpu, n) == DR_EXECUTE &&
		    cpu->dr[n] == lin)
			hit |= BIT(n);
	return hit;
}

bool cpu_data_breakpoints_armed(const struct soft_cpu *cpu)
{
	for (unsigned n = 0; n < 4; n++)
		if (armed(cpu, n) && kind(cpu, n) & DR_WRITE)
			return true;
	return cpu->engine->nwatches != 0;
}

void cpu_data_breakpoints(
    struct soft_cpu *cpu, uint64_t lin, unsigned size, bool write)
{
	if (cpu->engine->nwatches)
		debugger_access(cpu, lin, size, write);
	for (unsigned n = 0; n < 4; n++) {
		uint64_t start, len;

		if (!armed(cpu, n) || !(kind(cpu, n) & DR_WRITE) ||
		    (kind(cpu, n) == DR_WRITE && !write))
			continue;
		len = range(cpu, n, &start);
		if (lin < start + len && start < lin + size) {
			cpu->pending_db |= BIT(n);
			cpu->stop_block = true;
		}
	}
}

void sys_mov_dr(struct soft_cpu *cpu, const struct insn *in)
{
	bool store = in->op[0].kind == OPND_GPR;
	unsigned dr = in->op[store ? 1 : 0].reg, gpr = in->op[store ? 0 : 1].reg;
	unsigned size = cpu->mode == MODE_64 ? 8 : 4;
	uint64_t v;

	if (dr > 7)
		cpu_ud(cpu);
	if (dr == 4 || dr == 5) {
		if (cpu->cr4 & CR4_DE)
			cpu_ud(cpu);
		dr += 2;
	}
	need_cpl0(cpu);
	if (cpu->dr7 & DR7_GD) {
		cpu->pending_db = DR6_BD;
		cpu_raise(cpu, EXC_DB);
	}
	if (store) {
		v = dr < 4 ? cpu->dr[dr] : dr == 6 ? cpu->dr6 : cpu->dr7;
		gpr_set(cpu, gpr, size, v);
		return;
	}
	v = gpr_get(cpu, gpr, size);
	if (dr >= 6 && v >> 32)
		cpu_gp(cpu);
	if (dr < 4)
		cpu->dr[dr] = v;
	else if (dr == 6)
		cpu->dr6 = (v & 0xe00f) | DR6_ONE;
	else
		cpu->dr7 = (v & DR7_MASK) | DR7_FIXED;
	/* Armed data breakpoints keep accesses off the fast path: start over. */
	mmu_flush_all(cpu);
	cpu->stop_block = true;
}
