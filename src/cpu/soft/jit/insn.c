/*
 * Any instruction that reads and writes registers, flags and at most one memory
 * operand is copied with its registers renamed and its memory operand replaced:
 * ModRM, SIB, displacement and the REX or VEX bits are written anew, all else stays
 * (SDM vol. 2, chapter 2). Zydis says what the operands are; what touches anything
 * else is refused and left to the interpreter's handler.
 */
#include "cpu/soft/jit/tr.h"

#define NO_GPR -1

struct form {
	const ZydisDecodedInstruction *zi;
	const ZydisDecodedOperand *zo;
	/* Guest GPRs by place in the encoding, and whether they are written. */
	int reg, rm, vvvv, opc;
	bool reg_w, rm_w, vvvv_w, opc_w;
	bool high;		/* encodes AH CH DH BH: no REX may appear */
	int high_reg;		/* the number of the one in ModRM.reg: 0-3, or NO_GPR */
	bool fixed;		/* a GPR beside those encoded */
	bool byte;		/* SPL BPL SIL DIL: a REX must appear */
	bool fp;
	const ZydisDecodedOperand *mem;
	bool mem_w;
	bool agen;
};

/* What may be copied at all, by Zydis' category. */
bool tr_may_copy(const ZydisDecodedInstruction *zi)
{
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ:
	case ZYDIS_MNEMONIC_XLAT:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_CMPXCHG8B:
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
	case ZYDIS_MNEMONIC_CLD:
	case ZYDIS_MNEMONIC_STD:
	case ZYDIS_MNEMONIC_CLI:
	case ZYDIS_MNEMONIC_STI:
	case ZYDIS_MNEMONIC_CLAC:
	case ZYDIS_MNEMONIC_STAC:
	case ZYDIS_MNEMONIC_SALC:
	case ZYDIS_MNEMONIC_RDRAND:
	case ZYDIS_MNEMONIC_RDSEED:
		return zi->mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B;
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_STMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR:
	case ZYDIS_MNEMONIC_VSTMXCSR:
		return true;
	default:
		break;
	}
	switch (zi->meta.category) {
	case ZYDIS_CATEGORY_AES:
	case ZYDIS_CATEGORY_ADOX_ADCX:
	case ZYDIS_CATEGORY_AVX:
	case ZYDIS_CATEGORY_AVX2:
	case ZYDIS_CATEGORY_BINARY:
	case ZYDIS_CATEGORY_BITBYTE:
	case ZYDIS_CATEGORY_BMI1:
	case ZYDIS_CATEGORY_BMI2:
	case ZYDIS_CATEGORY_BROADCAST:
	case ZYDIS_CATEGORY_CMOV:
	case ZYDIS_CATEGORY_CONVERT:
	case ZYDIS_CATEGORY_DATAXFER:
	case ZYDIS_CATEGORY_FCMOV:
	case ZYDIS_CATEGORY_FLAGOP:
	case ZYDIS_CATEGORY_LOGICAL:
	case ZYDIS_CATEGORY_LOGICAL_FP:
	case ZYDIS_CATEGORY_LZCNT:
	case ZYDIS_CATEGORY_MMX:
	case ZYDIS_CATEGORY_NOP:
	case ZYDIS_CATEGORY_WIDENOP:
	case ZYDIS_CATEGORY_PCLMULQDQ:
	case ZYDIS_CATEGORY_PREFETCH:
	case ZYDIS_CATEGORY_ROTATE:
	case ZYDIS_CATEGORY_SEMAPHORE:
	case ZYDIS_CATEGORY_SETCC:
	case ZYDIS_CATEGORY_SHA:
	case ZYDIS_CATEGORY_SHIFT:
	case ZYDIS_CATEGORY_SSE:
	case ZYDIS_CATEGORY_STTNI:
	case ZYDIS_CATEGORY_VFMA:
	case ZYDIS_CATEGORY_X87_ALU:
		return true;
	default:
		return false;
	}
}

/* Whether the state the instruction works on may be used under this key. */
static bool permitted(uint32_t key, const ZydisDecodedOperand *o)
{
	switch (ZydisRegisterGetClass(o->reg.value)) {
	case ZYDIS_REGCLASS_X87:
	case ZYDIS_REGCLASS_MMX:
		return key & KEY_X87;
	case ZYDIS_REGCLASS_XMM:
		return key & KEY_SSE;
	case ZYDIS_REGCLASS_YMM:
		return key & KEY_AVX;
	default:
		return true;
	}
}

