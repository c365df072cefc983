/*
 * The backend "slirp": a network in this process (libslirp) whose guest talks to the
 * world through ordinary sockets. It needs no rights and no interface.
 *
 * The guest's network is 10.0.2.0/24: the host is .2, the name server .3, DHCP gives
 * .15. Without "open" only what hostfwd lets in gets through.
 *
 * The library wants to be asked what it waits for before each sleep; its sockets are
 * kept in an epoll set of their own, which the event loop sees as one descriptor.
 * Frames for the guest wait in a ring of fixed size; what finds no room is dropped
 * and TCP sends it again. A TCP segment may be as long as an IP packet: the guest
 * leaves segmentation and checksums to us, and the host's TCP does the first anew.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bhyve/net/net.h"
#include "lib/config.h"
#include "lib/event.h"
#include "lib/log.h"
#include "lib/util.h"

#define RING       (512 * 1024u) /* a power of two */
#define BATCH      64
#define FILES      4096 /* a guest's connection is a descriptor */
#define NETWORK    0x0a000200u
#define MTU_MAX    65520u /* of the library */
#define MS         UINT64_C(1000000)
#define STALE_NS   (50 * MS)
/*
 * The library keeps fragments of IP packets for a minute and does not count them:
 * that many bytes in that time are let through, each with what a buffer costs.
 */
#define FRAG_NS    (60000 * MS)
#define FRAG_BYTES (16 * MiB)
#define FRAG_COST  2048

/* A descriptor of the library, by its number. */
struct watch {
	uint32_t events; /* in the epoll set, 0: not there */
	uint32_t round;  /* when the library last named it */
	int index;       /* in polled */
};

struct polled {
	int fd, revents;
};

struct slirp_net {
	struct net net;
	Slirp *slirp;
	struct event_loop *loop;
	int epoll;
	struct event *ready, *timer;
	struct watch *watch;
	size_t nwatch;
	struct polled *polled, *last; /* this round's and the one's before */
	size_t npolled, nlast, polled_room;
	uint32_t round;
	uint64_t polled_ns; /* when the library last saw the time */
	uint64_t frag_ns, frag_bytes;
	bool listening, posted;
	unsigned offloads;
	/* Frames for the guest, each behind its length; counters, not offsets. */
	uint32_t head, tail;
	uint8_t *ring;
	uint8_t frame[NET_FRAME_MAX]; /* one from the guest */
};

struct slirp_timer {
	struct event *event;
	SlirpTimerCb cb;
	void *arg;
};

static struct slirp_net *of(struct net *net)
{
	return container_of(net, struct slirp_net, net);
}

/* The ring. */

static void ring_copy_in(struct slirp_net *s, const void *data, uint32_t len)
{
	uint32_t at = s->tail & (RING - 1), first = MIN(len, RING - at);

	memcpy(s->ring + at, data, first);
	memcpy(s->ring, (const uint8_t *)data + first, len - first);
	s->tail += len;
}

static void ring_copy_out(struct slirp_net *s, void *data, uint32_t len)
{
	uint32_t at = s->head & (RING - 1), first = MIN(len, RING - at);

	memcpy(data, s->ring + at, first);
	memcpy((uint8_t *)data + first, s->ring, len - first);
	s->head += len;
}

static ssize_t send_packet(const void *data, size_t len, void *arg)
{
	struct slirp_net *s = arg;
	uint32_t n = (uint32_t)len;

	if (len > NET_FRAME_MAX || sizeof(n) + n > RING - (s->tail - s->head))
		return (ssize_t)len; /* dropped; no fault of the link */
	ring_copy_in(s, &n, sizeof(n));
	ring_copy_in(s, data, n);
	return (ssize_t)len;
}

