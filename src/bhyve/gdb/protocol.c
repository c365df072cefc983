/* See protocol.h; packets are those of the GDB manual, "Remote Protocol". */
#include "bhyve/gdb/protocol.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bhyve/gdb/packet.h"
#include "bhyve/gdb/regs.h"
#include "lib/util.h"

#define SIGNAL_INT  2
#define SIGNAL_TRAP 5
#define POINTS      256
#define ALL         (-1) /* a thread id of its own */
#define ANY         0

struct set_point {
	enum engine_point kind;
	uint8_t type; /* of Z: 0 software, 1 hardware */
	uint64_t gla, len;
};

struct gdb {
	const struct gdb_target *t;
	bool running, detached;
	bool no_ack;
	bool says_swbreak, says_hwbreak; /* the client knows these reasons */
	bool answered;
	unsigned cpu;    /* what registers and memory are of */
	int step_thread; /* of the old "c" and "s" */
	unsigned npoints;
	struct set_point point[POINTS];
	char *xml;
	char last_stop[80];
	struct gdb_parser in;
	size_t reply_len, frame_len;
	char reply[GDB_PACKET_MAX + 1];
	char frame[GDB_FRAME_MAX(GDB_PACKET_MAX)];
};

/* Answers. */

static void reply_bytes(struct gdb *g, const char *bytes, size_t len)
{
	len = MIN(len, sizeof(g->reply) - 1 - g->reply_len);
	memcpy(g->reply + g->reply_len, bytes, len);
	g->reply_len += len;
}

__attribute__((format(printf, 2, 3))) static void reply(
    struct gdb *g, const char *fmt, ...)
{
	size_t room = sizeof(g->reply) - g->reply_len;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(g->reply + g->reply_len, room, fmt, ap);
	va_end(ap);
	if (n > 0)
		g->reply_len += MIN((size_t)n, room - 1);
}

static void reply_hex(struct gdb *g, const void *bytes, size_t len)
{
	if (2 * len > sizeof(g->reply) - 1 - g->reply_len)
		return;
	gdb_hex_encode(g->reply + g->reply_len, bytes, len);
	g->reply_len += 2 * len;
}

static void reply_error(struct gdb *g, int error)
{
	g->reply_len = 0;
	reply(g, "E%02x", (unsigned)-error & 0xff);
}

static void reply_status(struct gdb *g, int error)
{
	if (error != 0)
		reply_error(g, error);
	else
		reply(g, "OK");
}

static void send_reply(struct gdb *g)
{
	g->frame_len = gdb_frame(g->frame, g->reply, g->reply_len);
	g->reply_len = 0;
	g->answered = true;
	g->t->send(g->t->arg, g->frame, g->frame_len);
}

/* Threads. */

/* "-1", or a number; false: not one of our threads. */
static bool parse_thread(const struct gdb *g, const char **p, int *thread)
{
	uint64_t n;

	if (strncmp(*p, "-1", 2) == 0) {
		*p += 2;
		*thread = ALL;
		return true;
	}
	if (!gdb_hex_number(p, &n) || n > g->t->ncpu)
		return false;
	*thread = (int)n;
	return true;
}

static void set_thread(struct gdb *g, const char *p)
{
	char op = *p++;
	int thread;

	if (op == '\0' || !parse_thread(g, &p, &thread) || *p != '\0') {
		reply_error(g, -ESRCH);
		return;
	}
	if (op == 'c')
		g->step_thread = thread;
	else if (op != 'g')
		return; /* unknown: an empty answer */
	else if (thread > 0)
		g->cpu = (unsigned)thread - 1;
	reply(g, "OK");
}

static void thread_alive(struct gdb *g, const char *p)
{
	int thread;

	reply_status(g,
	    parse_thread(g, &p, &thread) && *p == '\0' && thread > 0 ? 0 : -ESRCH);
}

