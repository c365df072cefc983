/*
 * Executables in ELF32 (i386) and ELF64 (amd64) that are loaded at fixed physical
 * addresses. The file is hostile: every offset is checked against its length here,
 * every address when its piece is added to a plan.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "load/error.h"

#define ELF_SEGMENTS_MAX 64u

struct plan;

struct elf_segment {
	uint32_t type;
	uint64_t offset, vaddr, paddr, filesz, memsz;
};

struct elf_section {
	uint32_t type, link;
	uint64_t offset, size;
};

struct elf_image {
	const uint8_t *data;
	size_t len;
	bool is64;
	uint64_t entry;
	struct elf_segment segment[ELF_SEGMENTS_MAX];
	unsigned segments;
	uint64_t sections_at;
	unsigned sections;
};

/* 0, or -EINVAL with the reason. Segments in the image lie within the file. */
int elf_parse(
    struct elf_image *f, const void *data, size_t len, struct load_error *e);
/*
 * Adds what is to be loaded to the plan, at its physical address & mask; none may
 * lie below 1 MiB.
 */
int elf_plan(
    const struct elf_image *f, uint64_t mask, struct plan *p, struct load_error *e);
/* Where the n-th section lies; false: its header is not in the file. */
bool elf_section(const struct elf_image *f, unsigned n, struct elf_section *s);
/* The symbol table and its names. False: there is none, or they are not in the file.
 */
bool elf_symbol_table(
    const struct elf_image *f, struct elf_section *table, struct elf_section *names);
/* Value of a symbol of the symbol table. False: it has none of that name. */
bool elf_symbol(const struct elf_image *f, const char *name, uint64_t *value);
/*
 * The place in the file of len bytes that a segment loads at virtual address va.
 * False: no segment does.
 */
bool elf_offset(
    const struct elf_image *f, uint64_t va, uint64_t len, uint64_t *offset);
