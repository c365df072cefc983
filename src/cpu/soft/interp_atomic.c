/* XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B; XCHG with memory is always locked. */
#include "cpu/soft/interp.h"

static void xchg(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->op[0].size;
	/* Memory may stand on either side of the encoding's text. */
	unsigned other = in->op[0].kind == OPND_MEM ? 1 : 0;
	uint64_t v = opnd_get(cpu, in, other, size);
	struct rmw m;

	if (in->op[0].kind != OPND_MEM && in->op[1].kind != OPND_MEM) {
		uint64_t w = opnd_get(cpu, in, 1, size);

		opnd_set(cpu, in, 1, size, v);
		opnd_set(cpu, in, 0, size, w);
		return;
	}
	rmw_begin_at(cpu, ea(cpu, in, size, true), size, true, &m);
	while (!rmw_end(cpu, size, true, &m, v))
		;
	opnd_set(cpu, in, other, size, m.old);
}

static uint64_t add_flags(uint64_t a, uint64_t b, unsigned size, uint32_t *f)
{
	unsigned shift = 64 - size * 8;
	uint64_t r = a << shift, half;

	/* Carry, overflow and sign from the top of a register, the rest by hand. */
	__asm__("addq %[b], %[r]" FLAGS_OUT
		: [r] "+r"(r), "=&a"(*f)
		: [b] "r"(b << shift)
		: "cc");
	half = r >> shift;
	*f &= ~(uint32_t)((RF_AF | RF_PF) << 8);
	*f |= ((a ^ b ^ half) & RF_AF) << 8;
	*f |= (__builtin_parity(half & 0xff) ? 0 : RF_PF) << 8;
	return half;
}

static void xadd(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->op[0].size;
	bool locked = in->flags & INSN_LOCK;
	uint64_t b = opnd_get(cpu, in, 1, size), sum, old;
	uint32_t f;

	if (in->op[0].kind == OPND_MEM) {
		struct rmw m;

		rmw_begin(cpu, in, size, locked, &m);
		do {
			old = m.old;
			sum = add_flags(old, b, size, &f);
		} while (!rmw_end(cpu, size, locked, &m, sum));
		opnd_set(cpu, in, 1, size, old);
	} else {
		old = opnd_get(cpu, in, 0, size);
		sum = add_flags(old, b, size, &f);
		opnd_set(cpu, in, 1, size, old);
		opnd_set(cpu, in, 0, size, sum);
	}
	set_flags(cpu, f);
}

static void cmpxchg(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->op[0].size;
	bool locked = in->flags & INSN_LOCK;
	uint64_t acc = gpr_get(cpu, GPR_RAX, size), v = opnd_get(cpu, in, 1, size),
		 old;

	if (in->op[0].kind == OPND_MEM) {
		struct rmw m;

		rmw_begin(cpu, in, size, locked, &m);
		/*
		 * Memory is written in any case: with what was there, if unequal.
		 */
		do
			old = m.old;
		while (!rmw_end(cpu, size, locked, &m, old == acc ? v : old));
	} else {
		old = opnd_get(cpu, in, 0, size);
		if (old == acc)
			opnd_set(cpu, in, 0, size, v);
	}
	compare_flags(cpu, acc, old, size);
	if (old != acc)
		gpr_set(cpu, GPR_RAX, size, old);
}

static void cmpxchg8b(struct soft_cpu *cpu, const struct insn *in)
{
	bool locked = in->flags & INSN_LOCK;
	uint64_t acc = gpr_get(cpu, GPR_RDX, 4) << 32 | gpr_get(cpu, GPR_RAX, 4);
	uint64_t v = gpr_get(cpu, GPR_RCX, 4) << 32 | gpr_get(cpu, GPR_RBX, 4), old;
	struct rmw m;

	rmw_begin(cpu, in, 8, locked, &m);
	do
		old = m.old;
	while (!rmw_end(cpu, 8, locked, &m, old == acc ? v : old));
	flag_assign(cpu, RF_ZF, old == acc);
	if (old != acc) {
		cpu->gpr[GPR_RAX] = (uint32_t)old;
		cpu->gpr[GPR_RDX] = old >> 32;
	}
}

struct pair {
	uint64_t lo, hi;
};

static bool host_cmpxchg16b(void *p, struct pair *old, struct pair v)
{
	bool same;

	__asm__ volatile("lock cmpxchg16b %[m]"
			 : [m] "+m"(*(unsigned __int128 *)p), "+a"(old->lo),
			 "+d"(old->hi), "=@ccz"(same)
			 : "b"(v.lo), "c"(v.hi)
			 : "memory");
	return same;
}

static bool slow_cmpxchg16b(
    struct soft_cpu *cpu, uint64_t lin, struct pair *old, struct pair v)
{
	struct pair was;
	bool same;

	mmu_probe_write(cpu, lin, 16);
	cpu_exclusive_begin(cpu);
	was.lo = mmu_load(cpu, lin, 8);
	was.hi = mmu_load(cpu, lin + 8, 8);
	same = was.lo == old->lo && was.hi == old->hi;
	if (!same)
		v = was;
	mmu_store(cpu, lin, 8, v.lo);
	mmu_store(cpu, lin + 8, 8, v.hi);
	cpu_exclusive_end(cpu);
	*old = was;
	return same;
}

static void cmpxchg16b(struct soft_cpu *cpu, const struct insn *in)
{
	struct pair old = { cpu->gpr[GPR_RAX], cpu->gpr[GPR_RDX] };
	struct pair v = { cpu->gpr[GPR_RBX], cpu->gpr[GPR_RCX] };
	uint64_t lin = ea(cpu, in, 16, true);
	bool same;
	void *p;

	if (lin & 15)
		cpu_gp(cpu);
	p = mmu_rmw_ptr(cpu, lin, 16);
	same = p ? host_cmpxchg16b(p, &old, v) : slow_cmpxchg16b(cpu, lin, &old, v);
	flag_assign(cpu, RF_ZF, same);
	if (!same) {
		cpu->gpr[GPR_RAX] = old.lo;
		cpu->gpr[GPR_RDX] = old.hi;
	}
}

insn_fn *interp_atomic_handler(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_XCHG:
		return xchg;
	case ZYDIS_MNEMONIC_XADD:
		return xadd;
	case ZYDIS_MNEMONIC_CMPXCHG:
		return cmpxchg;
	case ZYDIS_MNEMONIC_CMPXCHG8B:
		return cmpxchg8b;
	case ZYDIS_MNEMONIC_CMPXCHG16B:
		return cmpxchg16b;
	default:
		return NULL;
	}
}
