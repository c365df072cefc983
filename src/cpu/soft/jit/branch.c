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

/*
 * Whoever has read the TSC knows which ticks must have come: after a wait for the
 * host's CPU they do, before anything is done with what was read.
 */
static bool reads_tsc(const struct tr *c)
{
	return c->in->mnemonic == ZYDIS_MNEMONIC_RDTSC ||
	    c->in->mnemonic == ZYDIS_MNEMONIC_RDTSCP;
}

void tr_edge_jmp(struct tr *c, uint64_t rip)
{
	uint32_t n = edge_new(c, rip);

	if (rip <= c->rip || reads_tsc(c))
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
	const uint8_t *head = c->j->code_rx + c->t->pc[0], *at = emit_pc(cold), *again;

	emit_const(cold, H_T1, n);
	emit_jmp(cold, c->j->stub_poll);
	tr_edge_jcc(c, cc ^ 1, c->next);
	again = emit_pc(e);
	emit_cmp_imm8(e, 4, emem_at(&c->j->cpu->link.events), 0);
	emit_jcc(e, CC_NE, at);
	if (loop_fast(c, cc, again))
		return;
	emit_jmp(e, head);
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

/*
 * Pushes the address of the next instruction. T0 survives when asked for, or is lost.
 */
static void push_return(struct tr *c, bool keep_t0)
{
	struct address top = { 4, REG_NONE, 1, SEG_DS, c->word, false, -(uint64_t)c->word };
	struct emit *e = &c->j->hot;
	int word = (int)c->word;
	bool imm = word == 4 || (int64_t)c->next == (int32_t)c->next;
	struct emem m;

	keep_t0 &= !imm || mem_needs_t0(c, &top, c->word, 'w');
	if (keep_t0)
		emit_store(e, emem_at(&c->j->save[0]), H_T0);
	stack_check(c, -word, word, 'w', &m);
	if (imm) {
		emit_m(e, word == 8, 0xc7, 0, m, 4);
		emit32(e, (uint32_t)c->next);
	} else {
		emit_const(e, H_T0, c->next);
		emit_store(e, m, H_T0);
	}
	if (keep_t0)
		emit_load(e, H_T0, emem_at(&c->j->save[0]));
	tr_add_sp(c, -word);
}

/* Where the host's RET comes back with T0 = what the guest's RET popped. */
static void return_site(struct tr *c)
{
	uint32_t n = edge_new(c, c->next);
	struct emit *e = &c->j->hot;

	/* Somebody else's return may come here by mistake. */
	emit_expect(e, c->next, c->j->exact[c->keyid], c->j->stub_ret_miss[c->keyid]);
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

/*
 * T0 = target; the return address has been pushed. Polls: whoever was shown the target
 * by another CPU must see the code that one wrote there before.
 */
static void call_indirect(struct tr *c)
{
	struct jit *j = c->j;
	struct emit *e = &j->hot, *cold = &j->cold;
	struct icall *ic;
	uint32_t n;

	emit_poll(j, e, c->live_after != 0, j->stub_dispatch);
	if (c->live_after) {
		emit_table_jump(j, e, c->keyid, true);
		return_site(c);
		return;
	}
	n = j->nicalls++;
	ic = &j->icalls[n];
	*ic = (struct icall){ .edge = edge_new(c, 0) };
	emit_m(e, 1, 0x3b, H_T0, emem_at(&ic->rip), 0);
	emit8(e, 0x0f), emit8(e, 0x80 | CC_NE);
	ic->miss = e->p;
	emit_rel32(e, emit_pc(cold));
	emit_const(cold, H_T1, n);
	emit_jmp(cold, j->stub_icall);
	ic->call = emit_pc(e);
	emit8(e, 0xe8);
	edge_here(c, ic->edge);
	ic->generic = emit_pc(cold);
	emit_table_jump(j, cold, c->keyid, true);
	emit_jmp(cold, emit_pc(e));
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
		tr_forget_t1(c);
		mem_check(c, &a, c->word, 'r', &m);
		tr_load(c, H_T0, m);
		return true;
	}
	return false;
}

static bool ret(struct tr *c)
{
	struct emit *e = &c->j->hot;
	int word = (int)c->word;
	struct emem m;

	if (c->in->stacksize != c->word)
		return false;
	stack_check(c, 0, word, 'r', &m);
	tr_load(c, H_T0, m);
	tr_add_sp(c, word + (c->in->nopnd ? (uint16_t)c->in->imm : 0));
	if (!c->live_after || c->j->exact[c->keyid]) {
		emit8(e, 0xc3);
		return true;
	}
	/*
	 * With flags that a return site would lose if the return is not its own. All
	 * pairs are forgotten: to drop one when there is none would uncover what lies
	 * above the stack, at best nothing, at worst returns into code long gone.
	 */
	emit_load(e, H_RSP, emem_at(&c->j->pair_top[c->keyid]));
	emit_poll(c->j, e, true, c->j->stub_dispatch);
	emit_table_jump(c->j, e, c->keyid, false);
	return true;
}

static bool call(struct tr *c, bool rel, uint64_t to)
{
	const struct operand *o = &c->in->op[0];
	bool late = o->kind == OPND_GPR && o->size == c->word && !spilled(o->reg) &&
	    o->reg != 4;

	if (c->in->stacksize != c->word)
		return false;
	if (!c->j->exact[c->keyid] && plan_reads_at(c, c->next)) {
		emit_const(&c->j->hot, H_T1, site_new(c));
		emit_jmp(&c->j->hot, c->j->stub_exact);
		return true;
	}
	if (rel) {
		call_direct(c, to);
		return true;
	}
	if (late)
		push_return(c, false);
	if (!target_to_t0(c))
		return false;
	if (!late)
		push_return(c, true);
	call_indirect(c);
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
		return call(c, rel, to);
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
