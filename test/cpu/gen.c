/*
 * Makes tests. Instruction bytes are random within the shape of an encoding
 * (prefixes, map, ModRM) and kept when Zydis decodes them to something that may run
 * in a child process: no system calls, no branches out of the test, nothing whose
 * result names the host (time, identity, descriptor tables), nothing the guest is
 * not promised. Registers are then set so that its operands mostly hit the data
 * pages - and their edges.
 */
#include <string.h>

#include <Zydis/Zydis.h>

#include "oracle.h"

static ZydisDecoder decoder;

struct decoded {
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

void gen_init(void)
{
	ZydisDecoderInit(
	    &decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
	ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
}

static bool isa_allowed(ZydisISASet isa)
{
	switch (isa) {
	case ZYDIS_ISA_SET_ADOX_ADCX: case ZYDIS_ISA_SET_AES:
	case ZYDIS_ISA_SET_AVX: case ZYDIS_ISA_SET_AVX2:
	case ZYDIS_ISA_SET_AVX2GATHER: case ZYDIS_ISA_SET_AVXAES:
	case ZYDIS_ISA_SET_AVX_GFNI: case ZYDIS_ISA_SET_BMI1:
	case ZYDIS_ISA_SET_BMI2: case ZYDIS_ISA_SET_CLFLUSHOPT:
	case ZYDIS_ISA_SET_CLFSH: case ZYDIS_ISA_SET_CMOV:
	case ZYDIS_ISA_SET_CMPXCHG16B: case ZYDIS_ISA_SET_F16C:
	case ZYDIS_ISA_SET_FAT_NOP: case ZYDIS_ISA_SET_FCMOV:
	case ZYDIS_ISA_SET_FMA: case ZYDIS_ISA_SET_GFNI: case ZYDIS_ISA_SET_I186:
	case ZYDIS_ISA_SET_I286PROTECTED: case ZYDIS_ISA_SET_I286REAL:
	case ZYDIS_ISA_SET_I386: case ZYDIS_ISA_SET_I486:
	case ZYDIS_ISA_SET_I486REAL: case ZYDIS_ISA_SET_I86:
	case ZYDIS_ISA_SET_LAHF: case ZYDIS_ISA_SET_LONGMODE:
	case ZYDIS_ISA_SET_LZCNT: case ZYDIS_ISA_SET_MOVBE:
	case ZYDIS_ISA_SET_PAUSE: case ZYDIS_ISA_SET_PCLMULQDQ:
	case ZYDIS_ISA_SET_PENTIUMMMX: case ZYDIS_ISA_SET_PENTIUMREAL:
	case ZYDIS_ISA_SET_POPCNT: case ZYDIS_ISA_SET_PPRO:
	case ZYDIS_ISA_SET_PREFETCH_NOP: case ZYDIS_ISA_SET_SHA:
	case ZYDIS_ISA_SET_SMAP: case ZYDIS_ISA_SET_SSE: case ZYDIS_ISA_SET_SSE2:
	case ZYDIS_ISA_SET_SSE2MMX: case ZYDIS_ISA_SET_SSE3:
	case ZYDIS_ISA_SET_SSE3X87: case ZYDIS_ISA_SET_SSE4:
	case ZYDIS_ISA_SET_SSE42: case ZYDIS_ISA_SET_SSEMXCSR:
	case ZYDIS_ISA_SET_SSE_PREFETCH: case ZYDIS_ISA_SET_SSSE3:
	case ZYDIS_ISA_SET_SSSE3MMX: case ZYDIS_ISA_SET_VAES:
	case ZYDIS_ISA_SET_VPCLMULQDQ: case ZYDIS_ISA_SET_X87:
		return true;
	default:
		return false;
	}
}

static bool mnemonic_allowed(ZydisMnemonic m)
{
	switch (m) {
	/* enter the kernel, or another segment */
	case ZYDIS_MNEMONIC_INT: case ZYDIS_MNEMONIC_INT1: case ZYDIS_MNEMONIC_INT3:
	case ZYDIS_MNEMONIC_SYSCALL: case ZYDIS_MNEMONIC_SYSENTER:
	case ZYDIS_MNEMONIC_SYSRET: case ZYDIS_MNEMONIC_SYSEXIT:
	case ZYDIS_MNEMONIC_IRET: case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ: case ZYDIS_MNEMONIC_LSS: case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
	/* show what differs by design */
	case ZYDIS_MNEMONIC_CPUID: case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDPMC: case ZYDIS_MNEMONIC_LAR: case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR: case ZYDIS_MNEMONIC_VERW:
	case ZYDIS_MNEMONIC_SGDT: case ZYDIS_MNEMONIC_SIDT:
	case ZYDIS_MNEMONIC_SLDT: case ZYDIS_MNEMONIC_STR: case ZYDIS_MNEMONIC_SMSW:
	case ZYDIS_MNEMONIC_FNSTENV: case ZYDIS_MNEMONIC_FNSAVE:
	/* the host traps what a guest is not promised, or the other way round */
	case ZYDIS_MNEMONIC_CLAC:
	case ZYDIS_MNEMONIC_STAC:
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
		return false;
	default:
		return true;
	}
}

static bool writes_segment(const struct decoded *d)
{
	for (unsigned i = 0; i < d->insn.operand_count; i++) {
		const ZydisDecodedOperand *o = &d->op[i];

		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT &&
		    o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			return true;
		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    o->mem.segment == ZYDIS_REGISTER_FS)
			return true;
	}
	return false;
}

static bool is_branch(const struct decoded *d)
{
	return d->insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE ||
	       d->insn.meta.category == ZYDIS_CATEGORY_RET;
}

/* Which of the bytes that are masked off fault is the implementation's choice. */
static bool is_masked_store(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_MASKMOVQ || m == ZYDIS_MNEMONIC_MASKMOVDQU ||
	       m == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

static bool acceptable(const struct decoded *d, bool branches)
{
	const ZydisDecodedInstruction *zi = &d->insn;

	if (zi->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	    zi->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
		return false;
	if (!isa_allowed(zi->meta.isa_set) || !mnemonic_allowed(zi->mnemonic) ||
	    writes_segment(d))
		return false;
	/* The register form is a NOP on Intel, #UD on AMD. */
	if (zi->opcode_map == ZYDIS_OPCODE_MAP_0F && zi->opcode == 0x0d &&
	    zi->raw.modrm.mod == 3)
		return false;
	/*
	 * With 66h AMD truncates RIP, Intel ignores the prefix; the engine does as
	 * Intel.
	 */
	if (is_branch(d) && zi->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE)
		return false;
	/* AMD's LOOPE with F2h is LOOPNE; elsewhere the prefix is reserved. */
	if (zi->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && zi->opcode >= 0xe0 &&
	    zi->opcode <= 0xe3 && zi->raw.prefix_count > 0)
		return false;
	/* With 66h AMD reads 32 bits, Intel 16. */
	if (d->insn.mnemonic == ZYDIS_MNEMONIC_MOVSXD && d->op[0].size == 16)
		return false;
	/* These may leave part of their work behind when they fault. */
	if ((zi->mnemonic == ZYDIS_MNEMONIC_ENTER ||
		is_masked_store(zi->mnemonic)) &&
	    !branches)
		return false;
	/* With REX.B it is XCHG R8, RAX on the host; Zydis calls it PAUSE. */
	if (d->insn.mnemonic == ZYDIS_MNEMONIC_PAUSE &&
	    zi->attributes & ZYDIS_ATTRIB_HAS_REX)
		return false;
	if (is_branch(d))
		return branches && zi->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR;
	return true;
}

/* A ModRM byte and what may follow; random bytes serve as SIB and displacement. */
static void put_modrm(struct rng *r, uint8_t *p)
{
	uint8_t v = (uint8_t)rng_next(r);

	if (rng_below(r, 100) < 40)
		v |= 0xc0;
	*p = v;
}

static unsigned raw_insn(struct rng *r, uint8_t *b)
{
	static const uint8_t mandatory[] = { 0, 0x66, 0xf3, 0xf2 };
	static const uint8_t strings[] = { 0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac,
		0xad, 0xae, 0xaf };
	unsigned n = 0, kind = rng_below(r, 100), pick;
	uint64_t fill[2] = { rng_next(r), rng_next(r) };

	memcpy(b, fill, 15);
	if (rng_below(r, 100) < 4)
		b[n++] = 0x67;
	if (rng_below(r, 100) < 3)
		b[n++] = 0x65;
	if (kind < 25) { /* VEX */
		uint8_t map = (uint8_t)(1 + rng_below(r, 3));
		uint8_t v = (uint8_t)rng_next(r);

		b[n++] = 0xc4;
		b[n++] = (uint8_t)(rng_next(r) & 0xe0) | map;
		/* vvvv must be 1111 where it is not used: try that often. */
		b[n++] = rng_below(r, 2) ? v : v | 0x78;
		b[n++] = (uint8_t)rng_next(r);
		put_modrm(r, b + n);
		return 15;
	}
	pick = rng_below(r, 100);
	if (kind < 50 || kind >= 92) { /* one-byte opcodes, strings, x87 */
		if (pick < 20)
			b[n++] = 0x66;
		else if (pick < 27)
			b[n++] = 0xf3;
		else if (pick < 34)
			b[n++] = 0xf2;
		if (rng_below(r, 100) < 5)
			b[n++] = 0xf0;
	} else {
		pick = mandatory[rng_below(r, 4)];
		if (pick)
			b[n++] = (uint8_t)pick;
		if (rng_below(r, 100) < 2)
			b[n++] = 0xf0;
	}
	if (rng_below(r, 100) < 55)
		b[n++] = 0x40 | (uint8_t)(rng_next(r) & 15);
	if (kind < 50) {
		b[n++] = (uint8_t)rng_next(r);
	} else if (kind < 74) {
		b[n++] = 0x0f;
		b[n++] = (uint8_t)rng_next(r);
	} else if (kind < 85) {
		b[n++] = 0x0f;
		b[n++] = 0x38;
		b[n++] = (uint8_t)rng_next(r);
	} else if (kind < 92) {
		b[n++] = 0x0f;
		b[n++] = 0x3a;
		b[n++] = (uint8_t)rng_next(r);
	} else if (kind < 97) {
		b[n++] = 0xd8 | (uint8_t)(rng_next(r) & 7);
	} else {
		b[n++] = strings[rng_below(r, ARRAY_SIZE(strings))];
	}
	put_modrm(r, b + n);
	return 15;
}

static bool draw(struct rng *r, bool branches, uint8_t *b, struct decoded *d)
{
	unsigned n = raw_insn(r, b);

	return ZYAN_SUCCESS(
		   ZydisDecoderDecodeFull(&decoder, b, n, &d->insn, d->op)) &&
	       acceptable(d, branches);
}

static uint64_t gen_value(struct rng *r)
{
	uint64_t v = rng_next(r);

	switch (rng_below(r, 10)) {
	case 0:
		return 0;
	case 1:
		return v & 0xff;
	case 2:
		return v & 0xffffffff;
	case 3:
		return (uint64_t)(int64_t)(int8_t)v;
	case 4:
		return UINT64_C(1) << (v & 63);
	case 5:
		return (UINT64_C(1) << (v & 63)) - 1;
	case 6:
		return UINT64_C(0x8000000080008080) & v;
	default:
		return v;
	}
}

static uint64_t gen_double(struct rng *r)
{
	static const uint64_t special[] = { 0, 0x8000000000000000,
		0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000,
		0xfff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001,
		0xfff8000000000000, 1, 0x000fffffffffffff, 0x0010000000000000,
		0x7fefffffffffffff, 0x4330000000000000, 0x43e0000000000000,
		0xc3e0000000000000, 0x41dfffffffc00000, 0x3fe0000000000000 };
	static const uint32_t special32[] = { 0, 0x80000000, 0x3f800000, 0xbf800000,
		0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 1, 0x007fffff,
		0x00800000, 0x7f7fffff, 0x4f000000, 0xcf000000, 0x3f000000,
		0x33800000 };

	switch (rng_below(r, 6)) {
	case 0:
		return special[rng_below(r, ARRAY_SIZE(special))];
	case 1:
		return special32[rng_below(r, ARRAY_SIZE(special32))] |
		       (uint64_t)special32[rng_below(r, ARRAY_SIZE(special32))]
			   << 32;
	case 2: /* near one */
		return 0x3f00000000000000 + (rng_next(r) & 0x80ffffffffffffff);
	case 3:
		return (rng_next(r) & 0x80ffffff80ffffff) | 0x3f0000003f000000;
	case 4: /* small integers */
		return rng_next(r) & 0x0000000f0000000f;
	default:
		return rng_next(r);
	}
}

static void gen_st(struct rng *r, uint8_t *st)
{
	uint64_t mant = rng_next(r);
	uint16_t exp = (uint16_t)(rng_next(r) & 0x8000);

	switch (rng_below(r, 8)) {
	case 0: /* zero, denormal or pseudo-denormal */
		mant = rng_below(r, 2) ? 0 : mant;
		break;
	case 1: /* infinity, NaN, unsupported */
		exp |= 0x7fff;
		mant = rng_below(r, 2) ? UINT64_C(1) << 63 : mant;
		break;
	case 2: /* any, also unnormal */
		exp |= rng_next(r) & 0x7fff;
		break;
	case 3: /* MMX register */
		exp = 0xffff;
		break;
	case 4: /* integer */
		mant = (mant & 0xff00000000000000) | UINT64_C(1) << 63;
		exp |= 0x3fff + rng_below(r, 20);
		break;
	default:
		mant |= UINT64_C(1) << 63;
		exp |= 0x3fff - 64 + rng_below(r, 128);
	}
	memcpy(st, &mant, 8);
	memcpy(st + 8, &exp, 2);
	memset(st + 10, 0, 6);
}

static void gen_fpu(struct rng *r, struct fpu_image *f)
{
	memset(f, 0, sizeof(*f));
	f->fcw = FPU_FCW_INIT;
	f->mxcsr = FPU_MXCSR_INIT;
	if (rng_below(r, 100) < 40)
		f->fcw = (uint16_t)((rng_next(r) & 0x1f3f) | 0x40);
	f->fsw =
	    (uint16_t)(rng_below(r, 8) << FSW_TOP_SHIFT | (rng_next(r) & 0x4700));
	if (rng_below(r, 100) < 15)
		f->fsw |= rng_next(r) & 0x7f;
	if (rng_below(r, 100) < 70) /* nothing pending */
		f->fcw |= f->fsw & FPU_FLAGS;
	fpu_update_es(f);
	f->ftw = rng_below(r, 3) ? 0xff : (uint8_t)rng_next(r);
	if (rng_below(r, 100) < 30)
		f->mxcsr = (uint32_t)rng_next(r) & 0xffff;
	else if (rng_below(r, 100) < 20)
		f->mxcsr |= (uint32_t)rng_next(r) & 0xe07f;
	f->mxcsr_mask = FPU_MXCSR_MASK;
	for (unsigned i = 0; i < 8; i++)
		gen_st(r, f->st[i]);
	for (unsigned i = 0; i < 16; i++) {
		uint64_t v[4] = { gen_double(r), gen_double(r), gen_double(r),
			gen_double(r) };

		memcpy(f->xmm[i], v, 16);
		memcpy(f->ymmh[i], v + 2, 16);
	}
	f->xstate_bv = FPU_ALL;
}

void gen_memory(uint8_t *data, uint64_t seed)
{
	struct rng r = { seed };

	for (unsigned i = 0; i < DATA_SIZE; i += 8) {
		uint64_t v = i / 512 & 1 ? gen_double(&r) : gen_value(&r);

		if (i / PAGE == DATA_HOLE)
			v = 0;
		memcpy(data + i, &v, 8);
	}
}

/* Where an operand of size bytes shall lie. */
static uint64_t gen_address(struct rng *r, const struct test *t, unsigned size)
{
	uint64_t a = ORACLE_DATA + 64 + rng_below(r, 2 * PAGE - 256);
	unsigned pick = rng_below(r, t->calm && rng_below(r, 16) ? 70 : 100);

	size = MAX(size, 1u);
	if (size > 512)
		size = 512;
	if (pick < 45)
		return a & ~UINT64_C(31);
	if (pick < 70)
		return a;
	if (pick < 78) /* from one writable page into the next */
		return ORACLE_DATA + PAGE - rng_below(r, size + 1);
	if (pick < 82)
		return ORACLE_DATA + 2 * PAGE - rng_below(r, size + 1);
	if (pick < 86)
		return ORACLE_DATA + DATA_RO * PAGE + rng_below(r, PAGE - 64);
	if (pick < 90)
		return ORACLE_DATA + DATA_HOLE * PAGE - rng_below(r, size + 1);
	if (pick < 92)
		return ORACLE_DATA + DATA_HOLE * PAGE + rng_below(r, PAGE);
	if (pick < 95) /* from the hole into a page */
		return ORACLE_DATA + (DATA_HOLE + 1) * PAGE -
		       rng_below(r, size + 1);
	if (pick < 97)
		return ORACLE_DATA + DATA_PAGES * PAGE - rng_below(r, size + 1);
	if (pick < 98)
		return UINT64_C(0x7fffffffffff) - rng_below(r, 16);
	if (pick < 99)
		return UINT64_C(0x800000000000) + rng_below(r, 16);
	return rng_next(r) | UINT64_C(1) << 62;
}

static int gpr_of(ZydisRegister reg)
{
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return ZydisRegisterGetId(reg);
	default:
		return -1;
	}
}

/*
 * Makes one memory operand hit the address; pos: of the instruction's first byte.
 */
static void aim(struct rng *r, struct test *t, const struct decoded *d,
    const ZydisDecodedOperand *o, unsigned pos)
{
	uint64_t target = gen_address(r, t, o->size / 8u), disp;
	int base = gpr_of(o->mem.base), index = gpr_of(o->mem.index);
	unsigned scale = o->mem.scale ? o->mem.scale : 1;
	uint32_t aimed = t->aimed;

	if (o->mem.segment == ZYDIS_REGISTER_GS)
		target -= ORACLE_GS;
	disp = o->mem.disp.has_displacement ? (uint64_t)o->mem.disp.value : 0;
	if (o->mem.base == ZYDIS_REGISTER_RIP ||
	    o->mem.base == ZYDIS_REGISTER_EIP) {
		int32_t rel = (int32_t)(target - (ORACLE_CODE + CODE_OFFSET + pos +
						     d->insn.length));

		if (d->insn.raw.disp.size == 32)
			memcpy(t->code + pos + d->insn.raw.disp.offset, &rel, 4);
		return;
	}
	if (ZydisRegisterGetClass(o->mem.index) == ZYDIS_REGCLASS_XMM ||
	    ZydisRegisterGetClass(o->mem.index) == ZYDIS_REGCLASS_YMM) {
		unsigned v = (unsigned)ZydisRegisterGetId(o->mem.index);

		for (unsigned i = 0; i < 4; i++) {
			int32_t idx = (int32_t)rng_below(r, 64) - 32;
			bool wide = rng_below(r, 2);
			uint64_t e =
			    wide ? (uint64_t)(int64_t)idx
				 : (uint32_t)idx | (uint64_t)rng_below(r, 32) << 32;

			memcpy((i < 2 ? t->in.fpu.xmm[v] : t->in.fpu.ymmh[v]) +
				   8 * (i & 1),
			    &e, 8);
		}
		index = -1;
	}
	if (index >= 0)
		t->aimed |= 1u << index;
	if (base >= 0)
		t->aimed |= 1u << base;
	if (base >= 0 && aimed >> base & 1)
		return;
	if (index >= 0 && index != base && base >= 0) {
		if (aimed >> index & 1)
			;
		else if (rng_below(r, 4) || d->insn.mnemonic == ZYDIS_MNEMONIC_XLAT)
			t->in.gpr[index] = rng_below(r, 256);
		target -= t->in.gpr[index] * scale;
	}
	if (base >= 0) {
		t->in.gpr[base] = target - disp;
		if (index == base && scale == 1)
			t->in.gpr[base] /= 2;
	} else if (index >= 0) {
		t->in.gpr[index] = (target - disp) / scale;
	} else if (d->insn.raw.disp.size == 32) {
		int32_t abs = (int32_t)target;

		memcpy(t->code + pos + d->insn.raw.disp.offset, &abs, 4);
	} else if (d->insn.raw.disp.size == 64) {
		memcpy(t->code + pos + d->insn.raw.disp.offset, &target, 8);
	}
}

static bool is_bit_test(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_BT || m == ZYDIS_MNEMONIC_BTS ||
	       m == ZYDIS_MNEMONIC_BTR || m == ZYDIS_MNEMONIC_BTC;
}

/*
 * A fault in the middle of ENTER may leave part of its frame in memory; so its
 * stack is in the middle of a page, and its frame small.
 */
static void tame_enter(struct test *t, const struct decoded *d, unsigned pos)
{
	uint8_t *imm = t->code + pos + d->insn.raw.imm[0].offset;

	imm[1] = 0;
	imm[2] &= 3;
	t->in.gpr[GPR_RSP] = ORACLE_DATA + PAGE + 0x600;
	t->in.gpr[GPR_RBP] = ORACLE_DATA + PAGE + 0x700;
}

static bool is_vector_insn(const struct decoded *d)
{
	ZydisRegisterClass c = ZydisRegisterGetClass(d->op[0].reg.value);

	return d->insn.operand_count > 0 &&
	       d->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       (c == ZYDIS_REGCLASS_XMM || c == ZYDIS_REGCLASS_YMM ||
		   c == ZYDIS_REGCLASS_MMX);
}

static bool uses_mmx(const struct decoded *d)
{
	for (unsigned i = 0; i < d->insn.operand_count; i++)
		if (d->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(d->op[i].reg.value) == ZYDIS_REGCLASS_MMX)
			return true;
	return false;
}

/* Which of several accesses of these faults first is not defined. */
static bool several_accesses(const struct decoded *d)
{
	switch (d->insn.mnemonic) {
	case ZYDIS_MNEMONIC_CMPSB: case ZYDIS_MNEMONIC_CMPSW:
	case ZYDIS_MNEMONIC_CMPSQ: case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FRSTOR: case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU: case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_CALL:
		return true;
	case ZYDIS_MNEMONIC_CMPSD:
		return d->insn.meta.category == ZYDIS_CATEGORY_STRINGOP;
	default:
		/* Ten bytes are two accesses. */
		return d->insn.meta.isa_set == ZYDIS_ISA_SET_X87 &&
		       d->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		       d->op[0].size == 80;
	}
}

/* Computed in steps, each with exceptions of its own. */
static bool in_steps(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_DPPS:
	case ZYDIS_MNEMONIC_VDPPS:
	case ZYDIS_MNEMONIC_DPPD:
	case ZYDIS_MNEMONIC_VDPPD:
		return true;
	default:
		return false;
	}
}

static void aim_all(
    struct rng *r, struct test *t, const struct decoded *d, unsigned pos)
{
	for (unsigned i = 0; i < d->insn.operand_count; i++) {
		if (d->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    d->op[i].mem.type != ZYDIS_MEMOP_TYPE_AGEN)
			aim(r, t, d, &d->op[i], pos);
	}
	t->mmx |= uses_mmx(d);
	t->several |= several_accesses(d);
	t->in_steps |= in_steps(d->insn.mnemonic);
	if (t->in_steps) /* a step's exact tiny result cannot be seen: native.c */
		t->in.fpu.mxcsr |= 0x800;
	if (d->insn.mnemonic == ZYDIS_MNEMONIC_ENTER)
		tame_enter(t, d, pos);
	if (is_masked_store(d->insn.mnemonic)) {
		t->in.gpr[GPR_RDI] = ORACLE_DATA + 64 + rng_below(r, PAGE - 128);
		if (d->op[2].mem.segment == ZYDIS_REGISTER_GS)
			t->in.gpr[GPR_RDI] -= ORACLE_GS;
	}
	if (d->insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
				     ZYDIS_ATTRIB_HAS_REPNE) &&
	    rng_below(r, 8))
		t->in.gpr[GPR_RCX] = rng_below(r, 70);
	/* A register bit offset moves the address: keep it near, mostly. */
	if (is_bit_test(d->insn.mnemonic) &&
	    d->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
	    d->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER && rng_below(r, 8)) {
		int reg = gpr_of(d->op[1].reg.value);

		if (reg >= 0 && reg != gpr_of(d->op[0].mem.base) &&
		    reg != gpr_of(d->op[0].mem.index))
			t->in.gpr[reg] =
			    (uint64_t)((int64_t)rng_below(r, 8192) - 4096);
	}
}

