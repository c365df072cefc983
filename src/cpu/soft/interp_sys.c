/*
 * The privileged half's table of handlers, and the small ones: HLT, CPUID, RDTSC,
 * INVLPG, INT n, RDRAND, what always raises #UD.
 */
#include <immintrin.h>

#include <Zydis/Zydis.h>

#include "cpu/soft/sys.h"

const uint8_t *insn_opcode(const struct insn *in)
{
	const uint8_t *p = in->bytes, *end = in->bytes + sizeof(in->bytes) - 2;

	for (; p < end; p++) {
		switch (*p) {
		case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65:
		case 0x66: case 0x67: case 0xf0: case 0xf2: case 0xf3:
			continue;
		}
		if (in->mode != MODE_64 || (*p & 0xf0) != 0x40)
			break;
	}
	return p;
}

uint64_t opnd_read(struct soft_cpu *cpu, const struct insn *in,
    const struct operand *o, unsigned size)
{
	switch (o->kind) {
	case OPND_GPR:
		return gpr_get(cpu, o->reg, size);
	case OPND_MEM:
		return mmu_load(cpu, insn_linear(cpu, in, size, false), size);
	default:
		cpu_ud(cpu);
	}
}

void opnd_write(struct soft_cpu *cpu, const struct insn *in,
    const struct operand *o, unsigned size, uint64_t v)
{
	switch (o->kind) {
	case OPND_GPR:
		gpr_set(cpu, o->reg, size, v);
		break;
	case OPND_MEM:
		mmu_store(cpu, insn_linear(cpu, in, size, true), size,
		    v & size_mask(size));
		break;
	default:
		cpu_ud(cpu);
	}
}

void sys_ud(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	cpu_ud(cpu);
}

static void software(
    struct soft_cpu *cpu, int vector, enum event_kind kind, bool int_n)
{
	struct event ev = {
		.kind = kind,
		.vector = vector,
		.int_n = int_n,
		.rip = cpu->next_rip,
		.rflags = cpu->rflags & ~(uint64_t)RF_RF,
	};

	event_deliver(cpu, &ev);
}

void sys_int(struct soft_cpu *cpu, const struct insn *in)
{
	software(cpu, insn_opcode(in)[1], EVENT_SOFTWARE, true);
}

void sys_int1(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	software(cpu, EXC_DB, EVENT_ICEBP, false);
}

void sys_int3(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	software(cpu, EXC_BP, EVENT_SOFTWARE, false);
}

void sys_into(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	if (cpu->mode == MODE_64)
		cpu_ud(cpu);
	if (cpu->rflags & RF_OF)
		software(cpu, EXC_OF, EVENT_SOFTWARE, false);
}

void sys_hlt(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	need_cpl0(cpu);
	cpu->stats.hlt++;
	cpu->halted = true;
	cpu->stop_block = true;
}

/* Caches are the host's and coherent. */
void sys_wbinvd(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	need_cpl0(cpu);
}

void sys_invlpg(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t lin;

	if (in->op[0].kind != OPND_MEM)
		cpu_ud(cpu);
	need_cpl0(cpu);
	/* An address only: no limit, no canonical check. */
	lin = insn_offset(cpu, in);
	if (cpu->mode != MODE_64)
		lin = (uint32_t)(lin + cpu->seg[in->seg].base);
	else if (in->seg == SEG_FS || in->seg == SEG_GS)
		lin += cpu->seg[in->seg].base;
	mmu_flush_page(cpu, lin);
	cpu->stop_block = true;
}

void sys_invpcid(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t type, lin, pcid, addr;

	if (!cpu_policy(cpu)->invpcid)
		cpu_ud(cpu);
	need_cpl0(cpu);
	type = gpr_get(cpu, in->op[0].reg, cpu->mode == MODE_64 ? 8 : 4);
	lin = insn_linear(cpu, in, 16, false);
	pcid = mmu_load(cpu, lin, 8);
	addr = mmu_load(cpu, lin + 8, 8);
	if (type > 3 || pcid >> 12 || (type == 0 && !is_canonical(addr)) ||
	    (type < 2 && pcid != 0 && !(cpu->cr4 & CR4_PCIDE)))
		cpu_gp(cpu);
	mmu_invpcid(cpu, type, pcid, addr);
	cpu->stop_block = true;
}

