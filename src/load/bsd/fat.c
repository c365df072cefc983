/*
 * FAT12, FAT16 and FAT32 with long names (Microsoft's "FAT: General Overview of
 * On-Disk Format" 1.03), read only.
 *
 * A node's id is where its short entry lies on the medium; a chain of clusters has
 * at most as many links as there are clusters, so a loop ends.
 */
#include "load/bsd/fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/bytes.h"
#include "load/bsd/media.h"

#define ENTRY       32u
#define ATTR_VOLUME 0x08
#define ATTR_DIR    0x10
#define ATTR_LONG   0x0f
#define DELETED     0xe5
#define DIR_MAX     65536u /* entries */
#define LONG_PARTS  20u
#define LONG_CHARS  13u

struct fat {
	struct fs fs;
	struct media media;
	unsigned bits; /* 12, 16, 32 */
	uint32_t cluster_size, clusters;
	uint64_t table, table_size, data;
	uint64_t root; /* of FAT12 and FAT16 */
	uint32_t root_entries, root_cluster;
};

static bool read_bpb(struct fat *f, const uint8_t *d)
{
	uint32_t sector = get16(d + 11), per_cluster = d[13];
	uint64_t reserved = get16(d + 14), copies = d[16];
	uint32_t table = get16(d + 22), total = get16(d + 19);

	f->root_entries = get16(d + 17);
	if (table == 0)
		table = get32(d + 36);
	if (total == 0)
		total = get32(d + 32);
	if (get16(d + 510) != 0xaa55 ||
	    (sector != 512 && sector != 1024 && sector != 2048 && sector != 4096) ||
	    per_cluster == 0 || (per_cluster & (per_cluster - 1)) != 0 ||
	    reserved == 0 || copies == 0 || copies > 4 || table == 0 || total == 0)
		return false;
	uint64_t root_sectors =
	    ROUND_UP((uint64_t)f->root_entries * ENTRY, (uint64_t)sector) / sector;
	uint64_t before = reserved + copies * table + root_sectors;
	if (before >= total)
		return false;
	f->cluster_size = sector * per_cluster;
	f->clusters = (uint32_t)((total - before) / per_cluster);
	f->bits = f->clusters < 4085 ? 12 : f->clusters < 65525 ? 16 : 32;
	if ((f->bits == 32) != (f->root_entries == 0) || f->clusters == 0)
		return false;
	f->table = reserved * sector;
	f->table_size = (uint64_t)table * sector;
	f->root = (reserved + copies * table) * sector;
	f->data = before * sector;
	f->root_cluster = f->bits == 32 ? get32(d + 44) : 0;
	return true;
}

static bool is_cluster(const struct fat *f, uint32_t c)
{
	return c >= 2 && c - 2 < f->clusters;
}

static int next_cluster(struct fat *f, uint32_t c, uint32_t *next)
{
	uint64_t at = f->bits == 12 ? c + c / 2 : (uint64_t)c * f->bits / 8;
	uint8_t d[4] = { 0 };
	size_t width = f->bits == 32 ? 4 : 2;

	if (at + width > f->table_size)
		return -EIO;
	int err = media_read(&f->media, f->table + at, d, width);
	if (err != 0)
		return err;
	*next = f->bits == 32   ? get32(d) & 0x0fffffff
		: f->bits == 16 ? get16(d)
		: (c & 1) != 0  ? get16(d) >> 4
				: get16(d) & 0xfff;
	return 0;
}

static uint64_t cluster_at(const struct fat *f, uint32_t c)
{
	return f->data + (uint64_t)(c - 2) * f->cluster_size;
}

static int read_entry(struct fat *f, uint64_t id, uint8_t *e)
{
	return media_read(&f->media, id, e, ENTRY);
}

static uint32_t first_cluster(const struct fat *f, const uint8_t *e)
{
	return get16(e + 26) | (f->bits == 32 ? (uint32_t)get16(e + 20) << 16 : 0);
}

