/*
 * What the engine asks of the machine (struct engine_host): accesses that are not
 * RAM, the machine's MSRs, and interrupts. Called by vCPU threads, without locks.
 */
#include <stdatomic.h>

#include "lib/log.h"
#include "vmm/bus.h"
#include "vmm/chipset/chipset.h"
#include "vmm/machine.h"
#include "vmm/machine_sync.h"

static void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void unclaimed_port(struct machine *m, const char *verb, unsigned port)
{
	if (!m->strict_io)
		return;
	log_error("guest %s port 0x%x, which nothing emulates (-e, x86.strictio)",
	    verb, port);
	machine_suspend(m, SUSPEND_ERROR);
}

static uint64_t host_io_read(void *arg, int cpu, uint16_t port, unsigned size)
{
	struct machine *m = arg;
	uint64_t v;

	count(&m->vcpu[cpu].stats.io_reads);
	if (!bus_read(m->io, cpu, port, size, &v))
		unclaimed_port(m, "read", port);
	return v;
}

static void host_io_write(
    void *arg, int cpu, uint16_t port, unsigned size, uint64_t v)
{
	struct machine *m = arg;

	count(&m->vcpu[cpu].stats.io_writes);
	if (!bus_write(m->io, cpu, port, size, v))
		unclaimed_port(m, "wrote", port);
}

/* A CPU's LAPIC page hides what lies at the same address on the bus. */
static uint64_t host_mmio_read(void *arg, int cpu, uint64_t gpa, unsigned size)
{
	struct machine *m = arg;
	struct vcpu *v = &m->vcpu[cpu];
	uint64_t value;

	count(&v->stats.mmio_reads);
	if (lapic_claims(v->lapic, gpa))
		return lapic_read(v->lapic, gpa & 0xfff);
	bus_read(m->mmio, cpu, gpa, size, &value);
	return value;
}

static void host_mmio_write(
    void *arg, int cpu, uint64_t gpa, unsigned size, uint64_t value)
{
	struct machine *m = arg;
	struct vcpu *v = &m->vcpu[cpu];

	count(&v->stats.mmio_writes);
	if (!lapic_claims(v->lapic, gpa))
		bus_write(m->mmio, cpu, gpa, size, value);
	else if (size >= 4) /* registers take whole words only */
		lapic_write(v->lapic, gpa & 0xfff, (uint32_t)value);
}

static int host_msr_read(void *arg, int cpu, uint32_t msr, uint64_t *v)
{
	struct machine *m = arg;

	count(&m->vcpu[cpu].stats.msr_reads);
	return lapic_msr_read(m->vcpu[cpu].lapic, msr, v);
}

static int host_msr_write(void *arg, int cpu, uint32_t msr, uint64_t v)
{
	struct machine *m = arg;

	count(&m->vcpu[cpu].stats.msr_writes);
	return lapic_msr_write(m->vcpu[cpu].lapic, msr, v);
}

static uint8_t host_cr8_read(void *arg, int cpu)
{
	struct machine *m = arg;

	return lapic_cr8_read(m->vcpu[cpu].lapic);
}

static void host_cr8_write(void *arg, int cpu, uint8_t v)
{
	struct machine *m = arg;

	lapic_cr8_write(m->vcpu[cpu].lapic, v);
}

static int host_intr_ack(void *arg, int cpu)
{
	struct machine *m = arg;
	int vector = lapic_ack(m->vcpu[cpu].lapic);

	if (vector >= 0)
		count(&m->vcpu[cpu].stats.intr);
	return vector;
}

static bool host_intr_pending(void *arg, int cpu)
{
	struct machine *m = arg;

	return lapic_pending(m->vcpu[cpu].lapic);
}

const struct engine_host machine_host = {
	.io_read = host_io_read,
	.io_write = host_io_write,
	.mmio_read = host_mmio_read,
	.mmio_write = host_mmio_write,
	.msr_read = host_msr_read,
	.msr_write = host_msr_write,
	.cr8_read = host_cr8_read,
	.cr8_write = host_cr8_write,
	.intr_ack = host_intr_ack,
	.intr_pending = host_intr_pending,
};