static void thread_list(struct gdb *g)
{
	reply(g, "m");
	for (unsigned i = 0; i < g->t->ncpu; i++)
		reply(g, "%s%x", i == 0 ? "" : ",", i + 1);
}

static void thread_info(struct gdb *g, const char *p)
{
	char text[64] = "";
	int thread;

	if (!parse_thread(g, &p, &thread) || *p != '\0' || thread <= 0) {
		reply_error(g, -ESRCH);
		return;
	}
	g->t->describe(g->t->arg, (unsigned)thread - 1, text, sizeof(text));
	reply_hex(g, text, strlen(text));
}

/* Stops. */

static void note_stop(struct gdb *g, unsigned cpu, unsigned signal,
    enum engine_point kind, uint64_t gla)
{
	static const char *const watch[] = { [POINT_WRITE] = "watch",
		[POINT_READ] = "rwatch",
		[POINT_ACCESS] = "awatch" };
	char why[40] = "";
	bool software = false;

	for (unsigned i = 0; kind == POINT_EXECUTE && i < g->npoints; i++)
		if (g->point[i].kind == kind && g->point[i].gla == gla)
			software |= g->point[i].type == 0;
	if (kind == POINT_EXECUTE && software && g->says_swbreak)
		snprintf(why, sizeof(why), "swbreak:;");
	else if (kind == POINT_EXECUTE && !software && g->says_hwbreak)
		snprintf(why, sizeof(why), "hwbreak:;");
	else if (kind != POINT_EXECUTE && kind != POINT_NONE)
		snprintf(why, sizeof(why), "%s:%llx;", watch[kind],
		    (unsigned long long)gla);
	snprintf(g->last_stop, sizeof(g->last_stop), "T%02xthread:%x;%s", signal,
	    cpu + 1, why);
	g->cpu = cpu;
}

/* The vCPU that stopped by itself, the current one first. -1: none. */
static int who_stopped(struct gdb *g, enum engine_point *kind, uint64_t *gla)
{
	for (unsigned i = 0; i < g->t->ncpu; i++) {
		unsigned cpu = (g->cpu + i) % g->t->ncpu;

		if (g->t->stopped(g->t->arg, cpu, kind, gla))
			return (int)cpu;
	}
	return -1;
}

static void stop_running(struct gdb *g, bool asked)
{
	enum engine_point kind = POINT_NONE;
	uint64_t gla = 0;
	int cpu;

	g->t->stop(g->t->arg);
	g->running = false;
	cpu = who_stopped(g, &kind, &gla);
	if (cpu >= 0)
		note_stop(g, (unsigned)cpu, SIGNAL_TRAP, kind, gla);
	else
		note_stop(
		    g, g->cpu, asked ? SIGNAL_INT : SIGNAL_TRAP, POINT_NONE, 0);
	g->reply_len = 0;
	reply(g, "%s", g->last_stop);
	send_reply(g);
}

void gdb_target_stopped(struct gdb *g)
{
	enum engine_point kind;
	uint64_t gla;

	if (!g->running || g->detached || who_stopped(g, &kind, &gla) < 0)
		return;
	stop_running(g, false);
}

/* Going on. */

static void resume(struct gdb *g, const enum vcpu_order *order)
{
	g->running = true;
	g->t->resume(g->t->arg, order);
}

static void resume_all(struct gdb *g)
{
	enum vcpu_order order[MACHINE_MAX_CPUS];

	for (unsigned i = 0; i < g->t->ncpu; i++)
		order[i] = VCPU_GO;
	resume(g, order);
}

