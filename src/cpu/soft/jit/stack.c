/*
 * PUSH, POP, LEAVE: the guest's stack pointer is an ordinary register (r15) and is
 * changed after the access, without touching flags.
 */
#include "cpu/soft/jit/tr.h"

bool tr_push(struct tr *c)
{
	const struct operand *o = &c->in->op[0];
	struct emit *e = &c->j->hot;
	int word = (int)c->word;
	struct emem m;

	if (c->in->stacksize != c->word || c->in->nopnd != 1)
		return false;
	switch (o->kind) {
	case OPND_GPR: {
		int r;

		stack_check(c, -word, word, 'w', &m);
		r = guest_reg(c, o->reg, H_T0);
		tr_store(c, m, r);
		break;
	}
	case OPND_IMM:
		stack_check(c, -word, word, 'w', &m);
		emit_m(e, word == 8, 0xc7, 0, m, 4);
		emit32(e, (uint32_t)c->in->imm);
		break;
	case OPND_MEM: {
		struct address a;

		if (!address_of(c, &a))
			return false;
		tr_forget_t1(c);
		mem_check(c, &a, word, 'r', &m);
		tr_load(c, H_T0, m);
		/* The second check may need T0 where flags are live. */
		if (c->live)
			emit_store(e, emem_at(&c->j->save[0]), H_T0);
		stack_check(c, -word, word, 'w', &m);
		if (c->live)
			emit_load(e, H_T0, emem_at(&c->j->save[0]));
		tr_store(c, m, H_T0);
		break;
	}
	default:
		return false;
	}
	tr_add_sp(c, -word);
	return true;
}

bool tr_pop(struct tr *c)
{
	const struct operand *o = &c->in->op[0];
	int word = (int)c->word;
	struct emem m;

	if (c->in->stacksize != c->word || c->in->nopnd != 1 || o->kind != OPND_GPR)
		return false;
	stack_check(c, 0, word, 'r', &m);
	if (o->reg == 4) {
		tr_load(c, H_GSP, m);
		return true;
	}
	if (spilled(o->reg)) {
		tr_load(c, H_T0, m);
		guest_put(c, o->reg, H_T0);
	} else {
		tr_load(c, o->reg, m);
	}
	tr_add_sp(c, word);
	return true;
}

bool tr_leave(struct tr *c)
{
	struct address a = { .base = 5, .index = REG_NONE, .scale = 1, .seg = SEG_DS,
		.addrsize = c->word };
	struct emem m;

	if (c->in->stacksize != c->word)
		return false;
	mem_check(c, &a, c->word, 'r', &m);
	emit_m(&c->j->hot, c->word == 8, 0x8d, H_GSP, emem_base(H_RBP, (int)c->word), 0);
	tr_load(c, H_RBP, m);
	return true;
}
