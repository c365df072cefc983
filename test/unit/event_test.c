/* The event loop: order, deletion from inside callbacks, threads. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/event.h"

struct fixture {
	struct event_loop *loop;
	pthread_mutex_t lock;
	struct event *a, *b;
	char log[64];
	int fd, count;
	uint64_t last;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	pthread_mutex_init(&f->lock, NULL);
	*state = f;
	return event_loop_new(&f->loop, &f->lock);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	event_loop_free(f->loop);
	free(f);
	return 0;
}

static void note_a(void *arg)
{
	strcat(((struct fixture *)arg)->log, "a");
}

static void note_b(void *arg)
{
	struct fixture *f = arg;

	strcat(f->log, "b");
	assert_int_equal(pthread_mutex_trylock(&f->lock), EBUSY);
	event_loop_stop(f->loop);
}

static void timers_fire_in_order(void **state)
{
	struct fixture *f = *state;
	uint64_t now = event_now_ns();

	f->b = event_add_timer(f->loop, note_b, f);
	f->a = event_add_timer(f->loop, note_a, f);
	event_set_timer(f->b, now + 8000000);
	event_set_timer(f->a, now + 3000000);
	assert_int_equal(event_loop_run(f->loop), 0);
	assert_string_equal(f->log, "ab");
	assert_true(event_now_ns() >= now + 8000000);
	/* The past fires at once; a disarmed timer does not. */
	event_set_timer(f->b, 1);
	event_set_timer(f->a, 2);
	event_set_timer(f->a, 0);
	assert_int_equal(event_loop_run(f->loop), 0);
	assert_string_equal(f->log, "abb");
}

static void check_order(void *arg)
{
	struct fixture *f = arg;

	f->count++;
}

/* Somebody else runs them when the loop is late. */
static void timers_run_elsewhere(void **state)
{
	struct fixture *f = *state;
	uint64_t now = event_now_ns();

	assert_int_equal(event_loop_due(f->loop), 0);
	f->a = event_add_timer(f->loop, note_a, f);
	f->b = event_add_timer(f->loop, check_order, f);
	event_set_timer(f->a, now);
	event_set_timer(f->b, now + 3000000);
	assert_int_equal(event_loop_due(f->loop), now);
	event_loop_timers(f->loop);
	assert_string_equal(f->log, "a");
	assert_int_equal(event_loop_due(f->loop), now + 3000000);
	/* The loop was told of the first, and does not take it for the second. */
	assert_int_equal(event_loop_poll(f->loop, 0), 0);
	assert_true(f->count == 0 || event_now_ns() >= now + 3000000);
	while (f->count == 0)
		assert_int_equal(event_loop_poll(f->loop, 1000), 0);
	assert_int_equal(event_loop_due(f->loop), 0);
	assert_string_equal(f->log, "a");
}

static void many_timers(void **state)
{
	struct fixture *f = *state;
	struct event *t[200];
	uint64_t now = event_now_ns();

	srandom(1);
	for (int i = 0; i < 200; i++) {
		t[i] = event_add_timer(f->loop, check_order, f);
		event_set_timer(t[i], now + (uint64_t)(random() % 5000000));
	}
	for (int i = 0; i < 200; i += 3)
		event_del(t[i]);
	for (int i = 1; i < 200; i += 3)
		event_set_timer(t[i], now + (uint64_t)(random() % 3000000));
	while (event_now_ns() < now + 20000000)
		event_loop_poll(f->loop, 1);
	assert_int_equal(f->count, 133);
}

static void delete_both(void *arg, uint32_t events)
{
	struct fixture *f = arg;

	assert_true(events & EPOLLIN);
	f->count++;
	event_del(f->a);
	event_del(f->b);
}

static void delete_inside_callback(void **state)
{
	struct fixture *f = *state;
	int p[2], q[2];

	assert_int_equal(pipe(p), 0);
	assert_int_equal(pipe(q), 0);
	f->a = event_add_fd(f->loop, p[0], EPOLLIN, delete_both, f);
	f->b = event_add_fd(f->loop, q[0], EPOLLIN, delete_both, f);
	assert_int_equal(write(p[1], "x", 1), 1);
	assert_int_equal(write(q[1], "x", 1), 1);
	event_loop_poll(f->loop, 100);
	event_loop_poll(f->loop, 0);
	assert_int_equal(f->count, 1); /* both were ready, one deleted the other */
	for (int i = 0; i < 2; i++) {
		close(p[i]);
		close(q[i]);
	}
}