/* "c", "s", "Csig", "Ssig": all go on; one thread steps and the others wait. */
static void resume_old(struct gdb *g, const char *p)
{
	enum vcpu_order order[MACHINE_MAX_CPUS] = { VCPU_STAY };
	uint64_t signal;
	char op = *p++;

	/* A guest has no signals; where to go on is said by writing RIP. */
	if ((op == 'C' || op == 'S') && !gdb_hex_number(&p, &signal))
		op = 0;
	if (op == 0 || *p != '\0') {
		reply_error(g, -EINVAL);
		return;
	}
	if (op == 's' || op == 'S')
		order[g->step_thread > 0 ? (unsigned)g->step_thread - 1 : g->cpu] =
		    VCPU_STEP;
	else if (g->step_thread > 0)
		order[g->step_thread - 1] = VCPU_GO;
	else
		for (unsigned i = 0; i < g->t->ncpu; i++)
			order[i] = VCPU_GO;
	resume(g, order);
}

/* One "action[:thread]"; false: not one. */
static bool parse_action(
    const struct gdb *g, const char **p, enum vcpu_order *order, int *thread)
{
	char op = *(*p)++;
	uint64_t signal;

	switch (op) {
	case 'C':
	case 'S':
		if (!gdb_hex_number(p, &signal))
			return false;
		break;
	case 'c':
	case 's':
		break;
	default:
		return false;
	}
	*order = op == 'c' || op == 'C' ? VCPU_GO : VCPU_STEP;
	*thread = ALL;
	if (**p != ':')
		return true;
	(*p)++;
	return parse_thread(g, p, thread);
}

/* ";action;action...": the first that fits a thread is the thread's. */
static void resume_by_thread(struct gdb *g, const char *p)
{
	enum vcpu_order order[MACHINE_MAX_CPUS] = { VCPU_STAY }, what;
	bool any = false;
	int thread;

	while (*p == ';') {
		p++;
		if (!parse_action(g, &p, &what, &thread)) {
			reply_error(g, -EINVAL);
			return;
		}
		if (thread == ANY)
			thread = (int)g->cpu + 1;
		for (unsigned i = 0; i < g->t->ncpu; i++)
			if ((thread == ALL || thread == (int)i + 1) &&
			    order[i] == VCPU_STAY) {
				order[i] = what;
				any = true;
			}
	}
	if (*p != '\0' || !any)
		reply_error(g, -EINVAL);
	else
		resume(g, order);
}

/* Registers. */

static void read_regs(struct gdb *g)
{
	struct vcpu_state s;
	uint8_t buf[GDB_REG_MAX];

	g->t->read_regs(g->t->arg, g->cpu, &s);
	gdb_regs_prepare(&s);
	for (unsigned n = 0; n < gdb_reg_count(); n++) {
		gdb_reg_get(&s, n, buf);
		reply_hex(g, buf, gdb_reg_size(n));
	}
}

/* 2 * size digits at *text, which moves behind them. */
static int set_reg(
    struct vcpu_state *s, unsigned n, const char **text, const char *end)
{
	char digits[2 * GDB_REG_MAX + 1];
	uint8_t buf[GDB_REG_MAX];
	size_t size = gdb_reg_size(n);

	if ((size_t)(end - *text) < 2 * size)
		return -EINVAL;
	memcpy(digits, *text, 2 * size);
	digits[2 * size] = '\0';
	*text += 2 * size;
	if (!gdb_hex_decode(buf, digits, size))
		return -EINVAL;
	return gdb_reg_set(s, n, buf);
}

static void write_regs(struct gdb *g, const char *p, const char *end)
{
	struct vcpu_state s;
	int error = 0;

	g->t->read_regs(g->t->arg, g->cpu, &s);
	gdb_regs_prepare(&s);
	for (unsigned n = 0; n < gdb_reg_count() && error == 0; n++)
		error = set_reg(&s, n, &p, end);
	if (error == 0 && p != end)
		error = -EINVAL;
	if (error == 0)
		error = g->t->write_regs(g->t->arg, g->cpu, &s);
	reply_status(g, error);
}

