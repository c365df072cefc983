/*
 * A guest's kernel and the files that go with it, for the commands of GRUB other
 * than linux: what they were given, and the loaders behind them (openbsd.c,
 * netbsd.c, freebsd.c, multiboot.c, multiboot2.c).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "load/bsd/env.h"
#include "load/error.h"

#define KERNEL_FILES_MAX 64

struct plan;
struct vmfile;

enum kernel_file_kind {
	KERNEL_IMAGE, /* the kernel itself, always the first */
	KERNEL_MODULE,
	KERNEL_MODULE_ELF,
	KERNEL_RAMDISK, /* takes the place of an earlier one */
	KERNEL_ENV,     /* variables, a line each; not kept */
};

struct kernel_file {
	enum kernel_file_kind kind;
	char *name; /* without the device */
	char *args; /* joined by blanks, "" when there are none */
	char *type; /* NULL: as usual for the kind */
	uint8_t *data;
	size_t len;
};

struct kernel {
	const struct kernel_system *system;
	uint64_t memory; /* of the guest */
	uint32_t howto;  /* boot flags, each system's own */
	char root[16];   /* "": not given */
	bool old_console;
	struct kernel_serial {
		bool set;
		unsigned unit;
		uint32_t port, speed;
	} serial;
	struct env env;
	struct kernel_file file[KERNEL_FILES_MAX];
	unsigned files;
};

/* A flag of a command: -l, --name. */
struct kernel_option {
	char letter;
	const char *name;
	uint32_t bit;
	enum { OPTION_FLAG, OPTION_ROOT, OPTION_SERIAL, OPTION_OLD_CONSOLE } kind;
};

struct kernel_system {
	const char *command; /* that loads its kernel */
	const struct kernel_option *option;
	unsigned options;
	bool takes_args; /* words behind the file's name are the kernel's */
	/*
	 * One of these: what is to be where, or what kernel_load() does. 0 or
	 * -errno with the reason.
	 */
	int (*plan)(const struct kernel *k, struct plan *p, struct load_error *e);
	int (*load)(
	    const struct kernel *k, struct vmfile *vf, struct load_error *e);
};

extern const struct kernel_system system_openbsd, system_netbsd, system_freebsd,
    system_multiboot, system_multiboot2;

struct kernel_command {
	const char *name;
	const struct kernel_system *system;
	enum kernel_file_kind kind;
};

/* NULL: no command of that name. */
const struct kernel_command *kernel_find_command(const char *name);
void kernel_free(struct kernel *k);
void kernel_free_file(struct kernel_file *f);
/*
 * Takes a command's words. For a kernel k is begun anew; f gets everything but the
 * contents. Returns which word names the file, or -EINVAL with the reason.
 */
int kernel_begin(struct kernel *k, struct kernel_file *f,
    const struct kernel_command *c, int argc, char *const argv[],
    struct load_error *e);
/*
 * f is complete: takes what it owns and checks all; when that fails, k is as
 * before, or without a kernel when f was one. 0 or -EINVAL with the reason.
 */
int kernel_add(struct kernel *k, struct kernel_file *f, struct load_error *e);
/*
 * Writes the guest; the object is LOADED. vf NULL: only checks that all fits. 0 or
 * -errno with the reason.
 */
int kernel_load(const struct kernel *k, struct vmfile *vf, struct load_error *e);
/* A variable of the FreeBSD kernel's environment: "name=value". */
int kernel_set_variable(struct kernel *k, const char *text, struct load_error *e);
/* The ram disk, or NULL. */
const struct kernel_file *kernel_ramdisk(const struct kernel *k);
