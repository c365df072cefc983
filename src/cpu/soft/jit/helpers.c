/*
 * The C side of the translator: what generated code calls with its state stored,
 * and the seam to the run loop.
 *
 * A helper returns the host address to go on at, with cpu's registers loaded
 * again, or NULL to return to the run loop. cpu->rip is exact in both cases.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cpu/soft/jit/lockstep.h"
#include "cpu/soft/sys.h"
#include "lib/config.h"
#include "lib/log.h"

/*
 * Runs of a block before it is translated: half of what a boot runs at all runs less
 * often, and translating takes as long as interpreting a block twenty times.
 */
#define THRESHOLD 8

uint64_t jit_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

/* The translation of b at cpu->rip; NULL: not yet, or not for us. */
static struct trans *trans_get(struct jit *j, struct block *b)
{
	struct soft_cpu *cpu = j->cpu;
	struct trans *t;
	uint64_t start;

	for (t = b->jit; t; t = t->next)
		if (t->rip == cpu->rip && t->keyid == j->keyid && !t->second)
			return t;
	if (b->stale || ++b->runs < j->threshold)
		return NULL;
	if (!cache_room(j))
		cache_flush(j);
	start = jit_now_ns();
	t = translate(j, b, cpu->rip, j->keyid, false);
	j->stats.time_ns += jit_now_ns() - start;
	if (j->perfmap)
		fprintf(j->perfmap, "%lx %x guest_%lx\n",
		    (unsigned long)(uintptr_t)(j->code_rx + t->code), t->code_end - t->code,
		    (unsigned long)t->rip);
	return t;
}

/* The mapping of t's pages was just looked up: say so to who checks tokens. */
static void validate(struct jit *j, struct trans *t)
{
	const struct soft_cpu *cpu = j->cpu;

	for (int i = 0; i < 2; i++) {
		const struct tlb_entry *e;
		uint64_t va;

		if (t->tok[i] < 0 || j->tok_valid[t->tok[i]])
			continue;
		va = j->tokens[t->tok[i]].va;
		e = tlb_slot(cpu, mmu_code_idx(cpu), va);
		if (e->tag_x == va && e->gpa == t->page[i])
			token_validate(j, t->tok[i], e->global);
	}
}

/* What runs at cpu->rip, for the edge to be linked to it; NULL: leave. */
static struct trans *find(struct jit *j, uint32_t edge)
{
	struct soft_cpu *cpu = j->cpu;
	struct block *b;
	struct trans *t;

	if (shake_due(j) && shake_between(j))
		edge = EDGE_NONE;
	if (jit_must_leave(cpu) || !jit_use_key(j))
		return NULL;
	b = block_get(cpu);
	if (!b || b->stop || jit_must_leave(cpu))
		return NULL;
	j->linking = edge;
	t = trans_get(j, b);
	j->linking = EDGE_NONE;
	if (t)
		validate(j, t);
	return t;
}

/* Going on at cpu->rip by whatever it takes. */
static const uint8_t *go(struct jit *j)
{
	struct trans *t = find(j, EDGE_NONE);
	uint8_t **slot;

	if (!t)
		return NULL;
	if (!t->entry_ind)
		entry_ind_make(j, t);
	if (t->entry_ind) {
		slot = &j->table[j->keyid * JIT_TABLE + (t->rip & 0xffff)];
		*slot = t->entry_ind;
	}
	return t->entry;
}

/* Going on at cpu->rip by the table: its entries check everything themselves. */
static const uint8_t *go_fast(struct jit *j)
{
	if (jit_must_leave(j->cpu) || !jit_use_key(j))
		return NULL;
	return j->table[j->keyid * JIT_TABLE + (j->cpu->rip & 0xffff)];
}

const uint8_t *jit_h_dispatch(struct jit *j, uint32_t unused, uint64_t rip)
{
	(void)unused;
	j->stats.dispatches++;
	jit_fpu_save(j);
	j->cpu->rip = rip;
	return go(j);
}

