/*
 * Helpers that run while guest vectors are in the host's registers: this file is
 * compiled for integer registers only and calls nothing that is not.
 */
#include "cpu/soft/jit/priv.h"

/* No page of [lo, hi) in guest-physical memory holds code. */
static bool code_free(const struct memory *mem, uint64_t lo, uint64_t hi)
{
	for (uint64_t p = lo >> 12; p < hi >> 12; p++)
		if (atomic_load_explicit(&mem->code[p], memory_order_relaxed))
			return false;
	return true;
}

/*
 * Widens [*start, *start + *len) around the page of e: the guest's large page as far
 * as it is RAM (and free of code, for stores), or neighbours that the software TLB
 * knows to continue it.
 */
static void widen(const struct soft_cpu *cpu, const struct tlb_entry *e, unsigned idx,
    bool write, uint64_t *start, uint64_t *len)
{
	uint64_t page = *start, size = BIT64(MIN(e->level, 21u));
	uint64_t lo = e->gpa & ~(size - 1);

	if (e->level > 12 && memory_is_ram(cpu->mem, lo, size) &&
	    (!write || code_free(cpu->mem, lo, lo + size))) {
		*start = page & ~(size - 1);
		*len = size;
		return;
	}
	for (unsigned i = 1; i <= 16; i++) {
		const struct tlb_entry *n = tlb_slot(cpu, idx, page + i * 4096);

		if ((write ? n->tag_w : n->tag_r) != page + i * 4096 ||
		    n->delta != e->delta || n->global != e->global || n->level > 12)
			break;
		*len += 4096;
	}
	for (unsigned i = 1; i <= 16; i++) {
		const struct tlb_entry *n = tlb_slot(cpu, idx, page - i * 4096);

		if ((write ? n->tag_w : n->tag_r) != page - i * 4096 ||
		    n->delta != e->delta || n->global != e->global || n->level > 12)
			break;
		*start -= 4096;
		*len += 4096;
	}
}

static void list_slot(struct jit *j, uint32_t site, unsigned which)
{
	struct slot *s = &j->slots[site];

	if (s->listed & 1u << which)
		return;
	s->listed |= 1u << which;
	j->filled[which].v[j->filled[which].n++] = site;
}

bool jit_slot_fill(struct jit *j, uint32_t site, uint64_t addr)
{
	const struct soft_cpu *cpu = j->cpu;
	struct slot *s = &j->slots[site];
	const struct tlb_entry *e = tlb_slot(cpu, s->idx, addr);
	bool write = s->kind == 'w';
	uint64_t page = addr & MMU_PAGE_MASK, start = page, len = 4096;

	if ((write ? e->tag_w : e->tag_r) != page)
		return false;
	if (s->flags & SLOT_ABS) {
		if (addr - page + s->size > 4096)
			return false;
		s->start = addr;
		s->delta = addr + e->delta;
		s->limit = 1;
	} else {
		widen(cpu, e, s->idx, write, &start, &len);
		if (addr - start + s->size > len)
			return false;
		s->start = start;
		s->delta = e->delta;
		s->limit = len - s->size + 1;
	}
	s->level = e->level;
	list_slot(j, site, e->global != 0);
	return true;
}

void jit_miss(struct jit *j, uint32_t site, uint64_t addr)
{
	const struct trans *t = j->sites[site].t;

	j->stats.slot_misses++;
	j->miss_site = site;
	j->miss_addr = addr;
	if (jit_slot_fill(j, site, addr))
		j->miss_to = (uint64_t)(uintptr_t)(j->code_rx + t->pc[j->sites[site].insn]);
	else
		j->miss_to = (uint64_t)(uintptr_t)j->stub_slow;
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
