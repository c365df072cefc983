/*
 * Blocks that loop to themselves. When all their accesses move by constant steps, the
 * number of rounds for which every slot holds is computed once, and the rounds run in
 * copies of the body without checks, at most ROUNDS_MAX at a time so that events are
 * seen.
 *
 * Invariants
 * - Flags are dead at the head (branch.c), so that counting may clobber them there.
 * - The copies call nothing and use T1 only, for deltas: T0 counts, or memory does
 *   where two deltas are all there are. Slots cannot change under them. Host faults
 *   in them find their instruction through fast_pc.
 */
#include "cpu/soft/jit/tr.h"

#define ROUNDS_MAX  1024
#define ROUNDS_MIN  3u	/* fewer are not worth counting */
#define COPIES_MAX  4u
#define STREAMS_MAX 6u
#define LENGTH_MAX  24u

struct stream {
	uint32_t site;
	uint8_t base, index, scale;
	int32_t at;		/* from base + index * scale at the head */
	int32_t step;
};

static bool usable(ZydisRegister r)
{
	int n = gpr_of(r);

	return (n < 0 || !spilled((unsigned)n)) &&
	    !(r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH);
}

/* Whether the copy of an instruction needs no scratch register but T1. */
static bool simple(const struct tr *c, unsigned i)
{
	const struct zinsn *z = &c->z[i];

	if (!z->ok || c->handed >> i & 1 || tr_is_bit_string(&c->b->insn[i]) ||
	    plan_transparent(&c->b->insn[i]))
		return false;
	switch (c->b->insn[i].mnemonic) {
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_POP:
	case ZYDIS_MNEMONIC_LEAVE:
	case ZYDIS_MNEMONIC_PUSHFQ:
		return false;
	default:
		break;
	}
	for (unsigned k = 0; k < z->zi.operand_count; k++) {
		const ZydisDecodedOperand *o = &z->zo[k];

		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && !usable(o->reg.value))
			return false;
		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    (!usable(o->mem.base) || !usable(o->mem.index)))
			return false;
	}
	return true;
}

static const struct group *group_at(const struct tr *c, uint32_t site)
{
	for (unsigned i = 0; i < c->ngroups; i++)
		if (c->group[i].used && c->group[i].site == site)
			return &c->group[i];
	return NULL;
}

/* A register as head value + constant at instruction i; its step in a round. */
static bool follow(const struct tr *c, unsigned reg, unsigned i, int32_t *off,
    int32_t *step)
{
	const struct track *end = &c->track[c->b->n - 1];

	*off = c->track[i].off[reg];
	*step = end->off[reg];
	return !c->track[i].ver[reg] && !end->ver[reg];
}

static bool stream_of(const struct tr *c, unsigned i, struct stream *s)
{
	const struct insn *in = &c->b->insn[i];
	const struct group *g = group_at(c, c->site_of[i]);
	int32_t off, step;

	*s = (struct stream){ .site = c->site_of[i], .base = in->base, .index = in->index,
		.scale = in->scale };
	if (c->j->slots[s->site].flags & SLOT_ABS)
		return true;
	if (in->flags & INSN_RIPREL || in->seg == SEG_FS || in->seg == SEG_GS ||
	    in->addrsize != 8 || in->base == REG_NONE || in->disp != (int16_t)in->disp ||
	    !follow(c, in->base, i, &off, &s->step))
		return false;
	s->at = (int32_t)in->disp + off;
	if (in->index != REG_NONE) {
		if (!follow(c, in->index, i, &off, &step))
			return false;
		s->at += off * in->scale;
		s->step += step * in->scale;
	}
	if (g)
		s->at = g->lo;
	return !(s->step & (s->step - 1)) || !(-s->step & (-s->step - 1));
}

static int streams(const struct tr *c, struct stream *s)
{
	int n = 0;

	if (c->t->ungrouped || c->word != 8 || c->b->n > LENGTH_MAX)
		return -1;
	for (unsigned i = 0; i + 1 < c->b->n; i++) {
		bool known = false;

		if (!simple(c, i))
			return -1;
		if (!c->site_of[i])
			continue;
		for (int k = 0; k < n; k++)
			known |= s[k].site == c->site_of[i];
		if (known)
			continue;
		if (n == (int)STREAMS_MAX || !stream_of(c, i, &s[n]))
			return -1;
		n++;
	}
	return n;
}

