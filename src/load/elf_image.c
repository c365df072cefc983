/* ELF executables of both classes (elf_image.h). */
#include "load/elf_image.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "lib/util.h"
#include "load/plan.h"

static bool in_file(const struct elf_image *f, uint64_t off, uint64_t len)
{
	return off <= f->len && len <= f->len - off;
}

static struct elf_segment segment(const struct elf_image *f, const uint8_t *at)
{
	Elf64_Phdr h64;
	Elf32_Phdr h;

	if (f->is64) {
		memcpy(&h64, at, sizeof(h64));
		return (struct elf_segment){ h64.p_type, h64.p_offset, h64.p_vaddr,
			h64.p_paddr, h64.p_filesz, h64.p_memsz };
	}
	memcpy(&h, at, sizeof(h));
	return (struct elf_segment){ h.p_type, h.p_offset, h.p_vaddr, h.p_paddr,
		h.p_filesz, h.p_memsz };
}

static int parse_segments(struct elf_image *f, uint64_t at, unsigned count,
    unsigned size, struct load_error *e)
{
	size_t each = f->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	bool loads = false;

	if (size != each || count == 0 || count > ELF_SEGMENTS_MAX)
		return load_fail(e,
		    "damaged kernel: %u program headers of %u bytes", count, size);
	if (!in_file(f, at, count * each))
		return load_fail(e, "truncated kernel: its program headers are not "
				    "in the file");
	f->segments = count;
	for (unsigned i = 0; i < count; i++) {
		struct elf_segment *s = &f->segment[i];
		*s = segment(f, f->data + at + i * each);
		if (s->type != PT_LOAD || s->memsz == 0)
			continue;
		if (!in_file(f, s->offset, s->filesz))
			return load_fail(e,
			    "truncated kernel: segment %u ends at byte %llu of "
			    "%zu",
			    i, (unsigned long long)(s->offset + s->filesz), f->len);
		if (s->filesz > s->memsz)
			return load_fail(e,
			    "damaged kernel: segment %u is larger in the file than "
			    "in memory",
			    i);
		loads = true;
	}
	return loads ? 0 : load_fail(e, "damaged kernel: nothing to load in it");
}

static int parse_header(struct elf_image *f, struct load_error *e)
{
	Elf64_Ehdr h64;
	Elf32_Ehdr h;

	if (f->is64) {
		memcpy(&h64, f->data, sizeof(h64));
		if (h64.e_shentsize == sizeof(Elf64_Shdr)) {
			f->sections_at = h64.e_shoff;
			f->sections = h64.e_shnum;
		}
		f->entry = h64.e_entry;
		return parse_segments(
		    f, h64.e_phoff, h64.e_phnum, h64.e_phentsize, e);
	}
	memcpy(&h, f->data, sizeof(h));
	if (h.e_shentsize == sizeof(Elf32_Shdr)) {
		f->sections_at = h.e_shoff;
		f->sections = h.e_shnum;
	}
	f->entry = h.e_entry;
	return parse_segments(f, h.e_phoff, h.e_phnum, h.e_phentsize, e);
}

int elf_parse(
    struct elf_image *f, const void *data, size_t len, struct load_error *e)
{
	Elf32_Ehdr h; /* the start is the same in both */

	*f = (struct elf_image){ .data = data, .len = len };
	if (len < SELFMAG || memcmp(data, ELFMAG, SELFMAG) != 0)
		return load_fail(e, "not an ELF file");
	if (len < sizeof(h))
		return load_fail(e, "truncated kernel: %zu bytes", len);
	memcpy(&h, data, sizeof(h));
	f->is64 = h.e_ident[EI_CLASS] == ELFCLASS64;
	if ((!f->is64 && h.e_ident[EI_CLASS] != ELFCLASS32) ||
	    h.e_ident[EI_DATA] != ELFDATA2LSB ||
	    h.e_machine != (f->is64 ? EM_X86_64 : EM_386))
		return load_fail(
		    e, "a kernel for another machine than amd64 or i386");
	if (f->is64 && len < sizeof(Elf64_Ehdr))
		return load_fail(e, "truncated kernel: %zu bytes", len);
	if (h.e_type != ET_EXEC)
		return load_fail(e, "an ELF file, but not an executable one");
	return parse_header(f, e);
}

