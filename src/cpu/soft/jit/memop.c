/*
 * Memory operands: the check of an access against its slot, and the host operand
 * that reaches it. See jit.h and priv.h for what a slot promises.
 *
 * Shapes, cheapest first: a constant address (the slot holds the host address), a
 * single base register (checked in T1, accessed through base + delta), and
 * everything else (address in T0). Where flags are live across the check they
 * wait in RAX.
 *
 * 32-bit code computes modulo 4 GiB. Its slots end there, and the upper halves of its
 * registers are zero, so a base register with a small displacement needs no care: a
 * sum that should have wrapped matches no slot and goes to the interpreter. Other
 * sums wrap in earnest, and are truncated.
 */
#include "cpu/soft/jit/tr.h"

#define DISP_SMALL (1 << 24)

bool address_wraps(const struct tr *c, unsigned index, int64_t disp)
{
	return c->word == 4 &&
	    (index != REG_NONE || disp >= DISP_SMALL || disp <= -DISP_SMALL);
}

bool mem_flat(const struct insn *in)
{
	if (in->mode == MODE_64)
		return in->flags & INSN_FLAT;
	return in->addrsize == 4 &&
	    (in->seg == SEG_DS || in->seg == SEG_SS || in->seg == SEG_ES);
}

/* 32-bit code may name segments; CS is not for writing. */
static bool usable(const struct tr *c, const struct insn *in)
{
	switch (in->seg) {
	case SEG_CS:
		return false;
	case SEG_FS:
		return c->key & KEY_FS;
	case SEG_GS:
		return c->key & KEY_GS;
	default:
		return true;
	}
}

bool address_of(const struct tr *c, struct address *a)
{
	const struct insn *in = c->in;

	if (c->word == 4 && (in->addrsize != 4 || !usable(c, in)))
		return false;
	*a = (struct address){ in->base, in->index, in->scale, in->seg, in->addrsize,
		false, (uint64_t)in->disp };
	if (a->seg != SEG_FS && a->seg != SEG_GS)
		a->seg = SEG_DS;
	if (in->flags & INSN_RIPREL)
		a->disp += c->next, a->base = REG_NONE;
	if (a->base == REG_NONE && a->index == REG_NONE) {
		if (a->addrsize == 4)
			a->disp = (uint32_t)a->disp;
		a->constant = a->seg == SEG_DS;
	}
	return true;
}

uint32_t site_new(struct tr *c)
{
	uint32_t n = c->j->nsites++;

	c->j->sites[n] = (struct site){ .t = c->t, .insn = c->i,
		.refills = SITE_REFILLS, .retry = c->t->pc[c->i], .base = SITE_T0,
		.off = c->off[c->i] };
	return n;
}

static uint32_t slot_new(struct tr *c, unsigned size, char kind, unsigned flags)
{
	uint32_t n = site_new(c);

	c->j->slots[n] = (struct slot){ .kind = kind,
		.idx = key_idx(c->key) | (c->word == 4 ? IDX_LOW : 0),
		.size = size, .flags = flags };
	return n;
}

/* Cold end of a check: T1 = site, T0 = address. */
static void cold_tail(struct tr *c, uint32_t site)
{
	emit_const(&c->j->cold, H_T1, site);
	emit_jmp(&c->j->cold, c->j->stub_miss);
}

/* T1 = what leads from guest to host addresses for whoever passed the site's check. */
static void load_delta(struct tr *c, uint32_t site)
{
	struct emit *e = &c->j->hot;

	if (c->t1_site == site && c->t1 == e->t1)
		return;
	emit_load(e, H_T1, emem_at(&c->j->slots[site].delta));
	c->t1_site = site;
	c->t1 = e->t1;
}

static unsigned scale_shift(unsigned scale)
{
	return __builtin_ctz(scale | 8);
}

/* Whether the sum is to be taken modulo 4 GiB by computing it in 32 bits. */
static bool truncated(const struct tr *c, const struct address *a)
{
	if (c->word == 8 || a->seg != SEG_DS)
		return a->addrsize == 4;
	return address_wraps(c, a->index, (int32_t)a->disp);
}

static void guest_move(struct emit *e, int to, int from)
{
	if (to != from)
		emit_mov(e, to, from);
}

