/*
 * A testing aid (cpu.shake=N): at every N-th call of a helper something is thrown
 * away that may go at any time - slots, tokens, pairs, entries of the software TLB,
 * translations, all of the cache - or an event is pretended, so that what happens
 * rarely happens all the time. A guest must not notice.
 */
#include "cpu/soft/jit/priv.h"

static uint32_t draw(struct jit *j, uint32_t below)
{
	uint64_t x = j->shake_seed;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	j->shake_seed = x;
	return (uint32_t)(x >> 32) % below;
}

static void pretend_event(struct jit *j)
{
	atomic_fetch_or(&j->cpu->link.events, EV_ENGINE);
}

static void kill_some(struct jit *j)
{
	for (unsigned i = 0; i < 8 && j->ntrans; i++)
		trans_kill(j, &j->trans[draw(j, j->ntrans)]);
}

static void drop_tokens(struct jit *j)
{
	for (unsigned i = 0; i < 8 && j->ntokens; i++)
		token_drop(j, draw(j, j->ntokens));
}

bool shake_between(struct jit *j)
{
	uint64_t flushes = j->stats.flushes;

	switch (draw(j, 64)) {
	case 0:
		cache_flush(j);
		break;
	case 1:
		block_flush(j->cpu);
		break;
	case 2 ... 7:
		mmu_flush_all(j->cpu);
		break;
	case 8 ... 15:
		jit_tlb_flush(j->cpu, draw(j, 2));
		break;
	case 16 ... 27:
		j->rsp = j->pair_top[j->keyid];
		break;
	case 28 ... 39:
		drop_tokens(j);
		break;
	case 40 ... 47:
		kill_some(j);
		break;
	case 48 ... 55:
		shake_slots(j);
		break;
	default:
		pretend_event(j);
	}
	return j->stats.flushes != flushes;
}

void shake_within(struct jit *j, struct trans *t)
{
	switch (draw(j, 8)) {
	case 0:
		jit_tlb_flush(j->cpu, draw(j, 2));
		break;
	case 1:
		trans_kill(j, t);
		break;
	case 2:
		drop_tokens(j);
		break;
	case 3:
		pretend_event(j);
		break;
	default:
		shake_slots(j);
	}
}
