/*
 * Builds the code of native.h's stubs and keeps them by their patched bytes.
 *
 * The instruction itself is taken over byte by byte (SDM vol. 2, chapter 2:
 * prefixes, REX, VEX, ModRM); only the fields that name its memory operand and
 * its general register change. Around it:
 *
 *	R8 = io		FXRSTOR or loads of the vector registers used
 *	LDMXCSR		general registers, flags in
 *	the instruction	flags, general registers out
 *	STMXCSR		results are dropped when a bit of io->discard is set
 *	FXSAVE or stores of the vector registers written
 *
 * Invariant: every VEX encoding becomes the three-byte form with the bits a
 * 64-bit host would obey but the guest's mode ignores forced to their neutral
 * value, so 32-bit code cannot name registers it does not have.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/soft/native.h"

#define CODE_MAX 512

enum { HOST_RAX = 0, HOST_RDI = 7 };

struct emitter {
	uint8_t code[CODE_MAX];
	unsigned n;
};

static void emit(struct emitter *e, const void *bytes, unsigned n)
{
	if (e->n + n <= CODE_MAX)
		memcpy(e->code + e->n, bytes, n);
	e->n += n;
}

#define EMIT(e, ...)                                                               \
	emit(e, (const uint8_t[]){ __VA_ARGS__ },                                  \
	    sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void emit32(struct emitter *e, uint32_t v)
{
	emit(e, &v, 4);
}

static unsigned xmm_disp(unsigned reg)
{
	return offsetof(struct fpu_image, xmm) + 16 * reg;
}

static unsigned ymmh_disp(unsigned reg)
{
	return offsetof(struct fpu_image, ymmh) + 16 * reg;
}

/* MOVUPS xmm, [RSI + disp] (0x10) or the store (0x11). */
static void emit_movups(struct emitter *e, uint8_t op, unsigned reg)
{
	if (reg >= 8)
		EMIT(e, 0x44);
	EMIT(e, 0x0f, op, 0x80 | (reg & 7) << 3 | 6);
	emit32(e, xmm_disp(reg));
}

/* VINSERTF128 ymm, ymm, [RSI + disp], 1 */
static void emit_load_high(struct emitter *e, unsigned reg)
{
	EMIT(e, 0xc4, (reg < 8 ? 0x80 : 0) | 0x63, (~reg & 15) << 3 | 5, 0x18,
	    0x80 | (reg & 7) << 3 | 6);
	emit32(e, ymmh_disp(reg));
	EMIT(e, 1);
}

/* VEXTRACTF128 [RSI + disp], ymm, 1 */
static void emit_store_high(struct emitter *e, unsigned reg)
{
	EMIT(e, 0xc4, (reg < 8 ? 0x80 : 0) | 0x63, 0x7d, 0x19,
	    0x80 | (reg & 7) << 3 | 6);
	emit32(e, ymmh_disp(reg));
	EMIT(e, 1);
}

/* MOV qword [RSI + disp], 0 twice: flags and registers stay. */
static void emit_zero_high(struct emitter *e, unsigned reg)
{
	for (unsigned half = 0; half < 16; half += 8) {
		EMIT(e, 0x48, 0xc7, 0x86);
		emit32(e, ymmh_disp(reg) + half);
		emit32(e, 0);
	}
}

#define IO(field) ((uint8_t)offsetof(struct native_io, field))

static bool is_gpr(ZydisRegister reg)
{
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return true;
	default:
		return false;
	}
}

static bool is_vector(const ZydisDecodedOperand *o)
{
	ZydisRegisterClass c;

	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	c = ZydisRegisterGetClass(o->reg.value);
	return c == ZYDIS_REGCLASS_XMM || c == ZYDIS_REGCLASS_YMM;
}

/* VEX.W that only 64-bit mode obeys: these move or use a general register. */
static bool vex_w_ignored(unsigned map, unsigned op)
{
	if (map == 1)
		return op == 0x2a || op == 0x2c || op == 0x2d || op == 0x6e ||
		       op == 0x7e;
	return map == 3 && (op == 0x16 || op == 0x22 || op == 0x60 || op == 0x61);
}

