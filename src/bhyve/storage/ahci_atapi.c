/*
 * The CD/DVD drive: PACKET commands of SPC-3 and MMC-5 on a read-only image of
 * 2048-byte blocks. An image with path is a disc in the tray; the guest may eject
 * and load it again.
 */
#include <string.h>

#include "bhyve/storage/ahci.h"

#define BLOCK 2048u
/*
 * As many as READ (10) can ask for: bounds what one command keeps the host busy
 * with.
 */
#define READ_MAX 65535u

enum {
	TEST_UNIT_READY = 0x00, REQUEST_SENSE = 0x03, INQUIRY = 0x12,
	START_STOP = 0x1b, PREVENT_ALLOW = 0x1e, READ_CAPACITY = 0x25,
	READ_10 = 0x28, SEEK_10 = 0x2b, READ_TOC = 0x43, GET_CONFIGURATION = 0x46,
	GET_EVENT_STATUS = 0x4a, READ_DISC_INFO = 0x51, MODE_SENSE_10 = 0x5a,
	REPORT_LUNS = 0xa0, READ_12 = 0xa8,
};

#define KEY_NOT_READY 2
#define KEY_ILLEGAL   5

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 |
	       p[3];
}

static uint16_t get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put_be32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static void put_be16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static bool has_disc(const struct ahci_port *p)
{
	return p->disk != NULL && !p->tray_open;
}

static uint32_t blocks(const struct ahci_port *p)
{
	return has_disc(p) ? (uint32_t)MIN(disk_size(p->disk) / BLOCK, UINT32_MAX)
			   : 0;
}

void ahci_check(struct ahci_cmd *c, uint8_t key, uint8_t asc, uint8_t ascq)
{
	struct ahci_port *p = c->port;

	p->sense_key = key;
	p->asc = asc;
	p->ascq = ascq;
	ahci_fail(c, (uint8_t)(key << 4 | ATA_E_ABRT));
}

static void good(struct ahci_cmd *c)
{
	struct ahci_port *p = c->port;

	p->sense_key = p->asc = p->ascq = 0;
	/* Interrupt reason: command complete. */
	c->cfis[12] = 3;
	ahci_done(c);
}

/* Data, cut to the allocation length of the command. */
static void give(struct ahci_cmd *c, const void *buf, uint64_t len, uint64_t room)
{
	if (ahci_give(c, buf, MIN(len, room)))
		good(c);
}

static void invalid_field(struct ahci_cmd *c)
{
	ahci_check(c, KEY_ILLEGAL, 0x24, 0x00);
}

/* True when there is a disc; else the command has failed. */
static bool need_disc(struct ahci_cmd *c)
{
	if (has_disc(c->port))
		return true;
	/* Medium not present, tray open or closed. */
	ahci_check(c, KEY_NOT_READY, 0x3a, c->port->tray_open ? 0x02 : 0x01);
	return false;
}

static void inquiry(struct ahci_cmd *c)
{
	uint8_t d[36] = { 0x05, 0x80, 0x00, 0x21, 31 };
	uint8_t pages[5] = { 0x05, 0x00, 0, 1, 0x00 };

	if ((c->acmd[1] & 1) != 0) {
		if (c->acmd[2] == 0)
			give(c, pages, sizeof(pages), get_be16(c->acmd + 3));
		else
			invalid_field(c);
		return;
	}
	memcpy(d + 8, "BHYVE   ", 8);
	memcpy(d + 16, "BHYVE DVD-ROM   ", 16);
	memcpy(d + 32, "001 ", 4);
	give(c, d, sizeof(d), get_be16(c->acmd + 3));
}

static void request_sense(struct ahci_cmd *c)
{
	struct ahci_port *p = c->port;
	uint8_t d[18] = { 0x70 };

	d[2] = p->sense_key;
	d[7] = 10;
	d[12] = p->asc;
	d[13] = p->ascq;
	give(c, d, sizeof(d), c->acmd[4]);
}

static void read_capacity(struct ahci_cmd *c)
{
	uint8_t d[8];

	if (!need_disc(c))
		return;
	put_be32(d, blocks(c->port) - 1);
	put_be32(d + 4, BLOCK);
	give(c, d, sizeof(d), sizeof(d));
}

