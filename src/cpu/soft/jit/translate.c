/*
 * One block into host code. See jit.h for what the code looks like.
 */
#include <Zydis/Mnemonic.h>

#include "cpu/soft/jit/lockstep.h"
#include "cpu/soft/jit/tr.h"
#include "cpu/soft/sys.h"

void tr_fallback(struct tr *c)
{
	emit_const(&c->j->hot, H_T1, site_new(c));
	emit_jmp(&c->j->hot, c->j->stub_interp);
	c->handed |= BIT64(c->i);
	c->j->hot.t1++;
}

bool tr_middle(struct tr *c)
{
	switch (c->in->mnemonic) {
	case ZYDIS_MNEMONIC_LEA:
		return tr_lea(c);
	case ZYDIS_MNEMONIC_PUSH:
		return tr_push(c);
	case ZYDIS_MNEMONIC_POP:
		return tr_pop(c);
	case ZYDIS_MNEMONIC_LEAVE:
		return tr_leave(c);
	default:
		if (tr_is_bit_string(c->in))
			return tr_bit_string(c);
		return c->z[c->i].copy ? tr_generic(c) : tr_compat(c);
	}
}

void tr_enter(struct tr *c)
{
	c->in = &c->b->insn[c->i];
	c->rip = c->t->rip + c->off[c->i];
	c->next = (c->rip + c->in->len) & c->rip_mask;
	c->live = c->live_at[c->i];
	c->live_after = c->live_at[c->i + 1];
}

/* MOVS or STOS without a segment's base. */
static bool flat_string(const struct tr *c)
{
	const struct insn *in = c->in;
	uint8_t op = insn_opcode(in)[0] & 0xfe;

	return (op == 0xa4 || op == 0xaa) && c->word == 8 && in->addrsize == 8 &&
	    in->seg != SEG_FS && in->seg != SEG_GS;
}

/* The helper that does the instruction with the guest's registers where they are. */
static const uint8_t *in_place(const struct tr *c)
{
	switch (c->in->mnemonic) {
	case ZYDIS_MNEMONIC_SYSCALL:
	case ZYDIS_MNEMONIC_SYSRET:
		return c->j->stub_gate;
	default:
		return flat_string(c) ? c->j->stub_string : NULL;
	}
}

static bool hand_in_place(struct tr *c)
{
	const uint8_t *stub = in_place(c);

	/* Lockstep compares what the interpreter did by itself. */
	if (!stub || c->j->lock)
		return false;
	emit_const(&c->j->hot, H_T1, site_new(c));
	emit_jmp(&c->j->hot, stub);
	c->handed |= BIT64(c->i);
	c->j->hot.t1++;
	return true;
}

static void one(struct tr *c)
{
	tr_enter(c);
	c->site_of[c->i] = 0;
	c->t->pc[c->i] = emit_pc(&c->j->hot) - c->j->code_rx;
	group_checks(c);
	if (hand_in_place(c))
		return;
	if (tr_system(c)) {
		c->j->hot.t1++;
		if (c->in->flags & INSN_END)
			tr_edge_jmp(c, c->next);
		return;
	}
	if (c->in->flags & INSN_END) {
		if (!(c->in->flags & INSN_BRANCH) || !tr_branch(c))
			tr_fallback(c), c->j->stats.fallbacks++;
		return;
	}
	if (!tr_middle(c))
		tr_fallback(c), c->j->stats.fallbacks++;
}

/* Guest vectors must be in the host's registers from here on. */
static void prologue(struct tr *c)
{
	struct emit *e = &c->j->hot, *cold = &c->j->cold;
	struct emem loaded = emem_at(&c->j->fpu_loaded);
	uint8_t *at = emit_pc(cold), *back;

	emit_byte_check(e, loaded, c->t->live_in != 0, at);
	back = emit_pc(e);
	emit_call(cold, c->j->stub_fpu);
	emit_jmp(cold, back);
}

static bool looks_fp(const struct block *b)
{
	for (unsigned i = 0; i < b->n; i++)
		for (unsigned k = 0; k < b->insn[i].nopnd; k++)
			if (b->insn[i].op[k].kind == OPND_OTHER)
				return true;
	return false;
}

