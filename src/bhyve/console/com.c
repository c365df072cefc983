/*
 * COM1-COM4 at their PC addresses. COM1 and COM3 share IRQ 4, COM2 and COM4
 * IRQ 3: a line is high while any of its ports asks.
 */
#include "bhyve/console/com.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "bhyve/console/console.h"
#include "lib/config.h"
#include "lib/util.h"
#include "vmm/bus.h"
#include "vmm/machine.h"

#define PORTS 4
#define REGS  8

static const struct {
	uint16_t base;
	uint8_t irq;
} layout[PORTS] = { { 0x3f8, 4 }, { 0x2f8, 3 }, { 0x3e8, 4 }, { 0x2e8, 3 } };

struct com_port {
	struct com_ports *all;
	struct uart *uart;
	bool asks;
};

struct com_ports {
	struct machine *m;
	struct com_port port[PORTS];
};

static void on_irq(void *arg, bool level)
{
	struct com_port *p = arg;
	struct com_ports *com = p->all;
	unsigned irq = layout[p - com->port].irq;

	p->asks = level;
	level = false;
	for (unsigned i = 0; i < PORTS; i++)
		level |= layout[i].irq == irq && com->port[i].asks;
	machine_isa_irq(com->m, irq, level);
}

/* Registers are bytes; a wider access is that many of them. */
static uint64_t com_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct com_port *p = arg;
	uint64_t v = 0;

	(void)vcpu;
	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)uart_read(p->uart, (unsigned)off + i) << (8 * i);
	return v;
}

static void com_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct com_port *p = arg;

	(void)vcpu;
	for (unsigned i = 0; i < size; i++)
		uart_write(p->uart, (unsigned)off + i, (uint8_t)(v >> (8 * i)));
}

static int com_open(struct com_ports *com, unsigned i)
{
	static const char *const names[PORTS] = { "com1", "com2", "com3", "com4" };
	struct com_port *p = &com->port[i];
	struct chardev *c;
	const char *path;
	char option[32];
	int error;

	p->all = com;
	error = uart_create(&p->uart, on_irq, p);
	if (error == 0)
		error = bus_add(com->m->io, names[i], layout[i].base, REGS, 0,
		    com_read, com_write, p);
	path = config_getf(com->m->cfg, "lpc.%s.path", names[i]);
	if (error != 0 || path == NULL)
		return error;
	snprintf(option, sizeof(option), "-l %s", names[i]);
	error = chardev_open(&c, com->m->loop, path, option);
	if (error == 0)
		uart_attach(p->uart, c);
	return error;
}

int com_create(struct machine *m, struct com_ports **out)
{
	struct com_ports *com = calloc(1, sizeof(*com));
	int error = 0;

	if (com == NULL)
		return -ENOMEM;
	com->m = m;
	for (unsigned i = 0; i < PORTS && error == 0; i++)
		error = com_open(com, i);
	if (error != 0) {
		com_destroy(com);
		return error;
	}
	*out = com;
	return 0;
}

void com_destroy(struct com_ports *com)
{
	if (com == NULL)
		return;
	for (unsigned i = 0; i < PORTS; i++) {
		if (com->port[i].uart == NULL)
			continue;
		bus_remove(com->m->io, layout[i].base);
		uart_destroy(com->port[i].uart);
	}
	free(com);
}
