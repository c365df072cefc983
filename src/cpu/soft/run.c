/*
 * The loop of a vCPU: events, interrupts, debug conditions, then one block.
 *
 * Order of what is looked at between two instructions (SDM vol. 3 table 6-2):
 * the trap flag and data breakpoints of the last instruction are delivered where
 * it ends; then the machine's wishes, NMI, interrupts; instruction breakpoints
 * and fetch faults belong to the next instruction.
 *
 * Faults come back through setjmp(); nothing that outlives an instruction is
 * kept in locals here.
 */
#include "cpu/soft/mmu.h"
#include "cpu/soft/run.h"
#include "cpu/soft/smp.h"
#include "lib/log.h"

#include <Zydis/Mnemonic.h>

#define DR6_BS      0x4000u
#define DR7_ENABLES 0xffu

/* Not a reason to leave run(). */
#define GO_ON ((enum engine_exit) - 1)

void interp_block(struct soft_cpu *cpu, struct block *b)
{
	const struct insn *in = b->insn, *end = in + b->n;
	uint64_t rip = cpu->rip, mask = cpu->rip_mask;

	do {
		cpu->rip = rip;
		rip = (rip + in->len) & mask;
		cpu->next_rip = rip;
		in->fn(cpu, in);
		in++;
	} while (in != end && !cpu->stop_block);
	cpu->rip = cpu->next_rip;
	cpu->stats.insns += in - b->insn;
	cpu->stats.blocks++;
}

/*
 * #DB for the trap flag is not taken after what entered the kernel and cleared it.
 */
static bool enters_kernel(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_INT:
	case ZYDIS_MNEMONIC_INT1:
	case ZYDIS_MNEMONIC_INT3:
	case ZYDIS_MNEMONIC_INTO:
	case ZYDIS_MNEMONIC_SYSCALL:
		return true;
	default:
		return false;
	}
}

static bool needs_step(const struct soft_cpu *cpu)
{
	return cpu->shadow | !!(cpu->rflags & (RF_TF | RF_RF)) |
	       !!(cpu->dr7 & DR7_ENABLES) | !!cpu->pending_db | cpu->debugged;
}

/*
 * One instruction with everything that may accompany it. 0, or as cpu_deliver_*.
 * MOV SS holds debug conditions off, too; STI only interrupts.
 */
static int step(struct soft_cpu *cpu)
{
	bool trap = cpu->rflags & RF_TF;
	const struct insn *in;
	struct block *b;
	uint64_t hit;

	mmu_watch_changed(cpu);
	hit = cpu->shadow ? 0 : cpu_code_breakpoints(cpu);
	if (hit) {
		cpu->pending_db |= hit;
		cpu_raise(cpu, EXC_DB);
	}
	b = block_get(cpu);
	if (!b)
		return -ENOMEM;
	in = b->insn;
	cpu->rflags &= ~(uint64_t)RF_RF;
	cpu->shadow = false;
	cpu->stop_block = false;
	cpu->block = b;
	cpu->next_rip = (cpu->rip + in->len) & cpu->rip_mask;
	in->fn(cpu, in);
	cpu->rip = cpu->next_rip;
	cpu->block = NULL;
	cpu->stats.insns++;
	if (cpu->shadow && in->mnemonic != ZYDIS_MNEMONIC_STI)
		return 0;
	if (trap && (cpu->rflags & RF_TF || !enters_kernel(in)))
		cpu->pending_db |= DR6_BS;
	return cpu->pending_db ? cpu_deliver_debug(cpu) : 0;
}

static enum engine_exit take_interrupt(struct soft_cpu *cpu)
{
	int vector;

	if (!(cpu->rflags & RF_IF)) {
		atomic_fetch_and(&cpu->link.events, ~EV_INTR);
		cpu->intr_waiting = true;
		return GO_ON;
	}
	/* Cleared before asking, so that what arrives while asking is not lost. */
	atomic_fetch_and(&cpu->link.events, ~EV_INTR);
	cpu->intr_waiting = false;
	vector = cpu->host->intr_ack(cpu->host->arg, cpu->id);
	if (vector < 0)
		return GO_ON;
	cpu->intr_waiting = cpu->host->intr_pending(cpu->host->arg, cpu->id);
	cpu->halted = false;
	return cpu_deliver_interrupt(cpu, vector) < 0 ? ENGINE_SHUTDOWN : GO_ON;
}

