/* Integer instructions: choice of the handler, and operands of any kind. */
#include "cpu/soft/interp.h"

insn_fn *interp_int_handler(const struct insn *in)
{
	static insn_fn *(*const family[])(const struct insn *) = {
		interp_mov_handler, interp_alu_handler, interp_branch_handler,
		interp_stack_handler, interp_shift_handler, interp_mul_handler,
		interp_bit_handler, interp_bmi_handler, interp_atomic_handler,
		interp_string_handler, interp_misc_handler,
	};

	for (unsigned i = 0; i < ARRAY_SIZE(family); i++) {
		insn_fn *fn = family[i](in);

		if (fn)
			return fn;
	}
	return NULL;
}

uint64_t opnd_get(
    struct soft_cpu *cpu, const struct insn *in, unsigned n, unsigned size)
{
	const struct operand *o = &in->op[n];

	switch (o->kind) {
	case OPND_GPR:
		return gpr_get(cpu, o->reg, size);
	case OPND_GPR8H:
		return (cpu->gpr[o->reg] >> 8) & 0xff;
	case OPND_MEM:
		return load_ea(cpu, in, size);
	default:
		return in->imm & size_mask(size);
	}
}

void opnd_set(struct soft_cpu *cpu, const struct insn *in, unsigned n,
    unsigned size, uint64_t v)
{
	const struct operand *o = &in->op[n];

	switch (o->kind) {
	case OPND_GPR:
		gpr_set(cpu, o->reg, size, v);
		break;
	case OPND_GPR8H:
		cpu->gpr[o->reg] =
		    (cpu->gpr[o->reg] & ~UINT64_C(0xff00)) | (v & 0xff) << 8;
		break;
	default:
		store_ea(cpu, in, size, v);
	}
}

/* Sets m->old to what is there when it is not what was expected. */
static bool compare_exchange(void *p, unsigned size, uint64_t *old, uint64_t v)
{
	uint64_t was = *old;
	bool same;

	switch (size) {
	case 1:
		__asm__ volatile("lock cmpxchgb %b[v], %[m]"
				 : [m] "+m"(*(guest8 *)p), "+a"(was), "=@ccz"(same)
				 : [v] "r"(v)
				 : "memory");
		break;
	case 2:
		__asm__ volatile("lock cmpxchgw %w[v], %[m]"
				 : [m] "+m"(*(guest16 *)p), "+a"(was), "=@ccz"(same)
				 : [v] "r"(v)
				 : "memory");
		break;
	case 4:
		__asm__ volatile("lock cmpxchgl %k[v], %[m]"
				 : [m] "+m"(*(guest32 *)p), "+a"(was), "=@ccz"(same)
				 : [v] "r"(v)
				 : "memory");
		break;
	default:
		__asm__ volatile("lock cmpxchgq %[v], %[m]"
				 : [m] "+m"(*(guest64 *)p), "+a"(was), "=@ccz"(same)
				 : [v] "r"(v)
				 : "memory");
	}
	*old = was;
	return same;
}

void rmw_begin_at(
    struct soft_cpu *cpu, uint64_t lin, unsigned size, bool locked, struct rmw *m)
{
	m->lin = lin;
	m->exclusive = false;
	m->p = mmu_rmw_ptr(cpu, lin, size);
	/* A host lock that splits a cache line stalls the whole machine. */
	if (m->p && locked && ((uintptr_t)m->p & 63) + size > 64)
		m->p = NULL;
	if (m->p) {
		m->old = host_load(m->p, size);
		return;
	}
	mmu_probe_write(cpu, lin, size);
	if (locked) {
		cpu_exclusive_begin(cpu);
		m->exclusive = true;
	}
	m->old = mmu_load(cpu, lin, size);
}

void rmw_begin(struct soft_cpu *cpu, const struct insn *in, unsigned size,
    bool locked, struct rmw *m)
{
	if (in->op[0].kind == OPND_MEM) {
		rmw_begin_at(cpu, ea(cpu, in, size, true), size, locked, m);
		return;
	}
	m->p = NULL;
	m->old = opnd_get(cpu, in, 0, size);
}

bool rmw_end(
    struct soft_cpu *cpu, unsigned size, bool locked, struct rmw *m, uint64_t v)
{
	if (m->p) {
		if (locked)
			return compare_exchange(m->p, size, &m->old, v);
		host_store(m->p, size, v);
		return true;
	}
	mmu_store(cpu, m->lin, size, v);
	if (m->exclusive)
		cpu_exclusive_end(cpu);
	return true;
}
