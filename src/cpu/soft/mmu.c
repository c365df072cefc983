/*
 * The software TLB: contexts, flushes, filling, debugger walks. See soft.h for
 * what a fast entry promises and walk.c for the tables.
 *
 * Contexts. With CR4.PCIDE each PCID in use has a TLB of its own, at most
 * CONTEXTS of them; the least recently used is emptied and taken over. Global
 * entries live in each context that used them, so whatever drops a global entry
 * drops it everywhere. Without PCIDE there is one context.
 *
 * Invariants
 * - A slot whose level is not zero is in its context's log of global or of other
 *   entries, so that a flush costs what was filled and goes, not the size of the
 *   table. A slot that changes sides is in both for a while.
 * - An entry's tags are set together from one walk: tag_w only when the page is
 *   dirty, permitted and free of translated code. A vCPU that saw code[] zero may
 *   keep writing until it next answers requests (smp.h).
 * - While a data breakpoint is armed no entry has tag_r or tag_w.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/soft/jit/jit.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/mmu_internal.h"

static void entry_clear(struct tlb_entry *e)
{
	e->tag_r = e->tag_w = e->tag_x = TLB_INVALID;
}

static struct tlb_entry *logged(struct context *c, const struct tlb_log *l, unsigned i)
{
	return &c->tlb.e[l->slot[i] >> TLB_BITS][l->slot[i] & (TLB_SIZE - 1)];
}

static void log_flush(struct context *c, unsigned which)
{
	struct tlb_log *l = &c->log[which];

	for (unsigned i = 0; i < l->n; i++) {
		struct tlb_entry *e = logged(c, l, i);

		e->logged &= ~(1u << which);
		if (e->global != which)
			continue;
		entry_clear(e);
		e->level = 0;
	}
	l->n = 0;
}

static void context_flush(struct context *c, bool globals)
{
	log_flush(c, LOG_LOCAL);
	if (globals)
		log_flush(c, LOG_GLOBAL);
	if (!c->log[LOG_GLOBAL].n)
		c->large_lo[0] = c->large_lo[1] = UINT64_MAX,
		c->large_hi[0] = c->large_hi[1] = 0;
}

static struct context *context_new(void)
{
	struct context *c = aligned_alloc(64, ROUND_UP(sizeof(*c), 64));

	if (!c)
		return NULL;
	memset(c, 0, sizeof(*c));
	for (unsigned i = 0; i < MMU_COUNT; i++)
		for (unsigned j = 0; j < TLB_SIZE; j++)
			entry_clear(&c->tlb.e[i][j]);
	context_flush(c, true);
	return c;
}

static void context_use(struct soft_cpu *cpu, struct context *c)
{
	c->used = ++cpu->mmu->clock;
	cpu->mmu->current = c;
	cpu->tlb = &c->tlb;
}

static struct context *context_find(struct mmu *m, uint64_t pcid)
{
	for (unsigned i = 0; i < m->count; i++)
		if (m->context[i]->pcid == pcid)
			return m->context[i];
	return NULL;
}

/* The context of a PCID, empty if it had none. */
static struct context *context_get(struct mmu *m, uint64_t pcid)
{
	struct context *c = context_find(m, pcid), *oldest = m->context[0];

	if (c)
		return c;
	if (m->count < CONTEXTS && (c = context_new())) {
		m->context[m->count++] = c;
	} else {
		for (unsigned i = 1; i < m->count; i++)
			if (m->context[i]->used < oldest->used)
				oldest = m->context[i];
		c = oldest;
		context_flush(c, true);
	}
	c->pcid = pcid;
	return c;
}

static uint64_t current_pcid(const struct soft_cpu *cpu)
{
	return cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xfff : 0;
}

int mmu_create(struct soft_cpu *cpu)
{
	struct mmu *m = calloc(1, sizeof(*m));

	if (!m || !(m->context[0] = context_new()) ||
	    !(m->wrote = calloc(1, (cpu->mem->span >> 15) + 1))) {
		free(m ? m->context[0] : NULL);
		free(m);
		return -ENOMEM;
	}
	m->count = 1;
	cpu->mmu = m;
	context_use(cpu, m->context[0]);
	return 0;
}

void mmu_destroy(struct soft_cpu *cpu)
{
	if (!cpu->mmu)
		return;
	for (unsigned i = 0; i < cpu->mmu->count; i++)
		free(cpu->mmu->context[i]);
	free(cpu->mmu->wrote);
	free(cpu->mmu);
	cpu->mmu = NULL;
	cpu->tlb = NULL;
}

