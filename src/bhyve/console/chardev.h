/*
 * What the back ends share: a pair of non-blocking descriptors in the event
 * loop. A back end is an entry in the table of chardev.c with these functions.
 */
#pragma once

#include <stdbool.h>

#include "bhyve/console/console.h"

struct event;

struct chardev_ops {
	bool (*match)(const char *spec);
	/* Sets the descriptors with chardev_set_fds(). 0 or -errno (logged). */
	int (*open)(struct chardev *c, const char *spec, const char *option);
	/* End of file or an error while reading or writing: closes what is dead. */
	void (*lost)(struct chardev *c, bool reading);
	void (*close)(struct chardev *c);
};

struct chardev {
	const struct chardev_ops *ops;
	struct event_loop *loop;
	char option[64];
	void (*readable)(void *arg);
	void (*writable)(void *arg);
	void *arg;
	bool want_read, want_write;
	int rfd, wfd;       /* may be the same; -1: none */
	struct event *rev;  /* of rfd; of both when they are the same */
	struct event *wev;  /* of wfd when it is another */
	struct event *file; /* timer that stands in for polling a regular file */
	int listen_fd;      /* tcp */
	struct event *listen_ev;
	int lock_fd;        /* tty: of a null modem's end */
	int saved_flags[2]; /* stdio: descriptor flags to restore, -1: none */
};

extern const struct chardev_ops chardev_stdio, chardev_tcp, chardev_tty;

/* Puts descriptors into the loop. 0 or -errno (nothing changed). */
int chardev_set_fds(struct chardev *c, int rfd, int wfd);
/* Takes them out of the loop and forgets them; does not close. */
void chardev_clear_fds(struct chardev *c);
