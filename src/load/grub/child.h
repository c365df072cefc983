/*
 * GRUB's process: grub-emu-lite with our module, reading what a guest's disks hold.
 * Those bytes are not to be trusted and GRUB's readers are many, so it runs without
 * rights: as "nobody" when started by root, able to read its own directory, the
 * images and the system's libraries and nothing else (Landlock), and without the
 * system calls it has no use for (seccomp).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "load/grub/devmap.h"
#include "load/grub/tree.h"

struct child {
	pid_t pid;    /* 0: none */
	int control;  /* the module's messages */
	int keys;     /* the user's keys; -1 once ended */
	int terminal; /* what GRUB prints: the master side of its terminal */
};

struct child_options {
	const char *program; /* grub-emu-lite */
	const struct tree *tree;
	const struct devmap *map;
	bool host_files; /* the root is (host): it may read what the user may */
	bool verbose;
	uint16_t rows, cols;
};

/* 0 or -errno (logged). */
int child_start(struct child *c, const struct child_options *o);
/* Ends it, if it has not ended, and closes all. Returns its wait status. */
int child_end(struct child *c);
