/* A terminal device by its path: a serial port, a pseudo terminal, a null modem. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "bhyve/console/chardev.h"
#include "lib/log.h"
#include "nmdm/nmdm.h"

static bool match(const char *spec)
{
	(void)spec;
	return true;
}

static int open_device(
    struct chardev *c, const char *spec, const char *option, int *fd)
{
	int error;

	if (nmdm_is_path(spec))
		return nmdm_open(spec, option, fd, &c->lock_fd);
	*fd = open(spec, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	error = -errno;
	log_error("%s: cannot open %s: %s", option, spec, strerror(-error));
	return error;
}

static void close_device(struct chardev *c, int fd)
{
	if (fd >= 0)
		close(fd);
	if (c->lock_fd >= 0)
		close(c->lock_fd);
	c->lock_fd = -1;
}

static int tty_open(struct chardev *c, const char *spec, const char *option)
{
	struct termios modes;
	int fd = -1, error;

	if (strchr(spec, '/') == NULL) {
		log_error(
		    "%s: no console is called \"%s\"; use stdio, the path of a "
		    "terminal device, or tcp=address:port",
		    option, spec);
		return -EINVAL;
	}
	error = open_device(c, spec, option, &fd);
	if (error != 0)
		return error;
	if (!isatty(fd) || tcgetattr(fd, &modes) != 0) {
		log_error("%s: %s is not a terminal device", option, spec);
		close_device(c, fd);
		return -ENOTTY;
	}
	cfmakeraw(&modes);
	modes.c_cflag |= CLOCAL;
	error = tcsetattr(fd, TCSANOW, &modes) == 0 ? chardev_set_fds(c, fd, fd)
						    : -errno;
	if (error != 0) {
		log_error("%s: cannot use %s: %s", option, spec, strerror(-error));
		close_device(c, fd);
	}
	return error;
}

static void tty_close(struct chardev *c)
{
	int fd = c->rfd;

	chardev_clear_fds(c);
	close_device(c, fd);
}

static void tty_lost(struct chardev *c, bool reading)
{
	(void)reading;
	log_warn("%s: the terminal's other end is gone; its output is dropped from "
		 "now on",
	    c->option);
	tty_close(c);
}

const struct chardev_ops chardev_tty = {
	.match = match,
	.open = tty_open,
	.lost = tty_lost,
	.close = tty_close,
};
