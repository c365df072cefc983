/*
 * Partition tables: GPT (UEFI 2.10, chapter 5), MBR with logical partitions, BSD
 * disklabels in a slice or on the whole disk. Names are FreeBSD's: p2, s1, s1a, a.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct media;

#define PART_MAX 160

struct part {
	char name[8];
	const char *type;     /* "freebsd-ufs"; "other" when unknown */
	uint64_t start, size; /* bytes of the disk */
};

struct parts {
	const char *scheme; /* "GPT", "MBR", "BSD"; NULL: no table */
	const char *damage; /* what is wrong with the table, or NULL */
	unsigned count;
	struct part part[PART_MAX];
};

/* Fills p; tables that make no sense are left out and told in p->damage. */
void part_read(const struct media *m, struct parts *p);
