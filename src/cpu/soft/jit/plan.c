/*
 * Liveness of the arithmetic flags, backwards through a block and a few
 * instructions into what follows it.
 *
 * A flag is dead where it will be written before it is read. A fault at an
 * instruction before which flags are dead reports whatever they hold: they are
 * written before anybody who resumes there can read them.
 *
 * Bytes looked at on the block's own page belong to what invalidates the
 * translation. On another page - the target of a call - nothing is recorded: should
 * somebody replace the beginning of a called function by one that reads flags its
 * caller left, one call would see other flags.
 */
#include "cpu/soft/jit/tr.h"

/* Bits an instruction surely writes. */
static uint32_t killed(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD: {
		const struct operand *o = &in->op[in->nopnd - 1];
		unsigned count;

		/* A count of zero writes nothing; RCL and RCR go round by 9 and 17. */
		if (in->nopnd < 2 || o->kind != OPND_IMM)
			return 0;
		count = in->imm & (in->op[0].size == 8 ? 63 : 31);
		if (in->mnemonic == ZYDIS_MNEMONIC_RCL || in->mnemonic == ZYDIS_MNEMONIC_RCR)
			count %= in->op[0].size * 8 + 1;
		return count ? in->flags_written : 0;
	}
	default:
		if (in->flags & (INSN_REP | INSN_REPNE))
			return 0;
		return in->flags_written;
	}
}

bool plan_transparent(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_CLAC:
	case ZYDIS_MNEMONIC_CLD:
	case ZYDIS_MNEMONIC_CLI:
	case ZYDIS_MNEMONIC_STAC:
	case ZYDIS_MNEMONIC_STD:
	case ZYDIS_MNEMONIC_STI:
	case ZYDIS_MNEMONIC_SWAPGS:
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
		return true;
	default:
		return false;
	}
}

static bool pushes_flags(unsigned mnemonic)
{
	return mnemonic == ZYDIS_MNEMONIC_PUSHF || mnemonic == ZYDIS_MNEMONIC_PUSHFD ||
	    mnemonic == ZYDIS_MNEMONIC_PUSHFQ;
}

static uint32_t step(const struct insn *in, uint32_t live)
{
	/* Whoever takes the flags along (SYSCALL, PUSHF) or a handler that may. */
	if (plan_transparent(in))
		return live;
	if ((in->flags & (INSN_END | INSN_BRANCH)) == INSN_END || pushes_flags(in->mnemonic))
		return RF_STATUS;
	return (live & ~killed(in)) | in->flags_read;
}

static void decoder_init(ZydisDecoder *d, unsigned word)
{
	if (word == 8)
		ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else
		ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
}

/* As insn_decode() for what matters here; false: nothing known. */
static bool peek(const struct tr *c, struct insn *in, const uint8_t *bytes, unsigned n)
{
	ZydisDecodedOperand zo[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction zi;
	ZydisDecoder d;

	decoder_init(&d, c->word);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, bytes, n, &zi, zo)))
		return false;
	memset(in, 0, sizeof(*in));
	in->mnemonic = zi.mnemonic;
	in->len = zi.length;
	in->nopnd = MIN(zi.operand_count_visible, 4u);
	for (unsigned i = 0; i < in->nopnd; i++) {
		in->op[i].size = zo[i].size / 8;
		if (zo[i].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
			continue;
		in->op[i].kind = zo[i].imm.is_relative ? OPND_REL : OPND_IMM;
		in->imm = zo[i].imm.value.s;
	}
	if (zi.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
	    ZYDIS_ATTRIB_HAS_REPNE))
		in->flags |= INSN_REP;
	if (zi.cpu_flags) {
		in->flags_read = zi.cpu_flags->tested & RF_STATUS;
		in->flags_written = (zi.cpu_flags->modified | zi.cpu_flags->set_0 |
		    zi.cpu_flags->set_1 | zi.cpu_flags->undefined) & RF_STATUS;
	}
	switch (zi.meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_UNCOND_BR:
		in->flags |= INSN_END | INSN_BRANCH;
		return zi.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR &&
		    zi.operand_width != 16;
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP:
		return false;
	default:
		return !pushes_flags(in->mnemonic);
	}
}

