/*
 * See fake_machine.h. The functions of machine.h and pm that devices call are ours
 * here.
 */
#include "fake_machine.h"

#include <string.h>

#include "lib/log.h"
#include "vmm/chipset/chipset.h"

static struct fake *fake_of(struct machine *m)
{
	return container_of(m, struct fake, m);
}

void machine_suspend(struct machine *m, enum suspend_reason why)
{
	if (m->suspend == SUSPEND_NONE)
		m->suspend = why;
}

void machine_irq(struct machine *m, unsigned gsi, bool level)
{
	fake_of(m)->gsi_edges += fake_of(m)->gsi[gsi] != level;
	fake_of(m)->gsi[gsi] = level;
}

void machine_isa_irq(struct machine *m, unsigned irq, bool level)
{
	fake_of(m)->isa[irq] = level;
}

void machine_msi(struct machine *m, uint64_t addr, uint32_t data)
{
	struct fake *f = fake_of(m);

	f->msis++;
	f->msi_addr = addr;
	f->msi_data = data;
}

uint8_t pm_reset_read(struct pm *p)
{
	return ((struct fake *)p)->reset_control;
}

void pm_reset_write(struct pm *p, uint8_t v)
{
	((struct fake *)p)->reset_control = v;
}

static void code_written(void *arg, uint64_t gpa, uint64_t len)
{
	(void)gpa;
	(void)len;
	((struct fake *)arg)->written++;
}

int fake_create(struct fake *f, uint64_t ram)
{
	int error;

	memset(f, 0, sizeof(*f));
	pthread_mutex_init(&f->m.lock, NULL);
	f->m.cfg = config_new();
	f->m.io = bus_new(&f->m.lock);
	f->m.mmio = bus_new(&f->m.lock);
	f->m.pm = (struct pm *)f;
	if (f->m.cfg == NULL || f->m.io == NULL || f->m.mmio == NULL)
		return -1;
	error = event_loop_new(&f->m.loop, &f->m.lock);
	if (error == 0)
		error = memory_create(&f->m.mem, ram, false, true);
	f->m.mem.code_written = code_written;
	f->m.mem.code_arg = f;
	return error;
}

int fake_slot(struct fake *f, const char *text)
{
	return pci_parse_slot(f->m.cfg, text);
}

int fake_start(struct fake *f)
{
	return pci_bus_create(&f->m, &f->pci);
}

void fake_destroy(struct fake *f)
{
	pthread_mutex_lock(&f->m.lock);
	pci_bus_destroy(f->pci);
	pthread_mutex_unlock(&f->m.lock);
	event_loop_free(f->m.loop);
	bus_free(f->m.io);
	bus_free(f->m.mmio);
	memory_destroy(&f->m.mem);
	config_free(f->m.cfg);
	pthread_mutex_destroy(&f->m.lock);
}

void fake_poll(struct fake *f)
{
	event_loop_poll(f->m.loop, 10);
}

bool fake_wait8(struct fake *f, const volatile uint8_t *flag, uint8_t old)
{
	uint64_t end = event_now_ns() + UINT64_C(10000000000);

	while (*flag == old && event_now_ns() < end)
		fake_poll(f);
	return *flag != old;
}

bool fake_wait32(struct fake *f, const volatile uint32_t *flag, uint32_t old)
{
	uint64_t end = event_now_ns() + UINT64_C(10000000000);

	while (*flag == old && event_now_ns() < end)
		fake_poll(f);
	return *flag != old;
}

uint32_t fake_in(struct fake *f, uint16_t port, unsigned size)
{
	uint64_t v;

	bus_read(f->m.io, 0, port, size, &v);
	return (uint32_t)v;
}

void fake_out(struct fake *f, uint16_t port, unsigned size, uint32_t v)
{
	bus_write(f->m.io, 0, port, size, v);
}

uint64_t fake_read(struct fake *f, uint64_t addr, unsigned size)
{
	uint64_t v;

	bus_read(f->m.mmio, 0, addr, size, &v);
	return v;
}

void fake_write(struct fake *f, uint64_t addr, unsigned size, uint64_t v)
{
	bus_write(f->m.mmio, 0, addr, size, v);
}

static void address(
    struct fake *f, unsigned b, unsigned s, unsigned fn, unsigned off)
{
	fake_out(
	    f, 0xcf8, 4, 0x80000000u | b << 16 | s << 11 | fn << 8 | (off & 0xfc));
}

uint32_t fake_cfg_read(struct fake *f, unsigned b, unsigned s, unsigned fn,
    unsigned off, unsigned size)
{
	address(f, b, s, fn, off);
	return fake_in(f, (uint16_t)(0xcfc + (off & 3)), size);
}

void fake_cfg_write(struct fake *f, unsigned b, unsigned s, unsigned fn,
    unsigned off, unsigned size, uint32_t v)
{
	address(f, b, s, fn, off);
	fake_out(f, (uint16_t)(0xcfc + (off & 3)), size, v);
}

uint64_t fake_bar(struct fake *f, unsigned slot, int bar)
{
	uint32_t v = fake_cfg_read(f, 0, slot, 0, 0x10 + 4 * (unsigned)bar, 4);

	return v & 1 ? v & ~3u : v & ~15u;
}

void *fake_ram(struct fake *f, uint64_t gpa)
{
	return f->m.mem.base + gpa;
}
