/*
 * Opening an image: its options, what kind of file it is, its geometry, and the
 * lock that keeps two VMs off one disk.
 *
 * The lock is an OFD lock (fcntl(2)) on the file: it belongs to our open file, ends
 * with it whatever happens to the process, and is shared between readers. It does
 * not tell who holds it; for that, a POSIX lock on a byte behind it does.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lib/config.h"
#include "lib/disk_int.h"
#include "lib/log.h"
#include "lib/util.h"

#define SECTOR_MIN 512u
#define SECTOR_MAX 65536u
#define TAG_BYTE   (INT64_C(1) << 62) /* the lock ends before it */

struct options {
	bool nocache, sync, ro, nodelete;
	uint32_t sector, psector; /* 0: take the host's */
};

static int get_bool(
    const struct config *cfg, const char *node, const char *name, bool *out)
{
	char key[128];

	snprintf(key, sizeof(key), "%s.%s", node, name);
	return config_get_bool(cfg, key, false, out);
}

static bool good_sector(unsigned long v)
{
	return v >= SECTOR_MIN && v <= SECTOR_MAX && (v & (v - 1)) == 0;
}

static int parse_sectorsize(const char *text, struct options *o)
{
	unsigned long l, p;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	l = p = strtoul(text, &end, 10);
	if (*end == '/' && isdigit((unsigned char)end[1]))
		p = strtoul(end + 1, &end, 10);
	if (*end != '\0' || !good_sector(l) || !good_sector(p) || p < l)
		return -EINVAL;
	o->sector = (uint32_t)l;
	o->psector = (uint32_t)p;
	return 0;
}

static int get_options(
    const struct config *cfg, const char *node, const char *path, struct options *o)
{
	const char *text = config_getf(cfg, "%s.sectorsize", node);
	bool direct;

	memset(o, 0, sizeof(*o));
	if (get_bool(cfg, node, "nocache", &o->nocache) != 0 ||
	    get_bool(cfg, node, "sync", &o->sync) != 0 ||
	    get_bool(cfg, node, "direct", &direct) != 0 ||
	    get_bool(cfg, node, "ro", &o->ro) != 0 ||
	    get_bool(cfg, node, "nodelete", &o->nodelete) != 0)
		return -EINVAL;
	o->sync |= direct;
	if (text != NULL && parse_sectorsize(text, o) != 0) {
		log_error("%s: sectorsize=%s is not LOGICAL or LOGICAL/PHYSICAL, "
			  "powers of "
			  "two from %u to %u, the physical not below the logical",
		    path, text, SECTOR_MIN, SECTOR_MAX);
		return -EINVAL;
	}
	return 0;
}

/* "process 123 (bhyve)", or what can be said when nobody left a tag. */
static void name_holder(const struct disk *d, char *buf, size_t len)
{
	struct flock fl = { .l_type = F_WRLCK, .l_start = TAG_BYTE, .l_len = 1 };
	char path[64], comm[32] = "";
	FILE *f;

	snprintf(buf, len, "another program, or another device of this VM");
	if (d->readonly)
		fl.l_type = F_RDLCK;
	if (fcntl(d->fd, F_GETLK, &fl) != 0 || fl.l_type == F_UNLCK ||
	    fl.l_pid <= 0)
		return;
	snprintf(path, sizeof(path), "/proc/%ld/comm", (long)fl.l_pid);
	f = fopen(path, "re");
	if (f != NULL) {
		if (fgets(comm, sizeof(comm), f) != NULL)
			comm[strcspn(comm, "\n")] = '\0';
		fclose(f);
	}
	snprintf(buf, len, "process %ld (%s)", (long)fl.l_pid, comm);
}

static int lock_image(struct disk *d)
{
	struct flock fl = {
		.l_type = d->readonly ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
		.l_len = TAG_BYTE,
	};
	struct flock tag = { .l_type = fl.l_type, .l_start = TAG_BYTE, .l_len = 1 };
	char holder[80];

	if (fcntl(d->fd, F_OFD_SETLK, &fl) == 0) {
		/* Only for messages, so it may fail. */
		(void)fcntl(d->fd, F_SETLK, &tag);
		return 0;
	}
	if (errno != EAGAIN && errno != EACCES) {
		log_warn(
		    "%s: cannot be locked (%s); nothing keeps another VM off it",
		    d->path, strerror(errno));
		return 0;
	}
	name_holder(d, holder, sizeof(holder));
	log_error("%s: in use by %s; stop that first%s", d->path, holder,
	    d->readonly ? "" : ", or open the image with ',ro' in both");
	return -EBUSY;
}

static uint64_t queue_limit(const struct stat *st, const char *name)
{
	unsigned long long v = 0;
	char path[96];
	FILE *f;

	/* A partition's limits are its disk's. */
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/queue/%s",
	    major(st->st_rdev), minor(st->st_rdev), name);
	f = fopen(path, "re");
	if (f == NULL) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../queue/%s",
		    major(st->st_rdev), minor(st->st_rdev), name);
		f = fopen(path, "re");
	}
	if (f == NULL)
		return 0;
	if (fscanf(f, "%llu", &v) != 1)
		v = 0;
	fclose(f);
	return v;
}

/*
 * A hole punched behind the end changes nothing and tells whether it is possible.
 */
static bool can_punch(const struct disk *d, const struct stat *st)
{
	if (d->blockdev)
		return queue_limit(st, "write_zeroes_max_bytes") > 0;
	return fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		   st->st_size, 4096) == 0;
}