void sys_cpuid(struct soft_cpu *cpu, const struct insn *in)
{
	uint32_t r[4];

	(void)in;
	cpu_cpuid(cpu, cpu->gpr[GPR_RAX], cpu->gpr[GPR_RCX], r);
	cpu->gpr[GPR_RAX] = r[0];
	cpu->gpr[GPR_RBX] = r[1];
	cpu->gpr[GPR_RCX] = r[2];
	cpu->gpr[GPR_RDX] = r[3];
}

void sys_rdtsc(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t tsc;

	(void)in;
	if (cpu->cr4 & CR4_TSD && cpu->cpl > 0)
		cpu_gp(cpu);
	tsc = cpu_tsc(cpu);
	cpu->gpr[GPR_RAX] = (uint32_t)tsc;
	cpu->gpr[GPR_RDX] = tsc >> 32;
}

void sys_rdtscp(struct soft_cpu *cpu, const struct insn *in)
{
	if (!cpu_policy(cpu)->rdtscp)
		cpu_ud(cpu);
	sys_rdtsc(cpu, in);
	cpu->gpr[GPR_RCX] = (uint32_t)cpu->tsc_aux;
}

void sys_rdpid(struct soft_cpu *cpu, const struct insn *in)
{
	if (!cpu_policy(cpu)->rdpid)
		cpu_ud(cpu);
	gpr_set(cpu, in->op[0].reg, cpu->mode == MODE_64 ? 8 : 4, cpu->tsc_aux);
}

/* No counters are promised: every index is invalid. */
void sys_rdpmc(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	cpu_gp(cpu);
}

__attribute__((target("rdrnd"))) static bool host_rdrand(uint64_t *v)
{
	unsigned long long x = 0;
	bool ok = _rdrand64_step(&x);

	*v = x;
	return ok;
}

__attribute__((target("rdseed"))) static bool host_rdseed(uint64_t *v)
{
	unsigned long long x = 0;
	bool ok = _rdseed64_step(&x);

	*v = x;
	return ok;
}

static void random_result(
    struct soft_cpu *cpu, const struct insn *in, uint64_t v, bool ok)
{
	gpr_set(cpu, in->op[0].reg, in->opsize, ok ? v & size_mask(in->opsize) : 0);
	cpu->rflags = (cpu->rflags & ~(uint64_t)RF_STATUS) | (ok ? RF_CF : 0);
}

void sys_rdrand(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t v;
	bool ok;

	if (!cpu_policy(cpu)->rdrand)
		cpu_ud(cpu);
	ok = host_rdrand(&v);
	random_result(cpu, in, v, ok);
}

void sys_rdseed(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t v;
	bool ok;

	if (!cpu_policy(cpu)->rdseed)
		cpu_ud(cpu);
	ok = host_rdseed(&v);
	random_result(cpu, in, v, ok);
}

/* MOV and PUSH/POP are ours when a segment, control or debug register is named. */
static insn_fn *mov_handler(const struct insn *in)
{
	const uint8_t *op = insn_opcode(in);

	if (op[0] == 0x8c)
		return sys_store_sreg;
	if (op[0] == 0x8e)
		return sys_mov_sreg;
	if (op[0] != 0x0f)
		return NULL;
	switch (op[1]) {
	case 0x20:
	case 0x22:
		return sys_mov_cr;
	case 0x21:
	case 0x23:
		return sys_mov_dr;
	}
	return NULL;
}

static bool is_stack_sreg(const struct insn *in)
{
	const uint8_t *op = insn_opcode(in);

	if (op[0] == 0x0f)
		return (op[1] & 0xf6) == 0xa0;
	return op[0] <= 0x1f;
}

static insn_fn *far_handler(const struct insn *in, insn_fn *fn)
{
	const uint8_t *op = insn_opcode(in);
	unsigned ext = (op[1] >> 3) & 7;

	if (op[0] == 0x9a || op[0] == 0xea)
		return fn;
	return op[0] == 0xff && (ext == 3 || ext == 5) ? fn : NULL;
}

