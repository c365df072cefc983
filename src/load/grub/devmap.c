/* Reads and checks device.map (devmap.h). */
#include "load/grub/devmap.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>

#include "lib/log.h"

static char *skip_blanks(char *p)
{
	while (*p == ' ' || *p == '\t')
		p++;
	return p;
}

static void strip_end(char *p)
{
	size_t len = strlen(p);

	while (len > 0 && isspace((unsigned char)p[len - 1]))
		p[--len] = '\0';
}

/* NULL when fine, else what is wrong. */
static const char *name_error(const char *name, size_t len)
{
	if (len == 0)
		return "the device has no name";
	if (len > DEVMAP_NAME_MAX)
		return "the device's name is too long";
	if (memchr(name, ',', len) != NULL)
		return "a whole disk is named here, not a partition";
	if (!islower((unsigned char)name[0]) ||
	    !isdigit((unsigned char)name[len - 1]))
		return "a device is named by letters and a number, as hd0 or cd0";
	for (size_t i = 0; i < len; i++) {
		if (!islower((unsigned char)name[i]) &&
		    !isdigit((unsigned char)name[i]))
			return "a device is named by letters and a number, as hd0 "
			       "or cd0";
	}
	return NULL;
}

static int bad_line(const char *file, unsigned line, const char *why)
{
	log_error("%s line %u: %s; a line reads \"(hd0) /path/to/image\"", file,
	    line, why);
	return -EINVAL;
}

static int parse_line(struct devmap *map, char *p, const char *file, unsigned line)
{
	p = skip_blanks(p);
	strip_end(p);
	if (*p == '\0' || *p == '#')
		return 0;
	if (*p != '(')
		return bad_line(file, line, "no \"(\" at its start");
	char *name = p + 1;
	char *close = strchr(name, ')');
	if (close == NULL)
		return bad_line(file, line, "no \")\" after the device's name");
	size_t len = (size_t)(close - name);
	const char *why = name_error(name, len);
	if (why != NULL)
		return bad_line(file, line, why);
	char *path = skip_blanks(close + 1);
	if (*path == '\0')
		return bad_line(file, line, "no path of an image");
	if (strlen(path) >= PATH_MAX)
		return bad_line(file, line, "the path is too long");
	for (unsigned i = 0; i < map->count; i++) {
		if (strlen(map->entries[i].name) == len &&
		    memcmp(map->entries[i].name, name, len) == 0) {
			log_error(
			    "%s line %u: device (%s) is named in line %u already",
			    file, line, map->entries[i].name, map->entries[i].line);
			return -EINVAL;
		}
	}
	if (map->count == DEVMAP_MAX) {
		log_error(
		    "%s line %u: more than %u devices", file, line, DEVMAP_MAX);
		return -EINVAL;
	}
	struct devmap_entry *e = &map->entries[map->count];
	e->path = strdup(path);
	if (e->path == NULL)
		return -ENOMEM;
	memcpy(e->name, name, len);
	e->name[len] = '\0';
	e->line = line;
	e->fd = -1;
	map->count++;
	return 0;
}

int devmap_parse(struct devmap *map, FILE *f, const char *file)
{
	char *text = NULL;
	size_t size = 0;
	unsigned line = 0;
	int err = 0;
	ssize_t n;

	*map = (struct devmap){ .count = 0 };
	while (err == 0 && (n = getline(&text, &size, f)) >= 0) {
		line++;
		if (memchr(text, '\0', (size_t)n) != NULL)
			err = bad_line(file, line, "not a text file");
		else
			err = parse_line(map, text, file, line);
	}
	if (err == 0 && ferror(f)) {
		err = -EIO;
		log_error("%s: %s", file, strerror(errno));
	}
	free(text);
	if (err != 0)
		devmap_free(map);
	return err;
}

static int open_entry(struct devmap_entry *e, const char *file)
{
	struct stat st;
	const char *why = NULL;
	uint64_t size = 0;

	e->fd = open(e->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (e->fd < 0 || fstat(e->fd, &st) != 0) {
		int err = -errno;
		log_error(
		    "%s line %u: %s: %s", file, e->line, e->path, strerror(-err));
		return err;
	}
	if (S_ISDIR(st.st_mode))
		why = "is a directory, not a disk image";
	else if (S_ISREG(st.st_mode))
		size = (uint64_t)st.st_size;
	else if (!S_ISBLK(st.st_mode) || ioctl(e->fd, BLKGETSIZE64, &size) != 0)
		why = "is neither a disk image nor a block device";
	if (why == NULL && size < 512)
		why = "holds less than one sector: not a disk image";
	if (why != NULL) {
		log_error("%s line %u: %s %s", file, e->line, e->path, why);
		return -EINVAL;
	}
	return 0;
}

int devmap_open(struct devmap *map, const char *file)
{
	for (unsigned i = 0; i < map->count; i++) {
		int err = open_entry(&map->entries[i], file);
		if (err != 0)
			return err;
	}
	return 0;
}

void devmap_free(struct devmap *map)
{
	for (unsigned i = 0; i < map->count; i++) {
		free(map->entries[i].path);
		if (map->entries[i].fd >= 0)
			close(map->entries[i].fd);
	}
	map->count = 0;
}
