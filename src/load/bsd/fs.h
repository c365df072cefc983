/*
 * A file system to read from, whatever its kind, and the walk along a path in it.
 *
 * A node's id is the file system's own (an inode, an index); 0 is the root
 * directory. Names and contents are foreign bytes: sizes are checked against the
 * caller's limits, depth and symbolic links are bounded by fs_walk().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FS_NAME_MAX 255
#define FS_PATH_MAX 1024

struct fs;
struct media;

enum node_type { NODE_FILE, NODE_DIR, NODE_LINK, NODE_OTHER };

struct node {
	uint64_t id;
	uint64_t size;
	enum node_type type;
};

/* One name of a directory; false ends the listing. */
typedef bool fs_list_fn(void *arg, const char *name, uint64_t id);

struct fs_ops {
	const char *name;
	bool fold_case; /* names match in either case */
	void (*unmount)(struct fs *fs);
	int (*stat)(struct fs *fs, uint64_t id, struct node *n);
	/* Without "." and "..". */
	int (*list)(
	    struct fs *fs, const struct node *dir, fs_list_fn *fn, void *arg);
	/* NULL: the listing is searched. */
	int (*lookup)(
	    struct fs *fs, const struct node *dir, const char *name, uint64_t *id);
	/* The first len bytes, len <= size. */
	int (*read)(struct fs *fs, const struct node *n, void *buf, size_t len);
	/* The target, ended by a zero. */
	int (*readlink)(
	    struct fs *fs, const struct node *n, char *buf, size_t size);
};

struct fs {
	const struct fs_ops *ops;
};

/* Each: 0, -EINVAL (not such a file system), -errno. */
int ufs_mount(const struct media *m, struct fs **fs);
int fat_mount(const struct media *m, struct fs **fs);
int iso_mount(const struct media *m, struct fs **fs);
/* A directory of the host, and nothing outside it. Takes the descriptor. */
int hostfs_mount(int dir, struct fs **fs);

/* The first that fits. 0 or -EINVAL. */
int fs_mount(const struct media *m, struct fs **fs);
void fs_unmount(struct fs *fs);
/* Follows links; ".." stays below the root. 0, -ENOENT, -ENOTDIR, -ELOOP, -EIO. */
int fs_walk(struct fs *fs, const char *path, struct node *n);
/* The whole file, allocated, a zero behind it. -EFBIG: larger than limit. */
int fs_load(struct fs *fs, const struct node *n, uint64_t limit, uint8_t **data,
    size_t *len);
