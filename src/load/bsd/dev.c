/* The loader's devices and files (dev.h). */
#include "load/bsd/dev.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/bytes.h"
#include "load/bsd/unpack.h"

#define ZFS_LABEL_RING 131072u /* of uberblocks, in the first label */
#define ZFS_LABEL_END  262144u
#define ZFS_UBERBLOCK  UINT64_C(0x00bab10c)

void dev_free(struct devices *d)
{
	for (unsigned i = 0; i < d->count; i++)
		fs_unmount(d->mounts[i].fs);
	free(d->mounts);
	for (unsigned i = 0; i < d->disks; i++)
		media_close(&d->disk[i].media);
	fs_unmount(d->host);
	*d = (struct devices){ .disks = 0 };
}

int dev_media(const struct devices *d, const char *name, struct media *m)
{
	char *end;

	if (strncmp(name, "disk", 4) != 0 || name[4] < '0' || name[4] > '9')
		return -ENODEV;
	unsigned long unit = strtoul(name + 4, &end, 10);
	if (unit >= d->disks)
		return -ENODEV;
	const struct dev_disk *disk = &d->disk[unit];
	if (*end == '\0') {
		*m = disk->media;
		return 0;
	}
	for (unsigned i = 0; i < disk->parts.count; i++) {
		const struct part *p = &disk->parts.part[i];
		if (strcmp(p->name, end) == 0)
			return media_window(&disk->media, p->start, p->size, m);
	}
	return -ENODEV;
}

int dev_mount(struct devices *d, const char *name, struct fs **fs)
{
	struct media m;

	if (strcmp(name, "host0") == 0 || strcmp(name, "host") == 0) {
		*fs = d->host;
		return d->host != NULL ? 0 : -ENODEV;
	}
	for (unsigned i = 0; i < d->count; i++) {
		if (strcmp(d->mounts[i].name, name) == 0) {
			*fs = d->mounts[i].fs;
			return 0;
		}
	}
	int err = dev_media(d, name, &m);
	if (err != 0)
		return err;
	struct dev_mount *more = realloc(d->mounts, (d->count + 1) * sizeof(*more));
	if (more == NULL)
		return -ENOMEM;
	d->mounts = more;
	err = fs_mount(&m, fs);
	if (err != 0)
		return err;
	snprintf(more[d->count].name, DEV_NAME, "%s", name);
	more[d->count++].fs = *fs;
	return 0;
}

bool dev_is_zfs(const struct devices *d, const char *name)
{
	struct media m;
	uint8_t u[8];

	if (dev_media(d, name, &m) != 0)
		return false;
	for (uint32_t at = ZFS_LABEL_RING; at < ZFS_LABEL_END; at += 1024)
		if (media_read(&m, at, u, sizeof(u)) == 0 &&
		    get64(u) == ZFS_UBERBLOCK)
			return true;
	return false;
}

int dev_split(const struct devices *d, const char *path, char name[DEV_NAME],
    const char **rest)
{
	const char *colon = strchr(path, ':');
	const char *slash = strchr(path, '/');

	if (colon == NULL || (slash != NULL && slash < colon)) {
		if (d->current[0] == '\0')
			return -ENODEV;
		snprintf(name, DEV_NAME, "%s", d->current);
		*rest = path;
		return 0;
	}
	if (colon - path >= DEV_NAME)
		return -ENODEV;
	snprintf(name, DEV_NAME, "%.*s", (int)(colon - path), path);
	*rest = colon + 1;
	return 0;
}

static int rank(struct devices *d, const char *name)
{
	static const char *const signs[] = { "/boot/kernel", "/boot/loader.conf",
		"/boot/defaults/loader.conf", "/boot/loader.rc", "/kernel" };
	struct node n;
	struct fs *fs;

	if (dev_mount(d, name, &fs) != 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(signs); i++)
		if (fs_walk(fs, signs[i], &n) == 0)
			return 2;
	return 1;
}

typedef bool each_fn(struct devices *d, const char *name, void *arg);

/* Every partition, then the disk itself, disk by disk. */
static bool each_device(struct devices *d, each_fn *fn, void *arg)
{
	char name[DEV_NAME];

	for (unsigned i = 0; i < d->disks; i++) {
		for (unsigned j = 0; j < d->disk[i].parts.count; j++) {
			snprintf(name, sizeof(name), "disk%u%s", i,
			    d->disk[i].parts.part[j].name);
			if (fn(d, name, arg))
				return true;
		}
		snprintf(name, sizeof(name), "disk%u", i);
		if (fn(d, name, arg))
			return true;
	}
	return false;
}

struct choice {
	char name[DEV_NAME];
	int rank;
};

static bool choose(struct devices *d, const char *name, void *arg)
{
	struct choice *c = arg;
	int r = rank(d, name);

	if (r > c->rank) {
		c->rank = r;
		snprintf(c->name, DEV_NAME, "%s", name);
	}
	return c->rank == 2;
}

bool dev_choose(struct devices *d, char name[DEV_NAME])
{
	struct choice c = { .rank = 0 };

	each_device(d, choose, &c);
	if (c.rank < 2 && d->host != NULL)
		c = (struct choice){ "host0", 2 };
	if (c.rank > 0)
		memcpy(name, c.name, DEV_NAME);
	return c.rank > 0;
}

static bool find_zfs(struct devices *d, const char *name, void *arg)
{
	if (!dev_is_zfs(d, name))
		return false;
	snprintf(arg, DEV_NAME, "%s", name);
	return true;
}

bool dev_find_zfs(struct devices *d, char name[DEV_NAME])
{
	return each_device(d, find_zfs, name);
}

int dev_walk(struct devices *d, const char *path, struct fs **fs, struct node *n)
{
	char name[DEV_NAME];
	const char *rest;

	int err = dev_split(d, path, name, &rest);
	if (err == 0)
		err = dev_mount(d, name, fs);
	return err != 0 ? err : fs_walk(*fs, rest, n);
}

static int load(struct devices *d, const char *path, bool unpacked, uint64_t limit,
    uint8_t **data, size_t *len)
{
	struct node n;
	struct fs *fs;

	int err = dev_walk(d, path, &fs, &n);
	if (err == 0)
		err = fs_load(fs, &n, limit, data, len);
	if (err != 0 || !unpacked || !unpack_is_packed(*data, *len))
		return err;
	uint8_t *packed = *data;
	err = unpack(packed, *len, limit, data, len);
	free(packed);
	return err;
}

int dev_load(struct devices *d, const char *path, bool unpacked, uint64_t limit,
    uint8_t **data, size_t *len)
{
	static const char *const suffixes[] = { ".gz", ".bz2", ".xz", ".zst" };
	char packed[FS_PATH_MAX];

	int err = load(d, path, unpacked, limit, data, len);
	for (size_t i = 0; err == -ENOENT && i < ARRAY_SIZE(suffixes); i++) {
		int n = snprintf(packed, sizeof(packed), "%s%s", path, suffixes[i]);
		if (n < 0 || n >= (int)sizeof(packed))
			break;
		err = load(d, packed, true, limit, data, len);
	}
	return err;
}
