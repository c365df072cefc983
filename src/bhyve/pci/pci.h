/*
 * The PCI bus (config mechanism 1 and ECAM) and what a PCI device is.
 *
 * Life of a device: the bus finds its table entry by the name in -s, create()
 * sets up config space, BARs and MSI(-X), the bus assigns addresses; then
 * reads and writes of its BARs arrive with the machine lock held. destroy() comes
 * after all vCPUs have stopped. Config space is written through pci_set*(); what
 * the guest may change is in a write mask.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/util.h"

struct config;
struct machine;
struct pci_bus;
struct pci_dev;

enum pci_bar_type { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

struct pci_class {
	const char *name; /* as in -s and in key "device" */
	const char *help; /* one line for -s help: its configuration */
	/*
	 * Turns the text after "slot,name," into keys under node; NULL: the device
	 * has no options. 0 or -EINVAL (logged with what would be right).
	 */
	int (*parse)(struct config *cfg, const char *node, const char *text);
	/*
	 * Keys under node, e.g. "pci.0.3.0". 0 or -errno (logged). destroy()
	 * follows only a successful create(), so a failing create() frees what it
	 * made.
	 */
	int (*create)(struct pci_dev *dev, const char *node);
	void (*destroy)(struct pci_dev *dev);
	/* BAR accesses; off + size lies within the BAR. */
	uint64_t (*bar_read)(
	    struct pci_dev *dev, int vcpu, int bar, uint64_t off, unsigned size);
	void (*bar_write)(struct pci_dev *dev, int vcpu, int bar, uint64_t off,
	    unsigned size, uint64_t v);
	/* Optional: config space beyond what the bus does. True when handled. */
	bool (*cfg_read)(
	    struct pci_dev *dev, unsigned off, unsigned size, uint32_t *v);
	bool (*cfg_write)(
	    struct pci_dev *dev, unsigned off, unsigned size, uint32_t v);
};

/* Puts the class into the one device table (a linker section). */
#define PCI_CLASS(c)                                                               \
	static const struct pci_class *const c##_entry                             \
	    __attribute__((used, section("pci_classes"), aligned(8))) = &(c)

struct pci_bar {
	enum pci_bar_type type;
	uint64_t size; /* power of two, >= 16 (MEM) or 4 (IO) */
	uint64_t addr; /* where it is mapped, when it is */
	bool mapped;
	struct pci_dev *dev;
};

struct pci_dev {
	const struct pci_class *cls;
	struct pci_bus *bus;
	struct machine *m;
	const struct config *cfg;
	void *priv; /* the device's own state */
	uint8_t b, s, f;
	char name[32]; /* "0:3:0 virtio-blk" for messages */
	uint8_t config[4096];
	uint8_t wmask[4096]; /* bits the guest may change */
	uint8_t w1c[4096];   /* bits the guest clears by writing one */
	struct pci_bar bar[6];
	/* interrupts */
	unsigned cap_len;          /* of the last capability */
	uint8_t msi_cap, msix_cap; /* offsets, 0: none */
	int msix_bar;
	uint32_t msix_off, msix_count;
	uint8_t *msix_table; /* 16 bytes an entry */
	uint64_t *msix_pba;
	int intx_gsi;       /* IOAPIC pin, -1: no INTx */
	unsigned intx_pirq; /* A-H as 0-7, for the 8259 pair */
	bool intx_level;    /* as the device says */
	bool intx_asserted; /* as the interrupt controllers see it */
	struct pci_dev *next;
};

void pci_set8(struct pci_dev *dev, unsigned off, uint8_t v);
void pci_set16(struct pci_dev *dev, unsigned off, uint16_t v);
void pci_set32(struct pci_dev *dev, unsigned off, uint32_t v);
uint16_t pci_get16(const struct pci_dev *dev, unsigned off);
uint32_t pci_get32(const struct pci_dev *dev, unsigned off);

/* vendor:device, class code, subsystem (0: none), revision. */
void pci_identify(struct pci_dev *dev, uint16_t vendor, uint16_t device,
    uint8_t class, uint8_t subclass, uint8_t progif);
void pci_subsystem(struct pci_dev *dev, uint16_t vendor, uint16_t device);
/* 0 or -EINVAL/-ENOSPC. size is rounded up to a power of two. */
int pci_add_bar(
    struct pci_dev *dev, int bar, enum pci_bar_type type, uint64_t size);
/*
 * Capability of len bytes (id and next included) with its body; returns its offset
 * or -ENOSPC.
 */
int pci_add_cap(struct pci_dev *dev, uint8_t id, const void *body, unsigned len);
int pci_add_msi(struct pci_dev *dev, unsigned vectors); /* power of two, <= 32 */
/* count vectors: table and PBA in BAR bar at offset off. */
int pci_add_msix(struct pci_dev *dev, unsigned count, int bar, uint32_t off);
int pci_add_pcie_root(struct pci_dev *dev);
/* Gives the device an INTx pin. */
int pci_add_intx(struct pci_dev *dev);

bool pci_bus_master(const struct pci_dev *dev);
bool pci_msix_enabled(const struct pci_dev *dev);
bool pci_msi_enabled(const struct pci_dev *dev);
unsigned pci_msi_count(const struct pci_dev *dev); /* vectors the guest enabled */
void pci_msix_fire(struct pci_dev *dev, unsigned vector); /* masked: pends */
void pci_msi_fire(struct pci_dev *dev, unsigned vector);
void pci_intx(struct pci_dev *dev, bool level);

/*
 * DMA: the pointer to len bytes of guest RAM, or NULL (not RAM, or bus mastering
 * off). After writing through it call pci_dma_written(). Device BARs are never
 * a DMA target.
 */
void *pci_dma(struct pci_dev *dev, uint64_t gpa, uint64_t len);
void pci_dma_written(struct pci_dev *dev, uint64_t gpa, uint64_t len);

/*
 * "a=b,c" means node.a=b and node.c=true; only words of known (between blanks) can
 * be set. 0 or -EINVAL (logged).
 */
int pci_parse_options(
    struct config *cfg, const char *node, const char *known, const char *text);
/* 0, or -EINVAL (logged with what there is) when known has no such word. */
int pci_check_option(const char *node, const char *known, const char *name);
/*
 * -s slot,emulation,conf into keys. 0 or -EINVAL (logged); 1: "help" was asked and
 * given.
 */
int pci_parse_slot(struct config *cfg, const char *text);
void pci_print_classes(void);
/* Creates every device of the tree under "pci." and places the BARs. */
int pci_bus_create(struct machine *m, struct pci_bus **bus);
void pci_bus_destroy(struct pci_bus *bus);
/*
 * For ACPI and the MP table: calls fn for each function with an INTx pin (1-4 =
 * A-D). Without a boot ROM its PIRQ is A + (gsi - 16) % 8.
 */
void pci_foreach_intx(struct pci_bus *bus,
    void (*fn)(void *arg, int b, int slot, int pin, int gsi), void *arg);
struct pci_dev *pci_find(struct pci_bus *bus, const char *class_name);

#define PCI_MEM32_BASE UINT64_C(0xC0000000)
#define PCI_MEM32_END  UINT64_C(0xE0000000)
#define PCI_ECAM_BASE  UINT64_C(0xE0000000)
#define PCI_ECAM_SIZE  UINT64_C(0x10000000)
#define PCI_IO_BASE    0x2000u
#define PCI_IO_END     0x10000u
/* 64-bit BARs: 32 GiB from the first 32 GiB boundary above RAM. */
uint64_t pci_mem64_base(const struct machine *m);