static void count_fd(void *arg, uint32_t events)
{
	(void)events;
	((struct fixture *)arg)->count++;
}

static void no_interest_means_no_hangup(void **state)
{
	struct fixture *f = *state;
	int p[2];

	assert_int_equal(pipe(p), 0);
	f->a = event_add_fd(f->loop, p[0], EPOLLIN, count_fd, f);
	close(p[1]);
	event_set_fd(f->a, 0);
	event_loop_poll(f->loop, 5);
	assert_int_equal(f->count, 0);
	event_set_fd(f->a, EPOLLIN);
	event_loop_poll(f->loop, 100);
	assert_int_equal(f->count, 1);
	event_del(f->a);
	close(p[0]);
}

static void regular_file_is_refused(void **state)
{
	struct fixture *f = *state;
	FILE *file = tmpfile();

	assert_null(event_add_fd(f->loop, fileno(file), EPOLLIN, count_fd, f));
	assert_int_equal(errno, EPERM);
	fclose(file);
}

struct number {
	struct fixture *f;
	uint64_t n;
};

static void take_number(void *arg)
{
	struct number *number = arg;

	/* Each thread's numbers come in its own order. */
	if (number->n >> 32 == 1) {
		assert_true(number->n > number->f->last);
		number->f->last = number->n;
	}
	if (++number->f->count == 2000)
		event_loop_stop(number->f->loop);
	free(number);
}

static void *poster(void *arg)
{
	struct number *first = arg;

	for (uint64_t i = 1; i <= 1000; i++) {
		struct number *n = malloc(sizeof(*n));

		*n = (struct number){ first->f, first->n + i };
		assert_int_equal(event_post(first->f->loop, take_number, n), 0);
	}
	return NULL;
}

static void posts_from_threads(void **state)
{
	struct fixture *f = *state;
	struct number one = { f, 1ull << 32 }, two = { f, 2ull << 32 };
	pthread_t t[2];

	pthread_create(&t[0], NULL, poster, &one);
	pthread_create(&t[1], NULL, poster, &two);
	assert_int_equal(event_loop_run(f->loop), 0);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	assert_int_equal(f->count, 2000);
}

static void *deleter(void *arg)
{
	struct fixture *f = arg;

	for (int i = 0; i < 500; i++) {
		int p[2];
		struct event *ev;

		assert_int_equal(pipe(p), 0);
		pthread_mutex_lock(&f->lock);
		ev = event_add_fd(f->loop, p[0], EPOLLIN, count_fd, f);
		pthread_mutex_unlock(&f->lock);
		assert_int_equal(write(p[1], "x", 1), 1);
		pthread_mutex_lock(&f->lock);
		event_del(ev);
		pthread_mutex_unlock(&f->lock);
		close(p[0]);
		close(p[1]);
	}
	event_loop_stop(f->loop);
	return NULL;
}

/*
 * For the address sanitizer: the loop may hold an event that another thread
 * deletes.
 */
static void delete_from_other_thread(void **state)
{
	struct fixture *f = *state;
	pthread_t t;

	pthread_create(&t, NULL, deleter, f);
	assert_int_equal(event_loop_run(f->loop), 0);
	pthread_join(t, NULL);
}

static void signals(void **state)
{
	struct fixture *f = *state;

	f->b = event_add_signal(f->loop, SIGUSR1, note_b, f);
	assert_non_null(f->b);
	raise(SIGUSR1);
	assert_int_equal(event_loop_run(f->loop), 0);
	assert_string_equal(f->log, "b");
}

static void stop_before_run(void **state)
{
	struct fixture *f = *state;

	event_loop_stop(f->loop);
	assert_int_equal(event_loop_run(f->loop), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(timers_fire_in_order),
		TEST(timers_run_elsewhere),
		TEST(many_timers),
		TEST(delete_inside_callback),
		TEST(no_interest_means_no_hangup),
		TEST(regular_file_is_refused),
		TEST(posts_from_threads),
		TEST(delete_from_other_thread),
		TEST(signals),
		TEST(stop_before_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
