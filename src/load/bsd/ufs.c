/*
 * UFS1 and UFS2 (FreeBSD's sys/ufs/ffs/fs.h and sys/ufs/ufs/dinode.h describe the
 * formats), little-endian, read only. The superblock lies at 64 KiB (FreeBSD's
 * UFS2), at 8 KiB (UFS1, NetBSD's makefs), at 0 or at 256 KiB.
 *
 * What the superblock says is checked once in check_super(); block addresses are
 * checked by media_read(), which knows where the disk ends.
 */
#include "load/bsd/fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/bytes.h"
#include "load/bsd/media.h"

#define MAGIC1     0x00011954u
#define MAGIC2     0x19540119u
#define SUPER_SIZE 1376
#define ROOT_INODE 2
#define INODE1     128
#define INODE2     256
#define DIRECT     12
#define INDIRECT   3
#define DIR_MAX    (64 * MiB)
#define DIR_BLOCK  512 /* no entry crosses it */
#define ENTRY_HEAD 8

#define MODE_TYPE  0xf000
#define MODE_DIR   0x4000
#define MODE_FILE  0x8000
#define MODE_LINK  0xa000

struct ufs {
	struct fs fs;
	struct media media;
	bool second; /* UFS2 */
	uint32_t bsize, fsize;
	uint32_t per_block; /* block numbers in an indirect block */
	uint32_t groups, group_inodes, group_frags;
	uint32_t inode_frag;              /* of the inodes, in a group */
	uint32_t group_shift, group_mask; /* UFS1: groups start later and later */
};

struct inode {
	uint16_t mode;
	uint64_t size;
	uint64_t block[DIRECT + INDIRECT];
	uint8_t raw[INODE2]; /* short links lie where the block numbers do */
};

static bool is_power(uint32_t v)
{
	return v != 0 && (v & (v - 1)) == 0;
}

static bool check_super(struct ufs *u, const uint8_t *s, uint64_t at)
{
	uint32_t magic = get32(s + 1372);

	if (magic != MAGIC1 && magic != MAGIC2)
		return false;
	u->second = magic == MAGIC2;
	/* At 64 KiB a UFS1 with blocks that large has a copy, not its superblock.
	 */
	if (u->second ? get64(s + 1000) != at : at == 65536)
		return false;
	u->bsize = get32(s + 48);
	u->fsize = get32(s + 52);
	u->inode_frag = get32(s + 16);
	u->groups = get32(s + 44);
	u->group_inodes = get32(s + 184);
	u->group_frags = get32(s + 188);
	if (!u->second) {
		u->group_shift = get32(s + 24);
		u->group_mask = get32(s + 28);
	}
	u->per_block = u->bsize / (u->second ? 8 : 4);
	return is_power(u->bsize) && u->bsize >= 4096 && u->bsize <= 65536 &&
	       is_power(u->fsize) && u->fsize >= 512 && u->fsize <= u->bsize &&
	       u->bsize / u->fsize <= 8 && u->groups != 0 && u->group_inodes != 0 &&
	       u->group_frags != 0 && u->inode_frag < u->group_frags;
}

static int read_inode(struct ufs *u, uint64_t number, struct inode *ino)
{
	uint32_t each = u->second ? INODE2 : INODE1;
	uint64_t group = number / u->group_inodes;

	if (number < ROOT_INODE || group >= u->groups)
		return -EIO;
	uint64_t frag =
	    group * u->group_frags + u->inode_frag +
	    (uint64_t)u->group_shift * (group & ~(uint64_t)u->group_mask);
	uint64_t at = frag * u->fsize + number % u->group_inodes * each;
	int err = media_read(&u->media, at, ino->raw, each);
	if (err != 0)
		return err;
	ino->mode = get16(ino->raw);
	ino->size = get64(ino->raw + (u->second ? 16 : 8));
	for (unsigned i = 0; i < DIRECT + INDIRECT; i++)
		ino->block[i] = u->second ? get64(ino->raw + 112 + 8 * i)
					  : get32(ino->raw + 40 + 4 * i);
	return 0;
}

/* The fragment where block n of the file starts; 0: a hole. */
static int find_block(
    struct ufs *u, const struct inode *ino, uint64_t n, uint64_t *frag)
{
	uint64_t span = 1;
	unsigned level = 0;

	if (n < DIRECT) {
		*frag = ino->block[n];
		return 0;
	}
	n -= DIRECT;
	for (level = 0; level < INDIRECT; level++) {
		span *= u->per_block;
		if (n < span)
			break;
		n -= span;
	}
	if (level == INDIRECT)
		return -EIO;
	*frag = ino->block[DIRECT + level];
	while (*frag != 0 && span > 1) {
		uint8_t entry[8] = { 0 };
		uint32_t width = u->second ? 8 : 4;

		span /= u->per_block;
		if (*frag > u->media.size / u->fsize)
			return -EIO;
		int err = media_read(
		    &u->media, *frag * u->fsize + n / span * width, entry, width);
		if (err != 0)
			return err;
		*frag = get64(entry);
		n %= span;
	}
	return 0;
}

