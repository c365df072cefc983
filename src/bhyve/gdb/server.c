/*
 * The socket of -G, and the machine as the target of protocol.c.
 *
 * Output is kept until the client takes it, and no input is read meanwhile: neither
 * can grow. While the client holds the guest (held) one machine_pause() is ours;
 * others, of bhyvectl, nest inside.
 */
#include "bhyve/gdb/server.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bhyve/gdb/packet.h"
#include "bhyve/gdb/protocol.h"
#include "lib/config.h"
#include "lib/event.h"
#include "lib/log.h"
#include "lib/tcp.h"
#include "vmm/bus.h"
#include "vmm/chipset/chipset.h"
#include "vmm/machine.h"

#define INPUT 4096u
/* One answer, a stop, and an acknowledgement for each four bytes of input. */
#define OUTPUT (GDB_FRAME_MAX(GDB_PACKET_MAX) + INPUT + 256)

struct gdb_server {
	struct machine *m;
	struct gdb *gdb;
	struct gdb_target target;
	int listen_fd, fd; /* -1: none */
	struct event *listen_ev, *ev;
	bool held;
	bool overflow;
	size_t in_len, out_len, out_sent;
	uint8_t in[INPUT];
	char out[OUTPUT];
};

/* The machine as a target. */

static void target_stop(void *arg)
{
	struct gdb_server *s = arg;

	/* A vCPU may need the lock to come to a boundary. */
	pthread_mutex_unlock(&s->m->lock);
	machine_pause(s->m);
	pthread_mutex_lock(&s->m->lock);
	if (s->held)
		machine_resume(s->m);
	s->held = true;
}

static void target_resume(void *arg, const enum vcpu_order *order)
{
	struct gdb_server *s = arg;

	for (unsigned i = 0; i < s->m->ncpu; i++)
		vcpu_order(&s->m->vcpu[i], order[i]);
	if (s->held)
		machine_resume(s->m);
	s->held = false;
}

static void target_kill(void *arg)
{
	struct gdb_server *s = arg;

	machine_suspend(s->m, SUSPEND_POWEROFF);
}

static bool target_stopped(
    void *arg, unsigned cpu, enum engine_point *kind, uint64_t *gla)
{
	struct gdb_server *s = arg;
	struct vcpu *v = &s->m->vcpu[cpu];

	if (!vcpu_stopped(v))
		return false;
	*kind = s->m->ops->stopped_at(v->engine, gla);
	return true;
}

static void target_read_regs(void *arg, unsigned cpu, struct vcpu_state *state)
{
	struct gdb_server *s = arg;

	vcpu_get_state(&s->m->vcpu[cpu], state);
}

static int target_write_regs(
    void *arg, unsigned cpu, const struct vcpu_state *state)
{
	struct gdb_server *s = arg;

	return vcpu_set_state(&s->m->vcpu[cpu], state);
}

/* One access to device memory. The LAPIC is its vCPU's own to write. */
static bool access_device(struct machine *m, unsigned cpu, uint64_t gpa,
    unsigned size, uint64_t *v, bool read)
{
	struct lapic *lapic = m->vcpu[cpu].lapic;

	if (lapic_claims(lapic, gpa)) {
		if (!read || size < 4)
			return false;
		*v = lapic_read(lapic, gpa & 0xfff);
		return true;
	}
	return read ? bus_read(m->mmio, (int)cpu, gpa, size, v)
		    : bus_write(m->mmio, (int)cpu, gpa, size, *v);
}

/* Device memory, in pieces as a CPU's accesses. How many bytes. */
static size_t mmio(struct machine *m, unsigned cpu, uint64_t gpa, uint8_t *buf,
    size_t len, bool read)
{
	size_t done = 0;

	/* Devices take the lock themselves; all vCPUs stand still. */
	pthread_mutex_unlock(&m->lock);
	while (done < len) {
		unsigned piece = 8;
		uint64_t v = 0;

		while (piece > len - done || (gpa + done) & (piece - 1))
			piece /= 2;
		if (!read)
			memcpy(&v, buf + done, piece);
		if (!access_device(m, cpu, gpa + done, piece, &v, read))
			break;
		if (read)
			memcpy(buf + done, &v, piece);
		done += piece;
	}
	pthread_mutex_lock(&m->lock);
	return done;
}

