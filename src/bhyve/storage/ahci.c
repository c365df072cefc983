/*
 * The AHCI controller: PCI function (Intel ICH8), options, generic registers
 * (AHCI 1.3.1 ch. 3.1) and interrupts.
 *
 * Interrupts: a port with an enabled bit in PxIS sets its bit in IS; with INTx the
 * line follows IS, with MSI each new event sends a message - the port's own where
 * the guest enabled enough vectors, else the first.
 */
#include <errno.h>
#include <md5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bhyve/storage/ahci.h"
#include "lib/config.h"
#include "lib/log.h"
#include "vmm/machine.h"

#define DEFAULT_PORTS 6
#define BAR           5
#define PORT_BASE     0x100u
#define PORT_STEP     0x80u

enum { R_CAP = 0x00, R_GHC = 0x04, R_IS = 0x08, R_PI = 0x0c, R_VS = 0x10 };

#define CAP_64        BIT(31)
#define CAP_NCQ       BIT(30)
#define CAP_CLO       BIT(24)
#define CAP_GEN3      (3u << 20)
#define CAP_AHCI      BIT(18)
#define CAP_PIO_MULTI BIT(15)
#define GHC_RESET     BIT(0)
#define GHC_IE        BIT(1)
#define GHC_MRSM      BIT(2)
#define GHC_AE        BIT(31)

/* Sends what is due and sets the INTx line. */
void ahci_update_irq(struct ahci *h)
{
	unsigned vectors = pci_msi_count(h->pci);

	for (unsigned i = 0; i < h->nports; i++) {
		struct ahci_port *p = &h->port[i];

		if ((p->is & p->ie) == 0) {
			p->fire = false;
			continue;
		}
		h->is |= BIT(i);
		if (!p->fire || (h->ghc & GHC_IE) == 0)
			continue;
		p->fire = false;
		if (vectors > 0)
			pci_msi_fire(h->pci, vectors >= h->nports ? i : 0);
	}
	pci_intx(h->pci, (h->ghc & GHC_IE) != 0 && h->is != 0);
}

static void reset(struct ahci *h)
{
	h->ghc = GHC_AE;
	h->is = 0;
	for (unsigned i = 0; i < h->nports; i++)
		ahci_port_reset(&h->port[i]);
}

static uint32_t capabilities(const struct ahci *h)
{
	return CAP_64 | CAP_NCQ | CAP_CLO | CAP_GEN3 | CAP_AHCI | CAP_PIO_MULTI |
	       (AHCI_SLOTS - 1) << 8 | (h->nports - 1);
}

static uint32_t read32(struct ahci *h, unsigned off)
{
	unsigned n = (off - PORT_BASE) / PORT_STEP, vectors;

	if (off >= PORT_BASE)
		return n < h->nports ? ahci_port_read(&h->port[n], off % PORT_STEP)
				     : 0;
	switch (off) {
	case R_CAP:
		return capabilities(h);
	case R_GHC:
		vectors = pci_msi_count(h->pci);
		return h->ghc | (vectors > 0 && vectors < h->nports ? GHC_MRSM : 0);
	case R_IS:
		return h->is;
	case R_PI:
		return h->implemented;
	case R_VS:
		return 0x00010300;
	default:
		return 0;
	}
}

static void write32(struct ahci *h, unsigned off, uint32_t v)
{
	unsigned n = (off - PORT_BASE) / PORT_STEP;

	if (off >= PORT_BASE) {
		if (n < h->nports && (h->implemented & BIT(n)) != 0)
			ahci_port_write(&h->port[n], off % PORT_STEP, v);
	} else if (off == R_GHC && (v & GHC_RESET) != 0) {
		reset(h);
	} else if (off == R_GHC) {
		bool was = (h->ghc & GHC_IE) != 0;

		h->ghc = GHC_AE | (v & GHC_IE);
		for (unsigned i = 0; i < h->nports && !was; i++)
			h->port[i].fire |= (h->port[i].is & h->port[i].ie) != 0;
	} else if (off == R_IS) {
		h->is &= ~v;
		/* What still pends is a new event for whoever cleared the bit. */
		for (unsigned i = 0; i < h->nports; i++)
			if ((v & BIT(i)) != 0)
				h->port[i].fire |=
				    (h->port[i].is & h->port[i].ie) != 0;
	}
	ahci_update_irq(h);
}

static uint64_t bar_read(
    struct pci_dev *dev, int vcpu, int bar, uint64_t off, unsigned size)
{
	struct ahci *h = dev->priv;
	uint64_t v;

	(void)vcpu;
	(void)bar;
	if (size == 8)
		return read32(h, (unsigned)off & ~3u) |
		       (uint64_t)read32(h, ((unsigned)off & ~3u) + 4) << 32;
	v = read32(h, (unsigned)off & ~3u);
	return v >> (off & 3) * 8;
}

static void bar_write(
    struct pci_dev *dev, int vcpu, int bar, uint64_t off, unsigned size, uint64_t v)
{
	struct ahci *h = dev->priv;

