/* ELF headers (elf64.h), and the loader of kernels. */
#include "load/bsd/elf64.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/bytes.h"
#include "load/bsd/elf64_int.h"
#include "load/bsd/preload.h"

#define LOWEST       UINT64_C(0x100000) /* below lies what the machine needs */
#define SEGMENTS_MAX 64u

enum elf_kind elf_kind(const uint8_t *data, size_t len, const char **why)
{
	Elf64_Ehdr h;

	*why = "not an ELF file";
	if (len < EI_NIDENT || memcmp(data, ELFMAG, SELFMAG) != 0)
		return ELF_NONE;
	*why = "truncated";
	if (len < sizeof(h))
		return ELF_OTHER;
	memcpy(&h, data, sizeof(h));
	if (h.e_ident[EI_CLASS] == ELFCLASS32 && h.e_machine == EM_386) {
		*why = "built for i386; guests of this loader are amd64";
		return ELF_OTHER;
	}
	if (h.e_ident[EI_CLASS] != ELFCLASS64 ||
	    h.e_ident[EI_DATA] != ELFDATA2LSB || h.e_machine != EM_X86_64) {
		*why = "built for another machine than amd64";
		return ELF_OTHER;
	}
	*why = NULL;
	if (h.e_type == ET_EXEC)
		return ELF_KERNEL;
	if (h.e_type == ET_REL)
		return ELF_MODULE;
	*why = "neither an amd64 kernel nor a module";
	return ELF_OTHER;
}

int elf_read_sections(struct elf_file *f, const char **why)
{
	unsigned n = f->head.e_shnum;

	if (n == 0 || f->head.e_shoff == 0)
		return 0;
	if (f->head.e_shentsize != sizeof(Elf64_Shdr) || n > ELF_SECTIONS_MAX ||
	    !elf_has(f, f->head.e_shoff, n * sizeof(Elf64_Shdr))) {
		*why = "truncated, or its section headers are damaged";
		return -EINVAL;
	}
	f->section = malloc(n * sizeof(Elf64_Shdr));
	if (f->section == NULL) {
		*why = "no memory";
		return -ENOMEM;
	}
	memcpy(f->section, f->data + f->head.e_shoff, n * sizeof(Elf64_Shdr));
	f->sections = n;
	return 0;
}

const char *elf_string(const uint8_t *p, size_t left)
{
	return memchr(p, '\0', MIN(left, (size_t)ELF_NAME_MAX)) != NULL
		   ? (const char *)p
		   : NULL;
}

const char *elf_section_name(const struct elf_file *f, unsigned i)
{
	if (f->head.e_shstrndx >= f->sections)
		return "";
	const Elf64_Shdr *names = &f->section[f->head.e_shstrndx];
	uint64_t at = f->section[i].sh_name;
	if (names->sh_type == SHT_NOBITS ||
	    !elf_has(f, names->sh_offset, names->sh_size) || at >= names->sh_size)
		return "";
	const char *s = elf_string(
	    f->data + names->sh_offset + at, (size_t)(names->sh_size - at));
	return s != NULL ? s : "";
}

struct kernel {
	struct elf_file f;
	Elf64_Phdr seg[SEGMENTS_MAX];
	unsigned segs;
	uint64_t limit;
	uint64_t end; /* guest-physical, so far */
};

static uint64_t physical(uint64_t va)
{
	return va & ELF_KERNEL_MASK;
}

static int load_segment(
    struct kernel *k, struct preload *p, const Elf64_Phdr *h, const char **why)
{
	uint64_t at = physical(h->p_vaddr);

	if (!elf_has(&k->f, h->p_offset, h->p_filesz)) {
		*why = "truncated";
		return -EINVAL;
	}
	if (h->p_memsz < h->p_filesz || at < LOWEST) {
		*why = "damaged: a segment cannot be where it says";
		return -EINVAL;
	}
	if (at > k->limit || h->p_memsz > k->limit - at) {
		*why = "larger than the guest's memory: give it more";
		return -ENOMEM;
	}
	if (p->size == 0 || at < p->addr)
		p->addr = at;
	k->end = MAX(k->end, at + h->p_memsz);
	p->size = 1; /* known from now on; set at the end */
	if (h->p_filesz == 0)
		return 0;
	uint8_t *copy = malloc((size_t)h->p_filesz);
	if (copy == NULL) {
		*why = "no memory";
		return -ENOMEM;
	}
	memcpy(copy, k->f.data + h->p_offset, (size_t)h->p_filesz);
	return preload_add_chunk(p, at, copy, (size_t)h->p_filesz);
}

