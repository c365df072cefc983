/*
 * Requests of a disk: checks, steps, completions. See disk.h for the promises
 * and disk_int.h for the seam to the engines.
 *
 * Invariants: done() is called exactly once a request, never from within
 * disk_submit(); inflight counts requests that an engine holds; a step never
 * moves more than STEP_MAX bytes, so host memory used for a request is bounded
 * whatever its length.
 */
#include "lib/disk.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/config.h"
#include "lib/disk_int.h"
#include "lib/event.h"
#include "lib/log.h"
#include "lib/util.h"

#define STEP_MAX   (8 * MiB) /* of a request; what a drain cannot cut short */
#define BOUNCE_MAX (1 * MiB)
#define ZERO_CHUNK (256 * KiB)

uint64_t disk_size(const struct disk *d)
{
	return d->size;
}

uint32_t disk_sector(const struct disk *d)
{
	return d->sector;
}

uint32_t disk_psector(const struct disk *d)
{
	return d->psector;
}

bool disk_readonly(const struct disk *d)
{
	return d->readonly;
}

bool disk_can_discard(const struct disk *d)
{
	return d->can_discard;
}

const char *disk_path(const struct disk *d)
{
	return d->path;
}

void disk_set_batch_end(struct disk *d, void (*fn)(void *arg), void *arg)
{
	d->batch_end = fn;
	d->batch_arg = arg;
}

/* O_DIRECT wants aligned addresses and lengths of every piece. */
static bool aligned(const struct disk *d, const struct iovec *iov, int niov)
{
	uint32_t mask = d->mem_align - 1;

	for (int i = 0; i < niov; i++) {
		if (((uintptr_t)iov[i].iov_base & mask) != 0 ||
		    (iov[i].iov_len & (d->sector - 1)) != 0)
			return false;
	}
	return true;
}

/*
 * Copies between the request's vector at byte offset skip and a flat buffer.
 */
static void iov_copy(const struct iovec *iov, int niov, uint64_t skip, uint8_t *buf,
    uint64_t len, bool to_iov)
{
	for (int i = 0; i < niov && len > 0; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		uint64_t n = MIN((uint64_t)iov[i].iov_len - skip, len);
		uint8_t *p = (uint8_t *)iov[i].iov_base + skip;

		if (to_iov)
			memcpy(p, buf, n);
		else
			memcpy(buf, p, n);
		buf += n;
		len -= n;
		skip = 0;
	}
}

/*
 * The part of the vector from byte skip on, at most max bytes and IOV_MAX pieces.
 */
static uint64_t iov_slice(const struct iovec *iov, int niov, uint64_t skip,
    uint64_t max, struct iovec *out, int *nout)
{
	uint64_t total = 0;
	int n = 0;

	for (int i = 0; i < niov && n < IOV_MAX && total < max; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		out[n].iov_base = (uint8_t *)iov[i].iov_base + skip;
		out[n].iov_len = MIN((uint64_t)iov[i].iov_len - skip, max - total);
		total += out[n].iov_len;
		n++;
		skip = 0;
	}
	*nout = n;
	return total;
}

/* Prepares the next READ or WRITE step. 0 or -ENOMEM. */
static int step_transfer(struct disk *d, struct disk_io *io)
{
	struct disk_req *req = io->req;
	uint64_t left = req->len - io->progress;

	io->step = req->op == DISK_READ ? STEP_READ : STEP_WRITE;
	io->off = req->off + io->progress;
	if (d->direct && !aligned(d, req->iov, req->niov)) {
		if (io->bounce == NULL) {
			io->bounce = aligned_alloc(MAX(d->mem_align, 4096u),
			    ROUND_UP(MIN(left, BOUNCE_MAX), 4096u));
			if (io->bounce == NULL)
				return -ENOMEM;
		}
		if (io->slice == NULL) {
			io->slice = calloc(1, sizeof(*io->slice));
			if (io->slice == NULL)
				return -ENOMEM;
		}
		/* The first step is the longest, so its buffer fits all. */
		io->len = MIN(left, BOUNCE_MAX);
		if (req->op == DISK_WRITE)
			iov_copy(req->iov, req->niov, io->progress, io->bounce,
			    io->len, false);
		io->slice[0].iov_base = io->bounce;
		io->slice[0].iov_len = io->len;
		io->iov = io->slice;
		io->niov = 1;
		return 0;
	}
	if (io->progress == 0 && req->len <= STEP_MAX && req->niov <= IOV_MAX) {
		io->iov = req->iov;
		io->niov = req->niov;
		io->len = req->len;
		return 0;
	}
	if (io->slice == NULL) {
		io->slice = calloc(MIN(req->niov, IOV_MAX), sizeof(*io->slice));
		if (io->slice == NULL)
			return -ENOMEM;
	}
	io->len = iov_slice(req->iov, req->niov, io->progress, MIN(left, STEP_MAX),
	    io->slice, &io->niov);
	io->iov = io->slice;
	return 0;
}

