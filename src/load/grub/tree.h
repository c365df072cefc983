/*
 * The directory GRUB starts from: private, made for one run, removed after it. In
 * it are GRUB's own modules, ours, a device.map, and the grub.cfg that hands over
 * to the guest's.
 */
#pragma once

#include <limits.h>

struct devmap;

struct tree {
	char dir[PATH_MAX];  /* "" when there is none */
	char map[PATH_MAX];  /* its device.map */
	const char *modules; /* as in the options, which must live as long */
	const char *module;
};

struct tree_options {
	const char *root;      /* GRUB's name, without parentheses */
	const char *directory; /* "" or where grub.cfg lies on root */
	const char *config;    /* name of grub.cfg */
	const char *modules;   /* GRUB's modules */
	const char *module;    /* ours */
};

/* 0 or -errno (logged). */
int tree_create(
    struct tree *t, const struct tree_options *o, const struct devmap *map);
void tree_remove(struct tree *t);
