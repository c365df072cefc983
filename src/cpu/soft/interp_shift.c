/*
 * SHL SHR SAR ROL ROR RCL RCR SHLD SHRD. The host's instruction runs on the guest's
 * flags, so counts of zero, rotates through carry and undefined flags come out as
 * the host has them.
 */
#include "cpu/soft/interp.h"

#define SHIFT_ASM(ins, reg)                                                        \
	__asm__(FLAGS_IN ins " %%cl, " reg FLAGS_OUT                               \
		: [a] "+&r"(a), "+&a"(*f)                                          \
		: "c"(count)                                                       \
		: "cc")

#define SHIFT(name, ins)                                                           \
	ALWAYS_INLINE uint64_t shift_##name(                                       \
	    uint64_t a, uint64_t count, unsigned size, uint32_t *f)                \
	{                                                                          \
		switch (size) {                                                    \
		case 1:                                                            \
			SHIFT_ASM(ins "b", "%b[a]");                               \
			break;                                                     \
		case 2:                                                            \
			SHIFT_ASM(ins "w", "%w[a]");                               \
			break;                                                     \
		case 4:                                                            \
			SHIFT_ASM(ins "l", "%k[a]");                               \
			break;                                                     \
		default:                                                           \
			SHIFT_ASM(ins "q", "%[a]");                                \
		}                                                                  \
		return a;                                                          \
	}

SHIFT(shl, "shl")
SHIFT(shr, "shr")
SHIFT(sar, "sar")
SHIFT(rol, "rol")
SHIFT(ror, "ror")
SHIFT(rcl, "rcl")
SHIFT(rcr, "rcr")

/* ri: register by immediate; any: everything else. Op 1 is an immediate or CL. */
#define SHIFT_FORMS(name, size)                                                    \
	static void name##_ri_##size(struct soft_cpu *cpu, const struct insn *in)  \
	{                                                                          \
		uint64_t *d = &cpu->gpr[in->op[0].reg];                            \
		uint32_t f = flags_pack(cpu->rflags);                              \
                                                                                   \
		*d = shift_##name(*d, in->imm, size, &f);                          \
		set_flags(cpu, f);                                                 \
	}                                                                          \
	static void name##_any_##size(struct soft_cpu *cpu, const struct insn *in) \
	{                                                                          \
		uint64_t count = opnd_get(cpu, in, 1, 1);                          \
		uint32_t f = flags_pack(cpu->rflags);                              \
                                                                                   \
		if (in->op[0].kind == OPND_GPR) {                                  \
			uint64_t *d = &cpu->gpr[in->op[0].reg];                    \
                                                                                   \
			*d = shift_##name(*d, count, size, &f);                    \
		} else {                                                           \
			struct rmw m;                                              \
			uint64_t r;                                                \
                                                                                   \
			rmw_begin(cpu, in, size, false, &m);                       \
			r = shift_##name(m.old, count, size, &f);                  \
			if (in->op[0].kind == OPND_MEM)                            \
				rmw_end(cpu, size, false, &m, r);                  \
			else                                                       \
				opnd_set(cpu, in, 0, size, r);                     \
		}                                                                  \
		set_flags(cpu, f);                                                 \
	}
#define SHIFT_SIZES(name)                                                          \
	SHIFT_FORMS(name, 1)                                                       \
	SHIFT_FORMS(name, 2)                                                       \
	SHIFT_FORMS(name, 4)                                                       \
	SHIFT_FORMS(name, 8)

SHIFT_SIZES(shl)
SHIFT_SIZES(shr)
SHIFT_SIZES(sar)
SHIFT_SIZES(rol)
SHIFT_SIZES(ror)
SHIFT_SIZES(rcl)
SHIFT_SIZES(rcr)