/* Whether an earlier segment lies where the n-th is to lie. */
static bool overlaps(const struct kernel *k, unsigned n)
{
	uint64_t at = physical(k->seg[n].p_vaddr);

	for (unsigned i = 0; i < n; i++) {
		const Elf64_Phdr *o = &k->seg[i];
		uint64_t there = physical(o->p_vaddr);
		if (o->p_type == PT_LOAD && at < there + o->p_memsz &&
		    there < at + k->seg[n].p_memsz)
			return true;
	}
	return false;
}

static int load_segments(struct kernel *k, struct preload *p, const char **why)
{
	const Elf64_Ehdr *h = &k->f.head;
	int err = 0;

	if (h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phnum == 0 ||
	    h->e_phnum > SEGMENTS_MAX ||
	    !elf_has(&k->f, h->e_phoff, h->e_phnum * sizeof(Elf64_Phdr))) {
		*why = "truncated, or its program headers are damaged";
		return -EINVAL;
	}
	k->segs = h->e_phnum;
	memcpy(k->seg, k->f.data + h->e_phoff, k->segs * sizeof(Elf64_Phdr));
	for (unsigned i = 0; err == 0 && i < k->segs; i++) {
		if (k->seg[i].p_type != PT_LOAD || k->seg[i].p_memsz == 0)
			continue;
		err = load_segment(k, p, &k->seg[i], why);
		if (err == 0 && overlaps(k, i)) {
			*why = "damaged: its segments lie over each other";
			err = -EINVAL;
		}
	}
	if (err == 0 && p->size == 0) {
		*why = "damaged: there is nothing to load in it";
		err = -EINVAL;
	}
	return err;
}

/* The file's bytes that the segments put at an address; left: how many follow. */
static const uint8_t *at_address(const struct kernel *k, uint64_t va, size_t *left)
{
	for (unsigned i = 0; i < k->segs; i++) {
		const Elf64_Phdr *h = &k->seg[i];
		if (h->p_type == PT_LOAD && va >= h->p_vaddr &&
		    va - h->p_vaddr < h->p_filesz) {
			*left = (size_t)(h->p_filesz - (va - h->p_vaddr));
			return k->f.data + h->p_offset + (va - h->p_vaddr);
		}
	}
	*left = 0;
	return NULL;
}

/* One struct mod_metadata of the kernel: only what it holds matters. */
static int read_modmetadata(const struct kernel *k, struct preload *p, uint64_t va)
{
	size_t left, name_left, version_left;
	const uint8_t *md = at_address(k, va, &left);

	if (left < MOD_METADATA || get32(md + MOD_TYPE_AT) != MDT_VERSION)
		return 0;
	const uint8_t *name = at_address(k, get64(md + MOD_CVAL_AT), &name_left);
	const uint8_t *version =
	    at_address(k, get64(md + MOD_DATA_AT), &version_left);
	if (name_left == 0 || version_left < 4 ||
	    elf_string(name, name_left) == NULL)
		return 0;
	return preload_add_held(p, (const char *)name, (int32_t)get32(version));
}

static int read_modules(const struct kernel *k, struct preload *p)
{
	int err = 0;

	for (unsigned i = 0; i < k->f.sections; i++) {
		const Elf64_Shdr *s = &k->f.section[i];
		if (strcmp(elf_section_name(&k->f, i), "set_modmetadata_set") !=
			0 ||
		    s->sh_type == SHT_NOBITS ||
		    !elf_has(&k->f, s->sh_offset, s->sh_size))
			continue;
		uint64_t n = MIN(s->sh_size / 8, (uint64_t)MOD_ENTRIES_MAX);
		for (uint64_t j = 0; err == 0 && j < n; j++)
			err = read_modmetadata(
			    k, p, get64(k->f.data + s->sh_offset + 8 * j));
	}
	return err;
}

/* Size and bytes of a section behind what is loaded, on 8 bytes. */
static int add_symbols(struct kernel *k, struct preload *p, const Elf64_Shdr *s)
{
	size_t len = ROUND_UP((size_t)s->sh_size + 8, (size_t)8);

	if (k->end > k->limit || len > k->limit - k->end)
		return -ENOMEM;
	uint8_t *copy = calloc(1, len);
	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, &s->sh_size, 8);
	memcpy(copy + 8, k->f.data + s->sh_offset, (size_t)s->sh_size);
	int err = preload_add_chunk(p, k->end, copy, len);
	k->end += len;
	return err;
}

