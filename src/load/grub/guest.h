/*
 * The guest that GRUB's commands put together: bytes as they arrive from GRUB's
 * process, which is not trusted, checked when complete.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "load/kernel.h"
#include "load/linux.h"

struct guest_blob {
	uint8_t *data;
	size_t len, room;
};

struct guest {
	uint64_t memory;
	bool no_console, no_screen;
	enum { GUEST_NOTHING, GUEST_KERNEL, GUEST_INITRD, GUEST_FILE } filling;
	bool too_big; /* a file larger than the guest's memory came */
	bool ready;   /* the kernel is complete and fine */
	char *cmdline;
	struct guest_blob image, initrd;
	struct linux_kernel kernel;
	/* In place of Linux: what came so far, and the file in hand. */
	struct kernel other;
	struct kernel_file file;
	struct guest_blob contents;
};

void guest_init(struct guest *g, uint64_t memory, bool no_console, bool no_screen);
void guest_free(struct guest *g);
/* argv: strings, each ended by a zero. 0, -EINVAL (malformed), -ENOMEM. */
int guest_begin_kernel(struct guest *g, const char *argv, size_t len);
/*
 * A command for another kernel: its name and words, each ended by a zero. Returns
 * which word names the file, -EINVAL with the reason, -EPROTO (malformed), -ENOMEM.
 */
int guest_begin_command(
    struct guest *g, const char *argv, size_t len, struct load_error *e);
/* "name=value", for such a kernel's environment. 0, -EPROTO. */
int guest_variable(struct guest *g, const char *text, size_t len);
void guest_begin_initrd(struct guest *g);
/* 0 or -ENOMEM. */
int guest_data(struct guest *g, const void *data, size_t len);
int guest_file_end(struct guest *g);
/* What was being filled is complete. 0 or -EINVAL with the reason. */
int guest_done(struct guest *g, struct load_error *e);
int guest_load(struct guest *g, struct vmfile *vf, struct load_error *e);