const uint8_t *jit_h_poll(struct jit *j, uint32_t edge, uint64_t unused)
{
	(void)unused;
	j->stats.exits++;
	jit_fpu_save(j);
	j->cpu->rip = j->edges[edge].rip;
	return NULL;
}

const uint8_t *jit_h_link(struct jit *j, uint32_t edge, uint64_t unused)
{
	struct edge *e = &j->edges[edge];
	uint64_t flushes = j->stats.flushes;
	struct trans *t;

	(void)unused;
	jit_fpu_save(j);
	j->cpu->rip = e->rip;
	t = find(j, edge);
	if (!t)
		return NULL;
	if (j->stats.flushes == flushes && !e->to)
		edge_link(j, e, t);
	return t->entry;
}

static uint64_t site_rip(const struct site *s)
{
	return s->t->rip + s->off;
}

/* An indirect call whose target (pushed for already) is not the one it is linked to. */
const uint8_t *jit_h_icall(struct jit *j, uint32_t icall, uint64_t rip)
{
	struct icall *ic = &j->icalls[icall];
	struct edge *e = &j->edges[ic->edge];
	uint64_t flushes = j->stats.flushes;
	const uint8_t *entry;

	j->stats.dispatches++;
	jit_fpu_save(j);
	j->cpu->rip = rip;
	entry = go(j);
	if (!entry || j->stats.flushes != flushes)
		return entry;
	if (++ic->tries > ICALL_TRIES) {
		code_patch(j, ic->miss, ic->generic);
		return ic->generic;
	}
	edge_unlink(j, e);
	e->rip = ic->rip = rip;
	return ic->call;
}

/*
 * A call is about to be made whose return address has code that reads flags: from now
 * on they are kept across calls and returns under this key.
 */
const uint8_t *jit_h_exact(struct jit *j, uint32_t site, uint64_t unused)
{
	(void)unused;
	j->cpu->rip = site_rip(&j->sites[site]);
	jit_fpu_save(j);
	j->exact[j->keyid] = true;
	j->stats.exact++;
	cache_flush(j);
	return NULL;
}

static const uint8_t *interpret(struct jit *j, const struct site *site)
{
	struct soft_cpu *cpu = j->cpu;
	struct trans *t = site->t;
	struct block *b = t->b;
	unsigned i = site->insn;
	const struct insn *in = &b->insn[i];
	uint64_t epoch = j->epoch;
	uint64_t next = (cpu->rip + in->len) & cpu->rip_mask;
	bool last = i + 1 == b->n;

	j->stats.interpreted++;
	jit_fpu_save(j);
	cpu->next_rip = next;
	cpu->block = b;
	cpu->stop_block = false;
	if (j->lock)
		lockstep_insn(j, i);
	in->fn(cpu, in);
	cpu->rip = cpu->next_rip;
	if (shake_due(j))
		shake_within(j, t);
	if (last || cpu->stop_block || cpu->rip != next || t->dead ||
	    j->epoch != epoch)
		return go_fast(j);
	if (j->key[t->keyid] & KEY_COMPAT)
		jit_narrow(cpu);
	if (j->lock)
		lockstep_go_on(j, i + 1);
	if (t->uses_fp)
		jit_fpu_load(j);
	return j->code_rx + t->pc[i + 1];
}

/* From the site's instruction to the end of its block. */
static const uint8_t *interpret_rest(struct jit *j, const struct site *site)
{
	struct soft_cpu *cpu = j->cpu;
	struct block *b = site->t->b;
	const struct insn *first = &b->insn[site->insn], *in = first, *end = &b->insn[b->n];

	jit_fpu_save(j);
	cpu->block = b;
	cpu->stop_block = false;
	do {
		uint64_t next = (cpu->rip + in->len) & cpu->rip_mask;

		j->stats.interpreted++;
		if (j->lock && in != first)
			lockstep_go_on(j, in - b->insn);
		cpu->next_rip = next;
		if (j->lock)
			lockstep_insn(j, in - b->insn);
		in->fn(cpu, in);
		cpu->rip = cpu->next_rip;
		if (cpu->rip != next)
			break;
	} while (++in != end && !cpu->stop_block);
	return go_fast(j);
}

