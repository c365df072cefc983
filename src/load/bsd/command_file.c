/* Commands that look at devices and files: ls, lsdev, more, include. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/command.h"
#include "load/bsd/loader.h"

#define TEXT_LIMIT (4 * MiB)
#define DEPTH_MAX  8u

struct listing {
	struct loader *l;
	struct fs *fs;
	bool sizes;
};

static bool show_entry(void *arg, const char *name, uint64_t id)
{
	static const char letters[] = { ' ', 'd', 'l', '?' };
	struct listing *ls = arg;
	struct node n = { .type = NODE_OTHER };

	(void)ls->fs->ops->stat(ls->fs, id, &n);
	if (ls->sizes)
		con_printf(&ls->l->con, " %c %10" PRIu64 "  %s\n", letters[n.type],
		    n.size, name);
	else
		con_printf(&ls->l->con, " %c  %s\n", letters[n.type], name);
	return !con_stopped(&ls->l->con);
}

int command_ls(struct loader *l, int argc, char **argv)
{
	struct listing ls = { .l = l };
	const char *path = "/";
	struct node n;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-l") == 0)
			ls.sizes = true;
		else
			path = argv[i];
	}
	int err = dev_walk(&l->dev, path, &ls.fs, &n);
	if (err != 0)
		return loader_fail(l, "%s: %s", path, loader_why(err));
	con_page_begin(&l->con, loader_rows(l));
	if (n.type == NODE_DIR) {
		con_printf(&l->con, "%s\n", path);
		err = ls.fs->ops->list(ls.fs, &n, show_entry, &ls);
	} else {
		show_entry(&ls, path, n.id);
	}
	con_page_end(&l->con);
	return err == 0 ? 0 : loader_fail(l, "%s: %s", path, loader_why(err));
}

static void show_device(struct loader *l, const char *name, const char *type,
    uint64_t size, bool verbose)
{
	struct fs *fs;

	con_printf(&l->con, "      %s: %s", name, type);
	if (verbose) {
		bool known = dev_mount(&l->dev, name, &fs) == 0;
		con_printf(&l->con, "  %" PRIu64 " KiB  %s", size / KiB,
		    known                       ? fs->ops->name
		    : dev_is_zfs(&l->dev, name) ? "ZFS (not readable here)"
						: "");
	}
	con_printf(&l->con, "\n");
}

int command_lsdev(struct loader *l, int argc, char **argv)
{
	bool verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
	char name[DEV_NAME];

	con_page_begin(&l->con, loader_rows(l));
	if (l->dev.disks > 0)
		con_printf(&l->con, "disk devices:\n");
	for (unsigned i = 0; i < l->dev.disks && !con_stopped(&l->con); i++) {
		const struct dev_disk *d = &l->dev.disk[i];
		snprintf(name, sizeof(name), "disk%u", i);
		con_printf(&l->con, "    %s (%s)%s%s\n", name, d->path,
		    d->parts.scheme != NULL ? ": " : "",
		    d->parts.scheme != NULL ? d->parts.scheme : "");
		if (d->parts.damage != NULL)
			con_printf(&l->con, "      %s\n", d->parts.damage);
		if (d->parts.count == 0)
			show_device(l, name, "whole disk", d->media.size, verbose);
		for (unsigned j = 0; j < d->parts.count; j++) {
			const struct part *p = &d->parts.part[j];
			snprintf(name, sizeof(name), "disk%u%s", i, p->name);
			show_device(l, name, p->type, p->size, verbose);
		}
	}
	if (l->dev.host != NULL)
		con_printf(&l->con, "host devices:\n    host0: host directory\n");
	con_page_end(&l->con);
	return 0;
}

int command_more(struct loader *l, int argc, char **argv)
{
	int err = 0;

	if (argc < 2)
		return loader_fail(l, "no file name (more file)");
	con_page_begin(&l->con, loader_rows(l));
	for (int i = 1; err == 0 && i < argc && !con_stopped(&l->con); i++) {
		uint8_t *text;
		size_t len;

		err = dev_load(&l->dev, argv[i], true, TEXT_LIMIT, &text, &len);
		if (err != 0) {
			loader_fail(l, "%s: %s", argv[i],
			    err == -EFBIG ? "too large to show" : loader_why(err));
			break;
		}
		/* A zero byte ends a line as a newline does. */
		for (size_t at = 0; at < len && !con_stopped(&l->con);) {
			size_t n = strcspn((char *)text + at, "\n");
			con_printf(&l->con, "%.*s\n", (int)MIN(n, (size_t)4000),
			    (char *)text + at);
			at += n + 1;
		}
		free(text);
	}
	con_page_end(&l->con);
	return err == 0 ? 0 : -1;
}

/* Runs the lines of a file; the first that fails ends it. */
static int include(struct loader *l, const char *path)
{
	uint8_t *text;
	size_t len;
	unsigned number = 0;

	int err = dev_load(&l->dev, path, true, TEXT_LIMIT, &text, &len);
	if (err != 0)
		return loader_fail(l, "%s: %s", path, loader_why(err));
	char *rest = (char *)text;
	for (char *line; err == 0 && l->end == LOADER_RUNNING &&
			 (line = strsep(&rest, "\n")) != NULL;) {
		bool silent = false, may_fail = false;

		number++;
		line += strspn(line, " \t");
		line[strcspn(line, "\r")] = '\0';
		for (; *line == '@' || *line == '-'; line++) {
			silent |= *line == '@';
			may_fail |= *line == '-';
		}
		if (!silent && line[0] != '\0' && line[0] != '#')
			con_printf(&l->con, "%s\n", line);
		if (command_run(l, line) != 0 && !may_fail) {
			char why[sizeof(l->error)];
			memcpy(why, l->error, sizeof(why));
			err =
			    loader_fail(l, "%.200s:%u: %.300s", path, number, why);
		}
	}
	free(text);
	return err;
}

int command_include(struct loader *l, int argc, char **argv)
{
	int err = 0;

	if (argc < 2)
		return loader_fail(l, "no file name (include file)");
	if (l->depth >= DEPTH_MAX)
		return loader_fail(l, "%s: include within include", argv[1]);
	l->depth++;
	for (int i = 1; err == 0 && i < argc; i++)
		err = include(l, argv[i]);
	l->depth--;
	return err;
}
