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
 * linux, initrd and their kin: GRUB reads the files, grub-bhyve loads the guest.
 */
#include "bhyve.h"

/* Which file, and why it cannot be read if that is its file system's fault. */
static grub_err_t explain_open(const char *path)
{
	char device[128], what[160];
	size_t n = 0;

	if (grub_errno != GRUB_ERR_UNKNOWN_FS)
		return grub_errno;
	device[0] = '\0';
	if (path[0] == '(') {
		while (path[n + 1] != '\0' && path[n + 1] != ')' &&
		       n < sizeof(device) - 1) {
			device[n] = path[n + 1];
			n++;
		}
		device[n] = '\0';
	} else {
		const char *root = grub_env_get("root");
		if (root != NULL)
			grub_snprintf(device, sizeof(device), "%s", root);
	}
	grub_errno = GRUB_ERR_NONE;
	fsname_describe(device, what, sizeof(what));
	return grub_error(GRUB_ERR_UNKNOWN_FS, "cannot read (%s): %s", device,
	    what[0] != '\0' ? what : "no file system that GRUB knows");
}

grub_err_t linux_send_file(const char *path, int type)
{
	struct grub_file *file = grub_file_open(path, type);

	if (file == NULL)
		return explain_open(path);
	char *buf = grub_malloc(GRUB_MSG_MAX);
	long n = -1;
	if (buf != NULL) {
		while ((n = grub_file_read(file, buf, GRUB_MSG_MAX)) > 0)
			channel_send(GRUB_MSG_DATA, buf, (size_t)n);
		grub_free(buf);
	}
	grub_file_close(file);
	channel_send(GRUB_MSG_FILE_END, NULL, 0);
	return n < 0 ? grub_errno : GRUB_ERR_NONE;
}

static grub_err_t boot(void)
{
	kernels_send_variables();
	channel_send(GRUB_MSG_BOOT, NULL, 0);
	grub_err_t err = channel_reply();
	if (err != GRUB_ERR_NONE)
		return err;
	channel_wait_end();
}

/* What was loaded lives in grub-bhyve: the next "linux" replaces it. */
static grub_err_t unload(void)
{
	return GRUB_ERR_NONE;
}

void linux_set_loader(void)
{
	grub_loader_set(boot, unload, 0);
}

static grub_err_t cmd_linux(struct grub_command *cmd, int argc, char **argv)
{
	(void)cmd;
	if (argc == 0)
		return grub_error(GRUB_ERR_BAD_ARGUMENT,
		    "linux FILE [ARGUMENT]...: the file is missing");
	grub_err_t err = channel_send_words(GRUB_MSG_KERNEL, NULL, argc, argv);
	if (err != GRUB_ERR_NONE)
		return err;
	grub_loader_unset();
	err = linux_send_file(argv[0], GRUB_FILE_LINUX_KERNEL);
	if (err != GRUB_ERR_NONE)
		return err;
	channel_send(GRUB_MSG_DONE, NULL, 0);
	err = channel_reply();
	if (err == GRUB_ERR_NONE)
		linux_set_loader();
	return err;
}

static grub_err_t cmd_initrd(struct grub_command *cmd, int argc, char **argv)
{
	(void)cmd;
	if (argc == 0)
		return grub_error(
		    GRUB_ERR_BAD_ARGUMENT, "initrd FILE...: the file is missing");
	for (int i = 0; i < argc; i++) {
		if (grub_strncmp(argv[i], "newc:", 5) == 0)
			return grub_error(GRUB_ERR_BAD_ARGUMENT,
			    "%s: grub-bhyve makes no cpio archives (newc:); put "
			    "the file "
			    "into an initrd",
			    argv[i]);
	}
	channel_send(GRUB_MSG_INITRD, NULL, 0);
	for (int i = 0; i < argc; i++) {
		grub_err_t err = linux_send_file(
		    argv[i], GRUB_FILE_LINUX_INITRD | GRUB_FILE_NO_DECOMPRESS);
		if (err != GRUB_ERR_NONE) {
			channel_send(GRUB_MSG_INITRD, NULL, 0); /* not half of it */
			return err;
		}
	}
	channel_send(GRUB_MSG_DONE, NULL, 0);
	return channel_reply();
}

static grub_err_t end(uint32_t type)
{
	channel_send(type, NULL, 0);
	channel_wait_end();
}

static grub_err_t cmd_exit(struct grub_command *cmd, int argc, char **argv)
{
	(void)cmd, (void)argc, (void)argv;
	return end(GRUB_MSG_EXIT);
}

static grub_err_t cmd_halt(struct grub_command *cmd, int argc, char **argv)
{
	(void)cmd, (void)argc, (void)argv;
	return end(GRUB_MSG_HALT);
}

static grub_err_t cmd_reboot(struct grub_command *cmd, int argc, char **argv)
{
	(void)cmd, (void)argc, (void)argv;
	return end(GRUB_MSG_REBOOT);
}

void linux_register(void)
{
	static const char *const kernels[] = { "linux", "linux16", "linuxefi" };
	static const char *const initrds[] = { "initrd", "initrd16", "initrdefi" };

	for (unsigned i = 0; i < 3; i++) {
		module_command(kernels[i], cmd_linux, "FILE [ARGUMENT]...",
		    "Load a Linux kernel (bzImage).");
		module_command(initrds[i], cmd_initrd, "FILE...",
		    "Load the kernel's initial RAM disk, several joined.");
	}
	module_command(
	    "exit", cmd_exit, "", "Leave grub-bhyve without a guest (status 1).");
	module_command("halt", cmd_halt, "", "Leave grub-bhyve without a guest.");
	module_command(
	    "reboot", cmd_reboot, "", "Leave grub-bhyve without a guest.");
}