static void read_reg(struct gdb *g, const char *p)
{
	struct vcpu_state s;
	uint8_t buf[GDB_REG_MAX];
	uint64_t n;

	if (!gdb_hex_number(&p, &n) || *p != '\0' || n >= gdb_reg_count()) {
		reply_error(g, -EINVAL);
		return;
	}
	g->t->read_regs(g->t->arg, g->cpu, &s);
	gdb_regs_prepare(&s);
	gdb_reg_get(&s, (unsigned)n, buf);
	reply_hex(g, buf, gdb_reg_size((unsigned)n));
}

static void write_reg(struct gdb *g, const char *p, const char *end)
{
	struct vcpu_state s;
	int error = -EINVAL;
	uint64_t n;

	if (gdb_hex_number(&p, &n) && *p++ == '=' && n < gdb_reg_count()) {
		g->t->read_regs(g->t->arg, g->cpu, &s);
		gdb_regs_prepare(&s);
		error = set_reg(&s, (unsigned)n, &p, end);
		if (error == 0 && p != end)
			error = -EINVAL;
		if (error == 0)
			error = g->t->write_regs(g->t->arg, g->cpu, &s);
	}
	reply_status(g, error);
}

/* Memory. */

/* "address,length", and what follows. */
static bool parse_range(const char **p, uint64_t *gla, uint64_t *len)
{
	return gdb_hex_number(p, gla) && *(*p)++ == ',' && gdb_hex_number(p, len);
}

static void read_memory(struct gdb *g, const char *p)
{
	uint8_t buf[GDB_PACKET_MAX / 2];
	uint64_t gla, len;
	size_t n;

	if (!parse_range(&p, &gla, &len) || *p != '\0') {
		reply_error(g, -EINVAL);
		return;
	}
	len = MIN(len, sizeof(buf));
	n = g->t->memory(g->t->arg, g->cpu, gla, buf, (size_t)len, true);
	if (n == 0 && len != 0)
		reply_error(g, -EFAULT);
	else
		reply_hex(g, buf, n);
}

static void write_memory(struct gdb *g, const char *p, const char *end, bool hex)
{
	uint8_t buf[GDB_PACKET_MAX];
	uint64_t gla, len;
	size_t n;

	if (!parse_range(&p, &gla, &len) || *p++ != ':' || len > sizeof(buf) ||
	    (uint64_t)(end - p) != (hex ? 2 * len : len) ||
	    (hex && !gdb_hex_decode(buf, p, (size_t)len))) {
		reply_error(g, -EINVAL);
		return;
	}
	if (!hex)
		memcpy(buf, p, (size_t)len);
	n = g->t->memory(g->t->arg, g->cpu, gla, buf, (size_t)len, false);
	reply_status(g, n == len ? 0 : -EFAULT);
}

/* Breakpoints and watchpoints. */

/* Another one of the client's asks the target for the same. */
static bool shared(const struct gdb *g, unsigned n)
{
	const struct set_point *p = &g->point[n];

	for (unsigned i = 0; i < g->npoints; i++)
		if (i != n && g->point[i].kind == p->kind &&
		    g->point[i].gla == p->gla && g->point[i].len == p->len)
			return true;
	return false;
}

static int add_point(struct gdb *g, const struct set_point *p)
{
	int error = 0;

	if (g->npoints == POINTS)
		return -ENOSPC;
	g->point[g->npoints++] = *p;
	if (!shared(g, g->npoints - 1))
		error = g->t->point(g->t->arg, p->kind, p->gla, p->len, true);
	if (error != 0)
		g->npoints--;
	return error;
}

static void remove_point(struct gdb *g, unsigned n)
{
	const struct set_point p = g->point[n];

	if (!shared(g, n))
		g->t->point(g->t->arg, p.kind, p.gla, p.len, false);
	g->point[n] = g->point[--g->npoints];
}

/* "type,address,kind": setting twice is setting once, and likewise for taking away.
 */
