/*
 * Data movement: MOV, MOVZX, MOVSX, MOVSXD, LEA, MOVBE, MOVNTI, CMOVcc, SETcc,
 * BSWAP.
 */
#include "cpu/soft/interp.h"

#define MOV_FORMS(size)                                                            \
	static void mov_rr_##size(struct soft_cpu *cpu, const struct insn *in)     \
	{                                                                          \
		gpr_set(cpu, in->op[0].reg, size, cpu->gpr[in->op[1].reg]);        \
	}                                                                          \
	static void mov_ri_##size(struct soft_cpu *cpu, const struct insn *in)     \
	{                                                                          \
		gpr_set(cpu, in->op[0].reg, size, in->imm);                        \
	}                                                                          \
	static void mov_rm_##size(struct soft_cpu *cpu, const struct insn *in)     \
	{                                                                          \
		gpr_set(cpu, in->op[0].reg, size, load_ea(cpu, in, size));         \
	}                                                                          \
	static void mov_mr_##size(struct soft_cpu *cpu, const struct insn *in)     \
	{                                                                          \
		store_ea(cpu, in, size, cpu->gpr[in->op[1].reg]);                  \
	}                                                                          \
	static void mov_mi_##size(struct soft_cpu *cpu, const struct insn *in)     \
	{                                                                          \
		store_ea(cpu, in, size, in->imm);                                  \
	}

MOV_FORMS(1)
MOV_FORMS(2)
MOV_FORMS(4)
MOV_FORMS(8)

/* With AH..BH. */
static void mov_any(struct soft_cpu *cpu, const struct insn *in)
{
	opnd_set(cpu, in, 0, 1, opnd_get(cpu, in, 1, 1));
}

static insn_fn *mov_handler(const struct insn *in)
{
	static insn_fn *const rr[] = { mov_rr_1, mov_rr_2, mov_rr_4, mov_rr_8 };
	static insn_fn *const ri[] = { mov_ri_1, mov_ri_2, mov_ri_4, mov_ri_8 };
	static insn_fn *const rm[] = { mov_rm_1, mov_rm_2, mov_rm_4, mov_rm_8 };
	static insn_fn *const mr[] = { mov_mr_1, mov_mr_2, mov_mr_4, mov_mr_8 };
	static insn_fn *const mi[] = { mov_mi_1, mov_mi_2, mov_mi_4, mov_mi_8 };
	unsigned s = size_index(in->op[0].size), k0 = in->op[0].kind,
		 k1 = in->op[1].kind;

	if (k0 == OPND_SEG || k1 == OPND_SEG || k0 == OPND_CR || k1 == OPND_CR ||
	    k0 == OPND_DR || k1 == OPND_DR)
		return NULL;
	if (k0 == OPND_GPR8H || k1 == OPND_GPR8H)
		return mov_any;
	if (k0 == OPND_MEM)
		return k1 == OPND_IMM ? mi[s] : mr[s];
	return k1 == OPND_IMM ? ri[s] : k1 == OPND_MEM ? rm[s] : rr[s];
}

/* Widening: from is the source type, the destination's size is the operand size. */
#define WIDEN(name, bytes, type)                                                   \
	static void name##_r(struct soft_cpu *cpu, const struct insn *in)          \
	{                                                                          \
		gpr_set(cpu, in->op[0].reg, in->op[0].size,                        \
		    (uint64_t)(int64_t)(type)cpu->gpr[in->op[1].reg]);             \
	}                                                                          \
	static void name##_m(struct soft_cpu *cpu, const struct insn *in)          \
	{                                                                          \
		gpr_set(cpu, in->op[0].reg, in->op[0].size,                        \
		    (uint64_t)(int64_t)(type)load_ea(cpu, in, bytes));             \
	}

WIDEN(movzx8, 1, uint8_t)
WIDEN(movzx16, 2, uint16_t)
WIDEN(movsx8, 1, int8_t)
WIDEN(movsx16, 2, int16_t)
WIDEN(movsx32, 4, int32_t)

static void movzx_high(struct soft_cpu *cpu, const struct insn *in)
{
	gpr_set(cpu, in->op[0].reg, in->op[0].size,
	    (cpu->gpr[in->op[1].reg] >> 8) & 0xff);
}

static void movsx_high(struct soft_cpu *cpu, const struct insn *in)
{
	gpr_set(cpu, in->op[0].reg, in->op[0].size,
	    (uint64_t)(int8_t)(cpu->gpr[in->op[1].reg] >> 8));
}

static insn_fn *widen_handler(const struct insn *in, bool sign)
{
	bool mem = in->op[1].kind == OPND_MEM;

	if (in->op[1].kind == OPND_GPR8H)
		return sign ? movsx_high : movzx_high;
	switch (in->op[1].size) {
	case 1:
		return sign ? (mem ? movsx8_m : movsx8_r)
			    : (mem ? movzx8_m : movzx8_r);
	case 2:
		return sign ? (mem ? movsx16_m : movsx16_r)
			    : (mem ? movzx16_m : movzx16_r);
	default:
		return mem ? movsx32_m : movsx32_r;
	}
}

static void lea(struct soft_cpu *cpu, const struct insn *in)
{
	gpr_set(cpu, in->op[0].reg, in->op[0].size, insn_offset(cpu, in));
}

static void lea_flat(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t v = in->disp;

	if (in->base != REG_NONE)
		v += cpu->gpr[in->base];
	if (in->index != REG_NONE)
		v += cpu->gpr[in->index] * in->scale;
	cpu->gpr[in->op[0].reg] = v;
}