static int fat_stat(struct fs *fs, uint64_t id, struct node *n)
{
	struct fat *f = container_of(fs, struct fat, fs);
	uint8_t e[ENTRY];

	*n = (struct node){ .type = NODE_DIR };
	if (id == 0)
		return 0;
	int err = read_entry(f, id, e);
	if (err == 0)
		*n = (struct node){ id, get32(e + 28),
			(e[11] & ATTR_DIR) != 0 ? NODE_DIR : NODE_FILE };
	return err;
}

static int fat_read(struct fs *fs, const struct node *n, void *buf, size_t len)
{
	struct fat *f = container_of(fs, struct fat, fs);
	uint8_t e[ENTRY], *p = buf;

	int err = read_entry(f, n->id, e);
	uint32_t c = first_cluster(f, e);
	/* The file's size ends it: no loop in the chain makes it longer. */
	while (err == 0 && len > 0) {
		size_t piece = MIN(len, (size_t)f->cluster_size);
		if (!is_cluster(f, c))
			return -EIO;
		err = media_read(&f->media, cluster_at(f, c), p, piece);
		p += piece;
		len -= piece;
		if (err == 0 && len > 0)
			err = next_cluster(f, c, &c);
	}
	return err;
}

/* A long name while its parts come by, the last part first. */
struct long_name {
	uint16_t chars[LONG_PARTS * LONG_CHARS + 1];
	unsigned next; /* part expected, 0: none */
	bool whole;
	uint8_t sum;
};

static void add_long(struct long_name *l, const uint8_t *e)
{
	static const uint8_t at[LONG_CHARS] = { 1, 3, 5, 7, 9, 14, 16, 18, 20, 22,
		24, 28, 30 };
	unsigned part = e[0] & 0x3f;

	if ((e[0] & 0x40) != 0) {
		memset(l, 0, sizeof(*l));
		l->next = part;
		l->sum = e[13];
	}
	if (part == 0 || part > LONG_PARTS || part != l->next || e[13] != l->sum) {
		l->next = 0;
		return;
	}
	for (unsigned i = 0; i < LONG_CHARS; i++)
		l->chars[(part - 1) * LONG_CHARS + i] = get16(e + at[i]);
	l->next = part - 1;
	l->whole = part == 1;
}

static void utf8(const uint16_t *from, char *to, size_t size)
{
	size_t n = 0;

	for (; *from != 0 && *from != 0xffff && n + 5 < size; from++) {
		uint32_t c = *from;
		if (c >= 0xd800 && c < 0xdc00 && from[1] >= 0xdc00 &&
		    from[1] < 0xe000)
			c = 0x10000 + ((c - 0xd800) << 10) + (*++from - 0xdc00u);
		if (c < 0x80) {
			to[n++] = (char)c;
		} else if (c < 0x800) {
			to[n++] = (char)(0xc0 | c >> 6);
			to[n++] = (char)(0x80 | (c & 0x3f));
		} else {
			if (c < 0x10000) {
				to[n++] = (char)(0xe0 | c >> 12);
			} else {
				to[n++] = (char)(0xf0 | c >> 18);
				to[n++] = (char)(0x80 | (c >> 12 & 0x3f));
			}
			to[n++] = (char)(0x80 | (c >> 6 & 0x3f));
			to[n++] = (char)(0x80 | (c & 0x3f));
		}
	}
	to[n] = '\0';
}

static void short_name(const uint8_t *e, char *to)
{
	size_t n = 0;

	for (unsigned i = 0; i < 11; i++) {
		bool lower = (e[12] & (i < 8 ? 0x08 : 0x10)) != 0;
		if (e[i] == ' ')
			continue;
		if (i >= 8 && memchr(to, '.', n) == NULL)
			to[n++] = '.';
		uint8_t c = i == 0 && e[i] == 0x05 ? 0xe5 : e[i];
		to[n++] = (char)(lower && c >= 'A' && c <= 'Z' ? c + 32 : c);
	}
	to[n] = '\0';
}