struct flow {
	uint32_t reads;		/* flags read before they are written */
	uint32_t aside;		/* flags of which nothing is known on a way branched off */
	uint32_t open;		/* flags of which nothing is known */
};

static struct flow flow_at(struct tr *c, uint64_t rip, unsigned budget)
{
	struct trans *t = c->t;
	const struct soft_cpu *cpu = c->j->cpu;
	uint64_t page = (rip &= c->rip_mask) & MMU_PAGE_MASK, gpa;
	const struct tlb_entry *e = tlb_slot(cpu, mmu_code_idx(cpu), rip);
	bool own = page == (t->rip & MMU_PAGE_MASK);
	struct flow f = { 0, 0, RF_STATUS };
	struct insn in;

	if (!own && e->tag_x != page)
		return f;
	gpa = (own ? t->page[0] : e->gpa) | (rip & 0xfff);
	while (budget--) {
		unsigned room = 4096 - (gpa & 0xfff);
		const uint8_t *p = memory_ptr(cpu->mem, gpa, 1);

		if (!p || !peek(c, &in, p, MIN(room, 15u)))
			break;
		if (own) {
			t->lo[0] = MIN(t->lo[0], gpa);
			t->hi[0] = MAX(t->hi[0], gpa + in.len);
		}
		f.reads |= in.flags_read & f.open;
		f.open &= ~killed(&in);
		if (!f.open)
			return f;
		rip += in.len;
		if (in.flags & INSN_END) {
			bool rel = in.nopnd == 1 && in.op[0].kind == OPND_REL;
			struct flow to;

			if (!rel || !budget)
				break;
			to = flow_at(c, rip + in.imm, budget / 2);
			f.reads |= f.open & to.reads;
			f.aside |= f.open & to.aside;
			if (in.mnemonic == ZYDIS_MNEMONIC_JMP ||
			    in.mnemonic == ZYDIS_MNEMONIC_CALL) {
				f.open &= to.open;
				return f;
			}
			/* conditional: both ways */
			f.aside |= f.open & to.open;
			budget /= 2;
		}
		if ((rip ^ page) & MMU_PAGE_MASK)
			break;
		gpa += in.len;
	}
	return f;
}

uint32_t plan_live_at(struct tr *c, uint64_t rip, unsigned budget)
{
	struct flow f = flow_at(c, rip, budget);

	return f.reads | f.aside | f.open;
}

/* Whether code at rip surely reads a flag that it was given. */
bool plan_reads_at(struct tr *c, uint64_t rip)
{
	return flow_at(c, rip, 16).reads != 0;
}

/* Instructions that are there for their flags. */
static bool makes_flags(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_CLC:
	case ZYDIS_MNEMONIC_CMC:
	case ZYDIS_MNEMONIC_CMP:
	case ZYDIS_MNEMONIC_COMISD:
	case ZYDIS_MNEMONIC_COMISS:
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFQ:
	case ZYDIS_MNEMONIC_PTEST:
	case ZYDIS_MNEMONIC_SAHF:
	case ZYDIS_MNEMONIC_STC:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_UCOMISD:
	case ZYDIS_MNEMONIC_UCOMISS:
	case ZYDIS_MNEMONIC_VCOMISD:
	case ZYDIS_MNEMONIC_VCOMISS:
	case ZYDIS_MNEMONIC_VPTEST:
	case ZYDIS_MNEMONIC_VTESTPD:
	case ZYDIS_MNEMONIC_VTESTPS:
	case ZYDIS_MNEMONIC_VUCOMISD:
	case ZYDIS_MNEMONIC_VUCOMISS:
		return true;
	default:
		return false;
	}
}

