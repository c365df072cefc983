/* The VM that bhyvectl works on: reached through the socket or the file. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "bhyvectl/ctl.h"
#include "lib/log.h"
#include "lib/size.h"
#include "lib/util.h"
#include "vmm/control.h"
#include "vmm/state.h"

#define ANSWER_SECONDS 10
#define END_MS         10000

static int not_opened(const char *name, int error)
{
	if (error == -EINVAL)
		log_error(
		    "vm_open: %s could not be opened: it is not a VM object or is "
		    "damaged; --destroy removes it",
		    name);
	else
		log_error(
		    "vm_open: %s could not be opened: %s", name, strerror(-error));
	return error;
}

/* 0 or -errno, not logged. */
static int connect_to(const char *name, int *out)
{
	struct timeval timeout = { .tv_sec = ANSWER_SECONDS };
	struct sockaddr_un address;
	socklen_t len;
	int dirfd, fd, error = control_address(name, &address, &len, &dirfd);

	if (error != 0)
		return error;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, len) != 0)
		error = -errno;
	if (dirfd >= 0)
		close(dirfd);
	if (error == 0)
		*out = fd;
	else if (fd >= 0)
		close(fd);
	return error;
}

int target_open(struct target *t, const char *name, bool write)
{
	int error;

	*t = (struct target){ .name = name, .fd = -1 };
	error = vmfile_open(&t->vf, name, false);
	if (error != 0)
		return not_opened(name, error);
	vmfile_info(t->vf, &t->info);
	if (t->info.pid != 0 && t->info.status == VMFILE_RUNNING) {
		vmfile_close(t->vf);
		t->vf = NULL;
		error = connect_to(name, &t->fd);
		if (error != 0)
			log_error("%s runs as process %ld, but does not answer: %s",
			    name, (long)t->info.pid, strerror(-error));
		t->running = error == 0;
		return error;
	}
	if (!write)
		return 0;
	vmfile_close(t->vf);
	t->vf = NULL;
	error = vmfile_open(&t->vf, name, true);
	if (error == -EBUSY)
		log_error(
		    "%s is in use by process %ld; try again when that has ended",
		    name, (long)vmfile_holder(name));
	else if (error != 0)
		return not_opened(name, error);
	return error;
}

void target_close(struct target *t)
{
	vmfile_close(t->vf);
	if (t->fd >= 0)
		close(t->fd);
}

