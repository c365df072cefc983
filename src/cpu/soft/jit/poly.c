/*
 * Access sites that walk over many pages: after some refills of its slot a site gets a
 * look-up of the software TLB of its own, which also refills the slot.
 *
 * It leaves all registers but T1 as they are: T0 may hold what is to be pushed, or
 * whom a call calls.
 *
 * The slots of such sites are "sticky": they are in the lists of global and of other
 * slots before a look-up fills them, for it does not look which it found. What empties
 * a list takes them out, and the next look-up goes the long way, as it also does now
 * and then in case the page has neighbours that continue it.
 *
 * Compiled for integer registers only, as the fast helpers are.
 */
#include "cpu/soft/jit/priv.h"

_Static_assert(sizeof(struct tlb_entry) == 64, "indexed by shifting");

/* A look-up does not tell the size of the page: larger than any. */
#define LEVEL_UNKNOWN 39

static size_t tag_at(const struct slot *s)
{
	return s->idx * TLB_SIZE * sizeof(struct tlb_entry) + (s->kind == 'w' ?
	    offsetof(struct tlb_entry, tag_w) : offsetof(struct tlb_entry, tag_r));
}

static size_t delta_at(const struct slot *s)
{
	return s->idx * TLB_SIZE * sizeof(struct tlb_entry) +
	    offsetof(struct tlb_entry, delta);
}

/* start and delta of the slot from the entry at T1, by way of reg. */
static void copy(struct emit *e, struct slot *s, int reg)
{
	emit_load(e, reg, emem_base(H_T1, (int32_t)tag_at(s)));
	emit_store(e, emem_at(&s->start), reg);
	emit_load(e, reg, emem_base(H_T1, (int32_t)delta_at(s)));
	emit_store(e, emem_at(&s->delta), reg);
}

static void xor_tag(struct emit *e, const struct slot *s)
{
	emit_m(e, 1, 0x33, H_T0, emem_base(H_T1, (int32_t)tag_at(s)), 0);
}

/* T1 = entry for T0; T0 becomes the offset in the page if it is the right one. */
static void find(struct jit *j, struct emit *e, const struct slot *s, const uint8_t *miss)
{
	uint8_t *hit;

	emit_mov(e, H_T1, H_T0);
	emit_r(e, 1, 0xc1, 5, H_T1), emit8(e, 6);	/* shr */
	emit_r(e, 0, 0x81, 4, H_T1);			/* and */
	emit32(e, (TLB_SIZE - 1) * (uint32_t)sizeof(struct tlb_entry));
	emit_m(e, 1, 0x03, H_T1, emem_at(&j->cpu->tlb), 0);
	xor_tag(e, s);
	emit_r(e, 1, 0x81, 7, H_T0), emit32(e, 4096 - s->size); /* cmp */
	hit = emit_short(e, 0x76);			/* jbe */
	xor_tag(e, s);
	emit_jmp(e, miss);
	emit_here(e, hit);
}

/* To miss when the slot is not in both of its lists. */
static void check_listed(struct emit *e, const struct slot *s, const uint8_t *miss)
{
	unsigned w = s->kind == 'w' ? LIST_WRITE : 0;

	for (unsigned which = 0; which <= LIST_GLOBAL; which += LIST_GLOBAL) {
		emit_m(e, 0, 0xf6, 0, emem_at(&s->listed), 1);	/* test byte */
		emit8(e, (uint8_t)(1u << (which | w)));
		emit_jcc(e, CC_E, miss);
	}
}

static void finish(struct emit *e, struct slot *s, const uint8_t *back)
{
	emit_m(e, 0, 0xc6, 0, emem_at(&s->level), 1);	/* mov byte */
	emit8(e, LEVEL_UNKNOWN);
	emit_m(e, 1, 0xc7, 0, emem_at(&s->limit), 4);	/* mov */
	emit32(e, 4096 - s->size + 1);
	emit_jmp(e, back);
}

static void emit_lookup(struct jit *j, struct emit *e, uint32_t site, const uint8_t *miss,
    const uint8_t *back)
{
	const struct site *at = &j->sites[site];
	struct slot *s = &j->slots[site];

	if (at->base != SITE_T0) {
		emit_store(e, emem_at(&j->save[4]), H_T0);
		emit_lea(e, H_T0, emem_base(at->base, at->disp));
	}
	emit_m(e, 0, 0x80, 5, emem_at(&s->tries), 1), emit8(e, 1); /* sub byte */
	emit_jcc(e, CC_E, miss);
	check_listed(e, s, miss);
	find(j, e, s, miss);
	if (at->base == SITE_T0) {
		xor_tag(e, s);
		emit_store(e, emem_at(&j->save[5]), H_RCX);
		copy(e, s, H_RCX);
		emit_load(e, H_RCX, emem_at(&j->save[5]));
	} else {
		copy(e, s, H_T0);
		emit_load(e, H_T0, emem_at(&j->save[4]));
	}
	finish(e, s, back);
}

void poly_lookup(struct jit *j, struct emit *e, uint32_t site, struct emem addr,
    const uint8_t *miss, const uint8_t *hit)
{
	struct slot *s = &j->slots[site];

	emit_m(e, 0, 0xf6, 0, emem_at((uint8_t *)s + SLOT_FLAGS_AT), 1); /* test */
	emit8(e, SLOT_STICKY);
	emit_jcc(e, CC_E, miss);
	check_listed(e, s, miss);
	emit_store(e, emem_at(&j->save[4]), H_T0);
	emit_lea(e, H_T0, addr);
	find(j, e, s, miss);
	copy(e, s, H_T0);
	emit_load(e, H_T0, emem_at(&j->save[4]));
	finish(e, s, hit);
}

static void make(struct jit *j, uint32_t site)
{
	struct site *at = &j->sites[site];
	struct slot *s = &j->slots[site];
	struct emit *e = &j->cold;
	uint8_t *rel = j->code_rw + at->jae, *start = emit_pc(e);
	int32_t old;

	if (!at->jae || s->idx & IDX_LOW || s->flags & (SLOT_ABS | SLOT_STICKY) ||
	    e->end - e->p < ENTRY_MAX)
		return;
	memcpy(&old, rel, 4);
	emit_lookup(j, e, site, rel + j->hot.x + 4 + old, rel + j->hot.x + 4);
	code_patch(j, rel, start);
	s->flags |= SLOT_STICKY;
	j->stats.sticky++;
}

/* The site has used up its refills. */
void poly_count(struct jit *j, uint32_t site)
{
	struct site *at = &j->sites[site];
	uint32_t now = (uint32_t)(__builtin_ia32_rdtsc() >> 10);

	if (now - at->since <= SITE_BUSY)
		make(j, site);
	at->since = now;
	at->refills = SITE_REFILLS;
}