static uint8_t checksum(const uint8_t *name)
{
	uint8_t sum = 0;

	for (unsigned i = 0; i < 11; i++)
		sum = (uint8_t)((sum >> 1 | sum << 7) + name[i]);
	return sum;
}

/* One entry. 0, 1: the end of the directory or of the caller's interest. */
static int list_entry(
    struct long_name *l, const uint8_t *e, uint64_t at, fs_list_fn *fn, void *arg)
{
	char name[4 * LONG_PARTS * LONG_CHARS + 8];

	if (e[0] == 0)
		return 1;
	if (e[0] == DELETED) {
		l->whole = false;
		return 0;
	}
	if ((e[11] & 0x3f) == ATTR_LONG) {
		add_long(l, e);
		return 0;
	}
	bool is_long = l->whole && l->sum == checksum(e);
	l->whole = false;
	if ((e[11] & ATTR_VOLUME) != 0 || e[0] == '.')
		return 0;
	if (is_long)
		utf8(l->chars, name, sizeof(name));
	else
		short_name(e, name);
	if (name[0] == '\0' || strlen(name) > FS_NAME_MAX ||
	    strchr(name, '/') != NULL)
		return 0;
	return fn(arg, name, at) ? 0 : 1;
}

static int list_area(struct fat *f, uint64_t at, uint64_t len, struct long_name *l,
    fs_list_fn *fn, void *arg)
{
	uint8_t e[ENTRY];

	for (uint64_t end = at + len; at < end; at += ENTRY) {
		int err = media_read(&f->media, at, e, ENTRY);
		if (err == 0)
			err = list_entry(l, e, at, fn, arg);
		if (err != 0)
			return err;
	}
	return 0;
}

static int fat_list(
    struct fs *fs, const struct node *dir, fs_list_fn *fn, void *arg)
{
	struct fat *f = container_of(fs, struct fat, fs);
	struct long_name l = { .next = 0 };
	uint32_t c = f->root_cluster, seen = 0;
	uint8_t e[ENTRY];
	int err = 0;

	if (dir->id == 0 && f->bits != 32) {
		err = list_area(
		    f, f->root, (uint64_t)f->root_entries * ENTRY, &l, fn, arg);
		return err == 1 ? 0 : err;
	}
	if (dir->id != 0) {
		err = read_entry(f, dir->id, e);
		c = first_cluster(f, e);
	}
	while (err == 0 && is_cluster(f, c)) {
		seen += f->cluster_size / ENTRY;
		if (seen > DIR_MAX)
			return -EIO;
		err = list_area(f, cluster_at(f, c), f->cluster_size, &l, fn, arg);
		if (err == 0)
			err = next_cluster(f, c, &c);
	}
	return err == 1 ? 0 : err;
}

static int fat_readlink(struct fs *fs, const struct node *n, char *buf, size_t size)
{
	(void)fs, (void)n, (void)buf, (void)size;
	return -EINVAL;
}

static void fat_unmount(struct fs *fs)
{
	free(container_of(fs, struct fat, fs));
}

static const struct fs_ops fat_ops = {
	.name = "FAT",
	.fold_case = true,
	.unmount = fat_unmount,
	.stat = fat_stat,
	.list = fat_list,
	.read = fat_read,
	.readlink = fat_readlink,
};

int fat_mount(const struct media *m, struct fs **fs)
{
	struct fat f = { .fs = { &fat_ops }, .media = *m };
	uint8_t d[512];

	if (media_read(m, 0, d, sizeof(d)) != 0 || !read_bpb(&f, d))
		return -EINVAL;
	struct fat *copy = malloc(sizeof(*copy));
	if (copy == NULL)
		return -ENOMEM;
	*copy = f;
	*fs = &copy->fs;
	return 0;
}