static ssize_t do_recv(struct net *net, const struct iovec *iov, int niov)
{
	struct slirp_net *s = of(net);
	struct net_hdr hdr = { 0 };
	uint32_t len, left;

	if (s->head == s->tail)
		return -EAGAIN;
	/* The library has made every checksum itself. */
	if ((s->offloads & NET_CSUM) != 0)
		hdr.flags = NET_HDR_DATA_VALID;
	memcpy(iov[0].iov_base, &hdr, NET_HDR_LEN);
	ring_copy_out(s, &len, sizeof(len));
	left = len;
	for (int i = 0; i < niov && left > 0; i++) {
		size_t skip = i == 0 ? NET_HDR_LEN : 0;
		uint32_t n = (uint32_t)MIN((size_t)left, iov[i].iov_len - skip);

		ring_copy_out(s, (uint8_t *)iov[i].iov_base + skip, n);
		left -= n;
	}
	s->head += left;
	return NET_HDR_LEN + (ssize_t)len;
}

static void deliver(struct slirp_net *s);

static void deliver_posted(void *arg)
{
	struct slirp_net *s = arg;

	s->posted = false;
	deliver(s);
}

static void deliver_later(struct slirp_net *s)
{
	if (!s->posted && event_post(s->loop, deliver_posted, s) == 0)
		s->posted = true;
}

static void deliver(struct slirp_net *s)
{
	if (!s->listening || s->head == s->tail)
		return;
	s->net.client->readable(s->net.arg);
	if (s->listening && s->head != s->tail)
		deliver_later(s);
}

static void do_listen(struct net *net, bool on)
{
	struct slirp_net *s = of(net);

	s->listening = on;
	if (on && s->head != s->tail)
		deliver_later(s);
}

static void do_offload(struct net *net, unsigned offloads)
{
	of(net)->offloads = offloads;
}

/* The library's descriptors and the time. */

static void forget(int fd, void *arg)
{
	struct slirp_net *s = arg;

	if (fd < 0 || (size_t)fd >= s->nwatch || s->watch[fd].events == 0)
		return;
	epoll_ctl(s->epoll, EPOLL_CTL_DEL, fd, NULL);
	s->watch[fd].events = 0;
}

static int watch_grow(struct slirp_net *s, int fd)
{
	size_t n = MAX(s->nwatch * 2, (size_t)fd + 64);
	struct watch *watch;

	if ((size_t)fd < s->nwatch)
		return 0;
	watch = realloc(s->watch, n * sizeof(*watch));
	if (watch == NULL)
		return -ENOMEM;
	memset(watch + s->nwatch, 0, (n - s->nwatch) * sizeof(*watch));
	s->watch = watch;
	s->nwatch = n;
	return 0;
}

static int polled_grow(struct slirp_net *s)
{
	size_t n = s->polled_room == 0 ? 64 : s->polled_room * 2;
	struct polled *p;

	if (s->npolled < s->polled_room)
		return 0;
	p = realloc(s->polled, n * sizeof(*p));
	if (p == NULL)
		return -ENOMEM;
	s->polled = p;
	p = realloc(s->last, n * sizeof(*p));
	if (p == NULL)
		return -ENOMEM;
	s->last = p;
	s->polled_room = n;
	return 0;
}

static uint32_t to_epoll(int events)
{
	return ((events & SLIRP_POLL_IN) != 0 ? EPOLLIN : 0u) |
	       ((events & SLIRP_POLL_OUT) != 0 ? EPOLLOUT : 0u) |
	       ((events & SLIRP_POLL_PRI) != 0 ? EPOLLPRI : 0u) |
	       ((events & SLIRP_POLL_ERR) != 0 ? EPOLLERR : 0u) |
	       ((events & SLIRP_POLL_HUP) != 0 ? EPOLLHUP : 0u);
}

static int from_epoll(uint32_t events)
{
	return ((events & EPOLLIN) != 0 ? SLIRP_POLL_IN : 0) |
	       ((events & EPOLLOUT) != 0 ? SLIRP_POLL_OUT : 0) |
	       ((events & EPOLLPRI) != 0 ? SLIRP_POLL_PRI : 0) |
	       ((events & EPOLLERR) != 0 ? SLIRP_POLL_ERR : 0) |
	       ((events & EPOLLHUP) != 0 ? SLIRP_POLL_HUP : 0);
}

