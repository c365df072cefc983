/*
 * ATA commands (ATA8-ACS): what a SATA disk does with a command FIS. Also the few
 * that an ATAPI device understands beside PACKET.
 */
#include <stdlib.h>
#include <string.h>

#include "bhyve/storage/ahci.h"

#define TRIM_MAX   (8 * 512u) /* as IDENTIFY word 105 says */
#define TRIM_ENTRY 8u

enum {
	NOP = 0x00, DSM = 0x06, DEVICE_RESET = 0x08, READ_SECTORS = 0x20,
	READ_SECTORS_EXT = 0x24, READ_DMA_EXT = 0x25, READ_MULTIPLE_EXT = 0x29,
	READ_LOG_EXT = 0x2f, WRITE_SECTORS = 0x30, WRITE_SECTORS_EXT = 0x34,
	WRITE_DMA_EXT = 0x35, WRITE_MULTIPLE_EXT = 0x39, WRITE_DMA_FUA_EXT = 0x3d,
	VERIFY = 0x40, VERIFY_EXT = 0x42, READ_LOG_DMA_EXT = 0x47,
	READ_FPDMA = 0x60, WRITE_FPDMA = 0x61, NCQ_NON_DATA = 0x63,
	SEND_FPDMA = 0x64, RECEIVE_FPDMA = 0x65, IDENTIFY_PACKET = 0xa1,
	SMART = 0xb0, READ_MULTIPLE = 0xc4, WRITE_MULTIPLE = 0xc5,
	SET_MULTIPLE = 0xc6, READ_DMA = 0xc8, WRITE_DMA = 0xca,
	WRITE_MULTIPLE_FUA_EXT = 0xce, STANDBY_IMMEDIATE = 0xe0,
	IDLE_IMMEDIATE = 0xe1, STANDBY = 0xe2, IDLE = 0xe3, CHECK_POWER = 0xe5,
	SLEEP = 0xe6, FLUSH = 0xe7, FLUSH_EXT = 0xea, IDENTIFY = 0xec,
	SET_FEATURES = 0xef, SECURITY_FREEZE = 0xf5,
};

bool ahci_is_ncq(uint8_t command)
{
	return command == READ_FPDMA || command == WRITE_FPDMA ||
	       (command >= NCQ_NON_DATA && command <= RECEIVE_FPDMA);
}

void ahci_ata_reset(struct ahci_port *p)
{
	p->multiple = 128;
	p->transfer_mode = 0x46; /* UDMA 6 */
	p->write_cache = p->read_ahead = p->smart = true;
	p->sense_key = p->asc = p->ascq = 0;
	p->locked = false;
}

struct extent {
	uint64_t lba, count;
};

static uint64_t lba28(const uint8_t *f)
{
	return f[4] | (uint32_t)f[5] << 8 | (uint32_t)f[6] << 16 |
	       (uint32_t)(f[7] & 15) << 24;
}

static uint64_t lba48(const uint8_t *f)
{
	return f[4] | (uint32_t)f[5] << 8 | (uint32_t)f[6] << 16 |
	       (uint64_t)f[8] << 24 | (uint64_t)f[9] << 32 | (uint64_t)f[10] << 40;
}

static struct extent extent28(const uint8_t *f)
{
	return (struct extent){ lba28(f), f[12] == 0 ? 256 : f[12] };
}

static struct extent extent48(const uint8_t *f)
{
	unsigned n = f[12] | (unsigned)f[13] << 8;

	return (struct extent){ lba48(f), n == 0 ? 65536 : n };
}

static struct extent extent_ncq(const uint8_t *f)
{
	unsigned n = f[3] | (unsigned)f[11] << 8;

	return (struct extent){ lba48(f), n == 0 ? 65536 : n };
}

/* LBAs have 48 bits and counts 17, so nothing here wraps. */
static bool inside(const struct ahci_port *p, struct extent e)
{
	uint64_t sectors = disk_size(p->disk) / disk_sector(p->disk);

	return e.lba < sectors && e.count <= sectors - e.lba;
}