static void change_point(struct gdb *g, const char *p, bool set)
{
	static const enum engine_point kinds[] = { POINT_EXECUTE, POINT_EXECUTE,
		POINT_WRITE, POINT_READ, POINT_ACCESS };
	struct set_point wanted = { 0 };
	unsigned type = (unsigned)(*p - '0'), i = 0;

	if (type >= ARRAY_SIZE(kinds))
		return; /* not supported: an empty answer */
	p++;
	if (*p++ != ',' || !parse_range(&p, &wanted.gla, &wanted.len) ||
	    *p != '\0' || (kinds[type] != POINT_EXECUTE && wanted.len == 0)) {
		reply_error(g, -EINVAL);
		return;
	}
	wanted.kind = kinds[type];
	wanted.type = (uint8_t)type;
	if (wanted.kind == POINT_EXECUTE)
		wanted.len = 1;
	while (i < g->npoints &&
	       (g->point[i].type != wanted.type || g->point[i].gla != wanted.gla ||
		   g->point[i].len != wanted.len))
		i++;
	if (i == g->npoints && set) {
		reply_status(g, add_point(g, &wanted));
		return;
	}
	if (i < g->npoints && !set)
		remove_point(g, i);
	reply(g, "OK");
}

/* Questions. */

static void supported(struct gdb *g, const char *p)
{
	g->says_swbreak = strstr(p, "swbreak+") != NULL;
	g->says_hwbreak = strstr(p, "hwbreak+") != NULL;
	reply(g,
	    "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+;"
	    "swbreak+;hwbreak+",
	    GDB_PACKET_MAX);
}

static void read_features(struct gdb *g, const char *p)
{
	static const char file[] = "target.xml:";
	size_t size = strlen(g->xml);
	uint64_t offset, len;

	if (strncmp(p, file, strlen(file)) != 0) {
		reply_error(g, -ENOENT);
		return;
	}
	p += strlen(file);
	if (!parse_range(&p, &offset, &len) || *p != '\0') {
		reply_error(g, -EINVAL);
		return;
	}
	offset = MIN(offset, (uint64_t)size);
	len = MIN(len, size - offset);
	len = MIN(len, UINT64_C(0x1000));
	reply(g, "%c", offset + len == size ? 'l' : 'm');
	reply_bytes(g, g->xml + offset, (size_t)len);
}

/* What follows prefix in p; NULL: something else. */
static const char *after(const char *p, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(p, prefix, n) == 0 ? p + n : NULL;
}

static void question(struct gdb *g, const char *p)
{
	const char *rest;

	if ((rest = after(p, "qSupported")) != NULL)
		supported(g, rest);
	else if ((rest = after(p, "qXfer:features:read:")) != NULL)
		read_features(g, rest);
	else if ((rest = after(p, "qThreadExtraInfo,")) != NULL)
		thread_info(g, rest);
	else if (strcmp(p, "qfThreadInfo") == 0)
		thread_list(g);
	else if (strcmp(p, "qsThreadInfo") == 0)
		reply(g, "l");
	else if (strcmp(p, "qC") == 0)
		reply(g, "QC%x", g->cpu + 1);
	else if (strcmp(p, "qAttached") == 0)
		reply(g, "1");
	else if (after(p, "qSymbol:") != NULL)
		reply(g, "OK");
}

static void verbose(struct gdb *g, const char *p)
{
	const char *rest;

	if (strcmp(p, "vCont?") == 0)
		reply(g, "vCont;c;C;s;S");
	else if ((rest = after(p, "vCont")) != NULL)
		resume_by_thread(g, rest);
	else if (after(p, "vKill;") != NULL) {
		reply(g, "OK");
		send_reply(g);
		g->t->kill(g->t->arg);
	}
}

/* Commands. */

static void clear_points(struct gdb *g)
{
	while (g->npoints > 0)
		remove_point(g, g->npoints - 1);
}

/* The client's breakpoints go, and the guest goes on. */
static void let_go(struct gdb *g)
{
	if (g->running)
		g->t->stop(g->t->arg);
	clear_points(g);
	resume_all(g);
	g->detached = true;
}

