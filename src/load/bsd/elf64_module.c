/*
 * The loader of modules: sections laid out as FreeBSD's loader does it, not
 * relocated - the kernel's linker does that - but with relocation and symbol
 * tables loaded beside them. Which modules a file holds and needs stands in its
 * section set_modmetadata_set, readable only through its relocations.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/bytes.h"
#include "load/bsd/elf64.h"
#include "load/bsd/elf64_int.h"
#include "load/bsd/preload.h"

#define ALIGN_MAX (2 * MiB)
#define WORK_MAX  (64u << 20) /* relocations looked at, so that it ends */
#define UNWIND    0x70000001u /* SHT_X86_64_UNWIND */

struct object {
	struct elf_file f;
	uint64_t start, at, limit;
	unsigned symbols; /* section */
	uint32_t work;
};

static int place(struct object *o, unsigned i, const char **why)
{
	Elf64_Shdr *s = &o->f.section[i];
	uint64_t align = MAX(s->sh_addralign, (Elf64_Xword)1);

	if ((align & (align - 1)) != 0 || align > ALIGN_MAX ||
	    (s->sh_type != SHT_NOBITS &&
		!elf_has(&o->f, s->sh_offset, s->sh_size))) {
		*why = "truncated, or a section's header is damaged";
		return -EINVAL;
	}
	o->at = ROUND_UP(o->at, align);
	if (o->at > o->limit || s->sh_size > o->limit - o->at) {
		*why = "does not fit into the guest's memory: give it more";
		return -ENOMEM;
	}
	s->sh_addr = o->at;
	o->at += s->sh_size;
	return 0;
}

static bool is_program(const Elf64_Shdr *s)
{
	return s->sh_type == SHT_PROGBITS || s->sh_type == SHT_NOBITS ||
	       s->sh_type == UNWIND || s->sh_type == SHT_INIT_ARRAY ||
	       s->sh_type == SHT_FINI_ARRAY;
}

static bool is_relocation(const struct object *o, const Elf64_Shdr *s)
{
	return (s->sh_type == SHT_REL || s->sh_type == SHT_RELA) &&
	       s->sh_info < o->f.sections &&
	       (o->f.section[s->sh_info].sh_flags & SHF_ALLOC) != 0;
}

/* The addresses of all that is loaded, kept in sh_addr; 0: not loaded. */
static int lay_out(struct object *o, const char **why)
{
	Elf64_Shdr *s = o->f.section;
	unsigned tables = 0, names = o->f.head.e_shstrndx;
	int err = 0;

	for (unsigned i = 0; i < o->f.sections; i++)
		s[i].sh_addr = 0;
	for (unsigned i = 0; err == 0 && i < o->f.sections; i++)
		if (s[i].sh_size > 0 && is_program(&s[i]) &&
		    (s[i].sh_flags & SHF_ALLOC) != 0)
			err = place(o, i, why);
	for (unsigned i = 0; i < o->f.sections; i++) {
		if (s[i].sh_type == SHT_SYMTAB) {
			o->symbols = i;
			tables++;
		}
	}
	if (err != 0)
		return err;
	if (tables != 1 || s[o->symbols].sh_link >= o->f.sections ||
	    s[s[o->symbols].sh_link].sh_type != SHT_STRTAB || names == 0 ||
	    names >= o->f.sections || s[names].sh_type != SHT_STRTAB) {
		*why = "damaged: it has no symbols or no section names";
		return -EINVAL;
	}
	err = place(o, o->symbols, why);
	if (err == 0)
		err = place(o, s[o->symbols].sh_link, why);
	if (err == 0)
		err = place(o, names, why);
	for (unsigned i = 0; err == 0 && i < o->f.sections; i++)
		if (is_relocation(o, &s[i]))
			err = place(o, i, why);
	return err;
}

static int copy(struct object *o, struct preload *p, const char **why)
{
	size_t size = (size_t)(o->at - o->start);
	uint8_t *image = calloc(1, size + 1);

	if (image == NULL) {
		*why = "no memory";
		return -ENOMEM;
	}
	for (unsigned i = 0; i < o->f.sections; i++) {
		const Elf64_Shdr *s = &o->f.section[i];
		if (s->sh_addr != 0 && s->sh_type != SHT_NOBITS)
			memcpy(image + (s->sh_addr - o->start),
			    o->f.data + s->sh_offset, (size_t)s->sh_size);
	}
	p->addr = o->start;
	p->size = size;
	return preload_add_chunk(p, o->start, image, size);
}

struct place {
	unsigned section;
	uint64_t off;
};

