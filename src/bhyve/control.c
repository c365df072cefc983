/*
 * The control socket's server.
 *
 * Invariants: a line is at most CONTROL_LINE_MAX bytes, an answer at most
 * CONTROL_ANSWER_MAX; a client's next command is read only after its answer was
 * taken, so a slow client costs one answer of memory and nobody's time; when all
 * places are taken the client idle for longest makes room.
 */
#include "bhyve/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/config.h"
#include "lib/event.h"
#include "lib/log.h"
#include "lib/size.h"
#include "lib/util.h"
#include "vmm/bus.h"
#include "vmm/chipset/chipset.h"
#include "vmm/control.h"
#include "vmm/machine.h"

#define CLIENTS     8
#define ARGS        4
#define NVRAM_BYTES 128

struct client {
	struct control *c;
	int fd; /* -1: free */
	struct event *ev;
	uint64_t last_ns;
	size_t in_len;
	char in[CONTROL_LINE_MAX];
	char *out; /* CONTROL_ANSWER_MAX bytes */
	size_t out_len, out_sent;
};

struct control {
	struct machine *m;
	char name[256];
	int fd;
	struct event *ev;
	struct client client[CLIENTS];
};

__attribute__((format(printf, 2, 3))) static void say(
    struct client *cl, const char *fmt, ...)
{
	/* Two bytes are kept for the closing ".\n". */
	size_t room = CONTROL_ANSWER_MAX - 2 - cl->out_len;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(cl->out + cl->out_len, room, fmt, ap);
	va_end(ap);
	if (n > 0 && (size_t)n < room)
		cl->out_len += (size_t)n;
}

static void end_answer(struct client *cl)
{
	memcpy(cl->out + cl->out_len, ".\n", 2);
	cl->out_len += 2;
}

static void drop(struct client *cl)
{
	event_del(cl->ev);
	cl->ev = NULL;
	if (cl->fd >= 0)
		close(cl->fd);
	cl->fd = -1;
	free(cl->out);
	cl->out = NULL;
}

/* Sends what the socket takes now. False: the client is gone. */
static bool push(struct client *cl)
{
	while (cl->out_sent < cl->out_len) {
		ssize_t n = send(cl->fd, cl->out + cl->out_sent,
		    cl->out_len - cl->out_sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			event_set_fd(cl->ev, EPOLLOUT);
			return true;
		}
		if (n < 0) {
			drop(cl);
			return false;
		}
		cl->out_sent += (size_t)n;
	}
	cl->out_len = cl->out_sent = 0;
	event_set_fd(cl->ev, EPOLLIN);
	return true;
}

/* Commands: argv[0] is the command, missing arguments are NULL. */

static struct vcpu *get_vcpu(struct client *cl, const char *arg)
{
	struct machine *m = cl->c->m;
	uint64_t n;

	if (arg != NULL && number_parse(arg, 0, m->ncpu - 1, &n) == 0)
		return &m->vcpu[n];
	say(cl, "error no such CPU; this VM has CPUs 0 to %u\n", m->ncpu - 1);
	return NULL;
}

static void cmd_info(struct client *cl, char **argv)
{
	struct machine *m = cl->c->m;

	(void)argv;
	say(cl, "ok\n");
	say(cl, "name=%s\npid=%ld\nengine=%s\n", cl->c->name, (long)getpid(),
	    m->ops->name);
	say(cl, "cpus=%u\nsockets=%u\ncores=%u\nthreads=%u\n", m->ncpu, m->sockets,
	    m->cores, m->threads);
	say(cl, "lowmem=%llu\nhighmem=%llu\n", (unsigned long long)m->mem.low,
	    (unsigned long long)m->mem.high);
	say(cl, "tsc_hz=%llu\nuptime_ns=%llu\n", (unsigned long long)m->tsc_hz,
	    (unsigned long long)(event_now_ns() - m->start_ns));
}

static void say_stat(void *arg, const char *name, uint64_t value)
{
	say(arg, "%s %llu\n", name, (unsigned long long)value);
}