static void read_blocks(struct ahci_cmd *c, uint32_t lba, uint32_t count)
{
	uint32_t have = blocks(c->port);

	if (!need_disc(c))
		return;
	if (lba > have || count > have - lba) {
		ahci_check(
		    c, KEY_ILLEGAL, 0x21, 0x00); /* block address out of range */
		return;
	}
	if (count > READ_MAX) {
		invalid_field(c);
		return;
	}
	if (count == 0) {
		good(c);
		return;
	}
	if (!ahci_map(c, (uint64_t)count * BLOCK))
		return;
	c->cfis[12] = 3;
	c->port->sense_key = c->port->asc = c->port->ascq = 0;
	ahci_disk(c, DISK_READ, (uint64_t)lba * BLOCK, (uint64_t)count * BLOCK);
}

/* An address in a table of contents: blocks, or minute, second, frame from -2 s. */
static void put_address(uint8_t *p, uint32_t lba, bool msf)
{
	if (!msf) {
		put_be32(p, lba);
		return;
	}
	lba += 150;
	p[0] = 0;
	p[1] = (uint8_t)MIN(lba / (75 * 60), 255u);
	p[2] = (uint8_t)(lba / 75 % 60);
	p[3] = (uint8_t)(lba % 75);
}

static void read_toc(struct ahci_cmd *c)
{
	bool msf = (c->acmd[1] & 2) != 0;
	uint8_t format = c->acmd[2] & 15, track = c->acmd[6];
	uint16_t room = get_be16(c->acmd + 7);
	uint8_t d[20] = { 0 };
	unsigned len = 4;

	if (!need_disc(c))
		return;
	/* Old drivers put the format into the last byte. */
	if (format == 0)
		format = c->acmd[9] >> 6;
	d[2] = d[3] = 1;
	switch (format) {
	case 0: /* one data track, and the lead-out as track AAh */
		if (track > 1 && track != 0xaa) {
			invalid_field(c);
			return;
		}
		if (track <= 1) {
			d[len + 1] = 0x14;
			d[len + 2] = 1;
			put_address(d + len + 4, 0, msf);
			len += 8;
		}
		d[len + 1] = 0x14;
		d[len + 2] = 0xaa;
		put_address(d + len + 4, blocks(c->port), msf);
		len += 8;
		break;
	case 1: /* one session */
		d[5] = 0x14;
		d[6] = 1;
		put_address(d + 8, 0, msf);
		len = 12;
		break;
	default:
		invalid_field(c);
		return;
	}
	put_be16(d, (uint16_t)(len - 2));
	give(c, d, len, room);
}

static void start_stop(struct ahci_cmd *c)
{
	struct ahci_port *p = c->port;
	bool open = (c->acmd[4] & 3) == 2, load = (c->acmd[4] & 3) == 3;

	if (open && p->locked) {
		ahci_check(c, KEY_ILLEGAL, 0x53, 0x02); /* removal prevented */
		return;
	}
	if ((open && !p->tray_open) || (load && p->tray_open)) {
		p->tray_open = open;
		p->media_event = true;
	}
	good(c);
}

static void event_status(struct ahci_cmd *c)
{
	struct ahci_port *p = c->port;
	uint8_t d[8] = { 0, 0, 0x80, 0x10 };

	if ((c->acmd[1] & 1) == 0) { /* only polled */
		invalid_field(c);
		return;
	}
	if ((c->acmd[4] & 0x10) == 0) {
		put_be16(d, 2);
		give(c, d, 4, get_be16(c->acmd + 7));
		return;
	}
	put_be16(d, 6);
	d[2] = 0x04;
	d[4] = !p->media_event ? 0 : p->tray_open ? 3 : 2;
	d[5] = (uint8_t)((p->tray_open ? 1 : 0) | (has_disc(p) ? 2 : 0));
	p->media_event = false;
	give(c, d, sizeof(d), get_be16(c->acmd + 7));
}

static unsigned mode_page_error(uint8_t *d)
{
	memset(d, 0, 8);
	d[0] = 0x01;
	d[1] = 0x06;
	d[3] = 5; /* retries */
	return 8;
}

static unsigned mode_page_capabilities(const struct ahci_port *p, uint8_t *d)
{
	memset(d, 0, 20);
	d[0] = 0x2a;
	d[1] = 18;
	d[2] = 0x3b; /* reads CD-R, CD-RW, DVD-ROM, DVD-R, DVD-RAM */
	d[4] = 0x71;
	d[5] = 0x60;
	d[6] = (uint8_t)(0x29 | (p->locked ? 2 : 0)); /* tray, ejects, locks */
	put_be16(d + 8, 706 * 4);
	put_be16(d + 10, 2);
	put_be16(d + 12, 512);
	put_be16(d + 14, 706 * 4);
	return 20;
}