int elf_plan(
    const struct elf_image *f, uint64_t mask, struct plan *p, struct load_error *e)
{
	int err = 0;

	for (unsigned i = 0; err == 0 && i < f->segments; i++) {
		const struct elf_segment *s = &f->segment[i];
		if (s->type != PT_LOAD || s->memsz == 0)
			continue;
		uint64_t at = s->paddr & mask;
		if (at < MiB)
			return load_fail(e,
			    "damaged kernel: segment %u is to lie at %#llx, below "
			    "1 MiB",
			    i, (unsigned long long)at);
		err = plan_add(p, "the kernel", at, s->memsz, f->data + s->offset,
		    (size_t)s->filesz, e);
	}
	return err;
}

bool elf_section(const struct elf_image *f, unsigned n, struct elf_section *s)
{
	size_t each = f->is64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
	Elf64_Shdr h64;
	Elf32_Shdr h;

	if (n >= f->sections || !in_file(f, f->sections_at, (n + 1) * each))
		return false;
	const uint8_t *at = f->data + f->sections_at + n * each;
	if (f->is64) {
		memcpy(&h64, at, sizeof(h64));
		*s = (struct elf_section){ h64.sh_type, h64.sh_link, h64.sh_offset,
			h64.sh_size };
	} else {
		memcpy(&h, at, sizeof(h));
		*s = (struct elf_section){ h.sh_type, h.sh_link, h.sh_offset,
			h.sh_size };
	}
	return s->type == SHT_NOBITS || in_file(f, s->offset, s->size);
}

static bool find_symbol(const struct elf_image *f, const struct elf_section *table,
    const struct elf_section *names, const char *name, uint64_t *value)
{
	size_t each = f->is64 ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
	size_t len = strlen(name) + 1;
	Elf64_Sym s64;
	Elf32_Sym s;

	for (uint64_t i = 0; i < table->size / each; i++) {
		const uint8_t *at = f->data + table->offset + i * each;
		uint64_t text;
		if (f->is64) {
			memcpy(&s64, at, sizeof(s64));
			text = s64.st_name;
			*value = s64.st_value;
		} else {
			memcpy(&s, at, sizeof(s));
			text = s.st_name;
			*value = s.st_value;
		}
		if (text < names->size && len <= names->size - text &&
		    memcmp(f->data + names->offset + text, name, len) == 0)
			return true;
	}
	return false;
}

bool elf_symbol_table(
    const struct elf_image *f, struct elf_section *table, struct elf_section *names)
{
	for (unsigned i = 0; i < f->sections; i++)
		if (elf_section(f, i, table) && table->type == SHT_SYMTAB &&
		    elf_section(f, table->link, names) && names->type == SHT_STRTAB)
			return true;
	return false;
}

bool elf_symbol(const struct elf_image *f, const char *name, uint64_t *value)
{
	struct elf_section table, names;

	return elf_symbol_table(f, &table, &names) &&
	       find_symbol(f, &table, &names, name, value);
}

bool elf_offset(
    const struct elf_image *f, uint64_t va, uint64_t len, uint64_t *offset)
{
	for (unsigned i = 0; i < f->segments; i++) {
		const struct elf_segment *s = &f->segment[i];
		if (s->type == PT_LOAD && s->memsz > 0 && va >= s->vaddr &&
		    va - s->vaddr <= s->filesz &&
		    len <= s->filesz - (va - s->vaddr)) {
			*offset = s->offset + (va - s->vaddr);
			return true;
		}
	}
	return false;
}
