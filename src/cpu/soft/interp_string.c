/*
 * MOVS STOS LODS SCAS CMPS, with REP at the speed of the host's memory functions.
 *
 * A repeated instruction works in pieces: as many elements as lie in one page of
 * RAM at once, or one element through the slow path where that cannot be. Between
 * two pieces registers are those of an interrupted instruction, so a fault in the
 * next piece is precise. When something waits, or single-stepping is on, it stops
 * after a piece with next_rip on itself.
 */
#include <string.h>

#include "cpu/soft/interp.h"

struct string {
	uint64_t count; /* elements left; 1 without REP */
	uint64_t mask;  /* of the address size */
	unsigned size;
	bool down;
};

static void begin(
    const struct soft_cpu *cpu, const struct insn *in, struct string *s)
{
	s->size = in->opsize;
	s->mask = size_mask(in->addrsize);
	s->down = cpu->rflags & RF_DF;
	s->count =
	    in->flags & (INSN_REP | INSN_REPNE) ? cpu->gpr[GPR_RCX] & s->mask : 1;
}

static void advance(struct soft_cpu *cpu, const struct insn *in,
    const struct string *s, unsigned reg, uint64_t elements)
{
	uint64_t bytes = elements * s->size, v = cpu->gpr[reg];

	gpr_set(cpu, reg, in->addrsize, s->down ? v - bytes : v + bytes);
}

/*
 * n elements are done. True: go on with the next piece - also when the string has
 * overwritten its own instruction, which hardware finishes first.
 */
static bool done(
    struct soft_cpu *cpu, const struct insn *in, struct string *s, uint64_t n)
{
	s->count -= n;
	if (!(in->flags & (INSN_REP | INSN_REPNE)))
		return false;
	gpr_set(cpu, GPR_RCX, in->addrsize, s->count);
	if (s->count == 0)
		return false;
	if (likely(!(cpu->rflags & RF_TF) &&
		   !atomic_load_explicit(&cpu->link.events, memory_order_relaxed) &&
		   !cpu->pending_db && !cpu->watch_hit))
		return true;
	cpu->next_rip = cpu->rip;
	cpu->stop_block = true;
	return false;
}

/*
 * Bytes from off upwards that segment and address size allow, at least one element.
 */
static uint64_t reach(
    const struct soft_cpu *cpu, const struct string *s, unsigned seg, uint64_t off)
{
	const struct soft_seg *g = &cpu->seg[seg];

	if (cpu->mode == MODE_64)
		return s->mask - off < UINT64_MAX ? s->mask - off + 1 : UINT64_MAX;
	/* Expand-down data segments go element by element; they are a rarity. */
	if ((g->access & 0xc) == 4 || off > g->limit)
		return 0;
	return MIN(s->mask - off, g->limit - off) + 1;
}

/*
 * Host memory for the next elements, *n of them at most; NULL: do one by one.
 * Raises when the first element's segment or page does not permit the access.
 */
static uint8_t *span(struct soft_cpu *cpu, const struct string *s, unsigned seg,
    unsigned reg, unsigned addrsize, bool write, uint64_t *n)
{
	uint64_t off = cpu->gpr[reg] & s->mask, lin, bytes, max;
	uint8_t *p;

	lin = seg_linear(cpu, seg, off, addrsize, s->size, write);
	if (s->down || cpu->rflags & RF_TF)
		return NULL;
	max = MIN(reach(cpu, s, seg, off),
	    *n > UINT64_MAX / 8 ? UINT64_MAX : *n * s->size);
	if (max < s->size)
		return NULL;
	p = mmu_span(cpu, lin, write, max, &bytes);
	if (!p || bytes < s->size)
		return NULL;
	/* Never 0. NOLINTNEXTLINE(clang-analyzer-core.DivideZero) */
	*n = bytes / s->size;
	return p;
}

static uint64_t src_linear(
    struct soft_cpu *cpu, const struct insn *in, const struct string *s)
{
	return seg_linear(
	    cpu, in->seg, cpu->gpr[GPR_RSI], in->addrsize, s->size, false);
}

static uint64_t dst_linear(
    struct soft_cpu *cpu, const struct insn *in, const struct string *s, bool write)
{
	return seg_linear(
	    cpu, SEG_ES, cpu->gpr[GPR_RDI], in->addrsize, s->size, write);
}

/* Copies upwards, element after element, as the guest's instruction would. */
static void copy(uint8_t *to, const uint8_t *from, uint64_t n, unsigned size)
{
	uint64_t bytes = n * size;

	if (to <= from || to >= from + bytes) {
		memmove(to, from, bytes);
		return;
	}
	for (uint64_t i = 0; i < bytes; i += size)
		host_store(to + i, size, host_load(from + i, size));
}

static void movs(struct soft_cpu *cpu, const struct insn *in)
{
	struct string s;
	uint64_t n;

	begin(cpu, in, &s);
	if (!s.count)
		return;
	do {
		const uint8_t *from;
		uint8_t *to = NULL;

		n = s.count;
		from = s.count > 1 ? span(cpu, &s, in->seg, GPR_RSI, in->addrsize,
					 false, &n)
				   : NULL;
		if (from)
			to = span(cpu, &s, SEG_ES, GPR_RDI, in->addrsize, true, &n);
		/*
		 * The second look-up may have replaced the entry, never the page.
		 */
		if (to) {
			copy(to, from, n, s.size);
		} else {
			uint64_t v = mmu_ld(cpu, src_linear(cpu, in, &s), s.size);

			mmu_st(cpu, dst_linear(cpu, in, &s, true), s.size, v);
			n = 1;
		}
		advance(cpu, in, &s, GPR_RSI, n);
		advance(cpu, in, &s, GPR_RDI, n);
	} while (done(cpu, in, &s, n));
}

