/*
 * Base address registers: what they ask for, where firmware's job places them,
 * and their mapping onto the buses as the guest moves them (PCI 3.0 ch. 6.2.5).
 *
 * Rules: a BAR is mapped only while its decode bit is on and its range is free;
 * RAM, the local APIC's window and ranges of the chipset win over a BAR, and so
 * does a BAR that is there already. A BAR that lost is mapped as soon as its
 * range is free. Nothing a guest writes here can do more than unmap a BAR.
 */
#include <errno.h>
#include <string.h>

#include "bhyve/pci/pci_int.h"
#include "lib/config.h"
#include "lib/log.h"
#include "vmm/bus.h"

#define BAR_IO   0x1u
#define BAR_64   0x4u
#define MSI_BASE UINT64_C(0xFEE00000)
#define MSI_SIZE UINT64_C(0x100000)
/* Larger 64-bit BARs go above RAM; many guests want the small ones below 4 GiB. */
#define MEM64_MIN  (128 * MiB)
#define MEM64_SIZE (32 * GiB)

uint64_t pci_mem64_base(const struct machine *m)
{
	return ROUND_UP(MEMORY_HIGH_BASE + m->mem.high, MEM64_SIZE);
}

int pci_add_bar(struct pci_dev *dev, int bar, enum pci_bar_type type, uint64_t size)
{
	uint64_t least = type == PCI_BAR_IO ? 4 : 16, mask;

	if (bar < 0 || bar > (type == PCI_BAR_MEM64 ? 4 : 5) ||
	    type == PCI_BAR_NONE || dev->bar[bar].type != PCI_BAR_NONE ||
	    size == 0 || (bar > 0 && dev->bar[bar - 1].type == PCI_BAR_MEM64))
		return -EINVAL;
	while (least < size)
		least <<= 1;
	if (least > (type == PCI_BAR_IO         ? 256
			: type == PCI_BAR_MEM32 ? 2 * GiB
						: 16 * GiB))
		return -ENOSPC;
	dev->bar[bar] = (struct pci_bar){ .type = type, .size = least, .dev = dev };
	mask = ~(least - 1);
	if (type == PCI_BAR_IO)
		mask &= 0xffff;
	unsigned off = PCI_BAR0 + (unsigned)bar * 4;

	memcpy(&dev->wmask[off], &mask, type == PCI_BAR_MEM64 ? 8 : 4);
	dev->config[off] = type == PCI_BAR_IO      ? BAR_IO
			   : type == PCI_BAR_MEM64 ? BAR_64
						   : 0;
	return 0;
}

/* The address the register holds. */
static uint64_t bar_addr(const struct pci_dev *dev, int bar)
{
	unsigned off = PCI_BAR0 + (unsigned)bar * 4;
	uint64_t v = pci_get32(dev, off);

	if (dev->bar[bar].type == PCI_BAR_MEM64)
		v |= (uint64_t)pci_get32(dev, off + 4) << 32;
	return v & ~(dev->bar[bar].size - 1);
}

static void bar_set(struct pci_dev *dev, int bar, uint64_t addr)
{
	unsigned off = PCI_BAR0 + (unsigned)bar * 4;

	pci_set32(dev, off, (uint32_t)addr | dev->config[off]);
	if (dev->bar[bar].type == PCI_BAR_MEM64)
		pci_set32(dev, off + 4, (uint32_t)(addr >> 32));
}

static uint64_t read_bar(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct pci_bar *bar = arg;
	struct pci_dev *dev = bar->dev;
	int n = (int)(bar - dev->bar);
	uint64_t v;

	if (pci_msix_read(dev, n, off, size, &v))
		return v;
	if (dev->cls->bar_read == NULL)
		return ~UINT64_C(0);
	return dev->cls->bar_read(dev, vcpu, n, off, size);
}

static void write_bar(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct pci_bar *bar = arg;
	struct pci_dev *dev = bar->dev;
	int n = (int)(bar - dev->bar);

	if (pci_msix_write(dev, n, off, size, v) || dev->cls->bar_write == NULL)
		return;
	dev->cls->bar_write(dev, vcpu, n, off, size, v);
}

static bool overlaps(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return a < b + blen && b < a + alen;
}

/* Whether the range may be a BAR's at all. */
static bool placeable(
    const struct pci_dev *dev, const struct pci_bar *bar, uint64_t addr)
{
	const struct memory *mem = &dev->m->mem;

	if (addr == 0 || addr + bar->size < addr)
		return false;
	if (bar->type == PCI_BAR_IO)
		return addr + bar->size <= 0x10000;
	return !overlaps(addr, bar->size, 0, mem->low) &&
	       !overlaps(addr, bar->size, MEMORY_HIGH_BASE, mem->high) &&
	       !overlaps(addr, bar->size, MSI_BASE, MSI_SIZE);
}

