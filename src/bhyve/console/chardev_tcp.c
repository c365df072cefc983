/*
 * "tcp=ADDRESS:PORT", "tcp=[ADDRESS]:PORT": waits for one client at a time and
 * turns further ones away. There is no authentication: the manual says so.
 */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bhyve/console/chardev.h"
#include "lib/event.h"
#include "lib/log.h"
#include "lib/size.h"
#include "lib/tcp.h"

#define PREFIX "tcp="

static bool match(const char *spec)
{
	return strncmp(spec, PREFIX, strlen(PREFIX)) == 0;
}

/* Splits "a:p" or "[a]:p". */
static int split(const char *spec, char *host, size_t hlen, char *port, size_t plen)
{
	const char *colon = strrchr(spec, ':'), *start = spec, *end = colon;

	if (colon == NULL || colon[1] == '\0')
		return -EINVAL;
	if (spec[0] == '[') {
		if (colon == spec || colon[-1] != ']')
			return -EINVAL;
		start = spec + 1;
		end = colon - 1;
	} else if (strchr(spec, ':') != colon) {
		return -EINVAL; /* IPv6 without brackets */
	}
	if (end == start || (size_t)(end - start) >= hlen ||
	    strlen(colon + 1) >= plen)
		return -EINVAL;
	snprintf(host, hlen, "%.*s", (int)(end - start), start);
	snprintf(port, plen, "%s", colon + 1);
	return 0;
}

static void tcp_lost(struct chardev *c, bool reading)
{
	int fd = c->rfd;

	(void)reading;
	chardev_clear_fds(c);
	if (fd >= 0)
		close(fd);
}

static void on_connect(void *arg, uint32_t events)
{
	struct chardev *c = arg;
	int fd = tcp_accept(c->listen_fd);

	(void)events;
	if (fd < 0)
		return;
	/* The next may come at once. */
	if (tcp_has_gone(c->rfd))
		tcp_lost(c, true);
	if (c->rfd >= 0 || chardev_set_fds(c, fd, fd) != 0)
		close(fd);
}

static int tcp_open(struct chardev *c, const char *spec, const char *option)
{
	struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
	};
	char host[128], port[8];
	struct addrinfo *ai;
	uint64_t number;
	int fd;

	spec += strlen(PREFIX);
	if (split(spec, host, sizeof(host), port, sizeof(port)) != 0 ||
	    number_parse(port, 1, 65535, &number) != 0 ||
	    getaddrinfo(host, port, &hints, &ai) != 0) {
		log_error("%s: \"%s\" is not a numerical address and port; use "
			  "tcp=127.0.0.1:1234 or tcp=[::1]:1234",
		    option, spec);
		return -EINVAL;
	}
	fd = tcp_listen(ai);
	freeaddrinfo(ai);
	if (fd < 0) {
		log_error(
		    "%s: cannot listen on %s: %s", option, spec, strerror(-fd));
		return fd;
	}
	c->listen_fd = fd;
	c->listen_ev = event_add_fd(c->loop, fd, EPOLLIN, on_connect, c);
	if (c->listen_ev == NULL) {
		close(fd);
		return -ENOMEM;
	}
	return 0;
}

static void tcp_close(struct chardev *c)
{
	tcp_lost(c, false);
	event_del(c->listen_ev);
	close(c->listen_fd);
}

const struct chardev_ops chardev_tcp = {
	.match = match,
	.open = tcp_open,
	.lost = tcp_lost,
	.close = tcp_close,
};
