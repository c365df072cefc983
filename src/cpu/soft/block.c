/*
 * The block cache of one vCPU: see struct block in soft.h and the protocol of
 * code pages in smp.h.
 *
 * Invariants
 * - A page record exists from the claim of its page to the release; every block
 *   is in the lists of the one or two pages it lies in and in the hash, or stale. A
 *   page without blocks, left so when the cache was full, goes when it is written.
 * - Dropping a block only unlinks it: it may be running. block_reap() frees.
 * - Bytes are read after their pages were claimed, so that no write between the
 *   two goes unnoticed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/soft/jit/jit.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/smp.h"

#define HASH_BITS  17
#define PAGE_BITS  12
#define FRONT_BITS 13
#define CACHE_MAX  (128 * MiB) /* decoded blocks of one vCPU */
/*
 * Decoded between two looks for blocks that did not run since: much of what a boot runs
 * is run once. The translator's tier only; the other has nothing but these.
 */
#define FRESH_MAX  (2 * MiB)
#define NO_PAGE    (~UINT64_C(0))

struct code_page {
	uint64_t gpa;
	struct block *first;
	struct code_page *next;
};

/* A recent block of one page, found without touching the blocks it is not. */
struct front {
	uint64_t key; /* front_key() */
	struct block *b;
};

struct block_cache {
	struct front front[1u << FRONT_BITS];
	struct block *hash[1u << HASH_BITS];
	struct code_page *page[1u << PAGE_BITS];
	struct block *dead;
	size_t bytes, fresh;
	struct insn scratch[BLOCK_MAX];
};

static unsigned hash_index(uint64_t gpa)
{
	return (gpa ^ gpa >> HASH_BITS) & ((1u << HASH_BITS) - 1);
}

static uint64_t front_key(uint64_t gpa, unsigned mode)
{
	return gpa << 2 | mode;
}

static struct front *front_slot(struct block_cache *c, uint64_t gpa)
{
	return &c->front[(gpa ^ gpa >> FRONT_BITS) & ((1u << FRONT_BITS) - 1)];
}

static void front_clear(struct block_cache *c)
{
	memset(c->front, 0xff, sizeof(c->front)); /* no such key: mode 3 */
}

static struct code_page **page_slot(struct block_cache *c, uint64_t gpa)
{
	return &c->page[(gpa >> 12 ^ gpa >> (12 + PAGE_BITS)) &
			((1u << PAGE_BITS) - 1)];
}

static struct code_page *page_find(struct block_cache *c, uint64_t gpa)
{
	struct code_page *p = *page_slot(c, gpa);

	while (p && p->gpa != gpa)
		p = p->next;
	return p;
}

int block_create(struct soft_cpu *cpu)
{
	cpu->blocks = calloc(1, sizeof(*cpu->blocks));
	if (!cpu->blocks)
		return -ENOMEM;
	front_clear(cpu->blocks);
	return 0;
}

static size_t block_size(const struct block *b)
{
	return sizeof(*b) + b->n * sizeof(b->insn[0]);
}

static void block_free(struct soft_cpu *cpu, struct block *b)
{
	for (unsigned i = 0; i < b->n; i++)
		if (b->insn[i].aux)
			native_release(cpu, &b->insn[i]);
	free(b);
}

void block_reap(struct soft_cpu *cpu)
{
	struct block_cache *c = cpu->blocks;
	struct block *b;

	while ((b = c->dead)) {
		c->dead = b->hash_next;
		block_free(cpu, b);
	}
}

/* Which of the block's pages this is. */
static unsigned page_number(const struct block *b, uint64_t page)
{
	return b->page[0] == page ? 0 : 1;
}

static void page_release(struct soft_cpu *cpu, struct code_page *p)
{
	struct code_page **pp = page_slot(cpu->blocks, p->gpa);

	while (*pp != p)
		pp = &(*pp)->next;
	*pp = p->next;
	smp_code_release(cpu, p->gpa);
	free(p);
}

static struct code_page *unlink_page(
    struct soft_cpu *cpu, struct block *b, unsigned k)
{
	struct code_page *p = page_find(cpu->blocks, b->page[k]);
	struct block **bp = &p->first;

	while (*bp != b)
		bp = &(*bp)->page_next[page_number(*bp, p->gpa)];
	*bp = b->page_next[k];
	return p;
}

static void unlink_hash(struct block_cache *c, struct block *b)
{
	struct block **bp = &c->hash[hash_index(b->gpa)];

	while (*bp != b)
		bp = &(*bp)->hash_next;
	*bp = b->hash_next;
	if (front_slot(c, b->gpa)->b == b)
		front_slot(c, b->gpa)->key = NO_PAGE;
}