/* T0 = linear address. Flags untouched; T1 may be used. */
static void emit_address(struct tr *c, const struct address *a)
{
	struct emit *e = &c->j->hot;
	struct emem m = { H_NONE, H_NONE, scale_shift(a->scale), (int32_t)a->disp, NULL };

	if (a->base != REG_NONE)
		m.base = guest_reg(c, a->base, H_T0);
	if (a->index != REG_NONE)
		m.index = guest_reg(c, a->index, H_T1);
	if (m.base == H_NONE && m.index == H_NONE)
		emit_const(e, H_T0, a->disp);
	else if (m.index == H_NONE && !m.disp && a->addrsize == 8)
		guest_move(e, H_T0, m.base);
	else
		emit_m(e, !truncated(c, a), 0x8d, H_T0, m, 0);
	if (a->seg != SEG_DS) {
		emit_load(e, H_T1, emem_at(&c->j->cpu->seg[a->seg].base));
		emit_m(e, c->word == 8, 0x8d, H_T0, emem_sum(H_T0, H_T1, 0), 0);
	}
}

/* A constant address: the slot is good for it or empty. */
static uint32_t check_constant(struct tr *c, uint64_t addr, unsigned size, char kind,
    struct emem *m)
{
	struct emit *e = &c->j->hot, *cold = &c->j->cold;
	uint32_t site = slot_new(c, size, kind, SLOT_ABS);
	struct slot *s = &c->j->slots[site];
	uint8_t *at = emit_pc(cold);

	if (!c->live) {
		emit_cmp_imm8(e, 8, emem_at(&s->limit), 0);
		emit_jcc(e, CC_E, at);
	} else {
		uint8_t *zero, *over;

		emit_mov(e, H_T1, H_RCX);
		emit_load(e, H_RCX, emem_at(&s->limit));
		zero = emit_short(e, OP_JRCXZ);
		emit_mov(e, H_RCX, H_T1);
		over = emit_short(e, OP_JMP8);
		emit_here(e, zero);
		emit_mov(e, H_RCX, H_T1);
		emit_jmp(e, at);
		emit_here(e, over);
	}
	emit_const(cold, H_T0, addr);
	cold_tail(c, site);
	emit_load(e, H_T1, emem_at(&s->delta));
	*m = emem_base(H_T1, 0);
	return site;
}

/* The jump of a check that failed, to what is about to be put into cold. */
static void emit_miss(struct tr *c, uint32_t site)
{
	emit_jcc(&c->j->hot, CC_AE, emit_pc(&c->j->cold));
	c->j->sites[site].jae = c->j->hot.p - 4 - c->j->code_rw;
}

/* Host base register + displacement, not T0 or T1. m may be NULL. */
static uint32_t check_base(struct tr *c, int base, int32_t disp, unsigned size, char kind,
    struct emem *m)
{
	struct emit *e = &c->j->hot, *cold = &c->j->cold;
	uint32_t site = slot_new(c, size, kind, 0);
	struct slot *s = &c->j->slots[site];

	c->j->sites[site].base = base;
	c->j->sites[site].disp = disp;
	if (disp)
		emit_lea(e, H_T1, emem_base(base, disp));
	else
		emit_mov(e, H_T1, base);
	emit_m(e, 1, 0x2b, H_T1, emem_at(&s->start), 0);
	emit_m(e, 1, 0x3b, H_T1, emem_at(&s->limit), 0);
	emit_miss(c, site);
	emit_lea(cold, H_T0, emem_base(base, disp));
	cold_tail(c, site);
	if (!m)
		return site;
	emit_load(e, H_T1, emem_at(&s->delta));
	*m = emem_sum(base, H_T1, disp);
	return site;
}

uint32_t mem_check_t0(struct tr *c, unsigned size, char kind, struct emem *m)
{
	struct emit *e = &c->j->hot, *cold = &c->j->cold;
	uint32_t site = slot_new(c, size, kind, 0);
	struct slot *s = &c->j->slots[site];

	if (c->live) {
		emit_store(e, emem_at(&c->j->rax), H_RAX);
		emit_flags_get(e);
	}
	emit_mov(e, H_T1, H_T0);
	emit_m(e, 1, 0x2b, H_T1, emem_at(&s->start), 0);
	emit_m(e, 1, 0x3b, H_T1, emem_at(&s->limit), 0);
	emit_miss(c, site);
	if (c->live) {
		emit_flags_put(e);
		emit_load(e, H_RAX, emem_at(&c->j->rax));
		emit_flags_put(cold);
		emit_load(cold, H_RAX, emem_at(&c->j->rax));
	}
	cold_tail(c, site);
	if (!m)
		return site;
	emit_load(e, H_T1, emem_at(&s->delta));
	*m = emem_sum(H_T0, H_T1, 0);
	return site;
}

