/*
 * The thread engine, for hosts that forbid io_uring: WORKERS threads a disk run
 * the system calls.
 *
 * Two queues under one mutex, which is never held across a system call on the
 * image: work (to the workers) and finished (from them). The eventfd tells the
 * event loop of finished steps.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/disk_int.h"

#define WORKERS 4

struct queue {
	struct disk_io *head, **tail;
};

struct threads {
	struct disk *d;
	pthread_mutex_t lock;
	pthread_cond_t work_cond, done_cond;
	struct queue work, finished;
	pthread_t worker[WORKERS];
	unsigned nworkers;
	int eventfd;
	bool stop;
};

static void put(struct queue *q, struct disk_io *io)
{
	io->next = NULL;
	*q->tail = io;
	q->tail = &io->next;
}

static struct disk_io *take(struct queue *q)
{
	struct disk_io *io = q->head;

	if (io != NULL) {
		q->head = io->next;
		if (q->head == NULL)
			q->tail = &q->head;
	}
	return io;
}

static int64_t execute(const struct disk *d, const struct disk_io *io)
{
	int64_t n = -1;

	switch (io->step) {
	case STEP_READ:
		n = preadv(d->fd, io->iov, io->niov, (off_t)io->off);
		break;
	case STEP_WRITE:
		n = pwritev(d->fd, io->iov, io->niov, (off_t)io->off);
		break;
	case STEP_SYNC:
		n = fdatasync(d->fd);
		break;
	case STEP_PUNCH:
		n = fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		    (off_t)io->off, (off_t)io->len);
		break;
	case STEP_ZERO:
		n = fallocate(d->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
		    (off_t)io->off, (off_t)io->len);
		break;
	}
	return n < 0 ? -errno : n;
}

static void *worker(void *arg)
{
	struct threads *t = arg;
	uint64_t one = 1;

	pthread_mutex_lock(&t->lock);
	for (;;) {
		struct disk_io *io = take(&t->work);

		if (io == NULL) {
			if (t->stop)
				break;
			pthread_cond_wait(&t->work_cond, &t->lock);
			continue;
		}
		pthread_mutex_unlock(&t->lock);
		io->result = execute(t->d, io);
		pthread_mutex_lock(&t->lock);
		put(&t->finished, io);
		pthread_cond_signal(&t->done_cond);
		/*
		 * A full counter means that the loop has yet to look: nothing is
		 * lost.
		 */
		if (write(t->eventfd, &one, sizeof(one)) < 0)
			continue;
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static void threads_stop(void *state)
{
	struct threads *t = state;

	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_broadcast(&t->work_cond);
	pthread_mutex_unlock(&t->lock);
	for (unsigned i = 0; i < t->nworkers; i++)
		pthread_join(t->worker[i], NULL);
	pthread_cond_destroy(&t->work_cond);
	pthread_cond_destroy(&t->done_cond);
	pthread_mutex_destroy(&t->lock);
	if (t->eventfd >= 0)
		close(t->eventfd);
	free(t);
}

static int threads_start(struct disk *d, void **state, int *eventfd_out)
{
	struct threads *t = calloc(1, sizeof(*t));
	sigset_t all, old;
	int error = 0;

	if (t == NULL)
		return -ENOMEM;
	t->d = d;
	t->work.tail = &t->work.head;
	t->finished.tail = &t->finished.head;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->work_cond, NULL);
	pthread_cond_init(&t->done_cond, NULL);
	t->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (t->eventfd < 0)
		error = -errno;
	/* Signals are for the event loop and the vCPUs. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (error == 0 && t->nworkers < WORKERS) {
		error = -pthread_create(&t->worker[t->nworkers], NULL, worker, t);
		if (error == 0)
			t->nworkers++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error != 0 && t->nworkers == 0) {
		threads_stop(t);
		return error;
	}
	*state = t;
	*eventfd_out = t->eventfd;
	return 0;
}

static void threads_queue(void *state, struct disk_io *io)
{
	struct threads *t = state;

	pthread_mutex_lock(&t->lock);
	put(&t->work, io);
	pthread_cond_signal(&t->work_cond);
	pthread_mutex_unlock(&t->lock);
}

static void threads_kick(void *state)
{
	(void)state;
}

static void threads_reap(void *state, bool wait)
{
	struct threads *t = state;
	struct disk_io *io;
	uint64_t count;

	if (read(t->eventfd, &count, sizeof(count)) < 0)
		count = 0;
	pthread_mutex_lock(&t->lock);
	while (wait && t->finished.head == NULL)
		pthread_cond_wait(&t->done_cond, &t->lock);
	while ((io = take(&t->finished)) != NULL) {
		pthread_mutex_unlock(&t->lock);
		disk_step_done(t->d, io, io->result);
		pthread_mutex_lock(&t->lock);
	}
	pthread_mutex_unlock(&t->lock);
}

const struct disk_engine disk_engine_threads = {
	.name = "threads",
	.start = threads_start,
	.stop = threads_stop,
	.queue = threads_queue,
	.kick = threads_kick,
	.reap = threads_reap,
};
