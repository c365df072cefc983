/* Commands that load and boot, and those that end the loader. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/size.h"
#include "lib/util.h"
#include "load/bsd/command.h"
#include "load/bsd/loader.h"

#define ARGS_MAX 1024

/* Words as one text. */
static void join(char **words, char out[ARGS_MAX])
{
	size_t n = 0;

	out[0] = '\0';
	for (; *words != NULL && n < ARGS_MAX; words++)
		n += (size_t)snprintf(
		    out + n, ARGS_MAX - n, "%s%s", n > 0 ? " " : "", *words);
}

int command_load(struct loader *l, int argc, char **argv)
{
	char args[ARGS_MAX];
	bool file = false;
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "-t") == 0) {
			if (argc != i + 3)
				return loader_fail(l, "-t wants a type and a file");
			return load_raw(l, argv[i + 2], argv[i + 1]);
		}
		if (strcmp(argv[i], "-k") != 0)
			return loader_fail(l,
			    "load: unknown option %s (load [-t type] file)",
			    argv[i]);
		file = true;
	}
	if (i >= argc)
		return loader_fail(l, "no file name (load file)");
	join(argv + i + 1, args);
	return file ? load_kld(l, argv[i], args) : load_module(l, argv[i], args);
}

int command_unload(struct loader *l, int argc, char **argv)
{
	(void)argc, (void)argv;
	load_forget(l);
	return 0;
}

int command_lsmod(struct loader *l, int argc, char **argv)
{
	bool verbose = argc > 1 && strcmp(argv[1], "-v") == 0;

	con_page_begin(&l->con, loader_rows(l));
	for (unsigned i = 0; i < l->files.count && !con_stopped(&l->con); i++) {
		const struct preload *p = &l->files.file[i];
		con_printf(&l->con, " 0x%" PRIx64 ": %s (%s, 0x%" PRIx64 ")\n",
		    p->addr, p->name, p->type, p->size);
		if (p->args != NULL)
			con_printf(&l->con, "    args: %s\n", p->args);
		/* A kernel holds hundreds. */
		if (p->held > 0 && (i > 0 || verbose)) {
			con_printf(&l->con, "  modules:");
			for (unsigned j = 0; j < p->held; j++)
				con_printf(&l->con, " %s.%d", p->holds[j].name,
				    p->holds[j].min);
			con_printf(&l->con, "\n");
		}
		for (unsigned j = 0; verbose && j < p->mds; j++)
			con_printf(&l->con, "      0x%04x, 0x%x\n", p->md[j].type,
			    p->md[j].size);
	}
	con_page_end(&l->con);
	return 0;
}

/* "boot -s", "boot kernel.old -v": with a name all is loaded anew. */
int command_boot(struct loader *l, int argc, char **argv)
{
	char args[ARGS_MAX];

	if (argc > 1 && argv[1][0] != '-') {
		join(argv + 2, args);
		load_forget(l);
		if (conf_load(l, argv[1]) != 0)
			return -1;
	} else {
		join(argv + 1, args);
	}
	return boot_now(l, args);
}

/* "boot-conf -s kernel.old" and "boot-conf kernel.old -s". */
int command_boot_conf(struct loader *l, int argc, char **argv)
{
	const char *kernel = NULL;
	char *flags[ARGS_MAX / 2], args[ARGS_MAX];
	unsigned n = 0;

	for (int i = 1; i < argc; i++) {
		if (argv[i][0] == '-' && n + 1 < ARRAY_SIZE(flags))
			flags[n++] = argv[i];
		else if (kernel == NULL)
			kernel = argv[i];
	}
	flags[n] = NULL;
	join(flags, args);
	load_forget(l);
	return conf_load(l, kernel) != 0 ? -1 : boot_now(l, args);
}

int command_autoboot(struct loader *l, int argc, char **argv)
{
	uint64_t seconds;

	if (argc > 3)
		return loader_fail(l, "too many arguments");
	if (argc < 2)
		return boot_after(l, -1, NULL);
	if (number_parse(argv[1], 0, 86400, &seconds) != 0)
		return loader_fail(
		    l, "'%s' is no delay; wanted are seconds, 0 to 86400", argv[1]);
	return boot_after(l, (int)seconds, argc == 3 ? argv[2] : NULL);
}

int command_menu(struct loader *l, int argc, char **argv)
{
	(void)argc, (void)argv;
	if (l->depth > 0)
		return loader_fail(l, "menu: only at the prompt");
	env_unset(&l->env, "autoboot_delay");
	(void)env_set(&l->env, "autoboot_delay", "NO");
	menu_run(l);
	return 0;
}

int command_quit(struct loader *l, int argc, char **argv)
{
	(void)argc, (void)argv;
	l->end = LOADER_QUIT;
	return 0;
}

int command_reboot(struct loader *l, int argc, char **argv)
{
	(void)argc, (void)argv;
	l->end = LOADER_REBOOT;
	return 0;
}
