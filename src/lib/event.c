/*
 * The event loop: epoll over descriptors, one timerfd over a heap of timers,
 * signalfds, and an eventfd behind which posted calls wait.
 *
 * Invariant: an event deleted with event_del() is never called again, and is
 * freed only by the loop's thread between two batches, because epoll_wait() may
 * already have handed out its address while another thread deletes it.
 */
#include "lib/event.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/util.h"

#define BATCH    16
#define NOT_HEAP SIZE_MAX

enum event_kind { EVENT_FD, EVENT_TIMER, EVENT_SIGNAL, EVENT_WAKE, EVENT_CLOCK };

struct event {
	struct event_loop *loop;
	enum event_kind kind;
	bool dead;
	int fd; /* FD: the caller's; SIGNAL: ours */
	uint32_t interest;
	uint64_t when;
	size_t heap_index;
	union {
		event_fd_fn *fd_fn;
		event_fn *fn;
	};
	void *arg;
	struct event *prev, *next; /* all events, then the dead ones */
};

struct post {
	struct post *next;
	event_fn *fn;
	void *arg;
};

struct event_loop {
	pthread_mutex_t *lock;
	int epoll;
	struct event wake, clock; /* eventfd, timerfd */
	struct event *all, *dead;
	struct event **heap;
	size_t heap_count, heap_room, timers;
	uint64_t armed;       /* what the timerfd is set to, 0: disarmed */
	_Atomic uint64_t due; /* of heap[0]; 0: none */
	pthread_mutex_t post_lock;
	struct post *post_first, **post_last;
	atomic_bool stop;
};

uint64_t event_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int watch(struct event_loop *loop, struct event *ev, int op, uint32_t events)
{
	struct epoll_event ee = { .events = events, .data.ptr = ev };

	return epoll_ctl(loop->epoll, op, ev->fd, &ee) == 0 ? 0 : -errno;
}

int event_loop_new(struct event_loop **out, pthread_mutex_t *lock)
{
	struct event_loop *loop = calloc(1, sizeof(*loop));
	int error;

	if (loop == NULL)
		return -ENOMEM;
	loop->lock = lock;
	loop->post_last = &loop->post_first;
	pthread_mutex_init(&loop->post_lock, NULL);
	loop->wake.kind = EVENT_WAKE;
	loop->clock.kind = EVENT_CLOCK;
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	loop->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->clock.fd =
	    timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	error =
	    loop->epoll < 0 || loop->wake.fd < 0 || loop->clock.fd < 0 ? -errno : 0;
	if (error == 0)
		error = watch(loop, &loop->wake, EPOLL_CTL_ADD, EPOLLIN);
	if (error == 0)
		error = watch(loop, &loop->clock, EPOLL_CTL_ADD, EPOLLIN);
	if (error != 0) {
		event_loop_free(loop);
		return error;
	}
	*out = loop;
	return 0;
}

static void close_if_open(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void free_dead(struct event_loop *loop)
{
	while (loop->dead != NULL) {
		struct event *ev = loop->dead;

		loop->dead = ev->next;
		free(ev);
	}
}

void event_loop_free(struct event_loop *loop)
{
	if (loop == NULL)
		return;
	while (loop->all != NULL)
		event_del(loop->all);
	free_dead(loop);
	while (loop->post_first != NULL) {
		struct post *p = loop->post_first;

		loop->post_first = p->next;
		free(p);
	}
	close_if_open(loop->wake.fd);
	close_if_open(loop->clock.fd);
	close_if_open(loop->epoll);
	pthread_mutex_destroy(&loop->post_lock);
	free(loop->heap);
	free(loop);
}

static struct event *event_new(
    struct event_loop *loop, enum event_kind kind, void *arg)
{
	struct event *ev = calloc(1, sizeof(*ev));

	if (ev == NULL)
		return NULL;
	ev->loop = loop;
	ev->kind = kind;
	ev->fd = -1;
	ev->heap_index = NOT_HEAP;
	ev->arg = arg;
	ev->next = loop->all;
	if (ev->next != NULL)
		ev->next->prev = ev;
	loop->all = ev;
	return ev;
}

/* Timers: a binary heap, the earliest in heap[0]. */

static void heap_put(struct event_loop *loop, size_t i, struct event *ev)
{
	loop->heap[i] = ev;
	ev->heap_index = i;
}

static void heap_up(struct event_loop *loop, size_t i)
{
	struct event *ev = loop->heap[i];

	for (; i > 0 && loop->heap[(i - 1) / 2]->when > ev->when; i = (i - 1) / 2)
		heap_put(loop, i, loop->heap[(i - 1) / 2]);
	heap_put(loop, i, ev);
}

static void heap_down(struct event_loop *loop, size_t i)
{
	struct event *ev = loop->heap[i];

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= loop->heap_count)
			break;
		if (child + 1 < loop->heap_count &&
		    loop->heap[child + 1]->when < loop->heap[child]->when)
			child++;
		if (loop->heap[child]->when >= ev->when)
			break;
		heap_put(loop, i, loop->heap[child]);
		i = child;
	}
	heap_put(loop, i, ev);
}

