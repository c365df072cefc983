/*
 * Makes the directory GRUB starts from (tree.h). Every module a guest's
 * configuration may ask for is loaded at the start: later GRUB would look for it on
 * the guest's disk, where modules for another platform lie, if any.
 */
#include "load/grub/tree.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/util.h"
#include "load/grub/devmap.h"

#define MODULE_DIR   "x86_64-emu"
#define MODULE_MAX   (4 * MiB)
#define LICENSE_NAME ".module_license"
#define LICENSE_TEXT "LICENSE=GPLv3+"

/* In the order of loading; GRUB loads what they need. Some versions lack some. */
/* clang-format off */
static const char *const modules[] = {
	/* disks and partitions */
	"part_msdos", "part_gpt", "part_apple", "part_bsd", "part_dfly",
	"part_sun", "part_sunpc", "part_acorn", "part_amiga", "part_dvh",
	"part_plan", "diskfilter", "lvm", "ldm", "mdraid09", "mdraid09_be",
	"mdraid1x", "dm_nv", "raid5rec", "raid6rec", "loopback",
	/* file systems */
	"ext2", "iso9660", "fat", "xfs", "btrfs", "exfat", "ntfs", "ntfscomp",
	"udf", "ufs1", "ufs1_be", "ufs2", "zfs", "f2fs", "jfs",
	"reiserfs", "hfs", "hfsplus", "hfspluscomp", "nilfs2", "squash4",
	"minix", "minix2", "minix3", "minix_be", "minix2_be", "minix3_be",
	"affs", "afs", "bfs", "sfs", "romfs", "cbfs", "cpio", "cpio_be", "newc",
	"odc", "tar", "gzio", "xzio", "lzopio", "zstd",
	/* commands */
	"boot", "test", "true", "echo", "ls", "cat", "cmp", "minicmd",
	"configfile", "search", "search_fs_file", "search_fs_uuid",
	"search_label", "regexp", "loadenv", "help", "probe", "read", "sleep",
	"date", "eval", "tr", "time", "blocklist", "hexdump", "hashsum",
	"password", "password_pbkdf2", "legacycfg", "syslinuxcfg", "parttool",
	"terminal", "halt", "reboot",
};
/* clang-format on */

static int write_file(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	const char *p = data;
	int err = fchmod(fd, 0644) == 0 ? 0 : -errno; /* whatever the umask */
	while (err == 0 && len > 0) {
		ssize_t n = write(fd, p, len);
		if (n < 0) {
			err = -errno;
			break;
		}
		p += n;
		len -= (size_t)n;
	}
	close(fd);
	return err;
}

static int make_dir(const char *path)
{
	if (mkdir(path, 0755) != 0 || chmod(path, 0755) != 0)
		return -errno;
	return 0;
}

/*
 * A copy of an ELF file with a section .module_license added: GRUB 2.06's
 * "datetime", which everything needs, lacks it, so that grub-emu-lite refuses it.
 * The file is Debian's, yet every offset is checked. NULL: has one, or not ELF.
 */
static uint8_t *with_license(const uint8_t *file, size_t len, size_t *out_len)
{
	Elf64_Ehdr eh;
	Elf64_Shdr strings;

	if (len < sizeof(eh))
		return NULL;
	memcpy(&eh, file, sizeof(eh));
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0 ||
	    eh.e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh.e_shentsize != sizeof(Elf64_Shdr) || eh.e_shoff > len ||
	    eh.e_shnum > (len - eh.e_shoff) / sizeof(Elf64_Shdr) ||
	    eh.e_shstrndx >= eh.e_shnum)
		return NULL;
	size_t table = eh.e_shnum * sizeof(Elf64_Shdr);
	memcpy(&strings, file + eh.e_shoff + eh.e_shstrndx * sizeof(strings),
	    sizeof(strings));
	if (strings.sh_offset > len || strings.sh_size > len - strings.sh_offset ||
	    memmem(file + strings.sh_offset, strings.sh_size, LICENSE_NAME,
		sizeof(LICENSE_NAME)) != NULL)
		return NULL;

	size_t text_at = ROUND_UP(len, (size_t)16);
	size_t names_at = text_at + sizeof(LICENSE_TEXT);
	size_t names_len = strings.sh_size + sizeof(LICENSE_NAME);
	size_t table_at = ROUND_UP(names_at + names_len, (size_t)16);
	*out_len = table_at + table + sizeof(Elf64_Shdr);
	uint8_t *out = calloc(1, *out_len);
	if (out == NULL)
		return NULL;
	memcpy(out, file, len);
	memcpy(out + text_at, LICENSE_TEXT, sizeof(LICENSE_TEXT));
	memcpy(out + names_at, file + strings.sh_offset, strings.sh_size);
	memcpy(
	    out + names_at + strings.sh_size, LICENSE_NAME, sizeof(LICENSE_NAME));
	memcpy(out + table_at, file + eh.e_shoff, table);

	Elf64_Shdr license = {
		.sh_name = (Elf64_Word)strings.sh_size,
		.sh_type = SHT_PROGBITS,
		.sh_offset = text_at,
		.sh_size = sizeof(LICENSE_TEXT),
		.sh_addralign = 1,
	};
	strings.sh_offset = names_at;
	strings.sh_size = names_len;
	memcpy(out + table_at + eh.e_shstrndx * sizeof(strings), &strings,
	    sizeof(strings));
	memcpy(out + table_at + table, &license, sizeof(license));
	eh.e_shoff = table_at;
	eh.e_shnum++;
	memcpy(out, &eh, sizeof(eh));
	return out;
}

