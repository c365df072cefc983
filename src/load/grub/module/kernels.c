/*
 * bhyve - GRUB's side of grub-bhyve
 * Copyright (C) 2026 The bhyve for Linux authors
 *
 * This program is free software: you can redistribute it and/or modify it under
 * the terms of the GNU General Public License as published by the Free Software
 * Foundation, either version 3 of the License, or (at your option) any later
 * version. It comes WITHOUT ANY WARRANTY; see COPYING in this folder.
 *
 *
 * Commands for the BSDs and Multiboot: grub-bhyve reads their words and says which
 * is the file; GRUB reads that, grub-bhyve loads it.
 */
#include "bhyve.h"

#define VARIABLES "kFreeBSD."

struct kernel_command {
	const char *name, *usage, *help;
	int is_kernel;
};

static const struct kernel_command commands[] = {
	{ "kopenbsd", "[-abcdsl] [-r sd0a] [-h [com0][,SPEED]] FILE",
	    "Load an OpenBSD kernel.", 1 },
	{ "kopenbsd_ramdisk", "FILE", "Load the ram disk of OpenBSD's bsd.rd.", 0 },
	{ "knetbsd", "[-12abcdmqsvxz] [-r DEVICE] [-h [com0][,SPEED]] FILE",
	    "Load a NetBSD kernel.", 1 },
	{ "knetbsd_module", "FILE", "Load a file system for NetBSD's kernel.", 0 },
	{ "knetbsd_module_elf", "FILE", "Load a module of NetBSD's kernel.", 0 },
	{ "kfreebsd", "[-DhaCcdgmnpqrsv] FILE", "Load a FreeBSD kernel.", 1 },
	{ "kfreebsd_loadenv", "FILE", "Load variables for FreeBSD's kernel.", 0 },
	{ "kfreebsd_module", "FILE [type=TYPE] [ARGUMENT]...",
	    "Load a file for FreeBSD's kernel.", 0 },
	{ "kfreebsd_module_elf", "FILE [ARGUMENT]...",
	    "Load a module of FreeBSD's kernel.", 0 },
	{ "multiboot", "FILE [ARGUMENT]...", "Load a Multiboot kernel.", 1 },
	{ "module", "[--nounzip] FILE [ARGUMENT]...", "Load a Multiboot module.",
	    0 },
	{ "multiboot2", "FILE [ARGUMENT]...", "Load a Multiboot2 kernel.", 1 },
	{ "module2", "[--nounzip] FILE [ARGUMENT]...", "Load a Multiboot2 module.",
	    0 },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* The command and its words; *file: which of them names the file. */
static grub_err_t send_words(
    const char *name, int argc, char **argv, uint32_t *file)
{
	grub_err_t err = channel_send_words(GRUB_MSG_COMMAND, name, argc, argv);

	if (err == GRUB_ERR_NONE)
		err = channel_reply_number(file);
	if (err == GRUB_ERR_NONE && *file >= (uint32_t)argc)
		err = grub_error(GRUB_ERR_BAD_ARGUMENT, "the file is missing");
	return err;
}

static grub_err_t run(const struct kernel_command *c, int argc, char **argv)
{
	int type = GRUB_FILE_LINUX_KERNEL;
	uint32_t file;

	if (c->is_kernel)
		grub_loader_unset();
	grub_err_t err = send_words(c->name, argc, argv, &file);
	if (err != GRUB_ERR_NONE)
		return err;
	if (grub_strcmp(argv[0], "--nounzip") == 0)
		type |= GRUB_FILE_NO_DECOMPRESS;
	err = linux_send_file(argv[file], type);
	if (err != GRUB_ERR_NONE)
		return err;
	channel_send(GRUB_MSG_DONE, NULL, 0);
	err = channel_reply();
	if (err == GRUB_ERR_NONE)
		linux_set_loader();
	return err;
}

void kernels_send_variables(void)
{
	const size_t prefix = sizeof(VARIABLES) - 1;

	for (struct grub_env_var *v = grub_env_update_get_sorted(); v != NULL;
	     v = v->sorted_next) {
		if (grub_strncmp(v->name, VARIABLES, prefix) != 0 ||
		    v->value == NULL)
			continue;
		size_t size =
		    grub_strlen(v->name) + grub_strlen(v->value) + 2 - prefix;
		char *text = size <= GRUB_MSG_MAX ? grub_malloc(size) : NULL;
		if (text == NULL)
			continue;
		size_t at = channel_append(text, 0, v->name + prefix);
		text[at - 1] = '=';
		channel_append(text, at, v->value);
		channel_send(GRUB_MSG_VARIABLE, text, size);
		grub_free(text);
	}
}

static grub_err_t command(struct grub_command *cmd, int argc, char **argv)
{
	for (unsigned i = 0; i < COMMANDS; i++)
		if (grub_strcmp(commands[i].name, cmd->name) == 0)
			return run(&commands[i], argc, argv);
	return GRUB_ERR_NONE;
}

void kernels_register(void)
{
	for (unsigned i = 0; i < COMMANDS; i++)
		module_command(
		    commands[i].name, command, commands[i].usage, commands[i].help);
}