/* T0 = the lesser of T0 and the rounds that the stream's slot lasts, less one. */
static void count(struct tr *c, const struct stream *s, const uint8_t *head)
{
	struct emit *e = &c->j->hot, *cold = &c->j->cold;
	struct slot *slot = &c->j->slots[s->site];
	unsigned size = (unsigned)(s->step < 0 ? -s->step : s->step);
	struct emem a = { host_reg(s->base), H_NONE, 0, s->at, NULL };
	const uint8_t *again;

	if (slot->flags & SLOT_ABS) {
		emit_cmp_imm8(e, 8, emem_at(&slot->limit), 0);
		emit_jcc(e, CC_E, head);
		return;
	}
	if (s->index != REG_NONE) {
		a.index = host_reg(s->index);
		a.shift = (unsigned)__builtin_ctz(s->scale | 8);
	}
	again = emit_pc(e);
	emit_lea(e, H_T1, a);
	emit_m(e, 1, 0x2b, H_T1, emem_at(&slot->start), 0);
	emit_m(e, 1, 0x3b, H_T1, emem_at(&slot->limit), 0);
	emit_jcc(e, CC_AE, emit_pc(cold));
	poly_lookup(c->j, cold, s->site, a, head, again);
	if (!s->step)
		return;
	if (s->step > 0) { /* limit - 1 - offset */
		emit_r(e, 1, 0xf7, 2, H_T1); /* not */
		emit_m(e, 1, 0x03, H_T1, emem_at(&slot->limit), 0);
	}
	emit_r(e, 1, 0xc1, 5, H_T1), emit8(e, (uint8_t)__builtin_ctz(size)); /* shr */
	emit_r(e, 1, 0x3b, H_T1, H_T0);
	emit8(e, 0x4d), emit8(e, 0x0f), emit8(e, 0x42), emit8(e, 0xd3); /* cmovb T0, T1 */
}

/* The body again, without its last instruction. */
static void copy(struct tr *c)
{
	uint32_t *pc = c->j->pcs + c->j->npcs;

	c->j->npcs += c->b->n;
	c->t->copies++;
	for (c->i = 0; c->i + 1 < c->b->n; c->i++) {
		pc[c->i] = (uint32_t)(emit_pc(&c->j->hot) - c->j->code_rx);
		tr_enter(c);
		tr_middle(c);
	}
	pc[c->i] = (uint32_t)(emit_pc(&c->j->hot) - c->j->code_rx);
	tr_enter(c);
}

/* Short bodies are worth several copies, for what a round costs beside its own. */
static unsigned copies(const struct tr *c)
{
	return c->b->n <= 10 ? COPIES_MAX : c->b->n <= 16 ? 2 : 1;
}

/* Whether every access finds its delta in T0 or T1, and none needs T1 for a sum. */
static bool pin(struct tr *c, const struct stream *s, int n)
{
	if (n > 2)
		return false;
	for (int i = 0; i < n; i++)
		if (s[i].index != REG_NONE && !(c->j->slots[s[i].site].flags & SLOT_ABS))
			return false;
	c->pinned[0] = s[0].site;
	c->pinned[1] = n > 1 ? s[1].site : 0;
	emit_store(&c->j->hot, emem_at(&c->j->rounds), H_T0);
	emit_load(&c->j->hot, H_T0, emem_at(&c->j->slots[s[0].site].delta));
	if (n > 1)
		emit_load(&c->j->hot, H_T1, emem_at(&c->j->slots[s[1].site].delta));
	return true;
}

bool loop_fast(struct tr *c, unsigned cc, const uint8_t *again)
{
	const uint8_t *head = c->j->code_rx + c->t->pc[0], *start;
	struct stream s[STREAMS_MAX];
	struct emit *e = &c->j->hot;
	unsigned k = copies(c);
	bool pinned;
	int n = streams(c, s);

	if (n <= 0)
		return false;
	emit_const(e, H_T0, ROUNDS_MAX - 1);
	for (int i = 0; i < n; i++)
		count(c, &s[i], head);
	emit_r(e, 1, 0x83, 5, H_T0), emit8(e, (uint8_t)(k - 1)); /* sub */
	emit_jcc(e, CC_B, head);
	if (k < ROUNDS_MIN) {
		emit_r(e, 1, 0x83, 7, H_T0), emit8(e, ROUNDS_MIN - (uint8_t)k); /* cmp */
		emit_jcc(e, CC_B, head);
	}
	pinned = pin(c, s, n);
	start = emit_pc(e);
	c->t->fast = (uint32_t)(start - c->j->code_rx);
	c->t->fast_pc = c->j->pcs + c->j->npcs;
	c->t->copies = 0;
	c->fast = true;
	e->t1++;
	for (unsigned i = 0; i < k; i++) {
		copy(c);
		tr_edge_jcc(c, cc ^ 1, c->next);
	}
	c->fast = false;
	c->pinned[0] = c->pinned[1] = 0;
	if (pinned)
		emit_m(e, 1, 0x83, 5, emem_at(&c->j->rounds), 1), emit8(e, (uint8_t)k);
	else
		emit_r(e, 1, 0x83, 5, H_T0), emit8(e, (uint8_t)k); /* sub */
	emit_jcc_near(e, CC_AE, start);
	emit_jmp(e, again);
	return true;
}
