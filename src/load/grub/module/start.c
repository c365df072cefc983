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
 * bhyve_start ROOT DIRECTORY CONFIG: sets root and prefix and finds the grub.cfg to
 * continue with ($bhyve_cfg). Then quiet stand-ins for commands that configuration
 * files of installed systems use and that make no sense here: fonts, graphics,
 * serial terminals, modules (all are loaded), writing to the environment block.
 */
#include "bhyve.h"

/* Where distributions keep it. */
static const char *const places[] = { "/boot/grub", "/boot/grub2", "/grub",
	"/grub2", "/efi/boot", "/EFI/BOOT", "/EFI/debian", "/EFI/ubuntu",
	"/EFI/fedora", "/EFI/redhat", "/EFI/centos", "/EFI/rocky", "/EFI/almalinux",
	"/EFI/opensuse", "/EFI/sles", "/EFI/arch", "/EFI/grub", "/EFI/kali",
	"/EFI/alpine", "/EFI/gentoo" };

struct search {
	const char *root;      /* as asked for */
	const char *directory; /* "": the usual places */
	const char *config;
	char found[MODULE_PATH_MAX];
};

static int exists(const char *path)
{
	struct grub_file *file =
	    grub_file_open(path, GRUB_FILE_ANY | GRUB_FILE_NO_DECOMPRESS);

	grub_errno = GRUB_ERR_NONE;
	if (file == NULL)
		return 0;
	grub_file_close(file);
	return 1;
}

static int try_place(struct search *s, const char *device, const char *directory)
{
	char path[MODULE_PATH_MAX];

	int n = grub_snprintf(path, sizeof(path), "(%s)%s%s%s", device,
	    directory[0] == '/' ? "" : "/", directory, s->config);
	if (n < 0 || (size_t)n + 8 >= sizeof(path))
		return 0;
	grub_snprintf(path, sizeof(path), "(%s)%s%s/%s", device,
	    directory[0] == '/' ? "" : "/", directory, s->config);
	if (!exists(path))
		return 0;
	grub_snprintf(s->found, sizeof(s->found), "%s", path);
	grub_env_set("root", device);
	grub_snprintf(path, sizeof(path), "(%s)%s%s", device,
	    directory[0] == '/' ? "" : "/", directory);
	grub_env_set("prefix", path);
	return 1;
}

static int try_device(struct search *s, const char *device)
{
	if (s->directory[0] != '\0')
		return try_place(s, device, s->directory);
	struct grub_device *dev = grub_device_open(device);
	int readable = dev != NULL && grub_fs_probe(dev) != NULL;

	if (dev != NULL)
		grub_device_close(dev);
	grub_errno = GRUB_ERR_NONE;
	for (unsigned i = 0; readable && i < sizeof(places) / sizeof(places[0]);
	     i++) {
		if (try_place(s, device, places[i]))
			return 1;
	}
	return 0;
}

/* A whole disk was asked for: its partitions, too, and volumes that may lie on it.
 */
static int try_part(const char *name, void *data)
{
	struct search *s = data;
	size_t n = grub_strlen(s->root);

	if ((grub_strncmp(name, s->root, n) == 0 && name[n] == ',') ||
	    grub_strncmp(name, "lvm/", 4) == 0)
		return try_device(s, name);
	return 0;
}

static int is_whole_disk(const char *device)
{
	for (; *device != '\0'; device++) {
		if (*device == ',' || *device == '/')
			return 0;
	}
	return 1;
}

/*
 * Why there is only a prompt. GRUB clears the screen before it prints the prompt's
 * own introduction, so the reason goes into that: GRUB asks for its translation.
 */
static char introduction[MODULE_PATH_MAX];
static const char *(*old_gettext)(const char *text);

static const char *introduce(const char *text)
{
	static const char begins[] = "Minimal BASH-like";

	if (grub_strncmp(text, begins, sizeof(begins) - 1) != 0)
		return old_gettext(text);
	return introduction;
}

static void explain(const struct search *s)
{
	char what[160];
	struct grub_device *dev = grub_device_open(s->root);
	int readable = dev != NULL && grub_fs_probe(dev) != NULL;

	if (dev != NULL)
		grub_device_close(dev);
	grub_errno = GRUB_ERR_NONE;
	what[0] = '\0';
	if (dev != NULL && !readable)
		fsname_describe(s->root, what, sizeof(what));
	/* Names were checked by the front: no percent sign (this is a format to
	 * GRUB). */
	if (readable)
		grub_snprintf(introduction, sizeof(introduction),
		    "No %s on (%s): type commands, or \"help\".", s->config,
		    s->root);
	else if (dev == NULL)
		grub_snprintf(introduction, sizeof(introduction),
		    "There is no device (%s): \"ls\" shows those there are.",
		    s->root);
	else
		grub_snprintf(introduction, sizeof(introduction),
		    "GRUB cannot read (%s): it holds %s. Type commands, or "
		    "\"help\".",
		    s->root,
		    what[0] != '\0' ? what : "no file system that GRUB knows");
	old_gettext = grub_gettext;
	grub_gettext = introduce;
}

