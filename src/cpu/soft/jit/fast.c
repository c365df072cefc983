/*
 * Helpers that run while guest vectors are in the host's registers: this file is
 * compiled for integer registers only and calls nothing that is not.
 */
#include "cpu/soft/jit/priv.h"

/*
 * Narrows [*lo, *hi) of guest-physical memory around page to what holds no code: where
 * stores may go without being looked at.
 */
static void code_free(const struct memory *mem, uint64_t page, uint64_t *lo, uint64_t *hi)
{
	uint64_t p;

	for (p = page; p > *lo; p -= 4096)
		if (atomic_load_explicit(&mem->code[(p >> 12) - 1], memory_order_relaxed))
			break;
	*lo = p;
	for (p = page + 4096; p < *hi; p += 4096)
		if (atomic_load_explicit(&mem->code[p >> 12], memory_order_relaxed))
			break;
	*hi = p;
}

static struct large *large_of(struct jit *j, uint64_t tag)
{
	return &j->large[((tag >> 21) * 2 + (tag & 7)) % LARGE_COUNT];
}

static uint64_t large_tag(uint64_t addr, unsigned idx, bool write)
{
	return (addr & ~(2 * MiB - 1)) | idx << 1 | write | 8;
}

/* The 2 MiB around e's page, as far as RAM (and, for stores, no code) goes. */
static const struct large *large_note(struct jit *j, const struct tlb_entry *e,
    unsigned idx, bool write, uint64_t page)
{
	const struct memory *mem = j->cpu->mem;
	uint64_t tag = large_tag(page, idx, write), lo = e->gpa & ~(2 * MiB - 1);
	uint64_t hi = lo + 2 * MiB;
	struct large *l = large_of(j, tag);

	if (!memory_is_ram(mem, lo, 2 * MiB))
		return NULL;
	if (write) {
		code_free(mem, e->gpa, &lo, &hi);
		j->large_wrote[lo >> LARGE_SHIFT] = 1;
	}
	*l = (struct large){ .tag = tag, .start = page - (e->gpa - lo), .len = hi - lo,
		.delta = e->delta, .level = e->level, .global = e->global != 0 };
	return l;
}

#define WIDEN_MAX 16u

/*
 * Widens [*start, *start + *len) around the page of e by neighbours that the software
 * TLB knows to continue it.
 */
static void widen(const struct soft_cpu *cpu, const struct tlb_entry *e, unsigned idx,
    bool write, uint64_t *start, uint64_t *len)
{
	uint64_t page = *start;

	for (unsigned i = 1; i <= WIDEN_MAX; i++) {
		const struct tlb_entry *n = tlb_slot(cpu, idx, page + i * 4096);

		if ((write ? n->tag_w : n->tag_r) != page + i * 4096 ||
		    n->delta != e->delta || n->global != e->global || n->level > 12)
			break;
		*len += 4096;
	}
	for (unsigned i = 1; i <= WIDEN_MAX; i++) {
		const struct tlb_entry *n = tlb_slot(cpu, idx, page - i * 4096);

		if ((write ? n->tag_w : n->tag_r) != page - i * 4096 ||
		    n->delta != e->delta || n->global != e->global || n->level > 12)
			break;
		*start -= 4096;
		*len += 4096;
	}
}

static void list_one(struct jit *j, uint32_t site, unsigned which)
{
	struct slot *s = &j->slots[site];

	if (s->listed & 1u << which)
		return;
	s->listed |= 1u << which;
	j->filled[which].v[j->filled[which].n++] = site;
}

static void list_slot(struct jit *j, uint32_t site, uint8_t level, bool global)
{
	struct slot *s = &j->slots[site];
	unsigned w = s->kind == 'w' ? LIST_WRITE : 0;

	j->low_globals |= global && !(s->start >> 63);
	s->level = level;
	if (global || s->flags & SLOT_STICKY)
		list_one(j, site, w | LIST_GLOBAL);
	if (!global || s->flags & SLOT_STICKY)
		list_one(j, site, w);
}

static bool slot_set(struct jit *j, uint32_t site, uint64_t addr, uint64_t start,
    uint64_t len, uint64_t delta)
{
	struct slot *s = &j->slots[site];

	if (addr - start + s->size > len)
		return false;
	if (s->flags & SLOT_ABS) {
		s->start = addr;
		s->delta = addr + delta;
		s->limit = 1;
	} else {
		s->start = start;
		s->delta = delta;
		s->limit = len - s->size + 1;
	}
	return true;
}

void range_drop_all(struct jit *j)
{
	j->range_gen += RANGE_GEN_STEP;
	if (j->range_gen < RANGE_GEN_END)
		return;
	memset(j->range, 0, sizeof(j->range));
	j->range_gen = 0;
}

/* For the stub: whoever misses on this page the next time. */
static void range_note(struct jit *j, const struct slot *s, uint8_t level, uint64_t addr,
    uint64_t start, uint64_t len, uint64_t delta, bool global)
{
	uint32_t what = s->kind | (uint32_t)s->idx << 8;
	uint64_t page = addr >> 12;
	unsigned which = (global ? LIST_GLOBAL : 0) | (s->kind == 'w' ? LIST_WRITE : 0);

	/* Those need low_globals set, which the stub does not do. */
	if (global && !(start >> 63))
		return;
	j->range[(page ^ what) % RANGE_COUNT] = (struct range){
		.tag = page << 28 | j->range_gen | what, .start = start, .delta = delta,
		.len = (uint32_t)len, .level = level, .list = 1u << which };
}