static int add_poll(int fd, int events, void *arg)
{
	struct slirp_net *s = arg;
	struct epoll_event ee = { .events = to_epoll(events), .data.fd = fd };
	struct watch *w;

	if (fd < 0 || watch_grow(s, fd) != 0 || polled_grow(s) != 0)
		return -1;
	w = &s->watch[fd];
	if (w->events != ee.events) {
		int op = w->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

		if (epoll_ctl(s->epoll, op, fd, &ee) != 0 &&
		    epoll_ctl(s->epoll,
			op == EPOLL_CTL_ADD ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd,
			&ee) != 0)
			return -1;
		w->events = ee.events;
	}
	w->round = s->round;
	w->index = (int)s->npolled;
	s->polled[s->npolled] = (struct polled){ .fd = fd };
	return (int)s->npolled++;
}

/* Asks the library what it waits for. */
static void refill(struct slirp_net *s)
{
	struct polled *swap = s->last;
	uint32_t timeout = UINT32_MAX;

	s->last = s->polled;
	s->nlast = s->npolled;
	s->polled = swap;
	s->npolled = 0;
	s->round++;
	slirp_pollfds_fill(s->slirp, &timeout, add_poll, s);
	/* An error or hang-up of what nobody waits for must not wake us. */
	for (size_t i = 0; i < s->nlast; i++)
		if (s->watch[s->last[i].fd].round != s->round)
			forget(s->last[i].fd, s);
	event_set_timer(s->timer,
	    timeout == UINT32_MAX ? 0 : event_now_ns() + (timeout + 1) * MS);
}

static int get_revents(int index, void *arg)
{
	struct slirp_net *s = arg;
	int revents;

	if (index < 0 || (size_t)index >= s->npolled)
		return 0;
	revents = s->polled[index].revents;
	s->polled[index].revents = 0;
	return revents;
}

static void poll_library(struct slirp_net *s)
{
	s->polled_ns = event_now_ns();
	slirp_pollfds_poll(s->slirp, 0, get_revents, s);
}

static void on_ready(void *arg, uint32_t events)
{
	struct slirp_net *s = arg;
	struct epoll_event ee[BATCH];
	int n = epoll_wait(s->epoll, ee, BATCH, 0);

	(void)events;
	for (int i = 0; i < n; i++) {
		const struct watch *w = &s->watch[ee[i].data.fd];

		if (w->events != 0 && w->round == s->round)
			s->polled[w->index].revents = from_epoll(ee[i].events);
	}
	poll_library(s);
	refill(s);
	deliver(s);
}

static void on_time(void *arg)
{
	struct slirp_net *s = arg;

	poll_library(s);
	refill(s);
	deliver(s);
}

static int64_t clock_ns(void *arg)
{
	(void)arg;
	return (int64_t)event_now_ns();
}

static void guest_error(const char *text, void *arg)
{
	const struct slirp_net *s = arg;

	log_debug("%s: slirp: %s", s->net.name, text);
}

static void timer_fire(void *arg)
{
	struct slirp_timer *t = arg;

	t->cb(t->arg);
}

static void *timer_new(SlirpTimerCb cb, void *cb_arg, void *arg)
{
	struct slirp_net *s = arg;
	struct slirp_timer *t = malloc(sizeof(*t));

	if (t == NULL)
		return NULL;
	*t = (struct slirp_timer){ .cb = cb, .arg = cb_arg };
	t->event = event_add_timer(s->loop, timer_fire, t);
	if (t->event == NULL) {
		free(t);
		return NULL;
	}
	return t;
}

static void timer_free(void *timer, void *arg)
{
	struct slirp_timer *t = timer;

	(void)arg;
	if (t == NULL)
		return;
	event_del(t->event);
	free(t);
}

static void timer_mod(void *timer, int64_t when_ms, void *arg)
{
	const struct slirp_timer *t = timer;

	(void)arg;
	if (t != NULL)
		event_set_timer(t->event, (uint64_t)when_ms * MS);
}

