/*
 * One virtual CPU: its thread, its sleep, its start-up protocol.
 *
 * The thread runs guest code until the engine has a reason to stop, and sleeps on
 * the link's event word otherwise. Nobody else touches the engine's vCPU while the
 * thread lives, except between machine_pause() and machine_resume().
 *
 * Sleep protocol: the sleeper sets link->sleeping, then looks at link->events and
 * waits for the word to change; a notifier sets bits, then looks at sleeping. Both
 * sides are sequentially consistent, so a wake-up is never lost.
 */
#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/config.h"
#include "lib/event.h"
#include "lib/log.h"
#include "vmm/chipset/chipset.h"
#include "vmm/clock.h"
#include "vmm/machine.h"
#include "vmm/machine_sync.h"

#define RFLAGS_IF 0x200u
/* Events that can wake a vCPU which takes no interrupts. */
#define EV_WAKES_DEAD (EV_NMI | EV_INIT | EV_SIPI)

void vcpu_notify(struct vcpu *v, uint32_t events)
{
	struct vcpu_link *link = v->link;
	uint32_t old = atomic_fetch_or(&link->events, events);

	if ((old & events) != events && atomic_load(&link->sleeping))
		syscall(
		    SYS_futex, &link->events, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void clear_events(struct vcpu *v, uint32_t events)
{
	atomic_fetch_and(&v->link->events, ~events);
}

static void set_run_state(struct vcpu *v, enum vcpu_activity state)
{
	atomic_store_explicit(&v->run_state, state, memory_order_release);
}

static enum vcpu_activity run_state(struct vcpu *v)
{
	return atomic_load_explicit(&v->run_state, memory_order_acquire);
}

/* Waits for the event word to differ from seen, or until when (0: for ever). */
static void wait_events(struct vcpu *v, uint32_t seen, uint64_t when)
{
	struct timespec ts = {
		.tv_sec = (time_t)(when / 1000000000),
		.tv_nsec = (long)(when % 1000000000),
	};

	syscall(SYS_futex, &v->link->events, FUTEX_WAIT_BITSET_PRIVATE, seen,
	    when != 0 ? &ts : NULL, NULL, FUTEX_BITSET_MATCH_ANY);
}

/*
 * This vCPU cannot be woken by interrupts. When that holds for all of them and
 * nothing is under way that could (events set before the last one fell asleep), the
 * guest has halted for good.
 */
static void fell_dead(struct vcpu *v)
{
	struct machine *m = v->m;

	if (atomic_fetch_add(&m->sync->dead, 1) + 1 != m->ncpu)
		return;
	for (unsigned i = 0; i < m->ncpu; i++)
		if (atomic_load(&m->vcpu[i].link->events) & EV_WAKES_DEAD)
			return;
	if (!ioapic_may_nmi(m->ioapic))
		machine_suspend(m, SUSPEND_HALT);
}

/* Sleeps until the machine wants something or guest code may go on. */
static void idle(struct vcpu *v)
{
	const struct engine_ops *ops = v->m->ops;
	struct vcpu_link *link = v->link;
	bool intr = false, nmi = false, dead = false;
	uint64_t began = clock_ns();

	if (run_state(v) == VCPU_HALTED) {
		struct vcpu_state s;

		ops->get_state(v->engine, &s);
		intr = s.rflags & RFLAGS_IF;
		nmi = !s.nmi_blocked;
	}
	vcpu_timer_disarm(v);
	for (;;) {
		uint64_t when = 0;
		uint32_t seen;

		atomic_store(&link->sleeping, 1);
		if (intr) {
			/*
			 * Set may mean too low a priority: ask, then wait for the
			 * next.
			 */
			clear_events(v, EV_INTR);
			if (lapic_pending(v->lapic)) {
				atomic_fetch_or(&link->events, EV_INTR);
				set_run_state(v, VCPU_RUNNING);
				break;
			}
		}
		seen = atomic_load(&link->events);
		if (seen & EV_MACHINE)
			break;
		if (nmi && (seen & EV_NMI)) {
			set_run_state(v, VCPU_RUNNING);
			break;
		}
		if (intr && (seen & EV_INTR))
			continue;
		if (intr)
			when = lapic_timer_deadline(v->lapic);
		if (!intr && !dead) {
			dead = true;
			fell_dead(v);
			continue;
		}
		wait_events(v, seen, when);
		if (when != 0)
			lapic_timer_poll(v->lapic);
	}
	atomic_store(&link->sleeping, 0);
	if (dead)
		atomic_fetch_sub(&v->m->sync->dead, 1);
	atomic_fetch_add_explicit(
	    &v->stats.idle_ns, clock_ns() - began, memory_order_relaxed);
}

static void take_init(struct vcpu *v)
{
	const struct engine_ops *ops = v->m->ops;
	struct vcpu_state s;

	if (v->id == 0 && v->m->sync->reset_on_init) {
		machine_suspend(v->m, SUSPEND_RESET);
		return;
	}
	clear_events(v, EV_NMI | EV_INTR);
	ops->get_state(v->engine, &s);
	vcpu_state_init(&s);
	/* The boot CPU does not wait: it starts at the reset vector. */
	if (v->id == 0)
		s.activity = VCPU_RUNNING;
	ops->set_state(v->engine, &s);
	set_run_state(v, (enum vcpu_activity)s.activity);
	lapic_init(v->lapic);
}

static void take_sipi(struct vcpu *v)
{
	const struct engine_ops *ops = v->m->ops;
	struct vcpu_state s;

	if (run_state(v) != VCPU_WAIT_SIPI)
		return;
	ops->get_state(v->engine, &s);
	vcpu_state_sipi(&s, atomic_load(&v->sipi_vector));
	ops->set_state(v->engine, &s);
	set_run_state(v, VCPU_RUNNING);
}

static void hold(struct vcpu *v)
{
	struct machine_sync *sync = v->m->sync;

	pthread_mutex_lock(&sync->lock);
	sync->held++;
	pthread_cond_broadcast(&sync->cond);
	while (!sync->ending && (sync->paused > 0 || v->parked))
		pthread_cond_wait(&sync->cond, &sync->lock);
	sync->held--;
	pthread_mutex_unlock(&sync->lock);
}

/* INIT comes before SIPI: a start-up sequence may arrive as one. */
static void service(struct vcpu *v)
{
	uint32_t events = atomic_load(&v->link->events) & EV_MACHINE;

	clear_events(v, events & ~EV_STOP);
	if (events & EV_TIMER)
		vcpu_timer_expired(v);
	if (events & EV_INIT)
		take_init(v);
	if (events & EV_SIPI)
		take_sipi(v);
	if (events & EV_PAUSE)
		hold(v);
}

/*
 * At a debugger's point or after its step: holds still until it is told to go on.
 * When the debugger cannot be told, nothing has happened: a point is come to again.
 */
static void stop_for_debugger(struct vcpu *v)
{
	struct machine_sync *sync = v->m->sync;
	struct vcpu_state s;

	/* A step over HLT, or of a vCPU that sleeps in it. */
	v->m->ops->get_state(v->engine, &s);
	set_run_state(v, (enum vcpu_activity)s.activity);
	pthread_mutex_lock(&sync->lock);
	v->parked = v->stopped = true;
	if (sync->stopped == NULL ||
	    event_post(v->m->loop, sync->stopped, sync->stopped_arg) != 0)
		v->parked = v->stopped = false;
	pthread_mutex_unlock(&sync->lock);
	vcpu_notify(v, EV_PAUSE);
}

void vcpu_order(struct vcpu *v, enum vcpu_order order)
{
	struct machine_sync *sync = v->m->sync;

	v->m->ops->step(v->engine, order == VCPU_STEP);
	pthread_mutex_lock(&sync->lock);
	v->parked = order == VCPU_STAY;
	v->stopped = false;
	pthread_mutex_unlock(&sync->lock);
}

bool vcpu_stopped(struct vcpu *v)
{
	struct machine_sync *sync = v->m->sync;
	bool stopped;

	pthread_mutex_lock(&sync->lock);
	stopped = v->stopped;
	pthread_mutex_unlock(&sync->lock);
	return stopped;
}

static void run(struct vcpu *v)
{
	enum engine_exit why;

	v->running = true;
	vcpu_timer_arm(v);
	why = v->m->ops->run(v->engine);
	v->running = false;
	switch (why) {
	case ENGINE_KICKED:
		break;
	case ENGINE_HALT:
		atomic_fetch_add_explicit(&v->stats.halts, 1, memory_order_relaxed);
		set_run_state(v, VCPU_HALTED);
		break;
	case ENGINE_DEBUG:
		stop_for_debugger(v);
		break;
	case ENGINE_SHUTDOWN:
		set_run_state(v, VCPU_SHUTDOWN);
		machine_suspend(v->m, SUSPEND_TRIPLEFAULT);
		break;
	default:
		set_run_state(v, VCPU_SHUTDOWN);
		machine_suspend(v->m, SUSPEND_ERROR);
	}
}

static void enter_or_leave(struct vcpu *v, bool enter)
{
	struct machine_sync *sync = v->m->sync;

	pthread_mutex_lock(&sync->lock);
	sync->live += enter ? 1u : -1u;
	pthread_cond_broadcast(&sync->cond);
	pthread_mutex_unlock(&sync->lock);
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;
	const struct engine_ops *ops = v->m->ops;
	int err;
	char name[16];

	/* By the thread itself: others would need /proc. */
	snprintf(name, sizeof(name), "vcpu %u", v->id);
	pthread_setname_np(pthread_self(), name);
	err = ops->thread_start != NULL ? ops->thread_start(v->engine) : 0;
	if (err == 0) {
		err = vcpu_timer_create(v);
		if (err != 0 && ops->thread_stop != NULL)
			ops->thread_stop(v->engine);
	}
	if (err != 0) {
		log_error("vCPU %u cannot start: %s", v->id, strerrordesc_np(-err));
		machine_suspend(v->m, SUSPEND_ERROR);
		enter_or_leave(v, false);
		return NULL;
	}
	for (;;) {
		service(v);
		if (atomic_load(&v->link->events) & EV_STOP)
			break;
		if (run_state(v) == VCPU_RUNNING)
			run(v);
		else
			idle(v);
	}
	vcpu_timer_delete(v);
	if (ops->thread_stop != NULL)
		ops->thread_stop(v->engine);
	enter_or_leave(v, false);
	return NULL;
}

int cpuset_parse(const char *text, cpu_set_t *set)
{
	const char *p = text;

	CPU_ZERO(set);
	for (;;) {
		char *end;
		unsigned long from, to;

		if (*p < '0' || *p > '9')
			return -EINVAL;
		from = to = strtoul(p, &end, 10);
		if (*end == '-') {
			p = end + 1;
			if (*p < '0' || *p > '9')
				return -EINVAL;
			to = strtoul(p, &end, 10);
		}
		if (from > to || to >= CPU_SETSIZE)
			return -EINVAL;
		for (unsigned long i = from; i <= to; i++)
			CPU_SET(i, set);
		if (*end == '\0')
			return 0;
		if (*end != ',')
			return -EINVAL;
		p = end + 1;
	}
}

/* The caller has blocked all signals; the thread inherits that. */
int vcpu_start(struct vcpu *v)
{
	const char *text = config_getf(v->m->cfg, "vcpu.%u.cpuset", v->id);
	pthread_attr_t attr;
	cpu_set_t set;
	int err;

	pthread_attr_init(&attr);
	if (text != NULL && cpuset_parse(text, &set) == 0)
		pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	enter_or_leave(v, true);
	err = -pthread_create(&v->thread, &attr, vcpu_main, v);
	pthread_attr_destroy(&attr);
	if (err != 0) {
		enter_or_leave(v, false);
		if (text != NULL)
			log_error("vCPU %u cannot run on host CPUs %s "
				  "(vcpu.%u.cpuset): %s",
			    v->id, text, v->id, strerrordesc_np(-err));
		else
			log_error("no thread for vCPU %u: %s", v->id,
			    strerrordesc_np(-err));
		return err;
	}
	v->created = true;
	return 0;
}

void vcpu_join(struct vcpu *v)
{
	if (!v->created)
		return;
	pthread_join(v->thread, NULL);
	v->created = false;
}

int vcpu_set_state(struct vcpu *v, const struct vcpu_state *s)
{
	int err = v->m->ops->set_state(v->engine, s);

	if (err != 0)
		return err;
	lapic_set_state(v->lapic, s);
	set_run_state(v, s->activity <= VCPU_SHUTDOWN
			     ? (enum vcpu_activity)s->activity
			     : VCPU_RUNNING);
	return 0;
}

void vcpu_get_state(struct vcpu *v, struct vcpu_state *s)
{
	v->m->ops->get_state(v->engine, s);
	lapic_get_state(v->lapic, s);
	/* An engine that was kicked may be halted all the same. */
	if (run_state(v) != VCPU_RUNNING)
		s->activity = run_state(v);
}

int vcpu_setup(struct machine *m, unsigned id)
{
	struct vcpu *v = &m->vcpu[id];
	struct vcpu_state s;
	int err;

	v->m = m;
	v->id = id;
	err = m->ops->vcpu_create(m->engine, id, &v->engine, &v->link);
	if (err == 0)
		err = lapic_create(m, v, &v->lapic);
	if (err != 0)
		return err;
	vcpu_state_reset(&s, id);
	return vcpu_set_state(v, &s);
}

void vcpu_teardown(struct vcpu *v)
{
	lapic_destroy(v->lapic);
}
