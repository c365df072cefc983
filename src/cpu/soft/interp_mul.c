/* MUL, IMUL, DIV, IDIV, widening of the accumulator, decimal adjustments. */
#include "cpu/soft/interp.h"

/* AX := AL op src, with the flags of the host's instruction. */
#define MUL_ASM(ins, src)                                                          \
	__asm__(FLAGS_IN "movq %[a], %%rax\n\t" ins " " src                        \
			 "\n\tmovq %%rax, %[lo]" FLAGS_OUT                         \
		: "+&a"(f), [lo] "=&r"(lo), "=&d"(hi)                              \
		: [a] "r"(a), [b] "r"(b)                                           \
		: "cc")

#define WIDE_MUL(name, ins)                                                        \
	static void name(struct soft_cpu *cpu, const struct insn *in)              \
	{                                                                          \
		unsigned size = in->op[0].size;                                    \
		uint64_t b = opnd_get(cpu, in, 0, size), a = cpu->gpr[GPR_RAX];    \
		uint64_t lo, hi;                                                   \
		uint32_t f = flags_pack(cpu->rflags);                              \
                                                                                   \
		switch (size) {                                                    \
		case 1:                                                            \
			MUL_ASM(ins "b", "%b[b]");                                 \
			break;                                                     \
		case 2:                                                            \
			MUL_ASM(ins "w", "%w[b]");                                 \
			break;                                                     \
		case 4:                                                            \
			MUL_ASM(ins "l", "%k[b]");                                 \
			break;                                                     \
		default:                                                           \
			MUL_ASM(ins "q", "%[b]");                                  \
		}                                                                  \
		if (size == 1) {                                                   \
			gpr_set(cpu, GPR_RAX, 2, lo);                              \
		} else {                                                           \
			gpr_set(cpu, GPR_RAX, size, lo);                           \
			gpr_set(cpu, GPR_RDX, size, hi);                           \
		}                                                                  \
		set_flags(cpu, f);                                                 \
	}

WIDE_MUL(mul, "mul")
WIDE_MUL(imul_wide, "imul")

#define IMUL_FORM(size, ins, a_, b_)                                               \
	static void imul_##size(struct soft_cpu *cpu, const struct insn *in)       \
	{                                                                          \
		bool three = in->nopnd == 3;                                       \
		uint64_t a = opnd_get(cpu, in, three ? 1 : 0, size);               \
		uint64_t b =                                                       \
		    three ? (uint64_t)in->imm : opnd_get(cpu, in, 1, size);        \
		uint32_t f = flags_pack(cpu->rflags);                              \
                                                                                   \
		__asm__(FLAGS_IN ins " " b_ ", " a_ FLAGS_OUT                      \
			: [a] "+&r"(a), "+&a"(f)                                   \
			: [b] "r"(b)                                               \
			: "cc");                                                   \
		gpr_set(cpu, in->op[0].reg, size, a);                              \
		set_flags(cpu, f);                                                 \
	}

IMUL_FORM(2, "imulw", "%w[a]", "%w[b]")
IMUL_FORM(4, "imull", "%k[a]", "%k[b]")
IMUL_FORM(8, "imulq", "%[a]", "%[b]")

/* Flags are undefined after a division and left alone. */
static void div8(struct soft_cpu *cpu, unsigned divisor)
{
	unsigned a = cpu->gpr[GPR_RAX] & 0xffff;

	if (divisor == 0 || a / divisor > 0xff)
		cpu_raise(cpu, EXC_DE);
	gpr_set(cpu, GPR_RAX, 2, (a % divisor) << 8 | a / divisor);
}

static void idiv8(struct soft_cpu *cpu, int divisor)
{
	int a = (int16_t)cpu->gpr[GPR_RAX], q;

	if (divisor == 0)
		cpu_raise(cpu, EXC_DE);
	q = a / divisor;
	if (q != (int8_t)q)
		cpu_raise(cpu, EXC_DE);
	gpr_set(
	    cpu, GPR_RAX, 2, (uint8_t)q | (uint64_t)(uint8_t)(a % divisor) << 8);
}

static void div_wide(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->op[0].size;
	uint64_t d = opnd_get(cpu, in, 0, size);
	uint64_t hi = gpr_get(cpu, GPR_RDX, size), lo = gpr_get(cpu, GPR_RAX, size),
		 q, r;

	if (size == 1) {
		div8(cpu, d);
		return;
	}
	if (hi >= d)
		cpu_raise(cpu, EXC_DE);
	if (size == 8) {
		__asm__("divq %[d]"
			: "=a"(q), "=d"(r)
			: "a"(lo), "d"(hi), [d] "r"(d)
			: "cc");
	} else {
		uint64_t n = hi << (size * 8) | lo;

		q = n / d;
		r = n % d;
	}
	gpr_set(cpu, GPR_RAX, size, q);
	gpr_set(cpu, GPR_RDX, size, r);
}

/* 128 by 64 bits, signed; false when the quotient does not fit. */
static bool idiv128(__int128 n, int64_t d, int64_t *q, int64_t *r)
{
	unsigned __int128 un = n < 0 ? -(unsigned __int128)n : (unsigned __int128)n;
	uint64_t ud = d < 0 ? -(uint64_t)d : (uint64_t)d, uq, ur;
	bool negative = (n < 0) != (d < 0);

	if (ud == 0 || (uint64_t)(un >> 64) >= ud)
		return false;
	__asm__("divq %[d]"
		: "=a"(uq), "=d"(ur)
		: "a"((uint64_t)un), "d"((uint64_t)(un >> 64)), [d] "r"(ud)
		: "cc");
	if (uq > (negative ? BIT64(63) : BIT64(63) - 1))
		return false;
	*q = negative ? -uq : uq;
	*r = n < 0 ? -ur : ur;
	return true;
}

