/*
 * PUSH, POP, LEAVE in 64-bit code: the guest's stack pointer is an ordinary
 * register (r15) and is changed after the access, without touching flags.
 */
#include "cpu/soft/jit/tr.h"

static void add_sp(struct tr *c, int32_t n)
{
	emit_lea(&c->j->hot, H_GSP, emem_base(H_GSP, n));
}

bool tr_push(struct tr *c)
{
	const struct operand *o = &c->in->op[0];
	struct emit *e = &c->j->hot;
	struct emem m;

	if (c->in->stacksize != 8 || c->in->nopnd != 1)
		return false;
	switch (o->kind) {
	case OPND_GPR: {
		int r;

		stack_check(c, -8, 8, 'w', &m);
		r = guest_reg(c, o->reg, H_T0);
		emit_store(e, m, r);
		break;
	}
	case OPND_IMM:
		stack_check(c, -8, 8, 'w', &m);
		emit_m(e, 1, 0xc7, 0, m, 4);
		emit32(e, (uint32_t)c->in->imm);
		break;
	case OPND_MEM: {
		struct address a;

		address_of(c, &a);
		mem_check(c, &a, 8, 'r', &m);
		emit_load(e, H_T0, m);
		/* The second check may need T0 where flags are live. */
		if (c->live)
			emit_store(e, emem_at(&c->j->save[0]), H_T0);
		stack_check(c, -8, 8, 'w', &m);
		if (c->live)
			emit_load(e, H_T0, emem_at(&c->j->save[0]));
		emit_store(e, m, H_T0);
		break;
	}
	default:
		return false;
	}
	add_sp(c, -8);
	return true;
}

bool tr_pop(struct tr *c)
{
	const struct operand *o = &c->in->op[0];
	struct emit *e = &c->j->hot;
	struct emem m;

	if (c->in->stacksize != 8 || c->in->nopnd != 1 || o->kind != OPND_GPR)
		return false;
	stack_check(c, 0, 8, 'r', &m);
	if (o->reg == 4) {
		emit_load(e, H_GSP, m);
		return true;
	}
	if (spilled(o->reg)) {
		emit_load(e, H_T0, m);
		guest_put(c, o->reg, H_T0);
	} else {
		emit_load(e, o->reg, m);
	}
	add_sp(c, 8);
	return true;
}

bool tr_leave(struct tr *c)
{
	struct emit *e = &c->j->hot;
	struct address a = { .base = 5, .index = REG_NONE, .scale = 1, .seg = SEG_DS,
		.addrsize = 8 };
	struct emem m;

	if (c->in->stacksize != 8)
		return false;
	mem_check(c, &a, 8, 'r', &m);
	emit_lea(e, H_GSP, emem_base(H_RBP, 8));
	emit_load(e, H_RBP, m);
	return true;
}
