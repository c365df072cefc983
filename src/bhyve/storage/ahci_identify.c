/*
 * IDENTIFY DEVICE and IDENTIFY PACKET DEVICE data (ATA8-ACS ch. 7.16, 7.17):
 * 256 words, strings with the bytes of each word swapped, a checksum at the end.
 */
#include <string.h>

#include "bhyve/storage/ahci.h"

#define MULTIPLE_MAX 128
#define TRIM_BLOCKS  8

static void put_string(
    uint16_t *id, unsigned word, unsigned words, const char *text)
{
	size_t len = strlen(text);

	for (unsigned i = 0; i < words * 2; i++) {
		uint16_t c = i < len ? (uint8_t)text[i] : ' ';

		if ((i & 1) == 0)
			id[word + i / 2] = (uint16_t)(c << 8);
		else
			id[word + i / 2] |= c;
	}
}

static void checksum(uint16_t id[256])
{
	uint8_t sum = 0xa5;

	id[255] = 0x00a5;
	for (unsigned i = 0; i < 255; i++)
		sum += (uint8_t)(id[i] & 0xff) + (uint8_t)(id[i] >> 8);
	id[255] |= (uint16_t)((uint8_t)-sum << 8);
}

/* The supported modes of a transfer kind, and the chosen one. */
static uint16_t modes(const struct ahci_port *p, uint8_t kind, uint16_t supported)
{
	if ((p->transfer_mode & 0xf8) == kind)
		supported |= (uint16_t)(BIT(p->transfer_mode & 7) << 8);
	return supported;
}

static void common(const struct ahci_port *p, uint16_t *id)
{
	put_string(id, 10, 10, p->serial);
	put_string(id, 23, 4, p->revision);
	put_string(id, 27, 20, p->model);
	id[49] = BIT(9) | BIT(8) | BIT(11); /* LBA, DMA, IORDY */
	id[50] = BIT(14);
	id[53] = BIT(1) | BIT(2); /* words 64-70 and 88 are valid */
	id[63] = modes(p, 0x20, 0x07);
	id[64] = 0x03;
	id[65] = id[66] = id[67] = id[68] = 120;
	id[76] = BIT(1) | BIT(2) | BIT(3);
	id[77] = 3 << 1;
	id[80] = 0x1f0; /* ATA/ATAPI-4 to ATA8-ACS */
	id[88] = modes(p, 0x40, 0x7f);
	id[222] = 0x1020; /* SATA 3 */
}

static void capacity(const struct ahci_port *p, uint16_t *id)
{
	uint64_t sectors = disk_size(p->disk) / disk_sector(p->disk);
	uint32_t lba28 = (uint32_t)MIN(sectors, UINT64_C(0x0fffffff));
	uint64_t cylinders = MIN(sectors / (16 * 63), UINT64_C(16383));
	unsigned logical = disk_sector(p->disk), physical = disk_psector(p->disk);

	id[1] = (uint16_t)cylinders;
	id[3] = 16;
	id[6] = 63;
	id[60] = (uint16_t)lba28;
	id[61] = (uint16_t)(lba28 >> 16);
	for (unsigned i = 0; i < 4; i++)
		id[100 + i] = (uint16_t)(sectors >> (16 * i));
	id[106] = BIT(14);
	if (physical > logical)
		id[106] |= (uint16_t)(BIT(13) |
				      (unsigned)__builtin_ctz(physical / logical));
	if (logical > 512) {
		id[106] |= BIT(12);
		id[117] = (uint16_t)(logical / 2);
		id[118] = (uint16_t)(logical / 2 >> 16);
	}
	id[209] = BIT(14);
}

void ahci_identify_disk(const struct ahci_port *p, uint16_t id[256])
{
	memset(id, 0, 512);
	common(p, id);
	capacity(p, id);
	id[0] = 0x0040;
	id[47] = 0x8000 | MULTIPLE_MAX;
	if (p->multiple != 0)
		id[59] = (uint16_t)(BIT(8) | p->multiple);
	id[75] = AHCI_SLOTS - 1;
	id[76] |= BIT(8); /* NCQ */
	/*
	 * SMART, power management, write cache, look-ahead; FLUSH (EXT), LBA48;
	 * GPL.
	 */
	id[82] = BIT(0) | BIT(3) | BIT(5) | BIT(6);
	id[83] = BIT(14) | BIT(13) | BIT(12) | BIT(10);
	id[84] = BIT(14) | BIT(6) | BIT(5); /* WRITE FUA, general purpose logging */
	id[85] = BIT(3) | (p->smart ? BIT(0) : 0) | (p->write_cache ? BIT(5) : 0) |
		 (p->read_ahead ? BIT(6) : 0);
	id[86] = BIT(13) | BIT(12) | BIT(10);
	id[87] = BIT(14) | BIT(6) | BIT(5);
	id[217] = p->rotation;
	if (disk_can_discard(p->disk)) {
		id[69] = BIT(14) | BIT(5); /* trimmed sectors read as zeros */
		id[105] = TRIM_BLOCKS;
		id[169] = BIT(0);
	}
	checksum(id);
}

void ahci_identify_cd(const struct ahci_port *p, uint16_t id[256])
{
	memset(id, 0, 512);
	common(p, id);
	id[0] = 0x85c0; /* packet device, CD/DVD, removable, 12-byte packets */
	id[82] = BIT(4) | BIT(9) | BIT(14);
	id[83] = BIT(14);
	id[84] = BIT(14);
	id[85] = BIT(4) | BIT(9) | BIT(14);
	id[87] = BIT(14);
	checksum(id);
}
