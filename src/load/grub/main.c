/*
 * grub-bhyve(8): loads a guest with GRUB, in the form of FreeBSD's port of that
 * name.
 *
 * GRUB runs as a process of its own (child.h); here are the options, the VM object
 * and the exit status. Nothing is left behind unless the guest was loaded.
 */
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/size.h"
#include "lib/tty.h"
#include "lib/util.h"
#include "load/grub/child.h"
#include "load/grub/devmap.h"
#include "load/grub/session.h"
#include "load/grub/tree.h"
#include "load/terminal.h"
#include "vmm/vmfile.h"

#define MEMORY_DEFAULT (256 * MiB)
#define GRUB_MODULES   "/usr/lib/grub/x86_64-emu"
#define TEXT_MAX       512 /* of root, directory and configuration */

struct options {
	const char *name;
	const char *root, *directory, *config;
	const char *map, *console;
	uint64_t memory;
	bool no_console, no_screen, verbose;
};

static const char usage[] =
    "Usage: grub-bhyve [options] vmname\n"
    "Load a guest into VM vmname with GRUB; then run it with bhyve.\n"
    "\n"
    "  -m, --device-map=FILE  which image is which disk, lines \"(hd0) path\"\n"
    "  -r, --root=DEVICE      GRUB's root: hd0, cd0, \"hd0,msdos1\" (default: "
    "host)\n"
    "  -M, --memory=SIZE      guest memory, as 512M or 2G (default: 256M)\n"
    "  -d, --directory=DIR    where grub.cfg lies on the root (default: the usual "
    "places)\n"
    "  -g, --grub-cfg=NAME    name of grub.cfg\n"
    "  -c, --cons-dev=TTY     terminal to use (default: stdio)\n"
    "  -e, --evga             tell the kernel of no text screen\n"
    "  -n, --ncons            do not add console=ttyS0 to Linux command lines\n"
    "  -S                     accepted; bhyve -S wires guest memory\n"
    "  -v, --verbose          say more\n"
    "  -h, --help             this text\n"
    "      --version          the version\n"
    "\n"
    "Examples:\n"
    "  grub-bhyve -m device.map -r cd0 -M 1024M linuxguest\n"
    "      and at its prompt:\n"
    "      linux (cd0)/isolinux/vmlinuz\n"
    "      initrd (cd0)/isolinux/initrd.img\n"
    "      boot\n"
    "  grub-bhyve -m device.map -r hd0,msdos1 -M 1024M linuxguest\n"
    "  grub-bhyve -r host -d /home/me/guest -M 512M linuxguest\n"
    "\n"
    "Exit status: 0 after boot (or halt, reboot), 1 after exit or an error.\n";

static int bad_option(const char *option, const char *value, const char *wanted)
{
	log_error("%s %s: %s", option, value, wanted);
	return -EINVAL;
}

/* What ends up in GRUB's configuration must need no quoting. */
static bool is_plain(const char *s, const char *also)
{
	if (strlen(s) > TEXT_MAX)
		return false;
	for (; *s != '\0'; s++) {
		unsigned char c = (unsigned char)*s;
		if (c < 0x20 || c == 0x7f || c == '\'' || c == '%' ||
		    strchr(also, c) != NULL)
			return false;
	}
	return true;
}

/* "(hd0,1)" is "hd0,1". 0 or -EINVAL (logged). */
static int parse_root(struct options *o, char *arg)
{
	size_t len = strlen(arg);

	if (len >= 2 && arg[0] == '(' && arg[len - 1] == ')') {
		arg[len - 1] = '\0';
		arg++;
	}
	if (arg[0] == '\0' || !is_plain(arg, "() \""))
		return bad_option("-r", arg,
		    "not a GRUB device; wanted is hd0, cd0, hd0,msdos1 or host");
	o->root = arg;
	return 0;
}

static int parse_memory(struct options *o, const char *arg)
{
	if (size_parse_memory(arg, &o->memory) != 0 || o->memory == 0)
		return bad_option(
		    "-M", arg, "not a memory size; wanted is 512M or 2G");
	if (o->memory % 4096 != 0)
		return bad_option("-M", arg, "not a multiple of 4K");
	if (o->memory >
	    (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE))
		return bad_option("-M", arg, "more memory than this host has");
	return 0;
}