static bool note_gpr(struct form *f, const ZydisDecodedOperand *o, int n)
{
	bool w = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

	switch (o->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		f->reg = n, f->reg_w |= w;
		return true;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		f->rm = n, f->rm_w |= w;
		return true;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		f->vvvv = n, f->vvvv_w |= w;
		return true;
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		f->opc = n, f->opc_w |= w;
		return true;
	case ZYDIS_OPERAND_ENCODING_NONE:
		f->fixed = true;
		return n != 4 && !spilled(n);
	default:
		return false;
	}
}

static bool note_register(struct tr *c, struct form *f, const ZydisDecodedOperand *o)
{
	ZydisRegister r = o->reg.value;

	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_GPR8:
		if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH) {
			if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE) {
				f->fixed = true;
				return r == ZYDIS_REGISTER_AH;
			}
			/* Keeps its number and place; only REX is forbidden. */
			f->high = true;
			if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
				f->high_reg = r - ZYDIS_REGISTER_AH;
			return true;
		}
		if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_DIL)
			f->byte = true;
		return note_gpr(f, o, gpr_of(r));
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return note_gpr(f, o, gpr_of(r));
	case ZYDIS_REGCLASS_X87:
	case ZYDIS_REGCLASS_MMX:
	case ZYDIS_REGCLASS_XMM:
	case ZYDIS_REGCLASS_YMM:
		f->fp = true;
		return permitted(c->key, o);
	case ZYDIS_REGCLASS_FLAGS:
		return true;
	default:
		switch (r) {
		case ZYDIS_REGISTER_MXCSR:
			f->fp = true;
			return c->key & KEY_SSE;
		case ZYDIS_REGISTER_X87CONTROL:
		case ZYDIS_REGISTER_X87STATUS:
		case ZYDIS_REGISTER_X87TAG:
			f->fp = true;
			return c->key & KEY_X87;
		default:
			return false;
		}
	}
}

static bool note_memory(struct form *f, const ZydisDecodedOperand *o)
{
	if (f->mem || o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM ||
	    o->size == 0 || o->size > 256)
		return false;
	if (o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
		f->agen = true;
	else if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM)
		return false;
	f->mem = o;
	f->mem_w = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	return true;
}

/* Whether it reads or changes MXCSR without naming a vector register. */
static bool uses_mxcsr(const ZydisDecodedInstruction *zi)
{
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_CVTSD2SI:
	case ZYDIS_MNEMONIC_CVTSS2SI:
	case ZYDIS_MNEMONIC_CVTTSD2SI:
	case ZYDIS_MNEMONIC_CVTTSS2SI:
		return true;
	default:
		return false;
	}
}

static bool analyse(struct tr *c, struct form *f)
{
	f->zi = &c->z[c->i].zi;
	f->zo = c->z[c->i].zo;
	if (!c->z[c->i].ok || !tr_may_copy(f->zi))
		return false;
	f->reg = f->rm = f->vvvv = f->opc = f->high_reg = NO_GPR;
	f->reg_w = f->rm_w = f->vvvv_w = f->opc_w = false;
	f->high = f->byte = f->agen = f->mem_w = f->fixed = false;
	f->mem = NULL;
	f->fp = f->zi->meta.category == ZYDIS_CATEGORY_X87_ALU ||
	    f->zi->meta.category == ZYDIS_CATEGORY_FCMOV ||
	    f->zi->meta.category == ZYDIS_CATEGORY_MMX;
	if (f->fp && !(c->key & KEY_X87))
		return false;
	if (f->zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX &&
	    f->zi->meta.isa_ext != ZYDIS_ISA_EXT_BMI1 &&
	    f->zi->meta.isa_ext != ZYDIS_ISA_EXT_BMI2 && !(c->key & KEY_AVX))
		return false;
	if (f->zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX &&
	    f->zi->meta.isa_ext != ZYDIS_ISA_EXT_BMI1 &&
	    f->zi->meta.isa_ext != ZYDIS_ISA_EXT_BMI2)
		f->fp = true;
	if (uses_mxcsr(f->zi)) {
		f->fp = true;
		if (!(c->key & KEY_SSE))
			return false;
	}
	for (unsigned i = 0; i < f->zi->operand_count; i++) {
		const ZydisDecodedOperand *o = &f->zo[i];

		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
			if (!note_register(c, f, o))
				return false;
		} else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			if (!note_memory(f, o))
				return false;
		} else if (o->type != ZYDIS_OPERAND_TYPE_IMMEDIATE) {
			return false;
		}
	}
	/* The bit string of BT with a register index lies anywhere. */
	if (f->zi->meta.category == ZYDIS_CATEGORY_BITBYTE && f->mem && f->reg != NO_GPR &&
	    (f->zi->mnemonic == ZYDIS_MNEMONIC_BT || f->zi->mnemonic == ZYDIS_MNEMONIC_BTS ||
	    f->zi->mnemonic == ZYDIS_MNEMONIC_BTR || f->zi->mnemonic == ZYDIS_MNEMONIC_BTC))
		return false;
	return true;
}