/*
 * Copies the instruction to out with its operands replaced; its length, 0: no form.
 */
static unsigned patch(const struct native_decoded *d, const uint8_t *bytes,
    enum cpu_mode mode, ZydisOperandEncoding gpr, uint8_t out[STUB_KEY_MAX - 1])
{
	const ZydisDecodedInstruction *zi = &d->insn;
	bool gpr_rm = gpr == ZYDIS_OPERAND_ENCODING_MODRM_RM;
	bool gpr_reg = gpr == ZYDIS_OPERAND_ENCODING_MODRM_REG;
	unsigned n = 0, modrm_at = zi->raw.modrm.offset, tail;
	uint8_t modrm, prefix66 = 0, rep = 0, imm;

	if (!(zi->attributes & ZYDIS_ATTRIB_HAS_MODRM) || modrm_at == 0)
		return 0;
	modrm = bytes[modrm_at];
	tail = modrm_at + 1;
	if (zi->raw.sib.offset != 0)
		tail = zi->raw.sib.offset + 1u;
	if (zi->raw.disp.size != 0)
		tail = zi->raw.disp.offset + zi->raw.disp.size / 8u;
	if (zi->length < tail || zi->length - tail > 1)
		return 0;
	imm = zi->length > tail ? bytes[tail] : 0;
	if (d->mem >= 0)
		modrm = (modrm & 0x38) | HOST_RDI;
	if (gpr_rm)
		modrm = (modrm & 0xf8) | HOST_RAX;
	if (gpr_reg)
		modrm = (modrm & 0xc7) | HOST_RAX << 3;

	if (zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
		const uint8_t *v = bytes + zi->raw.vex.offset;
		uint8_t b1, b2;

		if (v[0] == 0xc5) {
			b1 = (v[1] & 0x80) | 0x61;
			b2 = v[1] & 0x7f;
		} else {
			b1 = v[1];
			b2 = v[2];
		}
		if (mode != MODE_64) {
			b1 |= 0xe0;
			b2 |= 0x40;
			if (vex_w_ignored(b1 & 0x1f, zi->opcode))
				b2 &= 0x7f;
			if (zi->operand_count > 3 &&
			    d->op[3].encoding == ZYDIS_OPERAND_ENCODING_IS4)
				imm &= 0x7f;
		}
		if (d->mem >= 0)
			b1 |= 0x60;
		if (gpr_rm)
			b1 |= 0x20;
		if (gpr_reg)
			b1 |= 0x80;
		out[n++] = 0xc4;
		out[n++] = b1;
		out[n++] = b2;
	} else if (zi->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
		uint8_t rex = 0;

		for (unsigned i = 0; i < zi->raw.prefix_count; i++) {
			uint8_t p = zi->raw.prefixes[i].value;

			if (p == 0x66)
				prefix66 = p;
			else if (p == 0xf2 || p == 0xf3)
				rep = p; /* the last one counts */
		}
		if (prefix66)
			out[n++] = prefix66;
		if (rep)
			out[n++] = rep;
		if (zi->attributes & ZYDIS_ATTRIB_HAS_REX)
			rex = bytes[zi->raw.rex.offset];
		if (d->mem >= 0)
			rex &= ~3u;
		if (gpr_rm)
			rex &= ~1u;
		if (gpr_reg)
			rex &= ~4u;
		if (rex)
			out[n++] = rex;
		switch (zi->opcode_map) {
		case ZYDIS_OPCODE_MAP_DEFAULT:
			break;
		case ZYDIS_OPCODE_MAP_0F:
			out[n++] = 0x0f;
			break;
		case ZYDIS_OPCODE_MAP_0F38:
			out[n++] = 0x0f;
			out[n++] = 0x38;
			break;
		case ZYDIS_OPCODE_MAP_0F3A:
			out[n++] = 0x0f;
			out[n++] = 0x3a;
			break;
		default:
			return 0;
		}
	} else {
		return 0;
	}
	out[n++] = zi->opcode;
	out[n++] = modrm;
	if (zi->length > tail)
		out[n++] = imm;
	return n;
}

