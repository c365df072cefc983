/*
 * ISO9660 with Rock Ridge or Joliet names, read through libarchive, which goes over
 * an image from its start: once to learn the tree, then once for each file read.
 *
 * Ids are indices into that tree. Its size is bounded by TREE_MAX and NAMES_MAX.
 */
#include "load/bsd/fs.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/util.h"
#include "load/bsd/media.h"

#define TREE_MAX  (1u << 20)
#define NAMES_MAX (64 * MiB)
#define BUCKETS   (1u << 14)
#define MAGIC_AT  32769 /* "CD001" of the first volume descriptor */
#define BUFFER    (256 * KiB)

struct entry {
	char *name, *target; /* target of a link, hard or symbolic */
	uint64_t size;
	uint32_t parent;
	uint32_t chain; /* in the hash table, 0: the end */
	enum node_type type;
	bool hard;
	uint32_t order; /* counts libarchive's entries */
};

struct iso {
	struct fs fs;
	struct media media;
	struct entry *tree; /* [0] is the root */
	uint32_t count, room;
	uint64_t names; /* bytes */
	uint32_t bucket[BUCKETS];
};

struct stream {
	const struct media *m;
	uint64_t at;
	uint8_t *buf;
};

static ssize_t stream_read(struct archive *a, void *arg, const void **buf)
{
	struct stream *s = arg;
	uint64_t left = s->m->size - MIN(s->at, s->m->size);
	size_t n = (size_t)MIN(left, BUFFER);

	if (n > 0 && media_read(s->m, s->at, s->buf, n) != 0) {
		archive_set_error(a, EIO, "the image cannot be read");
		return -1;
	}
	s->at += n;
	*buf = s->buf;
	return (ssize_t)n;
}

static la_int64_t stream_skip(struct archive *a, void *arg, la_int64_t len)
{
	struct stream *s = arg;
	uint64_t left = s->m->size - MIN(s->at, s->m->size);

	(void)a;
	uint64_t n = len < 0 ? 0 : MIN((uint64_t)len, left);
	s->at += n;
	return (la_int64_t)n;
}

static la_int64_t stream_seek(
    struct archive *a, void *arg, la_int64_t off, int whence)
{
	struct stream *s = arg;
	la_int64_t base = whence == SEEK_SET   ? 0
			  : whence == SEEK_CUR ? (la_int64_t)s->at
					       : (la_int64_t)s->m->size;

	(void)a;
	if (off < -base || off > (la_int64_t)s->m->size - base)
		return ARCHIVE_FATAL;
	s->at = (uint64_t)(base + off);
	return (la_int64_t)s->at;
}

static struct archive *open_archive(struct stream *s)
{
	struct archive *a = archive_read_new();

	if (a == NULL)
		return NULL;
	archive_read_support_format_iso9660(a);
	archive_read_set_read_callback(a, stream_read);
	archive_read_set_skip_callback(a, stream_skip);
	archive_read_set_seek_callback(a, stream_seek);
	archive_read_set_callback_data(a, s);
	if (archive_read_open1(a) != ARCHIVE_OK) {
		archive_read_free(a);
		return NULL;
	}
	return a;
}

static uint32_t hash(uint32_t parent, const char *name, size_t len)
{
	uint32_t h = parent * 0x9e3779b1u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)name[i]) * 0x01000193u;
	return h % BUCKETS;
}

static uint32_t find(
    const struct iso *iso, uint32_t parent, const char *name, size_t len)
{
	uint32_t i = iso->bucket[hash(parent, name, len)];

	while (i != 0 &&
	       (iso->tree[i].parent != parent || strlen(iso->tree[i].name) != len ||
		   memcmp(iso->tree[i].name, name, len) != 0))
		i = iso->tree[i].chain;
	return i;
}

/* 0: no room. */
static uint32_t insert(
    struct iso *iso, uint32_t parent, const char *name, size_t len)
{
	if (iso->count == iso->room) {
		uint32_t room = MAX(iso->room * 2, 1024u);
		struct entry *t =
		    room > TREE_MAX ? NULL : realloc(iso->tree, room * sizeof(*t));
		if (t == NULL)
			return 0;
		iso->tree = t;
		iso->room = room;
	}
	iso->names += len;
	char *copy = iso->names > NAMES_MAX ? NULL : strndup(name, len);
	if (copy == NULL)
		return 0;
	uint32_t *bucket = &iso->bucket[hash(parent, name, len)];
	iso->tree[iso->count] = (struct entry){
		.name = copy, .parent = parent, .type = NODE_DIR, .chain = *bucket
	};
	if (iso->count > 0) /* the root is in no bucket */
		*bucket = iso->count;
	return iso->count++;
}

/* The index of a path, its directories made when missing. 0: the root, or none. */
static uint32_t resolve(struct iso *iso, const char *path, bool make)
{
	uint32_t at = 0;

	for (;;) {
		path += strspn(path, "/");
		size_t len = strcspn(path, "/");
		if (len == 0)
			return at;
		if (len > FS_NAME_MAX)
			return 0;
		if (!(len == 1 && path[0] == '.')) {
			uint32_t next = find(iso, at, path, len);
			if (next == 0 && make)
				next = insert(iso, at, path, len);
			if (next == 0)
				return 0;
			at = next;
		}
		path += len;
	}
}

static void set_target(struct iso *iso, struct entry *e, const char *target)
{
	iso->names += strlen(target);
	if (e->target == NULL && iso->names <= NAMES_MAX)
		e->target = strdup(target);
}

