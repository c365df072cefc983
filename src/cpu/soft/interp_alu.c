/*
 * ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT in every form. The common
 * forms have a handler of their own, made by the macros below: operand kinds and
 * size are constants in each, so that a handler is straight code.
 */
#include "cpu/soft/interp.h"

/* r = a OP b on size bytes; the upper bytes of a stay or clear as in a register. */
#define BINARY(name, ins)                                                          \
	ALWAYS_INLINE uint64_t alu_##name(                                         \
	    uint64_t rflags, uint64_t a, uint64_t b, unsigned size, uint32_t *f)   \
	{                                                                          \
		(void)rflags;                                                      \
		switch (size) {                                                    \
		case 1:                                                            \
			__asm__(ins "b %b[b], %b[a]" FLAGS_OUT                     \
				: [a] "+r"(a), "=&a"(*f)                           \
				: [b] "r"(b)                                       \
				: "cc");                                           \
			break;                                                     \
		case 2:                                                            \
			__asm__(ins "w %w[b], %w[a]" FLAGS_OUT                     \
				: [a] "+r"(a), "=&a"(*f)                           \
				: [b] "r"(b)                                       \
				: "cc");                                           \
			break;                                                     \
		case 4:                                                            \
			__asm__(ins "l %k[b], %k[a]" FLAGS_OUT                     \
				: [a] "+r"(a), "=&a"(*f)                           \
				: [b] "r"(b)                                       \
				: "cc");                                           \
			break;                                                     \
		default:                                                           \
			__asm__(ins "q %[b], %[a]" FLAGS_OUT                       \
				: [a] "+r"(a), "=&a"(*f)                           \
				: [b] "r"(b)                                       \
				: "cc");                                           \
		}                                                                  \
		return a;                                                          \
	}

/* The same with CF as an input. */
#define BINARY_CARRY(name, ins)                                                    \
	ALWAYS_INLINE uint64_t alu_##name(                                         \
	    uint64_t rflags, uint64_t a, uint64_t b, unsigned size, uint32_t *f)   \
	{                                                                          \
		switch (size) {                                                    \
		case 1:                                                            \
			__asm__("btl $0, %k[c]\n\t" ins "b %b[b], %b[a]" FLAGS_OUT \
				: [a] "+r"(a), "=&a"(*f)                           \
				: [b] "r"(b), [c] "r"(rflags)                      \
				: "cc");                                           \
			break;                                                     \
		case 2:                                                            \
			__asm__("btl $0, %k[c]\n\t" ins "w %w[b], %w[a]" FLAGS_OUT \
				: [a] "+r"(a), "=&a"(*f)                           \
				: [b] "r"(b), [c] "r"(rflags)                      \
				: "cc");                                           \
			break;                                                     \
		case 4:                                                            \
			__asm__("btl $0, %k[c]\n\t" ins "l %k[b], %k[a]" FLAGS_OUT \
				: [a] "+r"(a), "=&a"(*f)                           \
				: [b] "r"(b), [c] "r"(rflags)                      \
				: "cc");                                           \
			break;                                                     \
		default:                                                           \
			__asm__("btl $0, %k[c]\n\t" ins "q %[b], %[a]" FLAGS_OUT   \
				: [a] "+r"(a), "=&a"(*f)                           \
				: [b] "r"(b), [c] "r"(rflags)                      \
				: "cc");                                           \
		}                                                                  \
		return a;                                                          \
	}

#define UNARY(name, ins)                                                           \
	ALWAYS_INLINE uint64_t alu_##name(uint64_t a, unsigned size, uint32_t *f)  \
	{                                                                          \
		switch (size) {                                                    \
		case 1:                                                            \
			__asm__(ins "b %b[a]" FLAGS_OUT                            \
				: [a] "+r"(a), "=&a"(*f)                           \
				:                                                  \
				: "cc");                                           \
			break;                                                     \
		case 2:                                                            \
			__asm__(ins "w %w[a]" FLAGS_OUT                            \
				: [a] "+r"(a), "=&a"(*f)                           \
				:                                                  \
				: "cc");                                           \
			break;                                                     \
		case 4:                                                            \
			__asm__(ins "l %k[a]" FLAGS_OUT                            \
				: [a] "+r"(a), "=&a"(*f)                           \
				:                                                  \
				: "cc");                                           \
			break;                                                     \
		default:                                                           \
			__asm__(ins "q %[a]" FLAGS_OUT                             \
				: [a] "+r"(a), "=&a"(*f)                           \
				:                                                  \
				: "cc");                                           \
		}                                                                  \
		return a;                                                          \
	}