/* Where a 64-bit relocation makes a pointer point to; false: there is none. */
static bool pointer(struct object *o, struct place from, struct place *to)
{
	for (unsigned i = 0; i < o->f.sections; i++) {
		const Elf64_Shdr *s = &o->f.section[i];
		if (s->sh_type != SHT_RELA || s->sh_addr == 0 ||
		    s->sh_info != from.section)
			continue;
		for (uint64_t j = 0; j < s->sh_size / sizeof(Elf64_Rela); j++) {
			const uint8_t *r =
			    o->f.data + s->sh_offset + j * sizeof(Elf64_Rela);
			if (++o->work > WORK_MAX)
				return false;
			if (get64(r) != from.off ||
			    ELF64_R_TYPE(get64(r + 8)) != R_X86_64_64)
				continue;
			const Elf64_Shdr *syms = &o->f.section[o->symbols];
			uint64_t sym = ELF64_R_SYM(get64(r + 8));
			if (sym >= syms->sh_size / sizeof(Elf64_Sym))
				return false;
			Elf64_Sym e;
			memcpy(&e, o->f.data + syms->sh_offset + sym * sizeof(e),
			    sizeof(e));
			if (e.st_shndx == SHN_UNDEF || e.st_shndx >= o->f.sections)
				return false;
			to->section = e.st_shndx;
			to->off = e.st_value + get64(r + 16);
			return true;
		}
	}
	return false;
}

/* The file's bytes there; left: how many follow. */
static const uint8_t *bytes(const struct object *o, struct place at, size_t *left)
{
	const Elf64_Shdr *s = &o->f.section[at.section];

	*left = 0;
	if (s->sh_type == SHT_NOBITS || s->sh_addr == 0 || at.off >= s->sh_size)
		return NULL;
	*left = (size_t)(s->sh_size - at.off);
	return o->f.data + s->sh_offset + at.off;
}

static int read_one(struct object *o, struct preload *p, struct place entry)
{
	struct place md, data, cval;
	size_t left, data_left, name_left;

	if (!pointer(o, entry, &md))
		return 0;
	const uint8_t *m = bytes(o, md, &left);
	if (left < MOD_METADATA)
		return 0;
	uint32_t type = get32(m + MOD_TYPE_AT);
	if (type != MDT_DEPEND && type != MDT_VERSION)
		return 0;
	if (!pointer(
		o, (struct place){ md.section, md.off + MOD_DATA_AT }, &data) ||
	    !pointer(o, (struct place){ md.section, md.off + MOD_CVAL_AT }, &cval))
		return 0;
	const uint8_t *d = bytes(o, data, &data_left);
	const uint8_t *n = bytes(o, cval, &name_left);
	if (name_left == 0 || elf_string(n, name_left) == NULL)
		return 0;
	if (type == MDT_VERSION && data_left >= 4)
		return preload_add_held(p, (const char *)n, (int32_t)get32(d));
	if (type == MDT_DEPEND && data_left >= 12)
		return preload_add_needed(p, (const char *)n, (int32_t)get32(d),
		    (int32_t)get32(d + 4), (int32_t)get32(d + 8));
	return 0;
}

static int read_modules(struct object *o, struct preload *p)
{
	int err = 0;

	for (unsigned i = 0; i < o->f.sections; i++) {
		const Elf64_Shdr *s = &o->f.section[i];
		if (s->sh_type != SHT_PROGBITS ||
		    strcmp(elf_section_name(&o->f, i), "set_modmetadata_set") != 0)
			continue;
		uint64_t n = MIN(s->sh_size / 8, (uint64_t)MOD_ENTRIES_MAX);
		for (uint64_t j = 0; err == 0 && j < n; j++)
			err = read_one(o, p, (struct place){ i, j * 8 });
	}
	return err;
}

int elf_load_module(struct preload *p, const uint8_t *data, size_t len,
    uint64_t addr, uint64_t limit, const char **why)
{
	struct object o = {
		.f = { .data = data, .len = len },
		.start = addr,
		.at = addr,
		.limit = limit,
	};

	*why = NULL;
	memcpy(&o.f.head, data, sizeof(o.f.head)); /* elf_kind() saw it */
	int err = elf_read_sections(&o.f, why);
	if (err == 0 && o.f.sections == 0) {
		*why = "damaged: it has no sections";
		err = -EINVAL;
	}
	if (err == 0)
		err = lay_out(&o, why);
	if (err == 0)
		err = copy(&o, p, why);
	if (err == 0)
		err = read_modules(&o, p);
	if (err == 0 && o.work > WORK_MAX) {
		*why = "damaged: its relocations have no end";
		err = -EINVAL;
	}
	if (err == 0)
		err = preload_add_metadata(p, MODINFOMD_SHDR, o.f.section,
		    o.f.sections * sizeof(Elf64_Shdr));
	if (err == 0)
		err = preload_add_metadata(
		    p, MODINFOMD_ELFHDR, &o.f.head, sizeof(o.f.head));
	free(o.f.section);
	if (err != 0 && *why == NULL)
		*why = "no memory for it";
	return err;
}
