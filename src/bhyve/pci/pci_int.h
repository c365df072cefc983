/*
 * What the files of the PCI bus share. Devices include pci.h only.
 */
#pragma once

#include "bhyve/pci/pci.h"
#include "vmm/machine.h"

#define PCI_VENDOR    0x00
#define PCI_DEVICE    0x02
#define PCI_COMMAND   0x04
#define PCI_STATUS    0x06
#define PCI_REVISION  0x08
#define PCI_PROGIF    0x09
#define PCI_SUBCLASS  0x0a
#define PCI_CLASSCODE 0x0b
#define PCI_HEADER    0x0e
#define PCI_BAR0      0x10
#define PCI_SUBVENDOR 0x2c
#define PCI_SUBDEVICE 0x2e
#define PCI_CAPPTR    0x34
#define PCI_INTLINE   0x3c
#define PCI_INTPIN    0x3d

#define CMD_IO        0x0001
#define CMD_MEM       0x0002
#define CMD_MASTER    0x0004
#define CMD_PARITY    0x0040
#define CMD_SERR      0x0100
#define CMD_INTX_OFF  0x0400
#define STATUS_INTX   0x0008
#define STATUS_CAPS   0x0010
#define STATUS_W1C    0xf900
#define HEADER_MULTI  0x80

#define CAP_MSI       0x05
#define CAP_PCIE      0x10
#define CAP_MSIX      0x11
#define MSI_ENABLE    0x0001
#define MSIX_ENABLE   0x8000
#define MSIX_MASK_ALL 0x4000

#define PCI_PIRQS     8
#define PIRQ_OFF      0x80

struct pci_bus {
	struct machine *m;
	struct pci_dev **fn[256]; /* by slot * 8 + function; NULL: empty bus */
	struct pci_dev *devs;     /* in order of creation */
	uint32_t address;         /* port 0xCF8 */
	unsigned next_gsi;
	unsigned gsi_count[MACHINE_GSIS]; /* devices that assert the pin */
	uint8_t pirq[PCI_PIRQS];          /* routing registers as in PIIX */
	unsigned pirq_count[PCI_PIRQS];
	unsigned pirq_users[PCI_PIRQS];
};

const struct pci_class *pci_class_find(const char *name);

/* pci_bar.c */
void pci_bars_place(struct pci_bus *bus);
/* The command register or a BAR has changed: map and unmap. */
void pci_bars_update(struct pci_dev *dev);
void pci_bars_unmap(struct pci_dev *dev);

/* pci_cfg.c */
uint32_t pci_cfg_read(struct pci_dev *dev, unsigned off, unsigned size);
void pci_cfg_write(struct pci_dev *dev, unsigned off, unsigned size, uint32_t v);
int pci_ports_add(struct pci_bus *bus);

/* pci_msi.c: an access to BAR bar inside the MSI-X structures. True when it was. */
bool pci_msix_read(
    struct pci_dev *dev, int bar, uint64_t off, unsigned size, uint64_t *v);
bool pci_msix_write(
    struct pci_dev *dev, int bar, uint64_t off, unsigned size, uint64_t v);
/* The MSI-X control register has changed: deliver what pends and may. */
void pci_msix_update(struct pci_dev *dev);

/* pci_irq.c */
/* The command register, MSI or MSI-X enable has changed. */
void pci_intx_update(struct pci_dev *dev);
/* Gives each PIRQ in use an ISA interrupt, as firmware would. */
void pci_pirq_init(struct pci_bus *bus);
uint8_t pci_pirq_read(const struct pci_bus *bus, unsigned n);
void pci_pirq_write(struct pci_bus *bus, unsigned n, uint8_t v);
