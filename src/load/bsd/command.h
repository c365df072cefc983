/* The commands of the prompt: each 0, or -1 with the loader's error set. */
#pragma once

#include <stddef.h>

struct loader;

struct command {
	const char *name;
	int (*run)(struct loader *l, int argc, char **argv);
	const char *what, *help;
};

const struct command *command_table(size_t *count);

int command_autoboot(struct loader *l, int argc, char **argv);
int command_boot(struct loader *l, int argc, char **argv);
int command_boot_conf(struct loader *l, int argc, char **argv);
int command_echo(struct loader *l, int argc, char **argv);
int command_help(struct loader *l, int argc, char **argv);
int command_include(struct loader *l, int argc, char **argv);
int command_load(struct loader *l, int argc, char **argv);
int command_ls(struct loader *l, int argc, char **argv);
int command_lsdev(struct loader *l, int argc, char **argv);
int command_lsmod(struct loader *l, int argc, char **argv);
int command_menu(struct loader *l, int argc, char **argv);
int command_more(struct loader *l, int argc, char **argv);
int command_quit(struct loader *l, int argc, char **argv);
int command_reboot(struct loader *l, int argc, char **argv);
int command_set(struct loader *l, int argc, char **argv);
int command_show(struct loader *l, int argc, char **argv);
int command_unload(struct loader *l, int argc, char **argv);
int command_unset(struct loader *l, int argc, char **argv);
