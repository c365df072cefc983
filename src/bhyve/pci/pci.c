/*
 * The PCI bus: devices from the configuration tree, their identities and
 * capabilities, DMA. PCI Local Bus 3.0 ch. 6; see pci.h for a device's life.
 */
#include "bhyve/pci/pci.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bhyve/pci/pci_int.h"
#include "lib/config.h"
#include "lib/log.h"
#include "vmm/bus.h"

#define CAPS_START 0x40

/* Filled by PCI_CLASS(); may be empty in a test. */
extern const struct pci_class *const __start_pci_classes[] __attribute__((weak));
extern const struct pci_class *const __stop_pci_classes[] __attribute__((weak));

void pci_identify(struct pci_dev *dev, uint16_t vendor, uint16_t device,
    uint8_t class, uint8_t subclass, uint8_t progif)
{
	pci_set16(dev, PCI_VENDOR, vendor);
	pci_set16(dev, PCI_DEVICE, device);
	pci_set8(dev, PCI_CLASSCODE, class);
	pci_set8(dev, PCI_SUBCLASS, subclass);
	pci_set8(dev, PCI_PROGIF, progif);
}

void pci_subsystem(struct pci_dev *dev, uint16_t vendor, uint16_t device)
{
	pci_set16(dev, PCI_SUBVENDOR, vendor);
	pci_set16(dev, PCI_SUBDEVICE, device);
}

int pci_add_cap(struct pci_dev *dev, uint8_t id, const void *body, unsigned len)
{
	unsigned at = CAPS_START, last = PCI_CAPPTR;

	/* Capabilities follow each other, each dword aligned; byte 1 links them. */
	while (dev->config[last] != 0) {
		at = dev->config[last];
		last = at + 1;
	}
	if (last != PCI_CAPPTR)
		at = ROUND_UP(at + dev->cap_len, 4u);
	if (len < 2 || at + len > 256)
		return -ENOSPC;
	dev->config[last] = (uint8_t)at;
	dev->config[at] = id;
	memcpy(&dev->config[at + 2], body, len - 2);
	dev->cap_len = len;
	dev->config[PCI_STATUS] |= STATUS_CAPS;
	return (int)at;
}

int pci_add_pcie_root(struct pci_dev *dev)
{
	/* PCIe 2.0 ch. 7.8: version 2, root port; link x1 at 2.5 GT/s, trained. */
	uint8_t body[58] = { 0 };
	int cap;

	body[0] = 0x42;
	body[10] = 0x11; /* link capabilities: x1, 2.5 GT/s */
	body[16] = 0x11; /* link status: the same */
	cap = pci_add_cap(dev, CAP_PCIE, body, sizeof(body) + 2);
	return cap < 0 ? cap : 0;
}

bool pci_bus_master(const struct pci_dev *dev)
{
	return (pci_get16(dev, PCI_COMMAND) & CMD_MASTER) != 0;
}

void *pci_dma(struct pci_dev *dev, uint64_t gpa, uint64_t len)
{
	return pci_bus_master(dev) ? memory_ptr(&dev->m->mem, gpa, len) : NULL;
}

void pci_dma_written(struct pci_dev *dev, uint64_t gpa, uint64_t len)
{
	if (len > 0)
		memory_written(&dev->m->mem, gpa, len);
}

struct pci_dev *pci_find(struct pci_bus *bus, const char *class_name)
{
	for (struct pci_dev *dev = bus->devs; dev != NULL; dev = dev->next)
		if (strcmp(dev->cls->name, class_name) == 0)
			return dev;
	return NULL;
}

const struct pci_class *pci_class_find(const char *name)
{
	for (const struct pci_class *const *c = __start_pci_classes;
	     c < __stop_pci_classes; c++)
		if (strcmp((*c)->name, name) == 0)
			return *c;
	return NULL;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(const struct pci_class *const *)a)->name,
	    (*(const struct pci_class *const *)b)->name);
}

void pci_print_classes(void)
{
	size_t n = (size_t)(__stop_pci_classes - __start_pci_classes);
	const struct pci_class **sorted = calloc(n + 1, sizeof(*sorted));

	if (sorted == NULL)
		return;
	memcpy(sorted, __start_pci_classes, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), by_name);
	for (size_t i = 0; i < n; i++)
		printf("%-16s %s\n", sorted[i]->name,
		    sorted[i]->help != NULL ? sorted[i]->help : "");
	free(sorted);
}

static void dev_free(struct pci_dev *dev)
{
	if (dev == NULL)
		return;
	free(dev->msix_table);
	free(dev->msix_pba);
	free(dev);
}

/* The registers every function has. */
static void init_config(struct pci_dev *dev)
{
	/*
	 * Mastering is on from the start, as firmware leaves it: old guests do not
	 * turn it on for devices they did not scan themselves.
	 */
	pci_set16(dev, PCI_COMMAND, CMD_MASTER);
	uint16_t command =
	    CMD_IO | CMD_MEM | CMD_MASTER | CMD_PARITY | CMD_SERR | CMD_INTX_OFF;
	uint16_t status = STATUS_W1C;

	memcpy(&dev->wmask[PCI_COMMAND], &command, 2);
	memcpy(&dev->w1c[PCI_STATUS], &status, 2);
	dev->wmask[PCI_INTLINE] = 0xff;
	dev->wmask[0x0c] = 0xff; /* cache line size: a scratch byte for us */
	pci_set8(dev, PCI_INTLINE, 0xff);
}

