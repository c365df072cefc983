/* The machine: creation from the configuration, running, suspending, interrupts. */
#include "vmm/machine.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/config.h"
#include "lib/event.h"
#include "lib/log.h"
#include "lib/size.h"
#include "vmm/bus.h"
#include "vmm/chipset/chipset.h"
#include "vmm/clock.h"
#include "vmm/machine_sync.h"

#define MEMORY_DEFAULT "256M"

static int read_topology(struct machine *m)
{
	uint64_t cpus, sockets, cores, threads;

	if (config_get_num(m->cfg, "cpus", 0, 1, 65535, &cpus) != 0 ||
	    config_get_num(m->cfg, "sockets", 0, 1, 65535, &sockets) != 0 ||
	    config_get_num(m->cfg, "cores", 0, 1, 65535, &cores) != 0 ||
	    config_get_num(m->cfg, "threads", 0, 1, 65535, &threads) != 0)
		return -EINVAL;
	/* Unset ones are 1, but cpus alone means that many sockets. */
	if (cpus != 0 && sockets == 0 && cores == 0 && threads == 0)
		sockets = cpus;
	sockets += sockets == 0;
	cores += cores == 0;
	threads += threads == 0;
	if (cpus == 0)
		cpus = sockets * cores * threads;
	if (cpus != sockets * cores * threads) {
		log_error("%llu CPUs cannot be %llu sockets of %llu cores of %llu "
			  "threads: "
			  "the product must be the number of CPUs",
		    (unsigned long long)cpus, (unsigned long long)sockets,
		    (unsigned long long)cores, (unsigned long long)threads);
		return -EINVAL;
	}
	if (cpus > MACHINE_MAX_CPUS) {
		log_error("%llu CPUs are too many: a VM can have %u",
		    (unsigned long long)cpus, MACHINE_MAX_CPUS);
		return -EINVAL;
	}
	m->ncpu = (unsigned)cpus;
	m->sockets = (unsigned)sockets;
	m->cores = (unsigned)cores;
	m->threads = (unsigned)threads;
	return 0;
}

static int check_pinning(const struct machine *m)
{
	for (unsigned i = 0; i < m->ncpu; i++) {
		const char *text = config_getf(m->cfg, "vcpu.%u.cpuset", i);
		cpu_set_t set;

		if (text == NULL || cpuset_parse(text, &set) == 0)
			continue;
		log_error("vcpu.%u.cpuset=%s: want host CPU numbers and ranges, "
			  "as in 0,2-3",
		    i, text);
		return -EINVAL;
	}
	return 0;
}

static int create_memory(struct machine *m)
{
	const char *text = config_get(m->cfg, "memory.size");
	bool wired, in_core;
	uint64_t size;
	int err;

	if (text == NULL)
		text = MEMORY_DEFAULT;
	if (size_parse_memory(text, &size) != 0 || size == 0 ||
	    size % MEMORY_PAGE != 0) {
		log_error("memory size '%s': want a multiple of 4 KiB above 0, as "
			  "in 512M "
			  "or 4G",
		    text);
		return -EINVAL;
	}
	if (config_get_bool(m->cfg, "memory.wired", false, &wired) != 0 ||
	    config_get_bool(m->cfg, "memory.guest_in_core", false, &in_core) != 0)
		return -EINVAL;
	err = memory_create(&m->mem, size, wired, in_core);
	if (err == -ENOMEM && wired)
		log_error("cannot wire %s of guest memory: not enough memory, or "
			  "the limit "
			  "of locked memory is lower (ulimit -l)",
		    text);
	else if (err == -ENOMEM)
		log_error("%s of guest memory is more than this host has", text);
	else if (err != 0)
		log_error("cannot get %s of guest memory: %s", text,
		    strerrordesc_np(-err));
	return err;
}

static int create_engine(struct machine *m, const struct engine_ops *ops)
{
	struct engine_config ec = {
		.mem = &m->mem,
		.ncpu = m->ncpu,
		.sockets = m->sockets,
		.cores = m->cores,
		.threads = m->threads,
		.tsc_hz = m->tsc_hz,
		.cfg = m->cfg,
	};
	int err;

	m->sync->host = machine_host;
	m->sync->host.arg = m;
	ec.host = &m->sync->host;
	if (config_get_bool(m->cfg, "x86.x2apic", false, &ec.x2apic) != 0 ||
	    config_get_bool(m->cfg, "x86.strictmsr", true, &ec.strict_msr) != 0 ||
	    config_get_bool(m->cfg, "x86.strictio", false, &m->strict_io) != 0 ||
	    config_get_bool(m->cfg, "x86.vmexit_on_hlt", false, &ec.hlt_exit) != 0)
		return -EINVAL;
	m->ops = ops;
	err = ops->create(&m->engine, &ec);
	for (unsigned i = 0; i < m->ncpu && err == 0; i++) {
		err = vcpu_setup(m, i);
		if (err != 0)
			log_error(
			    "cannot create vCPU %u: %s", i, strerrordesc_np(-err));
		else
			lapic_set_x2apic_allowed(m->vcpu[i].lapic, ec.x2apic);
	}
	return err;
}