static void transfer(struct ahci_cmd *c, enum disk_op op, struct extent e)
{
	struct ahci_port *p = c->port;
	uint64_t len = e.count * disk_sector(p->disk);

	if (!inside(p, e)) {
		ahci_fail(c, ATA_E_IDNF | ATA_E_ABRT);
		return;
	}
	if (op == DISK_WRITE && disk_readonly(p->disk)) {
		ahci_fail(c, ATA_E_ABRT);
		return;
	}
	if (!ahci_map(c, len))
		return;
	ahci_disk(c, op, e.lba * disk_sector(p->disk), len);
}

static void pio_transfer(struct ahci_cmd *c, enum disk_op op, struct extent e)
{
	c->pio = op == DISK_READ;
	transfer(c, op, e);
}

static void ncq(struct ahci_cmd *c)
{
	uint8_t command = c->cfis[2];

	if ((c->cfis[12] >> 3) != c->slot ||
	    (command != READ_FPDMA && command != WRITE_FPDMA)) {
		ahci_fail(c, ATA_E_ABRT);
		return;
	}
	c->fua = command == WRITE_FPDMA && (c->cfis[7] & 0x80) != 0;
	transfer(
	    c, command == READ_FPDMA ? DISK_READ : DISK_WRITE, extent_ncq(c->cfis));
}

/* The next range that is not empty; the end of the command when there is none. */
static void trim_next(struct ahci_cmd *c)
{
	struct ahci_port *p = c->port;

	while (c->trim_at < c->trim_len) {
		struct extent e;
		uint64_t v;

		memcpy(&v, c->trim + c->trim_at, TRIM_ENTRY);
		c->trim_at += TRIM_ENTRY;
		e.lba = v & 0xffffffffffff;
		e.count = v >> 48;
		if (e.count == 0)
			continue;
		if (!inside(p, e)) {
			ahci_fail(c, ATA_E_IDNF | ATA_E_ABRT);
			return;
		}
		c->niov = 0;
		ahci_disk(c, DISK_DISCARD, e.lba * disk_sector(p->disk),
		    e.count * disk_sector(p->disk));
		return;
	}
	ahci_done(c);
}

static void trim(struct ahci_cmd *c)
{
	unsigned len = (c->cfis[12] | (unsigned)c->cfis[13] << 8) * 512;

	if (c->cfis[3] != 1 || len == 0 || len > TRIM_MAX ||
	    !disk_can_discard(c->port->disk)) {
		ahci_fail(c, ATA_E_ABRT);
		return;
	}
	free(c->trim);
	c->trim = calloc(1, len);
	if (c->trim == NULL) {
		ahci_fail(c, ATA_E_ABRT);
		return;
	}
	c->trim_at = 0;
	c->trim_len = len;
	if (ahci_take(c, c->trim, len))
		trim_next(c);
}

void ahci_ata_disk_done(struct ahci_cmd *c)
{
	if (c->trim != NULL) {
		/* Nobody waits for the rest of a command that was stopped. */
		if (c->port->stopping || c->port->failed)
			ahci_done(c);
		else
			trim_next(c);
		return;
	}
	/* Only a flush brings a write to the disk itself. */
	if (c->disk.op == DISK_WRITE && (c->fua || !c->port->write_cache)) {
		ahci_disk(c, DISK_FLUSH, 0, 0);
		return;
	}
	ahci_done(c);
}

static void identify(struct ahci_cmd *c, bool packet)
{
	struct ahci_port *p = c->port;
	uint16_t id[256];

	if (packet != (p->kind == AHCI_CD)) {
		ahci_fail(c, ATA_E_ABRT);
		return;
	}
	if (packet)
		ahci_identify_cd(p, id);
	else
		ahci_identify_disk(p, id);
	ahci_pio_in(c, id, sizeof(id));
}