/* GRUB's own file by link, unless it needs mending. */
static int add_module(const char *from, const char *to)
{
	struct stat st;
	int fd = open(from, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	int err = 0;
	uint8_t *file = MAP_FAILED;
	if (fstat(fd, &st) != 0)
		err = -errno;
	else if (st.st_size <= 0 || st.st_size > (off_t)MODULE_MAX)
		err = -EFBIG;
	if (err == 0) {
		file =
		    mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (file == MAP_FAILED)
			err = -errno;
	}
	close(fd);
	if (err != 0)
		return err;
	size_t len;
	uint8_t *mended = with_license(file, (size_t)st.st_size, &len);
	munmap(file, (size_t)st.st_size);
	if (mended == NULL)
		return symlink(from, to) == 0 ? 0 : -errno;
	err = write_file(to, mended, len);
	free(mended);
	return err;
}

static int join(char *buf, const char *dir, const char *name)
{
	int n = snprintf(buf, PATH_MAX, "%s/%s", dir, name);

	return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static bool is_module(const char *name)
{
	size_t len = strlen(name);

	return len > 4 && strcmp(name + len - 4, ".mod") == 0;
}

static int add_modules(const char *dir, const struct tree_options *o)
{
	char from[PATH_MAX], to[PATH_MAX];
	struct dirent *d;

	DIR *stream = opendir(o->modules);
	if (stream == NULL)
		return -errno;
	int err = 0;
	while (err == 0 && (d = readdir(stream)) != NULL) {
		if (!is_module(d->d_name))
			continue;
		err = join(from, o->modules, d->d_name);
		if (err == 0)
			err = join(to, dir, d->d_name);
		if (err == 0)
			err = add_module(from, to);
	}
	closedir(stream);
	if (err == 0)
		err = join(to, dir, "bhyve.mod");
	if (err == 0 && symlink(o->module, to) != 0)
		err = -errno;
	return err;
}

/* insmod lines for the modules there are. */
static int load_modules(const char *dir, FILE *cfg)
{
	char name[64], path[PATH_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(modules); i++) {
		snprintf(name, sizeof(name), "%s.mod", modules[i]);
		int err = join(path, dir, name);
		if (err != 0)
			return err;
		if (access(path, F_OK) == 0)
			fprintf(cfg, "insmod %s\n", modules[i]);
	}
	return 0;
}

/*
 * Named without blanks, which GRUB's own device.map could not have in a path.
 */
static int add_devices(const struct tree *t, const struct devmap *map)
{
	char link[PATH_MAX], image[PATH_MAX];

	FILE *f = fopen(t->map, "wxe");
	if (f == NULL)
		return -errno;
	int err = fchmod(fileno(f), 0644) == 0 ? 0 : -errno;
	for (unsigned i = 0; err == 0 && i < map->count; i++) {
		const struct devmap_entry *e = &map->entries[i];
		if (realpath(e->path, image) == NULL) {
			err = -errno;
			break;
		}
		err = join(link, t->dir, e->name);
		if (err == 0 && symlink(image, link) != 0)
			err = -errno;
		fprintf(f, "(%s) %s\n", e->name, link);
	}
	if (fclose(f) != 0 && err == 0)
		err = -EIO;
	return err;
}

static int fill(
    struct tree *t, const struct tree_options *o, const struct devmap *map)
{
	char path[PATH_MAX], *text = NULL;
	size_t len;

	int err = join(t->map, t->dir, "device.map");
	if (err == 0)
		err = add_devices(t, map);
	if (err == 0)
		err = join(path, t->dir, MODULE_DIR);
	if (err == 0)
		err = make_dir(path);
	if (err != 0)
		return err;

	FILE *cfg = open_memstream(&text, &len);
	if (cfg == NULL)
		return -ENOMEM;
	err = add_modules(path, o);
	if (err == 0)
		err = load_modules(path, cfg);
	/* The strings were checked: no quotes, no control characters. */
	fprintf(cfg,
	    "insmod bhyve\n"
	    "terminal_input bhyve\n"
	    "bhyve_start '%s' '%s' '%s'\n"
	    "if [ -n \"$bhyve_cfg\" ]; then configfile \"$bhyve_cfg\"; fi\n",
	    o->root, o->directory, o->config);
	if (fclose(cfg) != 0 && err == 0)
		err = -ENOMEM;
	if (err == 0)
		err = join(path, t->dir, "grub.cfg");
	if (err == 0)
		err = write_file(path, text, len);
	free(text);
	return err;
}

int tree_create(
    struct tree *t, const struct tree_options *o, const struct devmap *map)
{
	const char *tmp = getenv("TMPDIR");

	t->modules = o->modules;
	t->module = o->module;
	if (tmp == NULL || tmp[0] != '/')
		tmp = "/tmp";
	int n = snprintf(t->dir, sizeof(t->dir), "%s/grub-bhyve.XXXXXX", tmp);
	if (n >= (int)sizeof(t->dir) || mkdtemp(t->dir) == NULL) {
		int err = n >= (int)sizeof(t->dir) ? -ENAMETOOLONG : -errno;
		log_error("cannot make a directory in %s: %s", tmp, strerror(-err));
		t->dir[0] = '\0';
		return err;
	}
	/* GRUB may run as another user; nothing in here is secret. */
	int err = chmod(t->dir, 0755) == 0 ? fill(t, o, map) : -errno;
	if (err != 0) {
		log_error("cannot prepare GRUB's files in %s: %s", t->dir,
		    strerror(-err));
		tree_remove(t);
	}
	return err;
}

static int remove_one(
    const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	(void)remove(path);
	return 0;
}

void tree_remove(struct tree *t)
{
	if (t->dir[0] != '\0')
		nftw(t->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	t->dir[0] = '\0';
}