int guest_reg(struct tr *c, unsigned guest, int scratch)
{
	if (!spilled(guest))
		return host_reg(guest);
	emit_load(&c->j->hot, scratch, emem_at(&c->j->cpu->gpr[guest]));
	return scratch;
}

void guest_put(struct tr *c, unsigned guest, int host)
{
	emit_store(&c->j->hot, emem_at(&c->j->cpu->gpr[guest]), host);
}

/* The rest of the instruction, after ModRM and what belongs to it. */
static unsigned tail_at(const struct form *f)
{
	const ZydisDecodedInstructionRaw *r = &f->zi->raw;

	if (r->disp.size)
		return r->disp.offset + r->disp.size / 8;
	if (r->modrm.mod != 3 && r->modrm.rm == 4)
		return r->sib.offset + 1;
	return r->modrm.offset + 1;
}

/* Host numbers for the places of the encoding. */
struct place {
	int reg, rm, vvvv;	/* H_NONE: as in the guest's bytes */
	const struct emem *m;	/* instead of rm */
};

static unsigned rex_bits(const struct place *p, unsigned old)
{
	unsigned rex = old & 8;

	rex |= p->reg != H_NONE ? (p->reg >> 3 & 1) << 2 : old & 4;
	if (p->m)
		rex |= emem_rex(0, p->m);
	else
		rex |= p->rm != H_NONE ? (p->rm >> 3 & 1) : old & 1;
	return rex;
}

static void put_modrm(struct emit *e, const struct form *f, const struct place *p,
    unsigned tail)
{
	const ZydisDecodedInstructionRaw *r = &f->zi->raw;
	int reg = p->reg != H_NONE ? p->reg & 7 : r->modrm.reg;

	if (p->m)
		emit_modrm(e, reg, p->m, tail);
	else
		emit8(e, 0xc0 | reg << 3 | (p->rm != H_NONE ? p->rm & 7 : r->modrm.rm));
}

static void put_tail(struct emit *e, const struct tr *c, unsigned from)
{
	memcpy(e->p, c->in->bytes + from, c->in->len - from);
	e->p += c->in->len - from;
}

static bool put_vex(struct tr *c, const struct form *f, const struct place *p)
{
	struct emit *e = &c->j->hot;
	const ZydisDecodedInstructionRaw *r = &f->zi->raw;
	const uint8_t *v = c->in->bytes + r->vex.offset;
	bool three = v[0] == 0xc4;
	unsigned b1 = three ? v[1] : (v[1] & 0x80) | 0x61, b2 = three ? v[2] : v[1] & 0x7f;
	unsigned old = (~b1 >> 7 & 1) << 2 | (~b1 >> 5 & 1), rex = rex_bits(p, old);
	unsigned tail = tail_at(f);

	if (p->vvvv != H_NONE)
		b2 = (b2 & ~0x78u) | (~p->vvvv & 15) << 3;
	b1 = (b1 & 0x1f) | ((rex & 4) ? 0 : 0x80) | ((rex & 2) ? 0 : 0x40) |
	    ((rex & 1) ? 0 : 0x20);
	emit8(e, 0xc4);
	emit8(e, b1);
	emit8(e, b2);
	emit8(e, f->zi->opcode);
	put_modrm(e, f, p, c->in->len - tail);
	put_tail(e, c, tail);
	return true;
}

static bool is_legacy_prefix(uint8_t b)
{
	return b == 0x66 || b == 0xf2 || b == 0xf3 || b == 0xf0;
}