static void body(struct tr *c, bool fp)
{
	struct trans *t = c->t;

	t->code = c->j->hot.p - c->j->code_rw;
	t->entry = emit_pc(&c->j->hot);
	t->uses_fp = fp;
	t->fast = 0;
	c->t1_site = SITE_FAULT;
	c->handed = 0;
	if (fp)
		prologue(c);
	for (c->i = 0; c->i < c->b->n; c->i++)
		one(c);
	t->pc[c->b->n] = emit_pc(&c->j->hot) - c->j->code_rx;
	if (!(c->b->insn[c->b->n - 1].flags & INSN_END)) {
		c->i = c->b->n - 1;
		tr_edge_jmp(c, c->next);
	}
	t->code_end = c->j->hot.p - c->j->code_rw;
}

static unsigned ungroup_bit(const struct block *b)
{
	return (b->gpa * UINT64_C(0x9e3779b97f4a7c15)) >> 48;
}

bool ungroup_has(const struct jit *j, const struct block *b)
{
	unsigned n = ungroup_bit(b);

	return j->ungroup[n / 8] & 1u << n % 8;
}

void ungroup_set(struct jit *j, const struct block *b)
{
	unsigned n = ungroup_bit(b);

	j->ungroup[n / 8] |= 1u << n % 8;
}

size_t translate_scratch(void)
{
	return sizeof(struct tr);
}

static void index_pages(struct jit *j, struct trans *t)
{
	for (unsigned k = 0; k < 2; k++) {
		struct trans **p;

		if (t->tok[k] < 0)
			continue;
		p = &j->by_page[k * BY_PAGE + (t->page[k] >> 12) % BY_PAGE];
		t->page_next[k] = *p;
		*p = t;
	}
}

static void pages_of(struct jit *j, struct trans *t)
{
	const struct block *b = t->b;
	uint64_t next = (t->rip & MMU_PAGE_MASK) + 4096;

	t->page[0] = b->page[0];
	t->lo[0] = b->gpa;
	t->hi[0] = MIN(b->gpa + b->bytes, b->page[0] + 4096);
	t->tok[0] = token_get(j, t->rip & MMU_PAGE_MASK, b->page[0], t->keyid);
	t->tok[1] = -1;
	if (b->page[1] == ~UINT64_C(0))
		return;
	t->page[1] = b->page[1];
	t->lo[1] = b->page[1];
	t->hi[1] = b->page[1] + b->bytes - (t->hi[0] - t->lo[0]);
	t->tok[1] = token_get(j, next, b->page[1], t->keyid);
}

struct trans *translate(struct jit *j, struct block *b, uint64_t rip, unsigned keyid,
    bool second)
{
	struct emit hot = j->hot, cold = j->cold;
	uint32_t nsites = j->nsites, nedges = j->nedges;
	struct trans *t = &j->trans[j->ntrans++];
	struct tr *c = j->tr;
	bool fp = looks_fp(b);

	c->j = j, c->t = t, c->b = b;
	c->keyid = keyid, c->key = j->key[keyid];
	c->word = c->key & KEY_COMPAT ? 4 : 8;
	c->rip_mask = c->key & KEY_COMPAT ? UINT32_MAX : ~UINT64_C(0);
	c->uses_fp = false;
	*t = (struct trans){ .b = b, .rip = rip, .keyid = keyid, .n = b->n,
		.pc = j->pcs + j->npcs, .ungrouped = second || ungroup_has(j, b),
		.second = second };
	j->npcs += b->n + 1;
	pages_of(j, t);
	if (edge_inline(j, t))
		hot.p = j->hot.p;
	plan(c);
	body(c, fp);
	if (c->uses_fp && !fp) {
		j->hot = hot, j->cold = cold;
		j->nsites = nsites, j->nedges = nedges;
		body(c, true);
	}
	if (j->lock)
		lockstep_note(j, c);
	index_pages(j, t);
	t->next = b->jit;
	b->jit = t;
	j->stats.translations++;
	j->stats.insns += b->n;
	j->stats.bytes += t->code_end - t->code;
	j->stats.cold_bytes += j->cold.p - cold.p;
	return t;
}
