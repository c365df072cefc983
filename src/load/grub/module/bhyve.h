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
 * What the parts of the module share.
 */
#ifndef BHYVE_GRUB_MODULE_H
#define BHYVE_GRUB_MODULE_H

#include "../proto.h"
#include "grub_abi.h"

#define MODULE_PATH_MAX 1024

/* channel.c: raw system calls, as GRUB's kernel offers modules none of libc. */
long channel_read(int fd, void *buf, size_t len);
/* Bytes ready or the end: 1, nothing within ms: 0. */
int channel_poll(int fd, int ms);
/* The front is gone when it fails: then GRUB ends too. */
void channel_send(uint32_t type, const void *data, size_t len);
/* Copies text with its NUL to to + at; where the next one goes. */
size_t channel_append(char *to, size_t at, const char *text);
/* Sends words as strings; first, if not NULL, comes before argv's. */
grub_err_t channel_send_words(
    uint32_t type, const char *first, int argc, char **argv);
/* Waits for the answer; its text, if any, becomes GRUB's error. */
grub_err_t channel_reply(void);
/* The same; *number gets what the answer to GRUB_MSG_COMMAND says. */
grub_err_t channel_reply_number(uint32_t *number);
/* Waits to be ended by the front. */
void channel_wait_end(void) __attribute__((noreturn));

/* linux.c */
void linux_register(void);
/* Reads a file and sends its bytes. type: GRUB_FILE_... */
grub_err_t linux_send_file(const char *path, int type);
/* GRUB's "boot" hands over to grub-bhyve from now on. */
void linux_set_loader(void);
/* kernels.c: commands for other kernels. */
void kernels_register(void);
/* Sends those variables that are meant for the kernel. */
void kernels_send_variables(void);
/* keys.c: the terminal input "bhyve". */
void keys_register(void);
void keys_unregister(void);
/* start.c: bhyve_start, and quiet stand-ins for what this GRUB cannot do. */
void start_register(void);
/* fsname.c: what is on a device, for messages. buf gets "" when nothing is known.
 */
void fsname_describe(const char *device, char *buf, size_t len);

/* main.c: registers a command above GRUB's own of that name. */
void module_command(const char *name, grub_command_func *func, const char *summary,
    const char *description);

#endif
