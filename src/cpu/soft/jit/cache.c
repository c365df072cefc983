/*
 * The memory of the translator: one stretch within 2 GiB of struct soft_cpu with
 * struct jit, slots, tokens and code; what dies when; page tokens; links.
 *
 * Invariants
 * - Code memory is handed out upwards and never reused before cache_flush(), so a
 *   host address on the pairing stack stays code until then.
 * - Every edge with e->to set is in to->in, and its rel32 points to one of to's
 *   entries; otherwise it points to its cold piece.
 * - A slot with limit != 0 is in the list of its kind (filled[]); a token with
 *   tok_valid != 0 likewise (toks[]).
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/soft/jit/priv.h"

#define CODE_SIZE (JIT_HOT_SIZE + JIT_COLD_SIZE)
#define NEAR	  (UINT64_C(2000) * MiB)

static size_t data_size(void)
{
	return ROUND_UP(sizeof(struct jit), 4096) + ROUND_UP(JIT_TOKENS, 4096) +
	    JIT_SITES * sizeof(struct slot) + JIT_ICALLS * sizeof(struct icall);
}

static void *anon(size_t size, int flags)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* A free stretch all of which is within NEAR of at. */
static uint8_t *reserve_near(uintptr_t at, size_t size)
{
	for (unsigned k = 1; k < 30; k++)
		for (int up = 0; up < 2; up++) {
			uint64_t step = k * 64 * MiB;
			uintptr_t hint;

			if (step + size > NEAR || (!up && at < step + size))
				continue;
			hint = ROUND_DOWN(up ? at + step : at - step - size, 4096);
			void *p = mmap((void *)hint, size, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
			    MAP_FIXED_NOREPLACE, -1, 0);
			if (p == MAP_FAILED)
				continue;
			if (p == (void *)hint)
				return p;
			munmap(p, size);
		}
	return NULL;
}