	(void)vcpu;
	(void)bar;
	/* Registers are dwords; writes of parts are not defined. */
	if (size < 4 || (off & 3) != 0)
		return;
	write32(h, (unsigned)off, (uint32_t)v);
	if (size == 8)
		write32(h, (unsigned)off + 4, (uint32_t)(v >> 32));
}

static void batch_end(void *arg)
{
	ahci_update_irq(arg);
}

/* Option key of a port, or dflt; NULL: too long for the device (logged). */
static int get_string(struct ahci_port *p, const char *node, const char *key,
    const char *dflt, char *out, size_t size)
{
	const char *text = config_getf(p->hba->pci->cfg, "%s.%s", node, key);

	if (text == NULL)
		text = dflt;
	if (strlen(text) >= size) {
		log_error("%s: port %u: %s=%s has more than %zu characters",
		    p->hba->pci->name, p->n, key, text, size - 1);
		return -EINVAL;
	}
	snprintf(out, size, "%s", text);
	return 0;
}

static int get_identity(struct ahci_port *p, const char *node)
{
	const char *path = config_getf(p->hba->pci->cfg, "%s.path", node);
	char key[160], serial[sizeof(p->serial)];
	uint8_t d[MD5_DIGEST_LENGTH];
	uint64_t rate;
	MD5_CTX md5;

	if (path == NULL)
		path = "";
	MD5Init(&md5);
	MD5Update(&md5, (const uint8_t *)path, strlen(path));
	MD5Final(d, &md5);
	snprintf(serial, sizeof(serial), "BHYVE-%02X%02X-%02X%02X-%02X%02X", d[0],
	    d[1], d[2], d[3], d[4], d[5]);
	snprintf(key, sizeof(key), "%s.nmrr", node);
	if (get_string(p, node, "ser", serial, p->serial, sizeof(p->serial)) != 0 ||
	    get_string(p, node, "rev", "001", p->revision, sizeof(p->revision)) !=
		0 ||
	    get_string(p, node, "model",
		p->kind == AHCI_CD ? "BHYVE SATA DVD ROM" : "BHYVE SATA DISK",
		p->model, sizeof(p->model)) != 0 ||
	    config_get_num(p->hba->pci->cfg, key, 0, 0, 0xffff, &rate) != 0)
		return -EINVAL;
	p->rotation = (uint16_t)rate;
	return 0;
}

static int create_port(struct ahci *h, unsigned n, const char *node)
{
	struct pci_dev *dev = h->pci;
	struct ahci_port *p = &h->port[n];
	const char *type = config_getf(dev->cfg, "%s.type", node);
	const char *path = config_getf(dev->cfg, "%s.path", node);
	bool cd;
	int error;

	if (type == NULL || (strcmp(type, "hd") != 0 && strcmp(type, "cd") != 0)) {
		log_error("%s: port %u: type must be hd or cd", dev->name, n);
		return -EINVAL;
	}
	cd = strcmp(type, "cd") == 0;
	p->kind = cd ? AHCI_CD : AHCI_DISK;
	error = get_identity(p, node);
	/* A drive without a path is empty; a disk has to be something. */
	if (error == 0 && (path != NULL || !cd))
		error = disk_open(&p->disk, dev->m->loop, dev->cfg, node, cd);
	if (error != 0)
		return error;
	if (p->disk != NULL) {
		if (cd && disk_size(p->disk) % 2048 != 0)
			log_warn("%s: is not a whole number of 2048-byte blocks; "
				 "the guest "
				 "does not see the rest",
			    disk_path(p->disk));
		disk_set_batch_end(p->disk, batch_end, h);
	}
	h->implemented |= BIT(n);
	h->nports = MAX(h->nports, n + 1);
	return 0;
}

struct walk {
	struct ahci *h;
	const char *node;
};

static int walk_port(const char *name, void *arg)
{
	struct walk *w = arg;
	char node[80], *end;
	unsigned long n = strtoul(name, &end, 10);

	if (end == name || *end != '\0' || n >= AHCI_MAX_PORTS) {
		log_error("%s: port.%s: ports are 0 to %d", w->h->pci->name, name,
		    AHCI_MAX_PORTS - 1);
		return -EINVAL;
	}
	snprintf(node, sizeof(node), "%.40s.port.%lu", w->node, n);
	return create_port(w->h, (unsigned)n, node);
}

static void destroy(struct pci_dev *dev)
{
	struct ahci *h = dev->priv;

	for (unsigned i = 0; i < AHCI_MAX_PORTS; i++)
		ahci_port_free(&h->port[i]);
	free(h);
}