static void bury(struct soft_cpu *cpu, struct block *b)
{
	struct block_cache *c = cpu->blocks;

	b->stale = true;
	if (b->jit && cpu->block_dropped)
		cpu->block_dropped(cpu, b);
	if (cpu->block == b)
		cpu->stop_block = true;
	b->hash_next = c->dead;
	c->dead = b;
}

/* Its pages stay claimed or, if it was their last block, not. */
static void drop(struct soft_cpu *cpu, struct block *b, bool keep)
{
	unlink_hash(cpu->blocks, b);
	for (unsigned k = 0; k < 2 && b->page[k] != NO_PAGE; k++) {
		struct code_page *p = unlink_page(cpu, b, k);

		if (!p->first && !keep)
			page_release(cpu, p);
	}
	cpu->blocks->bytes -= block_size(b);
	cpu->stats.invalidations++;
	bury(cpu, b);
}

static bool overlaps(
    const struct block *b, uint64_t page, uint64_t gpa, uint64_t end)
{
	uint64_t first = MEMORY_PAGE - (b->gpa & (MEMORY_PAGE - 1)), lo, hi;

	if (page == b->page[0]) {
		lo = b->gpa;
		hi = lo + MIN(first, (uint64_t)b->bytes);
	} else {
		lo = page;
		hi = lo + (b->bytes - first);
	}
	return lo < end && gpa < hi;
}

static void invalidate_page(
    struct soft_cpu *cpu, uint64_t page, uint64_t gpa, uint64_t end)
{
	struct code_page *p = page_find(cpu->blocks, page);
	struct block *b = p ? p->first : NULL, *next;

	for (; b; b = next) {
		next = b->page_next[page_number(b, page)];
		if (overlaps(b, page, gpa, end))
			drop(cpu, b, false);
	}
	p = page_find(cpu->blocks, page);
	if (p && !p->first)
		page_release(cpu, p);
}

void block_invalidate(struct soft_cpu *cpu, uint64_t gpa, uint64_t len)
{
	uint64_t end = gpa + len, page = gpa & MMU_PAGE_MASK;

	if (!len)
		return;
	if (cpu->jit)
		jit_code_changed(cpu, gpa, len);
	if (len / MEMORY_PAGE > 1u << PAGE_BITS) {
		block_flush(cpu);
		return;
	}
	for (; page < end; page += MEMORY_PAGE)
		invalidate_page(cpu, page, gpa, end);
}

static void bury_all(struct soft_cpu *cpu)
{
	struct block_cache *c = cpu->blocks;

	front_clear(c);
	for (unsigned i = 0; i < ARRAY_SIZE(c->hash); i++) {
		struct block *b;

		while ((b = c->hash[i])) {
			c->hash[i] = b->hash_next;
			cpu->stats.invalidations++;
			bury(cpu, b);
		}
	}
	c->bytes = 0;
}

void block_flush(struct soft_cpu *cpu)
{
	struct block_cache *c = cpu->blocks;

	bury_all(cpu);
	for (unsigned i = 0; i < ARRAY_SIZE(c->page); i++)
		while (c->page[i])
			page_release(cpu, c->page[i]);
}

static bool lies_at(const struct block *b, const uint64_t *offset)
{
	for (unsigned i = 0; i < b->bytes; i++) {
		unsigned at = (b->gpa + i) & (MEMORY_PAGE - 1);

		if (offset[at / 64] >> at % 64 & 1)
			return true;
	}
	return false;
}

void block_drop_at(
    struct soft_cpu *cpu, const uint64_t offset[static MEMORY_PAGE / 64])
{
	struct block_cache *c = cpu->blocks;

	for (unsigned i = 0; i < ARRAY_SIZE(c->hash); i++) {
		struct block *b = c->hash[i], *next;

		for (; b; b = next) {
			next = b->hash_next;
			if (lies_at(b, offset))
				drop(cpu, b, false);
		}
	}
}

/* The cache is full. Its pages stay claimed: claiming each again would cost more. */
static void block_evict(struct soft_cpu *cpu)
{
	struct block_cache *c = cpu->blocks;

	bury_all(cpu);
	for (unsigned i = 0; i < ARRAY_SIZE(c->page); i++)
		for (struct code_page *p = c->page[i]; p; p = p->next)
			p->first = NULL;
}

/* Drops what the translator has not taken and nobody ran since the last time. */
static void block_age(struct soft_cpu *cpu)
{
	struct block_cache *c = cpu->blocks;

	c->fresh = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(c->hash); i++) {
		struct block *b = c->hash[i], *next;

		for (; b; b = next) {
			next = b->hash_next;
			if (!b->jit && b->seen == (uint16_t)b->runs)
				drop(cpu, b, true);
			b->seen = (uint16_t)b->runs;
		}
	}
}