static void gen_regs(struct rng *r, struct test *t)
{
	for (unsigned i = 0; i < 16; i++)
		t->in.gpr[i] = gen_value(r);
	t->in.gpr[GPR_RSP] = ORACLE_DATA + PAGE + 0x200 + rng_below(r, 64) * 8;
	t->in.rip = ORACLE_CODE + CODE_OFFSET;
	t->in.rflags = 2 | (rng_next(r) & RF_STATUS);
	if (rng_below(r, 8) == 0)
		t->in.rflags |= RF_DF;
	gen_fpu(r, &t->in.fpu);
}

static bool repeats(const struct decoded *d)
{
	return d->insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
					ZYDIS_ATTRIB_HAS_REPNE);
}

static void gen_single(struct rng *r, struct test *t)
{
	struct decoded d;

	while (!draw(r, true, t->code, &d))
		;
	t->len = d.insn.length;
	t->count = 1;
	gen_regs(r, t);
	aim_all(r, t, &d, 0);
	t->trace = is_branch(&d) || (!repeats(&d) && rng_below(r, 10) == 0);
	if (t->trace)
		t->in.rflags |= RF_TF;
	t->undefined = undefined_flags(&d.insn, d.op, &t->in, &t->ignore_dest);
}

/*
 * Whether an operand goes where nothing is known to be: through a register that
 * earlier instructions write, or far from where an earlier operand goes.
 */
