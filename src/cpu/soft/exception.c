/*
 * Raising and delivering exceptions and interrupts (SDM vol. 3 chapter 6).
 *
 * A fault met while an event is being delivered lands in the setjmp here, where
 * it is delivered in the event's place, becomes a double fault, or shuts the CPU
 * down (table 6-5). event_deliver() commits last, so each try starts from the
 * registers the first event found.
 */
#include <string.h>

#include "cpu/soft/sys.h"

_Noreturn static void leave(
    struct soft_cpu *cpu, int vector, bool has_error, uint32_t error)
{
	cpu->raise_vector = vector;
	cpu->raise_has_error = has_error;
	cpu->raise_error = error;
	longjmp(cpu->env, 1);
}

_Noreturn void cpu_raise(struct soft_cpu *cpu, int vector)
{
	leave(cpu, vector, false, 0);
}

_Noreturn void cpu_raise_error(struct soft_cpu *cpu, int vector, uint32_t error)
{
	leave(cpu, vector, true, error);
}

_Noreturn void cpu_raise_pf(struct soft_cpu *cpu, uint64_t gla, uint32_t error)
{
	cpu->raise_cr2 = gla;
	leave(cpu, EXC_PF, true, error);
}

_Noreturn void cpu_give_up(struct soft_cpu *cpu)
{
	longjmp(cpu->env, LEFT_FOR_GOOD);
}

enum fault_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum fault_class fault_class(int vector)
{
	switch (vector) {
	case EXC_DE:
	case EXC_TS:
	case EXC_NP:
	case EXC_SS:
	case EXC_GP:
		return CONTRIBUTORY;
	case EXC_PF:
		return PAGE_FAULT;
	case EXC_DF:
		return DOUBLE_FAULT;
	default:
		return BENIGN;
	}
}

/* The event for what was just raised; RF so that the restart passes breakpoints. */
static void event_from_raised(struct soft_cpu *cpu, struct event *ev)
{
	*ev = (struct event){
		.kind = EVENT_EXCEPTION,
		.vector = cpu->raise_vector,
		.has_error = cpu->raise_has_error,
		.error = cpu->raise_error,
		.rip = cpu->rip,
		.rflags = cpu->rflags | RF_RF,
	};
	if (ev->vector == EXC_PF)
		cpu->cr2 = cpu->raise_cr2;
	if (ev->vector == EXC_DB)
		ev->rflags = cpu->rflags;
}

/* #DB is about to be taken: what it was goes to DR6 (SDM vol. 3 17.2.3). */
static void debug_commit(struct soft_cpu *cpu)
{
	cpu->dr6 |= cpu->pending_db;
	cpu->pending_db = 0;
	cpu->dr7 &= ~UINT64_C(0x2000); /* GD: the handler may touch the registers */
}

static bool try_deliver(struct soft_cpu *cpu, const struct event *ev)
{
	if (setjmp(cpu->env))
		return false;
	event_deliver(cpu, ev);
	return true;
}

static int deliver(struct soft_cpu *cpu, const struct event *first)
{
	struct event ev = *first;
	jmp_buf env;
	int rc = 0;

	memcpy(env, cpu->env, sizeof(env));
	cpu_update_mode(cpu); /* a raise may have left a handler half way */
	for (;;) {
		enum fault_class old, new;

		old = ev.kind == EVENT_EXCEPTION ? fault_class(ev.vector) : BENIGN;
		cpu->delivering = ev.vector;
		cpu->next_rip = cpu->rip;
		if (try_deliver(cpu, &ev)) {
			cpu->rip = cpu->next_rip;
			break;
		}
		cpu_update_mode(cpu);
		new = fault_class(cpu->raise_vector);
		if (old == DOUBLE_FAULT && new != BENIGN) {
			rc = -1;
			break;
		}
		if ((old == CONTRIBUTORY && new == CONTRIBUTORY) ||
		    (old == PAGE_FAULT && new != BENIGN)) {
			if (new == PAGE_FAULT)
				cpu->cr2 = cpu->raise_cr2;
			cpu->raise_vector = EXC_DF;
			cpu->raise_has_error = true;
			cpu->raise_error = 0;
		}
		event_from_raised(cpu, &ev);
	}
	cpu->delivering = -1;
	cpu->stop_block = true;
	cpu->shadow = false;
	cpu->halted = false;
	memcpy(cpu->env, env, sizeof(env));
	return rc;
}

int cpu_deliver_raised(struct soft_cpu *cpu)
{
	struct event ev;

	cpu_update_mode(cpu);
	event_from_raised(cpu, &ev);
	if (ev.vector == EXC_DB)
		debug_commit(cpu);
	else
		cpu->pending_db = 0; /* data breakpoints of an undone instruction */
	cpu->stats.exceptions++;
	return deliver(cpu, &ev);
}

int cpu_deliver_interrupt(struct soft_cpu *cpu, int vector)
{
	struct event ev = {
		.kind = EVENT_EXTERNAL,
		.vector = vector,
		.rip = cpu->rip,
		.rflags = cpu->rflags,
	};

	cpu->stats.interrupts++;
	return deliver(cpu, &ev);
}

int cpu_deliver_nmi(struct soft_cpu *cpu)
{
	struct event ev = {
		.kind = EVENT_NMI,
		.vector = EXC_NMI,
		.rip = cpu->rip,
		.rflags = cpu->rflags,
	};

	cpu->nmi_blocked = true;
	cpu->stats.interrupts++;
	return deliver(cpu, &ev);
}

int cpu_deliver_debug(struct soft_cpu *cpu)
{
	struct event ev = {
		.kind = EVENT_EXCEPTION,
		.vector = EXC_DB,
		.rip = cpu->rip,
		.rflags = cpu->rflags,
	};

	debug_commit(cpu);
	cpu->stats.exceptions++;
	return deliver(cpu, &ev);
}
