/*
 * device.map: which image GRUB sees as which disk, one "(name) path" a line, '#'
 * comments. Checked whole before GRUB sees any of it, as GRUB itself skips in
 * silence what it cannot open.
 */
#pragma once

#include <stdio.h>

#define DEVMAP_MAX      64
#define DEVMAP_NAME_MAX 31

struct devmap_entry {
	char name[DEVMAP_NAME_MAX + 1];
	char *path; /* as written */
	unsigned line;
	int fd; /* read-only, -1 until devmap_open() */
};

struct devmap {
	struct devmap_entry entries[DEVMAP_MAX];
	unsigned count;
};

/* 0, or -errno with the line and what would be right logged. */
int devmap_parse(struct devmap *map, FILE *f, const char *file);
/* Opens every image (relative to the working directory). 0 or -errno (logged). */
int devmap_open(struct devmap *map, const char *file);
/* Fine for a zeroed map. */
void devmap_free(struct devmap *map);