static void mode_sense(struct ahci_cmd *c)
{
	uint8_t page = c->acmd[2] & 0x3f, d[64] = { 0 };
	unsigned len = 8;

	if (c->acmd[2] >> 6 == 3) { /* saved values */
		ahci_check(c, KEY_ILLEGAL, 0x39, 0x00);
		return;
	}
	if (page == 0x01 || page == 0x3f)
		len += mode_page_error(d + len);
	if (page == 0x2a || page == 0x3f)
		len += mode_page_capabilities(c->port, d + len);
	if (len == 8) {
		invalid_field(c);
		return;
	}
	put_be16(d, (uint16_t)(len - 2));
	d[2] = has_disc(c->port) ? 0x01 : 0x70;
	give(c, d, len, get_be16(c->acmd + 7));
}

static void get_configuration(struct ahci_cmd *c)
{
	/* Larger than any CD: it is a DVD. */
	bool dvd = blocks(c->port) > 450000;
	uint16_t profile = !has_disc(c->port) ? 0 : dvd ? 0x10 : 0x08;
	uint16_t first = get_be16(c->acmd + 2);
	uint8_t type = c->acmd[1] & 3;
	uint8_t d[64] = { 0 };
	unsigned len = 8;
	const struct {
		uint16_t code;
		uint8_t flags, len, data[8];
	} features[] = {
		{ 0x0000, 0x03, 8,
		    { 0x00, 0x10, dvd, 0, 0x00, 0x08, has_disc(c->port) && !dvd,
			0 } },
		{ 0x0001, 0x0b, 8, { 0, 0, 0, 0x07, 1, 0, 0, 0 } },
		{ 0x0003, 0x0b, 4, { 0x29, 0, 0, 0 } },
		{ 0x0010, has_disc(c->port) ? 0x01 : 0x00, 8,
		    { 0, 0, 8, 0, 0, 1, 0, 0 } },
	};

	if (type == 3) {
		invalid_field(c);
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		bool current = (features[i].flags & 1) != 0;

		if (type == 2 ? features[i].code != first
			      : features[i].code < first)
			continue;
		if (type == 1 && !current)
			continue;
		put_be16(d + len, features[i].code);
		d[len + 2] = features[i].flags;
		d[len + 3] = features[i].len;
		memcpy(d + len + 4, features[i].data, features[i].len);
		len += 4u + features[i].len;
	}
	put_be32(d, len - 4);
	put_be16(d + 6, profile);
	give(c, d, len, get_be16(c->acmd + 7));
}

static void disc_info(struct ahci_cmd *c)
{
	uint8_t d[34] = { 0 };

	if (!need_disc(c))
		return;
	if ((c->acmd[1] & 7) != 0) {
		invalid_field(c);
		return;
	}
	put_be16(d, sizeof(d) - 2);
	d[2] = 0x0e; /* finished disc, complete session */
	d[3] = d[4] = d[5] = d[6] = 1;
	d[7] = 0x20;
	memset(d + 16, 0xff, 8);
	give(c, d, sizeof(d), get_be16(c->acmd + 7));
}

static void report_luns(struct ahci_cmd *c)
{
	uint8_t d[16] = { 0, 0, 0, 8 };

	give(c, d, sizeof(d), get_be32(c->acmd + 6));
}

void ahci_atapi_start(struct ahci_cmd *c)
{
	const uint8_t *cdb = c->acmd;

	switch (cdb[0]) {
	case TEST_UNIT_READY:
		if (need_disc(c))
			good(c);
		break;
	case REQUEST_SENSE:
		request_sense(c);
		break;
	case INQUIRY:
		inquiry(c);
		break;
	case START_STOP:
		start_stop(c);
		break;
	case PREVENT_ALLOW:
		c->port->locked = (cdb[4] & 1) != 0;
		good(c);
		break;
	case READ_CAPACITY:
		read_capacity(c);
		break;
	case READ_10:
		read_blocks(c, get_be32(cdb + 2), get_be16(cdb + 7));
		break;
	case READ_12:
		read_blocks(c, get_be32(cdb + 2), get_be32(cdb + 6));
		break;
	case SEEK_10:
		if (need_disc(c))
			good(c);
		break;
	case READ_TOC:
		read_toc(c);
		break;
	case GET_CONFIGURATION:
		get_configuration(c);
		break;
	case GET_EVENT_STATUS:
		event_status(c);
		break;
	case READ_DISC_INFO:
		disc_info(c);
		break;
	case MODE_SENSE_10:
		mode_sense(c);
		break;
	case REPORT_LUNS:
		report_luns(c);
		break;
	default:
		ahci_check(c, KEY_ILLEGAL, 0x20, 0x00); /* unknown command */
		break;
	}
}