static int create_chipset(struct machine *m)
{
	int err;

	if ((err = ioapic_create(m, &m->ioapic)) != 0 ||
	    (err = pic_create(m, &m->pic)) != 0 ||
	    (err = pit_create(m, &m->pit)) != 0 ||
	    (err = hpet_create(m, &m->hpet)) != 0 ||
	    (err = rtc_create(m, &m->rtc)) != 0 ||
	    (err = pm_create(m, &m->pm)) != 0)
		log_error("cannot create the chipset: %s", strerrordesc_np(-err));
	return err;
}

static int create_parts(struct machine *m, const struct engine_ops *ops)
{
	int err;

	m->tsc_hz = clock_tsc_hz();
	if (m->tsc_hz == 0) {
		log_error("this host's time stamp counter does not run at a "
			  "constant rate: "
			  "a guest could not keep time");
		return -ENOTSUP;
	}
	m->start_ns = clock_ns();
	err = read_topology(m);
	if (err == 0)
		err = check_pinning(m);
	if (err == 0)
		err = create_memory(m);
	if (err != 0)
		return err;

	m->vcpu = calloc(m->ncpu, sizeof(*m->vcpu));
	m->io = bus_new(&m->lock);
	m->mmio = bus_new(&m->lock);
	if (m->vcpu == NULL || m->io == NULL || m->mmio == NULL) {
		log_error("no memory for the machine");
		return -ENOMEM;
	}
	err = event_loop_new(&m->loop, &m->lock);
	if (err != 0) {
		log_error(
		    "cannot create the event loop: %s", strerrordesc_np(-err));
		return err;
	}
	err = create_engine(m, ops);
	if (err == 0)
		err = create_chipset(m);
	if (err != 0)
		return err;
	/*
	 * Without a boot ROM nothing runs before the kernel: leave what firmware
	 * leaves.
	 */
	m->sync->reset_on_init = config_get(m->cfg, "bootrom") == NULL;
	if (m->sync->reset_on_init)
		lapic_virtual_wire(m->vcpu[0].lapic);
	return 0;
}

int machine_create(
    struct machine **out, struct config *cfg, const struct engine_ops *ops)
{
	struct machine *m = calloc(1, sizeof(*m));
	int err;

	if (m == NULL || (m->sync = calloc(1, sizeof(*m->sync))) == NULL) {
		free(m);
		log_error("no memory for the machine");
		return -ENOMEM;
	}
	m->cfg = cfg;
	pthread_mutex_init(&m->lock, NULL);
	pthread_mutex_init(&m->sync->lock, NULL);
	pthread_cond_init(&m->sync->cond, NULL);
	err = create_parts(m, ops);
	if (err != 0) {
		machine_destroy(m);
		return err;
	}
	*out = m;
	return 0;
}

void machine_destroy(struct machine *m)
{
	if (m == NULL)
		return;
	pm_destroy(m->pm);
	rtc_destroy(m->rtc);
	hpet_destroy(m->hpet);
	pit_destroy(m->pit);
	pic_destroy(m->pic);
	ioapic_destroy(m->ioapic);
	if (m->vcpu != NULL)
		for (unsigned i = 0; i < m->ncpu; i++)
			vcpu_teardown(&m->vcpu[i]);
	if (m->engine != NULL)
		m->ops->destroy(m->engine);
	event_loop_free(m->loop);
	bus_free(m->io);
	bus_free(m->mmio);
	memory_destroy(&m->mem);
	free(m->vcpu);
	pthread_cond_destroy(&m->sync->cond);
	pthread_mutex_destroy(&m->sync->lock);
	pthread_mutex_destroy(&m->lock);
	free(m->sync);
	free(m);
}

/*
 * All signals stay with the event loop's thread; what guest code raises on its own
 * thread must reach the engine.
 */
static void block_signals(sigset_t *old)
{
	sigset_t set;

	sigfillset(&set);
	sigdelset(&set, SIGSEGV);
	sigdelset(&set, SIGBUS);
	sigdelset(&set, SIGFPE);
	sigdelset(&set, SIGILL);
	sigdelset(&set, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &set, old);
}