static size_t target_memory(
    void *arg, unsigned cpu, uint64_t gla, void *buf, size_t len, bool read)
{
	struct gdb_server *s = arg;
	struct machine *m = s->m;
	uint8_t *p = buf;
	size_t done = 0;

	while (done < len) {
		uint64_t at = gla + done, gpa;
		size_t n = MIN(len - done, MEMORY_PAGE - at % MEMORY_PAGE), got = n;

		if (m->ops->translate(m->vcpu[cpu].engine, at, &gpa) != 0)
			break;
		if (!memory_is_ram(&m->mem, gpa, n))
			got = mmio(m, cpu, gpa, p + done, n, read);
		else if (read)
			memory_read(&m->mem, gpa, p + done, n);
		else
			memory_write(&m->mem, gpa, p + done, n);
		done += got;
		if (got < n)
			break;
	}
	return done;
}

static int target_point(
    void *arg, enum engine_point kind, uint64_t gla, uint64_t len, bool set)
{
	struct gdb_server *s = arg;

	return s->m->ops->point(s->m->engine, kind, gla, len, set);
}

static void target_describe(void *arg, unsigned cpu, char *text, size_t size)
{
	static const char *const what[] = { [VCPU_RUNNING] = "", /* the rule */
		[VCPU_HALTED] = " (halted)",
		[VCPU_WAIT_SIPI] = " (not started)",
		[VCPU_SHUTDOWN] = " (shut down)" };
	struct gdb_server *s = arg;
	struct vcpu_state state;

	vcpu_get_state(&s->m->vcpu[cpu], &state);
	snprintf(text, size, "vCPU %u%s", cpu,
	    state.activity <= VCPU_SHUTDOWN ? what[state.activity] : "");
}

static void target_send(void *arg, const char *bytes, size_t len)
{
	struct gdb_server *s = arg;

	if (len > sizeof(s->out) - s->out_len) {
		s->overflow = true;
		return;
	}
	memcpy(s->out + s->out_len, bytes, len);
	s->out_len += len;
}

/* The client. */

static void drop(struct gdb_server *s)
{
	if (s->fd < 0)
		return;
	event_del(s->ev);
	s->ev = NULL;
	close(s->fd);
	s->fd = -1;
	gdb_detach(s->gdb);
}

/* Sends what the socket takes now. */
static void push(struct gdb_server *s)
{
	if (s->fd < 0)
		return;
	while (s->out_sent < s->out_len) {
		ssize_t n = send(s->fd, s->out + s->out_sent,
		    s->out_len - s->out_sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN && !s->overflow) {
			event_set_fd(s->ev, EPOLLOUT);
			return;
		}
		if (n < 0) {
			drop(s);
			return;
		}
		s->out_sent += (size_t)n;
	}
	s->out_len = s->out_sent = 0;
	if (s->overflow)
		drop(s);
	else
		event_set_fd(s->ev, EPOLLIN);
}

static void serve(struct gdb_server *s)
{
	push(s);
	while (s->fd >= 0 && s->in_len > 0 && s->out_len == 0) {
		size_t n = gdb_input(s->gdb, s->in, s->in_len);

		s->in_len -= n;
		memmove(s->in, s->in + n, s->in_len);
		push(s);
	}
}

static void on_client(void *arg, uint32_t events)
{
	struct gdb_server *s = arg;
	ssize_t n;

	(void)events;
	if (s->out_len == 0 && s->in_len == 0) {
		n = recv(s->fd, s->in, sizeof(s->in), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			drop(s);
			return;
		}
		s->in_len = (size_t)n;
	}
	serve(s);
}

static void on_stopped(void *arg)
{
	struct gdb_server *s = arg;

	if (s->fd < 0)
		return;
	gdb_target_stopped(s->gdb);
	push(s);
}

static void on_connect(void *arg, uint32_t events)
{
	struct gdb_server *s = arg;
	int fd = tcp_accept(s->listen_fd), one = 1;

	(void)events;
	if (fd < 0)
		return;
	if (s->fd >= 0 && (gdb_detached(s->gdb) || tcp_has_gone(s->fd)))
		drop(s);
	if (s->fd >= 0) {
		log_warn("-G: a second debugger was turned away");
		close(fd);
		return;
	}
	/* A client whose host is gone must not hold the guest for ever. */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	s->ev = event_add_fd(s->m->loop, fd, EPOLLIN, on_client, s);
	if (s->ev == NULL) {
		close(fd);
		return;
	}
	s->fd = fd;
	s->in_len = s->out_len = s->out_sent = 0;
	s->overflow = false;
	gdb_attach(s->gdb);
}