/* Moves and shuffles of floating-point data that never look at their values. */
static bool moves_only(const ZydisDecodedInstruction *zi)
{
	switch (zi->meta.category) {
	case ZYDIS_CATEGORY_DATAXFER:
	case ZYDIS_CATEGORY_LOGICAL_FP:
	case ZYDIS_CATEGORY_BROADCAST:
		return true;
	default:
		break;
	}
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_SHUFPS: case ZYDIS_MNEMONIC_VSHUFPS:
	case ZYDIS_MNEMONIC_SHUFPD: case ZYDIS_MNEMONIC_VSHUFPD:
	case ZYDIS_MNEMONIC_UNPCKLPS: case ZYDIS_MNEMONIC_VUNPCKLPS:
	case ZYDIS_MNEMONIC_UNPCKHPS: case ZYDIS_MNEMONIC_VUNPCKHPS:
	case ZYDIS_MNEMONIC_UNPCKLPD: case ZYDIS_MNEMONIC_VUNPCKLPD:
	case ZYDIS_MNEMONIC_UNPCKHPD: case ZYDIS_MNEMONIC_VUNPCKHPD:
	case ZYDIS_MNEMONIC_BLENDPS: case ZYDIS_MNEMONIC_VBLENDPS:
	case ZYDIS_MNEMONIC_BLENDPD: case ZYDIS_MNEMONIC_VBLENDPD:
	case ZYDIS_MNEMONIC_BLENDVPS: case ZYDIS_MNEMONIC_VBLENDVPS:
	case ZYDIS_MNEMONIC_BLENDVPD: case ZYDIS_MNEMONIC_VBLENDVPD:
	case ZYDIS_MNEMONIC_INSERTPS: case ZYDIS_MNEMONIC_VINSERTPS:
	case ZYDIS_MNEMONIC_EXTRACTPS: case ZYDIS_MNEMONIC_VEXTRACTPS:
	case ZYDIS_MNEMONIC_VINSERTF128: case ZYDIS_MNEMONIC_VEXTRACTF128:
	case ZYDIS_MNEMONIC_VPERMILPS: case ZYDIS_MNEMONIC_VPERMILPD:
	case ZYDIS_MNEMONIC_VPERM2F128:
	case ZYDIS_MNEMONIC_VPERMPS:
	case ZYDIS_MNEMONIC_VPERMPD:
	case ZYDIS_MNEMONIC_VTESTPS:
	case ZYDIS_MNEMONIC_VTESTPD:
	case ZYDIS_MNEMONIC_LDDQU:
		return true;
	default:
		return false;
	}
}

static bool uses_mxcsr(const struct native_decoded *d)
{
	if (d->insn.meta.category == ZYDIS_CATEGORY_CONVERT)
		return true;
	switch (d->insn.mnemonic) {
	/* Zydis calls their elements integers. */
	case ZYDIS_MNEMONIC_ROUNDPS:
	case ZYDIS_MNEMONIC_VROUNDPS:
	case ZYDIS_MNEMONIC_ROUNDPD:
	case ZYDIS_MNEMONIC_VROUNDPD:
	case ZYDIS_MNEMONIC_ROUNDSS:
	case ZYDIS_MNEMONIC_VROUNDSS:
	case ZYDIS_MNEMONIC_ROUNDSD:
	case ZYDIS_MNEMONIC_VROUNDSD:
		return true;
	default:
		break;
	}
	if (moves_only(&d->insn))
		return false;
	for (unsigned i = 0; i < d->insn.operand_count; i++) {
		switch (d->op[i].element_type) {
		case ZYDIS_ELEMENT_TYPE_FLOAT16:
		case ZYDIS_ELEMENT_TYPE_FLOAT32:
		case ZYDIS_ELEMENT_TYPE_FLOAT64:
			return true;
		default:
			break;
		}
	}
	return false;
}