/* Prefixes but REX, segments and 67h (addresses have been dealt with); REX; opcode. */
static bool put_opcode(struct tr *c, const struct form *f, const struct place *p,
    unsigned opcode_end)
{
	struct emit *e = &c->j->hot;
	const uint8_t *b = c->in->bytes;
	unsigned i = 0, old = 0, rex;
	bool had = false;

	for (; i < f->zi->raw.prefix_count; i++) {
		if (is_legacy_prefix(b[i]))
			emit8(e, b[i]);
		/* A REX counts only directly before the opcode. */
		had = (b[i] & 0xf0) == 0x40 && i + 1 == f->zi->raw.prefix_count;
		if (had)
			old = b[i] & 15;
	}
	rex = rex_bits(p, old);
	if (rex || f->byte || (had && !f->high)) {
		if (f->high)
			return false;
		emit8(e, 0x40 | rex);
	}
	memcpy(e->p, b + i, opcode_end - i);
	e->p += opcode_end - i;
	return true;
}

static bool put_legacy(struct tr *c, const struct form *f, const struct place *p)
{
	struct emit *e = &c->j->hot;
	unsigned tail = tail_at(f);

	if (!put_opcode(c, f, p, f->zi->raw.modrm.offset))
		return false;
	put_modrm(e, f, p, c->in->len - tail);
	put_tail(e, c, tail);
	return true;
}

/* No ModRM: at most one register in the opcode's low bits. */
static bool put_plain(struct tr *c, const struct form *f, int opc)
{
	struct emit *e = &c->j->hot;
	struct place p = { H_NONE, opc, H_NONE, NULL };
	unsigned imm = (f->zi->raw.imm[0].size + f->zi->raw.imm[1].size) / 8;
	unsigned end = c->in->len - imm;

	if (!put_opcode(c, f, &p, end))
		return false;
	if (opc != H_NONE)
		e->p[-1] = (e->p[-1] & ~7) | (opc & 7);
	put_tail(e, c, end);
	return true;
}

/* Which scratch registers stand for which spilled guest registers. */
struct scratch {
	int guest[2];		/* in T0, T1; NO_GPR: free */
	bool avail[2];
};

static int assign(struct scratch *s, int guest)
{
	if (guest == NO_GPR)
		return H_NONE;
	if (!spilled(guest))
		return host_reg(guest);
	for (int i = 0; i < 2; i++)
		if (s->guest[i] == guest)
			return H_T0 + i;
	for (int i = 0; i < 2; i++)
		if (s->avail[i] && s->guest[i] == NO_GPR) {
			s->guest[i] = guest;
			return H_T0 + i;
		}
	return H_NONE;
}

static bool place_all(const struct form *f, struct scratch *s, struct place *p, int *opc)
{
	s->guest[0] = s->guest[1] = NO_GPR;
	p->reg = assign(s, f->reg);
	p->rm = assign(s, f->rm);
	p->vvvv = assign(s, f->vvvv);
	*opc = assign(s, f->opc);
	return (f->reg == NO_GPR) == (p->reg == H_NONE) &&
	    (f->rm == NO_GPR) == (p->rm == H_NONE) &&
	    (f->vvvv == NO_GPR) == (p->vvvv == H_NONE) &&
	    (f->opc == NO_GPR) == (*opc == H_NONE);
}

static void load_scratch(struct tr *c, const struct scratch *s)
{
	for (int i = 0; i < 2; i++)
		if (s->guest[i] != NO_GPR)
			emit_load(&c->j->hot, H_T0 + i,
			    emem_at(&c->j->cpu->gpr[s->guest[i]]));
}

static void store_scratch(struct tr *c, const struct form *f, const struct scratch *s)
{
	for (int i = 0; i < 2; i++) {
		int g = s->guest[i];

		if (g == NO_GPR)
			continue;
		if ((f->reg == g && f->reg_w) || (f->rm == g && f->rm_w) ||
		    (f->vvvv == g && f->vvvv_w) || (f->opc == g && f->opc_w))
			emit_store(&c->j->hot, emem_at(&c->j->cpu->gpr[g]), H_T0 + i);
	}
}