/* Prepares the next step that writes zeros the slow way. 0 or -ENOMEM. */
static int step_write_zeros(struct disk *d, struct disk_io *io)
{
	if (d->zeros == NULL) {
		d->zeros = aligned_alloc(4096, ZERO_CHUNK);
		if (d->zeros == NULL)
			return -ENOMEM;
		memset(d->zeros, 0, ZERO_CHUNK);
	}
	if (io->slice == NULL) {
		io->slice = calloc(1, sizeof(*io->slice));
		if (io->slice == NULL)
			return -ENOMEM;
	}
	io->step = STEP_WRITE;
	io->off = io->req->off + io->progress;
	io->len = MIN(io->req->len - io->progress, ZERO_CHUNK);
	io->slice[0].iov_base = d->zeros;
	io->slice[0].iov_len = io->len;
	io->iov = io->slice;
	io->niov = 1;
	return 0;
}

static int next_step(struct disk *d, struct disk_io *io)
{
	switch (io->req->op) {
	case DISK_READ:
	case DISK_WRITE:
		return step_transfer(d, io);
	case DISK_FLUSH:
		io->step = STEP_SYNC;
		return 0;
	case DISK_DISCARD:
	case DISK_ZERO:
		if (io->write_zeros)
			return step_write_zeros(d, io);
		io->step = io->req->op == DISK_DISCARD ? STEP_PUNCH : STEP_ZERO;
		io->off = io->req->off;
		io->len = io->req->len;
		return 0;
	}
	return -EINVAL;
}

static struct disk_io *io_get(struct disk *d)
{
	struct disk_io *io = d->free;

	if (io == NULL)
		return calloc(1, sizeof(*io));
	d->free = io->next;
	memset(io, 0, sizeof(*io));
	return io;
}

static void io_put(struct disk *d, struct disk_io *io)
{
	free(io->slice);
	free(io->bounce);
	io->next = d->free;
	d->free = io;
}

static void finish(struct disk *d, struct disk_io *io, int error)
{
	struct disk_req *req = io->req;

	io_put(d, io);
	d->inflight--;
	disk_try_count(d, req, -1);
	req->done(req, error);
}

/* Starts the request's next step, or ends it when that cannot be. */
static void advance(struct disk *d, struct disk_io *io)
{
	int error = next_step(d, io);

	if (error != 0) {
		finish(d, io, -error);
		return;
	}
	d->engine->queue(d->state, io);
}

/* Whether the step ended the request's work; moves progress on. */
static bool step_completes(struct disk_io *io, uint64_t n)
{
	struct disk_req *req = io->req;

	switch (io->step) {
	case STEP_READ:
		if (io->bounce != NULL)
			iov_copy(
			    req->iov, req->niov, io->progress, io->bounce, n, true);
		/* fallthrough */
	case STEP_WRITE:
		io->progress += n;
		return io->progress >= req->len;
	default:
		return true;
	}
}

void disk_step_done(struct disk *d, struct disk_io *io, int64_t result)
{
	/* ECANCELED: the thread that submitted the step has ended meanwhile. */
	if (result == -EINTR || result == -EAGAIN || result == -ECANCELED) {
		d->engine->queue(d->state, io);
		return;
	}
	if (result == -EOPNOTSUPP && io->step == STEP_ZERO) {
		io->write_zeros = true;
		advance(d, io);
		return;
	}
	if (result < 0) {
		finish(d, io, (int)-result);
		return;
	}
	/* Nothing moved: the image has shrunk, or the host cannot go on. */
	if (result == 0 && (io->step == STEP_READ || io->step == STEP_WRITE)) {
		finish(d, io, EIO);
		return;
	}
	if (!step_completes(io, (uint64_t)result)) {
		if (d->draining)
			finish(d, io, ECANCELED);
		else
			advance(d, io);
		return;
	}
	/* O_DSYNC does not cover fallocate(2). */
	if (d->sync && (io->step == STEP_PUNCH || io->step == STEP_ZERO)) {
		io->step = STEP_SYNC;
		d->engine->queue(d->state, io);
		return;
	}
	finish(d, io, 0);
}

static bool run_failed(struct disk *d)
{
	bool any = d->failed != NULL;

	while (d->failed != NULL) {
		struct disk_req *req = d->failed;

		d->failed = req->next;
		if (d->failed == NULL)
			d->failed_tail = &d->failed;
		req->done(req, req->error);
	}
	return any;
}

static void reap(struct disk *d, bool wait)
{
	disk_plug(d);
	d->engine->reap(d->state, wait);
	if (d->batch_end != NULL)
		d->batch_end(d->batch_arg);
	disk_unplug(d);
}

static void on_event(void *arg, uint32_t events)
{
	(void)events;
	reap(arg, false);
}

static void on_failed(void *arg)
{
	struct disk *d = arg;

	if (run_failed(d) && d->batch_end != NULL)
		d->batch_end(d->batch_arg);
}

