/*
 * What is loaded so far: the kernel, modules and other files, each with its place
 * in the guest's memory and its metadata (FreeBSD's sys/linker.h).
 *
 * Nothing is written to the VM object before "boot": contents are kept here.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PRELOAD_MAX    512
#define PRELOAD_KERNEL "elf kernel"
#define PRELOAD_MODULE "elf obj module"

/* Types of metadata. */
#define MODINFO_END          0x0000u
#define MODINFO_NAME         0x0001u
#define MODINFO_TYPE         0x0002u
#define MODINFO_ADDR         0x0003u
#define MODINFO_SIZE         0x0004u
#define MODINFO_ARGS         0x0006u
#define MODINFO_METADATA     0x8000u
#define MODINFOMD_ELFHDR     0x0002u
#define MODINFOMD_SSYM       0x0003u
#define MODINFOMD_ESYM       0x0004u
#define MODINFOMD_DYNAMIC    0x0005u
#define MODINFOMD_ENVP       0x0006u
#define MODINFOMD_HOWTO      0x0007u
#define MODINFOMD_KERNEND    0x0008u
#define MODINFOMD_SHDR       0x0009u
#define MODINFOMD_CTORS_ADDR 0x000au
#define MODINFOMD_CTORS_SIZE 0x000bu
#define MODINFOMD_SMAP       0x1001u

struct metadata {
	uint32_t type, size;
	uint8_t *data;
};

/* Bytes at a guest-physical address; what lies between chunks is zero. */
struct chunk {
	uint64_t addr;
	size_t len;
	uint8_t *data;
};

/* A module that a file holds, or (with a range of versions) one that it needs. */
struct module_version {
	char *name;
	int32_t min, preferred, max; /* held: all the same */
};

struct preload {
	char *name, *type, *args; /* args may be NULL */
	uint64_t addr, size;
	uint64_t entry; /* of a kernel */
	struct metadata *md;
	struct chunk *chunk;
	struct module_version *holds, *needs;
	unsigned mds, chunks, held, needed;
};

struct preloads {
	struct preload *file;
	unsigned count;
	uint64_t end; /* guest-physical, behind the last file */
};

void preload_discard(struct preload *p);
/* Takes what p owns. -E2BIG: too many. */
int preloads_add(struct preloads *l, struct preload *p);
/* Drops all from the n-th on. */
void preloads_cut(struct preloads *l, unsigned n);
/* NULL stands for any. */
struct preload *preloads_find(
    const struct preloads *l, const char *name, const char *type);

/* Copies data. 0 or -ENOMEM. */
int preload_add_metadata(
    struct preload *p, uint32_t type, const void *data, size_t size);
/* Takes data, also when it fails. */
int preload_add_chunk(struct preload *p, uint64_t addr, uint8_t *data, size_t len);
int preload_add_held(struct preload *p, const char *name, int32_t version);
int preload_add_needed(
    struct preload *p, const char *name, int32_t min, int32_t best, int32_t max);
/* Whether a loaded file holds the module in a version that suits need (or any). */
bool preloads_hold(
    const struct preloads *l, const char *name, const struct module_version *need);
