/*
 * MOVS and STOS, with REP, whose elements lie in one page each side, without leaving
 * generated code. Everything else is the interpreter's: other pages, other directions,
 * strings that overlap as patterns do.
 */
#include "cpu/soft/jit/priv.h"

/* Host memory for bytes (not 0) at lin, if they lie in a page the TLB knows. */
static uint8_t *span(const struct soft_cpu *cpu, uint64_t lin, uint64_t bytes, bool write)
{
	const struct tlb_entry *e = tlb_slot(cpu, cpu->mmu_idx, lin);
	uint64_t page = lin & MMU_PAGE_MASK;

	if (page != (write ? e->tag_w : e->tag_r) || (lin & 0xfff) + bytes > 4096)
		return NULL;
	return tlb_host(e, lin);
}

static void fill(uint8_t *to, uint64_t v, uint64_t n, unsigned size)
{
	switch (size) {
	case 1:
		__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(v) : "memory");
		break;
	case 2:
		__asm__ volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(v) : "memory");
		break;
	case 4:
		__asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(v) : "memory");
		break;
	default:
		__asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(v) : "memory");
	}
}

/* False: nothing was done. */
static bool run(struct jit *j, const struct insn *in)
{
	const struct soft_cpu *cpu = j->cpu;
	bool rep = in->flags & (INSN_REP | INSN_REPNE);
	uint64_t *save = j->save, n = rep ? save[SAVED_RCX] : 1, bytes = n * in->opsize;
	uint8_t *to;
	const uint8_t *from;

	if (n > 4096 || cpu->rflags & RF_DF)
		return false;
	if (!n)
		return true;
	to = span(cpu, save[SAVED_RDI], bytes, true);
	if (!to)
		return false;
	if (!(in->flags & INSN_LOADS)) {
		fill(to, save[SAVED_RAX], n, in->opsize);
	} else {
		from = span(cpu, save[SAVED_RSI], bytes, false);
		if (!from || (to > from && to < from + bytes))
			return false;
		save[SAVED_RSI] += bytes;
		save[SAVED_RDI] += bytes;
		__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
		bytes = 0;
	}
	save[SAVED_RDI] += bytes;
	if (rep)
		save[SAVED_RCX] = 0;
	return true;
}

void jit_string(struct jit *j, uint32_t site, uint64_t unused)
{
	const struct site *at = &j->sites[site];
	const struct insn *in = &at->t->b->insn[at->insn];
	const uint8_t *to = j->stub_interp;

	(void)unused;
	j->miss_site = site;
	if (run(j, in))
		to = j->code_rx + at->t->pc[at->insn + 1];
	j->miss_to = (uint64_t)(uintptr_t)to;
}