static uint64_t swap_bytes(uint64_t v, unsigned size)
{
	switch (size) {
	case 2:
		return __builtin_bswap16(v);
	case 4:
		return __builtin_bswap32(v);
	default:
		return __builtin_bswap64(v);
	}
}

static void movbe(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->op[0].size;

	opnd_set(cpu, in, 0, size, swap_bytes(opnd_get(cpu, in, 1, size), size));
}

static void bswap(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->op[0].size;
	uint64_t v = size == 2 ? 0 : swap_bytes(cpu->gpr[in->op[0].reg], size);

	/* The 16-bit form is undefined; CPUs give zero. */
	gpr_set(cpu, in->op[0].reg, size, v);
}

/*
 * CMOVcc reads its source whatever the condition, and a 32-bit one always
 * zero-extends.
 */
#define PER_CC(cc)                                                                 \
	static void cmov_##cc(struct soft_cpu *cpu, const struct insn *in)         \
	{                                                                          \
		unsigned size = in->op[0].size;                                    \
		uint64_t v = in->op[1].kind == OPND_MEM ? load_ea(cpu, in, size)   \
							: cpu->gpr[in->op[1].reg]; \
                                                                                   \
		if (!cond(cpu->rflags, cc))                                        \
			v = cpu->gpr[in->op[0].reg];                               \
		gpr_set(cpu, in->op[0].reg, size, v);                              \
	}                                                                          \
	static void set_##cc(struct soft_cpu *cpu, const struct insn *in)          \
	{                                                                          \
		opnd_set(cpu, in, 0, 1, cond(cpu->rflags, cc));                    \
	}

PER_CC(0)
PER_CC(1) PER_CC(2) PER_CC(3) PER_CC(4) PER_CC(5) PER_CC(6) PER_CC(7) PER_CC(8)
    PER_CC(9) PER_CC(10) PER_CC(11) PER_CC(12) PER_CC(13) PER_CC(14) PER_CC(15)

	static insn_fn *condition_handler(const struct insn *in)
{
	static insn_fn *const cmov[] = { cmov_0, cmov_1, cmov_2, cmov_3, cmov_4,
		cmov_5, cmov_6, cmov_7, cmov_8, cmov_9, cmov_10, cmov_11, cmov_12,
		cmov_13, cmov_14, cmov_15 };
	static insn_fn *const set[] = { set_0, set_1, set_2, set_3, set_4, set_5,
		set_6, set_7, set_8, set_9, set_10, set_11, set_12, set_13, set_14,
		set_15 };

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_CMOVB:
	case ZYDIS_MNEMONIC_CMOVBE:
	case ZYDIS_MNEMONIC_CMOVL:
	case ZYDIS_MNEMONIC_CMOVLE:
	case ZYDIS_MNEMONIC_CMOVNB:
	case ZYDIS_MNEMONIC_CMOVNBE:
	case ZYDIS_MNEMONIC_CMOVNL:
	case ZYDIS_MNEMONIC_CMOVNLE:
	case ZYDIS_MNEMONIC_CMOVNO:
	case ZYDIS_MNEMONIC_CMOVNP:
	case ZYDIS_MNEMONIC_CMOVNS:
	case ZYDIS_MNEMONIC_CMOVNZ:
	case ZYDIS_MNEMONIC_CMOVO:
	case ZYDIS_MNEMONIC_CMOVP:
	case ZYDIS_MNEMONIC_CMOVS:
	case ZYDIS_MNEMONIC_CMOVZ:
		return cmov[in->cc];
	case ZYDIS_MNEMONIC_SETB:
	case ZYDIS_MNEMONIC_SETBE:
	case ZYDIS_MNEMONIC_SETL:
	case ZYDIS_MNEMONIC_SETLE:
	case ZYDIS_MNEMONIC_SETNB:
	case ZYDIS_MNEMONIC_SETNBE:
	case ZYDIS_MNEMONIC_SETNL:
	case ZYDIS_MNEMONIC_SETNLE:
	case ZYDIS_MNEMONIC_SETNO:
	case ZYDIS_MNEMONIC_SETNP:
	case ZYDIS_MNEMONIC_SETNS:
	case ZYDIS_MNEMONIC_SETNZ:
	case ZYDIS_MNEMONIC_SETO:
	case ZYDIS_MNEMONIC_SETP:
	case ZYDIS_MNEMONIC_SETS:
	case ZYDIS_MNEMONIC_SETZ:
		return set[in->cc];
	default:
		return NULL;
	}
}

insn_fn *interp_mov_handler(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
	case ZYDIS_MNEMONIC_MOVNTI:
		return mov_handler(in);
	case ZYDIS_MNEMONIC_MOVZX:
		return widen_handler(in, false);
	case ZYDIS_MNEMONIC_MOVSX:
		return widen_handler(in, true);
	case ZYDIS_MNEMONIC_MOVSXD:
		/*
		 * Without REX.W it is a plain move; the source has 32 bits all the
		 * same.
		 */
		return widen_handler(in, true);
	case ZYDIS_MNEMONIC_LEA:
		return in->flags & INSN_FLAT && in->op[0].size == 8 ? lea_flat
								    : lea;
	case ZYDIS_MNEMONIC_MOVBE:
		return movbe;
	case ZYDIS_MNEMONIC_BSWAP:
		return bswap;
	default:
		return condition_handler(in);
	}
}