static void heap_remove(struct event *ev)
{
	struct event_loop *loop = ev->loop;
	size_t i = ev->heap_index;

	if (i == NOT_HEAP)
		return;
	ev->heap_index = NOT_HEAP;
	loop->heap_count--;
	if (i == loop->heap_count)
		return;
	heap_put(loop, i, loop->heap[loop->heap_count]);
	heap_up(loop, i);
	heap_down(loop, loop->heap[i]->heap_index);
}

/* Sets the timerfd to the earliest timer. */
static void clock_arm(struct event_loop *loop)
{
	uint64_t when = loop->heap_count > 0 ? loop->heap[0]->when : 0;
	struct itimerspec its = {
		.it_value.tv_sec = (time_t)(when / 1000000000u),
		.it_value.tv_nsec = (long)(when % 1000000000u),
	};

	atomic_store_explicit(&loop->due, when, memory_order_relaxed);
	if (when == loop->armed)
		return;
	loop->armed = when;
	timerfd_settime(loop->clock.fd, TFD_TIMER_ABSTIME, &its, NULL);
}

struct event *event_add_timer(struct event_loop *loop, event_fn *fn, void *arg)
{
	struct event *ev;

	/* Room for every timer is made here, so that arming cannot fail. */
	if (loop->timers == loop->heap_room) {
		size_t room = loop->heap_room == 0 ? 16 : loop->heap_room * 2;
		struct event **heap = realloc(loop->heap, room * sizeof(*heap));

		if (heap == NULL)
			return NULL;
		loop->heap = heap;
		loop->heap_room = room;
	}
	ev = event_new(loop, EVENT_TIMER, arg);
	if (ev == NULL)
		return NULL;
	ev->fn = fn;
	loop->timers++;
	return ev;
}

void event_set_timer(struct event *ev, uint64_t when_ns)
{
	struct event_loop *loop = ev->loop;

	if (ev->dead)
		return;
	heap_remove(ev);
	if (when_ns != 0) {
		ev->when = when_ns;
		heap_put(loop, loop->heap_count, ev);
		loop->heap_count++;
		heap_up(loop, ev->heap_index);
	}
	clock_arm(loop);
}

/*
 * Bounded: a timer that its own callback sets to a passed time must not hold the
 * loop.
 */
void event_loop_timers(struct event_loop *loop)
{
	uint64_t now = event_now_ns();

	loop->armed = 0;
	for (size_t budget = loop->heap_count; budget > 0; budget--) {
		struct event *ev;

		if (loop->heap_count == 0 || loop->heap[0]->when > now)
			break;
		ev = loop->heap[0];
		heap_remove(ev);
		ev->fn(ev->arg);
	}
	clock_arm(loop);
}

uint64_t event_loop_due(struct event_loop *loop)
{
	return atomic_load_explicit(&loop->due, memory_order_relaxed);
}

static void clock_dispatch(struct event_loop *loop)
{
	uint64_t ticks;
	ssize_t n = read(loop->clock.fd, &ticks, sizeof(ticks));

	(void)n; /* EAGAIN: set anew since; the heap decides */
	event_loop_timers(loop);
}

struct event *event_add_fd(
    struct event_loop *loop, int fd, uint32_t events, event_fd_fn *fn, void *arg)
{
	struct event *ev = event_new(loop, EVENT_FD, arg);
	int error;

	if (ev == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	ev->fd = fd;
	ev->fd_fn = fn;
	/* Asked for even when events is 0: tells now whether fd can be polled. */
	error = watch(loop, ev, EPOLL_CTL_ADD, events);
	if (error != 0) {
		ev->fd = -1;
		event_del(ev);
		errno = -error;
		return NULL;
	}
	ev->interest = events;
	if (events == 0)
		watch(loop, ev, EPOLL_CTL_DEL, 0);
	return ev;
}

/*
 * epoll reports errors and hang-ups whatever the set: no interest means not added.
 */
void event_set_fd(struct event *ev, uint32_t events)
{
	int op = ev->interest == 0 ? EPOLL_CTL_ADD
		 : events == 0     ? EPOLL_CTL_DEL
				   : EPOLL_CTL_MOD;

	if (ev->dead || ev->interest == events)
		return;
	if (watch(ev->loop, ev, op, events) == 0)
		ev->interest = events;
	else
		log_error("event loop: cannot watch descriptor %d: %s", ev->fd,
		    strerror(errno));
}

struct event *event_add_signal(
    struct event_loop *loop, int signo, event_fn *fn, void *arg)
{
	struct event *ev = event_new(loop, EVENT_SIGNAL, arg);
	sigset_t set;