static void set_features(struct ahci_cmd *c)
{
	struct ahci_port *p = c->port;
	bool disk = p->kind == AHCI_DISK;
	uint8_t mode = c->cfis[12];

	switch (c->cfis[3]) {
	case 0x02:
	case 0x82:
		if (disk)
			p->write_cache = c->cfis[3] == 0x02;
		break;
	case 0x55:
	case 0xaa:
		if (disk)
			p->read_ahead = c->cfis[3] == 0xaa;
		break;
	case 0x03: /* PIO default and flow control, multiword DMA 0-2, UDMA 0-6 */
		if (mode < 0x02 || (mode >= 0x08 && mode <= 0x0c) ||
		    (mode >= 0x20 && mode <= 0x22) ||
		    (mode >= 0x40 && mode <= 0x46)) {
			p->transfer_mode = mode;
			break;
		}
		ahci_fail(c, ATA_E_ABRT);
		return;
	case 0x05: /* advanced power management: nothing to save */
	case 0x85:
	case 0x10: /* SATA features */
	case 0x90:
		break;
	default:
		ahci_fail(c, ATA_E_ABRT);
		return;
	}
	/* What was turned off must not be lost. */
	if (c->cfis[3] == 0x82 && disk && !disk_readonly(p->disk)) {
		ahci_disk(c, DISK_FLUSH, 0, 0);
		return;
	}
	ahci_done(c);
}

static void set_multiple(struct ahci_cmd *c)
{
	uint8_t n = c->cfis[12];

	if (n > 128 || (n & (n - 1)) != 0) {
		ahci_fail(c, ATA_E_ABRT);
		return;
	}
	c->port->multiple = n;
	ahci_done(c);
}

void ahci_ncq_log_clear(struct ahci_port *p)
{
	memset(p->ncq_log, 0, sizeof(p->ncq_log));
	p->ncq_log[0] = 0x80; /* no queued command has failed */
	p->ncq_log[511] = 0x80;
}

static void read_log(struct ahci_cmd *c, bool pio)
{
	struct ahci_port *p = c->port;
	uint8_t directory[512] = { 1, 0 };
	uint8_t address = c->cfis[4];
	unsigned page = c->cfis[5] | (unsigned)c->cfis[9] << 8;
	unsigned count = c->cfis[12] | (unsigned)c->cfis[13] << 8;
	const uint8_t *log = NULL;

	directory[0x10 * 2] = 1;
	if (address == 0x00)
		log = directory;
	else if (address == 0x10)
		log = p->ncq_log;
	if (log == NULL || page != 0 || count != 1) {
		ahci_fail(c, ATA_E_ABRT);
		return;
	}
	c->pio = pio;
	if (ahci_give(c, log, 512)) {
		if (address == 0x10)
			ahci_ncq_log_clear(p);
		ahci_done(c);
	}
}

static void smart(struct ahci_cmd *c)
{
	struct ahci_port *p = c->port;
	uint8_t data[512] = { 0x10, 0x00 };
	uint8_t sub = c->cfis[3];

	if (c->cfis[5] != 0x4f || c->cfis[6] != 0xc2 ||
	    (!p->smart && sub != 0xd8)) {
		ahci_fail(c, ATA_E_ABRT);
		return;
	}
	switch (sub) {
	case 0xd0: /* no attributes, no self-test */
	case 0xd1:
		data[511] = (uint8_t)-0x10;
		ahci_pio_in(c, data, sizeof(data));
		break;
	case 0xd2: /* autosave */
	case 0xda: /* status: the two bytes stay as they are while all is well */
		ahci_done(c);
		break;
	case 0xd8:
	case 0xd9:
		p->smart = sub == 0xd8;
		ahci_done(c);
		break;
	default:
		ahci_fail(c, ATA_E_ABRT);
		break;
	}
}

static void verify(struct ahci_cmd *c, struct extent e)
{
	if (inside(c->port, e))
		ahci_done(c);
	else
		ahci_fail(c, ATA_E_IDNF | ATA_E_ABRT);
}

static void flush(struct ahci_cmd *c)
{
	ahci_disk(c, DISK_FLUSH, 0, 0);
}