static void notify(void *arg)
{
	(void)arg; /* every call into the library is followed by refill() */
}

static const SlirpCb callbacks = {
	.send_packet = send_packet,
	.guest_error = guest_error,
	.clock_get_ns = clock_ns,
	.timer_new = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_mod,
	.register_poll_fd = forget, /* a number that came back */
	.unregister_poll_fd = forget,
	.notify = notify,
};

/* From the guest. */

/* A fragment of an IPv4 packet beyond what may wait in the library. */
static bool too_many_fragments(struct slirp_net *s, size_t len)
{
	const uint8_t *p = s->frame;
	uint64_t now;

	if (len < NET_FRAME_MIN + 20 || p[12] != 0x08 || p[13] != 0 ||
	    ((p[20] & 0x3f) | p[21]) == 0)
		return false;
	now = event_now_ns();
	if (now - s->frag_ns > FRAG_NS) {
		s->frag_ns = now;
		s->frag_bytes = 0;
	}
	s->frag_bytes += len + FRAG_COST;
	return s->frag_bytes > FRAG_BYTES;
}

static int do_send(struct net *net, const struct iovec *iov, int niov)
{
	struct slirp_net *s = of(net);
	struct net_hdr hdr;
	size_t len = 0;

	memcpy(&hdr, iov[0].iov_base, NET_HDR_LEN);
	for (int i = 0; i < niov; i++) {
		size_t skip = i == 0 ? NET_HDR_LEN : 0;
		size_t n = iov[i].iov_len - skip;

		if (n > sizeof(s->frame) - len)
			return -EMSGSIZE;
		memcpy(s->frame + len, (uint8_t *)iov[i].iov_base + skip, n);
		len += n;
	}
	if (len < NET_FRAME_MIN || !net_checksum(&hdr, s->frame, len) ||
	    too_many_fragments(s, len))
		return -EINVAL;
	/* Else a connection made after a quiet time is born expired. */
	if (event_now_ns() - s->polled_ns > STALE_NS)
		poll_library(s);
	slirp_input(s->slirp, s->frame, (int)len);
	return 0;
}

static void do_flush(struct net *net)
{
	struct slirp_net *s = of(net);

	refill(s);
	deliver(s);
}

/* Opening. */

/* Whether the address can be had: the library would not say why, or share it. */
static int probe(const struct net_hostfwd *fwd)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET,
		.sin_port = htons(fwd->host_port),
		.sin_addr.s_addr = fwd->host,
	};
	int fd, one = 1, error = 0;

	fd = socket(AF_INET, (fwd->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!fwd->udp)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) != 0)
		error = -errno;
	close(fd);
	return error;
}

static int say_taken(const char *node, const char *text, int len,
    const struct net_hostfwd *fwd, int error)
{
	char cure[160];

	switch (error) {
	case -EADDRINUSE:
		snprintf(cure, sizeof(cure),
		    "port %u is taken by another program, which \"ss -l%snp sport = "
		    ":%u\" names; choose another port",
		    fwd->host_port, fwd->udp ? "u" : "t", fwd->host_port);
		break;
	case -EACCES:
		snprintf(cure, sizeof(cure),
		    "only root may listen on port %u; choose a port from 1024 on",
		    fwd->host_port);
		break;
	case -EADDRNOTAVAIL:
		snprintf(cure, sizeof(cure),
		    "the host's address is not one of this host, which \"ip addr\" "
		    "lists");
		break;
	default:
		snprintf(cure, sizeof(cure), "%s", strerror(-error));
		break;
	}
	log_error("%s: hostfwd=%.*s: %s", node, len, text, cure);
	return error;
}

