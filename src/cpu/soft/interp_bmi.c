/*
 * BMI1, BMI2 and ADX on general registers. VEX encodings are illegal in real and
 * virtual-8086 mode; they need no OS support otherwise.
 */
#include "cpu/soft/interp.h"

static void need_vex(struct soft_cpu *cpu)
{
	if (!cpu->protected_mode)
		cpu_ud(cpu);
}

/* d = OP(a, b), flags included, by the host's instruction. AT&T order: b, a, d. */
#define THREE(name, ins)                                                           \
	static void name(struct soft_cpu *cpu, const struct insn *in)              \
	{                                                                          \
		unsigned size = in->op[0].size;                                    \
		uint64_t d = 0, a, b;                                              \
		uint32_t f = flags_pack(cpu->rflags);                              \
                                                                                   \
		need_vex(cpu);                                                     \
		a = opnd_get(cpu, in, 1, size);                                    \
		b = opnd_get(cpu, in, 2, size);                                    \
		if (size == 8)                                                     \
			__asm__(FLAGS_IN ins "q %[b], %[a], %[d]" FLAGS_OUT        \
				: [d] "=&r"(d), "+&a"(f)                           \
				: [a] "r"(a), [b] "r"(b)                           \
				: "cc");                                           \
		else                                                               \
			__asm__(FLAGS_IN ins "l %k[b], %k[a], %k[d]" FLAGS_OUT     \
				: [d] "=&r"(d), "+&a"(f)                           \
				: [a] "r"(a), [b] "r"(b)                           \
				: "cc");                                           \
		gpr_set(cpu, in->op[0].reg, size, d);                              \
		set_flags(cpu, f);                                                 \
	}

THREE(andn, "andn")
THREE(pdep, "pdep")
THREE(pext, "pext")
THREE(bextr, "bextr")
THREE(bzhi, "bzhi")
THREE(sarx, "sarx")
THREE(shlx, "shlx")
THREE(shrx, "shrx")

#define TWO(name, ins)                                                             \
	static void name(struct soft_cpu *cpu, const struct insn *in)              \
	{                                                                          \
		unsigned size = in->op[0].size;                                    \
		uint64_t d = 0, s;                                                 \
		uint32_t f = flags_pack(cpu->rflags);                              \
                                                                                   \
		need_vex(cpu);                                                     \
		s = opnd_get(cpu, in, 1, size);                                    \
		if (size == 8)                                                     \
			__asm__(FLAGS_IN ins "q %[s], %[d]" FLAGS_OUT              \
				: [d] "=&r"(d), "+&a"(f)                           \
				: [s] "r"(s)                                       \
				: "cc");                                           \
		else                                                               \
			__asm__(FLAGS_IN ins "l %k[s], %k[d]" FLAGS_OUT            \
				: [d] "=&r"(d), "+&a"(f)                           \
				: [s] "r"(s)                                       \
				: "cc");                                           \
		gpr_set(cpu, in->op[0].reg, size, d);                              \
		set_flags(cpu, f);                                                 \
	}

TWO(blsi, "blsi")
TWO(blsmsk, "blsmsk")
TWO(blsr, "blsr")

static void rorx(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->op[0].size, bits = size * 8, n = in->imm & (bits - 1);
	uint64_t v;

	need_vex(cpu);
	v = opnd_get(cpu, in, 1, size);
	if (n)
		v = v >> n | v << (bits - n);
	gpr_set(cpu, in->op[0].reg, size, v);
}

static void mulx(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->op[0].size;
	unsigned __int128 p;

	need_vex(cpu);
	p = (unsigned __int128)gpr_get(cpu, GPR_RDX, size) *
	    opnd_get(cpu, in, 2, size);
	/* With one register for both halves the high half stays. */
	gpr_set(cpu, in->op[1].reg, size, p);
	gpr_set(cpu, in->op[0].reg, size, p >> (size * 8));
}

/* ADCX and ADOX: a carry chain of its own through CF or OF. */
static void add_carry(struct soft_cpu *cpu, const struct insn *in)
{
	uint64_t flag = in->mnemonic == ZYDIS_MNEMONIC_ADCX ? RF_CF : RF_OF;
	unsigned size = in->op[0].size;
	unsigned __int128 sum = opnd_get(cpu, in, 1, size);

	sum += gpr_get(cpu, in->op[0].reg, size);
	sum += !!(cpu->rflags & flag);
	gpr_set(cpu, in->op[0].reg, size, sum);
	flag_assign(cpu, flag, sum >> (size * 8) & 1);
}

insn_fn *interp_bmi_handler(const struct insn *in)
{
	bool bmi1 = __builtin_cpu_supports("bmi"),
	     bmi2 = __builtin_cpu_supports("bmi2");

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_ANDN:
		return bmi1 ? andn : NULL;
	case ZYDIS_MNEMONIC_BEXTR:
		return bmi1 ? bextr : NULL;
	case ZYDIS_MNEMONIC_BLSI:
		return bmi1 ? blsi : NULL;
	case ZYDIS_MNEMONIC_BLSMSK:
		return bmi1 ? blsmsk : NULL;
	case ZYDIS_MNEMONIC_BLSR:
		return bmi1 ? blsr : NULL;
	case ZYDIS_MNEMONIC_BZHI:
		return bmi2 ? bzhi : NULL;
	case ZYDIS_MNEMONIC_PDEP:
		return bmi2 ? pdep : NULL;
	case ZYDIS_MNEMONIC_PEXT:
		return bmi2 ? pext : NULL;
	case ZYDIS_MNEMONIC_SARX:
		return bmi2 ? sarx : NULL;
	case ZYDIS_MNEMONIC_SHLX:
		return bmi2 ? shlx : NULL;
	case ZYDIS_MNEMONIC_SHRX:
		return bmi2 ? shrx : NULL;
	case ZYDIS_MNEMONIC_RORX:
		return rorx;
	case ZYDIS_MNEMONIC_MULX:
		return mulx;
	case ZYDIS_MNEMONIC_ADCX:
	case ZYDIS_MNEMONIC_ADOX:
		return add_carry;
	default:
		return NULL;
	}
}
