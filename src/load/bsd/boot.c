/* The end of loading: fstab, handover, the countdown before. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "lib/util.h"
#include "load/bsd/handover.h"
#include "load/bsd/loader.h"
#include "vmm/vmfile.h"

#define FSTAB_LIMIT (256 * KiB)
#define DELAY_USUAL 10

/* The line of fstab(5) for "/": vfs.root.mountfrom and its options. */
static bool use_line(struct loader *l, char *line)
{
	char *field[4], *rest = line, value[FS_PATH_MAX];
	unsigned n = 0;

	for (char *f;
	     n < ARRAY_SIZE(field) && (f = strsep(&rest, " \t\r")) != NULL;)
		if (f[0] != '\0')
			field[n++] = f;
	if (n < 4 || field[0][0] == '#' || strcmp(field[1], "/") != 0)
		return false;
	snprintf(value, sizeof(value), "%s:%s", field[2], field[0]);
	(void)env_set(&l->env, "vfs.root.mountfrom", value);
	if (env_get(&l->env, "vfs.root.mountfrom.options") == NULL)
		(void)env_set(&l->env, "vfs.root.mountfrom.options", field[3]);
	return true;
}

static void find_root(struct loader *l)
{
	const char *root = env_get(&l->env, "rootdev");
	char path[FS_PATH_MAX];
	uint8_t *text;
	size_t len;

	if (env_get(&l->env, "vfs.root.mountfrom") != NULL)
		return;
	snprintf(path, sizeof(path), "%s%s/etc/fstab", root != NULL ? root : "",
	    root != NULL && root[0] != '\0' && strchr(root, ':') == NULL ? ":"
									 : "");
	if (dev_load(&l->dev, path, false, FSTAB_LIMIT, &text, &len) != 0)
		return;
	char *rest = (char *)text;
	for (char *line; (line = strsep(&rest, "\n")) != NULL;)
		if (use_line(l, line))
			break;
	free(text);
}

int boot_now(struct loader *l, const char *args)
{
	if (l->files.count == 0 && conf_load(l, NULL) != 0)
		return -1;
	struct preload *kernel = &l->files.file[0];
	if (args != NULL && args[0] != '\0') {
		free(kernel->args);
		kernel->args = strdup(args);
	}
	find_root(l);
	con_printf(&l->con, "Booting [%s]...\n", kernel->name);
	int err = handover_write(l->vf, &l->files, &l->env, l->memory);
	if (err == -ENOSPC)
		return loader_fail(l,
		    "the file system of the VM directory is full: make room "
		    "there, or set VMM_DIR to a directory with more");
	if (err == -ENOMEM)
		return loader_fail(l,
		    "kernel, modules and environment do not fit into the guest's "
		    "memory: give it more with -m");
	if (err != 0)
		return loader_fail(
		    l, "cannot write the VM object: %s", strerror(-err));
	l->end = LOADER_BOOTED;
	return 0;
}

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

int boot_after(struct loader *l, int seconds, const char *prompt)
{
	const char *delay = env_get(&l->env, "autoboot_delay");

	l->autoboot_done = true;
	if (seconds == -1) {
		char *end;
		seconds = DELAY_USUAL;
		if (delay != NULL) {
			long n = strtol(delay, &end, 0);
			if (end != delay)
				seconds = n < 0 ? -1 : (int)MIN(n, 86400L);
		}
	}
	if (l->files.count == 0 && conf_load(l, NULL) != 0)
		return -1;
	con_printf(&l->con, "%s\n",
	    prompt != NULL ? prompt
			   : "Hit [Enter] to boot immediately, or any other key "
			     "for command prompt.");
	long long end = now() + seconds * 1000LL;
	for (long long left; seconds >= 0 && (left = end - now()) > 0;) {
		int whole = (int)((left + 999) / 1000);
		con_printf(&l->con, "\rBooting [%s] in %d second%s... ",
		    l->files.file[0].name, whole, whole == 1 ? "" : "s");
		int key = con_key(&l->con, (int)(left - (whole - 1) * 1000LL));
		if (key == '\r' || key == '\n')
			break;
		if (key >= 0) {
			con_printf(&l->con, "\n");
			return 0;
		}
	}
	con_printf(&l->con, "\n");
	return boot_now(l, NULL);
}