/*
 * Flags at a return or an indirect call, whose target is not known: as every ABI has
 * it, nobody reads them, unless the block ends with flags made for their own sake that
 * it did not use itself. What comes back to code that reads flags is seen at the call
 * (branch.c), and they are kept everywhere from then on.
 */
static uint32_t live_outside(const struct tr *c)
{
	if (c->j->exact[c->keyid])
		return RF_STATUS;
	for (unsigned i = c->b->n - 1; i-- > 0;) {
		const struct insn *in = &c->b->insn[i];

		if (in->flags_read && !plan_transparent(in))
			return 0;
		if (in->flags_written)
			return makes_flags(in) ? RF_STATUS : 0;
	}
	return 0;
}

static uint32_t live_behind(struct tr *c)
{
	const struct insn *in = &c->b->insn[c->b->n - 1];
	uint64_t next = c->t->rip + c->off[c->b->n];
	uint32_t live;

	if (!(in->flags & INSN_END) || plan_transparent(in))
		return plan_live_at(c, next, 8);
	if (in->mnemonic == ZYDIS_MNEMONIC_RET ||
	    (in->mnemonic == ZYDIS_MNEMONIC_CALL && in->op[0].kind != OPND_REL))
		return live_outside(c);
	if (!(in->flags & INSN_BRANCH) || in->nopnd != 1 || in->op[0].kind != OPND_REL ||
	    in->opsize == 2)
		return RF_STATUS;
	live = plan_live_at(c, next + in->imm, 8);
	if (in->mnemonic != ZYDIS_MNEMONIC_JMP && in->mnemonic != ZYDIS_MNEMONIC_CALL)
		live |= plan_live_at(c, next, 8);
	return live;
}

static bool same_operand(const ZydisDecodedOperand *a, const ZydisDecodedOperand *b)
{
	if (a->type != b->type || a->encoding != b->encoding)
		return false;
	return a->type != ZYDIS_OPERAND_TYPE_REGISTER || a->reg.value == b->reg.value ||
	    ZydisRegisterGetClass(a->reg.value) == ZYDIS_REGCLASS_FLAGS;
}

/*
 * Whether 64-bit code means the same by the bytes of a 32-bit instruction, but for
 * its address. Some have no encoding there (INC 40h, 82h), some become others (ARPL),
 * and VEX has bits that only 64-bit code looks at.
 */
static bool same_in_64(const ZydisDecoder *d64, const struct insn *in,
    const struct zinsn *z)
{
	ZydisDecodedOperand zo[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction zi;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(d64, in->bytes, in->len, &zi, zo)) ||
	    zi.mnemonic != z->zi.mnemonic || zi.length != z->zi.length ||
	    zi.operand_count != z->zi.operand_count ||
	    zi.operand_width != z->zi.operand_width)
		return false;
	for (unsigned i = 0; i < zi.operand_count; i++)
		if (!same_operand(&zo[i], &z->zo[i]))
			return false;
	return true;
}

static void decode(struct tr *c)
{
	ZydisDecoder d, d64;

	decoder_init(&d, c->word);
	decoder_init(&d64, 8);
	for (unsigned i = 0; i < c->b->n; i++) {
		const struct insn *in = &c->b->insn[i];
		struct zinsn *z = &c->z[i];

		z->ok = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, in->bytes, in->len, &z->zi,
		    z->zo));
		z->copy = z->ok && (c->word == 8 || same_in_64(&d64, in, z));
	}
}

void plan(struct tr *c)
{
	uint32_t live;

	c->off[0] = 0;
	for (unsigned i = 0; i < c->b->n; i++)
		c->off[i + 1] = c->off[i] + c->b->insn[i].len;
	decode(c);
	live = live_behind(c);
	c->live_at[c->b->n] = live;
	for (unsigned i = c->b->n; i-- > 0;) {
		live = step(&c->b->insn[i], live);
		c->live_at[i] = live;
	}
	c->t->live_in = live;
	group_plan(c);
}
