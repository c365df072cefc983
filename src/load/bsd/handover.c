/* Writes what the kernel starts from (handover.h). */
#include "load/bsd/handover.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/util.h"
#include "load/bsd/elf64.h"
#include "load/bsd/env.h"
#include "load/bsd/preload.h"
#include "vmm/memory.h"
#include "vmm/state.h"
#include "vmm/vmfile.h"

#define LOW_640K   (640 * KiB)
#define SMAP_ENTRY 20u
#define SMAP_RAM   1u

uint32_t handover_howto(const char *args, const struct env *env)
{
	static const struct {
		char flag;
		uint32_t bit;
		const char *name;
	} bits[] = {
		{ 'a', RB_ASKNAME, "boot_askname" },
		{ 's', RB_SINGLE, "boot_single" },
		{ 'd', RB_KDB, "boot_ddb" },
		{ 'v', RB_VERBOSE, "boot_verbose" },
		{ 'h', RB_SERIAL, "boot_serial" },
		{ 'C', RB_CDROM, "boot_cdrom" },
		{ 'g', RB_GDB, "boot_gdb" },
		{ 'm', RB_MUTE, "boot_mute" },
		{ 'p', RB_PAUSE, "boot_pause" },
		{ 'r', RB_DFLTROOT, "boot_dfltroot" },
		{ 'D', RB_MULTIPLE, "boot_multicons" },
		{ 'c', RB_CONFIG, NULL },
		{ 'q', RB_QUIET, NULL },
		{ 'n', RB_NOINTR, NULL },
	};
	uint32_t howto = 0;

	for (size_t i = 0; i < ARRAY_SIZE(bits); i++) {
		const char *v =
		    bits[i].name != NULL ? env_get(env, bits[i].name) : NULL;
		if (v != NULL && strcasecmp(v, "no") != 0)
			howto |= bits[i].bit;
	}
	/* Words that begin with a dash are flags, each letter one. */
	for (const char *p = args != NULL ? args : ""; *p != '\0';) {
		bool flags = *p == '-';
		for (; *p != '\0' && *p != ' ' && *p != '\t'; p++)
			for (size_t i = 0; flags && i < ARRAY_SIZE(bits); i++)
				if (*p == bits[i].flag)
					howto |= bits[i].bit;
		p += strspn(p, " \t");
	}
	const char *console = env_get(env, "console");
	if (console != NULL && strcmp(console, "comconsole") == 0)
		howto |= RB_SERIAL;
	if (console != NULL && strcmp(console, "nullconsole") == 0)
		howto |= RB_MUTE;
	return howto;
}

/* Bytes that grow; failed is told once at the end. */
struct buffer {
	uint8_t *data;
	size_t len, room;
	bool failed;
};