static void fail_later(struct disk *d, struct disk_req *req, int error)
{
	req->error = error;
	req->next = NULL;
	*d->failed_tail = req;
	d->failed_tail = &req->next;
	event_set_timer(d->timer, 1);
}

int disk_check(const struct disk *d, const struct disk_req *req)
{
	if (req->op == DISK_FLUSH)
		return 0;
	if (req->op != DISK_READ && d->readonly)
		return EROFS;
	if (((req->off | req->len) & (d->sector - 1)) != 0)
		return EINVAL;
	if (req->len == 0 || req->len > d->size || req->off > d->size - req->len)
		return EINVAL;
	if (req->op != DISK_READ && req->op != DISK_WRITE)
		return 0;

	uint64_t sum = 0;
	for (int i = 0; i < req->niov; i++) {
		if (__builtin_add_overflow(sum, req->iov[i].iov_len, &sum))
			return EINVAL;
	}
	return sum == req->len ? 0 : EINVAL;
}

void disk_submit(struct disk *d, struct disk_req *req)
{
	int error = disk_check(d, req);
	struct disk_io *io = error == 0 ? io_get(d) : NULL;

	if (error == 0 && io == NULL)
		error = ENOMEM;
	if (error == 0) {
		io->req = req;
		error = -next_step(d, io);
		if (error != 0)
			io_put(d, io);
	}
	if (error != 0) {
		fail_later(d, req, error);
		return;
	}
	d->inflight++;
	disk_try_count(d, req, 1);
	d->engine->queue(d->state, io);
	if (d->plugged == 0)
		d->engine->kick(d->state);
}

void disk_plug(struct disk *d)
{
	d->plugged++;
}

void disk_unplug(struct disk *d)
{
	if (--d->plugged == 0)
		d->engine->kick(d->state);
}

void disk_drain(struct disk *d)
{
	unsigned plugged = d->plugged;

	d->draining = true;
	/* A caller may sit between plug and unplug: its requests must start too. */
	d->plugged = 0;
	d->engine->kick(d->state);
	while (d->inflight > 0 || d->failed != NULL) {
		on_failed(d);
		if (d->inflight > 0)
			reap(d, true);
	}
	d->draining = false;
	d->plugged = plugged;
}

static int start_engine(struct disk *d, const struct config *cfg)
{
	const char *want = config_get(cfg, "disk.engine");
	bool any = want == NULL || strcmp(want, "auto") == 0;
	int eventfd = -1, error;

	if (!any && strcmp(want, "uring") != 0 && strcmp(want, "threads") != 0) {
		log_error("disk.engine=%s: must be auto, uring or threads", want);
		return -EINVAL;
	}
	d->engine = &disk_engine_threads;
	error = -ENOSYS;
	if (any || strcmp(want, "uring") == 0) {
		error = disk_engine_uring.start(d, &d->state, &eventfd);
		if (error == 0)
			d->engine = &disk_engine_uring;
		else if (!any)
			log_error("%s: io_uring is not available (%s); use "
				  "disk.engine=auto",
			    d->path, strerror(-error));
	}
	if (error != 0 && (any || strcmp(want, "threads") == 0)) {
		error = disk_engine_threads.start(d, &d->state, &eventfd);
		if (error != 0)
			log_error("%s: cannot start I/O threads: %s", d->path,
			    strerror(-error));
	}
	if (error != 0)
		return error;
	d->event = event_add_fd(d->loop, eventfd, EPOLLIN, on_event, d);
	d->timer = event_add_timer(d->loop, on_failed, d);
	if (d->event == NULL || d->timer == NULL) {
		log_error("%s: cannot watch for I/O: out of memory", d->path);
		return -ENOMEM;
	}
	return 0;
}

int disk_open(struct disk **disk, struct event_loop *loop, const struct config *cfg,
    const char *node, bool cdrom)
{
	struct disk *d = calloc(1, sizeof(*d));
	int error;

	*disk = NULL;
	if (d == NULL)
		return -ENOMEM;
	d->fd = d->try.vmstat = -1;
	d->loop = loop;
	d->failed_tail = &d->failed;
	error = disk_open_image(d, cfg, node, cdrom);
	if (error == 0)
		error = start_engine(d, cfg);
	if (error != 0) {
		disk_close(d);
		return error;
	}
	disk_try_start(d);
	log_debug("%s: %s, %u-byte sectors, %llu MiB", d->path, d->engine->name,
	    d->sector, (unsigned long long)(d->size / MiB));
	*disk = d;
	return 0;
}

void disk_close(struct disk *d)
{
	if (d == NULL)
		return;
	if (d->state != NULL)
		disk_drain(d);
	event_del(d->event);
	event_del(d->timer);
	disk_try_stop(d);
	if (d->state != NULL)
		d->engine->stop(d->state);
	while (d->free != NULL) {
		struct disk_io *io = d->free;

		d->free = io->next;
		free(io);
	}
	if (d->fd >= 0)
		close(d->fd);
	free(d->zeros);
	free(d->path);
	free(d);
}