BINARY(add, "add")
BINARY(or, "or")
BINARY_CARRY(adc, "adc")
BINARY_CARRY(sbb, "sbb")
BINARY(and, "and")
BINARY(sub, "sub")
BINARY(xor, "xor")
BINARY(cmp, "cmp")
BINARY(test, "test")
UNARY(inc, "inc")
UNARY(dec, "dec")
UNARY(neg, "neg")

/*
 * Forms: r register (not AH..BH), i immediate, m memory; x any with AH..BH; l
 * locked memory. writes: the result is kept (not CMP, TEST).
 */
#define FORM_RR(name, size, writes)                                                \
	static void name##_rr_##size(struct soft_cpu *cpu, const struct insn *in)  \
	{                                                                          \
		uint64_t *d = &cpu->gpr[in->op[0].reg];                            \
		uint32_t f;                                                        \
		uint64_t r = alu_##name(                                           \
		    cpu->rflags, *d, cpu->gpr[in->op[1].reg], size, &f);           \
                                                                                   \
		if (writes)                                                        \
			*d = r;                                                    \
		set_flags(cpu, f);                                                 \
	}
#define FORM_RI(name, size, writes)                                                \
	static void name##_ri_##size(struct soft_cpu *cpu, const struct insn *in)  \
	{                                                                          \
		uint64_t *d = &cpu->gpr[in->op[0].reg];                            \
		uint32_t f;                                                        \
		uint64_t r = alu_##name(cpu->rflags, *d, in->imm, size, &f);       \
                                                                                   \
		if (writes)                                                        \
			*d = r;                                                    \
		set_flags(cpu, f);                                                 \
	}
#define FORM_RM(name, size, writes)                                                \
	static void name##_rm_##size(struct soft_cpu *cpu, const struct insn *in)  \
	{                                                                          \
		uint64_t b = load_ea(cpu, in, size),                               \
			 *d = &cpu->gpr[in->op[0].reg];                            \
		uint32_t f;                                                        \
		uint64_t r = alu_##name(cpu->rflags, *d, b, size, &f);             \
                                                                                   \
		if (writes)                                                        \
			*d = r;                                                    \
		set_flags(cpu, f);                                                 \
	}
#define FORM_M(name, form, source, size, writes)                                   \
	static void name##_##form##_##size(                                        \
	    struct soft_cpu *cpu, const struct insn *in)                           \
	{                                                                          \
		uint64_t b = source, r, lin = ea(cpu, in, size, writes);           \
		uint32_t f;                                                        \
                                                                                   \
		if (!(writes)) {                                                   \
			alu_##name(                                                \
			    cpu->rflags, mmu_ld(cpu, lin, size), b, size, &f);     \
		} else {                                                           \
			void *p = mmu_rw_fast(cpu, lin, size);                     \
                                                                                   \
			if (likely(p)) {                                           \
				r = alu_##name(                                    \
				    cpu->rflags, host_load(p, size), b, size, &f); \
				host_store(p, size, r);                            \
			} else {                                                   \
				mmu_probe_write(cpu, lin, size);                   \
				r = alu_##name(cpu->rflags,                        \
				    mmu_load(cpu, lin, size), b, size, &f);        \
				mmu_store(cpu, lin, size, r);                      \
			}                                                          \
		}                                                                  \
		set_flags(cpu, f);                                                 \
	}
#define FORM_L(name, size, writes)                                                 \
	static void name##_l_##size(struct soft_cpu *cpu, const struct insn *in)   \
	{                                                                          \
		uint64_t b = opnd_get(cpu, in, 1, size), r;                        \
		struct rmw m;                                                      \
		uint32_t f;                                                        \
                                                                                   \
		rmw_begin(cpu, in, size, true, &m);                                \
		do                                                                 \
			r = alu_##name(cpu->rflags, m.old, b, size, &f);           \
		while (!rmw_end(cpu, size, true, &m, r));                          \
		set_flags(cpu, f);                                                 \
	}