void block_destroy(struct soft_cpu *cpu)
{
	if (!cpu->blocks)
		return;
	block_flush(cpu);
	block_reap(cpu);
	free(cpu->blocks);
	cpu->blocks = NULL;
}

/* Claims a page unless this vCPU has it. False: no memory. */
static bool page_claim(struct soft_cpu *cpu, uint64_t gpa)
{
	struct block_cache *c = cpu->blocks;
	struct code_page *p, **slot;

	if (page_find(c, gpa))
		return true;
	smp_code_claim(cpu, gpa);
	p = malloc(sizeof(*p));
	if (!p) {
		smp_code_release(cpu, gpa);
		return false;
	}
	slot = page_slot(c, gpa);
	*p = (struct code_page){ .gpa = gpa, .next = *slot };
	*slot = p;
	return true;
}

static void insert(struct soft_cpu *cpu, struct block *b)
{
	struct block_cache *c = cpu->blocks;
	struct block **slot = &c->hash[hash_index(b->gpa)];

	b->hash_next = *slot;
	*slot = b;
	for (unsigned k = 0; k < 2 && b->page[k] != NO_PAGE; k++) {
		struct code_page *p = page_find(c, b->page[k]);

		b->page_next[k] = p->first;
		p->first = b;
	}
	c->bytes += block_size(b);
	c->fresh += block_size(b);
}

/* A block of the n scratch instructions; NULL: no memory. */
static struct block *make(
    struct soft_cpu *cpu, uint64_t gpa, uint64_t page1, unsigned n)
{
	const struct insn *in = cpu->blocks->scratch;
	struct block *b = malloc(sizeof(*b) + n * sizeof(*in));

	if (!b) {
		for (unsigned i = 0; i < n; i++)
			if (in[i].aux)
				native_release(cpu, &cpu->blocks->scratch[i]);
		return NULL;
	}
	*b = (struct block){
		.gpa = gpa,
		.page = { gpa & MMU_PAGE_MASK, page1 },
		.mode = cpu->mode,
		.stop = debugger_marks(cpu->engine, gpa),
		.n = n,
	};
	for (unsigned i = 0; i < n; i++)
		b->bytes += in[i].len;
	memcpy(b->insn, in, n * sizeof(*in));
	cpu->stats.block_misses++;
	return b;
}

/* A block for one use. It is dead at once and freed when the loop comes round. */
static struct block *make_single(struct soft_cpu *cpu, uint64_t gpa)
{
	struct block *b = make(cpu, gpa, NO_PAGE, 1);

	if (b)
		bury(cpu, b);
	return b;
}

/*
 * The single instruction at lin that does not lie in one page of RAM, or must be
 * looked at alone. Raises when its bytes cannot be fetched.
 */
static struct block *decode_single(struct soft_cpu *cpu, uint64_t lin)
{
	uint8_t buf[15] = { 0 };
	uint64_t gpa[2];
	unsigned got = mmu_fetch(cpu, lin, buf, sizeof(buf), gpa);

	if (insn_decode(cpu, &cpu->blocks->scratch[0], buf, got, cpu->mode) ==
	    -EAGAIN)
		mmu_code_gpa(cpu, (lin | 0xfff) + 1);
	return make_single(cpu, gpa[0] | (lin & 0xfff));
}

/* The one instruction at lin that crosses into the next page. */
static struct block *decode_crossing(
    struct soft_cpu *cpu, uint64_t lin, uint64_t gpa)
{
	struct block_cache *c = cpu->blocks;
	uint64_t page[2] = { gpa & MMU_PAGE_MASK,
		mmu_code_gpa(cpu, (lin | 0xfff) + 1) & MMU_PAGE_MASK };
	unsigned first = MEMORY_PAGE - (lin & 0xfff);
	struct block *b;
	uint8_t buf[15];

	if (!memory_is_ram(cpu->mem, page[1], MEMORY_PAGE))
		return decode_single(cpu, lin);
	/* A claim may let requests in, and they may take the other page back. */
	while (!page_find(c, page[0]) || !page_find(c, page[1]))
		if (!page_claim(cpu, page[0]) || !page_claim(cpu, page[1]))
			return NULL;
	memcpy(buf, cpu->mem->base + gpa, first);
	memcpy(buf + first, cpu->mem->base + page[1], sizeof(buf) - first);
	/*
	 * Another CPU may have rewritten it since it was found too long for one
	 * page.
	 */
	insn_decode(cpu, &c->scratch[0], buf, sizeof(buf), cpu->mode);
	b = make(cpu, gpa, c->scratch[0].len > first ? page[1] : NO_PAGE, 1);
	if (b)
		insert(cpu, b);
	return b;
}