static int add_hostfwd(struct slirp_net *s, const char *node, const char *text, int len)
{
	struct net_hostfwd fwd;
	const char *why = net_hostfwd_parse(text, (size_t)len, &fwd);
	struct in_addr host, guest;
	int error;

	if (why != NULL) {
		log_error("%s: hostfwd=%.*s: %s; the form is "
			  "proto:haddr:hport-gaddr:gport, as in "
			  "tcp:127.0.0.1:2222-10.0.2.15:22",
		    node, len, text, why);
		return -EINVAL;
	}
	error = probe(&fwd);
	if (error != 0)
		return say_taken(node, text, len, &fwd, error);
	host.s_addr = fwd.host;
	guest.s_addr = fwd.guest;
	errno = EADDRINUSE;
	if (slirp_add_hostfwd(s->slirp, fwd.udp, host, fwd.host_port, guest,
		fwd.guest_port) != 0)
		return say_taken(node, text, len, &fwd, -errno);
	return 0;
}

static int add_hostfwds(struct slirp_net *s, const struct config *cfg, const char *node)
{
	const char *text = config_getf(cfg, "%s.hostfwd", node);
	int error = 0;

	while (error == 0 && text != NULL && *text != '\0') {
		size_t len = strcspn(text, ";");

		error = add_hostfwd(s, node, text, (int)MIN(len, (size_t)1000));
		text += len;
		text += *text == ';';
	}
	return error;
}

static void do_close(struct net *net)
{
	struct slirp_net *s = of(net);

	if (s->slirp != NULL)
		slirp_cleanup(s->slirp);
	event_del(s->ready);
	event_del(s->timer);
	if (s->epoll >= 0)
		close(s->epoll);
	free(s->watch);
	free(s->polled);
	free(s->last);
	free(s->ring);
	free(s);
}

static void raise_file_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur >= FILES)
		return;
	r.rlim_cur = MIN(r.rlim_max, (rlim_t)FILES);
	setrlimit(RLIMIT_NOFILE, &r);
}

static int start(struct slirp_net *s, unsigned mtu, bool open)
{
	SlirpConfig config = {
		.version = 4,
		.restricted = !open,
		.in_enabled = true,
		.vnetwork.s_addr = htonl(NETWORK),
		.vnetmask.s_addr = htonl(0xffffff00),
		.vhost.s_addr = htonl(NETWORK + 2),
		.vnameserver.s_addr = htonl(NETWORK + 3),
		.vdhcp_start.s_addr = htonl(NETWORK + 15),
		.vhostname = "slirp",
		.if_mtu = MIN(mtu, MTU_MAX),
		.if_mru = MIN(mtu, MTU_MAX),
	};

	s->ring = malloc(RING);
	if (s->ring == NULL)
		return -ENOMEM;
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll < 0)
		return -errno;
	s->timer = event_add_timer(s->loop, on_time, s);
	s->ready = event_add_fd(s->loop, s->epoll, EPOLLIN, on_ready, s);
	if (s->timer == NULL || s->ready == NULL)
		return -ENOMEM;
	s->slirp = slirp_new(&config, &callbacks, s);
	return s->slirp != NULL ? 0 : -ENOMEM;
}

static int do_open(struct net **net, struct event_loop *loop, const struct config *cfg,
    const char *node, const char *backend, unsigned mtu)
{
	struct slirp_net *s;
	char key[64];
	bool open;
	int error;

	(void)backend;
	snprintf(key, sizeof(key), "%s.open", node);
	if (config_get_bool(cfg, key, false, &open) != 0)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -ENOMEM;
	s->loop = loop;
	s->epoll = -1;
	s->net.send_offloads = NET_CSUM | NET_TSO4 | NET_ECN;
	s->net.recv_offloads = NET_CSUM;
	raise_file_limit();
	error = start(s, mtu, open);
	if (error != 0)
		log_error("%s: cannot start slirp: %s", node, strerror(-error));
	else
		error = add_hostfwds(s, cfg, node);
	if (error != 0) {
		do_close(&s->net);
		return error;
	}
	refill(s);
	*net = &s->net;
	return 0;
}

static const struct net_ops slirp = {
	.names = { "slirp" },
	.open = do_open,
	.close = do_close,
	.send = do_send,
	.flush = do_flush,
	.recv = do_recv,
	.listen = do_listen,
	.offload = do_offload,
};
NET_BACKEND(slirp);
