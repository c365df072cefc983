/*
 * One check for several accesses: those of a block that go through the same base
 * (and index), changed by nothing but known constants in between, form a group
 * whose whole span is checked once, where arithmetic flags are dead if there is
 * such a place before the first access.
 *
 * Invariant: between the check and the last access nothing may take the mapping
 * away. Only what ends a block changes the address space, and whoever lets other
 * vCPUs' requests in (a host callback) does not come back into the block
 * (helpers.c, epoch).
 *
 * When the check fails and cannot be made to hold - page crossing, MMIO, code - the
 * interpreter does the rest of the block; if that happens often the block is
 * translated again without groups.
 */
#include <Zydis/Zydis.h>

#include "cpu/soft/jit/tr.h"

#define SPAN_MAX 1024

/* [r] = value of r when this version began + constant. False: not of that form. */
static bool constant_step(const struct insn *in, unsigned word, unsigned *reg,
    int32_t *step)
{
	*reg = in->op[0].reg;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_SUB:
		if (in->op[0].kind != OPND_GPR || in->op[0].size != word ||
		    in->op[1].kind != OPND_IMM || in->imm != (int16_t)in->imm)
			return false;
		*step = in->mnemonic == ZYDIS_MNEMONIC_ADD ? in->imm : -in->imm;
		return true;
	case ZYDIS_MNEMONIC_LEA:
		if (in->op[0].size != word || in->addrsize != word || in->index != REG_NONE ||
		    in->base == REG_NONE || in->base != in->op[0].reg ||
		    in->disp != (int16_t)in->disp)
			return false;
		*step = in->disp;
		return true;
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_CALL:
		*reg = 4;
		*step = -(int32_t)word;
		return in->stacksize == word;
	case ZYDIS_MNEMONIC_POP:
		*reg = 4;
		*step = (int32_t)word;
		return in->stacksize == word && in->op[0].kind == OPND_GPR &&
		    in->op[0].reg != 4;
	default:
		return false;
	}
}

static struct group *group_for(struct tr *c, const struct track *k, unsigned base,
    unsigned index, unsigned scale, int32_t lo, int32_t hi)
{
	for (unsigned i = c->ngroups; i-- > 0;) {
		struct group *g = &c->group[i];

		if (g->base != base || g->index != index || g->scale != scale ||
		    g->ver[0] != k->ver[base] ||
		    (index != REG_NONE && g->ver[1] != k->ver[index]))
			continue;
		if (MAX(g->hi, hi) - MIN(g->lo, lo) > SPAN_MAX)
			return NULL;
		return g;
	}
	return NULL;
}

static void add(struct tr *c, const struct track *k, unsigned base, unsigned index,
    unsigned scale, int64_t disp, unsigned size, char kind)
{
	struct member *m = &c->member[c->nmembers];
	int32_t at = (int32_t)disp + k->off[base];
	struct group *g;

	if (spilled(base) || disp != (int32_t)disp || size == 0 || size > 64)
		return;
	if (index != REG_NONE) {
		if (spilled(index))
			return;
		at += k->off[index] * (int)scale;
	}
	g = group_for(c, k, base, index, scale, at, at + (int)size);
	if (!g) {
		g = &c->group[c->ngroups++];
		*g = (struct group){ .base = base, .index = index, .scale = scale,
			.ver = { k->ver[base], index == REG_NONE ? 0 : k->ver[index] },
			.lo = at, .hi = at + (int)size, .first = c->i, .kind = 'r' };
	}
	g->lo = MIN(g->lo, at);
	g->hi = MAX(g->hi, at + (int)size);
	if (kind == 'w')
		g->kind = 'w';
	g->members++;
	*m = (struct member){ .insn = c->i, .base = base, .index = index, .scale = scale,
		.disp = (int32_t)disp, .size = size, .group = g - c->group };
	c->nmembers++;
}

/* The accesses the translator will check for one instruction. */
static void accesses(struct tr *c, const struct track *k)
{
	const struct insn *in = c->in;
	char kind = in->flags & INSN_STORES ? 'w' : 'r';

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_CALL:
		if (in->stacksize == c->word)
			add(c, k, 4, REG_NONE, 1, -(int)c->word, c->word, 'w');
		kind = 'r';
		break;
	case ZYDIS_MNEMONIC_POP:
	case ZYDIS_MNEMONIC_RET:
		if (in->stacksize == c->word)
			add(c, k, 4, REG_NONE, 1, 0, c->word, 'r');
		return;
	case ZYDIS_MNEMONIC_LEAVE:
		if (in->stacksize == c->word)
			add(c, k, 5, REG_NONE, 1, 0, c->word, 'r');
		return;
	default:
		break;
	}
	if (tr_is_bit_string(in) || !mem_flat(in) || in->flags & INSN_NOSEG || in->base == REG_NONE)
		return;
	for (unsigned i = 0; i < in->nopnd; i++)
		if (in->op[i].kind == OPND_MEM)
			add(c, k, in->base, in->index, in->scale, in->disp, in->op[i].size,
			    kind);
}