static void cmd_stats(struct client *cl, char **argv)
{
	struct machine *m = cl->c->m;
	struct vcpu *v = get_vcpu(cl, argv[1]);
	struct bus_stats io, mmio;

	if (v == NULL)
		return;
	say(cl, "ok\n");
	say_stat(cl, "hlt instructions", v->stats.halts);
	say_stat(cl, "ns the vcpu was idle", v->stats.idle_ns);
	say_stat(cl, "interrupts delivered", v->stats.intr);
	say_stat(cl, "NMIs delivered", v->stats.nmi);
	say_stat(cl, "IPIs sent", v->stats.ipis);
	say_stat(cl, "port reads", v->stats.io_reads);
	say_stat(cl, "port writes", v->stats.io_writes);
	say_stat(cl, "MMIO reads", v->stats.mmio_reads);
	say_stat(cl, "MMIO writes", v->stats.mmio_writes);
	say_stat(cl, "machine MSR reads", v->stats.msr_reads);
	say_stat(cl, "machine MSR writes", v->stats.msr_writes);
	if (m->ops->stats != NULL)
		m->ops->stats(v->engine, say_stat, cl);
	bus_get_stats(m->io, &io);
	bus_get_stats(m->mmio, &mmio);
	say_stat(cl, "VM: port reads", io.reads);
	say_stat(cl, "VM: port writes", io.writes);
	say_stat(cl, "VM: port accesses to nothing", io.unclaimed);
	say_stat(cl, "VM: MMIO reads", mmio.reads);
	say_stat(cl, "VM: MMIO writes", mmio.writes);
	say_stat(cl, "VM: MMIO accesses to nothing", mmio.unclaimed);
	say_stat(cl, "VM: ns since start", event_now_ns() - m->start_ns);
}

/* All vCPUs stand still between these; a vCPU may need the lock to get there. */
static void hold(struct machine *m)
{
	pthread_mutex_unlock(&m->lock);
	machine_pause(m);
	pthread_mutex_lock(&m->lock);
}

static void let_go(struct machine *m)
{
	pthread_mutex_unlock(&m->lock);
	machine_resume(m);
	pthread_mutex_lock(&m->lock);
}

static void cmd_get_state(struct client *cl, char **argv)
{
	struct vcpu *v = get_vcpu(cl, argv[1]);
	struct vcpu_state state;
	const uint8_t *p = (const uint8_t *)&state;

	if (v == NULL)
		return;
	memset(&state, 0, sizeof(state));
	hold(cl->c->m);
	vcpu_get_state(v, &state);
	let_go(cl->c->m);
	say(cl, "ok\n");
	for (size_t i = 0; i < sizeof(state); i++)
		say(cl, "%02x", p[i]);
	say(cl, "\n");
}

static void cmd_set_field(struct client *cl, char **argv)
{
	struct vcpu *v = get_vcpu(cl, argv[1]);
	const struct control_field *f;
	struct vcpu_state state;
	uint64_t value;
	int error;

	if (v == NULL)
		return;
	f = argv[2] != NULL ? control_field(argv[2]) : NULL;
	if (f == NULL || argv[3] == NULL ||
	    number_parse(argv[3], 0, UINT64_MAX, &value) != 0) {
		say(cl, "error set-field needs CPU, register and number\n");
		return;
	}
	hold(cl->c->m);
	vcpu_get_state(v, &state);
	error = control_field_set(&state, f, value);
	if (error == 0)
		error = vcpu_set_state(v, &state);
	let_go(cl->c->m);
	if (error == -ERANGE)
		say(cl, "error %s has %u bits only\n", f->name, 8u * f->size);
	else if (error != 0)
		say(cl, "error no CPU can be in that state\n");
	else
		say(cl, "ok\n");
}

static void cmd_inject_nmi(struct client *cl, char **argv)
{
	struct vcpu *v = get_vcpu(cl, argv[1]);

	if (v == NULL)
		return;
	vcpu_notify(v, EV_NMI);
	say(cl, "ok\n");
}

static void cmd_assert_lvt(struct client *cl, char **argv)
{
	struct vcpu *v = get_vcpu(cl, argv[1]);
	uint64_t lint;

	if (v == NULL)
		return;
	if (argv[2] == NULL || number_parse(argv[2], 0, 1, &lint) != 0) {
		say(cl, "error a local APIC has the inputs LINT0 and LINT1: use 0 "
			"or 1\n");
		return;
	}
	lapic_assert_lint(v->lapic, (unsigned)lint);
	say(cl, "ok\n");
}

