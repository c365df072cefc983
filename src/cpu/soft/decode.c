/*
 * Decoding: Zydis' view of an instruction into the compact struct insn.
 *
 * What Zydis rejects is #UD here, LOCK where it may not stand included, and more
 * than 15 bytes are #GP. Encodings a guest is never promised (EVEX, XOP, 3DNow!)
 * are rejected here once, whatever the handlers know. MPX and CET stay off, so
 * that their NOP-space encodings are the NOPs of a CPU without them.
 */
#include <errno.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include "cpu/soft/soft.h"

static const struct {
	ZydisMachineMode machine;
	ZydisStackWidth stack;
} modes[] = {
	/*
	 * ZYDIS_MACHINE_MODE_REAL_16 would refuse what 16-bit protected mode has.
	 */
	[MODE_16] = { ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16 },
	[MODE_32] = { ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32 },
	[MODE_64] = { ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64 },
};

static void raise_ud(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	cpu_ud(cpu);
}

static void raise_gp(struct soft_cpu *cpu, const struct insn *in)
{
	(void)in;
	cpu_gp(cpu);
}

/* General register number of a 16-, 32- or 64-bit register, or REG_NONE. */
static uint8_t gpr_number(ZydisRegister r)
{
	if (r >= ZYDIS_REGISTER_AX && r <= ZYDIS_REGISTER_R15W)
		return r - ZYDIS_REGISTER_AX;
	if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D)
		return r - ZYDIS_REGISTER_EAX;
	if (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15)
		return r - ZYDIS_REGISTER_RAX;
	return REG_NONE;
}

static uint8_t seg_number(ZydisRegister r)
{
	return r >= ZYDIS_REGISTER_ES && r <= ZYDIS_REGISTER_GS
		   ? r - ZYDIS_REGISTER_ES
		   : SEG_DS;
}

static void decode_register(struct operand *o, ZydisRegister r)
{
	o->reg = gpr_number(r);
	if (o->reg != REG_NONE) {
		o->kind = OPND_GPR;
	} else if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_R15B) {
		unsigned n = r - ZYDIS_REGISTER_AL;

		/* AL CL DL BL, AH CH DH BH, then SPL BPL SIL DIL R8B ... */
		o->kind = n >= 4 && n < 8 ? OPND_GPR8H : OPND_GPR;
		o->reg = n < 4 ? n : n - 4;
	} else if (r >= ZYDIS_REGISTER_ES && r <= ZYDIS_REGISTER_GS) {
		o->kind = OPND_SEG;
		o->reg = r - ZYDIS_REGISTER_ES;
	} else if (r >= ZYDIS_REGISTER_CR0 && r <= ZYDIS_REGISTER_CR15) {
		o->kind = OPND_CR;
		o->reg = r - ZYDIS_REGISTER_CR0;
	} else if (r >= ZYDIS_REGISTER_DR0 && r <= ZYDIS_REGISTER_DR15) {
		o->kind = OPND_DR;
		o->reg = r - ZYDIS_REGISTER_DR0;
	} else {
		o->kind = OPND_OTHER;
	}
}

/*
 * SIB without a base (mod 0, base field 5) whatever REX.B says: Zydis 4.0 takes
 * R13D for the base when the address size is 32.
 */
static bool sib_without_base(const ZydisDecodedInstruction *zi)
{
	return zi->raw.sib.offset != 0 && zi->raw.modrm.mod == 0 &&
	       zi->raw.sib.base == 5;
}

/* Its memory operand is never accessed. */
static bool address_only(
    const ZydisDecodedInstruction *zi, const ZydisDecodedOperandMem *m)
{
	return m->type == ZYDIS_MEMOP_TYPE_AGEN ||
	       zi->meta.category == ZYDIS_CATEGORY_NOP ||
	       zi->meta.category == ZYDIS_CATEGORY_WIDENOP ||
	       zi->meta.category == ZYDIS_CATEGORY_PREFETCH;
}

static void decode_memory(struct insn *in, const ZydisDecodedInstruction *zi,
    const ZydisDecodedOperandMem *m)
{
	in->seg = seg_number(m->segment);
	in->disp = m->disp.value;
	in->scale = m->scale ? m->scale : 1;
	in->index = gpr_number(m->index);
	in->base = gpr_number(m->base);
	if (sib_without_base(zi)) {
		in->base = REG_NONE;
		in->disp = zi->raw.disp.value;
	}
	if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
		in->flags |= INSN_RIPREL;
	else if (in->mode == MODE_64 && in->addrsize == 8 && in->seg != SEG_FS &&
		 in->seg != SEG_GS)
		in->flags |= INSN_FLAT;
	if (address_only(zi, m))
		in->flags |= INSN_NOSEG;
}

static void decode_operand(struct insn *in, struct operand *o,
    const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *z, unsigned *imms)
{
	o->size = (z->size + 7) / 8;
	switch (z->type) {
	case ZYDIS_OPERAND_TYPE_REGISTER:
		decode_register(o, z->reg.value);
		break;
	case ZYDIS_OPERAND_TYPE_MEMORY:
		o->kind = OPND_MEM;
		decode_memory(in, zi, &z->mem);
		break;
	case ZYDIS_OPERAND_TYPE_POINTER:
		o->kind = OPND_FAR;
		in->imm = z->ptr.offset;
		in->imm2 = z->ptr.segment;
		break;
	default:
		o->kind = z->imm.is_relative ? OPND_REL : OPND_IMM;
		if ((*imms)++)
			in->imm2 = z->imm.value.s;
		else
			in->imm = z->imm.value.s;
	}
}

