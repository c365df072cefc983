/*
 * Host bridges: a root with a PCIe capability and no behaviour. bhyve's own
 * identity, or AMD's, which some guests need to believe in the board.
 */
#include <errno.h>
#include <stdlib.h>

#include "bhyve/pci/pci.h"
#include "lib/config.h"
#include "lib/log.h"

static int parse(struct config *cfg, const char *node, const char *text)
{
	int error = pci_parse_options(cfg, node, "vendor devid", text);

	/* The old names of the keys. */
	static const char *const names[][2] = { { "vendor", "vendor" },
		{ "devid", "device" } };

	for (unsigned i = 0; error == 0 && i < ARRAY_SIZE(names); i++) {
		const char *v = config_getf(cfg, "%s.%s", node, names[i][0]);

		if (v != NULL)
			error =
			    config_setf(cfg, v, "%s.pcireg.%s", node, names[i][1]);
	}
	return error;
}

static int get_id(struct pci_dev *dev, const char *node, const char *name,
    uint16_t dflt, uint16_t *out)
{
	const char *text = config_getf(dev->cfg, "%s.pcireg.%s", node, name);
	unsigned long v;
	char *end;

	*out = dflt;
	if (text == NULL)
		return 0;
	v = strtoul(text, &end, 0);
	if (end == text || *end != '\0' || v > 0xffff) {
		log_error("%s: pcireg.%s=%s is not a 16-bit number, as in 0x1275",
		    dev->name, name, text);
		return -EINVAL;
	}
	*out = (uint16_t)v;
	return 0;
}

static int create(struct pci_dev *dev, const char *node)
{
	uint16_t vendor, device;

	if (get_id(dev, node, "vendor", 0x1275, &vendor) != 0 ||
	    get_id(dev, node, "device", 0x1275, &device) != 0)
		return -EINVAL;
	pci_identify(dev, vendor, device, 0x06, 0x00, 0x00);
	return pci_add_pcie_root(dev);
}

static int create_amd(struct pci_dev *dev, const char *node)
{
	(void)node;
	pci_identify(dev, 0x1022, 0x7432, 0x06, 0x00, 0x00);
	return pci_add_pcie_root(dev);
}

static const struct pci_class hostbridge = {
	.name = "hostbridge",
	.help = "[vendor=ID][,devid=ID]",
	.parse = parse,
	.create = create,
};
PCI_CLASS(hostbridge);

static const struct pci_class amd_hostbridge = {
	.name = "amd_hostbridge",
	.help = "",
	.create = create_amd,
};
PCI_CLASS(amd_hostbridge);
