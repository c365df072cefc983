/*
 * Ends of blocks: direct jumps as edges, calls and returns as pairs, indirect
 * jumps by the table. See jit.h, "Control flow".
 *
 * A loop must pass a poll: every cycle of control flow has a direct branch that
 * goes backward or to itself, an indirect jump, or a return that is not paired.
 */
#include <Zydis/Mnemonic.h>

#include "cpu/soft/jit/tr.h"

static uint32_t edge_new(struct tr *c, uint64_t rip)
{
	struct jit *j = c->j;
	struct emit *cold = &j->cold;
	uint32_t n = j->nedges++;

	j->edges[n] = (struct edge){ .from = c->t, .cold = emit_pc(cold), .rip = rip };
	emit_const(cold, H_T1, n);
	emit_jmp(cold, j->stub_link);
	return n;
}

/* The rel32 of a jump that was just begun. */
static void edge_here(struct tr *c, uint32_t n)
{
	struct edge *e = &c->j->edges[n];

	e->at = c->j->hot.p;
	emit_rel32(&c->j->hot, e->cold);
}

static void poll_edge(struct tr *c, uint32_t n)
{
	struct emit *cold = &c->j->cold;
	uint8_t *at = emit_pc(cold);

	emit_const(cold, H_T1, n);
	emit_jmp(cold, c->j->stub_poll);
	emit_poll(c->j, &c->j->hot, c->live_after != 0, at);
}

void tr_edge_jmp(struct tr *c, uint64_t rip)
{
	uint32_t n = edge_new(c, rip);

	if (rip <= c->rip)
		poll_edge(c, n);
	emit8(&c->j->hot, 0xe9);
	edge_here(c, n);
}

void tr_edge_jcc(struct tr *c, unsigned cc, uint64_t rip)
{
	emit8(&c->j->hot, 0x0f);
	emit8(&c->j->hot, 0x80 | cc);
	edge_here(c, edge_new(c, rip));
}

/*
 * Back to the block's own beginning, behind its prologue. Not an edge: who is in the
 * loop leaves it at the poll, and nobody comes back into a translation that died.
 */
static void loop(struct tr *c, unsigned cc)
{
	struct emit *e = &c->j->hot, *cold = &c->j->cold;
	uint32_t n = edge_new(c, c->t->rip);
	const uint8_t *head = c->j->code_rx + c->t->pc[0], *at = emit_pc(cold);

	emit_const(cold, H_T1, n);
	emit_jmp(cold, c->j->stub_poll);
	tr_edge_jcc(c, cc ^ 1, c->next);
	emit_cmp_imm8(e, 4, emem_at(&c->j->cpu->link.events), 0);
	emit_jcc_near(e, CC_E, head);
	emit_jmp(e, at);
}

static void conditional(struct tr *c, uint64_t to)
{
	unsigned cc = c->in->cc;

	if (to == c->t->rip && c->t->tok[1] < 0 && !c->t->live_in && !c->j->lock) {
		loop(c, cc);
	} else if (to <= c->rip) {
		tr_edge_jcc(c, cc ^ 1, c->next);
		tr_edge_jmp(c, to);
	} else {
		tr_edge_jcc(c, cc, to);
		tr_edge_jmp(c, c->next);
	}
}

static void push_return(struct tr *c, bool keep_t0)
{
	struct emit *e = &c->j->hot;
	int word = (int)c->word;
	struct emem m;

	if (keep_t0 && c->live)
		emit_store(e, emem_at(&c->j->save[0]), H_T0);
	stack_check(c, -word, word, 'w', &m);
	if (word == 4 || (int64_t)c->next == (int32_t)c->next) {
		emit_m(e, word == 8, 0xc7, 0, m, 4);
		emit32(e, (uint32_t)c->next);
		if (keep_t0 && c->live)
			emit_load(e, H_T0, emem_at(&c->j->save[0]));
	} else {
		if (keep_t0 && !c->live)
			emit_store(e, emem_at(&c->j->save[0]), H_T0);
		emit_const(e, H_T0, c->next);
		emit_store(e, m, H_T0);
		if (keep_t0)
			emit_load(e, H_T0, emem_at(&c->j->save[0]));
	}
	tr_add_sp(c, -word);
}