insn_fn *interp_sys_handler(const struct insn *in)
{
	switch ((ZydisMnemonic)in->mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		return mov_handler(in);
	case ZYDIS_MNEMONIC_PUSH:
		return is_stack_sreg(in) ? sys_push_sreg : NULL;
	case ZYDIS_MNEMONIC_POP:
		return is_stack_sreg(in) ? sys_pop_sreg : NULL;
	case ZYDIS_MNEMONIC_JMP:
		return far_handler(in, sys_far_jmp);
	case ZYDIS_MNEMONIC_CALL:
		return far_handler(in, sys_far_call);
	case ZYDIS_MNEMONIC_RET:
		return (*insn_opcode(in) & 0xfe) == 0xca ? sys_far_ret : NULL;
	case ZYDIS_MNEMONIC_LDS:
	case ZYDIS_MNEMONIC_LES:
	case ZYDIS_MNEMONIC_LSS:
	case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
		return sys_load_far;
	case ZYDIS_MNEMONIC_LGDT:
		return sys_lgdt;
	case ZYDIS_MNEMONIC_LIDT:
		return sys_lidt;
	case ZYDIS_MNEMONIC_SGDT:
		return sys_sgdt;
	case ZYDIS_MNEMONIC_SIDT:
		return sys_sidt;
	case ZYDIS_MNEMONIC_LLDT:
		return sys_lldt;
	case ZYDIS_MNEMONIC_LTR:
		return sys_ltr;
	case ZYDIS_MNEMONIC_SLDT:
		return sys_sldt;
	case ZYDIS_MNEMONIC_STR:
		return sys_str;
	case ZYDIS_MNEMONIC_LAR:
		return sys_lar;
	case ZYDIS_MNEMONIC_LSL:
		return sys_lsl;
	case ZYDIS_MNEMONIC_VERR:
		return sys_verr;
	case ZYDIS_MNEMONIC_VERW:
		return sys_verw;
	case ZYDIS_MNEMONIC_ARPL:
		return sys_arpl;
	case ZYDIS_MNEMONIC_INT:
		return sys_int;
	case ZYDIS_MNEMONIC_INT1:
		return sys_int1;
	case ZYDIS_MNEMONIC_INT3:
		return sys_int3;
	case ZYDIS_MNEMONIC_INTO:
		return sys_into;
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ:
		return sys_iret;
	case ZYDIS_MNEMONIC_SYSCALL:
		return sys_syscall;
	case ZYDIS_MNEMONIC_SYSRET:
		return sys_sysret;
	case ZYDIS_MNEMONIC_SYSENTER:
		return sys_sysenter;
	case ZYDIS_MNEMONIC_SYSEXIT:
		return sys_sysexit;
	case ZYDIS_MNEMONIC_SWAPGS:
		return sys_swapgs;
	case ZYDIS_MNEMONIC_RDFSBASE:
		return sys_rdfsbase;
	case ZYDIS_MNEMONIC_RDGSBASE:
		return sys_rdgsbase;
	case ZYDIS_MNEMONIC_WRFSBASE:
		return sys_wrfsbase;
	case ZYDIS_MNEMONIC_WRGSBASE:
		return sys_wrgsbase;
	case ZYDIS_MNEMONIC_PUSHF:
	case ZYDIS_MNEMONIC_PUSHFD:
	case ZYDIS_MNEMONIC_PUSHFQ:
		return sys_pushf;
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
		return sys_popf;
	case ZYDIS_MNEMONIC_CLI:
		return sys_cli;
	case ZYDIS_MNEMONIC_STI:
		return sys_sti;
	case ZYDIS_MNEMONIC_STAC:
		return sys_stac;
	case ZYDIS_MNEMONIC_CLAC:
		return sys_clac;
	case ZYDIS_MNEMONIC_IN:
		return sys_in;
	case ZYDIS_MNEMONIC_OUT:
		return sys_out;
	case ZYDIS_MNEMONIC_INSB:
	case ZYDIS_MNEMONIC_INSW:
	case ZYDIS_MNEMONIC_INSD:
		return sys_ins;
	case ZYDIS_MNEMONIC_OUTSB:
	case ZYDIS_MNEMONIC_OUTSW:
	case ZYDIS_MNEMONIC_OUTSD:
		return sys_outs;
	case ZYDIS_MNEMONIC_CLTS:
		return sys_clts;
	case ZYDIS_MNEMONIC_LMSW:
		return sys_lmsw;
	case ZYDIS_MNEMONIC_SMSW:
		return sys_smsw;
	case ZYDIS_MNEMONIC_XGETBV:
		return sys_xgetbv;
	case ZYDIS_MNEMONIC_XSETBV:
		return sys_xsetbv;
	case ZYDIS_MNEMONIC_RDMSR:
		return sys_rdmsr;
	case ZYDIS_MNEMONIC_WRMSR:
		return sys_wrmsr;
	case ZYDIS_MNEMONIC_RDTSC:
		return sys_rdtsc;
	case ZYDIS_MNEMONIC_RDTSCP:
		return sys_rdtscp;
	case ZYDIS_MNEMONIC_RDPID:
		return sys_rdpid;
	case ZYDIS_MNEMONIC_RDPMC:
		return sys_rdpmc;
	case ZYDIS_MNEMONIC_CPUID:
		return sys_cpuid;
	case ZYDIS_MNEMONIC_HLT:
		return sys_hlt;
	case ZYDIS_MNEMONIC_INVD:
	case ZYDIS_MNEMONIC_WBINVD:
		return sys_wbinvd;
	case ZYDIS_MNEMONIC_INVLPG:
		return sys_invlpg;
	case ZYDIS_MNEMONIC_INVPCID:
		return sys_invpcid;
	case ZYDIS_MNEMONIC_RDRAND:
		return sys_rdrand;
	case ZYDIS_MNEMONIC_RDSEED:
		return sys_rdseed;
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
	case ZYDIS_MNEMONIC_MONITOR:
	case ZYDIS_MNEMONIC_MONITORX:
	case ZYDIS_MNEMONIC_MWAIT:
	case ZYDIS_MNEMONIC_MWAITX:
	case ZYDIS_MNEMONIC_VMCALL:
	case ZYDIS_MNEMONIC_VMMCALL:
	case ZYDIS_MNEMONIC_RSM:
	case ZYDIS_MNEMONIC_XABORT:
	case ZYDIS_MNEMONIC_XBEGIN:
	case ZYDIS_MNEMONIC_XEND:
	case ZYDIS_MNEMONIC_XTEST:
	case ZYDIS_MNEMONIC_CLZERO:
	case ZYDIS_MNEMONIC_SERIALIZE:
	case ZYDIS_MNEMONIC_RDPKRU:
	case ZYDIS_MNEMONIC_WRPKRU:
	case ZYDIS_MNEMONIC_GETSEC:
		return sys_ud;
	default:
		return NULL;
	}
}

