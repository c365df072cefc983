/*
 * bhyve - GRUB's side of grub-bhyve
 * Copyright (C) 2026 The bhyve for Linux authors
 *
 * This program is free software: you can redistribute it and/or modify it under
 * the terms of the GNU General Public License as published by the Free Software
 * Foundation, either version 3 of the License, or (at your option) any later
 * version. It comes WITHOUT ANY WARRANTY; see COPYING in this folder.
 *
 * The few things of GRUB's kernel that the module uses, the same in 2.06 and 2.12.
 */
#ifndef BHYVE_GRUB_ABI_H
#define BHYVE_GRUB_ABI_H

#include <stddef.h>
#include <stdint.h>

typedef int grub_err_t;

enum {
	GRUB_ERR_NONE = 0,
	GRUB_ERR_FILE_NOT_FOUND = 5,
	GRUB_ERR_UNKNOWN_FS = 8,
	GRUB_ERR_BAD_ARGUMENT = 18,
	GRUB_ERR_BAD_OS = 21,
};

/* Types of file: hints to GRUB's filters. The flag keeps a file packed. */
enum {
	GRUB_FILE_LINUX_KERNEL = 3,
	GRUB_FILE_LINUX_INITRD = 4,
	GRUB_FILE_ANY = 0,
	GRUB_FILE_NO_DECOMPRESS = 0x20000,
};

/* Its start. */
struct grub_command {
	struct grub_command *next, **prev;
	const char *name;
};
struct grub_dl;
struct grub_file;
struct grub_disk;

typedef grub_err_t grub_command_func(
    struct grub_command *cmd, int argc, char **argv);

struct grub_device {
	struct grub_disk *disk;
	void *net;
};

struct grub_term_input {
	struct grub_term_input *next;
	struct grub_term_input **prev;
	const char *name;
	grub_err_t (*init)(struct grub_term_input *term);
	grub_err_t (*fini)(struct grub_term_input *term);
	int (*getkey)(struct grub_term_input *term);
	int (*getkeystatus)(struct grub_term_input *term);
	void *data;
};

#define GRUB_TERM_NO_KEY   0
#define GRUB_TERM_CTRL     0x02000000
#define GRUB_TERM_EXTENDED 0x00800000

extern grub_err_t grub_errno;
/* Translates a message. */
extern const char *(*grub_gettext)(const char *text);
extern struct grub_term_input *grub_term_inputs_disabled;

struct grub_command *grub_register_command_prio(const char *name,
    grub_command_func *func, const char *summary, const char *description,
    int prio);
void grub_unregister_command(struct grub_command *cmd);
grub_err_t grub_error(grub_err_t n, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
int grub_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int grub_snprintf(char *str, size_t n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void *grub_malloc(size_t size);
void grub_free(void *p);
size_t grub_strlen(const char *s);
int grub_strcmp(const char *a, const char *b);
int grub_strncmp(const char *a, const char *b, size_t n);
unsigned long grub_strtoul(const char *s, const char **end, int base);
int grub_memcmp(const void *a, const void *b, size_t n);
const char *grub_env_get(const char *name);
grub_err_t grub_env_set(const char *name, const char *value);
void grub_env_unset(const char *name);
/* All variables, in order; the last one's next is NULL. */
struct grub_env_var {
	char *name;
	char *value;
	void *read_hook, *write_hook;
	struct grub_env_var *next, **prevp;
	struct grub_env_var *sorted_next;
	int global;
};
struct grub_env_var *grub_env_update_get_sorted(void);
void *grub_dl_load(const char *name);
void grub_list_push(void *head, void *item);
void grub_list_remove(void *item);

struct grub_file *grub_file_open(const char *name, int type);
long grub_file_read(struct grub_file *file, void *buf, size_t len);
grub_err_t grub_file_close(struct grub_file *file);

int grub_device_iterate(int (*hook)(const char *name, void *data), void *data);
struct grub_device *grub_device_open(const char *name);
grub_err_t grub_device_close(struct grub_device *device);
void *grub_fs_probe(struct grub_device *device);
grub_err_t grub_disk_read(struct grub_disk *disk, uint64_t sector, uint64_t offset,
    size_t size, void *buf);

/* From GRUB's module "boot". */
void grub_loader_set(
    grub_err_t (*boot)(void), grub_err_t (*unload)(void), int flags);
void grub_loader_unset(void);

/* What GRUB calls when it loads and drops the module. */
void grub_mod_init(struct grub_dl *mod);
void grub_mod_fini(void);

#endif