/* Reads an answer up to its "." line. 0 or -errno; *text is allocated, or NULL. */
static int read_answer(int fd, char **text)
{
	size_t len = 0;

	*text = malloc(CONTROL_ANSWER_MAX + 1);
	if (*text == NULL)
		return -ENOMEM;
	for (;;) {
		ssize_t n = recv(fd, *text + len, CONTROL_ANSWER_MAX - len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ECONNRESET;
		len += (size_t)n;
		(*text)[len] = '\0';
		if (len >= 3 && strcmp(*text + len - 3, "\n.\n") == 0) {
			(*text)[len - 2] = '\0';
			return 0;
		}
		if (len == CONTROL_ANSWER_MAX)
			return -EMSGSIZE;
	}
}

static int exchange(int fd, const char *line, char **text)
{
	size_t len = strlen(line);

	*text = NULL;
	if (send(fd, line, len, MSG_NOSIGNAL) != (ssize_t)len)
		return errno != 0 ? -errno : -EIO;
	return read_answer(fd, text);
}

int target_command(struct target *t, char **answer, const char *fmt, ...)
{
	char line[CONTROL_LINE_MAX], *text = NULL;
	int error = 0, n;
	va_list ap;

	if (answer != NULL)
		*answer = NULL;
	if (!t->running) {
		log_error("%s does not run", t->name);
		return -ENOTCONN;
	}
	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(line) - 1)
		return -EINVAL;
	line[n] = '\n';
	line[n + 1] = '\0';
	error = exchange(t->fd, line, &text);
	if (error == 0 && text == NULL)
		error = -EIO;
	if (error != 0) {
		log_error("%s: no answer from process %ld: %s", t->name,
		    (long)t->info.pid, strerror(-error));
	} else if (strncmp(text, "ok\n", 3) != 0) {
		text[strcspn(text, "\n")] = '\0';
		log_error("%s: %s", t->name,
		    strncmp(text, "error ", 6) == 0 ? text + 6 : text);
		error = -EINVAL;
	} else if (answer != NULL) {
		memmove(text, text + 3, strlen(text + 3) + 1);
		*answer = text;
		text = NULL;
	}
	free(text);
	return error;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int parse_state(const char *hex, struct vcpu_state *s)
{
	uint8_t *p = (uint8_t *)s;

	for (size_t i = 0; i < sizeof(*s); i++) {
		int high = hex_digit(hex[2 * i]);
		int low = high < 0 ? -1 : hex_digit(hex[2 * i + 1]);

		if (low < 0)
			return -EPROTO;
		p[i] = (uint8_t)(high << 4 | low);
	}
	return hex[2 * sizeof(*s)] == '\n' ? 0 : -EPROTO;
}

int target_get_state(struct target *t, unsigned cpu, struct vcpu_state *s)
{
	char *answer;
	int error;

	if (!t->running) {
		error = vmfile_get_state(t->vf, cpu, s);
		if (error != 0)
			log_error("%s holds no state of CPU %u: %s", t->name, cpu,
			    strerror(-error));
		return error;
	}
	error = target_command(t, &answer, "get-state %u", cpu);
	if (error != 0)
		return error;
	error = parse_state(answer, s);
	if (error != 0)
		log_error(
		    "%s: bhyve and bhyvectl are of different versions", t->name);
	free(answer);
	return error;
}

int target_set_field(
    struct target *t, unsigned cpu, const char *field, uint64_t value)
{
	const struct control_field *f = control_field(field);
	struct vcpu_state s;
	int error;

	if (t->running)
		return target_command(t, NULL, "set-field %u %s %llu", cpu, field,
		    (unsigned long long)value);
	error = target_get_state(t, cpu, &s);
	if (error != 0)
		return error;
	error = f == NULL ? -EINVAL : control_field_set(&s, f, value);
	if (error == 0)
		error = vmfile_set_state(t->vf, cpu, &s);
	if (error != 0)
		log_error("%s: cannot set %s to 0x%llx: %s", t->name, field,
		    (unsigned long long)value, strerror(-error));
	return error;
}

uint64_t target_info_number(const char *info, const char *key)
{
	size_t len = strlen(key);

	for (const char *line = info; *line != '\0';
	     line += strcspn(line, "\n") + 1) {
		if (strncmp(line, key, len) == 0 && line[len] == '=')
			return strtoull(line + len + 1, NULL, 10);
		if (strchr(line, '\n') == NULL)
			break;
	}
	return 0;
}

/* Asks the process to end and waits until it has. */
static int stop(const char *name, pid_t pid)
{
	struct pollfd p = { .events = POLLIN };
	char *text;
	int fd, error;

	p.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (p.fd < 0)
		return errno == ESRCH ? 0 : -errno;
	error = connect_to(name, &fd);
	if (error != 0) {
		log_error(
		    "%s is in use by process %ld, which does not answer (a loader, "
		    "perhaps); end that process first",
		    name, (long)pid);
		close(p.fd);
		return error;
	}
	/* The answer may be lost to the end that was asked for. */
	exchange(fd, "destroy\n", &text);
	free(text);
	close(fd);
	if (poll(&p, 1, END_MS) != 1) {
		log_error("%s: process %ld was told to end and has not; "
			  "\"kill -KILL %ld\" and destroy it again",
		    name, (long)pid, (long)pid);
		error = -ETIMEDOUT;
	}
	close(p.fd);
	return error;
}

int target_destroy(const char *name)
{
	int error = vmfile_destroy(name);

	if (error == -EBUSY) {
		pid_t pid = vmfile_holder(name);

		error = pid > 0 ? stop(name, pid) : 0;
		if (error != 0)
			return error;
		error = vmfile_destroy(name);
	}
	if (error == -ENOENT)
		not_opened(name, error);
	else if (error != 0)
		log_error("%s cannot be removed: %s", name, strerror(-error));
	return error;
}
