/*
 * What the files of the disk share: the disk, one request on its way, and the
 * seam to the two engines that carry it out.
 *
 * A request runs as one or more steps (a step is one system call's worth); disk.c
 * decides the steps, an engine only executes one and hands its result back.
 * Everything here is guarded by the event loop's lock; the thread engine's
 * workers touch only the step they hold and the engine's own queues.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lib/disk.h"

enum disk_step { STEP_READ, STEP_WRITE, STEP_SYNC, STEP_PUNCH, STEP_ZERO };

struct disk_io {
	struct disk_req *req;
	struct disk_io *next; /* in whatever queue it is */
	enum disk_step step;
	uint64_t off, len; /* of this step */
	uint64_t progress; /* bytes of the request that are done */
	const struct iovec *iov;
	int niov;
	struct iovec *slice;  /* own vector when the caller's does not fit */
	uint8_t *bounce;      /* aligned for O_DIRECT */
	int64_t result;	      /* bytes or -errno */
	bool write_zeros;     /* the host cannot zero a range: write zeros */
};

struct disk_engine {
	const char *name;
	int (*start)(struct disk *d, void **state, int *eventfd);
	void (*stop)(void *state);
	/* Queues one step; its result goes to disk_step_done() from reap(). */
	void (*queue)(void *state, struct disk_io *io);
	/* Starts what was queued. */
	void (*kick)(void *state);
	/* Hands over finished steps; wait: blocks until there is at least one. */
	void (*reap)(void *state, bool wait);
};

extern const struct disk_engine disk_engine_uring, disk_engine_threads;

/* disk_try.c: when a write may be tried. */
struct disk_try {
	bool allowed;	/* the image is where writes end in the page cache */
	int vmstat;	/* of the host */
	uint64_t fresh_until; /* of what was read there; ns */
	uint64_t pause_until; /* a write took long */
	uint64_t credit;      /* bytes the host takes without holding writers up */
	unsigned heavy;       /* requests under way that may keep the file locked */
	unsigned reads;       /* long reads under way */
};

struct disk {
	int fd;
	char *path;
	uint64_t size;
	uint32_t sector, psector;
	bool readonly, sync, direct, blockdev, can_discard;
	bool draining; /* requests end after the step they are in */
	uint32_t mem_align; /* O_DIRECT: of buffers */

	struct event_loop *loop;
	const struct disk_engine *engine;
	void *state;
	struct event *event, *timer;
	unsigned inflight, plugged;
	struct disk_io *free;
	struct disk_req *failed, **failed_tail; /* to complete with req->error */
	void (*batch_end)(void *arg);
	void *batch_arg;
	uint8_t *zeros;
	struct disk_try try;
};

/* disk_open.c: opens, checks and locks the image; fills d. 0 or -errno (logged). */
int disk_open_image(
    struct disk *d, const struct config *cfg, const char *node, bool cdrom);
/* disk_try.c. A request that an engine holds begins (1) or ends (-1). */
void disk_try_start(struct disk *d);
void disk_try_stop(struct disk *d);
void disk_try_count(struct disk *d, const struct disk_req *req, int step);
/* disk.c: 0 or the errno the request must end with. */
int disk_check(const struct disk *d, const struct disk_req *req);
/* From an engine's reap(). */
void disk_step_done(struct disk *d, struct disk_io *io, int64_t result);
