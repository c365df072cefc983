/*
 * FreeBSD/amd64 kernels (ELF64 executables) and modules (ELF64 relocatable files)
 * made ready for the guest's memory: contents, metadata, and which modules they
 * hold and need. The file is hostile: every offset in it is checked against its
 * length, every address against the limit.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct preload;

/* Kernels are linked high; their pages lie at the address modulo 2 GiB. */
#define ELF_KERNEL_MASK UINT64_C(0x7fffffff)

enum elf_kind { ELF_NONE, ELF_KERNEL, ELF_MODULE, ELF_OTHER };

/* What a file is; *why says what ELF_OTHER and ELF_NONE are. */
enum elf_kind elf_kind(const uint8_t *data, size_t len, const char **why);
/*
 * Fills addr, size, entry, chunks, metadata and module names of p. limit is the end
 * of the guest's low memory. 0, or -errno with *why set.
 */
int elf_load_kernel(struct preload *p, const uint8_t *data, size_t len,
    uint64_t limit, const char **why);
/* At address addr. */
int elf_load_module(struct preload *p, const uint8_t *data, size_t len,
    uint64_t addr, uint64_t limit, const char **why);
