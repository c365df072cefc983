/*
 * Deadlines while guest code runs: one POSIX timer a vCPU, whose signal interrupts
 * the vCPU's own thread and becomes EV_TIMER. No other thread has to get the host's
 * CPU for it, so on a busy host a guest that runs sees its ticks when its TSC says
 * they are due. A vCPU asleep in HLT uses its futex's timeout instead.
 *
 * The event loop ticks for the 8254, the HPET and the RTC. So that this holds for
 * them, too, the timer fires every LOOK_NS at least: when the loop is LATE_NS
 * behind with its timers, the vCPU sees to them in its place.
 *
 * Arming is lazy: a timer that is set to an earlier time stays, and the vCPU looks
 * again when it fires.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "lib/event.h"
#include "vmm/chipset/chipset.h"
#include "vmm/clock.h"
#include "vmm/machine.h"
#include "vmm/machine_sync.h"

#define LOOK_NS UINT64_C(5000000)
#define LATE_NS UINT64_C(1000000)
#define SIGNAL  SIGRTMIN

static __thread struct vcpu *self;

static void set_timer(struct vcpu *v, uint64_t when)
{
	struct itimerspec its = {
		.it_value = {
			.tv_sec = (time_t)(when / 1000000000),
			.tv_nsec = (long)(when % 1000000000),
		},
	};

	v->timer_armed = when;
	timer_settime(v->timer, TIMER_ABSTIME, &its, NULL);
}

void vcpu_timer_arm(struct vcpu *v)
{
	uint64_t look = clock_ns() + LOOK_NS;
	uint64_t when = lapic_timer_deadline(v->lapic);

	if (when == 0 || when > look)
		when = look;
	if (v->timer_armed == 0 || when < v->timer_armed)
		set_timer(v, when);
}

void vcpu_timer_disarm(struct vcpu *v)
{
	if (v->timer_armed != 0)
		set_timer(v, 0);
}

void vcpu_timer_changed(struct vcpu *v)
{
	if (v->running)
		vcpu_timer_arm(v);
}

/* Whoever holds the lock may be long; a tick of the LAPIC must not wait for that.
 */
void vcpu_timer_expired(struct vcpu *v)
{
	struct machine *m = v->m;
	uint64_t due = event_loop_due(m->loop);

	v->timer_armed = 0;
	lapic_timer_poll(v->lapic);
	if (due == 0 || clock_ns() < due + LATE_NS)
		return;
	if (pthread_mutex_trylock(&m->lock) != 0)
		return;
	event_loop_timers(m->loop);
	pthread_mutex_unlock(&m->lock);
}

/* On the vCPU's thread, wherever it is; somebody else's signal does no harm. */
static void on_signal(int signo)
{
	(void)signo;
	if (self != NULL)
		atomic_fetch_or(&self->link->events, EV_TIMER);
}

int vcpu_timer_create(struct vcpu *v)
{
	struct sigevent sev = {
		.sigev_notify = SIGEV_THREAD_ID,
		.sigev_signo = SIGNAL,
	};
	sigset_t set;

	sev._sigev_un._tid = gettid();
	if (timer_create(CLOCK_MONOTONIC, &sev, &v->timer) != 0)
		return -errno;
	self = v;
	sigemptyset(&set);
	sigaddset(&set, SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	return 0;
}

void vcpu_timer_delete(struct vcpu *v)
{
	timer_delete(v->timer);
	v->timer_armed = 0;
	self = NULL;
}

void vcpu_timer_start(struct machine *m)
{
	struct sigaction sa = { .sa_handler = on_signal,
		.sa_flags = SA_RESTART | SA_ONSTACK };

	sigfillset(&sa.sa_mask);
	sigaction(SIGNAL, &sa, &m->sync->old_action);
}

void vcpu_timer_stop(struct machine *m)
{
	sigaction(SIGNAL, &m->sync->old_action, NULL);
}