static grub_err_t cmd_nothing(struct grub_command *cmd, int argc, char **argv)
{
	(void)cmd, (void)argc, (void)argv;
	return GRUB_ERR_NONE;
}

static grub_err_t cmd_terminal(struct grub_command *cmd, int argc, char **argv)
{
	(void)cmd, (void)argv;
	if (argc == 0)
		grub_printf("The only terminal is grub-bhyve's own.\n");
	return GRUB_ERR_NONE;
}

/*
 * Modules are loaded already, but for encryption: its modules add a device (proc)
 * to the list, which only those who ask for it shall see. They need GRUB's own
 * prefix.
 */
static char own_prefix[MODULE_PATH_MAX];

static void load_encryption(const char *name)
{
	static const char *const ciphers[] = { "gcry_rijndael", "gcry_serpent",
		"gcry_twofish", "gcry_sha1", "gcry_sha256", "gcry_sha512",
		"gcry_rmd160", "gcry_whirlpool" };
	char prefix[MODULE_PATH_MAX];
	const char *old = grub_env_get("prefix");

	grub_snprintf(prefix, sizeof(prefix), "%s", old != NULL ? old : "");
	grub_env_set("prefix", own_prefix);
	for (unsigned i = 0; i < sizeof(ciphers) / sizeof(ciphers[0]); i++)
		grub_dl_load(ciphers[i]);
	grub_dl_load(name);
	grub_env_set("prefix", prefix);
	grub_errno = GRUB_ERR_NONE;
}

static grub_err_t cmd_insmod(struct grub_command *cmd, int argc, char **argv)
{
	static const char *const encryption[] = { "cryptodisk", "luks", "luks2",
		"geli", "zfscrypt" };

	(void)cmd;
	for (unsigned i = 0;
	     argc == 1 && i < sizeof(encryption) / sizeof(encryption[0]); i++) {
		if (grub_strcmp(argv[0], encryption[i]) == 0)
			load_encryption(argv[0]);
	}
	return GRUB_ERR_NONE;
}

static void register_stand_ins(void)
{
	static const char *const silent[] = { "rmmod", "loadfont",
		"background_image", "background_color", "play", "serial",
		"save_env", "videoinfo" };
	static const char *const terminals[] = { "terminal_input",
		"terminal_output" };

	module_command(
	    "insmod", cmd_insmod, "MODULE", "Load a module if it is not.");
	for (unsigned i = 0; i < sizeof(silent) / sizeof(silent[0]); i++)
		module_command(
		    silent[i], cmd_nothing, "", "Does nothing in grub-bhyve.");
	for (unsigned i = 0; i < 2; i++)
		module_command(
		    terminals[i], cmd_terminal, "", "Does nothing in grub-bhyve.");
}

static grub_err_t cmd_start(struct grub_command *cmd, int argc, char **argv)
{
	struct search s;
	char path[MODULE_PATH_MAX];

	(void)cmd;
	if (argc != 3)
		return grub_error(
		    GRUB_ERR_BAD_ARGUMENT, "bhyve_start ROOT DIRECTORY CONFIG");
	channel_send(GRUB_MSG_READY, NULL, 0);
	const char *prefix = grub_env_get("prefix");
	grub_snprintf(
	    own_prefix, sizeof(own_prefix), "%s", prefix != NULL ? prefix : "");
	register_stand_ins();
	s.root = argv[0];
	s.directory = argv[1];
	s.config = argv[2];
	s.found[0] = '\0';
	grub_env_set("root", s.root);
	grub_snprintf(path, sizeof(path), "(%s)%s", s.root,
	    s.directory[0] != '\0' ? s.directory : places[0]);
	grub_env_set("prefix", path);

	/* The host's own grub.cfg boots the host: only one that was asked for
	 * counts. */
	int found = 0;
	if (grub_strcmp(s.root, "host") != 0 || s.directory[0] != '\0') {
		found = try_device(&s, s.root);
		if (!found && is_whole_disk(s.root))
			found = grub_device_iterate(try_part, &s);
		if (!found)
			explain(&s);
	}
	grub_errno = GRUB_ERR_NONE;
	if (found) {
		channel_send(GRUB_MSG_NOTE, s.found, grub_strlen(s.found));
		grub_env_set("bhyve_cfg", s.found);
	} else {
		grub_env_unset("bhyve_cfg");
	}
	return GRUB_ERR_NONE;
}

void start_register(void)
{
	module_command("bhyve_start", cmd_start, "ROOT DIRECTORY CONFIG",
	    "Find the guest's configuration file.");
}