#define FORM_X(name, writes)                                                       \
	static void name##_x(struct soft_cpu *cpu, const struct insn *in)          \
	{                                                                          \
		uint64_t b = opnd_get(cpu, in, 1, 1), a, r;                        \
		uint32_t f;                                                        \
                                                                                   \
		if (writes && in->op[0].kind == OPND_MEM) {                        \
			struct rmw m;                                              \
                                                                                   \
			rmw_begin(cpu, in, 1, false, &m);                          \
			r = alu_##name(cpu->rflags, m.old, b, 1, &f);              \
			rmw_end(cpu, 1, false, &m, r);                             \
		} else {                                                           \
			a = opnd_get(cpu, in, 0, 1);                               \
			r = alu_##name(cpu->rflags, a, b, 1, &f);                  \
			if (writes)                                                \
				opnd_set(cpu, in, 0, 1, r);                        \
		}                                                                  \
		set_flags(cpu, f);                                                 \
	}

#define FORMS(name, size, writes)                                                  \
	FORM_RR(name, size, writes)                                                \
	FORM_RI(name, size, writes)                                                \
	FORM_RM(name, size, writes)                                                \
	FORM_M(name, mr, cpu->gpr[in->op[1].reg], size, writes)                    \
	FORM_M(name, mi, in->imm, size, writes)
#define LOCKED(name)                                                               \
	FORM_L(name, 1, true)                                                      \
	FORM_L(name, 2, true)                                                      \
	FORM_L(name, 4, true)                                                      \
	FORM_L(name, 8, true)
#define SIZES(name, writes)                                                        \
	FORMS(name, 1, writes)                                                     \
	FORMS(name, 2, writes)                                                     \
	FORMS(name, 4, writes)                                                     \
	FORMS(name, 8, writes)                                                     \
	FORM_X(name, writes)

SIZES(add, true)
SIZES(or, true)
SIZES(adc, true)
SIZES(sbb, true)
SIZES(and, true)
SIZES(sub, true)
SIZES(xor, true)
SIZES(cmp, false)
SIZES(test, false)
LOCKED(add)
LOCKED(or)
LOCKED(adc)
LOCKED(sbb)
LOCKED(and)
LOCKED(sub)
LOCKED(xor)

enum form { RR, RI, RM, MR, MI, FORM_COUNT };

struct binary {
	insn_fn *fn[FORM_COUNT][4];
	insn_fn *locked[4];
	insn_fn *any;
};

#define BY_SIZE(f)                                                                 \
	{                                                                          \
		f##_1, f##_2, f##_4, f##_8                                         \
	}