static int64_t sign_extend(uint64_t v, unsigned size)
{
	unsigned shift = 64 - size * 8;

	return (int64_t)(v << shift) >> shift;
}

static void idiv_wide(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->op[0].size;
	int64_t d = sign_extend(opnd_get(cpu, in, 0, size), size), q, r;
	uint64_t hi = gpr_get(cpu, GPR_RDX, size), lo = gpr_get(cpu, GPR_RAX, size);

	if (size == 1) {
		idiv8(cpu, d);
		return;
	}
	if (size == 8) {
		__int128 n = (__int128)((unsigned __int128)hi << 64 | lo);

		if (!idiv128(n, d, &q, &r))
			cpu_raise(cpu, EXC_DE);
	} else {
		int64_t n = sign_extend(hi << (size * 8) | lo, size * 2);

		if (d == 0 || (d == -1 && n == INT64_MIN))
			cpu_raise(cpu, EXC_DE);
		q = n / d;
		r = n % d;
		if (q != sign_extend(q, size))
			cpu_raise(cpu, EXC_DE);
	}
	gpr_set(cpu, GPR_RAX, size, q);
	gpr_set(cpu, GPR_RDX, size, r);
}

/* CBW CWDE CDQE: by destination size. */
static void extend_acc(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->opsize;

	gpr_set(cpu, GPR_RAX, size, sign_extend(cpu->gpr[GPR_RAX], size / 2));
}

/* CWD CDQ CQO */
static void extend_acc_high(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->opsize;

	gpr_set(cpu, GPR_RDX, size, sign_extend(cpu->gpr[GPR_RAX], size) >> 63);
}

/* Sign, zero and parity of AL, and what a decimal adjustment decides itself. */
static void bcd_flags(struct soft_cpu *cpu, bool cf, bool af)
{
	uint8_t al = cpu->gpr[GPR_RAX];

	flag_assign(cpu, RF_CF, cf);
	flag_assign(cpu, RF_AF, af);
	flag_assign(cpu, RF_ZF, al == 0);
	flag_assign(cpu, RF_SF, al & 0x80);
	flag_assign(cpu, RF_PF, !__builtin_parity(al));
}

static void daa_das(struct soft_cpu *cpu, const struct insn *in)
{
	bool sub = in->mnemonic == ZYDIS_MNEMONIC_DAS, cf = cpu->rflags & RF_CF, af;
	uint8_t al = cpu->gpr[GPR_RAX], old = al;
	bool carry = false;

	af = (al & 15) > 9 || cpu->rflags & RF_AF;
	if (af) {
		carry = sub ? cf || al < 6 : cf || al > 0xf9;
		al += sub ? -6 : 6;
	}
	if (old > 0x99 || cf) {
		al += sub ? -0x60 : 0x60;
		carry = true;
	}
	gpr_set(cpu, GPR_RAX, 1, al);
	bcd_flags(cpu, carry, af);
}

static void aaa_aas(struct soft_cpu *cpu, const struct insn *in)
{
	bool adjust = (cpu->gpr[GPR_RAX] & 15) > 9 || cpu->rflags & RF_AF;
	uint16_t ax = cpu->gpr[GPR_RAX];

	if (adjust)
		ax += in->mnemonic == ZYDIS_MNEMONIC_AAA ? 0x106 : -0x106;
	gpr_set(cpu, GPR_RAX, 2, ax & 0xff0f);
	flag_assign(cpu, RF_CF, adjust);
	flag_assign(cpu, RF_AF, adjust);
}

static void aam(struct soft_cpu *cpu, const struct insn *in)
{
	uint8_t al = cpu->gpr[GPR_RAX], base = in->imm;

	if (base == 0)
		cpu_raise(cpu, EXC_DE);
	gpr_set(cpu, GPR_RAX, 2, (al / base) << 8 | al % base);
	bcd_flags(cpu, false, false);
	flag_assign(cpu, RF_OF, false);
}

static void aad(struct soft_cpu *cpu, const struct insn *in)
{
	uint8_t al = cpu->gpr[GPR_RAX], ah = cpu->gpr[GPR_RAX] >> 8;

	gpr_set(cpu, GPR_RAX, 2, (uint8_t)(al + ah * (uint8_t)in->imm));
	bcd_flags(cpu, false, false);
	flag_assign(cpu, RF_OF, false);
}

insn_fn *interp_mul_handler(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MUL:
		return mul;
	case ZYDIS_MNEMONIC_IMUL:
		if (in->nopnd == 1)
			return imul_wide;
		return in->opsize == 8 ? imul_8 : in->opsize == 4 ? imul_4 : imul_2;
	case ZYDIS_MNEMONIC_DIV:
		return div_wide;
	case ZYDIS_MNEMONIC_IDIV:
		return idiv_wide;
	case ZYDIS_MNEMONIC_CBW:
	case ZYDIS_MNEMONIC_CWDE:
	case ZYDIS_MNEMONIC_CDQE:
		return extend_acc;
	case ZYDIS_MNEMONIC_CWD:
	case ZYDIS_MNEMONIC_CDQ:
	case ZYDIS_MNEMONIC_CQO:
		return extend_acc_high;
	case ZYDIS_MNEMONIC_DAA:
	case ZYDIS_MNEMONIC_DAS:
		return daa_das;
	case ZYDIS_MNEMONIC_AAA:
	case ZYDIS_MNEMONIC_AAS:
		return aaa_aas;
	case ZYDIS_MNEMONIC_AAM:
		return aam;
	case ZYDIS_MNEMONIC_AAD:
		return aad;
	default:
		return NULL;
	}
}
