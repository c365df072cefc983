/* Opens a loader's terminal (terminal.h). */
#include "load/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/tty.h"
#include "nmdm/nmdm.h"

/* The guest's console: its user may come and go. */
static int open_device(const char *path)
{
	int fd = -1, lock;

	if (nmdm_is_path(path)) /* its lock ends with the process */
		return nmdm_open(path, "-c", &fd, &lock) == 0 ? fd : -1;
	fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0 && isatty(fd))
		return fd;
	log_error("-c %s: %s", path, fd < 0 ? strerror(errno) : "not a terminal");
	if (fd >= 0)
		close(fd);
	return -1;
}

static void ignore_carrier(int fd)
{
	struct termios modes;

	if (tcgetattr(fd, &modes) != 0)
		return;
	modes.c_cflag |= CLOCAL;
	tcsetattr(fd, TCSANOW, &modes);
}

int terminal_open(const char *path, int *in, int *out)
{
	*in = STDIN_FILENO;
	*out = STDOUT_FILENO;
	if (path != NULL && strcmp(path, "stdio") != 0) {
		*in = *out = open_device(path);
		if (*in < 0)
			return -EINVAL;
	}
	if (isatty(*in)) {
		int err = tty_raw(*in);
		if (err != 0) {
			log_error(
			    "cannot set the terminal's modes: %s", strerror(-err));
			return err;
		}
	}
	if (*in != STDIN_FILENO)
		ignore_carrier(*in);
	return 0;
}
