/*
 * Keys: which shape of code the CPU's state asks for, and the change from one to
 * another. Compiled for integer registers only: see gate.c.
 */
#include "cpu/soft/jit/priv.h"
#include "cpu/soft/sys.h"

/* Usable, writable, of 4 GiB upwards: only its base matters. */
static bool unlimited(const struct soft_seg *s)
{
	return s->limit == UINT32_MAX && !(s->access & SEG_ACCESS_UNUSABLE) &&
	    (s->access & (ACC_S | ACC_P | ACC_CODE | ACC_CE | ACC_RW)) ==
	    (ACC_S | ACC_P | ACC_RW);
}

static bool flat(const struct soft_cpu *cpu, unsigned seg)
{
	return cpu->seg[seg].base == 0 && unlimited(&cpu->seg[seg]);
}

/* Compatibility mode of programs, with the segments everybody has. */
static uint32_t compat_key(const struct soft_cpu *cpu)
{
	const struct soft_seg *cs = &cpu->seg[SEG_CS];

	if (cpu->mode != MODE_32 || cpu->cpl != 3 || cpu->stack_size != 4 ||
	    cs->base != 0 || cs->limit != UINT32_MAX || !flat(cpu, SEG_SS) ||
	    !flat(cpu, SEG_DS) || !flat(cpu, SEG_ES))
		return KEY_NONE;
	return KEY_COMPAT | (unlimited(&cpu->seg[SEG_FS]) ? KEY_FS : 0) |
	    (unlimited(&cpu->seg[SEG_GS]) ? KEY_GS : 0);
}

uint32_t jit_key(const struct soft_cpu *cpu)
{
	uint32_t key = 0;
	bool fp = !(cpu->cr0 & (CR0_EM | CR0_TS));

	if (!cpu->long_mode || cpu->cpl == 1 || cpu->cpl == 2)
		return KEY_NONE;
	if (cpu->mode != MODE_64)
		key = compat_key(cpu);
	if (key == KEY_NONE)
		return KEY_NONE;
	key |= cpu->mmu_idx;
	if (cpu->cpl == 3 && cpu->cr0 & CR0_AM && cpu->rflags & RF_AC)
		return KEY_NONE;
	if (fp)
		key |= KEY_X87;
	if (fp && cpu->cr4 & CR4_OSFXSR)
		key |= KEY_SSE;
	if (fp && cpu->cr4 & CR4_OSXSAVE && (cpu->xcr0 & 6) == 6)
		key |= KEY_AVX;
	if (cpu->cpl == 3 && cpu->cr4 & CR4_TSD)
		key |= KEY_TSD;
	if (cpu->cpl == 0 && cpu->cr4 & CR4_SMAP)
		key |= KEY_SMAP;
	return key;
}

bool jit_must_leave(const struct soft_cpu *cpu)
{
	if (cpu->jit->lock)
		return true;
	return atomic_load_explicit(&cpu->link.events, memory_order_relaxed) ||
	    cpu->halted || (cpu->intr_waiting && cpu->rflags & RF_IF) || cpu->shadow ||
	    cpu->rflags & (RF_TF | RF_RF) || cpu->dr7 & 0xff || cpu->pending_db;
}

void jit_narrow(struct soft_cpu *cpu)
{
	for (unsigned i = 0; i < 8; i++)
		cpu->gpr[i] = (uint32_t)cpu->gpr[i];
}

unsigned key_number(struct jit *j, uint32_t key)
{
	unsigned k;

	for (k = 0; k < j->nkeys && j->key[k] != key; k++)
		;
	if (k < j->nkeys || k == JIT_KEYS)
		return k;
	j->key[k] = key;
	j->pair_rsp[k] = j->pair_top[k];
	/* The interpreter's flags at a return are compared, too. */
	j->exact[k] = j->lock != NULL;
	for (unsigned i = 0; i < JIT_TABLE; i++)
		j->table[k * JIT_TABLE + i] = j->stub_dispatch;
	return j->nkeys++;
}

bool jit_use_key(struct jit *j)
{
	uint32_t key = jit_key(j->cpu);
	unsigned k;

	if (key == KEY_NONE)
		return false;
	if (key & KEY_COMPAT)
		jit_narrow(j->cpu);
	if (j->nkeys && j->key[j->keyid] == key)
		return true;
	k = key_number(j, key);
	if (k == JIT_KEYS)
		return false;
	if (j->rsp)
		j->pair_rsp[j->keyid] = j->rsp;
	j->keyid = k;
	j->rsp = j->pair_rsp[k];
	return true;
}