	if (ev == NULL)
		return NULL;
	ev->fn = fn;
	sigemptyset(&set);
	sigaddset(&set, signo);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	ev->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (ev->fd < 0 || watch(loop, ev, EPOLL_CTL_ADD, EPOLLIN) != 0) {
		event_del(ev);
		return NULL;
	}
	ev->interest = EPOLLIN;
	return ev;
}

void event_del(struct event *ev)
{
	struct event_loop *loop;

	if (ev == NULL || ev->dead)
		return;
	loop = ev->loop;
	ev->dead = true;
	if (ev->kind == EVENT_TIMER) {
		heap_remove(ev);
		loop->timers--;
		clock_arm(loop);
	}
	if (ev->interest != 0)
		watch(loop, ev, EPOLL_CTL_DEL, 0);
	if (ev->kind == EVENT_SIGNAL)
		close_if_open(ev->fd);
	if (ev->prev != NULL)
		ev->prev->next = ev->next;
	else
		loop->all = ev->next;
	if (ev->next != NULL)
		ev->next->prev = ev->prev;
	ev->next = loop->dead;
	loop->dead = ev;
}

static void wake(struct event_loop *loop)
{
	uint64_t one = 1;
	ssize_t n = write(loop->wake.fd, &one, sizeof(one));

	(void)n; /* EAGAIN: the counter is full, so the loop will wake */
}

int event_post(struct event_loop *loop, event_fn *fn, void *arg)
{
	struct post *p = malloc(sizeof(*p));
	bool first;

	if (p == NULL)
		return -ENOMEM;
	*p = (struct post){ .fn = fn, .arg = arg };
	pthread_mutex_lock(&loop->post_lock);
	first = loop->post_first == NULL;
	*loop->post_last = p;
	loop->post_last = &p->next;
	pthread_mutex_unlock(&loop->post_lock);
	if (first)
		wake(loop);
	return 0;
}

static void posts_dispatch(struct event_loop *loop)
{
	struct post *p;
	uint64_t count;
	ssize_t n = read(loop->wake.fd, &count, sizeof(count));

	(void)n;
	pthread_mutex_lock(&loop->post_lock);
	p = loop->post_first;
	loop->post_first = NULL;
	loop->post_last = &loop->post_first;
	pthread_mutex_unlock(&loop->post_lock);
	while (p != NULL) {
		struct post *next = p->next;

		p->fn(p->arg);
		free(p);
		p = next;
	}
}

static void signal_dispatch(struct event *ev)
{
	struct signalfd_siginfo info;

	while (!ev->dead && read(ev->fd, &info, sizeof(info)) == sizeof(info))
		ev->fn(ev->arg);
}

static void dispatch(struct event_loop *loop, struct event *ev, uint32_t events)
{
	if (ev->dead)
		return;
	switch (ev->kind) {
	case EVENT_FD:
		/* The interest may have shrunk since epoll_wait() returned. */
		events &= ev->interest | EPOLLERR | EPOLLHUP;
		if (events != 0 && ev->interest != 0)
			ev->fd_fn(ev->arg, events);
		break;
	case EVENT_SIGNAL:
		signal_dispatch(ev);
		break;
	case EVENT_WAKE:
		posts_dispatch(loop);
		break;
	case EVENT_CLOCK:
		clock_dispatch(loop);
		break;
	case EVENT_TIMER:
		break;
	}
}

int event_loop_poll(struct event_loop *loop, int timeout_ms)
{
	struct epoll_event events[BATCH];
	int n = epoll_wait(loop->epoll, events, BATCH, timeout_ms);

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (loop->lock != NULL)
		pthread_mutex_lock(loop->lock);
	for (int i = 0; i < n; i++)
		dispatch(loop, events[i].data.ptr, events[i].events);
	free_dead(loop);
	if (loop->lock != NULL)
		pthread_mutex_unlock(loop->lock);
	return 0;
}

int event_loop_run(struct event_loop *loop)
{
	int error = 0;

	while (error == 0 && !atomic_load(&loop->stop))
		error = event_loop_poll(loop, -1);
	atomic_store(&loop->stop, false);
	return error;
}

void event_loop_stop(struct event_loop *loop)
{
	atomic_store(&loop->stop, true);
	wake(loop);
}
