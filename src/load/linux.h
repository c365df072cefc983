/*
 * Linux kernels (bzImage) put into a VM object, after
 * Documentation/arch/x86/boot.rst of the Linux kernel ("The Linux/x86 Boot
 * Protocol", here 2.02 to 2.15).
 *
 * Kernel and initrd are input from outside: linux_parse() checks every field once,
 * the rest works on what it found. Errors are a sentence in struct load_error.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "load/error.h"

struct vmfile;

struct linux_kernel {
	const uint8_t *image; /* the caller's, as long as the struct is used */
	size_t len;
	unsigned version;  /* boot protocol, 0x020f = 2.15 */
	size_t header_end; /* of the setup header, offset in the file */
	size_t payload;    /* offset of the protected-mode part in the file */
	size_t payload_len;
	bool entry64;
	bool relocatable;
	uint64_t preferred; /* load address */
	uint64_t align;
	uint64_t init_size;   /* memory it needs from its load address on */
	uint64_t initrd_max;  /* highest address an initrd may touch */
	uint64_t cmdline_max; /* without the terminating zero */
};

struct linux_boot {
	const struct linux_kernel *kernel;
	const char *cmdline;
	const void *initrd;
	size_t initrd_len;
	uint64_t memory; /* of the guest */
	bool no_screen;  /* leave screen_info empty: no text screen of 80x25 */
};

/* 0, or -EINVAL with the reason. */
int linux_parse(
    struct linux_kernel *k, const void *image, size_t len, struct load_error *e);

/*
 * The command line as GRUB makes it: "console=ttyS0 " unless an argument starts
 * with "console=" or no_console; "BOOT_IMAGE=" argv[0]; the other arguments,
 * quoted. Allocated; NULL: no memory.
 */
char *linux_cmdline(int argc, char *const argv[], bool no_console);

/* Whether kernel, command line and an initrd of that size fit. 0 or -EINVAL. */
int linux_check(const struct linux_boot *b, struct load_error *e);

/* Writes everything and vCPU 0's state; the object is LOADED. 0 or -errno. */
int linux_load(struct vmfile *vf, const struct linux_boot *b, struct load_error *e);