static struct block *decode(struct soft_cpu *cpu, uint64_t lin, uint64_t gpa)
{
	struct block_cache *c = cpu->blocks;
	const uint8_t *code = cpu->mem->base + gpa;
	unsigned left = MEMORY_PAGE - (gpa & 0xfff), n = 0;
	struct block *b;

	if (!memory_is_ram(cpu->mem, gpa, 1))
		return decode_single(cpu, lin);
	if (c->bytes > CACHE_MAX) {
		cpu->stats.flushes++;
		block_evict(cpu);
	} else if (c->fresh > FRESH_MAX && cpu->jit) {
		block_age(cpu);
	}
	if (!page_claim(cpu, gpa & MMU_PAGE_MASK))
		return NULL;
	while (n < BLOCK_MAX && left) {
		struct insn *in = &c->scratch[n];
		uint8_t buf[15];
		unsigned have = MIN(left, (unsigned)sizeof(buf));

		if (n && debugger_marks(cpu->engine, MEMORY_PAGE - left))
			break;

		/*
		 * Decoded and kept bytes must be the same even if someone writes
		 * now.
		 */
		memcpy(buf, code, have);
		if (insn_decode(cpu, in, buf, have, cpu->mode) == -EAGAIN)
			break;
		n++;
		if (in->len > left)
			break;
		code += in->len;
		left -= in->len;
		if (in->flags & INSN_END ||
		    (n == 1 && debugger_marks(cpu->engine, gpa)))
			break;
	}
	if (!n && cpu->mode != MODE_64 && lin >= 0xfffff000)
		return decode_single(cpu, lin); /* goes on at 0 */
	if (!n)
		return decode_crossing(cpu, lin, gpa);
	b = make(cpu, gpa, NO_PAGE, n);
	if (b)
		insert(cpu, b);
	return b;
}

/* The second page of a block may be mapped elsewhere now than when it was made. */
static bool second_page_matches(
    struct soft_cpu *cpu, const struct block *b, uint64_t lin)
{
	return mmu_code(cpu, (lin | 0xfff) + 1) == b->page[1];
}

static struct block *find(struct soft_cpu *cpu, uint64_t lin, uint64_t gpa)
{
	struct block *b = cpu->blocks->hash[hash_index(gpa)];

	for (; b; b = b->hash_next) {
		if (b->gpa != gpa || b->mode != cpu->mode)
			continue;
		if (likely(b->page[1] == NO_PAGE) ||
		    second_page_matches(cpu, b, lin))
			return b;
	}
	return NULL;
}

/* Near or beyond the code segment's limit: one instruction at a time. */
static struct block *at_limit(struct soft_cpu *cpu, uint64_t lin)
{
	const struct soft_seg *cs = &cpu->seg[SEG_CS];
	struct block *b;

	if (cpu->rip > cs->limit)
		cpu_gp(cpu);
	b = decode_single(cpu, lin);
	if (b && cpu->rip + b->bytes - 1 > cs->limit)
		cpu_gp(cpu);
	return b;
}

struct block *block_get(struct soft_cpu *cpu)
{
	const struct soft_seg *cs = &cpu->seg[SEG_CS];
	uint64_t lin = cpu->rip, gpa;
	struct front *front;
	struct block *b;

	if (cpu->mode != MODE_64) {
		lin = (uint32_t)(cs->base + lin);
		if (cpu->rip > cs->limit)
			cpu_gp(cpu);
	}
	gpa = mmu_code(cpu, lin);
	front = front_slot(cpu->blocks, gpa);
	if (likely(front->key == front_key(gpa, cpu->mode))) {
		b = front->b;
	} else {
		b = find(cpu, lin, gpa);
		if (unlikely(!b))
			b = decode(cpu, lin, gpa);
		if (b && !b->stale && b->page[1] == NO_PAGE)
			*front = (struct front){ front_key(gpa, cpu->mode), b };
	}
	if (b && cpu->mode != MODE_64 && cpu->rip + b->bytes - 1 > cs->limit)
		b = at_limit(cpu, lin);
	return b;
}

void code_written(struct soft_cpu *cpu, uint64_t gpa, uint64_t len)
{
	uint64_t last = (gpa + len - 1) >> 12;

	block_invalidate(cpu, gpa, len);
	if (cpu->engine->ncpu > 1 && (atomic_load(&cpu->mem->code[gpa >> 12]) ||
					 atomic_load(&cpu->mem->code[last])))
		smp_code_written(cpu->engine, cpu, gpa, len);
}
