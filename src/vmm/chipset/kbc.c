/*
 * The i8042 keyboard controller with nothing plugged in, for what software still
 * uses it for: resetting the machine (0xFE), the A20 gate, and probing. Port 0x92
 * does the same in one byte. A20 is always open.
 */
#include "vmm/chipset/kbc.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "vmm/bus.h"
#include "vmm/machine.h"

#define STATUS_OBF   0x01u
#define STATUS_SYS   0x04u /* self-test passed */
#define STATUS_CMD   0x08u /* last write was a command */
#define STATUS_LOCK  0x10u /* keyboard not locked */

#define OUTPUT_RESET 0x01u /* low resets */
#define OUTPUT_A20   0x02u

struct kbc {
	struct machine *m;
	uint8_t status, data, config, pending;
	uint8_t port92;
};

static void reply(struct kbc *k, uint8_t v)
{
	k->data = v;
	k->status |= STATUS_OBF;
}

static void command(struct kbc *k, uint8_t v)
{
	k->status |= STATUS_CMD;
	k->pending = 0;
	switch (v) {
	case 0x20:
		reply(k, k->config);
		break;
	case 0x60: /* a data byte follows */
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4:
		k->pending = v;
		break;
	case 0xa7:
		k->config |= 0x20;
		break;
	case 0xa8:
		k->config &= (uint8_t)~0x20;
		break;
	case 0xa9: /* interface tests: no fault */
	case 0xab:
		reply(k, 0);
		break;
	case 0xaa:
		reply(k, 0x55);
		break;
	case 0xad:
		k->config |= 0x10;
		break;
	case 0xae:
		k->config &= (uint8_t)~0x10;
		break;
	case 0xc0:
		reply(k, 0x80);
		break;
	case 0xd0:
		reply(k, OUTPUT_RESET | OUTPUT_A20);
		break;
	default:
		/* Pulse output lines: bit 0 low is the CPU's reset. */
		if ((v & 0xf1) == 0xf0)
			machine_suspend(k->m, SUSPEND_RESET);
	}
}

static void data(struct kbc *k, uint8_t v)
{
	k->status &= (uint8_t)~STATUS_CMD;
	switch (k->pending) {
	case 0x60:
		k->config = v & 0x7f;
		break;
	case 0xd1:
		if (!(v & OUTPUT_RESET))
			machine_suspend(k->m, SUSPEND_RESET);
		break;
	case 0xd2:
		reply(k, v);
		break;
	default: /* to a device that is not there */
		break;
	}
	k->pending = 0;
}

static uint64_t data_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct kbc *k = arg;

	(void)vcpu;
	(void)off;
	(void)size;
	k->status &= (uint8_t)~STATUS_OBF;
	return k->data;
}

static void data_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	(void)vcpu;
	(void)off;
	(void)size;
	data(arg, (uint8_t)v);
}

static uint64_t status_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct kbc *k = arg;

	(void)vcpu;
	(void)off;
	(void)size;
	return k->status;
}

static void status_write(
    void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	(void)vcpu;
	(void)off;
	(void)size;
	command(arg, (uint8_t)v);
}

static uint64_t fast_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct kbc *k = arg;

	(void)vcpu;
	(void)off;
	(void)size;
	return k->port92;
}

static void fast_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct kbc *k = arg;

	(void)vcpu;
	(void)off;
	(void)size;
	k->port92 = (v & OUTPUT_A20) != 0 ? OUTPUT_A20 : 0;
	if (v & OUTPUT_RESET)
		machine_suspend(k->m, SUSPEND_RESET);
}

int kbc_create(struct machine *m, struct kbc **out)
{
	struct kbc *k = calloc(1, sizeof(*k));
	int err;

	if (k == NULL)
		return -ENOMEM;
	k->m = m;
	k->status = STATUS_SYS | STATUS_LOCK;
	k->config = 0x34; /* both interfaces disabled, self-test passed */
	k->port92 = OUTPUT_A20;
	err = bus_add(m->io, "i8042 data", 0x60, 1, 0, data_read, data_write, k);
	if (err == 0)
		err = bus_add(m->io, "i8042 command", 0x64, 1, 0, status_read,
		    status_write, k);
	if (err == 0)
		err = bus_add(
		    m->io, "port 0x92", 0x92, 1, 0, fast_read, fast_write, k);
	if (err != 0) {
		kbc_destroy(k);
		return err;
	}
	*out = k;
	return 0;
}

void kbc_destroy(struct kbc *k)
{
	free(k);
}