/* The machine may end while a debugger holds it. */
static void hold_no_more(struct machine *m)
{
	pthread_mutex_lock(&m->sync->lock);
	m->sync->ending = true;
	pthread_cond_broadcast(&m->sync->cond);
	pthread_mutex_unlock(&m->sync->lock);
}

enum suspend_reason machine_run(struct machine *m)
{
	sigset_t old;
	int err = 0;

	vcpu_timer_start(m);
	block_signals(&old);
	for (unsigned i = 0; i < m->ncpu && err == 0; i++)
		err = vcpu_start(&m->vcpu[i]);
	pthread_sigmask(SIG_SETMASK, &old, NULL);

	if (err != 0)
		machine_suspend(m, SUSPEND_ERROR);
	else if (event_loop_run(m->loop) != 0)
		machine_suspend(m, SUSPEND_ERROR);
	for (unsigned i = 0; i < m->ncpu; i++)
		vcpu_notify(&m->vcpu[i], EV_STOP);
	hold_no_more(m);
	for (unsigned i = 0; i < m->ncpu; i++)
		vcpu_join(&m->vcpu[i]);
	vcpu_timer_stop(m);
	/*
	 * A loop that was stopped by hand, without a reason, was stopped from
	 * outside.
	 */
	machine_suspend(m, SUSPEND_DESTROY);
	return (enum suspend_reason)atomic_load(&m->suspend);
}

void machine_suspend(struct machine *m, enum suspend_reason why)
{
	uint32_t none = SUSPEND_NONE;

	if (!atomic_compare_exchange_strong(&m->suspend, &none, (uint32_t)why))
		return;
	event_loop_stop(m->loop);
	for (unsigned i = 0; i < m->ncpu; i++)
		vcpu_notify(&m->vcpu[i], EV_STOP);
}

void machine_pause(struct machine *m)
{
	struct machine_sync *s = m->sync;

	pthread_mutex_lock(&s->lock);
	s->paused++;
	for (unsigned i = 0; i < m->ncpu; i++)
		vcpu_notify(&m->vcpu[i], EV_PAUSE);
	while (s->held < s->live)
		pthread_cond_wait(&s->cond, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

void machine_resume(struct machine *m)
{
	struct machine_sync *s = m->sync;

	pthread_mutex_lock(&s->lock);
	if (s->paused > 0 && --s->paused == 0)
		pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

int machine_set_debugger(struct machine *m, void (*stopped)(void *arg), void *arg)
{
	const struct engine_ops *ops = m->ops;

	if (ops->point == NULL || ops->step == NULL || ops->stopped_at == NULL ||
	    ops->translate == NULL)
		return -ENOTSUP;
	m->sync->stopped = stopped;
	m->sync->stopped_arg = arg;
	return 0;
}

void machine_irq(struct machine *m, unsigned gsi, bool level)
{
	if (gsi >= MACHINE_GSIS)
		return;
	ioapic_set(m->ioapic, gsi, level);
	if (gsi < 16)
		pic_set(m->pic, gsi, level);
}

void machine_isa_irq(struct machine *m, unsigned irq, bool level)
{
	if (irq > 15)
		return;
	ioapic_set(m->ioapic, irq == 0 ? 2 : irq, level);
	pic_set(m->pic, irq, level);
}

void machine_isa_tick(struct machine *m, unsigned irq, unsigned n)
{
	ioapic_tick(m->ioapic, false, irq == 0 ? 2 : irq, n);
	pic_tick(m->pic, irq, n);
}

#define MSI_WINDOW   UINT64_C(0xfee)
#define MSI_REDIRECT 0x8u
#define MSI_LOGICAL  0x4u
#define MSI_LEVEL    0x8000u
#define MSI_ASSERT   0x4000u
#define MODE_FIXED   0u
#define MODE_LOWEST  1u

void machine_msi(struct machine *m, uint64_t addr, uint32_t data)
{
	/*
	 * Address bits 5-11 extend the destination, as CPUID 0x40000001 announces.
	 */
	uint32_t dest = (addr >> 12 & 0xff) | (addr >> 5 & 0x7f) << 8;
	bool logical = addr & MSI_LOGICAL;
	unsigned mode = data >> 8 & 7;

	if (addr >> 20 != MSI_WINDOW)
		return;
	/* With the redirection hint one CPU of a logical set gets it. */
	if ((addr & MSI_REDIRECT) && logical && mode == MODE_FIXED)
		mode = MODE_LOWEST;
	lapic_message(m, dest, logical, mode, (uint8_t)data, data & MSI_LEVEL,
	    data & MSI_ASSERT);
}