/* Shared anonymous memory, mapped a second time by mremap(2) with an old size of 0. */
static int map_code(struct jit *j)
{
	if (mmap(j->code_rx, CODE_SIZE, PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
		return -ENOMEM;
	j->code_rw = mremap(j->code_rx, 0, CODE_SIZE, MREMAP_MAYMOVE);
	if (j->code_rw == MAP_FAILED)
		return -ENOMEM;
	return mprotect(j->code_rx, CODE_SIZE, PROT_READ | PROT_EXEC) < 0 ? -errno : 0;
}

static size_t large_wrote_size(const struct jit *j)
{
	return (j->cpu->mem->span >> LARGE_SHIFT) + 1;
}

static int map_arrays(struct jit *j)
{
	size_t stride = JIT_PAIRS + JIT_GUARD;

	j->tokens = anon(JIT_TOKENS * sizeof(*j->tokens), 0);
	j->sites = anon(JIT_SITES * sizeof(*j->sites), 0);
	j->trans = anon(JIT_TRANS * sizeof(*j->trans), 0);
	j->edges = anon(JIT_EDGES * sizeof(*j->edges), 0);
	j->pcs = anon(JIT_PCS * sizeof(*j->pcs), 0);
	j->by_page = anon(2 * BY_PAGE * sizeof(*j->by_page), 0);
	j->table = anon(JIT_KEYS * JIT_TABLE * sizeof(*j->table), MAP_32BIT);
	j->large_wrote = anon(large_wrote_size(j), 0);
	j->pairs = mmap(NULL, JIT_KEYS * stride + JIT_GUARD, PROT_NONE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (j->pairs == MAP_FAILED)
		j->pairs = NULL;
	for (int i = 0; i < 4; i++) {
		j->filled[i].v = anon(JIT_SITES * sizeof(uint32_t), 0);
		j->toks[i & 1].v = j->toks[i & 1].v ? j->toks[i & 1].v :
		    anon(JIT_TOKENS * sizeof(uint32_t), 0);
		if (!j->filled[i].v || !j->toks[i & 1].v)
			return -ENOMEM;
	}
	j->tr = anon(translate_scratch(), 0);
	if (!j->tr || !j->tokens || !j->sites || !j->trans || !j->edges || !j->pcs ||
	    !j->by_page || !j->table || !j->large_wrote || !j->pairs)
		return -ENOMEM;
	for (unsigned i = 0; i < JIT_KEYS; i++) {
		uint8_t *low = j->pairs + i * stride + JIT_GUARD;

		if (mprotect(low, JIT_PAIRS, PROT_READ | PROT_WRITE) < 0)
			return -errno;
		/* Room above the top: a return that underflows may look there. */
		j->pair_top[i] = (uint64_t)(low + JIT_PAIRS - 64);
	}
	return 0;
}

int cache_create(struct soft_cpu *cpu)
{
	size_t size = data_size() + CODE_SIZE;
	uint8_t *region = reserve_near((uintptr_t)cpu, size);
	struct jit *j;
	int err;

	if (!region)
		return -ENOMEM;
	if (mprotect(region, data_size(), PROT_READ | PROT_WRITE) < 0) {
		munmap(region, size);
		return -ENOMEM;
	}
	j = (struct jit *)(void *)region;
	j->region = region;
	j->region_size = size;
	j->cpu = cpu;
	j->tok_valid = region + ROUND_UP(sizeof(struct jit), 4096);
	j->slots = (struct slot *)(void *)(j->tok_valid + ROUND_UP(JIT_TOKENS, 4096));
	j->icalls = (struct icall *)(void *)(j->slots + JIT_SITES);
	j->code_rx = region + data_size();
	cpu->jit = j;
	err = map_code(j);
	if (!err)
		err = map_arrays(j);
	if (err) {
		cache_destroy(j);
		cpu->jit = NULL;
		return err;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(j->tok_hash); i++)
		j->tok_hash[i] = -1;
	j->hot = (struct emit){ j->code_rw, j->code_rw + JIT_HOT_SIZE,
		j->code_rx - j->code_rw };
	j->cold = (struct emit){ j->code_rw + JIT_HOT_SIZE, j->code_rw + CODE_SIZE,
		j->code_rx - j->code_rw };
	return 0;
}

static void unmap(void *p, size_t size)
{
	if (p && p != MAP_FAILED)
		munmap(p, size);
}

void cache_destroy(struct jit *j)
{
	unmap(j->code_rw, CODE_SIZE);
	unmap(j->tr, translate_scratch());
	unmap(j->tokens, JIT_TOKENS * sizeof(*j->tokens));
	unmap(j->sites, JIT_SITES * sizeof(*j->sites));
	unmap(j->trans, JIT_TRANS * sizeof(*j->trans));
	unmap(j->edges, JIT_EDGES * sizeof(*j->edges));
	unmap(j->pcs, JIT_PCS * sizeof(*j->pcs));
	unmap(j->large_wrote, large_wrote_size(j));
	unmap(j->by_page, 2 * BY_PAGE * sizeof(*j->by_page));
	unmap(j->table, JIT_KEYS * JIT_TABLE * sizeof(*j->table));
	unmap(j->pairs, JIT_KEYS * (JIT_PAIRS + JIT_GUARD) + JIT_GUARD);
	for (int i = 0; i < 4; i++)
		unmap(j->filled[i].v, JIT_SITES * sizeof(uint32_t));
	for (int i = 0; i < 2; i++)
		unmap(j->toks[i].v, JIT_TOKENS * sizeof(uint32_t));
	munmap(j->region, j->region_size);
}

bool cache_room(const struct jit *j)
{
	/* The longest block in its worst form. */
	return j->hot.end - j->hot.p > 32 * 1024 && j->cold.end - j->cold.p > 32 * 1024 &&
	    j->nsites + 4 * BLOCK_MAX < JIT_SITES && j->ntrans + 2 < JIT_TRANS &&
	    j->nedges + 16 < JIT_EDGES && j->npcs + 4 * BLOCK_MAX < JIT_PCS &&
	    j->ntokens + 4 < JIT_TOKENS && j->nicalls + 2 < JIT_ICALLS;
}

/*
 * Everything translated is forgotten. Only while no generated code is active except
 * through a helper that will not return into old code.
 */
void cache_flush(struct jit *j)
{
	for (uint32_t i = 0; i < j->ntrans; i++)
		if (!j->trans[i].dead)
			j->trans[i].b->jit = NULL;
	memset(j->by_page, 0, 2 * BY_PAGE * sizeof(*j->by_page));
	memset(j->slots, 0, j->nsites * sizeof(*j->slots));
	memset(j->tok_valid, 0, j->ntokens);
	for (unsigned i = 0; i < ARRAY_SIZE(j->tok_hash); i++)
		j->tok_hash[i] = -1;
	for (int i = 0; i < 4; i++)
		j->filled[i].n = j->toks[i & 1].n = 0;
	j->low_globals = false;
	j->nsites = SITE_FAULT + 1;
	j->ntrans = j->nedges = j->npcs = j->ntokens = j->nicalls = 0;
	j->linking = EDGE_NONE;
	for (unsigned k = 0; k < j->nkeys; k++) {
		for (unsigned i = 0; i < JIT_TABLE; i++)
			j->table[k * JIT_TABLE + i] = j->stub_dispatch;
		j->pair_rsp[k] = j->pair_top[k];
	}
	if (j->nkeys)
		j->rsp = j->pair_rsp[j->keyid];
	j->hot.p = j->hot_start;
	j->cold.p = j->cold_start;
	j->stats.flushes++;
}

/* Tokens. */

static unsigned token_hash(uint64_t va, uint64_t gpa, unsigned keyid)
{
	uint64_t h = (va >> 12) * UINT64_C(0x9e3779b97f4a7c15) ^
	    (gpa >> 12) * UINT64_C(0xc2b2ae3d27d4eb4f) ^ keyid * UINT64_C(0x165667b19e3779f9);

	return h >> 52;
}

int32_t token_get(struct jit *j, uint64_t va, uint64_t gpa, unsigned keyid)
{
	unsigned h = token_hash(va, gpa, keyid);
	int32_t i;

	for (i = j->tok_hash[h]; i >= 0; i = j->tokens[i].next) {
		const struct token *t = &j->tokens[i];

		if (t->va == va && t->gpa == gpa && t->keyid == keyid)
			return i;
	}
	i = j->ntokens++;
	j->tokens[i] = (struct token){ .va = va, .gpa = gpa, .keyid = keyid,
		.next = j->tok_hash[h] };
	j->tok_hash[h] = i;
	return i;
}

static void list_add(struct list *l, uint8_t *listed, unsigned which, uint32_t v)
{
	if (*listed & 1u << which)
		return;
	*listed |= 1u << which;
	l[which].v[l[which].n++] = v;
}

void token_validate(struct jit *j, int32_t tok, bool global)
{
	list_add(j->toks, &j->tokens[tok].listed, global, tok);
	j->tok_valid[tok] = 1;
}

/* The mapping of a page is in doubt: so are the return sites of its key. */
void token_drop(struct jit *j, uint32_t n)
{
	unsigned k = j->tokens[n].keyid;

	if (!j->tok_valid[n])
		return;
	j->tok_valid[n] = 0;
	j->pair_rsp[k] = j->pair_top[k];
	if (k == j->keyid)
		j->rsp = j->pair_top[k];
}

static void flush_slots(struct jit *j, unsigned which)
{
	struct list *l = &j->filled[which];

	for (uint32_t i = 0; i < l->n; i++) {
		struct slot *s = &j->slots[l->v[i]];

		s->limit = 0;
		s->listed &= ~(1u << which);
	}
	l->n = 0;
}

static void flush_tokens(struct jit *j, unsigned which)
{
	struct list *t = &j->toks[which];

	for (uint32_t i = 0; i < t->n; i++) {
		token_drop(j, t->v[i]);
		j->tokens[t->v[i]].listed &= ~(1u << which);
	}
	t->n = 0;
}

static void large_flush(struct jit *j, bool globals)
{
	for (unsigned i = 0; i < LARGE_COUNT; i++)
		if (globals || !j->large[i].global)
			j->large[i].tag = 0;
}

void jit_tlb_flush(struct soft_cpu *cpu, bool globals)
{
	struct jit *j = cpu->jit;

	j->epoch++;
	range_drop_all(j);
	large_flush(j, globals);
	for (unsigned which = 0; which < (globals ? 2 : 1); which++) {
		flush_slots(j, which);
		flush_slots(j, which | LIST_WRITE);
		flush_tokens(j, which);
	}
	if (globals)
		j->low_globals = false;
}

static uint64_t slot_host(const struct slot *s)
{
	return s->delta + (s->flags & SLOT_ABS ? 0 : s->start);
}

/*
 * Empties the slots of a list whose bytes (addresses, or host's) meet a page; or, of a
 * large page, what else is around it.
 */
static void drop_slots(struct jit *j, unsigned which, uint64_t page, bool host)
{
	struct list *l = &j->filled[which];

	for (uint32_t i = 0; i < l->n;) {
		struct slot *s = &j->slots[l->v[i]];
		uint64_t start = host ? slot_host(s) : s->start;

		if (page - start < s->limit + s->size || start - page < 4096 ||
		    (s->level > 12 && (start ^ page) >> (host ? LARGE_SHIFT : s->level) == 0))
			s->limit = 0;
		if (s->limit) {
			i++;
			continue;
		}
		s->listed &= ~(1u << which);
		l->v[i] = l->v[--l->n];
	}
}

void jit_tlb_flush_page(struct soft_cpu *cpu, uint64_t lin)
{
	struct jit *j = cpu->jit;
	uint64_t page = lin & MMU_PAGE_MASK;

	j->epoch++;
	range_drop_all(j);
	for (unsigned i = 0; i < LARGE_COUNT; i++)
		if ((j->large[i].tag ^ lin) >> j->large[i].level == 0)
			j->large[i].tag = 0;
	for (unsigned w = 0; w < 4; w++) {
		/* Kernels map themselves globally, programs never. */
		if (w & LIST_GLOBAL && !(lin >> 63) && !j->low_globals)
			continue;
		drop_slots(j, w, page, false);
	}
	/* A token does not know the size of its mapping. */
	for (unsigned w = 0; w < 2; w++)
		for (uint32_t i = 0; i < j->toks[w].n; i++)
			if ((j->tokens[j->toks[w].v[i]].va ^ lin) >> 30 == 0)
				token_drop(j, j->toks[w].v[i]);
}

/*
 * Slots that write come from entries of the software TLB that do (mmu.c knows of
 * those), and from stretches of large pages. Of the latter all within 2 MiB go, so
 * that the next page there need not look for them again.
 */
void jit_drop_write(struct soft_cpu *cpu, uint64_t gpa, bool wrote)
{
	struct jit *j = cpu->jit;
	uint64_t host = (uint64_t)(uintptr_t)cpu->mem->base + (gpa & MMU_PAGE_MASK);
	uint8_t *large = &j->large_wrote[gpa >> LARGE_SHIFT];

	j->epoch++;
	if (!wrote && !*large)
		return;
	range_drop_all(j);
	for (unsigned i = 0; i < LARGE_COUNT; i++)
		if (j->large[i].tag & 1 && ((j->large[i].start + j->large[i].delta) ^ host)
		    >> LARGE_SHIFT == 0)
			j->large[i].tag = 0;
	for (unsigned w = LIST_WRITE; w < 4; w++)
		drop_slots(j, w, host, true);
	*large = 0;
}

/*
 * Links. An inlined edge has no jump: its target was translated right behind it, over
 * the jump. When the target dies its first bytes become that jump: dead code is not
 * entered at its beginning, and every translation keeps room for it. A jump of its own
 * that began there is not patched any more.
 */

#define JUMP_LEN 5 /* e9 rel32 */

static void edge_patch(struct jit *j, struct edge *e, const uint8_t *to)
{
	static const uint8_t nop[] = { 0x0f, 0x1f, 0x44, 0, 0 };
	const struct trans *from = e->from;

	/* Where this jump began there is another edge's now: see above. */
	if (from->headless && e->at <= j->code_rw + from->code + JUMP_LEN)
		return;
	if (e->nop)
		e->at[-1] = 0xe9;
	e->nop = to == e->at + j->hot.x + 4 && e->at[-1] == 0xe9;
	if (e->nop)
		memcpy(e->at - 1, nop, sizeof(nop));
	else
		code_patch(j, e->at, to);
}

/* Within a page that is being executed the mapping is known to be good. */
static bool edge_direct(const struct edge *e, const struct trans *to)
{
	const struct trans *from = e->from;

	return !((e->rip ^ from->rip) & MMU_PAGE_MASK) && to->tok[1] < 0 &&
	    from->tok[1] < 0 && from->keyid == to->keyid;
}

bool edge_inline(struct jit *j, const struct trans *to)
{
	struct edge *e;

	if (j->linking == EDGE_NONE)
		return false;
	e = &j->edges[j->linking];
	if (e->to || e->from->dead || e->rip != to->rip || !edge_direct(e, to) ||
	    e->at + 4 != j->hot.p || e->at[-1] != 0xe9 ||
	    e->from->code_end - e->from->code < 2 * JUMP_LEN)
		return false;
	j->hot.p -= JUMP_LEN;
	e->from->code_end -= JUMP_LEN;
	e->inlined = true;
	return true;
}

void edge_link(struct jit *j, struct edge *e, struct trans *to)
{
	const uint8_t *entry = to->entry;

	if (!edge_direct(e, to)) {
		if (!to->entry_tok)
			entry_tok_make(j, to);
		if (!to->entry_tok)
			return;
		entry = to->entry_tok;
	}
	e->to = to;
	e->next_in = to->in;
	to->in = e;
	if (!e->inlined)
		edge_patch(j, e, entry);
	j->stats.chains++;
}

void edge_unlink(struct jit *j, struct edge *e)
{
	struct edge **p;

	if (!e->to)
		return;
	for (p = &e->to->in; *p != e; p = &(*p)->next_in)
		;
	*p = e->next_in;
	e->to = NULL;
	e->next_in = NULL;
	edge_patch(j, e, e->cold);
}

void trans_kill(struct jit *j, struct trans *t)
{
	uint8_t **slot = &j->table[t->keyid * JIT_TABLE + (t->rip & 0xffff)];

	if (t->dead)
		return;
	t->dead = true;
	for (struct edge *e = t->in, *next; e; e = next) {
		next = e->next_in;
		e->to = NULL;
		e->next_in = NULL;
		if (e->inlined) {
			e->at[-1] = 0xe9;
			t->headless = true;
		}
		e->inlined = false;
		edge_patch(j, e, e->cold);
		j->stats.unchains++;
	}
	t->in = NULL;
	if (t->entry_ind && *slot == t->entry_ind)
		*slot = j->stub_dispatch;
	for (struct trans **p = (struct trans **)&t->b->jit; *p; p = &(*p)->next)
		if (*p == t) {
			*p = t->next;
			break;
		}
	j->stats.invalidations++;
}

void jit_block_dead(struct soft_cpu *cpu, struct block *b)
{
	while (b->jit)
		trans_kill(cpu->jit, b->jit);
}

static void kill_on_page(struct jit *j, unsigned k, uint64_t page, uint64_t lo, uint64_t hi)
{
	struct trans **p = &j->by_page[k * BY_PAGE + (page >> 12) % BY_PAGE], *t;

	while ((t = *p)) {
		if (!t->dead && t->page[k] == page && lo < t->hi[k] && hi > t->lo[k])
			trans_kill(j, t);
		if (t->dead)
			*p = t->page_next[k];
		else
			p = &t->page_next[k];
	}
}

void jit_code_changed(struct soft_cpu *cpu, uint64_t gpa, uint64_t len)
{
	for (uint64_t page = gpa & MMU_PAGE_MASK; page < gpa + len; page += 4096)
		for (unsigned k = 0; k < 2; k++)
			kill_on_page(cpu->jit, k, page, gpa, gpa + len);
}
