/*
 * INTx: from a device's pin to an IOAPIC pin and, through the LPC bridge's PIRQ
 * registers, to the 8259 pair.
 *
 * Pins are level-triggered and shared: a line is asserted while any device on it
 * is. Invariant: gsi_count and pirq_count are the numbers of devices with
 * intx_asserted; an ISA interrupt is asserted while any PIRQ routed to it is.
 */
#include <errno.h>

#include "bhyve/pci/pci_int.h"
#include "lib/config.h"
#include "lib/log.h"
#include "vmm/bus.h"

#define FIRST_GSI 16
/*
 * ISA interrupts that PCI may share: 3-7, 9-12, 14, 15; of them these have no
 * owner.
 */
#define PIRQ_ISA_ALLOWED 0xdef8u
static const uint8_t free_isa[] = { 5, 10, 11, 6, 7, 9, 12, 14, 15 };

int pci_add_intx(struct pci_dev *dev)
{
	struct pci_bus *bus = dev->bus;
	unsigned used[4] = { 0 }, pin = 0;

	for (int f = 0; f < 8; f++) {
		struct pci_dev *other = bus->fn[dev->b][dev->s * 8 + f];

		if (other != NULL && other->config[PCI_INTPIN] != 0)
			used[other->config[PCI_INTPIN] - 1]++;
	}
	for (unsigned i = 1; i < 4; i++)
		if (used[i] < used[pin])
			pin = i;
	pci_set8(dev, PCI_INTPIN, (uint8_t)(pin + 1));

	/* Firmware has its own fixed idea of the wiring. */
	if (config_get(dev->cfg, "bootrom") != NULL) {
		dev->intx_gsi =
		    FIRST_GSI + (int)((4 + dev->s + pin + 1) % PCI_PIRQS);
		dev->intx_pirq = (dev->s + pin) % PCI_PIRQS;
	} else {
		dev->intx_gsi =
		    FIRST_GSI + (int)(bus->next_gsi % (MACHINE_GSIS - FIRST_GSI));
		dev->intx_pirq = bus->next_gsi % PCI_PIRQS;
		bus->next_gsi++;
	}
	bus->pirq_users[dev->intx_pirq]++;
	return 0;
}

static void set_isa(struct pci_bus *bus, unsigned irq)
{
	bool level = false;

	for (unsigned i = 0; i < PCI_PIRQS; i++)
		level |= bus->pirq[i] == irq && bus->pirq_count[i] > 0;
	machine_isa_irq(bus->m, irq, level);
}

static bool routed(uint8_t reg)
{
	return (reg & PIRQ_OFF) == 0 && (PIRQ_ISA_ALLOWED & BIT(reg & 15)) != 0;
}

void pci_intx_update(struct pci_dev *dev)
{
	struct pci_bus *bus = dev->bus;
	bool level = dev->intx_level &&
		     (pci_get16(dev, PCI_COMMAND) & CMD_INTX_OFF) == 0 &&
		     !pci_msi_enabled(dev) && !pci_msix_enabled(dev);

	if (dev->intx_gsi < 0 || level == dev->intx_asserted)
		return;
	dev->intx_asserted = level;
	unsigned *gsi = &bus->gsi_count[dev->intx_gsi];
	unsigned *pirq = &bus->pirq_count[dev->intx_pirq];

	*gsi += level ? 1 : -1u;
	*pirq += level ? 1 : -1u;
	if (*gsi == (level ? 1u : 0u))
		machine_irq(bus->m, (unsigned)dev->intx_gsi, level);
	if (*pirq == (level ? 1u : 0u) && routed(bus->pirq[dev->intx_pirq]))
		set_isa(bus, bus->pirq[dev->intx_pirq]);
}

void pci_intx(struct pci_dev *dev, bool level)
{
	dev->intx_level = level;
	if (level)
		dev->config[PCI_STATUS] |= STATUS_INTX;
	else
		dev->config[PCI_STATUS] &= (uint8_t)~STATUS_INTX;
	pci_intx_update(dev);
}

uint8_t pci_pirq_read(const struct pci_bus *bus, unsigned n)
{
	return bus->pirq[n];
}

void pci_pirq_write(struct pci_bus *bus, unsigned n, uint8_t v)
{
	uint8_t old = bus->pirq[n];

	v &= PIRQ_OFF | 0x0f;
	if (v == old)
		return;
	bus->pirq[n] = v;
	if (bus->pirq_count[n] == 0)
		return;
	if (routed(old))
		set_isa(bus, old);
	if (routed(v))
		set_isa(bus, v);
}

void pci_pirq_init(struct pci_bus *bus)
{
	uint32_t elcr = 0;
	unsigned next = 0;

	for (unsigned i = 0; i < PCI_PIRQS; i++) {
		bus->pirq[i] = PIRQ_OFF;
		if (bus->pirq_users[i] == 0)
			continue;
		/* Three lines have no other owner on our board. */
		bus->pirq[i] = free_isa[next++ % 3];
		elcr |= BIT(bus->pirq[i]);
	}
	for (struct pci_dev *dev = bus->devs; dev != NULL; dev = dev->next)
		if (dev->intx_gsi >= 0)
			pci_set8(dev, PCI_INTLINE, bus->pirq[dev->intx_pirq]);
	if (elcr == 0)
		return;
	/* Firmware would have made these level-triggered. */
	bus_write(bus->m->io, -1, 0x4d0, 1, elcr & 0xff);
	bus_write(bus->m->io, -1, 0x4d1, 1, elcr >> 8);
}

void pci_foreach_intx(struct pci_bus *bus,
    void (*fn)(void *arg, int b, int slot, int pin, int gsi), void *arg)
{
	for (struct pci_dev *dev = bus->devs; dev != NULL; dev = dev->next)
		if (dev->intx_gsi >= 0)
			fn(arg, dev->b, dev->s, dev->config[PCI_INTPIN],
			    dev->intx_gsi);
}
