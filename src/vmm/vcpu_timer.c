/*
 * LAPIC deadlines while guest code runs: one timerfd a vCPU and one thread that
 * turns their expiry into EV_TIMER. A vCPU asleep in HLT uses its futex's timeout
 * instead. Arming is lazy: a timer that is set to an earlier time stays, and the
 * vCPU looks again when it fires.
 */
#include <errno.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "vmm/chipset/chipset.h"
#include "vmm/machine.h"
#include "vmm/machine_sync.h"

static void set_timer(struct vcpu *v, uint64_t when)
{
	struct itimerspec its = {
		.it_value = {
			.tv_sec = (time_t)(when / 1000000000),
			.tv_nsec = (long)(when % 1000000000),
		},
	};

	v->timer_armed = when;
	timerfd_settime(v->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
}

void vcpu_timer_arm(struct vcpu *v)
{
	uint64_t when = lapic_timer_deadline(v->lapic);

	if (when != 0 && (v->timer_armed == 0 || when < v->timer_armed))
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

static void *timer_main(void *arg)
{
	struct machine *m = arg;
	struct epoll_event ev[16];

	pthread_setname_np(pthread_self(), "vcpu timers");
	for (;;) {
		int n = epoll_wait(m->sync->timer_epoll, ev, 16, -1);

		for (int i = 0; i < n; i++) {
			struct vcpu *v = ev[i].data.ptr;
			uint64_t times;

			if (v == NULL)
				return NULL;
			/* EAGAIN: set anew meanwhile. */
			if (read(v->timer_fd, &times, sizeof(times)) ==
			    sizeof(times))
				vcpu_notify(v, EV_TIMER);
		}
		if (n < 0 && errno != EINTR)
			return NULL;
	}
}

static int watch(int epoll, int fd, struct vcpu *v)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = v };

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) == 0 ? 0 : -errno;
}

int vcpu_timer_start(struct machine *m)
{
	struct machine_sync *s = m->sync;
	int err = 0;

	s->timer_epoll = epoll_create1(EPOLL_CLOEXEC);
	s->timer_stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->timer_epoll < 0 || s->timer_stop < 0)
		return -errno;
	err = watch(s->timer_epoll, s->timer_stop, NULL);
	for (unsigned i = 0; i < m->ncpu && err == 0; i++)
		err = watch(s->timer_epoll, m->vcpu[i].timer_fd, &m->vcpu[i]);
	if (err == 0)
		err = -pthread_create(&s->timer_thread, NULL, timer_main, m);
	s->timer_started = err == 0;
	return err;
}

void vcpu_timer_stop(struct machine *m)
{
	struct machine_sync *s = m->sync;
	uint64_t one = 1;

	if (s->timer_started) {
		while (
		    write(s->timer_stop, &one, sizeof(one)) < 0 && errno == EINTR)
			;
		pthread_join(s->timer_thread, NULL);
		s->timer_started = false;
	}
	if (s->timer_epoll >= 0)
		close(s->timer_epoll);
	if (s->timer_stop >= 0)
		close(s->timer_stop);
	s->timer_epoll = s->timer_stop = -1;
}
