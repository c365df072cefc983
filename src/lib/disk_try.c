/*
 * Requests that the calling thread, a vCPU's, carries out itself: going through the
 * engine and the event loop costs several times what a copy from or to the host's page
 * cache does.
 *
 * The thread must not wait. For reads the host promises that (RWF_NOWAIT). For writes
 * not every file system does, so they are tried only where a write of whole pages ends
 * in the page cache, while nothing under way may keep the file locked, and while the
 * host is far from the amount of dirty memory at which it holds writers up
 * (/proc/vmstat, read ten times a second while there are writes). Should one have to
 * wait nevertheless, none is tried for twenty times as long.
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/disk_int.h"
#include "lib/event.h"
#include "lib/util.h"

#define READ_MAX   (256 * KiB)
#define READ_MORE  (1 * MiB) /* while somebody else copies as well */
#define WRITE_MAX  (64 * KiB)
#define HOST_PAGE  4096u
#define FRESH_NS   UINT64_C(100000000)
#define LONG_NS    UINT64_C(200000)
#define PAUSE      20 /* times what it took */
#define SMALL_FILE 32768 /* of /proc: room for all of vmstat */

/* File systems on this host whose writes need nobody else. */
static bool local(int fd)
{
	struct statfs st;

	if (fstatfs(fd, &st) != 0)
		return false;
	switch ((unsigned long)st.f_type) {
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
	case TMPFS_MAGIC:
		return true;
	default:
		return false;
	}
}

/* Pages of the line called name; 0: it is not there. */
static uint64_t pages(const char *text, const char *name)
{
	size_t len = strlen(name);

	while (text != NULL) {
		if (strncmp(text, name, len) == 0 && text[len] == ' ')
			return strtoull(text + len, NULL, 10);
		text = strchr(text, '\n');
		if (text != NULL)
			text++;
	}
	return 0;
}

static void refresh(struct disk *d, uint64_t now)
{
	char text[SMALL_FILE];
	ssize_t n = pread(d->try.vmstat, text, sizeof(text) - 1, 0);
	uint64_t limit, dirty;

	d->try.credit = 0;
	d->try.fresh_until = now + FRESH_NS;
	if (n <= 0)
		return;
	text[n] = '\0';
	/* Flushing begins at the first limit; writers wait half-way to the second. */
	limit = pages(text, "nr_dirty_background_threshold");
	dirty = pages(text, "nr_dirty") + pages(text, "nr_writeback");
	if (dirty < limit)
		d->try.credit = (limit - dirty) / 4 * HOST_PAGE;
}

void disk_try_start(struct disk *d)
{
	d->try.vmstat = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
	d->try.allowed = d->try.vmstat >= 0 && !d->readonly && !d->direct &&
			 !d->sync && (d->blockdev || local(d->fd));
}

void disk_try_stop(struct disk *d)
{
	if (d->try.vmstat >= 0)
		close(d->try.vmstat);
}

void disk_try_count(struct disk *d, const struct disk_req *req, int step)
{
	if (req->op == DISK_READ)
		d->try.reads += (unsigned)(req->len > READ_MAX ? step : 0);
	else if (req->op != DISK_WRITE || req->len > WRITE_MAX)
		d->try.heavy += (unsigned)step;
}

/* How often this thread has waited for something. */
static long waits(void)
{
	struct rusage u;

	return getrusage(RUSAGE_THREAD, &u) == 0 ? u.ru_nvcsw : 0;
}

static bool try_write(struct disk *d, const struct disk_req *req)
{
	struct disk_try *t = &d->try;
	uint64_t began, took;
	long before;
	ssize_t n;

	/* Of a page's part the rest might have to be read. */
	if (!t->allowed || t->heavy > 0 || req->len > WRITE_MAX ||
	    ((req->off | req->len) & (HOST_PAGE - 1)) != 0)
		return false;
	began = event_now_ns();
	if (began < t->pause_until)
		return false;
	if (began >= t->fresh_until)
		refresh(d, began);
	if (t->credit < req->len)
		return false;
	t->credit -= req->len;
	before = waits();
	n = pwritev(d->fd, req->iov, req->niov, (off_t)req->off);
	took = event_now_ns() - began;
	/* Not if others had the processor meanwhile. */
	if (took > LONG_NS && waits() != before)
		t->pause_until = began + PAUSE * took;
	return n >= 0 && (uint64_t)n == req->len;
}

bool disk_try(struct disk *d, struct disk_req *req)
{
	ssize_t n;

	if (req->niov > IOV_MAX || disk_check(d, req) != 0)
		return false;
	if (req->op == DISK_WRITE)
		return try_write(d, req);
	/* Of several long ones the engine's threads copy the first. */
	if (req->op != DISK_READ || d->direct ||
	    req->len > (d->try.reads > 0 ? READ_MORE : READ_MAX))
		return false;
	n = preadv2(d->fd, req->iov, req->niov, (off_t)req->off, RWF_NOWAIT);
	return n >= 0 && (uint64_t)n == req->len;
}
