/* Requests between vCPUs and the exclusive section: see smp.h for the protocol. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "cpu/soft/mmu.h"
#include "cpu/soft/smp.h"

#define NOBODY     UINT32_MAX
#define QUEUE_SIZE 32

struct range {
	uint64_t gpa, end;
};

/* One vCPU's side. Written by others under lock, answered by its own thread. */
struct mailbox {
	_Atomic uint32_t inside;
	_Atomic uint32_t posted, answered; /* counts of requests */
	pthread_mutex_t lock;
	unsigned count;
	bool all_code; /* the queue overflowed: drop every block */
	struct range code[QUEUE_SIZE];
	unsigned npages;
	bool all_pages;
	uint64_t page[QUEUE_SIZE]; /* no fast writes any more */
} __attribute__((aligned(64)));

struct exclusive {
	struct mailbox box[64];
	pthread_mutex_t claim; /* one vCPU makes a page a code page at a time */
	pthread_mutex_t section;
	pthread_cond_t changed; /* with state_lock: presence, answers, owner */
	pthread_mutex_t state_lock;
	_Atomic uint32_t owner;
	_Atomic uint32_t waiters; /* threads in changed */
};

int smp_create(struct soft_engine *e)
{
	struct exclusive *x = aligned_alloc(64, ROUND_UP(sizeof(*x), 64));

	if (!x)
		return -ENOMEM;
	*x = (struct exclusive){ .owner = NOBODY };
	pthread_mutex_init(&x->claim, NULL);
	pthread_mutex_init(&x->section, NULL);
	pthread_mutex_init(&x->state_lock, NULL);
	pthread_cond_init(&x->changed, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(x->box); i++)
		pthread_mutex_init(&x->box[i].lock, NULL);
	e->exclusive = x;
	return 0;
}

void smp_destroy(struct soft_engine *e)
{
	struct exclusive *x = e->exclusive;

	if (!x)
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(x->box); i++)
		pthread_mutex_destroy(&x->box[i].lock);
	pthread_cond_destroy(&x->changed);
	pthread_mutex_destroy(&x->state_lock);
	pthread_mutex_destroy(&x->section);
	pthread_mutex_destroy(&x->claim);
	free(x);
	e->exclusive = NULL;
}

static struct mailbox *box_of(const struct soft_cpu *cpu)
{
	return &cpu->engine->exclusive->box[cpu->id];
}

/* Tells waiters that presence, answers or the owner changed; cheap without any. */
static void announce(struct exclusive *x)
{
	if (!atomic_load(&x->waiters))
		return;
	pthread_mutex_lock(&x->state_lock);
	pthread_cond_broadcast(&x->changed);
	pthread_mutex_unlock(&x->state_lock);
}

static void post(
    struct soft_cpu *to, const struct range *code, const uint64_t *page)
{
	struct mailbox *b = box_of(to);

	pthread_mutex_lock(&b->lock);
	if (code && !b->all_code) {
		struct range *last = b->count ? &b->code[b->count - 1] : NULL;

		/* A guest that fills a page stores upwards: one range will do. */
		if (last && code->gpa >= last->gpa && code->gpa <= last->end)
			last->end = MAX(last->end, code->end);
		else if (b->count < QUEUE_SIZE)
			b->code[b->count++] = *code;
		else
			b->all_code = true;
	}
	if (page) {
		if (b->npages < QUEUE_SIZE)
			b->page[b->npages++] = *page;
		else
			b->all_pages = true;
	}
	atomic_fetch_add(&b->posted, 1);
	pthread_mutex_unlock(&b->lock);
	atomic_fetch_or(&to->link.events, EV_ENGINE);
}

/* Does what was asked of cpu; by its own thread. */
static void answer(struct soft_cpu *cpu)
{
	struct mailbox *b = box_of(cpu);
	struct range code[QUEUE_SIZE];
	uint64_t page[QUEUE_SIZE];
	unsigned count, npages;
	bool all_code, all_pages;
	uint32_t upto;

	if (atomic_load(&b->posted) == atomic_load(&b->answered))
		return;
	pthread_mutex_lock(&b->lock);
	upto = atomic_load(&b->posted);
	count = b->count;
	npages = b->npages;
	all_code = b->all_code;
	all_pages = b->all_pages;
	for (unsigned i = 0; i < count; i++)
		code[i] = b->code[i];
	for (unsigned i = 0; i < npages; i++)
		page[i] = b->page[i];
	b->count = b->npages = 0;
	b->all_code = b->all_pages = false;
	pthread_mutex_unlock(&b->lock);

	if (all_code)
		block_flush(cpu);
	for (unsigned i = 0; i < count && !all_code; i++)
		block_invalidate(cpu, code[i].gpa, code[i].end - code[i].gpa);
	if (all_pages)
		mmu_flush_all(cpu);
	for (unsigned i = 0; i < npages && !all_pages; i++)
		mmu_drop_write(cpu, page[i]);
	atomic_store(&b->answered, upto);
	announce(cpu->engine->exclusive);
}