/* Where the host's RET comes back with T0 = what the guest's RET popped. */
static void return_site(struct tr *c)
{
	uint32_t n = edge_new(c, c->next);
	struct emit *e = &c->j->hot;

	/* Somebody else's return may come here by mistake and needs its flags. */
	emit_expect(e, c->next, true, c->j->stub_ret_miss[c->keyid]);
	emit8(e, 0xe9);
	edge_here(c, n);
}

static void call_direct(struct tr *c, uint64_t to)
{
	struct emit *e = &c->j->hot;
	uint32_t n = edge_new(c, to);

	push_return(c, false);
	if (to <= c->rip)
		poll_edge(c, n);
	emit8(e, 0xe8);
	edge_here(c, n);
	return_site(c);
}

/* T0 = target of an indirect jump or call. */
static bool target_to_t0(struct tr *c)
{
	const struct operand *o = &c->in->op[0];
	struct emit *e = &c->j->hot;

	if (o->kind == OPND_GPR && o->size == c->word) {
		int r = guest_reg(c, o->reg, H_T0);

		if (r != H_T0)
			emit_r(e, c->word == 8, 0x8b, H_T0, r);
		return true;
	}
	if (o->kind == OPND_MEM && o->size == c->word) {
		struct address a;
		struct emem m;

		if (!address_of(c, &a))
			return false;
		mem_check(c, &a, c->word, 'r', &m);
		tr_load(c, H_T0, m);
		return true;
	}
	return false;
}

static bool ret(struct tr *c)
{
	int word = (int)c->word;
	struct emem m;

	if (c->in->stacksize != c->word)
		return false;
	stack_check(c, 0, word, 'r', &m);
	tr_load(c, H_T0, m);
	tr_add_sp(c, word + (c->in->nopnd ? (uint16_t)c->in->imm : 0));
	emit8(&c->j->hot, 0xc3);
	return true;
}

bool tr_branch(struct tr *c)
{
	const struct insn *in = c->in;
	bool rel = in->nopnd == 1 && in->op[0].kind == OPND_REL;
	uint64_t to = (c->next + in->imm) & c->rip_mask;

	if (in->opsize == 2 || (rel && !is_canonical(to)))
		return false;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
		if (rel) {
			tr_edge_jmp(c, to);
			return true;
		}
		if (!target_to_t0(c))
			return false;
		emit_poll(c->j, &c->j->hot, true, c->j->stub_dispatch);
		emit_table_jump(c->j, &c->j->hot, c->keyid, false);
		return true;
	case ZYDIS_MNEMONIC_CALL:
		if (in->stacksize != c->word)
			return false;
		if (rel) {
			call_direct(c, to);
			return true;
		}
		if (!target_to_t0(c))
			return false;
		push_return(c, true);
		emit_table_jump(c->j, &c->j->hot, c->keyid, true);
		return_site(c);
		return true;
	case ZYDIS_MNEMONIC_RET:
		return ret(c);
	case ZYDIS_MNEMONIC_JB:
	case ZYDIS_MNEMONIC_JBE:
	case ZYDIS_MNEMONIC_JL:
	case ZYDIS_MNEMONIC_JLE:
	case ZYDIS_MNEMONIC_JNB:
	case ZYDIS_MNEMONIC_JNBE:
	case ZYDIS_MNEMONIC_JNL:
	case ZYDIS_MNEMONIC_JNLE:
	case ZYDIS_MNEMONIC_JNO:
	case ZYDIS_MNEMONIC_JNP:
	case ZYDIS_MNEMONIC_JNS:
	case ZYDIS_MNEMONIC_JNZ:
	case ZYDIS_MNEMONIC_JO:
	case ZYDIS_MNEMONIC_JP:
	case ZYDIS_MNEMONIC_JS:
	case ZYDIS_MNEMONIC_JZ:
		conditional(c, to);
		return true;
	default:
		return false;
	}
}
