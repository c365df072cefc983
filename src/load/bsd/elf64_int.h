/* What the two ELF loaders share: a file whose headers were checked. */
#pragma once

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ELF_SECTIONS_MAX 8192u
#define ELF_NAME_MAX     128u

/* Types and layout of FreeBSD's struct mod_metadata (sys/module.h). */
#define MDT_DEPEND      1
#define MDT_VERSION     3
#define MOD_METADATA    24u
#define MOD_TYPE_AT     4u
#define MOD_DATA_AT     8u
#define MOD_CVAL_AT     16u
#define MOD_ENTRIES_MAX 4096u

struct elf_file {
	const uint8_t *data;
	size_t len;
	Elf64_Ehdr head;
	Elf64_Shdr *section; /* a copy */
	unsigned sections;
};

/* Whether [off, off + len) lies in the file. */
static inline bool elf_has(const struct elf_file *f, uint64_t off, uint64_t len)
{
	return off <= f->len && len <= f->len - off;
}

/* Copies the section headers; none is no error, ones outside the file are. */
int elf_read_sections(struct elf_file *f, const char **why);
/* Name of a section; "" when it has none. */
const char *elf_section_name(const struct elf_file *f, unsigned i);
/* The string at that place when it ends in time, else NULL. */
const char *elf_string(const uint8_t *p, size_t left);