static bool put(struct tr *c, const struct form *f, const struct place *p, int opc)
{
	if (!(f->zi->attributes & ZYDIS_ATTRIB_HAS_MODRM))
		return put_plain(c, f, opc);
	if (f->zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		return put_vex(c, f, p);
	return put_legacy(c, f, p);
}

static void swap_bytes(struct emit *e, int reg)
{
	emit8(e, 0x86), emit8(e, 0xc0 | reg << 3 | (reg + 4)); /* xchg al, ah ... */
}

/*
 * AH CH DH BH and memory: the operand needs a REX prefix, which makes them SPL BPL SIL
 * DIL. So the register's two low bytes change places for the instruction.
 */
static bool high_with_memory(struct tr *c, struct form *f)
{
	struct place p = { f->high_reg, H_NONE, H_NONE, NULL };
	struct address a;
	struct emem m;

	if (f->fixed || f->high_reg < 0 ||
	    f->zi->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || !address_of(c, &a))
		return false;
	mem_check(c, &a, 1, f->mem_w ? 'w' : 'r', &m);
	mem_settle(c, &m);
	p.m = &m;
	f->high = false;
	swap_bytes(&c->j->hot, f->high_reg);
	put(c, f, &p, H_NONE);
	swap_bytes(&c->j->hot, f->high_reg);
	return true;
}

static bool with_memory(struct tr *c, struct form *f)
{
	struct scratch s = { .avail = { true, false } };
	struct place p = { H_NONE, H_NONE, H_NONE, NULL };
	bool settle = false;
	struct address a;
	struct emem m;
	int opc;

	if (f->high)
		return high_with_memory(c, f);
	if (!address_of(c, &a) || !place_all(f, &s, &p, &opc))
		return false;
	if (s.guest[0] != NO_GPR && mem_needs_t0(c, &a, f->mem->size / 8,
	    f->mem_w ? 'w' : 'r')) {
		/* T0 holds the address: use T1 for the register. */
		s = (struct scratch){ .avail = { false, true } };
		if (!place_all(f, &s, &p, &opc))
			return false;
		settle = true;
	}
	mem_check(c, &a, f->mem->size / 8, f->mem_w ? 'w' : 'r', &m);
	if (settle)
		mem_settle(c, &m);
	load_scratch(c, &s);
	p.m = &m;
	put(c, f, &p, opc);
	store_scratch(c, f, &s);
	return true;
}

bool tr_generic(struct tr *c)
{
	struct scratch s = { .avail = { true, true } };
	struct place p = { H_NONE, H_NONE, H_NONE, NULL };
	uint8_t *start = c->j->hot.p;
	struct form f;
	int opc;

	if (!analyse(c, &f))
		return false;
	c->uses_fp |= f.fp;
	if (f.mem && f.zi->meta.category == ZYDIS_CATEGORY_PREFETCH)
		return true;
	if (f.agen)
		return f.zi->meta.category == ZYDIS_CATEGORY_NOP ||
		    f.zi->meta.category == ZYDIS_CATEGORY_WIDENOP;
	if (f.zi->meta.category == ZYDIS_CATEGORY_NOP ||
	    f.zi->meta.category == ZYDIS_CATEGORY_WIDENOP)
		return true;
	if (f.mem)
		return with_memory(c, &f);
	if (!place_all(&f, &s, &p, &opc))
		return false;
	load_scratch(c, &s);
	if (!put(c, &f, &p, opc)) {
		c->j->hot.p = start;
		return false;
	}
	store_scratch(c, &f, &s);
	return true;
}

bool tr_lea(struct tr *c)
{
	const struct insn *in = c->in;
	struct emit *e = &c->j->hot;
	struct emem m = { H_NONE, H_NONE, 0, (int32_t)in->disp, NULL };
	int dst = spilled(in->op[0].reg) ? H_T0 : host_reg(in->op[0].reg);

	if (in->opsize == 2 || in->addrsize == 2)
		return false;
	if (in->flags & INSN_RIPREL || (in->base == REG_NONE && in->index == REG_NONE)) {
		uint64_t v = in->disp + (in->flags & INSN_RIPREL ? c->next : 0);

		if (in->opsize == 4 || in->addrsize == 4)
			v = (uint32_t)v;
		emit_const(e, dst, v);
	} else {
		if (in->base != REG_NONE)
			m.base = guest_reg(c, in->base, H_T0);
		if (in->index != REG_NONE)
			m.index = guest_reg(c, in->index, H_T1);
		m.shift = in->index == REG_NONE ? 0 : __builtin_ctz(in->scale | 8);
		emit_m(e, in->opsize == 8 && in->addrsize == 8, 0x8d, dst, m, 0);
	}
	if (spilled(in->op[0].reg))
		guest_put(c, in->op[0].reg, dst);
	return true;
}
