/*
 * The io_uring engine: one ring a disk, its completions signalled through an
 * eventfd in the event loop.
 *
 * The ring is used by whichever thread holds the event loop's lock. At most
 * RING_SIZE steps are in it; the rest wait in a backlog, so neither queue of the
 * ring can overflow. Steps of a thread that ends come back as ECANCELED and are
 * queued again by disk.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/disk_int.h"
#include "lib/util.h"

#define RING_SIZE  128u
#define LONG_READ  (256 * KiB)

struct uring {
	struct disk *d;
	struct io_uring ring;
	int eventfd;
	unsigned inside; /* steps in the ring */
	unsigned queued; /* of those, not yet told to the kernel */
	struct disk_io *backlog, **backlog_tail;
};

static bool supported(struct io_uring *ring)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	bool ok = probe != NULL &&
		  io_uring_opcode_supported(probe, IORING_OP_READV) &&
		  io_uring_opcode_supported(probe, IORING_OP_WRITEV) &&
		  io_uring_opcode_supported(probe, IORING_OP_FSYNC) &&
		  io_uring_opcode_supported(probe, IORING_OP_FALLOCATE);

	io_uring_free_probe(probe);
	return ok;
}

/*
 * From now on the ring does nothing but what prepare() asks for: whoever takes the
 * process over must not open files or sockets past the sandbox's filter with it.
 * Kernels before 5.10 cannot; there the ring is not used.
 */
static int restrict_ring(struct io_uring *ring)
{
	static const uint8_t ops[] = { IORING_OP_READV, IORING_OP_WRITEV,
		IORING_OP_FSYNC, IORING_OP_FALLOCATE };
	struct io_uring_restriction r[ARRAY_SIZE(ops) + 2];

	memset(r, 0, sizeof(r));
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		r[i].opcode = IORING_RESTRICTION_SQE_OP;
		r[i].sqe_op = ops[i];
	}
	r[ARRAY_SIZE(ops)].opcode = IORING_RESTRICTION_REGISTER_OP;
	r[ARRAY_SIZE(ops)].register_op = IORING_REGISTER_ENABLE_RINGS;
	r[ARRAY_SIZE(ops) + 1].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	r[ARRAY_SIZE(ops) + 1].sqe_flags = IOSQE_ASYNC;
	/* Debian 12's liburing declares calls for these two and lacks them. */
	if (syscall(SYS_io_uring_register, ring->ring_fd,
		IORING_REGISTER_RESTRICTIONS, r, ARRAY_SIZE(r)) < 0 ||
	    syscall(SYS_io_uring_register, ring->ring_fd,
		IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
		return -errno;
	return 0;
}

static void uring_stop(void *state)
{
	struct uring *u = state;

	io_uring_queue_exit(&u->ring);
	if (u->eventfd >= 0)
		close(u->eventfd);
	free(u);
}

static int uring_start(struct disk *d, void **state, int *eventfd_out)
{
	struct uring *u = calloc(1, sizeof(*u));
	int error;

	if (u == NULL)
		return -ENOMEM;
	u->d = d;
	u->backlog_tail = &u->backlog;
	error = io_uring_queue_init(RING_SIZE, &u->ring,
	    IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED);
	if (error != 0) {
		free(u);
		return error;
	}
	u->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (u->eventfd < 0)
		error = -errno;
	else if (!supported(&u->ring))
		error = -ENOSYS;
	else
		error = io_uring_register_eventfd(&u->ring, u->eventfd);
	if (error == 0)
		error = restrict_ring(&u->ring);
	if (error != 0) {
		uring_stop(u);
		return error;
	}
	*state = u;
	*eventfd_out = u->eventfd;
	return 0;
}

static void prepare(struct disk *d, struct io_uring_sqe *sqe, struct disk_io *io)
{
	switch (io->step) {
	case STEP_READ:
		io_uring_prep_readv(sqe, d->fd, io->iov, io->niov, io->off);
		/* Else whoever submits it would copy it from the page cache. */
		if (!d->direct && io->len > LONG_READ)
			sqe->flags |= IOSQE_ASYNC;
		break;
	case STEP_WRITE:
		io_uring_prep_writev(sqe, d->fd, io->iov, io->niov, io->off);
		break;
	case STEP_SYNC:
		io_uring_prep_fsync(sqe, d->fd, IORING_FSYNC_DATASYNC);
		break;
	case STEP_PUNCH:
		io_uring_prep_fallocate(sqe, d->fd,
		    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, io->off, io->len);
		break;
	case STEP_ZERO:
		io_uring_prep_fallocate(sqe, d->fd,
		    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, io->off, io->len);
		break;
	}
	io_uring_sqe_set_data(sqe, io);
}

static bool push(struct uring *u, struct disk_io *io)
{
	struct io_uring_sqe *sqe;

	if (u->inside >= RING_SIZE)
		return false;
	sqe = io_uring_get_sqe(&u->ring);
	if (sqe == NULL)
		return false;
	prepare(u->d, sqe, io);
	u->inside++;
	u->queued++;
	return true;
}

static void uring_queue(void *state, struct disk_io *io)
{
	struct uring *u = state;

	/* In order behind those that already wait. */
	if (u->backlog == NULL && push(u, io))
		return;
	io->next = NULL;
	*u->backlog_tail = io;
	u->backlog_tail = &io->next;
}

static void uring_kick(void *state)
{
	struct uring *u = state;

	while (u->queued > 0) {
		int n = io_uring_submit(&u->ring);

		/* Out of kernel memory for now: reap() tries again. */
		if (n <= 0)
			return;
		u->queued -= (unsigned)n < u->queued ? (unsigned)n : u->queued;
	}
}

static void refill(struct uring *u)
{
	while (u->backlog != NULL) {
		struct disk_io *io = u->backlog, *next = io->next;

		if (!push(u, io))
			break;
		u->backlog = next;
		if (next == NULL)
			u->backlog_tail = &u->backlog;
	}
}

static void uring_reap(void *state, bool wait)
{
	struct uring *u = state;
	struct io_uring_cqe *cqe;
	uint64_t count;

	if (read(u->eventfd, &count, sizeof(count)) < 0)
		count = 0; /* drained by an earlier reap */
	refill(u);
	uring_kick(u);
	if (wait && io_uring_wait_cqe(&u->ring, &cqe) != 0)
		return; /* EINTR: the caller asks again */
	while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
		struct disk_io *io = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&u->ring, cqe);
		u->inside--;
		disk_step_done(u->d, io, result);
	}
	refill(u);
	uring_kick(u);
}

const struct disk_engine disk_engine_uring = {
	.name = "io_uring",
	.start = uring_start,
	.stop = uring_stop,
	.queue = uring_queue,
	.kick = uring_kick,
	.reap = uring_reap,
};