#define READS(name)                                                                \
	{                                                                          \
		.fn = { BY_SIZE(name##_rr), BY_SIZE(name##_ri),                    \
			BY_SIZE(name##_rm), BY_SIZE(name##_mr),                    \
			BY_SIZE(name##_mi) },                                      \
		.any = name##_x,                                                   \
	}
#define WRITES(name)                                                               \
	{                                                                          \
		.fn = { BY_SIZE(name##_rr), BY_SIZE(name##_ri),                    \
			BY_SIZE(name##_rm), BY_SIZE(name##_mr),                    \
			BY_SIZE(name##_mi) },                                      \
		.locked = BY_SIZE(name##_l), .any = name##_x,                      \
	}

static insn_fn *binary_handler(const struct insn *in, const struct binary *b)
{
	unsigned s = size_index(in->op[0].size), k0 = in->op[0].kind,
		 k1 = in->op[1].kind;

	if (in->flags & INSN_LOCK)
		return b->locked[s];
	if (k0 == OPND_GPR8H || k1 == OPND_GPR8H)
		return b->any;
	if (k0 == OPND_MEM)
		return b->fn[k1 == OPND_IMM ? MI : MR][s];
	return b->fn[k1 == OPND_IMM ? RI : k1 == OPND_MEM ? RM : RR][s];
}

/* One operand: rarely memory, so one handler a size takes every kind. */
#define UNARY_FORM(name, size, set)                                                \
	static void name##_r_##size(struct soft_cpu *cpu, const struct insn *in)   \
	{                                                                          \
		uint64_t *d = &cpu->gpr[in->op[0].reg];                            \
		uint32_t f;                                                        \
                                                                                   \
		*d = alu_##name(*d, size, &f);                                     \
		set(cpu, f);                                                       \
	}                                                                          \
	static void name##_any_##size(struct soft_cpu *cpu, const struct insn *in) \
	{                                                                          \
		bool locked = in->flags & INSN_LOCK;                               \
		struct rmw m;                                                      \
		uint64_t r;                                                        \
		uint32_t f;                                                        \
                                                                                   \
		rmw_begin(cpu, in, size, locked, &m);                              \
		if (in->op[0].kind == OPND_MEM) {                                  \
			do                                                         \
				r = alu_##name(m.old, size, &f);                   \
			while (!rmw_end(cpu, size, locked, &m, r));                \
		} else {                                                           \
			opnd_set(cpu, in, 0, size, alu_##name(m.old, size, &f));   \
		}                                                                  \
		set(cpu, f);                                                       \
	}
#define UNARY_SIZES(name, set)                                                     \
	UNARY_FORM(name, 1, set)                                                   \
	UNARY_FORM(name, 2, set)                                                   \
	UNARY_FORM(name, 4, set)                                                   \
	UNARY_FORM(name, 8, set)

UNARY_SIZES(inc, set_flags_keep_cf)
UNARY_SIZES(dec, set_flags_keep_cf)
UNARY_SIZES(neg, set_flags)

static void not_any(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->op[0].size;
	bool locked = in->flags & INSN_LOCK;
	struct rmw m;

	rmw_begin(cpu, in, size, locked, &m);
	if (in->op[0].kind != OPND_MEM)
		opnd_set(cpu, in, 0, size, ~m.old);
	else
		while (!rmw_end(cpu, size, locked, &m, ~m.old))
			;
}

insn_fn *interp_alu_handler(const struct insn *in)
{
	static const struct binary add = WRITES(add), or = WRITES(or),
				   adc = WRITES(adc),
				   sbb = WRITES(sbb), and = WRITES(and),
				   sub = WRITES(sub), xor = WRITES(xor),
				   cmp = READS(cmp), test = READS(test);
	static insn_fn *const
	    inc_r[] = BY_SIZE(inc_r),
	    *const inc_any[] = BY_SIZE(inc_any), *const dec_r[] = BY_SIZE(dec_r),
	    *const dec_any[] = BY_SIZE(dec_any), *const neg_r[] = BY_SIZE(neg_r),
	    *const neg_any[] = BY_SIZE(neg_any);
	unsigned s = size_index(in->op[0].size);
	bool reg = opnd_is(in, 0, OPND_GPR);

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_ADD:
		return binary_handler(in, &add);
	case ZYDIS_MNEMONIC_OR:
		return binary_handler(in, & or);
	case ZYDIS_MNEMONIC_ADC:
		return binary_handler(in, &adc);
	case ZYDIS_MNEMONIC_SBB:
		return binary_handler(in, &sbb);
	case ZYDIS_MNEMONIC_AND:
		return binary_handler(in, &and);
	case ZYDIS_MNEMONIC_SUB:
		return binary_handler(in, &sub);
	case ZYDIS_MNEMONIC_XOR:
		return binary_handler(in, &xor);
	case ZYDIS_MNEMONIC_CMP:
		return binary_handler(in, &cmp);
	case ZYDIS_MNEMONIC_TEST:
		return binary_handler(in, &test);
	case ZYDIS_MNEMONIC_INC:
		return reg ? inc_r[s] : inc_any[s];
	case ZYDIS_MNEMONIC_DEC:
		return reg ? dec_r[s] : dec_any[s];
	case ZYDIS_MNEMONIC_NEG:
		return reg ? neg_r[s] : neg_any[s];
	case ZYDIS_MNEMONIC_NOT:
		return not_any;
	default:
		return NULL;
	}
}