const uint8_t *jit_h_interp(struct jit *j, uint32_t site, uint64_t unused)
{
	(void)unused;
	j->cpu->rip = site_rip(&j->sites[site]);
	/* Behind an instruction that does not expect to be interpreted T1 is in use. */
	if (site == SITE_FAULT)
		return interpret_rest(j, &j->sites[site]);
	return interpret(j, &j->sites[site]);
}

/*
 * A check for several accesses failed. When its span cannot be had at all - the stack
 * crosses a page just here, at this depth of a recursion - a second translation
 * without groups does the rest of the block; when that is what mostly happens, the
 * block is better off with that one alone.
 */
static const uint8_t *group_slow(struct jit *j, uint32_t site, uint64_t addr)
{
	struct trans *t = j->sites[site].t;
	uint64_t flushes = j->stats.flushes, epoch = j->epoch, now;
	const uint8_t *to;
	bool often;

	j->stats.group_misses++;
	to = interpret_rest(j, &j->sites[site]);
	if (j->stats.flushes != flushes || t->dead || jit_slot_fill(j, site, addr))
		return to;
	if (t->crossings < CROSSINGS)
		t->crossings++;
	if (!t->plain) {
		/* What is looked at beyond the block must be what t saw. */
		if (t->crossings >= CROSSINGS_FEW && to && j->epoch == epoch &&
		    j->keyid == t->keyid && !j->lock && cache_room(j))
			t->plain = translate(j, t->b, t->rip, t->keyid, true);
		return to;
	}
	if (t->crossings < CROSSINGS)
		return to;
	/* Those of the fast helper are counted, too. */
	now = jit_now_ns();
	often = now - t->crossed_ns < CROSSINGS_NS;
	t->crossed_ns = now;
	t->crossings = 0;
	if (!often)
		return to;
	ungroup_set(j, t->b);
	j->stats.ungrouped++;
	trans_kill(j, t);
	/* The table may have named what was just killed. */
	return to ? go_fast(j) : NULL;
}

/*
 * An access the fast helper could not serve: not in the software TLB, or nothing a
 * slot can serve. The interpreter does it, with the exceptions in their right order,
 * and leaves the TLB filled.
 */
const uint8_t *jit_h_slow(struct jit *j, uint32_t site, uint64_t addr)
{
	const struct site *s = &j->sites[site];
	uint64_t flushes = j->stats.flushes;
	const uint8_t *to;

	j->stats.slot_slow++;
	j->cpu->rip = site_rip(s);
	if (j->slots[site].flags & SLOT_GROUP)
		return group_slow(j, site, addr);
	to = interpret(j, s);
	if (j->stats.flushes == flushes && !s->t->dead)
		jit_slot_fill(j, site, addr);
	return to;
}

static void run_block(struct soft_cpu *cpu, struct block *b)
{
	struct jit *j = cpu->jit;
	struct trans *t = NULL;

	if (jit_use_key(j))
		t = trans_get(j, b);
	else
		b->runs++; /* not to be taken for one that nobody runs */
	if (!t) {
		interp_block(cpu, b);
		return;
	}
	validate(j, t);
	if (j->lock) {
		lockstep_run(j, b, t);
		return;
	}
	((void (*)(const uint8_t *))(uintptr_t)j->stub_enter)(t->entry);
}

/* For perf(1): the file it looks for, one for all vCPUs of the process. */
static void perfmap_open(struct jit *j)
{
	char path[32];

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	j->perfmap = fopen(path, "a");
	if (!j->perfmap)
		return;
	setvbuf(j->perfmap, NULL, _IOLBF, 0);
	fprintf(j->perfmap, "%lx %lx jit_stubs\n", (unsigned long)(uintptr_t)j->code_rx,
	    (unsigned long)(j->hot_start - j->code_rw));
	fprintf(j->perfmap, "%lx %lx jit_cold\n",
	    (unsigned long)(uintptr_t)(j->code_rx + JIT_HOT_SIZE),
	    (unsigned long)JIT_COLD_SIZE);
}