static void execute(struct gdb *g, const char *p, const char *end)
{
	switch (*p) {
	case '?':
		reply(g, "%s", g->last_stop);
		break;
	case 'C':
	case 'S':
	case 'c':
	case 's':
		resume_old(g, p);
		break;
	case 'D':
		let_go(g);
		reply(g, "OK");
		break;
	case 'G':
		write_regs(g, p + 1, end);
		break;
	case 'H':
		set_thread(g, p + 1);
		break;
	case 'M':
		write_memory(g, p + 1, end, true);
		break;
	case 'P':
		write_reg(g, p + 1, end);
		break;
	case 'Q':
		if (strcmp(p, "QStartNoAckMode") == 0) {
			g->no_ack = true;
			reply(g, "OK");
		}
		break;
	case 'T':
		thread_alive(g, p + 1);
		break;
	case 'X':
		write_memory(g, p + 1, end, false);
		break;
	case 'Z':
	case 'z':
		change_point(g, p + 1, *p == 'Z');
		break;
	case 'g':
		read_regs(g);
		break;
	case 'm':
		read_memory(g, p + 1);
		break;
	case 'p':
		read_reg(g, p + 1);
		break;
	case 'q':
		question(g, p);
		break;
	case 'v':
		verbose(g, p);
		break;
	default: /* an empty answer: not supported */
		break;
	}
}

static void packet(struct gdb *g, bool good)
{
	const char *p = g->in.buf, *end = p + g->in.len;

	if (!g->no_ack)
		g->t->send(g->t->arg, good ? "+" : "-", 1);
	if (!good && !g->no_ack)
		return; /* it will be sent again */
	g->reply_len = 0;
	/* No answer: the machine ends. */
	if (good && strcmp(p, "k") == 0) {
		g->t->kill(g->t->arg);
		return;
	}
	if (!good || g->detached)
		reply_error(g, -EINVAL);
	else if (g->running && *p != 'D' && after(p, "vKill;") == NULL)
		reply_error(g, -EBUSY);
	else
		execute(g, p, end);
	/* Who goes on answers when it stops. */
	if (!g->answered && (!g->running || g->reply_len != 0))
		send_reply(g);
}

size_t gdb_input(struct gdb *g, const uint8_t *bytes, size_t len)
{
	size_t n = 0;

	g->answered = false;
	while (n < len && !g->answered) {
		switch (gdb_parse(&g->in, bytes[n++])) {
		case GDB_PACKET:
			packet(g, true);
			break;
		case GDB_BAD:
			packet(g, false);
			break;
		case GDB_BREAK:
			if (g->running && !g->detached)
				stop_running(g, true);
			break;
		case GDB_NAK:
			if (g->no_ack || g->frame_len == 0)
				break;
			g->answered = true;
			g->t->send(g->t->arg, g->frame, g->frame_len);
			break;
		case GDB_ACK:
		case GDB_MORE:
			break;
		}
	}
	return n;
}

bool gdb_detached(const struct gdb *g)
{
	return g->detached;
}

void gdb_attach(struct gdb *g)
{
	g->t->stop(g->t->arg);
	g->running = g->detached = g->no_ack = false;
	g->says_swbreak = g->says_hwbreak = false;
	g->step_thread = ALL;
	g->in.state = GDB_IDLE;
	g->reply_len = g->frame_len = 0;
	note_stop(g, 0, SIGNAL_TRAP, POINT_NONE, 0);
}

void gdb_detach(struct gdb *g)
{
	if (!g->detached)
		let_go(g);
}

struct gdb *gdb_new(const struct gdb_target *target)
{
	struct gdb *g = calloc(1, sizeof(*g));

	if (g == NULL)
		return NULL;
	g->t = target;
	g->detached = true;
	g->xml = gdb_target_xml();
	if (g->xml == NULL) {
		free(g);
		return NULL;
	}
	return g;
}

void gdb_free(struct gdb *g)
{
	if (g == NULL)
		return;
	free(g->xml);
	free(g);
}
