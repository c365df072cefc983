/*
 * The PCI-ISA bridge's PCI function: its identity and the PIRQ routing registers
 * (as in the PIIX: A-D at 0x60-0x63, E-H at 0x68-0x6b; bit 7 off, bits 3:0 the
 * ISA interrupt). The devices behind it are at fixed ports and need no BAR.
 */
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bhyve/pci/pci_int.h"
#include "lib/config.h"
#include "lib/log.h"

/* The host's ISA bridge's register of that sysfs name; -1 when there is none. */
static long host_register(const char *name)
{
	long found = -1;
	glob_t g;

	if (glob("/sys/bus/pci/devices/*/class", 0, NULL, &g) != 0)
		return -1;
	for (size_t i = 0; i < g.gl_pathc && found < 0; i++) {
		char path[512];
		unsigned class = 0, v;
		FILE *f = fopen(g.gl_pathv[i], "re");

		if (f == NULL)
			continue;
		if (fscanf(f, "%x", &class) != 1)
			class = 0;
		fclose(f);
		if (class >> 8 != 0x0601)
			continue;
		snprintf(path, sizeof(path), "%.*s%s",
		    (int)(strlen(g.gl_pathv[i]) - strlen("class")), g.gl_pathv[i],
		    name);
		f = fopen(path, "re");
		if (f == NULL)
			continue;
		if (fscanf(f, "%x", &v) == 1)
			found = (long)v;
		fclose(f);
	}
	globfree(&g);
	return found;
}

static int get_register(struct pci_dev *dev, const char *key, const char *sysfs,
    unsigned long max, unsigned long dflt, unsigned long *out)
{
	const char *text = config_getf(dev->cfg, "lpc.pcireg.%s", key);
	char *end;

	*out = dflt;
	if (text == NULL)
		return 0;
	if (strcmp(text, "host") == 0) {
		long v = host_register(sysfs);

		if (v < 0) {
			log_error("lpc.pcireg.%s=host: this host has no PCI-ISA "
				  "bridge to "
				  "copy from; give a number",
			    key);
			return -EINVAL;
		}
		*out = (unsigned long)v & max;
		return 0;
	}
	*out = strtoul(text, &end, 0);
	if (end == text || *end != '\0' || *out > max) {
		log_error(
		    "lpc.pcireg.%s=%s: must be \"host\" or a number up to 0x%lx",
		    key, text, max);
		return -EINVAL;
	}
	return 0;
}

static int parse(struct config *cfg, const char *node, const char *text)
{
	(void)node;
	return pci_parse_options(cfg, "lpc",
	    "pcireg.vendor pcireg.device pcireg.revid pcireg.subvendor "
	    "pcireg.subdevice",
	    text);
}

static int create(struct pci_dev *dev, const char *node)
{
	unsigned long vendor, device, revision, subvendor, subdevice;

	(void)node;
	if (dev->b != 0) {
		log_error("%s: the LPC bridge must be on bus 0", dev->name);
		return -EINVAL;
	}
	if (pci_find(dev->bus, "lpc") != NULL) {
		log_error("%s: there can be only one LPC bridge", dev->name);
		return -EINVAL;
	}
	if (get_register(dev, "vendor", "vendor", 0xffff, 0x8086, &vendor) != 0 ||
	    get_register(dev, "device", "device", 0xffff, 0x7000, &device) != 0 ||
	    get_register(dev, "revid", "revision", 0xff, 0, &revision) != 0 ||
	    get_register(
		dev, "subvendor", "subsystem_vendor", 0xffff, 0, &subvendor) != 0 ||
	    get_register(
		dev, "subdevice", "subsystem_device", 0xffff, 0, &subdevice) != 0)
		return -EINVAL;
	pci_identify(dev, (uint16_t)vendor, (uint16_t)device, 0x06, 0x01, 0x00);
	pci_subsystem(dev, (uint16_t)subvendor, (uint16_t)subdevice);
	pci_set8(dev, PCI_REVISION, (uint8_t)revision);
	return 0;
}

/* The PIRQ a register is of, or -1. */
static int pirq_of(unsigned off)
{
	if (off >= 0x60 && off < 0x64)
		return (int)(off - 0x60);
	if (off >= 0x68 && off < 0x6c)
		return (int)(off - 0x68 + 4);
	return -1;
}

static bool cfg_read(struct pci_dev *dev, unsigned off, unsigned size, uint32_t *v)
{
	if (pirq_of(off) < 0)
		return false;
	*v = 0;
	for (unsigned i = 0; i < size; i++)
		if (pirq_of(off + i) >= 0)
			*v |= (uint32_t)pci_pirq_read(
				  dev->bus, (unsigned)pirq_of(off + i))
			      << (i * 8);
	return true;
}

static bool cfg_write(struct pci_dev *dev, unsigned off, unsigned size, uint32_t v)
{
	if (pirq_of(off) < 0)
		return false;
	for (unsigned i = 0; i < size; i++)
		if (pirq_of(off + i) >= 0)
			pci_pirq_write(dev->bus, (unsigned)pirq_of(off + i),
			    (uint8_t)(v >> (i * 8)));
	return true;
}

static const struct pci_class lpc = {
	.name = "lpc",
	.help = "(the PCI-ISA bridge; its devices are -l)",
	.parse = parse,
	.create = create,
	.cfg_read = cfg_read,
	.cfg_write = cfg_write,
};
PCI_CLASS(lpc);
