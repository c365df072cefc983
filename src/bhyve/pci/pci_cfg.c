/*
 * Configuration space: how the guest reaches it (ports 0xCF8-0xCFF and ECAM at
 * 0xE0000000) and what a write changes.
 *
 * Every function has 4 KiB of registers with two masks: bits the guest may set and
 * bits it clears by writing one. Mechanism 1 sees the first 256 bytes. A function
 * that does not exist reads all ones.
 */
#include <errno.h>
#include <string.h>

#include "bhyve/pci/pci_int.h"
#include "lib/log.h"
#include "vmm/bus.h"
#include "vmm/chipset/chipset.h"

#define ADDRESS_PORT   0xcf8
#define DATA_PORT      0xcfc
#define ADDRESS_ENABLE 0x80000000u

void pci_set8(struct pci_dev *dev, unsigned off, uint8_t v)
{
	dev->config[off] = v;
}

void pci_set16(struct pci_dev *dev, unsigned off, uint16_t v)
{
	memcpy(&dev->config[off], &v, sizeof(v));
}

void pci_set32(struct pci_dev *dev, unsigned off, uint32_t v)
{
	memcpy(&dev->config[off], &v, sizeof(v));
}

uint16_t pci_get16(const struct pci_dev *dev, unsigned off)
{
	uint16_t v;

	memcpy(&v, &dev->config[off], sizeof(v));
	return v;
}

uint32_t pci_get32(const struct pci_dev *dev, unsigned off)
{
	uint32_t v;

	memcpy(&v, &dev->config[off], sizeof(v));
	return v;
}

uint32_t pci_cfg_read(struct pci_dev *dev, unsigned off, unsigned size)
{
	uint32_t v = 0;

	if (dev->cls->cfg_read != NULL && dev->cls->cfg_read(dev, off, size, &v))
		return v;
	memcpy(&v, &dev->config[off], size);
	return v;
}

/* Whether [off, off+size) meets [reg, reg+len). */
static bool touches(unsigned off, unsigned size, unsigned reg, unsigned len)
{
	return off < reg + len && reg < off + size;
}

void pci_cfg_write(struct pci_dev *dev, unsigned off, unsigned size, uint32_t v)
{
	if (dev->cls->cfg_write != NULL && dev->cls->cfg_write(dev, off, size, v))
		return;
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = (uint8_t)(v >> (i * 8)), *c = &dev->config[off + i];
		uint8_t w = dev->wmask[off + i];

		*c = (uint8_t)((*c & ~w) | (byte & w));
		*c &= (uint8_t) ~(byte & dev->w1c[off + i]);
	}
	if (touches(off, size, PCI_COMMAND, 2) || touches(off, size, PCI_BAR0, 24))
		pci_bars_update(dev);
	if (dev->msix_cap != 0 && touches(off, size, dev->msix_cap + 2u, 2))
		pci_msix_update(dev);
	if (touches(off, size, PCI_COMMAND, 2) ||
	    (dev->msix_cap != 0 && touches(off, size, dev->msix_cap + 2u, 2)) ||
	    (dev->msi_cap != 0 && touches(off, size, dev->msi_cap + 2u, 2)))
		pci_intx_update(dev);
}

static struct pci_dev *find_fn(struct pci_bus *bus, unsigned b, unsigned devfn)
{
	return bus->fn[b] != NULL ? bus->fn[b][devfn] : NULL;
}

static uint64_t address_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct pci_bus *bus = arg;

	(void)vcpu;
	if (size == 4)
		return bus->address;
	/* Only dwords are the address register; this byte is another's. */
	if (off == 1 && size == 1)
		return pm_reset_read(bus->m->pm);
	return ~UINT64_C(0);
}

static void address_write(
    void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct pci_bus *bus = arg;

	(void)vcpu;
	if (size == 4)
		bus->address = (uint32_t)v & (ADDRESS_ENABLE | 0x00fffffc);
	else if (off == 1 && size == 1)
		pm_reset_write(bus->m->pm, (uint8_t)v);
}

static struct pci_dev *addressed(struct pci_bus *bus)
{
	if ((bus->address & ADDRESS_ENABLE) == 0)
		return NULL;
	return find_fn(bus, bus->address >> 16 & 0xff, bus->address >> 8 & 0xff);
}

static uint64_t data_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct pci_bus *bus = arg;
	struct pci_dev *dev = addressed(bus);

	(void)vcpu;
	if (dev == NULL)
		return ~UINT64_C(0);
	return pci_cfg_read(dev, (bus->address & 0xfc) + (unsigned)off, size);
}

static void data_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct pci_bus *bus = arg;
	struct pci_dev *dev = addressed(bus);

	(void)vcpu;
	if (dev != NULL)
		pci_cfg_write(
		    dev, (bus->address & 0xfc) + (unsigned)off, size, (uint32_t)v);
}

static uint64_t ecam_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct pci_dev *dev = find_fn(arg, off >> 20 & 0xff, off >> 12 & 0xff);
	unsigned reg = off & 0xfff;
	uint64_t v;

	(void)vcpu;
	if (dev == NULL || reg + size > 4096)
		return ~UINT64_C(0);
	if (size < 8)
		return pci_cfg_read(dev, reg, size);
	v = pci_cfg_read(dev, reg, 4);
	return v | (uint64_t)pci_cfg_read(dev, reg + 4, 4) << 32;
}

static void ecam_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct pci_dev *dev = find_fn(arg, off >> 20 & 0xff, off >> 12 & 0xff);
	unsigned reg = off & 0xfff;

	(void)vcpu;
	if (dev == NULL || reg + size > 4096)
		return;
	pci_cfg_write(dev, reg, MIN(size, 4u), (uint32_t)v);
	if (size == 8)
		pci_cfg_write(dev, reg + 4, 4, (uint32_t)(v >> 32));
}

int pci_ports_add(struct pci_bus *bus)
{
	int error;

	error = bus_add(bus->m->io, "pci address", ADDRESS_PORT, 4, 0, address_read,
	    address_write, bus);
	if (error == 0)
		error = bus_add(bus->m->io, "pci data", DATA_PORT, 4, 0, data_read,
		    data_write, bus);
	if (error == 0)
		error = bus_add(bus->m->mmio, "pci ecam", PCI_ECAM_BASE,
		    PCI_ECAM_SIZE, 0, ecam_read, ecam_write, bus);
	if (error != 0)
		log_error("pci: the bus's own addresses are taken: %d", error);
	return error;
}