static bool astray(const struct test *t, const struct decoded *d, uint32_t written)
{
	for (unsigned i = 0; i < d->insn.operand_count; i++) {
		const ZydisDecodedOperand *o = &d->op[i];
		int base = gpr_of(o->mem.base), index = gpr_of(o->mem.index);

		if (o->type != ZYDIS_OPERAND_TYPE_MEMORY ||
		    o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
			continue;
		if (base >= 0 && (written >> base & 1 || (t->aimed >> base & 1 &&
							     d->insn.raw.disp.size == 32)))
			return true;
		if (index >= 0 && (written | t->aimed) >> index & 1)
			return true;
	}
	return false;
}

static uint32_t registers_written(const struct decoded *d)
{
	uint32_t mask = 0;

	if (d->insn.meta.category == ZYDIS_CATEGORY_STRINGOP)
		mask = 1u << GPR_RSI | 1u << GPR_RDI | 1u << GPR_RCX;
	for (unsigned i = 0; i < d->insn.operand_count; i++) {
		const ZydisDecodedOperand *o = &d->op[i];
		ZydisRegister full;

		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		full = ZydisRegisterGetLargestEnclosing(
		    ZYDIS_MACHINE_MODE_LONG_64, o->reg.value);
		if (gpr_of(full) >= 0)
			mask |= 1u << gpr_of(full);
	}
	return mask;
}

/* With a count of zero, perhaps known at run time only: no flag is written. */
static bool may_keep_flags(const struct decoded *d)
{
	const ZydisDecodedOperand *last = &d->op[d->insn.operand_count_visible - 1];

	if (d->insn.meta.category != ZYDIS_CATEGORY_SHIFT &&
	    d->insn.meta.category != ZYDIS_CATEGORY_ROTATE)
		return repeats(d);
	return last->type != ZYDIS_OPERAND_TYPE_IMMEDIATE ||
	       (last->imm.value.u & 31) == 0;
}

static void gen_sequence(struct rng *r, struct test *t, unsigned count)
{
	uint64_t undefined = 0;
	uint32_t gone = 0; /* registers written */

	t->calm = rng_below(r, 4) != 0;
	gen_regs(r, t);
	while (t->count < count) {
		struct decoded d;
		uint8_t b[15];
		uint64_t tested, written, now;
		bool ignore;

		if (!draw(r, false, b, &d) || t->len + d.insn.length > CODE_MAX - 1)
			continue;
		if (astray(t, &d, gone) && rng_below(r, 16))
			continue;
		tested = d.insn.cpu_flags ? d.insn.cpu_flags->tested : 0;
		written = d.insn.cpu_flags ? d.insn.cpu_flags->modified |
						 d.insn.cpu_flags->set_0 |
						 d.insn.cpu_flags->set_1
					   : 0;
		if (may_keep_flags(&d))
			written = 0;
		/*
		 * Counts are known only at run time: anything a shift may leave
		 * undefined.
		 */
		if (tested & undefined || d.insn.mnemonic == ZYDIS_MNEMONIC_POPFQ ||
		    d.insn.mnemonic == ZYDIS_MNEMONIC_POPF)
			continue;
		memcpy(t->code + t->len, b, d.insn.length);
		t->at[t->count++] = t->len;
		aim_all(r, t, &d, t->len);
		t->len += d.insn.length;
		gone |= registers_written(&d);
		now = undefined_flags(&d.insn, d.op, NULL, &ignore);
		undefined = now == RF_STATUS ? now : (undefined & ~written) | now;
		t->undefined_fault |= undefined;
		if (ignore)
			t->ignore_dest = true;
	}
	t->undefined = undefined;
}

static void append(struct test *t, const void *bytes, unsigned n)
{
	memcpy(t->code + t->len, bytes, n);
	t->len += n;
}

/*
 * Saves the FPU state at [RBX], changes registers, and restores it - by a form of
 * the same family, mostly. The XSAVE header is cleared first: the host knows
 * components that the guest does not.
 */
static void gen_state(struct rng *r, struct test *t)
{
	static const struct {
		uint8_t save[4], restore[4], len;
	} forms[] = {
		{ { 0x0f, 0xae, 0x03 }, { 0x0f, 0xae, 0x0b }, 3 }, /* FXSAVE */
		{ { 0x48, 0x0f, 0xae, 0x03 }, { 0x48, 0x0f, 0xae, 0x0b }, 4 },
		{ { 0x0f, 0xae, 0x23 }, { 0x0f, 0xae, 0x2b }, 3 }, /* XSAVE */
		{ { 0x48, 0x0f, 0xae, 0x23 }, { 0x48, 0x0f, 0xae, 0x2b }, 4 },
		{ { 0x0f, 0xae, 0x33 }, { 0x0f, 0xae, 0x2b }, 3 }, /* XSAVEOPT */
		{ { 0x48, 0x0f, 0xae, 0x33 }, { 0x48, 0x0f, 0xae, 0x2b }, 4 },
		{ { 0x0f, 0xc7, 0x23 }, { 0x0f, 0xae, 0x2b }, 3 }, /* XSAVEC */
		{ { 0x48, 0x0f, 0xc7, 0x23 }, { 0x48, 0x0f, 0xae, 0x2b }, 4 },
	};
	unsigned form = rng_below(r, ARRAY_SIZE(forms));
	uint64_t at = ORACLE_DATA + rng_below(r, (2 * PAGE - 1024) / 64) * 64;

	gen_regs(r, t);
	if (rng_below(r, 8) == 0)
		at += 16;
	if (rng_below(r, 16) == 0)
		at = ORACLE_DATA + 2 * PAGE - 64 * (1 + rng_below(r, 13));
	t->in.gpr[GPR_RBX] = at;
	t->in.gpr[GPR_RAX] = rng_next(r) & 7;
	t->in.gpr[GPR_RDX] = 0;
	t->several = true;
	t->undefined = t->undefined_fault = RF_STATUS;
	if (form >= 2) {
		for (unsigned i = 512; i < 576; i += 8) {
			uint8_t clear[11] = { 0x48, 0xc7, 0x83, (uint8_t)i,
				(uint8_t)(i >> 8) };

			append(t, clear, sizeof(clear));
		}
	}
	append(t, forms[form].save, forms[form].len);
	for (unsigned n = 0; n < 4;) {
		struct decoded d;
		uint8_t b[15];

		if (!draw(r, false, b, &d) ||
		    d.insn.meta.category == ZYDIS_CATEGORY_SYSTEM)
			continue;
		/* Vector and x87 registers only. */
		for (unsigned i = 0; i < d.insn.operand_count; i++)
			if (d.op[i].type == ZYDIS_OPERAND_TYPE_MEMORY ||
			    gpr_of(d.op[i].reg.value) >= 0)
				goto next;
		if (d.insn.meta.category != ZYDIS_CATEGORY_X87_ALU &&
		    !is_vector_insn(&d))
			continue;
		append(t, b, d.insn.length);
		t->mmx |= uses_mmx(&d);
		t->in_steps |= in_steps(d.insn.mnemonic);
		n++;
	next:;
	}
	t->in.fpu.mxcsr |= 0x1f80;
	t->in.fpu.fcw |= FPU_FLAGS;
	fpu_update_es(&t->in.fpu);
	append(t, forms[form].restore, forms[form].len);
	t->count = GEN_STATE;
	t->mask_at = (uint32_t)at + 28;
}

void gen_test(struct test *t, uint64_t seed, unsigned count)
{
	struct rng r = { seed };

	memset(t, 0, sizeof(*t));
	t->id = seed;
	if (count == GEN_STATE)
		gen_state(&r, t);
	else if (count == 1)
		gen_single(&r, t);
	else
		gen_sequence(&r, t, MIN(count, SEQ_MAX));
}
