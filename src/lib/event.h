/*
 * The one event loop: descriptors, timers, signals and calls posted by other
 * threads (epoll, timerfd, signalfd, eventfd).
 *
 * Callbacks run in the thread of event_loop_run() with the lock given to
 * event_loop_new() held (the machine lock); those of timers also in the thread of
 * event_loop_timers(). All functions need that lock held, or the loop not yet
 * running, except event_post(), event_loop_stop() and event_loop_due(), which any
 * thread may call at any time.
 */
#pragma once

#include <pthread.h>
#include <stdint.h>
#include <sys/epoll.h>

struct event_loop;
struct event;

typedef void event_fd_fn(void *arg, uint32_t events); /* EPOLLIN ... */
typedef void event_fn(void *arg);

/* lock may be NULL (single-threaded user). 0 or -errno. */
int event_loop_new(struct event_loop **loop, pthread_mutex_t *lock);
void event_loop_free(struct event_loop *loop);
/* Runs until event_loop_stop(); 0 or -errno. Must be called without the lock. */
int event_loop_run(struct event_loop *loop);
/* Waits at most timeout_ms (-1: for ever) and dispatches once. 0 or -errno. */
int event_loop_poll(struct event_loop *loop, int timeout_ms);
void event_loop_stop(struct event_loop *loop);

/* The caller keeps fd and closes it after event_del(). NULL: no memory/-EPERM. */
struct event *event_add_fd(
    struct event_loop *loop, int fd, uint32_t events, event_fd_fn *fn, void *arg);
/* New interest set, 0 = none for now. */
void event_set_fd(struct event *ev, uint32_t events);

/* A disarmed timer. */
struct event *event_add_timer(struct event_loop *loop, event_fn *fn, void *arg);
/* Absolute CLOCK_MONOTONIC nanoseconds; 0 disarms. A time in the past fires now. */
void event_set_timer(struct event *ev, uint64_t when_ns);

/* When the earliest timer is due; 0: none is set. */
uint64_t event_loop_due(struct event_loop *loop);
/* Runs those that are due: for a thread that finds the loop late. */
void event_loop_timers(struct event_loop *loop);

/* Blocks the signal for the calling thread and delivers it through the loop. */
struct event *event_add_signal(
    struct event_loop *loop, int signo, event_fn *fn, void *arg);

/* Safe inside the event's own callback and for NULL. */
void event_del(struct event *ev);

/* Runs fn(arg) in the loop soon; calls from one thread keep their order. */
int event_post(struct event_loop *loop, event_fn *fn, void *arg);

uint64_t event_now_ns(void); /* CLOCK_MONOTONIC */
