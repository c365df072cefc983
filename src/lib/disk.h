/*
 * Asynchronous block I/O on an image file or block device: io_uring, or a
 * thread pool where that is forbidden. Completions run in the event loop with
 * its lock held.
 *
 * Promises: a flush completes after fdatasync(2) has returned (and covers every
 * write completed before it was submitted); in sync mode each write does too;
 * the image is held by an OFD lock from open to close (shared when read-only);
 * a short or failed transfer is an error of the request, never silent.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct config;
struct disk;
struct event_loop;

/*
 * DISCARD gives the blocks back to the host; the range reads as zeros after it.
 * ZERO makes the range read as zeros and keeps it allocated.
 */
enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_ZERO };

struct disk_req {
	enum disk_op op;
	uint64_t off;      /* bytes; all but FLUSH */
	uint64_t len;      /* bytes; = sum of iov for READ/WRITE */
	struct iovec *iov; /* owned by the caller until done() */
	int niov;
	void (*done)(
	    struct disk_req *req, int error); /* error: 0 or positive errno */
	void *arg;
	/* private to disk.c */
	struct disk_req *next;
	int error;
};

/*
 * Keys of an image; bootindex, which only firmware reads, is taken and has no
 * effect.
 */
#define DISK_OPTIONS "nocache sync direct ro nodelete sectorsize bootindex"

/*
 * Opens the image named by key NODE.path with the block options of
 * bhyve_config(5) under NODE (nocache, direct, sync, ro, nodelete,
 * sectorsize=L[/P]); key disk.engine = auto | uring | threads. cdrom opens
 * read-only always. Logs a sentence naming path, cause and cure. 0 or -errno.
 */
int disk_open(struct disk **disk, struct event_loop *loop, const struct config *cfg,
    const char *node, bool cdrom);
/* Drains, then closes. NULL is fine. */
void disk_close(struct disk *disk);
/*
 * Waits until nothing is in flight; done() callbacks run in this thread. A large
 * request is cut short (ECANCELED): nobody is to wait for gigabytes at a reset.
 */
void disk_drain(struct disk *disk);

uint64_t disk_size(
    const struct disk *disk); /* bytes, multiple of the sector size */
uint32_t disk_sector(const struct disk *disk);  /* logical, 512..65536 */
uint32_t disk_psector(const struct disk *disk); /* physical */
bool disk_readonly(const struct disk *disk);
bool disk_can_discard(const struct disk *disk);
const char *disk_path(const struct disk *disk);

/*
 * Starts a request. A range outside the disk, a misaligned range or a write to
 * a read-only disk completes with EINVAL/EROFS through done(), never before
 * this returns.
 */
void disk_submit(struct disk *disk, struct disk_req *req);

/*
 * Carries out a request that the host can do without waiting, as far as one can know:
 * a small one served by the page cache. True: it is done, without an error; done() is
 * not called. False: it is to be submitted.
 */
bool disk_try(struct disk *disk, struct disk_req *req);

/*
 * Between the two, requests are only collected: one system call starts them all.
 * Nests.
 */
void disk_plug(struct disk *disk);
void disk_unplug(struct disk *disk);
/*
 * fn(arg) runs after each batch of done() calls: the place to interrupt the guest
 * once.
 */
void disk_set_batch_end(struct disk *disk, void (*fn)(void *arg), void *arg);