static void put(struct buffer *b, const void *data, size_t len)
{
	if (b->data == NULL || b->room - b->len < len) {
		size_t room = MAX(b->room * 2, b->len + len + 4096);
		uint8_t *more = b->failed ? NULL : realloc(b->data, room);
		if (more == NULL) {
			b->failed = true;
			return;
		}
		b->data = more;
		b->room = room;
	}
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

/* A record, padded to 8 bytes. */
static void put_record(
    struct buffer *b, uint32_t type, const void *data, uint32_t len)
{
	static const uint8_t zero[8];

	put(b, &type, 4);
	put(b, &len, 4);
	put(b, data, len);
	put(b, zero, ROUND_UP(len, 8u) - len);
}

static void put_string(struct buffer *b, uint32_t type, const char *s)
{
	put_record(b, type, s, (uint32_t)strlen(s) + 1);
}

struct kernel_info {
	uint32_t howto;
	uint64_t envp, kernend;
	uint8_t smap[3 * SMAP_ENTRY];
	uint32_t smap_len;
};

static void add_smap(struct kernel_info *k, uint64_t base, uint64_t len)
{
	const uint32_t type = SMAP_RAM;
	uint8_t *e = k->smap + k->smap_len;

	memcpy(e, &base, 8);
	memcpy(e + 8, &len, 8);
	memcpy(e + 16, &type, 4);
	k->smap_len += SMAP_ENTRY;
}

static void put_kernel(struct buffer *b, const struct kernel_info *k)
{
	put_record(b, MODINFO_METADATA | MODINFOMD_HOWTO, &k->howto, 4);
	put_record(b, MODINFO_METADATA | MODINFOMD_ENVP, &k->envp, 8);
	put_record(b, MODINFO_METADATA | MODINFOMD_KERNEND, &k->kernend, 8);
	put_record(b, MODINFO_METADATA | MODINFOMD_SMAP, k->smap, k->smap_len);
}

static void put_metadata(
    struct buffer *b, const struct preloads *l, const struct kernel_info *k)
{
	static const uint32_t end[2] = { MODINFO_END, 0 };

	for (unsigned i = 0; i < l->count; i++) {
		const struct preload *p = &l->file[i];
		put_string(b, MODINFO_NAME, p->name);
		put_string(b, MODINFO_TYPE, p->type);
		if (p->args != NULL)
			put_string(b, MODINFO_ARGS, p->args);
		put_record(b, MODINFO_ADDR, &p->addr, 8);
		put_record(b, MODINFO_SIZE, &p->size, 8);
		for (unsigned j = 0; j < p->mds; j++)
			put_record(b, MODINFO_METADATA | p->md[j].type,
			    p->md[j].data, p->md[j].size);
		if (i == 0)
			put_kernel(b, k);
	}
	put(b, end, sizeof(end));
}

/* Zeros are there already: an object is made anew for each load. */
static int write_sparse(
    struct vmfile *vf, uint64_t addr, const uint8_t *p, size_t len)
{
	static const uint8_t zero[64 * KiB];
	int err = 0;

	for (size_t at = 0; err == 0 && at < len;) {
		size_t n = MIN(len - at, sizeof(zero));
		if (memcmp(p + at, zero, n) != 0)
			err = vmfile_write(vf, addr + at, p + at, n);
		at += n;
	}
	return err;
}

static int write_files(struct vmfile *vf, const struct preloads *l)
{
	int err = 0;

	for (unsigned i = 0; err == 0 && i < l->count; i++)
		for (unsigned j = 0; err == 0 && j < l->file[i].chunks; j++) {
			const struct chunk *c = &l->file[i].chunk[j];
			err = write_sparse(vf, c->addr, c->data, c->len);
		}
	return err;
}

static int write_machine(struct vmfile *vf, uint64_t modulep, uint64_t kernend)
{
	const uint32_t stack[3] = { 0, (uint32_t)modulep, (uint32_t)kernend };
	const uint64_t gdt[3] = { 0, UINT64_C(0x0020980000000000),
		UINT64_C(0x0000900000000000) };
	uint64_t table[512];

	int err = vmfile_write(vf, HANDOVER_STACK, stack, sizeof(stack));
	for (unsigned i = 0; i < 512; i++)
		table[i] = HANDOVER_PDPT | 3; /* present, writable */
	if (err == 0)
		err = vmfile_write(vf, HANDOVER_PML4, table, sizeof(table));
	for (unsigned i = 0; i < 512; i++)
		table[i] = HANDOVER_PD | 3;
	if (err == 0)
		err = vmfile_write(vf, HANDOVER_PDPT, table, sizeof(table));
	for (unsigned i = 0; i < 512; i++)
		table[i] = i * 2 * MiB | 0x83; /* a page of 2 MiB */
	if (err == 0)
		err = vmfile_write(vf, HANDOVER_PD, table, sizeof(table));
	return err != 0 ? err : vmfile_write(vf, HANDOVER_GDT, gdt, sizeof(gdt));
}

static void set_segment(
    struct vcpu_state *s, unsigned seg, uint16_t sel, uint32_t access)
{
	s->seg[seg] = (struct vcpu_seg){ .sel = sel, .access = access };
}

static void entry_state(struct vcpu_state *s, uint64_t entry)
{
	static const unsigned data[] = { SEG_DS, SEG_ES, SEG_FS, SEG_GS, SEG_SS };

	vcpu_state_reset(s, 0);
	memset(s->gpr, 0, sizeof(s->gpr));
	s->gpr[GPR_RSP] = HANDOVER_STACK;
	s->rip = entry;
	s->rflags = 2;
	s->cr0 = 0x80000021; /* PG NE PE */
	s->cr3 = HANDOVER_PML4;
	s->cr4 = 0x20;   /* PAE */
	s->efer = 0x500; /* LMA LME */
	set_segment(s, SEG_CS, 0x08, 0x209b);
	for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
		set_segment(s, data[i], 0x10, 0x93);
	set_segment(s, SEG_TR, 0, 0x8b);
	set_segment(s, SEG_LDTR, 0, SEG_ACCESS_UNUSABLE);
	s->gdtr = (struct vcpu_table){ .base = HANDOVER_GDT, .limit = 3 * 8 - 1 };
	s->idtr = (struct vcpu_table){ .limit = 0 };
}

int handover_write(struct vmfile *vf, const struct preloads *l,
    const struct env *env, uint64_t memory)
{
	uint64_t low = MIN(memory, MEMORY_LOW_LIMIT);
	struct kernel_info k = { .howto = handover_howto(l->file[0].args, env) };
	struct buffer b = { .len = 0 };
	struct vcpu_state s;
	size_t env_len = env_pack(env, NULL);
	char *packed = malloc(env_len);
	int err = packed == NULL ? -ENOMEM : 0;

	add_smap(&k, 0, LOW_640K);
	add_smap(&k, MiB, low - MiB);
	if (memory > low)
		add_smap(&k, MEMORY_HIGH_BASE, memory - low);
	k.envp = ROUND_UP(l->end, (uint64_t)MEMORY_PAGE);
	uint64_t modulep = ROUND_UP(k.envp + env_len, (uint64_t)MEMORY_PAGE);
	/* Twice: the end is only known when the length is. */
	for (int i = 0; i < 2; i++) {
		b.len = 0;
		put_metadata(&b, l, &k);
		k.kernend = ROUND_UP(modulep + b.len, (uint64_t)MEMORY_PAGE);
	}
	if (err == 0 && (b.failed || k.kernend > MIN(low, ELF_KERNEL_MASK)))
		err = -ENOMEM;
	if (err == 0) {
		env_pack(env, packed);
		err = write_files(vf, l);
	}
	if (err == 0)
		err = vmfile_write(vf, k.envp, packed, env_len);
	if (err == 0)
		err = vmfile_write(vf, modulep, b.data, b.len);
	if (err == 0)
		err = write_machine(vf, modulep, k.kernend);
	if (err == 0) {
		entry_state(&s, l->file[0].entry);
		err = vmfile_loaded(vf, &s);
	}
	free(packed);
	free(b.data);
	return err;
}