static void fill(uint8_t *to, uint64_t v, uint64_t n, unsigned size)
{
	if (size == 1 || v == 0) {
		memset(to, (int)v, n * size);
		return;
	}
	for (uint64_t i = 0; i < n * size; i += size)
		host_store(to + i, size, v);
}

static void stos(struct soft_cpu *cpu, const struct insn *in)
{
	struct string s;
	uint64_t n, v;

	begin(cpu, in, &s);
	v = gpr_get(cpu, GPR_RAX, s.size);
	if (!s.count)
		return;
	do {
		uint8_t *to;

		n = s.count;
		to = s.count > 1
			 ? span(cpu, &s, SEG_ES, GPR_RDI, in->addrsize, true, &n)
			 : NULL;
		if (to) {
			fill(to, v, n, s.size);
		} else {
			mmu_st(cpu, dst_linear(cpu, in, &s, true), s.size, v);
			n = 1;
		}
		advance(cpu, in, &s, GPR_RDI, n);
	} while (done(cpu, in, &s, n));
}

static void lods(struct soft_cpu *cpu, const struct insn *in)
{
	struct string s;

	begin(cpu, in, &s);
	if (!s.count)
		return;
	do {
		gpr_set(cpu, GPR_RAX, s.size,
		    mmu_ld(cpu, src_linear(cpu, in, &s), s.size));
		advance(cpu, in, &s, GPR_RSI, 1);
	} while (done(cpu, in, &s, 1));
}

/* REPE goes on while equal, REPNE while not. */
static bool mismatch(const struct soft_cpu *cpu, const struct insn *in)
{
	bool equal = cpu->rflags & RF_ZF;

	return in->flags & INSN_REPNE ? equal : !equal;
}

/*
 * The last element's comparison ended the instruction: the counter still counts it.
 */
static bool next_compared(
    struct soft_cpu *cpu, const struct insn *in, struct string *s, uint64_t n)
{
	bool stop = mismatch(cpu, in);

	if (stop && in->flags & (INSN_REP | INSN_REPNE)) {
		gpr_set(cpu, GPR_RCX, in->addrsize, s->count - n);
		return false;
	}
	return done(cpu, in, s, n);
}

/* Elements of p up to and including the one that decides. */
static uint64_t scan(const struct soft_cpu *cpu, const struct insn *in,
    const uint8_t *p, uint64_t n, unsigned size)
{
	uint64_t v = gpr_get(cpu, GPR_RAX, size), i;
	bool until_equal = in->flags & INSN_REPNE;

	for (i = 0; i < n - 1; i++)
		if ((host_load(p + i * size, size) == v) == until_equal)
			break;
	return i + 1;
}

static void scas(struct soft_cpu *cpu, const struct insn *in)
{
	struct string s;
	uint64_t n, v;

	begin(cpu, in, &s);
	if (!s.count)
		return;
	do {
		const uint8_t *p;

		n = s.count;
		p = s.count > 1
			? span(cpu, &s, SEG_ES, GPR_RDI, in->addrsize, false, &n)
			: NULL;
		if (p) {
			n = scan(cpu, in, p, n, s.size);
			v = host_load(p + (n - 1) * s.size, s.size);
		} else {
			v = mmu_ld(cpu, dst_linear(cpu, in, &s, false), s.size);
			n = 1;
		}
		compare_flags(cpu, cpu->gpr[GPR_RAX], v, s.size);
		advance(cpu, in, &s, GPR_RDI, n);
	} while (next_compared(cpu, in, &s, n));
}

static void cmps(struct soft_cpu *cpu, const struct insn *in)
{
	struct string s;

	begin(cpu, in, &s);
	if (!s.count)
		return;
	do {
		uint64_t a = mmu_ld(cpu, src_linear(cpu, in, &s), s.size);
		uint64_t b = mmu_ld(cpu, dst_linear(cpu, in, &s, false), s.size);

		compare_flags(cpu, a, b, s.size);
		advance(cpu, in, &s, GPR_RSI, 1);
		advance(cpu, in, &s, GPR_RDI, 1);
	} while (next_compared(cpu, in, &s, 1));
}

insn_fn *interp_string_handler(const struct insn *in)
{
	/* SSE has a MOVSD and a CMPSD of its own, with operands. */
	if (in->nopnd)
		return NULL;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD:
	case ZYDIS_MNEMONIC_MOVSQ:
		return movs;
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_STOSQ:
		return stos;
	case ZYDIS_MNEMONIC_LODSB:
	case ZYDIS_MNEMONIC_LODSW:
	case ZYDIS_MNEMONIC_LODSD:
	case ZYDIS_MNEMONIC_LODSQ:
		return lods;
	case ZYDIS_MNEMONIC_SCASB:
	case ZYDIS_MNEMONIC_SCASW:
	case ZYDIS_MNEMONIC_SCASD:
	case ZYDIS_MNEMONIC_SCASQ:
		return scas;
	case ZYDIS_MNEMONIC_CMPSB:
	case ZYDIS_MNEMONIC_CMPSW:
	case ZYDIS_MNEMONIC_CMPSD:
	case ZYDIS_MNEMONIC_CMPSQ:
		return cmps;
	default:
		return NULL;
	}
}