void mmu_flush_all(struct soft_cpu *cpu)
{
	struct mmu *m = cpu->mmu;

	cpu->stats.flushes++;
	if (cpu->jit)
		jit_tlb_flush(cpu, true);
	for (unsigned i = 0; i < m->count; i++)
		context_flush(m->context[i], true);
	context_use(cpu, context_get(m, current_pcid(cpu)));
}

void mmu_cr3_written(struct soft_cpu *cpu, bool noflush)
{
	struct context *c = context_get(cpu->mmu, current_pcid(cpu));

	if (cpu->jit)
		jit_tlb_flush(cpu, false);
	if (!(noflush && cpu->cr4 & CR4_PCIDE)) {
		cpu->stats.flushes++;
		context_flush(c, false);
	}
	context_use(cpu, c);
}

static bool same_page(const struct tlb_entry *e, uint64_t lin)
{
	return ((e->lin ^ lin) & ~(BIT64(e->level) - 1)) == 0;
}

/* Drops what maps lin: all of a large page's pieces. Only globals when so asked. */
static void context_drop(struct context *c, uint64_t lin, bool only_global)
{
	unsigned half = lin >> 63;

	for (unsigned idx = 0; idx < MMU_COUNT; idx++) {
		struct tlb_entry *e = &c->tlb.e[idx][tlb_index(lin)];

		if (e->level && same_page(e, lin) && (e->global || !only_global))
			entry_clear(e);
	}
	if (lin < c->large_lo[half] || lin > c->large_hi[half])
		return;
	for (unsigned which = only_global ? LOG_GLOBAL : LOG_LOCAL; which < LOGS; which++) {
		const struct tlb_log *l = &c->log[which];

		for (unsigned i = 0; i < l->n; i++) {
			struct tlb_entry *e = logged(c, l, i);

			if (e->level > 12 && same_page(e, lin) &&
			    (e->global || !only_global))
				entry_clear(e);
		}
	}
}

void mmu_flush_page(struct soft_cpu *cpu, uint64_t lin)
{
	struct mmu *m = cpu->mmu;

	if (cpu->jit)
		jit_tlb_flush_page(cpu, lin);
	for (unsigned i = 0; i < m->count; i++)
		context_drop(m->context[i], lin, m->context[i] != m->current);
}

void mmu_invpcid(struct soft_cpu *cpu, unsigned type, uint64_t pcid, uint64_t lin)
{
	struct mmu *m = cpu->mmu;
	/*
	 * Without PCIDE everything is tagged 0, and the operand's PCID must be 0.
	 */
	struct context *c = context_find(m, pcid);

	if (cpu->jit && type == 0)
		jit_tlb_flush_page(cpu, lin);
	else if (cpu->jit)
		jit_tlb_flush(cpu, false);
	switch (type) {
	case 0:
		/* "Except global translations" is permission, not duty. */
		if (c)
			context_drop(c, lin, false);
		break;
	case 1:
		if (c)
			context_flush(c, false);
		break;
	case 2:
		mmu_flush_all(cpu);
		break;
	default:
		for (unsigned i = 0; i < m->count; i++)
			context_flush(m->context[i], false);
	}
}

static uint8_t *wrote_byte(const struct mmu *m, uint64_t gpa)
{
	return &m->wrote[gpa >> 15];
}

static uint8_t wrote_bit(uint64_t gpa)
{
	return 1u << (gpa >> 12 & 7);
}

void mmu_drop_write(struct soft_cpu *cpu, uint64_t gpa)
{
	struct mmu *m = cpu->mmu;
	uint8_t *wrote = wrote_byte(m, gpa), bit = wrote_bit(gpa);
	bool may_write = *wrote & bit;

	if (cpu->jit)
		jit_drop_write(cpu, gpa, may_write);
	if (!may_write)
		return;
	*wrote &= ~bit;
	for (unsigned i = 0; i < m->count * LOGS; i++) {
		struct context *c = m->context[i / LOGS];
		const struct tlb_log *l = &c->log[i % LOGS];

		for (unsigned j = 0; j < l->n; j++) {
			struct tlb_entry *e = logged(c, l, j);

			if (e->gpa == gpa)
				e->tag_w = TLB_INVALID;
		}
	}
}