static int block_geometry(struct disk *d, const struct options *o)
{
	int sector = 512;
	unsigned psector = 512;

	if (ioctl(d->fd, BLKGETSIZE64, &d->size) != 0 ||
	    ioctl(d->fd, BLKSSZGET, &sector) != 0) {
		int error = -errno;

		log_error(
		    "%s: cannot ask for its size: %s", d->path, strerror(-error));
		return error;
	}
	if (ioctl(d->fd, BLKPBSZGET, &psector) != 0)
		psector = (unsigned)sector;
	d->sector = o->sector != 0 ? o->sector : (uint32_t)sector;
	d->psector = o->psector != 0 ? o->psector : psector;
	if (d->direct && d->sector < (uint32_t)sector) {
		log_error("%s: nocache needs sectorsize=%d or more on this device",
		    d->path, sector);
		return -EINVAL;
	}
	d->mem_align = 4096;
	return 0;
}

static int file_geometry(
    struct disk *d, const struct stat *st, const struct options *o)
{
	uint32_t offset_align = SECTOR_MIN;

	d->size = (uint64_t)st->st_size;
	d->sector = o->sector != 0 ? o->sector : SECTOR_MIN;
	d->psector = o->psector != 0 ? o->psector : (uint32_t)st->st_blksize;
	d->mem_align = 4096;
#ifdef STATX_DIOALIGN
	struct statx sx;

	if (d->direct &&
	    statx(d->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 &&
	    (sx.stx_mask & STATX_DIOALIGN) != 0 && sx.stx_dio_offset_align != 0) {
		offset_align = sx.stx_dio_offset_align;
		d->mem_align = MAX(sx.stx_dio_mem_align, SECTOR_MIN);
	}
#endif
	if (d->direct && d->sector < offset_align) {
		log_error("%s: nocache needs sectorsize=%u on this file system; "
			  "set it, or "
			  "leave out nocache",
		    d->path, offset_align);
		return -EINVAL;
	}
	return 0;
}

static int check_size(struct disk *d)
{
	uint64_t rest;

	if (!good_sector(d->psector) || d->psector < d->sector)
		d->psector = MAX(d->sector, 4096u);
	rest = d->size & (d->sector - 1);
	if (d->size - rest == 0) {
		log_error("%s: is smaller than one sector of %u bytes; make it "
			  "larger, as in "
			  "'truncate -s 16G %s'",
		    d->path, d->sector, d->path);
		return -EINVAL;
	}
	if (rest != 0)
		log_warn("%s: its size is not a multiple of %u; the guest does not "
			 "see the "
			 "last %llu bytes",
		    d->path, d->sector, (unsigned long long)rest);
	d->size -= rest;
	return 0;
}

static int check_kind(struct disk *d, const struct stat *st)
{
	if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode)) {
		d->blockdev = S_ISBLK(st->st_mode);
		return 0;
	}
	log_error("%s: is %s; a disk must be a file or a block device", d->path,
	    S_ISDIR(st->st_mode) ? "a directory"
				 : "neither a file nor a block device");
	return S_ISDIR(st->st_mode) ? -EISDIR : -ENOTBLK;
}

static int open_file(struct disk *d, const struct options *o)
{
	int flags = O_CLOEXEC | O_NOCTTY | (d->readonly ? O_RDONLY : O_RDWR) |
		    (o->nocache ? O_DIRECT : 0) | (o->sync ? O_DSYNC : 0);
	int error;

	d->fd = open(d->path, flags);
	if (d->fd >= 0)
		return 0;
	error = -errno;
	if (error == -EINVAL && o->nocache)
		log_error(
		    "%s: its file system does not support nocache; leave it out",
		    d->path);
	else if (!d->readonly &&
		 (error == -EACCES || error == -EPERM || error == -EROFS) &&
		 access(d->path, R_OK) == 0)
		log_error("%s: cannot be opened for writing: %s; change its "
			  "permissions, or "
			  "add ',ro' to give the guest a read-only disk",
		    d->path, strerror(-error));
	else
		log_error("%s: cannot be opened: %s", d->path, strerror(-error));
	return error;
}

int disk_open_image(
    struct disk *d, const struct config *cfg, const char *node, bool cdrom)
{
	const char *path = config_getf(cfg, "%s.path", node);
	struct options o;
	struct stat st;
	int error;

	if (path == NULL) {
		log_error("%s: no path to a disk image given", node);
		return -EINVAL;
	}
	error = get_options(cfg, node, path, &o);
	if (error != 0)
		return error;
	d->path = strdup(path);
	if (d->path == NULL)
		return -ENOMEM;
	d->readonly = o.ro || cdrom;
	d->sync = o.sync;
	d->direct = o.nocache;
	/* Before the open, which would wait for ever on a FIFO. */
	if (stat(d->path, &st) == 0) {
		error = check_kind(d, &st);
		if (error != 0)
			return error;
	}
	error = open_file(d, &o);
	if (error != 0)
		return error;
	if (fstat(d->fd, &st) != 0)
		return -errno;
	error = check_kind(d, &st);
	if (error == 0)
		error = lock_image(d);
	if (error == 0)
		error =
		    d->blockdev ? block_geometry(d, &o) : file_geometry(d, &st, &o);
	if (error == 0)
		error = check_size(d);
	if (error == 0)
		d->can_discard = !d->readonly && !o.nodelete && can_punch(d, &st);
	return error;
}
