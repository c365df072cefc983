/* Gathers and writes pieces of guest memory (plan.h). */
#include "load/plan.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/util.h"
#include "load/flat.h"
#include "vmm/memory.h"
#include "vmm/vmfile.h"

int plan_init(struct plan *p, uint64_t memory, struct load_error *e)
{
	*p = (struct plan){
		.memory = memory,
		.low = MIN(memory, MEMORY_LOW_LIMIT),
		.end = MiB,
	};
	if (memory <= MiB)
		return load_fail(e,
		    "the guest needs more than 1 MiB of memory; give it more "
		    "with -M");
	uint64_t *gdt = plan_alloc(p, FLAT_GDT_WORDS * 8, e);
	if (gdt == NULL)
		return -EINVAL;
	flat_gdt(gdt, false);
	flat_state(&p->state, false);
	int err = plan_add(p, "the descriptor table", FLAT_GDT, FLAT_GDT_WORDS * 8,
	    gdt, FLAT_GDT_WORDS * 8, e);
	return err != 0 ? err
			: plan_add(p, "the task state", FLAT_TSS, 0x68, NULL, 0, e);
}

void plan_free(struct plan *p)
{
	while (p->owns > 0)
		free(p->owned[--p->owns]);
	p->pieces = 0;
}

int plan_add(struct plan *p, const char *what, uint64_t at, uint64_t size,
    const void *data, size_t len, struct load_error *e)
{
	size = MAX(size, (uint64_t)len);
	if (size == 0)
		return 0;
	if (at > p->low || size > p->low - at)
		return load_fail(e,
		    "%s at %#llx, %llu bytes, does not fit into the guest's memory "
		    "of %llu MiB; give it more with -M",
		    what, (unsigned long long)at, (unsigned long long)size,
		    (unsigned long long)(p->memory / MiB));
	for (unsigned i = 0; i < p->pieces; i++) {
		const struct plan_piece *o = &p->piece[i];
		if (at < o->end && o->at < at + size)
			return load_fail(e, "%s at %#llx lies over %s at %#llx",
			    what, (unsigned long long)at, o->what,
			    (unsigned long long)o->at);
	}
	if (p->pieces == PLAN_PIECES_MAX)
		return load_fail(e, "%s: too many pieces to load", what);
	p->piece[p->pieces++] =
	    (struct plan_piece){ what, at, at + size, data, len };
	p->end = MAX(p->end, at + size);
	return 0;
}

int plan_append(struct plan *p, const char *what, const void *data, size_t len,
    uint64_t *at, struct load_error *e)
{
	*at = ROUND_UP(p->end, (uint64_t)MEMORY_PAGE);
	return plan_add(p, what, *at, len, data, len, e);
}

void *plan_alloc(struct plan *p, size_t len, struct load_error *e)
{
	void *mem = p->owns < PLAN_OWNED_MAX ? calloc(1, len + 1) : NULL;

	if (mem == NULL)
		load_fail(e, "out of memory");
	else
		p->owned[p->owns++] = mem;
	return mem;
}

int plan_write(const struct plan *p, struct vmfile *vf, struct load_error *e)
{
	int err = 0;

	for (unsigned i = 0; err == 0 && i < p->pieces; i++)
		if (p->piece[i].len > 0)
			err = vmfile_write(
			    vf, p->piece[i].at, p->piece[i].data, p->piece[i].len);
	if (err == 0)
		err = vmfile_loaded(vf, &p->state);
	return err == 0 ? 0 : load_write_failed(e, err);
}

unsigned plan_memory_map(const struct plan *p, struct plan_range map[PLAN_RANGES])
{
	unsigned n = 0;

	map[n++] = (struct plan_range){ 0, MIN(p->low, PLAN_LOW_END) };
	if (p->low > MiB)
		map[n++] = (struct plan_range){ MiB, p->low - MiB };
	if (p->memory > p->low)
		map[n++] =
		    (struct plan_range){ MEMORY_HIGH_BASE, p->memory - p->low };
	return n;
}
