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
 * Talking to grub-bhyve over the sockets that GRUB inherited (../proto.h).
 */
#include "bhyve.h"

#define SYS_READ       0
#define SYS_WRITE      1
#define SYS_POLL       7
#define SYS_EXIT_GROUP 231
#define EINTR          4
#define POLLIN         1
#define REPLY_MAX      512

struct pollfd {
	int fd;
	short events, revents;
};

static long call(long number, long a, long b, long c)
{
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return result;
}

static void give_up(void)
{
	for (;;)
		call(SYS_EXIT_GROUP, 1, 0, 0);
}

long channel_read(int fd, void *buf, size_t len)
{
	long n;

	do {
		n = call(SYS_READ, fd, (long)buf, (long)len);
	} while (n == -EINTR);
	return n;
}

int channel_poll(int fd, int ms)
{
	struct pollfd p = { fd, POLLIN, 0 };

	return call(SYS_POLL, (long)&p, 1, ms) > 0;
}

static void write_all(const char *p, size_t len)
{
	while (len > 0) {
		long n = call(SYS_WRITE, GRUB_FD_CONTROL, (long)p, (long)len);
		if (n == -EINTR)
			continue;
		if (n <= 0)
			give_up();
		p += n;
		len -= (size_t)n;
	}
}

void channel_send(uint32_t type, const void *data, size_t len)
{
	struct grub_msg msg = { type, (uint32_t)len };

	write_all((const char *)&msg, sizeof(msg));
	write_all(data, len);
}

size_t channel_append(char *to, size_t at, const char *text)
{
	do {
		to[at++] = *text;
	} while (*text++ != '\0');
	return at;
}

grub_err_t channel_send_words(
    uint32_t type, const char *first, int argc, char **argv)
{
	size_t len = first != NULL ? grub_strlen(first) + 1 : 0, at = 0;

	for (int i = 0; i < argc; i++)
		len += grub_strlen(argv[i]) + 1;
	if (len > GRUB_MSG_MAX)
		return grub_error(
		    GRUB_ERR_BAD_ARGUMENT, "the command line is too long");
	char *words = grub_malloc(len);
	if (words == NULL)
		return grub_errno;
	if (first != NULL)
		at = channel_append(words, at, first);
	for (int i = 0; i < argc; i++)
		at = channel_append(words, at, argv[i]);
	channel_send(type, words, at);
	grub_free(words);
	return GRUB_ERR_NONE;
}

static void read_exactly(void *buf, size_t len)
{
	char *p = buf;

	while (len > 0) {
		long n = channel_read(GRUB_FD_CONTROL, p, len);
		if (n <= 0)
			give_up();
		p += n;
		len -= (size_t)n;
	}
}

grub_err_t channel_reply(void)
{
	uint32_t ignored;

	return channel_reply_number(&ignored);
}

grub_err_t channel_reply_number(uint32_t *number)
{
	struct grub_reply reply;
	char text[REPLY_MAX];

	read_exactly(&reply, sizeof(reply));
	*number = reply.file;
	if (reply.len == 0)
		return GRUB_ERR_NONE;
	if (reply.len >= sizeof(text))
		give_up();
	read_exactly(text, reply.len);
	text[reply.len] = '\0';
	return grub_error(GRUB_ERR_BAD_OS, "%s", text);
}

void channel_wait_end(void)
{
	char c;

	while (channel_read(GRUB_FD_CONTROL, &c, 1) > 0)
		;
	give_up();
	__builtin_unreachable();
}
