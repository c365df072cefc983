/*
 * vCPU threads in real time: IPIs, start-up, sleep, timers, pause, every way a
 * machine ends. The engine here runs small C functions as guest code. Also built
 * with ThreadSanitizer (meson setup -Db_sanitize=thread).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "lib/config.h"
#include "lib/event.h"
#include "vmm/bus.h"
#include "vmm/chipset/chipset.h"
#include "vmm/clock.h"
#include "vmm/machine.h"

#define IF 0x200u
#define MS UINT64_C(1000000)

struct engine_vcpu {
	struct vcpu_link link;
	struct engine *e;
	unsigned id;
	struct vcpu_state state;
	int vector; /* handled by this call of guest code, -1: none */
	unsigned phase;
};

enum { GO_ON = -1 };
/* Guest code: called again and again; an enum engine_exit or GO_ON. */
typedef int guest_fn(struct engine_vcpu *cpu);

struct engine {
	struct engine_config cfg;
	guest_fn *guest;
	struct engine_vcpu cpu[4];
};

static _Atomic(guest_fn *) the_guest;
static _Atomic unsigned counter[4];
static _Atomic uint64_t stamp;

static int fake_create(struct engine **e, const struct engine_config *cfg)
{
	*e = aligned_alloc(64, sizeof(**e));
	memset(*e, 0, sizeof(**e));
	(*e)->cfg = *cfg;
	(*e)->guest = the_guest;
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
	(*cpu)->e = e;
	(*cpu)->id = id;
	*link = &(*cpu)->link;
	return 0;
}

static enum engine_exit fake_run(struct engine_vcpu *cpu)
{
	const struct engine_host *host = cpu->e->cfg.host;

	for (;;) {
		uint32_t events = atomic_load(&cpu->link.events);
		int why;

		if (events & EV_MACHINE)
			return ENGINE_KICKED;
		cpu->vector = -1;
		if (events & EV_NMI) {
			atomic_fetch_and(&cpu->link.events, ~EV_NMI);
			cpu->vector = 2;
		} else if ((events & EV_INTR) && (cpu->state.rflags & IF)) {
			atomic_fetch_and(&cpu->link.events, ~EV_INTR);
			cpu->vector = host->intr_ack(host->arg, (int)cpu->id);
			if (host->intr_pending(host->arg, (int)cpu->id))
				atomic_fetch_or(&cpu->link.events, EV_INTR);
		}
		why = cpu->e->guest(cpu);
		if (why != GO_ON)
			return (enum engine_exit)why;
	}
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

static const struct engine_ops ops = {
	.name = "script",
	.create = fake_create,
	.destroy = fake_destroy,
	.vcpu_create = fake_vcpu,
	.run = fake_run,
	.get_state = fake_get,
	.set_state = fake_set,
};

static void apic(struct engine_vcpu *cpu, unsigned reg, uint32_t v)
{
	const struct engine_host *host = cpu->e->cfg.host;

	host->mmio_write(host->arg, (int)cpu->id, 0xfee00000 + reg, 4, v);
}

static void out(struct engine_vcpu *cpu, uint16_t port, uint32_t v)
{
	const struct engine_host *host = cpu->e->cfg.host;

	host->io_write(host->arg, (int)cpu->id, port, 2, v);
}

static void power_off(struct engine_vcpu *cpu)
{
	out(cpu, 0x404, 5 << 10 | 0x2000);
}

static struct machine *make(guest_fn *guest, unsigned ncpu)
{
	struct config *cfg = config_new();
	struct machine *m;

	the_guest = guest;
	memset((void *)counter, 0, sizeof(counter));
	stamp = 0;
	assert_int_equal(config_setf(cfg, ncpu == 1 ? "1" : "2", "cpus"), 0);
	assert_int_equal(config_set(cfg, "memory.size", "8M"), 0);
	assert_int_equal(machine_create(&m, cfg, &ops), 0);
	return m;
}

static enum suspend_reason run(struct machine *m)
{
	struct config *cfg = m->cfg;
	enum suspend_reason why = machine_run(m);

