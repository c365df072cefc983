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
 * Module "bhyve": what GRUB loads, and the list of its commands.
 */
#include "bhyve.h"

#define COMMANDS_MAX 64
#define PRIORITY     100 /* GRUB's own have 0 and 1 */

/* The sections that GRUB's module loader reads. */
__attribute__((section(".module_license"), used)) static const char license[] =
    "LICENSE=GPLv3+";
__attribute__((section(".modname"), used)) static const char name_of_module[] =
    "bhyve";
__attribute__((section(".moddeps"), used)) static const char depends[] = "boot\0"
									 "terminal";

static struct grub_command *commands[COMMANDS_MAX];
static unsigned ncommands;

void module_command(const char *name, grub_command_func *func, const char *summary,
    const char *description)
{
	if (ncommands < COMMANDS_MAX)
		commands[ncommands++] = grub_register_command_prio(
		    name, func, summary, description, PRIORITY);
}

void grub_mod_init(struct grub_dl *mod)
{
	(void)mod;
	keys_register();
	linux_register();
	kernels_register();
	start_register();
}

void grub_mod_fini(void)
{
	while (ncommands > 0) {
		if (commands[--ncommands] != NULL)
			grub_unregister_command(commands[ncommands]);
	}
	keys_unregister();
}
