/*
 * The loader's devices by FreeBSD's names: disk0, disk0p2, disk0s1a, host0. A path
 * may begin with one and a colon; else the current device is meant.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "load/bsd/fs.h"
#include "load/bsd/media.h"
#include "load/bsd/part.h"

#define DEV_DISKS 32
#define DEV_NAME  24

struct dev_disk {
	const char *path;
	struct media media;
	struct parts parts;
};

struct dev_mount {
	char name[DEV_NAME];
	struct fs *fs;
};

struct devices {
	struct dev_disk disk[DEV_DISKS];
	unsigned disks;
	struct fs *host; /* NULL: none */
	struct dev_mount *mounts;
	unsigned count;
	char current[DEV_NAME]; /* "" while there is none */
};

void dev_free(struct devices *d);
/* The bytes of a disk or partition: 0 or -ENODEV (no such name). */
int dev_media(const struct devices *d, const char *name, struct media *m);
/* -ENODEV, -EINVAL (no file system that is known), -errno. Stays mounted. */
int dev_mount(struct devices *d, const char *name, struct fs **fs);
bool dev_is_zfs(const struct devices *d, const char *name);
/*
 * Splits "disk0p2:/path" into device and path; without a device the current one.
 * "disk0p2:" means its root.
 */
int dev_split(const struct devices *d, const char *path, char name[DEV_NAME],
    const char **rest);
/*
 * The device to start from: the first that has a /boot with a kernel or a
 * configuration, else the first with a file system. false: none.
 */
bool dev_choose(struct devices *d, char name[DEV_NAME]);
/* The first ZFS pool among the devices; false: none. */
bool dev_find_zfs(struct devices *d, char name[DEV_NAME]);

/* A file as a path names it. 0, -errno. */
int dev_walk(struct devices *d, const char *path, struct fs **fs, struct node *n);
/*
 * The whole file, unpacked when it is packed and unpack is set. When the name does
 * not exist, those with .gz, .bz2, .xz and .zst are tried and unpacked.
 */
int dev_load(struct devices *d, const char *path, bool unpack, uint64_t limit,
    uint8_t **data, size_t *len);