static void add(struct iso *iso, struct archive_entry *ae, uint32_t order)
{
	const char *path = archive_entry_pathname(ae);

	if (path == NULL)
		path = archive_entry_pathname_utf8(ae);
	if (path == NULL)
		return;
	uint32_t i = resolve(iso, path, true);
	if (i == 0)
		return;
	struct entry *e = &iso->tree[i];
	mode_t mode = archive_entry_filetype(ae);
	e->order = order;
	e->type = S_ISREG(mode)   ? NODE_FILE
		  : S_ISDIR(mode) ? NODE_DIR
		  : S_ISLNK(mode) ? NODE_LINK
				  : NODE_OTHER;
	e->size = (uint64_t)MAX(archive_entry_size(ae), (la_int64_t)0);
	if (archive_entry_hardlink(ae) != NULL) {
		/* Files that share their contents; the first has its size. */
		e->hard = true;
		e->type = NODE_FILE;
		set_target(iso, e, archive_entry_hardlink(ae));
	} else if (e->type == NODE_LINK && archive_entry_symlink(ae) != NULL) {
		set_target(iso, e, archive_entry_symlink(ae));
	}
}

/* The file that holds the contents. */
static const struct entry *contents(struct iso *iso, uint64_t id)
{
	const struct entry *e = &iso->tree[id];

	if (!e->hard || e->target == NULL)
		return e;
	const struct entry *t = &iso->tree[resolve(iso, e->target, false)];
	return t->hard ? e : t;
}

static int iso_stat(struct fs *fs, uint64_t id, struct node *n)
{
	struct iso *iso = container_of(fs, struct iso, fs);

	if (id >= iso->count)
		return -EIO;
	*n = (struct node){ id, contents(iso, id)->size, iso->tree[id].type };
	return 0;
}

static int iso_list(
    struct fs *fs, const struct node *dir, fs_list_fn *fn, void *arg)
{
	struct iso *iso = container_of(fs, struct iso, fs);

	for (uint32_t i = 1; i < iso->count; i++)
		if (iso->tree[i].parent == dir->id &&
		    !fn(arg, iso->tree[i].name, i))
			break;
	return 0;
}

static int iso_lookup(
    struct fs *fs, const struct node *dir, const char *name, uint64_t *id)
{
	struct iso *iso = container_of(fs, struct iso, fs);

	*id = find(iso, (uint32_t)dir->id, name, strlen(name));
	return *id == 0 ? -ENOENT : 0;
}

static int iso_read(struct fs *fs, const struct node *n, void *buf, size_t len)
{
	struct iso *iso = container_of(fs, struct iso, fs);
	const struct entry *e = contents(iso, n->id);
	struct stream s = { .m = &iso->media, .buf = malloc(BUFFER) };
	struct archive *a = s.buf == NULL ? NULL : open_archive(&s);
	struct archive_entry *ae;
	uint32_t order = 0;
	int err = a == NULL ? -EIO : -ENOENT;

	while (a != NULL && archive_read_next_header(a, &ae) == ARCHIVE_OK) {
		if (order++ != e->order)
			continue;
		err = archive_read_data(a, buf, len) == (la_ssize_t)len ? 0 : -EIO;
		break;
	}
	if (a != NULL)
		archive_read_free(a);
	free(s.buf);
	return err;
}

static int iso_readlink(struct fs *fs, const struct node *n, char *buf, size_t size)
{
	struct iso *iso = container_of(fs, struct iso, fs);
	const char *target = iso->tree[n->id].target;

	if (target == NULL || strlen(target) >= size)
		return -EIO;
	memcpy(buf, target, strlen(target) + 1);
	return 0;
}

static void iso_unmount(struct fs *fs)
{
	struct iso *iso = container_of(fs, struct iso, fs);

	for (uint32_t i = 0; i < iso->count; i++) {
		free(iso->tree[i].name);
		free(iso->tree[i].target);
	}
	free(iso->tree);
	free(iso);
}

static const struct fs_ops iso_ops = {
	.name = "ISO9660",
	.unmount = iso_unmount,
	.stat = iso_stat,
	.list = iso_list,
	.lookup = iso_lookup,
	.read = iso_read,
	.readlink = iso_readlink,
};

static int learn_tree(struct iso *iso)
{
	struct stream s = { .m = &iso->media, .buf = malloc(BUFFER) };
	struct archive *a = s.buf == NULL ? NULL : open_archive(&s);
	struct archive_entry *ae;
	uint32_t order = 0;

	if (a != NULL) {
		/* An image cut at its end is used as far as it goes. */
		while (order < TREE_MAX &&
		       archive_read_next_header(a, &ae) == ARCHIVE_OK)
			add(iso, ae, order++);
		archive_read_free(a);
	}
	free(s.buf);
	return order == 0 ? -EINVAL : 0;
}

int iso_mount(const struct media *m, struct fs **fs)
{
	char magic[5];

	if (media_read(m, MAGIC_AT, magic, sizeof(magic)) != 0 ||
	    memcmp(magic, "CD001", sizeof(magic)) != 0)
		return -EINVAL;
	struct iso *iso = calloc(1, sizeof(*iso));
	if (iso == NULL)
		return -ENOMEM;
	iso->fs.ops = &iso_ops;
	iso->media = *m;
	(void)insert(iso, 0, "", 0);
	int err = iso->count == 1 ? learn_tree(iso) : -ENOMEM;
	if (err != 0)
		iso_unmount(&iso->fs);
	else
		*fs = &iso->fs;
	return err;
}