struct builder {
	struct pci_bus *bus;
	struct pci_dev **tail;
	unsigned b, s;
};

static int create_device(struct builder *w, unsigned f)
{
	struct pci_bus *bus = w->bus;
	struct config *cfg = bus->m->cfg;
	char node[32];
	const char *name;
	struct pci_dev *dev;
	int error;

	snprintf(node, sizeof(node), "pci.%u.%u.%u", w->b, w->s, f);
	name = config_getf(cfg, "%s.device", node);
	if (name == NULL) {
		log_error("%s: no device given; set %s.device=NAME, or use -s",
		    node, node);
		return -EINVAL;
	}
	dev = calloc(1, sizeof(*dev));
	if (dev == NULL)
		return -ENOMEM;
	dev->cls = pci_class_find(name);
	if (dev->cls == NULL) {
		log_error("%s: unknown device \"%s\"; 'bhyve -s help' lists them",
		    node, name);
		free(dev);
		return -EINVAL;
	}
	dev->bus = bus;
	dev->m = bus->m;
	dev->cfg = cfg;
	dev->b = (uint8_t)w->b;
	dev->s = (uint8_t)w->s;
	dev->f = (uint8_t)f;
	dev->intx_gsi = -1;
	snprintf(dev->name, sizeof(dev->name), "%u:%u:%u %.18s", dev->b, dev->s,
	    dev->f, name);
	init_config(dev);
	if (bus->fn[w->b] == NULL)
		bus->fn[w->b] = calloc(256, sizeof(*bus->fn[0]));
	if (bus->fn[w->b] == NULL) {
		free(dev);
		return -ENOMEM;
	}
	bus->fn[w->b][w->s * 8 + f] = dev;
	error = dev->cls->create(dev, node);
	if (error != 0) {
		if (error == -ENOMEM)
			log_error("%s: out of memory", dev->name);
		bus->fn[w->b][w->s * 8 + f] = NULL;
		dev_free(dev);
		return error;
	}
	*w->tail = dev;
	w->tail = &dev->next;
	return 0;
}

/* A level of the tree: its number within limit, or -1 for another key. */
static int number(const char *name, unsigned limit, const char *what)
{
	unsigned long v;
	char *end;

	if (*name < '0' || *name > '9')
		return -1;
	v = strtoul(name, &end, 10);
	if (*end != '\0' || v >= limit) {
		log_error(
		    "pci: %s is not a PCI %s, 0 to %u", name, what, limit - 1);
		return -EINVAL;
	}
	return (int)v;
}

static int walk_function(const char *name, void *arg)
{
	int f = number(name, 8, "function");

	if (f == -1)
		return 0;
	return f < 0 ? f : create_device(arg, (unsigned)f);
}

static int walk_slot(const char *name, void *arg)
{
	struct builder *w = arg;
	int s = number(name, 32, "slot");
	char prefix[32];

	if (s == -1)
		return 0;
	if (s < 0)
		return s;
	w->s = (unsigned)s;
	snprintf(prefix, sizeof(prefix), "pci.%u.%u", w->b, w->s);
	return config_children(w->bus->m->cfg, prefix, walk_function, w);
}

static int walk_bus(const char *name, void *arg)
{
	struct builder *w = arg;
	int b = number(name, 256, "bus");
	char prefix[32];

	if (b == -1) /* "enable_bars" */
		return 0;
	if (b < 0)
		return b;
	w->b = (unsigned)b;
	snprintf(prefix, sizeof(prefix), "pci.%u", w->b);
	return config_children(w->bus->m->cfg, prefix, walk_slot, w);
}

/* Function 0 says whether there are others; without one a guest finds none. */
static void mark_multifunction(struct pci_bus *bus)
{
	for (struct pci_dev *dev = bus->devs; dev != NULL; dev = dev->next) {
		struct pci_dev *first = bus->fn[dev->b][dev->s * 8];

		if (dev->f == 0)
			continue;
		if (first != NULL)
			first->config[PCI_HEADER] |= HEADER_MULTI;
		else
			log_warn("%s: slot %u has no function 0, so guests will "
				 "not find "
				 "this device",
			    dev->name, dev->s);
	}
}

int pci_bus_create(struct machine *m, struct pci_bus **out)
{
	struct pci_bus *bus = calloc(1, sizeof(*bus));
	struct builder w = { .bus = bus };
	int error;

	*out = NULL;
	if (bus == NULL)
		return -ENOMEM;
	bus->m = m;
	w.tail = &bus->devs;
	error = pci_ports_add(bus);
	if (error == 0)
		error = config_children(m->cfg, "pci", walk_bus, &w);
	if (error != 0) {
		pci_bus_destroy(bus);
		return error;
	}
	mark_multifunction(bus);
	pci_pirq_init(bus);
	pci_bars_place(bus);
	*out = bus;
	return 0;
}

void pci_bus_destroy(struct pci_bus *bus)
{
	if (bus == NULL)
		return;
	bus_remove(bus->m->io, 0xcf8);
	bus_remove(bus->m->io, 0xcfc);
	bus_remove(bus->m->mmio, PCI_ECAM_BASE);
	while (bus->devs != NULL) {
		struct pci_dev *dev = bus->devs;

		bus->devs = dev->next;
		pci_bars_unmap(dev);
		if (dev->cls->destroy != NULL)
			dev->cls->destroy(dev);
		dev_free(dev);
	}
	for (unsigned b = 0; b < 256; b++)
		free(bus->fn[b]);
	free(bus);
}