static void decode_operands(struct insn *in, const ZydisDecodedInstruction *zi,
    const ZydisDecodedOperand *zo)
{
	unsigned imms = 0;

	for (unsigned i = 0; i < zi->operand_count; i++) {
		const ZydisDecodedOperand *z = &zo[i];
		bool visible = i < zi->operand_count_visible;

		if (visible && in->nopnd < ARRAY_SIZE(in->op))
			decode_operand(in, &in->op[in->nopnd++], zi, z, &imms);
		if (z->type != ZYDIS_OPERAND_TYPE_MEMORY ||
		    z->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
			continue;
		if (z->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
			in->flags |= INSN_LOADS;
		if (z->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			in->flags |= INSN_STORES;
		/* Strings and XLAT: the segment that a prefix may replace. */
		if (!visible && z->mem.segment != ZYDIS_REGISTER_ES &&
		    z->mem.segment != ZYDIS_REGISTER_SS)
			in->seg = seg_number(z->mem.segment);
	}
}

/* Size of what an implicit push or pop moves. */
static uint8_t stack_operand(
    const struct insn *in, const ZydisDecodedInstruction *zi)
{
	bool o16 = zi->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE;

	switch (in->mode) {
	case MODE_64:
		return o16 && in->opsize == 2 ? 2 : 8;
	case MODE_32:
		return o16 ? 2 : 4;
	default:
		return o16 ? 4 : 2;
	}
}

static bool ends_block(const struct insn *in, const ZydisDecodedInstruction *zi)
{
	if (zi->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
		return true;
	switch (zi->meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_UNCOND_BR:
		return true;
	default:
		/* A spinning guest looks up at each PAUSE. */
		return in->mnemonic == ZYDIS_MNEMONIC_PAUSE;
	}
}

static bool promised_encoding(const ZydisDecodedInstruction *zi)
{
	return zi->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
	       zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
}

static void fill(struct insn *in, const ZydisDecodedInstruction *zi,
    const ZydisDecodedOperand *zo)
{
	const ZydisAccessedFlags *f = zi->cpu_flags;

	in->mnemonic = zi->mnemonic;
	in->len = zi->length;
	in->opsize = zi->operand_width / 8;
	in->addrsize = zi->address_width / 8;
	in->cc = zi->opcode & 15;
	in->scale = 1;
	in->seg = SEG_DS;
	in->base = in->index = REG_NONE;
	if (zi->attributes & ZYDIS_ATTRIB_HAS_LOCK)
		in->flags |= INSN_LOCK;
	/* The last of several F2/F3 prefixes counts; Zydis has sorted that out. */
	if (zi->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
		in->flags |= INSN_REP;
	if (zi->attributes & ZYDIS_ATTRIB_HAS_REPNE)
		in->flags |= INSN_REPNE;
	in->stacksize = stack_operand(in, zi);
	decode_operands(in, zi, zo);
	if (f) {
		in->flags_read = f->tested & RF_STATUS;
		in->flags_written =
		    (f->modified | f->set_0 | f->set_1 | f->undefined) & RF_STATUS;
	}
	if (ends_block(in, zi))
		in->flags |= INSN_END;
	if (in->flags & INSN_END &&
	    zi->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE &&
	    zi->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
		in->flags |= INSN_BRANCH;
}

static void choose_handler(struct soft_cpu *cpu, struct insn *in)
{
	in->fn = interp_int_handler(in);
	if (in->fn)
		return;
	in->fn = interp_sys_handler(in);
	if (in->fn) {
		if (interp_sys_ends_block(in))
			in->flags |= INSN_END;
		return;
	}
	in->fn = native_handler(cpu, in);
	if (!in->fn) {
		in->fn = raise_ud;
		in->flags |= INSN_END;
	}
}

static int reject(struct insn *in, insn_fn *fn)
{
	in->fn = fn;
	in->len = 1;
	in->flags = INSN_END;
	return -EINVAL;
}

static void decoder_init(ZydisDecoder *d, enum cpu_mode mode)
{
	ZydisDecoderInit(d, modes[mode].machine, modes[mode].stack);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
}

int insn_decode(struct soft_cpu *cpu, struct insn *in, const uint8_t *bytes,
    unsigned n, enum cpu_mode mode)
{
	ZydisDecodedOperand zo[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction zi;
	ZydisDecoder decoder;
	ZyanStatus status;

	memset(in, 0, sizeof(*in));
	in->mode = mode;
	memcpy(in->bytes, bytes, MIN(n, (unsigned)sizeof(in->bytes)));
	decoder_init(&decoder, mode);
	status = ZydisDecoderDecodeFull(&decoder, bytes, n, &zi, zo);
	if (status == ZYDIS_STATUS_NO_MORE_DATA)
		return n < sizeof(in->bytes) ? -EAGAIN : reject(in, raise_gp);
	if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
		return reject(in, raise_gp);
	if (!ZYAN_SUCCESS(status) || !promised_encoding(&zi))
		return reject(in, raise_ud);
	memset(in->bytes + zi.length, 0, sizeof(in->bytes) - zi.length);
	fill(in, &zi, zo);
	choose_handler(cpu, in);
	return 0;
}