/* While an other vCPU is in an exclusive section, with cpu outside. */
static void wait_section(struct exclusive *x, struct soft_cpu *cpu)
{
	pthread_mutex_lock(&x->state_lock);
	atomic_fetch_add(&x->waiters, 1);
	for (;;) {
		uint32_t owner = atomic_load(&x->owner);

		if (owner == NOBODY || owner == cpu->id)
			break;
		pthread_cond_wait(&x->changed, &x->state_lock);
	}
	atomic_fetch_sub(&x->waiters, 1);
	pthread_mutex_unlock(&x->state_lock);
}

bool smp_leave(struct soft_cpu *cpu)
{
	bool was = atomic_exchange(&box_of(cpu)->inside, 0);

	announce(cpu->engine->exclusive);
	return was;
}

void smp_enter(struct soft_cpu *cpu)
{
	struct exclusive *x = cpu->engine->exclusive;
	struct mailbox *b = box_of(cpu);

	for (;;) {
		uint32_t owner;

		atomic_store(&b->inside, 1);
		owner = atomic_load(&x->owner);
		if (likely(owner == NOBODY || owner == cpu->id))
			break;
		smp_leave(cpu);
		wait_section(x, cpu);
	}
	answer(cpu);
}

void smp_answer(struct soft_cpu *cpu)
{
	struct exclusive *x = cpu->engine->exclusive;
	uint32_t owner;

	atomic_fetch_and(&cpu->link.events, ~EV_ENGINE);
	answer(cpu);
	owner = atomic_load(&x->owner);
	if (owner != NOBODY && owner != cpu->id) {
		smp_leave(cpu);
		smp_enter(cpu);
	}
}

/* Waits until other is outside or has answered what was posted; cpu is outside. */
static void wait_for(
    struct exclusive *x, struct mailbox *other, uint32_t ticket, bool outside_only)
{
	for (;;) {
		if (!atomic_load(&other->inside))
			return;
		if (!outside_only &&
		    (int32_t)(atomic_load(&other->answered) - ticket) >= 0)
			return;
		pthread_mutex_lock(&x->state_lock);
		atomic_fetch_add(&x->waiters, 1);
		if (atomic_load(&other->inside) &&
		    (outside_only ||
			(int32_t)(atomic_load(&other->answered) - ticket) < 0))
			pthread_cond_wait(&x->changed, &x->state_lock);
		atomic_fetch_sub(&x->waiters, 1);
		pthread_mutex_unlock(&x->state_lock);
	}
}

void smp_code_written(
    struct soft_engine *e, struct soft_cpu *but, uint64_t gpa, uint64_t len)
{
	struct range r = { gpa, gpa + len };

	for (unsigned i = 0; i < e->ncpu; i++)
		if (e->cpu[i] && e->cpu[i] != but)
			post(e->cpu[i], &r, NULL);
}

static void claim_all(struct soft_cpu *cpu, uint64_t gpa)
{
	struct soft_engine *e = cpu->engine;
	struct exclusive *x = e->exclusive;
	uint32_t ticket[64];

	smp_leave(cpu);
	pthread_mutex_lock(&x->claim);
	if (atomic_fetch_add(&cpu->mem->code[gpa >> 12], 1) == 0) {
		for (unsigned i = 0; i < e->ncpu; i++) {
			if (!e->cpu[i] || e->cpu[i] == cpu)
				continue;
			post(e->cpu[i], NULL, &gpa);
			ticket[i] = atomic_load(&x->box[i].posted);
		}
		for (unsigned i = 0; i < e->ncpu; i++)
			if (e->cpu[i] && e->cpu[i] != cpu)
				wait_for(x, &x->box[i], ticket[i], false);
	}
	pthread_mutex_unlock(&x->claim);
	smp_enter(cpu);
}

void smp_code_claim(struct soft_cpu *cpu, uint64_t gpa)
{
	if (cpu->engine->ncpu > 1)
		claim_all(cpu, gpa);
	else
		atomic_fetch_add(&cpu->mem->code[gpa >> 12], 1);
	mmu_drop_write(cpu, gpa);
}

void smp_code_release(struct soft_cpu *cpu, uint64_t gpa)
{
	atomic_fetch_sub(&cpu->mem->code[gpa >> 12], 1);
}

void cpu_exclusive_begin(struct soft_cpu *cpu)
{
	struct soft_engine *e = cpu->engine;
	struct exclusive *x = e->exclusive;

	if (e->ncpu == 1)
		return;
	cpu->stats.exclusive++;
	smp_leave(cpu);
	pthread_mutex_lock(&x->section);
	atomic_store(&x->owner, cpu->id);
	for (unsigned i = 0; i < e->ncpu; i++)
		if (e->cpu[i] && e->cpu[i] != cpu)
			atomic_fetch_or(&e->cpu[i]->link.events, EV_ENGINE);
	for (unsigned i = 0; i < e->ncpu; i++)
		if (e->cpu[i] && e->cpu[i] != cpu)
			wait_for(x, &x->box[i], 0, true);
	smp_enter(cpu);
}

void cpu_exclusive_end(struct soft_cpu *cpu)
{
	struct exclusive *x = cpu->engine->exclusive;

	if (cpu->engine->ncpu == 1)
		return;
	atomic_store(&x->owner, NOBODY);
	announce(x);
	pthread_mutex_unlock(&x->section);
}

void smp_abandon(struct soft_cpu *cpu)
{
	if (atomic_load(&cpu->engine->exclusive->owner) == cpu->id)
		cpu_exclusive_end(cpu);
}