static struct bus *bus_of(const struct pci_dev *dev, const struct pci_bar *bar)
{
	return bar->type == PCI_BAR_IO ? dev->m->io : dev->m->mmio;
}

static bool decodes(const struct pci_dev *dev, const struct pci_bar *bar)
{
	return (pci_get16(dev, PCI_COMMAND) &
		   (bar->type == PCI_BAR_IO ? CMD_IO : CMD_MEM)) != 0;
}

static void unmap(struct pci_dev *dev, struct pci_bar *bar)
{
	bus_remove(bus_of(dev, bar), bar->addr);
	bar->mapped = false;
}

static void map_if_free(struct pci_dev *dev, int n)
{
	struct pci_bar *bar = &dev->bar[n];
	uint64_t addr;

	if (bar->type == PCI_BAR_NONE || bar->mapped || !decodes(dev, bar))
		return;
	addr = bar_addr(dev, n);
	if (!placeable(dev, bar, addr))
		return;
	if (bus_add(bus_of(dev, bar), dev->name, addr, bar->size, 0, read_bar,
		write_bar, bar) == 0) {
		bar->addr = addr;
		bar->mapped = true;
	}
}

void pci_bars_update(struct pci_dev *dev)
{
	bool freed = false;

	for (int n = 0; n < 6; n++) {
		struct pci_bar *bar = &dev->bar[n];

		if (bar->mapped &&
		    (!decodes(dev, bar) || bar_addr(dev, n) != bar->addr)) {
			unmap(dev, bar);
			freed = true;
		}
	}
	for (int n = 0; n < 6; n++)
		map_if_free(dev, n);
	if (!freed)
		return;
	for (struct pci_dev *d = dev->bus->devs; d != NULL; d = d->next)
		for (int n = 0; n < 6; n++)
			map_if_free(d, n);
}

void pci_bars_unmap(struct pci_dev *dev)
{
	for (int n = 0; n < 6; n++)
		if (dev->bar[n].mapped)
			unmap(dev, &dev->bar[n]);
}

struct window {
	uint64_t next, end;
};

static bool place(struct pci_dev *dev, int n, struct window *w)
{
	struct pci_bar *bar = &dev->bar[n];
	uint64_t addr = ROUND_UP(w->next, bar->size);

	if (addr < w->next || addr > w->end || bar->size > w->end - addr)
		return false;
	bar_set(dev, n, addr);
	w->next = addr + bar->size;
	return true;
}

/* Places all BARs of one size: going from large to small leaves no gaps. */
static void place_size(struct pci_bus *bus, uint64_t size, struct window *io,
    struct window *mem32, struct window *mem64)
{
	for (struct pci_dev *dev = bus->devs; dev != NULL; dev = dev->next) {
		for (int n = 0; n < 6; n++) {
			struct pci_bar *bar = &dev->bar[n];
			bool ok;

			if (bar->type == PCI_BAR_NONE || bar->size != size)
				continue;
			if (bar->type == PCI_BAR_IO)
				ok = place(dev, n, io);
			else if (bar->type == PCI_BAR_MEM64 && size > MEM64_MIN)
				ok = place(dev, n, mem64);
			else
				ok = place(dev, n, mem32);
			if (!ok)
				log_warn("%s: no address space left for BAR %d",
				    dev->name, n);
		}
	}
}

void pci_bars_place(struct pci_bus *bus)
{
	uint64_t base64 = pci_mem64_base(bus->m);
	struct window io = { PCI_IO_BASE, PCI_IO_END };
	struct window mem32 = { PCI_MEM32_BASE, PCI_MEM32_END };
	struct window mem64 = { base64, base64 + MEM64_SIZE };
	bool enable = true, testdev = false;

	/* The PC test device's ports lie where those of BARs begin. */
	config_get_bool(bus->m->cfg, "lpc.pc-testdev", false, &testdev);
	if (testdev)
		io.next += 0x100;
	for (uint64_t size = 16 * GiB; size >= 4; size >>= 1)
		place_size(bus, size, &io, &mem32, &mem64);
	if (config_get_bool(bus->m->cfg, "pci.enable_bars",
		config_get(bus->m->cfg, "bootrom") == NULL, &enable) != 0)
		enable = true;
	for (struct pci_dev *dev = bus->devs; dev != NULL; dev = dev->next) {
		uint16_t command = pci_get16(dev, PCI_COMMAND);

		for (int n = 0; n < 6 && enable; n++) {
			if (dev->bar[n].type == PCI_BAR_IO)
				command |= CMD_IO;
			else if (dev->bar[n].type != PCI_BAR_NONE)
				command |= CMD_MEM;
		}
		pci_set16(dev, PCI_COMMAND, command);
		pci_bars_update(dev);
	}
}