static enum engine_exit look_up(struct soft_cpu *cpu)
{
	uint32_t events = atomic_load(&cpu->link.events);

	if (events & EV_ENGINE)
		smp_answer(cpu);
	if (events & EV_MACHINE)
		return ENGINE_KICKED;
	/* A step is not to end in a handler of something else; but see engine.h. */
	if (!cpu->shadow && (!cpu->step_on || cpu->halted)) {
		enum engine_exit r = GO_ON;

		if (events & EV_NMI && !cpu->nmi_blocked) {
			atomic_fetch_and(&cpu->link.events, ~EV_NMI);
			cpu->halted = false;
			if (cpu_deliver_nmi(cpu) < 0)
				return ENGINE_SHUTDOWN;
		} else if (events & EV_INTR || cpu->intr_waiting) {
			r = take_interrupt(cpu);
		}
		if (r != GO_ON)
			return r;
	}
	return cpu->halted ? ENGINE_HALT : GO_ON;
}

static bool must_look_up(const struct soft_cpu *cpu)
{
	return atomic_load_explicit(&cpu->link.events, memory_order_relaxed) != 0 ||
	       cpu->halted || (cpu->intr_waiting && cpu->rflags & RF_IF);
}

static enum engine_exit no_memory(const struct soft_cpu *cpu)
{
	log_error("vCPU %u: no memory for decoded instructions", cpu->id);
	return ENGINE_ERROR;
}

static enum engine_exit loop(struct soft_cpu *cpu)
{
	switch (setjmp(cpu->env)) {
	case 0:
		break;
	case LEFT_FOR_GOOD:
		cpu->block = NULL;
		return ENGINE_ERROR;
	default:
		smp_abandon(cpu);
		cpu->block = NULL;
		if (cpu_deliver_raised(cpu) < 0)
			return ENGINE_SHUTDOWN;
		cpu->watch_hit = false; /* by an instruction that was undone */
		if (unlikely(cpu->debugged && debugger_done(cpu)))
			return ENGINE_DEBUG;
	}
	for (;;) {
		struct block *b;

		block_reap(cpu);
		if (unlikely(must_look_up(cpu))) {
			bool halted = cpu->halted;
			enum engine_exit r = look_up(cpu);

			if (r != GO_ON)
				return r;
			if (halted && debugger_done(cpu))
				return ENGINE_DEBUG;
		}
		if (unlikely(needs_step(cpu))) {
			int rc;

			/* A step goes past a breakpoint where it begins. */
			if (!cpu->step_on && debugger_stops(cpu))
				return ENGINE_DEBUG;
			rc = step(cpu);
			if (rc < 0)
				return rc == -ENOMEM ? no_memory(cpu)
						     : ENGINE_SHUTDOWN;
			if (cpu->debugged && debugger_done(cpu))
				return ENGINE_DEBUG;
			continue;
		}
		b = block_get(cpu);
		if (unlikely(!b))
			return no_memory(cpu);
		if (unlikely(b->stop)) {
			if (debugger_stops(cpu))
				return ENGINE_DEBUG;
			cpu->stop_block = false;
			cpu->block = b;
			interp_block(cpu, b);
			cpu->block = NULL;
			continue;
		}
		cpu->stop_block = false;
		cpu->block = b;
		cpu->run_block(cpu, b);
		cpu->block = NULL;
	}
}

enum engine_exit cpu_run(struct soft_cpu *cpu)
{
	enum engine_exit r;

	smp_enter(cpu);
	if (unlikely(cpu->points_seen != cpu->engine->point_changes))
		debugger_follow(cpu);
	r = loop(cpu);
	smp_leave(cpu);
	return r;
}
