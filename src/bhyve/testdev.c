/*
 * The PC test device, as test suites for x86 machines know it:
 *
 *	port 0xF4		a write of v ends the VM with status v << 1 | 1
 *	ports 0xE0-0xE3		hold what was written to them
 *	ports 0x2000-0x2017	a write to 0x2000 + n sets interrupt line n (0: low)
 *	0xFF000000, 64 KiB	memory behind MMIO
 *
 * The handlers run with the machine's lock held.
 */
#include "bhyve/testdev.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/config.h"
#include "lib/log.h"
#include "lib/util.h"
#include "vmm/bus.h"
#include "vmm/machine.h"

#define MEM_SIZE 0x10000u
#define PORTS    4u

struct testdev {
	struct machine *m;
	int status;
	bool exited;
	uint8_t port[PORTS];
	uint8_t mem[MEM_SIZE];
};

static uint64_t read_zero(void *arg, int vcpu, uint64_t off, unsigned size)
{
	(void)arg;
	(void)vcpu;
	(void)off;
	(void)size;
	return 0;
}

/* Another vCPU may write, too, before the VM ends: the first status counts. */
static void write_exit(
    void *arg, int vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct testdev *dev = arg;

	(void)vcpu;
	(void)off;
	(void)size;
	if (dev->exited)
		return;
	dev->exited = true;
	/* A process's status is a byte. */
	dev->status = (int)((value << 1 | 1) & 0xff);
	machine_suspend(dev->m, SUSPEND_TESTDEV);
}

/* Bytes that hold what was written to them; arg: the first. */
static uint64_t read_held(void *arg, int vcpu, uint64_t off, unsigned size)
{
	uint64_t value = 0;

	(void)vcpu;
	memcpy(&value, (const uint8_t *)arg + off, size);
	return value;
}

static void write_held(
    void *arg, int vcpu, uint64_t off, unsigned size, uint64_t value)
{
	(void)vcpu;
	memcpy((uint8_t *)arg + off, &value, size);
}

static void write_irq(
    void *arg, int vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct testdev *dev = arg;

	(void)vcpu;
	(void)size;
	if (off < 16)
		machine_isa_irq(dev->m, (unsigned)off, value != 0);
	else
		machine_irq(dev->m, (unsigned)off, value != 0);
}

static const struct range {
	bool port;
	uint64_t base, len;
	bus_read_fn *read;
	bus_write_fn *write;
	size_t arg; /* of the functions: where in struct testdev */
} ranges[] = {
	{ true, 0xf4, 4, read_zero, write_exit, 0 },
	{ true, 0xe0, PORTS, read_held, write_held,
	    offsetof(struct testdev, port) },
	{ true, 0x2000, 24, read_zero, write_irq, 0 },
	{ false, 0xff000000, MEM_SIZE, read_held, write_held,
	    offsetof(struct testdev, mem) },
};

static struct bus *bus_of(const struct testdev *dev, const struct range *r)
{
	return r->port ? dev->m->io : dev->m->mmio;
}

int testdev_create(struct machine *m, struct testdev **out)
{
	struct testdev *dev;
	bool wanted;

	if (config_get_bool(m->cfg, "lpc.pc-testdev", false, &wanted) != 0)
		return -EINVAL;
	if (!wanted)
		return 0;
	dev = calloc(1, sizeof(*dev));
	if (dev == NULL) {
		log_error("pc-testdev: no memory");
		return -ENOMEM;
	}
	dev->m = m;
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		const struct range *r = &ranges[i];
		int error = bus_add(bus_of(dev, r), "pc-testdev", r->base, r->len,
		    0, r->read, r->write, (uint8_t *)dev + r->arg);

		if (error != 0) {
			log_error("pc-testdev: cannot have %s 0x%llx: %s",
			    r->port ? "port" : "address",
			    (unsigned long long)r->base, strerror(-error));
			while (i-- > 0)
				bus_remove(
				    bus_of(dev, &ranges[i]), ranges[i].base);
			free(dev);
			return error;
		}
	}
	*out = dev;
	return 0;
}

void testdev_destroy(struct testdev *dev)
{
	if (dev == NULL)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
		bus_remove(bus_of(dev, &ranges[i]), ranges[i].base);
	free(dev);
}

int testdev_status(const struct testdev *dev)
{
	return dev->status;
}