static int parse_option(struct options *o, int c)
{
	switch (c) {
	case 'r':
		return parse_root(o, optarg);
	case 'm':
		o->map = optarg;
		return 0;
	case 'd':
		if (!is_plain(optarg, ""))
			return bad_option(
			    "-d", optarg, "not a directory GRUB can use");
		o->directory = optarg;
		return 0;
	case 'g':
		if (optarg[0] == '\0' || !is_plain(optarg, "/"))
			return bad_option("-g", optarg,
			    "not a file name; name its directory with -d");
		o->config = optarg;
		return 0;
	case 'c':
		o->console = optarg;
		return 0;
	case 'M':
		return parse_memory(o, optarg);
	case 'e':
		o->no_screen = true;
		return 0;
	case 'n':
		o->no_console = true;
		return 0;
	case 'S':
		return 0;
	case 'v':
		o->verbose = true;
		return 0;
	default:
		return -EINVAL;
	}
}

/* 0, 1: done (help), or -EINVAL (said why). */
static int parse_options(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "root", required_argument, NULL, 'r' },
		{ "device-map", required_argument, NULL, 'm' },
		{ "directory", required_argument, NULL, 'd' },
		{ "grub-cfg", required_argument, NULL, 'g' },
		{ "cons-dev", required_argument, NULL, 'c' },
		{ "memory", required_argument, NULL, 'M' },
		{ "evga", no_argument, NULL, 'e' },
		{ "ncons", no_argument, NULL, 'n' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	*o = (struct options){
		.root = "host",
		.directory = "",
		.config = "grub.cfg",
		.memory = MEMORY_DEFAULT,
	};
	while (
	    (c = getopt_long(argc, argv, "r:m:d:g:c:M:enSvh", longs, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return 1;
		}
		if (c == 'V') {
			printf("grub-bhyve %s\n", BHYVE_VERSION);
			return 1;
		}
		if (c == '?') {
			fputs("Try grub-bhyve --help.\n", stderr);
			return -EINVAL;
		}
		int err = parse_option(o, c);
		if (err != 0)
			return err;
	}
	if (optind != argc - 1) {
		log_error(optind == argc ? "the VM's name is missing"
					 : "one VM name is wanted, not %d",
		    argc - optind);
		fputs("Try grub-bhyve --help.\n", stderr);
		return -EINVAL;
	}
	o->name = argv[optind];
	const char *why = vmfile_name_error(o->name);
	if (why != NULL)
		return bad_option("vmname", o->name, why);
	return 0;
}

static int load_map(struct devmap *map, const char *file)
{
	if (file == NULL)
		return 0;
	FILE *f = fopen(file, "re");
	if (f == NULL) {
		int err = -errno;
		log_error("-m %s: %s", file, strerror(-err));
		return err;
	}
	int err = devmap_parse(map, f, file);
	fclose(f);
	if (err == 0)
		err = devmap_open(map, file);
	return err;
}

/* The root must be one of the disks, as GRUB would only say that it is not there.
 */
static int check_root(const struct options *o, const struct devmap *map)
{
	size_t len = strcspn(o->root, ",");

	if (strcmp(o->root, "host") == 0 || strchr(o->root, '/') != NULL)
		return 0; /* lvm/..., md/...: GRUB finds them on the disks */
	for (unsigned i = 0; i < map->count; i++) {
		if (strlen(map->entries[i].name) == len &&
		    strncmp(map->entries[i].name, o->root, len) == 0)
			return 0;
	}
	log_error("-r %s: there is no line \"(%.*s) image\" in %s", o->root,
	    (int)len, o->root, o->map != NULL ? o->map : "a device map (-m)");
	return -ENOENT;
}

static int find_program(char *path)
{
	static const char *const places[] = { "/usr/bin", "/usr/local/bin",
		"/usr/sbin", "/bin" };

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		snprintf(path, PATH_MAX, "%s/grub-emu-lite", places[i]);
		if (access(path, X_OK) == 0 &&
		    access(GRUB_MODULES "/normal.mod", R_OK) == 0)
			return 0;
	}
	log_error(
	    "GRUB is not installed: grub-emu-lite of Debian's package grub-emu is "
	    "needed (\"apt-get install grub-emu\", or \"make deps\")");
	return -ENOENT;
}

/* Beside the program (build tree), below its prefix, or where it was to be
 * installed. */
