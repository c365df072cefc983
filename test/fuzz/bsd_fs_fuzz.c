/*
 * File systems from anywhere: a small image of each kind is made, then patched as
 * the input says ({offset, length, bytes}), mounted and read through. Whatever it
 * says, reading ends, and names and sizes keep to their limits.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/util.h"
#include "load/bsd/fs.h"
#include "load/bsd/media.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define DISK  (192 * 1024u)
#define FILES 200u
#define LOAD  (256 * KiB)

static uint8_t disk[DISK];

static void put(size_t at, unsigned bytes, uint64_t v)
{
	memcpy(disk + at, &v, bytes);
}

static size_t put_dirent(size_t at, uint32_t ino, uint16_t size, const char *name)
{
	put(at, 4, ino);
	put(at + 4, 2, size);
	disk[at + 7] = (uint8_t)strlen(name);
	memcpy(disk + at + 8, name, strlen(name));
	return at + size;
}

/* Blocks of 4096, fragments of 1024; inodes at 24K, the root directory at 32K. */
static void make_ufs(bool second)
{
	const size_t sb = 8192;
	size_t each = second ? 256 : 128;
	size_t size = second ? 16 : 8, block = second ? 112 : 40;
	unsigned width = second ? 8 : 4;

	put(sb + 16, 4, 24);
	put(sb + 44, 4, 1);
	put(sb + 48, 4, 4096);
	put(sb + 52, 4, 1024);
	put(sb + 184, 4, 32);
	put(sb + 188, 4, DISK / 1024);
	put(sb + 1000, 8, sb);
	put(sb + 1372, 4, second ? 0x19540119 : 0x11954);
	const size_t inode = 24 * 1024;
	put(inode + 2 * each, 2, 0x41ed);
	put(inode + 2 * each + size, 8, 512);
	put(inode + 2 * each + block, width, 32);
	put(inode + 3 * each, 2, 0x81a4); /* a file with an indirect block */
	put(inode + 3 * each + size, 8, 60000);
	for (unsigned i = 0; i < 12; i++)
		put(inode + 3 * each + block + i * width, width, 40 + 4 * i);
	put(inode + 3 * each + block + 12 * width, width, 36);
	put(36 * 1024, width, 100);
	put(inode + 4 * each, 2, 0xa1ff); /* a link */
	put(inode + 4 * each + size, 8, 4);
	memcpy(disk + inode + 4 * each + block, "file", 4);
	put(inode + 5 * each, 2, 0x41ed); /* a directory that holds itself */
	put(inode + 5 * each + size, 8, 512);
	put(inode + 5 * each + block, width, 34);
	size_t at = put_dirent(32 * 1024, 2, 12, ".");
	at = put_dirent(at, 3, 16, "file");
	at = put_dirent(at, 4, 16, "link");
	(void)put_dirent(at, 5, 468, "dir");
	(void)put_dirent(34 * 1024, 5, 512, "self");
}

/* Sectors of 512, a sector a cluster; the number of clusters decides the kind. */
static void make_fat(unsigned bits)
{
	unsigned total = bits == 12 ? 384 : bits == 16 ? 6000 : 70000;
	unsigned table = bits == 12 ? 2 : bits == 16 ? 24 : 8;
	size_t root = (1 + (bits == 32 ? 0 : table)) * 512ul;

	put(11, 2, 512);
	disk[13] = 1;
	put(14, 2, 1);
	disk[16] = 1;
	put(17, 2, bits == 32 ? 0 : 16);
	put(bits == 32 ? 36 : 22, 2, table);
	put(32, 4, total);
	put(44, 4, bits == 32 ? 2 : 0);
	put(510, 2, 0xaa55);
	if (bits == 32)
		root = (1 + table) * 512ul;
	memcpy(disk + root, "LONGNA~1TXT", 11);
	if (root + 96 < DISK) {
		uint8_t sum = 0;
		for (int i = 0; i < 11; i++)
			sum = (uint8_t)((sum >> 1 | sum << 7) + disk[root + i]);
		memcpy(disk + root + 32, disk + root, 11);
		memset(disk + root, 0xff, 32);
		disk[root] = 0x41;
		disk[root + 11] = 0x0f;
		disk[root + 13] = sum;
		memcpy(disk + root + 1, "l\0o\0n\0g\0.\0", 10);
		put(root + 32 + 26, 2, 3);
		put(root + 32 + 28, 4, 1500);
		memcpy(disk + root + 64, "DIR        \x10", 12);
		put(root + 64 + 26, 2, 7);
	}
	for (unsigned c = 2; c < 12 && bits == 16; c++)
		put(512 + 2 * c, 2, c + 1);
	for (unsigned c = 2; c < 12 && bits == 32; c++)
		put(512 + 4 * c, 4, c + 1);
}