int jit_create(struct soft_cpu *cpu)
{
	const struct config *cfg = cpu->engine->cfg.cfg;
	uint64_t threshold = 2, shake = 0;
	bool perfmap = false;
	int rc = cache_create(cpu);
	struct jit *j = cpu->jit;

	if (rc)
		return rc;
	if (cfg && (config_get_bool(cfg, "cpu.perfmap", false, &perfmap) < 0 ||
	    config_get_num(cfg, "cpu.shake", 0, 0, 1000000000, &shake) < 0 ||
	    config_get_num(cfg, "cpu.threshold", THRESHOLD, 1, 1000000, &threshold) < 0)) {
		cache_destroy(j);
		cpu->jit = NULL;
		return -EINVAL;
	}
	rc = cpu->engine->lockstep ? lockstep_create(j) : 0;
	if (rc) {
		cache_destroy(j);
		cpu->jit = NULL;
		return rc;
	}
	j->threshold = threshold;
	j->shake = j->shake_left = shake;
	j->shake_seed = cpu->id + 1;
	stubs_make(j);
	if (perfmap)
		perfmap_open(j);
	cpu->run_block = run_block;
	cpu->block_dropped = jit_block_dead;
	j->nsites = SITE_FAULT + 1;
	j->linking = EDGE_NONE;
	return 0;
}

static void log_stat(void *arg, const char *name, uint64_t value)
{
	const struct soft_cpu *cpu = arg;

	log_info("vCPU %u: %s: %llu", cpu->id, name, (unsigned long long)value);
}

void jit_destroy(struct soft_cpu *cpu)
{
	if (!cpu->jit)
		return;
	if (cpu->jit->perfmap)
		jit_stats(cpu, log_stat, cpu);
	cache_flush(cpu->jit);
	if (cpu->jit->perfmap)
		fclose(cpu->jit->perfmap);
	lockstep_destroy(cpu->jit);
	cache_destroy(cpu->jit);
	cpu->jit = NULL;
}

int jit_thread_start(struct soft_cpu *cpu)
{
	return jit_signals_on(cpu->jit);
}

void jit_thread_stop(struct soft_cpu *cpu)
{
	jit_signals_off(cpu->jit);
}

void jit_stats(struct soft_cpu *cpu, engine_stat_fn *fn, void *arg)
{
	const struct jit_stats *s = &cpu->jit->stats;

	fn(arg, "jit blocks translated", s->translations);
	fn(arg, "jit instructions translated", s->insns);
	fn(arg, "jit bytes of code", s->bytes);
	fn(arg, "jit bytes of cold code", s->cold_bytes);
	fn(arg, "jit nanoseconds in translation", s->time_ns);
	fn(arg, "jit chains", s->chains);
	fn(arg, "jit chains undone", s->unchains);
	fn(arg, "jit blocks invalidated", s->invalidations);
	fn(arg, "jit cache evictions", s->flushes);
	fn(arg, "jit slot misses", s->slot_misses);
	fn(arg, "jit slot misses beyond the TLB", s->slot_slow);
	fn(arg, "jit instructions left to the interpreter", s->fallbacks);
	fn(arg, "jit instructions interpreted", s->interpreted);
	fn(arg, "jit dispatches", s->dispatches);
	fn(arg, "jit exits at polls", s->exits);
	fn(arg, "jit calls that return flags", s->exact);
	fn(arg, "jit sites with a look-up", s->sticky);
	fn(arg, "jit host faults", s->signals);
	fn(arg, "jit vector states loaded", s->fpu_loads);
	fn(arg, "jit vector states saved", s->fpu_saves);
	if (cpu->jit->lock)
		fn(arg, "jit parts of blocks compared", s->compared);
}