static int find_module(char *path)
{
	static const char *const places[] = { "module", "../lib/bhyve/grub" };
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	exe[MAX(n, (ssize_t)0)] = '\0';
	const char *dir = dirname(exe);
	for (size_t i = 0; n > 0 && i < ARRAY_SIZE(places); i++) {
		int len =
		    snprintf(path, PATH_MAX, "%s/%s/bhyve.mod", dir, places[i]);
		if (len < PATH_MAX && access(path, R_OK) == 0)
			return 0;
	}
	snprintf(path, PATH_MAX, "%s/bhyve.mod", GRUB_BHYVE_DIR);
	if (access(path, R_OK) == 0)
		return 0;
	log_error("%s is missing: bhyve is not completely installed", path);
	return -ENOENT;
}

static int create_vm(struct vmfile **vf, const struct options *o, bool *existed)
{
	struct vmfile *old;

	*existed = vmfile_open(&old, o->name, false) == 0;
	if (*existed)
		vmfile_close(old);
	int err = vmfile_create(vf, o->name, o->memory, "grub-bhyve");
	if (err == -EBUSY) {
		log_error("VM %s is in use by pid %d", o->name,
		    (int)vmfile_holder(o->name));
	} else if (err == -EINVAL) {
		const char *dir = vmfile_dir();
		log_error(
		    "%s/%s is not a VM object", dir != NULL ? dir : "", o->name);
	} else if (err != 0 && vmfile_dir() != NULL) {
		log_error("cannot create %s/%s: %s", vmfile_dir(), o->name,
		    strerror(-err));
	}
	return err;
}

static void report(enum session_end end, int status, const char *program)
{
	if (end == SESSION_NO_INPUT)
		log_error("input ended and no guest was booted (the command is "
			  "\"boot\")");
	else if (end == SESSION_FAILED && WIFEXITED(status) &&
		 WEXITSTATUS(status) == 127)
		log_error("cannot run %s", program);
	else if (end == SESSION_FAILED && WIFSIGNALED(status) &&
		 WTERMSIG(status) != SIGKILL)
		log_error("GRUB was ended by signal %d (%s)", WTERMSIG(status),
		    strsignal(WTERMSIG(status)));
}

static enum session_end run(
    struct session *s, const struct options *o, struct child_options *co)
{
	struct winsize size;
	struct child child;

	co->rows = 24;
	co->cols = 80;
	if (ioctl(s->out, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 &&
	    size.ws_col > 0) {
		co->rows = size.ws_row;
		co->cols = size.ws_col;
	}
	co->host_files = strcmp(o->root, "host") == 0;
	co->verbose = o->verbose;
	if (child_start(&child, co) != 0)
		return SESSION_FAILED;
	s->child = &child;
	s->memory = o->memory;
	s->no_console = o->no_console;
	s->no_screen = o->no_screen;
	s->verbose = o->verbose;
	enum session_end end = session_run(s);
	int status = child_end(&child);
	bool tty = isatty(s->out);
	if (tty) { /* GRUB set colours and stopped anywhere in a line */
		ssize_t ignored = write(s->out, "\033[0m\r\n", 6);
		(void)ignored;
	}
	tty_restore();
	report(end, status, co->program);
	return end;
}

/* Everything between the options and the exit status. */
static enum session_end load(const struct options *o, struct devmap *map)
{
	char program[PATH_MAX], module[PATH_MAX];
	struct tree tree = { "" };
	struct vmfile *vf = NULL;
	struct session s = { .in = -1 };
	bool existed = false;
	enum session_end end = SESSION_FAILED;

	if (load_map(map, o->map) != 0 || check_root(o, map) != 0 ||
	    find_program(program) != 0 || find_module(module) != 0)
		return SESSION_FAILED;
	session_block_signals();
	if (create_vm(&vf, o, &existed) != 0)
		return SESSION_FAILED;

	const struct tree_options to = { o->root, o->directory, o->config,
		GRUB_MODULES, module };
	struct child_options co = { .program = program, .tree = &tree, .map = map };
	if (tree_create(&tree, &to, map) == 0 &&
	    terminal_open(o->console, &s.in, &s.out) == 0) {
		s.vf = vf;
		end = run(&s, o, &co);
	}
	tree_remove(&tree);
	vmfile_close(vf);
	if (end != SESSION_BOOT && !existed)
		(void)vmfile_destroy(o->name);
	return end;
}

int main(int argc, char **argv)
{
	struct options o;
	struct devmap map = { .count = 0 };

	log_init("grub-bhyve");
	int err = parse_options(&o, argc, argv);
	if (err != 0)
		return err > 0 ? 0 : 1;
	signal(SIGPIPE, SIG_IGN);
	tty_guard();
	enum session_end end = load(&o, &map);
	devmap_free(&map);
	return end == SESSION_BOOT || end == SESSION_HALT ? 0 : 1;
}
