/*
 * The terminal (or files, pipes) bhyve was started on.
 *
 * Non-blocking mode belongs to the open file description, which the shell and
 * other programs share: a description of our own is opened through /proc, and
 * only where that fails the shared one is switched and restored on close.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bhyve/console/chardev.h"
#include "lib/log.h"

/* Process-wide by nature: there is one standard input. */
static atomic_flag in_use = ATOMIC_FLAG_INIT;

static bool match(const char *spec)
{
	return strcmp(spec, "stdio") == 0;
}

static int open_own(struct chardev *c, int fd, int mode)
{
	char path[32];
	int flags, own;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	/*
	 * A regular file opened anew would start at offset 0: share its
	 * description.
	 */
	if (lseek(fd, 0, SEEK_CUR) >= 0)
		return fcntl(fd, F_DUPFD_CLOEXEC, 3);
	own = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (own >= 0)
		return own;
	flags = fcntl(fd, F_GETFL);
	own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (own < 0 || flags < 0)
		return own;
	c->saved_flags[fd] = flags;
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	return own;
}

static void close_pair(struct chardev *c, int rfd, int wfd)
{
	for (int fd = 0; fd < 2; fd++) {
		if (c->saved_flags[fd] >= 0)
			fcntl(fd, F_SETFL, c->saved_flags[fd]);
		c->saved_flags[fd] = -1;
	}
	if (rfd >= 0)
		close(rfd);
	if (wfd >= 0)
		close(wfd);
}

static int stdio_open(struct chardev *c, const char *spec, const char *option)
{
	int rfd, wfd, error;

	(void)spec;
	if (atomic_flag_test_and_set(&in_use)) {
		log_error("%s: stdio is taken by another console; give this one a "
			  "terminal's path or tcp=address:port",
		    option);
		return -EBUSY;
	}
	rfd = open_own(c, STDIN_FILENO, O_RDONLY);
	wfd = open_own(c, STDOUT_FILENO, O_WRONLY);
	error = chardev_set_fds(c, rfd, wfd);
	if (error == 0 && isatty(STDIN_FILENO))
		error = tty_raw(STDIN_FILENO);
	if (error != 0) {
		log_error("%s: cannot use stdio: %s", option, strerror(-error));
		chardev_clear_fds(c);
		close_pair(c, rfd, wfd);
		atomic_flag_clear(&in_use);
	}
	return error;
}

/* Each direction ends alone: a program without input may still print. */
static void stdio_lost(struct chardev *c, bool reading)
{
	int rfd = c->rfd, wfd = c->wfd;

	chardev_clear_fds(c);
	if (reading) {
		close(rfd);
		rfd = -1;
	} else {
		close(wfd);
		wfd = -1;
	}
	chardev_set_fds(c, rfd, wfd);
}

static void stdio_close(struct chardev *c)
{
	int rfd = c->rfd, wfd = c->wfd;

	chardev_clear_fds(c);
	close_pair(c, rfd, wfd);
	tty_restore();
	atomic_flag_clear(&in_use);
}

const struct chardev_ops chardev_stdio = {
	.match = match,
	.open = stdio_open,
	.lost = stdio_lost,
	.close = stdio_close,
};