static uint8_t alignment(const struct native_decoded *d)
{
	unsigned size = d->op[d->mem].size / 8;

	switch (d->insn.mnemonic) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
	/*
	 * AMD's SHA has no alignment rule, Intel's does; the lenient one serves
	 * both.
	 */
	case ZYDIS_MNEMONIC_SHA1MSG1:
	case ZYDIS_MNEMONIC_SHA1MSG2:
	case ZYDIS_MNEMONIC_SHA1NEXTE:
	case ZYDIS_MNEMONIC_SHA1RNDS4:
	case ZYDIS_MNEMONIC_SHA256MSG1:
	case ZYDIS_MNEMONIC_SHA256MSG2:
	case ZYDIS_MNEMONIC_SHA256RNDS2:
		return 1;
	case ZYDIS_MNEMONIC_VMOVAPS:
	case ZYDIS_MNEMONIC_VMOVAPD:
	case ZYDIS_MNEMONIC_VMOVDQA:
	case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD:
	case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA:
		return (uint8_t)size;
	default:
		return d->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
			       size == 16
			   ? 16
			   : 1;
	}
}

static bool is_x87(const ZydisDecodedInstruction *zi)
{
	return zi->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	       zi->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && zi->opcode >= 0xd8 &&
	       zi->opcode <= 0xdf;
}

static uint8_t units(const struct native_decoded *d)
{
	uint8_t unit = 0;

	if (is_x87(&d->insn))
		return UNIT_X87;
	for (unsigned i = 0; i < d->insn.operand_count; i++) {
		const ZydisDecodedOperand *o = &d->op[i];

		if (is_vector(o))
			unit |= UNIT_SSE;
		else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
			 ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_MMX)
			unit |= UNIT_MMX;
	}
	/*
	 * A scalar in memory converted to a general register names no vector
	 * register.
	 */
	if (unit == 0 && d->insn.meta.category == ZYDIS_CATEGORY_CONVERT)
		unit = UNIT_SSE;
	if (d->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && unit)
		unit = UNIT_AVX;
	return unit;
}

/* By name, ADDSS or VFNMADD213SD: Zydis says of VEX scalars that they write all. */
static bool is_scalar(const ZydisDecodedInstruction *zi)
{
	const char *name = ZydisMnemonicGetString(zi->mnemonic);
	size_t n = strlen(name);

	return n > 2 && name[n - 2] == 's' &&
	       (name[n - 1] == 's' || name[n - 1] == 'd');
}