/* READ and WRITE MULTIPLE need SET MULTIPLE first. */
static void multiple(struct ahci_cmd *c, enum disk_op op, struct extent e)
{
	if (c->port->multiple == 0)
		ahci_fail(c, ATA_E_ABRT);
	else
		pio_transfer(c, op, e);
}

/* Commands for a disk only. */
static void start_disk(struct ahci_cmd *c)
{
	const uint8_t *f = c->cfis;

	switch (f[2]) {
	case READ_DMA:
		transfer(c, DISK_READ, extent28(f));
		break;
	case READ_DMA_EXT:
		transfer(c, DISK_READ, extent48(f));
		break;
	case READ_SECTORS:
	case READ_SECTORS + 1:
		pio_transfer(c, DISK_READ, extent28(f));
		break;
	case READ_SECTORS_EXT:
		pio_transfer(c, DISK_READ, extent48(f));
		break;
	case READ_MULTIPLE:
		multiple(c, DISK_READ, extent28(f));
		break;
	case READ_MULTIPLE_EXT:
		multiple(c, DISK_READ, extent48(f));
		break;
	case WRITE_DMA:
		transfer(c, DISK_WRITE, extent28(f));
		break;
	case WRITE_DMA_FUA_EXT:
		c->fua = true;
		/* fallthrough */
	case WRITE_DMA_EXT:
		transfer(c, DISK_WRITE, extent48(f));
		break;
	case WRITE_SECTORS:
	case WRITE_SECTORS + 1:
		pio_transfer(c, DISK_WRITE, extent28(f));
		break;
	case WRITE_SECTORS_EXT:
		pio_transfer(c, DISK_WRITE, extent48(f));
		break;
	case WRITE_MULTIPLE:
		multiple(c, DISK_WRITE, extent28(f));
		break;
	case WRITE_MULTIPLE_FUA_EXT:
		c->fua = true;
		/* fallthrough */
	case WRITE_MULTIPLE_EXT:
		multiple(c, DISK_WRITE, extent48(f));
		break;
	case VERIFY:
	case VERIFY + 1:
		verify(c, extent28(f));
		break;
	case VERIFY_EXT:
		verify(c, extent48(f));
		break;
	case FLUSH:
	case FLUSH_EXT:
		flush(c);
		break;
	case DSM:
		trim(c);
		break;
	case SET_MULTIPLE:
		set_multiple(c);
		break;
	case READ_LOG_EXT:
	case READ_LOG_DMA_EXT:
		read_log(c, f[2] == READ_LOG_EXT);
		break;
	case SMART:
		smart(c);
		break;
	case SECURITY_FREEZE:
		ahci_done(c);
		break;
	default:
		ahci_fail(c, ATA_E_ABRT);
		break;
	}
}

void ahci_ata_start(struct ahci_cmd *c)
{
	struct ahci_port *p = c->port;

	if (c->ncq) {
		ncq(c);
		return;
	}
	switch (c->cfis[2]) {
	case IDENTIFY:
		identify(c, false);
		break;
	case IDENTIFY_PACKET:
		identify(c, true);
		break;
	case SET_FEATURES:
		set_features(c);
		break;
	case CHECK_POWER:
		c->cfis[12] = 0xff; /* active */
		ahci_done(c);
		break;
	case STANDBY_IMMEDIATE:
	case STANDBY:
	case SLEEP:
		/* The guest may pull the plug next. */
		if (p->kind == AHCI_DISK)
			flush(c);
		else
			ahci_done(c);
		break;
	case IDLE_IMMEDIATE:
	case IDLE:
		ahci_done(c);
		break;
	case DEVICE_RESET:
		if (p->kind == AHCI_CD) {
			ahci_ata_reset(p);
			ahci_done(c);
		} else {
			ahci_fail(c, ATA_E_ABRT);
		}
		break;
	default:
		if (p->kind == AHCI_DISK)
			start_disk(c);
		else
			ahci_fail(c, ATA_E_ABRT);
		break;
	}
}
