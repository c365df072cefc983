/* What multiboot.c and multiboot2.c share. */
#pragma once

#include <stdint.h>

#include "load/error.h"

struct elf_image;
struct kernel;
struct plan;

#define MULTIBOOT_INFO UINT64_C(0x20000)
#define MULTIBOOT_ROOM 0x40000u
#define MULTIBOOT_NAME "grub-bhyve"

/* A header's own addresses instead of ELF segments (both versions have them). */
struct multiboot_address {
	uint32_t header, load, load_end, bss_end;
};

/*
 * Loads the kernel's image: by a (its header at byte at of the file), or as ELF
 * when a is NULL, then *entry is set too. 0 or -EINVAL with the reason.
 */
int multiboot_image(const struct kernel *k, struct plan *p,
    const struct multiboot_address *a, uint32_t at, uint32_t *entry,
    struct load_error *e);