/* Creation. */

/* "[::1]" without its brackets. */
static void bare(const char *address, char *host, size_t size)
{
	size_t n = strlen(address);

	if (n > 1 && address[0] == '[' && address[n - 1] == ']')
		snprintf(host, size, "%.*s", (int)n - 2, address + 1);
	else
		snprintf(host, size, "%s", address);
}

static int listen_at(struct gdb_server *s, const char *address, unsigned port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICSERV };
	struct addrinfo *list, *ai;
	char host[256], number[8];
	int error;

	bare(address, host, sizeof(host));
	snprintf(number, sizeof(number), "%u", port);
	error = getaddrinfo(host, number, &hints, &list);
	if (error != 0) {
		log_error("-G: %s is not an address of this host: %s; use an "
			  "address, or leave it out for localhost",
		    address, gai_strerror(error));
		return -EINVAL;
	}
	/* "localhost" is two addresses, and bhyve's is that of IPv4. */
	for (ai = list; ai->ai_next != NULL && ai->ai_family != AF_INET;)
		ai = ai->ai_next;
	s->listen_fd = tcp_listen(ai->ai_family == AF_INET ? ai : list);
	freeaddrinfo(list);
	if (s->listen_fd == -EADDRINUSE)
		log_error("-G: port %u of %s is in use by another program; choose "
			  "another port",
		    port, address);
	else if (s->listen_fd < 0)
		log_error("-G: cannot listen on port %u of %s: %s", port, address,
		    strerror(-s->listen_fd));
	return s->listen_fd < 0 ? s->listen_fd : 0;
}

static int set_up(struct gdb_server *s, const char *address, unsigned port)
{
	struct machine *m = s->m;
	int error = machine_set_debugger(m, on_stopped, s);

	if (error != 0) {
		log_error("-G: the engine %s has no part for debuggers; use "
			  "engine=soft, or leave -G out",
		    m->ops->name);
		return error;
	}
	error = listen_at(s, address, port);
	if (error != 0)
		return error;
	s->gdb = gdb_new(&s->target);
	s->listen_ev = event_add_fd(m->loop, s->listen_fd, EPOLLIN, on_connect, s);
	if (s->gdb != NULL && s->listen_ev != NULL)
		return 0;
	log_error("-G: no memory for the debugger's port");
	return -ENOMEM;
}

int gdb_server_create(struct gdb_server **out, struct machine *m)
{
	const char *address = config_get(m->cfg, "gdb.address");
	struct gdb_server *s;
	uint64_t port;
	bool wait;
	int error;

	*out = NULL;
	if (config_get_num(m->cfg, "gdb.port", 0, 0, 65535, &port) != 0 ||
	    config_get_bool(m->cfg, "gdb.wait", false, &wait) != 0)
		return -EINVAL;
	if (port == 0)
		return 0;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -ENOMEM;
	s->m = m;
	s->fd = s->listen_fd = -1;
	s->target = (struct gdb_target){
		.arg = s,
		.ncpu = m->ncpu,
		.stop = target_stop,
		.resume = target_resume,
		.kill = target_kill,
		.stopped = target_stopped,
		.read_regs = target_read_regs,
		.write_regs = target_write_regs,
		.memory = target_memory,
		.point = target_point,
		.describe = target_describe,
		.send = target_send,
	};
	if (address == NULL)
		address = "127.0.0.1";
	error = set_up(s, address, (unsigned)port);
	if (error != 0) {
		gdb_server_destroy(s);
		return error;
	}
	if (wait) {
		/* Before their first instruction: no vCPU runs yet. */
		machine_pause(m);
		s->held = true;
		log_info("waiting for a debugger on port %u of %s", (unsigned)port,
		    address);
	}
	*out = s;
	return 0;
}

void gdb_server_destroy(struct gdb_server *s)
{
	if (s == NULL)
		return;
	if (s->fd >= 0) {
		event_del(s->ev);
		close(s->fd);
	}
	event_del(s->listen_ev);
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	gdb_free(s->gdb);
	free(s);
}