#define DOUBLE(name, ins)                                                          \
	static uint64_t double_##name(                                             \
	    uint64_t a, uint64_t b, uint64_t count, unsigned size, uint32_t *f)    \
	{                                                                          \
		switch (size) {                                                    \
		case 2:                                                            \
			__asm__(FLAGS_IN ins "w %%cl, %w[b], %w[a]" FLAGS_OUT      \
				: [a] "+&r"(a), "+&a"(*f)                          \
				: [b] "r"(b), "c"(count)                           \
				: "cc");                                           \
			break;                                                     \
		case 4:                                                            \
			__asm__(FLAGS_IN ins "l %%cl, %k[b], %k[a]" FLAGS_OUT      \
				: [a] "+&r"(a), "+&a"(*f)                          \
				: [b] "r"(b), "c"(count)                           \
				: "cc");                                           \
			break;                                                     \
		default:                                                           \
			__asm__(FLAGS_IN ins "q %%cl, %[b], %[a]" FLAGS_OUT        \
				: [a] "+&r"(a), "+&a"(*f)                          \
				: [b] "r"(b), "c"(count)                           \
				: "cc");                                           \
		}                                                                  \
		return a;                                                          \
	}                                                                          \
	static void name(struct soft_cpu *cpu, const struct insn *in)              \
	{                                                                          \
		unsigned size = in->opsize;                                        \
		uint64_t b = cpu->gpr[in->op[1].reg];                              \
		uint64_t count = in->op[2].kind == OPND_IMM ? (uint64_t)in->imm    \
							    : cpu->gpr[GPR_RCX];   \
		uint32_t f = flags_pack(cpu->rflags);                              \
		struct rmw m;                                                      \
                                                                                   \
		if (in->op[0].kind == OPND_MEM) {                                  \
			rmw_begin(cpu, in, size, false, &m);                       \
			rmw_end(cpu, size, false, &m,                              \
			    double_##name(m.old, b, count, size, &f));             \
		} else {                                                           \
			uint64_t *d = &cpu->gpr[in->op[0].reg];                    \
                                                                                   \
			*d = double_##name(*d, b, count, size, &f);                \
		}                                                                  \
		set_flags(cpu, f);                                                 \
	}

DOUBLE(shld, "shld")
DOUBLE(shrd, "shrd")

struct shift {
	insn_fn *ri[4], *any[4];
};

#define SHIFT_TABLE(name)                                                          \
	{                                                                          \
		{ name##_ri_1, name##_ri_2, name##_ri_4, name##_ri_8 },            \
		    { name##_any_1, name##_any_2, name##_any_4, name##_any_8 },    \
	}

insn_fn *interp_shift_handler(const struct insn *in)
{
	static const struct shift shl = SHIFT_TABLE(shl), shr = SHIFT_TABLE(shr),
				  sar = SHIFT_TABLE(sar), rol = SHIFT_TABLE(rol),
				  ror = SHIFT_TABLE(ror), rcl = SHIFT_TABLE(rcl),
				  rcr = SHIFT_TABLE(rcr);
	const struct shift *s;
	unsigned size = size_index(in->op[0].size);

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_SHL:
		s = &shl;
		break;
	case ZYDIS_MNEMONIC_SHR:
		s = &shr;
		break;
	case ZYDIS_MNEMONIC_SAR:
		s = &sar;
		break;
	case ZYDIS_MNEMONIC_ROL:
		s = &rol;
		break;
	case ZYDIS_MNEMONIC_ROR:
		s = &ror;
		break;
	case ZYDIS_MNEMONIC_RCL:
		s = &rcl;
		break;
	case ZYDIS_MNEMONIC_RCR:
		s = &rcr;
		break;
	case ZYDIS_MNEMONIC_SHLD:
		return shld;
	case ZYDIS_MNEMONIC_SHRD:
		return shrd;
	default:
		return NULL;
	}
	if (opnd_is(in, 0, OPND_GPR) && opnd_is(in, 1, OPND_IMM))
		return s->ri[size];
	return s->any[size];
}