/* The loop may end before it could send: the answer goes out first. */
static void suspend(struct client *cl, enum suspend_reason why)
{
	struct machine *m = cl->c->m;

	say(cl, "ok\n");
	end_answer(cl);
	push(cl);
	machine_suspend(m, why);
}

static void cmd_reset(struct client *cl, char **argv)
{
	(void)argv;
	suspend(cl, SUSPEND_RESET);
}

static void cmd_poweroff(struct client *cl, char **argv)
{
	(void)argv;
	suspend(cl, SUSPEND_POWEROFF);
}

static void cmd_destroy(struct client *cl, char **argv)
{
	(void)argv;
	suspend(cl, SUSPEND_DESTROY);
}

static void cmd_power_button(struct client *cl, char **argv)
{
	(void)argv;
	if (pm_power_button(cl->c->m->pm))
		say(cl, "ok\n");
	else
		say(cl, "error the guest has not enabled ACPI\n");
}

static void cmd_rtc_get(struct client *cl, char **argv)
{
	(void)argv;
	say(cl, "ok\n%lld\n", (long long)rtc_time_get(cl->c->m->rtc));
}

static void cmd_rtc_set(struct client *cl, char **argv)
{
	uint64_t secs;

	if (argv[1] == NULL ||
	    number_parse(argv[1], 0, INT64_C(253402300799), &secs) != 0) {
		say(cl, "error not a time in seconds since 1970\n");
		return;
	}
	rtc_time_set(cl->c->m->rtc, (int64_t)secs);
	say(cl, "ok\n");
}

static bool nvram_offset(struct client *cl, const char *arg, unsigned *offset)
{
	uint64_t n;

	if (arg == NULL || number_parse(arg, 0, NVRAM_BYTES - 1, &n) != 0) {
		say(cl, "error not an offset from 0 to %d\n", NVRAM_BYTES - 1);
		return false;
	}
	*offset = (unsigned)n;
	return true;
}

static void cmd_nvram_get(struct client *cl, char **argv)
{
	unsigned offset;
	uint8_t v;

	if (!nvram_offset(cl, argv[1], &offset))
		return;
	if (rtc_nvram_read(cl->c->m->rtc, offset, &v) == 0)
		say(cl, "ok\n%u\n", v);
	else
		say(cl, "error offset %u is a register of the clock\n", offset);
}

static void cmd_nvram_set(struct client *cl, char **argv)
{
	unsigned offset;
	uint64_t v;

	if (!nvram_offset(cl, argv[1], &offset))
		return;
	if (argv[2] == NULL || number_parse(argv[2], 0, 255, &v) != 0)
		say(cl, "error not a byte\n");
	else if (rtc_nvram_write(cl->c->m->rtc, offset, (uint8_t)v) == 0)
		say(cl, "ok\n");
	else
		say(cl, "error offset %u is a register of the clock\n", offset);
}

static const struct {
	const char *name;
	void (*run)(struct client *cl, char **argv);
	bool answered; /* ends its answer itself */
} commands[] = {
	{ "assert-lvt", cmd_assert_lvt, false },
	{ "destroy", cmd_destroy, true },
	{ "get-state", cmd_get_state, false },
	{ "info", cmd_info, false },
	{ "inject-nmi", cmd_inject_nmi, false },
	{ "nvram-get", cmd_nvram_get, false },
	{ "nvram-set", cmd_nvram_set, false },
	{ "power-button", cmd_power_button, false },
	{ "poweroff", cmd_poweroff, true },
	{ "reset", cmd_reset, true },
	{ "rtc-get", cmd_rtc_get, false },
	{ "rtc-set", cmd_rtc_set, false },
	{ "set-field", cmd_set_field, false },
	{ "stats", cmd_stats, false },
};

static void execute(struct client *cl, char *line)
{
	char *argv[ARGS + 1] = { NULL };
	size_t n = 0;
	char *word;

	while (n < ARGS && (word = strsep(&line, " ")) != NULL) {
		if (*word != '\0')
			argv[n++] = word;
	}
	for (size_t i = 0; argv[0] != NULL && i < ARRAY_SIZE(commands); i++) {
		if (strcmp(argv[0], commands[i].name) != 0)
			continue;
		commands[i].run(cl, argv);
		if (commands[i].answered)
			return;
		goto end;
	}
	say(cl, "error no such command\n");
end:
	end_answer(cl);
	push(cl);
}