/* A symbol table that no segment loads. NULL: none. */
static const Elf64_Shdr *find_symbols(const struct kernel *k)
{
	const Elf64_Shdr *found = NULL;

	for (unsigned i = 0; i < k->f.sections; i++) {
		const Elf64_Shdr *s = &k->f.section[i];
		bool loaded = false;

		if (s->sh_type != SHT_SYMTAB || s->sh_size == 0 ||
		    s->sh_link >= k->f.sections ||
		    k->f.section[s->sh_link].sh_type != SHT_STRTAB ||
		    !elf_has(&k->f, s->sh_offset, s->sh_size) ||
		    !elf_has(&k->f, k->f.section[s->sh_link].sh_offset,
			k->f.section[s->sh_link].sh_size))
			continue;
		for (unsigned j = 0; j < k->segs; j++)
			loaded |= k->seg[j].p_type == PT_LOAD &&
				  s->sh_offset >= k->seg[j].p_offset &&
				  s->sh_offset - k->seg[j].p_offset + s->sh_size <=
				      k->seg[j].p_filesz;
		if (!loaded)
			found = s;
	}
	return found;
}

/* Behind the bss, as the kernel's debugger and linker look for them. */
static int load_symbols(struct kernel *k, struct preload *p)
{
	const Elf64_Shdr *s = find_symbols(k), *names;

	if (s == NULL || k->f.section == NULL)
		return 0;
	names = &k->f.section[s->sh_link];
	k->end = ROUND_UP(k->end, UINT64_C(8));
	uint64_t from = k->end;
	int err = add_symbols(k, p, s);
	if (err == 0)
		err = add_symbols(k, p, names);
	if (err == 0)
		err = preload_add_metadata(p, MODINFOMD_SSYM, &from, sizeof(from));
	if (err == 0)
		err = preload_add_metadata(
		    p, MODINFOMD_ESYM, &k->end, sizeof(k->end));
	return err;
}

static int add_headers(const struct kernel *k, struct preload *p)
{
	int err = preload_add_metadata(
	    p, MODINFOMD_ELFHDR, &k->f.head, sizeof(k->f.head));

	if (err == 0 && k->f.sections > 0)
		err = preload_add_metadata(p, MODINFOMD_SHDR, k->f.section,
		    k->f.sections * sizeof(Elf64_Shdr));
	for (unsigned i = 0; err == 0 && i < k->f.sections; i++) {
		const Elf64_Shdr *s = &k->f.section[i];
		if (strcmp(elf_section_name(&k->f, i), ".ctors") != 0)
			continue;
		err = preload_add_metadata(p, MODINFOMD_CTORS_ADDR, &s->sh_addr, 8);
		if (err == 0)
			err = preload_add_metadata(
			    p, MODINFOMD_CTORS_SIZE, &s->sh_size, 8);
		break;
	}
	for (unsigned i = 0; err == 0 && i < k->segs; i++) {
		if (k->seg[i].p_type == PT_DYNAMIC) {
			err = preload_add_metadata(
			    p, MODINFOMD_DYNAMIC, &k->seg[i].p_vaddr, 8);
			break;
		}
	}
	return err;
}

int elf_load_kernel(struct preload *p, const uint8_t *data, size_t len,
    uint64_t limit, const char **why)
{
	struct kernel k = { .f = { .data = data, .len = len }, .limit = limit };

	*why = NULL;
	memcpy(&k.f.head, data, sizeof(k.f.head)); /* elf_kind() saw it */
	p->entry = k.f.head.e_entry;
	int err = load_segments(&k, p, why);
	size_t left;
	if (err == 0 && at_address(&k, p->entry, &left) == NULL) {
		*why = "damaged: its entry is not in it";
		err = -EINVAL;
	}
	if (err == 0)
		err = elf_read_sections(&k.f, why);
	if (err == 0)
		err = read_modules(&k, p);
	if (err == 0)
		err = load_symbols(&k, p);
	if (err == 0)
		err = add_headers(&k, p);
	p->size = k.end - p->addr;
	free(k.f.section);
	if (err != 0 && *why == NULL)
		*why = "no memory for it: give the guest more";
	return err;
}