/* 32-bit code goes on at 0, whatever the tables have beyond 4 GiB. */
static uint64_t cut(const struct slot *s, uint64_t start, uint64_t len)
{
	return s->idx & IDX_LOW ? MIN(len, 4 * GiB - start) : len;
}

bool jit_slot_fill(struct jit *j, uint32_t site, uint64_t addr)
{
	const struct soft_cpu *cpu = j->cpu;
	struct slot *s = &j->slots[site];
	bool write = s->kind == 'w';
	unsigned idx = s->idx & KEY_IDX_MASK;
	uint64_t tag = large_tag(addr, idx, write);
	uint64_t page = addr & MMU_PAGE_MASK, start = page, len = 4096;
	const struct large *l = large_of(j, tag);
	const struct tlb_entry *e;

	if (s->idx & IDX_LOW && addr >> 32)
		return false;
	if (l->tag != tag || addr - l->start >= l->len) {
		e = tlb_slot(cpu, idx, addr);
		if ((write ? e->tag_w : e->tag_r) != page)
			return false;
		l = e->level > 12 ? large_note(j, e, idx, write, page) : NULL;
		if (!l) {
			/* Looking for neighbours costs more than a miss: not in vain. */
			if (e->level == 12 && (s->flags & SLOT_STICKY || s->lonely < 4 ||
			    !(++s->tries & 15))) {
				widen(cpu, e, idx, write, &start, &len);
				s->lonely = len > 4096 ? 0 : s->lonely + (s->lonely < 4);
			}
			len = cut(s, start, len);
			if (!slot_set(j, site, addr, start, len, e->delta))
				return false;
			list_slot(j, site, e->level, e->global != 0);
			range_note(j, s, e->level, addr, start, len, e->delta, e->global != 0);
			return true;
		}
	}
	/* Look-ups find pieces that only the interpreter puts into the TLB. */
	if (s->flags & SLOT_STICKY && !(j->stats.slot_misses & 7))
		return false;
	len = cut(s, l->start, l->len);
	if (!slot_set(j, site, addr, l->start, len, l->delta))
		return false;
	list_slot(j, site, l->level, l->global);
	range_note(j, s, l->level, addr, l->start, len, l->delta, l->global);
	return true;
}

void shake_slots(struct jit *j)
{
	uint64_t x = j->shake_seed;

	for (unsigned i = 0; i < 32; i++) {
		x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
		j->slots[(x >> 33) % j->nsites].limit = 0;
	}
	j->shake_seed = x | 1;
}

/* Where to go on without the group that the site checks; NULL: nowhere. */
static const uint8_t *without_group(struct jit *j, uint32_t site)
{
	const struct site *at = &j->sites[site];
	struct trans *t = at->t;

	if (!(j->slots[site].flags & SLOT_GROUP) || !t->plain || t->plain->dead)
		return NULL;
	if (++t->crossings >= CROSSINGS)
		return NULL;
	if (t->plain->uses_fp && !t->uses_fp)
		jit_fpu_load(j);
	return j->code_rx + t->plain->pc[at->insn];
}

void jit_miss(struct jit *j, uint32_t site, uint64_t addr)
{
	const struct site *at = &j->sites[site];
	const uint8_t *to = j->stub_slow, *plain;

	if (shake_due(j))
		shake_slots(j);
	j->stats.slot_misses++;
	j->miss_site = site;
	j->miss_addr = addr;
	if (!at->refills)
		poly_count(j, site);
	if (jit_slot_fill(j, site, addr))
		to = j->code_rx + at->t->pc[at->insn];
	else if ((plain = without_group(j, site)))
		to = plain;
	j->miss_to = (uint64_t)(uintptr_t)to;
}

void jit_fpu_load(struct jit *j)
{
	struct soft_cpu *cpu = j->cpu;

	__asm__ volatile("xrstor %0" : : "m"(cpu->fpu), "a"(7), "d"(0) : "memory");
	j->fpu_loaded = 1;
	j->stats.fpu_loads++;
}

/* The state goes back to cpu->fpu; C code gets a default MXCSR and an empty x87. */
void jit_fpu_save(struct jit *j)
{
	static const uint32_t mxcsr = 0x1f80;
	struct soft_cpu *cpu = j->cpu;
	uint64_t *bv = (uint64_t *)(void *)(cpu->fpu + 512);

	if (!j->fpu_loaded)
		return;
	__asm__ volatile("xsave %0" : "+m"(cpu->fpu) : "a"(7), "d"(0) : "memory");
	__asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
	if (*bv & 1) {
		/* The host's instruction pointers are none of the guest's business. */
		((uint64_t *)(void *)cpu->fpu)[1] = 0;
		((uint64_t *)(void *)cpu->fpu)[2] = 0;
		__asm__ volatile("fninit");
	}
	__asm__ volatile("vzeroupper");
	j->fpu_loaded = 0;
	j->stats.fpu_saves++;
}