void mmu_watch_changed(struct soft_cpu *cpu)
{
	bool armed = cpu_data_breakpoints_armed(cpu);

	if (armed && !cpu->mmu->watching)
		mmu_flush_all(cpu);
	cpu->mmu->watching = armed;
}

static void note_large(struct context *c, uint64_t lin, unsigned shift)
{
	unsigned half = lin >> 63;
	uint64_t lo = lin & ~(BIT64(shift) - 1), hi = lin | (BIT64(shift) - 1);

	c->large_lo[half] = MIN(c->large_lo[half], lo);
	c->large_hi[half] = MAX(c->large_hi[half], hi);
}

static struct tlb_entry *entry_set(
    struct soft_cpu *cpu, uint64_t lin, enum mmu_idx idx, const struct walk *w)
{
	struct context *c = cpu->mmu->current;
	struct tlb_entry *e = tlb_slot(cpu, idx, lin);
	uint64_t page = lin & MMU_PAGE_MASK, gpa = w->gpa & MMU_PAGE_MASK;
	bool data = !cpu->mmu->watching;

	if (!(e->logged & 1u << w->global)) {
		struct tlb_log *l = &c->log[w->global];

		l->slot[l->n++] = idx << TLB_BITS | tlb_index(lin);
		e->logged |= 1u << w->global;
	}
	if (w->shift > 12)
		note_large(c, lin, w->shift);
	e->delta = (uint64_t)(uintptr_t)cpu->mem->base + gpa - page;
	e->gpa = gpa;
	e->lin = page;
	e->level = w->shift;
	e->global = w->global;
	e->tag_r = data && mmu_permits(cpu, w, idx, 0) ? page : TLB_INVALID;
	e->tag_x = mmu_permits(cpu, w, idx, PF_I) ? page : TLB_INVALID;
	/*
	 * The load of code[] orders with smp.c's request for an answer from this
	 * vCPU.
	 */
	e->tag_w = data && w->dirty && mmu_permits(cpu, w, idx, PF_W) &&
			   !atomic_load(&cpu->mem->code[gpa >> 12])
		       ? page
		       : TLB_INVALID;
	if (e->tag_w != TLB_INVALID)
		*wrote_byte(cpu->mmu, gpa) |= wrote_bit(gpa);
	return e;
}

struct tlb_entry *mmu_resolve(
    struct soft_cpu *cpu, uint64_t lin, enum mmu_idx idx, char kind, uint64_t *gpa)
{
	uint32_t access = kind == 'w' ? PF_W : kind == 'x' ? PF_I : 0;
	struct tlb_entry *e = tlb_slot(cpu, idx, lin);
	uint64_t tag = kind == 'w' ? e->tag_w : kind == 'x' ? e->tag_x : e->tag_r;
	struct walk w;

	if (tlb_hit(tag, lin, 1)) {
		*gpa = e->gpa | (lin & 0xfff);
		return e;
	}
	if (!is_canonical(lin))
		cpu_gp(cpu);
	cpu->stats.tlb_misses++;
	if (!mmu_walk(cpu, lin, idx, access, WALK_COMMIT, &w)) {
		/*
		 * The entry that failed may be cached with older rights: forget it.
		 */
		if (e->level && same_page(e, lin))
			entry_clear(e);
		cpu->stats.page_faults++;
		cpu_raise_pf(cpu, lin, w.error);
	}
	*gpa = w.gpa;
	if (!memory_is_ram(cpu->mem, w.gpa, 1))
		return NULL;
	return entry_set(cpu, lin, idx, &w);
}

struct tlb_entry *mmu_fill(
    struct soft_cpu *cpu, uint64_t lin, enum mmu_idx idx, char kind)
{
	uint64_t gpa;

	return mmu_resolve(cpu, lin, idx, kind, &gpa);
}

uint64_t mmu_code_gpa(struct soft_cpu *cpu, uint64_t lin)
{
	uint64_t gpa;

	mmu_resolve(cpu, lin, mmu_code_idx(cpu), 'x', &gpa);
	return gpa;
}

int mmu_translate(struct soft_cpu *cpu, uint64_t lin, uint64_t *gpa)
{
	struct walk w;

	/* Either privilege's view will do: a debugger reads what is mapped. */
	if (!is_canonical(lin) || (!cpu->long_mode && lin >> 32 != 0) ||
	    !mmu_walk(cpu, lin, MMU_KERNEL, 0, WALK_PEEK, &w))
		return -EFAULT;
	*gpa = w.gpa;
	return 0;
}
