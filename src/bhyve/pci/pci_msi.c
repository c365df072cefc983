/*
 * Message-signalled interrupts: MSI (PCI 3.0 ch. 6.8.1, 64-bit, no masking) and
 * MSI-X (6.8.2).
 *
 * The MSI-X table and pending bits live in a BAR of the device; accesses to them
 * never reach the device. Invariant: a pending bit is set only while its vector
 * or the whole function is masked.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bhyve/pci/pci_int.h"

#define ENTRY_MASKED 0x1

int pci_add_msi(struct pci_dev *dev, unsigned vectors)
{
	uint8_t body[12] = { 0 };
	unsigned log = 0;
	int cap;

	if (vectors == 0 || vectors > 32 || (vectors & (vectors - 1)) != 0)
		return -EINVAL;
	while (BIT(log) < vectors)
		log++;
	body[0] = (uint8_t)(log << 1 | 0x80);
	cap = pci_add_cap(dev, CAP_MSI, body, 14);
	if (cap < 0)
		return cap;
	dev->msi_cap = (uint8_t)cap;
	dev->wmask[cap + 2] = 0x71;
	memset(&dev->wmask[cap + 4], 0xff, 10);
	dev->wmask[cap + 4] = 0xfc;
	return 0;
}

static uint32_t pba_off(const struct pci_dev *dev)
{
	return dev->msix_off + dev->msix_count * 16;
}

static unsigned pba_words(const struct pci_dev *dev)
{
	return (dev->msix_count + 63) / 64;
}

int pci_add_msix(struct pci_dev *dev, unsigned count, int bar, uint32_t off)
{
	uint8_t body[10];
	int cap;

	if (count == 0 || count > 2048 || bar < 0 || bar > 5 || (off & 7) != 0 ||
	    dev->bar[bar].type == PCI_BAR_NONE || dev->msix_table != NULL)
		return -EINVAL;
	if (off + count * 16 + (count + 63) / 64 * 8 > dev->bar[bar].size)
		return -ENOSPC;
	dev->msix_table = calloc(count, 16);
	dev->msix_pba = calloc((count + 63) / 64, 8);
	if (dev->msix_table == NULL || dev->msix_pba == NULL)
		return -ENOMEM;
	dev->msix_bar = bar;
	dev->msix_off = off;
	dev->msix_count = count;
	for (unsigned i = 0; i < count; i++)
		dev->msix_table[i * 16 + 12] = ENTRY_MASKED;

	uint16_t control = (uint16_t)(count - 1);
	uint32_t table = off | (uint32_t)bar, pba = pba_off(dev) | (uint32_t)bar;

	memcpy(body, &control, 2);
	memcpy(body + 2, &table, 4);
	memcpy(body + 6, &pba, 4);
	cap = pci_add_cap(dev, CAP_MSIX, body, 12);
	if (cap < 0)
		return cap;
	dev->msix_cap = (uint8_t)cap;
	dev->wmask[cap + 3] = (MSIX_ENABLE | MSIX_MASK_ALL) >> 8;
	return 0;
}

bool pci_msi_enabled(const struct pci_dev *dev)
{
	return dev->msi_cap != 0 &&
	       (pci_get16(dev, dev->msi_cap + 2u) & MSI_ENABLE) != 0;
}

bool pci_msix_enabled(const struct pci_dev *dev)
{
	return dev->msix_cap != 0 &&
	       (pci_get16(dev, dev->msix_cap + 2u) & MSIX_ENABLE) != 0;
}

unsigned pci_msi_count(const struct pci_dev *dev)
{
	unsigned control, enabled, capable;

	if (!pci_msi_enabled(dev))
		return 0;
	control = pci_get16(dev, dev->msi_cap + 2u);
	enabled = control >> 4 & 7;
	capable = control >> 1 & 7;
	return BIT(MIN(enabled, capable));
}

void pci_msi_fire(struct pci_dev *dev, unsigned vector)
{
	unsigned count = pci_msi_count(dev);
	uint64_t addr;
	uint32_t data;

	if (count == 0 || !pci_bus_master(dev))
		return;
	if (vector >= count)
		vector = 0;
	addr = pci_get32(dev, dev->msi_cap + 4u) |
	       (uint64_t)pci_get32(dev, dev->msi_cap + 8u) << 32;
	data = pci_get16(dev, dev->msi_cap + 12u);
	machine_msi(dev->m, addr, (data & ~(count - 1)) | vector);
}

static bool masked(const struct pci_dev *dev, unsigned vector)
{
	return (pci_get16(dev, dev->msix_cap + 2u) & MSIX_MASK_ALL) != 0 ||
	       (dev->msix_table[vector * 16 + 12] & ENTRY_MASKED) != 0;
}

static void msix_send(struct pci_dev *dev, unsigned vector)
{
	uint64_t addr;
	uint32_t data;

	memcpy(&addr, &dev->msix_table[vector * 16], 8);
	memcpy(&data, &dev->msix_table[vector * 16 + 8], 4);
	machine_msi(dev->m, addr, data);
}

void pci_msix_fire(struct pci_dev *dev, unsigned vector)
{
	if (vector >= dev->msix_count || !pci_msix_enabled(dev) ||
	    !pci_bus_master(dev))
		return;
	if (masked(dev, vector))
		dev->msix_pba[vector / 64] |= BIT64(vector % 64);
	else
		msix_send(dev, vector);
}

void pci_msix_update(struct pci_dev *dev)
{
	if (!pci_msix_enabled(dev))
		return;
	for (unsigned w = 0; w < pba_words(dev); w++) {
		uint64_t left = dev->msix_pba[w];

		while (left != 0) {
			unsigned bit = (unsigned)__builtin_ctzll(left);
			unsigned vector = w * 64 + bit;

			left &= left - 1;
			if (masked(dev, vector))
				continue;
			dev->msix_pba[w] &= ~BIT64(bit);
			msix_send(dev, vector);
		}
	}
}

bool pci_msix_read(
    struct pci_dev *dev, int bar, uint64_t off, unsigned size, uint64_t *v)
{
	uint32_t table_end = pba_off(dev);
	const uint8_t *from;

	if (dev->msix_table == NULL || bar != dev->msix_bar ||
	    off < dev->msix_off || off >= table_end + pba_words(dev) * 8)
		return false;
	*v = ~UINT64_C(0);
	/* Only aligned dwords and qwords are defined. */
	if ((size != 4 && size != 8) || (off & (size - 1)) != 0)
		return true;
	from = off < table_end ? dev->msix_table + (off - dev->msix_off)
			       : (const uint8_t *)dev->msix_pba + (off - table_end);
	*v = 0;
	memcpy(v, from, size);
	return true;
}

bool pci_msix_write(
    struct pci_dev *dev, int bar, uint64_t off, unsigned size, uint64_t v)
{
	uint32_t table_end = pba_off(dev);
	unsigned vector;

	if (dev->msix_table == NULL || bar != dev->msix_bar ||
	    off < dev->msix_off || off >= table_end + pba_words(dev) * 8)
		return false;
	if ((size != 4 && size != 8) || (off & (size - 1)) != 0 || off >= table_end)
		return true;
	memcpy(dev->msix_table + (off - dev->msix_off), &v, size);
	vector = (unsigned)(off - dev->msix_off) / 16;
	dev->msix_table[vector * 16] &= 0xfc;
	/* All but the mask bit of the vector control is reserved. */
	memset(&dev->msix_table[vector * 16 + 13], 0, 3);
	dev->msix_table[vector * 16 + 12] &= ENTRY_MASKED;
	pci_msix_update(dev);
	return true;
}