/* len bytes from off on, which lie within one block. */
static int read_piece(
    struct ufs *u, const struct inode *ino, uint64_t off, void *buf, size_t len)
{
	uint64_t frag;

	int err = find_block(u, ino, off / u->bsize, &frag);
	if (err != 0)
		return err;
	if (frag == 0) {
		memset(buf, 0, len);
		return 0;
	}
	if (frag > u->media.size / u->fsize)
		return -EIO;
	return media_read(&u->media, frag * u->fsize + off % u->bsize, buf, len);
}

static enum node_type type_of(uint16_t mode)
{
	switch (mode & MODE_TYPE) {
	case MODE_FILE:
		return NODE_FILE;
	case MODE_DIR:
		return NODE_DIR;
	case MODE_LINK:
		return NODE_LINK;
	default:
		return NODE_OTHER;
	}
}

static uint64_t inode_number(uint64_t id)
{
	return id == 0 ? ROOT_INODE : id;
}

static int ufs_stat(struct fs *fs, uint64_t id, struct node *n)
{
	struct inode ino;

	int err =
	    read_inode(container_of(fs, struct ufs, fs), inode_number(id), &ino);
	if (err == 0)
		*n = (struct node){ id, ino.size, type_of(ino.mode) };
	return err;
}

static int ufs_read(struct fs *fs, const struct node *n, void *buf, size_t len)
{
	struct ufs *u = container_of(fs, struct ufs, fs);
	struct inode ino;
	uint8_t *p = buf;

	int err = read_inode(u, inode_number(n->id), &ino);
	for (uint64_t off = 0; err == 0 && off < len;) {
		size_t piece = MIN(len - (size_t)off, (size_t)u->bsize);
		err = read_piece(u, &ino, off, p + off, piece);
		off += piece;
	}
	return err;
}

/* The names in one directory block. 0, 1 (the caller has enough), -EIO. */
static int list_block(const uint8_t *d, size_t len, fs_list_fn *fn, void *arg)
{
	for (size_t at = 0; at + ENTRY_HEAD <= len;) {
		uint64_t id = get32(d + at);
		uint16_t size = get16(d + at + 4);
		uint8_t name_len = d[at + 7];
		char name[FS_NAME_MAX + 1];

		if (size < ENTRY_HEAD || size % 4 != 0 || size > len - at ||
		    name_len > size - ENTRY_HEAD)
			return -EIO;
		memcpy(name, d + at + ENTRY_HEAD, name_len);
		name[name_len] = '\0';
		at += size;
		if (id == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
		    name_len == 0 || strlen(name) != name_len ||
		    strchr(name, '/') != NULL)
			continue;
		if (!fn(arg, name, id))
			return 1;
	}
	return 0;
}

static int ufs_list(
    struct fs *fs, const struct node *dir, fs_list_fn *fn, void *arg)
{
	struct ufs *u = container_of(fs, struct ufs, fs);
	struct inode ino;

	int err = read_inode(u, inode_number(dir->id), &ino);
	if (err == 0 && ino.size > DIR_MAX)
		err = -EFBIG;
	for (uint64_t off = 0; err == 0 && off < ino.size; off += DIR_BLOCK) {
		uint8_t block[DIR_BLOCK];
		size_t len = (size_t)MIN(ino.size - off, (uint64_t)DIR_BLOCK);

		err = read_piece(u, &ino, off, block, len);
		if (err == 0)
			err = list_block(block, len, fn, arg);
	}
	return err == 1 ? 0 : err;
}

static int ufs_readlink(struct fs *fs, const struct node *n, char *buf, size_t size)
{
	struct ufs *u = container_of(fs, struct ufs, fs);
	size_t within = u->second ? 120 : 60;
	struct inode ino;

	int err = read_inode(u, inode_number(n->id), &ino);
	if (err != 0)
		return err;
	if (ino.size == 0 || ino.size >= size)
		return -ENAMETOOLONG;
	if (ino.size < within)
		memcpy(buf, ino.raw + (u->second ? 112 : 40), (size_t)ino.size);
	else
		err = read_piece(u, &ino, 0, buf, (size_t)ino.size);
	buf[ino.size] = '\0';
	return err;
}

static void ufs_unmount(struct fs *fs)
{
	free(container_of(fs, struct ufs, fs));
}

static const struct fs_ops ufs_ops = {
	.name = "UFS",
	.unmount = ufs_unmount,
	.stat = ufs_stat,
	.list = ufs_list,
	.read = ufs_read,
	.readlink = ufs_readlink,
};

int ufs_mount(const struct media *m, struct fs **fs)
{
	static const uint64_t places[] = { 65536, 8192, 0, 262144 };
	uint8_t super[SUPER_SIZE];
	struct node root;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		struct ufs u = { .fs = { &ufs_ops }, .media = *m };
		if (media_read(m, places[i], super, sizeof(super)) != 0 ||
		    !check_super(&u, super, places[i]))
			continue;
		if (ufs_stat(&u.fs, 0, &root) != 0 || root.type != NODE_DIR)
			continue;
		struct ufs *copy = malloc(sizeof(*copy));
		if (copy == NULL)
			return -ENOMEM;
		*copy = u;
		*fs = &copy->fs;
		return 0;
	}
	return -EINVAL;
}
