/*
 * What a debugger's client says to -G: raw bytes, and packets with a right sum.
 * Nothing may be asked of the target while it runs, no breakpoint may outlive the
 * client, and whatever was said the next client is answered.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bhyve/gdb/packet.h"
#include "bhyve/gdb/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CPUS 3

struct fake {
	struct vcpu_state state[CPUS];
	uint8_t ram[4096];
	bool running, stopped[CPUS];
	int points;
	size_t sent;
	char last; /* of what was sent */
	unsigned turn;
};

static void must(bool good)
{
	if (!good)
		abort();
}

static void fake_stop(void *arg)
{
	((struct fake *)arg)->running = false;
}

static void fake_resume(void *arg, const enum vcpu_order *order)
{
	struct fake *f = arg;
	bool any = false;

	for (unsigned i = 0; i < CPUS; i++)
		any |= order[i] != VCPU_STAY;
	must(any);
	memset(f->stopped, 0, sizeof(f->stopped));
	f->running = true;
}

static void fake_kill(void *arg)
{
	(void)arg;
}

static bool fake_stopped(
    void *arg, unsigned cpu, enum engine_point *kind, uint64_t *gla)
{
	struct fake *f = arg;

	must(cpu < CPUS);
	*kind = (enum engine_point)(f->turn % (POINT_NONE + 1));
	*gla = 0x1000;
	return f->stopped[cpu];
}

static void fake_read_regs(void *arg, unsigned cpu, struct vcpu_state *s)
{
	struct fake *f = arg;

	must(cpu < CPUS && !f->running);
	*s = f->state[cpu];
}

static int fake_write_regs(void *arg, unsigned cpu, const struct vcpu_state *s)
{
	struct fake *f = arg;

	must(cpu < CPUS && !f->running);
	f->state[cpu] = *s;
	return 0;
}

static size_t fake_memory(
    void *arg, unsigned cpu, uint64_t gla, void *buf, size_t len, bool read)
{
	struct fake *f = arg;
	size_t n;

	must(cpu < CPUS && !f->running && len <= GDB_PACKET_MAX);
	if (gla >= sizeof(f->ram))
		return 0;
	n = MIN(len, (size_t)(sizeof(f->ram) - gla));
	memcpy(read ? buf : f->ram + gla, read ? f->ram + gla : buf, n);
	return n;
}

static int fake_point(
    void *arg, enum engine_point kind, uint64_t gla, uint64_t len, bool set)
{
	struct fake *f = arg;

	must(!f->running && kind < POINT_NONE && len != 0);
	if (set && gla % 64 == 63)
		return -ENOSPC;
	f->points += set ? 1 : -1;
	must(f->points >= 0);
	return 0;
}

static void fake_describe(void *arg, unsigned cpu, char *text, size_t size)
{
	(void)arg;
	must(cpu < CPUS);
	snprintf(text, size, "vCPU %u", cpu);
}

static void fake_send(void *arg, const char *bytes, size_t len)
{
	struct fake *f = arg;

	must(len > 0);
	f->sent += len;
	f->last = bytes[len - 1];
}

static void feed(struct gdb *g, struct fake *f, const uint8_t *p, size_t n)
{
	while (n > 0) {
		size_t taken;

		f->sent = 0;
		taken = gdb_input(g, p, n);
		must(taken > 0 && taken <= n);
		/* What the server keeps room for. */
		must(f->sent <= GDB_FRAME_MAX(GDB_PACKET_MAX) + taken);
		p += taken;
		n -= taken;
	}
}

static void packet(struct gdb *g, struct fake *f, const uint8_t *p, size_t n)
{
	static char frame[GDB_FRAME_MAX(4096)];

	n = MIN(n, (size_t)4096);
	feed(g, f, (uint8_t *)frame, gdb_frame(frame, (const char *)p, n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fake f;
	const struct gdb_target target = { &f, CPUS, fake_stop, fake_resume,
		fake_kill, fake_stopped, fake_read_regs, fake_write_regs,
		fake_memory, fake_point, fake_describe, fake_send };
	struct gdb *g = gdb_new(&target);

	must(g != NULL);
	memset(&f, 0, sizeof(f));
	for (unsigned i = 0; i < CPUS; i++)
		vcpu_state_reset(&f.state[i], i);
	gdb_attach(g);
	/* Lines: packets, or as they are, or a vCPU that stops. */
	while (size > 0) {
		const uint8_t *end = memchr(data, '\n', size);
		size_t n = end != NULL ? (size_t)(end - data) : size;

		f.turn++;
		if (n > 0 && data[0] == '=') {
			feed(g, &f, data + 1, n - 1);
		} else if (n > 0 && data[0] == '!') {
			f.stopped[n % CPUS] = f.running;
			gdb_target_stopped(g);
		} else {
			packet(g, &f, data, n);
		}
		n += end != NULL;
		data += n;
		size -= n;
	}
	gdb_detach(g);
	must(f.running && f.points == 0);
	gdb_attach(g);
	packet(g, &f, (const uint8_t *)"?", 1);
	must(f.sent > 8);
	gdb_free(g);
	return 0;
}
