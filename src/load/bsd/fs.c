/* What all file systems share (fs.h). */
#include "load/bsd/fs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/util.h"

#define DEPTH_MAX 64
#define LINKS_MAX 16
#define WALK_MAX  4096

int fs_mount(const struct media *m, struct fs **fs)
{
	/* FAT last: it is told by the least. */
	static int (*const kinds[])(const struct media *,
	    struct fs **) = { ufs_mount, iso_mount, fat_mount };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i](m, fs) == 0)
			return 0;
	return -EINVAL;
}

void fs_unmount(struct fs *fs)
{
	if (fs != NULL)
		fs->ops->unmount(fs);
}

struct search {
	const char *name;
	bool fold_case;
	bool found;
	uint64_t id;
};

static bool compare(void *arg, const char *name, uint64_t id)
{
	struct search *s = arg;

	s->found = s->fold_case ? strcasecmp(name, s->name) == 0
				: strcmp(name, s->name) == 0;
	s->id = id;
	return !s->found;
}

static int lookup(
    struct fs *fs, const struct node *dir, const char *name, uint64_t *id)
{
	if (fs->ops->lookup != NULL)
		return fs->ops->lookup(fs, dir, name, id);
	struct search s = { .name = name, .fold_case = fs->ops->fold_case };
	int err = fs->ops->list(fs, dir, compare, &s);
	if (s.found) {
		*id = s.id;
		return 0;
	}
	return err != 0 ? err : -ENOENT;
}

/* Puts a link's target before what is left of the path. */
static int splice(struct fs *fs, const struct node *link, char *rest)
{
	char target[FS_PATH_MAX], joined[WALK_MAX];

	int err = fs->ops->readlink(fs, link, target, sizeof(target));
	if (err != 0)
		return err;
	int n = snprintf(joined, sizeof(joined), "%s/%s", target, rest);
	if (n < 0 || n >= (int)sizeof(joined))
		return -ENAMETOOLONG;
	memcpy(rest, joined, (size_t)n + 1);
	return 0;
}

/* Takes the first name off the path; its length, 0 when there is none. */
static size_t next_name(char *rest, char *name)
{
	size_t skip = strspn(rest, "/");
	size_t len = strcspn(rest + skip, "/");

	if (len > FS_NAME_MAX)
		return len;
	memcpy(name, rest + skip, len);
	name[len] = '\0';
	memmove(rest, rest + skip + len, strlen(rest + skip + len) + 1);
	return len;
}

int fs_walk(struct fs *fs, const char *path, struct node *n)
{
	struct node dirs[DEPTH_MAX];
	char rest[WALK_MAX], name[FS_NAME_MAX + 1];
	unsigned depth = 0, links = 0;
	size_t len;

	if (strlen(path) >= sizeof(rest))
		return -ENAMETOOLONG;
	memcpy(rest, path, strlen(path) + 1);
	int err = fs->ops->stat(fs, 0, &dirs[0]);
	*n = dirs[0];
	while (err == 0 && (len = next_name(rest, name)) > 0) {
		uint64_t id;

		if (len > FS_NAME_MAX)
			return -ENAMETOOLONG;
		if (n->type != NODE_DIR)
			return -ENOTDIR;
		if (strcmp(name, ".") == 0)
			continue;
		if (strcmp(name, "..") == 0) {
			depth -= depth > 0;
			*n = dirs[depth];
			continue;
		}
		err = lookup(fs, n, name, &id);
		if (err == 0)
			err = fs->ops->stat(fs, id, n);
		if (err != 0)
			break;
		if (n->type == NODE_LINK) {
			if (++links > LINKS_MAX)
				return -ELOOP;
			err = splice(fs, n, rest);
			if (err == 0 && rest[0] == '/')
				depth = 0;
			*n = dirs[depth];
		} else if (n->type == NODE_DIR) {
			if (++depth == DEPTH_MAX)
				return -ELOOP;
			dirs[depth] = *n;
		}
	}
	return err;
}

int fs_load(struct fs *fs, const struct node *n, uint64_t limit, uint8_t **data,
    size_t *len)
{
	if (n->type == NODE_DIR)
		return -EISDIR;
	if (n->type != NODE_FILE)
		return -EINVAL;
	if (n->size > limit || n->size >= SIZE_MAX)
		return -EFBIG;
	uint8_t *p = malloc((size_t)n->size + 1);
	if (p == NULL)
		return -ENOMEM;
	int err = n->size > 0 ? fs->ops->read(fs, n, p, (size_t)n->size) : 0;
	if (err != 0) {
		free(p);
		return err;
	}
	p[n->size] = '\0';
	*data = p;
	*len = (size_t)n->size;
	return 0;
}
