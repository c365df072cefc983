/* See chip_fake.h. */
#include "chip_fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/event.h"
#include "vmm/clock.h"
#include "vmm/machine_sync.h"

/* Time and events */

static uint64_t fake_ns = UINT64_C(5000000000);
static const uint64_t fake_epoch = UINT64_C(1790000000000000000);

uint64_t clock_ns(void)
{
	return fake_ns;
}

uint64_t clock_realtime_ns(void)
{
	return fake_epoch + fake_ns;
}

uint64_t clock_tsc(void)
{
	return fake_ns * (CHIP_TSC_HZ / 1000000000);
}

uint64_t clock_tsc_hz(void)
{
	return CHIP_TSC_HZ;
}

struct event {
	struct event *next;
	struct event_loop *loop;
	event_fn *fn;
	void *arg;
	uint64_t when;
};

struct event_loop {
	pthread_mutex_t *lock;
	struct event *events;
};

int event_loop_new(struct event_loop **loop, pthread_mutex_t *lock)
{
	*loop = calloc(1, sizeof(**loop));
	(*loop)->lock = lock;
	return 0;
}

void event_loop_free(struct event_loop *loop)
{
	if (loop != NULL)
		assert_null(loop->events); /* somebody leaked a timer */
	free(loop);
}

int event_loop_run(struct event_loop *loop)
{
	(void)loop;
	return -ENOSYS;
}

int event_loop_poll(struct event_loop *loop, int timeout_ms)
{
	(void)loop;
	(void)timeout_ms;
	return -ENOSYS;
}

void event_loop_stop(struct event_loop *loop)
{
	(void)loop;
}

struct event *event_add_fd(
    struct event_loop *loop, int fd, uint32_t events, event_fd_fn *fn, void *arg)
{
	(void)loop;
	(void)fd;
	(void)events;
	(void)fn;
	(void)arg;
	return NULL;
}

void event_set_fd(struct event *ev, uint32_t events)
{
	(void)ev;
	(void)events;
}

struct event *event_add_timer(struct event_loop *loop, event_fn *fn, void *arg)
{
	struct event *ev = calloc(1, sizeof(*ev));

	*ev = (struct event){ loop->events, loop, fn, arg, 0 };
	loop->events = ev;
	return ev;
}

void event_set_timer(struct event *ev, uint64_t when_ns)
{
	ev->when = when_ns;
}

uint64_t event_loop_due(struct event_loop *loop)
{
	(void)loop;
	return 0;
}

void event_loop_timers(struct event_loop *loop)
{
	(void)loop;
}

struct event *event_add_signal(
    struct event_loop *loop, int signo, event_fn *fn, void *arg)
{
	(void)loop;
	(void)signo;
	(void)fn;
	(void)arg;
	return NULL;
}

void event_del(struct event *ev)
{
	if (ev == NULL)
		return;
	for (struct event **p = &ev->loop->events; *p != NULL; p = &(*p)->next) {
		if (*p == ev) {
			*p = ev->next;
			break;
		}
	}
	free(ev);
}

int event_post(struct event_loop *loop, event_fn *fn, void *arg)
{
	(void)loop;
	(void)fn;
	(void)arg;
	return -ENOSYS;
}

uint64_t event_now_ns(void)
{
	return fake_ns;
}

static struct event *earliest(struct event_loop *loop, uint64_t until)
{
	struct event *best = NULL;

	for (struct event *ev = loop->events; ev != NULL; ev = ev->next)
		if (ev->when != 0 && ev->when <= until &&
		    (!best || ev->when < best->when))
			best = ev;
	return best;
}

static void poll_lapics(struct machine *m)
{
	for (unsigned i = 0; i < m->ncpu; i++)
		lapic_timer_poll(m->vcpu[i].lapic);
}

void chip_advance(struct machine *m, uint64_t ns)
{
	uint64_t until = fake_ns + ns;
	struct event *ev;
	unsigned fired = 0;

	while ((ev = earliest(m->loop, until)) != NULL) {
		assert_true(++fired < 1000000); /* a storm */
		if (ev->when > fake_ns)
			fake_ns = ev->when;
		ev->when = 0;
		pthread_mutex_lock(&m->lock);
		ev->fn(ev->arg);
		pthread_mutex_unlock(&m->lock);
	}
	fake_ns = until;
	poll_lapics(m);
}

void chip_jump(struct machine *m, uint64_t ns)
{
	fake_ns += ns;
	chip_advance(m, 0);
}

bool chip_timer_set(struct machine *m)
{
	return earliest(m->loop, UINT64_MAX) != NULL;
}

/* The engine */

struct engine_vcpu {
	struct vcpu_link link; /* first, as the seam says */
	struct vcpu_state state;
};

struct engine {
	struct engine_vcpu cpu[MACHINE_MAX_CPUS];
};

static int fake_create(struct engine **e, const struct engine_config *cfg)
{
	(void)cfg;
	*e = aligned_alloc(64, sizeof(**e));
	memset(*e, 0, sizeof(**e));
	return 0;
}

static void fake_destroy(struct engine *e)
{
	free(e);
}

