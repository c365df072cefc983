/*
 * What a debugger outside the guest asks of the CPU: breakpoints, watchpoints,
 * steps. Neither guest memory nor guest registers change.
 *
 * Breakpoints cost nothing elsewhere. An instruction whose offset in its page is a
 * breakpoint's is a block of its own, marked "stop", which the translator leaves to
 * the loop in run.c; that asks here whether the linear address is meant. The offset
 * decides because it is the same at every address where a page is mapped: blocks
 * are keyed by physical addresses, breakpoints are linear ones.
 *
 * Watchpoints and steps run instruction by instruction, as with the trap flag or
 * armed debug registers; watched accesses take their way through the slow path.
 */
#include <errno.h>
#include <string.h>

#include "cpu/soft/mmu.h"

void debugger_follow(struct soft_cpu *cpu)
{
	const struct soft_engine *e = cpu->engine;
	uint64_t changed[ARRAY_SIZE(e->stops)];
	bool any = false;

	cpu->debugged = cpu->step_on || e->nwatches != 0;
	mmu_watch_changed(cpu);
	/*
	 * A step needs no blocks of its own kind. Debuggers take a breakpoint away
	 * to step over it and set it again: then nothing has changed.
	 */
	if (cpu->step_on)
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(changed); i++) {
		changed[i] = cpu->stops_seen[i] ^ e->stops[i];
		any |= changed[i] != 0;
	}
	if (any)
		block_drop_at(cpu, changed);
	memcpy(cpu->stops_seen, e->stops, sizeof(cpu->stops_seen));
	cpu->points_seen = e->point_changes;
}

bool debugger_stops(struct soft_cpu *cpu)
{
	const struct soft_engine *e = cpu->engine;
	uint64_t lin = cpu->rip;

	if (cpu->mode != MODE_64)
		lin = (uint32_t)(cpu->seg[SEG_CS].base + lin);
	for (unsigned i = 0; i < e->npoints; i++) {
		if (e->point[i].kind != POINT_EXECUTE || e->point[i].gla != lin)
			continue;
		cpu->stopped = POINT_EXECUTE;
		cpu->stopped_gla = lin;
		return true;
	}
	return false;
}

bool debugger_done(struct soft_cpu *cpu)
{
	if (cpu->watch_hit) {
		cpu->watch_hit = false;
		return true;
	}
	cpu->stopped = POINT_NONE;
	return cpu->step_on;
}

/* The first watchpoint that an instruction touches is the one that is told. */
void debugger_access(struct soft_cpu *cpu, uint64_t lin, unsigned size, bool write)
{
	const struct soft_engine *e = cpu->engine;

	for (unsigned i = 0; i < e->npoints && !cpu->watch_hit; i++) {
		const struct point *p = &e->point[i];

		if (p->kind == POINT_EXECUTE ||
		    p->kind == (write ? POINT_READ : POINT_WRITE))
			continue;
		if (lin - p->gla >= p->len && p->gla - lin >= size)
			continue;
		cpu->stopped = p->kind;
		cpu->stopped_gla = MAX(lin, p->gla);
		cpu->watch_hit = true;
		cpu->stop_block = true;
	}
}

/* Counts and offsets again after a change of the points. */
static void changed(struct soft_engine *e)
{
	memset(e->stops, 0, sizeof(e->stops));
	e->nwatches = 0;
	for (unsigned i = 0; i < e->npoints; i++) {
		unsigned at = e->point[i].gla & (MEMORY_PAGE - 1);

		if (e->point[i].kind == POINT_EXECUTE)
			e->stops[at / 64] |= BIT64(at % 64);
		else
			e->nwatches++;
	}
	e->point_changes++;
}

int debugger_point(struct soft_engine *e, enum engine_point kind, uint64_t gla,
    uint64_t len, bool set)
{
	unsigned i = 0;

	if (kind >= POINT_NONE || (kind != POINT_EXECUTE && len == 0))
		return -EINVAL;
	if (kind == POINT_EXECUTE)
		len = 1;
	while (
	    i < e->npoints && (e->point[i].kind != kind || e->point[i].gla != gla ||
				  e->point[i].len != len))
		i++;
	if (set) {
		if (i < e->npoints)
			return -EEXIST;
		if (i == ARRAY_SIZE(e->point))
			return -ENOSPC;
		e->point[e->npoints++] = (struct point){ gla, len, kind };
	} else {
		if (i == e->npoints)
			return -ENOENT;
		e->point[i] = e->point[--e->npoints];
	}
	changed(e);
	return 0;
}

void debugger_step(struct soft_cpu *cpu, bool on)
{
	cpu->step_on = on;
	cpu->debugged = on || cpu->engine->nwatches != 0;
}
