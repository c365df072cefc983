/* BT BTS BTR BTC, BSF BSR TZCNT LZCNT POPCNT, CRC32. */
#include "cpu/soft/interp.h"

/*
 * The host's instruction on whole registers: an untouched destination stays
 * untouched.
 */
#define SCAN_ASM(ins, s_, d_)                                                      \
	__asm__(FLAGS_IN ins " " s_ ", " d_ FLAGS_OUT                              \
		: [d] "+&r"(d), "+&a"(f)                                           \
		: [s] "r"(s)                                                       \
		: "cc")

#define SCAN(name, ins)                                                            \
	static void name(struct soft_cpu *cpu, const struct insn *in)              \
	{                                                                          \
		unsigned size = in->op[0].size;                                    \
		uint64_t s = opnd_get(cpu, in, 1, size),                           \
			 d = cpu->gpr[in->op[0].reg];                              \
		uint32_t f = flags_pack(cpu->rflags);                              \
                                                                                   \
		switch (size) {                                                    \
		case 2:                                                            \
			SCAN_ASM(ins "w", "%w[s]", "%w[d]");                       \
			break;                                                     \
		case 4:                                                            \
			SCAN_ASM(ins "l", "%k[s]", "%k[d]");                       \
			break;                                                     \
		default:                                                           \
			SCAN_ASM(ins "q", "%[s]", "%[d]");                         \
		}                                                                  \
		cpu->gpr[in->op[0].reg] = d;                                       \
		set_flags(cpu, f);                                                 \
	}

SCAN(bsf, "bsf")
SCAN(bsr, "bsr")
SCAN(tzcnt, "tzcnt")
SCAN(lzcnt, "lzcnt")
SCAN(popcnt, "popcnt")

static void crc32(struct soft_cpu *cpu, const struct insn *in)
{
	unsigned size = in->op[1].size;
	uint64_t s = opnd_get(cpu, in, 1, size), d = cpu->gpr[in->op[0].reg];

	switch (size) {
	case 1:
		__asm__("crc32b %b[s], %k[d]" : [d] "+r"(d) : [s] "r"(s));
		break;
	case 2:
		__asm__("crc32w %w[s], %k[d]" : [d] "+r"(d) : [s] "r"(s));
		break;
	case 4:
		__asm__("crc32l %k[s], %k[d]" : [d] "+r"(d) : [s] "r"(s));
		break;
	default:
		__asm__("crc32q %[s], %[d]" : [d] "+r"(d) : [s] "r"(s));
	}
	cpu->gpr[in->op[0].reg] = d;
}

static uint64_t change_bit(const struct insn *in, uint64_t v, unsigned bit)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_BTS:
		return v | BIT64(bit);
	case ZYDIS_MNEMONIC_BTR:
		return v & ~BIT64(bit);
	default:
		return v ^ BIT64(bit);
	}
}

/* A register as bit index reaches beyond the operand: the address moves with it. */
static uint64_t bit_linear(
    struct soft_cpu *cpu, const struct insn *in, unsigned size, bool write)
{
	uint64_t off = insn_offset(cpu, in);

	if (in->op[1].kind == OPND_GPR) {
		unsigned shift = 64 - size * 8;
		int64_t bit = (int64_t)(cpu->gpr[in->op[1].reg] << shift) >> shift;

		off += (bit >> (size == 8 ? 6 : size == 4 ? 5 : 4)) * (int64_t)size;
	}
	return seg_linear(cpu, in->seg, off, in->addrsize, size, write);
}

static void bit_test(struct soft_cpu *cpu, const struct insn *in)
{
	bool only_test = in->mnemonic == ZYDIS_MNEMONIC_BT,
	     locked = in->flags & INSN_LOCK;
	unsigned size = in->op[0].size, bit;
	struct rmw m;

	bit = (in->op[1].kind == OPND_GPR ? cpu->gpr[in->op[1].reg]
					  : (uint64_t)in->imm) &
	      (size * 8 - 1);
	if (in->op[0].kind == OPND_GPR) {
		m.old = cpu->gpr[in->op[0].reg];
		if (!only_test)
			gpr_set(
			    cpu, in->op[0].reg, size, change_bit(in, m.old, bit));
	} else if (only_test) {
		m.old = mmu_ld(cpu, bit_linear(cpu, in, size, false), size);
	} else {
		uint64_t old;

		rmw_begin_at(
		    cpu, bit_linear(cpu, in, size, true), size, locked, &m);
		do
			old = m.old;
		while (!rmw_end(cpu, size, locked, &m, change_bit(in, old, bit)));
		m.old = old;
	}
	/* OF SF AF PF are undefined; hosts leave them and ZF alone. */
	flag_assign(cpu, RF_CF, m.old >> bit & 1);
}

insn_fn *interp_bit_handler(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		return bit_test;
	case ZYDIS_MNEMONIC_BSF:
		return bsf;
	case ZYDIS_MNEMONIC_BSR:
		return bsr;
	case ZYDIS_MNEMONIC_TZCNT:
		return tzcnt;
	case ZYDIS_MNEMONIC_LZCNT:
		return lzcnt;
	/* Unlike the two above these would be illegal on a host without them. */
	case ZYDIS_MNEMONIC_POPCNT:
		return __builtin_cpu_supports("popcnt") ? popcnt : NULL;
	case ZYDIS_MNEMONIC_CRC32:
		return __builtin_cpu_supports("sse4.2") ? crc32 : NULL;
	default:
		return NULL;
	}
}