	machine_destroy(m);
	config_free(cfg);
	return why;
}

static double cpu_seconds(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
	       (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

/* Two CPUs send each other an interrupt from the handler, halting in between. */
#define ROUNDS 5000u

static int guest_ping(struct engine_vcpu *cpu)
{
	switch (cpu->phase) {
	case 0:
		apic(cpu, 0xf0, 0x1ff);
		cpu->state.rflags |= IF;
		cpu->phase = 1;
		if (cpu->id == 0) {
			apic(cpu, 0x310, 1u << 24);
			apic(cpu, 0x300, 0xc500);
			apic(cpu, 0x300, 0x68a);
			apic(cpu, 0x300,
			    0x68b); /* the second one, as software sends */
		} else {
			/* Up: tell the boot CPU. */
			if (cpu->state.seg[SEG_CS].base != 0x8a000 ||
			    cpu->state.rip != 0)
				return ENGINE_ERROR;
			apic(cpu, 0x310, 0);
			apic(cpu, 0x300, 0x40);
		}
		return ENGINE_HALT;
	default:
		if (cpu->vector < 0)
			return ENGINE_HALT;
		apic(cpu, 0xb0, 0);
		if (++counter[cpu->id] == ROUNDS && cpu->id == 0) {
			power_off(cpu);
			return GO_ON;
		}
		apic(cpu, 0x310, (1u - cpu->id) << 24);
		apic(cpu, 0x300, 0x40);
		return ENGINE_HALT;
	}
}

static void test_ipi_ping_pong(void **state)
{
	struct machine *m = make(guest_ping, 2);

	(void)state;
	assert_int_equal(run(m), SUSPEND_POWEROFF);
	assert_int_equal(counter[0], ROUNDS);
	assert_in_range(counter[1], ROUNDS - 1, ROUNDS);
}

static int guest_halt(struct engine_vcpu *cpu)
{
	switch (cpu->phase++) {
	case 0:
		if (cpu->id == 0) {
			apic(cpu, 0x310, 1u << 24);
			apic(cpu, 0x300, 0x500);
			apic(cpu, 0x300, 0x601);
			return GO_ON;
		}
		return ENGINE_HALT; /* with IF clear */
	case 1:
		if (cpu->id == 1) { /* the NMI below */
			counter[1]++;
			return ENGINE_HALT;
		}
		apic(cpu, 0x310, 1u << 24);
		apic(cpu, 0x300, 0x400);
		return GO_ON;
	default:
		return ENGINE_HALT;
	}
}

static void test_halt_is_noticed(void **state)
{
	(void)state;
	assert_int_equal(run(make(guest_halt, 2)), SUSPEND_HALT);
	assert_int_equal(run(make(guest_halt, 1)), SUSPEND_HALT);
}

static int guest_triple(struct engine_vcpu *cpu)
{
	(void)cpu;
	return ENGINE_SHUTDOWN;
}

static int guest_error(struct engine_vcpu *cpu)
{
	(void)cpu;
	return ENGINE_ERROR;
}

static int guest_reset(struct engine_vcpu *cpu)
{
	out(cpu, 0x64, 0xfe);
	return GO_ON;
}

static int guest_init_self(struct engine_vcpu *cpu)
{
	apic(cpu, 0x310, 0);
	apic(cpu, 0x300, 0x500);
	return GO_ON;
}

static void test_ends(void **state)
{
	(void)state;
	assert_int_equal(run(make(guest_triple, 1)), SUSPEND_TRIPLEFAULT);
	assert_int_equal(run(make(guest_error, 2)), SUSPEND_ERROR);
	assert_int_equal(run(make(guest_reset, 1)), SUSPEND_RESET);
	assert_int_equal(run(make(guest_init_self, 1)), SUSPEND_RESET);
}

/*
 * A periodic LAPIC timer, waited for in HLT; then one that interrupts a busy loop.
 */
static int guest_timer(struct engine_vcpu *cpu)
{
	if (cpu->phase == 0) {
		apic(cpu, 0xf0, 0x1ff);
		apic(cpu, 0x3e0, 0xb);
		apic(cpu, 0x320, 0x20050);
		stamp = clock_ns();
		apic(cpu, 0x380, 2 * MS);
		cpu->state.rflags |= IF;
		cpu->phase = 1;
	}
	if (cpu->vector == 0x50) {
		apic(cpu, 0xb0, 0);
		if (++counter[0] == 50)
			cpu->phase = 2; /* busy from now on */
		if (counter[0] == 100) {
			stamp = clock_ns() - stamp;
			power_off(cpu);
		}
	}
	if (cpu->phase == 2) {
		struct timespec ts = { .tv_nsec = 20000 };

		nanosleep(&ts, NULL);
		return GO_ON;
	}
	return ENGINE_HALT;
}

static void test_lapic_timer(void **state)
{
	(void)state;
	assert_int_equal(run(make(guest_timer, 1)), SUSPEND_POWEROFF);
	/*
	 * Never early; on a busy host some periods may merge, so only a loose end.
	 */
	assert_true(stamp >= 200 * MS);
	assert_true(stamp < 5000 * MS);
}

/* Sleeps with interrupts on, for ever. */
static int guest_idle(struct engine_vcpu *cpu)
{
	cpu->state.rflags |= IF;
	return ENGINE_HALT;
}

static void stop(void *arg)
{
	machine_suspend(arg, SUSPEND_DESTROY);
}

static void test_idle_costs_nothing(void **state)
{
	struct machine *m = make(guest_idle, 1);
	struct event *timer = event_add_timer(m->loop, stop, m);
	double before;

	(void)state;
	event_set_timer(timer, clock_ns() + 300 * MS);
	before = cpu_seconds();
	assert_int_equal(run(m), SUSPEND_DESTROY);
	assert_true(cpu_seconds() - before < 0.05);
}

static int guest_count(struct engine_vcpu *cpu)
{
	counter[cpu->id]++;
	return GO_ON;
}

/*
 * The event loop is held up, as by a host that gives it no CPU; it ticks all the
 * same while guest code runs.
 */
static atomic_uint ticked;

static void hold_up(void *arg, uint32_t events)
{
	struct machine *m = arg;
	uint64_t until = clock_ns() + 10000 * MS;

	(void)events;
	pthread_mutex_unlock(&m->lock);
	while (atomic_load(&ticked) < 10 && clock_ns() < until)
		sched_yield();
	pthread_mutex_lock(&m->lock);
	machine_suspend(m, SUSPEND_DESTROY);
}

static void tick(void *arg)
{
	struct event **timer = arg;

	atomic_fetch_add(&ticked, 1);
	event_set_timer(*timer, clock_ns() + MS);
}

static void test_loop_late(void **state)
{
	struct machine *m = make(guest_count, 1);
	struct event *timer = event_add_timer(m->loop, tick, &timer), *ready;
	int fd = eventfd(1, EFD_NONBLOCK);

	(void)state;
	atomic_store(&ticked, 0);
	ready = event_add_fd(m->loop, fd, EPOLLIN, hold_up, m);
	assert_non_null(ready);
	event_set_timer(timer, clock_ns() + 1);
	assert_int_equal(run(m), SUSPEND_DESTROY);
	assert_true(atomic_load(&ticked) >= 10);
	close(fd);
}

static void pauser(void *arg)
{
	struct machine *m = arg;
	unsigned seen;
	struct timespec ts = { .tv_nsec = 20 * 1000000 };

	/* As the control socket does: without the machine's lock. */
	pthread_mutex_unlock(&m->lock);
	for (unsigned i = 0; i < 20; i++) {
		struct vcpu_state s;

		machine_pause(m);
		machine_pause(m); /* nests */
		machine_resume(m);
		seen = counter[0];
		if (i == 0)
			nanosleep(&ts, NULL);
		assert_int_equal(counter[0], seen);
		vcpu_get_state(&m->vcpu[1], &s);
		assert_int_equal(s.activity, VCPU_WAIT_SIPI);
		machine_resume(m);
		while (counter[0] == seen)
			;
	}
	pthread_mutex_lock(&m->lock);
	machine_suspend(m, SUSPEND_DESTROY);
}

static void test_pause(void **state)
{
	struct machine *m = make(guest_count, 2);

	(void)state;
	assert_int_equal(event_post(m->loop, pauser, m), 0);
	assert_int_equal(run(m), SUSPEND_DESTROY);
}

/* Suspended before it ran: comes back at once. */
static void test_suspended_before(void **state)
{
	struct machine *m = make(guest_idle, 2);

	(void)state;
	machine_suspend(m, SUSPEND_ERROR);
	machine_suspend(m, SUSPEND_POWEROFF); /* the first reason wins */
	assert_int_equal(run(m), SUSPEND_ERROR);
}

static void refused(const char *key, const char *value)
{
	struct config *cfg = config_new();
	struct machine *m = NULL;

	assert_int_equal(config_set(cfg, key, value), 0);
	assert_int_not_equal(machine_create(&m, cfg, &ops), 0);
	assert_null(m);
	config_free(cfg);
}

static void test_bad_configuration(void **state)
{
	struct config *cfg = config_new();
	struct machine *m;

	(void)state;
	refused("cpus", "0");
	refused("cpus", "65");
	refused("cpus", "many");
	refused("memory.size", "0");
	refused("memory.size", "1000T");
	refused("memory.size", "1048577");
	refused("memory.size", "x");
	refused("vcpu.0.cpuset", "a");
	refused("vcpu.0.cpuset", "3-1");
	refused("vcpu.0.cpuset", "1,");
	refused("x86.x2apic", "maybe");
	assert_int_equal(config_set(cfg, "sockets", "2"), 0);
	assert_int_equal(config_set(cfg, "cores", "2"), 0);
	assert_int_equal(machine_create(&m, cfg, &ops), 0);
	assert_int_equal(m->ncpu, 4);
	assert_int_equal(m->sockets, 2);
	machine_destroy(m);
	assert_int_equal(config_set(cfg, "cpus", "3"), 0);
	assert_int_not_equal(machine_create(&m, cfg, &ops), 0);
	config_free(cfg);
}

static void test_tsc_frequency(void **state)
{
	uint64_t hz = clock_tsc_hz(), t0 = clock_tsc(), n0 = clock_ns(), t1, n1;
	struct timespec ts = { .tv_nsec = 200 * 1000000 };

	(void)state;
	nanosleep(&ts, NULL);
	t1 = clock_tsc();
	n1 = clock_ns();
	/* The check itself is good to some 50 ppm on a busy host. */
	assert_true(labs((long)clock_muldiv(t1 - t0, 1000000000, hz) -
			 (long)(n1 - n0)) < (long)(n1 - n0) / 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ipi_ping_pong),
		cmocka_unit_test(test_halt_is_noticed),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_lapic_timer),
		cmocka_unit_test(test_loop_late),
		cmocka_unit_test(test_idle_costs_nothing),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_suspended_before),
		cmocka_unit_test(test_bad_configuration),
		cmocka_unit_test(test_tsc_frequency),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