static size_t put_record(size_t at, uint32_t sector, uint32_t size, uint8_t flags,
    const char *name, size_t n)
{
	size_t len = ROUND_UP(33 + n, (size_t)2);

	disk[at] = (uint8_t)len;
	put(at + 2, 4, sector);
	put(at + 6, 4, __builtin_bswap32(sector));
	put(at + 10, 4, size);
	put(at + 14, 4, __builtin_bswap32(size));
	disk[at + 25] = flags;
	disk[at + 28] = 1;
	disk[at + 31] = 1;
	disk[at + 32] = (uint8_t)n;
	memcpy(disk + at + 33, name, n);
	return at + len;
}

static void make_iso(void)
{
	const size_t pvd = 16 * 2048;

	memcpy(disk + pvd, "\1CD001\1", 7);
	put(pvd + 80, 4, DISK / 2048);
	put(pvd + 84, 4, __builtin_bswap32(DISK / 2048));
	put(pvd + 120, 4, 0x01000001);
	put(pvd + 124, 4, 0x01000001);
	put(pvd + 128, 4, 0x00080800);
	put(pvd + 132, 4, 10);
	put(pvd + 136, 4, 10u << 24);
	put(pvd + 140, 4, 19);
	put(pvd + 148, 4, 19u << 24);
	(void)put_record(pvd + 156, 20, 2048, 2, "\0", 1);
	disk[pvd + 881] = 1;
	memcpy(disk + pvd + 2048, "\377CD001\1", 7);
	size_t at = put_record(20 * 2048, 20, 2048, 2, "\0", 1);
	at = put_record(at, 20, 2048, 2, "\1", 1);
	at = put_record(at, 22, 3000, 0, "FILE.TXT;1", 10);
	(void)put_record(at, 21, 2048, 2, "DIR", 3);
	at = put_record(21 * 2048, 21, 2048, 2, "\0", 1);
	at = put_record(at, 20, 2048, 2, "\1", 1);
	(void)put_record(at, 24, 100, 0, "B.;1", 4);
}

struct visit {
	struct fs *fs;
	unsigned depth, left;
};

static void look(struct visit *v, const struct node *n);

static bool entry(void *arg, const char *name, uint64_t id)
{
	struct visit *v = arg;
	struct node n;

	if (name[0] == '\0' || strlen(name) > FS_NAME_MAX ||
	    strchr(name, '/') != NULL)
		abort();
	if (v->left == 0)
		return false;
	v->left--;
	if (v->fs->ops->stat(v->fs, id, &n) == 0)
		look(v, &n);
	return true;
}

static void look(struct visit *v, const struct node *n)
{
	char target[FS_PATH_MAX];
	uint8_t *data;
	size_t len;

	if (n->type == NODE_DIR && v->depth < 3) {
		v->depth++;
		(void)v->fs->ops->list(v->fs, n, entry, v);
		v->depth--;
	} else if (n->type == NODE_LINK) {
		(void)v->fs->ops->readlink(v->fs, n, target, sizeof(target));
	} else if (n->type == NODE_FILE &&
		   fs_load(v->fs, n, LOAD, &data, &len) == 0) {
		if (len != n->size || data[len] != 0)
			abort();
		free(data);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static int (*const mounts[])(const struct media *, struct fs **) = {
		ufs_mount, ufs_mount, fat_mount, fat_mount, fat_mount, iso_mount
	};
	static const char *const paths[] = { "/link", "/dir/self/self/../file",
		"long.", "/dir/b", "/../../file" };
	static int fd = -1;
	struct fs *fs;
	struct node n;

	if (len < 1)
		return 0;
	if (fd < 0)
		fd = memfd_create("disk", 0);
	memset(disk, 0, sizeof(disk));
	unsigned kind = *data++ % 6;
	len--;
	if (kind < 2)
		make_ufs(kind == 1);
	else if (kind < 5)
		make_fat(kind == 2 ? 12 : kind == 3 ? 16 : 32);
	else
		make_iso();
	while (len >= 4) {
		size_t at = (data[0] | data[1] << 8 | data[2] << 16) % DISK;
		size_t k = MIN(len - 4, DISK - at);
		k = MIN((size_t)data[3] % 16 + 1, k);
		memcpy(disk + at, data + 4, k);
		data += 4 + k;
		len -= 4 + k;
	}
	if (fd < 0 || pwrite(fd, disk, DISK, 0) != DISK)
		abort();
	struct media m = { .fd = fd, .size = DISK };
	if (mounts[kind](&m, &fs) != 0)
		return 0;
	struct visit v = { .fs = fs, .left = FILES };
	if (fs->ops->stat(fs, 0, &n) == 0)
		look(&v, &n);
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		(void)fs_walk(fs, paths[i], &n);
	fs_unmount(fs);
	return 0;
}