/*
 * GPRs an instruction may write, as bits. What is not known in every detail may write
 * them all: string instructions move RSI and RDI, which are no operands to Zydis.
 */
static uint32_t writes(const struct zinsn *z)
{
	uint32_t mask = 0;

	switch (z->zi.mnemonic) {
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_LEAVE:
	case ZYDIS_MNEMONIC_POP:
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_PUSHFQ:
		break;
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTS:
		break;
	default:
		if (!tr_may_copy(&z->zi))
			return 0xffff;
	}
	for (unsigned i = 0; i < z->zi.operand_count; i++) {
		const ZydisDecodedOperand *o = &z->zo[i];
		int n;

		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		n = gpr_of(o->reg.value);
		if (n >= 0)
			mask |= 1u << n;
	}
	return mask;
}

static void advance(struct tr *c, struct track *k, uint8_t *next)
{
	uint32_t w = c->z[c->i].ok ? writes(&c->z[c->i]) : 0xffff;
	unsigned reg;
	int32_t step;

	if (constant_step(c->in, c->word, &reg, &step)) {
		k->off[reg] += step;
		w &= ~(1u << reg);
		/* A step too far from where the version began is a new one. */
		if (k->off[reg] > 1 << 20 || k->off[reg] < -(1 << 20))
			w |= 1u << reg;
	}
	*next += w != 0;
	for (unsigned r = 0; r < 16; r++)
		if (w & 1u << r) {
			k->ver[r] = *next;
			k->off[r] = 0;
		}
}

/* Where the check of a group goes: the last place with dead flags, else its first user. */
static void settle(struct tr *c, struct group *g, const struct track *t)
{
	unsigned p = g->first;

	g->home = p;
	g->used = g->members > 1;
	for (;; p--) {
		if (t[p].ver[g->base] != g->ver[0] ||
		    (g->index != REG_NONE && t[p].ver[g->index] != g->ver[1]))
			break;
		if (!c->live_at[p]) {
			g->used |= p != g->first;
			g->home = p;
			break;
		}
		if (!p)
			break;
	}
	g->home_off = t[g->home].off[g->base];
	if (g->index != REG_NONE)
		g->home_off += t[g->home].off[g->index] * (int)g->scale;
}

void group_plan(struct tr *c)
{
	struct track *t = c->track;
	struct track k = { 0 };
	uint8_t next = 0;

	c->ngroups = c->nmembers = 0;
	if (c->t->ungrouped)
		return;
	for (c->i = 0; c->i < c->b->n; c->i++) {
		c->in = &c->b->insn[c->i];
		t[c->i] = k;
		/* Versions are counted in a byte: stop before it wraps. */
		if (next > 200 || c->ngroups + 2 >= GROUPS_MAX)
			break;
		accesses(c, &k);
		advance(c, &k, &next);
	}
	for (unsigned i = 0; i < c->ngroups; i++)
		settle(c, &c->group[i], t);
}

/*
 * Whether the sum of registers and displacement, not taken modulo 4 GiB, is right for
 * a member: the base must not have wrapped since the check, which it has not when it
 * is as it was or points into what was checked.
 */
static bool exact(const struct tr *c, const struct group *g, unsigned base)
{
	int32_t off = c->track[c->i].off[base];

	return !address_wraps(c, REG_NONE, g->lo - g->home_off) &&
	    (off == g->home_off || (off >= g->lo && off < g->hi));
}

const struct group *group_of(const struct tr *c, unsigned base, unsigned index,
    unsigned scale, int32_t disp, unsigned size, char kind)
{
	for (unsigned i = 0; i < c->nmembers; i++) {
		const struct member *m = &c->member[i];
		const struct group *g = &c->group[m->group];

		if (m->insn == c->i && m->base == base && m->index == index &&
		    m->scale == scale && m->disp == disp && m->size == size && g->used &&
		    (kind == 'r' || g->kind == 'w') &&
		    (c->word == 8 || address_wraps(c, index, disp) || exact(c, g, base)))
			return g;
	}
	return NULL;
}

void group_checks(struct tr *c)
{
	for (unsigned i = 0; i < c->ngroups; i++)
		if (c->group[i].used && c->group[i].home == c->i)
			mem_check_group(c, &c->group[i]);
}