/* What the stub must do, from the decoded operands; -1: no stub form. */
static int describe(struct native_stub *s, const struct native_decoded *d,
    ZydisOperandEncoding *gpr)
{
	const ZydisDecodedInstruction *zi = &d->insn;

	s->unit = units(d);
	s->align = 1;
	*gpr = ZYDIS_OPERAND_ENCODING_NONE;
	if (s->unit == 0)
		return -1;
	if (d->mem >= 0) {
		const ZydisDecodedOperand *m = &d->op[d->mem];

		s->mem_size = m->size / 8;
		if (s->mem_size == 0 || s->mem_size > NATIVE_BOUNCE)
			return -1;
		if (m->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
			s->attr |= STUB_LOAD;
		if (m->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			s->attr |= STUB_STORE;
		s->align = alignment(d);
		if (zi->meta.isa_set == ZYDIS_ISA_SET_SHA)
			s->attr |= STUB_BOUNCE;
	}
	for (unsigned i = 0; i < zi->operand_count; i++) {
		const ZydisDecodedOperand *o = &d->op[i];

		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		if (is_vector(o) &&
		    ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_YMM)
			s->attr |= STUB_YMM;
		if (!is_gpr(o->reg.value) ||
		    o->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
			continue;
		if (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM &&
		    o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_REG)
			return -1;
		*gpr = o->encoding;
		s->gpr = (uint8_t)ZydisRegisterGetId(o->reg.value);
		s->attr |= STUB_GPR_IN;
		if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			s->attr |= STUB_GPR_OUT;
	}
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_VPCMPESTRI:
		s->attr |= STUB_STR_LEN | STUB_STR_INDEX;
		break;
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_VPCMPESTRM:
		s->attr |= STUB_STR_LEN;
		break;
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_VPCMPISTRI:
		s->attr |= STUB_STR_INDEX;
		break;
	default:
		break;
	}
	if (zi->cpu_flags != NULL) {
		if (zi->cpu_flags->tested & RF_STATUS)
			s->attr |= STUB_FLAGS_IN;
		if ((zi->cpu_flags->modified | zi->cpu_flags->set_0 |
			zi->cpu_flags->set_1 | zi->cpu_flags->undefined) &
		    RF_STATUS)
			s->attr |= STUB_FLAGS_OUT;
	}
	if (s->unit == UNIT_X87) {
		s->attr |= STUB_POINTERS;
		s->fop = (zi->opcode & 7) << 8 |
			 (uint8_t)(zi->raw.modrm.mod << 6 | zi->raw.modrm.reg << 3 |
				   zi->raw.modrm.rm);
	} else if (uses_mxcsr(d)) {
		s->attr |= STUB_MXCSR;
		if (is_vector(&d->op[0]) &&
		    d->op[0].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE &&
		    (d->op[0].element_type == ZYDIS_ELEMENT_TYPE_FLOAT32 ||
			d->op[0].element_type == ZYDIS_ELEMENT_TYPE_FLOAT64)) {
			s->dest = (uint8_t)ZydisRegisterGetId(d->op[0].reg.value);
			s->elem_size = (uint8_t)(d->op[0].element_size / 8);
			s->elem_count =
			    is_scalar(zi) ? 1 : (uint8_t)d->op[0].element_count;
		} else if (zi->mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH &&
		    is_vector(&d->op[0])) {
			s->dest = (uint8_t)ZydisRegisterGetId(d->op[0].reg.value);
			s->elem_size = 2;
			s->elem_count = (uint8_t)(d->op[1].size / 32);
		}
	}
	return 0;
}

static void emit_loads(struct emitter *e, const struct native_decoded *d)
{
	bool vex = d->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	unsigned done = 0;

	/*
	 * Two operands may name one register with different widths: the high half
	 * last.
	 */
	for (unsigned i = 0; i < d->insn.operand_count; i++) {
		unsigned reg;

		/*
		 * A VEX destination is overwritten as a whole; a legacy one is
		 * merged, which its operand actions do not always say.
		 */
		if (!is_vector(&d->op[i]) ||
		    (vex && !(d->op[i].actions & ZYDIS_OPERAND_ACTION_MASK_READ)))
			continue;
		reg = (unsigned)ZydisRegisterGetId(d->op[i].reg.value);
		if (!(done & BIT(reg)))
			emit_movups(e, 0x10, reg);
		done |= BIT(reg);
	}
	done = 0;
	for (unsigned i = 0; i < d->insn.operand_count; i++) {
		unsigned reg;

		if (!is_vector(&d->op[i]) ||
		    ZydisRegisterGetClass(d->op[i].reg.value) !=
			ZYDIS_REGCLASS_YMM ||
		    !(d->op[i].actions & ZYDIS_OPERAND_ACTION_MASK_READ))
			continue;
		reg = (unsigned)ZydisRegisterGetId(d->op[i].reg.value);
		if (!(done & BIT(reg)))
			emit_load_high(e, reg);
		done |= BIT(reg);
	}
}

static void emit_stores(struct emitter *e, const struct native_decoded *d)
{
	bool vex = d->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;

	for (unsigned i = 0; i < d->insn.operand_count; i++) {
		const ZydisDecodedOperand *o = &d->op[i];
		unsigned reg;

		if (!is_vector(o) ||
		    !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		reg = (unsigned)ZydisRegisterGetId(o->reg.value);
		emit_movups(e, 0x11, reg);
		if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_YMM)
			emit_store_high(e, reg);
		else if (vex)
			emit_zero_high(e, reg);
	}
}

static void emit_stub(struct emitter *e, const struct native_stub *s,
    const struct native_decoded *d, const uint8_t *insn, unsigned len)
{
	bool fx = s->unit & (UNIT_X87 | UNIT_MMX);
	unsigned jump = 0;

	if (s->attr & STUB_IO)
		EMIT(e, 0x49, 0x89, 0xd0); /* mov r8, rdx */
	if (fx)
		EMIT(e, 0x48, 0x0f, 0xae, 0x0e); /* fxrstor64 [rsi] */
	else
		emit_loads(e, d);
	if (s->attr & STUB_MXCSR)
		EMIT(e, 0x41, 0x0f, 0xae, 0x50, IO(mxcsr_in)); /* ldmxcsr [r8+..] */
	if (s->attr & (STUB_GPR_IN | STUB_STR_LEN))
		EMIT(e, 0x49, 0x8b, 0x40, IO(rax)); /* mov rax, [r8+..] */
	if (s->attr & STUB_STR_LEN)
		EMIT(e, 0x49, 0x8b, 0x50, IO(rdx)); /* mov rdx, [r8+..] */
	if (s->attr & STUB_FLAGS_IN)
		EMIT(
		    e, 0x41, 0xff, 0x70, IO(flags), 0x9d); /* push [r8+..]; popfq */
	emit(e, insn, len);
	if (s->attr & STUB_FLAGS_OUT)
		EMIT(
		    e, 0x9c, 0x41, 0x8f, 0x40, IO(flags)); /* pushfq; pop [r8+..] */
	if (s->attr & STUB_GPR_OUT)
		EMIT(e, 0x49, 0x89, 0x40, IO(rax));
	if (s->attr & STUB_STR_INDEX)
		EMIT(e, 0x49, 0x89, 0x48, IO(rcx));
	if (s->attr & STUB_MXCSR) {
		EMIT(
		    e, 0x41, 0x0f, 0xae, 0x58, IO(mxcsr_out)); /* stmxcsr [r8+..] */
		if (!fx) {
			EMIT(e, 0x41, 0x8b, 0x40,
			    IO(mxcsr_out)); /* mov eax, [r8+..] */
			EMIT(e, 0x41, 0x85, 0x40,
			    IO(discard));                /* test [r8+..], eax */
			EMIT(e, 0x0f, 0x85, 0, 0, 0, 0); /* jnz end */
			jump = e->n;
		}
	}
	if (fx)
		EMIT(e, 0x48, 0x0f, 0xae, 0x01); /* fxsave64 [rcx] */
	else
		emit_stores(e, d);
	if (jump != 0 && e->n <= CODE_MAX) {
		uint32_t rel = e->n - jump;

		memcpy(e->code + jump - 4, &rel, 4);
	}
	if (s->attr & STUB_YMM)
		EMIT(e, 0xc5, 0xf8, 0x77); /* vzeroupper */
	EMIT(e, 0xc3);
}

static uint32_t key_hash(const struct native_stub *s)
{
	uint32_t h = 2166136261u;

	for (unsigned i = 0; i < s->key_len; i++)
		h = (h ^ s->key[i]) * 16777619u;
	return h;
}

/* Takes s out of its chain and frees it and its code. */
static void stub_free(struct native *n, struct native_stub **p)
{
	struct native_stub *s = *p;

	*p = s->next;
	codemem_release(n->codemem, (uint8_t *)(void *)s->code, s->code_len);
	free(s);
	n->nstubs--;
}

void stub_sweep(struct native *n)
{
	for (unsigned i = 0; i < STUB_BUCKETS; i++) {
		struct native_stub **p = &n->bucket[i];

		while (*p != NULL) {
			if ((*p)->refs == 0)
				stub_free(n, p);
			else
				p = &(*p)->next;
		}
	}
}

/* Fills s and the code from the decoded instruction; -1: no stub form. */
static int stub_prepare(struct native_stub *s, struct emitter *e,
    const struct native_decoded *d, const uint8_t *bytes, enum cpu_mode mode)
{
	ZydisOperandEncoding gpr;
	unsigned len;

	if (describe(s, d, &gpr) < 0)
		return -1;
	len = patch(d, bytes, mode, gpr, s->key);
	if (len == 0)
		return -1;
	s->key[len] = s->gpr;
	s->key_len = (uint8_t)(len + 1);
	s->hash = key_hash(s);
	e->n = 0;
	emit_stub(e, s, d, s->key, len);
	s->code_len = e->n;
	return e->n <= CODE_MAX ? 0 : -1;
}

int stub_get(struct native *n, const struct native_decoded *d, const uint8_t *bytes,
    enum cpu_mode mode, struct native_stub **out)
{
	struct native_stub want = { 0 }, *s;
	struct emitter e;
	uint8_t *rw, *rx;

	if (stub_prepare(&want, &e, d, bytes, mode) < 0)
		return -EINVAL;
	for (s = n->bucket[want.hash % STUB_BUCKETS]; s != NULL; s = s->next) {
		if (s->hash == want.hash && s->key_len == want.key_len &&
		    memcmp(s->key, want.key, want.key_len) == 0 &&
		    s->fop == want.fop && s->unit == want.unit) {
			s->refs++;
			*out = s;
			return 0;
		}
	}
	if (n->nstubs >= STUB_LIMIT)
		stub_sweep(n);
	if (n->nstubs >= STUB_LIMIT)
		return -ENOMEM;
	if (codemem_alloc(n->codemem, e.n, &rw, &rx) < 0) {
		stub_sweep(n);
		if (codemem_alloc(n->codemem, e.n, &rw, &rx) < 0)
			return -ENOMEM;
	}
	s = malloc(sizeof(*s));
	if (s == NULL) {
		codemem_release(n->codemem, rx, e.n);
		return -ENOMEM;
	}
	memcpy(rw, e.code, e.n);
	*s = want;
	s->code = (native_code *)(void *)rx;
	s->refs = 1;
	s->next = n->bucket[s->hash % STUB_BUCKETS];
	n->bucket[s->hash % STUB_BUCKETS] = s;
	n->nstubs++;
	*out = s;
	return 0;
}

void stub_put(struct native *n, struct native_stub *s)
{
	/* Without users it stays for the next block that has the instruction. */
	(void)n;
	s->refs--;
}

int stub_spare(struct native *n, const struct native_decoded *d,
    const uint8_t *bytes, enum cpu_mode mode, struct native_stub *out)
{
	uint32_t a = 0, b, c = 0, dx;
	struct emitter e;

	memset(out, 0, sizeof(*out));
	if (stub_prepare(out, &e, d, bytes, mode) < 0)
		return -EINVAL;
	memcpy(n->spare_rw, e.code, e.n);
	/*
	 * The code was written through another address: serialize (SDM vol.
	 * 3, 8.1.3).
	 */
	__asm__ volatile("cpuid"
			 : "+a"(a), "=b"(b), "+c"(c), "=d"(dx)
			 :
			 : "memory");
	out->code = (native_code *)(void *)n->spare_rx;
	return 0;
}

int stub_create(struct native *n)
{
	return codemem_alloc(n->codemem, CODE_MAX, &n->spare_rw, &n->spare_rx);
}

void stub_destroy(struct native *n)
{
	for (unsigned i = 0; i < STUB_BUCKETS; i++) {
		while (n->bucket[i] != NULL)
			stub_free(n, &n->bucket[i]);
	}
	if (n->spare_rx != NULL)
		codemem_release(n->codemem, n->spare_rx, CODE_MAX);
}