static bool plain(const struct tr *c, const struct address *a)
{
	return !a->constant && a->seg == SEG_DS && a->addrsize == c->word &&
	    a->base != REG_NONE;
}

static const struct group *grouped(const struct tr *c, const struct address *a,
    unsigned size, char kind)
{
	if (!plain(c, a))
		return NULL;
	return group_of(c, a->base, a->index, a->scale, (int32_t)a->disp, size, kind);
}

bool mem_needs_t0(const struct tr *c, const struct address *a, unsigned size, char kind)
{
	if (a->constant || c->fast)
		return false;
	if (!plain(c, a) || a->index != REG_NONE || spilled(a->base) ||
	    address_wraps(c, a->index, (int32_t)a->disp))
		return true;
	return c->live && !grouped(c, a, size, kind);
}

static int delta_reg(struct tr *c, uint32_t site)
{
	if (c->pinned[0] == site)
		return H_T0;
	if (c->pinned[1] != site)
		load_delta(c, site);
	return H_T1;
}

/* An access that is known to be good: see loop.c. */
static void mem_fast(struct tr *c, const struct address *a, struct emem *m)
{
	int delta = delta_reg(c, c->site_of[c->i]);

	if (a->constant) {
		*m = emem_base(delta, 0);
		return;
	}
	*m = emem_sum(host_reg(a->base), delta, (int32_t)a->disp);
	if (a->index == REG_NONE)
		return;
	emit_lea(&c->j->hot, H_T1, emem_sum(m->base, delta, 0));
	*m = (struct emem){ H_T1, host_reg(a->index), scale_shift(a->scale),
		(int32_t)a->disp, NULL };
}

bool mem_check(struct tr *c, const struct address *a, unsigned size, char kind,
    struct emem *m)
{
	const struct group *g = grouped(c, a, size, kind);
	bool t0 = mem_needs_t0(c, a, size, kind);
	uint32_t *site = &c->site_of[c->i];

	if (c->fast) {
		mem_fast(c, a, m);
	} else if (a->constant) {
		*site = check_constant(c, a->disp, size, kind, m);
	} else if (!t0 && !g) {
		*site = check_base(c, host_reg(a->base), (int32_t)a->disp, size, kind, m);
	} else {
		if (t0)
			emit_address(c, a);
		if (!g) {
			*site = mem_check_t0(c, size, kind, m);
		} else {
			*site = g->site;
			load_delta(c, g->site);
			*m = t0 ? emem_sum(H_T0, H_T1, 0) :
			    emem_sum(host_reg(a->base), H_T1, (int32_t)a->disp);
		}
	}
	return t0;
}

void mem_check_group(struct tr *c, struct group *g)
{
	int32_t disp = g->lo - g->home_off;

	if (g->index == REG_NONE && !c->live && !address_wraps(c, REG_NONE, disp)) {
		g->site = check_base(c, host_reg(g->base), disp, g->hi - g->lo, g->kind,
		    NULL);
	} else {
		struct address a = { g->base, g->index, g->scale, SEG_DS, c->word, false,
			(uint64_t)(int64_t)disp };

		emit_address(c, &a);
		g->site = mem_check_t0(c, g->hi - g->lo, g->kind, NULL);
	}
	c->j->slots[g->site].flags |= SLOT_GROUP;
}

void stack_check(struct tr *c, int32_t disp, unsigned size, char kind, struct emem *m)
{
	struct address a = { 4, REG_NONE, 1, SEG_DS, c->word, false, (uint64_t)(int64_t)disp };

	if (mem_check(c, &a, size, kind, m))
		*m = emem_sum(H_GSP, H_T1, disp);
}

void mem_settle(struct tr *c, struct emem *m)
{
	emit_lea(&c->j->hot, H_T0, *m);
	*m = emem_base(H_T0, 0);
}
