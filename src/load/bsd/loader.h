/*
 * The loader's state, and what its parts do for each other: files are loaded
 * (load.c), loader.conf is read (conf.c), commands run (command*.c), a menu is
 * shown (menu.c), until one of them sets end.
 *
 * Functions that can fail return 0 or -1 and leave a sentence in error; who was
 * asked by the user prints it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "load/bsd/console.h"
#include "load/bsd/dev.h"
#include "load/bsd/env.h"
#include "load/bsd/preload.h"

struct vmfile;

enum loader_end {
	LOADER_RUNNING,
	LOADER_BOOTED,
	LOADER_QUIT,
	LOADER_REBOOT,
	LOADER_NO_INPUT,
};

/* A module as loader.conf speaks of it: NAME_load, NAME_type ... */
struct conf_module {
	char *name;
	char *load, *file, *type, *flags, *before, *after, *error;
	bool forced; /* chosen at the menu: a blacklist does not matter */
};

struct conf {
	struct conf_module *module;
	unsigned count;
	char *chosen_kernel; /* at the menu; NULL: $kernel */
};

struct loader {
	struct console con;
	struct env env;
	struct devices dev;
	struct preloads files;
	struct conf conf;
	uint64_t memory; /* of the guest */
	struct vmfile *vf;
	enum loader_end end;
	unsigned depth; /* of include and exec */
	bool autoboot_done;
	char error[512];
};

/* Sets error; -1. */
__attribute__((format(printf, 2, 3))) int loader_fail(
    struct loader *l, const char *fmt, ...);
/* The guest's memory below the PCI hole: where files may lie. */
uint64_t loader_low(const struct loader *l);
/* Lines on a screen, as $LINES says. */
unsigned loader_rows(const struct loader *l);
/* Makes a device current, with loaddev and currdev. -1: no such device. */
int loader_set_device(struct loader *l, const char *name);
/* Sentence for an error of dev_load() and its like. */
const char *loader_why(int err);
void loader_free(struct loader *l);

/* load.c */
/* A kernel or module by file name, searched along module_path. */
int load_kld(struct loader *l, const char *name, const char *args);
/* A module by its own name, with all that it needs. */
int load_module(struct loader *l, const char *name, const char *args);
/* Any file with its type ("md_image"). */
int load_raw(struct loader *l, const char *name, const char *type);
void load_forget(struct loader *l);

/* conf.c */
void conf_read(struct loader *l);
/* Lines of a file as loader.conf has them; for tests and fuzzing, too. */
int conf_parse(struct loader *l, const char *file, const char *text, size_t len);
/* $kernel (or that one) and the modules asked for. */
int conf_load(struct loader *l, const char *kernel);
void conf_enable(struct loader *l, const char *module, bool on);
void conf_free(struct conf *c);

/* command.c */
/* Splits a line, puts in variables, runs it. 0 or -1 (error set). */
int command_run(struct loader *l, const char *line);
/* The prompt, until the end. */
void command_prompt(struct loader *l);

/* boot.c */
/* Hands over what is loaded; without a kernel loads as loader.conf says. */
int boot_now(struct loader *l, const char *args);
/* Waits (-1: as autoboot_delay says), then boots; a key stops it (0). */
int boot_after(struct loader *l, int seconds, const char *prompt);

/* menu.c */
void menu_run(struct loader *l);