/*
 * The few that change nothing a block depends on and cannot wake anything. RDTSC is not
 * among them: ticks that its value promises come before that is used.
 */
bool interp_sys_ends_block(const struct insn *in)
{
	switch ((ZydisMnemonic)in->mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		return mov_handler(in) != sys_store_sreg;
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_PUSHF:
	case ZYDIS_MNEMONIC_PUSHFD:
	case ZYDIS_MNEMONIC_PUSHFQ:
	case ZYDIS_MNEMONIC_CLI:
	case ZYDIS_MNEMONIC_SGDT:
	case ZYDIS_MNEMONIC_SIDT:
	case ZYDIS_MNEMONIC_SLDT:
	case ZYDIS_MNEMONIC_STR:
	case ZYDIS_MNEMONIC_SMSW:
	case ZYDIS_MNEMONIC_LAR:
	case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW:
	case ZYDIS_MNEMONIC_ARPL:
	case ZYDIS_MNEMONIC_XGETBV:
	case ZYDIS_MNEMONIC_RDPID:
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_RDRAND:
	case ZYDIS_MNEMONIC_RDSEED:
	case ZYDIS_MNEMONIC_SWAPGS:
	case ZYDIS_MNEMONIC_RDFSBASE:
	case ZYDIS_MNEMONIC_RDGSBASE:
	case ZYDIS_MNEMONIC_WRFSBASE:
	case ZYDIS_MNEMONIC_WRGSBASE:
		return false;
	default:
		return true;
	}
}