static int create(struct pci_dev *dev, const char *node)
{
	struct ahci *h = calloc(1, sizeof(*h));
	struct walk w = { h, node };
	unsigned vectors = 1;
	char prefix[64];
	int error;

	if (h == NULL)
		return -ENOMEM;
	dev->priv = h;
	h->pci = dev;
	h->nports = DEFAULT_PORTS;
	for (unsigned i = 0; i < AHCI_MAX_PORTS; i++) {
		h->port[i].hba = h;
		h->port[i].n = i;
	}
	snprintf(prefix, sizeof(prefix), "%.50s.port", node);
	error = config_children(dev->cfg, prefix, walk_port, &w);
	while (vectors < h->nports)
		vectors *= 2;
	pci_identify(dev, 0x8086, 0x2821, 0x01, 0x06, 0x01);
	if (error == 0)
		error = pci_add_msi(dev, vectors);
	if (error == 0)
		error = pci_add_bar(dev, BAR, PCI_BAR_MEM32,
		    MAX(PORT_BASE + h->nports * PORT_STEP, 4096u));
	if (error == 0)
		error = pci_add_intx(dev);
	if (error != 0) {
		destroy(dev);
		return error;
	}
	h->ghc = GHC_AE;
	for (unsigned i = 0; i < h->nports; i++)
		ahci_port_init(&h->port[i]);
	return 0;
}

static int set(struct config *cfg, const char *node, unsigned port, const char *key,
    const char *value)
{
	int error = config_setf(cfg, value, "%s.port.%u.%s", node, port, key);

	if (error != 0)
		log_error(
		    "%s: port %u: \"%s=%s\" cannot be set", node, port, key, value);
	return error;
}

/* One word of the options: a new port, or an option of the last one. */
static int parse_word(struct config *cfg, const char *node, char *word, int *port)
{
	bool hd = strncmp(word, "hd:", 3) == 0, cd = strncmp(word, "cd:", 3) == 0;
	char *value;
	int error;

	if (hd || cd) {
		if (++*port >= AHCI_MAX_PORTS) {
			log_error("%s: more than %d ports", node, AHCI_MAX_PORTS);
			return -EINVAL;
		}
		error = set(cfg, node, (unsigned)*port, "type", hd ? "hd" : "cd");
		if (error == 0 && (hd || word[3] != '\0'))
			error = set(cfg, node, (unsigned)*port, "path", word + 3);
		return error;
	}
	if (*port < 0) {
		log_error("%s: ahci: \"%s\" needs its type in front, as in hd:%s "
			  "or cd:%s",
		    node, word, word, word);
		return -EINVAL;
	}
	value = strchr(word, '=');
	if (value != NULL)
		*value++ = '\0';
	error = pci_check_option(node, DISK_OPTIONS " ser rev model nmrr", word);
	if (error != 0)
		return error;
	return set(
	    cfg, node, (unsigned)*port, word, value != NULL ? value : "true");
}

static int parse(struct config *cfg, const char *node, const char *text)
{
	char *copy = strdup(text != NULL ? text : ""), *rest = copy, *word;
	int port = -1, error = 0;

	if (copy == NULL)
		return -ENOMEM;
	while (error == 0 && (word = strsep(&rest, ",")) != NULL)
		if (*word != '\0')
			error = parse_word(cfg, node, word, &port);
	free(copy);
	return error;
}

/* The aliases: one port, whose type is in the device's name. */
static int parse_alias(
    struct config *cfg, const char *node, const char *text, const char *type)
{
	char *with_type;
	int error;

	if (strcmp(type, "hd") == 0 &&
	    (text == NULL || *text == '\0' || *text == ',')) {
		log_error(
		    "%s: ahci-hd needs a disk image, as in '-s 3,ahci-hd,disk.img'",
		    node);
		return -EINVAL;
	}
	if (asprintf(&with_type, "%s:%s", type, text != NULL ? text : "") < 0)
		return -ENOMEM;
	error = config_setf(cfg, "ahci", "%s.device", node);
	if (error == 0)
		error = parse(cfg, node, with_type);
	free(with_type);
	return error;
}

static int parse_hd(struct config *cfg, const char *node, const char *text)
{
	return parse_alias(cfg, node, text, "hd");
}

static int parse_cd(struct config *cfg, const char *node, const char *text)
{
	return parse_alias(cfg, node, text, "cd");
}

#define AHCI_CLASS(id, class_name, class_help, class_parse)                        \
	static const struct pci_class id = {                                       \
		.name = class_name,                                                \
		.help = class_help,                                                \
		.parse = class_parse,                                              \
		.create = create,                                                  \
		.destroy = destroy,                                                \
		.bar_read = bar_read,                                              \
		.bar_write = bar_write,                                            \
	};                                                                         \
	PCI_CLASS(id)

AHCI_CLASS(ahci, "ahci",
    "hd:path|cd:path[,nmrr=][,ser=][,rev=][,model=][,block options][,hd:...]",
    parse);
AHCI_CLASS(ahci_hd, "ahci-hd", "path[,options as of ahci]", parse_hd);
AHCI_CLASS(ahci_cd, "ahci-cd",
    "[path][,options as of ahci]; no path: an empty drive", parse_cd);
