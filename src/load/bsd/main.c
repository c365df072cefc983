/*
 * bhyveload(8): loads a FreeBSD guest, in the form of FreeBSD's program of that
 * name, with a loader of our own instead of userboot.so.
 *
 * Here are the options, the VM object and the exit status: 0 loaded, 1 quit or
 * error, 2 reboot, 64 (EX_USAGE) bad arguments.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sysexits.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/size.h"
#include "lib/tty.h"
#include "lib/util.h"
#include "load/bsd/confine.h"
#include "load/bsd/loader.h"
#include "load/terminal.h"
#include "vmm/vmfile.h"

#define MEMORY_DEFAULT (256 * MiB)
#define MEMORY_LEAST   (32 * MiB)
#define VARIABLES_MAX  256

struct options {
	const char *name, *console, *host;
	const char *disk[DEV_DISKS];
	const char *variable[VARIABLES_MAX];
	unsigned disks, variables;
	uint64_t memory;
};

static const char usage[] =
    "Usage: bhyveload [-CS] [-c cons] [-d disk]... [-e name=value]...\n"
    "                 [-h hostpath] [-l loader] [-m size] vmname\n"
    "Load a FreeBSD guest into VM vmname; then run it with bhyve.\n"
    "\n"
    "  -c cons        terminal to use: stdio (default) or a tty\n"
    "  -C             accepted; bhyve -C puts guest memory into core files\n"
    "  -d disk        disk image to load from; up to 32\n"
    "  -e name=value  set a variable of the loader and the kernel\n"
    "  -h hostpath    directory of the host as the guest's root (host0:)\n"
    "  -l loader      refused: the loader is built in\n"
    "  -m size        guest memory, as 512M or 2G (default: 256M)\n"
    "  -S             accepted; bhyve -S wires guest memory\n";

static const char zfs_text[] =
    "%s: is a ZFS pool, and this loader cannot read ZFS: it lacks the pool's\n"
    "labels and uberblocks, the object sets (DMU, DSL), the directories and files\n"
    "(ZPL), and blocks compressed with lz4 or zstd. The way out: copy the guest's\n"
    "/boot to a directory DIR of this host (DIR/boot/kernel ...) and load from "
    "it:\n"
    "    bhyveload -h DIR -e vfs.root.mountfrom=zfs:POOL/ROOT/default ... %s\n"
    "with zfs_load=\"YES\" in DIR/boot/loader.conf; or install the guest on UFS.\n";

static int bad_option(const char *option, const char *value, const char *why)
{
	log_error("%s %s: %s", option, value, why);
	return -EINVAL;
}

static int parse_memory(struct options *o, const char *arg)
{
	if (size_parse_memory(arg, &o->memory) != 0 || o->memory == 0)
		return bad_option(
		    "-m", arg, "not a memory size; wanted is 512M or 2G");
	if (o->memory % 4096 != 0)
		return bad_option("-m", arg, "not a multiple of 4K");
	if (o->memory < MEMORY_LEAST)
		return bad_option(
		    "-m", arg, "too little for a kernel; 32M is least");
	if (o->memory >
	    (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE))
		return bad_option("-m", arg, "more memory than this host has");
	return 0;
}

static int parse_option(struct options *o, int c)
{
	switch (c) {
	case 'c':
		o->console = optarg;
		return 0;
	case 'd':
		if (o->disks == DEV_DISKS)
			return bad_option("-d", optarg, "more than 32 disks");
		o->disk[o->disks++] = optarg;
		return 0;
	case 'e':
		if (strchr(optarg, '=') == NULL || optarg[0] == '=')
			return bad_option(
			    "-e", optarg, "not a variable; wanted is name=value");
		if (o->variables == VARIABLES_MAX)
			return bad_option("-e", optarg, "too many variables");
		o->variable[o->variables++] = optarg;
		return 0;
	case 'h':
		if (o->host != NULL)
			return bad_option("-h", optarg, "given twice");
		o->host = optarg;
		return 0;
	case 'm':
		return parse_memory(o, optarg);
	case 'C':
	case 'S':
		return 0;
	default:
		return -EINVAL;
	}
}

/* 0, -EINVAL (said why), or 1: ends with *status. */
static int parse_options(struct options *o, int argc, char **argv, int *status)
{
	static const struct option longs[] = {
		{ "help", no_argument, NULL, 'H' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	*o = (struct options){ .memory = MEMORY_DEFAULT };
	while ((c = getopt_long(argc, argv, "CSc:d:e:h:l:m:", longs, NULL)) != -1) {
		switch (c) {
		case 'H':
			fputs(usage, stdout);
			*status = 0;
			return 1;
		case 'V':
			printf("bhyveload %s\n", BHYVE_VERSION);
			*status = 0;
			return 1;
		case 'l':
			log_error("-l %s: a userboot.so is a program of FreeBSD's "
				  "that would run here with all rights, so it is "
				  "not; leave -l out: the loader built in reads "
				  "the guest's loader.conf",
			    optarg);
			*status = 1;
			return 1;
		case '?':
			fputs(usage, stderr);
			return -EINVAL;
		default:
			if (parse_option(o, c) != 0)
				return -EINVAL;
		}
	}
	if (optind != argc - 1) {
		log_error(optind == argc ? "the VM's name is missing"
					 : "one VM name is wanted, not %d",
		    argc - optind);
		fputs(usage, stderr);
		return -EINVAL;
	}
	o->name = argv[optind];
	const char *why = vmfile_name_error(o->name);
	return why != NULL ? bad_option("vmname", o->name, why) : 0;
}

static int open_disks(struct loader *l, const struct options *o)
{
	for (unsigned i = 0; i < o->disks; i++) {
		struct dev_disk *d = &l->dev.disk[i];

		int err = media_open(&d->media, o->disk[i]);
		if (err != 0) {
			log_error("-d %s: %s", o->disk[i],
			    err == -EINVAL ? "not a disk image: neither a file "
					     "of at least 512 bytes nor a disk"
					   : strerror(-err));
			return err;
		}
		d->path = o->disk[i];
		l->dev.disks++;
		part_read(&d->media, &d->parts);
		if (d->parts.damage != NULL)
			log_warn("-d %s: %s", o->disk[i], d->parts.damage);
	}
	return 0;
}

/* The descriptor stays the host file system's. */
static int open_host(struct loader *l, const struct options *o, int *fd)
{
	*fd = -1;
	if (o->host == NULL)
		return 0;
	*fd = open(o->host, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int err = *fd < 0 ? -errno : hostfs_mount(*fd, &l->dev.host);
	if (err != 0)
		log_error("-h %s: %s", o->host, strerror(-err));
	return err;
}

static int open_console(struct loader *l, const char *path)
{
	int in, out, err = terminal_open(path, &in, &out);

	if (err == 0)
		con_init(&l->con, in, out);
	return err;
}

static int create_vm(struct loader *l, const struct options *o, bool *existed)
{
	struct vmfile *old;

	*existed = vmfile_open(&old, o->name, false) == 0;
	if (*existed)
		vmfile_close(old);
	int err = vmfile_create(&l->vf, o->name, o->memory, "bhyveload");
	const char *dir = vmfile_dir();
	if (err == -EBUSY)
		log_error("VM %s is in use by pid %d", o->name,
		    (int)vmfile_holder(o->name));
	else if (err == -EINVAL)
		log_error(
		    "%s/%s is not a VM object", dir != NULL ? dir : "", o->name);
	else if (err != 0 && dir != NULL)
		log_error("cannot create %s/%s: %s", dir, o->name, strerror(-err));
	return err;
}

static int set_variables(struct loader *l, const struct options *o)
{
	int err = env_set(&l->env, "LINES", "24");

	if (err == 0)
		err = env_set(&l->env, "boot_serial", "1");
	if (err == 0)
		err = env_set(&l->env, "smbios.bios.vendor", "BHYVE");
	if (err == 0)
		err = env_set(&l->env, "console", "userboot");
	for (unsigned i = 0; err == 0 && i < o->variables; i++) {
		char *name = strdup(o->variable[i]);
		if (name == NULL)
			return -ENOMEM;
		char *eq = strchr(name, '=');
		*eq = '\0';
		err = strcmp(name, "currdev") == 0 ? 0
						   : env_set(&l->env, name, eq + 1);
		if (strcmp(name, "currdev") == 0 &&
		    loader_set_device(l, eq + 1) != 0) {
			log_error("-e currdev=%s: %s", eq + 1, l->error);
			err = -EINVAL;
		}
		free(name);
	}
	return err;
}

/* The device to load from, unless -e currdev said. false: told that there is none.
 */
static bool find_device(struct loader *l, const struct options *o)
{
	char name[DEV_NAME];

	if (l->dev.current[0] != '\0')
		return true;
	if (dev_choose(&l->dev, name))
		return loader_set_device(l, name) == 0;
	if (l->dev.disks > 0 && dev_find_zfs(&l->dev, name))
		con_printf(&l->con, zfs_text, name, o->name);
	else if (l->dev.disks > 0)
		con_printf(&l->con,
		    "No file system of the disks is known (UFS, ISO9660 and FAT "
		    "are); lsdev -v lists them.\n");
	else
		con_printf(&l->con,
		    "There is nothing to load from: name a disk with -d or a "
		    "directory with -h.\n");
	if (l->dev.disks > 0)
		(void)loader_set_device(l, "disk0");
	return false;
}

static bool says(const struct loader *l, const char *name, const char *word)
{
	const char *value = env_get(&l->env, name);

	return value != NULL && strcasecmp(value, word) == 0;
}

static void run(struct loader *l, const struct options *o)
{
	con_printf(
	    &l->con, "\nFreeBSD loader of bhyve for Linux %s\n", BHYVE_VERSION);
	if (find_device(l, o)) {
		conf_read(l);
		if (env_get(&l->env, "loaddev") == NULL)
			(void)env_set(
			    &l->env, "loaddev", env_get(&l->env, "currdev"));
		if (l->end == LOADER_RUNNING && !says(l, "beastie_disable", "yes"))
			menu_run(l);
		if (l->end == LOADER_RUNNING && !l->autoboot_done &&
		    !says(l, "autoboot_delay", "no") &&
		    boot_after(l, -1, NULL) != 0)
			con_printf(&l->con, "%s\n", l->error);
	}
	command_prompt(l);
}

static int exit_status(enum loader_end end)
{
	switch (end) {
	case LOADER_BOOTED:
		return 0;
	case LOADER_REBOOT:
		return 2;
	default:
		return 1;
	}
}

static int load(const struct options *o)
{
	static struct loader l; /* large, and one a process */
	bool existed = false;
	int host, status = 1;

	l.memory = o->memory;
	if (open_disks(&l, o) == 0 && open_host(&l, o, &host) == 0 &&
	    create_vm(&l, o, &existed) == 0) {
		if (open_console(&l, o->console) == 0) {
			int err = confine(host, vmfile_dir());
			if (err != 0)
				log_error(
				    "cannot give up rights: %s", strerror(-err));
			else if (set_variables(&l, o) == 0)
				run(&l, o);
			status = exit_status(l.end);
			tty_restore();
			if (l.end == LOADER_NO_INPUT)
				log_error(
				    "input ended and no guest was booted (the "
				    "command is \"boot\")");
		}
		vmfile_close(l.vf);
		if (l.end != LOADER_BOOTED && !existed)
			(void)vmfile_destroy(o->name);
	}
	loader_free(&l);
	return status;
}

int main(int argc, char **argv)
{
	struct options o;
	int status;

	log_init("bhyveload");
	int err = parse_options(&o, argc, argv, &status);
	if (err != 0)
		return err > 0 ? status : EX_USAGE;
	signal(SIGPIPE, SIG_IGN);
	tty_guard();
	return load(&o);
}