static int fake_vcpu(struct engine *e, unsigned id, struct engine_vcpu **cpu,
    struct vcpu_link **link)
{
	*cpu = &e->cpu[id];
	*link = &e->cpu[id].link;
	return 0;
}

static enum engine_exit fake_run(struct engine_vcpu *cpu)
{
	(void)cpu;
	return ENGINE_ERROR;
}

static void fake_get(struct engine_vcpu *cpu, struct vcpu_state *s)
{
	*s = cpu->state;
}

static int fake_set(struct engine_vcpu *cpu, const struct vcpu_state *s)
{
	cpu->state = *s;
	return 0;
}

const struct engine_ops chip_engine = {
	.name = "fake",
	.create = fake_create,
	.destroy = fake_destroy,
	.vcpu_create = fake_vcpu,
	.run = fake_run,
	.get_state = fake_get,
	.set_state = fake_set,
};

/* The machine */

struct machine *chip_create(const char *const *keys)
{
	struct config *cfg = config_new();
	struct machine *m;

	assert_non_null(cfg);
	assert_int_equal(config_set(cfg, "memory.size", "16M"), 0);
	assert_int_equal(config_set(cfg, "rtc.use_localtime", "false"), 0);
	for (; keys != NULL && *keys != NULL; keys++)
		assert_int_equal(config_parse_option(cfg, *keys), 0);
	assert_int_equal(machine_create(&m, cfg, &chip_engine), 0);
	for (unsigned i = 0; i < m->ncpu; i++)
		chip_events(m, i);
	return m;
}

void chip_destroy(struct machine *m)
{
	struct config *cfg = m->cfg;

	machine_destroy(m);
	config_free(cfg);
}

uint32_t chip_in(struct machine *m, uint16_t port, unsigned size)
{
	return (uint32_t)m->sync->host.io_read(m, 0, port, size);
}

void chip_out(struct machine *m, uint16_t port, unsigned size, uint32_t v)
{
	m->sync->host.io_write(m, 0, port, size, v);
}

uint64_t chip_read(struct machine *m, unsigned cpu, uint64_t gpa, unsigned size)
{
	return m->sync->host.mmio_read(m, (int)cpu, gpa, size);
}

void chip_write(
    struct machine *m, unsigned cpu, uint64_t gpa, unsigned size, uint64_t v)
{
	m->sync->host.mmio_write(m, (int)cpu, gpa, size, v);
}

uint32_t chip_apic(struct machine *m, unsigned cpu, unsigned reg)
{
	return (uint32_t)chip_read(m, cpu, 0xfee00000 + reg, 4);
}

void chip_apic_set(struct machine *m, unsigned cpu, unsigned reg, uint32_t v)
{
	chip_write(m, cpu, 0xfee00000 + reg, 4, v);
}

void chip_apic_enable(struct machine *m, unsigned cpu)
{
	chip_apic_set(m, cpu, 0xf0, 0x1ff);
	chip_apic_set(m, cpu, 0x350, 0x10000);
	chip_events(m, cpu);
}

int chip_take(struct machine *m, unsigned cpu)
{
	bool pending = m->sync->host.intr_pending(m, (int)cpu);
	int vector = m->sync->host.intr_ack(m, (int)cpu);

	assert_int_equal(pending, vector >= 0);
	return vector;
}

void chip_eoi(struct machine *m, unsigned cpu)
{
	chip_apic_set(m, cpu, 0xb0, 0);
}

uint32_t chip_events(struct machine *m, unsigned cpu)
{
	return atomic_exchange(&m->vcpu[cpu].link->events, 0);
}

void chip_rte(struct machine *m, unsigned pin, uint32_t low, uint8_t dest)
{
	chip_write(m, 0, 0xfec00000, 4, 0x11 + 2 * pin);
	chip_write(m, 0, 0xfec00010, 4, (uint32_t)dest << 24);
	chip_write(m, 0, 0xfec00000, 4, 0x10 + 2 * pin);
	chip_write(m, 0, 0xfec00010, 4, low);
}

uint64_t chip_rte_get(struct machine *m, unsigned pin)
{
	uint64_t v;

	chip_write(m, 0, 0xfec00000, 4, 0x10 + 2 * pin);
	v = chip_read(m, 0, 0xfec00010, 4);
	chip_write(m, 0, 0xfec00000, 4, 0x11 + 2 * pin);
	return v | chip_read(m, 0, 0xfec00010, 4) << 32;
}

void chip_line(struct machine *m, unsigned gsi, bool level)
{
	pthread_mutex_lock(&m->lock);
	machine_irq(m, gsi, level);
	pthread_mutex_unlock(&m->lock);
}

void chip_pic_setup(struct machine *m)
{
	static const uint8_t base[2] = { 0x20, 0x28 };

	for (unsigned i = 0; i < 2; i++) {
		uint16_t port = i == 0 ? 0x20 : 0xa0;

		chip_out(m, port, 1, 0x11);
		chip_out(m, port + 1, 1, base[i]);
		chip_out(m, port + 1, 1, i == 0 ? 4 : 2);
		chip_out(m, port + 1, 1, 1);
		chip_out(m, port + 1, 1, 0);
	}
}
