/*
 * Back ends of consoles: reading, writing and polling a pair of descriptors.
 *
 * Invariants: nothing here blocks; without a reader bytes vanish as on an
 * unplugged cable; end of file stops polling instead of spinning on it.
 */
#include "bhyve/console/chardev.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/event.h"
#include "lib/log.h"
#include "lib/util.h"

#define FLUSH_MS 1000

/* tty takes what no other does. */
static const struct chardev_ops *const back_ends[] = { &chardev_stdio, &chardev_tcp,
	&chardev_tty };

static void on_events(void *arg, uint32_t events)
{
	struct chardev *c = arg;

	if ((events & EPOLLOUT) != 0 && c->want_write && c->writable != NULL)
		c->writable(c->arg);
	/* Hang-ups and errors are found by reading. */
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && c->want_read &&
	    c->readable != NULL)
		c->readable(c->arg);
}

static void on_write_events(void *arg, uint32_t events)
{
	struct chardev *c = arg;

	(void)events; /* an error is found by writing */
	if (c->want_write && c->writable != NULL)
		c->writable(c->arg);
}

static void on_file(void *arg)
{
	struct chardev *c = arg;

	if (c->want_read && c->readable != NULL)
		c->readable(c->arg);
}

static void apply_poll(struct chardev *c)
{
	uint32_t in = c->want_read ? EPOLLIN : 0,
		 out = c->want_write ? EPOLLOUT : 0;

	if (c->rev != NULL)
		event_set_fd(c->rev, c->rfd == c->wfd ? in | out : in);
	if (c->wev != NULL)
		event_set_fd(c->wev, out);
	if (c->file != NULL)
		event_set_timer(c->file, c->want_read ? 1 : 0);
}

int chardev_set_fds(struct chardev *c, int rfd, int wfd)
{
	if (rfd >= 0) {
		c->rev = event_add_fd(c->loop, rfd, 0, on_events, c);
		/* Regular files and /dev/null cannot be polled: always ready. */
		if (c->rev == NULL && errno == EPERM)
			c->file = event_add_timer(c->loop, on_file, c);
		if (c->rev == NULL && c->file == NULL)
			return errno != 0 ? -errno : -ENOMEM;
	}
	if (wfd >= 0 && wfd != rfd) {
		c->wev = event_add_fd(c->loop, wfd, 0, on_write_events, c);
		if (c->wev == NULL && errno != EPERM) {
			int error = errno;

			chardev_clear_fds(c);
			return -error;
		}
	}
	c->rfd = rfd;
	c->wfd = wfd;
	apply_poll(c);
	return 0;
}

void chardev_clear_fds(struct chardev *c)
{
	event_del(c->rev);
	event_del(c->wev);
	event_del(c->file);
	c->rev = c->wev = c->file = NULL;
	c->rfd = c->wfd = -1;
}

int chardev_open(struct chardev **out, struct event_loop *loop, const char *spec,
    const char *option)
{
	struct chardev *c = calloc(1, sizeof(*c));
	int error = -EINVAL;

	if (c == NULL)
		return -ENOMEM;
	c->loop = loop;
	c->rfd = c->wfd = c->listen_fd = c->lock_fd = -1;
	c->saved_flags[0] = c->saved_flags[1] = -1;
	snprintf(c->option, sizeof(c->option), "%s", option);
	for (size_t i = 0; i < ARRAY_SIZE(back_ends); i++) {
		if (back_ends[i]->match(spec)) {
			c->ops = back_ends[i];
			error = c->ops->open(c, spec, option);
			break;
		}
	}
	if (error != 0) {
		free(c);
		return error;
	}
	*out = c;
	return 0;
}

void chardev_close(struct chardev *c)
{
	if (c == NULL)
		return;
	c->ops->close(c);
	free(c);
}

static bool would_block(int error)
{
	return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

size_t chardev_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	ssize_t n;

	if (c->wfd < 0)
		return len;
	n = write(c->wfd, buf, len);
	if (n > 0)
		return (size_t)n;
	if (n < 0 && would_block(errno))
		return 0;
	c->ops->lost(c, false);
	return len;
}

size_t chardev_read(struct chardev *c, uint8_t *buf, size_t len)
{
	ssize_t n;

	if (c->rfd < 0)
		return 0;
	n = read(c->rfd, buf, len);
	if (n > 0) {
		if (c->file != NULL)
			apply_poll(c);
		return (size_t)n;
	}
	if (n < 0 && would_block(errno))
		return 0;
	c->ops->lost(c, true);
	return 0;
}

void chardev_poll(struct chardev *c, bool want_read, bool want_write)
{
	c->want_read = want_read;
	c->want_write = want_write;
	apply_poll(c);
}

void chardev_set_callbacks(struct chardev *c, void (*readable)(void *arg),
    void (*writable)(void *arg), void *arg)
{
	c->readable = readable;
	c->writable = writable;
	c->arg = arg;
}

void chardev_flush(struct chardev *c, const uint8_t *buf, size_t len)
{
	while (len > 0) {
		size_t n = chardev_write(c, buf, len);
		struct pollfd p = { .fd = c->wfd, .events = POLLOUT };

		buf += n;
		len -= n;
		if (len > 0 && n == 0 && poll(&p, 1, FLUSH_MS) <= 0)
			break;
	}
}