/* Runs the lines that are there, one answer at a time. */
static void serve(struct client *cl)
{
	while (cl->fd >= 0 && cl->out_len == 0) {
		char line[CONTROL_LINE_MAX];
		char *end = memchr(cl->in, '\n', cl->in_len);
		size_t len;

		if (end == NULL && cl->in_len < sizeof(cl->in))
			return;
		if (end == NULL) {
			drop(cl); /* no command is that long */
			return;
		}
		len = (size_t)(end - cl->in);
		memcpy(line, cl->in, len);
		line[len] = '\0';
		cl->in_len -= len + 1;
		memmove(cl->in, end + 1, cl->in_len);
		execute(cl, line);
	}
}

static void on_client(void *arg, uint32_t events)
{
	struct client *cl = arg;
	ssize_t n;

	cl->last_ns = event_now_ns();
	if (cl->out_len > 0) {
		if (!push(cl) || cl->out_len > 0)
			return;
	} else {
		(void)events;
		n = recv(cl->fd, cl->in + cl->in_len, sizeof(cl->in) - cl->in_len,
		    MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			drop(cl);
			return;
		}
		cl->in_len += (size_t)n;
	}
	serve(cl);
}

static struct client *free_place(struct control *c)
{
	struct client *oldest = &c->client[0];

	for (size_t i = 0; i < CLIENTS; i++) {
		if (c->client[i].fd < 0)
			return &c->client[i];
		if (c->client[i].last_ns < oldest->last_ns)
			oldest = &c->client[i];
	}
	drop(oldest);
	return oldest;
}

static void on_connect(void *arg, uint32_t events)
{
	struct control *c = arg;
	struct client *cl;
	int fd = accept4(c->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return;
	cl = free_place(c);
	*cl = (struct client){ .c = c, .fd = fd, .last_ns = event_now_ns() };
	cl->out = malloc(CONTROL_ANSWER_MAX);
	cl->ev = event_add_fd(c->m->loop, fd, EPOLLIN, on_client, cl);
	if (cl->out == NULL || cl->ev == NULL)
		drop(cl);
}

static int open_socket(struct control *c)
{
	struct sockaddr_un address;
	socklen_t len;
	int dirfd, error = control_address(c->name, &address, &len, &dirfd);

	if (error != 0)
		return error;
	/* We hold the VM's lock: a socket that is there is a dead process's. */
	unlink(address.sun_path);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || fchmod(c->fd, 0600) != 0 ||
	    bind(c->fd, (struct sockaddr *)&address, len) != 0 ||
	    listen(c->fd, 4) != 0)
		error = -errno;
	if (dirfd >= 0)
		close(dirfd);
	return error;
}

int control_create(struct control **out, struct machine *m, const char *name)
{
	struct control *c = calloc(1, sizeof(*c));
	int error;

	if (c == NULL)
		return -ENOMEM;
	c->m = m;
	c->fd = -1;
	for (size_t i = 0; i < CLIENTS; i++)
		c->client[i].fd = -1;
	snprintf(c->name, sizeof(c->name), "%s", name);
	error = open_socket(c);
	if (error == 0) {
		c->ev = event_add_fd(m->loop, c->fd, EPOLLIN, on_connect, c);
		error = c->ev == NULL ? -ENOMEM : 0;
	}
	if (error != 0) {
		log_error("%s: cannot make the control socket for bhyvectl: %s",
		    name, strerror(-error));
		control_destroy(c);
		return error;
	}
	*out = c;
	return 0;
}

void control_destroy(struct control *c)
{
	struct sockaddr_un address;
	socklen_t len;
	int dirfd;

	if (c == NULL)
		return;
	for (size_t i = 0; i < CLIENTS; i++)
		drop(&c->client[i]);
	event_del(c->ev);
	if (c->fd >= 0) {
		close(c->fd);
		if (control_address(c->name, &address, &len, &dirfd) == 0) {
			unlink(address.sun_path);
			if (dirfd >= 0)
				close(dirfd);
		}
	}
	free(c);
}
