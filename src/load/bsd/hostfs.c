/*
 * A directory of the host as the guest's root. The kernel keeps every path inside
 * it: openat2(2) with RESOLVE_IN_ROOT, so that neither ".." nor a link leads out;
 * links are followed by the kernel the same way.
 *
 * An id is the index of a path that was looked up before.
 */
#include "load/bsd/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/openat2.h>

#include "lib/util.h"

#define PATHS_MAX 65536u

struct hostfs {
	struct fs fs;
	int dir;
	char **paths; /* [0] is "." */
	unsigned count;
};

static int open_inside(struct hostfs *h, const char *path, uint64_t flags)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, h->dir, path, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

/* The path's index, kept for good: what is looked up is what a user types. */
static int intern(struct hostfs *h, const char *path, uint64_t *id)
{
	for (unsigned i = 0; i < h->count; i++) {
		if (strcmp(h->paths[i], path) == 0) {
			*id = i;
			return 0;
		}
	}
	if (h->count == PATHS_MAX)
		return -ENOMEM;
	char **more = realloc(h->paths, (h->count + 1) * sizeof(*more));
	if (more == NULL)
		return -ENOMEM;
	h->paths = more;
	more[h->count] = strdup(path);
	if (more[h->count] == NULL)
		return -ENOMEM;
	*id = h->count++;
	return 0;
}

static int join(struct hostfs *h, const struct node *dir, const char *name,
    char path[FS_PATH_MAX])
{
	int n = snprintf(path, FS_PATH_MAX, "%s/%s", h->paths[dir->id], name);

	return n < 0 || n >= FS_PATH_MAX ? -ENAMETOOLONG : 0;
}

static int hostfs_stat(struct fs *fs, uint64_t id, struct node *n)
{
	struct hostfs *h = container_of(fs, struct hostfs, fs);
	struct stat st;

	int fd = open_inside(h, h->paths[id], O_PATH);
	if (fd < 0)
		return fd;
	int err = fstat(fd, &st) != 0 ? -errno : 0;
	close(fd);
	if (err == 0)
		*n = (struct node){ id, (uint64_t)st.st_size,
			S_ISREG(st.st_mode)   ? NODE_FILE
			: S_ISDIR(st.st_mode) ? NODE_DIR
					      : NODE_OTHER };
	return err;
}

static int hostfs_lookup(
    struct fs *fs, const struct node *dir, const char *name, uint64_t *id)
{
	struct hostfs *h = container_of(fs, struct hostfs, fs);
	char path[FS_PATH_MAX];

	int err = join(h, dir, name, path);
	int fd = err == 0 ? open_inside(h, path, O_PATH) : err;
	if (fd < 0)
		return fd;
	close(fd);
	return intern(h, path, id);
}

static int hostfs_list(
    struct fs *fs, const struct node *dir, fs_list_fn *fn, void *arg)
{
	struct hostfs *h = container_of(fs, struct hostfs, fs);
	char path[FS_PATH_MAX];
	uint64_t id;
	int err = 0;

	int fd = open_inside(h, h->paths[dir->id], O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd;
	DIR *d = fdopendir(fd);
	if (d == NULL) {
		close(fd);
		return -ENOMEM;
	}
	for (struct dirent *e; err == 0 && (e = readdir(d)) != NULL;) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		err = join(h, dir, e->d_name, path);
		if (err == 0)
			err = intern(h, path, &id);
		if (err == 0 && !fn(arg, e->d_name, id))
			break;
	}
	closedir(d);
	return err;
}

static int hostfs_read(struct fs *fs, const struct node *n, void *buf, size_t len)
{
	struct hostfs *h = container_of(fs, struct hostfs, fs);
	struct stat st;
	uint8_t *p = buf;
	int err = 0;

	/* O_NONBLOCK, and a second look: the file may be another one by now. */
	int fd = open_inside(h, h->paths[n->id], O_RDONLY | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		err = -EINVAL;
	while (err == 0 && len > 0) {
		ssize_t got = read(fd, p, MIN(len, (size_t)GiB));
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			err = -EIO;
			break;
		}
		p += got;
		len -= (size_t)got;
	}
	close(fd);
	return err;
}

static int hostfs_readlink(
    struct fs *fs, const struct node *n, char *buf, size_t size)
{
	(void)fs, (void)n, (void)buf, (void)size;
	return -EINVAL; /* the kernel follows links: none is seen here */
}

static void hostfs_unmount(struct fs *fs)
{
	struct hostfs *h = container_of(fs, struct hostfs, fs);

	for (unsigned i = 0; i < h->count; i++)
		free(h->paths[i]);
	free(h->paths);
	close(h->dir);
	free(h);
}

static const struct fs_ops hostfs_ops = {
	.name = "host directory",
	.unmount = hostfs_unmount,
	.stat = hostfs_stat,
	.list = hostfs_list,
	.lookup = hostfs_lookup,
	.read = hostfs_read,
	.readlink = hostfs_readlink,
};

int hostfs_mount(int dir, struct fs **fs)
{
	struct hostfs *h = calloc(1, sizeof(*h));
	uint64_t id;

	if (h == NULL) {
		close(dir);
		return -ENOMEM;
	}
	h->fs.ops = &hostfs_ops;
	h->dir = dir;
	int err = intern(h, ".", &id);
	if (err != 0)
		hostfs_unmount(&h->fs);
	else
		*fs = &h->fs;
	return err;
}
